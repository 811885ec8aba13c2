"""Concentrations in micromolar: which column holds them, in which unit, and which of them are one dose."""

import re
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pandas as pd

from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.names import clean_name, plain_name, shortened
from phenolens.screens.csv_table import refuse_rows
from phenolens.screens.decimal_signs import decimal_sign

MOLAR = re.compile(r"(?P<prefix>[pnum]?)_?(?:m|mol|molar|moles?_?(?:/|per)_?(?:l|lit(?:er|re)))(?:_?/_?l)?")
PREFIXES = {"p": 1e-6, "n": 1e-3, "u": 1.0, "m": 1e3, "": 1e6}  # to micromolar
WORDS = {"picomolar": 1e-6, "nanomolar": 1e-3, "micromolar": 1.0, "millimolar": 1e3}
DOSE = r"(?:(?:final|compound|cmpd|cpd|drug|treatment|pert|nominal|test)_)*(?:concentrations?|concn?|doses?|dosage)"
DOSE_COLUMN = re.compile(rf"{DOSE}(?:_(?:in_)?(?P<unit>.+))?")
UNIT_COLUMN = re.compile(rf"(?:{DOSE}_)?units?")
LIKE_A_DOSE = re.compile(r"(?:^|_)(?:conc(?:n|s|entr\w*)?|kon[cz]\w*|dos(?:e|es|is|age|ages|ing)|molar\w*)(?:_|\d|$)")
WITH_A_UNIT = re.compile(r"(?:^|_)(?:[pnum]m|[pnum]?mol/l)$")
VOLUME = r"(?:transfer(?:red)?_)?vol(?:ume)?s?_(?:in_)?[pnum]l|transfer(?:red)?_vol(?:ume)?s?"
NOT_MOLAR = re.compile(
    rf"(?:^|_)(?P<unit>(?:iu|[pnum]?g|u)(?:/|_per_|_|per)?[pnumd]?l|[pnum]?g(?:(?:/|_per_|_)k?g)?|[pnum]l|{VOLUME}|"
    r"%|percent|pct|pp[mbt]|[cm]?gy|grays?|moi|vv|wv|ww|[vw]/[vw])$"
)
LOG = "log(?:10|2)?|ln"
LOG_OF_DOSES = rf"(?:^|_)(?:{LOG}|p)_?(?:conc|dos|molar)"
OF_LOGARITHMS_OF_DOSES = re.compile(LOG_OF_DOSES)
OF_LOGARITHMS = re.compile(rf"(?:^|_)(?:{LOG})(?:_|$)|{LOG_OF_DOSES}|(?:^|_)(?:{LOG}|p)_?[iegx]c50")
OF_LENGTHS = re.compile(
    r"size|pixel|wave|length|dist|thick|diam|radius|width|height|depth|pos|offset|emission|excit|(?:^|_)[xyz]_"
)
NUMBER = re.compile(r"(?P<number>[-+]?(?:\d[\d.,]*|\.\d+)(?:[eE][-+]?\d+)?)\s*(?P<unit>\D.*)?")
GIVE_DOSES = "give the concentrations themselves, in a column such as concentration_um"
MOST = 1e3  # micromolar; higher doses are reported
LEAST_HIGHEST = 1e-3  # micromolar; a screen whose compounds' highest doses are lower is reported
NEAR = 0.01  # doses of a compound within this share of each other are reported


def micromolar_per(unit: str) -> float | None:
    """How many micromolar a unit is (nM, umol/L, millimolar); None for a unit that is not molar."""
    plain = plain_name(unit)
    match = MOLAR.fullmatch(plain)
    return PREFIXES[match["prefix"]] if match else WORDS.get(plain)


def is_dose_column(column: str) -> bool:
    """Whether a column's name says that it holds concentrations in a molar unit, or in none that is named."""
    plain = plain_name(column)
    match = DOSE_COLUMN.fullmatch(plain)
    if match and UNIT_COLUMN.fullmatch(plain) is None:
        return match["unit"] is None or micromolar_per(match["unit"]) is not None
    return plain.endswith(("per_liter", "per_litre")) and micromolar_per(plain) is not None


def is_unit_column(column: str) -> bool:
    """Whether a column's name says that it holds the unit of the concentrations."""
    return UNIT_COLUMN.fullmatch(plain_name(column)) is not None


def is_unit(column: str) -> bool:
    """Whether a column's whole name is a unit or `molarity`, or says that it holds transferred volumes, so of doses."""
    plain = plain_name(column)
    match = NOT_MOLAR.fullmatch(plain)
    return len(plain) > 1 and (bool(match) or micromolar_per(plain) is not None or plain in ("molar", "molarity"))


def is_logarithm(column: str) -> bool:
    """Whether a column's name says that it holds logarithms of concentrations."""
    return OF_LOGARITHMS.search(plain_name(column)) is not None


def resembles_dose(column: str) -> bool:
    """Whether a column may hold concentrations, so that it is not left unread where no other does."""
    plain = plain_name(column)
    has_unit = WITH_A_UNIT.search(plain) and not OF_LENGTHS.search(plain)
    return bool(LIKE_A_DOSE.search(plain) or OF_LOGARITHMS_OF_DOSES.search(plain) or has_unit) and not is_unit_column(
        column
    )


def micromolar(table: pd.DataFrame, column: str, *, source: str, places: np.ndarray | None = None) -> pd.Series:
    """A column of concentrations in micromolar, NaN where it is empty.

    The unit is in the column's name, in a column of its own or behind the number, else micromolar. A comma is a decimal
    sign where it can be nothing else.

    Args:
        table: The table, with the column of the unit if it has one.
        column: The column of concentrations.
        source: The table's name, for messages.
        places: The rows' places in the file, from 0; default: the rows are the file.

    Raises:
        InputError: A value is not a number, negative or infinite; a unit is not molar; or two units are given.
    """
    of_name = _unit_in(column, source=source)
    units = [str(name) for name in table.columns if is_unit_column(str(name)) and name != column]
    written = table[column].map(_text)
    texts = written.unique()
    decimal = decimal_sign([one["number"] for one in map(NUMBER.fullmatch, texts) if one], column, source=source)
    parsed = {text: _parsed(text, decimal) for text in texts}
    amount = written.map({text: number for text, (number, _) in parsed.items()}).astype(float)
    bad = (amount.isna() & (written != "")) | (amount < 0) | np.isinf(amount)
    refuse_rows(bad, written, expected="micromolar, a number of at least 0", source=source, places=places)
    behind = written.map({text: unit for text, (_, unit) in parsed.items()}).rename(column)
    is_used = (written != "") & (amount != 0)
    factor = pd.Series(np.nan if of_name is None else of_name, index=table.index)
    for unit in (behind, *(table[name].map(_text) for name in units)):
        for kind in filter(None, unit[is_used].unique()):
            rows, size = is_used & (unit == kind), micromolar_per(kind)
            if size is None:
                expected = "a molar unit (nM, uM, mM ...)"
                if unit is behind:
                    unit, expected = written, f"one number, such as 0.3, alone or with {expected} behind it"
                refuse_rows(rows, unit, expected=expected, source=source, places=places)
            other = rows & factor.notna() & (factor != size)
            refuse_rows(other, unit, expected=f"the unit that {column} has otherwise", source=source, places=places)
            factor = factor.mask(rows, size)
    if units:
        without = table[units[0]].where(factor.isna() & is_used)
        refuse_rows(factor.isna() & is_used, without, expected="a molar unit", source=source, places=places)
    elif behind[is_used].ne("").any():
        expected = "a unit behind the number, as other rows have"
        refuse_rows(factor.isna() & is_used, written, expected=expected, source=source, places=places)
    return (amount * factor.fillna(1.0)).map(lambda number: float(f"{number:.6g}"))  # as treatments are named


def _unit_in(column: str, *, source: str) -> float | None:
    """How many micromolar the unit in a column's name is; None without a unit, InputError for one that is not molar."""
    if is_logarithm(column):
        raise InputError(f'{source}: column "{column}" holds logarithms by its name; {GIVE_DOSES}')
    plain = plain_name(column)
    match = DOSE_COLUMN.fullmatch(plain)
    unit = match["unit"] or "" if match else plain
    size = micromolar_per(unit)
    if size is None and not match and re.search(r"_[pnum]m$", plain):  # a column that a flag names, such as amount_nM
        size = micromolar_per(plain.rpartition("_")[2])
    other = NOT_MOLAR.search(plain) if size is None else None
    if other or (match and size is None and re.search(r"[mnu]?[gl]/|%|percent|pct|_per_|mg|ml", unit)):
        unit = other["unit"] if other and not match else unit
        raise InputError(
            f'{source}: column "{column}" is in {unit}, which is not molar; convert it to micromolar, or rename the '
            "column to concentration to use its numbers as they are"
        )
    return size


def refuse_no_doses(concentration_um: pd.Series, *, source: str) -> None:
    """InputError where every one of these concentrations, of treated wells, is missing."""
    if len(concentration_um) and concentration_um.isna().all():
        raise InputError(
            f"{source}: no treated well has a concentration: where treatments have none (a gene screen), delete the "
            "column of the concentration, or write 0; else fill it in"
        )


def _text(value: object) -> str:
    return "" if pd.isna(value) else repr(value) if isinstance(value, float) else clean_name(value)  # type: ignore[call-overload]


def _parsed(text: str, decimal: str) -> tuple[float, str]:
    """A cell's number and the unit behind it ("" without one); NaN where it is not a number."""
    match = NUMBER.fullmatch(text)
    try:
        if match is None:
            return float(text or "nan"), ""
        return float(match["number"].replace(decimal, ".")), match["unit"] or ""
    except ValueError:
        return float("nan"), ""


def mechanisms_of_compounds_note(treated: pd.DataFrame) -> set[str]:
    """A note that counts the compounds with another mechanism at another concentration; else empty.

    `treated` has the columns compound and moa (empty where it is not known).
    """
    known = treated[treated["moa"].notna() & (treated["moa"] != "")]
    by_compound = known[["compound", "moa"]].drop_duplicates().groupby("compound")["moa"].agg(list)
    several = by_compound[by_compound.map(len) > 1]
    if several.empty:
        return set()
    return {
        f"{counted(len(several), 'compound')} with several mechanisms, each at some concentrations (the first: "
        f"{several.index[0]}, {shortened(sorted(several.iloc[0]), 3)}); is that what is meant?"
    }


def controls_notes(compounds: pd.Series, concentration_um: pd.Series, *, rows: str) -> set[str]:
    """Notes on controls of several compounds, and on the first of several concentrations, with the number of each."""
    notes, counts = set[str](), compounds.value_counts()
    if len(counts) > 1:
        held = shortened([f"{compound} ({n:,})" for compound, n in counts.to_dict().items()])
        notes.add(f"{rows} of {len(counts)} compounds are all negative controls: {held}; is that what is meant?")
    for compound, doses in concentration_um.groupby(compounds):
        n_rows = doses.value_counts().sort_index()
        if len(n_rows) > 1:
            held = ", ".join(f"{dose:g} µM ({n:,})" for dose, n in n_rows.to_dict().items())
            notes.add(
                f"{rows} of {compound} at {len(n_rows)} concentrations are all controls: {held}; where only some are "
                "meant, say so in a column role"
            )
            break
    return notes


class SameDoses:
    """Doses of a compound that count as one: those within a share of an earlier one take its value.

    Args:
        within: The share, such as 0.01; with 0 every dose stays as it is.
    """

    def __init__(self, within: float) -> None:
        self.within = within
        self.doses: dict[str, list[float]] = {}
        self.changed: dict[tuple[str, float], float] = {}

    def joined(self, compounds: pd.Series, concentration_um: pd.Series) -> pd.Series:
        """The concentrations of rows, each as that of the dose it belongs to."""
        for compound, dose in dict.fromkeys(zip(compounds, concentration_um)):
            known = self.doses.setdefault(compound, [])
            if np.isnan(dose) or dose in known or (compound, dose) in self.changed:
                continue
            same = [other for other in known if abs(dose - other) <= self.within * other]
            if same:
                self.changed[compound, dose] = min(same, key=lambda other: abs(dose - other))
            else:
                known.append(dose)
        if not self.changed:
            return concentration_um
        pairs = zip(compounds, concentration_um)
        return pd.Series([self.changed.get(pair, pair[1]) for pair in pairs], index=concentration_um.index)

    def notes(self) -> set[str]:
        """Notes on doses that were joined, and on doses of a compound that are nearly equal and were not."""
        notes = set()
        if self.changed:
            (compound, dose), kept = next(iter(self.changed.items()))
            notes.add(
                f"{counted(len(self.changed), 'dose')} joined with another of the same compound (--same-dose-within "
                f"{self.within:g}); the first: {compound} {dose:g} as {kept:g} µM"
            )
        highest = [max(doses) for doses in self.doses.values() if max(doses, default=0) > 0]
        if highest and np.median(highest) < LEAST_HIGHEST:
            notes.add(
                f"the highest concentration of half of the compounds is below {LEAST_HIGHEST:g} µM: are they molar "
                f"(their median is {np.median(highest):g})? Call the column conc_M, or conc_nM, or give a column unit"
            )
        too_high = [(compound, dose) for compound, doses in self.doses.items() for dose in doses if dose > MOST]
        if too_high:
            compound, dose = too_high[0]
            notes.add(
                f"{counted(len(too_high), 'dose')} above {MOST:,.0f} µM; the first: {compound} {dose:g} µM; are they "
                "in this unit, and not of a stock? Name the column conc_uM or conc_nM (plate maps with "
                "mmoles_per_liter may hold micromolar), or give a column unit"
            )
        near = list(self._near())
        if near:
            compound, low, high = near[0]
            notes.add(
                f"{counted(len(near), 'pair')} of doses of one compound within {NEAR:.0%} of each other, counted as "
                f"different treatments; the first: {compound} {low:.6g} and {high:.6g} µM; --same-dose-within {NEAR} "
                "makes them one"
            )
        return notes

    def _near(self) -> Iterable[tuple[str, float, float]]:
        for compound, doses in self.doses.items():
            ordered = sorted(doses)
            yield from ((compound, a, b) for a, b in pairwise(ordered) if b - a <= NEAR * a)
