"""Anybody's table of cells, wells or treatments as parts with phenolens's own names for what is known of each row.

N rows, Z features. A part holds whole wells and is in memory alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from phenolens.errors import InputError
from phenolens.profiling.columns import Columns, known_rows, nearest
from phenolens.profiling.profiles import METADATA
from phenolens.profiling.provenance import KEY, provenance_text
from phenolens.profiling.table_files import KINDS, kind_of, raw_parts

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass
class ForeignTable:
    """A table file, or a folder of such files, each a part or more of the whole."""

    path: Path
    columns: Columns
    notes: set[str] = field(default_factory=set)  # what was taken for granted so far, in plain words

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
        """Each part in turn, `notes` growing on the way.

        InputError on a column that is not there, on columns that stand twice, and on a control that no row matches.
        """
        given: set[str] = set()
        control_rows = dict.fromkeys(self.columns.control, 0)
        for file in self.files:
            for obs, numbers, features in raw_parts(file, self.columns):
                known = known_rows(obs, self.columns, source=file)
                given |= known.given
                self.notes |= known.notes
                for control, n_rows in known.control_rows.items():
                    control_rows[control] += n_rows
                yield self._part(known.table, numbers, features, source=file)
        for control, n_rows in control_rows.items():
            if not n_rows:
                near = nearest(control.rpartition("=")[2], sorted(given))
                raise InputError(f'{self.path}: --control "{control}" is in no row; {near}')

    def _part(self, known: pd.DataFrame, numbers: np.ndarray, features: list[str], *, source: Path) -> AnnData:
        from anndata import AnnData

        names = _row_names(known, prefix=f"{source.name} " if len(self.files) > 1 else "")
        known = known.set_axis(pd.Index(names, dtype=object))
        if (known[METADATA["well"]] == "").all():
            known[METADATA["well"]] = names  # each row is a well of its own
        part = AnnData(numbers, obs=known, var=pd.DataFrame(index=pd.Index(features, dtype=object)))
        part.uns[KEY] = provenance_text("foreign table", made_from={}, file=source.name)
        return part


def _row_names(known: pd.DataFrame, *, prefix: str) -> list[str]:
    """The rows' own names, or plate and well (and a number where these repeat), or their number from 1."""
    index = known.index
    if not isinstance(index, pd.RangeIndex) and index.is_unique and index.dtype == object:
        return [str(name) for name in index]
    plate, well = known[METADATA["plate"]], known[METADATA["well"]]
    if (well == "").all():
        return [f"{prefix}row {number}" for number in range(1, len(known) + 1)]
    names = plate + "_" + well
    if names.is_unique:
        return names.tolist()
    return (names + "_" + (known.groupby([plate, well]).cumcount() + 1).astype(str)).tolist()
