"""Tell what is wrong with crops and fields: noise without a cell, blur, saturation, debris, nothing at all.

N crops, C channels, S x S pixels; a field is C, H, W. The optics blur a cell's light over several pixels, so that
neighbouring pixels agree; the camera's noise is made anew in every pixel, so that they do not.

A flag says what to look at, not what to leave out: dividing cells are the brightest and roundest, and are the first to
saturate a detector or to leave the plane of focus.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from phenolens.errors import InputError
from phenolens.images.measures import (
    brightest_spots,
    clips,
    count_spots,
    detector_maximum,
    power_slope,
    power_slope_of_field,
    saturated_share,
)
from phenolens.progress import track

CHUNK = 512  # crops in memory at a time
TILE_PX = 64  # side of the tiles of a field, about that of a crop, so that its thresholds hold
MEASURES = ("neighbour_correlation", "power_slope", "saturated_share", "spot_height", "spot_contrast", "spot_px")
VERDICTS = ("noise", "saturated", "debris")  # on each channel


def neighbour_correlation(crops: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """How far each pixel predicts the next one, for each channel of each crop: (N, C, S, S) -> (N, C), -1 to 1.

    Pearson's correlation over all pairs of pixels that touch, the mean of the pairs along rows and along columns. A
    constant channel predicts nothing: 0.
    """
    pixels = crops.astype(np.float32)
    along_x = _correlation(pixels[..., :, :-1], pixels[..., :, 1:])
    along_y = _correlation(pixels[..., :-1, :], pixels[..., 1:, :])
    return (along_x + along_y) * np.float32(0.5)


def is_noise(crops: npt.NDArray[np.uint16], *, threshold: float) -> npt.NDArray[np.bool_]:
    """Which crops have a channel without a picture in it (neighbour correlation below `threshold`): (N,)."""
    return np.any(neighbour_correlation(crops) < threshold, axis=1)


def is_constant(crops: npt.NDArray[np.uint16]) -> npt.NDArray[np.bool_]:
    """Which channels of which crops have one value in all pixels: (N, C, S, S) -> (N, C)."""
    return np.all(crops == crops[..., :1, :1], axis=(2, 3))


@dataclass(frozen=True)
class QualityConfig:
    """From where on a crop or field is flagged."""

    noise_correlation: float = 0.5  # a channel whose neighbouring pixels correlate less than this is camera noise
    focus_slope: float = -5.5  # a mean slope of log power over log frequency steeper than this is out of focus
    saturated_share: float = 0.01  # a channel with at least this share of its pixels at the detector's limit
    detector_maximum: int | None = None  # largest value of the detector, grey values; left out: told from the images
    debris_contrast: float = 6.0  # debris is so many times as bright as its crop's 95th percentile (field: its 99.5th)
    debris_brightness: float = (
        3.0  # ... and, in a crop, so many times as the brightest spot of the channel's median crop
    )
    debris_px: int = 100  # ... and has at most so many pixels above half its height; a nucleus has several hundred
    empty_share: float = 0.02  # a field with a smaller share of its tiles holding a picture is empty

    def __post_init__(self) -> None:
        shares = ("saturated_share", "empty_share")
        for name, low, high in [("noise_correlation", -1, 1), *((share, 0, 1) for share in shares)]:
            if not low <= getattr(self, name) <= high:
                raise InputError(f"{name} is {getattr(self, name)}; expected {low} to {high}")
        for name in ("debris_contrast", "debris_brightness", "debris_px"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}; expected more than 0")
        if not self.focus_slope < 0:
            raise InputError(f"focus_slope is {self.focus_slope}; expected less than 0 (cells in focus have about -4)")
        if self.detector_maximum is not None and not 0 < self.detector_maximum <= 65_535:
            raise InputError(f"detector_maximum is {self.detector_maximum}; expected 1 to 65,535 (16 bits)")


class Saturation:
    """The saturated shares of a plate's crops, which come a few at a time, as the camera gave them.

    Once uneven light is divided out, pixels at the detector's limit no longer have one value and are not found.
    """

    def __init__(self, n_crops: int) -> None:
        """Of so many crops."""
        self._step = max(1, n_crops // CHUNK)
        self._n = 0
        self._sample: list[npt.NDArray[np.uint16]] = []
        self._largest: list[npt.NDArray[np.uint16]] = []
        self._share: list[npt.NDArray[np.float32]] = []

    def add(self, crops: npt.NDArray[np.uint16]) -> None:
        """Count these crops (n, C, S, S) in."""
        self._sample.append(crops[-self._n % self._step :: self._step].copy())
        self._largest.append(crops.max(axis=(2, 3)))
        self._share.append(saturated_share(crops, maximum=0))
        self._n += len(crops)

    def shares(self, *, maximum: int | None = None) -> npt.NDArray[np.float32]:
        """`saturated_share` (N, C) of all crops; the detector's limit is told from a sample where it is not given."""
        limit = maximum or detector_maximum(np.concatenate(self._sample))
        return np.where(clips(np.concatenate(self._largest), maximum=limit), np.concatenate(self._share), np.float32(0))


def crop_quality(
    crops: npt.NDArray[np.uint16],
    *,
    channels: Sequence[str],
    config: QualityConfig | None = None,
    saturated: npt.NDArray[np.float32] | None = None,
) -> pd.DataFrame:
    """Measures and verdicts on crops (N, C, S, S), a row a crop; best all crops of a plate at once.

    For each channel `<measure>_<channel>`: the MEASURES, and whether it is `noise`, `saturated`, `debris` (judged
    against the channel's median over these crops). For the crop `focus`, the mean slope of its channels that are not
    noise, and `out_of_focus`, where none is noise: the threshold is of three channels, with one or two the mean varies
    more, and crops of fewer than 24 px are not judged. `saturated` (N, C) are the shares of Saturation, of crops whose
    light was corrected. Crops at a field's border are none: the builder counts them.
    Holds CHUNK crops in memory at a time, so that a memory map of any length will do. Raises InputError for other than
    such crops.
    """
    config = config or QualityConfig()
    _refuse_shape(crops.shape, crops.dtype, channels, axes="N C S S")
    sample = crops[:: max(1, len(crops) // CHUNK)]
    maximum = config.detector_maximum or detector_maximum(np.asarray(sample))
    starts = range(0, len(crops), CHUNK)
    parts = [
        _measured(np.asarray(crops[start : start + CHUNK]), maximum=maximum)
        for start in track(starts, f"Crops measured, in {CHUNK}s", total=len(starts))
    ]
    measured = {name: np.concatenate([part[name] for part in parts]) for name in MEASURES}
    if saturated is not None:
        measured["saturated_share"] = saturated
    noise = measured["neighbour_correlation"] < config.noise_correlation
    typical = [_median(column[~empty]) for column, empty in zip(measured["spot_height"].T, noise.T)]
    verdicts = {
        "noise": noise,
        "saturated": (measured["saturated_share"] > 0) & (measured["saturated_share"] >= config.saturated_share),
        "debris": (measured["spot_contrast"] >= config.debris_contrast)
        & (measured["spot_height"] >= config.debris_brightness * np.array(typical))
        & (measured["spot_px"] <= config.debris_px),
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

    The field is cut into tiles of TILE_PX (what is left at the right and below is not looked at). `picture_share` is
    the share of tiles that are not noise; a channel with too few is `noise`, a field of such channels `empty`.
    `n_debris` counts spots. Raises InputError for other than such a field, or a smaller one than a tile.
    """
    config = config or QualityConfig()
    _refuse_shape(field.shape, field.dtype, channels, axes="C H W")
    if min(field.shape[1:]) < TILE_PX:
        raise InputError(f"the field is {field.shape[1]} x {field.shape[2]} px; expected at least {TILE_PX} px a side")
    maximum = config.detector_maximum or detector_maximum(field)
    n_debris = count_spots(field, times=config.debris_contrast, at_most_px=config.debris_px)
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
            f"n_debris_{channel}": int(n_debris[c]),
            f"noise_{channel}": bool(noise[c]),
            f"saturated_{channel}": bool(saturated[c] > 0 and saturated[c] >= config.saturated_share),
            f"debris_{channel}": bool(n_debris[c] > 0),
        }
    focus = float(_mean_slope(slopes[None], noise[None])[0])
    return {**row, "focus": focus, "out_of_focus": focus < config.focus_slope, "empty": bool(noise.all())}


def quality_flags(table: pd.DataFrame, *, channels: Sequence[str]) -> pd.Series:
    """Why each row of crop_quality, or of a table of field_quality's rows, is flagged, in words; empty where it is not.

    Such as `noise in actin, tubulin; out of focus`. Raises InputError when the table has no verdict on a channel.
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
    words = []
    for row in range(len(table)):
        reasons = ["empty field"] if empty[row] else []
        for verdict, of_channels in by_verdict.items():
            named = [channel for channel, is_so in zip(channels, of_channels[row]) if is_so]
            if named and not (verdict == "noise" and empty[row]):
                reasons.append(f"{verdict} in {', '.join(named)}")
        words.append("; ".join([*reasons, "out of focus"] if out_of_focus[row] else reasons))
    return pd.Series(words, index=table.index, name="quality", dtype=object)


def _measured(crops: npt.NDArray[np.uint16], *, maximum: int) -> dict[str, np.ndarray]:
    """The MEASURES of crops, arrays (n, C)."""
    spots = brightest_spots(crops)
    values = (
        neighbour_correlation(crops),
        power_slope(crops),
        saturated_share(crops, maximum=maximum),
        spots.height,
        spots.contrast,
        spots.px,
    )
    return dict(zip(MEASURES, values, strict=True))


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


def _correlation(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    a = a - a.mean(axis=(2, 3), keepdims=True)
    b = b - b.mean(axis=(2, 3), keepdims=True)
    shared = np.einsum("ncyx,ncyx->nc", a, b)
    spread = np.sqrt(np.einsum("ncyx,ncyx->nc", a, a) * np.einsum("ncyx,ncyx->nc", b, b))
    return np.divide(shared, spread, out=np.zeros_like(shared), where=spread > 0)
