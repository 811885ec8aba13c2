"""Screen: a checked table of what was done to which well, a row per field of view.

The reader of a layout makes it, every later step takes it.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.names import (
    case_note,
    clean_name,
    clean_names,
    emptied,
    emptied_note,
    known_mechanism,
    substance_note,
)
from phenolens.screens.doses import SameDoses, controls_notes, mechanisms_of_compounds_note

COLUMNS = {
    "plate": "plate name, as text",
    "well": "row letter(s) and two-digit column, as B02",
    "site": "field of view within the well, a whole number from 1",
    "batch": "what was run together (BBBC021: the week), as text",
    "compound": "compound name; the control's own name (DMSO) in control wells",
    "concentration_um": "micromolar; 0 in control wells",
    "moa": "mechanism of action; empty where it is not known",
    "role": "treated, control or other (other: positive controls, blanks; in no profile score unless asked for)",
}
# Names of these and of a cell's own columns in AnnData tables, as CellProfiler names metadata.
METADATA = {
    "cell_id": "Metadata_Cell",
    "plate": "Metadata_Plate",
    "well": "Metadata_Well",
    "site": "Metadata_Site",
    "batch": "Metadata_Batch",
    "compound": "Metadata_Compound",
    "concentration_um": "Metadata_Concentration_um",
    "moa": "Metadata_MoA",
    "role": "Metadata_Role",
    "treatment": "Metadata_Treatment",
    "field": "Metadata_Field",
    "y": "Metadata_Y",
    "x": "Metadata_X",
    "is_noise": "Metadata_Is_Noise",
}
LATENT = "latent"  # in AnnData of summarised embeddings, in obsm: embeddings of the crops as they are, which decode
FIELD = ["plate", "well", "site"]  # what identifies a field
ROLES = ("treated", "control", "other")
WELL = re.compile(r"^[A-Z]{1,2}\d{2}$")
Treatments = Literal["labelled", "all"]
UInt16Array = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Screen:
    """A screen's fields and the channels they were imaged in.

    Args:
        table: A row per field, by plate, well and site: the columns of COLUMNS (concentrations in µM), and for each
            channel c a column `file_c` with the path of its image in `folder` (none without images). A reader may
            add columns.
        channels: Names of the channels, in the order of the crops.
        folder: Where the images are.
        sources: SHA-256 of the tables it was read from, by file name.
        left_out: How many of what the reader was allowed to leave out, by what it was.
        notes: What was assumed, a sentence each.
        not_selected: The rows of fields that the source has and that are not taken; None if there are none.
    """

    table: pd.DataFrame
    channels: tuple[str, ...]
    folder: Path
    sources: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    not_selected: pd.DataFrame | None = None

    @property
    def wells(self) -> pd.DataFrame:
        """One row per well: COLUMNS without site."""
        columns = [name for name in COLUMNS if name != "site"]
        return self.table[columns].drop_duplicates(["plate", "well"]).reset_index(drop=True)

    def wells_without(self, cells: pd.DataFrame) -> dict[str, str]:
        """The plate and well of each well that has none of these cells, and its treatment."""
        key = ["plate", "well"]
        wells = self.wells.merge(cells[key].drop_duplicates(), on=key, how="left", indicator="found")
        empty = wells[wells["found"] == "left_only"]
        return dict(
            zip(empty["plate"] + " " + empty["well"], treatment_name(empty["compound"], empty["concentration_um"]))
        )

    @property
    def treatments(self) -> pd.DataFrame:
        """One row per treatment (compound at a concentration) with its mechanism; controls left out."""
        treated = self.table[self.table["role"] != "control"]
        columns = ["compound", "concentration_um", "moa"]
        return treated[columns].drop_duplicates().sort_values(columns[:2]).reset_index(drop=True)

    def keeping(self, kept: Sequence[bool] | npt.NDArray[np.bool_] | pd.Series) -> "Screen":
        """The screen of the fields that `kept` marks; the others are among `not_selected`."""
        is_kept = np.asarray(kept, bool)
        others = [table for table in (self.not_selected, self.table[~is_kept]) if table is not None and len(table)]
        not_selected = pd.concat(others) if others else None
        return replace(self, table=self.table[is_kept].reset_index(drop=True), not_selected=not_selected)

    def leaving_out(self, counts: Mapping[str, int]) -> "Screen":
        """The same screen, with those of these counts that are not 0 in `left_out` too."""
        return replace(self, left_out={**self.left_out, **{what: n for what, n in counts.items() if n}})

    def noting(self, notes: Sequence[str]) -> "Screen":
        """The same screen with further notes."""
        return replace(self, notes=(*self.notes, *notes))

    def files(self, field: pd.Series) -> dict[str, Path]:
        """The image of each channel of a field (a row of `table`)."""
        return {channel: self.folder / field[f"file_{channel}"] for channel in self.channels}


@dataclass(frozen=True)
class Selection:
    """The part of a source that is taken."""

    treatments: Treatments = "labelled"  # controls and treatments of known mechanism (all where none is), or all
    plates: tuple[str, ...] = ()  # all when none is named; likewise below
    wells: tuple[str, ...] = ()
    sites: tuple[int, ...] = ()
    skip_missing: bool = False  # leave out, and count, what has no image or no label

    def of(self, screen: Screen) -> Screen:
        """The selected fields of a screen.

        Raises InputError for a plate, well or site that the screen does not have, and when nothing is left.
        """
        table = screen.table
        if self.treatments == "labelled" and not table["moa"].notna().any():
            screen = screen.noting([f"{screen.folder}: no treatment has a mechanism (column moa); all are taken"])
        elif self.treatments == "labelled":
            is_known = (table["role"] == "control") | table["moa"].notna()
            unknown = replace(screen, table=table[~is_known])
            if len(unknown.table):
                n_wells = f"{counted(len(unknown.wells), 'well')} of {counted(len(unknown.treatments), 'treatment')}"
                screen = screen.noting([f"{n_wells} without a mechanism left out; --treatments all takes them too"])
            table = table[is_known]
        chosen = np.ones(len(table), dtype=bool)
        plates = tuple(clean_name(name) for name in self.plates)
        for name, wanted in (("plate", plates), ("well", self.wells), ("site", self.sites)):
            for value in wanted:
                if not (table[name] == value).any():
                    known = sorted({str(kind) for kind in table[name]})
                    near = get_close_matches(str(value), known, n=1, cutoff=0)
                    raise InputError(
                        f'{name} "{value}" is not in the screen ({len(known)} are; the nearest is "{near[0]}")'
                    )
            if wanted:
                chosen &= table[name].isin(wanted).to_numpy()
        if not chosen.any():
            raise InputError("no field is in all of the chosen plates, wells and sites; choose fewer of them")
        return screen.keeping(screen.table.index.isin(table.index[chosen]))


LABELLED = Selection()


class CropReader(Protocol):
    """Where the crops of a field's cells come from; it can be sent to another process."""

    def __call__(self, rows: pd.DataFrame, crop_px: int | None) -> tuple[UInt16Array, UInt16Array]:
        """The crops (n, C, S, S) of one field's cells, and the same before their light was corrected.

        `crop_px` is their side; None accepts any. InputError where they cannot be read or have another side.
        """

    def files(self, rows: pd.DataFrame) -> list[Path]:
        """The files that the crops of these rows are read from."""


@dataclass(frozen=True)
class FinishedCrops:
    """Crops cut elsewhere: `cells` has a row per crop (its field, `object_number`, `path`), `read` reads them."""

    cells: pd.DataFrame
    read: CropReader


def where_of(field: pd.Series | Mapping[str, object]) -> str:
    """The place of a field, or of a cell in it, for messages."""
    return f'plate "{field["plate"]}", well "{field["well"]}", site {field["site"]}'


def treatment_name(compound: pd.Series, concentration_um: pd.Series) -> pd.Series:
    """`taxol@0.3`: the name of each row's treatment, also used for the control (`DMSO@0`)."""
    of_compound, compounds = pd.factorize(compound, use_na_sentinel=False)
    of_dose, doses = pd.factorize(concentration_um, use_na_sentinel=False)
    pair, pairs = pd.factorize(of_compound * len(doses) + of_dose)
    names = [f"{compounds[number // len(doses)]}@{doses[number % len(doses)]:g}" for number in pairs.tolist()]
    return pd.Series(np.array(names, object)[pair], index=compound.index)


def dose_label(concentration_um: float) -> str:
    """`0.3 µM`."""
    return f"{concentration_um:g} µM"


def treatment_label(compound: str, concentration_um: float, role: str) -> str:
    """`taxol 0.3 µM`; a control, and what has no dose, without one."""
    return compound if role == "control" or not concentration_um else f"{compound} {dose_label(concentration_um)}"


def cell_metadata(cells: pd.DataFrame) -> pd.DataFrame:
    """The metadata of cells (n rows) under the names of METADATA; index: the cell's id; an unknown text is empty."""
    cells = cells.assign(treatment=treatment_name(cells["compound"], cells["concentration_um"]))
    table = pd.DataFrame({name: cells[column].to_numpy() for column, name in METADATA.items()}, index=cells["cell_id"])
    table.index.name = None
    for name in table.select_dtypes(object).columns:
        table[name] = table[name].fillna("").astype(str)
    return table


def checked_screen(
    table: pd.DataFrame,
    *,
    channels: Sequence[str],
    folder: Path,
    source: str,
    sources: Mapping[str, str] | None = None,
    same_dose_within: float = 0.0,
    notes: Collection[str] = (),
) -> Screen:
    """A Screen from a table that a reader made, checked against COLUMNS.

    Args:
        table: A row per field.
        channels: Names of the channels, in order.
        folder: What the paths in `file_<channel>` are relative to.
        source: The file that the table came from, for messages.
        sources: SHA-256 of the tables, by file name.
        same_dose_within: Doses of a compound that differ by at most this share count as one.
        notes: What the reader assumed, a sentence each.

    Raises:
        InputError: A column is missing; a cell is empty; a well name, role or concentration is not valid; a field is
            listed twice; a well has two treatments, a treatment two mechanisms or a plate two batches; no well is a
            control.
    """
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise InputError(f"{source}: no column {', '.join(missing)} (found: {', '.join(map(str, table.columns))})")
    if table.empty:
        raise InputError(f"{source}: no rows; expected one row per field of view")
    table = table.copy()
    for name in ("plate", "well", "batch", "compound", "role"):
        table[name] = clean_names(table[name])
        _fail_on(table[name] == "", table, f'column "{name}" is empty', source)
    unknown = emptied(table.drop_duplicates(["plate", "well"])["moa"], known_mechanism)
    table["moa"] = table["moa"].map({text: known_mechanism(text) or None for text in table["moa"].dropna().unique()})
    table["moa"] = table["moa"].astype(object).where(table["moa"].notna(), None)
    table["concentration_um"] = pd.to_numeric(table["concentration_um"], errors="coerce")
    bad_concentration = ~np.isfinite(table["concentration_um"].to_numpy(float)) | (table["concentration_um"] < 0)
    _fail_on(
        bad_concentration, table, "the concentration is not a number of at least 0 (micromolar; fill it in)", source
    )
    _fail_on(~table["well"].map(lambda name: bool(WELL.match(name))), table, "the well name is not like B02", source)
    roles = f"{', '.join(ROLES)} (correct it, or rename the column and use --control)"
    _fail_on(~table["role"].isin(ROLES), table, f"the role is not one of {roles}", source)
    _fail_on(
        table.duplicated(["plate", "well", "site"]),
        table,
        "the plate, well and site are those of an earlier row",
        source,
    )
    doses = SameDoses(same_dose_within)
    table["concentration_um"] = doses.joined(table["compound"], table["concentration_um"])
    for group, value, problem in (
        (["plate", "well"], ["compound", "concentration_um"], "one well, two treatments"),
        (["compound", "concentration_um"], ["moa"], "one treatment, two mechanisms"),
        (["plate"], ["batch"], "one plate, two batches"),
    ):
        kinds = table[group + value].drop_duplicates()
        twice = kinds.duplicated(group)
        if twice.any():
            row = kinds[twice].iloc[0]
            where = ", ".join(f'{name} "{row[name]}"' for name in group)
            also = ", ".join(str(row[name]) for name in value)
            raise InputError(f"{source}: {problem}: {where} also has {also}; correct the table")
    if not (table["role"] == "control").any():
        raise InputError(f"{source}: no well with the role control; controls are needed to normalise profiles")
    table = table.sort_values(["plate", "well", "site"], kind="stable").reset_index(drop=True)
    found = _notes(table) | doses.notes()
    if unknown:
        found.add(emptied_note("moa", unknown, rows="wells"))
    return Screen(
        table=table,
        channels=tuple(channels),
        folder=Path(folder),
        sources=dict(sources or {}),
        notes=(*notes, *sorted(found)),
    )


def _notes(table: pd.DataFrame) -> set[str]:
    """Notes on names that are nearly the same, several mechanisms of a compound, and several kinds of controls."""
    names = {"compound": "compound", "moa": "mechanism", "batch": "batch", "plate": "plate"}
    found = substance_note(set(table["compound"]))
    found = found.union(*(case_note(what, set(table[name].dropna())) for name, what in names.items()))
    controls = table[table["role"] == "control"].drop_duplicates(["plate", "well"])
    found |= mechanisms_of_compounds_note(table[table["role"] != "control"])
    return found | controls_notes(controls["compound"], controls["concentration_um"], rows="wells")


def _fail_on(bad: pd.Series, table: pd.DataFrame, what: str, source: str) -> None:
    if bad.any():
        row = table[bad.to_numpy()].iloc[0]
        more = f" (and {counted(int(bad.sum()) - 1, 'more row')})" if bad.sum() > 1 else ""
        raise InputError(
            f"{source}: {what} at {where_of(row)}, "
            f'compound "{row["compound"]}", concentration "{row["concentration_um"]}", role "{row["role"]}"{more}'
        )
