"""Which column of anybody's table says what, which are features, and what is so known of each row.

N rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pandas as pd

from phenolens.errors import InputError
from phenolens.profiling.profiles import METADATA
from phenolens.screen.table import ROLES, treatment_name

# Columns of other programs that say where a row comes from and are never features.
NO_FEATURES = ("Metadata_*", "*_Metadata_*", "Image_*", "ImageNumber", "ObjectNumber", "TableNumber", "Unnamed: *", "")
ALL_PLATES = "all"  # the plate's name where no column says it


@dataclass(frozen=True)
class Columns:
    """Which column says what; one that is not named is looked for under phenolens's own name (Metadata_Plate ...)."""

    treatment: str | None = (
        None  # column of the treatment (compound at a dose); else made of compound and concentration
    )
    compound: str | None = None  # column of the compound, never a query's neighbour; else each treatment is its own
    concentration: str | None = None  # column of the concentration in micromolar
    mechanism: str | None = None  # column of the mechanism of action; empty where it is not known
    batch: str | None = None  # column of what was made together (BBBC021: the week); NSCB needs it
    plate: str | None = None  # column of the plate
    well: str | None = None  # column of the well
    role: str | None = None  # column that says treated, control or other
    control: tuple[str, ...] = ()  # what a control row holds: a compound's or treatment's name, or COLUMN=VALUE
    metadata: tuple[str, ...] = ()  # further columns that are no features; * stands for anything
    features: tuple[
        str, ...
    ] = ()  # columns that are features, * stands for anything, @FILE lists them; else all others


# Each of Columns that names one column, and what phenolens itself calls that column.
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
    """Which of a file's columns says what; InputError when a named one is missing, or none says what was given."""
    of = {what: getattr(columns, what) or (own if own in names else None) for what, own in OWN_NAMES.items()}
    for what, name in of.items():
        if name is not None and name not in names:
            raise InputError(f'{source}: no column "{name}" (--{what}); {nearest(name, names)}')
    if of["treatment"] is None and of["compound"] is None:
        raise InputError(
            f"{source}: no column says what was given to each row; name it with --treatment or --compound "
            f"({_found(names)})"
        )
    return of


def feature_columns(names: Sequence[str], columns: Columns, *, source: Path) -> list[str]:
    """Those of a file's columns `names` that are features, in the order of the file, or as `columns.features` lists.

    InputError when a name or pattern matches nothing, and when no feature is left.
    """
    spoken_for = {getattr(columns, what) or own for what, own in OWN_NAMES.items()}
    spoken_for |= {control.split("=", 1)[0] for control in columns.control if "=" in control}
    if columns.features:
        chosen: dict[str, None] = {}
        for wanted in _listed(columns.features):
            found = [name for name in names if name == wanted or fnmatchcase(name, wanted)]
            if not found:
                raise InputError(f'{source}: no column "{wanted}" (--features); {nearest(wanted, names)}')
            chosen |= dict.fromkeys(found)
        both = [name for name in chosen if name in spoken_for]
        if both:
            raise InputError(
                f'{source}: column "{both[0]}" is named as metadata and as a feature; expected one of them'
            )
        return list(chosen)
    for wanted in columns.metadata:
        if not any(name == wanted or fnmatchcase(name, wanted) for name in names):
            raise InputError(f'{source}: no column "{wanted}" (--metadata); correct it or leave it out')
    without = (*NO_FEATURES, *columns.metadata)
    kept = [n for n in names if n not in spoken_for and not any(fnmatchcase(n, pattern) for pattern in without)]
    if not kept:
        raise InputError(f"{source}: no column is left as a feature ({_found(names)}); see --features")
    return kept


def _listed(wanted: Sequence[str]) -> list[str]:
    """The names and patterns, those of a file (@FILE, one a line) in place of its name."""
    names: list[str] = []
    for word in wanted:
        if not word.startswith("@"):
            names.append(word)
            continue
        try:
            lines = Path(word[1:]).read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise InputError(f"--features {word}: not readable as a list of names ({error})") from error
        names += [line.strip() for line in lines if line.strip()]
    return names


def nearest(wanted: str, names: Sequence[str]) -> str:
    """The name that may have been meant, or the first that there are."""
    alike = [name for name in names if name.lower() == wanted.lower()]
    near = alike or get_close_matches(wanted, names, n=1)
    return f'did you mean "{near[0]}"?' if near else _found(names)


def _found(names: Sequence[str]) -> str:
    return f"found: {', '.join(names[:12])}{' ...' if len(names) > 12 else ''}"


@dataclass(frozen=True)
class KnownRows:
    """What is known of some rows, under phenolens's own names, and what was found on the way."""

    table: pd.DataFrame  # the METADATA of a well, a row a row
    given: set[str]  # compounds and treatments
    control_rows: dict[str, int]  # rows that each of `Columns.control` matched
    notes: set[str]  # what was taken for granted, in plain words


def known_rows(obs: pd.DataFrame, columns: Columns, *, source: Path) -> KnownRows:
    """Read a table's metadata; InputError that names the row and column where it cannot be."""
    of = of_columns([str(name) for name in obs.columns], columns, source=source)
    text = {what: text_of(obs[name]) for what, name in of.items() if name is not None and what != "concentration"}
    empty, notes = pd.Series("", index=obs.index), set()
    role, control_rows = _role(obs, text, columns, source=source)
    amount = _concentration(
        obs, of["concentration"], needed=(role == "treated") & ("treatment" not in text), source=source
    )
    compound = text["compound"] if "compound" in text else text["treatment"]
    if "compound" not in text:
        notes.add(
            "no compound column (--compound): each treatment is taken as a compound of its own, so another dose of "
            "the same compound counts as a neighbour, and scores are higher than those by compound"
        )
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
    untold = ((treatment == "") & (role == "treated")).to_numpy()
    if untold.any():
        raise InputError(
            f"{source}: row {int(untold.argmax()) + 1} says no treatment ({int(untold.sum()):,} such rows of "
            f"{len(table):,}); fill it in, remove the row, or mark it as a control"
        )
    return KnownRows(table, set(compound) | set(treatment), control_rows, notes)


def _role(
    obs: pd.DataFrame, text: dict[str, pd.Series], columns: Columns, *, source: Path
) -> tuple[pd.Series, dict[str, int]]:
    """Each row's role, and how many rows each of `columns.control` matched."""
    role = text.get("role", pd.Series("treated", index=obs.index))
    matched = {control: _matching(obs, text, control) for control in columns.control}
    for rows in matched.values():
        role = role.mask(rows, "control")
    unknown = sorted(set(role) - set(ROLES))
    if unknown:
        raise InputError(
            f'{source}: role "{unknown[0]}" in a row; expected {", ".join(ROLES)}: correct the column, or name the '
            "controls with --control"
        )
    return role, {control: int(rows.sum()) for control, rows in matched.items()}


def text_of(values: pd.Series) -> pd.Series:
    """Names as text: "" where empty, whole numbers without a point."""
    if pd.api.types.is_float_dtype(values.dtype) and (values.dropna() % 1 == 0).all():
        values = values.astype("Int64")
    plain = values.astype(object)
    return plain.where(plain.notna(), "").astype(str)


def _concentration(obs: pd.DataFrame, name: str | None, *, needed: pd.Series, source: Path) -> pd.Series:
    """Micromolar, NaN where it is not said; InputError on text, and on nothing where a number is needed."""
    if name is None:
        return pd.Series(np.nan, index=obs.index)
    given = obs[name].astype(object)
    amount = pd.to_numeric(given, errors="coerce").astype(float)
    bad = (amount.isna() & (given.notna() | needed)).to_numpy()
    if bad.any():
        row = int(bad.argmax())
        raise InputError(
            f'{source}: row {row + 1}: {name} is "{given.iloc[row]}", expected micromolar; correct the table'
        )
    return amount


def _matching(obs: pd.DataFrame, text: dict[str, pd.Series], control: str) -> np.ndarray:
    """The rows that a `--control` speaks of."""
    name, equals, value = control.partition("=")
    if equals and name in obs.columns:
        return (text_of(obs[name]) == value).to_numpy()
    matched = np.zeros(len(obs), dtype=bool)
    for what in ("compound", "treatment"):
        if what in text:
            matched |= (text[what] == control).to_numpy()
    return matched
