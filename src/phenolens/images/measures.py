"""Measure what can be wrong with an image: blur, values at the detector's limit, spots that are no cell.

N crops, C channels, S x S pixels, 16 bit without sign. Nothing here decides; quality.py does. Frequencies are in
cycles a pixel.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

Float = npt.NDArray[np.float32]
UInt16Array = npt.NDArray[np.uint16]

# From structure of about the size of a nucleus down to what the optics still resolve. At lower frequencies a crop's
# spectrum says how large the cell is, at higher ones it is mostly camera noise.
FOCUS_BAND = (0.04, 0.2)
NOISE_FROM = 0.5  # beyond this, in the corners of the spectrum, there is camera noise alone
LEAST_RINGS = 4  # a slope needs some points, even where noise begins early
LEAST_SIDE_PX = 24  # a smaller crop has fewer rings than that in FOCUS_BAND
DETECTOR_BITS = (8, 10, 12, 14, 16)
# Cameras clip a little below their range once an offset is taken off: BBBC021's at 0.96 of it.
CLIPS_FROM = 0.9
BACKGROUND_PERCENTILE, CELL_PERCENTILE = 5, 95


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
    Finds blur of 3 px and more in cells; a dim glow of cells far out of focus, with others behind it, it may miss. NaN
    too for crops of fewer than LEAST_SIDE_PX.
    """
    if crops.shape[-1] < LEAST_SIDE_PX:
        return np.full(crops.shape[:2], np.nan, dtype=np.float32)
    return _slope(_ring_power(crops), side=crops.shape[-1])


def power_slope_of_field(tiles: UInt16Array) -> Float:
    """One slope for each channel of a field from its tiles (N, C, S, S), by the tiles' mean power: (C,)."""
    return _slope(_ring_power(tiles).mean(axis=0), side=tiles.shape[-1])


def detector_maximum(images: UInt16Array) -> int:
    """The largest value the detector can give, told from the values: 255, 4,095, 65,520, 65,535 and the like.

    Values that are all multiples of 16 are of 12 bits times 16 (65,520), multiples of 257 are of 8 bits stretched to
    16 (65,535). Else the fewest of 8, 10, 12, 14 and 16 bits that hold them: too few for a dim image of 16 bits, and
    therefore saturation is asked of pixels that share one value, not of bright ones.
    """
    every_bit = int(np.bitwise_or.reduce(images, axis=None)) if images.size else 0
    step = every_bit & -every_bit  # the largest power of two that divides all values
    if every_bit == 0 or not np.any(images % 257):
        return 65_535
    if step > 1:
        return 65_536 - step
    brightest = int(images.max())
    return next(2**bits - 1 for bits in DETECTOR_BITS if brightest < 2**bits)


def saturated_share(crops: UInt16Array, *, maximum: int) -> Float:
    """Share of pixels at the largest value of their channel of their crop (or field), (N, C, H, W) -> (N, C), 0 to 1.

    0 where that value is below nine tenths of the detector's `maximum`: no camera clips there. A value of its own kind
    is had by a pixel or two, a clipped one by many. Bray et al. 2012 (percent maximal).
    """
    largest = crops.max(axis=(2, 3), keepdims=True)
    share = (crops == largest).mean(axis=(2, 3), dtype=np.float32)
    return np.where(clips(largest[..., 0, 0], maximum=maximum), share, np.float32(0))


def clips(largest: UInt16Array, *, maximum: int) -> npt.NDArray[np.bool_]:
    """Whether a camera whose largest value is `maximum` can have clipped at these."""
    return largest >= CLIPS_FROM * maximum


def brightest_spots(crops: UInt16Array) -> Spots:
    """How high, how far above the cell and how large the brightest spot of each channel of each crop is."""
    n_px = crops.shape[2] * crops.shape[3]
    ranks = [round(n_px * percentile / 100) for percentile in (BACKGROUND_PERCENTILE, CELL_PERCENTILE)]
    ordered = np.partition(crops.reshape(*crops.shape[:2], -1), ranks, axis=2)[..., ranks].astype(np.float32)
    background, cell = ordered[..., 0], ordered[..., 1]
    above = smoothed(crops) - background[..., None, None]
    height = above.max(axis=(2, 3))
    contrast = np.divide(height, cell - background, out=np.zeros_like(height), where=cell > background)
    return Spots(height, contrast, (above >= height[..., None, None] / 2).sum(axis=(2, 3)))


def count_spots(field: UInt16Array, *, times: float, at_most_px: int) -> npt.NDArray[np.int64]:
    """Spots of a field (C, H, W) as many `times` as bright as its cells and no larger than `at_most_px`: (C,).

    Its cells' brightness is the 99.5th percentile over the background (the 5th): cells cover more of a field than half
    a percent, debris covers less. What counts as a spot's size is the part that is so bright.
    """
    counts = np.zeros(len(field), dtype=np.int64)
    for channel, image in enumerate(field):
        background, cell = np.percentile(image, [BACKGROUND_PERCENTILE, 99.5])
        labels, _ = ndimage.label(smoothed(image[None, None])[0, 0] > background + times * max(cell - background, 1))
        sizes = np.bincount(labels.ravel())[1:]
        counts[channel] = np.count_nonzero(sizes <= at_most_px)
    return counts


def smoothed(crops: UInt16Array) -> Float:
    """Each pixel's mean with its eight neighbours, so that one hot pixel is no spot."""
    return ndimage.uniform_filter(crops.astype(np.float32), (0, 0, 3, 3))


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


def _ring_power(crops: UInt16Array) -> Float:
    """Mean power in each ring up to FOCUS_BAND's end, and of the noise as the last: (N, C, S, S) -> (N, C, K + 1)."""
    side = crops.shape[-1]
    window = np.hanning(side + 2)[1:-1].astype(np.float32)  # fades the crop out at its border
    pixels = crops.astype(np.float32)
    pixels -= pixels.mean(axis=(2, 3), keepdims=True)
    spectrum = fft.rfft2(pixels * (window[:, None] * window))
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    return power.reshape(*crops.shape[:2], -1) @ _rings(side)[1]


def _slope(ring_power: Float, *, side: int) -> Float:
    """Least-squares slope over the rings of FOCUS_BAND before noise has half the power.

    Where these are fewer than LEAST_RINGS, rings below the band are taken too: little but a glow is left of the cell.
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
