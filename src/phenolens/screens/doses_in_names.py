"""Doses and plates inside the names of compounds (`taxol_0.3uM`), by which one compound is several.

Another dose, or the same on another plate, then counts as a match. Names are never split: they are refused or reported.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass

import pandas as pd

from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.names import alike, clean_name

NUMBER = r"(?<![\d.,])(?P<number>(?:\d+(?:[.,]\d+)?|[.,]\d+)(?:[eE][-+]?\d+)?)"
ENDS = r"(?![A-Za-z0-9])"
# Of names as clean_name gives them, in which µ is the Greek letter. A lone M follows an exponent: 5M may be a count.
WITH_UNIT = re.compile(
    rf"{NUMBER}[ _-]?(?P<unit>[pnuμm]M|(?:(?<=[eE]-\d)|(?<=[eE]-\d\d))M|"
    rf"(?i:[pnuμm]?mol(?:ar)?(?:/l)?|(?:[pnuμm]?g|iu|u)/(?:[pnuμmd]?l|kg)|[nuμm]g|%|ppm|gy)){ENDS}"
)
OF_OTHERS = re.compile(  # lengths, as of beads, which may be molar; times; repeats
    rf"{NUMBER}[ _-]?(?P<unit>[pnuμm]m|h|hrs?|hours?|min|days?){ENDS}|"
    r"(?<![A-Za-z])(?:rep(?:l|licate|eat)?|r)[ _-]?(?P<repeat>\d+)$"
)
AT_THE_END = re.compile(r"(?<=[ _@(:-])(?P<number>\d*[.,]\d+|(?<!-)\d+)\)?$")
FRACTION = re.compile(r"(?:\.\d+|,\d{1,2})\)?$")  # the comma of ICI-182,780 separates thousands


@dataclass(frozen=True)
class DosesInNames:
    """The compounds of a table whose names have, or may have, a dose, by the names without it."""

    doses: dict[str, list[str]]  # name without its dose -> names, of compounds with a unit behind the number
    perhaps: dict[str, list[str]]  # the same without a unit, or with one that may be a length; two names or more

    @property
    def several(self) -> list[list[str]]:
        """The names of each compound that certainly has two doses or more."""
        return [names for names in self.doses.values() if len(names) > 1]

    def refuse(self, source: str, *, remedy: str) -> None:
        """InputError where names of one compound differ by their dose alone."""
        if self.several:
            first, second = self.several[0][:2]
            raise InputError(
                f'{source}: compounds "{first}" and "{second}" differ by the dose in their names '
                f"({counted(len(self.several), 'compound')} with several doses): each dose would be a compound of its "
                f"own, and find another dose of its compound as its match; {remedy}"
            )

    def notes(self, *, remedy: str) -> set[str]:
        """A note on compounds with a dose in their names, and one on names that may have one."""
        notes = set()
        names = [name for names in self.doses.values() for name in names]
        if names:
            shown = " and ".join(f'"{name}"' for name in names[:2])
            notes.add(
                f"a dose in the names of {shown} ({counted(len(names), 'compound')}): another dose would be another "
                f"compound and count as a match; {remedy}"
            )
        if self.perhaps:
            first, second = next(iter(self.perhaps.values()))[:2]
            notes.add(
                f'"{first}" and "{second}" differ by a number in their names ({len(self.perhaps):,} such groups of '
                "compounds); if it is a dose, a time or a repeat, they find each other as matches: "
                f"{remedy}, without repeats"
            )
        return notes


def doses_in_names(compounds: Collection[str]) -> DosesInNames:
    """Which of these names have a dose: a number with a unit; or may have one: another number."""
    names = sorted({clean_name(name) for name in compounds})
    doses = _by_stem(names, WITH_UNIT)
    others = [name for name in names if WITH_UNIT.search(name) is None]
    perhaps = {stem: list(held.values()) for stem, held in _by_stem(others, OF_OTHERS).items() if len(held) > 1}
    at_the_end = _by_stem(others, AT_THE_END)
    stems = Counter(number for held in at_the_end.values() for number in held)
    for stem, held in at_the_end.items():
        has_fraction = any(FRACTION.search(name) for name in held.values())
        if len(held) > 1 and (has_fraction or sum(stems[number] > 1 for number in held) > 1):
            perhaps.setdefault(stem, list(held.values()))
    return DosesInNames({stem: list(held.values()) for stem, held in doses.items()}, perhaps)


def _by_stem(names: Collection[str], dose: re.Pattern[str]) -> dict[str, dict[tuple[str, ...], str]]:
    """The first name of each such dose, by what is left of the name without it."""
    groups: defaultdict[str, dict[tuple[str, ...], str]] = defaultdict(dict)
    for name in names:
        found = tuple(_plain(one[0]) for one in dose.finditer(name))
        stem = alike(re.sub(r"[ _@()\[\]+,:;/-]+", " ", dose.sub(" ", name)))
        if found and re.search(r"[^\W\d_]", stem):
            groups[stem].setdefault(found, name)
    return dict(groups)


def _plain(dose: str) -> str:
    """A dose without its way of writing: `0,30 µM` is 0.3um."""
    plain = re.sub(r"[ _)-]", "", dose).replace("μ", "u").replace(",", ".").casefold()
    return re.sub(r"(\.\d*?)0+(?=\D|$)", r"\1", plain).replace(".u", "u")


def refuse_plates_in_names(plates: pd.Series, compounds: pd.Series, *, source: str) -> None:
    """InputError where most compounds have the name of their own plate at an end, and one does so on several plates."""
    stems: defaultdict[str, list[str]] = defaultdict(list)
    for plate, compound in sorted(set(zip(plates, compounds))):
        at_an_end = rf"{re.escape(plate)}[_@-]+(.+)|(.+?)[_@-]+{re.escape(plate)}"
        if match := re.fullmatch(at_an_end, compound):
            stems[match[1] or match[2]].append(compound)
    several = next((names for names in stems.values() if len(names) > 1), None)
    n_named = sum(map(len, stems.values()))
    if several and 2 * n_named > compounds.nunique():
        raise InputError(
            f'{source}: compounds "{several[0]}" and "{several[1]}" differ by the name of their own plate '
            f"({counted(n_named, 'compound')} with it): each would find itself on another plate as its match; write "
            "the compound without the plate, which has a column of its own"
        )
