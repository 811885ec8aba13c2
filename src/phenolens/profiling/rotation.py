"""The whitening matrix of one group of controls, and the certificate of what it achieved.

n controls, Z features. METHOD 5: x (V / sqrt(s + ridge)), V and s the eigenvectors and eigenvalues of the controls'
covariance (/ n).
"""

from dataclasses import dataclass

import numpy as np

from phenolens.errors import InputError
from phenolens.profiling.covariance import covariance, ledoit_wolf
from phenolens.profiling.recipe import Recipe

NOT_WHITENED = "not whitened"


@dataclass(frozen=True)
class Certificate:
    """What one whitening achieved on the rows it was learnt on."""

    group: str  # "all", or the batch or plate
    n_rows: int  # rows learnt on (controls)
    n_features: int
    rank: int  # directions in which those rows vary
    ridge: float  # absolute, as added to the eigenvalues
    condition_number: float  # of the regularised covariance over the directions kept
    largest_deviation: float  # of those rows' covariance from identity, after the transform
    remarks: tuple[str, ...]  # what was impossible, in plain words

    def __str__(self) -> str:
        """The certificate as one line."""
        if NOT_WHITENED in self.remarks:
            return (
                f"{self.group}: learnt on {self.n_rows} rows, {self.n_features} features, rank {self.rank}; "
                f"{NOT_WHITENED}: covariance deviates from identity by at most {self.largest_deviation:.3g}"
            )
        line = (
            f"{self.group}: learnt on {self.n_rows} rows, {self.n_features} features, rank {self.rank}, "
            f"ridge {self.ridge:g}, condition number {self.condition_number:.3g}, "
            f"covariance deviates from identity by at most {self.largest_deviation:.3g}"
        )
        return "; ".join((line, *self.remarks))


def fit_rotation(controls: np.ndarray, recipe: Recipe, group: str) -> tuple[tuple[np.ndarray, np.ndarray], Certificate]:
    """The centre (Z,) and matrix (Z, components) of one group from its scaled controls (n, Z), with the certificate.

    InputError where there is no ridge and more directions are kept than the controls vary in.
    """
    n, n_features = controls.shape
    estimate = ledoit_wolf(controls) if recipe.estimate == "ledoit-wolf" else covariance(controls)
    values, vectors = np.linalg.eigh(estimate)
    values, vectors = values[::-1].clip(min=0), vectors[:, ::-1]
    rank = int((values > values[0] * max(n, n_features) * np.finfo(np.float64).eps).sum())
    n_kept = min(recipe.n_components or n_features, n_features)
    ridge = recipe.ridge * (values.mean() if recipe.ridge_unit == "relative" else 1.0)
    if recipe.whitening != "none" and ridge <= 0 and n_kept > rank:
        raise InputError(
            f'profiles: {n} controls of "{group}" vary in {rank} directions of {n_features}, which cannot be whitened '
            f"without a ridge; give a ridge (1 is the usual), pool all plates, or keep at most {rank} components"
        )
    kept = values[:n_kept] + ridge
    matrix = vectors[:, :n_kept] / np.sqrt(kept)
    if recipe.whitening == "zca":
        matrix = matrix @ vectors[:, :n_kept].T
    elif recipe.whitening == "none":
        matrix = np.eye(n_features)
    centre = controls.mean(axis=0)
    achieved = covariance((controls - centre) @ matrix)
    certificate = Certificate(
        group=group,
        n_rows=n,
        n_features=n_features,
        rank=rank,
        ridge=float(ridge),
        condition_number=float(kept[0] / kept[-1]) if kept[-1] > 0 else float("inf"),
        largest_deviation=float(np.abs(achieved - np.eye(len(achieved))).max()),
        remarks=_remarks(n, n_features, rank, n_kept, float(ridge), recipe),
    )
    return (centre, matrix), certificate


def _remarks(n: int, n_features: int, rank: int, n_kept: int, ridge: float, recipe: Recipe) -> tuple[str, ...]:
    if recipe.whitening == "none":
        return (NOT_WHITENED,)
    remarks = []
    if rank < n_kept:
        remarks.append(
            f"{n} controls vary in {rank} of {n_features} directions: the spread in the other {n_kept - rank} is "
            f"unknown, they are only divided by the root of the ridge ({ridge:g})"
        )
        if recipe.whitening == "pca":
            remarks.append(
                "the axes of those directions are arbitrary, so a median over wells depends on them; zca does not"
            )
    if ridge > 0:
        remarks.append("with a ridge the controls' covariance is shrunk towards identity, not equal to it")
    if n_kept < n_features:
        remarks.append(f"only the {n_kept} leading directions are kept")
    return tuple(remarks)
