"""Read BBBC021's public set of single-cell crops: a folder for each field, an `.npy` for each cell, `metadata.csv`.

n crops, C channels, S x S pixels.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from phenolens.core.errors import InputError
from phenolens.core.files import sha256
from phenolens.core.keywords import keyword_settings
from phenolens.screens.bbbc021 import CHANNELS, FIELD_COLUMNS, FILE_COLUMNS, named_fields, roles
from phenolens.screens.config import LayoutConfig
from phenolens.screens.csv_table import numbers, read_csv
from phenolens.screens.image_files import missing_line
from phenolens.screens.screen import FIELD, LABELLED, Screen, Selection, checked_screen

METADATA = "metadata.csv"
CROPS_FOLDER = "singh_cp_pipeline_singlecell_images"
CHANNELS_ON_DISK = ("DNA", "actin", "tubulin")  # the last axis of each .npy; not the order of the columns
CELL_COLUMNS = {
    "Multi_Cell_Image_Name": "folder",
    "Single_Cell_Image_Name": "name",
    "Single_Cell_Image_Id": "object_number",
    "moa": "moa",
}


UInt16Array = npt.NDArray[np.uint16]


class CropReader(Protocol):
    """Where the crops of a field's cells come from; it can be sent to another process."""

    def __call__(self, rows: pd.DataFrame, crop_px: int | None) -> tuple[UInt16Array, UInt16Array]:
        """The crops (n, C, S, S) of one field's cells, and the same before their light was corrected.

        `crop_px` is their side; None accepts any. InputError where they cannot be read or have another side.
        """

    def files(self, rows: pd.DataFrame) -> list[Path]:
        """The files that the crops of these rows are read from."""


@dataclass(frozen=True)
class FinishedCrops:
    """Crops cut elsewhere: `cells` has a row a crop (its field, `object_number`, `path`), `read` reads them."""

    cells: pd.DataFrame
    read: CropReader


@dataclass(frozen=True)
class CropFiles:
    """Reads crops from one `.npy` file each."""

    folder: Path
    order: list[int]  # the place on disk of each channel

    def __call__(self, rows: pd.DataFrame, crop_px: int | None) -> tuple[UInt16Array, UInt16Array]:
        """The crops (n, C, S, S) of these rows, twice: nothing corrects them."""
        crops: list[UInt16Array] = []
        for path in self.files(rows):
            crops.append(_read_crop(path, crop_px))
            crop_px = len(crops[0])
        read = np.ascontiguousarray(np.stack(crops)[..., self.order].transpose(0, 3, 1, 2))
        return read, read

    def files(self, rows: pd.DataFrame) -> list[Path]:
        """The file of each crop."""
        return [self.folder / path for path in rows["path"]]


def open_cropset(source: Path, config: LayoutConfig, selection: Selection) -> tuple[Screen, FinishedCrops]:
    """The screen of a crop set and its crops; InputError as in `read_cropset`."""
    screen, cells = read_cropset(source, selection=selection)
    order = [CHANNELS_ON_DISK.index(channel) for channel in screen.channels]
    return screen, FinishedCrops(cells, CropFiles(screen.folder, order))


@keyword_settings
def read_cropset(source: Path, *, selection: Selection = LABELLED) -> tuple[Screen, pd.DataFrame]:
    """The screen of a crop set's fields, without files, and a row a crop.

    Only folders are listed, no crop is opened.

    Args:
        source: Folder of `metadata.csv` and the crops.
        selection: The part to take. `skip_missing` leaves out, and counts in `left_out`, rows without a crop and crops
            without a row.

    Returns:
        The screen, and the crops: `plate`, `well`, `site`, `object_number`, `path` under `source`.

    Raises:
        InputError: A column is missing or a row contradicts itself; or, without `skip_missing`, what that would leave
            out.
    """
    source = Path(source)
    table_path = source / METADATA
    raw = read_csv(table_path, columns=[*CELL_COLUMNS, *FIELD_COLUMNS, *FILE_COLUMNS])
    rows = named_fields(raw, source=METADATA).assign(**{ours: raw[name] for name, ours in CELL_COLUMNS.items()})
    rows["object_number"] = numbers(raw, "Single_Cell_Image_Id", source=METADATA).astype(int)
    rows["role"] = roles(rows)
    rows["moa"] = rows["moa"].astype(object).where(rows["moa"].notna() & (rows["role"] != "control"), None)
    rows["path"] = _crops_folder(source).name + "/" + rows["folder"].astype(str) + "/" + rows["name"].astype(str)
    _refuse_twice(rows)
    rows, left_out = _on_disk(rows, source, skip_missing=selection.skip_missing)
    fields = rows.drop(columns=["path", "folder", "name", "object_number"]).drop_duplicates()
    screen = checked_screen(
        fields, channels=tuple(CHANNELS), folder=source, source=METADATA, sources={METADATA: sha256(table_path)}
    )
    screen = selection.of(replace(screen, left_out=left_out))
    cells = rows[[*FIELD, "object_number", "path"]].merge(screen.table[FIELD])
    return screen, cells.sort_values([*FIELD, "object_number"]).reset_index(drop=True)


def _crops_folder(source: Path) -> Path:
    folder = source / CROPS_FOLDER
    if not folder.is_dir():
        raise InputError(f"{source}: no folder {CROPS_FOLDER}; it holds the crop set's folders, one a field")
    return folder


def _refuse_twice(rows: pd.DataFrame) -> None:
    for keys, what in ((["path"], "crop"), ([*FIELD, "object_number"], "object of a field")):
        twice = rows.duplicated(keys)
        if twice.any():
            raise InputError(
                f"{METADATA}, row {int(twice.to_numpy().argmax()) + 2}: the {what} is that of an earlier row "
                f"({rows['path'][twice].iloc[0]}; {int(twice.sum()):,} such rows); correct the table"
            )


def _on_disk(rows: pd.DataFrame, source: Path, *, skip_missing: bool) -> tuple[pd.DataFrame, dict[str, int]]:
    """The rows whose crop is there; InputError, or a count, for rows without a crop and crops without a row."""
    present = set(_npy_files(source))
    has_file = rows["path"].isin(present)
    missing = list(rows["path"][~has_file])
    unnamed = sorted(present - set(rows["path"]))
    for what, examples, instead in (
        (f"{METADATA} names a crop that is not under {source}", missing, "Bring it"),
        (f"{source}: a crop that {METADATA} does not name", unnamed, "Move it away"),
    ):
        if examples and not skip_missing:
            raise InputError(missing_line(what, examples, instead=f"{instead}, or run with --skip-missing"))
    if not has_file.any():
        raise InputError(f"{source}: none of the {len(rows):,} crops that {METADATA} names is there")
    counts = {
        f"crops that {METADATA} names but are not there": len(missing),
        f"crops that {METADATA} does not name": len(unnamed),
    }
    return rows[has_file].reset_index(drop=True), {what: count for what, count in counts.items() if count}


def _npy_files(source: Path) -> Iterable[str]:
    """Each crop under the crop set's folder, as its path relative to `source` with forward slashes."""
    with os.scandir(_crops_folder(source)) as folders:
        for folder in folders:
            if folder.is_dir():
                with os.scandir(folder) as files:
                    yield from (
                        f"{CROPS_FOLDER}/{folder.name}/{file.name}" for file in files if file.name.endswith(".npy")
                    )


def _read_crop(path: Path, crop_px: int | None) -> UInt16Array:
    try:
        crop = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such crop; bring it, or run with --skip-missing") from error
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{path}: not a whole .npy ({error}); replace the file") from error
    if crop.ndim != 3 or crop.shape[2] != len(CHANNELS_ON_DISK) or crop.dtype != np.uint16:
        found = f"{crop.dtype} {' x '.join(map(str, crop.shape))}"
        raise InputError(f"{path}: found {found}, expected uint16 S x S x 3 ({', '.join(CHANNELS_ON_DISK)})")
    side = crop_px or len(crop)
    if crop.shape[:2] != (side, side):
        raise InputError(
            f"{path}: the crop is {crop.shape[0]} x {crop.shape[1]} px, expected {side} x {side}; give its side "
            "with --crop-px (all crops must have one)"
        )
    return crop
