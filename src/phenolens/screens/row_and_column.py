"""Columns that give a well by its row and column, alone or beside the well, which they may contradict."""

import re

import pandas as pd

from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.names import clean_names
from phenolens.screens.doses import plain_name
from phenolens.screens.screen import well_at

ROW, COLUMN = re.compile("(?:well_)?row"), re.compile("(?:well_)?col(?:umn)?")
NUMBERED = "(?:_(?:number|num|no|nr|index|idx|id|name|letter|label))?"  # from 0 or 1, which the well shows
ANY_ROW, ANY_COLUMN = (
    re.compile(f"(?:well_|plate_)?row{NUMBERED}"),
    re.compile(f"(?:well_|plate_)?col(?:umn)?{NUMBERED}"),
)


def row_and_column(
    raw: pd.DataFrame, *, row: re.Pattern[str] = ROW, column: re.Pattern[str] = COLUMN
) -> tuple[str, str] | None:
    """The columns that give a well by its row (letter or number) and column; None where there are no such two."""
    plain = {str(name): plain_name(str(name)) for name in raw.columns}
    found = [next((name for name in plain if kind.fullmatch(plain[name])), None) for kind in (row, column)]
    return None if None in found else (str(found[0]), str(found[1]))


def pairs_of(table: pd.DataFrame, at: tuple[str, str]) -> pd.Series:
    """Row and column of each row's well as one text: `B 02` or `2 2`."""
    return clean_names(table[at[0]]) + " " + clean_names(table[at[1]])


def wells_by_place(table: pd.DataFrame) -> tuple[tuple[str, str], pd.Series] | None:
    """The two columns that give the wells, and the well of each row; None where there are none or they name no well."""
    at = row_and_column(table)
    if at is None:
        return None
    pairs = pairs_of(table, at)
    try:
        return at, pairs.map({pair: well_at(*pair.split(" ", 1)) for pair in pairs.unique()})
    except InputError:
        return None


def places_of(raw: pd.DataFrame, known: pd.DataFrame, *, source: str) -> tuple[str, ...]:
    """The two columns that give the wells of `known` too, as row and column from 1 or from 0; empty without such two.

    InputError where they contradict the wells. Columns whose pairs differ within a well and are the same in all wells
    give the place of a field, and those with one pair alone nothing.
    """
    at = row_and_column(raw, row=ANY_ROW, column=ANY_COLUMN)
    if at is None:
        return ()

    def well_of(pair: str, first: int) -> str | None:
        try:
            return well_at(*(str(int(name) + 1 - first) if name.isdecimal() else name for name in pair.split(" ", 1)))
        except InputError:
            return None

    wells, pairs = known["well"], pairs_of(raw, at)
    of_well = known.groupby([name for name in ("plate", "well") if name in known])["well"].size()
    differ = (pairs.groupby(wells).nunique() > 1).mean() > 0.5
    if pairs.nunique() == 1 or (differ and pairs.nunique() <= of_well.max()):
        return ()
    contradicted: list[tuple[pd.Series, pd.Series]] = []
    for first in (1, 0):
        by_place = pairs.map({pair: well_of(pair, first) for pair in pairs.unique()})
        other = by_place.notna() & (by_place != wells)
        if by_place.notna().mean() <= 0.5:
            continue
        if not other.any():
            return at
        contradicted.append((other, by_place))
    if contradicted:
        other, by_place = min(contradicted, key=lambda each: int(each[0].sum()))
        row = int(other.to_numpy().argmax())
        raise InputError(
            f'{source}, row {row + 2}: well is "{wells.iloc[row]}", but {at[0]} and {at[1]} say '
            f"{by_place.iloc[row]} ({counted(int(other.sum()), 'such row')} of {len(wells):,}); correct the table, or "
            "rename these two columns if they are of something else than wells"
        )
    return ()
