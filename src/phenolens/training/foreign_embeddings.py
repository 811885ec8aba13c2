"""Embeddings from elsewhere: a table with a row per cell of the study, to decode or to compare."""

from pathlib import Path

import numpy as np
import pandas as pd

from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.files import read_h5ad

CELL = "Metadata_Cell"  # the column that names the cell


def foreign_embeddings(path: Path, cell_ids: pd.Series) -> tuple[np.ndarray, list[str]]:
    """The embeddings (N, Z) of a table (.h5ad, .parquet or .csv), in the order of the study's cells, and their names.

    Columns that begin with `Metadata_` are no part of them.

    Raises:
        InputError: no cell's name in `Metadata_Cell`, not exactly the study's cells, or values that are not finite.
    """
    if path.suffix == ".h5ad":
        table = read_h5ad(path, remedy="give an AnnData file")
        rows = pd.DataFrame(np.asarray(table.X), columns=table.var_names).assign(**{CELL: table.obs.get(CELL)})
    else:
        rows = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    if CELL not in rows or rows[CELL].isna().any():
        raise InputError(f"{path}: expected a column {CELL} that names the cell of each row, as in embeddings/")
    names = [str(name) for name in rows.columns if not str(name).startswith("Metadata_")]
    ids = rows[CELL].astype(str)
    missing, other = cell_ids[~cell_ids.isin(ids)], ids[~ids.isin(cell_ids)]
    if len(missing) or len(other) or ids.duplicated().any():
        example = next(iter([*missing, *other, *ids[ids.duplicated()]]))
        raise InputError(
            f"{path}: its rows are not the study's {counted(len(cell_ids), 'cell')}: "
            f"{counted(len(missing), 'cell')} without a row, {counted(len(other), 'row')} of other cells, "
            f'{int(ids.duplicated().sum()):,} repeated ("{example}")'
        )
    features = rows.set_index(ids.to_numpy())[names].loc[cell_ids]
    for name in features.columns.difference(features.select_dtypes("number").columns, sort=False):
        raise InputError(f'{path}: column "{name}" does not hold numbers; leave it out, or call it Metadata_{name}')
    z = features.to_numpy(np.float32)
    if (z == z[:1]).all():
        raise InputError(f"{path}: {counted(len(names), 'feature')}, of which none differs between cells")
    for row, column in np.argwhere(~np.isfinite(z))[:1]:
        value, n_values = features.iloc[row, column], counted(int((~np.isfinite(z)).sum()), "such value")
        raise InputError(
            f'{path}: cell "{cell_ids.iloc[row]}", column "{names[column]}": {value} is not a finite number '
            f"({n_values}); correct the table"
        )
    return z, names
