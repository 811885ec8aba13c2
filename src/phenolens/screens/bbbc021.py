"""Read BBBC021: two tables and a folder of TIFF fields for each plate, as downloaded; or its public set of crops.

A simulated screen has the same layout as the download. Ljosa et al. 2012; the roles of the wells are those of Ljosa et
al. 2013. The crop set has a folder for each field, an `.npy` for each cell (S x S x C pixels) and `metadata.csv`.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from phenolens.core.errors import InputError
from phenolens.core.files import sha256
from phenolens.core.keywords import keyword_settings
from phenolens.core.names import clean_names
from phenolens.screens.config import LayoutConfig
from phenolens.screens.csv_table import numbers, read_csv, refuse_rows
from phenolens.screens.file_listing import is_hidden, is_thumbnail
from phenolens.screens.image_files import missing_line, with_files
from phenolens.screens.remote import local_copy
from phenolens.screens.screen import (
    FIELD,
    LABELLED,
    FinishedCrops,
    Screen,
    Selection,
    UInt16Array,
    checked_screen,
    treatment_name,
)
from phenolens.screens.unread_columns import UNREAD, unread_notes
from phenolens.screens.well_names import well_names

SIMULATION_FILE = "simulation.json"  # in the folder of a simulated screen: its settings
IMAGE_TABLE = "BBBC021_v1_image.csv"
LABEL_TABLE = "BBBC021_v1_moa.csv"
CHANNELS = {"DNA": "DAPI", "tubulin": "Tubulin", "actin": "Actin"}  # our name: the word in the column names
PIXEL_UM = 0.496296  # MetaMorph's XCalibration in the TIFFs of plate Week2_24381
CONTROL = "DMSO"
POSITIVE_CONTROL = ("taxol", 0.3)
POSITIVE_CONTROL_WELLS = ("E02", "F02", "G02", "B11", "C11", "D11")  # on every plate

FIELD_COLUMNS = {
    "Image_Metadata_Plate_DAPI": "plate",
    "Image_Metadata_Well_DAPI": "well",
    "Image_Metadata_Compound": "compound",
    "Image_Metadata_Concentration": "concentration_um",
}
NUMBER_COLUMNS = {"TableNumber": "table_number", "ImageNumber": "image_number"}
FILE_COLUMNS = tuple(f"Image_FileName_{word}" for word in CHANNELS.values())
PATH_COLUMNS = tuple(f"Image_PathName_{word}" for word in CHANNELS.values())
IMAGE_COLUMNS = (*NUMBER_COLUMNS, *FIELD_COLUMNS, *FILE_COLUMNS, *PATH_COLUMNS)
KNOWN_COLUMNS = {*IMAGE_COLUMNS, "Replicate"}  # the download's; nothing is read from the last
LABEL_COLUMNS = {"compound": "compound", "concentration": "concentration_um", "moa": "moa"}

# Week4 has no prefix, Week7 partly `Week7_7__`; the text before the well does not identify the plate.
FIELD_IN_FILE_NAME = re.compile(r"(?:^|_)([A-Z]\d{2})_s(\d+)_w\d", re.IGNORECASE)
PLATE_FOLDER, WEEK_FOLDER = re.compile(r"Week\d+_\d+"), re.compile(r"Week\d+")
PLATE = re.compile(r"^(Week\d+)_\w+$")

CROP_TABLE = "metadata.csv"
CROPS_FOLDER = "singh_cp_pipeline_singlecell_images"
CHANNELS_ON_DISK = ("DNA", "actin", "tubulin")  # the last axis of each .npy; not the order of the columns
CELL_COLUMNS = {
    "Multi_Cell_Image_Name": "folder",
    "Single_Cell_Image_Name": "name",
    "Single_Cell_Image_Id": "object_number",
    "moa": "moa",
}


@keyword_settings
def read_bbbc021(tables: Path, *, images: Path | None = None, selection: Selection = LABELLED) -> Screen:
    """The screen that BBBC021's image table and label table describe.

    Args:
        tables: Folder of both tables (each may end in .gz).
        images: Folder of the plates' folders, as unpacked (`Week1_22123`) or as the table has them
            (`Week1/Week1_22123`); without it the screen has no files.
        selection: The part to take. `skip_missing` leaves out, and counts in `left_out`, labelled treatments without a
            well, fields without an image of each channel and images that the table does not name.

    Returns:
        A screen whose table also has `table_number` and `image_number`, the field's key in CellProfiler's tables.

    Raises:
        InputError: A table is missing, lacks a column or contradicts itself; or, without `skip_missing`, what that
            would leave out.
    """
    image_path, label_path = _table_path(Path(tables), IMAGE_TABLE), _table_path(Path(tables), LABEL_TABLE)
    raw = read_csv(image_path, columns=IMAGE_COLUMNS)
    fields = _fields(raw, source=image_path.name)
    fields["role"] = roles(fields)
    others = {f"{UNREAD}{image_path.name}: {name}": clean_names(raw[name]) for name in raw if name not in KNOWN_COLUMNS}
    notes = unread_notes(fields.assign(**others), list(others))
    fields, n_unseen = _with_mechanism(
        fields, _labels(label_path), source=label_path.name, skip_missing=selection.skip_missing
    )
    sources = {path.name: sha256(path) for path in (image_path, label_path)}
    whole = checked_screen(
        fields,
        channels=tuple(CHANNELS),
        folder=images or tables,
        source=image_path.name,
        sources=sources,
        notes=notes,
    )
    whole = whole.leaving_out({"labelled treatments that no well has": n_unseen})
    chosen = selection.of(whole)
    if images is None:
        return replace(chosen, table=chosen.table.drop(columns=[f"file_{channel}" for channel in CHANNELS]))
    return _with_images(chosen, whole, skip_missing=selection.skip_missing)


def roles(fields: pd.DataFrame) -> pd.Series:
    """Each row's role: DMSO is the control, taxol 0.3 in the positive-control wells is other, the rest is treated."""
    compound, concentration_um = POSITIVE_CONTROL
    is_positive = (
        (fields["compound"] == compound)
        & (fields["concentration_um"].map(_dose) == _dose(concentration_um))
        & fields["well"].isin(POSITIVE_CONTROL_WELLS)
    )
    role = pd.Series("treated", index=fields.index, dtype=object)
    return role.mask(is_positive, "other").mask(fields["compound"] == CONTROL, "control")


def named_fields(raw: pd.DataFrame, *, source: str) -> pd.DataFrame:
    """Plate, well, site, batch, compound and concentration of each row of a table with FIELD_COLUMNS and FILE_COLUMNS.

    Well and site are in the file names too, on which all channels must agree; the batch is the plate's week, not
    TableNumber (0 in Week10). Raises InputError for a row that contradicts itself.
    """
    fields = raw[list(FIELD_COLUMNS)].rename(columns=FIELD_COLUMNS)
    fields["concentration_um"] = numbers(raw, "Image_Metadata_Concentration", source=source)
    fields["well"] = fields["well"].map(well_names(fields["well"], source=source))
    fields["plate"], fields["compound"] = clean_names(fields["plate"]), clean_names(fields["compound"])
    fields["batch"] = fields["plate"].map({plate: batch_of(plate, source=source) for plate in fields["plate"].unique()})
    places = {channel: _places(raw[f"Image_FileName_{word}"], source=source) for channel, word in CHANNELS.items()}
    fields["site"] = places["DNA"]["site"]
    for channel, place in places.items():
        wrong = (place["well"] != fields["well"]) | (place["site"] != fields["site"])
        names = raw[f"Image_FileName_{CHANNELS[channel]}"]
        refuse_rows(wrong, names, expected="a file of the well and site of the row's other columns", source=source)
    return fields


def batch_of(plate: str, *, source: str) -> str:
    """`Week10` of `Week10_40111`: the plates of a week were made together."""
    match = PLATE.match(plate)
    if match is None:
        raise InputError(
            f'{source}: plate "{plate}" does not begin with its week (expected a name such as "Week1_22123")'
        )
    return match[1]


def _table_path(tables: Path, name: str) -> Path:
    for path in (tables / name, tables / f"{name}.gz"):
        if path.is_file():
            return path
    raise InputError(f"{tables}: no {name} or {name}.gz; give the folder that holds BBBC021's tables")


def _fields(raw: pd.DataFrame, *, source: str) -> pd.DataFrame:
    """The image table in the screen's columns, with `file_<channel>` as `<PathName>/<FileName>`."""
    fields = named_fields(raw, source=source)
    for name, ours in NUMBER_COLUMNS.items():
        fields[ours] = numbers(raw, name, source=source)
    for channel, word in CHANNELS.items():
        fields[f"file_{channel}"] = raw[f"Image_PathName_{word}"].str.rstrip("/") + "/" + raw[f"Image_FileName_{word}"]
    return fields


def _places(file_names: pd.Series, *, source: str) -> pd.DataFrame:
    places = file_names.astype(str).str.extract(FIELD_IN_FILE_NAME)
    expected = 'a name with well and site, such as "Week1_150607_B02_s1_w1....tif"'
    refuse_rows(places[0].isna(), file_names, expected=expected, source=source)
    return pd.DataFrame({"well": places[0].str.upper(), "site": places[1].astype(int)})


def _labels(path: Path) -> pd.DataFrame:
    """Compound, concentration and mechanism of each labelled treatment; the control's own row is left out."""
    raw = read_csv(path, columns=LABEL_COLUMNS)
    labels = raw[list(LABEL_COLUMNS)].rename(columns=LABEL_COLUMNS)
    labels["concentration_um"] = numbers(raw, "concentration", source=path.name)
    for name in ("compound", "moa"):
        labels[name] = clean_names(labels[name])
        refuse_rows(labels[name] == "", labels[name], expected="a name", source=path.name)
    labels = labels[labels["compound"] != CONTROL].drop_duplicates()
    twice = labels[labels.duplicated(["compound", "concentration_um"])]
    if len(twice):
        again = twice.iloc[0]
        raise InputError(
            f"{path.name}: {again['compound']} at {again['concentration_um']:g} has two mechanisms, one of them "
            f'"{again["moa"]}"; expected one a treatment, correct the table'
        )
    return labels


def _with_mechanism(
    fields: pd.DataFrame, labels: pd.DataFrame, *, source: str, skip_missing: bool
) -> tuple[pd.DataFrame, int]:
    """The fields with their treatment's mechanism (None where unlabelled), and the count of labels that no well has."""
    moa = dict(zip(zip(labels["compound"], labels["concentration_um"].map(_dose)), labels["moa"]))
    keys = list(zip(fields["compound"], fields["concentration_um"].map(_dose)))
    seen = set(keys)
    unseen = labels[[key not in seen for key in zip(labels["compound"], labels["concentration_um"].map(_dose))]]
    if len(unseen) and not skip_missing:
        compound = str(unseen["compound"].iloc[0])
        near = get_close_matches(compound, sorted(map(str, fields["compound"].unique())), n=1, cutoff=0.5)
        names = list(treatment_name(unseen["compound"], unseen["concentration_um"]))
        hint = f', the nearest compound there is "{near[0]}"' if near else ""
        raise InputError(
            missing_line(
                f"{source}: a labelled treatment that no well of the image table has{hint}",
                names,
                instead="Correct either table, or run with --skip-missing",
            )
        )
    return fields.assign(moa=pd.Series([moa.get(key) for key in keys], index=fields.index, dtype=object)), len(unseen)


def _dose(concentration_um: float) -> str:
    """A concentration as the key of a treatment: 0.3 and 0.300000 are one dose."""
    return f"{concentration_um:.6g}"


def _with_images(chosen: Screen, whole: Screen, *, skip_missing: bool) -> Screen:
    """`chosen` with each `file_<channel>` as it lies on disk, relative to the screen's folder.

    A plate's folder is where the table has it (`Week1/Week1_22123`) or in the folder itself (`Week1_22123`). InputError
    as in `with_files`, and for an image or plate folder that `whole` does not name; with `skip_missing` they are left
    out and counted.
    """
    table, images = chosen.table.copy(), Path(chosen.folder)
    if not images.is_dir():
        raise InputError(f"{images}: no such folder; give the folder that holds the plates' folders of images")
    columns = [f"file_{channel}" for channel in CHANNELS]
    is_all = table["plate"].nunique() == whole.table["plate"].nunique()
    unnamed = _unnamed_plate_folders(images, set(whole.table["plate"])) if is_all else []
    for plate, fields in table.groupby("plate"):
        in_table = PurePosixPath(fields[columns[0]].iloc[0]).parent
        folder = next((path for path in (images / in_table, images / str(plate)) if path.is_dir()), None)
        if folder is None:
            continue
        relative = folder.relative_to(images).as_posix()
        table.loc[fields.index, columns] = (relative + "/" + fields[columns].map(_basename)).to_numpy()
        named = set(whole.table.loc[whole.table["plate"] == plate, columns].map(_basename).to_numpy().ravel())
        strange = sorted({path.name for path in folder.iterdir()} - named)
        unnamed += [f"{relative}/{name}" for name in strange if _is_tiff(name)]
    found = with_files(replace(chosen, table=table), skip_missing=skip_missing)
    if not unnamed:
        return found
    if not skip_missing:
        what = f"{images}: an image that the table does not name"
        raise InputError(missing_line(what, unnamed, instead="Move it away, or run with --skip-missing"))
    return found.leaving_out({"images that the table does not name": len(unnamed)})


def _is_tiff(name: str) -> bool:
    return name.lower().endswith((".tif", ".tiff")) and not is_hidden(name) and not is_thumbnail(name)


def _basename(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _unnamed_plate_folders(images: Path, plates: set[str]) -> list[str]:
    """Folders, here or in a week's folder, with the name of a plate that the table does not have."""
    inside = [path for path in images.iterdir() if path.is_dir()]
    inside += [path for week in inside if WEEK_FOLDER.fullmatch(week.name) for path in week.iterdir() if path.is_dir()]
    strange = [path for path in inside if PLATE_FOLDER.fullmatch(path.name) and path.name not in plates]
    return sorted(path.relative_to(images).as_posix() + "/" for path in strange)


@dataclass(frozen=True)
class CropFiles:
    """Reads crops from one `.npy` file each."""

    folder: Path
    order: list[int]  # the place on disk of each channel

    def __call__(self, rows: pd.DataFrame, crop_px: int | None) -> tuple[UInt16Array, UInt16Array]:
        """The crops (n, C, S, S) of these rows, twice: nothing corrects them."""
        crops: list[UInt16Array] = []
        for path in self.files(rows):
            crops.append(_read_crop(path, crop_px))
            crop_px = len(crops[0])
        read = np.ascontiguousarray(np.stack(crops)[..., self.order].transpose(0, 3, 1, 2))
        return read, read

    def files(self, rows: pd.DataFrame) -> list[Path]:
        """The file of each crop."""
        return [self.folder / path for path in rows["path"]]


def open_cropset(source: Path, config: LayoutConfig, selection: Selection) -> tuple[Screen, FinishedCrops]:
    """The screen of a crop set and its crops; InputError as in `read_cropset`."""
    screen, cells = read_cropset(source, selection=selection)
    order = [CHANNELS_ON_DISK.index(channel) for channel in screen.channels]
    return screen, FinishedCrops(cells, CropFiles(screen.folder, order))


@keyword_settings
def read_cropset(source: Path, *, selection: Selection = LABELLED) -> tuple[Screen, pd.DataFrame]:
    """The screen of a crop set's fields, without files, and a row per crop.

    Only folders are listed, no crop is opened.

    Args:
        source: Folder of `metadata.csv` and the crops.
        selection: The part to take. `skip_missing` leaves out, and counts in `left_out`, rows without a crop and crops
            without a row.

    Returns:
        The screen, and the crops: `plate`, `well`, `site`, `object_number`, `path` under `source`.

    Raises:
        InputError: A column is missing or a row contradicts itself; or, without `skip_missing`, what that would leave
            out.
    """
    source = Path(source)
    table_path = source / CROP_TABLE
    raw = read_csv(table_path, columns=[*CELL_COLUMNS, *FIELD_COLUMNS, *FILE_COLUMNS])
    rows = named_fields(raw, source=CROP_TABLE).assign(**{ours: raw[name] for name, ours in CELL_COLUMNS.items()})
    rows["object_number"] = numbers(raw, "Single_Cell_Image_Id", source=CROP_TABLE).astype(int)
    rows["role"] = roles(rows)
    rows["moa"] = rows["moa"].astype(object).where(rows["moa"].notna() & (rows["role"] != "control"), None)
    rows["path"] = _crops_folder(source).name + "/" + rows["folder"].astype(str) + "/" + rows["name"].astype(str)
    _refuse_twice(rows)
    rows, left_out = _on_disk(rows, source, skip_missing=selection.skip_missing)
    fields = rows.drop(columns=["path", "folder", "name", "object_number"]).drop_duplicates()
    screen = checked_screen(
        fields, channels=tuple(CHANNELS), folder=source, source=CROP_TABLE, sources={CROP_TABLE: sha256(table_path)}
    )
    screen = selection.of(screen.leaving_out(left_out))
    cells = rows[[*FIELD, "object_number", "path"]].merge(screen.table[FIELD])
    return screen, cells.sort_values([*FIELD, "object_number"]).reset_index(drop=True)


def _crops_folder(source: Path) -> Path:
    folder = source / CROPS_FOLDER
    if not folder.is_dir():
        raise InputError(f"{source}: no folder {CROPS_FOLDER}; it holds the crop set's folders, one per field")
    return folder


def _refuse_twice(rows: pd.DataFrame) -> None:
    for keys, what in ((["path"], "crop"), ([*FIELD, "object_number"], "object of a field")):
        refuse_rows(rows.duplicated(keys), rows["path"], expected=f"each {what} in one row", source=CROP_TABLE)


def _on_disk(rows: pd.DataFrame, source: Path, *, skip_missing: bool) -> tuple[pd.DataFrame, dict[str, int]]:
    """The rows whose crop is there; InputError, or a count, for rows without a crop and crops without a row."""
    present = set(_npy_files(source))
    has_file = rows["path"].isin(present)
    missing = list(rows["path"][~has_file])
    unnamed = sorted(present - set(rows["path"]))
    for what, examples, instead in (
        (f"{CROP_TABLE} names a crop that is not under {source}", missing, "Add it"),
        (f"{source}: a crop that {CROP_TABLE} does not name", unnamed, "Move it away"),
    ):
        if examples and not skip_missing:
            raise InputError(missing_line(what, examples, instead=f"{instead}, or run with --skip-missing"))
    if not has_file.any():
        raise InputError(f"{source}: none of the {len(rows):,} crops that {CROP_TABLE} names is there")
    return rows[has_file].reset_index(drop=True), {
        f"crops that {CROP_TABLE} names but are not there": len(missing),
        f"crops that {CROP_TABLE} does not name": len(unnamed),
    }


def _npy_files(source: Path) -> Iterable[str]:
    """Each crop under the crop set's folder, as its path relative to `source` with forward slashes."""
    with os.scandir(_crops_folder(source)) as folders:
        for folder in folders:
            if folder.is_dir() and not is_hidden(folder.name):
                with os.scandir(folder) as files:
                    names = [file.name for file in files if file.name.endswith(".npy") and not is_hidden(file.name)]
                yield from (f"{CROPS_FOLDER}/{folder.name}/{name}" for name in names)


def _read_crop(path: Path, crop_px: int | None) -> UInt16Array:
    try:
        crop = np.load(local_copy(path, named="crop"), allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such crop; add it, or run with --skip-missing") from error
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{path}: not a whole .npy ({error}); replace the file") from error
    if crop.ndim != 3 or crop.shape[2] != len(CHANNELS_ON_DISK) or crop.dtype != np.uint16:
        found = f"{crop.dtype} {' x '.join(map(str, crop.shape))}"
        raise InputError(f"{path}: found {found}, expected uint16 S x S x 3 ({', '.join(CHANNELS_ON_DISK)})")
    side = crop_px or len(crop)
    if crop.shape[:2] != (side, side):
        raise InputError(
            f"{path}: the crop is {crop.shape[0]} x {crop.shape[1]} px, expected {side} x {side}; give its side "
            "with --crop-px (all crops must have one)"
        )
    return crop
