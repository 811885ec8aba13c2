"""Embeddings on a plane to be looked at: by their two main directions (PCA), or by UMAP.

N rows, Z features. McInnes et al. 2018 for UMAP. Distances on a plane are hints, never measurements.
"""

import warnings
from dataclasses import dataclass
from typing import Self

import numpy as np

from phenolens.errors import InputError

UMAP_NEIGHBOURS = 15  # umap-learn's own default: how many neighbours are kept together
UMAP_COMPONENTS = 50  # main directions that UMAP is given, so that its time does not grow with Z


@dataclass(frozen=True)
class Plane:
    """The two directions in which rows vary most."""

    centre: np.ndarray  # (Z,)
    axes: np.ndarray  # (2, Z) of unit length; the largest weight of each is positive, so that it never flips
    shares: tuple[float, float]  # of the rows' variance along each axis

    @classmethod
    def of(cls, rows: np.ndarray) -> Self:
        """The plane of rows (N, Z); InputError on fewer than three rows, values that are not finite, or no spread."""
        rows = _checked(rows)
        centre = rows.mean(axis=0)
        spread = (rows - centre).T @ (rows - centre)
        values, vectors = np.linalg.eigh(spread)
        total = float(np.trace(spread))
        if not total > 0:
            raise InputError(f"{len(rows)} rows that are all the same: there is no direction in which they vary")
        axes = np.zeros((2, rows.shape[1]))
        axes[: min(2, rows.shape[1])] = vectors[:, ::-1][:, :2].T
        largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
        axes = axes * np.where(largest < 0, -1, 1)
        first, second = (*values[::-1][:2], 0.0)[:2]
        return cls(centre, axes, (float(first / total), float(max(second, 0.0) / total)))

    def placed(self, rows: np.ndarray) -> np.ndarray:
        """Where rows (N, Z) lie: (N, 2) float32, computed in the precision that the rows have."""
        axes = self.axes.astype(rows.dtype)
        return (rows @ axes.T - self.centre.astype(rows.dtype) @ axes.T).astype(np.float32)


def umap_places(rows: np.ndarray, *, metric: str, seed: int = 0) -> np.ndarray:
    """Rows (N, Z) on a plane by UMAP: (N, 2) float32; the same rows and seed give the same places on one machine.

    InputError when umap-learn is not installed, with its install line.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own dependencies
            from umap import UMAP
    except ModuleNotFoundError as error:
        raise InputError(f'{error.name} is not installed; UMAP needs: pip install "phenolens[umap]"') from error
    rows = _checked(rows)
    centred = rows - rows.mean(axis=0)
    if metric == "euclidean" and rows.shape[1] > UMAP_COMPONENTS:
        _, vectors = np.linalg.eigh(centred.T @ centred)
        centred = centred @ vectors[:, ::-1][:, :UMAP_COMPONENTS]
    given = centred if metric == "euclidean" else rows
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a seed keeps it on one thread, and that few rows have few neighbours
        places = UMAP(
            n_neighbors=min(UMAP_NEIGHBOURS, len(rows) - 1),
            metric=metric,
            random_state=seed,
            init="random" if len(rows) < 2 * UMAP_NEIGHBOURS else "spectral",
        ).fit_transform(given.astype(np.float32))
    return np.asarray(places, np.float32)


def _checked(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, float)
    if rows.ndim != 2 or len(rows) < 3 or not np.isfinite(rows).all():
        raise InputError(f"embeddings of shape {rows.shape}: expected finite values, a row a cell, at least 3 rows")
    return rows
