"""Whiten by how rows vary within their treatments, for screens with few cells per well or few control wells.

N rows (cells or wells), Z features, T treatments. The covariance is that of the rows about the mean of their own
treatment, so the whole screen says which differences mean nothing, not the controls alone. Names of treatments are
used, mechanisms never. docs/scoring.md, "Few cells per well".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from phenolens.core.errors import InputError
from phenolens.profiles.profiles import METADATA, metadata, noise_flags
from phenolens.profiles.validate import SMALLEST_SPREAD, feature_matrix
from phenolens.profiles.whitening import Fit, Recipe, Whitening, eigen, regularised, rotation
from phenolens.profiles.whitening_certificate import certificate_of, rank_of

if TYPE_CHECKING:
    from anndata import AnnData

GROUP = "rows within their treatments"


@dataclass(frozen=True)
class Moments:
    """Sums over the rows of all tables, about `shift`, which keeps the squares small compared with the spread."""

    names: np.ndarray  # (Z,) of the features
    shift: np.ndarray  # (Z,)
    squares: np.ndarray  # (Z, Z) of the rows
    of_treatments: np.ndarray  # (T, Z) of each treatment's rows
    sizes: np.ndarray  # (T,) rows of each treatment

    @property
    def n(self) -> int:
        """Rows of all treatments."""
        return int(self.sizes.sum())

    @property
    def mean(self) -> np.ndarray:
        """The mean of the rows (Z,), about `shift`."""
        return self.of_treatments.sum(axis=0) / self.n

    @property
    def variance(self) -> np.ndarray:
        """The variance of the rows (Z,) about the mean of all."""
        return (np.diag(self.squares) / self.n - self.mean**2).clip(min=0)

    @property
    def covariance_within(self) -> np.ndarray:
        """The covariance of the rows (Z, Z) about the mean of their own treatment."""
        return (self.squares - (self.of_treatments / self.sizes[:, None]).T @ self.of_treatments) / self.n


def fit_within_treatments(tables: Iterable[AnnData], recipe: Recipe) -> Whitening:
    """Fit on the rows of all tables, read once, one after the other; rows that are noise are left out.

    Args:
        tables: of the same features, with `Metadata_Treatment`; the plates of a study, or one table.
        recipe: its ridge (in units of the scaled features), and `zca` or `pca`.

    Raises:
        InputError: a setting of the recipe that belongs to controls, fewer than two rows of every treatment, NaN.
    """
    _refuse_settings_of_controls(recipe)
    moments = _moments(tables)
    variance = moments.variance
    constant = variance <= SMALLEST_SPREAD**2
    if constant.any() and recipe.constant_features == "refused":
        raise InputError(
            f'profiles: feature "{moments.names[int(constant.argmax())]}" ({int(constant.sum())} such of '
            f"{len(constant)}) has no spread, so it cannot be scaled; have such features left out "
            '(--constant-features "left out")'
        )
    centre, deviation = (moments.shift + moments.mean)[~constant], np.sqrt(variance[~constant])
    covariance = moments.covariance_within[np.ix_(~constant, ~constant)] / np.outer(deviation, deviation)
    fit = _fit_rotation_within(covariance, recipe, n=moments.n, n_treatments=len(moments.sizes))
    return Whitening.of(recipe, moments.names, constant, {"all": (centre, deviation)}, {"all": fit})


def _refuse_settings_of_controls(recipe: Recipe) -> None:
    """InputError on a setting that only a fit on controls has."""
    fixed = {"scaled_over": "all", "whitened_over": "all", "scaling": "zscore", "estimate": "sample", "coral": "none"}
    for name, value in fixed.items():
        if getattr(recipe, name) != value:
            flag = f"--{name.replace('_', '-')} {getattr(recipe, name)}"
            raise InputError(f"{flag}: --learnt-on treatments supports only {value}; leave it out")


def _moments(tables: Iterable[AnnData]) -> Moments:
    """The sums over all tables; InputError where no treatment is repeated."""
    names, shift, squares = np.empty(0, object), np.zeros(0), np.zeros((0, 0))
    sums: dict[str, np.ndarray] = {}
    sizes: dict[str, int] = {}
    for table in tables:
        rows = table
        if METADATA["is_noise"] in table.obs:
            rows = table[~noise_flags(table.obs[METADATA["is_noise"]], what="cells")]
        x = feature_matrix(rows)
        if not sizes:
            names, shift = np.asarray(rows.var_names, object), x.mean(axis=0)
            squares = np.zeros((x.shape[1], x.shape[1]))
        x = x - shift
        squares += x.T @ x
        codes, found = pd.factorize(metadata(rows, ("treatment",))["treatment"].astype(str))
        for code, treatment in enumerate(found):
            own_rows = x[codes == code]
            sums[treatment] = sums.get(treatment, np.zeros(len(shift))) + own_rows.sum(axis=0)
            sizes[treatment] = sizes.get(treatment, 0) + len(own_rows)
    n = sum(sizes.values())
    if n <= len(sizes):
        raise InputError(f"profiles: {n} rows of {len(sizes)} treatments; whitening within treatments needs repeats")
    return Moments(names, shift, squares, np.stack(list(sums.values())), np.array(list(sizes.values())))


def _fit_rotation_within(covariance: np.ndarray, recipe: Recipe, *, n: int, n_treatments: int) -> Fit:
    """The rotation from the covariance (Z, Z) of the scaled rows within their treatments."""
    values, vectors = eigen(covariance)
    kept, ridge = regularised(values, recipe)
    rank, whitened = rank_of(values, n), recipe.whitening != "none"
    if whitened and (kept[-1] <= 0 or (not ridge and rank < len(kept))):
        raise InputError(
            f"profiles: {n} rows of {n_treatments} treatments vary in {rank} of {len(values)} directions; "
            "give a --ridge"
        )
    matrix = rotation(vectors, kept, recipe)
    achieved = matrix.T @ covariance @ matrix
    spanned = (values[: len(kept)] / kept if whitened else values)[:rank]
    return Fit(
        (np.zeros(len(values)), matrix),
        certificate_of(GROUP, values, kept, achieved, spanned, n_rows=n, rank=rank, ridge=ridge, recipe=recipe),
    )
