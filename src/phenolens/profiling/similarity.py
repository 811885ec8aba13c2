"""How near two profiles are: cosine, Pearson or Euclidean distance.

M and N rows, Z features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from phenolens.errors import InputError
from phenolens.profiling.features import feature_matrix

if TYPE_CHECKING:
    from anndata import AnnData

Similarity = Literal["cosine", "pearson", "euclidean"]


def directions(profiles: AnnData, similarity: Similarity) -> np.ndarray:
    """The rows (N, Z) float64 ready for `distances`: of unit length, for Pearson after taking off each row's own mean.

    InputError on NaN, and on a row without a direction (all features 0, or for Pearson all equal).
    """
    rows = feature_matrix(profiles)
    if similarity == "euclidean":
        return rows
    if similarity == "pearson":
        constant = rows.max(axis=1) == rows.min(axis=1)
        rows -= rows.mean(axis=1, keepdims=True)
        rows[constant] = 0.0
    lengths = np.linalg.norm(rows, axis=1)
    if (lengths == 0).any():
        name = profiles.obs_names[int(np.argmax(lengths == 0))]
        values = "equal" if similarity == "pearson" else "0"
        raise InputError(
            f'profiles: all features of row "{name}" are {values}, so it has no {similarity} distance to any other; '
            "leave it out, or use the Euclidean distance"
        )
    return rows / lengths[:, None]


def distances(queries: np.ndarray, candidates: np.ndarray, similarity: Similarity) -> np.ndarray:
    """Distances (M, N) between rows made by `directions`: 1 - cosine, 1 - correlation, or Euclidean."""
    if similarity == "euclidean":
        from scipy.spatial.distance import cdist  # slow to import, and only needed here

        return cdist(queries, candidates)
    return 1.0 - queries @ candidates.T
