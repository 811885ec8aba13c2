"""Anybody's table of cells, wells or treatments as parts with phenolens's own names for what is known of each row.

N rows, Z features. A part holds whole wells and is in memory alone.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from phenolens.errors import InputError
from phenolens.profiling.columns import Columns, KnownRows, known_rows, like_metadata, nearest
from phenolens.profiling.names import case_note
from phenolens.profiling.profiles import METADATA
from phenolens.profiling.provenance import KEY, provenance_text
from phenolens.profiling.table_files import KINDS, RawPart, kind_of, raw_parts

if TYPE_CHECKING:
    from anndata import AnnData

NAMED = 3  # rows that a note names


@dataclass
class ForeignTable:
    """A table file, or a folder of such files, each a part or more of the whole."""

    path: Path
    columns: Columns
    notes: set[str] = field(default_factory=set)  # what was taken for granted so far, in plain words
    of: dict[str, str | None] = field(default_factory=dict)  # which column said what in the first part

    def __post_init__(self) -> None:
        """InputError when there is no such table."""
        self.path = Path(self.path)
        if not self.path.exists():
            raise InputError(f"{self.path}: no such file; expected a table ({', '.join(KINDS)}) or a folder of them")
        self.files = [self.path]
        if self.path.is_dir():
            self.files = sorted(file for file in self.path.iterdir() if kind_of(file) and not file.name.startswith("."))
            if not self.files:
                raise InputError(f"{self.path}: no table in this folder; expected files named *{', *'.join(KINDS)}")
        for file in self.files:
            if not kind_of(file):
                raise InputError(f"{file}: not a kind of table that is read; expected {', '.join(KINDS)}")

    def parts(self) -> Iterator[AnnData]:
        """Each part in turn; `notes` grow on the way and are complete after the last.

        Features stand in the order of the first part. InputError on a column that is not there, on columns that stand
        twice, and on a control that no row matches.
        """
        found = _Found(control_rows=dict.fromkeys(self.columns.control, 0))
        for file in self.files:
            where = f"{file.name} " if len(self.files) > 1 else ""
            for raw in raw_parts(file, self.columns):
                known = known_rows(raw.obs, self.columns, source=file, places=raw.places)
                found.add(known, where=where)
                self.of = self.of or known.of
                self.notes |= known.notes
                if not self.columns.features and (odd := like_metadata(raw.features)):
                    self.notes.add(
                        f"columns that are taken as features, though their names are mostly those of metadata: "
                        f"{', '.join(odd)}; name them with --metadata if they are none"
                    )
                yield self._part(known.table, raw, found, where=where, source=file)
        for control, n_rows in found.control_rows.items():
            if not n_rows:
                near = nearest(
                    control.rpartition("=")[2].strip(), sorted(found.names["compound"] | found.names["treatment"])
                )
                raise InputError(f'{self.path}: --control "{control}" is in no row; {near}')
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
        features, numbers = raw.features, raw.numbers
        found.features = found.features or features
        if features != found.features and sorted(features) == sorted(found.features):
            numbers = numbers[:, pd.Index(features).get_indexer(pd.Index(found.features))]
            features = found.features
        part = AnnData(numbers, obs=known, var=pd.DataFrame(index=pd.Index(features, dtype=object)))
        part.uns[KEY] = provenance_text("foreign table", made_from={}, file=source.name)
        return part


@dataclass
class _Found:
    """What has been found so far while the parts go by."""

    control_rows: dict[str, int]  # rows that each --control matched
    names: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  # of compounds, batches ...
    only_by_case: defaultdict[str, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    emptied: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    row_names: set[str] = field(default_factory=set)
    features: list[str] = field(default_factory=list)  # of the first part

    def add(self, known: KnownRows, *, where: str) -> None:
        for what, names in known.names.items():
            self.names[what] |= names
        for control, n_rows in known.control_rows.items():
            self.control_rows[control] += n_rows
        for control, rows in known.only_by_case.items():
            self.only_by_case[control] += [(f"{where}row {row}", name) for row, name in rows.items()]
        for column, words in known.emptied.items():
            self.emptied[column] += words

    def notes(self, columns: Columns) -> set[str]:
        """What only the whole table shows, in plain words."""
        notes = set()
        for column, words in self.emptied.items():
            if words:
                held = ", ".join(f'"{word}" ({n:,})' for word, n in sorted(words.items()))
                notes.add(f"{words.total():,} rows are taken as empty in column {column}, which hold {held}")
        for control, rows in self.only_by_case.items():
            if rows:
                more = f" and {len(rows) - NAMED:,} more" if len(rows) > NAMED else ""
                held = ", ".join(f'{row} ("{name}")' for row, name in rows[:NAMED])
                notes.add(
                    f'--control "{control}": {len(rows):,} rows match it but for capitals and are no controls: '
                    f"{held}{more}"
                )
        for what in ("treatment", "compound", "mechanism", "batch", "plate", "well"):
            derived = what == "treatment" and columns.treatment is None and "compound" in self.names
            notes |= set() if derived else case_note(what, self.names[what])
        return notes


def _row_names(known: pd.DataFrame, places: np.ndarray, *, where: str) -> list[str]:
    """The rows' own names, or plate and well (and a number where these repeat), or their number in the file from 1."""
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
