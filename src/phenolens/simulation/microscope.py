"""The simulated microscope: focus and haze, uneven illumination, camera noise, 12-bit values times 16.

Channels in the order DNA, tubulin, actin; each plate has a PlateOptics of its own.
"""

from dataclasses import dataclass

import numpy as np
from scipy import fft

from phenolens.simulation.bodies import Light
from phenolens.simulation.cells import MARGIN_PX

COUNTS = np.array([300.0, 280.0, 360.0])  # camera counts for one unit of light
BACKGROUND = np.array([48.0, 42.0, 46.0])  # camera counts without light
FOCUS_PX = np.array([0.95, 0.85, 0.85])  # standard deviation of the point spread in focus
SOFT_PX = 3.6  # the same above or below the focus
HAZES = ((0.16, 5.0), (0.10, 16.0))  # share of the light and how far (px) it strays
MAX_12BIT = 4095


@dataclass(frozen=True)
class PlateOptics:
    """What a plate's images have in common, a value a channel: the truth behind its batch and plate effect."""

    gain: np.ndarray  # (3,) relative brightness
    blur_px: np.ndarray  # (3,) point spread added in quadrature
    background: np.ndarray  # (3,) camera counts without light
    illumination: np.ndarray  # (3, 5) coefficients of x, y, x^2 - 1/3, x y, y^2 - 1/3; x, y from -1 to 1 over the field
    size_factor: float  # growth: lengths of cells relative to other batches
    density_factor: float  # growth: number of cells relative to other batches


def plate_optics(batch_rng: np.random.Generator, plate_rng: np.random.Generator, *, batch_effect: float,
                 unevenness: float) -> PlateOptics:  # fmt: skip
    """Draw a plate's optics: what its batch shares, and a third of that much of its own."""

    def shift(n: int | tuple[int, ...]) -> np.ndarray:
        return batch_effect * (batch_rng.standard_normal(n) + 0.35 * plate_rng.standard_normal(n))

    tilt = np.array([0.5, 0.5, 0.6, 0.3, 0.6])
    vignette = np.array([0, 0, -0.35, 0, -0.35])
    own = batch_rng.standard_normal((3, 5)) + 0.35 * plate_rng.standard_normal((3, 5))
    return PlateOptics(
        gain=np.exp(0.22 * shift(3)),
        blur_px=np.abs(0.35 * shift(3)),
        background=BACKGROUND * np.exp(0.12 * shift(3)),
        illumination=unevenness * (vignette + tilt * 0.6 * own),
        size_factor=float(np.exp(0.025 * shift(1)[0])),
        density_factor=float(np.exp(0.10 * shift(1)[0])),
    )


def illumination_field(coefficients: np.ndarray, *, height_px: int, width_px: int) -> np.ndarray:
    """Relative illumination (height, width) from five coefficients of PlateOptics; about 1 on average, at least 0.2."""
    y = np.linspace(-1, 1, height_px)[:, None]
    x = np.linspace(-1, 1, width_px)[None, :]
    terms = (x + 0 * y, y + 0 * x, x**2 - 1 / 3 + 0 * y, x * y, y**2 - 1 / 3 + 0 * x)
    return np.maximum(1 + sum(c * term for c, term in zip(coefficients.tolist(), terms, strict=True)), 0.2)


def photograph(light: Light, optics: PlateOptics, rng: np.random.Generator, *, noise: float) -> np.ndarray:
    """Images (3, height, width), uint16, of the field without its margins; `noise` 1 is a camera like BBBC021's."""
    height, width = (side - 2 * MARGIN_PX for side in light.sharp.shape[1:])
    images = np.empty((3, height, width), np.uint16)
    for c in range(3):
        seen = _blur(light.sharp[c], light.soft[c], np.hypot(FOCUS_PX[c], optics.blur_px[c]))
        seen = seen[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX]
        lit = illumination_field(optics.illumination[c], height_px=height, width_px=width)
        counts = optics.background[c] + COUNTS[c] * optics.gain[c] * lit * np.maximum(seen, 0)
        shot = rng.standard_normal(counts.shape, dtype=np.float32)
        counts = counts + noise * np.sqrt(2.2**2 + 0.22 * counts) * shot
        images[c] = np.clip(np.rint(counts), 0, MAX_12BIT).astype(np.uint16) * 16
    return images


def _blur(sharp: np.ndarray, soft: np.ndarray, focus_px: float) -> np.ndarray:
    """Both layers through the optics: in focus with haze, and out of it."""
    shape = [fft.next_fast_len(side, real=True) for side in sharp.shape]
    frequency2 = fft.fftfreq(shape[0])[:, None] ** 2 + fft.rfftfreq(shape[1])[None, :] ** 2

    def spread(px: float) -> np.ndarray:
        return np.exp(-2 * (np.pi * px) ** 2 * frequency2).astype(np.float32)

    hazy = sum(share * spread(px) for share, px in HAZES)
    clear = 1 - sum(share for share, _ in HAZES)
    seen = fft.rfft2(sharp, s=shape) * (clear * spread(focus_px) + hazy)
    seen += fft.rfft2(soft, s=shape) * (clear * spread(SOFT_PX) + hazy)
    return fft.irfft2(seen, s=shape)[: sharp.shape[0], : sharp.shape[1]]
