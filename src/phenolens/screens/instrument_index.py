"""Read a screen from the index that an instrument writes beside its images, and a plate map.

Harmony (Opera Phenix, Operetta) writes Index.idx.xml or Index.xml, CellVoyager MeasurementData.mlf with the settings
MeasurementDetail.mrf and *.mes, MetaXpress (ImageXpress) a .HTD file. A source may hold several of them, one per plate.
"""

import csv
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any
from xml.etree import ElementTree

import pandas as pd

from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.names import shortened
from phenolens.core.progress import track
from phenolens.screens.config import LayoutConfig, unread_plate_maps
from phenolens.screens.file_listing import files_under
from phenolens.screens.filename_pattern import matching
from phenolens.screens.image_files import unnamed_images
from phenolens.screens.image_reference import ImageReference
from phenolens.screens.planes import screen_of_images
from phenolens.screens.screen import Screen
from phenolens.screens.well_names import well_at

HARMONY = ("index.idx.xml", "index.xml")
CELLVOYAGER = "measurementdata.mlf"
METAXPRESS = ".htd"
FAILED = "images that the instrument marks as failed"
ABSENT = "fields that the index names and that have no image"

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class _Index:
    """What one index says."""

    plate: str  # empty where it names none
    rows: Rows  # a row per image, and a row without a path per field that has none
    n_failed: int = 0  # images that are marked as failed
    notes: tuple[str, ...] = ()


def index_files(files: Sequence[str]) -> list[str]:
    """Those of the files that are an instrument's index, by their names."""
    names = [(path, path.rsplit("/", 1)[-1].lower()) for path in files]
    found = [path for path, name in names if name in (*HARMONY, CELLVOYAGER) or name.endswith(METAXPRESS)]
    return [path for path in found if f"{path.removesuffix('.xml')}.idx.xml" not in found]  # Harmony may write both


def read_index(source: Path, *, config: LayoutConfig, skip_missing: bool = False) -> Screen:
    """The screen of the images that the indexes under `source` name; treatments from the plate map.

    The plate is the one that the index names, or the folder's name where it names none or two indexes name the same.
    Channels have the names of the index. Files are not yet searched (see with_files). Raises InputError where there is
    no index, where one cannot be read, for a field that is named and has no image (with `skip_missing` left out and
    counted), as screen_of_images and as the plate map does.
    """
    source = Path(source)
    files, passed_over = files_under(source)
    paths = index_files(files)
    found: dict[str, _Index] = {}  # by the path of the index
    notes = unread_plate_maps(files, source, config)
    for path in track(paths, "Indexes read", total=len(paths)):
        name = path.rsplit("/", 1)[-1].lower()
        read = _harmony if name in HARMONY else _cellvoyager if name == CELLVOYAGER else _metaxpress
        found[path] = index = read(source / path, source)
        notes += index.notes if index.rows else (f"{path}: none of the images that it is the index of is there",)
    if not any(index.rows for index in found.values()):
        raise InputError(
            f"{source}: no index of an instrument with images ({', '.join(paths) if paths else 'no file is named'} "
            "Index.idx.xml, MeasurementData.mlf or *.HTD); read the names of the files with --pattern"
        )
    absent = [(path, row) for path, index in found.items() for row in index.rows if row["path"] is None]
    if absent:
        path, first = absent[0]
        wells = shortened(sorted({row["well"] for _, row in absent}))
        if not skip_missing:
            raise InputError(
                f'{path}: well "{first["well"]}" has no image of site {first["site"]}, which the index names '
                f"({counted(len(absent), 'such field')}, in {wells}). Add them, or run with --skip-missing; "
                "no crop was written."
            )
        notes.append(f"{path}: {counted(len(absent), 'field')} without an image, in {wells}")
    n_of_plate = Counter(index.plate for index in found.values() if index.rows)
    images = pd.DataFrame(
        {"plate": index.plate if index.plate and n_of_plate[index.plate] == 1 else _folder_name(source, path), **row}
        for path, index in found.items()
        for row in index.rows
        if row["path"] is not None
    )
    unnamed, of_folders = unnamed_images(source, images["path"], what="images that no index names")
    counts = {FAILED: sum(index.n_failed for index in found.values()), ABSENT: len(absent)}
    return screen_of_images(
        images,
        source=source,
        config=config,
        skip_missing=skip_missing,
        left_out={**passed_over, **counts, **unnamed},
        notes=(*notes, *of_folders),
    )


def _folder_name(source: Path, index: str) -> str:
    """The folder that holds the index, or the one above where that is called Images; without Harmony's time."""
    folders = [source.resolve().name, *index.split("/")[:-1]]
    name = folders[-2] if folders[-1].lower() == "images" and len(folders) > 1 else folders[-1]
    return name.split("__")[0] or name


def _elements(path: Path, names: Sequence[str]) -> Iterator[tuple[str, ElementTree.Element]]:
    """The elements of these names without their namespace, each forgotten after use; InputError where it is no XML."""
    try:
        for _, element in ElementTree.iterparse(path):
            name = _plain(element.tag)
            if name in names:
                yield name, element
                element.clear()
    except ElementTree.ParseError as error:
        raise InputError(f"{path}: not readable as XML ({error}); copy it again") from error


def _plain(tag: str) -> str:
    return tag.rsplit("}", 1)[-1]


def _attributes(element: ElementTree.Element) -> dict[str, str]:
    return {_plain(name): text for name, text in element.attrib.items()}


def _number(texts: dict[str, str], name: str, *, path: Path, default: int | None = None) -> int:
    text = texts.get(name, "")
    if not text.isdecimal():
        if default is not None and not text:
            return default
        raise InputError(f'{path}: {name} is "{text}", expected a whole number; copy the index again')
    return int(text)


def _found(folder: Path, url: str, source: Path) -> str:
    """An image's path within the source: beside the index, or where the end of its address is there."""
    parts = PureWindowsPath(url.split("?")[0]).parts
    for first in range(len(parts)):
        file = folder.joinpath(*(part for part in parts[first:] if part not in ("/", "\\", "..")))
        if file.is_file():
            return file.relative_to(source).as_posix()
    return (folder / parts[-1]).relative_to(source).as_posix()


def _harmony(path: Path, source: Path) -> _Index:
    """The plate's name and the images of Index.idx.xml; none where it is the index of something else."""
    plate, n_failed = "", 0
    rows: Rows = []
    names: dict[str, str] = {}
    kinds: set[tuple[str, str | None]] = set()
    for name, element in _elements(path, ("Plate", "Entry", "Image")):
        texts = {_plain(part.tag): (part.text or "").strip() for part in element}
        if name == "Plate":
            plate = plate or texts.get("Name") or texts.get("PlateID") or ""
        elif name == "Entry" and texts.get("ChannelName"):
            names[element.get("ChannelID", "")] = texts["ChannelName"]
        elif name == "Image" and "URL" in texts:
            if texts.get("State", "Ok").lower() != "ok":
                n_failed += 1
                continue
            page = next((part.get("BufferNo") for part in element if _plain(part.tag) == "URL"), None)
            file = _found(path.parent, texts["URL"], source)
            channel = texts.get("ChannelID", "1")
            kinds.add((file, page))
            rows.append(
                {
                    "well": well_at(texts.get("Row", ""), texts.get("Col", "")),
                    "site": _number(texts, "FieldID", path=path),
                    "z": _number(texts, "PlaneID", path=path, default=1),
                    "t": _number(
                        texts, "TimepointID", path=path, default=_number(texts, "SequenceID", path=path, default=1)
                    ),
                    "channel": channel,
                    "name": texts.get("ChannelName", ""),
                    "path": (file, page),
                }
            )
    of_file = Counter(file for file, _ in kinds)
    for row in rows:
        file, page = row["path"]
        choice = {"page": str(int(page) + 1)} if page is not None and of_file[file] > 1 else {}
        row["path"] = str(ImageReference(Path(file), choice))
        names.setdefault(row["channel"], row["name"])
    return _Index(plate, _with_channel_names(rows, names), n_failed)


def _cellvoyager(path: Path, source: Path) -> _Index:
    """The plate's name and the images of MeasurementData.mlf."""
    rows: Rows = []
    n_failed = 0
    for _, element in _elements(path, ("MeasurementRecord",)):
        texts = _attributes(element)
        if texts.get("Type") != "IMG":
            n_failed += 1
            continue
        rows.append(
            {
                "well": well_at(texts.get("Row", ""), texts.get("Column", "")),
                "site": _number(texts, "FieldIndex", path=path),
                "z": _number(texts, "ZIndex", path=path, default=1),
                "t": _number(texts, "TimePoint", path=path, default=1),
                "channel": texts.get("Ch", "1"),
                "path": _found(path.parent, (element.text or "").strip(), source),
            }
        )
    names: dict[str, str] = {}
    plate = ""
    for file in sorted(path.parent.iterdir()):
        ending = file.suffix.lower()
        if ending in (".mrf", ".wpi", ".mes") and not file.name.startswith("."):
            for name, element in _elements(file, ("WellPlate", "MeasurementDetail", "Channel")):
                texts = _attributes(element)
                if name == "Channel" and texts.get("Target"):
                    names[texts.get("Ch", "")] = texts["Target"]
                plate = texts.get("Name", "") if name == "WellPlate" else plate or texts.get("Title", "")
    return _Index(plate, _with_channel_names(rows, names), n_failed)


def _metaxpress(path: Path, source: Path) -> _Index:
    """The images that belong to a .HTD file, by their names; fields that it selects and that have none lack a path."""
    texts: dict[str, list[str]] = {}
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        for line in csv.reader(file, skipinitialspace=True):
            if line:
                texts[line[0].strip()] = [text.strip() for text in line[1:]]
    for setting, default in (("XWells", ""), ("YWells", ""), ("YSites", "1")):
        if not (texts.get(setting) or [default])[0].isdecimal():
            raise InputError(f"{path}: not readable as MetaXpress' description of a plate ({setting}); copy it again")
    inside, _ = files_under(path.parent)
    named = [name for name in inside if name.rsplit("/", 1)[-1].lower().startswith(f"{path.stem.lower()}_")]
    images, _ = matching(path.parent, named, pattern="imagexpress")
    folder = path.parent.relative_to(source)
    rows: Rows = []
    for image in images.to_dict("records"):
        kept = {str(name): value for name, value in image.items() if name != "plate"}
        rows.append({**kept, "path": (folder / str(image["path"])).as_posix()})
    names = {str(place): name[0] for place in range(1, 20) if (name := texts.get(f"WaveName{place}")) and name[0]}
    selected = [well_at(str(row), str(column)) for row, column in _selected(texts, "WellsSelection", "YWells")]
    n_sites = len(_selected(texts, "SiteSelection", "YSites"))
    there: dict[str, set[int]] = defaultdict(set)
    for row in rows:
        there[row["well"]].add(row["site"])
    every = sorted(set().union(*there.values())) if there else []
    for well in selected if rows else []:
        rows += [{"well": well, "site": site, "path": None} for site in every if site not in there[well]]
        if n_sites > len(every):
            rows.append({"well": well, "site": n_sites, "path": None})
    notes = []
    others = sorted(set(there) - set(selected))
    if others:
        notes.append(
            f"{path.name} does not name {counted(len(others), 'well')} with images, taken too: {shortened(others)}"
        )
    channels = sorted({row["channel"] for row in rows if "channel" in row})
    n_waves = texts.get("NWavelengths", [""])[0]
    if channels and n_waves.isdecimal() and int(n_waves) != len(channels):
        notes.append(f"{path.name} names {counted(int(n_waves), 'wavelength')}, the images have {', '.join(channels)}")
    if 0 < n_sites < len(every):
        notes.append(f"{path.name} names {counted(n_sites, 'site')} a well, the images have {len(every)}")
    return _Index("", _with_channel_names(rows, names), notes=tuple(notes))


def _selected(texts: dict[str, list[str]], name: str, n_rows: str) -> list[tuple[int, int]]:
    """The rows and columns, from 1, of what is TRUE under WellsSelection1, WellsSelection2 ... of a .HTD file."""
    rows = {row: texts.get(f"{name}{row}", []) for row in range(1, int(texts.get(n_rows, ["1"])[0]) + 1)}
    return [(row, at) for row, held in rows.items() for at, text in enumerate(held, 1) if text.upper() == "TRUE"]


def _with_channel_names(rows: Rows, names: dict[str, str]) -> Rows:
    """The images with the names of their channels; the number stands behind a name that two channels have."""
    n_of = Counter(names.values())
    shown = {number: name if n_of[name] == 1 else f"{name} {number}" for number, name in names.items() if name}
    for row in rows:
        row.pop("name", None)
        if "channel" in row:
            row["channel"] = shown.get(row["channel"].lstrip("0"), shown.get(row["channel"], row["channel"]))
    return rows
