"""Whiten by how rows vary within their treatments, for screens with few cells per well or few control wells.

N rows (cells or wells), Z features, T treatments. The covariance is that of the rows about the mean of their own
treatment, so the whole screen says which differences mean nothing, not the controls alone. Names of treatments are
used, mechanisms never. docs/scoring.md, "Few cells per well".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from phenolens.core.errors import InputError
from phenolens.profiles.profiles import METADATA, metadata, noise_flags
from phenolens.profiles.validate import SMALLEST_SPREAD, feature_matrix
from phenolens.profiles.whitening import Certificate, Recipe, Whitening, rank_of, regularised, rotation

if TYPE_CHECKING:
    from anndata import AnnData

GROUP = "rows within their treatments"


def fit_within_treatments(tables: Iterable[AnnData], recipe: Recipe) -> Whitening:
    """Fit on the rows of all tables, read once, one after the other; rows that are noise are left out.

    Args:
        tables: of the same features, with `Metadata_Treatment`; the plates of a study, or one table.
        recipe: its ridge (in units of the scaled features), and `zca` or `pca`.

    Raises:
        InputError: a setting of the recipe that belongs to controls, fewer than two rows of every treatment, NaN.
    """
    fixed = {"scaled_over": "all", "whitened_over": "all", "scaling": "zscore", "estimate": "sample", "coral": "none"}
    for name, value in fixed.items():
        if getattr(recipe, name) != value:
            flag = f"--{name.replace('_', '-')} {getattr(recipe, name)}"
            raise InputError(f"{flag}: --learnt-on treatments has {value} alone; leave it out")
    n, shift, names = 0, np.zeros(0), pd.Index([])
    sums: dict[str, np.ndarray] = {}
    counts: dict[str, int] = {}
    squares = np.zeros((0, 0))
    for table in tables:
        rows = table
        if METADATA["is_noise"] in table.obs:
            rows = table[~noise_flags(table.obs[METADATA["is_noise"]], what="cells")]
        x = feature_matrix(rows)
        if not n:
            names, shift = rows.var_names, x.mean(axis=0)  # keeps the squares small compared with the spread
            squares = np.zeros((x.shape[1], x.shape[1]))
        x = x - shift
        squares += x.T @ x
        n += len(x)
        codes, found = pd.factorize(metadata(rows, ("treatment",))["treatment"].astype(str))
        for code, treatment in enumerate(found):
            own_rows = x[codes == code]
            sums[treatment] = sums.get(treatment, np.zeros(len(shift))) + own_rows.sum(axis=0)
            counts[treatment] = counts.get(treatment, 0) + len(own_rows)
    if n <= len(counts):
        raise InputError(f"profiles: {n} rows of {len(counts)} treatments; whitening within treatments needs repeats")
    of_treatments, sizes = np.stack(list(sums.values())), np.array(list(counts.values()))
    mean = of_treatments.sum(axis=0) / n
    within = squares - (of_treatments / sizes[:, None]).T @ of_treatments
    variance = (np.diag(squares) / n - mean**2).clip(min=0)
    constant = variance <= SMALLEST_SPREAD**2
    if constant.any() and recipe.constant_features == "refused":
        raise InputError(
            f'profiles: feature "{names[int(constant.argmax())]}" ({int(constant.sum())} such of {len(names)}) has no '
            'spread, so it cannot be scaled; have such features left out (--constant-features "left out")'
        )
    deviation = np.sqrt(variance[~constant])
    covariance = within[np.ix_(~constant, ~constant)] / n / np.outer(deviation, deviation)
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1].clip(min=0), vectors[:, ::-1]
    kept, ridge = regularised(values, recipe)
    n_features, n_kept, rank = len(values), len(kept), rank_of(values, n)
    if kept[-1] <= 0 or (not ridge and rank < n_kept):
        raise InputError(
            f"profiles: {n} rows of {len(counts)} treatments vary in {rank} of {n_features} directions; give a --ridge"
        )
    matrix = rotation(vectors, kept, recipe)
    spanned = values[: min(rank, n_kept)] / kept[: min(rank, n_kept)]
    certificate = Certificate(
        group=GROUP,
        n_rows=n,
        n_features=n_features,
        rank=rank,
        ridge=ridge,
        condition_number=float(kept[0] / kept[-1]),
        largest_deviation=float(np.abs(matrix.T @ covariance @ matrix - np.eye(matrix.shape[1])).max()),
        remarks=(),
        spanned_variance=(float(spanned.min()), float(spanned.max())),
    )
    return Whitening(
        recipe=recipe,
        features=tuple(names[~constant]),
        constant_features=tuple(names[constant]),
        centre_and_scale={"all": ((shift + mean)[~constant], deviation)},
        centre_and_matrix={"all": (np.zeros(n_features), matrix)} if recipe.whitening != "none" else {},
        alignment={},
        certificates=(certificate,),
    )
