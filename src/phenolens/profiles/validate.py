"""Check that the features of a table are finite numbers.

N rows (cells, wells or treatments), Z features.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Sequence
from decimal import Decimal
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.names import shortened
from phenolens.profiles.column_flags import flag_of
from phenolens.screens.decimal_signs import NO_VALUE

if TYPE_CHECKING:
    from anndata import AnnData

# Squares of larger numbers overflow in float64, whose largest is 1.8e308; squares of smaller spreads are lost in it.
LARGEST, SMALLEST_SPREAD = 1e150, 1e-150
WITH_MORE = re.compile(r"[-+<>~]*\s*\d[\d., ]*(?:[eE][-+]?\d+)?\s*[^\d\s:/-]{0,6}")  # a number with a unit, or 1,234.5
ROWS_AT_A_TIME = 4096  # of which a copy is made


def feature_matrix(table: AnnData, *, what: str = "profiles") -> np.ndarray:
    """The features of `table` as a new float64 array (N, Z).

    InputError on an empty table, text, and numbers that are NaN, infinite or too large, with the first place and their
    count; `what` names the rows in the message.
    """
    numbers = number_matrix(table, what=what)
    bad = ~np.isfinite(numbers)
    if bad.any():
        raise InputError(first_bad_place(numbers, bad, table, what=what))
    refuse_too_large(numbers, table.var_names, what=what)
    return numbers.astype(np.float64)


def number_matrix(table: AnnData, *, what: str, text_is_missing: bool = False) -> np.ndarray:
    """The features of `table` (N, Z) as numbers, NaN and infinity included; not copied where they are numbers.

    InputError for text; with `text_is_missing` it is NaN in a feature that does not hold more text than numbers. Words
    that stand for no value (`n.d.`, `#DIV/0!`, `?`) make no feature one of text.
    """
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
    numbers = np.stack([as_numbers(column) for column in dense.T], axis=1)
    text = np.isnan(numbers) & pd.notna(dense)
    others = text.copy()
    others[text] = [NO_VALUE.fullmatch(str(value)) is None for value in dense[text]]
    of_text = others.sum(axis=0) > (pd.notna(dense) & ~text).sum(axis=0)
    if of_text.any() or (text.any() and not text_is_missing):
        features = of_text if of_text.any() else text.any(axis=0)
        column = int(features.argmax())
        row = int(text[:, column].argmax())
        remedy = _set_aside(table.var_names[features], dense[row, column]) if of_text.any() else _left_out(text)
        raise InputError(
            f'{what}: row "{table.obs_names[row]}", feature "{table.var_names[column]}" holds "{dense[row, column]}", '
            f"which is not a number{remedy}"
        )
    return numbers


def _set_aside(names: Sequence[str], first: object) -> str:
    """What to do with features that hold text, the first of which is given, and how many there are."""
    several = len(names) > 1
    count = f" ({len(names):,} columns hold text or dates: {shortened(names, 4)})" if several else ""
    to_read = [f"{flag} {shlex.quote(name)}" for name in names if (flag := flag_of(name))]
    read = f"read {'them' if several else 'it'} ({shortened(to_read)}), " if to_read else ""
    if WITH_MORE.fullmatch(str(first)):
        read += "write numbers alone, without units or signs for thousands, "
    return (
        f"{count}; {read}name {'such columns' if several else 'that column'} as metadata (--metadata), or remove "
        f"{'them' if several else 'it'}"
    )


def _left_out(text: np.ndarray) -> str:
    """What to do with text (N, Z) in some rows of features that hold numbers, and how much of it there is."""
    n_rows, n_features = (int(text.any(axis=axis).sum()) for axis in (1, 0))
    return (
        f" ({counted(int(text.sum()), 'such value')} in {counted(n_rows, 'row')} and "
        f"{counted(n_features, 'feature')}); correct it, or have the rows left out (--non-finite rows) or the features "
        "(--non-finite features)"
    )


def as_numbers(column: np.ndarray) -> np.ndarray:
    """A feature (N,) as numbers, NaN for what is none."""
    if column.dtype.kind in "fiub":
        return column.astype(np.float64)
    values = pd.Series(column, dtype=object)
    readable = values.where(values.map(_is_number))  # a date would be a number of nanoseconds
    return pd.to_numeric(readable, errors="coerce").to_numpy(np.float64)


def _is_number(value: object) -> bool:
    """Whether a value is a number, or text that may be one; dates, durations and complex numbers are not."""
    return isinstance(value, Real | Decimal | str) and not isinstance(value, np.timedelta64)


def refuse_too_large(numbers: np.ndarray, names: Sequence[str] | np.ndarray, *, what: str, after: str = "") -> None:
    """InputError that names the first feature with a number beyond LARGEST (N, Z); `after` is what was done to it."""
    if not numbers.size or numbers.dtype.kind in "iub":
        return
    with np.errstate(all="ignore"):
        if numbers.dtype.itemsize <= 4 and np.isfinite(numbers.sum()):
            return  # float32 ends below LARGEST, and the sum shows NaN and infinity in one pass
    largest = np.maximum(numbers.max(axis=0), -numbers.min(axis=0)).astype(np.float64)
    bad = ~(largest <= LARGEST)
    if bad.any():
        raise InputError(
            f'{what}: feature "{names[int(bad.argmax())]}" holds {largest[bad.argmax()]:.3g}{after} '
            f"({counted(int(bad.sum()), 'such feature')} of {len(bad):,}), too large to be squared in float64; "
            "convert it to another unit, or remove it"
        )


def first_bad_place(numbers: np.ndarray, bad: np.ndarray, table: AnnData, *, what: str) -> str:
    """One line on the first of the values marked in `bad` (N, Z), how many there are and what to do."""
    row, column = (int(axis[0]) for axis in np.nonzero(bad))
    n_features = int(bad.any(axis=0).sum())
    return (
        f'{what}: {numbers[row, column]} at row "{table.obs_names[row]}", feature "{table.var_names[column]}" '
        f"({counted(int(bad.sum()), 'such value')} in {n_features} of {counted(table.n_vars, 'feature')}); expected "
        "finite numbers: repair the table, or have them left out (--non-finite features, or rows)"
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


def repeated_rows(numbers: np.ndarray, *, seen: set[bytes] | None = None) -> np.ndarray:
    """Which rows (N, Z) hold exactly the numbers of an earlier row, whatever their type: (N,) bool.

    `seen` holds the rows of earlier parts, as digests of 16 bytes, and takes those of this one. Text is never equal.
    """
    seen = set() if seen is None else seen
    repeated = np.zeros(len(numbers), dtype=bool)
    if numbers.dtype.kind not in "fiub":
        return repeated
    for start in range(0, len(numbers), ROWS_AT_A_TIME):
        block = np.ascontiguousarray(numbers[start : start + ROWS_AT_A_TIME], dtype=np.float64) + 0.0  # -0.0 is 0.0
        for place, row in enumerate(block, start):
            digest = hashlib.blake2b(row.tobytes(), digest_size=16).digest()
            repeated[place] = digest in seen
            seen.add(digest)
    return repeated


def refuse_repeated_rows(table: AnnData, *, what: str) -> None:
    """InputError that names the first row that holds exactly the numbers of an earlier one."""
    numbers = np.asarray(table.X)
    repeated = repeated_rows(numbers)
    if repeated.any():
        row = int(repeated.argmax())
        first = int((numbers == numbers[row]).all(axis=1).argmax())
        raise InputError(
            f'{what}: row "{table.obs_names[row]}" repeats row "{table.obs_names[first]}" in all {table.n_vars} '
            f"features ({counted(int(repeated.sum()), 'such row')} of {table.n_obs:,}): they have the same "
            "images; correct them"
        )


def constant_features(numbers: np.ndarray) -> np.ndarray:
    """Which features have one and the same value in all rows: (N, Z) -> (Z,) bool.

    Compared as they are, since the deviation of a constant 0.1 is not exactly 0 in floating point.
    """
    return numbers.max(axis=0) == numbers.min(axis=0)
