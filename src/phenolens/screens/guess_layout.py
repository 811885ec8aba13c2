"""Guess the layout of a source from the names of its files."""

import posixpath
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from phenolens.core.errors import InputError
from phenolens.core.names import shortened
from phenolens.core.progress import track
from phenolens.screens.bbbc021 import CROP_TABLE, CROPS_FOLDER, IMAGE_TABLE
from phenolens.screens.config import IS_PLATE_MAP, TABLES, LayoutConfig, given_path
from phenolens.screens.csv_table import column_names
from phenolens.screens.file_listing import files_under, is_hidden
from phenolens.screens.filename_pattern import PLACES, matching, unread_texts
from phenolens.screens.image_files import IMAGE_SUFFIXES
from phenolens.screens.image_table import FILE_COLUMN, INDEX, URL_COLUMN, inputs_folder, is_file_column
from phenolens.screens.instrument_index import index_files
from phenolens.screens.instruments import INSTRUMENTS, WITHOUT_WELLS
from phenolens.screens.jump import LOAD_DATA, has_wells
from phenolens.screens.name_words import LIKE_WELLS, has_well_folders, is_hardly_plate, is_of_one_well
from phenolens.screens.pattern_questions import not_shared, question, refuse_unlikely
from phenolens.screens.proposed_pattern import LEAST_SHARE, of_some_wells, proposed_pattern, vary_in_folders
from phenolens.screens.well_names import well_key

DEFAULT_TABLES = {"table": "images.csv", "loaddata": "load_data.csv"}  # the table of images of a layout


@dataclass(frozen=True)
class Guess:
    """A layout, what follows for the reading of the source, and why; empty where it was given."""

    layout: str
    config: LayoutConfig
    why: str = ""

    def __str__(self) -> str:
        """One line for a person."""
        flags = f"--layout {self.layout}"
        flags += f' --pattern "{self.config.pattern}"' if self.layout == "pattern" else ""
        return f"{flags} (guessed: {self.why})"


def guess_layout(source: Path, config: LayoutConfig) -> Guess:
    """The layout of a source, with the table or pattern that it needs; no image is opened.

    Raises InputError where the names of its files say none.
    """
    source = Path(source)
    if not source.is_dir():
        raise InputError(f"{source}: no such folder; give the folder that holds the images")
    if config.pattern:
        return Guess("pattern", config)
    names = sorted(path.name for path in source.iterdir() if not is_hidden(path.name))
    if known := _by_file(source, config, names):
        return Guess(known[0], config, known[1])
    files, _ = files_under(source)
    if why := _of_jump(source, config, files):
        return Guess("jump", config, why)
    if guess := _by_table(source, config, names):
        return guess
    if any(name.endswith(".zarr") for name in (source.name, *names)):
        return Guess("ome-zarr", config, "folders are named *.zarr")
    if indexes := index_files(files):
        return Guess("index", config, f"there is {indexes[0]}")
    images = [path for path in files if path.lower().endswith(IMAGE_SUFFIXES)]
    compared = of_some_wells(images)
    part = f"; {len(images):,} are there" if len(compared) < len(images) else ""
    if pattern := _by_names(source, compared, plate_wells=config.plate_wells):
        return Guess("pattern", replace(config, pattern=pattern[0]), f"{pattern[1]}{part}")
    others = images or files
    such = " and ".join(dict.fromkeys((others[0], others[-1]))) if others else ""
    found = f"its files are such as {such}" if others else "the folder is empty"
    raise InputError(
        f"{source}: the layout cannot be guessed ({found}; TIFF, PNG and OME-Zarr are read); name it with --layout, or "
        "the names of the images with --pattern, such as {plate}/{well}_s{site}_w{channel}.tif or "
        f"{', '.join(INSTRUMENTS)}"
    )


def _by_file(source: Path, config: LayoutConfig, names: Collection[str]) -> tuple[str, str] | None:
    """The layout whose own file or folder is in the source, and why; None where none is."""
    if {IMAGE_TABLE, f"{IMAGE_TABLE}.gz"} & set(names):
        return "bbbc021", f"there is {IMAGE_TABLE}"
    if {CROP_TABLE, CROPS_FOLDER} <= set(names):
        return "cropset", f"there is {CROPS_FOLDER}"
    if any(name.endswith(".h5sc") for name in names) or (config.table and config.table.suffix == ".h5sc"):
        return "h5sc", "a file is named *.h5sc"
    if (inputs_folder(source) / INDEX).is_file():
        return "deepprofiler", f"there is {INDEX.as_posix()}"
    return None


def _by_table(source: Path, config: LayoutConfig, names: Sequence[str]) -> Guess | None:
    """The layout of a table in the source that names files of images; None where none does."""
    others = [source / name for name in names if not IS_PLATE_MAP.fullmatch(name)]
    tables = [given_path(config.table, source)] if config.table else others
    found: list[tuple[str, Path]] = []
    for path in sorted(tables, key=lambda path: path.name not in DEFAULT_TABLES.values()):
        if not path.name.lower().endswith(TABLES) or not path.is_file():
            continue
        try:
            columns = column_names(path)
        except InputError:
            continue
        if any(column.endswith("ObjectNumber") for column in columns):  # a row a nucleus
            continue
        if any(FILE_COLUMN.match(column) or URL_COLUMN.match(column) for column in columns):
            found.append(("loaddata", path))
        elif any(map(is_file_column, columns)):
            found.append(("table", path))
    if not found:
        return None
    (layout, path), *unread = found
    also = [other.name for _, other in unread]
    if also and path.name not in DEFAULT_TABLES.values():
        raise InputError(
            f"{source}: {shortened([path.name, *also])} all name files of images; name one with --table, or join "
            "them in one table"
        )
    why = f"{path.name} names files of images" + (f"; not read: {shortened(also)}" if also else "")
    table = config.table or (None if path.name == DEFAULT_TABLES[layout] else path)
    return Guess(layout, replace(config, table=table), why)


def _of_jump(source: Path, config: LayoutConfig, files: Sequence[str]) -> str:
    """Why a source is of JUMP-CP, with the JCP2022 tables or as LoadData of plates without an image; else empty."""
    of_plates = [path for path in files if path.rsplit("/", 1)[-1].removesuffix(".gz") in LOAD_DATA]
    if not of_plates:
        return ""
    if has_wells(source, config):
        return f"there are {of_plates[0]} and the JCP2022 tables"
    is_alone = config.plate_map_path(source) is None and not any(path.endswith(IMAGE_SUFFIXES) for path in files)
    nested = [path for path in of_plates if "/" in path or path == LOAD_DATA[0]]
    return f"there is {nested[0]}" if is_alone and nested else ""


def _by_names(source: Path, images: Sequence[str], *, plate_wells: int | None) -> tuple[str, str] | None:
    """A pattern of an instrument, or made from the names, that most images have, and why; None where there is none."""
    of_instruments, errors = _of_instruments(source, images, plate_wells=plate_wells)
    # By some, two images are one, as of two plates in one folder.
    ambiguous = [name for name, found in of_instruments.items() if found.drop(columns="path").duplicated().any()]
    matched = {name: found for name, found in of_instruments.items() if name not in ambiguous}
    doubtful = ""  # why there may be no wells in the names at all
    unlikely: dict[str, str] = {}  # of an instrument, a folder that would be a plate
    for name, found in sorted(matched.items(), key=lambda each: -len(each[1])):
        doubtful = doubtful or _labels_as_wells(found, pattern=name)
        wells = found.groupby("plate")["well"].unique().drop(source.resolve().name, errors="ignore")
        odd = [plate for plate in wells.index if is_hardly_plate(plate)]
        if odd:
            unlikely[name] = odd[0]
        elif not doubtful and not (len(wells) and all(map(is_of_one_well, wells.index, wells))):
            if any("/*_{well}" in one for one in INSTRUMENTS[name].patterns):
                _refuse_beginnings(found, pattern=name)
            part = f"{len(found):,} of {len(images):,} " if len(found) < len(images) else ""
            return name, f"{part}names are those of {INSTRUMENTS[name].title}"
    why = next((why for one, why in WITHOUT_WELLS.items() if images and one.search(images[0])), "")
    if why and not has_well_folders(images):
        raise InputError(f"{images[0]}: {why}; list the images with their wells in images.csv (--layout table)")
    pattern = proposed_pattern(images)
    if unlikely and "{plate}" not in pattern:
        name, folder = unlikely.popitem()
        _refuse_folder(name, folder, pattern, matched[name]["path"].tolist())
    found = matching(source, images, pattern=pattern)[0] if pattern else pd.DataFrame()
    if len(found) > LEAST_SHARE * len(images):
        doubtful = _labels_as_wells(found, pattern=pattern)
        if not doubtful:
            _refuse_one_a_well(found, pattern=pattern)
            return pattern, _said(found, images, pattern=pattern)
    if doubtful:
        raise InputError(f"{images[0]}: {doubtful}")
    if errors:
        raise errors[0]
    return (ambiguous[0], f"names are those of {INSTRUMENTS[ambiguous[0]].title}") if ambiguous else None


def _of_instruments(
    source: Path, images: Sequence[str], *, plate_wells: int | None
) -> tuple[dict[str, pd.DataFrame], list[InputError]]:
    """The images by the names of each instrument that most have, and why the names cannot be those of others."""
    matched: dict[str, pd.DataFrame] = {}
    errors: list[InputError] = []
    for name in track(INSTRUMENTS, "Instruments whose names were tried", total=len(INSTRUMENTS)):
        try:
            found, _ = matching(source, images, pattern=name, plate_wells=plate_wells)
        except InputError as error:
            errors.append(error)
        else:
            matched |= {name: found} if len(found) > LEAST_SHARE * len(images) else {}
    return matched, errors


def _said(found: pd.DataFrame, images: Sequence[str], *, pattern: str) -> str:
    """What a pattern made from the names reads and what it does not."""
    held = {place: sorted(found[place].unique()) for place in ("plate", "channel") if f"{{{place}}}" in pattern}
    said = [f"{place}s {shortened(texts, 3)}" for place, texts in held.items()]
    said += [f"not read: {shortened(texts, 3)}" for texts in unread_texts(pattern, found["path"])]
    return "; ".join([f"{len(found):,} of {len(images):,} images match", *said])


def _refuse_one_a_well(found: pd.DataFrame, *, pattern: str) -> None:
    """InputError for sites or time points of which each well has another one, as S1025 of a compound."""
    for place, what in {"site": "site", "t": "time point"}.items():
        if f"{{{place}}}" not in pattern or found[place].nunique() == 1:
            continue
        if (found.groupby(["plate", "well"])[place].nunique() == 1).all():
            why = f"each well has one number, such as {found[place].iloc[0]}, a {what} or the well's own"
            without = pattern.replace(f"{{{place}}}", "*")
            raise question(why, [pattern, without], images=found["path"].tolist())


def _refuse_beginnings(found: pd.DataFrame, *, pattern: str) -> None:
    """InputError where names of an instrument begin with several texts in one folder, which may be plates."""
    paths = found["path"].tolist()
    starts = [_beginning(posixpath.basename(path), well) for path, well in zip(paths, found["well"])]
    if vary_in_folders(starts, paths):
        proposed = proposed_pattern(paths)
        raise question(not_shared(starts), [proposed] if "{plate}" in proposed else [], images=paths, last=pattern)


def _beginning(name: str, well: str) -> str:
    """What stands before the well in the name of an image."""
    places = re.finditer(r"(?<![A-Za-z])[A-Za-z]{1,2}\d{1,3}", name)
    return next((name[: place.start()].rstrip("_") for place in places if well_key(place[0]) == well), "")


def _refuse_folder(instrument: str, folder: str, pattern: str, images: Sequence[str]) -> None:
    """InputError where the only plate of an instrument would be a folder such as raw; the pattern is of the names."""
    if pattern:
        first = [f"{{plate}}/{folder}/{pattern}"]
        refuse_unlikely(f"{{plate}}/{pattern}", {"plate": {folder}}, images, first=first)
    raise question(f'"{folder}" may be a plate or not', [], images=images, last=instrument)


def _labels_as_wells(found: pd.DataFrame, *, pattern: str) -> str:
    """Why wells in one row such as P may be plates, or channels, sites ... where the names have none; empty else.

    Names with an identifier are those of MetaXpress, which always names the well.
    """
    if found["path"].str.contains(PLACES["guid"]).all():
        return ""
    rows, wells = set(found["well"].str[:-2]), sorted(found["well"].unique())
    meant = LIKE_WELLS.get(min(rows), "") if len(rows) == 1 else ""
    is_known = {"channel": "channel" in found, "site": found["site"].nunique() > 1, "time point": "t" in found}
    if not meant or is_known.get(meant, meant == "plane" and "z" in found):
        return ""
    is_apart = not found.drop(columns="path").duplicated().any()
    return (
        f"its wells would be {shortened(wells, 3)}, perhaps {meant}s; give "
        + (f'--pattern "{pattern}" if they are wells, else ' if is_apart else "")
        + "a --pattern whose {well} is elsewhere, or --layout table"
    )
