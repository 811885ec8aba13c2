"""The numbers of a table of profiles, checked: all of them finite, none of them text.

N rows (cells, wells or treatments), Z features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

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
                f'{what}: {place} holds "{dense[row, column]}", which is no number; name that column as '
                "metadata (--metadata), or remove it"
            ) from None
    return dense.astype(np.float64)


def first_bad_place(numbers: np.ndarray, bad: np.ndarray, table: AnnData, *, what: str) -> str:
    """One line on the first of the values marked in `bad` (N, Z), how many there are and what to do."""
    row, column = (int(axis[0]) for axis in np.nonzero(bad))
    n_features = int(bad.any(axis=0).sum())
    return (
        f'{what}: {numbers[row, column]} at row "{table.obs_names[row]}", feature "{table.var_names[column]}" '
        f"({int(bad.sum())} such values in {n_features} of {table.n_vars} features); expected finite numbers: "
        "repair the table, or have them left out (--non-finite features, or rows)"
    )


def without_non_finite(table: AnnData, *, left_out: Literal["features", "rows"]) -> tuple[AnnData, list[str]]:
    """The table without the features (or rows) that hold a NaN or infinity, and the names of those left out.

    InputError where nothing is left.
    """
    bad = ~np.isfinite(number_matrix(table, what="profiles"))
    over = bad.any(axis=0 if left_out == "features" else 1)
    names = np.asarray(table.var_names if left_out == "features" else table.obs_names)
    if over.all():
        raise InputError(f"profiles: every one of the {len(names)} {left_out} holds a value that is not finite")
    kept = table[:, ~over] if left_out == "features" else table[~over]
    return kept.copy(), [str(name) for name in names[over]]


def repeated_rows(numbers: np.ndarray) -> np.ndarray:
    """Which rows (N, Z) hold exactly the numbers of an earlier row: (N,) bool."""
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(row.tobytes(), place) != place for place, row in enumerate(numbers)], dtype=bool)


def constant_features(numbers: np.ndarray) -> np.ndarray:
    """Which features have one and the same value in all rows: (N, Z) -> (Z,) bool.

    Compared as they are, since the deviation of a constant 0.1 is not exactly 0 in floating point.
    """
    return numbers.max(axis=0) == numbers.min(axis=0)
