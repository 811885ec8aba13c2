"""Single-cell crops from and to scPortrait's `.h5sc`: float16 images in an AnnData file, masks before channels.

N crops, C channels, S x S pixels. There grey values are 0 to 1; here they are 0 to 65,535. float16 keeps 11 bits of a
value, so a crop that goes there and back differs by up to 1 in 2,048 of each pixel.
"""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from phenolens.core.errors import InputError
from phenolens.core.progress import track
from phenolens.crops.store import CropStore
from phenolens.screens.scportrait import CELL_ID, IMAGES, OBJECT_NUMBER
from phenolens.screens.screen import METADATA

FULL = 65_535
AT_ONCE = 256  # crops in memory at a time
SAID = "single_cell_images"
ROOM, ROOM_A_CELL = 1_000_000, 2_000  # bytes beside the images, at most: tables, and each chunk's place


def _make_room(path: Path, n_bytes: int) -> None:
    """OSError unless `path` can become so large: of a disk that fills HDF5 itself speaks in pages, or not at all."""
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, n_bytes)
        elif shutil.disk_usage(path.parent).free < n_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        file.truncate(0)


@dataclass(frozen=True)
class H5scTaker:
    """Reads the crops of an `.h5sc` file; a cell's `path` is its row there."""

    file: Path
    order: list[int]  # the place of each channel
    crop_px: int

    def __call__(self, rows: pd.DataFrame) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]]:
        """The crops (n, C, S, S) of these rows, twice: nothing corrects them.

        InputError for another side and for values that are no share of 1.
        """
        import h5py

        with h5py.File(self.file) as file:
            images = file[IMAGES]
            if images.shape[2:] != (self.crop_px, self.crop_px):
                raise InputError(
                    f"{self.file}: images of {images.shape[2]} x {images.shape[3]} px, expected {self.crop_px} x "
                    f"{self.crop_px}; give their side with --crop-px"
                )
            wanted = rows["path"].to_numpy(np.int64)
            order = np.argsort(wanted)  # h5py takes rows in rising order
            crops = np.empty((len(rows), len(self.order), self.crop_px, self.crop_px), np.float32)
            crops[order] = images[wanted[order]][:, self.order]
        if not np.isfinite(crops).all() or crops.min() < 0 or crops.max() > 1:
            raise InputError(
                f"{self.file}: grey values from {crops.min():g} to {crops.max():g} in rows near {wanted[0]}; expected "
                "0 to 1, as scPortrait normalises them"
            )
        taken = np.rint(crops * FULL).astype(np.uint16)
        return taken, taken

    def files(self, rows: pd.DataFrame) -> list[Path]:
        """The one file."""
        return [self.file]


def write_h5sc(store: CropStore, path: Path) -> None:
    """Write all crops of a store as `.h5sc`, whole or not at all; `obs` has the cells' Metadata_* columns, no masks."""
    import anndata
    import h5py

    cells = store.cells
    obs = pd.DataFrame({CELL_ID: np.arange(1, len(cells) + 1, dtype=np.uint64)}, index=cells["cell_id"].to_numpy())
    for ours, name in METADATA.items():
        if ours in cells and ours != "field":  # a name that plate maps take for the site
            values = cells[ours]
            obs[name] = values.fillna("").astype(str).to_numpy() if values.dtype == object else values.to_numpy()
    obs[OBJECT_NUMBER] = cells["object_number"].to_numpy(np.int64)
    channels = list(store.channels)
    var = pd.DataFrame({"channels": channels, "channel_mapping": ["image_channel"] * len(channels)})
    var.index = var.index.astype(str)
    side: dict[str, int | str] = {
        "n_cells": len(cells),
        "n_channels": len(channels),
        "n_masks": 0,
        "n_image_channels": len(channels),
    }
    side |= {"image_size_x": store.crop_px, "image_size_y": store.crop_px, "compression": "gzip"}
    table = anndata.AnnData(obs=obs, var=var, uns={SAID: {**side, "channel_names": np.array(channels)}})
    partial = path.with_name(f".{path.name}.partial")
    try:
        _make_room(partial, 2 * len(cells) * len(channels) * store.crop_px**2 + ROOM_A_CELL * len(cells) + ROOM)
        with h5py.File(partial, "w") as file:
            anndata.io.write_elem(file, "/", table)
            shape = (len(cells), len(channels), store.crop_px, store.crop_px)
            chunk = (1, 1, store.crop_px, store.crop_px)
            images = file.create_dataset(IMAGES, shape, np.float16, chunks=chunk, compression="gzip")
            images.attrs["encoding-type"], images.attrs["encoding-version"] = "array", "0.2.0"
            for name, value in side.items():
                images.attrs[name] = value
            images.attrs["channel_names"] = np.array([name.encode() for name in channels])
            images.attrs["channel_mapping"] = np.array([b"image_channel"] * len(channels))
            starts = range(0, len(cells), AT_ONCE)
            for start in track(starts, f"Crops written, in {AT_ONCE}s", total=len(starts)):
                rows = np.arange(start, min(start + AT_ONCE, len(cells)))
                images[start : start + len(rows)] = (store.take(rows) / FULL).astype(np.float16)
        partial.replace(path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError):  # h5py says what went wrong in words of its own
            raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error
        raise
