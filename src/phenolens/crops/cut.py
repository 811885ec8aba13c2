"""Cut crops around cells' centres out of the images of their field.

n cells, C channels, S x S pixels. A cell's centre (y, x) is in pixels of its field, the centre of the first pixel is
0, 0. The crop's middle pixel (S // 2, S // 2) is the pixel nearest to the centre, halves upwards: with S = 68 the
centre (599, 1173) takes rows 565 to 632 and columns 1139 to 1206.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from phenolens.core.errors import InputError
from phenolens.crops.illumination import Illumination, correct, load_illumination
from phenolens.screens.read_image import read_field
from phenolens.screens.screen import FIELD, where_of

UInt16Array = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class FieldCutter:
    """Reads a field's images and cuts the crops of its cells."""

    folder: Path  # of the screen's files
    size: tuple[int, int]  # height and width of every field, pixels
    first: str  # the field that `size` was read from, for messages
    pixel_types: Mapping[str, str]  # channel -> the type of its pixels in every field
    illuminations: Mapping[str, Path] = field(default_factory=dict)  # plate -> file; empty: fields are not corrected

    def __call__(self, rows: pd.DataFrame, crop_px: int | None) -> tuple[UInt16Array, UInt16Array]:
        """The crops (n, C, S, S) of one field's cells, and the same before their light was corrected."""
        assert crop_px is not None
        where = where_of(rows.iloc[0])
        pixels = read_field(self._paths(rows.iloc[0]), where=where, pixel_types=self.pixel_types)
        if pixels.shape[1:] != self.size:
            raise InputError(
                f"{where} is {pixels.shape[1]} x {pixels.shape[2]} px, {self.first} is {self.size[0]} x "
                f"{self.size[1]}; all fields must have one size"
            )
        y, x = rows["y"].to_numpy(float), rows["x"].to_numpy(float)
        as_given = cut(pixels, y, x, crop_px)
        if not self.illuminations:
            return as_given, as_given
        path = self.illuminations[str(rows["plate"].iloc[0])]
        return cut(correct(pixels, _loaded(path, path.stat().st_mtime_ns)), y, x, crop_px), as_given

    def files(self, rows: pd.DataFrame) -> list[Path]:
        """The images of these rows' fields, and the illumination that they are corrected with."""
        images = [path for _, field in rows.drop_duplicates(FIELD).iterrows() for path in self._paths(field).values()]
        return images + [self.illuminations[str(plate)] for plate in rows["plate"].unique() if self.illuminations]

    def _paths(self, field: pd.Series) -> dict[str, Path]:
        return {channel: self.folder / field[f"file_{channel}"] for channel in self.pixel_types}


@lru_cache(maxsize=2)
def _loaded(path: Path, changed_ns: int) -> Illumination:  # a file that changed is read again
    return load_illumination(path)[0]


def cut(
    field: UInt16Array, y: npt.NDArray[np.floating], x: npt.NDArray[np.floating], crop_px: int
) -> npt.NDArray[np.uint16]:
    """The windows of (C, H, W) around n centres: (n, C, S, S). The windows must lie inside the field."""
    top, left = first_pixel(y, crop_px), first_pixel(x, crop_px)
    windows = np.lib.stride_tricks.sliding_window_view(field, (crop_px, crop_px), axis=(1, 2))
    return np.ascontiguousarray(windows[:, top, left].swapaxes(0, 1))


def first_pixel(centre: npt.NDArray[np.floating], crop_px: int) -> npt.NDArray[np.int64]:
    """The first row (or column) of the crop around each centre."""
    return np.floor(centre + 0.5).astype(np.int64) - crop_px // 2


def fits_inside(
    y: npt.NDArray[np.floating], x: npt.NDArray[np.floating], size: tuple[int, int], crop_px: int
) -> npt.NDArray[np.bool_]:
    """Whether each crop lies inside a field of `size` (height, width)."""
    fits = np.ones(len(y), dtype=bool)
    for centre, length in ((y, size[0]), (x, size[1])):
        first = first_pixel(centre, crop_px)
        fits &= (first >= 0) & (first + crop_px <= length)
    return fits


def refuse_outside(cells: pd.DataFrame, size: tuple[int, int]) -> None:
    """InputError for a centre that is not a number or outside its field of `size` (height, width)."""
    position = np.floor(cells[["y", "x"]].to_numpy(float) + 0.5)
    no_number = ~np.isfinite(position).all(axis=1)
    outside = ~no_number & ((position < 0) | (position >= np.array(size))).any(axis=1)
    for bad, what in ((no_number, "is not a number"), (outside, f"is outside the field of {size[0]} x {size[1]} px")):
        if bad.any():
            cell = cells[bad].iloc[0]
            raise InputError(
                f"{where_of(cell)}, object {cell['object_number']}: centre y {cell['y']:g}, x {cell['x']:g} {what} "
                f"({int(bad.sum()):,} such cells); expected pixels, y the row and x the column, from 0. Correct them; "
                "no crop was written."
            )
