"""Read a table of comma-separated values; what is wrong with it is one line."""

import zlib
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from phenolens.core.errors import InputError


def read_csv(
    path: Path,
    *,
    columns: Iterable[str],
    text: Collection[str] = (),
    separator: str = ",",
    as_written: bool = False,
) -> pd.DataFrame:
    """The table in `path` (may end in .gz; its lines in LF, CRLF or CR alone), which has at least `columns`.

    Columns named in `text` stay as written (plate 007 is not 7); with `as_written` also "", "None" and "nan", which
    are otherwise missing values. Raises InputError if the file is missing, not a table, empty, or lacks a column.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a table with the columns {', '.join(columns)}")
    kinds = {"converters": dict.fromkeys(text, str)} if as_written else {"dtype": dict.fromkeys(text, str)}
    table = _parsed(path, low_memory=False, sep=separator, **kinds)
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise InputError(f"{path}: no column {', '.join(missing)} (found: {', '.join(map(str, table.columns))})")
    if table.empty:
        raise InputError(f"{path}: no rows below the column names; replace it")
    return table


def column_names(path: Path, *, separator: str = ",") -> list[str]:
    """The names in a table's first line as written, duplicates too ("" where there is none)."""
    first = _parsed(Path(path), header=None, nrows=1, dtype=str, keep_default_na=False, sep=separator)
    return [str(name) for name in first.iloc[0]]


def _parsed(path: Path, **how: Any) -> pd.DataFrame:
    try:
        return pd.read_csv(path, encoding="utf-8-sig", **how)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error}); save it as UTF-8") from error
    except (ValueError, EOFError, OSError, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a table of comma-separated values ({reason}); replace it") from error


def numbers(table: pd.DataFrame, column: str, *, source: str, whole: bool = False) -> pd.Series:
    """A column as finite numbers, or as whole numbers from 1; InputError names the first row with another value."""
    values = pd.to_numeric(table[column], errors="coerce")
    bad = ~np.isfinite(values.to_numpy(float))
    if whole:
        bad |= ((values % 1 != 0) | (values < 1)).to_numpy()
    expected = "a whole number from 1" if whole else "a number"
    refuse_rows(bad, table[column], expected=expected, source=source)
    return values.astype(int) if whole else values


def refuse_rows(
    bad: pd.Series | np.ndarray, values: pd.Series, *, expected: str, source: str, places: np.ndarray | None = None
) -> None:
    """InputError with the first bad value of a column and what was expected (the row below the column names is 2).

    With `places`, the rows' places in their file from 0, rows are counted from 1.
    """
    is_bad = np.asarray(bad, bool)
    if is_bad.any():
        row = int(is_bad.argmax())
        number = row + 2 if places is None else int(places[row]) + 1
        raise InputError(
            f'{source}, row {number}: {values.name} is "{values.iloc[row]}", expected {expected} '
            f"({int(is_bad.sum()):,} such rows); correct the table"
        )


def refuse_repeated(table: pd.DataFrame, keys: Sequence[str], *, source: str, expected: str) -> None:
    """InputError when two rows have the same `keys`; `expected` ends the message: `one row per well`."""
    twice = table.duplicated(list(keys))
    if twice.any():
        row = table[twice].iloc[0]
        where = ", ".join(f"{key} {row[key]}" for key in keys)
        raise InputError(f"{source}: {where} occurs twice ({int(twice.sum()):,} such rows); expected {expected}")
