"""Features of a table that may be metadata, by their names or values: donors, dates, places on the plate.

N rows, Z features. Nothing is left out here: a note names them, and the flags that leave them out.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

import numpy as np
import pandas as pd

from phenolens.core.names import MOST_NAMED, plain_name, shortened
from phenolens.profiles.column_flags import flag_of
from phenolens.profiles.columns import MEASURED, resembles_metadata
from phenolens.profiles.profiles import METADATA
from phenolens.profiles.validate import as_numbers

MOST_VALUES = 10  # different whole numbers of a feature that may be metadata, in LEAST_ROWS or more
LEAST_ROWS = 20
MOST_OPEN = 200  # a table with more features of whole numbers is one of counts or classes
SAMPLE = 256  # rows that show of most features that they are measured
# Of objects, which have few values too.
OF_COUNTS = re.compile(r"^(?:n|no|num|number)_(?:of_)?|_(?:n|num|number)_of_|(?:^|_)(?:counts?|euler\w*)(?:_|$)")
PLACE = [METADATA[name] for name in ("plate", "batch", "well", "treatment")]
PLATE, BATCH, WELL, TREATMENT = PLACE
ONE_VALUE = {  # in all rows of a group
    (PLATE,): "one value a plate",
    (BATCH,): "one value a batch",
    (PLATE, WELL): "one value a well",
    (TREATMENT,): "one value a treatment",
    (WELL,): "the same in a well of every plate",
}


class MetadataFeatures:
    """Collects the features that may be metadata, part by part, for one note.

    By their names; by values if these are few whole numbers, a running number, or one number in all rows of a plate
    (batch, well, treatment). Values of features that are called as CellProfiler calls its own are not compared.
    """

    def __init__(self) -> None:
        self.has_parts = False
        self.by_name: list[str] = []
        self.running: dict[str, float] = {}  # feature -> its value less the row's place in the file
        self.held: dict[str, list[pd.DataFrame]] = {}  # feature -> PLACE, value and number of rows, of each part

    def add(self, features: Sequence[str], numbers: np.ndarray, known: pd.DataFrame, places: np.ndarray) -> None:
        """Add a part: (N, Z) numbers or objects, the rows' metadata, and their places in the file."""
        is_first, self.has_parts = not self.has_parts, True
        if is_first:
            self.by_name = [name for name in features if resembles_metadata(name)]
        place = known[PLACE].groupby(PLACE, sort=False).ngroup().to_numpy()
        groups = known[PLACE].assign(place=place).drop_duplicates("place").set_index("place")
        for at, name in enumerate(features):
            if MEASURED.search(name) or not (is_first or name in self.held or name in self.running):
                continue
            held, beyond = self.held.pop(name, []), self.running.pop(name, None)
            if not _may_be_metadata(as_numbers(numbers[:SAMPLE, at])):
                continue
            column = as_numbers(numbers[:, at])
            by_place = column - places
            if (is_first or beyond is not None) and (by_place == (by_place[0] if is_first else beyond)).all():
                self.running[name] = float(by_place[0])
            if is_first or held:
                counts = pd.DataFrame({"place": place, "value": column}).value_counts(dropna=False).rename("n")
                if len(counts) <= MOST_VALUES * len(groups):
                    of_part = counts.reset_index().join(groups, on="place").drop(columns="place")
                    self.held[name] = [*held, of_part]
        if len(self.held) > MOST_OPEN:
            self.held.clear()

    def notes(self) -> set[str]:
        """One note that names them, why, and the flags that leave them out or read them; empty where there are none."""
        found = dict.fromkeys(self.by_name, "")
        found |= dict.fromkeys(self.running, "a running number")
        found |= {name: why for name, parts in self.held.items() if (why := _why(name, pd.concat(parts)))}
        if not found:
            return set()
        named = [f"{name} ({why})" if why else name for name, why in found.items()]
        to_read = [f"{flag} {shlex.quote(name)}" for name in found if (flag := flag_of(name))]
        instead = f", or to read them: {shortened(to_read)}" if to_read else ""
        return {
            f"features that may be metadata, by name or values: {shortened(named)}; they are used as features; to "
            f"leave them out: --metadata {shlex.join(list(found)[:MOST_NAMED])}{instead}"
        }


def _may_be_metadata(values: np.ndarray) -> bool:
    """Whether the first values are whole numbers or repeat: of a measured feature, each is another fraction."""
    given = values[~np.isnan(values)]
    return bool((given == np.rint(given)).all()) or len(np.unique(given)) <= len(given) / 2


def _why(name: str, held: pd.DataFrame) -> str:
    """Why a feature may be metadata, from its values and their numbers of rows; empty where nothing says so."""
    values = np.unique(held["value"].dropna())
    is_whole = np.array_equal(values, np.rint(values))
    if len(values) < 2:
        return ""
    enough = held.loc[held["value"].notna(), "n"].sum() >= LEAST_ROWS
    if is_whole and len(values) <= MOST_VALUES and enough and not OF_COUNTS.search(plain_name(name)):
        return ", ".join(str(int(value)) for value in values)
    for keys, words in ONE_VALUE.items():
        groups = held.groupby(list(keys)).agg(value=("value", "first"), n=("n", "sum"), kinds=("value", "nunique"))
        several = groups[groups["n"] > 1]
        is_fixed = (groups["kinds"] <= 1).all() and several["n"].sum() >= LEAST_ROWS
        if is_fixed and several["value"].nunique() > 1 and (is_whole or WELL not in keys or PLATE in keys):
            return words
    return ""
