"""Read any table of cells, wells or treatments, part by part, with phenolens's own names for the metadata.

N rows, Z features. A part holds whole wells, and only one part is in memory: a plate of a Parquet or AnnData file, or a
whole file of comma-separated values.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.files import sha256
from phenolens.core.names import (
    alike,
    case_note,
    clean_name,
    clean_names,
    emptied_note,
    nearest,
    shortened,
    substance_note,
)
from phenolens.core.provenance import KEY, provenance_text
from phenolens.profiles.columns import (
    Columns,
    KnownRows,
    feature_columns,
    known_rows,
    named_columns,
    of_columns,
)
from phenolens.profiles.metadata_features import MetadataFeatures
from phenolens.profiles.profiles import METADATA
from phenolens.screens.csv_table import column_names, read_csv, refuse_repeated_names
from phenolens.screens.doses import SameDoses, controls_notes, mechanisms_of_compounds_note
from phenolens.screens.doses_in_names import doses_in_names, refuse_plates_in_names
from phenolens.screens.screen import well_key
from phenolens.screens.unread_columns import ColumnsNotRead

if TYPE_CHECKING:
    import h5py
    import pyarrow as pa
    import pyarrow.parquet as pq
    from anndata import AnnData

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


IN_COLUMNS = "write the compound and its dose in columns of their own (--compound, --concentration)"


@dataclass
class ForeignTable:
    """A table file, or a folder of such files. InputError when there is no such table."""

    path: Path
    columns: Columns
    notes: set[str] = field(default_factory=set)  # assumptions so far, one sentence each
    of: dict[str, str | None] = field(default_factory=dict)  # which column holds what, from the first part

    def __post_init__(self) -> None:
        """Find the files."""
        self.path = Path(self.path)
        if not self.path.exists():
            raise InputError(f"{self.path}: no such file; expected a table ({', '.join(KINDS)}) or a folder of them")
        self.files = [self.path]
        if self.path.is_dir():
            tables = (file for file in self.path.iterdir() if kind_of(file) not in (None, ".txt"))  # README.txt
            self.files = sorted(file for file in tables if not file.name.startswith((".", "~")))
            if not self.files:
                raise InputError(f"{self.path}: no table in this folder; expected files named *{', *'.join(KINDS)}")
        for file in self.files:
            if not kind_of(file):
                raise InputError(f"{file}: unsupported file type; expected {', '.join(KINDS)}")

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of the file, as sha256sum gives it; of a folder, that of the digests of its files in order."""
        if self.path.is_dir():
            return sha256(*self.files)
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def parts(self) -> Iterator[AnnData]:
        """Each part in turn; `notes` are complete after the last one.

        Features are in the order of the first part. InputError on a missing column, on a duplicated column, on a
        control that no row matches, and on rows without a plate, well or batch beside others.
        """
        found = _Found(dict.fromkeys(self.columns.control, 0), SameDoses(self.columns.same_dose_within))
        for file in self.files:
            where = f"{file.name} " if len(self.files) > 1 else ""
            for raw in raw_parts(file, self.columns):
                known = known_rows(raw.obs, self.columns, source=file, places=raw.places, doses=found.doses)
                if len(self.files) > 1 and "plate" not in known.names:
                    found.refuse_repeated_wells(file, set(known.table[METADATA["well"]]) - {""})
                found.add(known, where=where, places=raw.places)
                self.of = self.of or known.of
                self.notes |= known.notes
                if not self.columns.features:
                    found.metadata_features.add(raw.features, raw.numbers, known.table, raw.places)
                yield self._part(known.table, raw, found, where=where, source=file)
        for control, n_rows in found.control_rows.items():
            if not n_rows:
                near = nearest(
                    clean_name(control.rpartition("=")[2]), sorted(found.names["compound"] | found.names["treatment"])
                )
                raise InputError(f'{self.path}: no row has --control "{control}"; {near}')
        found.refuse_unnamed(self.path)
        treated = pd.concat(found.treated)
        refuse_plates_in_names(treated["plate"], treated["compound"], source=str(self.path))
        if self.of["compound"]:
            in_names = doses_in_names(set(treated["compound"]))
            in_names.refuse(str(self.path), remedy=IN_COLUMNS)
            self.notes |= in_names.notes(remedy=IN_COLUMNS)
        self.notes |= found.notes(self.columns)

    def _part(self, known: pd.DataFrame, raw: RawPart, found: _Found, *, where: str, source: Path) -> AnnData:
        from anndata import AnnData

        names = _row_names(known, raw.places, where=where)
        if not found.row_names.isdisjoint(names):  # as in another file, or on another plate
            names = [
                f"{name} ({where}row {place + 1})" if name in found.row_names else name
                for name, place in zip(names, raw.places)
            ]
        found.row_names.update(names)
        known = known.set_axis(pd.Index(names, dtype=object))
        if (known[METADATA["well"]] == "").all():
            known[METADATA["well"]] = names  # each row is a well of its own
        found.features = found.features or raw.features
        if other := sorted(set(raw.features) ^ set(found.features)):
            raise InputError(
                f"{source}: {counted(len(other), 'feature')} not in all files ({shortened(other, 3)}); list those that "
                "all have with --features @FILE"
            )
        features, numbers = pd.Index(found.features, dtype=object), raw.numbers
        if raw.features != found.features:  # in another order
            numbers = numbers[:, pd.Index(raw.features).get_indexer(features)]
        part = AnnData(numbers, obs=known, var=pd.DataFrame(index=features))
        part.uns[KEY] = provenance_text("foreign table", made_from={}, file=source.name)
        return part


@dataclass
class _Found:
    """What has been found in the parts so far."""

    control_rows: dict[str, int]  # rows that each --control matched
    doses: SameDoses
    not_read: ColumnsNotRead = field(default_factory=ColumnsNotRead)
    metadata_features: MetadataFeatures = field(default_factory=MetadataFeatures)
    names: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  # of compounds, batches ...
    treated: list[pd.DataFrame] = field(default_factory=list)  # compound, moa and plate of treated rows
    controls: list[pd.DataFrame] = field(default_factory=list)  # compound and concentration of control rows
    emptied: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    row_names: set[str] = field(default_factory=set)
    features: list[str] = field(default_factory=list)  # of the first part
    unnamed: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # rows without a plate ...
    well_files: dict[str, str] = field(default_factory=dict)  # the file of each well, where no plate is named
    batches: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  # of each plate

    def add(self, known: KnownRows, *, where: str, places: np.ndarray) -> None:
        for what, names in known.names.items():
            self.names[what] |= names
        for what in (name for name in ("plate", "well", "batch") if name in known.names):
            is_empty = (known.table[METADATA[what]] == "").to_numpy()
            self.unnamed[what] += [f"{where}row {place + 1}" for place in places[is_empty]]
        if {"plate", "batch"} <= set(known.names):
            for plate, of_plate in known.table.groupby(METADATA["plate"])[METADATA["batch"]]:
                self.batches[str(plate)] |= set(of_plate) - {""}
        treated = known.table[METADATA["role"]] == "treated"
        is_control = known.table[METADATA["role"]] == "control"
        self.controls.append(known.table.loc[is_control, [METADATA["compound"], METADATA["concentration_um"]]])
        named = {METADATA[name]: name for name in ("compound", "moa", "plate")}
        self.treated.append(known.table.loc[treated, [*named]].rename(columns=named).drop_duplicates())
        for column, values in known.unread[treated].items():
            self.not_read.add(str(column), values, known.table.loc[treated, METADATA["treatment"]])
        for control, n_rows in known.control_rows.items():
            self.control_rows[control] += n_rows
        for column, counts in known.emptied.items():
            self.emptied[column] += counts

    def refuse_repeated_wells(self, file: Path, wells: set[str]) -> None:
        """InputError for a well that another file has too, as files of a plate each do."""
        for well in sorted(wells):
            other = self.well_files.setdefault(well, file.name)
            if other != file.name:
                raise InputError(
                    f"{file}: well {well} is in {other} too, and no plate is named; give each file a column "
                    "Metadata_Plate, or name it with --plate"
                )

    def refuse_unnamed(self, path: Path) -> None:
        """InputError for rows without a plate, well or batch where others have one."""
        for what, rows in self.unnamed.items():
            if rows and self.names[what] - {""}:
                raise InputError(
                    f"{path}: {rows[0]} has no {what} ({counted(len(rows), 'such row')}), others have one; "
                    "fill it in, "
                    "or remove these rows"
                )

    def notes(self, columns: Columns) -> set[str]:
        """Notes that need the whole table, one sentence each."""
        notes = {*self.not_read.notes("the table"), *self.doses.notes(), *self.metadata_features.notes()}
        notes |= mechanisms_of_compounds_note(pd.concat(self.treated))
        controls = pd.concat(self.controls)
        notes |= controls_notes(*(controls[name] for name in controls), rows="rows")
        of_two = {plate: sorted(batches) for plate, batches in self.batches.items() if len(batches) > 1}
        if of_two:
            plate, batches = next(iter(of_two.items()))
            notes.add(
                f"{len(of_two):,} of {counted(len(self.batches), 'plate')} are in several batches (the first: {plate} "
                f"in {shortened(batches, 3)}); if these are different plates, give each a name of its own"
            )
        for column, counts in self.emptied.items():
            if counts:
                notes.add(emptied_note(column, counts))
        for what in ("treatment", "compound", "mechanism", "batch", "plate", "well"):
            derived = what == "treatment" and columns.treatment is None and "compound" in self.names
            key = well_key if what == "well" else alike
            notes |= set() if derived else case_note(what, self.names[what], key=key)
        return notes | substance_note(self.names["compound"])


def _row_names(known: pd.DataFrame, places: np.ndarray, *, where: str) -> list[str]:
    """The rows' own names, else plate and well (numbered where these repeat), else the number in the file from 1."""
    index = known.index
    if not isinstance(index, pd.RangeIndex) and index.is_unique and index.dtype == object:
        return [str(name) for name in index]
    plate, well = known[METADATA["plate"]], known[METADATA["well"]]
    if (well == "").all():
        return [f"{where}row {place + 1}" for place in places]
    names = plate + "_" + well
    if names.is_unique:
        return names.tolist()
    return (names + "_" + (known.groupby([plate, well]).cumcount() + 1).astype(str)).tolist()
