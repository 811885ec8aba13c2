"""Read a table: comma-, tab- or semicolon-separated text, Excel or Parquet; what is wrong with it is one line."""

import csv
import gzip
import re
import warnings
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from phenolens.core.counted import counted
from phenolens.core.errors import InputError, one_line
from phenolens.core.names import clean_names
from phenolens.screens.decimal_signs import decimal_points, refuse_thousands

SEPARATORS = (",", "\t", ";", "|")
EXCEL, OLD_EXCEL, PARQUET = (".xlsx", ".xlsm"), (".xls", ".xlsb", ".ods", ".numbers"), (".parquet",)
BINARY = {b"PK\x03\x04": "an Excel workbook", b"\xd0\xcf\x11\xe0": "an old Excel workbook", b"PAR1": "a Parquet file"}
LINES_TO_GUESS = 20  # the separator gives them all the same number of cells
LINES_OF_NUMBERS = 1_000  # that show what points and commas mean
HEAD_BYTES = 1 << 20
NAMES_COME_FIRST = "remove the lines above the column names, if there are any"
# What Excel makes of formulas that fail, of long numbers such as barcodes and names such as 2E5; and of SEPT2.
FAILED_OR_LONG = r"#(?:REF!|VALUE!|DIV/0!|NAME\?|NUM!|NULL!|SPILL!)|\d(?:[.,]\d+)?E\+\d\d"
DATES = r"\d{4}-\d\d-\d\d 00:00:00|\d{1,2}-(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"


def read_csv(
    path: Path,
    *,
    columns: Iterable[str] = (),
    text: Collection[str] | None = (),
    as_written: bool = False,
    only: Collection[str] | None = None,
) -> pd.DataFrame:
    """The table in `path`, which has at least `columns`.

    Text may be UTF-8 or UTF-16, gzipped, with lines in LF, CRLF or CR alone, and its cells separated by commas, tabs,
    semicolons or bars, whichever gives all lines the same number of cells. Numbers with a decimal comma are numbers
    where the cells are not separated by commas.

    Args:
        path: The file: `.xlsx`, `.parquet`, else text.
        columns: The names that it must have.
        text: Columns that stay as written (plate 007 is not 7); None for all, with an empty cell as NaN.
        as_written: In those of `text`, also "", "None" and "nan" stay, which are otherwise missing values.
        only: The columns to read; None for all.

    Raises:
        InputError: The file is missing, no table, empty, or lacks a column; a column has the name of another.
    """
    path, columns = Path(path), list(columns)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a table with the columns {', '.join(columns) or 'it needs'}")
    suffix = path.suffix.lower()
    if suffix in (*EXCEL, *PARQUET):
        table = _excel(path) if suffix in EXCEL else _parquet(path, only)
        for name in table.columns if text is None else set(text) & set(table.columns):
            written = table[name].map(_written, na_action="ignore").astype(object)
            table[name] = written.replace("", np.nan) if text is None else written.fillna("") if as_written else written
    else:
        table = _delimited(path, text, as_written, only)
    if only is None and not _is_filled(table.tail(1)).any():  # Excel writes rows of separators below a table
        filled = np.flatnonzero(_is_filled(table))
        table = table.iloc[: filled[-1] + 1 if len(filled) else 0]
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise InputError(f"{path}: no column {', '.join(missing)} (found: {', '.join(map(str, table.columns))})")
    if table.empty:
        raise InputError(f"{path}: no rows below the column names; replace it")
    return table


def _is_filled(rows: pd.DataFrame) -> pd.Series:
    """Whether each row has anything in a cell."""
    return rows.notna().where(rows.astype(str) != "", False).any(axis=1)


@dataclass(frozen=True)
class _Format:
    """How a file of delimited text is written."""

    encoding: str
    separator: str
    names: list[str]
    n_header: int  # lines before the first row


def _delimited(
    path: Path, text: Collection[str] | None, as_written: bool, only: Collection[str] | None
) -> pd.DataFrame:
    form = _format(path)
    refuse_repeated_names(list(filter(None, form.names)), path)
    if text is None:
        kinds: dict[str, Any] = {"dtype": str, "keep_default_na": False, "na_values": [""]}
    else:
        found = set(text) & set(form.names)
        kinds = {"converters": dict.fromkeys(found, str)} if as_written else {"dtype": dict.fromkeys(found, str)}
    names = [name or f"Unnamed: {place}" for place, name in enumerate(form.names)]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                path,
                encoding=form.encoding,
                sep=form.separator,
                header=None,
                names=names,
                usecols=None if only is None else [name for name in names if name in only],
                skiprows=form.n_header,
                index_col=False,
                skipinitialspace=True,
                low_memory=False,
                **kinds,
            )
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error}); save it as UTF-8") from error
    except (pd.errors.ParserWarning, pd.errors.ParserError) as error:
        raise InputError(f"{path}: {_longer_line(path, form) or one_line(error)}") from None
    except pd.errors.EmptyDataError:
        return pd.DataFrame(columns=names)
    except (ValueError, EOFError, OSError, zlib.error) as error:
        raise InputError(f"{path}: not a table of comma-separated values ({one_line(error)}); replace it") from error
    if form.separator != ",":
        kept = set() if text is None else set(text)
        for name in (name for name in map(str, table) if name not in kept and table[name].dtype == object):
            table[name] = decimal_points(table[name], are_decimal=form.separator == ";", as_text=text is None)
    return table


def _format(path: Path) -> _Format:
    """The encoding, separator and column names of a file of text, from its first lines."""
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except (EOFError, OSError, zlib.error) as error:
        raise InputError(f"{path}: not a table of comma-separated values ({error}); replace it") from error
    kind = next((kind for magic, kind in BINARY.items() if head.startswith(magic)), None)
    if kind or path.suffix.lower() in OLD_EXCEL:
        raise InputError(f"{path}: {kind or 'a workbook'}; save the sheet as .xlsx or CSV, and name it so")
    encoding = _encoding(head)
    try:
        start = head.decode(encoding, errors="strict" if len(head) < HEAD_BYTES else "ignore")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error}); save it as UTF-8") from error
    lines = re.split(r"\r\n|\r|\n", start)
    if len(head) == HEAD_BYTES and len(lines) > 1:
        lines.pop()  # cut off
    n_before = next((place for place, line in enumerate(lines) if line.strip(" ,;|\t")), None)
    if n_before is None:
        raise InputError(f"{path}: not a table of comma-separated values (no column names); replace it")
    stated = re.fullmatch(r'"?sep=(.)"?', lines[n_before].strip(), re.IGNORECASE)  # a first line of Excel's
    n_before += bool(stated)
    separator = stated[1] if stated else _separator(lines[n_before:])
    rows = list(islice(csv.reader(lines[n_before:], delimiter=separator, skipinitialspace=True), LINES_OF_NUMBERS))
    _refuse_title([sum(bool(cell.strip()) for cell in row) for row in rows[:LINES_TO_GUESS]], path)
    if separator != ",":
        refuse_thousands(rows, path, are_decimal=separator == ";")
    rows, names = rows[:2], [name.strip() for name in rows[0]]
    if len(rows) == 2 and len(set(names)) < len(names) == len(rows[1]) and "ImageNumber" in rows[1]:
        joined = [f"{of}_{name}" for of, name in zip(names, rows[1])]  # CellProfiler's combined objects
        return _Format(encoding, separator, joined, n_before + 2)
    return _Format(encoding, separator, names, n_before + 1)


def _longer_line(path: Path, form: _Format) -> str:
    """Which line has more cells than there are column names, and what to do; empty where none has."""
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    with opened(path, "rt", encoding=form.encoding, newline="") as file:
        reader = csv.reader(file, delimiter=form.separator, skipinitialspace=True)
        for row in reader:
            if len(row) > len(form.names) and reader.line_num > form.n_header:
                if len(row) == len(form.names) + 1 and reader.line_num == form.n_header + 1:
                    return (
                        f"line {reader.line_num:,} has {len(row)} cells, one more than line {form.n_header} has column "
                        "names; if rows begin with a name, as R writes them, write the table with row.names=FALSE"
                    )
                return (
                    f"line {reader.line_num:,} has {len(row)} cells, more than the {len(form.names)} column names in "
                    f"line {form.n_header}; {NAMES_COME_FIRST}, or correct that line"
                )
    return ""


def _refuse_title(n_filled: Sequence[int], path: Path) -> None:
    """InputError where the first of some lines, by their numbers of filled cells, is a title above a table."""
    if 2 * n_filled[0] < max(n_filled):
        raise InputError(
            f"{path}: the first line has {n_filled[0]} of {max(n_filled)} column names; {NAMES_COME_FIRST}"
        )


def _encoding(head: bytes) -> str:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if len(head) > 3 and 0 in head[:2]:  # without a byte order mark
        return "utf-16-be" if head[0] == 0 else "utf-16-le"
    return "utf-8-sig"


def _separator(lines: Sequence[str]) -> str:
    """What separates the cells of the first lines: it gives all of them the same number, more than one."""
    unquoted = [re.sub(r'"[^"]*"', "", line) for line in lines[:LINES_TO_GUESS] if line.strip()]
    counts = {mark: [line.count(mark) for line in unquoted] for mark in SEPARATORS}
    even = [mark for mark, n in counts.items() if n[0] and len(set(n)) == 1]
    return max(even or SEPARATORS, key=lambda mark: counts[mark][0])


def _excel(path: Path) -> pd.DataFrame:
    """The only sheet of a workbook that holds anything."""
    try:
        import openpyxl  # noqa: F401  # what pandas reads it with
    except ImportError:
        raise InputError(
            f"{path}: an Excel workbook, which needs openpyxl: pip install 'phenolens[excel]'; or save the sheet as CSV"
        ) from None
    try:
        sheets = pd.read_excel(
            path, sheet_name=None, engine="openpyxl", header=None, dtype=object, keep_default_na=False, na_values=[""]
        )
    except Exception as error:  # openpyxl raises many types
        raise InputError(
            f"{path}: not readable as an Excel workbook ({one_line(error)}); save the sheet as CSV"
        ) from error
    filled = {str(name): sheet.dropna(how="all") for name, sheet in sheets.items() if sheet.notna().any(axis=None)}
    if len(filled) != 1:
        raise InputError(
            f"{path}: an Excel workbook with {len(filled)} sheets that hold something ({', '.join(filled)}); expected "
            "one: save the sheet that is meant as CSV, or alone"
        )
    (sheet,) = filled.values()
    _refuse_title(list(sheet.iloc[:LINES_TO_GUESS].notna().sum(axis=1)), path)
    names = ["" if pd.isna(name) else _written(name).strip() for name in sheet.iloc[0]]
    refuse_repeated_names(list(filter(None, names)), path)
    names = [name or f"Unnamed: {place}" for place, name in enumerate(names)]
    return sheet.iloc[1:].set_axis(names, axis=1).reset_index(drop=True).infer_objects()


def _parquet(path: Path, only: Collection[str] | None) -> pd.DataFrame:
    with _whole_parquet(path):
        table = pq.read_table(path, columns=None if only is None else list(only)).to_pandas()
    return table.reset_index() if any(table.index.names) else table


@contextmanager
def _whole_parquet(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: not a complete Parquet file ({one_line(error)}); replace it") from error


def _written(value: object) -> str:
    """A cell as text: a whole number without a point."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def column_names(path: Path) -> list[str]:
    """The names of a table's columns as written ("" where there is none)."""
    path = Path(path)
    if path.suffix.lower() in EXCEL:
        return [str(name) for name in _excel(path).columns]
    if path.suffix.lower() in PARQUET:
        with _whole_parquet(path):
            return list(pq.read_schema(path).names)
    return _format(path).names


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
            f"({counted(int(is_bad.sum()), 'such row')}); correct the table"
        )


def refuse_made_by_excel(names: pd.Series, *, source: str, may_be_date: bool, places: np.ndarray | None = None) -> None:
    """InputError, as in refuse_rows, with the first name of a column that Excel made of SEPT2, 2E5 or a formula.

    Dates are names where that `may_be_date`, as that of a batch.
    """
    by_excel = FAILED_OR_LONG if may_be_date else f"{FAILED_OR_LONG}|{DATES}"
    expected = "a name, not what Excel makes of SEPT2, 2E5, a long number or a failed formula"
    refuse_rows(clean_names(names).str.fullmatch(by_excel), names, expected=expected, source=source, places=places)


def refuse_repeated(table: pd.DataFrame, keys: Sequence[str], *, source: str, expected: str) -> None:
    """InputError when two rows have the same `keys`; `expected` ends the message: `one row per well`."""
    twice = table.duplicated(list(keys))
    if twice.any():
        row = table[twice].iloc[0]
        where = ", ".join(f"{key} {row[key]}" for key in keys)
        n_rows = counted(int(twice.sum()), "such row")
        raise InputError(f"{source}: {where} occurs twice ({n_rows}); expected {expected}")


def refuse_repeated_names(names: Sequence[str], path: Path, *, what: str = "column") -> None:
    """InputError when a column, or `what` else is named, has the name of an earlier one."""
    if len(set(names)) < len(names):
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise InputError(f'{path}: {what} "{twice}" occurs twice; expected each name once')
