"""Covariances of few or many rows, and the directions in which rows vary.

n rows, Z features. All are divided by n.
"""

import numpy as np


def second_moment(rows: np.ndarray) -> np.ndarray:
    """Sample covariance about 0: (n, Z) -> (Z, Z)."""
    return rows.T @ rows / len(rows)


def eigen(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (Z,) of a covariance (Z, Z), the largest first and none below 0, and its eigenvectors (Z, Z)."""
    values, vectors = np.linalg.eigh(covariance)
    return values[::-1].clip(min=0), vectors[:, ::-1]


def spanned(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The r eigenvalues above rounding (r,) of the second moment of rows (n, Z), and their eigenvectors (Z, r).

    From the rows' singular values where they are far fewer than features.
    """
    n, n_features = rows.shape
    if 2 * n > n_features:  # then the singular values take longer
        values, vectors = eigen(second_moment(rows))
    else:
        _, singular, axes = np.linalg.svd(rows, full_matrices=False)
        values, vectors = _with_zeros(singular**2 / n, n_features), axes.T
    rank = rank_of(values, n)
    return values[:rank], vectors[:, :rank]


def eigen_of_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`eigen` of the second moment of rows (n, Z).

    Rounding alone would choose the axes of directions in which rows do not vary, and with them every median along an
    axis. They are the axes that complete the Householder reflections of those in which rows do vary.
    """
    values, vectors = spanned(rows)
    n_features, rank = vectors.shape
    if rank == n_features:
        return values, vectors
    vectors = vectors * np.where(vectors.max(axis=0) < -vectors.min(axis=0), -1, 1)  # one of the two directions
    rest = np.linalg.qr(vectors, mode="complete")[0][:, rank:] if rank else np.eye(n_features)
    return _with_zeros(values, n_features), np.hstack([vectors, rest])


def rank_of(falling: np.ndarray, n: int) -> int:
    """How many of the eigenvalues (Z,), from large to small, of a covariance of n rows are more than rounding."""
    return int((falling > falling[0] * max(n, len(falling)) * np.finfo(np.float64).eps).sum())


def eigenvalues_of_rows(rows: np.ndarray) -> np.ndarray:
    """Eigenvalues (Z,) of the second moment of rows (n, Z), the largest first, none below 0."""
    n, n_features = rows.shape
    smaller = second_moment(rows) if n > n_features else rows @ rows.T / n  # they share all but zeros
    return _with_zeros(np.linalg.eigvalsh(smaller)[::-1].clip(min=0), n_features)


def _with_zeros(values: np.ndarray, n: int) -> np.ndarray:
    return np.concatenate([values, np.zeros(n - len(values))])
