"""Settings of a source folder: its table, plate map, pattern, channels, controls, centres."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from phenolens.core.bounds import Bounded, Bounds, NotNegativeCount, Positive, Share
from phenolens.core.errors import InputError
from phenolens.core.names import shortened

SAME_CONTENT = ("anonymous", "cache", "cache_gb", "trust_centres")  # settings that do not change what is read
TABLES = (".csv", ".csv.gz", ".tsv", ".txt", ".xlsx", ".parquet")
KINDS = "|".join(map(re.escape, TABLES))
IS_PLATE_MAP = re.compile(rf"plate[ _-]?map(?:{KINDS})", re.IGNORECASE)  # in a source folder
LIKE_PLATE_MAP = re.compile(
    rf"(?!\.).*(?:plate[ _-]?map|layout|treatments?|compounds?).*(?:{KINDS}|\.xls)", re.IGNORECASE
)


@dataclass(frozen=True)
class LayoutConfig(Bounded):
    """Where a source has its images and treatments; paths are as given, or else within the source."""

    # the CSV of images (table: images.csv in the source; loaddata: load_data.csv; deepprofiler: index.csv)
    table: Path | None = None
    # table with a row per well: well, compound ... (default: plate_map.csv or .tsv or .xlsx in the source)
    plate_map: Path | None = None
    # file names of --layout pattern, such as {plate}/{well}_s{site}_w{channel}.tif, or an instrument: phenix
    pattern: str = ""
    # wells of a plate, for patterns with {index} (cq1), where names number the wells row by row
    plate_wells: Literal[6, 12, 24, 48, 96, 384, 1536] | None = None
    channels: tuple[str, ...] = ()  # channels to take, in this order, also renamed as DNA=w1; all when none is named
    z: str = ""  # plane of a stack: its number, max (the largest value of each pixel) or brightest (plane)
    t: NotNegativeCount | None = None  # time point, where there are several; numbered as in the names of the files
    # grey value that means no light, which is subtracted; left out: values that do not begin near 0 are refused
    black_level: Annotated[int, Bounds(ge=0, le=65_535)] | None = None
    control: tuple[str, ...] = ("DMSO",)  # compounds that are controls where there is no column role
    plate_column: str | None = None  # column of the plate; left out: one of the names in docs/formats.md
    well_column: str | None = None  # column of the well
    site_column: str | None = None  # column of the field within the well
    batch_column: str | None = None  # column of the batch
    compound_column: str | None = None  # column of the compound, such as gene
    concentration_column: str | None = None  # column of the concentration, in micromolar or the unit in its name
    mechanism_column: str | None = None  # column of the mechanism of action
    role_column: str | None = None  # column that holds treated, control or other
    # wells with these values in columns of the tables, such as time=24h cell_line=U2OS; left out: all wells
    only: tuple[str, ...] = ()
    same_dose_within: Share = 0.0  # doses of a compound that differ by at most this share (0.01) count as one
    # centres of cells: table, folder or SQLite (default: Nuclei.csv in the source, if it exists)
    centres: Path | None = None
    objects: str = "Nuclei"  # CellProfiler's name of the objects in tables of centres, such as FilteredNuclei
    trust_centres: bool = False  # take given centres, with a note, where the images do not seem to fit them
    anonymous: bool = False  # read a source by address (s3://, gs://) without credentials, as public buckets allow
    cache: Path | None = None  # folder for what is downloaded of a source by address (default: ~/.cache/phenolens)
    cache_gb: Positive = 50.0  # most of its images that the cache keeps, in 10^9 bytes

    @property
    def named_columns(self) -> dict[str, str]:
        """The screen's column -> the one that a flag names for it."""
        named = {
            "plate": self.plate_column,
            "well": self.well_column,
            "site": self.site_column,
            "batch": self.batch_column,
            "compound": self.compound_column,
            "concentration_um": self.concentration_column,
            "moa": self.mechanism_column,
            "role": self.role_column,
        }
        return {ours: name for ours, name in named.items() if name is not None}

    def plate_map_path(self, source: Path) -> Path | None:
        """The plate map, given or in the source; None where there is none."""
        if self.plate_map is not None:
            return given_path(self.plate_map, source)
        found = sorted(path for path in Path(source).glob("*") if IS_PLATE_MAP.fullmatch(path.name))
        if len(found) > 1:
            raise InputError(f"{source}: {' and '.join(path.name for path in found)}; name one with --plate-map")
        return found[0] if found else None

    def table_path(self, source: Path, default: str | Path) -> Path:
        """The table, given or the source's `default`."""
        return Path(source) / default if self.table is None else given_path(self.table, source)


def like_plate_maps(source: Path) -> str:
    """Tables in a source folder that may be plate maps, by their names, in brackets; empty for none."""
    names = sorted(path.name for path in Path(source).glob("*") if LIKE_PLATE_MAP.fullmatch(path.name))
    return f" (there: {shortened(names)})" if names else ""


def unread_plate_maps(files: Sequence[str], source: Path, config: LayoutConfig) -> list[str]:
    """A note on the files of a source that may be plate maps, by their names, and that are not read; none for none."""
    chosen = config.plate_map_path(source)
    read = [path.resolve() for path in (chosen, config.table) if path is not None]
    others = [path for path in files if LIKE_PLATE_MAP.fullmatch(path.rsplit("/", 1)[-1])]
    unread = [path for path in others if (Path(source) / path).resolve() not in read]
    return [f"tables that may be plate maps and are not read (--plate-map): {shortened(unread)}"] if unread else []


def given_path(path: Path, source: Path) -> Path:
    """The path as given when it exists, or else within the source."""
    inside = Path(source) / path
    return Path(path) if Path(path).exists() else inside


def chosen_channels(found: Sequence[str], wanted: Sequence[str], *, source: str) -> dict[str, str]:
    """Our name of each channel -> the source's own, in the wanted order (`DNA=w1` renames), all of them by default.

    Raises InputError for a channel that the source does not have and for one name used twice.
    """
    if not wanted:
        return {name: name for name in found}
    chosen: dict[str, str] = {}
    for word in wanted:
        ours, _, theirs = word.partition("=")
        theirs = theirs or ours
        if theirs not in found:
            raise InputError(f'{source}: no channel "{theirs}" (there are: {", ".join(found)}); correct --channels')
        if ours in chosen:
            raise InputError(f'--channels: "{ours}" is named twice; a channel has one name')
        chosen[ours] = theirs
    return chosen
