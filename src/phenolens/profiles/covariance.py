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


def eigen_of_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`eigen` of the second moment of rows (n, Z): from their singular values where they are far fewer than features.

    The axes of directions in which rows do not vary are arbitrary by either way.
    """
    n, n_features = rows.shape
    if 2 * n > n_features:  # then the singular values take longer
        return eigen(second_moment(rows))
    _, singular, vectors = np.linalg.svd(rows, full_matrices=True)
    return _with_zeros(singular**2 / n, n_features), vectors.T


def eigenvalues_of_rows(rows: np.ndarray) -> np.ndarray:
    """Eigenvalues (Z,) of the second moment of rows (n, Z), the largest first: from the smaller of two matrices."""
    n, n_features = rows.shape
    smaller = second_moment(rows) if n > n_features else rows @ rows.T / n
    return _with_zeros(np.linalg.eigvalsh(smaller)[::-1], n_features)


def _with_zeros(values: np.ndarray, n: int) -> np.ndarray:
    return np.concatenate([values, np.zeros(n - len(values))])
