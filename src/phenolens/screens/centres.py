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

from phenolens.core.errors import InputError
from phenolens.core.names import clean_names, shortened
from phenolens.core.progress import tell, track
from phenolens.screens.csv_table import column_names, numbers, read_csv, refuse_repeated
from phenolens.screens.file_listing import in_hidden, without_hidden
from phenolens.screens.image_reference import file_on_disk
from phenolens.screens.screen import FIELD, Screen, where_of
from phenolens.screens.well_names import well_names

NUCLEI_TABLE = "Nuclei.csv"  # in a source folder
KIND = r"\.(?:csv|tsv|txt|parquet|xlsx)(?:\.gz)?"
NUMBER_KEYS = {"TableNumber": "table_number", "ImageNumber": "image_number"}
CENTRE_COLUMNS = {"ObjectNumber": "object_number", "Location_Center_Y": "y", "Location_Center_X": "x"}
SQLITE = (".sqlite", ".sqlite3", ".db")
FIELD_KEYS = ("Metadata_Plate", "Metadata_Well", "Metadata_Site")
IMAGE_COLUMN = re.compile(r"Number|Metadata|FileName")
EMPTY = "site folders or files without centres"
PLATE = re.compile(r"plate(?:_[xy])?$", re.IGNORECASE)
OF_FILES = re.compile(r"^(?:Image_)?FileName_")
MOST_NAMED = 8
MOST_COLUMNS = 20  # that are not read; a table of more has measurements


def read_centres(
    path: Path, screen: Screen, *, objects: str = "Nuclei", skip_missing: bool = False
) -> tuple[pd.DataFrame, dict[str, int]]:
    """One row per nucleus in the screen's fields, and counts of what was left out.

    Args:
        path: A table that names the field of each nucleus by `TableNumber` and `ImageNumber` (the screen must have
            them, as BBBC021 does), by `Metadata_Plate`, `Metadata_Well` and `Metadata_Site` or by `plate`, `well` and
            `site`; a table with ImageNumber alone and Image.csv next to it (both perhaps behind a prefix); a folder of
            such folders, one per site; CellProfiler's SQLite; a Parquet of CytoTable; DeepProfiler's folder of
            `locations`. Where the images' table has no plate, well and site, its file names say which field it is.
        screen: Nuclei in fields that are not selected are left out.
        objects: CellProfiler's name of the objects, which begins names of files, tables and columns.
        skip_missing: Leave out, and count, nuclei without a centre or in no field of the screen, and a table of 0
            bytes or of a header alone in a folder of many.

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
        if locations.is_dir():
            nuclei, counts = _locations(locations, objects, skip_missing)
        else:
            nuclei, counts = _site_folders(path, screen, objects, skip_missing)
    elif path.suffix.lower() in SQLITE:
        nuclei = _sqlite(path, screen, objects)
    else:
        nuclei = _table(path, screen, objects)
        _tell_unread(path, objects)
    if skip_missing:
        is_empty = nuclei[list(CENTRE_COLUMNS)].isna().any(axis=1)
        nuclei, counts = nuclei[~is_empty], counts | {"nuclei without a centre": int(is_empty.sum())}
    source = str(path) if path.is_dir() else path.name
    centres, n_lost = _in_fields(nuclei, screen, source=source, skip_missing=skip_missing)
    counts |= {"nuclei in no field of the screen": n_lost}
    return centres, {what: n for what, n in counts.items() if n}


def nuclei_listed_twice(centres: pd.DataFrame) -> list[str]:
    """A note on nuclei whose centre is in the pixel of another's in their field, such as those of a table in twice."""
    pixels = centres[["y", "x"]].round()
    repeated = pd.concat([centres[FIELD], pixels], axis=1).duplicated()
    if not repeated.any():
        return []
    first = centres.loc[repeated].iloc[0]
    return [
        f"{int(repeated.sum()):,} of {len(centres):,} nuclei have their centre in the pixel of another; the first: "
        f"{where_of(first)}, object {first['object_number']}; remove them from the table if they are listed twice"
    ]


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
    if "site" in names:
        _refuse_sites_from_0(nuclei, known, nuclei.loc[is_lost, ["plate", "well"]].drop_duplicates(), found)
    if not skip_missing or n_lost == len(nuclei) + n_without:
        raise InputError(f"{found}; correct the table{'' if skip_missing else ', or run with --skip-missing'}")
    return n_lost


def _refuse_sites_from_0(nuclei: pd.DataFrame, known: pd.DataFrame, wells: pd.DataFrame, found: str) -> None:
    """InputError for one of these wells whose nuclei count sites from 0 and its images from 1, or the reverse."""
    keys = ["plate", "well"]
    of_images = known.groupby(keys)["site"].agg(set)
    for well, theirs in nuclei.merge(wells).groupby(keys)["site"].agg(set).items():
        ours = of_images.get(well, set())
        if ours and (0 in theirs - ours or (0 in ours - theirs and max(theirs) > max(ours))):
            raise InputError(
                f"{found}; in {' '.join(map(str, well))} its sites are {min(theirs)} to {max(theirs)}, those of the "  # type: ignore[call-overload]
                f"images {min(ours)} to {max(ours)}: count both from the same number"
            )


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


def _table(path: Path, screen: Screen, objects: str) -> pd.DataFrame:
    """The nuclei of one table, with what names their field: columns of its own, or of the table of images beside it."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a table with the columns {', '.join(CENTRE_COLUMNS)}")
    names = column_names(path)
    chosen = _read_columns(names, objects, source=path.name)
    text = [name for name in names if PLATE.search(name)]  # plate 007 is not 7
    raw = read_csv(path, columns=set(chosen.values()), text=text, only=set(chosen.values()))
    nuclei = raw[list(chosen.values())].set_axis(list(chosen), axis=1)
    if _keys(nuclei, screen):
        return nuclei
    images = _images_beside(path, objects)
    if images is not None:
        _refuse_empty(images)
        return _with_fields(nuclei, _image_table(images), screen, source=images.name)
    if any(OF_FILES.match(name) for name in names):
        return pd.concat([nuclei[list(CENTRE_COLUMNS)], _fields_of(nuclei, screen, source=path.name)], axis=1)
    return nuclei


def _read_columns(names: list[str], objects: str, *, source: str) -> dict[str, str]:
    """The columns of a table of nuclei that are read: our name -> theirs."""
    chosen = _centre_columns(names, objects, source=source)
    chosen |= {name: name for name in FIELD if name in names}
    chosen |= _columns(names, {key: ("Image_", "Metadata_", "") for key in (*FIELD_KEYS, *NUMBER_KEYS)})
    return chosen | {name: name for name in names if OF_FILES.match(name)}


def _tell_unread(path: Path, objects: str) -> None:
    """A note on the columns that are not read; of a table of many columns, measurements are not named."""
    names = column_names(path)
    read = set(_read_columns(names, objects, source=path.name).values())
    unread = [name for name in names if name and name not in read]
    if len(unread) > MOST_COLUMNS:
        unread = [name for name in unread if "Metadata_" in name]
    if unread:
        tell(f"note: columns of {path.name} that are not read: {shortened(unread)}")


def _image_table(path: Path) -> pd.DataFrame:
    names = column_names(path)
    chosen = {name: name for name in names if IMAGE_COLUMN.search(name)}
    chosen |= {theirs: ours for ours, theirs in _columns(names, {key: ("Image_", "") for key in NUMBER_KEYS}).items()}
    text = [name for name in names if PLATE.search(name)]
    raw = read_csv(path, text=text, only=set(chosen)).rename(columns=chosen)
    if "ImageNumber" not in raw:
        raise InputError(f"{path}: no column ImageNumber (found: {', '.join(names[:12])})")
    return raw


def nuclei_tables(folder: Path, objects: str) -> list[Path]:
    """CellProfiler's tables of these objects in a folder, such as Nuclei.csv and MyExpt_Nuclei.csv."""
    named = re.compile(rf"(?:.+_)?{re.escape(objects)}{KIND}", re.IGNORECASE)
    return [path for path in without_hidden(folder.iterdir()) if named.fullmatch(path.name) and path.is_file()]


def _images_beside(path: Path, objects: str) -> Path | None:
    """The table of images beside a table of objects, of the same prefix: MyExpt_Image.csv of MyExpt_Nuclei.csv."""
    match = re.fullmatch(rf"(.*?){re.escape(objects)}{KIND}", path.name, re.IGNORECASE)
    named = re.compile(rf"{re.escape(match[1] if match else '')}Image{KIND}", re.IGNORECASE)
    return next((other for other in sorted(path.parent.iterdir()) if named.fullmatch(other.name)), None)


def _with_fields(nuclei: pd.DataFrame, images: pd.DataFrame, screen: Screen, *, source: str) -> pd.DataFrame:
    """The nuclei with the field of their image, by ImageNumber (and TableNumber where both have it)."""
    keys = [key for key in NUMBER_KEYS if key in nuclei and key in images]
    if "TableNumber" in nuclei and "TableNumber" not in images and nuclei["TableNumber"].nunique() > 1:
        raise InputError(f"{source}: no column TableNumber, and the nuclei have several; add the table of all images")
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


def _columns(table: Iterable[object], wanted: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """Wanted name -> the column, of a table or of names, with one of its prefixes before it, and _x or _y after it."""
    names, found = set(table), {}
    for name, prefixes in wanted.items():
        candidates = [f"{prefix}{name}{end}" for prefix in prefixes for end in ("", "_x", "_y")]
        match = next((candidate for candidate in candidates if candidate in names), None)
        if match is not None:
            found[name] = match
    return found


def _centre_columns(names: Iterable[str], objects: str, *, source: str) -> dict[str, str]:
    """The columns of a nucleus's number and centre; InputError where one is missing."""
    before = (f"{objects}_", f"Metadata_{objects}_", "")
    number, *place = CENTRE_COLUMNS
    found = _columns(names, dict.fromkeys(place, before))
    numbered = _columns(names, {number: (*before, "Metadata_"), "Number_Object_Number": before})
    if numbered:
        found[number] = next(iter(numbered.values()))
    lacking = [name for name in (*place, number) if name not in found]
    if lacking:
        raise InputError(
            f"{source}: no column {lacking[0]} (or {objects}_{lacking[0]}); give a table of nuclei, and CellProfiler's "
            "name of the objects with --objects"
        )
    return found


def _sqlite(path: Path, screen: Screen, objects: str) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected CellProfiler's SQLite")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            listed = pd.read_sql_query("select name from sqlite_master where type in ('table', 'view')", database)
            names = list(listed["name"])
            image_table = _table_named(names, ("Per_Image", "Image"), path)
            object_table = _table_named(names, (f"Per_{objects}", objects, "Per_Object"), path)
            columns = _sqlite_columns(database, object_table)
            wanted = _centre_columns(columns, objects, source=f"{path.name}, {object_table}")
            keys = {key: key for key in NUMBER_KEYS if key in columns}
            nuclei = _selected(database, object_table, {**keys, **wanted})
            # not the hundreds of measurements of an image
            of_images = [name for name in _sqlite_columns(database, image_table) if IMAGE_COLUMN.search(name)]
            images = _selected(database, image_table, {name: name for name in of_images})
    except (sqlite3.Error, pd.errors.DatabaseError) as error:
        raise InputError(f"{path}: not a complete SQLite database ({error}); replace it") from error
    return _with_fields(nuclei, images, screen, source=f"{path.name}, {image_table}")


def _table_named(names: list[str], wanted: tuple[str, ...], path: Path) -> str:
    """The table of a database with one of these names, perhaps behind a prefix (MyExpt_Per_Image)."""
    for name in wanted:
        found = [table for table in names if table == name] or [table for table in names if table.endswith(f"_{name}")]
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError(
                f"{path}: {', '.join(found)} are all tables {name}; expected one, in a database of one run"
            )
    raise InputError(
        f"{path}: no table {' or '.join(wanted)} (there are: {', '.join(names) or 'none'}); name the objects with "
        "--objects"
    )


def _sqlite_columns(database: sqlite3.Connection, table: str) -> list[str]:
    return list(pd.read_sql_query(f'select * from "{table}" limit 0', database).columns)


def _selected(database: sqlite3.Connection, table: str, columns: dict[str, str]) -> pd.DataFrame:
    """These columns alone (our name: theirs), so that a database of many gigabytes is never in memory."""
    names = ", ".join(f'"{name}"' for name in columns.values())
    return pd.read_sql_query(f'select {names} from "{table}"', database).set_axis(list(columns), axis=1)


def _site_folders(
    folder: Path, screen: Screen, objects: str, skip_missing: bool
) -> tuple[pd.DataFrame, dict[str, int]]:
    """The nuclei of every folder with a table of objects and one of images, and the count of those without any."""
    folders = [folder, *sorted(path for path in folder.rglob("*") if path.is_dir())]
    found = [table for each in folders for table in nuclei_tables(each, objects)]
    tables = [path for path in found if not in_hidden(path.relative_to(folder))]
    if not tables:
        others = [path.name for path in sorted(folder.rglob("*.csv"))[:MOST_NAMED]]
        raise InputError(
            f"{folder}: no folder in it holds {objects}.csv (there are: {', '.join(others) or 'no tables'}); give the "
            "folder of CellProfiler's output, and the name of the objects with --objects"
        )

    def nuclei_of(path: Path) -> pd.DataFrame:
        if _images_beside(path, objects) is None:
            raise InputError(f"{path.parent}: {path.name} without its Image.csv next to it; add it")
        return _table(path, screen, objects)

    return _from_many(tables, nuclei_of, folder, skip_missing=skip_missing)


def _locations(folder: Path, objects: str, skip_missing: bool) -> tuple[pd.DataFrame, dict[str, int]]:
    """DeepProfiler's `<plate>/<well>-<site>-Nuclei.csv`; an object's number is its row, from 1."""
    location = re.compile(rf"(?P<well>[A-Za-z]{{1,2}}\d+)-(?P<site>.+)-{re.escape(objects)}\.csv")
    files = [path for path in sorted(folder.glob("*/*.csv")) if not in_hidden(path.relative_to(folder))]
    matched = {path: match for path in files if (match := location.fullmatch(path.name))}
    if not matched:
        raise InputError(
            f"{folder}: no file <plate>/<well>-<site>-{objects}.csv (there are {len(files)} other CSV files)"
        )

    def nuclei_of(path: Path) -> pd.DataFrame:
        raw = read_csv(path)
        raw = raw.assign(ObjectNumber=range(1, len(raw) + 1))
        wanted = _centre_columns(raw.columns, objects, source=f"{path.parent.name}/{path.name}")
        nuclei = raw[[wanted[name] for name in CENTRE_COLUMNS]].set_axis(list(CENTRE_COLUMNS), axis=1)
        place = dict(zip(FIELD_KEYS, (path.parent.name, matched[path]["well"], matched[path]["site"])))
        return nuclei.assign(**place)

    nuclei, counts = _from_many(list(matched), nuclei_of, folder, skip_missing=skip_missing)
    return nuclei, counts | {"files in locations that name no field": len(files) - len(matched)}


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
            located = nuclei.dropna(subset=list(CENTRE_COLUMNS)) if skip_missing else nuclei
            for name in CENTRE_COLUMNS:
                numbers(located, name, source=str(path))  # while the file is known
            parts.append(nuclei[[*(key for key in (*FIELD_KEYS, *FIELD) if key in nuclei), *CENTRE_COLUMNS]])
    if not parts:
        raise InputError(f"{folder}: no site has a centre; give the folder of the segmentation's output")
    return pd.concat(parts, ignore_index=True), {EMPTY: n_empty}


def _refuse_empty(path: Path) -> None:
    if path.stat().st_size == 0:
        raise InputError(f"{path}: an empty file of 0 bytes; replace it")
