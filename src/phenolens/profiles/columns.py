"""The columns of a table: which holds what, which are features, and the metadata of each row. N rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pandas as pd

from phenolens.core.bounds import Bounded, Share
from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.names import clean_name, clean_names, emptied, found_names, known_mechanism, nearest
from phenolens.profiles.profiles import METADATA
from phenolens.screens.csv_table import refuse_made_by_excel
from phenolens.screens.doses import (
    GIVE_DOSES,
    SameDoses,
    is_dose_column,
    is_logarithm,
    is_unit,
    is_unit_column,
    micromolar,
    resembles_dose,
)
from phenolens.screens.screen import ROLES, treatment_name
from phenolens.screens.well_names import wells_by_place

# Columns of other programs that are never features, besides those of metadata.
NO_FEATURES = (
    *("Image_*", "ImageNumber", "*_ImageNumber", "TableNumber"),
    # CellProfiler's numbers of the object, of its parents, children and neighbours
    *("*ObjectNumber", "*Number_Object_Number", "*_*ClosestObjectNumber_*"),
    *("Parent_*", "*_Parent_*", "Children_*", "*_Children_*"),
    # positions in the field
    *("Location_*", "*_Location_*", "AreaShape_Center_*", "*_AreaShape_Center_*"),
    *("AreaShape_BoundingBoxM*imum_*", "*_AreaShape_BoundingBoxM*imum_*"),
    *("Unnamed: 0", "__index_level_*__"),  # the index of a table that pandas wrote
    *("Unnamed: *", ""),
)
# Names, in lower case, that are mostly metadata, and words that make a short name so; such a feature is reported.
METADATA_WORDS = frozenset(
    "batch week plate barcode well replicate compound drug concentration conc dose dilution treatment moa passage time "
    "timepoint timestamp day date acquisition centroid".split()
)
METADATA_NAMES = METADATA_WORDS | frozenset(
    "row column col site field role control run index id cell cell_id object count level x y x_um y_um label "
    "object_id field_id track_id track".split()
)
OF_LONG_TABLES = ("value", "values", "measurement", "measured_value")  # the column of the numbers
MOST_WORDS = 3  # of a name that a word makes metadata
MEASURED = re.compile(  # names of CellProfiler's features
    r"^(?:cells|nuclei|cytoplasm|image)_|"
    r"(?:^|_)(?:AreaShape|Correlation|Granularity|Intensity|Neighbors|ObjectSkeleton|RadialDistribution|Texture)_",
    re.IGNORECASE,
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
    same_dose_within: Share = 0.0  # doses of a compound that differ by at most this share (0.01) count as one
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


def named_columns(names: Sequence[str], columns: Columns, *, source: Path) -> dict[str, str | None]:
    """Which column holds what: the one that a flag names, or phenolens's own name in any capitals, perhaps with Image_.

    An own name that `--metadata` names, without *, is passed over. InputError where two columns are called so.
    """
    plain = {name: _plain(name) for name in names if name not in columns.metadata}
    of: dict[str, str | None] = {}
    for what, own in OWN_NAMES.items():
        alike = [name for name in plain if plain[name] == _plain(own)]
        of[what] = getattr(columns, what) or (own if own in alike else alike[0] if alike else None)
        if of[what] not in (getattr(columns, what), own, None) and len(alike) > 1:
            raise InputError(
                f"{source}: columns {alike[0]} and {alike[1]} both may hold the {what}; name one with --{what}"
            )
    if of["treatment"] not in (columns.treatment, OWN_NAMES["treatment"]) and of["compound"] is not None:
        of["treatment"] = None  # what other programs call a treatment may be its kind, as drug or vehicle
    return of


def _plain(name: str) -> str:
    """A name without capitals: `Metadata_Plate`, `metadata.plate` and `Image_Metadata_Plate` are one."""
    return re.sub(r"[\W_]+", "_", name.strip()).casefold().removeprefix("image_")


def of_columns(names: Sequence[str], columns: Columns, *, source: Path) -> dict[str, str | None]:
    """Which of a file's columns holds what; InputError on a missing column, and without treatment and compound."""
    of = named_columns(names, columns, source=source)
    for what, name in of.items():
        if name is not None and name not in names:
            raise InputError(f'{source}: no column "{name}" (--{what}); {nearest(name, names)}')
    if of["treatment"] is None and of["compound"] is None:
        raise InputError(
            f"{source}: no column of treatments or compounds; name one with --treatment or --compound "
            f"({found_names(names)})"
        )
    if of["concentration"] is None and of["treatment"] is None:
        of["concentration"] = _dose_column(names, columns, source=source)
    return of


def _dose_column(names: Sequence[str], columns: Columns, *, source: Path) -> str | None:
    """The one metadata column that holds concentrations by its name; InputError where another column may hold them."""
    free = [name for name in names if not any(fnmatchcase(name, pattern) for pattern in columns.metadata)]
    of_metadata = [name for name in free if _plain(name).startswith("metadata_")]
    doses = [name for name in of_metadata if is_dose_column(name)]
    if len(doses) == 1:
        return doses[0]
    unclear = doses or [name for name in of_metadata if resembles_dose(name)]
    if not columns.features:
        unclear += [name for name in free if name not in of_metadata and (is_dose_column(name) or is_unit(name))]
    if unclear:
        if is_logarithm(unclear[0]):
            raise InputError(
                f"{source}: column {unclear[0]} may hold logarithms of concentrations; {GIVE_DOSES}, or name it with "
                "--metadata to count all rows of a compound as one treatment"
            )
        raise InputError(
            f"{source}: column {unclear[0]} may hold concentrations; name it with --concentration, or with --metadata "
            "to count all rows of a compound as one treatment"
        )
    return None


def is_metadata(name: str) -> bool:
    """Whether a column's name says that it is metadata, as CellProfiler writes it, in any capitals."""
    return "_metadata_" in f"_{_plain(name)}"


def resembles_metadata(name: str) -> bool:
    """Whether a feature's name is usually that of metadata: Plate_number, WellIndex, time_h."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip()).casefold()
    parts = [part for part in re.split(r"[_.\s]+", words) if part]
    is_short = len(parts) <= MOST_WORDS and not MEASURED.search(name)
    is_position = parts[:1] == ["position"] and len(parts) > 1
    return "_".join(parts) in METADATA_NAMES or is_position or (is_short and not METADATA_WORDS.isdisjoint(parts))


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
    no_features = {name for name in names if is_metadata(name) or any(fnmatchcase(name, one) for one in without)}
    kept = [n for n in names if n not in taken | no_features and not is_unit_column(n)]
    if len(kept) == 1 and kept[0].strip().casefold() in OF_LONG_TABLES:
        raise InputError(
            f'{source}: the only feature is "{kept[0]}", as in a long table with a row a measurement; expected a '
            "column a feature: reshape it (pandas pivot, R pivot_wider)"
        )
    if not kept:
        raise InputError(f"{source}: no column is left as a feature ({found_names(names)}); see --features")
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


@dataclass(frozen=True)
class KnownRows:
    """The metadata of some rows under phenolens's own names, and what was found on reading them."""

    table: pd.DataFrame  # (N rows) the METADATA of a well
    of: dict[str, str | None]  # which column holds what
    names: dict[str, set[str]]  # the names in each column of `Columns` that there is, and of treatments
    control_rows: dict[str, int]  # rows that each of `Columns.control` matches
    emptied: dict[str, Counter[str]]  # column -> text that means empty ("nan", "None") -> rows
    unread: pd.DataFrame  # (N rows) the columns that nothing is read from, as names
    notes: set[str]  # assumptions, one sentence each


def known_rows(obs: pd.DataFrame, columns: Columns, *, source: Path, places: np.ndarray, doses: SameDoses) -> KnownRows:
    """Read a table's metadata; InputError that names the row and column where it cannot be read.

    `places` (N,) are the rows' places in the file from 0. `doses` are those of the parts so far.
    """
    of = of_columns([str(name) for name in obs.columns], columns, source=source)
    given = {what: name for what, name in of.items() if name is not None and what != "concentration"}
    text = {what: clean_names(obs[name]) for what, name in given.items()}
    if "mechanism" in text:
        text["mechanism"] = text["mechanism"].map({name: known_mechanism(name) for name in text["mechanism"].unique()})
    matched = {control: _matching(obs, text, control) for control in columns.control}
    role = _role(obs, text, [*matched.values()], source=source)
    compound = text["compound"] if "compound" in text else text["treatment"]
    for what in ("treatment", "compound"):
        if what in text:
            _refuse_empty(what, ((text[what] == "") & (role == "treated")).to_numpy(), places, source=source)
    for what in ("treatment", "compound", "mechanism", "plate", "batch"):
        if what in given:
            may_be_date = what in ("plate", "batch")
            refuse_made_by_excel(obs[given[what]], source=str(source), places=places, may_be_date=may_be_date)
    free = obs.drop(columns=[*set(columns.metadata) & set(obs)])
    at: tuple[str, ...] = ()  # the columns of the wells' rows and columns
    if "well" not in text and (by_place := wells_by_place(free)):
        at, text["well"] = by_place
    empty, amount = pd.Series("", index=obs.index), pd.Series(np.nan, index=obs.index)
    if of["concentration"] is not None:
        amount = micromolar(obs, of["concentration"], source=str(source), places=places)
        empty_dose = amount.isna() & (role == "treated") & ("treatment" not in text)
        _refuse_empty(of["concentration"], empty_dose.to_numpy(), places, source=source)
        amount = doses.joined(compound, amount)
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
        control_rows={control: int(rows.sum()) for control, rows in matched.items()},
        emptied={
            name: emptied(obs[name], known_mechanism if what == "mechanism" else clean_name)
            for what, name in given.items()
        },
        unread=obs[_unread(obs, [*of.values(), *at], of)].apply(clean_names),
        notes=_assumptions(of, columns, at),
    )


def _assumptions(of: dict[str, str | None], columns: Columns, at: tuple[str, ...]) -> set[str]:
    """What is assumed, one sentence each; `at` are the columns of the wells' rows and columns where these are read."""
    notes = {f"wells are read from {' and '.join(at)} (--well)"} if at else set()
    by_name = [what for what, name in of.items() if name not in (None, getattr(columns, what), OWN_NAMES[what])]
    if by_name:
        notes.add(f"read without a flag: {', '.join(f'--{what} {of[what]}' for what in by_name)}")
    if of["compound"] is None:
        notes.add(
            "no compound column (--compound): each treatment counts as a compound of its own, so another dose of the "
            "same compound counts as a neighbour, and scores are higher than those by compound"
        )
    if of["treatment"] is None and of["concentration"] is None:
        notes.add("no treatment and no concentration column: all rows of a compound are one treatment")
    return notes


def _unread(obs: pd.DataFrame, read: Collection[str | None], of: dict[str, str | None]) -> list[str]:
    """The columns that nothing is read from, but for the numbers of objects and images and for their places."""
    left = [name for name in map(str, obs.columns) if name not in read and name not in METADATA.values()]
    known = NO_FEATURES[NO_FEATURES.index("ImageNumber") : NO_FEATURES.index("Unnamed: *")]
    return [
        name
        for name in left
        if not (name.startswith("Unnamed: ") and obs[name].isna().all())  # lines may end in a separator
        and not any(fnmatchcase(name, pattern) for pattern in known)
        and not (of["concentration"] and is_unit_column(name))
    ]


def _refuse_empty(what: str, is_empty: np.ndarray, places: np.ndarray, *, source: Path) -> None:
    if is_empty.any():
        raise InputError(
            f"{source}: row {int(places[is_empty.argmax()]) + 1} has no {what} "
            f"({counted(int(is_empty.sum()), 'such row')} of "
            f"{len(is_empty):,}); fill it in, remove the row, or make it a control (--control COLUMN=VALUE)"
        )


def _role(obs: pd.DataFrame, text: dict[str, pd.Series], controls: Sequence[np.ndarray], *, source: Path) -> pd.Series:
    """Each row's role; rows of `controls` (each (N,) bool) are controls whatever their role column holds."""
    role = text.get("role", pd.Series("treated", index=obs.index)).str.casefold()
    for rows in controls:
        role = role.mask(rows, "control")
    unknown = sorted(set(role) - set(ROLES))
    if unknown:
        raise InputError(
            f'{source}: role "{unknown[0]}" in a row; expected {", ".join(ROLES)}: correct the column, set it '
            "aside with --metadata, or name the controls with --control"
        )
    return role


def _matching(obs: pd.DataFrame, text: dict[str, pd.Series], control: str) -> np.ndarray:
    """The rows (N,) that a `--control` matches, in any capitals, as in plate maps."""
    name, equals, value = control.strip().partition("=")
    if equals and name in obs.columns:
        held, wanted = [clean_names(obs[name])], clean_name(value)
    else:
        held, wanted = [text[what] for what in ("compound", "treatment") if what in text], clean_name(control)
    return np.logical_or.reduce([(names.str.casefold() == wanted.casefold()).to_numpy() for names in held])
