"""The simulated microscope: light of cells, point spread, haze, uneven illumination, shot noise and read noise.

Channels: DNA, tubulin, actin; 12-bit values times 16. Each plate has its own PlateOptics.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import fft

from phenolens.simulation.bodies import Light, render_bodies
from phenolens.simulation.filaments import draw_filaments
from phenolens.simulation.phenotypes import MARGIN_PX

COUNTS = np.array([300.0, 280.0, 360.0])  # camera counts per unit of fluorescence
BACKGROUND = np.array([48.0, 42.0, 46.0])  # camera counts without signal
FOCUS_PX = np.array([0.95, 0.85, 0.85])  # standard deviation of the in-focus point spread
SOFT_PX = 3.6  # the same for out-of-focus signal
HAZES = ((0.16, 5.0), (0.10, 16.0))  # share of the signal, and standard deviation (px) of its spread
MAX_12BIT = 4095


@dataclass(frozen=True)
class PlateOptics:
    """Optics and growth conditions of a plate: the ground truth of its batch and plate effects."""

    gain: np.ndarray  # (3,) relative brightness per channel
    blur_px: np.ndarray  # (3,) point spread, added in quadrature
    background: np.ndarray  # (3,) camera counts without signal
    illumination: np.ndarray  # (3, 5) coefficients of x, y, x^2 - 1/3, x y, y^2 - 1/3; x, y from -1 to 1 over the field
    size_factor: float  # cell lengths relative to other batches
    density_factor: float  # number of cells relative to other batches


def plate_optics(batch_rng: np.random.Generator, plate_rng: np.random.Generator, *, batch_effect: float,
                 unevenness: float) -> PlateOptics:  # fmt: skip
    """Sample a plate's optics: a batch effect and a plate effect about a third its size."""

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


def draw_cells(cells: pd.DataFrame, rng: np.random.Generator, *, height_px: int, width_px: int, seed: int) -> Light:
    """Render the cells of `sample_cells`; `seed` selects the textures that all fields of a screen share."""
    shape = (3, height_px + 2 * MARGIN_PX, width_px + 2 * MARGIN_PX)
    light = Light(np.zeros(shape, np.float32), np.zeros(shape, np.float32))
    y, x = cells["y_px"].to_numpy() + MARGIN_PX, cells["x_px"].to_numpy() + MARGIN_PX
    bodies = render_bodies(cells, rng, light, y=y, x=x, seed=seed)
    draw_filaments(cells, rng, light, bodies)
    return light


def illumination_field(coefficients: np.ndarray, *, height_px: int, width_px: int) -> np.ndarray:
    """Relative illumination (height, width) from the five coefficients of PlateOptics; mean about 1, minimum 0.2."""
    y = np.linspace(-1, 1, height_px)[:, None]
    x = np.linspace(-1, 1, width_px)[None, :]
    terms = (x + 0 * y, y + 0 * x, x**2 - 1 / 3 + 0 * y, x * y, y**2 - 1 / 3 + 0 * x)
    return np.maximum(1 + sum(c * term for c, term in zip(coefficients.tolist(), terms, strict=True)), 0.2)


def acquire(light: Light, optics: PlateOptics, rng: np.random.Generator, *, noise: float) -> np.ndarray:
    """Acquire images (3, height, width), uint16, of a field without margins; `noise` 1 matches BBBC021's camera."""
    height, width = (side - 2 * MARGIN_PX for side in light.sharp.shape[1:])
    images = np.empty((3, height, width), np.uint16)
    for c in range(3):
        seen = _blur(light.sharp[c], light.soft[c], np.hypot(FOCUS_PX[c], optics.blur_px[c]))
        seen = seen[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX]
        illumination = illumination_field(optics.illumination[c], height_px=height, width_px=width)
        counts = optics.background[c] + COUNTS[c] * optics.gain[c] * illumination * np.maximum(seen, 0)
        standard_noise = rng.standard_normal(counts.shape, dtype=np.float32)
        counts = counts + noise * np.sqrt(2.2**2 + 0.22 * counts) * standard_noise
        images[c] = np.clip(np.rint(counts), 0, MAX_12BIT).astype(np.uint16) * 16
    return images


def _blur(sharp: np.ndarray, soft: np.ndarray, focus_px: float) -> np.ndarray:
    """Convolve in-focus and out-of-focus signal with their point spreads, haze included."""
    shape = [fft.next_fast_len(side, real=True) for side in sharp.shape]
    frequency2 = fft.fftfreq(shape[0])[:, None] ** 2 + fft.rfftfreq(shape[1])[None, :] ** 2

    def spread(px: float) -> np.ndarray:
        return np.exp(-2 * (np.pi * px) ** 2 * frequency2).astype(np.float32)

    hazy = sum(share * spread(px) for share, px in HAZES)
    clear = 1 - sum(share for share, _ in HAZES)
    seen = fft.rfft2(sharp, s=shape) * (clear * spread(focus_px) + hazy)
    seen += fft.rfft2(soft, s=shape) * (clear * spread(SOFT_PX) + hazy)
    return fft.irfft2(seen, s=shape)[: sharp.shape[0], : sharp.shape[1]]
