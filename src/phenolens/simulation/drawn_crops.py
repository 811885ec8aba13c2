"""Simulate crops of one phenotype in memory, to measure the effect of a single parameter.

n cells, 3 channels (DNA, tubulin, actin), S x S px.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from phenolens.simulation.cells import draw_cells, sample_cells
from phenolens.simulation.microscope import acquire, plate_optics
from phenolens.simulation.phenotypes import Phenotype
from phenolens.simulation.screen_design import random_for

FIELD_PX = 460
CELLS_PER_FIELD = 20.0  # mean number of untreated cells


class DrawnCrops(NamedTuple):
    """Cells whose whole crop lies inside the field."""

    crops: np.ndarray  # (n, 3, S, S) uint16, under even illumination
    truth: pd.DataFrame  # (n rows) ground-truth parameters


def drawn_crops(phenotype: Phenotype, *, fields: int, seed: int, crop_px: int = 68) -> DrawnCrops:
    """Simulate cells at the full effect of `phenotype`, all with the same optics.

    With the same seed, two phenotypes that differ in one parameter give paired cells that differ in that parameter
    only, unless it changes how many random numbers are drawn.

    Args:
        phenotype: means of the population.
        fields: number of fields to simulate.
        seed: selects all random numbers.
        crop_px: side length S of a crop.
    """
    crops, truth = [], []
    for field in range(fields):
        rng = random_for(seed, "drawn crops", field)
        cells = sample_cells(
            rng, target=phenotype, strength=1.0, n_expected=CELLS_PER_FIELD, height_px=FIELD_PX, width_px=FIELD_PX
        )
        light = draw_cells(cells, rng, seed=seed, height_px=FIELD_PX, width_px=FIELD_PX)
        image = acquire(light, plate_optics(rng, rng, batch_effect=0, unevenness=0), rng, noise=1)
        top, left = (np.rint(cells[axis]).astype(int) - crop_px // 2 for axis in ("y_px", "x_px"))
        inside = top.between(0, FIELD_PX - crop_px) & left.between(0, FIELD_PX - crop_px)
        corners = list(zip(top[inside], left[inside], strict=True))
        crops += [image[:, y : y + crop_px, x : x + crop_px] for y, x in corners]
        truth.append(cells[inside])
    return DrawnCrops(
        np.reshape(crops, (-1, 3, crop_px, crop_px)).astype(np.uint16), pd.concat(truth, ignore_index=True)
    )
