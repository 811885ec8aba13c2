"""Find a screen's images on disk: a label without an image and an image without a label are told before any work.

Only folders are listed, no image is opened.

Numbers count from 1. A `#` that is not followed by such words is part of the file's name.
"""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import pandas as pd

from phenolens.core.errors import InputError
from phenolens.core.files import sha256
from phenolens.core.progress import track
from phenolens.screens.screen import Screen

WORDS = ("page", "channel", "z", "t")
CHOICE = re.compile(rf"#((?:{'|'.join(WORDS)})=[^#&/\\]+(?:&(?:{'|'.join(WORDS)})=[^#&/\\]+)*)$")
# A channel's name is free text; what would end it is written as a web address does.
ESCAPED = {"%": "%25", "#": "%23", "&": "%26", "/": "%2F", "\\": "%5C"}


@dataclass(frozen=True)
class ImageReference:
    """A file (or the folder of an OME-Zarr image) and, where it holds more than one image, the words that choose."""

    file: Path
    choice: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """The reference as `file_<channel>` has it."""
        words = "&".join(f"{word}={_escape(value)}" for word, value in self.choice.items())
        return self.file.as_posix() + (f"#{words}" if words else "")


def image_reference(text: str | Path) -> ImageReference:
    """The reference that a cell of `file_<channel>`, or a path made of it, says."""
    text = str(text)
    match = CHOICE.search(text)
    if match is None:
        return ImageReference(Path(text))
    pairs = (part.split("=", 1) for part in match[1].split("&"))
    return ImageReference(Path(text[: match.start()]), {word: _unescape(value) for word, value in pairs})


def file_on_disk(text: str | Path) -> Path:
    """What to ask the file system about: the path without `#page=...`."""
    return image_reference(text).file


def _escape(value: str) -> str:
    return "".join(ESCAPED.get(letter, letter) for letter in value)


def _unescape(value: str) -> str:
    for letter, written in reversed(ESCAPED.items()):
        value = value.replace(written, letter)
    return value


PLATE_FOLDER = re.compile(r"Week\d+_\d+")
WEEK_FOLDER = re.compile(r"Week\d+")
TIFF_SUFFIXES = (".tif", ".tiff")


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
            unnamed += [f"{relative}/{name}" for name in sorted(strange) if name.lower().endswith(TIFF_SUFFIXES)]
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


FILE_NAME = re.compile(r"[^\s./\\:][^/\\:]*")
MOST_BYTES = 200  # of a plate's name; file systems hold 255, and `.` and `.parquet.partial` stand around it


def part_name(plate: str) -> str:
    """The plate's name, known to be one that files can have; InputError else."""
    if len(plate.encode()) > MOST_BYTES:
        raise InputError(
            f'plate "{plate[:20]}..." has a name of {len(plate)} letters, {len(plate.encode())} bytes; files are named '
            f"after it: use one of at most {MOST_BYTES} bytes"
        )
    if not FILE_NAME.fullmatch(plate):
        raise InputError(f'plate "{plate}" cannot name a file; use a name without slash, colon or leading dot')
    return plate


def sizes_and_newest(files: Iterable[Path]) -> tuple[list[int], int]:
    """Each file's bytes, and when the newest was changed (ns since 1970); InputError for one that is not there.

    Of an image inside a file (`path#page=2`) the file is looked at, of an OME-Zarr image its folder.
    """
    try:
        states = [file_on_disk(path).stat() for path in files]
    except FileNotFoundError as error:
        raise InputError(f"{error.filename}: no such image; bring it, or run with --skip-missing") from error
    return [state.st_size for state in states], max((state.st_mtime_ns for state in states), default=0)


def content_sha256(table: pd.DataFrame) -> str:
    """SHA-256 of a table's column names and values, in order."""
    values = pd.util.hash_pandas_object(table, index=False).to_numpy()
    return sha256(",".join(map(str, table.columns)), values.tobytes())
