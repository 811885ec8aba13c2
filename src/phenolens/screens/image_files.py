"""The images of a screen: a file and, where it holds several images, the choice of one (`path#page=2`).

Numbers count from 1. A `#` without such a choice behind it is part of the file's name. `z=max` and `z=brightest` take
all planes of a stack, whose other planes may be files of their own (`with=a|b`, relative to the first); `black=100` is
subtracted from the grey values. Folders are listed here; no image is opened.
"""

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from pathlib import Path
from stat import S_ISREG

import numpy as np
import numpy.typing as npt
import pandas as pd

from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.files import sha256
from phenolens.core.names import shortened
from phenolens.core.progress import track
from phenolens.screens.config import LayoutConfig
from phenolens.screens.file_listing import files_under, is_hidden, is_thumbnail
from phenolens.screens.remote import is_address, is_remote, shown
from phenolens.screens.screen import Screen, where_of

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
AXES = ("page", "channel", "z", "t")
CHOICES = (*AXES, "with", "black")
CHOICE = re.compile(rf"#((?:{'|'.join(CHOICES)})=[^#&/\\]+(?:&(?:{'|'.join(CHOICES)})=[^#&/\\]+)*)$")
PROJECTIONS = ("max", "brightest")  # of a stack: the largest value of each pixel; the plane with the largest mean
# A channel's name is free text; what would end it is written as a web address does.
ESCAPED = {"%": "%25", "#": "%23", "&": "%26", "/": "%2F", "\\": "%5C"}


@dataclass(frozen=True)
class ImageReference:
    """A file (or the folder of an OME-Zarr image) and, where it holds several images, the choice of one."""

    file: Path
    choice: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """The reference as written in `file_<channel>`."""
        choice = "&".join(f"{axis}={_escape(value)}" for axis, value in self.choice.items())
        return self.file.as_posix() + (f"#{choice}" if choice else "")

    @property
    def files(self) -> list[Path]:
        """The file, and those of the other planes of its stack."""
        others = self.choice.get("with", "")
        return [self.file, *(self.file.parent / name for name in others.split("|") if name)]

    @property
    def black(self) -> int:
        """The grey value that means no light; InputError where it is no whole number."""
        text = self.choice.get("black", "0")
        if not text.isdecimal():
            raise InputError(f'{self.file}: black is "{text}", expected a whole number from 0')
        return int(text)


def image_reference(text: str | Path) -> ImageReference:
    """Parse the text of `file_<channel>`, or a path made of it."""
    text = str(text)
    match = CHOICE.search(text)
    if match is None:
        return ImageReference(Path(text))
    pairs = (part.split("=", 1) for part in match[1].split("&"))
    return ImageReference(Path(text[: match.start()]), {word: _unescape(value) for word, value in pairs})


def file_on_disk(text: str | Path) -> Path:
    """The path without `#page=...`."""
    return image_reference(text).file


def is_zarr(path: Path) -> bool:
    """Whether a path lies in a zarr folder."""
    return any(part.lower().endswith(".zarr") for part in path.parts)


def _escape(value: str) -> str:
    return "".join(ESCAPED.get(letter, letter) for letter in value)


def _unescape(value: str) -> str:
    for letter, written in reversed(ESCAPED.items()):
        value = value.replace(written, letter)
    return value


IMAGE_SUFFIXES = (".tif", ".tiff", ".png")
OTHER_PICTURES = (".jpg", ".jpeg", ".jp2", ".bmp", ".gif", ".webp")  # kinds that are not read, most of them lossy
ILLUMINATION = "illumination_"  # before a channel: the column of its correction function


def with_files(screen: Screen, *, skip_missing: bool) -> Screen:
    """The screen with each `file_<channel>` as spelt on disk.

    Raises InputError for a field without a file of each channel, and for a file of 0 bytes; with `skip_missing` such
    fields are left out and counted. Accented letters may be written in either Unicode form.
    """
    table = screen.table.copy()
    columns = [f"file_{channel}" for channel in screen.channels]
    listed: dict[Path, dict[str, tuple[str, int]]] = {}

    def on_disk(file: Path) -> tuple[str, int]:
        folder = screen.folder / file.parent
        if folder not in listed:
            listed[folder] = _listing(folder)
        return listed[folder].get(_plain(file.name), ("", -1))

    complete = pd.Series(True, index=table.index)
    missing: list[str] = []
    absent: list[tuple[Path, str]] = []  # files that are not there, and their plates
    for row in track(range(len(table)), "Fields whose images were looked for", total=len(table)):
        field = table.iloc[row]
        for channel, column in zip(screen.channels, columns):
            reference = image_reference(str(field[column]))
            file, (name, n_bytes) = next(
                ((file, found) for file in reference.files if (found := on_disk(file))[1] <= 0),
                (reference.file, on_disk(reference.file)),
            )
            if n_bytes > 0:
                table.at[row, column] = str(ImageReference(reference.file.with_name(name), reference.choice))
                continue
            complete.iloc[row] = False
            what = "is an empty file of 0 bytes" if n_bytes == 0 else "has no file"
            path = screen.folder / file
            place = shown(path) if is_remote(path) else f"{file} under {screen.folder}"
            missing.append(f'{where_of(field)}: channel "{channel}" {what} (expected {place})')
            absent += [(file, str(field["plate"]))] if n_bytes < 0 else []
    elsewhere = _elsewhere(screen.folder, *absent[0]) if absent and (not skip_missing or not complete.any()) else ""
    if missing and not skip_missing:
        raise InputError(
            f"{missing[0]}; {counted(len(missing), 'such file')} in {counted(int((~complete).sum()), 'field')}. "
            f"{elsewhere}Add what is missing, or run with --skip-missing; no crop was written."
        )
    if not complete.any():
        raise InputError(
            f"{missing[0]}; none of the {len(table):,} fields has an image of each channel. "
            f"{elsewhere or 'Add what is missing. '}".strip()
        )
    what = "fields without an image of each channel"
    n_left_out = screen.left_out.get(what, 0) + int((~complete).sum())
    return replace(screen, table=table).keeping(complete).leaving_out({what: n_left_out})


def _elsewhere(folder: Path, file: Path, plate: str) -> str:
    """Where else below `folder` a file of this name is, in other capitals, or with another ending; empty where none is.

    Of several, the one whose path has the plate's name comes first.
    """
    try:
        images = [path for path in files_under(folder)[0] if _is_image(path.rsplit("/", 1)[-1])]
    except InputError:
        return ""
    wanted = _plain(file.name)
    for key in (str, str.casefold, lambda name: Path(name).stem.casefold()):
        found = [path for path in images if key(_plain(path.rsplit("/", 1)[-1])) == key(wanted)]
        if found:
            found.sort(key=lambda path: plate not in Path(path).parts)
            more = f" and {len(found) - 1:,} more" if len(found) > 1 else ""
            return (
                f"There is {found[0]}{more}: if that is it, correct the name and folder in the table, or move and "
                "rename the files. "
            )
    return f"No image {file.name} is anywhere in {shown(folder)}. "


def choosing(screen: Screen, config: LayoutConfig, *, axes: Collection[str] = ("z", "t")) -> Screen:
    """The screen with the plane, time point and black level of the config for each image that does not choose its own.

    `axes` are those along which files hold several images; the others are in the names of files.

    Raises InputError for a plane that is neither a number nor a projection.
    """
    if config.z and not (config.z in PROJECTIONS or (config.z.isdecimal() and int(config.z) > 0)):
        raise InputError(f'--z "{config.z}": expected a number from 1, {" or ".join(PROJECTIONS)}')
    t = "" if config.t is None else str(config.t)
    chosen = {"z": config.z, "t": t, "black": str(config.black_level or "")}
    given = {axis: text for axis, text in chosen.items() if text and axis in (*axes, "black")}
    if not given:
        return screen
    table = screen.table.copy()
    for column in (f"file_{channel}" for channel in screen.channels):
        references = [image_reference(text) for text in table[column]]
        table[column] = [str(replace(one, choice={**given, **one.choice})) for one in references]
    return replace(screen, table=table)


def unnamed_images(
    folder: Path, references: Iterable[str], *, what: str, within: Path | None = None
) -> tuple[dict[str, int], list[str]]:
    """How many images a table does not name, under `what`, and a note on the folders of which it names none.

    Counted are images next to the named ones, and in any other folder `within` (the folder of the references by
    default); not hidden files. They are not refused: tables of a part of a screen are common.
    """
    within = Path(within or folder)
    named: dict[Path, set[str]] = {}
    for text in references:
        file = file_on_disk(text)
        named.setdefault(Path(folder) / file.parent, set()).add(_plain(file.name))
    n_beside = sum(1 for at, names in named.items() for name in _listing(at) if _is_image(name) and name not in names)
    try:
        images = [Path(path) for path in files_under(within)[0] if _is_image(path.rsplit("/", 1)[-1])]
    except InputError as error:  # of a folder that no field needs
        return {what: n_beside}, [f"{error}; its images are not counted"]
    by_folder = Counter(image.parent for image in images)
    real = {at.resolve() for at in named}
    others = {at: n for at, n in by_folder.items() if (within / at).resolve() not in real}
    held = [f"{'.' if at == Path() else at.as_posix()} ({n:,})" for at, n in sorted(others.items())]
    notes = [f"folders with {what}: {shortened(held)}"] if held else []
    return {what: n_beside + sum(others.values())}, notes


def _listing(folder: Path) -> dict[str, tuple[str, int]]:
    """Normalised name -> name and bytes of what a folder holds (1 byte for a folder, such as an OME-Zarr image)."""
    try:
        with os.scandir(folder) as entries:
            sizes = ((entry.name, _bytes(entry)) for entry in entries)
            return {_plain(name): (name, n_bytes) for name, n_bytes in sizes if n_bytes is not None}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed ({error.strerror}); make it readable") from error


def _bytes(entry: "os.DirEntry[str]") -> int | None:
    """The bytes of an entry, 1 for a folder; None for a broken link, which counts as missing."""
    try:
        return 1 if entry.is_dir() else entry.stat().st_size
    except OSError:
        if entry.is_symlink():
            return None
        raise


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES) and not is_thumbnail(name) and not is_hidden(name)


def missing_line(what: str, examples: list[str], *, instead: str) -> str:
    """One line about things that do not match: the first of them, their number, and what to do."""
    count = f" (the first of {len(examples):,})" if len(examples) > 1 else ""
    return f"{what}: {examples[0]}{count}. {instead}; no crop was written."


def chosen_planes(
    stack: Sequence[tuple[str, int]], choice: Mapping[str, str], channel_names: Sequence[str], *, named: str, path: Path
) -> list[tuple[int, ...]]:
    """The chosen place on each axis (letter, length) of a stack: one plane, or with a projection each z plane.

    Channels also go by name; an axis without a name of its own is chosen as `channel`. InputError for an axis of
    several images without a choice, and for a choice that the file does not have.
    """
    lengths: dict[str, int] = {}
    planes: list[tuple[int, ...]] = [()]
    for axis, length in stack:
        word = {"Z": "z", "T": "t"}.get(axis, "channel")
        if word in lengths and length > 1 < lengths[word]:
            raise InputError(f"{named} has several axes that are not z or t ({path}); choose with #page=1 and so on")
        lengths[word] = max(length, lengths.get(word, 1))
        text = choice.get(word)
        if word == "channel" and text is not None and text in channel_names:
            chosen = [list(channel_names).index(text)]
        elif word == "z" and text in PROJECTIONS:
            chosen = list(range(length))
        elif length == 1:
            chosen = [0]
        elif text is None:
            raise InputError(
                f"{named} is one of {length} along {word} ({path}); choose with {word}=1 to {word}={length} after #"
                + (", or z=max or z=brightest; --z says it for all files" if word == "z" else "")
                + ("; --t says it for all files" if word == "t" else "")
            )
        else:
            known = f"; its channels are {', '.join(channel_names)}" if word == "channel" and channel_names else ""
            chosen = [chosen_number(text, length, what=word, named=named, path=path, known=known)]
        planes = [(*plane, at) for plane in planes for at in chosen]
    refuse_lacking(choice, lengths, channel_names, named=named, path=path)
    return planes


def refuse_lacking(
    choice: Mapping[str, str],
    lengths: Mapping[str, int],
    channel_names: Sequence[str] = (),
    *,
    named: str,
    path: Path,
) -> None:
    """InputError for a choice along an axis that the file does not have, such as z=3 of a single image."""
    for word in AXES:
        text = choice.get(word, "1")
        is_named = text in channel_names if word == "channel" else word == "z" and text in PROJECTIONS
        if lengths.get(word, 1) == 1 and not is_named:
            chosen_number(text, 1, what=word, named=named, path=path)


def projected(planes: Sequence[Pixels], how: str) -> Pixels:
    """The planes (H, W) of a stack as one image: the largest value of each pixel, or the plane with the largest mean.

    `brightest` takes the first of equals, in each channel by itself.
    """
    if how == "brightest":
        return max(planes, key=lambda plane: float(plane.mean()))
    return planes[0] if len(planes) == 1 else np.maximum.reduce(planes)


def chosen_number(text: str, n: int, *, what: str, named: str, path: Path, known: str = "") -> int:
    """A number from 1 to n as an index from 0; InputError where the file does not have it."""
    if text.isdecimal() and 1 <= int(text) <= n:
        return int(text) - 1
    if n == 1:
        raise InputError(f'{named} names {what} "{text}" of {path}, which has one; correct the name')
    raise InputError(f'{named} names {what} "{text}" of {path}, which has {what} 1 to {n}{known}; correct the name')


FILE_NAME = re.compile(r"[^\s./\\:][^/\\:]*")
COMPARED_BYTES = 4096
MOST_KNOWN = 100_000  # files whose middle is remembered, in at most 50 MB
MOST_BYTES = 200  # of a plate's name; file systems hold 255, and `.` and `.parquet.partial` stand around it


def part_name(plate: str) -> str:
    """The plate's name, which also names its files; InputError where no file can have it."""
    if len(plate.encode()) > MOST_BYTES:
        raise InputError(
            f'plate "{plate[:20]}..." has a name of {len(plate)} letters, {len(plate.encode())} bytes; files are named '
            f"after it: use one of at most {MOST_BYTES} bytes"
        )
    if not FILE_NAME.fullmatch(plate):
        raise InputError(f'plate "{plate}" cannot name a file; use a name without slash, colon or leading dot')
    return plate


def states_and_newest(files: Iterable[Path]) -> tuple[list[str], int]:
    """Each file's bytes and a hash of those in its middle, and when the newest was changed (ns since 1970).

    An image inside a file (`path#page=2`) counts as the file; of an OME-Zarr image, a folder, and of an image by
    address the contents are not read. InputError for a file that is not there.
    """

    @cache
    def state_of(file: Path) -> tuple[str, int]:
        state = file.stat()
        middle = middle_sha256(file) if S_ISREG(state.st_mode) and not is_remote(file) else ""
        return f"{state.st_size}{middle}", state.st_mtime_ns

    try:
        states = [state_of(file) for path in files for file in image_reference(path).files]
    except FileNotFoundError as error:
        raise InputError(f"{error.filename}: no such image; add it, or run with --skip-missing") from error
    return [text for text, _ in states], max((newest for _, newest in states), default=0)


def middle_sha256(path: Path) -> str:
    """SHA-256 of COMPARED_BYTES in the middle of a file, where images differ whose headers are the same.

    A file that did not change is read once, although each step asks for it.
    """
    state = path.stat()
    return _middle(path, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


@lru_cache(MOST_KNOWN)
def _middle(path: Path, n_bytes: int, _changed_ns: int, _moved_ns: int) -> str:
    with path.open("rb") as file:
        file.seek(max(0, n_bytes - COMPARED_BYTES) // 2)
        return hashlib.sha256(file.read(COMPARED_BYTES)).hexdigest()


def fields_sha256(table: pd.DataFrame, folder: Path) -> str:
    """`content_sha256` of a table with images in `folder`; the same when folder, images or the cache are moved.

    An absolute path counts as its address where it lies in the listing of a source by address, else relative to
    `folder`.
    """
    folder = Path(folder).resolve()

    @cache
    def named(parent: Path) -> str:
        text = shown(parent)
        return text if is_address(text) else Path(os.path.relpath(parent.resolve(), folder)).as_posix()

    @cache
    def movable(text: str) -> str:
        path = Path(text)  # with the choice, which has no slash
        return f"{named(path.parent)}/{path.name}" if path.is_absolute() else text

    names = [name for name in map(str, table) if name.startswith(("file_", ILLUMINATION))]
    return content_sha256(table.assign(**{name: table[name].map(movable, na_action="ignore") for name in names}))


def content_sha256(table: pd.DataFrame) -> str:
    """SHA-256 of a table's column names and values, in order."""
    values = pd.util.hash_pandas_object(table, index=False).to_numpy()
    return sha256(",".join(map(str, table.columns)), values.tobytes())
