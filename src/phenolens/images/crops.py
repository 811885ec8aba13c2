"""Cut single-cell crops from fields of view, or take them over from a set of crops, into a CropStore.

n cells, C channels, S x S pixels. A cell's centre (y, x) is in pixels of its field, the centre of the first pixel is
0, 0. The crop's middle pixel (S // 2, S // 2) is the pixel nearest to the centre, halves upwards: with S = 68 the
centre (599, 1173) takes rows 565 to 632 and columns 1139 to 1206.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from phenolens.errors import InputError
from phenolens.images.build import FIELD, UInt16Array, build_store
from phenolens.images.config import CropConfig
from phenolens.images.fields import field_size, read_field
from phenolens.images.store import CropStore
from phenolens.screen.bbbc021 import read_bbbc021
from phenolens.screen.centres import DEFAULT_NAME, read_centres
from phenolens.screen.cropset import CHANNELS_ON_DISK, read_cropset
from phenolens.screen.table import COLUMNS, Screen, treatment_name
from phenolens.workers import ONE, AtOnce

LAYOUTS = ("bbbc021", "cropset")


def make_crops(
    source: Path, folder: Path, *, layout: str, config: CropConfig | None = None, at_once: AtOnce = ONE
) -> CropStore:
    """The CropStore of a source folder as it was downloaded: BBBC021 with a table of nuclei, or the crop set."""
    config = config or CropConfig()
    choice = {
        "treatments": config.treatments,
        "plates": config.plates,
        "wells": config.wells,
        "sites": config.sites,
        "skip_missing": config.skip_missing,
    }
    if layout == "bbbc021":
        screen = read_bbbc021(source, images=source, **choice)  # type: ignore[arg-type]
        return cut_crops(
            screen, read_centres(Path(source) / DEFAULT_NAME, screen), folder, config=config, at_once=at_once
        )
    if layout == "cropset":
        screen, cells = read_cropset(source, **choice)  # type: ignore[arg-type]
        return take_over_crops(screen, cells, folder, config=config, at_once=at_once)
    raise InputError(f'layout "{layout}" is not known; expected {" or ".join(LAYOUTS)}')


def cut_crops(
    screen: Screen, centres: pd.DataFrame, folder: Path, *, config: CropConfig | None = None, at_once: AtOnce = ONE
) -> CropStore:
    """Cut a crop around each centre (`plate`, `well`, `site`, `object_number`, `y`, `x`) that lies far enough inside.

    Cells whose crop would leave the field are left out and counted by plate. Raises InputError, before anything is
    written, for a screen without images, a centre that is no number or outside its field, and a treatment without a
    crop (with `config.skip_missing` it is left out and counted); later for a file that cannot be read and for fields
    of unequal size.
    """
    config = config or CropConfig()
    files = [f"file_{channel}" for channel in screen.channels]
    missing = [name for name in files if name not in screen.table.columns]
    if missing:
        raise InputError(f"the screen names no images (no column {missing[0]}); read it with its folder of images")
    cells = _with_fields(centres, screen, columns=[*COLUMNS, *files])
    size = _size_of_fields(screen, cells, config.crop_px)
    _refuse_centres(cells, size)
    fits = fits_inside(cells["y"].to_numpy(float), cells["x"].to_numpy(float), size, config.crop_px)
    n_at_border = {str(plate): int(n) for plate, n in cells["plate"][~fits].value_counts().items()}
    cells = cells[fits].reset_index(drop=True)
    left_out = _without_cells(screen, cells, config)
    read = FieldCutter(screen.folder, screen.channels, size, config.crop_px, first=_where(cells.iloc[0]))
    return build_store(
        folder,
        screen,
        cells,
        read=read,
        n_at_border=n_at_border,
        left_out=left_out,
        config=config,
        at_once=at_once,
    )


@dataclass(frozen=True)
class FieldCutter:
    """Reads a field's images and cuts the crops of its cells."""

    folder: Path  # of the screen's files
    channels: tuple[str, ...]
    size: tuple[int, int]  # height and width that every field has, pixels
    crop_px: int
    first: str  # the field that `size` was read from, in words

    def __call__(self, rows: pd.DataFrame) -> UInt16Array:
        """The crops (n, C, S, S) of one field's cells."""
        where = _where(rows.iloc[0])
        field = read_field(self._paths(rows.iloc[0]), where=where)
        if field.shape[1:] != self.size:
            raise InputError(
                f"{where} is {field.shape[1]} x {field.shape[2]} px, {self.first} is {self.size[0]} x {self.size[1]}; "
                "all fields must have one size"
            )
        return cut(field, rows["y"].to_numpy(float), rows["x"].to_numpy(float), self.crop_px)

    def files(self, rows: pd.DataFrame) -> list[Path]:
        """The images of these rows' fields."""
        return [path for _, field in rows.drop_duplicates(FIELD).iterrows() for path in self._paths(field).values()]

    def _paths(self, field: pd.Series) -> dict[str, Path]:
        return {channel: self.folder / field[f"file_{channel}"] for channel in self.channels}


def take_over_crops(
    screen: Screen, cells: pd.DataFrame, folder: Path, *, config: CropConfig | None = None, at_once: AtOnce = ONE
) -> CropStore:
    """Bring the crops of a crop set (`cells`: field, `object_number`, `path`) together, channels in the screen's order.

    Raises InputError for a treatment without a crop, and for a crop that cannot be read or is not S x S with the set's
    three channels.
    """
    config = config or CropConfig()
    cells = _with_fields(cells.assign(y=np.nan, x=np.nan), screen, columns=[*COLUMNS], more=["path"])
    left_out = _without_cells(screen, cells, config)
    order = [CHANNELS_ON_DISK.index(channel) for channel in screen.channels]
    read = CropTaker(screen.folder, order, config.crop_px)
    return build_store(
        folder, screen, cells, read=read, n_at_border={}, left_out=left_out, config=config, at_once=at_once
    )


@dataclass(frozen=True)
class CropTaker:
    """Reads the crops of a set, a file a crop."""

    folder: Path  # of the set
    order: list[int]  # the place on disk of each channel
    crop_px: int

    def __call__(self, rows: pd.DataFrame) -> UInt16Array:
        """The crops (n, C, S, S) of these rows."""
        crops = np.stack([_read_crop(self.folder / path, self.crop_px) for path in rows["path"]])
        return np.ascontiguousarray(crops[..., self.order].transpose(0, 3, 1, 2))

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


def _with_fields(
    cells: pd.DataFrame, screen: Screen, *, columns: list[str], more: list[str] | None = None
) -> pd.DataFrame:
    """The cells that lie in the screen's fields, with the fields' columns, a field's id and the cell's own."""
    own = cells[[*FIELD, "object_number", "y", "x", *(more or [])]]
    joined = own.merge(screen.table[columns], on=FIELD, how="inner", validate="many_to_one")
    joined = joined.sort_values([*FIELD, "object_number"], kind="stable").reset_index(drop=True)
    joined["field"] = joined["plate"] + "_" + joined["well"] + "_s" + joined["site"].astype(str)
    joined["cell_id"] = joined["field"] + "_" + joined["object_number"].astype(str)
    twice = joined["cell_id"].duplicated()
    if twice.any():
        raise InputError(f"{_where(joined[twice].iloc[0])} has two cells with one object number; number them anew")
    return joined


def _size_of_fields(screen: Screen, cells: pd.DataFrame, crop_px: int) -> tuple[int, int]:
    """Height and width of the first field, which all others must share."""
    first = (cells if len(cells) else screen.table).iloc[0]
    channel = screen.channels[0]
    size = field_size(screen.folder / first[f"file_{channel}"], where=f'{_where(first)}: channel "{channel}"')
    if min(size) < crop_px:
        raise InputError(f"{_where(first)} is {size[0]} x {size[1]} px, smaller than a crop; give a smaller --crop-px")
    return size


def _refuse_centres(cells: pd.DataFrame, size: tuple[int, int]) -> None:
    position = np.floor(cells[["y", "x"]].to_numpy(float) + 0.5)
    no_number = ~np.isfinite(position).all(axis=1)
    outside = ~no_number & ((position < 0) | (position >= np.array(size))).any(axis=1)
    for bad, what in ((no_number, "is no number"), (outside, f"is outside the field of {size[0]} x {size[1]} px")):
        if bad.any():
            cell = cells[bad].iloc[0]
            raise InputError(
                f"{_where(cell)}, object {cell['object_number']}: centre y {cell['y']:g}, x {cell['x']:g} {what} "
                f"({int(bad.sum()):,} such cells); expected pixels, y the row and x the column, from 0. Correct them; "
                "nothing was written."
            )


def _without_cells(screen: Screen, cells: pd.DataFrame, config: CropConfig) -> dict[str, int]:
    """What is left out so far, with skip_missing also plates and treatments without a cell; else an InputError."""
    plates = [plate for plate in screen.table["plate"].unique() if not (cells["plate"] == plate).any()]
    if plates and len(cells) and not config.skip_missing:
        raise InputError(
            f'plate "{plates[0]}" has no cell whose crop lies inside a field ({len(plates)} plates have none). '
            "Give centres for it, choose other plates with --plates, or run with --skip-missing; nothing was written."
        )
    wells = screen.wells[screen.wells["role"] != "other"]
    wanted = dict.fromkeys(treatment_name(wells["compound"], wells["concentration_um"]))
    kept = cells[cells["role"] != "other"]
    have = set(treatment_name(kept["compound"], kept["concentration_um"]))
    without = [name for name in wanted if name not in have]
    if cells.empty:
        raise InputError("no cell has a crop that lies inside a field; expected y the row and x the column, in pixels")
    if without and not config.skip_missing:
        raise InputError(
            f"treatment {without[0]} has no cell whose crop lies inside a field ({len(without)} of {len(wanted)} "
            "treatments have none). Give centres for it, or run with --skip-missing; nothing was written."
        )
    counts = {"plates without cells": len(plates), "treatments without cells": len(without)}
    return {**screen.left_out, **{what: count for what, count in counts.items() if count}}


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


def _where(row: pd.Series) -> str:
    return f'plate "{row["plate"]}", well "{row["well"]}", site {row["site"]}'
