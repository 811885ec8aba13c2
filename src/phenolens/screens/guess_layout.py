"""Guess the layout of a source from the names of its files, and the pattern that the names of its images have."""

import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import zip_longest
from pathlib import Path

import pandas as pd

from phenolens.core.errors import InputError
from phenolens.core.names import shortened
from phenolens.screens.bbbc021 import CROP_TABLE, CROPS_FOLDER, IMAGE_TABLE
from phenolens.screens.config import LayoutConfig, given_path
from phenolens.screens.csv_table import column_names
from phenolens.screens.file_listing import files_under, is_hidden
from phenolens.screens.filename_pattern import PLACE, matching
from phenolens.screens.image_files import IMAGE_SUFFIXES
from phenolens.screens.image_table import FILE, FILE_COLUMN, INDEX, URL_COLUMN, inputs_folder
from phenolens.screens.instrument_index import index_files
from phenolens.screens.instruments import INSTRUMENTS
from phenolens.screens.jump import LOAD_DATA, has_wells
from phenolens.screens.pattern_readings import (
    FOLDER_OF_WELL,
    MOST_CHANNELS,
    NOT_PLATES,
    fitting,
    is_of_one_well,
    question,
    refuse_unlikely,
    trimmed,
)

MOST_FILES = 5_000  # whose names are compared, evenly over all of them
LEAST_SHARE = 0.5  # of the images that a pattern must match
WELL = re.compile(r"(?<![A-Za-z0-9{])[A-P]\d{1,2}(?![A-Za-z0-9])")
# What a number or letter in a name means by what stands before it; the first that matches counts.
OF_WELLS = (
    (re.compile(r"(?<![A-Za-z0-9])([Rr])\d{1,3}([Cc])\d{1,3}(?!\d)"), r"\1{row}\2{column}"),
    (re.compile(r"(?<![A-Za-z0-9])([Ww]ell[_ ]?)[A-Pa-p]\d{1,2}(?!\d)"), r"\1{well}"),
    (WELL, "{well}"),
    (re.compile(r"(?<![A-Za-z0-9{])[A-P]([ _-]{1,3})\d{1,2}(?!\d)"), r"{row}\1{column}"),
)
OF_NAMES = (
    (re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"), "{guid}"),
    (
        re.compile(r"(?<![A-Za-z])(s|S|f|F|fld ?|[Ff]ield[_ ]?|[Ss]ite[_ ]?|fov_?|FOV_?|[Pp]os_?|[Pp]oint_?)\d+"),
        r"\1{site}",
    ),
    (re.compile(r"(?<![A-Za-z])(w|W|ch|Ch|CH|c|C|[Cc]hannel[_ ]?)\d+"), r"\1{channel}"),
    (re.compile(r"(?<![A-Za-z])([Zz]_?)\d+"), r"\1{z}"),
    (re.compile(r"(?<![A-Za-z])([Tt]_?)\d+"), r"\1{t}"),
)
LABELS = frozenset("CFLPSTWZ")  # letters before the number of a channel, field, plate, site, time point, plane
# What names such as P1 may be, where all wells are in one row.
LIKE_WELLS = {"C": "channel", "F": "site", "P": "plate", "S": "site", "T": "time point", "W": "channel", "Z": "plane"}
SEPARATORS = re.compile(r"([_\-. ()]+)")


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
    images = images[:: max(1, len(images) // MOST_FILES)]
    for pattern, why in _by_names(source, images, plate_wells=config.plate_wells):
        return Guess("pattern", replace(config, pattern=pattern), why)
    found = f"its files are such as {images[0] if images else files[0]}" if files else "the folder is empty"
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
    tables = [given_path(config.table, source)] if config.table else [source / name for name in names]
    for path in sorted(tables, key=lambda path: path.name not in ("images.csv", "load_data.csv")):
        if path.suffix.lower() not in (".csv", ".tsv", ".txt", ".xlsx", ".parquet") or not path.is_file():
            continue
        try:
            columns = column_names(path)
        except InputError:
            continue
        given = config.table if path.name in ("images.csv", "load_data.csv") else config.table or path
        if any(FILE_COLUMN.match(column) or URL_COLUMN.match(column) for column in columns):
            yield "loaddata", given if path.name != "images.csv" else path, f"{path.name} names files of images"
        if any(column.startswith(FILE) for column in columns):
            yield "table", given if path.name != "load_data.csv" else path, f"{path.name} names files of images"


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
    for name in INSTRUMENTS:
        found, _ = matching(source, images, pattern=name, plate_wells=plate_wells)
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
        odd = [plate for plate in wells.index if any(one.fullmatch(plate) for one in NOT_PLATES.values())]
        if odd:
            unlikely[name] = odd[0]
        elif not doubtful and not (len(wells) and all(map(is_of_one_well, wells.index, wells))):
            yield name, f"names are those of {INSTRUMENTS[name].title}"
    pattern = proposed_pattern(images)
    if unlikely and "{plate}" not in pattern:
        name, folder = unlikely.popitem()
        _refuse_folder(name, folder, pattern, matched[name]["path"].tolist())
    if pattern:
        found, _ = matching(source, images, pattern=pattern)
        if len(found) > LEAST_SHARE * len(images):
            doubtful = _labels_as_wells(found, pattern=pattern)
            of_names = "{plate}" in pattern.rsplit("/", 1)[-1]
            plates = f"; plates {shortened(sorted(found['plate'].unique()), 3)}" if of_names else ""
            if not doubtful:
                yield pattern, f"{len(found):,} of {len(images):,} images match{plates}"
    if doubtful:
        raise InputError(f"{images[0]}: {doubtful}")
    for name in ambiguous:
        yield name, f"names are those of {INSTRUMENTS[name].title}"


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


def proposed_pattern(images: Sequence[str]) -> str:
    """A pattern made from the names of images; empty where no well is in them.

    InputError where two places in the names may be the well.
    """
    wells = [WELL.findall(path.rsplit("/", 1)[-1]) for path in images]
    readings = {place: _pattern_of(images, well_place=place) for place in _well_places(wells)}
    if len(readings) > 1:
        well = {place: next(found[place] for found in wells if len(found) > place) for place in readings}
        fits = {place: fitting(pattern, images, least=LEAST_SHARE) for place, pattern in readings.items() if pattern}
        named = [f'"{pattern}" (well {well[place]})' for place, pattern in fits.items() if pattern]
        raise InputError(
            f"{images[0]}: more than one part of the name may be the well; give "
            + (f"--pattern {' or '.join(named)}" if named else "a --pattern with {well}, or --layout table")
        )
    return trimmed(readings.popitem()[1])


def _well_places(wells: Sequence[Sequence[str]]) -> list[int]:
    """Which of the texts like A01 in each name may be its well: one where that is clear, as in P1_B02_F01."""
    kinds = [set(found) - {""} for found in zip_longest(*wells, fillvalue="")]
    of_rows = [place for place, texts in enumerate(kinds) if len({text[0] for text in texts}) > 1]
    varying = [place for place, texts in enumerate(kinds) if len(texts) > 1]
    if not of_rows and len(varying) == 1 and not {text[0] for text in kinds[varying[0]]} & LABELS:
        return varying
    return of_rows or list(range(max(1, len(kinds))))


def _pattern_of(images: Sequence[str], *, well_place: int) -> str:
    """The pattern of names whose well is the text like A01 at a place of them (0 for the first)."""
    groups: defaultdict[tuple[int, ...], list[tuple[str, list[list[str]]]]] = defaultdict(list)
    for path in images:
        parts = [SEPARATORS.split(part) for part in _marked(path, well_place=well_place)]
        groups[tuple(len(part) for part in parts)].append((path, parts))
    if not groups:
        return ""
    paths, alike = zip(*max(groups.values(), key=len))
    names = [path.rsplit("/", 1)[-1] for path in paths]
    bare: dict[str, set[str]] = {}  # what each place holds that is read from texts without a label
    taken = {name for parts in alike[:1] for part in parts for token in part for name, _ in PLACE.findall(token)}
    columns = _with_whole_plates(list(zip(*(parts[-1] for parts in alike))))
    at = _place_of_well(columns)
    plates: Sequence[str] = ()  # the folders whose names are those of plates
    of_wells = False  # whether the folders below are those of wells
    written = ["".join(_token(column, taken, bare, before_well=place < at) for place, column in enumerate(columns))]
    for depth in range(len(alike[0]) - 2, -1, -1):  # folders, from the file's own
        folders = ["".join(parts[depth]) for parts in alike]
        above = "".join("".join(part) for part in alike[0][:depth])
        if of_wells and "plate" not in taken and not any(one.fullmatch(folders[0]) for one in NOT_PLATES.values()):
            written.append("{plate}")  # the folder above those of wells
            taken.add("plate")
            plates = folders
        elif len(set(folders)) == 1:
            written.append(folders[0])
        elif "{well}" in above or "{row}" in above:
            written.append(_token(folders, taken, bare))
        elif of_wells := _are_of_wells(folders, names, pattern=written[0]):
            written.append("*")
            continue
        elif "plate" in taken:
            written.append("*")
        else:
            written.append("{plate}")
            taken.add("plate")
            plates = folders
        of_wells = False
    pattern = re.sub(r"\*+", "*", "/".join(reversed(written)))
    places = [name for name, _ in PLACE.findall(pattern)]
    is_whole = "well" in places or {"row", "column"} <= set(places)
    if not is_whole or len(set(places)) < len(places):
        return ""
    refuse_unlikely(pattern, {**bare, "plate": {*plates, *bare.get("plate", ())}}, paths)
    return pattern


def _are_of_wells(folders: Sequence[str], names: Sequence[str], *, pattern: str) -> bool:
    """Whether each folder is named after the one well of the files in it, whose names have the pattern."""
    if not all(map(FOLDER_OF_WELL.fullmatch, folders)):
        return False
    try:
        found, others = matching(Path(), names, pattern=pattern)
    except InputError:
        return False
    return not others and all(is_of_one_well(folder, {well}) for folder, well in zip(folders, found["well"]))


def _place_of_well(columns: Sequence[Sequence[str]]) -> int:
    """Which part of the names has the well; 0 where none has."""
    return next((place for place, column in enumerate(columns) if "{well}" in column[0] or "{row}" in column[0]), 0)


def _with_whole_plates(columns: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The parts of the names with those that vary before the well as one, with the word that a dash joins to it.

    So the plates of Exp-01_B02 and 2021-01_A_B02 are Exp-01 and 2021-01_A. Numbers that keep single images apart stay.
    """
    before = range(_place_of_well(columns))
    varying = [place for place in before if len(set(columns[place])) > 1]
    if not varying or any(PLACE.search(text) for place in before for text in columns[place]):
        return columns
    first, last = varying[0], varying[-1]
    if first > 1 and set(columns[first - 1]) == {"-"} and set(columns[last + 1]) != {"-"}:
        first -= 2
    whole = tuple(map("".join, zip(*columns[first : last + 1])))
    return columns if 2 * len(set(whole)) > len(whole) else [*columns[:first], whole, *columns[last + 1 :]]


def _marked(path: str, *, well_place: int) -> list[str]:
    """The parts of a path with the places of a pattern where a name says what a number is, each place once."""
    *folders, name = path.split("/")
    seen: set[str] = set()
    for expression, written in OF_WELLS:
        places = {found for found, _ in PLACE.findall(written)}
        if seen:
            break
        matches = list(expression.finditer(name))
        if matches:
            match = matches[well_place if expression is WELL and well_place < len(matches) else 0]
            name = name[: match.start()] + match.expand(written) + name[match.end() :]
            seen |= places
    for expression, written in OF_NAMES:
        name = expression.sub(written, name, count=1)
    for place, folder in enumerate(reversed(folders), start=1):
        expression, written = OF_WELLS[2]
        if not seen and expression.fullmatch(folder):
            folders[-place] = written
            seen.add("well")
    return [*folders, name]


def _token(values: Sequence[str], taken: set[str], bare: dict[str, set[str]], *, before_well: bool = False) -> str:
    """What stands at one place of all names: itself, or a place of the pattern where it varies."""
    kinds = Counter(values)
    if len(kinds) == 1:
        return values[0]
    if any(PLACE.search(kind) for kind in kinds):
        return "*"
    meanings = ("site", "channel") if all(kind.isdecimal() for kind in kinds) else ("channel",)
    for name in ("plate",) if before_well else meanings:
        if name not in taken and (name != "channel" or len(kinds) <= MOST_CHANNELS):
            taken.add(name)
            bare[name] = set(kinds)
            return f"{{{name}}}"
    return posixpath.commonprefix(list(kinds)).rstrip("0123456789") + "*"
