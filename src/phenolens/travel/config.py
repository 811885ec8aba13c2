"""What a travel is asked to be, each setting with its sentence."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from phenolens.core.errors import InputError, at_least, at_most
from phenolens.morphology.medoids import MedoidsBy
from phenolens.runs.latent_path import Way

MOST_FRAMES = 1000  # more than an eye tells apart


@dataclass(frozen=True)
class TravelConfig:
    """Which way a cell takes to which treatment."""

    to: str  # a compound, or a compound at a dose in µM, such as taxol@0.3; without a dose: its highest
    start: str | None = None  # id of the real cell to start from; left out: the control cell nearest to their mean
    # swap: the features that differ most are copied from the target first, as in the paper; line: all features at
    # once; direction: along the treatment's mean minus the controls' mean, added to the real start
    way: Way = "swap"
    frames: int = 9  # pictures on the way, start and end included
    up_the_doses: bool = False  # through every lower dose of the compound on the way
    # mean: to the cell nearest to the mean of the treatment's cells; medoids: one travel to each of its populations,
    # where the mean of a mixed population is like none of them
    targets: Literal["mean", "medoids"] = "mean"
    medoids: int = 3  # populations, with --targets medoids
    # what cells of one population are alike in: the measures of their nucleus, all measures, or the embedding
    medoids_by: MedoidsBy = "nucleus"
    beyond: float = 1.0  # with --way direction: how far to go, 1 being the treatment's mean
    seed: int = 0  # of the cells that are drawn where there are too many to take all

    def __post_init__(self) -> None:
        """InputError on a number that cannot be, and on choices that do not go together."""
        at_least("--frames", self.frames, 2)
        at_most("--frames", self.frames, MOST_FRAMES)
        at_least("--medoids", self.medoids, 1)
        at_least("--seed", self.seed, 0)
        if not 0 < self.beyond < np.inf:
            raise InputError(f"--beyond {self.beyond}: expected a finite number above 0")
        if self.beyond != 1 and (self.way != "direction" or self.up_the_doses):
            raise InputError(f"--beyond {self.beyond}: goes with --way direction, and not with --up-the-doses")
        if self.up_the_doses and self.targets == "medoids":
            raise InputError("--up-the-doses: goes with --targets mean; populations of two doses have no common order")
