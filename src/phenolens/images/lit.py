"""Estimate uneven light from what is lit alone: the mean brightness of cells at a place, however many lie there.

H x W pixels; a spot is a block of SPOT_PX pixels a side, a place one of PLACE_PX. The mean of all pixels at a place is
the light times how much of it cells cover, and cells that happened to lie there are taken for light. Here each place
has a histogram of its spots' brightness over all fields, and the light is the mean of the spots that are lit, of which
it does not matter how many there are. Which are lit depends on the light, so both are found in turns.
"""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from phenolens.errors import InputError
from phenolens.images.blocks import block_means

SPOT_PX = 8  # side of a spot: camera noise is averaged over it, and it is smaller than a cell
PLACE_PX = 32  # side of a place: a field of any number of spots becomes few histograms, in memory that does not grow
N_BINS = 512  # of brightness, equal on a logarithmic scale: each is 2.2 % wide
BRIGHTEST = 65_536
LIT = 1.0  # a spot is lit above this share of the mean of all spots, times the light at its place
MOST_TURNS, SAME = 20, 1e-3  # light and lit spots are found in turns until the light changes by less than this share

EDGES = BRIGHTEST ** (np.arange(N_BINS + 1) / N_BINS)
BRIGHTNESS = np.sqrt(EDGES[1:] * EDGES[:-1])  # (N_BINS,) the middle of each bin, counts

Counts = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]


def spot_counts(image: npt.NDArray[np.generic]) -> Counts:
    """How many spots of an image (H, W) have each brightness, a place: (places down, places across, N_BINS)."""
    spots = block_means(image, block_px=SPOT_PX)
    bins = np.clip(np.searchsorted(EDGES, spots, side="right") - 1, 0, N_BINS - 1)
    down, across = (np.arange(n) // (PLACE_PX // SPOT_PX) for n in spots.shape)
    shape = (int(down[-1]) + 1, int(across[-1]) + 1, N_BINS)
    places = down[:, None] * shape[1] + across
    return np.bincount((places * N_BINS + bins).ravel(), minlength=int(np.prod(shape))).reshape(shape).astype(np.int32)


def lit_mean(counts: Counts, *, offset: float, smooth_px: int, named: str) -> Floats:
    """The mean brightness above `offset` of lit spots, a place (down, across), relative to its own mean.

    Sums and numbers of lit spots are smoothed (Gaussian, standard deviation a quarter of `smooth_px`, edges reflected)
    before one is divided by the other. InputError, beginning with `named`, where nothing is lit.
    """
    above = BRIGHTNESS - offset
    usual = float((counts * above).sum() / counts.sum())
    light = np.ones(counts.shape[:2])
    for _ in range(MOST_TURNS):
        is_lit = above > LIT * usual * light[..., None]
        lit = np.where(is_lit, counts, 0)
        n = _smooth(lit.sum(axis=-1), smooth_px)
        if not usual > 0 or not n.min() > 0:
            raise InputError(
                f"{named} has places where nothing is lit in any field; give more fields, or a larger --illumination-px"
            )
        before, light = light, _smooth(lit @ above, smooth_px) / n
        light = light / light.mean()
        if np.abs(light / before - 1).max() < SAME:
            break
    return light


def _smooth(values: npt.NDArray[np.generic], smooth_px: int) -> Floats:
    return ndimage.gaussian_filter(values.astype(np.float64), smooth_px / 4 / PLACE_PX, mode="reflect")
