"""Whiten by how rows vary within their treatments, and align batches by the treatments that are in several.

N rows (cells or wells), Z features, T treatments, B batches (or plates). The covariance is that of the rows about the
mean of their own treatment, so the whole screen says which differences mean nothing, not the controls alone. Names of
treatments are used, mechanisms never. docs/definitions.md, "The headline's recipe".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd

from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.profiles.covariance import eigen, rank_of
from phenolens.profiles.profiles import METADATA, metadata, noise_flags
from phenolens.profiles.validate import SMALLEST_SPREAD, feature_matrix
from phenolens.profiles.whitening import Extent, Fit, Recipe, Whitening, regularised, rotation
from phenolens.profiles.whitening_certificate import certificate_of

if TYPE_CHECKING:
    from anndata import AnnData

GROUP = "rows within their treatments"
SHRINKAGE = 100  # n rows say n / (n + 100) of their batch's effect; fixed on simulated screens (docs/results.md)


@dataclass(frozen=True)
class Moments:
    """Sums over the rows of all tables, about `shift`, which keeps the squares small compared with the spread.

    A part holds the rows of one treatment in one batch; there are P of them. Without alignment all rows are one batch.
    """

    names: np.ndarray  # (Z,) of the features
    shift: np.ndarray  # (Z,)
    squares: np.ndarray  # (Z, Z) of the rows
    parts: pd.DataFrame  # (P, ...): the codes `treatment` and `batch`, and the number of `rows`
    sums: np.ndarray  # (P, Z) of each part's rows
    batches: list[str]  # (B,) names

    @property
    def n(self) -> int:
        """Rows of all treatments."""
        return int(self.parts["rows"].sum())

    @property
    def n_treatments(self) -> int:
        """How many treatments there are."""
        return int(self.parts["treatment"].max()) + 1

    @property
    def mean(self) -> np.ndarray:
        """The mean of the rows (Z,), about `shift`."""
        return self.sums.sum(axis=0) / self.n

    @property
    def variance(self) -> np.ndarray:
        """The variance of the rows (Z,) about the mean of all."""
        return (np.diag(self.squares) / self.n - self.mean**2).clip(min=0)

    @property
    def repeated(self) -> pd.Series:
        """Which parts (P,) are of a treatment that is in several batches."""
        return self.parts["treatment"].duplicated(keep=False)

    @property
    def covariance_within(self) -> np.ndarray:
        """The covariance of the rows (Z, Z) about the mean of their own treatment."""
        sums, rows = self._by("treatment", self.sums), self._by("treatment", self.parts["rows"])
        return (self.squares - (sums / rows[:, None]).T @ sums) / self.n

    def batch_effects(self) -> np.ndarray:
        """The mean of each batch's rows (B, Z) about the means of their repeated treatments, shrunken; 0 without."""
        rows, repeated = self.parts["rows"].to_numpy(), self.repeated.to_numpy()
        means = self._by("treatment", self.sums) / self._by("treatment", rows)[:, None]
        residuals = (self.sums - rows[:, None] * means[self.parts["treatment"]]) * repeated[:, None]
        return self._by("batch", residuals) / (self._by("batch", rows * repeated) + SHRINKAGE)[:, None]

    def without(self, effects: np.ndarray) -> Moments:
        """The moments of the rows less the effect (B, Z) of their batch."""
        cross = self._by("batch", self.sums).T @ effects
        rows = self._by("batch", self.parts["rows"])
        squares = self.squares - cross - cross.T + (effects.T * rows) @ effects
        sums = self.sums - self.parts["rows"].to_numpy()[:, None] * effects[self.parts["batch"]]
        return replace(self, squares=squares, sums=sums)

    def _by(self, code: str, values: np.ndarray | pd.Series) -> np.ndarray:
        """Sums of values of the parts (P, ...) by treatment or batch."""
        codes, of_parts = self.parts[code].to_numpy(), np.asarray(values, dtype=np.float64)
        sums = np.zeros((codes.max() + 1, *of_parts.shape[1:]))
        np.add.at(sums, codes, of_parts)
        return sums


def fit_within_treatments(tables: Iterable[AnnData], recipe: Recipe) -> Whitening:
    """Fit on the rows of all tables, read once, one after the other; rows that are noise are left out.

    Args:
        tables: of the same features, with `Metadata_Treatment`; the plates of a study, or one table.
        recipe: its ridge (in units of the scaled features), `zca` or `pca`, and what is aligned: `scaled_over`.

    Raises:
        InputError: a setting of the recipe that belongs to controls, fewer than two rows of every treatment, NaN.
    """
    _refuse_settings_of_controls(recipe)
    moments = _moments(tables, recipe.scaled_over)
    variance = moments.variance
    constant = variance <= SMALLEST_SPREAD**2
    if constant.any() and recipe.constant_features == "refused":
        raise InputError(
            f'profiles: feature "{moments.names[int(constant.argmax())]}" ({int(constant.sum())} such of '
            f"{len(constant)}) has no spread, so it cannot be scaled; have such features left out "
            '(--constant-features "left out")'
        )
    deviation = np.sqrt(variance[~constant])
    effects = moments.batch_effects()
    centres = (moments.shift + moments.mean + effects)[:, ~constant]
    covariance = moments.without(effects).covariance_within[np.ix_(~constant, ~constant)]
    fit = _fit_rotation_within(
        covariance / np.outer(deviation, deviation), recipe, n=moments.n, n_treatments=moments.n_treatments
    )
    if recipe.scaled_over != "all":
        remarks = (*fit.certificate.remarks, _aligned_by(moments, recipe.scaled_over))
        fit = fit._replace(certificate=replace(fit.certificate, remarks=remarks))
    centre_and_scale = {batch: (centre, deviation) for batch, centre in zip(moments.batches, centres, strict=True)}
    return Whitening.of(recipe, moments.names, constant, centre_and_scale, {"all": fit})


def _refuse_settings_of_controls(recipe: Recipe) -> None:
    """InputError on a setting that only a fit on controls has."""
    fixed: dict[str, str | None] = {"whitened_over": "all", "scaling": "zscore", "estimate": "sample", "coral": "none"}
    fixed["largest_deviation"] = None
    for name, value in fixed.items():
        if getattr(recipe, name) != value:
            flag = f"--{name.replace('_', '-')} {getattr(recipe, name)}"
            other = "does not support it" if value is None else f"supports only {value}"
            raise InputError(f"{flag}: --learnt-on treatments {other}; leave it out")


def _moments(tables: Iterable[AnnData], aligned: Extent) -> Moments:
    """The sums over all tables; InputError where no treatment is repeated."""
    names, shift, squares = np.empty(0, object), np.zeros(0), np.zeros((0, 0))
    sums: dict[tuple[str, str], np.ndarray] = {}
    counts: dict[tuple[str, str], int] = {}
    for table in tables:
        rows = table
        if METADATA["is_noise"] in table.obs:
            rows = table[~noise_flags(table.obs[METADATA["is_noise"]])]
        x = feature_matrix(rows)
        if not sums:
            names, shift = np.asarray(rows.var_names, object), x.mean(axis=0)
            squares = np.zeros((x.shape[1], x.shape[1]))
        x = x - shift
        squares += x.T @ x
        for part, own in _parts(rows, aligned):
            sums[part] = sums.get(part, 0) + x[own].sum(axis=0)
            counts[part] = counts.get(part, 0) + len(own)
    treatment, treatments = pd.factorize(pd.Series([part[0] for part in sums]))
    batch, batches = pd.factorize(pd.Series([part[1] for part in sums]), sort=True)
    parts = pd.DataFrame({"treatment": treatment, "batch": batch, "rows": list(counts.values())})
    moments = Moments(names, shift, squares, parts, np.stack(list(sums.values())), [*batches])
    if moments.n <= len(treatments):
        raise InputError(
            f"profiles: {moments.n} rows of {len(treatments)} treatments; whitening within treatments needs repeats"
        )
    return moments


def _parts(rows: AnnData, aligned: Extent) -> Iterator[tuple[tuple[str, str], np.ndarray]]:
    """The treatment and batch of each part, and the positions of its rows."""
    columns = ("treatment",) if aligned == "all" else ("treatment", aligned)
    obs = metadata(rows, columns).assign(all="all")
    for part, own in obs.groupby(["treatment", aligned], sort=False).indices.items():
        treatment, batch = cast("tuple[str, str]", part)
        yield (treatment, batch), np.asarray(own)


def _aligned_by(moments: Moments, extent: Extent) -> str:
    """The alignment of batches as a remark."""
    repeated = moments.parts[moments.repeated]
    if repeated.empty:
        return f"no treatment is in more than one {extent}, so none is aligned"
    rows = repeated.groupby("batch")["rows"].sum().reindex(range(len(moments.batches)), fill_value=0)
    n = repeated["treatment"].nunique()
    return (
        f"every {extent} is aligned by the {counted(n, 'treatment')} that {'is' if n == 1 else 'are'} in several: "
        f"{rows.min():,} to {rows.max():,} rows in each"
    )


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
