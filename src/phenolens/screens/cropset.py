"""Read the public set of BBBC021's single cells: a folder a field, an `.npy` a cell, and `metadata.csv`."""

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pandas as pd

from phenolens.core.errors import InputError
from phenolens.core.files import sha256
from phenolens.screens.bbbc021 import CHANNELS, FIELD_COLUMNS, FILE_COLUMNS, Treatments, labelled, named_fields, roles
from phenolens.screens.csv_table import numbers, read_csv
from phenolens.screens.image_files import missing_line
from phenolens.screens.screen import Screen, checked_screen, select

METADATA = "metadata.csv"
CROPS_FOLDER = "singh_cp_pipeline_singlecell_images"
CHANNELS_ON_DISK = ("DNA", "actin", "tubulin")  # the last axis of each .npy; not the order of the columns
CELL_COLUMNS = {
    "Multi_Cell_Image_Name": "folder",
    "Single_Cell_Image_Name": "name",
    "Single_Cell_Image_Id": "object_number",
    "moa": "moa",
}


def read_cropset(
    source: Path,
    *,
    treatments: Treatments = "labelled",
    plates: Iterable[str] = (),
    wells: Iterable[str] = (),
    sites: Iterable[int] = (),
    skip_missing: bool = False,
) -> tuple[Screen, pd.DataFrame]:
    """The screen of a crop set, and one row a crop: `plate`, `well`, `site`, `object_number`, `path` under `source`.

    The screen has the fields that have crops, and no files. Raises InputError for a missing column, a row that
    contradicts itself, a row without its `.npy` and an `.npy` that no row names; with `skip_missing` the last two are
    left out and counted in the screen's `left_out`. Only folders are listed, no crop is opened.
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
    rows, left_out = _on_disk(rows, source, skip_missing=skip_missing)
    fields = rows.drop(columns=["path", "folder", "name", "object_number"]).drop_duplicates()
    screen = checked_screen(
        fields, channels=tuple(CHANNELS), folder=source, source=METADATA, sources={METADATA: sha256(table_path)}
    )
    screen = replace(screen, left_out=left_out)
    screen = select(labelled(screen) if treatments == "labelled" else screen, plates=plates, wells=wells, sites=sites)
    cells = rows[["plate", "well", "site", "object_number", "path"]].merge(screen.table[["plate", "well", "site"]])
    return screen, cells.sort_values(["plate", "well", "site", "object_number"]).reset_index(drop=True)


def _crops_folder(source: Path) -> Path:
    folder = source / CROPS_FOLDER
    if not folder.is_dir():
        raise InputError(f"{source}: no folder {CROPS_FOLDER}; it holds the crop set's folders, one a field")
    return folder


def _refuse_twice(rows: pd.DataFrame) -> None:
    for keys, words in ((["path"], "crop"), (["plate", "well", "site", "object_number"], "object of a field")):
        twice = rows.duplicated(keys)
        if twice.any():
            raise InputError(
                f"{METADATA}, row {int(twice.to_numpy().argmax()) + 2}: the same {words} stands in an earlier row "
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
