"""Hold given centres of cells against the pixels: at a cell an image differs from where there is none.

The images decide, not a segmentation, so no size of nucleus is needed. The brightness at each centre, as a rank among
its field's pixels, is compared with that at the mirrored places of the same field, which have the same light and the
same distance to the border.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.ndimage import uniform_filter

from phenolens.crops.grey_values import SAMPLE, sampled_fields
from phenolens.screens.read_image import read_field
from phenolens.screens.screen import FIELD, Screen, where_of

Ranks = npt.NDArray[np.float64]

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


class CentresHeld:
    """Given centres of cells, held against the pixels of one field after the other.

    Args:
        cells: A row per cell: its field, and its centre y, x.
        channels: Names of the images' channels.
    """

    def __init__(self, cells: pd.DataFrame, channels: Sequence[str]) -> None:
        self.cells, self.channels = cells, channels
        self.own: list[Ranks] = []  # of each field with cells: (n, C)
        self.mirrored: list[Ranks] = []
        self.swapped: list[Ranks] = []  # NaN where the swapped place is outside the field

    def add(self, field: pd.Series, pixels: npt.NDArray[np.uint16]) -> None:
        """Add a field with its pixels (C, H, W)."""
        of_field = (self.cells[FIELD] == field[FIELD].to_list()).all(axis=1)
        if not of_field.any():
            return
        y, x = (np.floor(self.cells.loc[of_field, name].to_numpy(float) + 0.5).astype(int) for name in ("y", "x"))
        height, width = pixels.shape[1:]
        ranks = [Ranked(channel) for channel in pixels]
        self.own.append(np.stack([at[y, x] for at in ranks], axis=1))
        flipped_y, flipped_x = height - 1 - y, width - 1 - x
        places = ((flipped_y, x), (y, flipped_x), (flipped_y, flipped_x))
        self.mirrored.append(np.stack([np.mean([at[place] for place in places], axis=0) for at in ranks], axis=1))
        inside = (x < height) & (y < width)
        exchanged = np.full(self.own[-1].shape, np.nan)
        exchanged[inside] = np.stack([at[x[inside], y[inside]] for at in ranks], axis=1)
        self.swapped.append(exchanged)

    def result(self) -> CentresOnPixels | None:
        """How the images differ at the centres; None without a cell."""
        if not self.own:
            return None
        own, mirrored, swapped = map(np.concatenate, (self.own, self.mirrored, self.swapped))
        z = np.array([_z(difference) for difference in (own - mirrored).T])
        most = int(np.abs(z).argmax())
        rank, there = own.mean(axis=0), float(mirrored[:, most].mean())
        farther = np.abs(swapped - 0.5) - np.abs(own - 0.5)
        better = np.array([_z(difference[np.isfinite(difference)]) for difference in farther.T])
        problem = ""
        if len(own) >= LEAST_CELLS and better.max() >= LEAST_Z and better.max() > abs(z[most]):
            at = int(better.argmax())
            problem = (
                f"x and y seem to be swapped (channel {self.channels[at]} is brighter than {rank[at]:.0%} of its "
                f"pixels at the centres, than {np.nanmean(swapped[:, at]):.0%} with x and y swapped)"
            )
        elif len(own) >= LEAST_CELLS and abs(z[most]) < LEAST_Z:
            problem = (
                f"no channel differs there from the mirrored places (channel {self.channels[most]} is brighter than "
                f"{rank[most]:.0%} of its pixels at the centres, than {there:.0%} mirrored)"
            )
        return CentresOnPixels(len(own), len(self.own), self.channels[most], float(rank[most]), there, problem)


def hold_centres(screen: Screen, cells: pd.DataFrame) -> CentresOnPixels | None:
    """How the given centres of cells lie on the pixels of a sample of the fields."""
    held = CentresHeld(cells, screen.channels)
    for _, row in sampled_fields(screen, SAMPLE).iterrows():
        held.add(row, read_field(screen.files(row), where=where_of(row)))
    return held.result()


class Ranked:
    """The smoothed brightness of pixels (H, W), each place's as its rank among all, 0 to 1."""

    def __init__(self, pixels: npt.NDArray[np.uint16]) -> None:
        self.smooth = uniform_filter(pixels.astype(np.float32), SMOOTHED_PX)
        self.ordered = np.sort(self.smooth, axis=None)

    def __getitem__(self, place: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]) -> Ranks:
        return np.searchsorted(self.ordered, self.smooth[place], side="right") / self.ordered.size


def _z(differences: npt.NDArray[np.floating]) -> float:
    """The mean over its standard error; 0 where there is none."""
    if len(differences) < 2 or not differences.std():
        return 0.0
    return float(differences.mean() / (differences.std(ddof=1) / np.sqrt(len(differences))))
