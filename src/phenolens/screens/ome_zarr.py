"""OME-Zarr (OME-NGFF 0.1 to 0.5, zarr 2 and 3): read a screen from HCS plates, and the planes of an image.

A plate is plate.zarr/row/column/field; treatments come from a plate map. In zarr 3 the attributes stand under "ome" in
zarr.json. A writer may leave out a chunk that is the fill value everywhere, and an interrupted copy lacks chunks too;
the two cannot be distinguished.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from phenolens.core.counted import counted
from phenolens.core.errors import InputError, one_line
from phenolens.core.progress import track
from phenolens.screens.config import LayoutConfig, chosen_channels
from phenolens.screens.file_listing import HIDDEN, is_hidden, without_hidden
from phenolens.screens.image_reference import AXES, ImageReference, Pixels, chosen_planes, projected
from phenolens.screens.plate_map import with_treatments
from phenolens.screens.screen import FIELD, Screen, where_of
from phenolens.screens.well_names import well_at

ENTRY_BYTES = 16  # offset and length of a chunk within its shard, as uint64
CHECKSUM_BYTES = 4  # crc32c behind the entries
NOWHERE = np.uint64(2**64 - 1)  # both, for a chunk that was not written. Zarr 3 specification, sharding codec


REPLACE_IMAGE = "copy the whole image again, or run with --skip-missing"
PIXEL_TYPES = (np.dtype(np.uint8), np.dtype(np.uint16))


def group_attributes(folder: Path) -> dict[str, Any] | None:
    """The OME attributes of a zarr group; None where the folder is no group. InputError where they are damaged."""
    for name in ("zarr.json", ".zattrs"):
        path = folder / name
        if path.is_file():
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                attributes = content.get("attributes", {}) if name == "zarr.json" else content
                return dict(attributes.get("ome", attributes))
            except (ValueError, AttributeError, TypeError) as error:
                raise InputError(f"{path}: not readable as the attributes of a zarr group ({error})") from error
    return None


def image_attributes(folder: Path, *, named: str) -> dict[str, Any]:
    """The attributes of an image; InputError where the folder holds none."""
    attributes = group_attributes(folder)
    try:
        level = (attributes or {})["multiscales"][0]["datasets"][0]["path"]
    except (KeyError, IndexError, TypeError):
        level = None
    if attributes is None or level is None:
        raise InputError(f"{named} is not an OME-Zarr image ({folder}: no multiscales in zarr.json or .zattrs)")
    return attributes


def channels_of(attributes: dict[str, Any]) -> list[str]:
    """The channels' labels, in order; none where the image does not name them."""
    omero = attributes.get("omero")
    channels = omero.get("channels") if isinstance(omero, dict) else None
    labels = [str(channel.get("label", "")).strip() for channel in channels or [] if isinstance(channel, dict)]
    return labels if all(labels) else []


def axes_of(attributes: dict[str, Any], n_axes: int) -> str:
    """The axes as letters, such as TCZYX; versions before 0.3 always have these five."""
    axes = attributes["multiscales"][0].get("axes")
    if axes is None:
        return "TCZYX"[-n_axes:]
    return "".join(str(axis["name"] if isinstance(axis, dict) else axis)[:1].upper() for axis in axes)


def read_ome_zarr(source: Path, *, config: LayoutConfig, skip_missing: bool = False) -> Screen:
    """The screen of a plate (`source` is named *.zarr) or of all plates in a folder; a well's fields are its sites.

    The plate's name is the folder's without .zarr. A site is the number that names the field, plus 1 where the source
    counts from 0. Channels are the labels in the images' `omero`, the same in all;
    images without labels are named by `config.channels`. Raises InputError for a folder without a plate, a well or
    field that the metadata names and the disk has not (with `skip_missing` left out and counted), channels that differ
    between fields, and more than one acquisition per well.
    """
    source = Path(source)
    folder, plates = _plates(source)
    rows, n_missing = _fields(folder, plates, skip_missing=skip_missing)
    labels = _one_set_of_channels(rows, config)
    channels = chosen_channels(labels, () if not rows[0]["labels"] else config.channels, source=str(source))
    fields = pd.DataFrame(rows, columns=FIELD)
    for ours, theirs in channels.items():
        choice = theirs if rows[0]["labels"] else str(labels.index(theirs) + 1)
        fields[f"file_{ours}"] = [str(ImageReference(row["path"], {"channel": choice})) for row in rows]
    counts = {"wells and fields that the plate names but are not there": n_missing}
    if folder == source:
        counts[HIDDEN] = sum(is_hidden(path.name) for path in source.iterdir())
    return with_treatments(
        fields, list(channels), source=source, config=config, skip_missing=skip_missing, folder=folder, left_out=counts
    )


def _plates(source: Path) -> tuple[Path, dict[Path, dict[str, Any]]]:
    """The folder that paths are relative to, and each plate in it with its attributes."""
    if source.suffix == ".zarr":
        folder, candidates = source.parent, [source]
    else:
        folder, candidates = source, without_hidden(path for path in source.iterdir() if path.suffix == ".zarr")
    attributes = {path: (group_attributes(path) or {}).get("plate") for path in candidates}
    plates = {path: plate for path, plate in attributes.items() if isinstance(plate, dict)}
    if not plates:
        found = f"{candidates[0].name} is a zarr group without a plate" if candidates else "no folder is named *.zarr"
        raise InputError(
            f"{source}: no OME-Zarr plate ({found}); a single image has no wells, name it in a table instead"
        )
    return folder, plates


def _fields(
    folder: Path, plates: dict[Path, dict[str, Any]], *, skip_missing: bool
) -> tuple[list[dict[str, Any]], int]:
    """A row per field: plate, well, site, path within `folder`, labels; and how many wells and fields are not there."""
    rows: list[dict[str, Any]] = []
    missing: list[Path] = []
    wells = [
        (path, plate, well) for path, plate in plates.items() for well in _named(plate.get("wells", []), where=path)
    ]
    for path, plate, well in track(wells, "Wells read", total=len(wells)):
        name = _well(plate, well, where=str(path))
        at_well = path / str(well["path"])
        attributes = group_attributes(at_well)
        if attributes is None:
            missing.append(at_well)
            continue
        of_well = attributes.get("well")
        images = _named(of_well.get("images", []) if isinstance(of_well, dict) else [], where=at_well)
        acquisitions = {image.get("acquisition") for image in images}
        if len(acquisitions) > 1:
            raise InputError(
                f'{path}: well "{name}" has {len(acquisitions)} acquisitions; expected one, as a site is a place: '
                "write a table of the images and read it with --layout table"
            )
        for site, image in zip(_sites(images), images):
            at = at_well / str(image["path"])
            if not at.is_dir():
                missing.append(at)
                continue
            labels = channels_of(image_attributes(at, named=f'plate "{path.stem}", well "{name}", image {at.name}'))
            rows.append(
                {"plate": path.stem, "well": name, "site": site, "path": at.relative_to(folder), "labels": labels}
            )
    if missing and (not skip_missing or not rows):
        number = counted(len(missing), "such well or field", plural="such wells or fields")
        raise InputError(
            f"{missing[0]}: missing, although the plate's metadata names it ({number}). Add it, or run "
            "with --skip-missing; no crop was written."
        )
    if not rows:
        raise InputError(f"{next(iter(plates))}: the plate names no field; expected wells with images")
    if min(row["site"] for row in rows) == 0:
        rows = [{**row, "site": row["site"] + 1} for row in rows]
    return rows, len(missing)


def _named(entries: Any, *, where: Path) -> list[dict[str, Any]]:
    """A plate's wells or a well's images as its metadata lists them; InputError where one has no path."""
    listed = entries if isinstance(entries, list) else [entries]
    for entry in listed:
        if not isinstance(entry, dict) or not str(entry.get("path", "")):
            raise InputError(f'{where}: its metadata lists {entry!r}, which has no "path"; correct the metadata')
    return listed


def _well(plate: dict[str, Any], well: dict[str, Any], *, where: str) -> str:
    """B02 from the names of the plate's row and column, or from the well's path (`B/2`) where there are no indices.

    A row may be named by its number. Where all rows, or all columns, are numbers that begin with 0, they count from 0.
    """
    try:
        if "rowIndex" in well and "columnIndex" in well:
            row, column = (
                str(plate[kind][well[index]]["name"])
                for kind, index in (("rows", "rowIndex"), ("columns", "columnIndex"))
            )
        else:
            row, column = str(well["path"]).split("/")
        row, column = _from_one(row, plate.get("rows")), _from_one(column, plate.get("columns"))
        return well_at(row, column)
    except (KeyError, IndexError, ValueError, TypeError, InputError) as error:
        raise InputError(f"{where}: the well {well} has no name such as B02 ({error}); correct the metadata") from error


def _from_one(name: str, all_of_them: Any) -> str:
    """A row's or column's name; its number plus 1 where the plate numbers them all and begins with 0."""
    names = [str(one.get("name", "")) for one in all_of_them or [] if isinstance(one, dict)]
    counts_from_0 = bool(names) and all(map(str.isdecimal, names)) and min(map(int, names)) == 0
    return str(int(name) + 1) if counts_from_0 and name.isdecimal() else name


def _sites(images: list[dict[str, Any]]) -> list[int]:
    """Each image's site: the number that it is named by (a well may lack some), else its place in the list."""
    names = [str(image["path"]).rsplit("/", 1)[-1] for image in images]
    if all(map(str.isdecimal, names)) and len(set(map(int, names))) == len(names):
        return list(map(int, names))
    return list(range(1, len(images) + 1))


def _one_set_of_channels(rows: list[dict[str, Any]], config: LayoutConfig) -> list[str]:
    first = rows[0]["labels"]
    for row in rows:
        if row["labels"] != first:
            found, expected = (", ".join(labels) or "none" for labels in (row["labels"], first))
            raise InputError(
                f"{where_of(row)} has the channels {found}; "
                f"{rows[0]['path'].as_posix()} has {expected}; all fields must have the same"
            )
    if not first and not config.channels:
        raise InputError(
            f"{rows[0]['path'].as_posix()}: its channels have no labels (omero); name them with --channels"
        )
    return first or list(config.channels)


@dataclass(frozen=True)
class Chunks:
    """How many chunks a plane has, how many of them are not on disk, and the first empty file among them."""

    n: int
    n_missing: int
    empty: Path | None = None


def plane_chunks(array: Any, folder: Path, index: tuple[int, ...]) -> Chunks:
    """The chunks of the plane `array[index]`: `index` has a place on every axis but the last two.

    `array` is a zarr.Array in `folder`. A shard with another index than zarr's own counts as whole.
    """
    chunk_px = array.chunks
    per_file = np.array(array.shards or chunk_px) // chunk_px
    plane = [[at // side] for at, side in zip(index, chunk_px)]
    plane += [list(range(-(-length // side))) for length, side in zip(array.shape[-2:], chunk_px[-2:])]
    files = defaultdict(list)  # place of a file in the grid of files -> the plane's chunks in it
    for chunk in product(*plane):
        files[tuple(chunk // per_file)].append(tuple(chunk % per_file))
    n_missing = 0
    empty: Path | None = None
    for place, inside in files.items():
        file = folder / array.metadata.encode_chunk_key(place)
        if not file.is_file():
            n_missing += len(inside)
        elif file.stat().st_size == 0:
            empty = empty or file
        elif array.shards:
            n_missing += _missing_in_shard(file, array, inside)
    return Chunks(prod(map(len, plane)), n_missing, empty)


def _missing_in_shard(file: Path, array: Any, inside: list[tuple[int, ...]]) -> int:
    codec = array.metadata.codecs[0]
    per_shard = tuple(whole // part for whole, part in zip(array.shards, array.chunks))
    if [type(part).__name__ for part in codec.index_codecs] != ["BytesCodec", "Crc32cCodec"]:
        return 0
    n_bytes = ENTRY_BYTES * prod(per_shard)
    if file.stat().st_size < n_bytes + CHECKSUM_BYTES:
        return 0  # truncated: reading it says so
    with file.open("rb") as shard:
        if codec.index_location.value == "end":
            shard.seek(-(n_bytes + CHECKSUM_BYTES), 2)
        entries = np.frombuffer(shard.read(n_bytes), "<u8").reshape(*per_shard, 2)
    return sum(bool((entries[at] == NOWHERE).all()) for at in inside)


def zarr_plane(reference: ImageReference, *, named: str) -> tuple[Any, Chunks, Callable[[], Pixels]]:
    """The zarr array of an image, the chunks of the chosen plane, and a function that reads it.

    A plane without any chunk on disk would read as zeros: it is refused, and so is one with an empty chunk file. One
    that lacks some chunks is read, since a writer may leave out chunks of zeros.
    """
    array, planes = _opened(reference, named=named)
    path = reference.file
    each = [plane_chunks(array, Path(array.store.root) / array.path, index) for index in planes]
    empty = next((chunks.empty for chunks in each if chunks.empty is not None), None)
    chunks = Chunks(sum(chunks.n for chunks in each), sum(chunks.n_missing for chunks in each), empty)
    if chunks.n_missing == chunks.n:
        raise InputError(
            f"{named} has no pixels ({path}: none of the plane's {chunks.n} chunks is on disk); {REPLACE_IMAGE}"
        )
    if chunks.empty is not None:
        raise InputError(f"{named} is not whole ({chunks.empty}: the file is empty, 0 bytes); {REPLACE_IMAGE}")

    def pixels() -> Pixels:
        try:
            return projected([np.asarray(array[index]) for index in planes], reference.choice.get("z", ""))
        except Exception as error:  # a chunk that is truncated or damaged
            logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # zarr still reads other chunks when this one fails
            raise InputError(f"{named} cannot be decoded ({path}: {one_line(error)}); replace the image") from error

    return array, chunks, pixels


def _opened(reference: ImageReference, *, named: str) -> tuple[Any, list[tuple[int, ...]]]:
    """The array that holds the chosen planes, and their places on every axis but the last two."""
    import zarr  # takes half a second to import

    path = reference.file
    if not path.is_dir():
        raise InputError(f"{named} has no image (expected the folder {path}); add it, or run with --skip-missing")
    attributes = image_attributes(path, named=named)
    level = str(attributes["multiscales"][0]["datasets"][0]["path"])
    try:
        array = zarr.open_array(path / level, mode="r")
    except Exception as error:  # zarr raises several kinds
        raise InputError(
            f"{named} has no pixels at level {level} of {path}, which its metadata names "
            f"({one_line(error)}); {REPLACE_IMAGE}"
        ) from error
    if array.dtype not in PIXEL_TYPES:
        raise InputError(f"{named} has pixels of type {array.dtype} ({path}); expected unsigned 8 or 16 bits")
    axes = axes_of(attributes, array.ndim)
    if axes[-2:] != "YX" or len(axes) != array.ndim:
        raise InputError(f"{named} has the axes {axes.lower()} for {array.ndim} dimensions ({path}); expected ... y, x")
    stack = list(zip(axes[:-2], array.shape[:-2]))
    if not set(AXES) & set(reference.choice) and prod(n for _, n in stack) > 1:
        raise InputError(
            f"{named} holds an image of shape {' x '.join(map(str, array.shape))} ({path}); choose a plane after its "
            "name, such as #channel=1"
        )
    return array, chosen_planes(stack, reference.choice, channels_of(attributes), named=named, path=path)
