"""Correct uneven illumination: divide each field by an illumination function of its plate.

C channels, H x W pixels. Singh et al. 2014, J. Microscopy 256:231: for each plate and channel the mean of all fields,
smoothed by a wide median filter, scaled by its robust minimum and clipped below it, is the illumination function. It is
at least 1, so that dividing by it makes no pixel brighter. Cells average out over many fields and light does not; a
treatment that is always at the same place of the field would count as light.

With `average` "foreground" the mean is over foreground alone: each place of PLACE_PX a side has a histogram of the
brightness of its spots (blocks of SPOT_PX a side) over all fields, and its light is the mean of the spots that belong
to cells. So it does not matter how many cells lie at a place. Foreground depends on the light, so both are estimated in
turns.
"""

import io
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.files import write_whole
from phenolens.crops.config import BLOCK_PX, IlluminationConfig
from phenolens.crops.rank_filter import ranked

BLOCKS_PER_WINDOW = 24  # the median filter's diameter in blocks, so that a wide one costs no more than a narrow one
N_VALUES = 65_536  # of a uint16 pixel
SPOT_PX = 8  # side of a spot: camera noise is averaged over it, and it is smaller than a cell
PLACE_PX = 32  # side of a place: a field of any number of spots becomes few histograms, in bounded memory
N_BINS = 512  # of brightness, equal on a logarithmic scale: each is 2.2 % wide
EDGES = N_VALUES ** (np.arange(N_BINS + 1) / N_BINS)
BRIGHTNESS = np.sqrt(EDGES[1:] * EDGES[:-1])  # (N_BINS,) the middle of each bin, counts
FOREGROUND = 1.0  # a spot is foreground above this share of the mean of all spots, times the light at its place
MOST_ROUNDS, CONVERGED = 20, 1e-3  # light and foreground are estimated until the light changes by less than this share
FORMAT = "phenolens illumination"
VERSION = 1

UInt16Array = npt.NDArray[np.uint16]
FloatArray = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Illumination:
    """What the fields of a plate are corrected with."""

    functions: FloatArray  # (C, H, W), at least 1
    offset: FloatArray  # (C,) counts that are subtracted before dividing; zeros unless the config subtracts
    n_fields: int  # from which it was estimated

    def __post_init__(self) -> None:
        """InputError where a field cannot be divided by the functions."""
        if not (self.functions.min() > 0 and np.isfinite(self.functions).all() and np.isfinite(self.offset).all()):
            raise InputError("illumination functions that are not above 0 or not finite; estimate them again")


@dataclass
class FieldSums:
    """The sums over a plate's fields from which its illumination follows; one field in memory at a time."""

    channels: tuple[str, ...]  # names, for messages
    where: str = "this plate"  # for messages
    counts_spots: bool = True  # fills the counts below, from which an offset and the foreground mean follow
    n_fields: int = 0
    # (C, H, W); exact, for no plate has 65,537 fields
    total: npt.NDArray[np.uint32] = field(default_factory=lambda: np.zeros((0, 0, 0), np.uint32))
    # (C, 65536) how many 8 x 8 block means, rounded, have each value
    block_counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, N_VALUES), np.int64))
    # (C, places down, places across, bins) how many spots at each place have each brightness
    spots: Counts = field(default_factory=lambda: np.zeros((0, 0, 0, 0), np.int32))

    def add(self, pixels: UInt16Array) -> None:
        """Add a field (C, H, W); InputError if it is not uint16, or differs in size from those before."""
        named = f"{self.where}: field {self.n_fields + 1} of those averaged"
        _check_field(pixels, self.channels, named=named)
        if self.n_fields == 0:
            self.total = np.zeros(pixels.shape, np.uint32)
            self.block_counts = np.zeros((len(self.channels), N_VALUES), np.int64)
            places = (-(-side // PLACE_PX) for side in pixels.shape[1:])
            self.spots = np.zeros((len(self.channels), *places, N_BINS), np.int32)
        if pixels.shape != self.total.shape:
            raise InputError(
                f"{named} is {_size(pixels.shape)}, those before are {_size(self.total.shape)}; all fields of a plate "
                "must have the same size"
            )
        self.total += pixels
        for channel, image in enumerate(pixels if self.counts_spots else ()):
            means = block_means(image, block_px=SPOT_PX)
            values = np.rint(means).astype(np.int64)
            self.block_counts[channel] += np.bincount(values.ravel(), minlength=N_VALUES)
            self.spots[channel] += spot_counts(means)
        self.n_fields += 1


def estimate_illumination(
    fields: Iterable[UInt16Array],
    *,
    channels: Sequence[str],
    where: str = "this plate",
    config: IlluminationConfig | None = None,
) -> Illumination:
    """The illumination of a plate from its fields.

    Args:
        fields: (C, H, W) uint16 each; one is in memory at a time.
        channels: Their names, for messages.
        where: The plate, for messages.
        config: How it is estimated.

    Raises:
        InputError: A field is not uint16 or has another size; or as in `illumination_of`.
    """
    config = config or IlluminationConfig()
    sums = FieldSums(tuple(channels), where, counts_spots=config.offset == "subtract")
    for pixels in fields:
        sums.add(pixels)
    return illumination_of(sums, config=config)


def illumination_of(sums: FieldSums, *, config: IlluminationConfig | None = None) -> Illumination:
    """The illumination that follows from a plate's sums.

    With `offset` "subtract" the camera's counts without light, a low percentile of all block means, are subtracted from
    the mean before it is scaled, and from each field before it is divided. Kept, as in the paper, they make the
    functions too flat. Raises InputError for fewer fields than `least_fields`, for a channel of one value, and for one
    whose robust minimum is 0.
    """
    config = config or IlluminationConfig()
    if sums.n_fields < config.least_fields:
        raise InputError(
            f"{sums.where}: {counted(sums.n_fields, 'field')}, expected at least {config.least_fields} "
            "(--least-fields) to separate the illumination from the cells; leave its fields uncorrected, or give "
            "more fields"
        )
    offset = _offset(sums, config) if config.offset == "subtract" else np.zeros(len(sums.channels))
    functions = np.empty(sums.total.shape, np.float32)
    for channel, name in enumerate(sums.channels):
        mean = sums.total[channel] / sums.n_fields
        named = f'{sums.where}: channel "{name}"'
        if mean.min() == mean.max():
            raise InputError(
                f"{named} is {mean.max():g} on average in every pixel of {counted(sums.n_fields, 'field')}; replace "
                "its images, or leave the plate out with --plates"
            )
        if config.average == "foreground":
            counts = sums.spots[channel]
            light = foreground_mean(counts, offset=offset[channel], smooth_px=config.smooth_px, named=named)
            functions[channel] = _function_of(light, mean.shape, block_px=PLACE_PX, named=named, config=config)
        else:
            functions[channel] = illumination_function(mean - offset[channel], named=named, config=config)
    return Illumination(functions, offset.astype(np.float32), sums.n_fields)


def block_means(image: npt.NDArray[np.generic], *, block_px: int) -> Floats:
    """Means of square blocks of an image (H, W); the last row and column of blocks may have fewer pixels."""
    sums = _block_sums(_block_sums(image, block_px).T, block_px).T
    sides = [np.minimum(block_px, side - np.arange(0, side, block_px)) for side in image.shape]
    return sums / np.outer(*sides)


def _block_sums(image: npt.NDArray[np.generic], block_px: int) -> npt.NDArray[Any]:
    """Sums of so many rows each; far faster than np.add.reduceat, and the same."""
    sums = image[::block_px].astype(np.result_type(image, np.uint32))
    for row in range(1, block_px):
        rows = image[row::block_px]
        sums[: len(rows)] += rows
    return sums


def spot_counts(spots: Floats) -> Counts:
    """How many spots (means of squares) have each brightness, by place: (places down, places across, N_BINS)."""
    bins = np.clip(np.searchsorted(EDGES, spots, side="right") - 1, 0, N_BINS - 1)
    down, across = (np.arange(n) // (PLACE_PX // SPOT_PX) for n in spots.shape)
    shape = (int(down[-1]) + 1, int(across[-1]) + 1, N_BINS)
    places = down[:, None] * shape[1] + across
    return np.bincount((places * N_BINS + bins).ravel(), minlength=int(np.prod(shape))).reshape(shape).astype(np.int32)


def foreground_mean(counts: Counts, *, offset: float, smooth_px: int, named: str) -> Floats:
    """The mean brightness above `offset` of foreground spots, by place (down, across), relative to its own mean.

    Sums and numbers of foreground spots are smoothed (Gaussian, standard deviation a quarter of `smooth_px`, edges
    reflected) before one is divided by the other. InputError, beginning with `named`, where no spot is foreground.
    """
    above = BRIGHTNESS - offset
    usual = float((counts * above).sum() / counts.sum())
    light = np.ones(counts.shape[:2])

    def smooth(values: npt.NDArray[np.generic]) -> Floats:
        return ndimage.gaussian_filter(values.astype(np.float64), smooth_px / 4 / PLACE_PX, mode="reflect")

    for _ in range(MOST_ROUNDS):
        foreground = np.where(above > FOREGROUND * usual * light[..., None], counts, 0)
        n = smooth(foreground.sum(axis=-1))
        if not usual > 0 or not n.min() > 0:
            raise InputError(
                f"{named} has places without foreground in any field; give more fields, or a larger --illumination-px"
            )
        before, light = light, smooth(foreground @ above) / n
        light = light / light.mean()
        if np.abs(light / before - 1).max() < CONVERGED:
            break
    return light


def illumination_function(mean: Floats, *, named: str, config: IlluminationConfig | None = None) -> FloatArray:
    """The illumination function (H, W), at least 1, from the mean (H, W) of one channel's fields.

    The median is taken over a disk of `smooth_px` on block means (4 px, with windows from 120 px on a 24th of them),
    with the edges reflected; between the blocks' centres the function is linear. InputError, beginning with `named`,
    if the robust minimum is 0 or less.
    """
    config = config or IlluminationConfig()
    block_px = max(BLOCK_PX, config.smooth_px // BLOCKS_PER_WINDOW)
    radius = config.smooth_px / (2 * block_px)
    reach = np.arange(-int(radius), int(radius) + 1)
    disk = np.hypot(reach[:, None], reach) <= radius
    blocks = block_means(mean, block_px=block_px)
    smooth = ranked(blocks, disk, rank=int(disk.sum()) // 2, beyond="symmetric")
    return _function_of(smooth, mean.shape, block_px=block_px, named=named, config=config)


def _function_of(
    blocks: Floats, shape: tuple[int, ...], *, block_px: int, named: str, config: IlluminationConfig
) -> FloatArray:
    """Block means scaled by their robust minimum, at least 1, and linear between the blocks' centres: (H, W)."""
    minimum = np.percentile(blocks, config.robust_minimum)
    if not minimum > 0:
        raise InputError(
            f"{named} is {minimum:g} on average in the darkest {config.robust_minimum:g} % of the field; expected some "
            "light everywhere. Crop away a black border, or leave its fields uncorrected"
        )
    function = np.maximum(blocks / minimum, 1)
    for axis, side in enumerate(shape):
        starts = np.arange(0, side, block_px)
        centres = (starts + np.minimum(starts + block_px, side) - 1) / 2
        function = np.apply_along_axis(lambda line: np.interp(np.arange(side), centres, line), axis, function)  # noqa: B023
    return function.astype(np.float32)


def correct(pixels: UInt16Array, light: Illumination) -> UInt16Array:
    """A field (C, H, W) minus the offset, divided by the illumination functions, rounded, within 0 to 65,535.

    InputError for a field of another size.
    """
    return as_pixels(corrected(pixels, light))


def corrected(pixels: UInt16Array, light: Illumination) -> FloatArray:
    """As `correct`, but float32, neither rounded nor clipped."""
    check_fits(pixels, light)
    return divided(pixels, light.functions, offset=light.offset)


def check_fits(pixels: UInt16Array, light: Illumination) -> None:
    """InputError for a field (C, H, W) of another size than the illumination's, or not of uint16."""
    if pixels.shape != light.functions.shape:
        raise InputError(
            f"a field of {_size(pixels.shape)} cannot be divided by illumination functions of "
            f"{_size(light.functions.shape)}; estimate them from fields of this size"
        )
    _check_field(pixels, range(len(pixels)), named="field to be corrected")


def divided(pixels: UInt16Array, functions: FloatArray, *, offset: FloatArray) -> FloatArray:
    """Pixels (..., C, H, W) minus the offset (C,), divided by the functions at the same places."""
    values = pixels - offset[:, None, None]
    values /= functions
    return values


def as_pixels(values: FloatArray) -> UInt16Array:
    """Values rounded, halves to even, within 0 to 65,535; `values` is overwritten."""
    return np.rint(np.clip(values, 0, N_VALUES - 1, out=values), out=values).astype(np.uint16)


def save_illumination(path: Path, light: Illumination, *, about: Mapping[str, Any]) -> None:
    """Write a `.npz`, whole or not at all, with `about` (what it was made from) inside; same content, same bytes.

    numpy.load reads it: `functions` (C, H, W), `offset` (C,), and `about`, JSON text.
    """
    content = {"format": FORMAT, "version": VERSION, "n_fields": light.n_fields, "about": dict(about)}
    with write_whole(path) as file:
        np.savez(file, functions=light.functions, offset=light.offset, about=np.array(json.dumps(content)))


def load_illumination(path: Path) -> tuple[Illumination, dict[str, Any]]:
    """What `save_illumination` wrote, and its `about`; InputError if the file is missing or damaged."""
    try:
        with np.load(io.BytesIO(Path(path).read_bytes())) as parts:  # numpy would keep a damaged file open
            content = json.loads(str(parts["about"]))
            if content["format"] != FORMAT or content["version"] != VERSION:
                raise InputError(f"{path}: {content['format']} of version {content['version']}; estimate it again")
            return Illumination(parts["functions"], parts["offset"], content["n_fields"]), content["about"]
    except FileNotFoundError:
        raise InputError(f"{path}: not there; estimate the plate's illumination first") from None
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: damaged ({str(error).splitlines()[0]}); estimate it again") from error


def _offset(sums: FieldSums, config: IlluminationConfig) -> npt.NDArray[np.float64]:
    """A low percentile (C,) of the block means of all fields: the noise is averaged, and some blocks have no cell."""
    reached = sums.block_counts.cumsum(axis=1)
    wanted = config.offset_percentile / 100 * reached[:, -1:]
    return np.argmax(reached > wanted, axis=1).astype(np.float64)


def _check_field(pixels: npt.NDArray[np.generic], channels: Sequence[str] | range, *, named: str) -> None:
    if pixels.ndim != 3 or len(pixels) != len(channels) or not pixels.size:
        raise InputError(f"{named} has shape {pixels.shape}; expected {len(channels)} channels x height x width")
    if pixels.dtype != np.uint16:
        with_nan = " with NaN" if pixels.dtype.kind == "f" and np.isnan(pixels.astype(float)).any() else ""
        raise InputError(
            f"{named} has pixels of type {pixels.dtype}{with_nan}; expected uint16 as the camera gave them"
        )


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) + (" px" if len(shape) == 3 else "")
