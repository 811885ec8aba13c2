"""Texture of a channel, and where its light lies in a cell: images (n, S, S) with masks (n, S, S), one a crop.

Light is what is above the crop's background. Lengths are for crops of 68 px and grow with the side (outlines.py).
NaN where a region is empty or holds no light.
"""

import numpy as np
from scipy import ndimage

from phenolens.morphology import shape
from phenolens.morphology.segment import Outlines, background, blurred, length_px

FINE_PX, MIDDLE_PX, COARSE_PX = 0.7, 1.6, 4.0  # standard deviations of Gaussians; textures are what lies between two
SPOT_PX, SPOT_HEIGHT = 1.2, 0.2  # of a spot; its height over its surroundings, shares of the region's mean light
NUCLEOLUS_PX, NUCLEOLUS_DEPTH = 9, 0.12  # widest dark spot; depth from which one counts, shares of the light around
EDGE_PX = 4  # how far the edge of a cell reaches into it
RING_PX = 6  # how far around the nucleus is "around the nucleus"
RIM_PX = 2  # of a nucleus: left out where chromatin is looked at, since light falls off there
LEAST_PX = 12  # fewer pixels than that have no mean


def of_region(images: np.ndarray, depth: np.ndarray) -> dict[str, np.ndarray]:
    """Mean light and textures within a region, and the sharpness of the whole crop.

    The region is given by the depth (n, S, S), px, of each pixel in it, 0 outside.
    """
    side = images.shape[-1]
    fine_px, middle_px, coarse_px = (length_px(px, side) for px in (FINE_PX, MIDDLE_PX, COARSE_PX))
    mean = mean_in(images - background(images), depth > 0)
    fine = blurred(images, fine_px)
    within = depth > length_px(RIM_PX, side)
    middle, coarse = (_blurred_within(images, within, px) for px in (middle_px, coarse_px))
    return {
        "mean": mean,
        "fine_texture": _ratio(_deviation_in(fine - middle, within), mean),
        "coarse_texture": _ratio(_deviation_in(middle - coarse, within), mean),
        "sharpness": _ratio((fine - blurred(images, middle_px)).std(axis=(1, 2)), fine.std(axis=(1, 2))),
    }


def of_cytoplasm(images: np.ndarray, cell: Outlines) -> dict[str, np.ndarray]:
    """Spots, fibres, their directions, and how the light is shared out between edge, nucleus and sides of a cell."""
    side = images.shape[-1]
    lit = np.maximum(images - background(images), 0)
    mean = mean_in(lit, cell.body)
    outside = cell.body & ~cell.nucleus
    inner = cell.body_depth > length_px(EDGE_PX, side)
    ring = outside & (cell.from_nucleus <= length_px(RING_PX, side))
    (y, x), (own_y, own_x) = shape.centre(cell.body, lit), shape.centre(cell.nucleus)
    mean_outside = mean_in(lit, outside)
    return {
        "spots": spots(images, cell.body, mean),
        "fibres": _ratio(mean_in(_ridges(images), cell.body), mean),
        "alignment": _alignment(images, inner),
        "edge": _ratio(mean_in(lit, cell.body & ~inner), mean),
        "near_nucleus": _ratio(mean_in(lit, ring), mean_outside),
        "over_nucleus": _ratio(mean_in(lit, cell.nucleus), mean_outside),
        "polarity_px": np.hypot(y - own_y, x - own_x),
    }


def spots(images: np.ndarray, region: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Bright spots (n,) in a region: peaks that stand out by SPOT_HEIGHT of its `mean` light (n,)."""
    side = images.shape[-1]
    standing = blurred(images, length_px(SPOT_PX, side)) - blurred(images, length_px(2 * SPOT_PX, side))
    reach = 2 * max(1, round(length_px(2, side))) + 1
    peak = standing == ndimage.maximum_filter(standing, (1, reach, reach))
    high = standing > SPOT_HEIGHT * np.nan_to_num(mean)[:, None, None]
    return np.where(mean > 0, (peak & high & region).sum(axis=(1, 2)), np.nan)


def dark_spots(dna: np.ndarray, nucleus_depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number (n,) of dark spots in nuclei, and the depth (n,) of the darkest as a share of the light around it."""
    side = dna.shape[-1]
    lit = blurred(dna, length_px(1, side))
    lit = lit - background(lit)
    width = 2 * round(length_px(NUCLEOLUS_PX, side) / 2) + 1
    # what a grey closing fills in are spots narrower than `width` that are dark all around
    filled = ndimage.grey_closing(lit, (1, width, width))
    depth = np.divide(filled - lit, filled, out=np.zeros_like(lit), where=filled > 0)
    depth = np.where(nucleus_depth > length_px(2 * RIM_PX, side), depth, 0)
    reach = 2 * max(1, round(length_px(2, side))) + 1
    peak = (depth == ndimage.maximum_filter(depth, (1, reach, reach))) & (depth > NUCLEOLUS_DEPTH)
    found = nucleus_depth.any(axis=(1, 2))
    return np.where(found, peak.sum(axis=(1, 2)), np.nan), np.where(found, depth.max(axis=(1, 2)), np.nan)


def mean_in(images: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Mean (n,) of each image over its region; NaN where that has fewer than LEAST_PX pixels."""
    px = region.sum(axis=(1, 2))
    return np.where(px >= LEAST_PX, (images * region).sum(axis=(1, 2)) / np.maximum(px, 1), np.nan)


def _blurred_within(images: np.ndarray, region: np.ndarray, sigma_px: float) -> np.ndarray:
    """Images under a Gaussian that counts the region's own pixels alone, so that its edge is no texture."""
    counted = blurred(region.astype(float), sigma_px)
    return np.divide(blurred(images * region, sigma_px), counted, out=np.zeros_like(images), where=counted > 0)


def _deviation_in(images: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Standard deviation (n,) of each image over its region."""
    mean = mean_in(images, region)
    return np.sqrt(mean_in(np.square(images - np.nan_to_num(mean)[:, None, None]), region))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole (n,), NaN where the whole is 0 or NaN."""
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _ridges(images: np.ndarray) -> np.ndarray:
    """How much each pixel lies on a thin bright line, 0 on none: minus the smaller curvature, less the other's size."""
    sigma = length_px(SPOT_PX, images.shape[-1])
    yy, xx, yx = (
        ndimage.gaussian_filter(images, (0, sigma, sigma), order=(0, *order), mode="nearest")
        for order in ((2, 0), (0, 2), (1, 1))
    )
    apart, middle = np.hypot((yy - xx) / 2, yx), (yy + xx) / 2
    return sigma**2 * np.maximum(-(middle - apart) - np.abs(middle + apart), 0)


def _alignment(images: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Coherence (n,) of the directions in which light changes within a region, by the structure tensor: 0 to 1."""
    sigma = length_px(SPOT_PX, images.shape[-1])
    dy, dx = (
        ndimage.gaussian_filter(images, (0, sigma, sigma), order=(0, *order), mode="nearest")
        for order in ((1, 0), (0, 1))
    )
    yy, xx, yx = (mean_in(one * other, region) for one, other in ((dy, dy), (dx, dx), (dy, dx)))
    return _ratio(np.hypot(yy - xx, 2 * yx), yy + xx)
