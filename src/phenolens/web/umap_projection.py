"""Cells and treatments of a study in two dimensions, as a run embeds them: PCA or UMAP (McInnes et al. 2018).

N rows, n points of a map, Z features. A distance on a map is only a hint.
"""

import warnings
from dataclasses import dataclass
from threading import Lock
from typing import Literal

import numpy as np
from sklearn.decomposition import PCA

from phenolens.core.errors import InputError
from phenolens.crops.store import CropStore
from phenolens.runs.catalogue import evenly
from phenolens.runs.embeddings import embedding_rows
from phenolens.study import Study

Projection = Literal["pca", "umap"]
PCA_CELLS = 20_000  # cells, evenly over the wells, on which the axes are fitted
UMAP_CELLS = 10_000  # cells, evenly over the wells, in a UMAP: about half a minute on one core
UMAP_NEIGHBOURS = 15  # umap-learn's default
UMAP_COMPONENTS = 50  # principal components that UMAP is given, so that its time does not grow with Z
_UMAP_LOCK = Lock()  # its compiled loops must not run twice at once


def fit_pca(rows: np.ndarray, n_components: int = 2) -> PCA:
    """The principal components of rows (N, Z), computed in float64; the largest loading of each is positive.

    Raises:
        InputError: fewer than three rows, values that are not finite, or no variance.
    """
    rows = _checked(rows)
    if not np.ptp(rows, axis=0).max() > 0:
        raise InputError(f"{len(rows)} rows that are all the same: there is no direction in which they vary")
    return PCA(min(n_components, rows.shape[1]), svd_solver="covariance_eigh").fit(rows)


def pca_places(pca: PCA, rows: np.ndarray) -> np.ndarray:
    """Rows (N, Z) on the first two axes: (N, 2) float32, computed in the precision of the rows."""
    axes = np.zeros((2, rows.shape[1]), rows.dtype)
    axes[: len(pca.components_)] = pca.components_[:2]
    return (rows @ axes.T - pca.mean_.astype(rows.dtype) @ axes.T).astype(np.float32)


def umap_places(rows: np.ndarray, *, metric: str, seed: int = 0) -> np.ndarray:
    """Rows (N, Z) by UMAP: (N, 2) float32; the same rows and seed give the same places on one machine.

    Raises:
        InputError: umap-learn is not installed; the message has the install line.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own dependencies
            from umap import UMAP
    except ModuleNotFoundError as error:
        raise InputError(f'{error.name} is not installed; UMAP needs: pip install "phenolens[umap]"') from error
    rows = _checked(rows)
    if metric == "euclidean":
        rows = (
            fit_pca(rows, UMAP_COMPONENTS).transform(rows) if rows.shape[1] > UMAP_COMPONENTS else rows - rows.mean(0)
        )
    with warnings.catch_warnings(), _UMAP_LOCK:
        warnings.simplefilter("ignore")  # that a seed keeps it on one thread, and that few rows have few neighbours
        places = UMAP(
            n_neighbors=min(UMAP_NEIGHBOURS, len(rows) - 1),
            metric=metric,
            random_state=seed,
            init="random" if len(rows) < 2 * UMAP_NEIGHBOURS else "spectral",
        ).fit_transform(rows.astype(np.float32))
    return np.asarray(places, np.float32)


def _checked(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, float)
    if rows.ndim != 2 or len(rows) < 3 or not np.isfinite(rows).all():
        raise InputError(f"embeddings of shape {rows.shape}: expected finite values, a row a cell, at least 3 rows")
    return rows


@dataclass(frozen=True)
class Map:
    """Points in a random but fixed order, so that none is drawn on top of the others because of its well."""

    places: np.ndarray  # (n, 2) float32
    rows: np.ndarray  # (n,) a cell's row of the crop store, or a treatment's row of `names`
    names: tuple[str, ...]  # of the treatments; empty on a map of cells
    control: tuple[float, float] | None  # the controls' mean, on a map of treatments by PCA
    caption: str  # how it was made and what is left out


def map_of_cells(study: Study, run: str, store: CropStore, *, projection: Projection, seed: int = 0) -> Map:
    """The counted cells of a run by their embeddings: all of them by PCA, at most UMAP_CELLS by UMAP.

    Raises:
        InputError: the cells are not embedded; the message names the command.
    """
    counted = np.flatnonzero(~store.cells["is_noise"].to_numpy(bool))
    left_out = f" {len(store) - len(counted):,} flagged cells are left out." if len(counted) < len(store) else ""
    sample = evenly(counted, PCA_CELLS if projection == "pca" else UMAP_CELLS)
    sampled = f"{len(sample):,} of {len(counted):,} cells, evenly over the wells"
    z = np.concatenate(list(embedding_rows(study, run, store, sample)))
    if projection == "umap":
        rows = sample
        caption = f"UMAP of {sampled if len(sample) < len(counted) else f'{len(sample):,} cells'}.{left_out}"
        places = umap_places(z, metric="euclidean", seed=seed)
    else:
        pca, rows = fit_pca(z), counted
        places = np.concatenate([pca_places(pca, part) for part in embedding_rows(study, run, store, counted)])
        fitted = f", fitted on {sampled}" if len(sample) < len(counted) else ""
        caption = f"{len(counted):,} cells by the first two principal components of their embeddings"
        caption += f"{_explained(pca)}{fitted}.{left_out}"
    order = np.random.default_rng(seed).permutation(len(rows))
    return Map(places[order], rows[order], (), None, caption)


def map_of_treatments(study: Study, run: str, *, projection: Projection, seed: int = 0) -> Map:
    """The treatments of a run by their whitened mean profiles; InputError when there are no profiles."""
    profiles = study.profiles(run)
    x, control = np.asarray(profiles.X, float), None
    if projection == "umap":
        places = umap_places(x, metric="cosine", seed=seed)
        caption = f"UMAP of {len(x)} treatments by their whitened profiles, cosine distance."
    else:
        pca = fit_pca(x)
        places, (origin,) = pca_places(pca, x), pca_places(pca, np.zeros((1, x.shape[1])))
        control = float(origin[0]), float(origin[1])  # whitening on the controls puts their mean at 0
        caption = f"{len(x)} treatments by the first two principal components of their whitened profiles"
        caption += f"{_explained(pca)}."
    order = np.random.default_rng(seed).permutation(len(x))
    return Map(places[order], order, tuple(profiles.obs["Metadata_Treatment"].astype(str)), control, caption)


def _explained(pca: PCA) -> str:
    shares = " and ".join(f"{share:.0%}" for share in pca.explained_variance_ratio_)
    return f" ({shares} of the variance)"
