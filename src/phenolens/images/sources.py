"""What something was made from: files by their size and age, tables by their content."""

import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from phenolens.errors import InputError
from phenolens.files import sha256
from phenolens.screen.image_reference import file_on_disk

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
