"""The files of a screen's images: where they are, which are missing, and which no table names; none is opened."""

import os
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path

import pandas as pd

from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.names import shortened
from phenolens.core.progress import track
from phenolens.screens.config import LayoutConfig
from phenolens.screens.file_listing import files_under, is_hidden, is_thumbnail
from phenolens.screens.image_reference import PROJECTIONS, ImageReference, file_on_disk, image_reference
from phenolens.screens.remote import is_remote, shown
from phenolens.screens.screen import Screen, where_of

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
