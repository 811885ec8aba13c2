"""Read one grey image of a file (TIFF of any kind, PNG, OME-Zarr): its header first, its pixels when asked.

C channels, H x W pixels of unsigned 8 or 16 bits; 12-bit files are unpacked to 16, 8-bit values stay 0 to 255. A
file with several images or colours needs a choice (`path#page=2`, `path#channel=green`, see image_files.py); none is
made silently.
"""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import imagecodecs
import numpy as np
import numpy.typing as npt
import pandas as pd
import tifffile

from phenolens.core.errors import InputError
from phenolens.screens.image_files import ImageReference, chosen_indices, chosen_number, image_reference, is_zarr
from phenolens.screens.ome_zarr import PIXEL_TYPES, Pixels, zarr_plane
from phenolens.screens.screen import Screen, where_of

COLOURS = ("red", "green", "blue")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
REPLACE = "replace the file, or run with --skip-missing"
PNG_HEADER_BYTES = 33
PNG_END = b"IEND"
PNG_COLOUR = {0: "grey", 2: "red-green-blue", 3: "a palette", 4: "grey with alpha", 6: "red-green-blue with alpha"}


@dataclass(frozen=True)
class Header:
    """What a file says about one grey image before its pixels are decoded."""

    shape: tuple[int, int]  # H, W
    pixel_type: np.dtype[Any]
    bits: int  # a pixel, as the file says
    n_chunks: int = 0  # of an OME-Zarr plane
    n_missing_chunks: int = 0  # of these, not on disk


@dataclass(frozen=True)
class Plane:
    """One grey image of an open file."""

    header: Header
    pixels: Callable[[], Pixels]


@contextmanager
def open_plane(text: str | Path, *, named: str) -> Iterator[Plane]:
    """Open the image that a reference means; it stays open while the block lasts.

    Args:
        text: A file, or a file with a choice such as `#page=2`.
        named: Plate, well, site and channel, with which each message begins.

    Raises:
        InputError: The file is missing, empty, truncated or of another kind than its name says; it holds several
            images or colours and none is chosen, or not the chosen one; its pixels are not 8 to 16 bits without sign.
    """
    reference = image_reference(text)
    path = reference.file
    if is_zarr(path):
        array, chunks, pixels = zarr_plane(reference, named=named)
        shape = (int(array.shape[-2]), int(array.shape[-1]))
        yield Plane(Header(shape, array.dtype, 8 * array.dtype.itemsize, chunks.n, chunks.n_missing), pixels)
        return
    head = _first_bytes(path, named=named)
    if path.suffix.lower() == ".png":
        yield _png_plane(head, reference, named=named)
        return
    try:
        tiff = tifffile.TiffFile(path)
    except Exception as error:  # a foreign or truncated header: tifffile raises several kinds
        raise InputError(f"{named} is not a complete TIFF ({path}: {_line(error)}); {REPLACE}") from error
    with tiff:
        yield _tiff_plane(tiff, reference, named=named)


class Headers:
    """The headers of a screen's images; each image is opened once."""

    def __init__(self) -> None:
        self._known: dict[Path, Header] = {}

    def of_field(self, screen: Screen, field: pd.Series) -> dict[str, Header]:
        """The header of each channel of a field (a row of the screen's table); InputError as in `open_plane`."""
        headers = {}
        for channel, path in screen.files(field).items():
            if path not in self._known:
                with open_plane(path, named=f'{where_of(field)}: channel "{channel}"') as plane:
                    self._known[path] = plane.header
            headers[channel] = self._known[path]
        return headers


def _first_bytes(path: Path, *, named: str) -> bytes:
    """As many as the header of a PNG has; InputError for a file that is missing, not readable or empty."""
    try:
        with path.open("rb") as file:
            head = file.read(PNG_HEADER_BYTES)
    except FileNotFoundError as error:
        raise InputError(f"{named} has no file (expected {path}); add it, or run with --skip-missing") from error
    except OSError as error:  # a name that is too long, a folder, a file that is not readable
        raise InputError(f"{named} cannot be opened ({path}: {error.strerror}); make it readable") from error
    if not head:
        raise InputError(f"{named} is not a complete image ({path}: the file is empty, 0 bytes); {REPLACE}")
    return head


def _tiff_plane(tiff: tifffile.TiffFile, reference: ImageReference, *, named: str) -> Plane:
    path = reference.file
    try:
        n_images = len(tiff.pages)
        page, index = _chosen_page(tiff, reference, n_images, named=named)
        shape, axes, pixel_type = tuple(page.shape), page.axes, page.dtype
        end = max(offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True))
    except InputError:
        raise
    except Exception as error:  # the list of images or strips is damaged
        raise InputError(f"{named} is not a complete TIFF ({path}: {_line(error)}); {REPLACE}") from error
    colour: int | None = None
    if "S" in axes and len(shape) == 3:
        colour = _colour(reference, shape[axes.index("S")], shape, named=named)
    elif len(shape) != 2 or page.photometric == tifffile.PHOTOMETRIC.PALETTE:
        raise InputError(
            f"{named} holds an image of shape {_by(shape)}{' in palette colours' if len(shape) == 2 else ''} ({path}); "
            "expected one grey image per file"
        )
    if pixel_type not in PIXEL_TYPES:
        raise InputError(f"{named} has pixels of type {pixel_type} ({path}); expected unsigned 8 or 16 bits")
    n_bytes = path.stat().st_size
    if end > n_bytes:
        raise InputError(f"{named} is truncated ({path} has {n_bytes:,} of {end:,} bytes); {REPLACE}")

    def pixels() -> Pixels:
        try:
            image = page.asarray() if index is None else tiff.series[0].asarray()[index]
        except Exception as error:  # decoders raise many kinds
            raise InputError(f"{named} cannot be decoded ({path}: {_line(error)}); replace the file") from error
        return image if colour is None else np.take(image, colour, axis=axes.index("S"))

    size = shape if colour is None else tuple(n for n, axis in zip(shape, axes) if axis != "S")
    return Plane(Header((size[0], size[1]), np.dtype(pixel_type), int(page.bitspersample)), pixels)


def _chosen_page(
    tiff: tifffile.TiffFile, reference: ImageReference, n_images: int, *, named: str
) -> tuple[tifffile.TiffPage, tuple[int, ...] | None]:
    """The chosen page; an index into the first series instead where its planes have no pages of their own."""
    choice, path = dict(reference.choice), reference.file
    if "page" in choice:
        number = chosen_number(choice["page"], n_images, what="page", named=named, path=path)
        return tiff.pages[number].aspage(), None
    series = tiff.series[0] if choice else None
    stack = [] if series is None else [(axis, n) for axis, n in zip(series.axes, series.shape) if axis not in "YXS"]
    if series is not None and prod(n for _, n in stack) > 1:
        names = _ome_channels(tiff)
        index = chosen_indices(stack, choice, names, named=named, path=path)
        if len(series.pages) == prod(n for _, n in stack):
            found = series.pages[int(np.ravel_multi_index(index, [n for _, n in stack]))]
            if found is None:
                raise InputError(
                    f"{named} names a page that is not in the file ({path}); copy all files of the OME-TIFF"
                )
            return found.aspage(), None
        return tiff.pages.first, index
    if n_images != 1:
        raise InputError(
            f"{named} holds {n_images} images ({path}); expected one grey image per file, or a choice after its name "
            f"(#page=1 to #page={n_images}, or #channel=...)"
        )
    return tiff.pages.first, None


def _ome_channels(tiff: tifffile.TiffFile) -> list[str]:
    """Channel names of an OME-TIFF's first image; none where it has no such description."""
    if not tiff.is_ome or tiff.ome_metadata is None:
        return []
    image = next(
        (part for part in ElementTree.fromstring(tiff.ome_metadata).iter() if part.tag.endswith("}Image")), None
    )
    channels = [] if image is None else [part for part in image.iter() if part.tag.endswith("}Channel")]
    return [part.get("Name", "") for part in channels]


def _colour(reference: ImageReference, n_samples: int, shape: Sequence[int], *, named: str) -> int:
    wanted = reference.choice.get("channel")
    if wanted is None:
        raise InputError(
            f"{named} holds an image of shape {_by(shape)}, in colour ({reference.file}); expected one grey image, or "
            "a choice after the file's name: #channel=red, #channel=green or #channel=blue"
        )
    if wanted in COLOURS and COLOURS.index(wanted) < n_samples:
        return COLOURS.index(wanted)
    return chosen_number(
        wanted, n_samples, what="channel", named=named, path=reference.file, known=" (red, green, blue)"
    )


def _png_plane(header: bytes, reference: ImageReference, *, named: str) -> Plane:
    path = reference.file
    if not header.startswith(PNG_SIGNATURE) or len(header) < PNG_HEADER_BYTES:
        raise InputError(f"{named} is not a complete PNG ({path}); {REPLACE}")
    _refuse_truncated_png(path, named=named)
    width, height, bits, kind = struct.unpack(">IIBB", header[16:26])
    if bits not in (8, 16) or kind == 3:
        raise InputError(
            f"{named} has {bits} bits per pixel, {PNG_COLOUR.get(kind, 'of an unknown kind')} ({path}); "
            "expected grey or red-green-blue with 8 or 16 bits"
        )
    if reference.choice.get("page", "1") != "1":
        chosen_number(reference.choice["page"], 1, what="page", named=named, path=path)
    colour = _colour(reference, 3, (height, width, 3), named=named) if kind in (2, 6) else None

    def pixels() -> Pixels:
        try:
            image = imagecodecs.png_decode(path.read_bytes())
        except Exception as error:  # libpng's own message
            raise InputError(f"{named} cannot be decoded ({path}: {_line(error)}); replace the file") from error
        image = image[..., colour or 0] if image.ndim == 3 else image
        return np.ascontiguousarray(image)

    return Plane(Header((height, width), np.dtype(np.uint8 if bits == 8 else np.uint16), bits), pixels)


def _refuse_truncated_png(path: Path, *, named: str) -> None:
    """InputError unless a PNG's chunks follow each other up to its end."""
    n_bytes, at = path.stat().st_size, len(PNG_SIGNATURE)
    with path.open("rb") as file:
        kind = b""
        while kind != PNG_END:
            file.seek(at)
            head = file.read(8)  # length and kind of the chunk; a checksum of four bytes follows it
            length, kind = struct.unpack(">I4s", head) if len(head) == 8 else (0, b"")
            at += 12 + length
            if not kind or at > n_bytes:
                raise InputError(f"{named} is truncated ({path}, of {n_bytes:,} bytes); {REPLACE}")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


UInt16Array = npt.NDArray[np.uint16]


def read_field(
    paths: Mapping[str, str | Path], *, where: str, pixel_types: Mapping[str, str] | None = None
) -> UInt16Array:
    """The pixels of a field, (C, H, W), its channels in the order of `paths`.

    Args:
        paths: Channel name -> file, or `file#page=2`.
        where: Plate, well and site, for messages.
        pixel_types: Channel name -> the type that its pixels have in all fields (uint8 beside uint16: another scale).

    Raises:
        InputError: As in `open_plane`; or a channel has another size than the first, or another pixel type.
    """
    images: dict[str, Pixels] = {}
    for channel, path in paths.items():
        named = f'{where}: channel "{channel}"'
        with open_plane(path, named=named) as plane:
            pixel_type = str(plane.header.pixel_type)
            expected = pixel_types[channel] if pixel_types is not None else pixel_type
            if pixel_type != expected:
                raise InputError(
                    f"{named} has pixels of type {pixel_type}, in other fields {expected} ({path}); all images "
                    "of a channel must have the same type"
                )
            images[channel] = plane.pixels()
        first, size = next((name, image.shape) for name, image in images.items())
        if images[channel].shape != size:
            raise InputError(
                f'{named} is {_size(images[channel].shape)} but channel "{first}" is {_size(size)} ({path}); '
                "all channels of a field must have the same size"
            )
    return np.stack(list(images.values()), dtype=np.uint16)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} x {shape[1]} px"
