"""Find a screen's images on disk: a label without an image and an image without a label are told before any work.

Only folders are listed, no image is opened.
"""

import re
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pandas as pd

from phenolens.errors import InputError
from phenolens.screen.table import Screen

PLATE_FOLDER = re.compile(r"Week\d+_\d+")
WEEK_FOLDER = re.compile(r"Week\d+")
IMAGE_SUFFIXES = (".tif", ".tiff")


def with_images(chosen: Screen, whole: Screen, *, skip_missing: bool) -> Screen:
    """`chosen` with each `file_<channel>` as it lies on disk, relative to the screen's folder.

    A plate's folder is where the table has it (`Week1/Week1_22123`) or in the folder itself (`Week1_22123`). Raises
    InputError for a field without a file of each channel, and for an image in a chosen plate's folder, or a plate's
    folder, that `whole` does not name; with `skip_missing` these are left out and counted.
    """
    table, images = chosen.table.copy(), Path(chosen.folder)
    columns = [f"file_{channel}" for channel in chosen.channels]
    if not images.is_dir():
        raise InputError(f"{images}: no such folder; give the folder that holds the plates' folders of images")
    complete = pd.Series(True, index=table.index)
    missing: list[str] = []
    unnamed = _unknown_plate_folders(images, set(whole.table["plate"])) if _all_plates(chosen, whole) else []
    for plate, fields in table.groupby("plate"):
        folder = _plate_folder(images, str(plate), str(PurePosixPath(fields[columns[0]].iloc[0]).parent))
        present = {path.name for path in folder.iterdir()} if folder else set()
        names = fields[columns].map(lambda path: PurePosixPath(path).name)
        has_file = names.isin(present)
        complete[fields.index] = has_file.all(axis=1)
        missing += _missing(fields, names, has_file, channels=chosen.channels)
        if folder:
            relative = folder.relative_to(images).as_posix()
            table.loc[fields.index, columns] = (relative + "/" + names).to_numpy()
            named = whole.table.loc[whole.table["plate"] == plate, columns].map(lambda path: PurePosixPath(path).name)
            strange = present - set(named.to_numpy().ravel())
            unnamed += [f"{relative}/{name}" for name in sorted(strange) if name.lower().endswith(IMAGE_SUFFIXES)]
    if not skip_missing:
        _refuse(missing, unnamed, images=images, n_fields=int((~complete).sum()))
    if not complete.any():
        raise InputError(
            f"{images}: none of the {len(table):,} fields has an image of each channel; give the right folder"
        )
    left_out = dict(chosen.left_out)
    if missing:
        left_out["fields without an image of each channel"] = int((~complete).sum())
    if unnamed:
        left_out["images that the table does not name"] = len(unnamed)
    return replace(chosen, table=table[complete].reset_index(drop=True), left_out=left_out)


def missing_line(what: str, examples: list[str], *, instead: str) -> str:
    """One line on things that do not match: the first of them, how many there are, what to do."""
    count = f" (the first of {len(examples):,})" if len(examples) > 1 else ""
    return f"{what}: {examples[0]}{count}. {instead}; no crop was written."


def _all_plates(chosen: Screen, whole: Screen) -> bool:
    return chosen.table["plate"].nunique() == whole.table["plate"].nunique()


def _plate_folder(images: Path, plate: str, path_in_table: str) -> Path | None:
    for folder in (images / path_in_table, images / plate):
        if folder.is_dir():
            return folder
    return None


def _unknown_plate_folders(images: Path, plates: set[str]) -> list[str]:
    """Folders, here or in a week's folder, that are named like a plate which the table does not have."""
    inside = [path for path in images.iterdir() if path.is_dir()]
    inside += [path for week in inside if WEEK_FOLDER.fullmatch(week.name) for path in week.iterdir() if path.is_dir()]
    strange = [path for path in inside if PLATE_FOLDER.fullmatch(path.name) and path.name not in plates]
    return sorted(path.relative_to(images).as_posix() + "/" for path in strange)


def _missing(
    fields: pd.DataFrame, names: pd.DataFrame, has_file: pd.DataFrame, *, channels: tuple[str, ...]
) -> list[str]:
    """A line a file that is not there: plate, well, site, channel, expected path."""
    lines = []
    for row, column in zip(*(~has_file.to_numpy()).nonzero()):
        field, channel, path = fields.iloc[row], channels[column], fields[names.columns[column]].iloc[row]
        plate, name = field["plate"], str(path).rsplit("/", 1)[-1]
        where = f'plate "{plate}", well "{field["well"]}", site {field["site"]}'
        lines.append(f'{where}: channel "{channel}" has no file (expected {path} or {plate}/{name}')
    return lines


def _refuse(missing: list[str], unnamed: list[str], *, images: Path, n_fields: int) -> None:
    if missing:
        raise InputError(
            f"{missing[0]} under {images}); {len(missing):,} such files in {n_fields:,} fields. If they were not "
            "imaged, run with --skip-missing, or choose plates that are there with --plates; no crop was written."
        )
    if unnamed:
        raise InputError(
            missing_line(
                f"{images}: an image that the table does not name",
                unnamed,
                instead="Move it away, or run with --skip-missing to leave such images out",
            )
        )
