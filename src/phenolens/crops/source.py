"""Open a source in any layout: its screen, its cells, and how their crops are read. The one call for crop and check."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from phenolens.core.errors import InputError
from phenolens.core.progress import tell, track
from phenolens.crops.cut import FieldCutter, refuse_outside
from phenolens.screens.centres import centres_from
from phenolens.screens.config import LayoutConfig
from phenolens.screens.cropset import CropReader
from phenolens.screens.image_files import file_on_disk, is_zarr, part_name
from phenolens.screens.layouts import centres_path, layout_named
from phenolens.screens.read_image import Headers
from phenolens.screens.screen import FIELD, Screen, Selection, where_of

OR_SKIP = ", or run with --skip-missing"
UNREADABLE = "fields with a file that cannot be read"


@dataclass(frozen=True)
class MissingChunks:
    """Chunks of OME-Zarr images that are not on disk and are read as the fill value (0 as a rule)."""

    n: int
    n_fields: int
    first: str  # the place of the first of them

    def __str__(self) -> str:
        """One line for a person."""
        return (
            f"{self.n:,} chunks in {self.n_fields:,} fields are not on disk and are read as empty: {self.first}. This "
            "is right if the writer leaves out chunks of zeros, as zarr does; otherwise the copy is not complete"
        )


@dataclass(frozen=True)
class Source:
    """What a source holds, and how the crops of its cells are read."""

    screen: Screen
    # a row a cell: plate, well, site, object_number and y, x (or the path of its finished crop); None: to be found
    cells: pd.DataFrame | None
    read: CropReader
    headers: Headers  # of the images opened so far
    missing_chunks: MissingChunks | None = None

    @property
    def field_px(self) -> tuple[int, int] | None:
        """Height and width of every field; None for finished crops."""
        return self.read.size if isinstance(self.read, FieldCutter) else None


def open_source(
    path: Path,
    *,
    layout: str,
    config: LayoutConfig | None = None,
    selection: Selection | None = None,
    cells: str = "auto",
    needs_roles: bool = False,
    all_headers: bool = True,
) -> Source:
    """Open a source folder; no pixel is decoded.

    Args:
        path: The source folder.
        layout: One of LAYOUTS.
        config: Where the source has its tables, centres and channels.
        selection: The part of the source to take.
        cells: "given": centres come from a table; "auto": they do where there is one; else they are not read.
        needs_roles: Refuse a source without a treated or a control well.
        all_headers: Read the header of every image, so that damaged files are found before any work.

    Raises:
        InputError: As the layout's reader and `with_whole_files`; a plate's name cannot name a file; a centre lies
            outside its field.
    """
    path, config, selection = Path(path), config or LayoutConfig(), selection or Selection()
    screen, finished = layout_named(layout).open(path, config, selection)
    for plate in screen.table["plate"].unique():
        part_name(str(plate))
    if needs_roles:
        _refuse_without_roles(screen, path)
    headers = Headers()
    if finished is not None:
        return Source(screen, finished.cells, finished.read, headers)
    if all_headers:
        screen = with_whole_files(screen, headers, skip_missing=selection.skip_missing)
        if needs_roles:
            _refuse_without_roles(screen, path)
    centres: pd.DataFrame | None = None
    has_table = config.centres is not None or centres_path(path, config).exists()
    if cells == "given" or (cells == "auto" and has_table):
        centres, counts = centres_from(centres_path(path, config), screen, skip_missing=selection.skip_missing)
        screen = replace(screen, left_out={**screen.left_out, **counts})
    return source_of_fields(screen, centres, headers=headers)


def source_of_fields(screen: Screen, centres: pd.DataFrame | None, *, headers: Headers | None = None) -> Source:
    """The source of a screen's fields with the centres of their cells (`plate`, `well`, `site`, `object_number`, ...).

    InputError for a screen without images, and for a centre that is not a number or outside its field.
    """
    missing = [f"file_{channel}" for channel in screen.channels if f"file_{channel}" not in screen.table]
    if missing:
        raise InputError(f"the screen names no images (no column {missing[0]}); read it with its folder of images")
    headers = headers or Headers()
    first = screen.table.iloc[0]
    found = headers.of_field(screen, first)
    size = found[screen.channels[0]].shape
    if centres is not None:
        refuse_outside(centres.merge(screen.table[FIELD], on=FIELD), size)
    types = {channel: str(header.pixel_type) for channel, header in found.items()}
    read = FieldCutter(screen.folder, size, where_of(first), types)
    return Source(screen, centres, read, headers, missing_chunks(screen, headers))


def with_whole_files(screen: Screen, headers: Headers, *, skip_missing: bool) -> Screen:
    """The screen with only the fields whose every image has a readable header and its full length.

    InputError names the first damaged file and counts them; with `skip_missing` such fields are left out and counted.
    InputError for an image of another size than the first, or of another pixel type than its channel has.
    """
    table = screen.table
    is_whole = np.ones(len(table), bool)
    problem = ""
    seen: dict[str, tuple[object, str]] = {}  # "size" and each channel -> what the first image has, and its name
    for row in track(range(len(table)), "Fields whose files were checked", total=len(table)):
        field = table.iloc[row]
        try:
            found = headers.of_field(screen, field)
        except InputError as error:
            is_whole[row] = False
            problem = problem or str(error)
            continue
        for channel, header in found.items():
            named = f'{where_of(field)}: channel "{channel}"'
            height_width = f"{header.shape[0]} x {header.shape[1]} px"
            for what, value in (("size", height_width), (f"pixel type of {channel}", str(header.pixel_type))):
                expected, first = seen.setdefault(what, (value, named))
                if value != expected:
                    raise InputError(f"{named} is {value}, {first} is {expected}; all fields must have one {what}")
    n = int((~is_whole).sum())
    if not n:
        return screen
    if skip_missing:
        problem = problem.replace(OR_SKIP, "")
    if not skip_missing or not is_whole.any():
        raise InputError(f"{problem} ({n:,} of {len(table):,} fields have such a file)")
    tell(f"left out, {n:,} of {len(table):,} fields with a file that cannot be read; the first: {problem}")
    left_out = Counter(screen.left_out)
    left_out[UNREADABLE] += n
    return replace(screen, table=table[is_whole].reset_index(drop=True), left_out=dict(left_out))


def missing_chunks(screen: Screen, headers: Headers) -> MissingChunks | None:
    """The chunks that a screen's OME-Zarr images lack; None if they lack none."""
    first_files = screen.files(screen.table.iloc[0]).values()
    if not any(is_zarr(file_on_disk(path)) for path in first_files):
        return None
    n = n_fields = 0
    first = ""
    for _, field in screen.table.iterrows():
        lacking = {name: header for name, header in headers.of_field(screen, field).items() if header.n_missing_chunks}
        for channel, header in lacking.items():
            first = first or (
                f'{where_of(field)}: channel "{channel}" lacks {header.n_missing_chunks} of {header.n_chunks}'
            )
            n += header.n_missing_chunks
        n_fields += bool(lacking)
    return MissingChunks(n, n_fields, first) if n else None


def _refuse_without_roles(screen: Screen, path: Path) -> None:
    """InputError for a source without a treated or a control well."""
    roles = set(screen.table["role"])
    if "treated" not in roles:
        raise InputError(
            f"{path}: no well has the role treated, there is nothing to profile; correct the treatments of the wells "
            "(compound, role, --controls), or crop a part of it with --plates"
        )
    if "control" not in roles:
        raise InputError(
            f"{path}: no control well is left, and profiles are scaled by the controls; bring their images, or crop a "
            "part of it with --plates"
        )
