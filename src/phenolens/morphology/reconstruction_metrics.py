"""Reconstruction metrics per channel: error, structural similarity, sharpness, Fourier ring correlation.

N cells, C channels, S crop side in px; each channel of each crop divided by its own maximum. Sharpness alone can be
fooled by invented texture, so it comes with metrics of structure at its place.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from skimage.metrics import structural_similarity

# Cycles per pixel: fine structure of cells at BBBC021's sampling; higher frequencies are mostly camera noise.
FINE_BAND = (0.12, 0.2)


@dataclass(frozen=True)
class CellFidelity:
    """The metrics that `fidelity` averages, (N, C) each."""

    error: np.ndarray  # half the sum of squares
    ssim: np.ndarray  # structural similarity
    power_seen: np.ndarray  # the original's power in FINE_BAND
    power_drawn: np.ndarray  # the reconstruction's
    shared: np.ndarray  # real part of the cross spectrum in FINE_BAND


def fidelity(originals: np.ndarray, reconstructions: np.ndarray, channels: Sequence[str]) -> pd.DataFrame:
    """Reconstruction metrics, means over cells.

    Args:
        originals: (N, C, S, S).
        reconstructions: (N, C, S, S), of the same cells.
        channels: The C names.

    Returns:
        A row per channel. `error`: half the sum of squares, as in the pixel loss (channels add up to it). `ssim`:
        structural similarity, Gaussian windows, at most 1 (Wang et al. 2004). `power_ratio`: power in FINE_BAND over
        the originals', 1 when equally sharp. `ring_correlation`: Fourier ring correlation in FINE_BAND, -1 to 1.
    """
    cells = cell_fidelity(originals, reconstructions)
    seen, drawn = cells.power_seen.sum(0), cells.power_drawn.sum(0)
    return pd.DataFrame(
        {
            "channel": list(channels),
            "error": cells.error.mean(0),
            "ssim": cells.ssim.mean(0),
            "power_ratio": _share(drawn, seen),
            "ring_correlation": _share(cells.shared.sum(0), np.sqrt(seen * drawn)),
        }
    )


def cell_fidelity(originals: np.ndarray, reconstructions: np.ndarray) -> CellFidelity:
    """The metrics of each cell, from originals and reconstructions (N, C, S, S)."""
    seen, drawn = _fine_spectra(originals), _fine_spectra(reconstructions)
    return CellFidelity(
        error=0.5 * np.square(originals - reconstructions).sum((2, 3)),
        ssim=_ssim(originals, reconstructions),
        power_seen=np.square(np.abs(seen)).sum(2),
        power_drawn=np.square(np.abs(drawn)).sum(2),
        shared=(seen * drawn.conj()).real.sum(2),
    )


def fine_power(crops: np.ndarray) -> np.ndarray:
    """Power in FINE_BAND of each channel of each crop, (N, C, S, S) to (N, C); larger is sharper."""
    return np.square(np.abs(_fine_spectra(crops))).sum(2)


def _fine_spectra(crops: np.ndarray) -> np.ndarray:
    """Fourier coefficients in FINE_BAND (N, C, coefficients), each crop centred and windowed."""
    side = crops.shape[-1]
    window = np.hanning(side + 2)[1:-1]
    centred = (crops - crops.mean((2, 3), keepdims=True)) * window[:, None] * window
    radius = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side))
    return np.fft.fft2(centred)[..., (radius >= FINE_BAND[0]) & (radius < FINE_BAND[1])]


def _ssim(originals: np.ndarray, reconstructions: np.ndarray) -> np.ndarray:
    """Structural similarity of each channel of each cell (N, C)."""
    options = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    of_cells = [
        [structural_similarity(x.astype(float), y.astype(float), **options) for x, y in zip(seen, drawn)]
        for seen, drawn in zip(originals, reconstructions)
    ]
    return np.array(of_cells).reshape(originals.shape[:2])


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Part over whole, NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
