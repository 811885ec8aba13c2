"""Which files lie under a folder, without the hidden files, thumbnails and copies that systems and people add."""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path

from phenolens.core.errors import InputError

THUMBNAIL = re.compile(r"_thumb|^thumbnail", re.IGNORECASE)
THUMBNAIL_FOLDER = re.compile(r"thumb(?:nail)?s?", re.IGNORECASE)
# Of Synology, macOS, Windows, QNAP, NetApp and of file systems. Names that begin with a dot are hidden too.
OF_THE_SYSTEM = frozenset(
    "@eadir @recycle #recycle #snapshot __macosx thumbs.db ehthumbs.db desktop.ini $recycle.bin icon\r".split(" ")
)
HIDDEN, THUMBNAILS = "hidden files and folders (._x, Thumbs.db, @eaDir)", "thumbnails"
THUMBNAIL_FOLDERS = "folders of thumbnails"
# As Windows, macOS and browsers name a second file of one name.
COPY = re.compile(r"(?:Copy of )?(?P<stem>.+?)(?: \(\d+\)| - Copy(?: \(\d+\))?| copy(?: \d+)?)?(?P<ending>\.[^.]+)")
COPIES = "copies by their names (x (1).tif, x - Copy.tif)"
LINKED = "folders behind links that are read already"


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden or of the operating system: `._x.tif`, `.DS_Store`, `@eaDir`, `Thumbs.db`."""
    return name.startswith(".") or name.lower() in OF_THE_SYSTEM


def is_thumbnail(name: str) -> bool:
    """Whether a file is a small copy of an image, as ImageXpress writes them."""
    return THUMBNAIL.search(name) is not None


def is_copy(name: str, names: Collection[str]) -> bool:
    """Whether a file of a folder is by its name a copy of another there: `x (1).tif` beside `x.tif`."""
    parts = COPY.fullmatch(name)
    original = name if parts is None else parts["stem"] + parts["ending"]
    return original != name and original in names


def in_hidden(path: Path) -> bool:
    """Whether any part of a relative path is hidden."""
    return any(is_hidden(part) for part in path.parts)


def without_hidden(paths: Iterable[Path]) -> list[Path]:
    """The paths, in order, whose last part is not hidden."""
    return sorted(path for path in paths if not is_hidden(path.name))


def files_under(source: Path) -> tuple[list[str], dict[str, int]]:
    """Every file under `source` as its path with forward slashes, in order, and how many of what were passed over.

    Folders behind links are followed, each folder once; hidden files, thumbnails, their folders, zarr folders and
    copies are passed over.
    Raises InputError for a folder that cannot be listed.
    """
    counts: Counter[str] = Counter()
    files: list[str] = []
    top = Path(source)
    folders = [top]
    seen = {_identity(top)}
    behind_links: list[Path] = []
    while folders or behind_links:  # real folders first, so that a file has the path without a link
        folder = folders.pop() if folders else behind_links.pop(0)
        if folder.is_symlink() and folder != top:
            if _identity(folder) in seen:
                counts[LINKED] += 1
                continue
            seen.add(_identity(folder))
        try:
            with os.scandir(folder) as listed:
                entries = sorted(listed, key=lambda entry: entry.name, reverse=True)
        except OSError as error:
            raise InputError(f"{error.filename}: cannot be listed ({error.strerror}); make it readable") from error
        names = {entry.name for entry in entries}
        for entry in entries:
            path = folder / entry.name
            if is_hidden(entry.name):
                counts[HIDDEN] += 1
            elif _is_folder(entry):
                if entry.name.lower().endswith(".zarr"):
                    counts["zarr folders"] += 1
                elif THUMBNAIL_FOLDER.fullmatch(entry.name):
                    counts[THUMBNAIL_FOLDERS] += 1
                elif entry.is_symlink():
                    behind_links.append(path)
                else:
                    seen.add(_identity(path))
                    folders.append(path)
            elif is_thumbnail(entry.name):
                counts[THUMBNAILS] += 1
            elif is_copy(entry.name, names):
                counts[COPIES] += 1
            else:
                files.append(path.relative_to(top).as_posix())
    return sorted(files), dict(counts)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _identity(folder: Path) -> tuple[int, int] | str:
    try:
        state = folder.stat()
    except OSError:
        return str(folder)
    return (state.st_dev, state.st_ino) if state.st_ino else str(folder.resolve())  # some file systems have no numbers
