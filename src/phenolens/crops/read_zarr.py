"""Find one grey image in an OME-Zarr image (versions 0.1 to 0.5, zarr 2 and 3), at its finest level that is there.

A writer may leave out a chunk that is the fill value all over, and a copy that broke off leaves it out too; the two
cannot be told apart. zarr 2 and 3, with and without shards.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from phenolens.core.errors import InputError
from phenolens.screens.image_files import ImageReference
from phenolens.screens.ome_zarr import axes_of, channels_of, image_attributes

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


def chosen_indices(
    stack: Sequence[tuple[str, int]], choice: Mapping[str, str], channel_names: Sequence[str], *, named: str, path: Path
) -> tuple[int, ...]:
    """A place on each axis (letter, length) of a stack: C by name or number, the others by number; 0 where one is."""
    indices = []
    for axis, length in stack:
        word = {"C": "channel"}.get(axis, axis.lower())
        if word in choice and axis == "C" and choice[word] in channel_names:
            indices.append(list(channel_names).index(choice[word]))
        elif word in choice:
            known = f"; its channels are {', '.join(channel_names)}" if axis == "C" and channel_names else ""
            indices.append(chosen_number(choice[word], length, what=word, named=named, path=path, known=known))
        elif length == 1:
            indices.append(0)
        else:
            raise InputError(
                f"{named} is one of {length} along {word} ({path}); choose with {word}=1 to {word}={length} after #"
            )
    return tuple(indices)


def chosen_number(text: str, n: int, *, what: str, named: str, path: Path, known: str = "") -> int:
    """A number from 1 to n as an index from 0; InputError when the file does not have it."""
    if text.isdecimal() and 1 <= int(text) <= n:
        return int(text) - 1
    raise InputError(f'{named} asks for {what} "{text}" of {path}, which has {what} 1 to {n}{known}; correct the name')


Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
BRING = "bring the whole image, or run with --skip-missing"
PIXEL_TYPES = (np.dtype(np.uint8), np.dtype(np.uint16))


def is_zarr(path: Path) -> bool:
    """Whether a path lies in a zarr folder."""
    return any(part.lower().endswith(".zarr") for part in path.parts)


def zarr_plane(
    reference: ImageReference, *, named: str
) -> tuple[tuple[int, int], np.dtype[Any], int, Callable[[], Pixels]]:
    """Shape, pixel type, bits and pixels of the chosen plane; InputError as in planes.open_plane.

    A plane of which no chunk is on disk would be read as zeros: it is refused, and so is one with a chunk of 0 bytes.
    One that lacks some of them is not, since a writer may leave out chunks of zeros; `chunks_of` counts them.
    """
    array, index = _opened(reference, named=named)
    path = reference.file
    chunks = plane_chunks(array, _folder(array), index)
    if chunks.n_missing == chunks.n:
        raise InputError(f"{named} has no pixels ({path}: none of the plane's {chunks.n} chunks is on disk); {BRING}")
    if chunks.empty is not None:
        raise InputError(f"{named} is not whole ({chunks.empty}: the file is empty, 0 bytes); {BRING}")

    def pixels() -> Pixels:
        try:
            image = np.asarray(array[index])
        except Exception as error:  # a chunk that is cut or damaged
            logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # zarr's other chunks, on their way when it ends
            line = " ".join(str(error).split())
            raise InputError(f"{named} cannot be decoded ({path}: {line}); replace the image") from error
        return image

    return (int(array.shape[-2]), int(array.shape[-1])), array.dtype, 8 * array.dtype.itemsize, pixels


def chunks_of(reference: ImageReference, *, named: str) -> Chunks:
    """How many chunks the chosen plane has and lacks; InputError as in zarr_plane."""
    array, index = _opened(reference, named=named)
    return plane_chunks(array, _folder(array), index)


def _folder(array: Any) -> Path:
    return Path(array.store.root) / array.path


def _opened(reference: ImageReference, *, named: str) -> tuple[Any, tuple[int, ...]]:
    """The array that holds the chosen plane, and its place on every axis but the last two."""
    import zarr  # half a second that other sources need not wait for

    path = reference.file
    if not path.is_dir():
        raise InputError(f"{named} has no image (expected the folder {path}); bring it, or run with --skip-missing")
    attributes = image_attributes(path, named=named)
    level = str(attributes["multiscales"][0]["datasets"][0]["path"])
    try:
        array = zarr.open_array(path / level, mode="r")
    except Exception as error:  # zarr raises kinds of its own for what is not there or damaged
        raise InputError(
            f"{named} has no pixels at level {level} of {path}, which its metadata names "
            f"({' '.join(str(error).split())}); {BRING}"
        ) from error
    if array.dtype not in PIXEL_TYPES:
        raise InputError(f"{named} has pixels of type {array.dtype} ({path}); expected 8 or 16 bits without sign")
    axes = axes_of(attributes, array.ndim)
    if axes[-2:] != "YX" or len(axes) != array.ndim:
        raise InputError(f"{named} has the axes {axes.lower()} for {array.ndim} dimensions ({path}); expected ... y, x")
    return array, _index(axes, array.shape, reference, channels_of(attributes), named=named)


def _index(
    axes: str, shape: tuple[int, ...], reference: ImageReference, names: list[str], *, named: str
) -> tuple[int, ...]:
    stack = list(zip(axes[:-2], shape[:-2]))
    choice: Mapping[str, str] = reference.choice
    if not choice and prod(n for _, n in stack) > 1:
        raise InputError(
            f"{named} holds an image of shape {' x '.join(map(str, shape))} ({reference.file}); choose a plane after "
            "its name, such as #channel=1"
        )
    return chosen_indices(stack, choice, names, named=named, path=reference.file)
