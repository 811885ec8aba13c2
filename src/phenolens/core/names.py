"""One rule for names of compounds, mechanisms, plates, batches, roles and wells, wherever they are read.

A name is in Unicode's form NFKC, without invisible characters, and with single spaces inside and none around it. So
`é` in one or two characters, `µ` as the micro sign or as the Greek letter, and a no-break space make no other name.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from difflib import get_close_matches

import numpy as np
import pandas as pd

# How programs write a missing value, in lower case; pandas reads most of them so in CSV.
EMPTY_WORDS = frozenset({"", "nan", "-nan", "none", "null", "na", "n/a", "<na>", "#na", "#n/a", "nat"})
INVISIBLE = re.compile("[\u034f\u115f\u1160\u3164\ufe00-\ufe0f]")  # and the format characters, category Cf
DASHES = re.compile("[\u2010-\u2015\u2212\ufe58\ufe63]")
PRIMES = re.compile("[\u2018\u2019\u201b\u2032\u00b4`]")


def clean_name(value: object) -> str:
    """A name by the rule above; a whole number without a point, and "" for one of EMPTY_WORDS."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    visible = "".join(letter for letter in str(value) if unicodedata.category(letter) != "Cf")
    name = " ".join(unicodedata.normalize("NFKC", INVISIBLE.sub("", visible)).split())
    return "" if name.casefold() in EMPTY_WORDS else name


def clean_names(values: pd.Series) -> pd.Series:
    """A column of names by the rule above; "" where missing."""
    try:
        place, kinds = pd.factorize(values)
    except TypeError:  # lists, which have no hash
        place, kinds = pd.factorize(values.astype(str))
    names = np.array([*(clean_name(kind) for kind in kinds), ""], dtype=object)  # the last is that of place -1: missing
    return pd.Series(names[place], index=values.index, name=values.name, dtype=object)


def emptied(values: pd.Series) -> Counter[str]:
    """How many rows hold which of EMPTY_WORDS as text; blank cells are not counted."""
    counts: Counter[str] = Counter()
    for held, n in values.value_counts().items():
        if n and isinstance(held, str) and held.strip() and not clean_name(held):
            counts[held.strip()] += int(n)
    return counts


def emptied_note(column: str, counts: Counter[str]) -> str:
    """A note on the text that counts as empty in a column."""
    held = ", ".join(f'"{text}" ({n:,})' for text, n in sorted(counts.items()))
    return f"{counts.total():,} rows count as empty in column {column}: {held}"


def alike(name: str) -> str:
    """What two names share that differ by capitals, spaces, or the kind of dash or prime only."""
    return PRIMES.sub("'", DASHES.sub("-", name)).replace(" ", "").casefold()


def case_note(what: str, names: Collection[str], *, key: Callable[[str], str] = alike) -> set[str]:
    """A note on the first names that differ by capitals, spaces or dashes only; empty where there are none."""
    first: dict[str, str] = {}
    pairs = []
    for name in sorted(names):
        written = first.setdefault(key(name), name)
        if written != name:
            pairs.append((written, name))
    if not pairs:
        return set()
    more = f" (and {len(pairs) - 1:,} more)" if len(pairs) > 1 else ""
    return {
        f'{what} names "{pairs[0][0]}" and "{pairs[0][1]}"{more} differ by case, spaces or dashes only and are treated '
        "as different; correct the table if they are the same"
    }


def nearest(wanted: str, names: Iterable[str]) -> str:
    """A suggestion: the most similar name, or the first names that exist."""
    known = list(dict.fromkeys(names))
    near = [name for name in known if name.lower() == wanted.lower()] or get_close_matches(wanted, known, n=1)
    return f'did you mean "{near[0]}"?' if near else found_names(known)


def found_names(names: Sequence[str]) -> str:
    """The first names that there are."""
    return f"found: {', '.join(names[:12])}{' ...' if len(names) > 12 else ''}"
