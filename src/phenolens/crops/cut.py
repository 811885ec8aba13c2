"""Cut crops out of a field's images, or read them from a set of crops: what a builder of crops asks, plate by plate.

n cells, C channels, S x S pixels. A cell's centre (y, x) is in pixels of its field, the centre of the first pixel is
0, 0. The crop's middle pixel (S // 2, S // 2) is the pixel nearest to the centre, halves upwards: with S = 68 the
centre (599, 1173) takes rows 565 to 632 and columns 1139 to 1206.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from phenolens.core.errors import InputError
from phenolens.crops.illumination import Illumination, correct, load_illumination
from phenolens.crops.read_image import read_field
from phenolens.screens.cropset import CHANNELS_ON_DISK
from phenolens.screens.screen import FIELD, where_of

UInt16Array = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class FieldCutter:
    """Reads a field's images and cuts the crops of its cells."""

    folder: Path  # of the screen's files
    channels: tuple[str, ...]
    size: tuple[int, int]  # height and width that every field has, pixels
    crop_px: int
    first: str  # the field that `size` was read from, in words
    pixel_types: Mapping[str, str]  # of each channel in that field, and in every other
    lights: Mapping[str, Path]  # plate -> its illumination; empty: fields stay as they are

    def __call__(self, rows: pd.DataFrame) -> tuple[UInt16Array, UInt16Array]:
        """The crops (n, C, S, S) of one field's cells, and the same before their light was corrected."""
        where = where_of(rows.iloc[0])
        field = read_field(self._paths(rows.iloc[0]), where=where, pixel_types=self.pixel_types)
        if field.shape[1:] != self.size:
            raise InputError(
                f"{where} is {field.shape[1]} x {field.shape[2]} px, {self.first} is {self.size[0]} x {self.size[1]}; "
                "all fields must have one size"
            )
        y, x = rows["y"].to_numpy(float), rows["x"].to_numpy(float)
        as_given = cut(field, y, x, self.crop_px)
        if not self.lights:
            return as_given, as_given
        path = self.lights[str(rows["plate"].iloc[0])]
        return cut(correct(field, _light(path, path.stat().st_mtime_ns)), y, x, self.crop_px), as_given

    def files(self, rows: pd.DataFrame) -> list[Path]:
        """The images of these rows' fields, and the light that they are corrected with."""
        images = [path for _, field in rows.drop_duplicates(FIELD).iterrows() for path in self._paths(field).values()]
        return images + [self.lights[str(plate)] for plate in rows["plate"].unique() if self.lights]

    def _paths(self, field: pd.Series) -> dict[str, Path]:
        return {channel: self.folder / field[f"file_{channel}"] for channel in self.channels}


@lru_cache(maxsize=2)
def _light(path: Path, changed_ns: int) -> Illumination:  # a file that is made anew is read anew
    return load_illumination(path)[0]


@dataclass(frozen=True)
class CropTaker:
    """Reads the crops of a set, a file a crop."""

    folder: Path  # of the set
    order: list[int]  # the place on disk of each channel
    crop_px: int

    def __call__(self, rows: pd.DataFrame) -> tuple[UInt16Array, UInt16Array]:
        """The crops (n, C, S, S) of these rows, twice: nothing corrects them."""
        crops = np.stack([_read_crop(self.folder / path, self.crop_px) for path in rows["path"]])
        taken = np.ascontiguousarray(crops[..., self.order].transpose(0, 3, 1, 2))
        return taken, taken

    def files(self, rows: pd.DataFrame) -> list[Path]:
        """The file of each crop."""
        return [self.folder / path for path in rows["path"]]


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
    """Whether each crop lies wholly inside a field of `size` (height, width)."""
    fits = np.ones(len(y), dtype=bool)
    for centre, length in ((y, size[0]), (x, size[1])):
        first = first_pixel(centre, crop_px)
        fits &= (first >= 0) & (first + crop_px <= length)
    return fits


def refuse_outside(cells: pd.DataFrame, size: tuple[int, int]) -> None:
    """InputError for a centre that is no number or outside its field of `size` (height, width)."""
    position = np.floor(cells[["y", "x"]].to_numpy(float) + 0.5)
    no_number = ~np.isfinite(position).all(axis=1)
    outside = ~no_number & ((position < 0) | (position >= np.array(size))).any(axis=1)
    for bad, what in ((no_number, "is no number"), (outside, f"is outside the field of {size[0]} x {size[1]} px")):
        if bad.any():
            cell = cells[bad].iloc[0]
            raise InputError(
                f"{where_of(cell)}, object {cell['object_number']}: centre y {cell['y']:g}, x {cell['x']:g} {what} "
                f"({int(bad.sum()):,} such cells); expected pixels, y the row and x the column, from 0. Correct them; "
                "no crop was written."
            )


def _read_crop(path: Path, crop_px: int) -> UInt16Array:
    try:
        crop = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such crop; bring it, or run with --skip-missing") from error
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{path}: not a whole .npy ({error}); replace the file") from error
    if crop.ndim != 3 or crop.shape[2] != len(CHANNELS_ON_DISK) or crop.dtype != np.uint16:
        found = f"{crop.dtype} {' x '.join(map(str, crop.shape))}"
        raise InputError(f"{path}: found {found}, expected uint16 S x S x 3 ({', '.join(CHANNELS_ON_DISK)})")
    if crop.shape[:2] != (crop_px, crop_px):
        raise InputError(
            f"{path}: the crop is {crop.shape[0]} x {crop.shape[1]} px, expected {crop_px} x {crop_px}; give its side "
            "with --crop-px (all crops must have one)"
        )
    return crop
