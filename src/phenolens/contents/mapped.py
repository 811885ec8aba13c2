"""Where a study's cells and treatments lie on a plane, as a run embeds them.

N cells of a study, n of them on the map, T treatments, Z features.
"""

from dataclasses import dataclass
from threading import Lock
from typing import Literal

import numpy as np

from phenolens.contents.embedded import embedding_rows
from phenolens.files import read_h5ad
from phenolens.images.store import CropStore
from phenolens.phenotype.plane import Plane, umap_places
from phenolens.study import HEADLINE, Study

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
    path = study.treatments(run, statistics=HEADLINE["statistics"], whitening=HEADLINE["whitening"])
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
