"""The parts of a table's file: a plate of a Parquet or AnnData file, or a whole file of text or of Excel.

N rows, Z features. The rows are unchanged; together the parts have each row once, and only one part is in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from phenolens.core.errors import InputError
from phenolens.core.names import clean_names, shortened
from phenolens.profiles.columns import Columns, feature_columns, named_columns, of_columns
from phenolens.screens.csv_table import column_names, read_csv, refuse_repeated_names

if TYPE_CHECKING:
    import h5py
    import pyarrow as pa
    import pyarrow.parquet as pq

KINDS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".txt.gz", ".xlsx", ".parquet", ".h5ad")
ROWS_AT_A_TIME = 16_384  # read from a file before those of a plate are picked


def kind_of(file: Path) -> str | None:
    """Which of KINDS a file is by its name; None for any other."""
    return next((kind for kind in KINDS if file.name.lower().endswith(kind)), None)


@dataclass(frozen=True)
class RawPart:
    """Some rows of a file, unchanged."""

    obs: pd.DataFrame  # all columns that are not features
    numbers: np.ndarray  # (N, Z); of dtype object where some are not numbers
    features: list[str]
    places: np.ndarray  # (N,) the rows' places in the file, from 0


def raw_parts(file: Path, columns: Columns) -> Iterator[RawPart]:
    """Each part of one file; together they are all of its rows, each once."""
    kind = str(kind_of(file))
    if kind == ".h5ad":
        parts = _h5ad_parts(file, columns)
    elif kind == ".parquet":
        parts = _parquet_parts(file, columns)
    else:
        parts = iter([_split(_whole_table(file, columns), columns, source=file)])
    for part in parts:
        if not len(part.obs) == len(part.numbers) == len(part.places):
            raise InputError(
                f"{file}: {len(part.obs):,} of {len(part.places):,} rows of a plate could be read: the file is damaged "
                "or was changed while it was read"
            )
        yield part


def _whole_table(file: Path, columns: Columns) -> pd.DataFrame:
    names = column_names(file)
    of = named_columns(names, columns, source=file)
    text = {name for what, name in of.items() if name is not None and what != "concentration"}
    return read_csv(file, text=text & set(names), as_written=True)


def _split(raw: pd.DataFrame, columns: Columns, *, source: Path, places: np.ndarray | None = None) -> RawPart:
    """A table's metadata and its features."""
    names = [str(name) for name in raw.columns]
    refuse_repeated_names(names, source)
    raw = raw.set_axis(names, axis=1)
    of_columns(names, columns, source=source)
    booleans = [] if columns.features else [name for name in names if pd.api.types.is_bool_dtype(raw[name].dtype)]
    others = [name for name in names if name not in booleans]
    features = feature_columns(others, columns, source=source, also=booleans)
    chosen = raw[features]
    plain = [_numbers(chosen[name]) for name in features]
    numeric = all(values.dtype.kind in "fiub" for values in plain)
    numbers = np.stack(plain, axis=1) if numeric else np.stack([v.astype(object) for v in plain], axis=1)
    if numeric and numbers.dtype.kind != "f":
        numbers = numbers.astype(np.float64)
    return RawPart(raw.drop(columns=features), numbers, features, np.arange(len(raw)) if places is None else places)


def _numbers(values: pd.Series) -> np.ndarray:
    """A column as it is, but missing values of a numeric column as NaN, and dates and durations as objects."""
    if values.dtype.kind in "mM":  # as numbers they would be nanoseconds
        return values.astype(object).to_numpy()
    if pd.api.types.is_numeric_dtype(values.dtype) and not isinstance(values.dtype, np.dtype):
        return values.to_numpy(dtype=np.float64, na_value=np.nan)
    return values.to_numpy()


def _plates(names: pd.Series | None, n_rows: int) -> list[np.ndarray]:
    """The places of each plate's rows, plates in order of appearance; without a plate column, all rows.

    Rows are chosen by place, not by the plate's name, so that rows whose plate is NaN are read too.
    """
    if names is None:
        return [np.arange(n_rows)]
    code, _ = pd.factorize(clean_names(names))
    order = np.argsort(code, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(code[order])) + 1)


def _parquet_parts(file: Path, columns: Columns) -> Iterator[RawPart]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as stored:
            names = list(stored.schema_arrow.names)
            refuse_repeated_names(names, file)
            plate = of_columns(names, columns, source=file)["plate"]
            if not stored.metadata.num_rows:
                raise InputError(f"{file}: no rows; expected at least one")
            plates = None if plate is None else stored.read(columns=[plate]).column(plate).to_pandas()
            for places in _plates(plates, stored.metadata.num_rows):
                yield _split(_parquet_rows(stored, places), columns, source=file, places=places)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{file}: not readable as Parquet ({str(error).splitlines()[0]}); replace it") from error


def _parquet_rows(stored: pq.ParquetFile, places: np.ndarray) -> pd.DataFrame:
    """The rows at these places (in rising order), read from the row groups that hold any, some rows at a time."""
    import pyarrow as pa

    found, start = [], 0
    for group in range(stored.num_row_groups):
        n_rows = stored.metadata.row_group(group).num_rows
        if np.searchsorted(places, start) < np.searchsorted(places, start + n_rows):
            at = start
            for batch in stored.iter_batches(batch_size=ROWS_AT_A_TIME, row_groups=[group]):
                here = places[np.searchsorted(places, at) : np.searchsorted(places, at + batch.num_rows)]
                if len(here):
                    found.append(pa.Table.from_batches([batch]).take(here - at))
                at += batch.num_rows
        start += n_rows
    table = _plain_decimals(pa.concat_tables(found)).to_pandas(ignore_metadata=True)
    index = "__index_level_0__"  # a table's index without a name, as pandas writes it
    return table.set_index(index) if index in table.columns and table[index].dtype == object else table


def _plain_decimals(table: pa.Table) -> pa.Table:
    """Decimal columns as float64: they are numbers, which pandas would hold as objects."""
    import pyarrow as pa

    for place, column in enumerate(table.schema):
        if pa.types.is_decimal(column.type):
            table = table.set_column(place, column.name, table.column(place).cast(pa.float64()))
    return table


def _h5ad_parts(file: Path, columns: Columns) -> Iterator[RawPart]:
    import anndata
    import h5py

    try:
        stored = h5py.File(file, "r")
    except OSError as error:
        raise InputError(f"{file}: not readable as an AnnData file ({error}); replace it") from error
    with stored:
        try:
            if "encoding-type" in stored.attrs:  # obs and var only; rows of X are read when needed
                obs, var, matrix = *(anndata.io.read_elem(stored[name]) for name in ("obs", "var")), _matrix(stored)
            else:  # written by anndata before 0.7, which anndata converts
                whole = anndata.read_h5ad(file)
                obs, var, matrix = whole.obs, whole.var, whole.X
        except Exception as error:  # anndata raises many types, some of them private
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(f"{file}: not readable as an AnnData file ({reason}); replace it") from error
        if not len(obs) or not len(var):
            elsewhere = f"; obsm has {shortened(list(stored['obsm']))}: write it as X" if stored.get("obsm") else ""
            raise InputError(
                f"{file}: {len(obs)} rows and {len(var)} features; expected at least one of each{elsewhere}"
            )
        if matrix is None:
            raise InputError(f"{file}: the table has no features (X is empty); expected rows x features")
        names = [str(name) for name in var.index]
        refuse_repeated_names(names, file, what="feature")
        in_obs = [str(name) for name in obs.columns]
        features = feature_columns(names, columns, source=file, also=in_obs)
        position = pd.Index(names).get_indexer(pd.Index(features))
        plate = of_columns(in_obs, columns, source=file)["plate"]
        for places in _plates(None if plate is None else obs[plate], len(obs)):
            try:
                numbers = _matrix_rows(matrix, places)
            except (OSError, RuntimeError, ValueError) as error:
                raise InputError(f"{file}: its numbers are not readable ({error}); replace it") from error
            yield RawPart(obs.iloc[places], numbers[:, position], features, places)


def _matrix(stored: h5py.File) -> Any:
    """X in the file, dense or sparse; None where there is no X."""
    import anndata
    import h5py

    matrix = stored.get("X")
    if isinstance(matrix, h5py.Group):
        return None if matrix.attrs.get("encoding-type") == "null" else anndata.io.sparse_dataset(matrix)
    return None if matrix is None or matrix.shape is None else matrix


def _matrix_rows(matrix: Any, places: np.ndarray) -> np.ndarray:
    """The rows at these places (in rising order) as an array (N, Z), some rows of the file at a time."""
    found: list[np.ndarray] = []
    for start in range(int(places[0]), int(places[-1]) + 1, ROWS_AT_A_TIME):
        here = places[np.searchsorted(places, start) : np.searchsorted(places, start + ROWS_AT_A_TIME)]
        if len(here):
            rows = matrix[start : int(here[-1]) + 1]
            found.append((rows if isinstance(rows, np.ndarray) else rows.toarray())[here - start])
    return np.concatenate(found)
