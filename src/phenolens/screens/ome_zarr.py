"""Read a screen from OME-Zarr plates (HCS): plate.zarr/row/column/field, versions 0.1 to 0.5; treatments from a "
"plate map.

Only the JSON is read, no array. OME-NGFF specification: in zarr 3 the attributes stand under "ome" in zarr.json.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from phenolens.core.errors import InputError
from phenolens.core.files import sha256
from phenolens.core.progress import track
from phenolens.screens.config import LayoutConfig, chosen_channels
from phenolens.screens.image_files import ImageReference
from phenolens.screens.plate_map import read_plate_map, with_defaults, with_plate_map
from phenolens.screens.screen import Screen, checked_screen, well_name


def group_attributes(folder: Path) -> dict[str, Any] | None:
    """The OME attributes of a zarr group; None where the folder is no group. InputError where they are damaged."""
    for name in ("zarr.json", ".zattrs"):
        path = folder / name
        if path.is_file():
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                attributes = content.get("attributes", {}) if name == "zarr.json" else content
                return dict(attributes.get("ome", attributes))
            except (ValueError, AttributeError, TypeError) as error:
                raise InputError(f"{path}: not readable as the attributes of a zarr group ({error})") from error
    return None


def image_attributes(folder: Path, *, named: str) -> dict[str, Any]:
    """The attributes of an image; InputError where the folder holds none."""
    attributes = group_attributes(folder)
    try:
        level = (attributes or {})["multiscales"][0]["datasets"][0]["path"]
    except (KeyError, IndexError, TypeError):
        level = None
    if attributes is None or level is None:
        raise InputError(f"{named} is no OME-Zarr image ({folder}: no multiscales in zarr.json or .zattrs)")
    return attributes


def channels_of(attributes: dict[str, Any]) -> list[str]:
    """The channels' labels, in order; none where the image does not name them."""
    omero = attributes.get("omero")
    channels = omero.get("channels") if isinstance(omero, dict) else None
    labels = [str(channel.get("label", "")).strip() for channel in channels or [] if isinstance(channel, dict)]
    return labels if all(labels) else []


def axes_of(attributes: dict[str, Any], n_axes: int) -> str:
    """The axes as letters, such as TCZYX; versions before 0.3 always have these five."""
    axes = attributes["multiscales"][0].get("axes")
    if axes is None:
        return "TCZYX"[-n_axes:]
    return "".join(str(axis["name"] if isinstance(axis, dict) else axis)[:1].upper() for axis in axes)


def read_ome_zarr(source: Path, *, config: LayoutConfig, skip_missing: bool = False) -> Screen:
    """The screen of a plate (`source` is named *.zarr) or of all plates in a folder; a well's fields are sites 1, 2 ...

    The plate's name is the folder's without .zarr. Channels are the labels in the images' `omero`, the same in all;
    images without labels are named by `config.channels`. Raises InputError for a folder without a plate, a well or
    field that the metadata names and the disk has not (with `skip_missing` left out and counted), channels that differ
    between fields, and more than one acquisition a well.
    """
    source = Path(source)
    folder, plates = _plates(source)
    rows, n_missing = _fields(folder, plates, skip_missing=skip_missing)
    labels = _one_set_of_channels(rows, config)
    channels = chosen_channels(labels, () if not rows[0]["labels"] else config.channels, source=str(source))
    fields = pd.DataFrame([{name: row[name] for name in ("plate", "well", "site")} for row in rows])
    for ours, theirs in channels.items():
        choice = theirs if rows[0]["labels"] else str(labels.index(theirs) + 1)
        fields[f"file_{ours}"] = [str(ImageReference(row["path"], {"channel": choice})) for row in rows]
    map_path = config.plate_map_path(source)
    if map_path is None:
        raise InputError(
            f"{source}: an OME-Zarr plate does not say what was done to a well; give a CSV with --plate-map"
        )
    fields, left_out = with_plate_map(fields, read_plate_map(map_path), source=map_path.name, skip_missing=skip_missing)
    fields = with_defaults(fields, controls=config.controls, source=map_path.name)
    sources = {map_path.name: sha256(map_path)}
    screen = checked_screen(fields, channels=list(channels), folder=folder, source=map_path.name, sources=sources)
    counts = {"wells and fields that the plate names but are not there": n_missing} if n_missing else {}
    return replace(screen, left_out={**counts, **left_out})


def _plates(source: Path) -> tuple[Path, dict[Path, dict[str, Any]]]:
    """The folder that paths are relative to, and each plate in it with its attributes."""
    if not source.is_dir():
        raise InputError(f"{source}: no such folder; give an OME-Zarr plate or the folder that holds some")
    if source.suffix == ".zarr":
        folder, candidates = source.parent, [source]
    else:
        folder, candidates = source, sorted(path for path in source.iterdir() if path.suffix == ".zarr")
    attributes = {path: (group_attributes(path) or {}).get("plate") for path in candidates}
    plates = {path: plate for path, plate in attributes.items() if isinstance(plate, dict)}
    if not plates:
        found = f"{candidates[0].name} is a zarr group without a plate" if candidates else "no folder is named *.zarr"
        raise InputError(
            f"{source}: no OME-Zarr plate ({found}); a single image has no wells, name it in a table instead"
        )
    return folder, plates


def _fields(
    folder: Path, plates: dict[Path, dict[str, Any]], *, skip_missing: bool
) -> tuple[list[dict[str, Any]], int]:
    """A row a field: plate, well, site, path within `folder`, labels; and how many wells and fields are not there."""
    rows: list[dict[str, Any]] = []
    missing: list[Path] = []
    wells = [
        (path, plate, well) for path, plate in plates.items() for well in _named(plate.get("wells", []), where=path)
    ]
    for path, plate, well in track(wells, "Wells looked at", total=len(wells)):
        name = _well(plate, well, where=str(path))
        at_well = path / str(well["path"])
        attributes = group_attributes(at_well)
        if attributes is None:
            missing.append(at_well)
            continue
        of_well = attributes.get("well")
        images = _named(of_well.get("images", []) if isinstance(of_well, dict) else [], where=at_well)
        acquisitions = {image.get("acquisition") for image in images}
        if len(acquisitions) > 1:
            raise InputError(
                f'{path}: well "{name}" has {len(acquisitions)} acquisitions; expected one, as a site is a place: '
                f"write a "
                "table of the images and read it with --layout table"
            )
        for site, image in enumerate(images, start=1):
            at = at_well / str(image["path"])
            if not at.is_dir():
                missing.append(at)
                continue
            labels = channels_of(image_attributes(at, named=f'plate "{path.stem}", well "{name}", site {site}'))
            rows.append(
                {"plate": path.stem, "well": name, "site": site, "path": at.relative_to(folder), "labels": labels}
            )
    if missing and (not skip_missing or not rows):
        raise InputError(
            f"{missing[0]}: not there, though the plate's metadata names it ({len(missing)} such wells or fields). "
            f"Bring "
            "it, or run with --skip-missing; no crop was written."
        )
    if not rows:
        raise InputError(f"{next(iter(plates))}: the plate names no field; expected wells with images")
    return rows, len(missing)


def _named(entries: Any, *, where: Path) -> list[dict[str, Any]]:
    """A plate's wells or a well's images as its metadata lists them; InputError where one has no path."""
    listed = entries if isinstance(entries, list) else [entries]
    for entry in listed:
        if not isinstance(entry, dict) or not str(entry.get("path", "")):
            raise InputError(f'{where}: its metadata lists {entry!r}, which has no "path"; correct the metadata')
    return listed


def _well(plate: dict[str, Any], well: dict[str, Any], *, where: str) -> str:
    """B02 from the names of the plate's row and column, or from the well's path (`B/2`) where there are no indices."""
    try:
        if "rowIndex" in well and "columnIndex" in well:
            row, column = plate["rows"][well["rowIndex"]]["name"], plate["columns"][well["columnIndex"]]["name"]
        else:
            row, column = str(well["path"]).split("/")
        return well_name(f"{row}{column}")
    except (KeyError, IndexError, ValueError, TypeError, InputError) as error:
        raise InputError(f"{where}: the well {well} has no name such as B02 ({error}); correct the metadata") from error


def _one_set_of_channels(rows: list[dict[str, Any]], config: LayoutConfig) -> list[str]:
    first = rows[0]["labels"]
    for row in rows:
        if row["labels"] != first:
            found, expected = (", ".join(labels) or "none" for labels in (row["labels"], first))
            raise InputError(
                f'plate "{row["plate"]}", well "{row["well"]}", site {row["site"]} has the channels {found}; '
                f"{rows[0]['path'].as_posix()} has {expected}; all fields must have the same"
            )
    if not first and not config.channels:
        raise InputError(
            f"{rows[0]['path'].as_posix()}: its channels have no labels (omero); name them with --channels"
        )
    return first or list(config.channels)
