"""Settings of the report."""

from dataclasses import dataclass
from typing import Annotated

from phenolens.core.bounds import Bounded, Bounds, Count, Seed


@dataclass(frozen=True)
class ReportConfig(Bounded):
    """What the report shows."""

    run: str | None = None  # the run that is pictured; left out: the first flow decoder, else VAE+, VAE, AE
    compounds: tuple[str, ...] = ()  # to interpolate to, or COMPOUND@DOSE; left out: the strongest of three mechanisms
    shown_cells: Count = 8  # cells in a row of pictures
    frames: Annotated[int, Bounds(ge=2)] = 7  # of an interpolation
    picture_seed: Seed = 0  # chooses the cells that are shown
