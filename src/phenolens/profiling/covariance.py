"""Covariances of profiles and their powers.

n rows, Z features; every covariance is (Z, Z) and divided by n.
"""

import numpy as np


def covariance(rows: np.ndarray) -> np.ndarray:
    """Sample covariance about the mean: (n, Z) -> (Z, Z)."""
    return second_moment(rows - rows.mean(axis=0))


def second_moment(rows: np.ndarray) -> np.ndarray:
    """Sample covariance about 0: (n, Z) -> (Z, Z)."""
    return rows.T @ rows / len(rows)


def ledoit_wolf(rows: np.ndarray) -> np.ndarray:
    """Covariance drawn towards a multiple of identity by the share that minimises the expected error: (n, Z) -> (Z, Z).

    Ledoit and Wolf, A well-conditioned estimator for large-dimensional covariance matrices, 2004 (lemma 3.2 ff.).
    """
    n, n_features = rows.shape
    centred = rows - rows.mean(axis=0)
    sample = second_moment(centred)
    mean_variance = np.trace(sample) / n_features
    distance = np.square(sample).sum() - n_features * mean_variance**2  # of the sample from the target, squared
    # sum over rows of |x x' - S|^2 / n^2, without the (n, Z, Z) array
    noise = (np.square(np.square(centred).sum(axis=1)).sum() / n - np.square(sample).sum()) / n
    share = min(1.0, noise / distance) if distance > 0 else 1.0
    return (1 - share) * sample + share * mean_variance * np.eye(n_features)


def matrix_power(symmetric: np.ndarray, power: float) -> np.ndarray:
    """A power of a symmetric positive definite matrix (Z, Z), such as -1/2."""
    values, vectors = np.linalg.eigh(symmetric)
    return (vectors * values**power) @ vectors.T
