"""Open a source in any layout: its screen, its cells, and how their crops are read. The one call for crop and check.

n cells, C channels, S x S pixels. A cell's centre (y, x) is in pixels of its field, the centre of the first pixel is
0, 0. The crop's middle pixel (S // 2, S // 2) is the pixel nearest to the centre, halves upwards: with S = 68 the
centre (599, 1173) takes rows 565 to 632 and columns 1139 to 1206.
"""

from collections import defaultdict
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.progress import tell, track
from phenolens.core.workers import ONE, AtOnce, done_by_workers
from phenolens.crops.illumination import Illumination, as_pixels, check_fits, divided, load_illumination
from phenolens.screens.centres import nuclei_listed_twice, read_centres
from phenolens.screens.config import LayoutConfig
from phenolens.screens.image_reference import file_on_disk, is_zarr
from phenolens.screens.image_states import part_name
from phenolens.screens.layouts import centres_path, layout_named
from phenolens.screens.read_image import Headers, read_field, readable_headers
from phenolens.screens.remote import is_remote
from phenolens.screens.screen import FIELD, CropReader, Screen, Selection, UInt16Array, where_of

Pixel = TypeVar("Pixel", np.uint16, np.float32)
OR_SKIP = ", or run with --skip-missing"
OF_OTHER_SIZE = "fields of another size or pixel type"
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
            f"not on disk and read as empty: {counted(self.n, 'chunk')} in {counted(self.n_fields, 'field')}: "
            f"{self.first}. This "
            "is right if the writer leaves out chunks of zeros, as zarr does; otherwise the copy is not complete"
        )


@dataclass(frozen=True)
class FieldCutter:
    """Reads a field's images and cuts the crops of its cells."""

    folder: Path  # of the screen's files
    size: tuple[int, int]  # height and width of every field, pixels
    first: str  # the field that `size` was read from, for messages
    pixel_types: Mapping[str, str]  # channel -> the type of its pixels in every field
    illuminations: Mapping[str, Path] = field(default_factory=dict)  # plate -> file; empty: fields are not corrected

    def __call__(self, rows: pd.DataFrame, crop_px: int | None) -> tuple[UInt16Array, UInt16Array]:
        """The crops (n, C, S, S) of one field's cells, and the same before their light was corrected."""
        assert crop_px is not None
        where = where_of(rows.iloc[0])
        pixels = read_field(self._paths(rows.iloc[0]), where=where, pixel_types=self.pixel_types)
        if pixels.shape[1:] != self.size:
            raise InputError(
                f"{where} is {pixels.shape[1]} x {pixels.shape[2]} px, {self.first} is {self.size[0]} x "
                f"{self.size[1]}; all fields must have the same size"
            )
        y, x = rows["y"].to_numpy(float), rows["x"].to_numpy(float)
        as_given = cut(pixels, y, x, crop_px)
        if not self.illuminations:
            return as_given, as_given
        path = self.illuminations[str(rows["plate"].iloc[0])]
        light = _loaded(path, path.stat().st_mtime_ns)
        check_fits(pixels, light)
        functions = cut(light.functions, y, x, crop_px)  # crops have fewer pixels than the field
        return as_pixels(divided(as_given, functions, offset=light.offset)), as_given

    def files(self, rows: pd.DataFrame) -> list[Path]:
        """The images of these rows' fields, and the illumination that they are corrected with."""
        images = [path for _, field in rows.drop_duplicates(FIELD).iterrows() for path in self._paths(field).values()]
        return images + [self.illuminations[str(plate)] for plate in rows["plate"].unique() if self.illuminations]

    def _paths(self, field: pd.Series) -> dict[str, Path]:
        return {channel: self.folder / field[f"file_{channel}"] for channel in self.pixel_types}


@lru_cache(maxsize=2)
def _loaded(path: Path, changed_ns: int) -> Illumination:  # a file that changed is read again
    return load_illumination(path)[0]


@dataclass(frozen=True)
class Source:
    """What a source holds, and how the crops of its cells are read."""

    screen: Screen
    # a row per cell: plate, well, site, object_number and y, x (or the path of its finished crop); None: to be found
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
    at_once: AtOnce = ONE,
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
        at_once: How many plates' headers are read in parallel.

    Raises:
        InputError: As the layout's reader and `with_whole_files`; a plate's name cannot name a file; a centre lies
            outside its field.
    """
    path, config, selection = Path(path), config or LayoutConfig(), selection or Selection()
    layout_named(layout).refuse_unused(config)
    screen, finished = layout_named(layout).open(path, config, selection)
    for plate in screen.table["plate"].unique():
        part_name(str(plate))
    headers = Headers()
    if finished is None and all_headers:
        screen = with_whole_files(screen, headers, skip_missing=selection.skip_missing, at_once=at_once)
    if needs_roles:
        _refuse_without_roles(screen, path)
    if finished is not None:
        return Source(screen, finished.cells, finished.read, headers)
    centres: pd.DataFrame | None = None
    has_table = config.centres is not None or centres_path(path, config).exists()
    if cells == "given" or (cells == "auto" and has_table):
        centres, counts = read_centres(
            centres_path(path, config), screen, objects=config.objects, skip_missing=selection.skip_missing
        )
        screen = screen.leaving_out(counts).noting(nuclei_listed_twice(centres))
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


def with_whole_files(screen: Screen, headers: Headers, *, skip_missing: bool, at_once: AtOnce = ONE) -> Screen:
    """The screen with only the fields whose every image has a readable header and its full length.

    InputError names the first damaged file and counts them; with `skip_missing` such fields are left out and counted.
    InputError for an image of another size than the first, or of another pixel type than its channel has.
    """
    table = screen.table
    if of_address(screen):
        return screen  # whose listing was checked; a damaged file is found when it is read
    if at_once != ONE:
        plates = [screen.keeping(screen.table["plate"] == plate) for plate in screen.table["plate"].unique()]
        read = done_by_workers(readable_headers, plates, at_once)
        with closing(read):
            for known in track(read, "Plates whose headers were read", total=len(plates)):
                headers.add(known)
    is_whole = np.ones(len(table), bool)
    problem = ""
    # "size" or a channel's pixel type, and its value -> the images (row, channel) that have it
    images: defaultdict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
    for row in track(range(len(table)), "Fields whose files were checked", total=len(table)):
        field = table.iloc[row]
        try:
            found = headers.of_field(screen, field)
        except InputError as error:
            is_whole[row] = False
            problem = problem or str(error)
            continue
        for channel, header in found.items():
            height_width = f"{header.shape[0]} x {header.shape[1]} px"
            of_channel = f'pixel type in channel "{channel}"'
            for kind in (("size", height_width), (of_channel, str(header.pixel_type))):
                images[kind].append((row, channel))
    usual: dict[str, str] = {}
    for what, value in sorted(images, key=lambda kind: -len(images[kind])):
        usual.setdefault(what, value)
    odd = {kind: others for kind, others in images.items() if kind not in usual.items()}
    n_unreadable, odd_rows = int((~is_whole).sum()), sorted({row for others in odd.values() for row, _ in others})
    is_whole[odd_rows] = False
    can_go_on = skip_missing and bool(is_whole.any())
    if odd and not can_go_on:
        (what, value), others = next(iter(odd.items()))
        named, other = (
            f'{where_of(table.iloc[row])}: channel "{channel}"'
            for row, channel in (others[0], images[what, usual[what]][0])
        )
        or_skip = "" if skip_missing else f", or leave {counted(len(odd_rows), 'other field')} out with --skip-missing"
        raise InputError(
            f"{named} is {value}, {other} is {usual[what]}; all fields must have the same {what}: choose plates with "
            f"--plates{or_skip}"
        )
    if n_unreadable:
        if skip_missing:
            problem = problem.replace(OR_SKIP, "")
        if not can_go_on:
            raise InputError(f"{problem} ({n_unreadable:,} of {len(table):,} fields have such a file)")
        tell(
            f"left out, {n_unreadable:,} of {len(table):,} fields with a file that cannot be read; the first: {problem}"
        )
    return screen.keeping(is_whole).leaving_out({UNREADABLE: n_unreadable, OF_OTHER_SIZE: len(odd_rows)})


def of_address(screen: Screen) -> bool:
    """Whether the images of a screen are downloaded when they are read."""
    return any(is_remote(path) for path in screen.files(screen.table.iloc[0]).values())


def missing_chunks(screen: Screen, headers: Headers) -> MissingChunks | None:
    """The chunks that a screen's OME-Zarr images lack; None if they lack none."""
    first_files = screen.files(screen.table.iloc[0]).values()
    if of_address(screen) or not any(is_zarr(file_on_disk(path)) for path in first_files):
        return None
    n = n_fields = 0
    first = ""
    for _, row in screen.table.iterrows():
        lacking = {name: header for name, header in headers.of_field(screen, row).items() if header.n_missing_chunks}
        for channel, header in lacking.items():
            first = first or (
                f'{where_of(row)}: channel "{channel}" lacks {header.n_missing_chunks} of {header.n_chunks}'
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
            "(compound, role, --control), or crop a part of it with --plates"
        )
    if "control" not in roles:
        raise InputError(
            f"{path}: no control well is left, and profiles are scaled by the controls; add their images, or crop a "
            "part of it with --plates"
        )


def cut(
    field: npt.NDArray[Pixel], y: npt.NDArray[np.floating], x: npt.NDArray[np.floating], crop_px: int
) -> npt.NDArray[Pixel]:
    """The windows of (C, H, W) around n centres: (n, C, S, S). The windows must lie inside the field."""
    top, left = first_pixel(y, crop_px), first_pixel(x, crop_px)
    windows = np.lib.stride_tricks.sliding_window_view(field, (crop_px, crop_px), axis=(1, 2))
    return np.moveaxis(windows, 0, 2)[top, left]


def first_pixel(centre: npt.NDArray[np.floating], crop_px: int) -> npt.NDArray[np.int64]:
    """The first row (or column) of the crop around each centre."""
    return np.floor(centre + 0.5).astype(np.int64) - crop_px // 2


def fits_inside(
    y: npt.NDArray[np.floating], x: npt.NDArray[np.floating], size: tuple[int, int], crop_px: int
) -> npt.NDArray[np.bool_]:
    """Whether each crop lies inside a field of `size` (height, width)."""
    fits = np.ones(len(y), dtype=bool)
    for centre, length in ((y, size[0]), (x, size[1])):
        first = first_pixel(centre, crop_px)
        fits &= (first >= 0) & (first + crop_px <= length)
    return fits


def refuse_outside(cells: pd.DataFrame, size: tuple[int, int]) -> None:
    """InputError for a centre that is not a number or outside its field of `size` (height, width)."""
    position = np.floor(cells[["y", "x"]].to_numpy(float) + 0.5)
    no_number = ~np.isfinite(position).all(axis=1)
    outside = ~no_number & ((position < 0) | (position >= np.array(size))).any(axis=1)
    for bad, what in ((no_number, "is not a number"), (outside, f"is outside the field of {size[0]} x {size[1]} px")):
        if bad.any():
            cell = cells[bad].iloc[0]
            raise InputError(
                f"{where_of(cell)}, object {cell['object_number']}: centre y {cell['y']:g}, x {cell['x']:g} {what} "
                f"({counted(int(bad.sum()), 'such cell')}); expected pixels, y the row and x the column, from 0. "
                "Correct them; no crop was written."
            )
