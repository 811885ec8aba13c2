"""Flag defects of crops and fields: noise without a cell, blur, saturation, bright spots, empty fields.

N crops, C channels, S x S pixels, 16 bit without sign; a field is C, H, W. Frequencies are in cycles per pixel. Optics
blur a cell's light over several pixels, so that neighbouring pixels agree; camera noise is independent in every pixel.

A flag marks a crop for inspection, not for exclusion: dividing cells are the brightest and roundest, and are the first
to saturate a detector or to leave the plane of focus.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import fft, ndimage

from phenolens.core.bounds import Bounded, Bounds, Positive, Share
from phenolens.core.errors import InputError
from phenolens.core.progress import track

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


SAMPLED = 512  # crops by which the detector is judged
AT_ONCE = 16  # crops measured at once: their intermediate results fit the cache of a processor
TILE_PX = 64  # side of the tiles of a field, about that of a crop, so that its thresholds hold
MEASURES = ("neighbour_correlation", "power_slope", "saturated_share", "spot_height", "spot_contrast", "spot_px")
VERDICTS = ("noise", "saturated", "bright_spot")  # on each channel


def neighbour_correlation(crops: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """Correlation of neighbouring pixels, for each channel of each crop: (N, C, S, S) -> (N, C), -1 to 1.

    Pearson's correlation over all pairs of adjacent pixels, the mean of the pairs along rows and along columns; 0 in a
    constant channel.
    """
    return _neighbour_correlation(_centred(crops))


def is_constant(crops: npt.NDArray[np.uint16]) -> npt.NDArray[np.bool_]:
    """Which channels of which crops have one value in all pixels: (N, C, S, S) -> (N, C)."""
    return np.all(crops == crops[..., :1, :1], axis=(2, 3))


Correlation = Annotated[float, Bounds(ge=-1, le=1)]
Slope = Annotated[float, Bounds(lt=0)]


@dataclass(frozen=True)
class QualityConfig(Bounded):
    """Thresholds from which a crop or field is flagged."""

    noise_correlation: Correlation = 0.5  # a channel whose neighbouring pixels correlate less than this is camera noise
    focus_slope: Slope = -5.5  # a mean slope of log power over log frequency steeper than this is out of focus
    saturated_share: Share = 0.01  # a channel with at least this share of its pixels at the detector's limit
    # largest value of the detector, grey values; left out: estimated from the images of each channel
    detector_maximum: Annotated[int, Bounds(ge=1, le=65_535)] | None = None
    # a bright spot is so many times as bright as its crop's 95th percentile (field: its 99.5th)
    spot_contrast: Positive = 6.0
    # ... and, in a crop, so many times as the brightest spot of the channel's median crop
    spot_brightness: Positive = 3.0
    # ... and has at most so many pixels above half its height; a nucleus has several hundred
    spot_px: Annotated[int, Bounds(ge=1)] = 100
    empty_share: Share = 0.02  # a field with a smaller share of its tiles holding a picture is empty


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


def crop_quality(
    crops: npt.NDArray[np.uint16],
    *,
    channels: Sequence[str],
    config: QualityConfig | None = None,
    saturated: npt.NDArray[np.float32] | None = None,
) -> pd.DataFrame:
    """Measures and verdicts on crops (N, C, S, S), a row per crop; best all crops of a plate at once.

    For each channel `<measure>_<channel>`: the MEASURES, and whether it is `noise`, `saturated`, `bright_spot` (judged
    against the channel's median over these crops). For the crop `focus`, the mean slope of its channels that are not
    noise, and `out_of_focus`, where none is noise: the threshold is of three channels, with one or two the mean varies
    more, and crops of fewer than 24 px are not judged. `saturated` (N, C) are the shares of Saturation of these
    crops, or of the same before their light was corrected. AT_ONCE crops are in memory at a time, so `crops` may be a
    memory map of any length. InputError for another shape or pixel type.
    """
    config = config or QualityConfig()
    _refuse_shape(crops.shape, crops.dtype, channels, axes="N C S S")
    starts = range(0, len(crops), AT_ONCE)
    if saturated is None:
        saturation = Saturation(len(crops))
        for start in starts:
            saturation.add(np.asarray(crops[start : start + AT_ONCE]))
        saturated = saturation.shares(maximum=config.detector_maximum)
    parts = [
        _measured(np.asarray(crops[start : start + AT_ONCE]))
        for start in track(starts, f"Crops measured, in {AT_ONCE}s", total=len(starts))
    ]
    measured = {
        name: saturated if name == "saturated_share" else np.concatenate([part[name] for part in parts])
        for name in MEASURES
    }
    noise = measured["neighbour_correlation"] < config.noise_correlation
    typical = [_median(column[~empty]) for column, empty in zip(measured["spot_height"].T, noise.T)]
    verdicts = {
        "noise": noise,
        "saturated": (measured["saturated_share"] > 0) & (measured["saturated_share"] >= config.saturated_share),
        "bright_spot": (measured["spot_contrast"] >= config.spot_contrast)
        & (measured["spot_height"] >= config.spot_brightness * np.array(typical))
        & (measured["spot_px"] <= config.spot_px),
    }
    table = {
        f"{name}_{channel}": values[:, c]
        for name, values in {**measured, **verdicts}.items()
        for c, channel in enumerate(channels)
    }
    focus = _mean_slope(measured["power_slope"], noise)
    out_of_focus = (focus < config.focus_slope) & ~noise.any(axis=1)
    return pd.DataFrame({**table, "focus": focus, "out_of_focus": out_of_focus})


def field_quality(
    field: npt.NDArray[np.uint16], *, channels: Sequence[str], config: QualityConfig | None = None
) -> dict[str, float | bool]:
    """Measures and verdicts on a field (C, H, W), as a row for a table; names as in crop_quality.

    The field is cut into tiles of TILE_PX (what is left at the right and below is not measured). `picture_share` is
    the share of tiles that are not noise; a channel with too few is `noise`, a field of such channels `empty`.
    `n_bright_spots` counts them. InputError for another shape or pixel type, or a field smaller than a tile.
    """
    config = config or QualityConfig()
    _refuse_shape(field.shape, field.dtype, channels, axes="C H W")
    if min(field.shape[1:]) < TILE_PX:
        raise InputError(f"the field is {field.shape[1]} x {field.shape[2]} px; expected at least {TILE_PX} px a side")
    maximum = detector_maxima([field[None]], given=config.detector_maximum)
    n_spots = count_spots(field, times=config.spot_contrast, at_most_px=config.spot_px)
    saturated = saturated_share(field[None], maximum=maximum)[0]
    noise, slopes = np.zeros(len(channels), dtype=bool), np.zeros(len(channels), dtype=np.float32)
    row: dict[str, float | bool] = {}
    for c, channel in enumerate(channels):  # one at a time: a field's spectra are several times its size
        tiles = _tiles(field[c])
        is_picture = neighbour_correlation(tiles)[:, 0] >= config.noise_correlation
        noise[c], slopes[c] = is_picture.mean() < config.empty_share, power_slope_of_field(tiles)[0]
        row |= {
            f"picture_share_{channel}": float(is_picture.mean()),
            f"power_slope_{channel}": float(slopes[c]),
            f"saturated_share_{channel}": float(saturated[c]),
            f"n_bright_spots_{channel}": int(n_spots[c]),
            f"noise_{channel}": bool(noise[c]),
            f"saturated_{channel}": bool(saturated[c] > 0 and saturated[c] >= config.saturated_share),
            f"bright_spot_{channel}": bool(n_spots[c] > 0),
        }
    focus = float(_mean_slope(slopes[None], noise[None])[0])
    return {**row, "focus": focus, "out_of_focus": focus < config.focus_slope, "empty": bool(noise.all())}


def quality_flags(table: pd.DataFrame, *, channels: Sequence[str]) -> pd.Series:
    """Why each row of crop_quality, or of a table of field_quality's rows, is flagged; empty where it is not.

    Such as `noise in actin, tubulin; out of focus`. InputError if a channel has no verdict.
    """
    needed = [f"{verdict}_{channel}" for verdict in VERDICTS for channel in channels]
    missing = [name for name in [*needed, "out_of_focus"] if name not in table.columns]
    if missing:
        raise InputError(f"table of quality: no column {missing[0]}; expected a table of crop_quality or field_quality")
    empty = table["empty"].to_numpy(bool) if "empty" in table.columns else np.zeros(len(table), dtype=bool)
    out_of_focus = table["out_of_focus"].to_numpy(bool)
    by_verdict = {
        verdict: table[[f"{verdict}_{channel}" for channel in channels]].to_numpy(bool) for verdict in VERDICTS
    }
    flags = []
    for row in range(len(table)):
        reasons = ["empty field"] if empty[row] else []
        for verdict, of_channels in by_verdict.items():
            named = [channel for channel, is_so in zip(channels, of_channels[row]) if is_so]
            if named and not (verdict == "noise" and empty[row]):
                reasons.append(f"{verdict.replace('_', ' ')} in {', '.join(named)}")
        flags.append("; ".join([*reasons, "out of focus"] if out_of_focus[row] else reasons))
    return pd.Series(flags, index=table.index, name="quality", dtype=object)


def _measured(crops: npt.NDArray[np.uint16]) -> dict[str, np.ndarray]:
    """The MEASURES of crops, arrays (n, C), without the saturated share."""
    spots, pixels = brightest_spots(crops), _centred(crops)
    return {
        "neighbour_correlation": _neighbour_correlation(pixels),
        "power_slope": _power_slope(pixels),
        "spot_height": spots.height,
        "spot_contrast": spots.contrast,
        "spot_px": spots.px,
    }


def _mean_slope(slopes: npt.NDArray[np.float32], noise: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """The mean over the channels that are not noise, (n, C) -> (n,); NaN, which is never out of focus, without one."""
    counted = ~noise & np.isfinite(slopes)
    n = counted.sum(axis=1)
    total = np.where(counted, slopes, 0).sum(axis=1)
    return np.divide(total, n, out=np.full(len(n), np.nan, dtype=np.float32), where=n > 0)


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else 0.0


def _tiles(image: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """Whole tiles of one channel (H, W) as crops (n, 1, TILE_PX, TILE_PX)."""
    n_y, n_x = (side // TILE_PX for side in image.shape)
    tiles = image[: n_y * TILE_PX, : n_x * TILE_PX].reshape(n_y, TILE_PX, n_x, TILE_PX).swapaxes(1, 2)
    return tiles.reshape(-1, 1, TILE_PX, TILE_PX)


def _refuse_shape(shape: tuple[int, ...], dtype: np.dtype, channels: Sequence[str], *, axes: str) -> None:
    names = axes.split()
    is_square = axes != "N C S S" or (len(shape) == 4 and shape[2] == shape[3])
    if dtype != np.uint16 or len(shape) != len(names) or not is_square or shape[-3] != len(channels) or 0 in shape:
        raise InputError(
            f"found {dtype} {' x '.join(map(str, shape))}; expected uint16 ({', '.join(names)}) with "
            f"C = {len(channels)} for the channels {', '.join(channels)}, none of them empty"
        )


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
