"""Settings of a realism measurement."""

from dataclasses import dataclass
from typing import Annotated

from phenolens.core.bounds import Bounded, Bounds, Seed
from phenolens.morphology.two_sample_test import LEAST_COMPARED


@dataclass(frozen=True)
class RealismConfig(Bounded):
    """What realism is measured on."""

    cells: Annotated[int, Bounds(ge=LEAST_COMPARED)] = 1000  # measured at most, random ones: half real, half decoded
    seed: Seed = 0  # chooses cells, halves, samples and the classifier's random numbers
    halvings: Annotated[int, Bounds(ge=2)] = 10  # random halves of the cells; a metric's spread is over them
    nuclei: str | None = None  # channel that shows the nuclei; left out: the first whose name says so
