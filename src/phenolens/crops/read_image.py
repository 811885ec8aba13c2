"""Find one grey image in a file: TIFF of any kind, PNG, OME-Zarr; its header first, its pixels when asked.

H x W pixels of 8 or 16 bits without sign (12-bit files are unpacked to 16). A file with more than one image, or in
colour, needs a choice (`path#page=2`, `path#channel=green`, see screens/image_files.py); none is made in silence.

C channels, H x W pixels, 16 bit without sign. An 8-bit file is taken as it is (its values stay 0..255).
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile

from phenolens.core.errors import InputError
from phenolens.crops.read_zarr import chosen_indices, chosen_number, is_zarr, zarr_plane
from phenolens.screens.image_files import ImageReference, image_reference

PIXEL_TYPES = (np.dtype(np.uint8), np.dtype(np.uint16))
COLOURS = ("red", "green", "blue")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MEND = "replace the file, or run with --skip-missing"
PNG_END = b"IEND"
PNG_COLOUR = {0: "grey", 2: "red-green-blue", 3: "a palette", 4: "grey with alpha", 6: "red-green-blue with alpha"}

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Plane:
    """One grey image whose header has been read: `shape` (H, W), `pixel_type`, `bits` a pixel as the file says."""

    shape: tuple[int, int]
    pixel_type: np.dtype[Any]
    bits: int
    pixels: Callable[[], Pixels]


@contextmanager
def open_plane(text: str | Path, *, named: str) -> Iterator[Plane]:
    """The image that a reference means, open while the block lasts.

    `named` begins each message (plate, well, site, channel). Raises InputError for a file that is missing, empty, cut
    short or of another kind than its name says, for several images or colours without a choice, a choice that the file
    does not have, and pixels of other than 8 to 16 bits without sign.
    """
    reference = image_reference(text)
    path = reference.file
    _refuse_empty(path, named=named)
    if is_zarr(path):
        yield Plane(*zarr_plane(reference, named=named))
    elif path.suffix.lower() == ".png":
        yield _png_plane(reference, named=named)
    else:
        with _opened(path, named=named) as tiff:
            yield _tiff_plane(tiff, reference, named=named)


def _refuse_empty(path: Path, *, named: str) -> None:
    try:
        is_empty = path.is_file() and path.stat().st_size == 0
    except OSError as error:  # a name that is too long, a folder without leave
        raise InputError(f"{named} cannot be opened ({path}: {error.strerror})") from error
    if is_empty:
        raise InputError(f"{named} is not a whole image ({path}: the file is empty, 0 bytes); {MEND}")


def _opened(path: Path, *, named: str) -> tifffile.TiffFile:
    try:
        return tifffile.TiffFile(path)
    except FileNotFoundError as error:
        raise InputError(f"{named} has no file (expected {path}); bring it, or run with --skip-missing") from error
    except PermissionError as error:
        raise InputError(f"{named} cannot be opened ({path}: {error.strerror}); give leave to read it") from error
    except Exception as error:  # an empty, foreign or cut header: tifffile raises several kinds
        raise InputError(f"{named} is not a whole TIFF ({path}: {_line(error)}); {MEND}") from error


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
        raise InputError(f"{named} is not a whole TIFF ({path}: {_line(error)}); {MEND}") from error
    colour: int | None = None
    if "S" in axes and len(shape) == 3:
        colour = _colour(reference, shape[axes.index("S")], shape, named=named)
    elif len(shape) != 2 or page.photometric == tifffile.PHOTOMETRIC.PALETTE:
        raise InputError(
            f"{named} holds an image of shape {_by(shape)}{' in palette colours' if len(shape) == 2 else ''} ({path}); "
            "expected one grey image a file"
        )
    if pixel_type not in PIXEL_TYPES:
        raise InputError(f"{named} has pixels of type {pixel_type} ({path}); expected 8 or 16 bits without sign")
    n_bytes = path.stat().st_size
    if end > n_bytes:
        raise InputError(f"{named} is cut short ({path} has {n_bytes:,} of {end:,} bytes); {MEND}")

    def pixels() -> Pixels:
        try:
            image = page.asarray() if index is None else tiff.series[0].asarray()[index]
        except Exception as error:  # a decoder's own error, of whatever kind the file provokes
            raise InputError(f"{named} cannot be decoded ({path}: {_line(error)}); replace the file") from error
        return image if colour is None else np.take(image, colour, axis=axes.index("S"))

    size = shape if colour is None else tuple(n for n, axis in zip(shape, axes) if axis != "S")
    return Plane((size[0], size[1]), np.dtype(pixel_type), int(page.bitspersample), pixels)


def _chosen_page(
    tiff: tifffile.TiffFile, reference: ImageReference, n_images: int, *, named: str
) -> tuple[tifffile.TiffPage, tuple[int, ...] | None]:
    """The page that is meant; an index into the first series instead where its planes have no pages of their own."""
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
                raise InputError(f"{named} names a page that is not in the file ({path}); bring the whole OME-TIFF")
            return found.aspage(), None
        return tiff.pages.first, index
    if n_images != 1:
        raise InputError(
            f"{named} holds {n_images} images ({path}); expected one grey image a file, or a choice after its name "
            f"(#page=1 to #page={n_images}, or #channel=...)"
        )
    return tiff.pages.first, None


def _ome_channels(tiff: tifffile.TiffFile) -> list[str]:
    """The channels' names in an OME-TIFF's first image; none where it has no such description."""
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
            f"a "
            "choice after the file's name: #channel=red, #channel=green or #channel=blue"
        )
    if wanted in COLOURS and COLOURS.index(wanted) < n_samples:
        return COLOURS.index(wanted)
    return chosen_number(
        wanted, n_samples, what="channel", named=named, path=reference.file, known=" (red, green, blue)"
    )


def _png_plane(reference: ImageReference, *, named: str) -> Plane:
    path = reference.file
    try:
        with path.open("rb") as file:
            header = file.read(33)
    except FileNotFoundError as error:
        raise InputError(f"{named} has no file (expected {path}); bring it, or run with --skip-missing") from error
    except OSError as error:
        raise InputError(f"{named} cannot be opened ({path}: {error.strerror})") from error
    if not header.startswith(PNG_SIGNATURE) or len(header) < 33:
        raise InputError(f"{named} is not a whole PNG ({path}); {MEND}")
    _refuse_cut_png(path, named=named)
    width, height, bits, kind = struct.unpack(">IIBB", header[16:26])
    if bits not in (8, 16) or kind == 3:
        raise InputError(
            f"{named} has {bits} bits a pixel, {PNG_COLOUR.get(kind, 'of an unknown kind')} ({path}); "
            "expected grey or red-green-blue with 8 or 16 bits"
        )
    if reference.choice.get("page", "1") != "1":
        chosen_number(reference.choice["page"], 1, what="page", named=named, path=path)
    colour = _colour(reference, 3, (height, width, 3), named=named) if kind in (2, 6) else None

    def pixels() -> Pixels:
        try:
            image = imagecodecs.png_decode(path.read_bytes())
        except Exception as error:  # libpng's own words
            raise InputError(f"{named} cannot be decoded ({path}: {_line(error)}); replace the file") from error
        image = image[..., colour or 0] if image.ndim == 3 else image
        return np.ascontiguousarray(image)

    return Plane((height, width), np.dtype(np.uint8 if bits == 8 else np.uint16), bits, pixels)


def _refuse_cut_png(path: Path, *, named: str) -> None:
    """InputError unless each of a PNG's parts is followed by another, up to the one that ends it."""
    n_bytes, at = path.stat().st_size, len(PNG_SIGNATURE)
    with path.open("rb") as file:
        kind = b""
        while kind != PNG_END:
            file.seek(at)
            head = file.read(8)  # length of the part and its kind; behind the part is a checksum of four bytes
            length, kind = struct.unpack(">I4s", head) if len(head) == 8 else (0, b"")
            at += 12 + length
            if not kind or at > n_bytes:
                raise InputError(f"{named} is cut short ({path}, of {n_bytes:,} bytes); {MEND}")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


UInt16Array = npt.NDArray[np.uint16]

EIGHT_BITS, TWELVE_BITS, SIXTEEN_BITS = 255, 4095, 65_535
SHIFTED_12_BIT, STRETCHED_8_BIT = 16, 257  # what each value is a multiple of in files that were scaled to 16 bits
MIN_KINDS_OF_VALUES = 8  # fewer different values could all be multiples of 16 by chance: 16 ** -8 for eight


def read_field(
    paths: Mapping[str, str | Path], *, where: str, pixel_types: Mapping[str, str] | None = None
) -> UInt16Array:
    """The channels of a field, (C, H, W), in the order of `paths` (channel name: file, or `file#page=2`).

    `where` names plate, well and site in the messages. Raises InputError for a file that is missing, cut short, no
    image, more than one grey image without a choice, of other than 8 to 16 bits a pixel, or of another size than the
    first channel; with `pixel_types` also for a channel with pixels of another type (uint8 beside uint16: other scale).
    """
    field: UInt16Array | None = None
    for number, (channel, path) in enumerate(paths.items()):
        named = f'{where}: channel "{channel}"'
        with open_plane(path, named=named) as plane:
            expected = pixel_types[channel] if pixel_types is not None else str(plane.pixel_type)
            if str(plane.pixel_type) != expected:
                raise InputError(
                    f"{named} has pixels of type {plane.pixel_type}, in other fields {expected} ({path}); all images "
                    "of a channel must have one type"
                )
            image = plane.pixels()
        if field is None:
            field = np.empty((len(paths), *image.shape), dtype=np.uint16)
        if image.shape != field.shape[1:]:
            first = next(iter(paths))
            raise InputError(
                f'{named} is {_size(image.shape)} but channel "{first}" is {_size(field.shape[1:])} ({path}); '
                "all channels of a field must have one size"
            )
        field[number] = image
    if field is None:
        raise InputError(f"{where}: no channel is named; a field has at least one")
    return field


def field_size(path: str | Path, *, where: str) -> tuple[int, int]:
    """Height and width in pixels from an image's header alone; InputError as in read_field."""
    with open_plane(path, named=where) as plane:
        return plane.shape


def pixel_types(paths: Mapping[str, str | Path], *, where: str) -> dict[str, str]:
    """Each channel's pixel type, from its image's header alone; InputError as in read_field."""
    types = {}
    for channel, path in paths.items():
        with open_plane(path, named=f'{where}: channel "{channel}"') as plane:
            types[channel] = str(plane.pixel_type)
    return types


def full_scale(images: Iterable[npt.NDArray[np.unsignedinteger]], *, bits: int | None = None) -> int:
    """The largest value that a pixel of these images could have had, as far as their values tell.

    255 where none is brighter; 65,520 where every value is a multiple of 16 (12 bits x 16, as BBBC021); 4,095 where
    none is brighter; else 65,535, also where every value is a multiple of 257 (8 bits stretched to 16). `bits` is what
    the files' headers say, and counts where it is less than 16. Give bright images of all channels: a dim 16-bit image
    is not told from a 12-bit one, and images of 14 bits count as 16. Raises InputError without a pixel and for a pixel
    that has more than `bits`.
    """
    brightest, divisor, n_pixels = 0, 0, 0
    kinds: set[int] = set()
    for image in images:
        values = np.unique(image).astype(np.int64)
        n_pixels += image.size
        brightest = max(brightest, int(values.max(initial=0)))
        divisor = int(np.gcd.reduce(values, initial=divisor))
        kinds.update(values[:MIN_KINDS_OF_VALUES].tolist())
    if n_pixels == 0:
        raise InputError("no pixel to tell the full scale from; give at least one image")
    if bits is not None and bits < 16:
        if brightest > 2**bits - 1:
            raise InputError(f"a pixel has the value {brightest:,}, more than {bits} bits hold; state the right bits")
        return 2**bits - 1
    if brightest <= EIGHT_BITS:
        return EIGHT_BITS
    if len(kinds) >= MIN_KINDS_OF_VALUES:
        if divisor % STRETCHED_8_BIT == 0:
            return SIXTEEN_BITS
        if divisor % SHIFTED_12_BIT == 0:
            return TWELVE_BITS * SHIFTED_12_BIT
    return TWELVE_BITS if brightest <= TWELVE_BITS else SIXTEEN_BITS


def as_fraction(field: npt.NDArray[np.unsignedinteger], full_scale: int) -> npt.NDArray[np.float32]:
    """Pixels as a share of the full scale, float32 in 0 to 1; InputError where a pixel is brighter than that."""
    if full_scale < 1:
        raise InputError(f"a full scale of {full_scale}; expected at least 1")
    brightest = int(field.max(initial=0))
    if brightest > full_scale:
        raise InputError(f"a pixel has the value {brightest:,} at a full scale of {full_scale:,}; state the right one")
    return field.astype(np.float32) / np.float32(full_scale)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} x {shape[1]} px"
