"""Draw the cells of a field as light: bodies and nuclei first, then what runs through them.

Channels in the order DNA, tubulin, actin. What blurs and records the light is the camera's matter.
"""

import numpy as np
import pandas as pd

from phenolens.screen.cell_bodies import Light, paint_bodies
from phenolens.screen.cell_filaments import draw_filaments
from phenolens.screen.cell_population import MARGIN_PX


def draw_cells(cells: pd.DataFrame, rng: np.random.Generator, *, height_px: int, width_px: int, seed: int) -> Light:
    """Draw the cells of `sample_cells`; `seed` chooses the bank of textures that all fields of a screen share."""
    shape = (3, height_px + 2 * MARGIN_PX, width_px + 2 * MARGIN_PX)
    light = Light(np.zeros(shape, np.float32), np.zeros(shape, np.float32))
    y, x = cells["y_px"].to_numpy() + MARGIN_PX, cells["x_px"].to_numpy() + MARGIN_PX
    bodies = paint_bodies(cells, rng, light, y=y, x=x, seed=seed)
    draw_filaments(cells, rng, light, bodies)
    return light
