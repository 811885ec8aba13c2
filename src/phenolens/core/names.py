"""One rule for names of compounds, mechanisms, plates, batches, roles and wells, wherever they are read.

A name is in Unicode's form NFKC, without invisible characters, and with single spaces inside and none around it. So
`é` in one or two characters, `µ` as the micro sign or as the Greek letter, and a no-break space make no other name. A
whole number has no point: 1.0 is 1, as programs write the numbers of a column in which some cells are empty.
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
# How people write that a mechanism is not known, besides texts without a letter or digit: `-`, `?`; 0 is what a
# spreadsheet's look-up makes of an empty cell.
UNKNOWN = re.compile(
    r"0|(?:(?:moa|mechanism)[ _]?)?(?:is )?(?:unknown|unclear|uncertain|others?|to be determined|"
    r"novel|various|misc(?:ellaneous)?\.?|multiple|no (?:known )?target|"
    r"(?:not[ _]|un)(?:known|annotated|available|determined|applicable|assigned|classified|defined|specified|"
    r"characteri[sz]ed)|"
    r"undetermined|tb[ad]|n[./]? ?[ad]\.?)(?:[ _](?:moa|mechanism)(?: of action)?)?",
    re.IGNORECASE,
)
INVISIBLE = re.compile("[\u034f\u115f\u1160\u3164\ufe00-\ufe0f]")  # and the format characters, category Cf
MOST_NAMED = 12
BY_CASE = "case, spaces, dashes, closing punctuation, a Greek letter or leading zeros"
# At the end of a compound's name; BRD-K12345678-001-01-1 is a batch of BRD-K12345678.
SALTS = re.compile(
    r"(?:[ ,(-]+(?:mono|di|tri|hemi)?(?:hydrochloride|hcl|hydrobromide|hbr|mes[yi]late|tosylate|bes[yi]late|maleate|"
    r"fumarate|tartrate|citrate|phosphate|sul(?:f|ph)ate|acetate|succinate|lactate|malate|nitrate|chloride|bromide|"
    r"sodium|potassium|calcium|hydrate|salt)\)?)+$|(?<=^BRD-[A-Z]\d{8})-\d{3}-\d\d-\d$",
    re.IGNORECASE,
)
DASHES = re.compile("[\u2010-\u2015\u2212\ufe58\ufe63]")
PRIMES = re.compile("[\u2018\u2019\u201b\u2032\u00b4`]")
# Greek letters as they are spelled out; `u` for the μ of micro.
GREEK = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda u nu xi omicron pi rho . sigma tau upsilon"
SPELLED_OUT = dict(enumerate([*GREEK.split(), "phi", "chi", "psi", "omega"], start=ord("α")))


def clean_name(value: object) -> str:
    """A name by the rule above; "" for one of EMPTY_WORDS."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    visible = "".join(letter for letter in str(value) if unicodedata.category(letter) != "Cf")
    name = " ".join(unicodedata.normalize("NFKC", INVISIBLE.sub("", visible)).split())
    return "" if name.casefold() in EMPTY_WORDS else name[:-2] if re.fullmatch(r"\d+\.0", name) else name


def clean_names(values: pd.Series) -> pd.Series:
    """A column of names by the rule above; "" where missing."""
    try:
        place, kinds = pd.factorize(values)
    except TypeError:  # lists, which have no hash
        place, kinds = pd.factorize(values.astype(str))
    names = np.array([*(clean_name(kind) for kind in kinds), ""], dtype=object)  # the last is that of place -1: missing
    return pd.Series(names[place], index=values.index, name=values.name, dtype=object)


def plain_name(column: str) -> str:
    """A column's name as words joined by underscores, without Metadata_: `Concentration (µM)` is concentration_um."""
    words = re.sub(r"(?<=[a-z]{2})(?=[A-Z])", "_", clean_name(column)).casefold().replace("μ", "u")
    return re.sub(r"^(?:image_)?metadata_", "", re.sub(r"[^\w/%]+", "_", words).strip("_"))


def known_mechanism(value: object) -> str:
    """A mechanism's name by the rule above; "" where it says that the mechanism is not known (`unknown`, `-`, `?`)."""
    name = clean_name(value)
    return name if re.search(r"[^\W_]", name) and not UNKNOWN.fullmatch(name) else ""


def emptied(values: pd.Series, rule: Callable[[object], str] = clean_name) -> Counter[str]:
    """How many rows hold which text that is empty by the rule (of EMPTY_WORDS); blank cells are not counted."""
    counts: Counter[str] = Counter()
    for held, n in values.value_counts().items():
        if n and str(held).strip() and not rule(held):
            counts[str(held).strip()] += int(n)
    return counts


def emptied_note(column: str, counts: Counter[str], *, rows: str = "rows") -> str:
    """A note on the text that counts as empty in a column."""
    held = ", ".join(f'"{text}" ({n:,})' for text, n in sorted(counts.items()))
    return f"{counts.total():,} {rows} count as empty in column {column}: {held}"


def alike(name: str) -> str:
    """What two names share that differ by capitals, spaces, dashes, closing punctuation, a Greek letter or zeros only.

    The zeros are those that a number begins with. A space or dash between two digits counts (1-12 is not 11-2), and a
    dash after a sign or bracket. `ß` is β.
    """
    plain = PRIMES.sub("'", DASHES.sub("-", name.replace("ß", "β"))).casefold().translate(SPELLED_OUT)
    plain = re.sub(r"(?<=\d)[- ]+(?=\d)", "~", plain.rstrip(" .,;:!?*'\"")).replace(" ", "")
    return re.sub(r"(?<![\d.])0+(?=\d)", "", re.sub(r"(?<=\w)-", "", plain))


def without_salt(name: str) -> str:
    """What two names of one substance share: `alike` without salts at the end or the batch of a Broad number."""
    return alike(SALTS.sub("", name) or name)


def case_note(what: str, names: Collection[str], *, key: Callable[[str], str] = alike) -> set[str]:
    """A note on the first names that `key` makes one; empty without any."""
    return _differing(what, names, key, BY_CASE)


def substance_note(compounds: Collection[str]) -> set[str]:
    """A note on the first names of compounds that are of one substance, by more than `alike`; empty without any."""
    others = {alike(name): name for name in compounds}.values()
    return _differing("compound", others, without_salt, "a salt or the batch of a supplier")


def _differing(what: str, names: Collection[str], key: Callable[[str], str], by: str) -> set[str]:
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
        f'{what} names "{pairs[0][0]}" and "{pairs[0][1]}"{more} differ by {by} only and are treated as different; '
        "correct the table if they are the same"
    }


def nearest(wanted: str, names: Iterable[str]) -> str:
    """A suggestion: the most similar name, or the first names that exist."""
    known = list(dict.fromkeys(names))
    near = [name for name in known if name.lower() == wanted.lower()] or get_close_matches(wanted, known, n=1)
    return f'did you mean "{near[0]}"?' if near else found_names(known)


def shortened(names: Sequence[str], most: int = MOST_NAMED) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def found_names(names: Sequence[str]) -> str:
    """The first names that there are."""
    return f"found: {', '.join(names[:MOST_NAMED])}{' ...' if len(names) > MOST_NAMED else ''}"
