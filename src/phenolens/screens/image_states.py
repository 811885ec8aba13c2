"""Whether images have changed: hashes of their tables and contents, and the files that are named after plates."""

import hashlib
import os
import re
from collections.abc import Iterable
from functools import cache, lru_cache
from pathlib import Path
from stat import S_ISREG

import pandas as pd

from phenolens.core.errors import InputError
from phenolens.core.files import sha256
from phenolens.screens.image_files import ILLUMINATION
from phenolens.screens.image_reference import image_reference
from phenolens.screens.remote import is_address, is_remote, shown, state_of

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

    An image inside a file (`path#page=2`) counts as the file; the contents of an OME-Zarr image, a folder, are not
    read. The state of an image by address is its size and tag; its time is not used, which is of another clock.
    InputError for a file that is not there.
    """

    @cache
    def state_and_time(file: Path) -> tuple[str, int]:
        if is_remote(file):
            return state_of(file), 0
        state = file.stat()
        middle = middle_sha256(file) if S_ISREG(state.st_mode) else ""
        return f"{state.st_size}{middle}", state.st_mtime_ns

    try:
        states = [state_and_time(file) for path in files for file in image_reference(path).files]
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
