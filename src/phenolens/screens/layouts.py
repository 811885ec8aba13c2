"""The layouts in which a source may lie on disk. Flags, help, messages and readers follow from this one table."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from phenolens.core.bounds import flag
from phenolens.core.errors import InputError
from phenolens.screens.bbbc021 import PIXEL_UM, open_cropset, read_bbbc021
from phenolens.screens.centres import nuclei_tables
from phenolens.screens.config import LayoutConfig, given_path
from phenolens.screens.filename_pattern import read_pattern
from phenolens.screens.image_files import choosing, with_files
from phenolens.screens.image_table import locations_folder, read_deepprofiler, read_loaddata, read_table
from phenolens.screens.instrument_index import read_index
from phenolens.screens.jump import read_jump
from phenolens.screens.ome_zarr import read_ome_zarr
from phenolens.screens.plate_map import NoTreatments
from phenolens.screens.repeated_images import refuse_repeated_images
from phenolens.screens.scportrait import open_h5sc
from phenolens.screens.screen import FinishedCrops, Screen, Selection

OF_NAMES = ("pattern", "plate_wells")
Opened = tuple[Screen, FinishedCrops | None]


@dataclass(frozen=True)
class Layout:
    """How a source lies on disk."""

    title: str
    open: Callable[[Path, LayoutConfig, Selection], Opened]  # finished crops: None where they are cut from fields
    pixel_um: float | None = None  # side of a pixel in the specimen, where all sources of this layout have the same
    has_fields: bool = True  # whether it holds fields of view, not finished crops
    unused: Collection[str] = OF_NAMES  # settings of LayoutConfig that say nothing about it

    def refuse_unused(self, config: LayoutConfig) -> None:
        """InputError for a setting that is given and would be ignored."""
        default = LayoutConfig()
        for name in self.unused:
            if getattr(config, name) != getattr(default, name):
                raise InputError(f"{flag(name)}: is not used for {self.title}; leave it out, or give another --layout")


def _bbbc021(source: Path, config: LayoutConfig, selection: Selection) -> Opened:
    return choosing(refuse_repeated_images(read_bbbc021(source, images=source, selection=selection)), config), None


def _fields(
    read: Callable[..., Screen], *, axes: Collection[str] = ("z", "t")
) -> Callable[[Path, LayoutConfig, Selection], Opened]:
    """Open a layout whose reader returns the whole screen, its files not yet searched.

    `axes` are those along which the reader does not choose itself.
    """

    def opened(source: Path, config: LayoutConfig, selection: Selection) -> Opened:
        if not source.is_dir():
            raise InputError(f"{source}: no such folder; give the folder that holds the images")

        def whole_files(screen: Screen) -> Screen:
            found = with_files(screen, skip_missing=selection.skip_missing)
            return choosing(refuse_repeated_images(found), config, axes=axes)

        try:
            whole = read(source, config=config, skip_missing=selection.skip_missing)
        except NoTreatments as error:
            raise NoTreatments(str(error), whole_files(error.screen)) from None
        return whole_files(selection.of(whole)), None

    return opened


OF_PLATE_MAPS = OF_NAMES + tuple(
    "table plate_map channels control plate_column well_column site_column batch_column compound_column "
    "concentration_column mechanism_column role_column only same_dose_within".split()
)
OF_IMAGES = ("z", "t", "black_level", "centres", "objects", "trust_centres")
LAYOUTS = {
    "bbbc021": Layout("a BBBC021 download, or a simulated screen", _bbbc021, pixel_um=PIXEL_UM, unused=OF_PLATE_MAPS),
    "cropset": Layout(
        "BBBC021's public set of single-cell crops",
        open_cropset,
        has_fields=False,
        unused=(*OF_PLATE_MAPS, *OF_IMAGES),
    ),
    "table": Layout("images.csv, a row per field", _fields(read_table)),
    "loaddata": Layout("CellProfiler's load_data.csv or Image.csv", _fields(read_loaddata)),
    "jump": Layout("JUMP-CP: load_data_with_illum.parquet and the JCP2022 tables", _fields(read_jump)),
    "pattern": Layout("file names of a --pattern, and a plate map", _fields(read_pattern, axes=()), unused=("table",)),
    "index": Layout(
        "index of an instrument: Index.idx.xml, MeasurementData.mlf, *.HTD; and a plate map",
        _fields(read_index, axes=()),
        unused=(*OF_NAMES, "table"),
    ),
    "ome-zarr": Layout("OME-Zarr plates, and a plate map", _fields(read_ome_zarr), unused=(*OF_NAMES, "table")),
    "deepprofiler": Layout("a project of DeepProfiler", _fields(read_deepprofiler)),
    "h5sc": Layout("scPortrait's single-cell images", open_h5sc, has_fields=False, unused=(*OF_NAMES, *OF_IMAGES)),
}


def layout_named(name: str) -> Layout:
    """The layout of this name; InputError with all names for another."""
    if name not in LAYOUTS:
        raise InputError(f'layout "{name}" is not known; expected {" or ".join(LAYOUTS)}')
    return LAYOUTS[name]


def centres_path(source: Path, config: LayoutConfig) -> Path:
    """Where the cells' centres are: as given, or Nuclei.csv in the source, or the locations of DeepProfiler there."""
    if config.centres is not None:
        return given_path(config.centres, source)
    found = nuclei_tables(Path(source), config.objects) if Path(source).is_dir() else []
    locations = locations_folder(source)
    if len(found) > 1:
        raise InputError(f"{source}: {' and '.join(path.name for path in found)}; name one with --centres")
    return found[0] if found else locations or Path(source) / f"{config.objects}.csv"
