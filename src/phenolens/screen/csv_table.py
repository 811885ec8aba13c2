"""Read a table of comma-separated values, and say in one line what is wrong with it."""

import zlib
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from phenolens.errors import InputError


def read_csv(path: Path, *, columns: Iterable[str], text: Collection[str] = (), separator: str = ",") -> pd.DataFrame:
    """The table in `path` (may end in .gz; its lines in LF, CRLF or CR alone), which has at least `columns`.

    Columns named in `text` stay as they are written (plate 007 is not 7). Raises InputError when it is missing, no such
    table, empty, or lacks a column.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a table with the columns {', '.join(columns)}")
    try:
        table = pd.read_csv(path, encoding="utf-8-sig", low_memory=False, sep=separator, dtype=dict.fromkeys(text, str))
    except (ValueError, EOFError, OSError, zlib.error) as error:
        raise InputError(f"{path}: not a table of comma-separated values ({error}); replace it") from error
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise InputError(f"{path}: no column {', '.join(missing)} (found: {', '.join(map(str, table.columns))})")
    if table.empty:
        raise InputError(f"{path}: no rows below the column names; replace it")
    return table


def numbers(table: pd.DataFrame, column: str, *, source: str) -> pd.Series:
    """A column as finite numbers; InputError that names the first row where it is none (the first row is 2)."""
    values = pd.to_numeric(table[column], errors="coerce")
    bad = ~np.isfinite(values.to_numpy(float))
    if bad.any():
        first = int(bad.argmax())
        raise InputError(
            f'{source}, row {first + 2}: {column} is "{table[column].iloc[first]}", expected a number '
            f"({int(bad.sum()):,} such rows); correct the table"
        )
    return values
