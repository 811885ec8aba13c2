"""Distances between profiles, all at once or a block of rows at a time. N rows, Q queries, Z features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np

from phenolens.core.errors import InputError
from phenolens.profiles.validate import feature_matrix

if TYPE_CHECKING:
    from anndata import AnnData

Similarity = Literal["cosine", "pearson", "euclidean"]
VALUES_AT_A_TIME = 2**24  # distances held at once


def directions(profiles: AnnData, similarity: Similarity) -> np.ndarray:
    """The rows (N, Z) float64 ready for `distances`: of unit length, and for Pearson first without each row's own mean.

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
    """Distances (queries, candidates) between rows of `directions`: 1 - cosine, 1 - correlation, or Euclidean."""
    if similarity == "euclidean":
        from scipy.spatial.distance import cdist  # slow to import, and only needed here

        return cdist(queries, candidates)
    return 1.0 - queries @ candidates.T


def rows_at_a_time(n: int) -> int:
    """Of how many rows the distances to `n` rows are held at once."""
    return max(1, VALUES_AT_A_TIME // n)


def distance_blocks(
    rows: np.ndarray, similarity: Similarity, queries: np.ndarray | None = None
) -> Iterator[tuple[slice, np.ndarray]]:
    """Distances of queries to all `rows` (N, Z), some queries at a time: memory grows with N, not with its square.

    `queries` (Q,) are places in `rows`; all of them where None. Yields a slice of the queries and (slice, N) distances.
    """
    n = len(rows) if queries is None else len(queries)
    step = rows_at_a_time(len(rows))
    for start in range(0, n, step):
        block = slice(start, min(start + step, n))
        yield block, distances(rows[block if queries is None else queries[block]], rows, similarity)
