"""The treatment of each well, from a plate map or the table of images, with defaults for missing columns.

Columns may have any of the names below; case, spaces, and a leading `Metadata_` or `Image_Metadata_` do not matter.
What no column of these is read as is reported by name.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.files import sha256, write_whole
from phenolens.core.names import MOST_NAMED, clean_name, clean_names, found_names, nearest, plain_name, shortened
from phenolens.screens.config import LayoutConfig, like_plate_maps
from phenolens.screens.csv_table import (
    column_names,
    numbers,
    read_csv,
    refuse_made_by_excel,
    refuse_repeated,
    refuse_rows,
)
from phenolens.screens.doses import (
    GIVE_DOSES,
    is_dose_column,
    is_logarithm,
    is_unit_column,
    micromolar,
    refuse_no_doses,
    resembles_dose,
)
from phenolens.screens.doses_in_names import doses_in_names, refuse_plates_in_names
from phenolens.screens.image_files import missing_line
from phenolens.screens.screen import Screen, checked_screen, where_of
from phenolens.screens.unread_columns import UNREAD, chosen_wells, refuse_unread, resembles_plate, unread_notes
from phenolens.screens.well_names import pairs_of, places_of, row_and_column, well_names

NAMES = {
    "plate": ("plate", "plate_id", "plate_barcode", "barcode"),
    "well": ("well", "well_position", "well_id"),
    "site": ("site", "field", "fov"),
    "batch": ("batch",),
    "compound": ("compound", "compound_name", "treatment", "drug"),
    "concentration_um": ("concentration_um", "concentration", "conc", "dose", "final_conc", "mmoles_per_liter"),
    "moa": ("moa", "mechanism", "mechanism_of_action"),
    "role": ("role",),
}
FLAGS = {"concentration_um": "--concentration-column", "moa": "--mechanism-column"}  # others: their own name
IN_COLUMNS = "write the compound and its dose in columns of their own (compound, concentration_um)"
NO_BATCH = "no batch given: each plate counts as a batch of its own; fill in `batch` where plates were imaged together"
TREATMENT = ("compound", "concentration_um", "moa", "role", "batch")


def read_as_text(path: Path, *, columns: Collection[str] = ()) -> pd.DataFrame:
    """A table with every cell as written (plate 007 is not 7), an empty cell as NaN; InputError as in read_csv."""
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; correct the path")
    table = read_csv(path, columns=columns, text=None)
    names, rows = [clean_name(name) for name in table.columns], clean_names(table.iloc[:, 0])
    if all(name.isdecimal() for name in names[1:]) and rows.str.fullmatch("[A-Za-z]{1,2}").all():
        raise InputError(f"{path}: a grid of a plate, with rows A, B ...; expected a row per well: well, compound ...")
    return table


def known_columns(
    raw: pd.DataFrame, *, source: str, named: Mapping[str, str], read: Collection[str] = ()
) -> pd.DataFrame:
    """The columns of a table that NAMES knows, under our names; wells as B02, site and concentration as numbers.

    Args:
        raw: The table.
        source: The table's name or path, for messages.
        named: Our name -> the column that a flag names for it, where the table has that.
        read: Columns that the caller reads.

    Returns:
        The known columns; and the others, but for those of `read`, as text under UNREAD and their table's name.

    Raises:
        InputError: Two columns have one meaning, a well name is invalid, or a value is not a number.
    """
    by_flag = {ours: name for ours, name in named.items() if name in raw.columns}
    found = dict(by_flag)
    units = []
    for name in map(str, raw.columns):
        if name in found.values() or name in read:
            continue
        if is_unit_column(name):
            units.append(name)
        ours = _meaning(name)
        if ours in by_flag:
            continue
        if ours in found:
            raise InputError(
                f"{source}: the columns {found[ours]} and {name} both give the {ours}; keep one of them, or name it "
                f"with {_flag(ours)}"
            )
        if ours is not None:
            found[ours] = name
    known = raw[list(found.values())].set_axis(list(found), axis=1)
    for name in ("plate", "batch", "compound", "role"):  # checked_screen counts the mechanisms that are not known
        if name in known:
            names = clean_names(known[name])
            known[name] = (names.str.casefold() if name == "role" else names).where(names != "", None)
    for name in ("compound", "moa", "plate", "batch"):
        if name in known:
            refuse_made_by_excel(known[name], source=source, may_be_date=name in ("plate", "batch"))
    if "well" in known:
        known["well"] = known["well"].map(well_names(known["well"], source=source))
        read = (*read, *places_of(raw, known, source=source))
    elif at := row_and_column(raw):
        pairs = pairs_of(raw, at)
        known["well"] = pairs.map(well_names(pairs, source=source))
        read = (*read, *at)
    if "site" in known:
        known["site"] = numbers(raw, found["site"], source=source, whole=True)
    if "concentration_um" in known:
        known["concentration_um"] = micromolar(raw, found["concentration_um"], source=source)
        read = (*read, *units)
    unread = {
        f"{UNREAD}{Path(source).name}: {name}": clean_names(raw[name])
        for name in raw.columns
        if name not in found.values() and name not in read and raw[name].notna().any()
    }
    return pd.concat([known, pd.DataFrame(unread, index=known.index)], axis=1) if unread else known


def _meaning(column: str) -> str | None:
    """Which of NAMES a column's name stands for."""
    plain = plain_name(column)
    if is_dose_column(column):
        return "concentration_um"
    return next((ours for ours, names in NAMES.items() if plain in names), None)


def _flag(ours: str | None) -> str:
    return FLAGS.get(str(ours), f"--{ours}-column")


def lacking_column(ours: str, source: str | Path, columns: Iterable[object]) -> InputError:
    """The error for a table, with these columns, without one that it needs."""
    names = f"it may be called {', '.join(NAMES[ours])}, or name it with {_flag(ours)}"
    return InputError(f"{source}: no column for the {ours} ({names}; {found_names(list(map(str, columns)))})")


def read_plate_map(path: Path, *, named: Mapping[str, str] | None = None) -> pd.DataFrame:
    """One row per well: `well`, `compound` and, if the file has them, `plate` and the rest of TREATMENT.

    Without `plate` it applies to every plate. Columns that are not read are kept as in known_columns. Raises InputError
    without a well or compound column and for a well that is listed twice.
    """
    path = Path(path)
    raw = read_as_text(path)
    known = known_columns(raw, source=path.name, named=named or {})
    for name in ("well", "compound"):
        if name not in known:
            raise InputError(f"{lacking_column(name, path, raw)}; a plate map has one row per well")
    if "plate" not in known:
        remedy = f"name it with {_flag('plate')}, or call it {', '.join(NAMES['plate'])}"
        refuse_unread(map(str, known), resembles_plate, may_hold="the plate", remedy=remedy)
    else:
        unnamed = known["plate"].isna() & known["compound"].notna()
        refuse_rows(unnamed, known["plate"].fillna(""), expected="the name of the plate", source=path.name)
    keys = ["plate", "well"] if "plate" in known else ["well"]
    refuse_repeated(known, keys, source=path.name, expected="one row per well")
    if "site" in known:
        known = known.astype({"site": str}).rename(columns={"site": f"{UNREAD}{path.name}: site"})
    return known


def write_template(screen: Screen, path: Path, *, has_treatments: bool) -> None:
    """Write a plate map with a row per well of the screen; treatments that are not known are empty, to be filled in."""
    wells = screen.wells[["plate", "well", "compound", "concentration_um", "moa", "batch"]]
    if not has_treatments:
        wells = wells.assign(compound="", concentration_um="", moa="", batch="")
    elif (wells["batch"] == wells["plate"]).all():  # as where none is given
        wells = wells.assign(batch="")
    with write_whole(path) as file:
        file.write(wells.to_csv(index=False).encode())


class NoTreatments(InputError):
    """A source whose files do not give the treatments; `screen` has its fields, all of the compound unknown."""

    def __init__(self, message: str, screen: Screen) -> None:
        """Keep the screen beside the message."""
        super().__init__(message)
        self.screen = screen


def without_treatments(fields: pd.DataFrame, channels: Sequence[str], *, folder: Path, notes: Sequence[str]) -> Screen:
    """The screen of fields whose treatments are not known, to look at its images."""
    known = [name for name in fields if not str(name).startswith(UNREAD)]
    table = fields[known].assign(
        site=fields.get("site", 1),
        batch=fields["plate"],
        compound="unknown",
        concentration_um=0.0,
        moa=None,
        role="treated",
    )
    ordered = table.sort_values(["plate", "well", "site"], kind="stable").reset_index(drop=True)
    return Screen(ordered, tuple(channels), Path(folder), notes=tuple(notes))


def with_treatments(
    fields: pd.DataFrame,
    channels: Sequence[str],
    *,
    source: Path,
    config: LayoutConfig,
    skip_missing: bool,
    table: Path | None = None,
    folder: Path | None = None,
    left_out: Mapping[str, int] | None = None,
    columns: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Screen:
    """The screen of fields whose treatments are in their own columns or in the plate map.

    Args:
        fields: A row per field: known columns and `file_<channel>`.
        channels: Names of the channels, in order.
        source: The source folder.
        config: Where the plate map is, and which compounds are controls.
        skip_missing: Leave out, and count, fields without a file of each channel or without a treatment.
        table: What the fields were read from; None for folders, which cannot give treatments.
        folder: What `file_<channel>` is relative to; the source by default.
        left_out: What is already left out, by what it was.
        columns: The names in `table`'s header, which the flags may name.
        notes: What the reader assumed, a sentence each.

    Raises:
        InputError: A field lacks a file of a channel; there are no treatments or no controls; or as in `with_plate_map`
            and `checked_screen`.
    """
    fields, n_incomplete = _complete(fields, channels, table=table, skip_missing=skip_missing)
    counts = {**(left_out or {}), "fields without an image of each channel": n_incomplete}
    map_path = config.plate_map_path(source)
    tables = [path for path in (table, map_path) if path is not None]
    fields = fields.assign(plate=clean_names(fields["plate"]))
    unlabelled = without_treatments(fields, channels, folder=folder or source, notes=notes).leaving_out(counts)
    if not tables:
        needed = f"give a table (CSV, Excel or Parquet) with --plate-map{like_plate_maps(source)}"
        raise NoTreatments(f"{source}: these files do not give the treatment of a well; {needed}", unlabelled)
    if map_path is not None:
        plate_map = read_plate_map(map_path, named=config.named_columns)
        columns = (*columns, *column_names(map_path))
        fields, more = with_plate_map(fields, plate_map, source=map_path.name, skip_missing=skip_missing)
        counts |= more
    for ours, name in config.named_columns.items():
        if name not in columns:
            raise InputError(
                f'{_flag(ours)} "{name}": no such column in {" or ".join(path.name for path in tables)} (found: '
                f"{', '.join(columns[:MOST_NAMED])})"
            )
    if "compound" not in fields:
        message = f"{lacking_column('compound', tables[0].name, columns)}; add it, or give a plate map with --plate-map"
        raise NoTreatments(message, unlabelled)
    unread = [name for name in map(str, fields) if name.startswith(UNREAD)]
    if "concentration_um" not in fields:
        _refuse_unread_doses(unread)
        notes = (*notes, f"{tables[-1].name}: no column for the concentration: a compound is one treatment")
    of_wells = fields.drop_duplicates(["plate", "well"])
    fields = _with_defaults(fields, controls=config.control, source=tables[-1].name)
    treated = fields[fields["role"] == "treated"]
    refuse_plates_in_names(treated["plate"], treated["compound"], source=tables[-1].name)
    in_names = doses_in_names(set(treated["compound"]))
    in_names.refuse(tables[-1].name, remedy=IN_COLUMNS)
    notes = (*notes, *_defaults_notes(of_wells, fields, source=tables[-1].name), *in_names.notes(remedy=IN_COLUMNS))
    undosed = (fields["concentration_um"] == 0) & (fields["role"] == "treated")
    if undosed.any() and (fields["concentration_um"] > 0).any():
        names = shortened(list(dict.fromkeys(fields.loc[undosed, "compound"])))
        notes = (*notes, f"treated wells at concentration 0, which are no controls (--control): {names}")
    is_chosen, choosing = chosen_wells(fields, config.only, source=tables[-1].name)
    others = [name for name in unread if name not in choosing]
    screen = checked_screen(
        fields.drop(columns=unread).assign(is_chosen=is_chosen),
        channels=channels,
        folder=folder or source,
        source=tables[0].name,
        sources={path.name: sha256(path) for path in tables},
        same_dose_within=config.same_dose_within,
        notes=(*notes, *unread_notes(fields[is_chosen], others, remedy="; --only COLUMN=VALUE takes some of them")),
    )
    is_chosen = screen.table["is_chosen"]
    screen = replace(screen, table=screen.table.drop(columns="is_chosen")).keeping(is_chosen)
    return screen.leaving_out(counts)


def _complete(
    fields: pd.DataFrame, channels: Sequence[str], *, table: Path | None, skip_missing: bool
) -> tuple[pd.DataFrame, int]:
    """The fields with a file of each channel, and the number of the others; InputError unless these are skipped."""
    lacking = fields[[name for name in fields if str(name).startswith("file_")]].isna()
    incomplete = lacking.any(axis=1)
    n_incomplete = int(incomplete.sum())
    if n_incomplete and (not skip_missing or n_incomplete == len(fields)):
        row = int(incomplete.to_numpy().argmax())
        where = ("" if table is None else f"{table.name}, ") + where_of({"site": 1, **fields.iloc[row]})
        channel = channels[int(lacking.iloc[row].to_numpy().argmax())]
        raise InputError(
            f'{where}: channel "{channel}" has no file ({n_incomplete:,} of {len(fields):,} fields lack one). Add it, '
            "choose --channels, or run with --skip-missing; no crop was written."
        )
    return fields[~incomplete].reset_index(drop=True), n_incomplete


def _refuse_unread_doses(unread: Sequence[str]) -> None:
    """InputError for a column, of those under UNREAD, that may hold concentrations, or their logarithms."""
    logarithms = [name for name in unread if is_logarithm(name.rpartition(": ")[2])]
    refuse_unread(logarithms, resembles_dose, may_hold="logarithms of concentrations", remedy=GIVE_DOSES)
    names = f"call it {', '.join(NAMES['concentration_um'][:4])} (micromolar, or with its unit: conc_nM)"
    remedy = f"name it with {_flag('concentration_um')}, {names}"
    refuse_unread(unread, resembles_dose, may_hold="concentrations", remedy=remedy)


def with_plate_map(
    fields: pd.DataFrame, plate_map: pd.DataFrame, *, source: str, skip_missing: bool
) -> tuple[pd.DataFrame, dict[str, int]]:
    """The fields with the plate map's treatment of their wells, and counts of what was left out.

    Raises InputError for a column that both have, a well with images that the map does not have, and a well of the map
    without images; with `skip_missing` the last two are left out and counted. A well of the map without a compound
    counts as missing.
    """
    both = [name for name in TREATMENT if name in fields and name in plate_map]
    if both:
        raise InputError(f"{source}: the table of images gives the {both[0]} too; leave it out of one of them")
    keys = ["plate", "well"] if "plate" in plate_map else ["well"]
    used = plate_map[plate_map["compound"].notna()]
    if used.empty:
        n_rows = counted(len(plate_map), "row")
        raise InputError(f"{source}: no well has a compound ({n_rows}); fill in the column compound (of controls DMSO)")
    if "plate" in keys and set(fields["plate"]).isdisjoint(used["plate"]):
        theirs, ours = (shortened(sorted(table["plate"].dropna().unique())) for table in (used, fields))
        raise InputError(
            f"{source}: its plates are {theirs}, those of the images {ours}; correct the column plate, or write "
            "{plate} in --pattern where the names of the images have it"
        )
    joined = fields.merge(used, on=keys, how="left", indicator="found")
    without = joined[joined["found"] == "left_only"]
    there = set(map(tuple, fields[keys].to_numpy()))
    unseen = [well for well in map(tuple, used[keys].to_numpy()) if well not in there]
    lacking = list(dict.fromkeys(map(tuple, without[keys].to_numpy())))
    listed = set(map(tuple, plate_map[keys].to_numpy()))
    correct = "Correct the plate map (the columns plate and well), or run with --skip-missing"
    fill_in = "Fill in its compound (of a control well DMSO or the name in --control), or run with --skip-missing"
    others = shortened([" ".join(map(str, well)) for well in unseen])
    named = f"It has wells without images: {others}. {correct}" if unseen else correct
    for what, wells, instead in (
        ("an empty compound of a well with images", [well for well in lacking if well in listed], fill_in),
        ("no compound for a well with images", lacking, named),
        ("a well without images", unseen, correct),
    ):
        if wells and not skip_missing:
            names = [" ".join(map(str, well)) for well in wells]
            raise InputError(missing_line(f"{source}: {what}", names, instead=instead))
    kept = joined[joined["found"] == "both"].drop(columns="found").reset_index(drop=True)
    if kept.empty:
        raise InputError(f"{source}: none of its {len(used)} wells has images; give the plate map of this screen")
    return kept, {
        "fields whose well has no compound in the plate map": len(without),
        "wells of the plate map without images": len(unseen),
    }


def _with_defaults(fields: pd.DataFrame, *, controls: Collection[str], source: str) -> pd.DataFrame:
    """Site 1, batch = plate, no mechanism, concentration 0 in controls (everywhere when there is no such column).

    The role is `control` where the compound is one of `controls` (in any case), else `treated`. An empty cell of role,
    batch or moa gets its default; a treated well without its concentration is refused by checked_screen.
    """
    fields = fields.assign(site=fields.get("site", 1))
    names = {clean_name(name).casefold() for name in controls}
    compounds = clean_names(fields["compound"]).str.casefold()
    is_control = compounds.isin(names)
    unknown = [name for name in controls if clean_name(name).casefold() not in set(compounds)]
    if unknown and is_control.any():
        raise InputError(f'{source}: no well has --control "{unknown[0]}"; {nearest(unknown[0], fields["compound"])}')
    role = pd.Series("treated", index=fields.index, dtype=object).mask(is_control, "control")
    for name, default in (("role", role), ("batch", fields["plate"])):
        given = fields.get(name, default)
        fields[name] = given.where(given.notna(), default)
    fields["moa"] = fields.get("moa")
    if "concentration_um" not in fields:
        fields["concentration_um"] = 0.0
    empty = fields["concentration_um"].isna() & (fields["role"] == "control")
    fields["concentration_um"] = fields["concentration_um"].mask(empty, 0.0)
    refuse_no_doses(fields.loc[fields["role"] == "treated", "concentration_um"], source=source)
    fields["moa"] = fields["moa"].astype(object).where(fields["role"] != "control", None)
    if not is_control.any() and not (fields["role"] != "treated").any():
        raise InputError(
            f"{source}: no control well: no compound is {' or '.join(controls)}; name the controls with --control, or "
            "give a column role with control in it"
        )
    return fields


def _defaults_notes(wells: pd.DataFrame, fields: pd.DataFrame, *, source: str) -> list[str]:
    """Notes on the empty cells of batch and role, and what they count as (in `fields`), with the number of wells.

    InputError for a plate with a batch in some wells only.
    """
    notes = []
    if "batch" not in wells or wells["batch"].isna().all():
        if wells["plate"].nunique() > 1:
            notes.append(NO_BATCH)
    elif (empty := wells["batch"].isna()).any():
        for plate, batches in wells.groupby("plate")["batch"]:
            if 0 < (n := int(batches.isna().sum())) < len(batches):
                raise InputError(
                    f"{source}: {n} of {len(batches)} wells of plate {plate} have no batch, others have "
                    f"{batches.dropna().iloc[0]}; fill it in"
                )
        plates = shortened(list(dict.fromkeys(wells.loc[empty, "plate"])))
        notes.append(
            f"{source}: {counted(int(empty.sum()), 'well')} without a batch, which is then the plate: {plates}"
        )
    if "role" in wells and (empty := wells["role"].isna()).any():
        roles = fields.loc[wells.index[empty], "role"].value_counts()
        held = ", ".join(f"{role} ({n:,})" for role, n in roles.to_dict().items())
        notes.append(
            f"{source}: {counted(int(empty.sum()), 'well')} without a role, which the compound decides: {held}"
        )
    return notes
