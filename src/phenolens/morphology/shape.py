"""Size and shape of regions: masks (n, S, S), one a crop. NaN where a mask is empty."""

import numpy as np
from scipy.spatial import ConvexHull


def area(masks: np.ndarray) -> np.ndarray:
    """Pixels (n,) of each mask."""
    px = masks.sum(axis=(1, 2)).astype(float)
    return np.where(px > 0, px, np.nan)


def centre(masks: np.ndarray, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Centre of mass (y, x), px, of each mask, each pixel counted by its weight (n, S, S) where weights are given."""
    counted = masks if weights is None else masks * weights
    total = counted.sum(axis=(1, 2))
    total = np.where(total > 0, total, np.nan)
    along = np.arange(masks.shape[-1])
    return counted.sum(axis=2) @ along / total, counted.sum(axis=1) @ along / total


def eccentricity(masks: np.ndarray) -> np.ndarray:
    """Eccentricity (n,) of the ellipse with the same second moments, 0 to 1, as CellProfiler has it."""
    y, x = centre(masks)
    along = np.arange(masks.shape[-1])
    dy, dx = along - y[:, None], along - x[:, None]
    px = area(masks)
    # a pixel is a square: 1/12 is the second moment of its own
    yy = np.einsum("nyx,ny,ny->n", masks, dy, dy) / px + 1 / 12
    xx = np.einsum("nyx,nx,nx->n", masks, dx, dx) / px + 1 / 12
    yx = np.einsum("nyx,ny,nx->n", masks, dy, dx) / px
    apart = np.hypot((yy - xx) / 2, yx)
    middle = (yy + xx) / 2
    return np.sqrt(np.clip(1 - (middle - apart) / (middle + apart), 0, 1))


def solidity(masks: np.ndarray) -> np.ndarray:
    """Share (n,) of the convex hull, drawn around the corners of the pixels, that the mask fills; 0 to 1."""
    return area(masks) / np.array([_hull_area(mask) for mask in masks])


def _hull_area(mask: np.ndarray) -> float:
    """Area (px2) of the convex hull of a mask (S, S); NaN for an empty one."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return float("nan")
    # of each row only the outermost corners can be on the hull
    first = mask[rows].argmax(axis=1) - 0.5
    last = mask.shape[1] - mask[rows, ::-1].argmax(axis=1) - 0.5
    corners = [np.column_stack([rows + step, side]) for step in (-0.5, 0.5) for side in (first, last)]
    return float(ConvexHull(np.concatenate(corners)).volume)  # in the plane its `volume` is the area
