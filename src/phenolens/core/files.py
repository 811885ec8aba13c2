"""Atomic file writes: a file is complete or absent, even if the process is killed."""

import hashlib
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from phenolens.core.errors import InputError

if TYPE_CHECKING:
    from anndata import AnnData


@contextmanager
def write_whole(path: Path) -> Iterator[IO[bytes]]:
    """Open `path` for binary writing; the file gets its name once everything is written.

    Until then it is `.<name>.partial` in the same folder, which is removed on an error and overwritten by a retry.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


@contextmanager
def alone(lock: Path, *, doing: str) -> Iterator[None]:
    """Hold the file `lock` while `doing` something that only one process may do at a time.

    The operating system releases the lock when the process ends.

    Raises:
        InputError: Another process holds the lock.
        OSError: No file can be made there.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        lock.touch()  # OSError where no file can be made there
        raise InputError(f"{lock.parent}: another process is {doing}; wait until it has finished, or stop it") from None
    try:
        yield
    finally:
        held.release()


def is_held(lock: Path) -> bool:
    """Whether another process holds this file as `alone` does."""
    if not lock.is_file():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with write_whole(path) as file:
        file.write(text.encode())


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, keys in the given order, atomically."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path, *, remedy: str) -> Any:
    """The content of a JSON file.

    Raises:
        InputError: The file is missing or damaged; the message ends with `remedy`, what to do.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: not found; {remedy}") from None
    except ValueError as error:
        raise InputError(f"{path}: not readable as JSON ({error}); {remedy}") from None


def write_parquet(path: Path, table: pd.DataFrame, *, about: dict[str, Any]) -> None:
    """Write `table` as Parquet, with `about` in its schema metadata under the key `phenolens`."""
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    arrow = arrow.replace_schema_metadata({**(arrow.schema.metadata or {}), b"phenolens": json.dumps(about).encode()})
    with write_whole(path) as file:
        pq.write_table(arrow, file)


def read_parquet_about(path: Path) -> dict[str, Any] | None:
    """The `about` of `write_parquet`, or None if another program wrote the file."""
    metadata = pq.read_schema(path).metadata or {}
    text = metadata.get(b"phenolens")
    return None if text is None else json.loads(text)


def write_h5ad(path: Path, table: "AnnData") -> None:
    """Write an AnnData table as .h5ad, atomically; equal tables give equal bytes."""
    import anndata
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        anndata.io.write_elem(file, "/", table)
        if table.raw is None and "raw" in file:
            del file["raw"]  # empty group, which anndata cannot open with backed="r"
    with write_whole(path) as target:
        target.write(buffer.getbuffer())


def read_h5ad(path: Path, *, remedy: str) -> "AnnData":
    """An AnnData table.

    Raises:
        InputError: The file is missing or damaged; the message ends with `remedy`, what to do.
    """
    import anndata

    try:
        return anndata.read_h5ad(path)
    except (OSError, KeyError, ValueError, TypeError) as error:
        found = "damaged" if path.exists() else "not found"
        raise InputError(f"{path}: {found}; {remedy}") from error


def sha256(*parts: bytes | str | Path | dict[str, Any]) -> str:
    """One SHA-256 over the parts in order: the content of a Path, the sorted JSON of a dict, text, bytes."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            with part.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        elif isinstance(part, dict):
            digest.update(hashlib.sha256(json.dumps(part, sort_keys=True).encode()).digest())
        else:
            digest.update(hashlib.sha256(part.encode() if isinstance(part, str) else part).digest())
    return digest.hexdigest()
