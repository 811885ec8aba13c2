"""Measure what defects leave in crops and fields: sharpness, noise, saturation, bright spots.

N crops, C channels, S x S pixels, 16 bit without sign; a field is C, H, W. Frequencies are in cycles per pixel. Optics
blur a cell's light over several pixels, so that neighbouring pixels agree; camera noise is independent in every pixel.
"""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

Float = npt.NDArray[np.float32]
UInt16Array = npt.NDArray[np.uint16]

# From structure of about the size of a nucleus down to what the optics still resolve. Lower frequencies reflect how
# large the cell is, higher ones are mostly camera noise.
FOCUS_BAND = (0.04, 0.2)
NOISE_FROM = 0.5  # beyond this, in the corners of the spectrum, there is camera noise alone
LEAST_RINGS = 4  # a slope needs some points, even where noise begins early
LEAST_SIDE_PX = 24  # a smaller crop has fewer rings than that in FOCUS_BAND
DETECTOR_BITS = (8, 10, 12, 14, 16)
LARGEST_STEP = 256  # of values that were scaled to 16 bits: a detector has at least 8
# Cameras clip a little below their range once an offset is taken off: BBBC021's at 0.96 of it.
CLIPS_FROM = 0.9
BACKGROUND_PERCENTILE, CELL_PERCENTILE = 5, 95
SAMPLED = 512  # crops by which the detector is judged


class Spots(NamedTuple):
    """The brightest spot (mean of 3 x 3 px) of each channel of each crop, three arrays (N, C)."""

    height: Float  # grey values above the crop's background, its 5th percentile
    contrast: Float  # height over that of the crop's 95th percentile; 0 in a constant channel
    px: npt.NDArray[np.int64]  # pixels, of the whole crop, that reach half the height


def power_slope(crops: UInt16Array) -> Float:
    """Slope of log power against log frequency for each channel of each crop: (N, C, S, S) -> (N, C), NaN if constant.

    The steeper, the more blurred: about -4 in focus, about 0 for noise (Bray et al. 2012). Their slope over the whole
    spectrum fails where the camera's noise is not blurred with the cell: a blurred crop then reaches the flat noise
    sooner and has the shallower slope. So the noise's power is taken off and the slope ends where noise takes over.
    It finds blur of 3 px and more in cells, and may miss a dim glow of cells far out of focus before others. NaN too
    for crops of fewer than LEAST_SIDE_PX.
    """
    return _power_slope(_centred(crops))


def power_slope_of_field(tiles: UInt16Array) -> Float:
    """One slope for each channel of a field from its tiles (N, C, S, S), by the tiles' mean power: (C,)."""
    return _slope(_ring_power(_centred(tiles)).mean(axis=0), side=tiles.shape[-1])


def neighbour_correlation(crops: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """Correlation of neighbouring pixels, for each channel of each crop: (N, C, S, S) -> (N, C), -1 to 1.

    Pearson's correlation over all pairs of adjacent pixels, the mean of the pairs along rows and along columns; 0 in a
    constant channel.
    """
    return _neighbour_correlation(_centred(crops))


def is_constant(crops: npt.NDArray[np.uint16]) -> npt.NDArray[np.bool_]:
    """Which channels of which crops have one value in all pixels: (N, C, S, S) -> (N, C)."""
    return np.all(crops == crops[..., :1, :1], axis=(2, 3))


def detector_maximum(images: Iterable[UInt16Array], *, bits: int | None = None) -> int:
    """Estimate the largest value that the detector can give: 255, 4,095, 65,520, 65,535 and the like.

    Values that are all multiples of 16 are of 12 bits times 16 (65,520), multiples of 257 are of 8 bits stretched to
    16 (65,535). Else the fewest of 8, 10, 12, 14 and 16 bits that hold them: too few for a dim image of 16 bits, and
    therefore saturation is judged by pixels that share one value, not by bright ones.

    Args:
        images: Bright images of one channel; one of them is in memory at a time.
        bits: Bits a pixel as the files' headers say; fewer than 16 decide alone.
    """
    if bits is not None and bits < 16:
        return int(2**bits - 1)
    every_bit, brightest, is_stretched = 0, 0, True
    for image in images:
        every_bit |= int(np.bitwise_or.reduce(image, axis=None)) if image.size else 0
        brightest = max(brightest, int(image.max(initial=0)))
        is_stretched = is_stretched and not np.any(image.astype(np.uint16, copy=False) % 257)
    if every_bit == 0 or is_stretched:
        return 65_535
    step = every_bit & -every_bit  # the largest power of two that divides all values
    if 1 < step <= LARGEST_STEP:
        return 65_536 - step
    return next(2**bits - 1 for bits in DETECTOR_BITS if brightest < 2**bits)


def detector_maxima(crops: Sequence[UInt16Array], *, given: int | None = None) -> npt.NDArray[np.int64]:
    """`detector_maximum` of each channel of arrays (N, C, H, W), or the one that is `given`: (C,)."""
    n_channels = crops[0].shape[1]
    return np.array([given or detector_maximum(part[:, channel] for part in crops) for channel in range(n_channels)])


def saturated_share(crops: UInt16Array, *, maximum: int | npt.NDArray[np.int64]) -> Float:
    """Share of pixels at the largest value of their channel of their crop (or field), (N, C, H, W) -> (N, C), 0 to 1.

    0 where that value is below nine tenths of the detector's `maximum`, one or (C,): no camera clips there. An
    unclipped largest value occurs in a pixel or two, a clipped one in many. Bray et al. 2012 (percent maximal).
    """
    largest = crops.max(axis=(2, 3), keepdims=True)
    share = (crops == largest).mean(axis=(2, 3), dtype=np.float32)
    return np.where(clips(largest[..., 0, 0], maximum=maximum), share, np.float32(0))


def clips(largest: UInt16Array, *, maximum: int | npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether a camera whose largest value is `maximum`, one or of each channel (C,), can have clipped at these."""
    return largest >= CLIPS_FROM * maximum


class Saturation:
    """The saturated shares of a plate's crops, added a few at a time, before their light is corrected.

    After the correction, pixels at the detector's limit no longer share one value and are not found.
    """

    def __init__(self, n_crops: int) -> None:
        self._step = max(1, n_crops // SAMPLED)
        self._n = 0
        self._sample: list[npt.NDArray[np.uint16]] = []
        self._largest: list[npt.NDArray[np.uint16]] = []
        self._share: list[npt.NDArray[np.float32]] = []

    def add(self, crops: npt.NDArray[np.uint16]) -> None:
        """Add crops (n, C, S, S)."""
        self._sample.append(crops[-self._n % self._step :: self._step].copy())
        self._largest.append(crops.max(axis=(2, 3)))
        self._share.append(saturated_share(crops, maximum=0))
        self._n += len(crops)

    def shares(self, *, maximum: int | None = None) -> npt.NDArray[np.float32]:
        """`saturated_share` (N, C) of all crops; without `maximum` each channel's is estimated from a sample."""
        limit = detector_maxima(self._sample, given=maximum)
        return np.where(clips(np.concatenate(self._largest), maximum=limit), np.concatenate(self._share), np.float32(0))


def brightest_spots(crops: UInt16Array) -> Spots:
    """Height, contrast and size of the brightest spot of each channel of each crop."""
    flat = crops.reshape(*crops.shape[:2], -1)
    ranks = [round(flat.shape[2] * percentile / 100) for percentile in (BACKGROUND_PERCENTILE, CELL_PERCENTILE)]
    # one rank at a time: numpy has a much faster way for one than for two
    background, cell = (np.partition(flat, rank, axis=2)[..., rank].astype(np.float32) for rank in ranks)
    above = smoothed(crops)
    above -= background[..., None, None]
    height = above.max(axis=(2, 3))
    contrast = np.divide(height, cell - background, out=np.zeros_like(height), where=cell > background)
    return Spots(height, contrast, (above >= height[..., None, None] / 2).sum(axis=(2, 3)))


def count_spots(field: UInt16Array, *, times: float, at_most_px: int) -> npt.NDArray[np.int64]:
    """Number of spots of a field (C, H, W) that are `times` as bright as its cells and at most `at_most_px`: (C,).

    Its cells' brightness is the 99.5th percentile over the background (the 5th): cells cover more of a field than half
    a percent, a few spots cover less. A spot's size is its part that is so bright.
    """
    counts = np.zeros(len(field), dtype=np.int64)
    for channel, image in enumerate(field):
        background, cell = np.percentile(image, [BACKGROUND_PERCENTILE, 99.5])
        labels, _ = ndimage.label(smoothed(image[None, None])[0, 0] > background + times * max(cell - background, 1))
        sizes = np.bincount(labels.ravel())[1:]
        counts[channel] = np.count_nonzero(sizes <= at_most_px)
    return counts


def smoothed(crops: UInt16Array) -> Float:
    """Each pixel's mean with its eight neighbours, so that a hot pixel is not a spot."""
    pixels = crops.astype(np.float32)
    rows = pixels.copy()
    rows[..., 1:, :] += pixels[..., :-1, :]
    rows[..., :-1, :] += pixels[..., 1:, :]
    rows[..., (0, -1), :] += pixels[..., (0, -1), :]  # beyond the border, its pixels again
    sums = rows.copy()
    of_image = (*crops.shape[:-2], -1)  # one axis for all pixels is far faster; the first and last column come after
    sums.reshape(of_image)[..., 1:] += rows.reshape(of_image)[..., :-1]
    sums.reshape(of_image)[..., :-1] += rows.reshape(of_image)[..., 1:]
    sums[..., 0] = 2 * rows[..., 0] + rows[..., 1]
    sums[..., -1] = 2 * rows[..., -1] + rows[..., -2]
    sums *= np.float32(1 / 9)
    return sums


def crop_measures(crops: npt.NDArray[np.uint16]) -> dict[str, np.ndarray]:
    """All measures of crops but the saturated share, arrays (N, C)."""
    spots, pixels = brightest_spots(crops), _centred(crops)
    return {
        "neighbour_correlation": _neighbour_correlation(pixels),
        "power_slope": _power_slope(pixels),
        "spot_height": spots.height,
        "spot_contrast": spots.contrast,
        "spot_px": spots.px,
    }


def _centred(crops: UInt16Array) -> Float:
    """The pixels minus the mean of their channel of their crop."""
    pixels = crops.astype(np.float32)
    pixels -= pixels.mean(axis=(2, 3), keepdims=True)
    return pixels


def _power_slope(pixels: Float) -> Float:
    """`power_slope` of crops of a mean of 0."""
    side = pixels.shape[-1]
    if side < LEAST_SIDE_PX:
        return np.full(pixels.shape[:2], np.nan, dtype=np.float32)
    return _slope(_ring_power(pixels), side=side)


@cache
def _rings(side: int) -> tuple[Float, Float]:
    """Frequencies of the rings up to FOCUS_BAND's end (K,), and weights that make means of half a spectrum's power.

    The weights (pixels of the half spectrum, K + 1) are for each ring and, as the last, for the noise.
    """
    radius = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    numbers = np.arange(1, side)
    numbers = numbers[numbers <= FOCUS_BAND[1] * side]
    ring_of = np.rint(radius * side)
    members = np.stack([*(ring_of == number for number in numbers), radius > NOISE_FROM]).astype(np.float32)
    members *= np.where(np.isin(np.arange(side // 2 + 1), (0, side / 2)), 1, 2)  # the other half mirrors these columns
    weights = members.reshape(len(members), -1)
    return (numbers / side).astype(np.float32), (weights / weights.sum(1, keepdims=True)).T


def _ring_power(pixels: Float) -> Float:
    """Mean power in each ring up to FOCUS_BAND's end, and of the noise as the last: (N, C, S, S) -> (N, C, K + 1)."""
    side = pixels.shape[-1]
    window = np.hanning(side + 2)[1:-1].astype(np.float32)  # tapers the crop at its border
    spectrum = fft.rfft2(pixels * (window[:, None] * window))
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    return power.reshape(*pixels.shape[:2], -1) @ _rings(side)[1]


def _slope(ring_power: Float, *, side: int) -> Float:
    """Least-squares slope over the rings of FOCUS_BAND before noise has half the power.

    Where these are fewer than LEAST_RINGS, rings below the band count too: little but a glow is left of the cell.
    """
    power, noise = ring_power[..., :-1].astype(np.float64), ring_power[..., -1:].astype(np.float64)
    frequencies, _ = _rings(side)
    n_below = int((frequencies < FOCUS_BAND[0]).sum())
    n_clear = np.logical_and.accumulate(power[..., n_below:] > 2 * noise, axis=-1).sum(axis=-1, keepdims=True)
    first = np.maximum(n_below - np.maximum(LEAST_RINGS - n_clear, 0), 0)
    n = np.maximum(n_clear, LEAST_RINGS)
    ring = np.arange(len(frequencies))
    counted = (ring >= first) & (ring < first + n)
    smallest = np.finfo(np.float32).tiny
    y = np.log(np.maximum(power - noise, np.maximum(noise / 4, smallest)))
    x = np.broadcast_to(np.log(frequencies.astype(np.float64)), y.shape)
    x_off = np.where(counted, x - np.where(counted, x, 0).sum(axis=-1, keepdims=True) / n, 0)
    slope = (x_off * y).sum(axis=-1) / np.square(x_off).sum(axis=-1)
    return np.where(power.max(axis=-1) > 0, slope, np.nan).astype(np.float32)


def _neighbour_correlation(pixels: Float) -> Float:
    """`neighbour_correlation` of crops of a mean of 0: by sums, so that no shifted copy is made."""
    side = pixels.shape[-1]
    flat = pixels.reshape(*pixels.shape[:2], -1)
    squares = np.vecdot(flat, flat)
    # a row's last pixel comes before the next row's first, and is no neighbour
    along = np.vecdot(flat[..., :-1], flat[..., 1:]) - np.vecdot(pixels[..., :-1, -1], pixels[..., 1:, 0])
    down = np.vecdot(flat[..., :-side], flat[..., side:])
    return (
        _correlation(along, squares, first=pixels[..., 0], last=pixels[..., -1])
        + _correlation(down, squares, first=pixels[..., 0, :], last=pixels[..., -1, :])
    ) / np.float32(2)


def _correlation(products: Float, squares: Float, *, first: Float, last: Float) -> Float:
    """Of neighbours along one axis, from the sums of their products and of all squares, (N, C).

    `first` and `last` (N, C, S) are the border's pixels, which have one neighbour; the mean of all pixels is 0.
    """
    n = first.shape[-1] * (first.shape[-1] - 1)
    upper, lower = -last.sum(axis=-1), -first.sum(axis=-1)
    shared = products - upper * lower / n
    of_upper = squares - np.vecdot(last, last) - upper * upper / n
    of_lower = squares - np.vecdot(first, first) - lower * lower / n
    spread = np.sqrt(np.maximum(of_upper, 0) * np.maximum(of_lower, 0))
    return np.divide(shared, spread, out=np.zeros_like(shared), where=spread > 1e-6 * squares)
