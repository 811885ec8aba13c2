"""From a source in any layout to a CropStore: crops cut from fields of view, or finished crops of a set."""

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.names import shortened
from phenolens.core.progress import tell
from phenolens.core.workers import ONE, AtOnce
from phenolens.crops.build import begin, build_store, refuse_other_folder
from phenolens.crops.centres_on_pixels import hold_centres
from phenolens.crops.config import LEAST_NUCLEI, CropConfig, suggested_crop_px
from phenolens.crops.given_illumination import check_given, given_illuminations
from phenolens.crops.grey_values import check_grey_values
from phenolens.crops.nuclei import DIAMETER, load_cellpose, size_note
from phenolens.crops.prepare_plate import NUCLEI_FOLDER, check_enough_fields, found_centres, plate_illuminations
from phenolens.crops.source import FieldCutter, Source, fits_inside, open_source
from phenolens.crops.store import EMPTY_WELLS, CropStore, read_about
from phenolens.screens.bbbc021 import SIMULATION_FILE
from phenolens.screens.config import SAME_CONTENT, LayoutConfig
from phenolens.screens.image_files import ILLUMINATION
from phenolens.screens.layouts import centres_path, layout_named
from phenolens.screens.remote import shown
from phenolens.screens.screen import COLUMNS, FIELD, Screen, treatment_name, where_of

MOST_AT_BORDER = 0.25  # share of cells left out at a border from which there is a note
MOST_DARK = 0.1  # share of all crops from which noise in a stain, beside a nucleus, is worth a note


def make_crops(
    source: Path,
    folder: Path,
    *,
    layout: str,
    config: CropConfig | None = None,
    reading: LayoutConfig | None = None,
    at_once: AtOnce = ONE,
) -> CropStore:
    """Make the crops of a source; crops that were made from the same are kept.

    Args:
        source: The source folder.
        folder: The folder of the crops, new, empty or with crops.
        layout: One of LAYOUTS.
        config: How crops are made.
        reading: Where the source has its tables, centres and channels.
        at_once: How many plates are processed in parallel.

    Raises:
        InputError: As `open_source` and `crops_of`.
    """
    config, reading, kind = config or CropConfig(), reading or LayoutConfig(), layout_named(layout)
    refuse_other_folder(folder)
    is_part = bool(config.plates or config.wells or config.sites)
    is_finished = bool((read_about(folder) or {}).get("complete"))
    opened = open_source(
        source,
        layout=layout,
        config=reading,
        selection=config.selection(),
        cells=config.cells,
        needs_roles=not is_part,
        all_headers=config.skip_missing or not is_finished,
        at_once=at_once,
    )
    for note in opened.screen.notes:
        tell(f"note: {note}")
    if config.illumination == "as it is" and any(
        name.startswith(ILLUMINATION) for name in map(str, opened.screen.table)
    ):
        tell("note: the source has illumination functions, which are not used; --illumination given divides by them")
    held = hold_centres(opened.screen, opened.cells) if kind.has_fields and opened.cells is not None else None
    if held is not None and held.problem:
        if not reading.trust_centres:
            raise InputError(held.refusal(shown(centres_path(source, reading))))
        tell(f"note: the centres may not fit the images: {held.problem}")
    if not opened.screen.table["moa"].notna().any():
        config = replace(config, treatments="all")  # which gives the same crops
    origin: dict[str, Any] = {"layout": layout, "reading": _changed(reading)}
    if (Path(source) / SIMULATION_FILE).is_file():
        origin["simulated"] = True
    if opened.missing_chunks is not None:
        tell(f"note: {opened.missing_chunks}")
        origin["chunks_not_on_disk"] = opened.missing_chunks.n
    if kind.has_fields and reading.black_level is None and not is_finished:
        check_grey_values(opened.screen)
    if kind.has_fields and config.illumination in ("corrected", "foreground"):
        check_enough_fields(opened.screen, config.light())
    if opened.cells is None:
        if opened.field_px is not None and config.illumination == "given":
            check_given(opened.screen, size=opened.field_px)  # before cells are searched, which takes long
        if config.cells == "auto":
            tell(f"no {shown(centres_path(source, reading))}: cells are found here (--cells found, --channels)")
        centres = _found(opened.screen, folder, config, pixel_um=kind.pixel_um, at_once=at_once)
        opened = replace(opened, cells=centres)
        origin["cells"] = "cellpose" if config.cells == "cellpose" else "found"
    store = crops_of(opened, folder, config=config, at_once=at_once, origin=origin)
    _report_border(store)
    _report_repeated(store)
    _report_dark_stain(store)
    return store


def _report_border(store: CropStore) -> None:
    """A note where many cells are left out because their crop would leave the field."""
    n = sum(plate["n_at_border"] for plate in store.about["plates"].values())
    share = n / (n + len(store))
    if share > MOST_AT_BORDER:
        tell(
            f"note: {n:,} of {n + len(store):,} cells ({share:.0%}) are left out, because their crop of "
            f"{store.crop_px} px would leave the field; fewer are with a smaller --crop-px"
        )


def _report_repeated(store: CropStore) -> None:
    """A note on crops with the pixels of a crop of another field, as of an image under two names."""
    measures = store.quality().set_index("cell_id").filter(regex="^(neighbour_correlation|power_slope)_")
    measures = measures[(measures.filter(like="neighbour_correlation") != 0).all(axis=1)]
    same = measures[measures.duplicated(keep=False)]
    cells = store.cells.set_index("cell_id").loc[same.index]
    crop = pd.util.hash_pandas_object(same, index=False).to_numpy()
    field = cells[FIELD].astype(str).agg("-".join, axis=1) if len(cells) else pd.Series(dtype=str)
    several = field.groupby(crop).transform("nunique") > 1
    if several.any():
        tell(
            f"note: {int(several.sum()):,} crops are alike in every measure, though of other fields (the first: "
            f"{where_of(cells[several].iloc[0])}): are images there twice, under other names?"
        )


def _report_dark_stain(store: CropStore) -> None:
    """A note on cells that are left out although their first channel, that of the nuclei, is not noise.

    A stain of some cells only, such as a marker of mitosis, is camera noise in all others.
    """
    dark = store.cells["flags"].str.extract("noise in ([^;]+)")[0].dropna()
    dark = dark[~dark.str.split(", ").map(lambda names: store.channels[0] in names)]
    if "noise" in store.about["config"]["leave_out"] and len(dark) > MOST_DARK * len(store):
        tell(
            f"note: {len(dark):,} of {len(store):,} crops are left out for noise in {dark.mode()[0]} though "
            f"{store.channels[0]} is not noise; if only some cells have this stain, keep them all: --leave-out "
            "with nothing after it"
        )


def crops_of(
    source: Source,
    folder: Path,
    *,
    config: CropConfig | None = None,
    at_once: AtOnce = ONE,
    origin: Mapping[str, Any] | None = None,
) -> CropStore:
    """The CropStore of a source whose cells are known; `origin` describes the source in about.json.

    Cells whose crop would leave the field are left out and counted by plate. Raises InputError, before anything is
    written, for fields smaller than a crop, two cells with one number, and a plate or treatment without a crop (with
    `config.skip_missing` they are left out and counted); later for files that cannot be read.
    """
    config = config or CropConfig()
    assert source.cells is not None
    cells, read = _with_fields(source.cells, source.screen), source.read
    n_at_border: dict[str, int] = {}
    if source.field_px is not None:
        if min(source.field_px) < config.crop_px:
            raise InputError(
                f"{where_of(source.screen.table.iloc[0])} is {source.field_px[0]} x {source.field_px[1]} px, smaller "
                "than a crop; give a smaller --crop-px"
            )
        fits = fits_inside(cells["y"].to_numpy(float), cells["x"].to_numpy(float), source.field_px, config.crop_px)
        n_at_border = {str(plate): int(n) for plate, n in cells["plate"][~fits].value_counts().items()}
        cells = cells[fits].reset_index(drop=True)
    screen = _without_cells(source.screen, cells, config)
    if empty := screen.wells_without(cells):
        tell(f"note: {counted(len(empty), 'well')} without a cell with a crop inside its field: {shortened([*empty])}")
        origin = {**(origin or {}), EMPTY_WELLS: empty}
    if isinstance(read, FieldCutter) and config.illumination != "as it is":
        if config.illumination == "given":
            light = given_illuminations(screen, folder, size=read.size)
        else:
            begin(folder)
            light = plate_illuminations(screen, folder, config.light(), at_once=at_once)
        read = replace(read, illuminations=light)
    source = replace(source, screen=screen, cells=cells, read=read)
    return build_store(folder, source, n_at_border=n_at_border, config=config, origin=origin or {}, at_once=at_once)


def _found(
    screen: Screen, folder: Path, config: CropConfig, *, pixel_um: float | None, at_once: AtOnce
) -> pd.DataFrame:
    """The centres of the nuclei found in the screen's first channel; they are kept in `folder` for the next run."""
    nuclei = config.nuclei(usual_pixel_um=pixel_um)
    if nuclei.by == "cellpose" and not (folder / NUCLEI_FOLDER).is_dir():
        load_cellpose()  # reports what is missing before anything is written
    by = " by Cellpose" if nuclei.by == "cellpose" else ""
    tell(f'cells are found in channel "{screen.channels[0]}"{by}, nuclei of about {nuclei.diameter_px:.0f} px')
    begin(folder)
    centres = found_centres(screen, folder, nuclei, at_once=at_once)
    found_px = float(centres[DIAMETER].median()) if DIAMETER in centres else math.nan
    if off := size_note(found_px, nuclei):
        tell(f"note: {off}")
    if config.crop_px < LEAST_NUCLEI * found_px:
        tell(
            f"note: crops of {config.crop_px} px are less than {LEAST_NUCLEI} nuclei wide (their median diameter: "
            f"{found_px:.3g} px), so cells may be cut; three nuclei are --crop-px {suggested_crop_px(found_px)}"
        )
    return centres


def _changed(reading: LayoutConfig) -> dict[str, Any]:
    """The settings that are not defaults, paths by their name alone, so that about.json is the same anywhere."""
    default = LayoutConfig()
    given = {part.name: getattr(reading, part.name) for part in fields(reading)}
    return {
        name: value.name if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
        for name, value in given.items()
        if name not in SAME_CONTENT and value != getattr(default, name)
    }


def _with_fields(cells: pd.DataFrame, screen: Screen) -> pd.DataFrame:
    """The cells in the screen's fields, with the fields' columns, a field's id and the cell's own."""
    own = [*FIELD, "object_number", "y", "x"]
    files = [f"file_{channel}" for channel in screen.channels]
    if "path" in cells:  # of a finished crop
        own, files = [*own, "path"], []
    if "y" not in cells:
        cells = cells.assign(y=np.nan, x=np.nan)
    joined = cells[own].merge(screen.table[[*COLUMNS, *files]], on=FIELD, how="inner", validate="many_to_one")
    joined = joined.sort_values([*FIELD, "object_number"], kind="stable").reset_index(drop=True)
    joined["field"] = joined["plate"] + "_" + joined["well"] + "_s" + joined["site"].astype(str)
    joined["cell_id"] = joined["field"] + "_" + joined["object_number"].astype(str)
    twice = joined["cell_id"].duplicated()
    if twice.any():
        raise InputError(f"{where_of(joined[twice].iloc[0])} has two cells with one object number; renumber them")
    return joined


def _without_cells(screen: Screen, cells: pd.DataFrame, config: CropConfig) -> Screen:
    """The screen with its plates and treatments that have no cell in `left_out`; InputError without skip_missing."""
    plates = [plate for plate in screen.table["plate"].unique() if not (cells["plate"] == plate).any()]
    if plates and len(cells) and not config.skip_missing:
        raise InputError(
            f'plate "{plates[0]}" has no cell whose crop lies inside a field ({counted(len(plates), "such plate")}). '
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
    return screen.leaving_out(counts)
