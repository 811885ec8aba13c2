"""Hold given centres of cells against the pixels: at a cell an image differs from where there is none.

The images decide, not a segmentation, so no size of nucleus is needed. The brightness at each centre, as a rank among
its field's pixels, is compared with that at the mirrored places of the same field, which have the same light and the
same distance to the border.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.ndimage import uniform_filter

from phenolens.core.counted import counted
from phenolens.crops.grey_values import SAMPLE, sampled_fields
from phenolens.screens.read_image import read_field
from phenolens.screens.screen import FIELD, Screen, where_of

GIVEN, SWAPPED = "given", "x and y are swapped"
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
            f"{self.n_cells:,} in {counted(self.n_fields, 'field')}: {self.channel} is brighter there than "
            f"{self.rank:.0%} of its pixels, at the mirrored places {self.mirrored:.0%}{few}"
        )

    def refusal(self, source: str) -> str:
        """The line in which centres from `source` that do not fit are refused."""
        return (
            f"{source}: the centres do not fit the images: {self.problem}; {self.n_cells:,} in "
            f"{counted(self.n_fields, 'field')} compared. Correct the columns of y (row) and x (column), or the sites; "
            "--trust-centres takes them as they are"
        )


class CentresHeld:
    """Given centres of cells, held against the pixels of one field after the other.

    Args:
        cells: A row per cell: its field, and its centre y, x.
        channels: Names of the images' channels.
    """

    def __init__(self, cells: pd.DataFrame, channels: Sequence[str]) -> None:
        self.cells, self.channels = cells, channels
        # of each field with cells, the ranks (n, C) at the centres and by each of MISREAD; NaN outside the field
        self.ranks: list[dict[str, npt.NDArray[np.float64]]] = []

    def add(self, field: pd.Series, pixels: npt.NDArray[np.uint16]) -> None:
        """Add a field with its pixels (C, H, W)."""
        of_field = (self.cells[FIELD] == field[FIELD].to_list()).all(axis=1)
        if not of_field.any():
            return
        y, x = (np.floor(self.cells.loc[of_field, name].to_numpy(float) + 0.5).astype(int) for name in ("y", "x"))
        height, width = pixels.shape[1:]
        inside = (x < height) & (y < width)
        places = {
            GIVEN: (y, x),
            "y counts from the bottom": (height - 1 - y, x),
            "x counts from the right": (y, width - 1 - x),
            "y and x count from the other end": (height - 1 - y, width - 1 - x),
            SWAPPED: (np.where(inside, x, 0), np.where(inside, y, 0)),
        }
        ranked = [Ranked(channel) for channel in pixels]
        found = {name: np.stack([ranks[place] for ranks in ranked], axis=1) for name, place in places.items()}
        found[SWAPPED][~inside] = np.nan
        self.ranks.append(found)

    def result(self) -> CentresOnPixels | None:
        """How the images differ at the centres; None without a cell."""
        if not self.ranks:
            return None
        at = {name: np.concatenate([field[name] for field in self.ranks]) for name in self.ranks[0]}
        own = at[GIVEN]
        mirrored = np.mean([ranks for name, ranks in at.items() if name not in (GIVEN, SWAPPED)], axis=0)
        z = _z(own - mirrored)
        most = int(np.abs(z).argmax())
        problem = ""
        if len(own) >= LEAST_CELLS:
            better = {name: _z(_off_centre(at[name]) - _off_centre(own)) for name in at if name != GIVEN}
            misread = max(better, key=lambda name: better[name].max())
            if better[misread].max() >= max(LEAST_Z, np.abs(z).max()):  # else they fit as they are
                most = int(better[misread].argmax())
                there = np.nanmean(at[misread][:, most])
                problem = f"{misread}, it seems: {self._compared(own, most)}, then {there:.0%}"
            elif abs(z[most]) < LEAST_Z:
                problem = (
                    f"no channel differs there from the mirrored places: {self._compared(own, most)}, mirrored "
                    f"{mirrored[:, most].mean():.0%}"
                )
        rank, there = float(own[:, most].mean()), float(mirrored[:, most].mean())
        return CentresOnPixels(len(own), len(self.ranks), self.channels[most], rank, there, problem)

    def _compared(self, own: npt.NDArray[np.float64], channel: int) -> str:
        return f"at the centres {self.channels[channel]} is brighter than {own[:, channel].mean():.0%} of its pixels"


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

    def __getitem__(self, place: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]) -> npt.NDArray[np.float64]:
        return np.searchsorted(self.ordered, self.smooth[place], side="right") / self.ordered.size


def _off_centre(ranks: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.abs(ranks - 0.5)


def _z(differences: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The mean of each column over its standard error, NaN left out; 0 where there is none."""
    n = np.isfinite(differences).sum(axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of columns without a value
        error = np.nanstd(differences, axis=0) / np.sqrt(np.maximum(n - 1, 1))
        return np.where((n > 1) & (error > 0), np.nanmean(differences, axis=0) / np.where(error > 0, error, 1), 0.0)
