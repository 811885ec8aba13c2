"""Look whether each image that a table names lies on disk. Only folders are listed, no image is opened."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pandas as pd

from phenolens.errors import InputError
from phenolens.progress import track
from phenolens.screen.image_reference import ImageReference, file_on_disk, image_reference
from phenolens.screen.table import Screen

IMAGE_SUFFIXES = (".tif", ".tiff", ".png")


def with_files(screen: Screen, *, skip_missing: bool) -> Screen:
    """The screen with each `file_<channel>` spelt as the disk has it.

    Raises InputError for a field without a file of each channel, and for a file of 0 bytes; with `skip_missing` such
    fields are left out and counted. Accented letters may be written in either Unicode form.
    """
    table = screen.table.copy()
    columns = [f"file_{channel}" for channel in screen.channels]
    listed: dict[Path, dict[str, tuple[str, int]]] = {}
    complete = pd.Series(True, index=table.index)
    missing: list[str] = []
    for row in track(range(len(table)), "Fields whose images were looked for", total=len(table)):
        field = table.iloc[row]
        for channel, column in zip(screen.channels, columns):
            reference = image_reference(str(field[column]))
            folder = screen.folder / reference.file.parent
            if folder not in listed:
                listed[folder] = _listing(folder)
            name, n_bytes = listed[folder].get(_plain(reference.file.name), ("", -1))
            if n_bytes > 0:
                spelt = ImageReference(reference.file.with_name(name), reference.choice)
                table.at[row, column] = str(spelt)
                continue
            complete.iloc[row] = False
            what = "is an empty file of 0 bytes" if n_bytes == 0 else "has no file"
            where = f'plate "{field["plate"]}", well "{field["well"]}", site {field["site"]}'
            missing.append(f'{where}: channel "{channel}" {what} (expected {reference.file} under {screen.folder})')
    if missing and not skip_missing:
        raise InputError(
            f"{missing[0]}; {len(missing):,} such files in {int((~complete).sum()):,} fields. Bring them, or run with "
            "--skip-missing; no crop was written."
        )
    if not complete.any():
        raise InputError(f"{missing[0]}; none of the {len(table):,} fields has an image of each channel")
    counts = Counter(screen.left_out)
    counts["fields without an image of each channel"] += int((~complete).sum())
    left_out = {what: count for what, count in counts.items() if count}
    return replace(screen, table=table[complete].reset_index(drop=True), left_out=left_out)


def count_unnamed(folder: Path, references: Iterable[str]) -> int:
    """How many images lie beside those that a table names and are not named; thumbnails (`_thumb`) do not count.

    They are told and not refused: a table of a part of a screen is common.
    """
    named: dict[Path, set[str]] = {}
    for text in references:
        file = file_on_disk(text)
        named.setdefault(Path(folder) / file.parent, set()).add(_plain(file.name))
    return sum(1 for at, names in named.items() for name in _listing(at) if _is_image(name) and name not in names)


def _listing(folder: Path) -> dict[str, tuple[str, int]]:
    """Names in a folder by their normal form, with their bytes (1 for a folder, as an OME-Zarr image is)."""
    try:
        with os.scandir(folder) as entries:
            sizes = ((entry.name, _bytes(entry)) for entry in entries)
            return {_plain(name): (name, n_bytes) for name, n_bytes in sizes if n_bytes is not None}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed ({error.strerror}); give leave to read it") from error


def _bytes(entry: "os.DirEntry[str]") -> int | None:
    """The bytes of what a folder lists, 1 for a folder; None for a link that leads nowhere, as if it were not there."""
    try:
        return 1 if entry.is_dir() else entry.stat().st_size
    except OSError:
        if entry.is_symlink():
            return None
        raise


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES) and "_thumb" not in name
