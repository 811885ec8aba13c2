"""How near reconstructions are to their originals, a channel: error, structure, sharpness.

N cells, C channels, S crop side in px; values as models see them, each channel of each crop divided by its own maximum.

Sharpness alone is fooled: invented texture has power too. So the share of power stands beside measures that see
whether the structure is at its place (SSIM, Fourier ring correlation, error).
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from skimage.metrics import structural_similarity

# Cycles a pixel. Fine structure of cells at BBBC021's sampling; finer than that is mostly camera noise.
FINE_BAND = (0.12, 0.2)


def fidelity(originals: np.ndarray, reconstructions: np.ndarray, channels: Sequence[str]) -> pd.DataFrame:
    """A row a channel, means over cells, from originals and reconstructions (N, C, S, S).

    `error`: half the sum of squares, as in the pixel loss (channels add up to it). `ssim`: structural similarity,
    Gaussian windows, at most 1 (Wang et al. 2004). `power_ratio`: the reconstructions' power in FINE_BAND over the
    originals', 1 when as sharp. `ring_correlation`: Fourier ring correlation in FINE_BAND, -1 to 1, 1 when all that
    is fine is at its place.
    """
    error = 0.5 * np.square(originals - reconstructions).sum((2, 3)).mean(0)
    seen, drawn = _fine_spectra(originals), _fine_spectra(reconstructions)
    power_seen, power_drawn = (np.square(np.abs(spectra)).sum((0, 2)) for spectra in (seen, drawn))
    shared = (seen * drawn.conj()).real.sum((0, 2))
    return pd.DataFrame(
        {
            "channel": list(channels),
            "error": error,
            "ssim": _ssim(originals, reconstructions),
            "power_ratio": _share(power_drawn, power_seen),
            "ring_correlation": _share(shared, np.sqrt(power_seen * power_drawn)),
        }
    )


def _fine_spectra(crops: np.ndarray) -> np.ndarray:
    """Fourier coefficients in FINE_BAND (N, C, coefficients), each crop less its mean and faded out at its border."""
    side = crops.shape[-1]
    window = np.hanning(side + 2)[1:-1]
    centred = (crops - crops.mean((2, 3), keepdims=True)) * window[:, None] * window
    radius = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side))
    return np.fft.fft2(centred)[..., (radius >= FINE_BAND[0]) & (radius < FINE_BAND[1])]


def _ssim(originals: np.ndarray, reconstructions: np.ndarray) -> np.ndarray:
    """Structural similarity of each channel (C,), mean over cells."""
    options = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    of_cells = [
        [structural_similarity(x.astype(float), y.astype(float), **options) for x, y in zip(seen, drawn)]
        for seen, drawn in zip(originals, reconstructions)
    ]
    return np.mean(of_cells, axis=0)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Part over whole, NaN where the whole is nothing."""
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
