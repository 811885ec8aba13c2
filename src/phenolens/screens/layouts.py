"""Read a screen by the name of its layout, and find its cells' centres. The one place that knows all layouts."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pandas as pd

from phenolens.core.errors import InputError
from phenolens.screens.bbbc021 import Treatments, labelled, read_bbbc021
from phenolens.screens.centres import DEFAULT_NAME, centres_from
from phenolens.screens.config import LayoutConfig, given_path
from phenolens.screens.deepprofiler import locations_folder, read_deepprofiler
from phenolens.screens.filename_pattern import read_pattern
from phenolens.screens.image_files import with_files
from phenolens.screens.image_table import read_table
from phenolens.screens.loaddata import read_loaddata
from phenolens.screens.ome_zarr import read_ome_zarr
from phenolens.screens.screen import Screen, select

READERS: dict[str, Callable[..., Screen]] = {
    "table": read_table,
    "loaddata": read_loaddata,
    "pattern": read_pattern,
    "ome-zarr": read_ome_zarr,
    "deepprofiler": read_deepprofiler,
}


def read_screen(
    source: Path,
    *,
    layout: str,
    config: LayoutConfig | None = None,
    treatments: Treatments = "labelled",
    plates: Iterable[str] = (),
    wells: Iterable[str] = (),
    sites: Iterable[int] = (),
    skip_missing: bool = False,
) -> Screen:
    """The screen of a source folder in the layout bbbc021 or one of READERS, each image known to be there.

    The choices and what they refuse are those of read_bbbc021. "labelled" keeps the controls and the treatments with a
    known mechanism, and is refused where none is known.
    """
    source, config = Path(source), config or LayoutConfig()
    if layout == "bbbc021":
        return read_bbbc021(
            source,
            images=source,
            treatments=treatments,
            plates=plates,
            wells=wells,
            sites=sites,
            skip_missing=skip_missing,
        )
    if layout not in READERS:
        raise InputError(f'layout "{layout}" is not known; expected bbbc021 or {" or ".join(READERS)}')
    if not source.is_dir():
        raise InputError(f"{source}: no such folder; give the folder that holds the images")
    whole = READERS[layout](source, config=config, skip_missing=skip_missing)
    if treatments == "labelled" and not whole.table["moa"].notna().any():
        raise InputError(
            f"{source}: no treatment has a mechanism (no column moa, or an empty one); run with --treatments all, or "
            f"add "
            "the mechanisms that are known"
        )
    kept = labelled(whole) if treatments == "labelled" else whole
    chosen = select(kept, plates=plates, wells=wells, sites=sites)
    return with_files(chosen, skip_missing=skip_missing)


def read_screen_centres(
    source: Path, screen: Screen, *, config: LayoutConfig | None = None, skip_missing: bool = False
) -> tuple[pd.DataFrame, Screen]:
    """The cells' centres, as read_centres gives them, and the screen with what was left out counted in it."""
    path = centres_path(source, config)
    centres, counts = centres_from(path, screen, skip_missing=skip_missing)
    return centres, replace(screen, left_out={**screen.left_out, **counts})


def centres_path(source: Path, config: LayoutConfig | None = None) -> Path:
    """Where the cells' centres are: as given, or Nuclei.csv in the source, or the locations of DeepProfiler there."""
    given = (config or LayoutConfig()).centres
    if given is not None:
        return given_path(given, source)
    usual, locations = Path(source) / DEFAULT_NAME, locations_folder(source)
    return usual if usual.exists() or locations is None else locations
