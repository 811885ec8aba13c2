"""Names of wells (B02), as people and instruments write them: in one text, a running number, or a row and a column.

Columns may give a well by its row and column, alone or beside the well, which they may contradict.
"""

import re

import pandas as pd

from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.names import alike, clean_name, clean_names, plain_name

ROW, COLUMN = re.compile("(?:well_)?row"), re.compile("(?:well_)?col(?:umn)?")
NUMBERED = "(?:_(?:number|num|no|nr|index|idx|id|name|letter|label))?"  # from 0 or 1, which the well shows
ANY_ROW, ANY_COLUMN = (
    re.compile(f"(?:well_|plate_)?row{NUMBERED}"),
    re.compile(f"(?:well_|plate_)?col(?:umn)?{NUMBERED}"),
)


def well_name(raw: str) -> str:
    """`b2`, `B2`, `B002`, `r02c02`, or row and column as `2 2`, `02-02` as `B02`; InputError for any other text."""
    name = clean_name(raw)
    by_number = re.fullmatch(r"[Rr](\d{1,3})[Cc](\d{1,3})|([A-Za-z]{1,2} |\d{1,3}[ -])(\d{1,3})", name)
    if by_number:
        return well_at(by_number[1] or by_number[3][:-1], by_number[2] or by_number[4])
    match = re.fullmatch(r"([A-Za-z]{1,2})0*(\d{1,2})", name)
    if match is None or int(match[2]) == 0:
        number = "; a row and column as numbers are written 02-02" if name.isdecimal() else ""
        raise InputError(
            f'"{name}" is not a well name: expected row letter(s) and a column number, such as B02{number}'
        )
    return f"{match[1].upper()}{int(match[2]):02d}"


def well_at(row: str, column: str) -> str:
    """The well of a row (B, or its number 2) and a column: `B02`; InputError for what names none."""
    if row.isdecimal():
        number = int(row)
        if not 1 <= number <= 52:
            raise InputError(f"row {row} is not a row of a plate: expected 1 to 52, or a letter")
        row = chr(64 + number) if number <= 26 else "A" + chr(64 + number - 26)
    return well_name(f"{row}{column}")


def well_of_index(index: int, plate_wells: int | None) -> str:
    """The well of a running number from 1, row by row, on a plate of so many wells: of 96, 14 is B02."""
    if plate_wells is None:
        raise InputError(f"well {index}: a running number; say on plates of how many wells, such as --plate-wells 96")
    if not 1 <= index <= plate_wells:
        raise InputError(f"well {index}: expected 1 to {plate_wells}; correct --plate-wells or the pattern")
    row, column = divmod(index - 1, round((plate_wells * 3 / 2) ** 0.5))  # a plate has three columns to two rows
    return well_at(str(row + 1), str(column + 1))


def well_key(name: str) -> str:
    """What two names of one well share: B02 of b2, any other name by `alike`."""
    try:
        return well_name(name)
    except InputError:
        return alike(name)


def well_names(wells: pd.Series, *, source: str) -> dict[str, str]:
    """Each distinct value of a column -> its well name (B02); InputError names the first row with another text.

    Such rows at the head or the end of the table are reported as what they are there: names, units, or a footer.
    """
    names, errors = {}, {}
    for raw in wells.unique():
        try:
            names[raw] = well_name(raw)
        except InputError as error:
            errors[clean_name(raw)] = error
    if errors:
        written = clean_names(wells)
        is_other = written.isin(list(errors)).to_numpy()
        row = int(is_other.argmax())
        what = str(errors[written.iloc[row]]) if written.iloc[row] else "the well is empty"
        remedy = "correct the table"
        if is_other.all():
            remedy = "write all wells so, or name another column with --well-column"
        elif is_other[0] and not is_other[is_other.sum() :].any():
            remedy = "remove the row if it holds units or a second line of column names"
        elif not is_other[:row].any() and is_other[row:].all():
            remedy = f"if it is a footer, no wells, remove the last {counted(int(is_other.sum()), 'row')}"
        raise InputError(f"{source}, row {row + 2}: {what}; {remedy}")
    return names


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
        return at, pairs.map({pair: well_name(pair) for pair in pairs.unique()})
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
