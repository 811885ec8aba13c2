"""Read one grey image of a file (TIFF of any kind, PNG, OME-Zarr): its header first, its pixels when asked.

C channels, H x W pixels of unsigned 8 or 16 bits; 12-bit files are unpacked to 16, 8-bit values stay 0 to 255. A
file with several images or colours needs a choice (`path#page=2`, see image_reference.py); none is made silently.
"""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import imagecodecs
import numpy as np
import numpy.typing as npt
import pandas as pd
import tifffile

from phenolens.core.errors import InputError, one_line
from phenolens.screens.image_reference import (
    AXES,
    ImageReference,
    Pixels,
    chosen_number,
    chosen_planes,
    image_reference,
    is_zarr,
    projected,
    refuse_lacking,
)
from phenolens.screens.ome_zarr import PIXEL_TYPES, zarr_plane
from phenolens.screens.remote import local_copies, local_copy
from phenolens.screens.screen import Screen, where_of

COLOURS = ("red", "green", "blue")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
REPLACE = "replace the file, or run with --skip-missing"
PNG_HEADER_BYTES = 33
# The first bytes of files of other kinds, some of which are often named .tif or .png.
OTHER_KINDS = {
    b"\xff\xd8\xff": "a JPEG",
    b"\xff\x4f\xff\x51": "a JPEG 2000",
    b"\0\0\0\x0cjP": "a JPEG 2000",
    b"GIF8": "a GIF",
    b"BM": "a BMP",
    b"RIFF": "a WebP or AVI",
    b"\xff\x0a": "a JPEG XL",
    b"\x49\x49\xbc": "a JPEG XR",
    b"ZISRAWFILE": "a CZI of Zeiss",
    b"\xda\xce\xbe\x0a": "an ND2 of Nikon",
    b"\x70\0\0\0": "a LIF of Leica",
    b"\x89HDF": "an HDF5",
    b"SIMPLE  =": "a FITS",
    b"\x93NUMPY": "a NumPy array",
    b"\0\x05\x16\x07": "a shadow of macOS (AppleDouble)",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"\x89PNG": "a PNG",
    b"II*\0": "a TIFF",
    b"MM\0*": "a TIFF",
}
LOSSY = "export the original as TIFF, as a JPEG's grey values are changed by its compression"
GREY, WHITE = tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.MINISWHITE
IN_COLOUR = (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR)
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

    A TIFF in which 0 is white is inverted, the black level of the reference is subtracted.

    Args:
        text: A file, or a file with a choice such as `#page=2`.
        named: Plate, well, site and channel, with which each message begins.

    Raises:
        InputError: The file is missing, empty, truncated or of another kind than its name says; it holds several
            images or colours and none is chosen, or not the chosen one; its pixels are not 8 to 16 bits without sign,
            or a tag gives their values another meaning.
    """
    reference = image_reference(text)
    with ExitStack() as opened:
        planes = [opened.enter_context(_opened(reference, file, named=named)) for file in reference.files]
        header = planes[0].header
        for file, plane in zip(reference.files, planes):
            if (plane.header.shape, plane.header.pixel_type) != (header.shape, header.pixel_type):
                raise InputError(
                    f"{named} is {_size(plane.header.shape)}, {plane.header.pixel_type}, in {file}, and "
                    f"{_size(header.shape)}, {header.pixel_type}, in {reference.file}; expected planes of one stack"
                )

        def pixels() -> Pixels:
            image = projected([plane.pixels() for plane in planes], reference.choice.get("z", ""))
            return image - np.minimum(image, reference.black) if reference.black else image

        yield Plane(header, pixels)


@contextmanager
def _opened(reference: ImageReference, path: Path, *, named: str) -> Iterator[Plane]:
    """One file of a reference."""
    choice = {word: text for word, text in reference.choice.items() if word in AXES}
    path = local_copy(path, named=named)
    reference = replace(reference, file=path, choice=choice)
    if is_zarr(path):
        array, chunks, pixels = zarr_plane(reference, named=named)
        shape = (int(array.shape[-2]), int(array.shape[-1]))
        yield Plane(Header(shape, array.dtype, 8 * array.dtype.itemsize, chunks.n, chunks.n_missing), pixels)
        return
    head = _first_bytes(path, named=named)
    _refuse_other_kinds(head, path, named=named)
    if path.suffix.lower() == ".png":
        yield _png_plane(head, reference, named=named)
        return
    try:
        tiff = tifffile.TiffFile(path)
    except Exception as error:  # a foreign or truncated header: tifffile raises several kinds
        raise InputError(f"{named} is not a complete TIFF ({path}: {one_line(error)}); {REPLACE}") from error
    with tiff:
        yield _tiff_plane(tiff, reference, named=named)


def _refuse_other_kinds(head: bytes, path: Path, *, named: str) -> None:
    """InputError for a file of another kind than TIFF and PNG, or than its name says."""
    expected = "a PNG" if path.suffix.lower() == ".png" else "a TIFF"
    kind = next((kind for first, kind in OTHER_KINDS.items() if head.startswith(first)), expected)
    if kind != expected:
        what_to_do = LOSSY if "JPEG" in kind else "name it so" if kind in ("a TIFF", "a PNG") else "export it as TIFF"
        raise InputError(f"{named} is {kind} file ({path}); TIFF, PNG and OME-Zarr are read: {what_to_do}")


def channels_in(path: Path) -> list[str]:
    """The channels of a file that holds them all: their names in an OME-TIFF, red, green and blue, or 1, 2, 3.

    Raises InputError for a file that cannot be read.
    """
    named = path.name
    head = _first_bytes(path, named=named)
    _refuse_other_kinds(head, path, named=named)
    if path.suffix.lower() == ".png":
        return list(COLOURS) if len(head) >= PNG_HEADER_BYTES and head[25] in (2, 6) else ["1"]
    try:
        with tifffile.TiffFile(path) as tiff:
            series = tiff.series[0]
            lengths = dict(zip(series.axes, series.shape))
            names = _ome_channels(tiff)
            n = prod(length for axis, length in lengths.items() if axis not in "YXSZT")
            n = n if n > 1 or len(tiff.series) == 1 else len(tiff.pages)
    except Exception as error:  # a foreign or truncated header: tifffile raises several kinds
        raise InputError(f"{named} is not a complete TIFF ({path}: {one_line(error)}); {REPLACE}") from error
    if "S" in lengths:
        return list(COLOURS[: lengths["S"]]) if lengths["S"] == 3 else [str(k + 1) for k in range(lengths["S"])]
    are_names = len(names) == n and all(names) and len(set(names)) == n
    return names if are_names else [str(place + 1) for place in range(n)]


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

    def add(self, known: Mapping[Path, Header]) -> None:
        """Take headers that another process read."""
        self._known |= known


def readable_headers(screen: Screen) -> dict[Path, Header]:
    """The headers of all images of a screen, without those that cannot be read."""
    headers = Headers()
    for _, field in screen.table.iterrows():
        with suppress(InputError):
            headers.of_field(screen, field)
    return headers._known


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
        pages, planes = _chosen_pages(tiff, reference, n_images, named=named)
        page = pages[0]
        shape, axes, pixel_type = tuple(page.shape), page.axes, page.dtype
        ends = [offset + n for each in pages for offset, n in zip(each.dataoffsets, each.databytecounts, strict=True)]
    except InputError:
        raise
    except Exception as error:  # the list of images or strips is damaged
        raise InputError(f"{named} is not a complete TIFF ({path}: {one_line(error)}); {REPLACE}") from error
    for each in pages:
        _refuse_other_meaning(each, tiff, named=named, path=path)
    colour: int | None = None
    if "S" in axes and len(shape) == 3:
        colour = _colour(
            reference, shape[axes.index("S")], shape, named=named, has_colours=page.photometric in IN_COLOUR
        )
    elif len(shape) != 2:
        raise InputError(f"{named} holds an image of shape {_by(shape)} ({path}); expected one grey image per file")
    if pixel_type not in PIXEL_TYPES:
        raise InputError(
            f"{named} has pixels of type {pixel_type} ({path}); expected unsigned 8 or 16 bits: convert all images "
            "alike, not each to its own range"
        )
    n_bytes = path.stat().st_size
    if max(ends) > n_bytes:
        raise InputError(f"{named} is truncated ({path} has {n_bytes:,} of {max(ends):,} bytes); {REPLACE}")

    def pixels() -> Pixels:
        try:
            if planes:
                stack = tiff.series[0].asarray()
                images = [stack[index] for index in planes]
            else:
                images = [each.asarray() for each in pages]
        except Exception as error:  # decoders raise many kinds
            raise InputError(f"{named} cannot be decoded ({path}: {one_line(error)}); replace the file") from error
        if colour is not None:
            images = [np.take(image, colour, axis=axes.index("S")) for image in images]
        if page.photometric == WHITE:
            images = [image.dtype.type(2**page.bitspersample - 1) - image for image in images]
        return projected(images, reference.choice.get("z", ""))

    size = shape if colour is None else tuple(n for n, axis in zip(shape, axes) if axis != "S")
    return Plane(Header((size[0], size[1]), np.dtype(pixel_type), int(page.bitspersample)), pixels)


def _refuse_other_meaning(page: tifffile.TiffPage, tiff: tifffile.TiffFile, *, named: str, path: Path) -> None:
    """InputError where a tag says that the stored numbers are not grey values or colours as they are."""
    kind = page.photometric
    if kind not in (GREY, WHITE, *IN_COLOUR):
        what = "palette colours" if kind == tifffile.PHOTOMETRIC.PALETTE else getattr(kind, "name", str(kind))
        raise InputError(
            f"{named} holds an image of shape {_by(page.shape)} in {what} ({path}); expected one grey image per file: "
            "export it as grey values"
        )
    calibration = tiff.imagej_metadata or {}
    line = (calibration.get("c0", 0), calibration.get("c1", 1))
    if "cf" in calibration and line != (0, 1):
        raise InputError(
            f"{named} has a calibration by ImageJ: a grey value is {line[0]} + {line[1]} x the stored number ({path}); "
            "save it as unsigned 16 bits without a calibration"
        )


def _chosen_pages(
    tiff: tifffile.TiffFile, reference: ImageReference, n_images: int, *, named: str
) -> tuple[list[tifffile.TiffPage], list[tuple[int, ...]]]:
    """The chosen pages; where the first series' planes have no pages of their own, its page and their places in it."""
    choice, path = dict(reference.choice), reference.file
    if "page" in choice:
        number = chosen_number(choice["page"], n_images, what="page", named=named, path=path)
        return [tiff.pages[number].aspage()], []
    series = tiff.series[0] if choice or tiff.is_imagej else None  # of ImageJ, one page may hold a stack
    stack = [] if series is None else [(axis, n) for axis, n in zip(series.axes, series.shape) if axis not in "YXS"]
    if series is not None and prod(n for _, n in stack) > 1:
        planes = chosen_planes(stack, choice, _ome_channels(tiff), named=named, path=path)
        if len(series.pages) != prod(n for _, n in stack):
            return [tiff.pages.first], planes
        pages = [series.pages[int(np.ravel_multi_index(index, [n for _, n in stack]))] for index in planes]
        found = [page.aspage() for page in pages if page is not None]
        if len(found) < len(pages):
            raise InputError(f"{named} names a page that is not in the file ({path}); copy all files of the OME-TIFF")
        return found, []
    if n_images != 1 and "channel" in choice:  # pages that belong to no stack
        number = chosen_number(choice.pop("channel"), n_images, what="channel", named=named, path=path)
        refuse_lacking(choice, {}, named=named, path=path)
        return [tiff.pages[number].aspage()], []
    if n_images != 1:
        raise InputError(
            f"{named} holds {n_images} images ({path}); expected one grey image per file, or a choice after its name "
            f"(#page=1 to #page={n_images}, #channel=... or #z=max; --z and --t choose in all files)"
        )
    if "S" not in tiff.pages.first.axes:
        refuse_lacking(choice, {}, _ome_channels(tiff), named=named, path=path)
    return [tiff.pages.first], []


def _ome_channels(tiff: tifffile.TiffFile) -> list[str]:
    """Channel names of an OME-TIFF's first image; none where it has no such description."""
    if not tiff.is_ome or tiff.ome_metadata is None:
        return []
    image = next(
        (part for part in ElementTree.fromstring(tiff.ome_metadata).iter() if part.tag.endswith("}Image")), None
    )
    channels = [] if image is None else [part for part in image.iter() if part.tag.endswith("}Channel")]
    return [part.get("Name", "") for part in channels]


def _colour(
    reference: ImageReference, n_samples: int, shape: Sequence[int], *, named: str, has_colours: bool = True
) -> int:
    refuse_lacking({**reference.choice, "channel": "1"}, {}, named=named, path=reference.file)
    wanted = reference.choice.get("channel")
    if wanted is None:
        ways = "#channel=red, #channel=green or #channel=blue" if has_colours else f"#channel=1 to #channel={n_samples}"
        raise InputError(
            f"{named} holds an image of shape {_by(shape)}, {'in colour' if has_colours else 'of several samples'} "
            f"({reference.file}); expected one grey image, or a choice after the file's name: {ways}"
        )
    if has_colours and wanted in COLOURS and COLOURS.index(wanted) < n_samples:
        return COLOURS.index(wanted)
    known = " (red, green, blue)" if has_colours else ""
    return chosen_number(wanted, n_samples, what="channel", named=named, path=reference.file, known=known)


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
    colour = _colour(reference, 3, (height, width, 3), named=named) if kind in (2, 6) else None
    if colour is None:
        refuse_lacking(reference.choice, {}, named=named, path=path)

    def pixels() -> Pixels:
        try:
            image = imagecodecs.png_decode(path.read_bytes())
        except Exception as error:  # libpng's own message
            raise InputError(f"{named} cannot be decoded ({path}: {one_line(error)}); replace the file") from error
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
    field: UInt16Array | None = None
    local_copies((file for text in paths.values() for file in image_reference(text).files), named=where)
    for place, (channel, path) in enumerate(paths.items()):
        named = f'{where}: channel "{channel}"'
        with open_plane(path, named=named) as plane:
            pixel_type = str(plane.header.pixel_type)
            expected = pixel_types[channel] if pixel_types is not None else pixel_type
            if pixel_type != expected:
                raise InputError(
                    f"{named} has pixels of type {pixel_type}, in other fields {expected} ({path}); all images "
                    "of a channel must have the same type"
                )
            size = plane.header.shape
            if field is None:
                field = np.empty((len(paths), *size), np.uint16)
            if size != field.shape[1:]:
                raise InputError(
                    f'{named} is {_size(size)} but channel "{next(iter(paths))}" is {_size(field.shape[1:])} ({path}); '
                    "all channels of a field must have the same size"
                )
            # only one image beside the field: the memory of several would be given back and asked for again each time
            field[place] = plane.pixels()
    assert field is not None, "no channel"
    return field


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} x {shape[1]} px"
