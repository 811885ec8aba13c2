"""scPortrait's single-cell images (`.h5sc`): read them as a source, and write a study's crops as such a file.

N crops, C channels, S x S pixels. An AnnData file whose `obsm/single_cell_images` holds float16 images, cells x (masks,
then channels) x height x width; `var` names them and marks the masks. Grey values are 0 to 1 there, 0 to 65,535 here.
float16 keeps 11 bits, so a crop that was written and read again differs by up to 1 in 2,048 of each pixel.
"""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from phenolens.core.errors import InputError
from phenolens.core.names import shortened
from phenolens.core.progress import track
from phenolens.screens.config import LayoutConfig, chosen_channels, given_path
from phenolens.screens.file_listing import without_hidden
from phenolens.screens.plate_map import known_columns, lacking_column, with_treatments
from phenolens.screens.screen import FIELD, METADATA, FinishedCrops, Screen, Selection, UInt16Array
from phenolens.screens.unread_columns import UNREAD

if TYPE_CHECKING:
    from phenolens.crops.store import CropStore

IMAGES = "obsm/single_cell_images"
ABOUT_IMAGES = "single_cell_images"  # in uns
CELL_ID = "cell_id"
OBJECT_NUMBER = "Metadata_ObjectNumber"  # of files that phenolens wrote
OF_CELLS = ("cell_id", "treatment", "field", "y", "x", "is_noise")  # of phenolens's own columns
CELL = ["object_number", "y", "x"]
WHITE = 65_535
BATCH = 256  # crops in memory at a time
ROOM, ROOM_PER_CELL = 1_000_000, 2_000  # bytes in addition to the images, at most: tables, and the place of each chunk


@dataclass(frozen=True)
class H5scCrops:
    """Reads the crops of an `.h5sc` file; a cell's `path` is its row there."""

    file: Path
    order: list[int]  # the place of each channel

    def __call__(self, rows: pd.DataFrame, crop_px: int | None) -> tuple[UInt16Array, UInt16Array]:
        """The crops (n, C, S, S) of these rows, twice: nothing corrects them.

        InputError for another side, and for values outside 0 to 1.
        """
        import h5py

        with h5py.File(self.file) as file:
            images = file[IMAGES]
            side = crop_px or images.shape[2]
            if images.shape[2:] != (side, side):
                raise InputError(
                    f"{self.file}: images of {images.shape[2]} x {images.shape[3]} px, expected {side} x {side}; give "
                    "their side with --crop-px"
                )
            wanted = rows["path"].to_numpy(np.int64)
            order = np.argsort(wanted)  # h5py takes rows in ascending order
            crops = np.empty((len(rows), len(self.order), side, side), np.float32)
            crops[order] = images[wanted[order]][:, self.order]
        if not np.isfinite(crops).all() or crops.min() < 0 or crops.max() > 1:
            raise InputError(
                f"{self.file}: grey values from {crops.min():g} to {crops.max():g} in rows near {wanted[0]}; expected "
                "0 to 1, as scPortrait normalises them"
            )
        read = np.rint(crops * WHITE).astype(np.uint16)
        return read, read

    def files(self, rows: pd.DataFrame) -> list[Path]:
        """The one file."""
        return [self.file]


def h5sc_file(source: Path, config: LayoutConfig) -> Path:
    """The file given with `--table`, else the only `.h5sc` in the folder."""
    if config.table is not None:
        return given_path(config.table, source)
    found = without_hidden(Path(source).glob("*.h5sc")) if Path(source).is_dir() else [Path(source)]
    if len(found) != 1 or not found[0].is_file():
        raise InputError(f"{source}: {len(found)} files named *.h5sc; expected one, or name it with --table")
    return found[0]


def open_h5sc(source: Path, config: LayoutConfig, selection: Selection) -> tuple[Screen, FinishedCrops]:
    """The screen of a file, and its crops: `plate`, `well`, `site`, `object_number`, `y`, `x`, `path` (the row).

    Plate, well and treatment of a cell come from columns of `obs` (any of plate_map's names) and the plate map;
    without a plate column the file is one plate, named after the file. Masks are not taken. Raises InputError for
    another kind of file, no well column, and as `checked_screen` and `select` do.
    """
    path = h5sc_file(source, config)
    obs, names = _tables(path)
    own = [name for name in (OBJECT_NUMBER, CELL_ID, *(METADATA[ours] for ours in OF_CELLS)) if name in obs]
    known = known_columns(obs, source=path.name, named=config.named_columns, read=own)
    prefix = f"{UNREAD}{path.name}: "
    of_cells = [name.removeprefix(prefix) for name in map(str, known) if name.startswith(prefix)]
    known = known[[name for name in known if not str(name).startswith(prefix)]]  # they differ from cell to cell
    if "well" not in known:
        raise lacking_column("well", path, obs)
    rows = known.assign(path=np.arange(len(obs)).astype(str))
    for name, value in (("plate", path.stem), ("site", 1)):
        if name not in rows:
            rows[name] = value
    number = next((name for name in (OBJECT_NUMBER, CELL_ID) if name in obs), None)
    rows["object_number"] = np.arange(1, len(obs) + 1) if number is None else obs[number].to_numpy(np.int64)
    for ours in ("y", "x"):
        rows[ours] = obs[METADATA[ours]].to_numpy(float) if METADATA[ours] in obs else np.nan
    fields = rows.drop(columns=[*CELL, "path"]).drop_duplicates()
    channels = chosen_channels(list(names), config.channels, source=path.name)
    screen = with_treatments(
        fields,
        list(channels),
        source=source,
        config=config,
        skip_missing=selection.skip_missing,
        table=path,
        folder=path.parent,
        columns=list(map(str, obs)),
        notes=[f"columns of {path.name} that are not read: {shortened(of_cells)}"] if of_cells else [],
    )
    screen = selection.of(screen)
    cells = rows[[*FIELD, *CELL, "path"]].merge(screen.table[FIELD])
    cells = cells.sort_values([*FIELD, "object_number"], kind="stable").reset_index(drop=True)
    return screen, FinishedCrops(cells, H5scCrops(path, [names[theirs] for theirs in channels.values()]))


def _tables(path: Path) -> tuple[pd.DataFrame, dict[str, int]]:
    """The rows of `obs`, and the place of each channel that is no mask, by its name."""
    import h5py
    from anndata.io import read_elem

    try:
        with h5py.File(path) as file:
            obs: Any = read_elem(file["obs"])
            var: Any = read_elem(file["var"])
            shape = file[IMAGES].shape
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path}: not a set of single-cell images of scPortrait ({error}); replace it") from error
    if len(shape) != 4 or shape[:2] != (len(obs), len(var)) or not {"channels", "channel_mapping"} <= set(var):
        raise InputError(
            f"{path}: {IMAGES} has shape {shape}, obs {len(obs)} rows and var {len(var)} (columns "
            f"{', '.join(map(str, var))}); expected cells x channels x height x width, and var with channels and "
            "channel_mapping"
        )
    is_image = (var["channel_mapping"].astype(str) != "mask").to_numpy()
    names = {str(name): place for place, name in enumerate(var["channels"]) if is_image[place]}
    if len(names) != is_image.sum():
        raise InputError(f"{path}: two channels have the same name; expected unique names")
    return obs.reset_index(drop=True), names


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
    about: dict[str, int | str] = {
        "n_cells": len(cells),
        "n_channels": len(channels),
        "n_masks": 0,
        "n_image_channels": len(channels),
    }
    about |= {"image_size_x": store.crop_px, "image_size_y": store.crop_px, "compression": "gzip"}
    table = anndata.AnnData(obs=obs, var=var, uns={ABOUT_IMAGES: {**about, "channel_names": np.array(channels)}})
    partial = path.with_name(f".{path.name}.partial")
    try:
        _make_room(partial, 2 * len(cells) * len(channels) * store.crop_px**2 + ROOM_PER_CELL * len(cells) + ROOM)
        with h5py.File(partial, "w") as file:
            anndata.io.write_elem(file, "/", table)
            shape = (len(cells), len(channels), store.crop_px, store.crop_px)
            chunk = (1, 1, store.crop_px, store.crop_px)
            images = file.create_dataset(IMAGES, shape, np.float16, chunks=chunk, compression="gzip")
            images.attrs["encoding-type"], images.attrs["encoding-version"] = "array", "0.2.0"
            for name, value in about.items():
                images.attrs[name] = value
            images.attrs["channel_names"] = np.array([name.encode() for name in channels])
            images.attrs["channel_mapping"] = np.array([b"image_channel"] * len(channels))
            starts = range(0, len(cells), BATCH)
            for start in track(starts, f"Crops written, in {BATCH}s", total=len(starts)):
                rows = np.arange(start, min(start + BATCH, len(cells)))
                images[start : start + len(rows)] = (store.take(rows) / WHITE).astype(np.float16)
        partial.replace(path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError):  # h5py sets no file name
            raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error
        raise


def _make_room(path: Path, n_bytes: int) -> None:
    """OSError unless the disk has room for the file: HDF5 reports a full disk unclearly, or not at all."""
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, n_bytes)
        elif shutil.disk_usage(path.parent).free < n_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        file.truncate(0)
