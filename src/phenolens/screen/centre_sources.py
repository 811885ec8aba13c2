"""Read nucleus centres from what people hold: CellProfiler's CSV and SQLite, CytoTable's Parquet, DeepProfiler's files.

A column may have the object's name, `Image_` or `Metadata_` before its own (`Nuclei_Location_Center_X`,
`Image_Metadata_Plate`, `Metadata_ImageNumber`), and `_x` or `_y` behind it where tables were joined.
"""

import re
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from phenolens.errors import InputError
from phenolens.progress import track
from phenolens.screen.centres import CENTRE_COLUMNS, PLATE_COLUMNS, joined_centres, read_centres
from phenolens.screen.csv_table import numbers, read_csv
from phenolens.screen.image_reference import file_on_disk
from phenolens.screen.table import FIELD, Screen

OBJECT = "Nuclei"
SQLITE = (".sqlite", ".sqlite3", ".db")
IMAGE_KEYS = ("TableNumber", "ImageNumber")
FIELD_KEYS = ("Metadata_Plate", "Metadata_Well", "Metadata_Site")
LOCATION = re.compile(rf"^(?P<well>[A-Za-z]{{1,2}}\d+)-(?P<site>.+)-{OBJECT}\.csv$")
EMPTY = "site folders or files without centres"


def centres_from(path: Path, screen: Screen, *, skip_missing: bool = False) -> tuple[pd.DataFrame, dict[str, int]]:
    """The table of read_centres, from whatever `path` is, and counts of what was left out.

    A CSV with the keys of read_centres; a CSV with ImageNumber alone and Image.csv beside it; a folder of such folders,
    one a site; CellProfiler's SQLite; a Parquet of CytoTable; DeepProfiler's folder of `locations`. Where the images'
    table has no plate, well and site, its file names say which field it is. A table of 0 bytes, or of a header alone,
    in a folder of many is refused by name; with `skip_missing` it is left out and counted. Raises InputError as
    read_centres does.
    """
    path = Path(path)
    if path.is_dir() and ((path / "locations").is_dir() or path.name == "locations"):
        nuclei, n_empty = _locations(path if path.name == "locations" else path / "locations", screen, skip_missing)
        return _joined(nuclei, screen, source=str(path)), _counted(n_empty)
    if path.is_dir():
        nuclei, n_empty = _site_folders(path, screen, skip_missing)
        return _joined(nuclei, screen, source=str(path)), _counted(n_empty)
    if path.suffix.lower() in SQLITE:
        return _joined(_sqlite(path, screen), screen, source=path.name), {}
    if path.suffix.lower() == ".parquet":
        return _joined(_parquet(path, screen), screen, source=path.name), {}
    images = _beside(path.parent, "Image.csv") if path.is_file() else None
    if images is not None:
        raw = read_csv(path, columns=CENTRE_COLUMNS, text=PLATE_COLUMNS)
        if not _says_the_field(raw, screen):
            return _joined(_with_image_table(raw, images, screen), screen, source=path.name), {}
    return read_centres(path, screen), {}


def _joined(nuclei: pd.DataFrame, screen: Screen, source: str) -> pd.DataFrame:
    return joined_centres(nuclei, dict(zip(FIELD_KEYS, FIELD)), screen, source=source)


def _counted(n_empty: int) -> dict[str, int]:
    return {EMPTY: n_empty} if n_empty else {}


def _says_the_field(raw: pd.DataFrame, screen: Screen) -> bool:
    """Whether read_centres can join it as it is."""
    has_numbers = set(IMAGE_KEYS) <= set(raw.columns) and {"table_number", "image_number"} <= set(screen.table.columns)
    return has_numbers or set(FIELD_KEYS) <= set(raw.columns) or set(FIELD) <= set(raw.columns)


def _beside(folder: Path, name: str) -> Path | None:
    """The file of that name in a folder, whatever its case."""
    return next((path for path in sorted(folder.iterdir()) if path.name.lower() == name.lower()), None)


def _with_image_table(nuclei: pd.DataFrame, images: Path, screen: Screen) -> pd.DataFrame:
    return _with_fields(
        nuclei, read_csv(images, columns=["ImageNumber"], text=PLATE_COLUMNS), screen, source=images.name
    )


def _with_fields(nuclei: pd.DataFrame, images: pd.DataFrame, screen: Screen, *, source: str) -> pd.DataFrame:
    """The nuclei with the field of their image, by ImageNumber (and TableNumber where both have it)."""
    keys = [key for key in IMAGE_KEYS if key in nuclei and key in images]
    fields = _fields_of(images, screen, source=source)
    table = pd.concat([images[keys], fields], axis=1)
    twice = table.duplicated(keys)
    if twice.any():
        row = table[twice].iloc[0]
        raise InputError(
            f"{source}: {', '.join(f'{key} {row[key]}' for key in keys)} stands there twice ({int(twice.sum())} such "
            "rows); expected one row an image"
        )
    joined = nuclei[[*keys, *CENTRE_COLUMNS]].merge(table, on=keys, how="left", indicator="found")
    lost = joined["found"] == "left_only"
    if lost.any():
        row = joined[lost].iloc[0]
        raise InputError(
            f"{source}: no row for {', '.join(f'{key} {row[key]}' for key in keys)}, of {int(lost.sum()):,} nuclei; "
            f"bring "
            "the table of images that belongs to the nuclei"
        )
    return joined[joined["Metadata_Plate"].notna()].drop(columns="found")


def _fields_of(images: pd.DataFrame, screen: Screen, *, source: str) -> pd.DataFrame:
    """Plate, well and site of each image: as it says, or as its files' names say; empty for another screen's images."""
    said = _columns(images, {key: ("Image_", "Metadata_", "") for key in FIELD_KEYS})
    if len(said) == len(FIELD_KEYS):
        return images[list(said.values())].set_axis(list(FIELD_KEYS), axis=1)
    for channel in screen.channels:
        column = _columns(images, {f"FileName_{channel}": ("Image_", "")}).get(f"FileName_{channel}")
        if column is None or f"file_{channel}" not in screen.table:
            continue
        names = screen.table[f"file_{channel}"].map(lambda text: file_on_disk(text).name)
        if names.is_unique:
            by_name = screen.table[FIELD].set_index(names).rename(columns=dict(zip(FIELD, FIELD_KEYS)))
            return by_name.reindex(images[column]).reset_index(drop=True).set_axis(images.index)
    raise InputError(
        f"{source}: does not say which field an image is of: expected {', '.join(FIELD_KEYS)}, or FileName_<channel> "
        f"with "
        "the names of the screen's files, each once"
    )


def _columns(table: pd.DataFrame | Iterable[str], wanted: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """For each wanted name the column that has it behind one of its prefixes, perhaps with _x or _y at the end."""
    names = list(table.columns if isinstance(table, pd.DataFrame) else table)
    found = {}
    for name, prefixes in wanted.items():
        candidates = [f"{prefix}{name}{end}" for prefix in prefixes for end in ("", "_x", "_y")]
        match = next((candidate for candidate in candidates if candidate in names), None)
        if match is not None:
            found[name] = match
    return found


def _centre_columns(names: Iterable[str], *, source: str) -> dict[str, str]:
    """The columns of a nucleus's number and centre; InputError where one is not there."""
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
            names = [
                row[0] for row in database.execute("select name from sqlite_master where type in ('table', 'view')")
            ]
            image_table = _table(names, ("Per_Image", "Image"), path)
            object_table = _table(names, (f"Per_{OBJECT}", OBJECT, "Per_Object"), path)
            columns = _sqlite_columns(database, object_table)
            wanted = _centre_columns(columns, source=f"{path.name}, {object_table}")
            keys = {key: key for key in IMAGE_KEYS if key in columns}
            nuclei = _selected(database, object_table, {**keys, **wanted})
            # not the hundreds of measurements of an image
            said = [
                name for name in _sqlite_columns(database, image_table) if re.search(r"Number|Metadata|FileName", name)
            ]
            images = _selected(database, image_table, {name: name for name in said})
    except sqlite3.Error as error:
        raise InputError(f"{path}: not a whole SQLite database ({error}); replace it") from error
    return _with_fields(nuclei, images, screen, source=f"{path.name}, {image_table}")


def _table(names: list[str], wanted: tuple[str, ...], path: Path) -> str:
    for name in wanted:
        if name in names:
            return name
    raise InputError(f"{path}: no table {' or '.join(wanted)} (there are: {', '.join(names) or 'none'})")


def _sqlite_columns(database: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in database.execute(f'pragma table_info("{table}")')]


def _selected(database: sqlite3.Connection, table: str, columns: dict[str, str]) -> pd.DataFrame:
    """These columns alone (our name: theirs); a database of many gigabytes is never held."""
    names = ", ".join(f'"{name}"' for name in columns.values())
    rows = database.execute(f'select {names} from "{table}"').fetchall()
    return pd.DataFrame(rows, columns=list(columns))


def _parquet(path: Path, screen: Screen) -> pd.DataFrame:
    try:
        names = pq.read_schema(path).names
        wanted = _centre_columns(names, source=path.name)
        fields = _columns(names, {key: ("Image_", "Metadata_", "") for key in FIELD_KEYS})
        numbers = _columns(names, {key: ("Metadata_", "Image_", "") for key in IMAGE_KEYS})
        files = {name: name for name in names if re.match(r"^(Image_)?FileName_", name)}
        chosen = {**wanted, **fields} if len(fields) == len(FIELD_KEYS) else {**wanted, **numbers, **files}
        table = pq.read_table(path, columns=list(chosen.values())).to_pandas()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; expected a Parquet of CytoTable") from error
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: not a whole Parquet ({' '.join(str(error).split())}); replace it") from error
    nuclei = table[list(chosen.values())].set_axis(list(chosen), axis=1)
    if len(fields) == len(FIELD_KEYS):
        return nuclei
    known = _fields_of(nuclei, screen, source=path.name)
    both = pd.concat([nuclei[list(wanted)], known], axis=1)
    return both[both["Metadata_Plate"].notna()]


def _site_folders(folder: Path, screen: Screen, skip_missing: bool) -> tuple[pd.DataFrame, int]:
    """The nuclei of every folder with Nuclei.csv and Image.csv, and how many of them hold none."""
    sites = sorted(path.parent for path in folder.rglob(f"{OBJECT}.csv"))
    if not sites:
        raise InputError(
            f"{folder}: no folder in it holds {OBJECT}.csv; give a table, or the folder of CellProfiler's output"
        )
    parts, n_empty = [], 0
    for site in track(sites, "Folders of centres read", total=len(sites)):
        images = _beside(site, "Image.csv")
        try:
            if images is None:
                raise InputError(f"{site}: {OBJECT}.csv without Image.csv beside it; bring it")
            for table in (site / f"{OBJECT}.csv", images):
                if table.stat().st_size == 0:
                    raise InputError(f"{table}: an empty file of 0 bytes; replace it")
            parts.append(
                _with_image_table(
                    read_csv(site / f"{OBJECT}.csv", columns=CENTRE_COLUMNS, text=PLATE_COLUMNS), images, screen
                )
            )
        except InputError as error:
            if not skip_missing:
                raise InputError(f"{error}, or run with --skip-missing to leave such sites out") from None
            n_empty += 1
    return _together(parts, folder), n_empty


def _locations(folder: Path, screen: Screen, skip_missing: bool) -> tuple[pd.DataFrame, int]:
    """DeepProfiler's `<plate>/<well>-<site>-Nuclei.csv`; an object's number is its row, from 1."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected locations/<plate>/<well>-<site>-{OBJECT}.csv")
    files = [(path, LOCATION.match(path.name)) for path in sorted(folder.glob("*/*.csv"))]
    matched = [(path, match) for path, match in files if match]
    if not matched:
        raise InputError(
            f"{folder}: no file <plate>/<well>-<site>-{OBJECT}.csv (there are {len(files)} other CSV files)"
        )
    parts, n_empty = [], 0
    for path, match in track(matched, "Locations read", total=len(matched)):
        try:
            if path.stat().st_size == 0:
                raise InputError(f"{path}: an empty file of 0 bytes; replace it")
            raw = read_csv(path, columns=())
            raw = raw.assign(ObjectNumber=range(1, len(raw) + 1))
            wanted = _centre_columns(raw.columns, source=f"{path.parent.name}/{path.name}")
            nuclei = raw[[wanted[name] for name in CENTRE_COLUMNS]].set_axis(list(CENTRE_COLUMNS), axis=1)
            place = dict(zip(FIELD_KEYS, (path.parent.name, match["well"], match["site"])))
        except InputError as error:
            if not skip_missing:
                raise InputError(f"{error}, or run with --skip-missing to leave such sites out") from None
            n_empty += 1
        else:
            for name in CENTRE_COLUMNS:
                numbers(nuclei, name, source=str(path))  # said here, where the file is known
            parts.append(nuclei.assign(**place))
    return _together(parts, folder), n_empty


def _together(parts: list[pd.DataFrame], folder: Path) -> pd.DataFrame:
    if not parts:
        raise InputError(f"{folder}: no site has a centre; give the folder of the segmentation's output")
    return pd.concat([part[[*FIELD_KEYS, *CENTRE_COLUMNS]] for part in parts], ignore_index=True)
