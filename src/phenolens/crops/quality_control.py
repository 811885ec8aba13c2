"""Flag defects of crops and fields: noise without a cell, blur, saturation, bright spots, empty fields.

N crops, C channels, S x S pixels, 16 bit without sign; a field is C, H, W.

A flag marks a crop for inspection, not for exclusion: dividing cells are the brightest and roundest, and are the first
to saturate a detector or to leave the plane of focus.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from phenolens.core.errors import InputError
from phenolens.core.progress import track
from phenolens.crops.config import QualityConfig
from phenolens.crops.quality_measures import (
    Saturation,
    count_spots,
    crop_measures,
    detector_maxima,
    neighbour_correlation,
    power_slope_of_field,
    saturated_share,
)

AT_ONCE = 16  # crops measured at once: their intermediate results fit the cache of a processor
TILE_PX = 64  # side of the tiles of a field, about that of a crop, so that its thresholds hold
MEASURES = ("neighbour_correlation", "power_slope", "saturated_share", "spot_height", "spot_contrast", "spot_px")
VERDICTS = ("noise", "saturated", "bright_spot")  # on each channel


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
        crop_measures(np.asarray(crops[start : start + AT_ONCE]))
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
