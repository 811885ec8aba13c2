"""Columns of a table that nothing is read from: they are named, and one that may hold a dose or a plate is refused."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import pandas as pd

from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.names import clean_name, clean_names, nearest, plain_name, shortened

UNREAD = "unread: "  # before the names of columns that are kept until they are reported
# Columns that say where a well or a repeat is, and differ between the wells of a treatment as a matter of course.
PLACES = frozenset(
    "row column col well_row well_column well_col replicate rep index image_number imagenumber table_number "
    "tablenumber position well_index plate_map_name".split()
)
MOST_VALUES = 20  # of numbers that may describe a treatment; a column of more is a measurement
OF_ROWS = re.compile(r"file|path|url|uri|guid|uuid|bar_?code|comment|note|date|time_?stamp|(?:^|_)id$")  # not of wells
LIKE_A_PLATE = re.compile(
    r"(?:^|_)(?:plate|platten?)_?(?:id|name|no|nr|num|number|bar_?code|code|label|key|index|\d+)*(?:_?id)?$|"
    r"(?:^|_)(?:assay|destination|dest|imaging)_?bar_?code|^bar_?code"
)
OF_OTHER_PLATES = re.compile(r"(?:^|_)(?:source|src|lib\w*|compound|cmpd|cpd|drug|mother|stock|master|per)(?:_|$)")


def resembles_plate(column: str) -> bool:
    """Whether a column may name the imaged plates (`plate_name`, `Assay Plate`), not those that compounds came from."""
    plain = plain_name(column)
    return bool(LIKE_A_PLATE.search(plain)) and not OF_OTHER_PLATES.search(plain)


def refuse_unread(columns: Iterable[str], resembles: Callable[[str], bool], *, may_hold: str, remedy: str) -> None:
    """InputError for a column, of those under UNREAD, that may hold what no column is read as."""
    for name in (name for name in columns if name.startswith(UNREAD)):
        source, column = name.removeprefix(UNREAD).split(": ", 1)
        if resembles(column):
            raise InputError(f'{source}: column "{column}" may hold {may_hold} and is not read; {remedy}, or remove it')


def chosen_wells(fields: pd.DataFrame, only: Sequence[str], *, source: str) -> tuple[pd.Series, set[str]]:
    """Which fields have, in each column that `only` names, one of its values (`time=24h`); and those columns.

    InputError for a column or value that there is not, and where no control well is left.
    """
    columns = {str(name).removeprefix(UNREAD).rpartition(": ")[2]: str(name) for name in fields}
    wanted: dict[str, set[str]] = {}
    for text in only:
        name, _, value = text.partition("=")
        column = columns.get(name, "")
        if not column:
            raise InputError(f'--only "{text}": no column "{name}" in {source}; {nearest(name, columns)}')
        held = sorted(set(clean_names(fields[column])) - {""})
        if clean_name(value) not in held:
            raise InputError(f'--only "{text}": no well of {source} has it; {nearest(value, held)}')
        wanted.setdefault(column, set()).add(clean_name(value))
    is_chosen = pd.Series(True, index=fields.index)
    for column, values in wanted.items():
        is_chosen &= clean_names(fields[column]).isin(values)
    if not is_chosen.any():
        raise InputError(f"--only {' '.join(only)}: no well of {source} has all of them; name fewer")
    is_control = fields["role"] == "control"
    if is_control.any() and not (is_control & is_chosen).any():
        n_wells = len(fields[is_control].drop_duplicates(["plate", "well"]))
        raise InputError(
            f"--only {' '.join(only)}: leaves out all of the {counted(n_wells, 'control well')} of {source}; fill in "
            "the columns that it names for the controls too, or leave it out"
        )
    return is_chosen, set(wanted)


def unread_notes(fields: pd.DataFrame, unread: Sequence[str], *, remedy: str = "") -> list[str]:
    """Which columns (under UNREAD) are not read, and which of them differ within a treatment (`remedy`), by table."""
    by_source: dict[str, ColumnsNotRead] = {}
    treated = fields[fields["role"] != "control"]
    treatment = treated["compound"].astype(str) + "@" + treated["concentration_um"].astype(str)
    for name in unread:
        source, column = name.removeprefix(UNREAD).split(": ", 1)
        by_source.setdefault(source, ColumnsNotRead()).add(column, treated[name].fillna(""), treatment)
    return [note for source, held in by_source.items() for note in held.notes(source, remedy=remedy)]


@dataclass
class ColumnsNotRead:
    """Which columns of a table are not read, and which of them differ between the rows of one treatment."""

    kinds: dict[str, set[str]] = field(default_factory=dict)  # what each column holds, MOST_VALUES + 1 at most
    of_treatments: dict[str, dict[str, str]] = field(default_factory=dict)  # column -> treatment -> its first
    pooled: set[str] = field(default_factory=set)

    def add(self, column: str, values: pd.Series, treatments: pd.Series) -> None:
        """Add some rows of the treated wells."""
        kinds = self.kinds.setdefault(column, set())
        first = self.of_treatments.setdefault(column, {})
        if len(kinds) > MOST_VALUES and column in self.pooled:
            return
        for treatment, kind in dict.fromkeys(zip(treatments, values)):
            if len(kinds) <= MOST_VALUES:
                kinds.add(kind)
            if first.setdefault(treatment, kind) != kind:
                self.pooled.add(column)

    def notes(self, source: str, *, remedy: str = "") -> list[str]:
        """A note on the columns, and one on those that may describe a treatment: of few values or texts, and no place.

        `remedy` ends the second.
        """
        differing = [
            f"{column} ({shortened(sorted(str(kind) or 'empty' for kind in kinds))})"
            for column, kinds in self.kinds.items()
            if column in self.pooled and plain_name(column) not in PLACES
            if len(kinds) <= MOST_VALUES or _describes(column, kinds)
        ]
        notes = [f"columns of {source} that are not read: {shortened(list(self.kinds))}"] if self.kinds else []
        if differing:
            notes.append(
                f"columns of {source} that differ within a treatment, whose wells are pooled: {shortened(differing)}"
                f"{remedy}"
            )
        return notes


def _describes(column: str, kinds: Iterable[object]) -> bool:
    """Whether many values may describe treatments, such as those of a second compound: no numbers, nothing of a row."""
    is_number = pd.to_numeric(pd.Series(list(kinds)), errors="coerce").notna()
    return not is_number.any() and not OF_ROWS.search(plain_name(column))
