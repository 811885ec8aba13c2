"""Find one grey image in an OME-Zarr image (versions 0.1 to 0.5, zarr 2 and 3), at its finest level that is there."""

import logging
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from phenolens.errors import InputError
from phenolens.images.choosing import chosen_indices
from phenolens.images.zarr_chunks import Chunks, plane_chunks
from phenolens.screen.image_reference import ImageReference
from phenolens.screen.zarr_metadata import axes_of, channels_of, image_attributes

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
