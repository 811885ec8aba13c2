"""Read tables of comma-separated values, Parquet and AnnData files, part by part.

N rows, Z features. A part is what is in memory at once: a plate of a Parquet or AnnData file, or a whole file of
comma-separated values.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from phenolens.errors import InputError
from phenolens.profiling.columns import OWN_NAMES, Columns, feature_columns, of_columns, text_of
from phenolens.profiling.features import number_matrix
from phenolens.screen.csv_table import read_csv

KINDS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".h5ad")


def kind_of(file: Path) -> str | None:
    """Which of KINDS a file is by its name; None for any other."""
    return next((kind for kind in KINDS if file.name.lower().endswith(kind)), None)


Raw = tuple[pd.DataFrame, np.ndarray, list[str]]


def raw_parts(file: Path, columns: Columns) -> Iterator[Raw]:
    """Each part of one file as it stands there: what is known of the rows, numbers (N, Z), names of the features."""
    kind = str(kind_of(file))
    if kind == ".h5ad":
        yield from _h5ad_parts(file, columns)
    elif kind == ".parquet":
        yield from _parquet_parts(file, columns)
    else:
        yield _split(_delimited(file, columns, separator="\t" if "tsv" in kind else ","), columns, source=file)


def _delimited(file: Path, columns: Columns, *, separator: str) -> pd.DataFrame:
    text = {getattr(columns, what) or own for what, own in OWN_NAMES.items() if what != "concentration"}
    return read_csv(file, columns=(), text=text, separator=separator)


def _split(raw: pd.DataFrame, columns: Columns, *, source: Path) -> Raw:
    """A whole table's metadata and its features."""
    names = [str(name) for name in raw.columns]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise InputError(f'{source}: column "{twice[0]}" stands twice; expected each name once')
    raw = raw.set_axis(names, axis=1)
    of_columns(names, columns, source=source)
    features = feature_columns(names, columns, source=source)
    chosen = raw[features]
    plain = [_numbers(chosen[name]) for name in features]
    numeric = all(values.dtype.kind in "fiub" for values in plain)
    numbers = np.stack(plain, axis=1) if numeric else np.stack([v.astype(object) for v in plain], axis=1)
    if numeric and numbers.dtype.kind != "f":
        numbers = numbers.astype(np.float64)
    return raw.drop(columns=features), numbers, features


def _numbers(values: pd.Series) -> np.ndarray:
    """A column as it is, but missing values of a numeric column as NaN."""
    if pd.api.types.is_numeric_dtype(values.dtype) and not isinstance(values.dtype, np.dtype):
        return values.to_numpy(dtype=np.float64, na_value=np.nan)
    return values.to_numpy()


def _parquet_parts(file: Path, columns: Columns) -> Iterator[Raw]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    try:
        dataset = ds.dataset(file, format="parquet")
        names = list(dataset.schema.names)
        plate = of_columns(names, columns, source=file)["plate"]
        plates = [None] if plate is None else pc.unique(dataset.to_table(columns=[plate])[plate]).to_pylist()
        for name in plates:
            wanted = None if plate is None else ds.field(plate).is_null() if name is None else ds.field(plate) == name
            yield _split(dataset.to_table(filter=wanted).to_pandas(), columns, source=file)
        if not plates:
            raise InputError(f"{file}: no rows; expected at least one")
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{file}: not readable as Parquet ({str(error).splitlines()[0]}); replace it") from error


def _h5ad_parts(file: Path, columns: Columns) -> Iterator[Raw]:
    import anndata

    try:
        backed: Any = anndata.read_h5ad(file, backed="r")
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{file}: not readable as an AnnData file ({error}); replace it") from error
    try:
        if not backed.n_obs or not backed.n_vars:
            raise InputError(f"{file}: {backed.n_obs} rows and {backed.n_vars} features; expected at least one of each")
        names = [str(name) for name in backed.var_names]
        wanted = (
            feature_columns(names, Columns(features=columns.features), source=file) if (columns.features) else names
        )
        position = backed.var_names.get_indexer(wanted)
        plate = of_columns([str(name) for name in backed.obs.columns], columns, source=file)["plate"]
        groups = pd.Series(0, index=range(backed.n_obs)) if plate is None else text_of(backed.obs[plate])
        for rows in groups.reset_index(drop=True).groupby(groups.to_numpy(), sort=False).indices.values():
            block = backed[np.sort(rows)].to_memory()
            numbers = number_matrix(block, what=str(file))
            yield block.obs, numbers[:, position], wanted
    finally:
        backed.file.close()
