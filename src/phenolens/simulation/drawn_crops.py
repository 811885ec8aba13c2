"""Crops of cells drawn straight from a phenotype, without a screen on disk: what one parameter alone does to pictures.

n cells, 3 channels (DNA, tubulin, actin), S x S px.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from phenolens.simulation.cells import draw_cells, sample_cells
from phenolens.simulation.microscope import photograph, plate_optics
from phenolens.simulation.phenotypes import Phenotype
from phenolens.simulation.screen_design import random_for

FIELD_PX = 460
CELLS_A_FIELD = 20.0  # of untreated cells, on average


class DrawnCrops(NamedTuple):
    """Cells that lie so far within their fields that a whole crop can be cut around them."""

    crops: np.ndarray  # (n, 3, S, S) uint16, as a camera without uneven light gives them
    truth: pd.DataFrame  # (n rows) what each cell was drawn with


def drawn_crops(phenotype: Phenotype, *, fields: int, seed: int, crop_px: int = 68) -> DrawnCrops:
    """Cells of this phenotype under its full effect, from so many fields, all under the same optics.

    The same seed gives the same cells, so two phenotypes that differ in one parameter give cells that differ in it,
    as far as it draws no other random numbers.
    """
    crops, truth = [], []
    for field in range(fields):
        rng = random_for(seed, "drawn crops", field)
        cells = sample_cells(
            rng, target=phenotype, strength=1.0, n_expected=CELLS_A_FIELD, height_px=FIELD_PX, width_px=FIELD_PX
        )
        light = draw_cells(cells, rng, seed=seed, height_px=FIELD_PX, width_px=FIELD_PX)
        image = photograph(light, plate_optics(rng, rng, batch_effect=0, unevenness=0), rng, noise=1)
        top, left = (np.rint(cells[axis]).astype(int) - crop_px // 2 for axis in ("y_px", "x_px"))
        inside = top.between(0, FIELD_PX - crop_px) & left.between(0, FIELD_PX - crop_px)
        places = list(zip(top[inside], left[inside], strict=True))
        crops += [image[:, y : y + crop_px, x : x + crop_px] for y, x in places]
        truth.append(cells[inside])
    return DrawnCrops(
        np.reshape(crops, (-1, 3, crop_px, crop_px)).astype(np.uint16), pd.concat(truth, ignore_index=True)
    )
