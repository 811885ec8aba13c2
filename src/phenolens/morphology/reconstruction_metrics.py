"""How near reconstructions are to their originals, a channel: error, structure, sharpness.

N cells, C channels, S crop side in px; values as models see them, each channel of each crop divided by its own maximum.

Sharpness alone is fooled: invented texture has power too. So the share of power stands beside measures that see
whether the structure is at its place (SSIM, Fourier ring correlation, error).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from skimage.metrics import structural_similarity

# Cycles a pixel. Fine structure of cells at BBBC021's sampling; finer than that is mostly camera noise.
FINE_BAND = (0.12, 0.2)


@dataclass(frozen=True)
class CellFidelity:
    """What `fidelity` sums up, each channel of each cell apart, (N, C) each."""

    error: np.ndarray  # half the sum of squares
    ssim: np.ndarray  # structural similarity
    power_seen: np.ndarray  # the original's power in FINE_BAND, power_drawn the reconstruction's
    power_drawn: np.ndarray
    shared: np.ndarray  # what of it is at its place: the real part of the cross spectrum


def fidelity(originals: np.ndarray, reconstructions: np.ndarray, channels: Sequence[str]) -> pd.DataFrame:
    """A row a channel, means over cells, from originals and reconstructions (N, C, S, S).

    `error`: half the sum of squares, as in the pixel loss (channels add up to it). `ssim`: structural similarity,
    Gaussian windows, at most 1 (Wang et al. 2004). `power_ratio`: the reconstructions' power in FINE_BAND over the
    originals', 1 when as sharp. `ring_correlation`: Fourier ring correlation in FINE_BAND, -1 to 1, 1 when all that
    is fine is at its place.
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
    """The same measures of each cell, from originals and reconstructions (N, C, S, S)."""
    seen, drawn = _fine_spectra(originals), _fine_spectra(reconstructions)
    return CellFidelity(
        error=0.5 * np.square(originals - reconstructions).sum((2, 3)),
        ssim=_ssim(originals, reconstructions),
        power_seen=np.square(np.abs(seen)).sum(2),
        power_drawn=np.square(np.abs(drawn)).sum(2),
        shared=(seen * drawn.conj()).real.sum(2),
    )


def fine_power(crops: np.ndarray) -> np.ndarray:
    """Power in FINE_BAND of each channel of each crop, (N, C, S, S) to (N, C); from 0, larger is sharper."""
    return np.square(np.abs(_fine_spectra(crops))).sum(2)


def _fine_spectra(crops: np.ndarray) -> np.ndarray:
    """Fourier coefficients in FINE_BAND (N, C, coefficients), each crop less its mean and faded out at its border."""
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
    """Part over whole, NaN where the whole is nothing."""
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
