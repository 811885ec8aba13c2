"""What points and commas in numbers mean: decimal signs, or thousands; numbers that may mean both are refused."""

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from phenolens.core.errors import InputError

# Three digits in each group: 1.000 and 1,500, but not 0.125.
GROUPED = {sign: re.compile(rf"[-+]?[1-9]\d{{0,2}}(?:{re.escape(sign)}\d{{3}})+") for sign in ".,"}
NUMBER = re.compile(r"[-+]?(?:\d+|\d*[.,]\d+|\d{1,3}(?:\.\d{3})+|\d{1,3}(?:,\d{3})+)(?:[eE][-+]?\d+)?")
DECIMAL_COMMA = re.compile(r"[-+]?\d+(?:,\d+)?(?:[eE][-+]?\d+)?")
NO_VALUE = re.compile(r"\W*|#[A-Z/0!?]+|n\.?[ ./]?[ad]\.?|nan|null|none", re.IGNORECASE)  # in a column of numbers


def refuse_thousands(rows: Sequence[Sequence[str]], path: Path, *, are_decimal: bool) -> None:
    """InputError for a column whose points, or commas, may all separate thousands, where the other sign is decimal.

    The first row has the names. Numbers of all columns say which sign is decimal, else commas if `are_decimal`.
    """
    decimal: set[str] = set()
    grouped: dict[str, tuple[str, str]] = {}
    for name, *cells in zip(*(row for row in rows if len(row) == len(rows[0]))):
        given = {cell.strip() for cell in cells if NO_VALUE.fullmatch(cell.strip()) is None}
        if not all(map(NUMBER.fullmatch, given)):
            continue
        for sign, thousands in GROUPED.items():
            held = sorted(cell for cell in given if sign in cell)
            is_small = all(len(cell.strip("-+")) < 4 for cell in given.difference(held))
            if held and is_small and all(map(thousands.fullmatch, held)):
                grouped[sign] = (name, held[0])
            elif held:
                decimal.add(sign)
    why = "the decimal sign of other columns" if decimal else "semicolons between cells"
    decimal = decimal or set("," if are_decimal else GROUPED)
    for sign, (name, number) in grouped.items():
        if sign not in decimal:
            raise InputError(
                f'{path}: {name} has "{number}", which may mean thousands ({why}); write all numbers with one decimal '
                "sign, and none for thousands"
            )


def decimal_points(values: pd.Series, *, are_decimal: bool, as_text: bool) -> pd.Series:
    """A column of numbers with decimal commas, with points; any other as it is.

    Commas that may separate thousands (1,500) are decimal signs only if `are_decimal`.
    """
    given = values.dropna().astype(str).str.strip()
    given = given[given.map(lambda text: NO_VALUE.fullmatch(text) is None)]
    with_comma = [text for text in given if "," in text]
    if not with_comma or not all(map(DECIMAL_COMMA.fullmatch, given)):
        return values
    if not are_decimal and all(map(GROUPED[","].fullmatch, with_comma)):
        return values
    points = values.str.replace(",", ".", regex=False)
    return points if as_text or len(given) < values.notna().sum() else pd.to_numeric(points)


def decimal_sign(numbers: Sequence[str], column: str, *, source: str) -> str:
    """The decimal sign of a column's numbers, a point or a comma; InputError where it could be either."""
    with_comma = [number for number in numbers if "," in number]
    with_point = [number for number in numbers if "." in number]
    decimal = [number for number in with_comma if not any(map(GROUPED[","].fullmatch, number.split(".")))]
    if decimal and with_point:
        raise InputError(
            f'{source}: {column} has "{decimal[0]}", with a decimal comma, beside "{with_point[0]}", with a decimal '
            "point; write all numbers with a point"
        )
    if decimal and all(number.count(",") == 1 for number in with_comma):
        return ","
    is_plain = any(number.isdecimal() and int(number) for number in numbers)  # 300 beside 1.000, which may be 1000
    padded = [number for number in with_point if number.endswith("0")]
    are_grouped = is_plain and all(map(GROUPED["."].fullmatch, with_point))
    unclear = with_comma or (padded if are_grouped else [])
    if unclear:
        sign = "comma" if with_comma else "point"
        raise InputError(
            f'{source}: {column} has "{unclear[0]}", whose {sign} may be a decimal sign or separate thousands; write '
            "numbers with a decimal point, and without a sign for thousands (1.0 or 1000)"
        )
    return "."
