"""CropStore: single-cell crops in a folder, a file per plate, read as fast as memory allows.

N crops, C channels, S x S pixels. A plate is `<plate>.npy` (uint16, N x C x S x S) and `<plate>.parquet` (a row a
crop); `about.json` describes them, and is complete only when every plate is.
"""

import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from phenolens.core.bounds import OneOf, check
from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.files import write_whole
from phenolens.core.keywords import checked
from phenolens.core.mapped_rows import MappedRows
from phenolens.crops.cells_index import MANY_PLATES, Listing, indexed, listing

FORMAT = "phenolens crops"
VERSION = 2
ABOUT = "about.json"
EMPTY_WELLS = "wells_without_cells"  # in the `source` of about.json
WITHOUT_MECHANISMS = "cells_without_mechanisms_sha256"  # of a plate in about.json
QUALITY_FOLDER = "quality"  # a table per plate: cell_id, and what crop_quality measures
PIXEL_TYPE = np.dtype("<u2")

UInt16Array = npt.NDArray[np.uint16]


class CropStore:
    """The crops of a folder, in the order of plates and, within a plate, of its table; `CropStore.open` checks it.

    `channels` (C names), `crop_px` (S), `plates` and `cells` (a row a crop) describe them; `len` counts them.

    Args:
        folder: The folder.
        about: The content of its about.json.
        identity: SHA-256 of about.json, which holds the SHA-256 of every plate's crops and table.
    """

    def __init__(self, folder: Path, about: dict[str, Any], *, identity: str) -> None:
        self.folder = folder
        self.about = about  # the content of about.json
        self.identity = identity
        self.channels: tuple[str, ...] = tuple(about["channels"])
        self.crop_px: int = about["crop_px"]
        self.plates: tuple[str, ...] = tuple(about["plates"])
        self.sizes: tuple[int, ...] = tuple(about["plates"][plate]["n_crops"] for plate in self.plates)
        shapes = [self._shape(size) for size in self.sizes]
        paths = [folder / f"{plate}.npy" for plate in self.plates]
        self._rows = MappedRows(self.sizes, lambda number: _mapped(paths[number], shapes[number]))
        files = listing(folder)
        for number, plate in enumerate(self.plates):
            self._check_files(plate, self.sizes[number], files)
            if len(self.plates) < MANY_PLATES:
                self._rows.part(number)

    @classmethod
    @checked
    def open(cls, folder: Path | str) -> "CropStore":
        """The store in `folder`.

        Raises:
            InputError: There is none, or it is unfinished, damaged or of another version.
        """
        folder = Path(folder)
        about = read_about(folder)
        if about is None:
            raise InputError(f"{folder}: no crops here (no {ABOUT} of {FORMAT}); make them with `phenolens crop`")
        if about["version"] != VERSION:
            raise InputError(f"{folder}: crops of version {about['version']}, expected {VERSION}; make them again")
        if not about["complete"]:
            raise InputError(f"{folder}: the crops were not finished; run the same `phenolens crop` again to resume")
        return cls(folder, about, identity=identity_of(folder))

    @property
    def identity_without_mechanisms(self) -> str:
        """SHA-256 of all that a model learns from: crops, wells, treatments; it outlives a corrected mechanism.

        `identity` where the store was written before such a checksum was.
        """
        plates = self.about["plates"]
        parts = [(name, plate["npy_sha256"], plate.get(WITHOUT_MECHANISMS)) for name, plate in plates.items()]
        if any(own is None for *_, own in parts):
            return self.identity
        made_of = {"channels": self.channels, "crop_px": self.crop_px, "plates": parts}
        return sha256(json.dumps(made_of).encode()).hexdigest()

    @property
    def empty_wells(self) -> dict[str, str]:
        """The plate and well of each well without a crop, and its treatment."""
        return dict(self.about["source"].get(EMPTY_WELLS, {}))

    @property
    def origin(self) -> str:
        """As `origin_of`."""
        return origin_of(self.about)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        """How many crops there are, and of what."""
        what = f"{counted(len(self), 'crop')} of {self.crop_px} px on {counted(len(self.plates), 'plate')}"
        return f"CropStore {self.folder}: {what}, channels {', '.join(self.channels)}"

    @cached_property
    def cells(self) -> pd.DataFrame:
        """One row per crop, in the order of the rows of `take`.

        `cell_id` (unique), `field`, `object_number` (the nucleus within its field), `y`, `x` (its centre in the field,
        pixels; empty for finished crops), the screen's COLUMNS, `is_noise` (has a flag that the crops' config leaves
        out: camera noise by default), and `flags` (its defects, as in `quality_flags`).
        """
        names = [f"{plate}.parquet" for plate in self.plates]
        many = len(names) >= MANY_PLATES
        table = indexed(self.folder, names, self._plate_tables) if many else self._plate_tables()
        return table.to_pandas(ignore_metadata=True)

    def quality(self) -> pd.DataFrame:
        """What `crop_quality` measured and judged, a row per crop in the order of `cells`, with its `cell_id`."""
        paths = [self.folder / QUALITY_FOLDER / f"{plate}.parquet" for plate in self.plates]
        return pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True)

    def _plate_tables(self) -> pa.Table:
        tables = [_read_cells(self.folder / f"{plate}.parquet") for plate in self.plates]
        for plate, size, table in zip(self.plates, self.sizes, tables):
            if table.num_rows != size:
                raise _damaged(self.folder / f"{plate}.parquet", f"{table.num_rows} rows")
        return pa.concat_tables(tables, promote_options="default")

    def crops(self, plate: str) -> UInt16Array:
        """A plate's crops, (N, C, S, S), mapped from disk; read-only.

        Raises:
            InputError: There is no such plate.
        """
        check("plate", plate, Annotated[str, OneOf(self.plates)])
        return self._rows.part(self.plates.index(plate))

    def take(self, rows: Iterable[int] | npt.NDArray[np.integer]) -> UInt16Array:
        """The crops of these rows of `cells`, in the given order: (n, C, S, S), a copy.

        Raises:
            IndexError: A row does not exist; rows do not count from the end.
        """
        return self._rows[rows if isinstance(rows, np.ndarray) else list(rows)]

    def _check_files(self, plate: str, n_crops: int, files: Listing) -> None:
        """InputError where a plate's files are missing, or its crops have another size."""
        path, table = self.folder / f"{plate}.npy", self.folder / f"{plate}.parquet"
        if path.name not in files:
            raise _damaged(path, "missing")
        if files[path.name].st_size != whole_bytes(self._shape(n_crops)):
            raise _damaged(path, f"{files[path.name].st_size:,} bytes")
        if table.name not in files:
            raise _damaged(table, "missing")

    def _shape(self, n_crops: int) -> tuple[int, int, int, int]:
        return (n_crops, len(self.channels), self.crop_px, self.crop_px)


def _mapped(path: Path, shape: tuple[int, int, int, int]) -> UInt16Array:
    """A plate's crops, mapped from disk."""
    if not whole_npy(path, shape):
        raise _damaged(path, f"{path.stat().st_size:,} bytes" if path.is_file() else "missing")
    return np.load(path, mmap_mode="r") if shape[0] else np.empty(shape, PIXEL_TYPE)


def normalised(crops: np.ndarray) -> np.ndarray:
    """Crops (n, C, S, S) as float32 0 to 1: each channel of each crop divided by its maximum (zeros stay zeros)."""
    peak = crops.max(axis=(2, 3), keepdims=True).astype(np.float32)
    return crops / np.where(peak > 0, peak, 1)


def identity_of(folder: Path) -> str:
    """SHA-256 of a store's about.json, which holds the SHA-256 of every plate's crops and table."""
    return sha256((folder / ABOUT).read_bytes()).hexdigest()


def read_about(folder: Path) -> dict[str, Any] | None:
    """The content of about.json in `folder`; None if no crop store wrote one."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return about if isinstance(about, dict) and about.get("format") == FORMAT else None


def origin_of(about: Mapping[str, Any]) -> str:
    """What the cells of a store's about.json are called, beside decoded ones: simulated by phenolens, or real."""
    return "simulated" if about.get("source", {}).get("simulated") else "real"


def write_npy(path: Path, batches: Iterable[UInt16Array], shape: tuple[int, int, int, int]) -> str:
    """Write batches of crops (n, C, S, S) as one `.npy` of `shape`, whole or not at all; its SHA-256.

    Writes are sequential, so that a full disk is an OSError.
    """
    digest = sha256()
    header = npy_header(shape)
    n_written = 0
    with write_whole(path) as file:
        file.write(header)
        digest.update(header)
        for crops in batches:
            assert crops.shape[1:] == shape[1:], (crops.shape, shape)
            pixels = np.ascontiguousarray(crops, dtype=PIXEL_TYPE).data
            file.write(pixels)
            digest.update(pixels)
            n_written += len(crops)
        assert n_written == shape[0], (n_written, shape)
    return digest.hexdigest()


def npy_header(shape: tuple[int, ...]) -> bytes:
    """The bytes before the pixels of an `.npy` of crops of this shape."""
    header = BytesIO()
    description = {"descr": PIXEL_TYPE.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, description)
    return header.getvalue()


def whole_bytes(shape: tuple[int, ...]) -> int:
    """The length of an `.npy` of crops of this shape."""
    return len(npy_header(shape)) + int(np.prod(shape)) * PIXEL_TYPE.itemsize


def whole_npy(path: Path, shape: tuple[int, ...]) -> bool:
    """Whether `path` has the header and the length of an `.npy` of crops of this shape."""
    header = npy_header(shape)
    if not path.is_file() or path.stat().st_size != whole_bytes(shape):
        return False
    with path.open("rb") as file:
        return file.read(len(header)) == header


def _read_cells(path: Path) -> pa.Table:
    try:
        return pq.read_table(path).replace_schema_metadata(None)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, str(error).splitlines()[0]) from error


def _damaged(path: Path, found: str) -> InputError:
    return InputError(f"{path}: damaged ({found}); run the same `phenolens crop` again, which makes this plate again")
