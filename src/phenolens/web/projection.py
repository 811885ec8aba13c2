"""Where a study's cells and treatments lie on a plane, as a run embeds them.

N cells of a study, n of them on the map, T treatments, Z features.

N rows, Z features. McInnes et al. 2018 for UMAP. Distances on a plane are hints, never measurements.
"""

import warnings
from dataclasses import dataclass
from threading import Lock
from typing import Literal, Self

import numpy as np

from phenolens.core.errors import InputError
from phenolens.core.files import read_h5ad
from phenolens.crops.store import CropStore
from phenolens.runs.embeddings import embedding_rows
from phenolens.study import HEADLINE, Study

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


Way = Literal["pca", "umap"]
AXES_CELLS = 20_000  # cells, evenly over the wells, in which the main directions are found: enough for two of them
UMAP_CELLS = 10_000  # cells, evenly over the wells, of a UMAP: about half a minute on one core
_ONE_UMAP = Lock()  # its compiled loops must not be entered twice at once


@dataclass(frozen=True)
class Map:
    """Points of a map in a random but fixed order, so that none is drawn above the others for where it stands."""

    places: np.ndarray  # (n, 2) float32
    rows: np.ndarray  # (n,) a cell's row of the crop store, or a treatment's row of `names`
    names: tuple[str, ...]  # of the treatments; empty on a map of cells
    control: tuple[float, float] | None  # where whitening puts the controls, on a map of treatments by PCA
    words: str  # how it was made and what is left out


def map_of_cells(study: Study, run: str, store: CropStore, *, way: Way, seed: int = 0) -> Map:
    """The counted cells of a run, by their embeddings; InputError when they are not embedded.

    By PCA all of them, read a plate at a time; by UMAP at most UMAP_CELLS of them. `seed` orders them.
    """
    fine = np.flatnonzero(~store.cells["is_noise"].to_numpy(bool))
    out = f"{len(store) - len(fine):,} flagged cells are left out." if len(fine) < len(store) else ""
    sample = _evenly(fine, AXES_CELLS if way == "pca" else UMAP_CELLS)
    z = np.concatenate(list(embedding_rows(study, run, store, sample)))
    if way == "umap":
        rows, words = sample, f"UMAP of {_some(len(sample), len(fine))}. {out}"
        with _ONE_UMAP:
            places = umap_places(z, metric="euclidean", seed=seed)
    else:
        plane, rows = Plane.of(z), fine
        places = np.concatenate([plane.placed(part) for part in embedding_rows(study, run, store, fine)])
        found = f", found in {_some(len(sample), len(fine))}" if len(sample) < len(fine) else ""
        words = f"{len(fine):,} cells by the two main directions of their embeddings{_held(plane)}{found}. {out}"
    order = np.random.default_rng(seed).permutation(len(rows))
    return Map(places[order], rows[order], (), None, words.strip())


def map_of_treatments(study: Study, run: str, *, way: Way, seed: int = 0) -> Map:
    """The treatments of a run, by their whitened mean profiles; InputError when there are no profiles."""
    path = study.treatments_path(run, statistics=HEADLINE["statistics"], whitening=HEADLINE["whitening"])
    profiles = read_h5ad(path, mend=f"run `phenolens profile {study.folder}`")
    x, control = np.asarray(profiles.X, float), None
    names = tuple(profiles.obs["Metadata_Treatment"].astype(str))
    if way == "umap":
        with _ONE_UMAP:
            places = umap_places(x, metric="cosine", seed=seed)
        words = f"UMAP of {len(x)} treatments by their whitened profiles, cosine distance"
    else:
        plane = Plane.of(x)
        places, at = plane.placed(x), plane.placed(np.zeros((1, x.shape[1])))[0]
        control = float(at[0]), float(at[1])  # whitening on the controls puts their mean at 0
        words = f"{len(x)} treatments by the two main directions of their whitened profiles{_held(plane)}"
    order = np.random.default_rng(seed).permutation(len(x))
    return Map(places[order], order, names, control, f"{words}.")


def _evenly(rows: np.ndarray, most: int) -> np.ndarray:
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]


def _some(n: int, of: int) -> str:
    return f"{n:,} of {of:,} cells, evenly over the wells" if n < of else f"{n:,} cells"


def _held(plane: Plane) -> str:
    """What share of the variance the two directions hold, in words."""
    return f" ({plane.shares[0]:.0%} and {plane.shares[1]:.0%} of their variance)"
