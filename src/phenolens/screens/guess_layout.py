"""Guess the layout of a source from the names of its files."""

import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pandas as pd

from phenolens.core.errors import InputError
from phenolens.core.names import shortened
from phenolens.core.progress import track
from phenolens.screens.bbbc021 import CROP_TABLE, CROPS_FOLDER, IMAGE_TABLE
from phenolens.screens.config import IS_PLATE_MAP, TABLES, LayoutConfig, given_path
from phenolens.screens.csv_table import column_names
from phenolens.screens.file_listing import files_under, is_hidden
from phenolens.screens.filename_pattern import matching, unread_texts
from phenolens.screens.image_files import IMAGE_SUFFIXES
from phenolens.screens.image_table import FILE_COLUMN, INDEX, URL_COLUMN, inputs_folder, is_file_column
from phenolens.screens.instrument_index import index_files
from phenolens.screens.instruments import INSTRUMENTS, WITHOUT_WELLS
from phenolens.screens.jump import LOAD_DATA, has_wells
from phenolens.screens.pattern_readings import is_hardly_plate, is_of_one_well, question, refuse_unlikely
from phenolens.screens.proposed_pattern import (
    LEAST_SHARE,
    LIKE_WELLS,
    has_well_folders,
    not_shared,
    of_some_wells,
    proposed_pattern,
    vary_in_folders,
)
from phenolens.screens.screen import well_key

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
        return Guess("pattern", config, "a pattern is given")

    @cache
    def listed() -> list[str]:
        return files_under(source)[0]

    for layout, table, why in _by_tables(source, config, listed):
        return Guess(layout, replace(config, table=table), why)
    if source.suffix == ".zarr" or any(
        path.suffix == ".zarr" and not is_hidden(path.name) for path in source.iterdir()
    ):
        return Guess("ome-zarr", config, "folders are named *.zarr")
    files = listed()
    indexes = index_files(files)
    if indexes:
        return Guess("index", config, f"there is {indexes[0]}")
    images = [path for path in files if path.lower().endswith(IMAGE_SUFFIXES)]
    compared = of_some_wells(images)
    part = f"; {len(images):,} are there" if len(compared) < len(images) else ""
    for pattern, why in _by_names(source, compared, plate_wells=config.plate_wells):
        return Guess("pattern", replace(config, pattern=pattern), f"{why}{part}")
    others = images or files
    such = " and ".join(dict.fromkeys((others[0], others[-1]))) if others else ""
    found = f"its files are such as {such}" if others else "the folder is empty"
    raise InputError(
        f"{source}: the layout cannot be guessed ({found}; TIFF, PNG and OME-Zarr are read); name it with --layout, or "
        "the names of the images with --pattern, such as {plate}/{well}_s{site}_w{channel}.tif or "
        f"{', '.join(INSTRUMENTS)}"
    )


def _by_tables(
    source: Path, config: LayoutConfig, listed: Callable[[], list[str]]
) -> Iterator[tuple[str, Path | None, str]]:
    """Layouts that a table or file in the source is of; `listed` gives all its files."""
    names = sorted(path.name for path in source.iterdir() if path.is_file() and not is_hidden(path.name))
    if {IMAGE_TABLE, f"{IMAGE_TABLE}.gz"} & set(names):
        yield "bbbc021", config.table, f"there is {IMAGE_TABLE}"
    if CROP_TABLE in names and (source / CROPS_FOLDER).is_dir():
        yield "cropset", config.table, f"there is {CROPS_FOLDER}"
    if any(name.endswith(".h5sc") for name in names) or (config.table and config.table.suffix == ".h5sc"):
        yield "h5sc", config.table, "a file is named *.h5sc"
    if (inputs_folder(source) / INDEX).is_file():
        yield "deepprofiler", config.table, f"there is {INDEX.as_posix()}"
    if why := _of_jump(source, config, listed()):
        yield "jump", config.table, why
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
        elif any(is_file_column(column) for column in columns):
            found.append(("table", path))
    if found:
        layout, path = found[0]
        names = [other.name for _, other in found[1:]]
        if names and path.name not in DEFAULT_TABLES.values():
            raise InputError(
                f"{source}: {shortened([path.name, *names])} all name files of images; name one with --table, or join "
                "them in one table"
            )
        why = f"{path.name} names files of images" + (f"; not read: {shortened(names)}" if names else "")
        yield layout, config.table if path.name == DEFAULT_TABLES[layout] else config.table or path, why


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


def _by_names(source: Path, images: Sequence[str], *, plate_wells: int | None) -> Iterator[tuple[str, str]]:
    """Patterns of an instrument, or made from the names, that most images have; the best first."""
    matched, ambiguous = {}, []
    unlikely: dict[str, str] = {}  # of an instrument, a folder that would be a plate
    errors = []  # of an instrument's names that cannot be read so
    for name in track(INSTRUMENTS, "Instruments whose names were tried", total=len(INSTRUMENTS)):
        try:
            found, _ = matching(source, images, pattern=name, plate_wells=plate_wells)
        except InputError as error:
            errors.append(error)
            continue
        if len(found) <= LEAST_SHARE * len(images):
            continue
        if found.drop(columns="path").duplicated().any():  # as of two plates in one folder
            ambiguous.append(name)
        else:
            matched[name] = found
    doubtful = ""  # why the first of them may have no wells at all
    for name in sorted(matched, key=lambda name: -len(matched[name])):
        doubtful = doubtful or _labels_as_wells(matched[name], pattern=name)
        wells = matched[name].groupby("plate")["well"].unique().drop(source.resolve().name, errors="ignore")
        odd = [plate for plate in wells.index if is_hardly_plate(plate)]
        if odd:
            unlikely[name] = odd[0]
        elif not doubtful and not (len(wells) and all(map(is_of_one_well, wells.index, wells))):
            if any("/*_{well}" in one for one in INSTRUMENTS[name].patterns):
                _refuse_beginnings(matched[name], pattern=name)
            n_found = len(matched[name])
            part = f"{n_found:,} of {len(images):,} " if n_found < len(images) else ""
            yield name, f"{part}names are those of {INSTRUMENTS[name].title}"
    why = next((why for one, why in WITHOUT_WELLS.items() if images and one.search(images[0])), "")
    if why and not has_well_folders(images):
        raise InputError(f"{images[0]}: {why}; list the images with their wells in images.csv (--layout table)")
    pattern = proposed_pattern(images)
    if unlikely and "{plate}" not in pattern:
        name, folder = unlikely.popitem()
        _refuse_folder(name, folder, pattern, matched[name]["path"].tolist())
    if pattern:
        found, _ = matching(source, images, pattern=pattern)
        if len(found) > LEAST_SHARE * len(images):
            doubtful = _labels_as_wells(found, pattern=pattern)
            if not doubtful:
                _refuse_one_a_well(found, pattern=pattern)
                held = {
                    place: sorted(found[place].unique()) for place in ("plate", "channel") if f"{{{place}}}" in pattern
                }
                said = [f"{place}s {shortened(texts, 3)}" for place, texts in held.items()]
                said += [f"not read: {shortened(texts, 3)}" for texts in unread_texts(pattern, found["path"])]
                yield pattern, "; ".join([f"{len(found):,} of {len(images):,} images match", *said])
    if doubtful:
        raise InputError(f"{images[0]}: {doubtful}")
    if errors:
        raise errors[0]
    for name in ambiguous:
        yield name, f"names are those of {INSTRUMENTS[name].title}"


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
    """Why wells in one row such as P may be plates, or channels, sites ... where the names have none; empty else."""
    rows, wells = set(found["well"].str[:-2]), sorted(found["well"].unique())
    meant = LIKE_WELLS.get(min(rows), "") if len(rows) == 1 else ""
    is_known = {"channel": "channel" in found, "site": found["site"].nunique() > 1, "time point": "t" in found}
    if not meant or is_known.get(meant, meant == "plane" and "z" in found):
        return ""
    is_apart = not found.drop(columns="path").duplicated().any()
    return (
        f"its wells would be {shortened(wells, 3)}, each perhaps a {meant}; give "
        + (f'--pattern "{pattern}" if they are wells, else ' if is_apart else "")
        + "a --pattern whose {well} is elsewhere, or --layout table"
    )
