"""Read a screen from a table of its images: plain columns, CellProfiler's LoadData or Image.csv, DeepProfiler's index.

Plate, well, site and treatment are columns as in plate_map.py; a plate map may give the treatments instead.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import unquote, urlsplit

import pandas as pd

from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.names import shortened
from phenolens.screens.config import TABLES, LayoutConfig, chosen_channels
from phenolens.screens.image_files import IMAGE_SUFFIXES, OTHER_PICTURES, unnamed_images
from phenolens.screens.image_reference import ImageReference, file_on_disk
from phenolens.screens.plate_map import known_columns, lacking_column, read_as_text, with_treatments
from phenolens.screens.remote import is_address, listed
from phenolens.screens.repeated_images import each_field_once, refuse_repeated_images
from phenolens.screens.screen import Screen

FILE = "file_"
FILE_COLUMN = re.compile(r"^(?:Image_)?FileName_(?P<channel>.+)$")
URL_COLUMN = re.compile(r"^(?:Image_)?URL_(?P<channel>.+)$")
OF_FILES = re.compile(r"^(?:Image_)?(?:FileName|PathName|URL|Frame)_")
ILLUMINATION = re.compile(r"^Illum", re.IGNORECASE)  # correction functions next to the images, as .npy
INPUTS, INDEX, IMAGES, LOCATIONS = "inputs", Path("metadata", "index.csv"), "images", "locations"  # of DeepProfiler
OUTLINES = "Outlines"  # masks of the cells, not a channel
UNNAMED = "images that the table does not name"
WITH_DOSE = "treatment"  # beside a column for the compound it is the compound with its dose


def is_file_column(name: str) -> bool:
    """Whether a column of a plain table, in any capitals, has the files of a channel."""
    return name.lower().startswith(FILE)


def read_table(source: Path, *, config: LayoutConfig, skip_missing: bool = False) -> Screen:
    """The screen of a CSV with a row per field: `plate`, `well`, `file_<channel>` at least (paths within `source`).

    Files are not yet searched (see with_files). Raises InputError for a missing column, no `file_` column, and a
    field without the name of a file for each channel (with `skip_missing` left out and counted).
    """
    path = config.table_path(source, "images.csv")
    raw = read_as_text(path)
    named = [name for name in map(str, raw) if is_file_column(name)]
    files = raw[named].rename(columns=lambda name: name[len(FILE) :])
    return _screen(
        raw,
        files.map(lambda path: path.replace("\\", "/"), na_action="ignore"),
        read=named,
        expected=f"{FILE}<channel>, such as {FILE}DNA",
        source=source,
        table=path,
        config=config,
        skip_missing=skip_missing,
    )


def read_loaddata(source: Path, *, config: LayoutConfig, skip_missing: bool = False) -> Screen:
    """The screen of `FileName_X` and `PathName_X` (or `URL_X`) columns, also with `Image_` before them.

    A folder that does not exist where the table has it is searched within `source` by the end of its path, and last in
    `source` itself. Channels whose name begins with Illum are left out. A `Frame_X` column that is not all 0 is the
    page, from 0. Raises InputError as read_table does, and for an address that is not a file of this machine.
    """
    path = config.table_path(source, "load_data.csv")
    raw = read_as_text(path)
    folders = FoldersHere(Path(source), config)
    screen = _screen(
        raw,
        load_data_files(raw, folders, source=path.name),
        read=[name for name in map(str, raw) if OF_FILES.match(name)],
        notes=folders.notes(path.name),
        expected="FileName_<channel>, Image_FileName_<channel> or URL_<channel>",
        source=source,
        table=path,
        config=config,
        skip_missing=skip_missing,
    )
    refuse_repeated_images(screen)
    folders.refuse_shared(path.name)
    return screen


def load_data_files(
    raw: pd.DataFrame, folders: "FoldersHere", *, source: str, illumination: bool = False
) -> pd.DataFrame:
    """The file of each channel of LoadData, or of its correction function with `illumination`; a column per channel."""
    columns: dict[str, str] = {}  # channel -> the column of its file's name, or else of its address
    for expression in (FILE_COLUMN, URL_COLUMN):
        for name in map(str, raw.columns):
            match = expression.match(name)
            if match and bool(ILLUMINATION.match(match["channel"])) == illumination:
                columns.setdefault(match["channel"], name)
    return pd.DataFrame(
        {name: _references(raw, name, column, folders, source=source) for name, column in columns.items()},
        index=raw.index,
    )


def read_deepprofiler(source: Path, *, config: LayoutConfig, skip_missing: bool = False) -> Screen:
    """The screen of a project folder, or of its `inputs`: a row per field in `metadata/index.csv`.

    `Metadata_Plate`, `Metadata_Well` and `Metadata_Site` name the field; a column whose every value is the name of an
    image is a channel, its paths lie within `images` (as DeepProfiler joins them). Raises InputError as read_table
    does, and for a column of images that would be lost.
    """
    source = Path(source)
    inputs = inputs_folder(source).relative_to(source)
    path = config.table_path(source, inputs / INDEX)
    raw = read_as_text(path)
    channels = [name for name in raw if name != OUTLINES and _are_images(raw[name]).all() and raw[name].notna().any()]
    others = raw.drop(columns=channels)
    _refuse_lost_images(others.drop(columns=OUTLINES, errors="ignore"), source=path.name)
    within = PurePosixPath(inputs.as_posix()) / IMAGES
    files = raw[channels].map(lambda name: str(within / str(name).replace("\\", "/")), na_action="ignore")
    plain = {name: str(name).lower().removeprefix("metadata_") for name in others}
    if {"compound", "compound_name"} & set(plain.values()):
        others = others.drop(columns=[name for name, short in plain.items() if short == WITH_DOSE])
    return _screen(
        others,
        files,
        read=[OUTLINES],
        within=source / within,
        expected=f"whose values are images within {inputs / IMAGES} ({', '.join(IMAGE_SUFFIXES)}), such as DNA",
        source=source,
        table=path,
        config=config,
        skip_missing=skip_missing,
    )


def inputs_folder(source: Path) -> Path:
    """The folder that holds metadata, images and locations: `inputs` in a project's folder, or the folder itself."""
    inside = Path(source) / INPUTS
    return inside if inside.is_dir() else Path(source)


def locations_folder(source: Path) -> Path | None:
    """Where a project has its cells' centres; None where it has none."""
    folder = inputs_folder(source) / LOCATIONS
    return folder if folder.is_dir() else None


def _screen(
    raw: pd.DataFrame,
    files: pd.DataFrame,
    *,
    read: Collection[str],
    expected: str,
    source: Path,
    table: Path,
    config: LayoutConfig,
    skip_missing: bool,
    notes: Sequence[str] = (),
    within: Path | None = None,
) -> Screen:
    """The screen of a table's rows and the files of all its channels, made of the columns `read`.

    Without any file, `expected` is in the InputError. Images `within` a folder (the source) that are not named are
    counted.
    """
    if files.columns.empty:
        raise InputError(f"{table}: no column {expected} (found: {', '.join(map(str, raw.columns[:20]))})")
    channels = chosen_channels(list(files.columns.astype(str)), config.channels, source=table.name)
    fields = known_columns(raw, source=table.name, named=config.named_columns, read=read)
    for name in ("plate", "well"):
        if name not in fields:
            raise lacking_column(name, table, raw)
    left_out, of_folders = unnamed_images(source, named_files(files), what=UNNAMED, within=within)
    chosen = files[list(channels.values())].set_axis([f"{FILE}{ours}" for ours in channels], axis=1)
    fields, repeats = each_field_once(pd.concat([fields, chosen], axis=1), {table.name: len(raw)})
    return with_treatments(
        fields,
        list(channels),
        source=source,
        config=config,
        skip_missing=skip_missing,
        table=table,
        left_out=left_out,
        columns=[*map(str, raw), *read],
        notes=[*notes, *repeats, *of_folders],
    )


def named_files(files: pd.DataFrame) -> list[str]:
    """Every image that the columns of files name."""
    return [str(text) for text in files.to_numpy().ravel() if pd.notna(text)]


def _references(raw: pd.DataFrame, channel: str, column: str, folder_of: "FoldersHere", *, source: str) -> pd.Series:
    """Each row's file as in `file_<channel>`; empty where the table has none."""
    if URL_COLUMN.match(column):
        paths = raw[column].map(lambda url: _local(url, column, source=source), na_action="ignore").astype(object)
        folders, names = (paths.str.rpartition("/")[part] for part in (0, 2))
    else:
        path_column = column.replace("FileName_", "PathName_")
        names = raw[column]
        folders = raw[path_column].fillna("") if path_column in raw else pd.Series("", index=raw.index)
    pages = pd.Series(0, index=raw.index)
    for name in (f"Frame_{channel}", f"Image_Frame_{channel}"):
        if name in raw:
            pages = pd.to_numeric(raw[name], errors="coerce").fillna(0).astype(int)
            break
    has_pages = bool((pages > 0).any())

    def reference(folder: str, name: str, page: int) -> str | None:
        if pd.isna(name):
            return None
        return str(ImageReference(folder_of(folder) / name, {"page": str(page + 1)} if has_pages else {}))

    return pd.Series(list(map(reference, folders, names, pages)), index=raw.index, dtype=object)


class FoldersHere:
    """The folder on this machine of each PathName, relative to `source` if it is inside.

    A PathName that does not exist is searched in `source` by the end of its path, the longest first, and last in
    `source` itself.
    """

    def __init__(self, source: Path, config: LayoutConfig) -> None:
        self.source = source
        self.config = config
        self.found: dict[str, Path] = {}

    def __call__(self, path_name: str) -> Path:
        """The folder; InputError where it has an address that cannot be listed."""
        text = path_name.strip()
        if text not in self.found:
            self.found[text] = self._found(text)
        return self.found[text]

    def _found(self, text: str) -> Path:
        if text and Path(text).is_absolute() and Path(text).is_dir():
            found = Path(text)
            inside = found.is_relative_to(self.source.resolve())
            return found.relative_to(self.source.resolve()) if inside else found
        parts = _parts(text)
        for first in range(len(parts)):
            end = Path(*(part for part in parts[first:] if part not in ("/", "..")))
            if (self.source / end).is_dir() and not _only_tables(self.source / end):
                return end
        return listed(text, self.config, of_images=True) if is_address(text) else Path()

    def refuse_shared(self, source: str) -> None:
        """InputError where the search gives several PathNames one folder: plates whose folders end alike."""
        for folder, names in self._names().items():
            if len(names) > 1 and folder != Path():
                raise InputError(
                    f"{source}: {len(names)} folders are {folder} here, by the end of their paths: "
                    f"{shortened(names)}; add the missing folders, or correct the paths"
                )

    def notes(self, source: str) -> list[str]:
        """A note where images of folders that are not here are searched in the source itself."""
        flat = [name for name in self._names()[Path()] if (self.source / name).resolve() != self.source.resolve()]
        folders = counted(len(flat), "folder")
        return [f"{source}: images of {folders} are searched in the source itself: {shortened(flat)}"] if flat else []

    def _names(self) -> defaultdict[Path, list[str]]:
        """The different PathNames of each folder."""
        names: defaultdict[Path, dict[tuple[str, ...], str]] = defaultdict(dict)
        for text, folder in self.found.items():
            if text:
                names[folder].setdefault(_parts(text), text)
        return defaultdict(list, {folder: list(texts.values()) for folder, texts in names.items()})


def _only_tables(folder: Path) -> bool:
    """Whether a folder has tables alone, as that of a plate's LoadData, whose images lie in another of its name."""
    names = [path.name.lower() for path in folder.iterdir()]
    return bool(names) and all(name.endswith(TABLES) for name in names)


def _parts(text: str) -> tuple[str, ...]:
    return (PureWindowsPath(text) if "\\" in text else PurePosixPath(text)).parts


def _local(url: str, column: str, *, source: str) -> str:
    parts = urlsplit(url)
    if is_address(url):
        return url
    if parts.scheme not in ("", "file"):
        raise InputError(f"{source}: {column} has {url}; expected a path, or an address with s3, gs, https or file")
    return unquote(parts.path).replace("\\", "/")


def _are_images(values: pd.Series, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> pd.Series:
    """Whether each value that is there names a file with one of these endings."""
    return values.dropna().map(lambda value: file_on_disk(value).suffix.lower() in suffixes).astype(bool)


def _refuse_lost_images(others: pd.DataFrame, *, source: str) -> None:
    """InputError for a column with images in some rows only, or with pictures of a kind that is not read."""
    for name in others:
        are_images, are_others = _are_images(others[name]), _are_images(others[name], OTHER_PICTURES)
        bad = are_others if are_others.any() else ~are_images
        if are_images.any() or are_others.any():
            row = int(str(bad.idxmax()))
            raise InputError(
                f'{source}, row {row + 2}: {name} is "{others[name].loc[row]}"; expected images that end in '
                f"{', '.join(IMAGE_SUFFIXES)} in all rows or in none; correct it, or remove the column"
            )
