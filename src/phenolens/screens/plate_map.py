"""The treatment of each well, from a plate map or the table of images, with defaults for missing columns.

Columns may have any of the names below; case, spaces, and a leading `Metadata_` or `Image_Metadata_` do not matter.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pandas as pd

from phenolens.core.errors import InputError
from phenolens.core.files import sha256
from phenolens.screens.config import LayoutConfig
from phenolens.screens.csv_table import numbers, read_csv, refuse_repeated
from phenolens.screens.image_files import missing_line
from phenolens.screens.screen import Screen, checked_screen, well_names, where_of

NAMES = {
    "plate": ("plate", "plate_id", "plate_barcode", "barcode"),
    "well": ("well", "well_position", "well_id"),
    "site": ("site", "field", "fov"),
    "batch": ("batch",),
    "compound": ("compound", "compound_name", "treatment", "drug"),
    "concentration_um": ("concentration_um", "concentration", "dose_um", "dose"),
    "moa": ("moa", "mechanism", "mechanism_of_action"),
    "role": ("role",),
}
TREATMENT = ("compound", "concentration_um", "moa", "role", "batch")


def read_as_text(path: Path, *, columns: Collection[str] = ()) -> pd.DataFrame:
    """A table with every cell as written (plate 007 is not 7), an empty cell as NaN; InputError as in read_csv."""
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; correct the path")
    header = read_csv(path, columns=columns).columns
    return read_csv(path, columns=columns, text=header)


def known_columns(raw: pd.DataFrame, *, source: str) -> pd.DataFrame:
    """The columns of `raw` that NAMES knows, under our names; wells as B02, site and concentration as numbers.

    Raises InputError for two columns of one meaning, an invalid well name and a value that is not a number.
    """
    found: dict[str, str] = {}
    for name in map(str, raw.columns):
        plain = re.sub(r"^(image_)?metadata_", "", re.sub(r"[\s-]+", "_", name.strip().lower()))
        ours = next((ours for ours, names in NAMES.items() if plain in names), None)
        if ours in found:
            raise InputError(f"{source}: the columns {found[ours]} and {name} both give the {ours}; keep one of them")
        if ours is not None:
            found[ours] = name
    known = raw[list(found.values())].set_axis(list(found), axis=1)
    for name in ("plate", "batch", "compound", "moa", "role"):
        if name in known:
            known[name] = known[name].astype(object).where(known[name].notna(), None)
    if "well" in known:
        known["well"] = known["well"].map(well_names(known["well"], source=source))
    if "site" in known:
        known["site"] = numbers(raw, found["site"], source=source, whole=True)
    if "concentration_um" in known:
        given = known[known["concentration_um"].notna()]
        known["concentration_um"] = numbers(given, "concentration_um", source=source).reindex(known.index)
    return known


def read_plate_map(path: Path) -> pd.DataFrame:
    """One row per well: `well`, `compound` and, if the file has them, `plate` and the rest of TREATMENT.

    Without `plate` it applies to every plate. Raises InputError without a well or compound column and for a well that
    is listed twice.
    """
    path = Path(path)
    known = known_columns(read_as_text(path), source=path.name)
    for name in ("well", "compound"):
        if name not in known:
            raise InputError(
                f"{path}: no column for the {name} (it may be called {', '.join(NAMES[name])}); a plate map has one "
                "row per well"
            )
    keys = ["plate", "well"] if "plate" in known else ["well"]
    refuse_repeated(known, keys, source=path.name, expected="one row per well")
    return known.drop(columns="site", errors="ignore")


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

    Raises:
        InputError: A field lacks a file of a channel; there are no treatments; or as in `with_plate_map`,
            `with_defaults` and `checked_screen`.
    """
    counts = dict(left_out or {})
    lacking = fields[[name for name in fields if str(name).startswith("file_")]].isna()
    incomplete = lacking.any(axis=1)
    if incomplete.any() and (not skip_missing or incomplete.all()):
        row = int(incomplete.to_numpy().argmax())
        where = where_of(fields.iloc[row]) if table is None else f"{table.name}, row {row + 2}"
        channel = channels[int(lacking.iloc[row].to_numpy().argmax())]
        raise InputError(
            f'{where}: channel "{channel}" has no file ({int(incomplete.sum()):,} of {len(fields):,} fields lack '
            "one). Add it, choose --channels, or run with --skip-missing; no crop was written."
        )
    counts["fields without an image of each channel"] = int(incomplete.sum())
    fields = fields[~incomplete].reset_index(drop=True)
    map_path = config.plate_map_path(source)
    tables = [path for path in (table, map_path) if path is not None]
    if not tables:
        raise InputError(f"{source}: these files do not give the treatment of a well; give a CSV with --plate-map")
    if map_path is not None:
        fields, more = with_plate_map(fields, read_plate_map(map_path), source=map_path.name, skip_missing=skip_missing)
        counts |= more
    fields = with_defaults(fields, controls=config.controls, source=tables[-1].name)
    sources = {path.name: sha256(path) for path in tables}
    screen = checked_screen(fields, channels=channels, folder=folder or source, source=tables[0].name, sources=sources)
    return screen.leaving_out(counts)


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
    joined = fields.merge(used, on=keys, how="left", indicator="found")
    without = joined[joined["found"] == "left_only"]
    there = set(map(tuple, fields[keys].to_numpy()))
    unseen = [well for well in map(tuple, used[keys].to_numpy()) if well not in there]
    for what, wells in (
        (f"{source}: no compound for a well with images", list(dict.fromkeys(map(tuple, without[keys].to_numpy())))),
        (f"{source}: a well without images", unseen),
    ):
        if wells and not skip_missing:
            names = [" ".join(map(str, well)) for well in wells]
            instead = "Correct the plate map (the columns plate and well), or run with --skip-missing"
            raise InputError(missing_line(what, names, instead=instead))
    kept = joined[joined["found"] == "both"].drop(columns="found").reset_index(drop=True)
    if kept.empty:
        raise InputError(f"{source}: none of its {len(used)} wells has images; give the plate map of this screen")
    return kept, {
        "fields whose well has no compound in the plate map": len(without),
        "wells of the plate map without images": len(unseen),
    }


def with_defaults(fields: pd.DataFrame, *, controls: Collection[str], source: str) -> pd.DataFrame:
    """Site 1, batch = plate, no mechanism, concentration 0 in controls (everywhere when there is no such column).

    The role is `control` where the compound is one of `controls` (in any case), else `treated`. An empty cell of role,
    batch or moa gets its default; a treated well without its concentration is refused by checked_screen.
    """
    fields = fields.copy()
    if "compound" not in fields:
        raise InputError(
            f"{source}: no column for the compound (it may be called {', '.join(NAMES['compound'])}); add it, or give "
            "a plate map with --plate-map"
        )
    if "site" not in fields:
        fields["site"] = 1
    names = {name.strip().casefold() for name in controls}
    is_control = fields["compound"].astype(str).str.strip().str.casefold().isin(names)
    role = pd.Series("treated", index=fields.index, dtype=object).mask(is_control, "control")
    fields["role"] = _or(fields, "role", role)
    fields["batch"] = _or(fields, "batch", fields["plate"])
    fields["moa"] = fields.get("moa")
    if "concentration_um" not in fields:
        fields["concentration_um"] = 0.0
    empty = fields["concentration_um"].isna() & (fields["role"] == "control")
    fields["concentration_um"] = fields["concentration_um"].mask(empty, 0.0)
    fields["moa"] = fields["moa"].astype(object).where(fields["role"] != "control", None)
    if not is_control.any() and not (fields["role"] != "treated").any():
        raise InputError(
            f"{source}: no control well: no compound is {' or '.join(controls)}; name the controls with --controls, or "
            "give a column role with control in it"
        )
    return fields


def _or(fields: pd.DataFrame, name: str, default: pd.Series) -> pd.Series:
    return default if name not in fields else fields[name].where(fields[name].notna(), default)
