"""The whitening matrix of one group of controls, and the certificate of what it achieved.

n controls, Z features. METHOD 5: x (V / sqrt(s + ridge)), V and s the eigenvectors and eigenvalues of the controls'
covariance (/ n).

n rows, Z features; every covariance is (Z, Z) and divided by n.
"""

from dataclasses import dataclass

import numpy as np

from phenolens.core.errors import InputError
from phenolens.profiles.recipe import Recipe


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


NOT_WHITENED = "not whitened"


@dataclass(frozen=True)
class Certificate:
    """What one whitening achieved on the rows it was learnt on."""

    group: str  # "all", or the batch or plate
    n_rows: int  # rows learnt on (controls)
    n_features: int
    rank: int  # directions in which those rows themselves vary, whatever the estimate of their covariance
    ridge: float  # absolute, as added to the eigenvalues
    condition_number: float  # of the regularised covariance over the directions kept
    largest_deviation: float  # of those rows' covariance from identity, after the transform
    remarks: tuple[str, ...]  # what was impossible, in plain words
    # Least and largest variance after the transform along the kept directions that those rows vary in; 1 is white. Of
    # the sample's covariance with a ridge it is s / (s + ridge), s the variance before. None: of an older version.
    spanned_variance: tuple[float, float] | None = None

    def __str__(self) -> str:
        """The certificate as one line."""
        spanned = ""
        if self.spanned_variance is not None:
            least, most = self.spanned_variance
            spanned = f"; along the kept directions that they vary in, variance is {least:.3g} to {most:.3g} (white: 1)"
        if NOT_WHITENED in self.remarks:
            return (
                f"{self.group}: learnt on {self.n_rows} rows, {self.n_features} features, rank {self.rank}; "
                f"{NOT_WHITENED}: covariance deviates from identity by at most {self.largest_deviation:.3g}{spanned}"
            )
        line = (
            f"{self.group}: learnt on {self.n_rows} rows, {self.n_features} features, rank {self.rank}, "
            f"ridge {self.ridge:g}, condition number {self.condition_number:.3g}, "
            f"covariance deviates from identity by at most {self.largest_deviation:.3g}{spanned}"
        )
        return "; ".join((line, *self.remarks))


def fit_rotation(controls: np.ndarray, recipe: Recipe, group: str) -> tuple[tuple[np.ndarray, np.ndarray], Certificate]:
    """The centre (Z,) and matrix (Z, components) of one group from its scaled controls (n, Z), with the certificate.

    InputError where more components are asked for than the controls vary in, and where there is no ridge and the
    estimate of their covariance has no spread in some direction.
    """
    n, n_features = controls.shape
    sample = covariance(controls)
    values, vectors = np.linalg.eigh(sample if recipe.estimate == "sample" else ledoit_wolf(controls))
    values, vectors = values[::-1].clip(min=0), vectors[:, ::-1]
    rank = _rank(values if recipe.estimate == "sample" else np.linalg.eigvalsh(sample)[::-1], n)
    n_kept = min(recipe.n_components or n_features, n_features)
    ridge = recipe.ridge * (values.mean() if recipe.ridge_unit == "relative" else 1.0)
    if recipe.whitening != "none":
        _refuse_undetermined(group, n=n, n_features=n_features, rank=rank, with_spread=_rank(values, n), recipe=recipe)
    kept = values[:n_kept] + ridge
    if recipe.whitening == "none":
        matrix = np.eye(n_features)
    else:
        matrix = vectors[:, :n_kept] / np.sqrt(kept)
        if recipe.whitening == "zca":
            matrix = matrix @ vectors[:, :n_kept].T
    centre = controls.mean(axis=0)
    achieved = covariance((controls - centre) @ matrix)
    spanned = np.linalg.eigvalsh(achieved)[::-1][: min(rank, n_kept)]
    certificate = Certificate(
        group=group,
        n_rows=n,
        n_features=n_features,
        rank=rank,
        ridge=float(ridge),
        condition_number=float(kept[0] / kept[-1]) if kept[-1] > 0 else float("inf"),
        largest_deviation=float(np.abs(achieved - np.eye(len(achieved))).max()),
        remarks=_remarks(n, n_features, rank, n_kept, float(ridge), float(values[-1]), recipe),
        spanned_variance=(float(spanned[-1]), float(spanned[0])) if len(spanned) else None,
    )
    return (centre, matrix), certificate


def _rank(falling: np.ndarray, n: int) -> int:
    """How many of the eigenvalues (Z,), from large to small, of a covariance of n rows are more than rounding."""
    return int((falling > falling[0] * max(n, len(falling)) * np.finfo(np.float64).eps).sum())


def _refuse_undetermined(group: str, *, n: int, n_features: int, rank: int, with_spread: int, recipe: Recipe) -> None:
    """InputError where the directions to keep are not determined by the controls, or have no spread to divide by."""
    asked = recipe.n_components
    if asked is not None and asked > n_features:
        raise InputError(f"profiles: --n-components {asked}: expected at most {n_features}, the number of features")
    if asked is not None and asked > rank:
        raise InputError(
            f'profiles: {n} controls of "{group}" vary in {rank} directions of {n_features}, so the axes of '
            f"--n-components {asked} are arbitrary beyond these; keep at most {rank} components, or all of them with a "
            "ridge (leave --n-components out)"
        )
    if recipe.ridge <= 0 and with_spread < (asked or n_features):
        raise InputError(
            f'profiles: {n} controls of "{group}" vary in {rank} directions of {n_features}, which cannot be whitened '
            f"without a ridge; give a ridge (1 is the usual), pool all plates, or keep at most {rank} components"
        )


def _remarks(
    n: int, n_features: int, rank: int, n_kept: int, ridge: float, least: float, recipe: Recipe
) -> tuple[str, ...]:
    """What was impossible; `least` is the smallest eigenvalue of the estimate."""
    if recipe.whitening == "none":
        return (NOT_WHITENED,)
    remarks = []
    if rank < n_kept:
        divided = f"the root of the ridge ({ridge:g})"
        if recipe.estimate == "ledoit-wolf":
            divided = f"the root of what Ledoit-Wolf puts in its place and the ridge ({least:.3g} + {ridge:g})"
        remarks.append(
            f"{n} controls vary in {rank} of {n_features} directions: the spread in the other {n_kept - rank} is "
            f"unknown, they are only divided by {divided}"
        )
        if recipe.whitening == "pca":
            remarks.append(
                "the axes of those directions are arbitrary, so a median over wells depends on them; zca does not"
            )
    if ridge > 0:
        remarks.append("with a ridge the controls' covariance is shrunk towards identity, not equal to it")
    if recipe.estimate == "ledoit-wolf":
        remarks.append("with Ledoit-Wolf the controls are divided by an estimate of the spread, not by their own")
    if n_kept < n_features:
        remarks.append(f"only the {n_kept} leading directions are kept")
    return tuple(remarks)
