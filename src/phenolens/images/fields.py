"""Read a field of view, an image a channel, to one array; and say how bright a pixel could have been.

C channels, H x W pixels, 16 bit without sign. An 8-bit file is taken as it is (its values stay 0..255).
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from phenolens.errors import InputError
from phenolens.images.planes import open_plane

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
