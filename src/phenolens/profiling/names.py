"""Names in anybody's table as plain text: the same whatever the file, and what was changed on the way.

N rows.
"""

from collections import Counter
from collections.abc import Collection, Iterable

import numpy as np
import pandas as pd

# Words that say nothing, in small letters: how programs write a missing value, most of which pandas takes so in CSV.
EMPTY_WORDS = frozenset({"", "nan", "-nan", "none", "null", "na", "n/a", "<na>", "#na", "#n/a"})


def text_of(values: pd.Series) -> pd.Series:
    """Names as text: no space around them, whole numbers without a point, "" where missing or one of EMPTY_WORDS."""
    place, kinds = pd.factorize(values)
    names = np.array([*(_name(kind) for kind in kinds), ""], dtype=object)  # the last is that of place -1: missing
    return pd.Series(names[place], index=values.index, dtype=object)


def emptied(values: pd.Series) -> Counter[str]:
    """How many rows hold which of EMPTY_WORDS as text; blank cells are not counted."""
    held = values.value_counts()
    words = {str(word): int(n) for word, n in held.items() if n and isinstance(word, str) and word.strip()}
    return Counter({word.strip(): n for word, n in words.items() if word.strip().casefold() in EMPTY_WORDS})


def unlike_by_case(names: Iterable[str]) -> list[tuple[str, str]]:
    """Names that are one but for capitals, in pairs: the first way it is written in sorted order, and another."""
    first: dict[str, str] = {}
    pairs = []
    for name in sorted(names):
        written = first.setdefault(name.casefold(), name)
        if written != name:
            pairs.append((written, name))
    return pairs


def case_note(what: str, names: Collection[str]) -> set[str]:
    """A note on names that differ by case alone; none where there are none."""
    pairs = unlike_by_case(names)
    if not pairs:
        return set()
    more = f" (and {len(pairs) - 1:,} more)" if len(pairs) > 1 else ""
    return {
        f'{what} names "{pairs[0][0]}" and "{pairs[0][1]}"{more} differ by capitals alone and are taken as two; '
        "correct the table if they are one"
    }


def _name(kind: object) -> str:
    if isinstance(kind, float | np.floating) and float(kind).is_integer():
        kind = int(kind)
    name = str(kind).strip()
    return "" if name.casefold() in EMPTY_WORDS else name
