"""The alignment of the controls of a batch with all controls, in three published forms (CORAL, as in Ando et al. 2017).

n controls of a batch, N of all batches, Z features, whitened on all controls before.
"""

from typing import Literal

import numpy as np

from phenolens.profiles.covariance import second_moment

CoralForm = Literal["broad", "google", "efaar"]


def coral(batch: np.ndarray, everything: np.ndarray, *, form: CoralForm) -> tuple[np.ndarray, np.ndarray]:
    """The centre (Z,) and the matrix (Z, Z) that align rows of a batch: (x - centre) @ matrix.

    With S the second moments about 0 (divided by n), C the covariance (divided by n - 1) and m the mean of the batch's
    controls: `broad` x (S + I)^(-1/2) (S_all + I)^(1/2); `google` (x - m) (C + I)^(-1/2); `efaar` x (C + I/2)^(-1/2).

    Args:
        batch: the batch's controls (n, Z); two or more but for `broad`.
        everything: all controls (N, Z).
        form: whose.
    """
    identity, zero = np.eye(batch.shape[1]), np.zeros(batch.shape[1])
    if form == "broad":
        to_all = matrix_power(second_moment(everything) + identity, 0.5)
        return zero, matrix_power(second_moment(batch) + identity, -0.5) @ to_all
    covariance = np.cov(batch.T).reshape(identity.shape)
    if form == "google":
        return batch.mean(axis=0), matrix_power(covariance + identity, -0.5)
    return zero, matrix_power(covariance + identity / 2, -0.5)


def matrix_power(symmetric: np.ndarray, power: float) -> np.ndarray:
    """A power of a symmetric positive definite matrix (Z, Z), such as -1/2."""
    values, vectors = np.linalg.eigh(symmetric)
    return (vectors * values**power) @ vectors.T
