"""Read a field of view: one TIFF a channel, to one array.

C channels, H x W pixels, 16 bit without sign. An 8-bit file is taken as it is (its values stay 0..255).
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile

from phenolens.errors import InputError

UInt16Array = npt.NDArray[np.uint16]
PIXEL_TYPES = (np.dtype(np.uint8), np.dtype(np.uint16))


def read_field(paths: Mapping[str, Path], *, where: str) -> UInt16Array:
    """The channels of a field, (C, H, W), in the order of `paths` (channel name: file).

    `where` names plate, well and site in the messages. Raises InputError for a file that is missing, cut short, no
    TIFF, more than one grey image, of other than 8 or 16 bits a pixel, or of another size than the first channel.
    """
    field: UInt16Array | None = None
    for number, (channel, path) in enumerate(paths.items()):
        named = f'{where}: channel "{channel}"'
        image = _read_image(Path(path), named=named)
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


def field_size(path: Path, *, where: str) -> tuple[int, int]:
    """Height and width in pixels from a TIFF's header alone; InputError as in read_field."""
    with _opened(Path(path), named=where) as tiff:
        return _checked_page(tiff, Path(path), named=where).shape  # type: ignore[return-value]


def _read_image(path: Path, *, named: str) -> npt.NDArray[np.uint8] | UInt16Array:
    with _opened(path, named=named) as tiff:
        page = _checked_page(tiff, path, named=named)
        try:
            return page.asarray()
        except Exception as error:  # a decoder's own error, of whatever kind the file provokes
            raise InputError(f"{named} cannot be decoded ({path}: {error}); replace the file") from error


def _opened(path: Path, *, named: str) -> tifffile.TiffFile:
    try:
        return tifffile.TiffFile(path)
    except FileNotFoundError as error:
        raise InputError(f"{named} has no file (expected {path}); bring it, or run with --skip-missing") from error
    except Exception as error:  # an empty, foreign or cut header: tifffile raises several kinds
        raise InputError(f"{named} is not a whole TIFF ({path}: {error}); replace the file") from error


def _checked_page(tiff: tifffile.TiffFile, path: Path, *, named: str) -> tifffile.TiffPage:
    """The file's only image, known to be grey, 8 or 16 bit and there to its last byte."""
    try:
        n_images, page = len(tiff.pages), tiff.pages.first
        shape, pixel_type = page.shape, page.dtype
        end = max(offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True))
    except Exception as error:  # the list of images or strips is damaged
        raise InputError(f"{named} is not a whole TIFF ({path}: {error}); replace the file") from error
    if n_images != 1 or len(shape) != 2:
        kind = f"{n_images} images" if n_images != 1 else f"an image of shape {' x '.join(map(str, shape))}"
        raise InputError(f"{named} holds {kind} ({path}); expected one grey image a file")
    if pixel_type not in PIXEL_TYPES:
        raise InputError(f"{named} has pixels of type {pixel_type} ({path}); expected 8 or 16 bits without sign")
    n_bytes = path.stat().st_size
    if end > n_bytes:
        raise InputError(f"{named} is cut short ({path} has {n_bytes:,} of {end:,} bytes); replace the file")
    return page


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} x {shape[1]} px"
