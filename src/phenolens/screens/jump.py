"""Read plates as JUMP-CP publishes them: LoadData with illumination functions, and the JCP2022 tables of what was done.

Chandrasekaran et al. 2023, bioRxiv 2023.03.23.534023. The tables are `well` (plate, well, JCP2022), `plate` (batch),
`compound`, `orf` and `crispr` (JCP2022, names, genes) and `perturbation_control` (controls), as CSV or Parquet.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.files import sha256
from phenolens.core.names import clean_names, shortened
from phenolens.screens.config import LayoutConfig, chosen_channels, given_path
from phenolens.screens.csv_table import refuse_repeated, refuse_rows
from phenolens.screens.image_files import ILLUMINATION, unnamed_images
from phenolens.screens.image_table import FILE, OF_FILES, UNNAMED, FoldersHere, load_data_files, named_files
from phenolens.screens.plate_map import known_columns, lacking_column, read_as_text, with_plate_map, with_treatments
from phenolens.screens.repeated_images import each_field_once, refuse_repeated_images
from phenolens.screens.screen import Screen
from phenolens.screens.well_names import well_names

LOAD_DATA = ("load_data_with_illum.parquet", "load_data_with_illum.csv", "load_data.parquet", "load_data.csv")
METADATA = "metadata"  # the folder of the JCP2022 tables, in the source
JCP, PLATE, WELL, BATCH, SOURCE = (f"Metadata_{name}" for name in ("JCP2022", "Plate", "Well", "Batch", "Source"))
KIND, NAME = "Metadata_pert_type", "Metadata_Name"  # of a perturbation
PERTURBATIONS = ("compound", "orf", "crispr")
# Controls of the compound plates, where no table perturbation_control says which: DMSO, and the eight positive ones.
NEGATIVE = "JCP2022_033924"
POSITIVE = tuple(f"JCP2022_{n:06d}" for n in (85227, 37716, 25848, 46054, 35095, 64022, 50797, 12818))
NO_GENE = ("non-targeting", "no-guide")  # the negative controls of CRISPR plates, as symbols
GENE = "Metadata_Symbol"


def read_jump(source: Path, *, config: LayoutConfig, skip_missing: bool = False) -> Screen:
    """The screen of every LoadData table below `source`, joined with the JCP2022 tables.

    The compound is the JCP2022 number (of negative controls their name), the mechanism the gene of an ORF or guide, or
    the column that `--mechanism-column` names. Negative controls are controls, positive ones have the role other.

    Args:
        source: A folder with LoadData tables at any depth.
        config: `table` names one LoadData table, `plate_map` the folder of the JCP2022 tables (default: metadata).
        skip_missing: Leave out, and count, wells that only the images or only the metadata have.

    Raises:
        InputError: As in read_loaddata and with_plate_map; a table or its column is missing; a perturbation has two
            mechanisms, kinds or names, or a plate two batches or sources.
    """
    source = Path(source)
    paths = _load_data(source, config)
    tables_read = [read_as_text(path) for path in paths]
    raw = pd.concat(tables_read, ignore_index=True)
    folders, of_light = FoldersHere(source, config), FoldersHere(source, config)
    files = load_data_files(raw, folders, source=paths[0].name).rename(columns=lambda name: name.removeprefix("Orig"))
    if files.empty:
        raise InputError(f"{paths[0]}: no column FileName_<channel> (found: {', '.join(map(str, raw.columns[:20]))})")
    light = load_data_files(raw, of_light, source=paths[0].name, illumination=True)
    light = light.rename(columns=lambda name: name.removeprefix("Illum").removeprefix("Orig"))
    in_order = sorted(files.columns, key=lambda name: name.upper() not in ("DNA", "DAPI"))  # nuclei are in the first
    channels = chosen_channels(in_order, config.channels, source=paths[0].name)
    chosen = {f"{FILE}{ours}": files[theirs] for ours, theirs in channels.items()}
    chosen |= {f"{ILLUMINATION}{ours}": light[theirs] for ours, theirs in channels.items() if theirs in light}
    known = pd.concat([_known(*each, config) for each in zip(paths, tables_read)], ignore_index=True)
    n_rows = {_within(path, source): len(table) for path, table in zip(paths, tables_read, strict=True)}
    unnamed, of_folders = unnamed_images(source, named_files(files), what=UNNAMED)
    fields, repeats = each_field_once(pd.concat([known, pd.DataFrame(chosen)], axis=1), n_rows)
    wells, tables, n_unknown = _wells(source, config, plates=set(fields["plate"]))
    wells = wells.drop(columns="batch" if "batch" in fields else [], errors="ignore")
    fields, counts = with_plate_map(fields, wells, source=tables[0].name, skip_missing=skip_missing)
    if SOURCE in raw:
        of_plate = _once(raw.assign(**{PLATE: known["plate"]}), PLATE, (SOURCE,), source=paths[0].name)
        fields["source"] = fields["plate"].map(of_plate[SOURCE])
    fields, shared = _batches_of_sources(fields)
    screen = with_treatments(
        fields,
        list(channels),
        source=source,
        config=replace(config, plate_map=None, mechanism_column=None),
        skip_missing=skip_missing,
        table=paths[0],
        left_out=counts | unnamed,
        columns=[*map(str, raw)],
        notes=[
            *repeats,
            *shared,
            *of_folders,
            *([f"{counted(n_unknown, 'well')} with a JCP2022 number that no table explains"] if n_unknown else []),
        ],
    )
    refuse_repeated_images(screen)
    folders.refuse_shared(paths[0].name)
    return replace(screen, sources={_within(path, source): sha256(path) for path in (*paths, *tables)})


def _known(path: Path, raw: pd.DataFrame, config: LayoutConfig) -> pd.DataFrame:
    """The columns of a LoadData table that say which field a row is; InputError without a plate or well."""
    unread = [name for name in map(str, raw) if OF_FILES.match(name) or name.startswith("Metadata_Source")]
    known = known_columns(raw, source=str(path), named=config.named_columns, read=unread)
    for name in ("plate", "well"):
        if name not in known:
            raise lacking_column(name, path, raw)
    refuse_rows(known["plate"].isna(), known["plate"].fillna(""), expected="the name of the plate", source=str(path))
    return known


def _load_data(source: Path, config: LayoutConfig) -> list[Path]:
    """The LoadData tables: the one that is given, or of each folder the first kind that it has."""
    if config.table is not None:
        return [given_path(config.table, source)]
    by_folder: dict[Path, Path] = {}
    for name in LOAD_DATA:
        for path in sorted([*source.rglob(name), *source.rglob(f"{name}.gz")]):
            by_folder.setdefault(path.parent, path)
    if not by_folder:
        raise InputError(f"{source}: no {LOAD_DATA[0]} at any depth; give the folder of LoadData tables, or --table")
    return [by_folder[folder] for folder in sorted(by_folder)]


def has_wells(source: Path, config: LayoutConfig) -> bool:
    """Whether the JCP2022 table of wells is where `read_jump` searches it."""
    return _table(_metadata(source, config), "well") is not None


def _metadata(source: Path, config: LayoutConfig) -> Path:
    """The folder of the JCP2022 tables."""
    return source / METADATA if config.plate_map is None else given_path(config.plate_map, source)


def _wells(source: Path, config: LayoutConfig, *, plates: set[str]) -> tuple[pd.DataFrame, list[Path], int]:
    """A row per well of these plates (compound, moa, role, batch, source), the tables, how many wells are unknown."""
    folder = _metadata(source, config)
    names = ("well", "plate", *PERTURBATIONS, "perturbation_control")
    found = {name: path for name in names if (path := _table(folder, name)) is not None}
    if "well" not in found:
        raise InputError(
            f"{folder}: no well.csv, well.csv.gz or well.parquet; give the JCP2022 tables' folder with --plate-map"
        )
    raw = read_as_text(found["well"], columns=(PLATE, WELL, JCP))
    raw = raw[clean_names(raw[PLATE]).isin(plates)].reset_index(drop=True)
    if raw.empty:
        raise InputError(f"{found['well']}: none of the {len(plates)} plates with images; the first is {min(plates)}")
    known = _perturbations(found, config)
    is_known = raw[JCP].isin(known.index)
    wells = pd.DataFrame(
        {
            "plate": clean_names(raw[PLATE]),
            "well": raw[WELL].map(well_names(raw[WELL], source=found["well"].name)),
            "compound": raw[JCP].map(known["compound"]).fillna(raw[JCP]),
            "moa": raw[JCP].map(known["moa"]),
            "role": raw[JCP].map(known["role"]).fillna("treated"),
        }
    )
    wells = wells.drop_duplicates(ignore_index=True)
    refuse_repeated(wells, ["plate", "well"], source=found["well"].name, expected="one JCP2022 number a well")
    if "plate" in found:
        of_plate = read_as_text(found["plate"], columns=(PLATE, BATCH))
        of_plate = of_plate[clean_names(of_plate[PLATE]).isin(plates)]
        of_plate = _once(of_plate, PLATE, (BATCH, SOURCE), source=found["plate"].name)
        wells["batch"] = wells["plate"].map(of_plate[BATCH])
        if SOURCE in of_plate:
            wells["source"] = wells["plate"].map(of_plate[SOURCE])
    return wells, list(found.values()), int((~is_known & raw[JCP].notna()).sum())


def _batches_of_sources(fields: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The fields, with batches of one name in several sources named after their source too, and a note on these."""
    if not {"source", "batch"} <= set(fields):
        return fields.drop(columns="source", errors="ignore"), []
    batch, source = clean_names(fields["batch"]), clean_names(fields["source"])
    n_sources = source.groupby(batch).nunique()
    shared = [name for name in n_sources[n_sources > 1].index if name]
    named = batch.where(~batch.isin(shared), source + " " + batch)
    fields = fields.drop(columns="source").assign(batch=named.where(named != "", None))
    notes = [f"batches of one name in several sources count as one of each source: {shortened(shared)}"]
    return fields, notes if shared else []


def _once(table: pd.DataFrame, key: str, columns: Sequence[str], *, source: str) -> pd.DataFrame:
    """Those of these columns that there are, a row per `key`; InputError for two rows of one that differ in them."""
    held = [name for name in columns if name in table]
    rows = table[held].assign(**{key: clean_names(table[key])}).drop_duplicates()
    refuse_repeated(rows, [key], source=source, expected=f"one {' and '.join(held)} for each")
    return rows.set_index(key)


def _perturbations(found: dict[str, Path], config: LayoutConfig) -> pd.DataFrame:
    """Compound, moa and role by JCP2022."""
    parts = []
    for name in (name for name in PERTURBATIONS if name in found):
        raw = read_as_text(found[name], columns=(JCP,))
        moa = config.mechanism_column if config.mechanism_column in raw else GENE if GENE in raw else None
        raw = _once(raw, JCP, list(filter(None, dict.fromkeys((moa, GENE, KIND)))), source=found[name].name)
        kinds = raw.get(KIND, pd.Series("", index=raw.index)).fillna("")
        if GENE in raw:
            kinds = kinds.where(~raw[GENE].isin(NO_GENE), "negcon")
        parts.append(pd.DataFrame({"moa": None if moa is None else raw[moa], "kind": kinds, "name": None}, raw.index))
    known = pd.concat(parts) if parts else pd.DataFrame(columns=["moa", "kind", "name"], dtype=object)
    if config.mechanism_column is not None and not known["moa"].notna().any():
        raise InputError(f'--mechanism-column "{config.mechanism_column}": no such column in the JCP2022 tables')
    controls = pd.DataFrame({"kind": "poscon", "name": None}, index=[*POSITIVE])
    controls.loc[NEGATIVE] = ["negcon", "DMSO"]
    if "perturbation_control" in found:
        path = found["perturbation_control"]
        table = _once(read_as_text(path, columns=(JCP, KIND)), JCP, (KIND, NAME), source=path.name)
        controls = pd.DataFrame({"kind": table[KIND], "name": table.get(NAME)})
    if twice := list(known.index[known.index.duplicated()]):
        raise InputError(f"JCP2022 tables: {shortened(twice)} in more than one of {', '.join(PERTURBATIONS)}; keep one")
    known = known.reindex(known.index.union(controls.index))
    known.update(controls)
    is_negative = known["kind"] == "negcon"
    is_positive = known["kind"].astype(str).str.startswith("poscon")
    return pd.DataFrame(
        {
            "compound": known["name"].where(is_negative & known["name"].notna(), pd.Series(known.index, known.index)),
            "moa": known["moa"].where(~is_negative, None),
            "role": pd.Series("treated", known.index).mask(is_negative, "control").mask(is_positive, "other"),
        }
    )


def _table(folder: Path, name: str) -> Path | None:
    found = [path for ending in (".csv", ".csv.gz", ".parquet") if (path := folder / f"{name}{ending}").is_file()]
    if len(found) > 1:
        raise InputError(f"{folder}: {found[0].name} and {found[1].name}; keep one of them")
    return found[0] if found else None


def _within(path: Path, source: Path) -> str:
    return path.relative_to(source).as_posix() if path.is_relative_to(source) else path.name
