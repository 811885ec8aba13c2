"""The numbers of a table of profiles, checked: all of them finite, none of them text.

N rows (cells, wells or treatments), Z features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from phenolens.errors import InputError

if TYPE_CHECKING:
    from anndata import AnnData


def feature_matrix(table: AnnData, *, what: str = "profiles") -> np.ndarray:
    """The features of `table` as a new float64 array (N, Z); InputError on anything that cannot be computed with.

    `what` names the rows in the message: an empty table, text, a NaN or an infinite number, named with the first
    place and the count.
    """
    numbers = number_matrix(table, what=what)
    bad = ~np.isfinite(numbers)
    if bad.any():
        raise InputError(first_bad_place(numbers, bad, table, what=what))
    return numbers.astype(np.float64)


def number_matrix(table: AnnData, *, what: str) -> np.ndarray:
    """The features of `table` (N, Z) as numbers, not copied where they are; NaN and infinity may still stand."""
    if table.n_obs == 0 or table.n_vars == 0:
        raise InputError(f"{what}: {table.n_obs} rows and {table.n_vars} features; expected at least one of each")
    if table.isbacked:
        table = table.to_memory()
    stored: Any = table.X
    if stored is None:
        raise InputError(f"{what}: the table has no features (X is empty); expected rows x features")
    dense = np.asarray(stored if isinstance(stored, np.ndarray) else stored.toarray())  # no view into the table
    if dense.dtype.kind in "fiub":
        return dense
    for row, column in np.ndindex(dense.shape):
        try:
            float(dense[row, column])
        except (TypeError, ValueError):
            place = f'row "{table.obs_names[row]}", feature "{table.var_names[column]}"'
            raise InputError(
                f'{what}: {place} holds "{dense[row, column]}", which is no number; name that column as metadata or '
                "remove it"
            ) from None
    return dense.astype(np.float64)


def first_bad_place(numbers: np.ndarray, bad: np.ndarray, table: AnnData, *, what: str) -> str:
    """One line on the first of the values marked in `bad` (N, Z), how many there are and what to do."""
    row, column = (int(axis[0]) for axis in np.nonzero(bad))
    n_features = int(bad.any(axis=0).sum())
    return (
        f'{what}: {numbers[row, column]} at row "{table.obs_names[row]}", feature "{table.var_names[column]}" '
        f"({int(bad.sum())} such values in {n_features} of {table.n_vars} features); expected finite numbers: "
        "repair the table, or ask for those features or cells to be left out"
    )


def constant_features(numbers: np.ndarray) -> np.ndarray:
    """Which features have one and the same value in all rows: (N, Z) -> (Z,) bool.

    Compared as they are, since the deviation of a constant 0.1 is not exactly 0 in floating point.
    """
    return numbers.max(axis=0) == numbers.min(axis=0)
