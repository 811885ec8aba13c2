"""Count which chunks of a zarr array are on disk: what is not there is read as the fill value, without a word.

A writer may leave out a chunk that is the fill value all over, and a copy that broke off leaves it out too; the two
cannot be told apart. zarr 2 and 3, with and without shards.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

ENTRY_BYTES = 16  # offset and length of a chunk within its shard, as uint64
CHECKSUM_BYTES = 4  # crc32c behind the entries
NOWHERE = np.uint64(2**64 - 1)  # both, for a chunk that was not written. Zarr 3 specification, sharding codec


@dataclass(frozen=True)
class Chunks:
    """How many chunks a plane has, how many of them are not on disk, and the first file of them without a byte."""

    n: int
    n_missing: int
    empty: Path | None = None


def plane_chunks(array: Any, folder: Path, index: tuple[int, ...]) -> Chunks:
    """The chunks of the plane `array[index]`: `index` has a place on every axis but the last two.

    `array` is a zarr.Array in `folder`. A shard whose index is written in another way than zarr's own is taken to be
    whole.
    """
    chunk_px = array.chunks
    files_px = array.shards or chunk_px  # what one file covers
    n = n_missing = 0
    empty: Path | None = None
    for place in product(*_places(index, array.shape, files_px)):
        inside = _inside(place, index, array.shape, chunk_px, files_px)
        n += len(inside)
        file = folder / array.metadata.encode_chunk_key(place)
        if not file.is_file():
            n_missing += len(inside)
        elif file.stat().st_size == 0:
            empty = empty or file
        elif array.shards:
            n_missing += _missing_in_shard(file, array, inside)
    return Chunks(n, n_missing, empty)


def _places(index: tuple[int, ...], shape: tuple[int, ...], cell: tuple[int, ...]) -> list[Iterable[int]]:
    """On each axis, the cells of a grid that the plane touches."""
    leading: list[Iterable[int]] = [[at // side] for at, side in zip(index, cell)]
    return leading + [range(-(-length // side)) for length, side in zip(shape[-2:], cell[-2:])]


def _inside(
    place: tuple[int, ...],
    index: tuple[int, ...],
    shape: tuple[int, ...],
    chunk_px: tuple[int, ...],
    files_px: tuple[int, ...],
) -> list[tuple[int, ...]]:
    """The chunks of the plane in one file, counted within it on each axis."""
    per_file = [whole // part for whole, part in zip(files_px, chunk_px)]
    first = [at * n for at, n in zip(place, per_file)]
    wanted = _places(index, shape, chunk_px)
    return list(
        product(
            *([at - start for at in axis if start <= at < start + n] for axis, start, n in zip(wanted, first, per_file))
        )
    )


def _missing_in_shard(file: Path, array: Any, inside: list[tuple[int, ...]]) -> int:
    codec = array.metadata.codecs[0]
    per_shard = tuple(whole // part for whole, part in zip(array.shards, array.chunks))
    if [type(part).__name__ for part in codec.index_codecs] != ["BytesCodec", "Crc32cCodec"]:
        return 0
    n_bytes = ENTRY_BYTES * prod(per_shard)
    if file.stat().st_size < n_bytes + CHECKSUM_BYTES:
        return 0  # cut short: reading it says so
    with file.open("rb") as shard:
        if codec.index_location.value == "end":
            shard.seek(-(n_bytes + CHECKSUM_BYTES), 2)
        entries = np.frombuffer(shard.read(n_bytes), "<u8").reshape(*per_shard, 2)
    return sum(bool((entries[at] == NOWHERE).all()) for at in inside)
