"""The columns of a table: which holds what, which are features, and the metadata of each row. N rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pandas as pd

from phenolens.core.bounds import Bounded
from phenolens.core.errors import InputError
from phenolens.profiles.profiles import METADATA
from phenolens.screens.screen import ROLES, treatment_name

# How programs write a missing value, in lower case; pandas reads most of them so in CSV.
EMPTY_WORDS = frozenset({"", "nan", "-nan", "none", "null", "na", "n/a", "<na>", "#na", "#n/a"})
# Columns of other programs that are never features.
NO_FEATURES = (
    *("Metadata_*", "*_Metadata_*", "Image_*", "ImageNumber", "*_ImageNumber", "TableNumber"),
    # CellProfiler's numbers of the object, of its parents, children and neighbours
    *("*ObjectNumber", "*Number_Object_Number", "*_*ClosestObjectNumber_*"),
    *("Parent_*", "*_Parent_*", "Children_*", "*_Children_*"),
    # positions in the field
    *("Location_*", "*_Location_*", "AreaShape_Center_*", "*_AreaShape_Center_*"),
    *("AreaShape_BoundingBoxM*imum_*", "*_AreaShape_BoundingBoxM*imum_*"),
    *("Unnamed: *", "__index_level_*__", ""),  # the index of a table that pandas wrote
)
# Whole names, in lower case, that are mostly metadata; a feature with such a name is reported.
LIKE_METADATA = frozenset(
    "batch week plate barcode well row column col site field replicate compound drug concentration conc dose treatment "
    "moa role control time timepoint day date run index id cell cell_id object".split()
)
ALL_PLATES = "all"  # the plate's name where there is no plate column


@dataclass(frozen=True)
class Columns(Bounded):
    """Which column holds what; a column that is not named is looked up under phenolens's own name (Metadata_Plate ...).

    In `metadata` and `features`, * is a wildcard.
    """

    treatment: str | None = None  # column of the treatment; left out: compound and concentration together
    compound: str | None = None  # column of the compound, never a query's neighbour; left out: the treatment
    concentration: str | None = None  # column of the concentration in micromolar
    mechanism: str | None = None  # column of the mechanism of action; empty where it is not known
    batch: str | None = None  # column of the batch, such as the week of an experiment; NSCB needs it
    plate: str | None = None  # column of the plate
    well: str | None = None  # column of the well
    role: str | None = None  # column that holds treated, control or other
    control: tuple[str, ...] = ()  # what a control row holds: a compound's or treatment's name, or COLUMN=VALUE
    metadata: tuple[str, ...] = ()  # further columns that are not features; * is a wildcard
    features: tuple[str, ...] = ()  # columns that are features; @FILE reads a list; left out: all other columns


# Each field of Columns that names one column, and phenolens's own name of that column.
OWN_NAMES = {
    "treatment": METADATA["treatment"],
    "compound": METADATA["compound"],
    "concentration": METADATA["concentration_um"],
    "mechanism": METADATA["moa"],
    "batch": METADATA["batch"],
    "plate": METADATA["plate"],
    "well": METADATA["well"],
    "role": METADATA["role"],
}


def of_columns(names: Sequence[str], columns: Columns, *, source: Path) -> dict[str, str | None]:
    """Which of a file's columns holds what; InputError on a missing column, and without treatment and compound."""
    of = {what: getattr(columns, what) or (own if own in names else None) for what, own in OWN_NAMES.items()}
    for what, name in of.items():
        if name is not None and name not in names:
            raise InputError(f'{source}: no column "{name}" (--{what}); {nearest(name, names)}')
    if of["treatment"] is None and of["compound"] is None:
        raise InputError(
            f"{source}: no column of treatments or compounds; name one with --treatment or --compound ({_found(names)})"
        )
    return of


def feature_columns(names: Sequence[str], columns: Columns, *, source: Path, also: Sequence[str] = ()) -> list[str]:
    """The columns of a file that are features, in the order of the file, or as `columns.features` lists them.

    `also` are columns that cannot be features but may be named as metadata (the obs of an AnnData file). InputError
    when a name or pattern matches nothing, and when no feature is left.
    """
    taken = {getattr(columns, what) or own for what, own in OWN_NAMES.items()}
    taken |= {control.split("=", 1)[0] for control in columns.control if "=" in control}
    if columns.features:
        chosen: dict[str, None] = {}
        for wanted in _listed(columns.features):
            found = [name for name in names if name == wanted or fnmatchcase(name, wanted)]
            if not found:
                raise InputError(f'{source}: no column "{wanted}" (--features); {nearest(wanted, names)}')
            chosen |= dict.fromkeys(found)
        both = [name for name in chosen if name in taken]
        if both:
            raise InputError(
                f'{source}: column "{both[0]}" is named as metadata and as a feature; expected one of them'
            )
        return list(chosen)
    for wanted in columns.metadata:
        if not any(name == wanted or fnmatchcase(name, wanted) for name in (*names, *also)):
            raise InputError(f'{source}: no column "{wanted}" (--metadata); correct it or leave it out')
    without = (*NO_FEATURES, *columns.metadata)
    kept = [n for n in names if n not in taken and not any(fnmatchcase(n, pattern) for pattern in without)]
    if not kept:
        raise InputError(f"{source}: no column is left as a feature ({_found(names)}); see --features")
    return kept


def _listed(wanted: Sequence[str]) -> list[str]:
    """The names and patterns, with those of a file (@FILE, one per line) in place of its name."""
    names: list[str] = []
    for name in wanted:
        if not name.startswith("@"):
            names.append(name)
            continue
        try:
            lines = Path(name[1:]).read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise InputError(f"--features {name}: not readable as a list of names ({error})") from error
        names += [line.strip() for line in lines if line.strip()]
    return names


def nearest(wanted: str, names: Sequence[str]) -> str:
    """A suggestion: the most similar name, or the first names that exist."""
    alike = [name for name in names if name.lower() == wanted.lower()]
    near = alike or get_close_matches(wanted, names, n=1)
    return f'did you mean "{near[0]}"?' if near else _found(names)


def _found(names: Sequence[str]) -> str:
    return f"found: {', '.join(names[:12])}{' ...' if len(names) > 12 else ''}"


def text_of(values: pd.Series) -> pd.Series:
    """Names as text, stripped, whole numbers without a point; "" where missing or one of EMPTY_WORDS."""
    place, kinds = pd.factorize(values)
    names = np.array([*(_name(kind) for kind in kinds), ""], dtype=object)  # the last is that of place -1: missing
    return pd.Series(names[place], index=values.index, dtype=object)


def _name(kind: object) -> str:
    if isinstance(kind, float | np.floating) and float(kind).is_integer():
        kind = int(kind)
    name = str(kind).strip()
    return "" if name.casefold() in EMPTY_WORDS else name


def _emptied(values: pd.Series) -> Counter[str]:
    """How many rows hold which of EMPTY_WORDS as text; blank cells are not counted."""
    counts: Counter[str] = Counter()
    for held, n in values.value_counts().items():
        if n and isinstance(held, str) and held.strip() and held.strip().casefold() in EMPTY_WORDS:
            counts[held.strip()] += int(n)
    return counts


def case_note(what: str, names: Collection[str]) -> set[str]:
    """A note on the first names that differ by case only; empty where there are no such names."""
    first: dict[str, str] = {}
    pairs = []
    for name in sorted(names):
        written = first.setdefault(name.casefold(), name)
        if written != name:
            pairs.append((written, name))
    if not pairs:
        return set()
    more = f" (and {len(pairs) - 1:,} more)" if len(pairs) > 1 else ""
    return {
        f'{what} names "{pairs[0][0]}" and "{pairs[0][1]}"{more} differ by case only and are treated as different; '
        "correct the table if they are the same"
    }


@dataclass(frozen=True)
class KnownRows:
    """The metadata of some rows under phenolens's own names, and what was found on reading them."""

    table: pd.DataFrame  # (N rows) the METADATA of a well
    of: dict[str, str | None]  # which column holds what
    names: dict[str, set[str]]  # the names in each column of `Columns` that there is, and of treatments
    control_rows: dict[str, int]  # rows that each of `Columns.control` matches
    only_by_case: dict[str, dict[int, str]]  # of each of `Columns.control`: row in the file (from 1) -> its name there
    emptied: dict[str, Counter[str]]  # column -> text that means empty ("nan", "None") -> rows
    notes: set[str]  # assumptions, one sentence each


def known_rows(obs: pd.DataFrame, columns: Columns, *, source: Path, places: np.ndarray | None = None) -> KnownRows:
    """Read a table's metadata; InputError that names the row and column where it cannot be read.

    `places` (N,) are the rows' places in the file from 0; without them the rows are the file.
    """
    places = np.arange(len(obs)) if places is None else places
    of = of_columns([str(name) for name in obs.columns], columns, source=source)
    given = {what: name for what, name in of.items() if name is not None and what != "concentration"}
    text = {what: text_of(obs[name]) for what, name in given.items()}
    empty, notes = pd.Series("", index=obs.index), set()
    matched = {control: _matching(obs, text, control.strip()) for control in columns.control}
    role = _role(obs, text, [exactly for exactly, _ in matched.values()], source=source)
    compound = text["compound"] if "compound" in text else text["treatment"]
    for what in ("treatment", "compound"):
        if what in text:
            _refuse_empty(what, ((text[what] == "") & (role == "treated")).to_numpy(), places, source=source)
    needed = (role == "treated") & ("treatment" not in text)
    amount = _concentration(obs, of["concentration"], needed=needed, places=places, source=source)
    if "compound" not in text:
        notes.add(
            "no compound column (--compound): each treatment counts as a compound of its own, so another dose of the "
            "same compound counts as a neighbour, and scores are higher than those by compound"
        )
    if "treatment" not in text and of["concentration"] is None:
        notes.add("no treatment and no concentration column: all rows of a compound are one treatment")
    treatment = compound if of["concentration"] is None else treatment_name(compound, amount.fillna(0))
    treatment = text.get("treatment", treatment)
    known = {
        "plate": text.get("plate", pd.Series(ALL_PLATES, index=obs.index)),
        "well": text.get("well", empty),
        "batch": text.get("batch", empty),
        "compound": compound,
        "concentration_um": amount,
        "moa": text.get("mechanism", empty),
        "role": role,
        "treatment": treatment,
    }
    table = pd.DataFrame({METADATA[name]: values for name, values in known.items()}, index=obs.index)
    for name in ("cell_count", "is_noise"):
        if METADATA[name] in obs.columns:
            table[METADATA[name]] = obs[METADATA[name]].to_numpy()
    return KnownRows(
        table=table,
        of=of,
        names={what: set(values) for what, values in text.items()} | {"treatment": set(treatment)},
        control_rows={control: int(exactly.sum()) for control, (exactly, _) in matched.items()},
        only_by_case={
            control: {int(places[row]) + 1: held.iloc[row] for row in np.flatnonzero((held != "").to_numpy())}
            for control, (_, held) in matched.items()
        },
        emptied={name: _emptied(obs[name]) for name in given.values()},
        notes=notes,
    )


def _refuse_empty(what: str, is_empty: np.ndarray, places: np.ndarray, *, source: Path) -> None:
    if is_empty.any():
        raise InputError(
            f"{source}: row {int(places[is_empty.argmax()]) + 1} has no {what} ({int(is_empty.sum()):,} such rows of "
            f"{len(is_empty):,}); fill it in, remove the row, or mark it as a control"
        )


def _role(obs: pd.DataFrame, text: dict[str, pd.Series], controls: Sequence[np.ndarray], *, source: Path) -> pd.Series:
    """Each row's role; rows of `controls` (each (N,) bool) are controls whatever their role column holds."""
    role = text.get("role", pd.Series("treated", index=obs.index))
    for rows in controls:
        role = role.mask(rows, "control")
    unknown = sorted(set(role) - set(ROLES))
    if unknown:
        raise InputError(
            f'{source}: role "{unknown[0]}" in a row; expected {", ".join(ROLES)}: correct the column, or name the '
            "controls with --control"
        )
    return role


def _concentration(
    obs: pd.DataFrame, name: str | None, *, needed: pd.Series, places: np.ndarray, source: Path
) -> pd.Series:
    """Micromolar, NaN where unknown; InputError on text, on numbers that are negative or infinite, and where needed."""
    if name is None:
        return pd.Series(np.nan, index=obs.index)
    given = obs[name].astype(object)
    is_given = ~given.map(lambda value: str(value).strip().casefold() in EMPTY_WORDS) & given.notna()
    amount = pd.to_numeric(given.where(is_given), errors="coerce").astype(float)
    bad = ((amount.isna() & (is_given | needed)) | (amount < 0) | np.isinf(amount)).to_numpy()
    if bad.any():
        row = int(bad.argmax())
        raise InputError(
            f'{source}: row {int(places[row]) + 1}: {name} is "{given.iloc[row]}", expected micromolar, a number of at '
            "least 0; correct the table"
        )
    return amount


def _matching(obs: pd.DataFrame, text: dict[str, pd.Series], control: str) -> tuple[np.ndarray, pd.Series]:
    """The rows (N,) that a `--control` matches, and the names of rows that it would match in another case (else "")."""
    name, equals, value = control.partition("=")
    if equals and name in obs.columns:
        held, wanted = [text_of(obs[name])], value.strip()
    else:
        held, wanted = [text[what] for what in ("compound", "treatment") if what in text], control
    exactly = np.zeros(len(obs), dtype=bool)
    nearly = pd.Series("", index=obs.index, dtype=object)
    for names in held:
        exactly |= (names == wanted).to_numpy()
        nearly = nearly.mask((names.str.casefold() == wanted.casefold()) & (nearly == ""), names)
    return exactly, nearly.mask(exactly, "")
