"""Read a table of nucleus centres, as CellProfiler writes it, and join it to a screen's fields.

A column may have the object's name, `Image_` or `Metadata_` before its own (`Nuclei_Location_Center_X`,
`Image_Metadata_Plate`, `Metadata_ImageNumber`), and `_x` or `_y` after it where tables were joined.
"""

import re
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from phenolens.core.errors import InputError
from phenolens.core.names import clean_names
from phenolens.core.progress import track
from phenolens.screens.csv_table import numbers, read_csv, refuse_repeated
from phenolens.screens.file_listing import in_hidden
from phenolens.screens.image_files import file_on_disk
from phenolens.screens.screen import FIELD, Screen, well_names

NUCLEI_TABLE = "Nuclei.csv"  # in a source folder
NUMBER_KEYS = {"TableNumber": "table_number", "ImageNumber": "image_number"}
CENTRE_COLUMNS = {"ObjectNumber": "object_number", "Location_Center_Y": "y", "Location_Center_X": "x"}
OBJECT = "Nuclei"
SQLITE = (".sqlite", ".sqlite3", ".db")
FIELD_KEYS = ("Metadata_Plate", "Metadata_Well", "Metadata_Site")
LOCATION = re.compile(rf"^(?P<well>[A-Za-z]{{1,2}}\d+)-(?P<site>.+)-{OBJECT}\.csv$")
IMAGE_COLUMN = re.compile(r"Number|Metadata|FileName")
EMPTY = "site folders or files without centres"
PLATE_COLUMNS = ("Metadata_Plate", "Image_Metadata_Plate", "plate")  # read as text: plate 007 is not 7


def read_centres(path: Path, screen: Screen, *, skip_missing: bool = False) -> tuple[pd.DataFrame, dict[str, int]]:
    """One row per nucleus in the screen's fields, and counts of what was left out.

    Args:
        path: A CSV that names the field of each nucleus by `TableNumber` and `ImageNumber` (the screen must have them,
            as BBBC021 does), by `Metadata_Plate`, `Metadata_Well` and `Metadata_Site` or by `plate`, `well` and
            `site`; a CSV with ImageNumber alone and Image.csv next to it; a folder of such folders, one per site;
            CellProfiler's SQLite; a Parquet of CytoTable; DeepProfiler's folder of `locations`. Where the images' table
            has no plate, well and site, its file names say which field it is.
        screen: Nuclei in fields that are not selected are left out.
        skip_missing: Leave out, and count, nuclei in no field of the screen, and a table of 0 bytes or of a header
            alone in a folder of many.

    Returns:
        `plate`, `well`, `site`, `object_number`, `y` (row), `x` (column), sorted by field and object number. y and x
        are pixels, the centre of the first pixel is 0, 0.

    Raises:
        InputError: A column is missing, a value is not a number, a nucleus is listed twice, or a nucleus is in no field
            of the screen.
    """
    path = Path(path)
    counts: dict[str, int] = {}
    if path.is_dir():
        locations = path if path.name == "locations" else path / "locations"
        is_deepprofiler = locations.is_dir()
        found = _locations(locations, skip_missing) if is_deepprofiler else _site_folders(path, screen, skip_missing)
        nuclei, counts = found
    elif path.suffix.lower() in SQLITE:
        nuclei = _sqlite(path, screen)
    elif path.suffix.lower() == ".parquet":
        nuclei = _parquet(path, screen)
    else:
        nuclei = read_csv(path, columns=CENTRE_COLUMNS, text=PLATE_COLUMNS)
        images = _beside(path.parent, "Image.csv")
        if images is not None and not _keys(nuclei, screen):
            nuclei = _with_image_table(nuclei, images, screen)
    source = str(path) if path.is_dir() else path.name
    centres, n_lost = _in_fields(nuclei, screen, source=source, skip_missing=skip_missing)
    return centres, counts | ({"nuclei in no field of the screen": n_lost} if n_lost else {})


def _in_fields(raw: pd.DataFrame, screen: Screen, *, source: str, skip_missing: bool) -> tuple[pd.DataFrame, int]:
    """The table of read_centres from nuclei with CENTRE_COLUMNS and columns that name the field.

    And the count of nuclei in no field of the whole screen, which are refused without `skip_missing`.
    """
    keys = _keys(raw, screen)
    if not keys:
        raise InputError(
            f"{source}: no columns that name the field: expected {', '.join(NUMBER_KEYS)}, or "
            f"{', '.join(FIELD_KEYS)} (found: {', '.join(map(str, raw.columns))})"
        )
    placed = raw[raw[list(keys)].notna().all(axis=1)]
    nuclei = pd.DataFrame({ours: _key(placed, name, ours, source=source) for name, ours in keys.items()})
    for name, ours in CENTRE_COLUMNS.items():
        nuclei[ours] = numbers(placed, name, source=source)
    nuclei = nuclei.astype({"object_number": np.int64, "y": float, "x": float})
    fields = screen.table[list(dict.fromkeys([*keys.values(), *FIELD]))]
    refuse_repeated(fields, list(keys.values()), source="the screen", expected="one row per field")
    known = known_fields(screen)[list(keys.values())]
    n_lost = _count_lost(nuclei, known, source=source, n_without=len(raw) - len(placed), skip_missing=skip_missing)
    joined = nuclei.merge(fields, on=list(keys.values()), how="inner")
    if joined.empty:
        raise InputError(f"{source}: none of its {len(raw):,} nuclei is in a field of the screen that is selected")
    centres = joined[[*FIELD, *CENTRE_COLUMNS.values()]]
    refuse_repeated(centres, [*FIELD, "object_number"], source=source, expected="one row per nucleus")
    return centres.sort_values([*FIELD, "object_number"]).reset_index(drop=True), n_lost


def _count_lost(nuclei: pd.DataFrame, known: pd.DataFrame, *, source: str, n_without: int, skip_missing: bool) -> int:
    """How many nuclei are in no `known` field, with `n_without` that name none; InputError unless they may be skipped.

    Sites that count from another number than the screen's are refused in any case: nuclei would be cut out of the field
    beside their own.
    """
    names = list(known)
    is_lost = ~pd.MultiIndex.from_frame(nuclei[names]).isin(pd.MultiIndex.from_frame(known))
    n_lost = int(is_lost.sum()) + n_without
    if not n_lost:
        return 0
    place = "without a name of its field"
    if is_lost.any():
        place = ", ".join(f"{name} {value}" for name, value in nuclei.loc[is_lost, names].iloc[0].items())
    found = (
        f"{source}: {n_lost:,} of {len(nuclei) + n_without:,} nuclei are in no field of the screen (first: {place}; "
        f"the screen has {_examples(known)})"
    )
    if "site" in names and is_lost.any():
        theirs, ours = set(nuclei["site"]), set(known["site"])
        shift = min(ours) - min(theirs)
        if shift and {site + shift for site in theirs} == ours:
            raise InputError(
                f"{found}; its sites are {min(theirs)} to {max(theirs)}, those of the images {min(ours)} to "
                f"{max(ours)}: count both from the same number"
            )
    if not skip_missing or n_lost == len(nuclei) + n_without:
        raise InputError(f"{found}; correct the table{'' if skip_missing else ', or run with --skip-missing'}")
    return n_lost


def _examples(known: pd.DataFrame) -> str:
    """The first values of each column, for messages."""
    values = {name: sorted(known[name].unique()) for name in known}
    return ", ".join(
        f"{name} {' '.join(map(str, held[:3]))}{' ...' * (len(held) > 3)}" for name, held in values.items()
    )


def known_fields(screen: Screen) -> pd.DataFrame:
    """The fields of a source, selected or not."""
    return screen.table if screen.not_selected is None else pd.concat([screen.table, screen.not_selected])


def _keys(raw: pd.DataFrame, screen: Screen) -> dict[str, str]:
    """The columns that name the field: as the table has them, as the screen has them; empty without any."""
    for keys in (NUMBER_KEYS, dict(zip(FIELD_KEYS, FIELD)), dict(zip(FIELD, FIELD))):
        if keys.keys() <= set(raw.columns) and set(keys.values()) <= set(screen.table.columns):
            return keys
    return {}


def _key(raw: pd.DataFrame, name: str, ours: str, *, source: str) -> pd.Series:
    if ours == "well":
        return raw[name].map(well_names(raw[name], source=source))
    return clean_names(raw[name]) if ours == "plate" else numbers(raw, name, source=source)


def _beside(folder: Path, name: str) -> Path | None:
    """The file of that name in a folder, in any case."""
    return next((path for path in sorted(folder.iterdir()) if path.name.lower() == name.lower()), None)


def _with_image_table(nuclei: pd.DataFrame, images: Path, screen: Screen) -> pd.DataFrame:
    return _with_fields(
        nuclei, read_csv(images, columns=["ImageNumber"], text=PLATE_COLUMNS), screen, source=images.name
    )


def _with_fields(nuclei: pd.DataFrame, images: pd.DataFrame, screen: Screen, *, source: str) -> pd.DataFrame:
    """The nuclei with the field of their image, by ImageNumber (and TableNumber where both have it)."""
    keys = [key for key in NUMBER_KEYS if key in nuclei and key in images]
    fields = _fields_of(images, screen, source=source)
    table = pd.concat([images[keys], fields], axis=1)
    refuse_repeated(table, keys, source=source, expected="one row per image")
    joined = nuclei[[*keys, *CENTRE_COLUMNS]].merge(table, on=keys, how="left", indicator="found")
    lost = joined["found"] == "left_only"
    if lost.any():
        row = joined[lost].iloc[0]
        raise InputError(
            f"{source}: no row for {', '.join(f'{key} {row[key]}' for key in keys)}, of {int(lost.sum()):,} nuclei; "
            "add the table of images that belongs to the nuclei"
        )
    return joined[[*FIELD_KEYS, *CENTRE_COLUMNS]]


def _fields_of(images: pd.DataFrame, screen: Screen, *, source: str) -> pd.DataFrame:
    """Plate, well and site of each image, from its columns or its files' names; empty for images of no field."""
    named = _columns(images, {key: ("Image_", "Metadata_", "") for key in FIELD_KEYS})
    if len(named) == len(FIELD_KEYS):
        return images[list(named.values())].set_axis(list(FIELD_KEYS), axis=1)
    for channel in screen.channels:
        column = _columns(images, {f"FileName_{channel}": ("Image_", "")}).get(f"FileName_{channel}")
        if column is None or f"file_{channel}" not in screen.table:
            continue
        fields = known_fields(screen)
        names = fields[f"file_{channel}"].map(lambda text: file_on_disk(text).name)
        if names.is_unique:
            by_name = fields[FIELD].set_index(names).rename(columns=dict(zip(FIELD, FIELD_KEYS)))
            return by_name.reindex(images[column]).reset_index(drop=True).set_axis(images.index)
    raise InputError(
        f"{source}: does not name the field of an image: expected {', '.join(FIELD_KEYS)}, or FileName_<channel> with "
        "the names of the screen's files, each once"
    )


def _columns(table: pd.DataFrame | Iterable[str], wanted: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """Wanted name -> the column with one of its prefixes before it, and perhaps _x or _y after it."""
    names = list(table.columns if isinstance(table, pd.DataFrame) else table)
    found = {}
    for name, prefixes in wanted.items():
        candidates = [f"{prefix}{name}{end}" for prefix in prefixes for end in ("", "_x", "_y")]
        match = next((candidate for candidate in candidates if candidate in names), None)
        if match is not None:
            found[name] = match
    return found


def _centre_columns(names: Iterable[str], *, source: str) -> dict[str, str]:
    """The columns of a nucleus's number and centre; InputError where one is missing."""
    before = (f"{OBJECT}_", f"Metadata_{OBJECT}_", "")
    wanted = {name: before for name in CENTRE_COLUMNS if name != "ObjectNumber"}
    found = _columns(names, {**wanted, "Number_Object_Number": before, "ObjectNumber": (*before, "Metadata_")})
    number = found.pop("ObjectNumber", None) or found.pop("Number_Object_Number", None)
    found.pop("Number_Object_Number", None)
    lacking = [name for name in wanted if name not in found] + ([] if number else ["ObjectNumber"])
    if lacking or number is None:
        raise InputError(f"{source}: no column {OBJECT}_{lacking[0]} (or without {OBJECT}_); give a table of nuclei")
    return {**found, "ObjectNumber": number}


def _sqlite(path: Path, screen: Screen) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected CellProfiler's SQLite")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            listed = pd.read_sql_query("select name from sqlite_master where type in ('table', 'view')", database)
            names = list(listed["name"])
            image_table = _table(names, ("Per_Image", "Image"), path)
            object_table = _table(names, (f"Per_{OBJECT}", OBJECT, "Per_Object"), path)
            columns = _sqlite_columns(database, object_table)
            wanted = _centre_columns(columns, source=f"{path.name}, {object_table}")
            keys = {key: key for key in NUMBER_KEYS if key in columns}
            nuclei = _selected(database, object_table, {**keys, **wanted})
            # not the hundreds of measurements of an image
            of_images = [name for name in _sqlite_columns(database, image_table) if IMAGE_COLUMN.search(name)]
            images = _selected(database, image_table, {name: name for name in of_images})
    except (sqlite3.Error, pd.errors.DatabaseError) as error:
        raise InputError(f"{path}: not a complete SQLite database ({error}); replace it") from error
    return _with_fields(nuclei, images, screen, source=f"{path.name}, {image_table}")


def _table(names: list[str], wanted: tuple[str, ...], path: Path) -> str:
    for name in wanted:
        if name in names:
            return name
    raise InputError(f"{path}: no table {' or '.join(wanted)} (there are: {', '.join(names) or 'none'})")


def _sqlite_columns(database: sqlite3.Connection, table: str) -> list[str]:
    return list(pd.read_sql_query(f'select * from "{table}" limit 0', database).columns)


def _selected(database: sqlite3.Connection, table: str, columns: dict[str, str]) -> pd.DataFrame:
    """These columns alone (our name: theirs), so that a database of many gigabytes is never in memory."""
    names = ", ".join(f'"{name}"' for name in columns.values())
    return pd.read_sql_query(f'select {names} from "{table}"', database).set_axis(list(columns), axis=1)


def _parquet(path: Path, screen: Screen) -> pd.DataFrame:
    try:
        names = pq.read_schema(path).names
        wanted = _centre_columns(names, source=path.name)
        fields = _columns(names, {key: ("Image_", "Metadata_", "") for key in FIELD_KEYS})
        numbers = _columns(names, {key: ("Metadata_", "Image_", "") for key in NUMBER_KEYS})
        files = {name: name for name in names if re.match(r"^(Image_)?FileName_", name)}
        chosen = {**wanted, **fields} if len(fields) == len(FIELD_KEYS) else {**wanted, **numbers, **files}
        table = pq.read_table(path, columns=list(chosen.values())).to_pandas()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; expected a Parquet of CytoTable") from error
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: not a complete Parquet file ({' '.join(str(error).split())}); replace it") from error
    nuclei = table[list(chosen.values())].set_axis(list(chosen), axis=1)
    if len(fields) == len(FIELD_KEYS):
        return nuclei
    known = _fields_of(nuclei, screen, source=path.name)
    return pd.concat([nuclei[list(wanted)], known], axis=1)


def _site_folders(folder: Path, screen: Screen, skip_missing: bool) -> tuple[pd.DataFrame, dict[str, int]]:
    """The nuclei of every folder with Nuclei.csv and Image.csv, and the count of those without any."""
    tables = [path for path in sorted(folder.rglob(f"{OBJECT}.csv")) if not in_hidden(path.relative_to(folder))]
    if not tables:
        raise InputError(
            f"{folder}: no folder in it holds {OBJECT}.csv; give a table, or the folder of CellProfiler's output"
        )

    def nuclei_of(path: Path) -> pd.DataFrame:
        images = _beside(path.parent, "Image.csv")
        if images is None:
            raise InputError(f"{path.parent}: {OBJECT}.csv without Image.csv next to it; add it")
        _refuse_empty(images)
        raw = read_csv(path, columns=CENTRE_COLUMNS, text=PLATE_COLUMNS)
        return _with_image_table(raw, images, screen)

    return _from_many(tables, nuclei_of, folder, skip_missing=skip_missing)


def _locations(folder: Path, skip_missing: bool) -> tuple[pd.DataFrame, dict[str, int]]:
    """DeepProfiler's `<plate>/<well>-<site>-Nuclei.csv`; an object's number is its row, from 1."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected locations/<plate>/<well>-<site>-{OBJECT}.csv")
    files = [path for path in sorted(folder.glob("*/*.csv")) if not in_hidden(path.relative_to(folder))]
    matched = {path: match for path in files if (match := LOCATION.match(path.name))}
    if not matched:
        raise InputError(
            f"{folder}: no file <plate>/<well>-<site>-{OBJECT}.csv (there are {len(files)} other CSV files)"
        )

    def nuclei_of(path: Path) -> pd.DataFrame:
        raw = read_csv(path, columns=())
        raw = raw.assign(ObjectNumber=range(1, len(raw) + 1))
        wanted = _centre_columns(raw.columns, source=f"{path.parent.name}/{path.name}")
        nuclei = raw[[wanted[name] for name in CENTRE_COLUMNS]].set_axis(list(CENTRE_COLUMNS), axis=1)
        place = dict(zip(FIELD_KEYS, (path.parent.name, matched[path]["well"], matched[path]["site"])))
        return nuclei.assign(**place)

    return _from_many(list(matched), nuclei_of, folder, skip_missing=skip_missing)


def _from_many(
    tables: list[Path], nuclei_of: Callable[[Path], pd.DataFrame], folder: Path, *, skip_missing: bool
) -> tuple[pd.DataFrame, dict[str, int]]:
    """The nuclei of many tables, and the count of those without any; without skip_missing these are refused."""
    parts, n_empty = [], 0
    for path in track(tables, "Tables of centres read", total=len(tables)):
        try:
            _refuse_empty(path)
            nuclei = nuclei_of(path)
        except InputError as error:
            if not skip_missing:
                raise InputError(f"{error}, or run with --skip-missing to leave such sites out") from None
            n_empty += 1
        else:
            for name in CENTRE_COLUMNS:
                numbers(nuclei, name, source=str(path))  # while the file is known
            parts.append(nuclei[[*FIELD_KEYS, *CENTRE_COLUMNS]])
    if not parts:
        raise InputError(f"{folder}: no site has a centre; give the folder of the segmentation's output")
    return pd.concat(parts, ignore_index=True), {EMPTY: n_empty}


def _refuse_empty(path: Path) -> None:
    if path.stat().st_size == 0:
        raise InputError(f"{path}: an empty file of 0 bytes; replace it")
