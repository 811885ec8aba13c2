"""Hold given centres of cells against the pixels: at a cell an image differs from where there is none.

The images decide, not a segmentation, so no size of nucleus is needed. The brightness at each centre, as a rank among
its field's pixels, is compared with that at the mirrored places of the same field, which have the same light and the
same distance to the border.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.ndimage import uniform_filter

from phenolens.screens.read_image import read_field
from phenolens.screens.screen import FIELD, Screen, where_of

SMOOTHED_PX = 5  # side of the square whose mean is the brightness at a place
LEAST_CELLS = 20  # fewer do not decide
LEAST_Z = 4.0  # of the mean difference over its standard error, in the channel that differs most


@dataclass(frozen=True)
class CentresOnPixels:
    """How the images of some fields differ at the given centres."""

    n_cells: int
    n_fields: int
    channel: str  # the one that differs most
    rank: float  # mean rank of the brightness at the centres among the field's pixels, 0 to 1
    mirrored: float  # the same at the mirrored places
    problem: str  # what is wrong with the centres; empty where nothing is, or where there are too few

    def __str__(self) -> str:
        """One line for a person."""
        few = "; too few to tell whether they fit" if self.n_cells < LEAST_CELLS else ""
        return (
            f"{self.n_cells:,} in {self.n_fields} fields: {self.channel} is brighter there than {self.rank:.0%} of its "
            f"pixels, at the mirrored places {self.mirrored:.0%}{few}"
        )


def centres_on_pixels(screen: Screen, cells: pd.DataFrame, fields: pd.DataFrame) -> CentresOnPixels | None:
    """How the images of `fields` (rows of the screen) differ at the centres of their `cells`; None without a cell."""
    own, mirrored, swapped = [], [], []
    n_fields = 0
    for _, field in fields.iterrows():
        of_field = (cells[FIELD] == field[FIELD].to_list()).all(axis=1)
        y, x = (cells.loc[of_field, name].to_numpy(float) for name in ("y", "x"))
        if not len(y):
            continue
        n_fields += 1
        pixels = read_field(screen.files(field), where=where_of(field))
        height, width = pixels.shape[1:]
        y, x = (np.floor(values + 0.5).astype(int) for values in (y, x))
        flipped_y, flipped_x = height - 1 - y, width - 1 - x
        ranks = [_ranked(channel) for channel in pixels]
        own.append(np.stack([at[y, x] for at in ranks], axis=1))
        places = ((flipped_y, x), (y, flipped_x), (flipped_y, flipped_x))
        mirrored.append(np.stack([np.mean([at[place] for place in places], axis=0) for at in ranks], axis=1))
        inside = (x < height) & (y < width)
        exchanged = np.full(own[-1].shape, np.nan)
        exchanged[inside] = np.stack([at[x[inside], y[inside]] for at in ranks], axis=1)
        swapped.append(exchanged)
    if not own:
        return None
    at_centres, at_mirrored, at_swapped = map(np.concatenate, (own, mirrored, swapped))
    z = np.array([_z(difference) for difference in (at_centres - at_mirrored).T])
    most = int(np.abs(z).argmax())
    rank, there = at_centres.mean(axis=0), float(at_mirrored[:, most].mean())
    off_centre = np.abs(at_swapped - 0.5) - np.abs(at_centres - 0.5)
    better = np.array([_z(difference[np.isfinite(difference)]) for difference in off_centre.T])
    if len(at_centres) < LEAST_CELLS:
        problem = ""
    elif better.max() >= LEAST_Z and better.max() > abs(z[most]):
        at = int(better.argmax())
        swapped_rank = np.nanmean(at_swapped[:, at])
        problem = (
            f"x and y seem to be swapped (channel {screen.channels[at]} is brighter than {rank[at]:.0%} of its pixels "
            f"at the centres, than {swapped_rank:.0%} with x and y swapped)"
        )
    elif abs(z[most]) < LEAST_Z:
        problem = (
            f"no channel differs there from the mirrored places (channel {screen.channels[most]} is brighter than "
            f"{rank[most]:.0%} of its pixels at the centres, than {there:.0%} mirrored)"
        )
    else:
        problem = ""
    return CentresOnPixels(len(at_centres), n_fields, screen.channels[most], float(rank[most]), there, problem)


def _ranked(pixels: npt.NDArray[np.uint16]) -> npt.NDArray[np.float64]:
    """Each pixel's smoothed brightness as its rank among them, 0 to 1."""
    smooth = uniform_filter(pixels.astype(np.float32), SMOOTHED_PX)
    ordered = np.sort(smooth, axis=None)
    return np.searchsorted(ordered, smooth, side="right") / ordered.size


def _z(differences: npt.NDArray[np.floating]) -> float:
    """The mean over its standard error; 0 where there is none."""
    if len(differences) < 2 or not differences.std():
        return 0.0
    return float(differences.mean() / (differences.std(ddof=1) / np.sqrt(len(differences))))
