"""From a source as it lies on disk to a CropStore: crops cut from fields of view, or taken over from a set."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from phenolens.core.errors import InputError
from phenolens.core.progress import tell
from phenolens.core.workers import ONE, AtOnce
from phenolens.crops.build import CropReader, begin, build_store, refuse_other_folder
from phenolens.crops.check import missing_chunks, with_whole_files
from phenolens.crops.config import CropConfig
from phenolens.crops.cut import CropTaker, FieldCutter, fits_inside, refuse_outside
from phenolens.crops.nuclei import BBBC021_PIXEL_UM, load_cellpose
from phenolens.crops.prepare_plate import NUCLEI_FOLDER, check_enough_fields, found_centres, plate_lights
from phenolens.crops.read_image import field_size, pixel_types
from phenolens.crops.scportrait_crops import H5scTaker
from phenolens.crops.store import CropStore, read_about
from phenolens.screens.config import LayoutConfig
from phenolens.screens.cropset import CHANNELS_ON_DISK, read_cropset
from phenolens.screens.image_files import part_name
from phenolens.screens.layouts import READERS, centres_path, read_screen, read_screen_centres
from phenolens.screens.scportrait import h5sc_file, read_h5sc
from phenolens.screens.screen import COLUMNS, FIELD, Screen, treatment_name, where_of

LAYOUTS = ("bbbc021", "cropset", "h5sc", *READERS)


def make_crops(
    source: Path,
    folder: Path,
    *,
    layout: str,
    config: CropConfig | None = None,
    reading: LayoutConfig | None = None,
    at_once: AtOnce = ONE,
) -> CropStore:
    """The CropStore of a source folder in one of LAYOUTS, its cells' centres given there or found here."""
    config, reading = config or CropConfig(), reading or LayoutConfig()
    if layout not in LAYOUTS:
        raise InputError(f'layout "{layout}" is not known; expected {" or ".join(LAYOUTS)}')
    refuse_other_folder(folder)
    choice = {
        "treatments": config.treatments,
        "plates": config.plates,
        "wells": config.wells,
        "sites": config.sites,
        "skip_missing": config.skip_missing,
    }
    origin: dict[str, Any] = {"layout": layout, "reading": _spoken(reading)}
    if layout == "cropset":
        screen, cells = read_cropset(source, **choice)  # type: ignore[arg-type]
        refuse_unfit(screen, config, source)
        order = [CHANNELS_ON_DISK.index(channel) for channel in screen.channels]
        read: CropReader = CropTaker(screen.folder, order, config.crop_px)
        return take_over_crops(screen, cells, folder, read=read, config=config, at_once=at_once, origin=origin)
    if layout == "h5sc":
        screen, cells, order = read_h5sc(source, config=reading, **choice)  # type: ignore[arg-type]
        refuse_unfit(screen, config, source)
        read = H5scTaker(h5sc_file(source, reading), order, config.crop_px)
        return take_over_crops(screen, cells, folder, read=read, config=config, at_once=at_once, origin=origin)
    screen = read_screen(source, layout=layout, config=reading, **choice)  # type: ignore[arg-type]
    refuse_unfit(screen, config, source)
    if config.skip_missing or not (read_about(folder) or {}).get("complete"):
        screen = with_whole_files(screen, skip_missing=config.skip_missing)
        refuse_unfit(screen, config, source)
    lacking = missing_chunks(screen)
    if lacking is not None:
        tell(f"note: {lacking}")
        origin["chunks_not_on_disk"] = lacking.n
    if config.illumination != "as it is":
        check_enough_fields(screen, config.light())
    if _are_given(source, reading, config):
        centres, screen = read_screen_centres(source, screen, config=reading, skip_missing=config.skip_missing)
    else:
        usual_um = BBBC021_PIXEL_UM if layout == "bbbc021" else None
        nuclei = config.nuclei(usual_pixel_um=usual_um)
        if nuclei.by == "cellpose" and not (folder / NUCLEI_FOLDER).is_dir():
            load_cellpose()  # says what is missing before anything is begun
        by = " by Cellpose" if nuclei.by == "cellpose" else ""
        tell(f'cells are found in channel "{screen.channels[0]}"{by}, nuclei of about {nuclei.diameter_px:.0f} px')
        if 1.5 * nuclei.diameter_px > config.crop_px:
            tell(f"note: crops of {config.crop_px} px hold little more than such a nucleus; see --crop-px")
        begin(folder)  # what is found is kept there, for the next try
        centres = found_centres(screen, folder, nuclei, at_once=at_once)
        origin["cells"] = "cellpose" if nuclei.by == "cellpose" else "found"
    return cut_crops(screen, centres, folder, config=config, at_once=at_once, origin=origin)


def refuse_unfit(screen: Screen, config: CropConfig, source: Path) -> None:
    """InputError, before any work, for a plate whose name no file can have, and without a treated or a control well."""
    for plate in screen.table["plate"].unique():
        part_name(str(plate))
    is_part = bool(config.plates or config.wells or config.sites)
    if not is_part and not (screen.table["role"] == "treated").any():
        raise InputError(
            f"{source}: no well has the role treated, there is nothing to profile; correct what was done to the wells "
            "(compound, role, --controls), or take a part of it all the same with --plates"
        )
    if not is_part and not (screen.table["role"] == "control").any():
        raise InputError(
            f"{source}: no control well is left, and profiles are scaled by the controls; bring their images, or "
            "take a part of it all the same with --plates"
        )


def _are_given(source: Path, reading: LayoutConfig, config: CropConfig) -> bool:
    """Whether the cells' centres come from a table; told where it is not asked for."""
    if config.cells != "auto":
        return config.cells == "given"
    path = centres_path(source, reading)
    if path.exists() or reading.centres is not None:
        return True
    tell(f"no {path}: cells are found here (--cells found, --channels)")
    return False


def _spoken(reading: LayoutConfig) -> dict[str, Any]:
    """What was said about the source, paths by their name alone, so that about.json is the same anywhere."""
    plain = LayoutConfig()
    said = {part.name: getattr(reading, part.name) for part in fields(reading)}
    return {
        name: value.name if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
        for name, value in said.items()
        if value != getattr(plain, name)
    }


def cut_crops(
    screen: Screen,
    centres: pd.DataFrame,
    folder: Path,
    *,
    config: CropConfig | None = None,
    at_once: AtOnce = ONE,
    origin: Mapping[str, Any] | None = None,
) -> CropStore:
    """Cut a crop around each centre (`plate`, `well`, `site`, `object_number`, `y`, `x`) that lies far enough inside.

    Cells whose crop would leave the field are left out and counted by plate. Raises InputError, before anything is
    written, for a screen without images, a centre that is no number or outside its field, and a treatment without a
    crop (with `config.skip_missing` it is left out and counted); later for a file that cannot be read and for fields
    of unequal size.
    """
    config = config or CropConfig()
    files = [f"file_{channel}" for channel in screen.channels]
    missing = [name for name in files if name not in screen.table.columns]
    if missing:
        raise InputError(f"the screen names no images (no column {missing[0]}); read it with its folder of images")
    cells = _with_fields(centres, screen, columns=[*COLUMNS, *files])
    size = _size_of_fields(screen, cells, config.crop_px)
    refuse_outside(cells, size)
    fits = fits_inside(cells["y"].to_numpy(float), cells["x"].to_numpy(float), size, config.crop_px)
    n_at_border = {str(plate): int(n) for plate, n in cells["plate"][~fits].value_counts().items()}
    cells = cells[fits].reset_index(drop=True)
    left_out = _without_cells(screen, cells, config)
    lights: dict[str, Path] = {}
    if config.illumination != "as it is":
        begin(folder)
        lights = plate_lights(screen, folder, config.light(), at_once=at_once)
    first = cells.iloc[0]
    files_of_first = {channel: screen.folder / first[f"file_{channel}"] for channel in screen.channels}
    types = pixel_types(files_of_first, where=where_of(first))
    read = FieldCutter(screen.folder, screen.channels, size, config.crop_px, where_of(first), types, lights)
    return build_store(
        folder,
        screen,
        cells,
        read=read,
        n_at_border=n_at_border,
        left_out=left_out,
        config=config,
        origin=origin or {},
        at_once=at_once,
    )


def take_over_crops(
    screen: Screen,
    cells: pd.DataFrame,
    folder: Path,
    *,
    read: CropReader,
    config: CropConfig | None = None,
    at_once: AtOnce = ONE,
    origin: Mapping[str, Any] | None = None,
) -> CropStore:
    """Bring the crops of a set (`cells`: field, `object_number`, `path`) together as `read` reads them.

    Raises InputError for a treatment without a crop, and for a crop that cannot be read or is not S x S with the
    screen's channels.
    """
    config = config or CropConfig()
    if "y" not in cells:
        cells = cells.assign(y=np.nan, x=np.nan)
    cells = _with_fields(cells, screen, columns=[*COLUMNS], more=["path"])
    left_out = _without_cells(screen, cells, config)
    return build_store(
        folder,
        screen,
        cells,
        read=read,
        n_at_border={},
        left_out=left_out,
        config=config,
        origin=origin or {},
        at_once=at_once,
    )


def _with_fields(
    cells: pd.DataFrame, screen: Screen, *, columns: list[str], more: list[str] | None = None
) -> pd.DataFrame:
    """The cells that lie in the screen's fields, with the fields' columns, a field's id and the cell's own."""
    own = cells[[*FIELD, "object_number", "y", "x", *(more or [])]]
    joined = own.merge(screen.table[columns], on=FIELD, how="inner", validate="many_to_one")
    joined = joined.sort_values([*FIELD, "object_number"], kind="stable").reset_index(drop=True)
    joined["field"] = joined["plate"] + "_" + joined["well"] + "_s" + joined["site"].astype(str)
    joined["cell_id"] = joined["field"] + "_" + joined["object_number"].astype(str)
    twice = joined["cell_id"].duplicated()
    if twice.any():
        raise InputError(f"{where_of(joined[twice].iloc[0])} has two cells with one object number; number them anew")
    return joined


def _size_of_fields(screen: Screen, cells: pd.DataFrame, crop_px: int) -> tuple[int, int]:
    """Height and width of the first field, which all others must share."""
    first = (cells if len(cells) else screen.table).iloc[0]
    channel = screen.channels[0]
    size = field_size(screen.folder / first[f"file_{channel}"], where=f'{where_of(first)}: channel "{channel}"')
    if min(size) < crop_px:
        raise InputError(
            f"{where_of(first)} is {size[0]} x {size[1]} px, smaller than a crop; give a smaller --crop-px"
        )
    return size


def _without_cells(screen: Screen, cells: pd.DataFrame, config: CropConfig) -> dict[str, int]:
    """What is left out so far, with skip_missing also plates and treatments without a cell; else an InputError."""
    plates = [plate for plate in screen.table["plate"].unique() if not (cells["plate"] == plate).any()]
    if plates and len(cells) and not config.skip_missing:
        raise InputError(
            f'plate "{plates[0]}" has no cell whose crop lies inside a field ({len(plates)} plates have none). '
            "Give centres for it, choose other plates with --plates, or run with --skip-missing; no crop was written."
        )
    wells = screen.wells[screen.wells["role"] != "other"]
    wanted = dict.fromkeys(treatment_name(wells["compound"], wells["concentration_um"]))
    kept = cells[cells["role"] != "other"]
    have = set(treatment_name(kept["compound"], kept["concentration_um"]))
    without = [name for name in wanted if name not in have]
    if cells.empty:
        raise InputError("no cell has a crop that lies inside a field; expected y the row and x the column, in pixels")
    if without and not config.skip_missing:
        raise InputError(
            f"treatment {without[0]} has no cell whose crop lies inside a field ({len(without)} of {len(wanted)} "
            "treatments have none). Give centres for it, or run with --skip-missing; no crop was written."
        )
    counts = {"plates without cells": len(plates), "treatments without cells": len(without)}
    return {**screen.left_out, **{what: count for what, count in counts.items() if count}}
