"""Settings of a travel, an interpolation of a control cell towards a treatment."""

from dataclasses import dataclass
from typing import Annotated, Literal

from phenolens.core.bounds import Bounded, Bounds, Count, Positive, Seed
from phenolens.core.errors import InputError
from phenolens.morphology.config import MedoidsBy
from phenolens.runs.latent_path import Interpolation


@dataclass(frozen=True)
class TravelConfig(Bounded):
    """From which cell to which treatment, and how."""

    to: str  # a compound, or a compound at a dose in µM, such as taxol@0.3; without a dose: its highest
    start: str | None = None  # id of the real cell to start from; left out: the control cell nearest to their mean
    # swap: the features that differ most are copied from the target first, as in the paper; line: all features at
    # once; direction: the treatment's mean minus that of the controls of its plates, added to the real start
    way: Interpolation = "swap"
    frames: Annotated[int, Bounds(ge=2, le=1000)] = 9  # decoded frames, start and end included
    up_the_doses: bool = False  # through every lower dose of the compound
    # mean: to the cell nearest to the mean of the treatment's cells; medoids: to each of its populations, for mixed
    # treatments whose mean resembles none of their cells
    targets: Literal["mean", "medoids"] = "mean"
    medoids: Count = 3  # populations, with --targets medoids
    # by what cells are grouped into populations: measures of the nucleus, all measures, or the embedding
    medoids_by: MedoidsBy = "nucleus"
    beyond: Positive = 1.0  # with --way direction: how far to go, 1 being the treatment's mean
    # frames are the real start plus what the decoder changes from the first frame on, for decoders that cannot keep a
    # real cell themselves
    residual: bool = False
    moved_cells: Annotated[int, Bounds(ge=2)] = 32  # control cells moved alike, on which the change is measured
    seed: Seed = 0  # of random samples of cells

    def __post_init__(self) -> None:
        """Validates the settings."""
        super().__post_init__()
        if self.beyond != 1 and (self.way != "direction" or self.up_the_doses):
            raise InputError(f"--beyond {self.beyond}: requires --way direction, and not --up-the-doses")
        if self.up_the_doses and self.targets == "medoids":
            raise InputError("--up-the-doses: requires --targets mean; populations of two doses do not correspond")
