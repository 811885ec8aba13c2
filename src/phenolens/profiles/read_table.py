"""Read any table of cells, wells or treatments, part by part, with phenolens's own names for the metadata.

N rows, Z features. A part holds whole wells. What only the whole table shows is refused or noted after the last part.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.files import sha256
from phenolens.core.names import alike, case_note, clean_name, emptied_note, nearest, shortened, substance_note
from phenolens.core.provenance import KEY, provenance_text
from phenolens.profiles.columns import Columns, KnownRows, known_rows
from phenolens.profiles.metadata_features import MetadataFeatures
from phenolens.profiles.profiles import METADATA
from phenolens.profiles.table_parts import KINDS, RawPart, kind_of, raw_parts
from phenolens.screens.doses import SameDoses, controls_notes, mechanisms_of_compounds_note
from phenolens.screens.doses_in_names import doses_in_names, refuse_plates_in_names
from phenolens.screens.unread_columns import ColumnsNotRead
from phenolens.screens.well_names import well_key

if TYPE_CHECKING:
    from anndata import AnnData

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
