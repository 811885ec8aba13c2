"""Read a screen from a CSV made for CellProfiler's LoadData module, or from the Image.csv that CellProfiler writes."""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import unquote, urlsplit

import pandas as pd

from phenolens.core.errors import InputError
from phenolens.screens.config import LayoutConfig, chosen_channels, given_path
from phenolens.screens.image_files import ImageReference
from phenolens.screens.image_table import described_screen
from phenolens.screens.plate_map import known_columns, read_as_text
from phenolens.screens.screen import Screen

DEFAULT_TABLE = "load_data.csv"
FILE_COLUMN = re.compile(r"^(?:Image_)?FileName_(?P<channel>.+)$")
URL_COLUMN = re.compile(r"^(?:Image_)?URL_(?P<channel>.+)$")
ILLUMINATION = re.compile(r"^Illum", re.IGNORECASE)  # correction functions beside the images, as .npy


def read_loaddata(source: Path, *, config: LayoutConfig, skip_missing: bool = False) -> Screen:
    """The screen of `FileName_X` and `PathName_X` (or `URL_X`) columns, also with `Image_` before them.

    Plate, well, site and treatment are columns as in plate_map.py (`Metadata_Plate` ...), or come from the plate map. A
    folder that does not exist where the table has it is searched within `source` by the end of its path, and last in
    `source` itself. Channels whose name begins with Illum are left out. A `Frame_X` column that is not all 0 is the
    page, from 0. Raises InputError as read_table does, and for an address that is not a file of this machine.
    """
    source = Path(source)
    path = given_path(config.table or Path(DEFAULT_TABLE), source)
    raw = read_as_text(path)
    found = _file_columns(raw)
    if not found:
        raise InputError(
            f"{path}: no column FileName_<channel>, Image_FileName_<channel> or URL_<channel> "
            f"(found: {', '.join(map(str, raw.columns[:20]))})"
        )
    channels = chosen_channels(list(found), config.channels, source=path.name)
    folder_of = _folders(source)
    files = {theirs: _references(raw, theirs, column, folder_of, source=path.name) for theirs, column in found.items()}
    return described_screen(
        known_columns(raw, source=path.name),
        pd.DataFrame(files),
        source=source,
        table=path,
        config=config,
        channels=channels,
        skip_missing=skip_missing,
    )


def _file_columns(raw: pd.DataFrame) -> dict[str, str]:
    """Channel -> the column of its file's name, or else of its address, in the table's order."""
    found: dict[str, str] = {}
    for expression in (FILE_COLUMN, URL_COLUMN):
        for name in map(str, raw.columns):
            match = expression.match(name)
            if match and not ILLUMINATION.match(match["channel"]):
                found.setdefault(match["channel"], name)
    return found


def _references(
    raw: pd.DataFrame, channel: str, column: str, folder_of: Callable[[str], Path], *, source: str
) -> pd.Series:
    """Each row's file as in `file_<channel>`; empty where the table has none."""
    if URL_COLUMN.match(column):
        parts = raw[column].map(lambda url: _local(url, column, source=source), na_action="ignore")
        folders = parts.map(lambda text: text.rpartition("/")[0], na_action="ignore")
        names = parts.map(lambda text: text.rpartition("/")[2], na_action="ignore")
    else:
        path_column = column.replace("FileName_", "PathName_")
        names = raw[column]
        folders = raw[path_column].fillna("") if path_column in raw else pd.Series("", index=raw.index)
    frames = next((raw[name] for name in (f"Frame_{channel}", f"Image_Frame_{channel}") if name in raw), None)
    pages = (
        pd.Series(0, index=raw.index)
        if frames is None
        else pd.to_numeric(frames, errors="coerce").fillna(0).astype(int)
    )
    has_pages = bool((pages > 0).any())

    def reference(row: int) -> str | None:
        if pd.isna(names.iloc[row]):
            return None
        choice = {"page": str(pages.iloc[row] + 1)} if has_pages else {}
        return str(ImageReference(folder_of(str(folders.iloc[row])) / str(names.iloc[row]), choice))

    return pd.Series([reference(row) for row in range(len(raw))], index=raw.index, dtype=object)


def _folders(source: Path) -> Callable[[str], Path]:
    """A function from a PathName to its folder on this machine, relative to `source` if it is inside."""

    @cache
    def folder_of(path_name: str) -> Path:
        text = path_name.strip()
        parts = (PureWindowsPath(text) if "\\" in text else PurePosixPath(text)).parts
        if text and Path(text).is_absolute() and Path(text).is_dir():
            found = Path(text)
            inside = found.is_relative_to(source.resolve())
            return found.relative_to(source.resolve()) if inside else found
        for first in range(len(parts)):
            end = Path(*(part for part in parts[first:] if part not in ("/", "..")))
            if (source / end).is_dir():
                return end
        return Path()

    return folder_of


def _local(url: str, column: str, *, source: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("", "file"):
        raise InputError(f"{source}: {column} has {url}, which is not on this machine; download the images first")
    return unquote(parts.path).replace("\\", "/")
