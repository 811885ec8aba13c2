"""Settings of the description of latent features."""

from dataclasses import dataclass
from typing import Annotated

from phenolens.core.bounds import Bounded, Bounds, Count, Seed

LEAST_CELLS = 20


@dataclass(frozen=True)
class FeaturesConfig(Bounded):
    """How latent features are described."""

    measured_cells: Annotated[int, Bounds(ge=LEAST_CELLS)] = 2000  # random cells for KL and correlations
    strips: Count = 24  # features with a strip of images: those that conclusions name, then the most used
    frames: Annotated[int, Bounds(ge=2)] = 5  # of a strip
    shuffles: Annotated[int, Bounds(ge=19)] = 999  # of whole wells: differences of plates and treatments by chance
    feature_seed: Seed = 0  # chooses the cells and the shuffles
