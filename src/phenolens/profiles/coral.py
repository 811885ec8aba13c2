"""The alignment of the controls of each batch with all controls, in three published forms (CORAL, Ando et al. 2017).

n controls of a batch, N of all batches, Z features, whitened on all controls before.
"""

from collections.abc import Mapping
from math import sqrt
from typing import Literal

import numpy as np

from phenolens.profiles.covariance import spanned

CoralForm = Literal["broad", "google", "efaar"]


def coral(
    batches: Mapping[str, np.ndarray], everything: np.ndarray, *, form: CoralForm
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The centre (Z,) and the matrix (Z, Z) that align the rows of each batch: (x - centre) @ matrix.

    With S the second moments about 0 (divided by n), C the covariance (divided by n - 1) and m the mean of the batch's
    controls: `broad` x (S + I)^(-1/2) (S_all + I)^(1/2); `google` (x - m) (C + I)^(-1/2); `efaar` x (C + I/2)^(-1/2).

    Args:
        batches: each batch's controls (n, Z); two or more but for `broad`.
        everything: all controls (N, Z).
        form: whose.
    """
    zero = np.zeros(everything.shape[1])
    if form == "broad":
        to_all = _power(everything, 0.5, plus=1.0)
        return {name: (zero, _power(rows, -0.5, plus=1.0) @ to_all) for name, rows in batches.items()}
    plus = 1.0 if form == "google" else 0.5
    aligned = {}
    for name, rows in batches.items():
        mean = rows.mean(axis=0)
        spread = (rows - mean) * sqrt(len(rows) / (len(rows) - 1))  # its second moment is the covariance
        aligned[name] = (mean if form == "google" else zero, _power(spread, -0.5, plus=plus))
    return aligned


def _power(rows: np.ndarray, power: float, *, plus: float) -> np.ndarray:
    """A power of the second moment of rows (n, Z) plus so many identities: (Z, Z)."""
    values, vectors = spanned(rows)
    others = plus**power  # along the directions in which rows do not vary
    return (vectors * ((values + plus) ** power - others)) @ vectors.T + others * np.eye(len(vectors))
