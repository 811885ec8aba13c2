"""Say what a source holds and what is missing, before any work; nothing is written.

No pixel is decoded, so damage in the middle of a compressed image is told only when it is read.

Fields are taken evenly over the screen, and one is in memory at a time.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from phenolens.core.errors import InputError
from phenolens.core.progress import tell, track
from phenolens.crops.cut import refuse_outside
from phenolens.crops.nuclei import NucleiConfig, label_nuclei
from phenolens.crops.quality_control import TILE_PX, field_quality, quality_flags
from phenolens.crops.read_image import field_size, full_scale, open_plane, read_field
from phenolens.crops.read_zarr import chunks_of, is_zarr
from phenolens.screens.bbbc021 import Treatments
from phenolens.screens.config import LayoutConfig
from phenolens.screens.cropset import read_cropset
from phenolens.screens.image_files import file_on_disk, image_reference, part_name
from phenolens.screens.layouts import centres_path, read_screen, read_screen_centres
from phenolens.screens.scportrait import h5sc_file, read_h5sc, side_px
from phenolens.screens.screen import FIELD, Screen, where_of

OR_SKIP = ", or run with --skip-missing"
UNREADABLE = "fields with a file that cannot be read"


@dataclass(frozen=True)
class MissingChunks:
    """Chunks of OME-Zarr images that are not on disk and are read as the fill value (0 as a rule)."""

    n: int
    n_fields: int
    first: str  # where the first of them are, in words

    def __str__(self) -> str:
        """In one line."""
        return (
            f"{self.n:,} chunks in {self.n_fields:,} fields are not on disk and are read as empty: {self.first}. Right "
            "where the writer leaves out what is black all over, as zarr does; else the copy is not whole"
        )


def with_whole_files(screen: Screen, *, skip_missing: bool) -> Screen:
    """The screen with the fields alone whose every file has an image's head and length.

    InputError for the first that is cut short, foreign, of no bytes or without leave, and says how many there are; with
    `skip_missing` they are left out and counted, and the first is told. InputError for an image of another size than
    the first.
    """
    table = screen.table
    is_whole = np.ones(len(table), bool)
    first = ""
    sizes = _Sizes()
    for row in track(range(len(table)), "Fields whose files were looked at", total=len(table)):
        said = _what_is_wrong(screen, table.iloc[row], sizes)
        is_whole[row] = not said
        first = first or said
    n = int((~is_whole).sum())
    if skip_missing:
        first = first.replace(OR_SKIP, "")
    if not n:
        return screen
    if not skip_missing or not is_whole.any():
        raise InputError(f"{first} ({n:,} of {len(table):,} fields have such a file)")
    tell(f"left out, {n:,} of {len(table):,} fields with a file that cannot be read; the first: {first}")
    left_out = Counter(screen.left_out)
    left_out[UNREADABLE] += n
    return replace(screen, table=table[is_whole].reset_index(drop=True), left_out=dict(left_out))


def missing_chunks(screen: Screen) -> MissingChunks | None:
    """The chunks that a screen's OME-Zarr images lack; None where none is lacking."""
    columns = [f"file_{channel}" for channel in screen.channels]
    if not any(is_zarr(file_on_disk(path)) for path in screen.table[columns].to_numpy().ravel()[: len(columns)]):
        return None
    n = n_fields = 0
    first = ""
    fields = screen.table.iterrows()
    for _, field in track(fields, "Fields whose chunks were counted", total=len(screen.table)):
        before = n
        for named, path in _images(screen, field):
            chunks = chunks_of(image_reference(path), named=named)
            n += chunks.n_missing
            if chunks.n_missing and not first:
                first = f"{named} lacks {chunks.n_missing} of {chunks.n}"
        n_fields += n > before
    return MissingChunks(n, n_fields, first) if n else None


@dataclass
class _Sizes:
    """The size of the first image, which all others must have."""

    first: str = ""
    shape: tuple[int, int] = (0, 0)

    def refuse_another(self, shape: tuple[int, int], *, named: str) -> None:
        if not self.first:
            self.first, self.shape = named, shape
        if shape != self.shape:
            raise InputError(
                f"{named} is {shape[0]} x {shape[1]} px, {self.first} is {self.shape[0]} x {self.shape[1]} px; all "
                "fields must have one size"
            )


def _what_is_wrong(screen: Screen, field: "pd.Series[str]", sizes: _Sizes) -> str:
    """Why the first file of a field that cannot be read cannot; nothing where all can. InputError on another size."""
    shapes = {}
    for named, path in _images(screen, field):
        try:
            with open_plane(path, named=named) as plane:
                shapes[named] = plane.shape
        except InputError as error:
            return str(error)
    for named, shape in shapes.items():
        sizes.refuse_another(shape, named=named)
    return ""


def _images(screen: Screen, field: "pd.Series[str]") -> list[tuple[str, Path]]:
    """Each channel's name in words and its file."""
    where = where_of(field)
    return [(f'{where}: channel "{name}"', screen.folder / field[f"file_{name}"]) for name in screen.channels]


MOST_NAMED = 4  # flagged fields that are named; more are counted


@dataclass(frozen=True)
class FieldWithNuclei:
    """A field's DNA channel (H, W) and the label image of the nuclei found in it (0 background, 1..n)."""

    name: str
    dna: npt.NDArray[np.uint16]
    labels: npt.NDArray[np.int32]

    @property
    def n_nuclei(self) -> int:
        """How many nuclei are found, those cut by the border too."""
        return int(self.labels.max(initial=0))


def sampled_fields(screen: Screen, n: int) -> pd.DataFrame:
    """The rows of at most `n` fields, evenly over the screen's table, the first and the last among them."""
    rows = np.linspace(0, len(screen.table) - 1, min(n, len(screen.table))).round().astype(int)
    return screen.table.iloc[np.unique(rows)]


def look_at_fields(screen: Screen, *, sample: int) -> tuple[str, str]:
    """Size, pixel type and full scale of `sample` fields in words; and the quality of each, in words.

    InputError for fields of two sizes or pixel types, and for a file that cannot be read.
    """
    fields = sampled_fields(screen, sample)
    kinds: dict[tuple[tuple[int, int], str], str] = {}
    bits: set[int] = set()
    brightest: list[int] = []
    rows: list[dict[str, float | bool]] = []

    def read() -> Iterator[npt.NDArray[np.uint16]]:
        for _, row in track(fields.iterrows(), "Fields looked at", total=len(fields)):
            paths = {channel: screen.folder / row[f"file_{channel}"] for channel in screen.channels}
            _headers(row, paths, kinds, bits)
            field = read_field(paths, where=where_of(row))
            brightest.append(int(field.max()))
            if min(field.shape[1:]) >= TILE_PX:
                rows.append(field_quality(field, channels=screen.channels))
            yield field

    scale = full_scale(read())
    if len(bits) == 1 and min(bits) < 16:
        scale = full_scale([np.array([max(brightest)], np.uint16)], bits=min(bits))
    (kind,) = kinds
    pictures = (
        f"{_kind(kind)}; full scale {scale:,}, the brightest pixel has {max(brightest):,} "
        f"(read: {len(fields)} of {len(screen.table):,} fields)"
    )
    return pictures, _quality(screen, fields, rows)


def field_of(screen: Screen, plate: str, well: str, site: int) -> pd.Series:
    """The row of one field; InputError, with what there is, for a field that the screen does not have."""
    rows = screen.table
    for what, name in (("plate", plate), ("well", well), ("site", site)):
        chosen = rows[rows[what].astype(str) == str(name)]
        if chosen.empty:
            there = sorted(map(str, rows[what].unique()))
            raise InputError(
                f'no field of plate "{plate}", well "{well}", site {site}: there is no {what} "{name}" (there are: '
                f"{', '.join(there[:12])}{', ...' if len(there) > 12 else ''}); correct --overlay-field"
            )
        rows = chosen
    return rows.iloc[0]


def found_nuclei(screen: Screen, field: pd.Series, *, config: NucleiConfig) -> FieldWithNuclei:
    """The nuclei found in a field's first channel, as `phenolens crop` finds them."""
    channel = screen.channels[0]
    name = where_of(field)
    dna = read_field({channel: screen.folder / field[f"file_{channel}"]}, where=name)[0]
    return FieldWithNuclei(f"{name}, channel {channel}".replace('"', ""), dna, label_nuclei(dna, config=config))


def count_nuclei(screen: Screen, *, sample: int, config: NucleiConfig) -> pd.DataFrame:
    """`sampled_fields` with `n_nuclei`, those cut by the border too; progress is told."""
    fields = sampled_fields(screen, sample)
    tracked = track(fields.iterrows(), "Fields searched for nuclei", total=len(fields))
    return fields.assign(n_nuclei=[found_nuclei(screen, row, config=config).n_nuclei for _, row in tracked])


def median_field(counted: pd.DataFrame) -> pd.Series:
    """The field with the median number of nuclei; of two in the middle the one with fewer, of equal ones the first."""
    order = counted.sort_values("n_nuclei", kind="stable")
    return order.iloc[(len(order) - 1) // 2]


def _headers(
    row: pd.Series, paths: dict[str, Path], kinds: dict[tuple[tuple[int, int], str], str], bits: set[int]
) -> None:
    """Note the size, pixel type and bits that a field's files state; InputError where they are not those before."""
    for channel, path in paths.items():
        named = f'{where_of(row)}: channel "{channel}"'
        with open_plane(path, named=named) as plane:
            kinds.setdefault((plane.shape, str(plane.pixel_type)), f"{named} ({path})")
            bits.add(plane.bits)
    if len(kinds) > 1:
        (a, where_a), (b, where_b) = list(kinds.items())[:2]
        raise InputError(
            f"{where_b} has {_kind(b)}, {where_a} has {_kind(a)}; all images must have one size and pixel type"
        )


def _kind(kind: tuple[tuple[int, int], str]) -> str:
    (height, width), pixel_type = kind
    return f"{height} x {width} px (height x width), {pixel_type}"


def _quality(screen: Screen, fields: pd.DataFrame, rows: list[dict[str, float | bool]]) -> str:
    """Which of the fields are flagged, and why."""
    if len(rows) < len(fields):
        return f"not judged: fields have less than {TILE_PX} px a side"
    flags = quality_flags(pd.DataFrame(rows), channels=screen.channels)
    flagged = [
        f"plate {field['plate']}, well {field['well']}, site {field['site']}: {why}"
        for (_, field), why in zip(fields.iterrows(), flags)
        if why
    ]
    more = [f"and {len(flagged) - MOST_NAMED} more"] if len(flagged) > MOST_NAMED else []
    said = "\n".join([*flagged[:MOST_NAMED], *more])
    count = f"{len(fields)} field{'' if len(fields) == 1 else 's'} looked at, {len(flagged) or 'none'} flagged"
    return f"{count}:\n{said}" if flagged else count


SAMPLE = 8  # fields whose pixels are read, evenly over the screen


@dataclass(frozen=True)
class Checked:
    """What was found: `there` and `missing` are (what, in words); `has_cells` says whether crops can be cut."""

    screen: Screen
    there: tuple[tuple[str, str], ...]
    missing: tuple[tuple[str, str], ...]
    has_cells: bool


def check_source(
    source: Path,
    *,
    layout: str,
    config: LayoutConfig | None = None,
    treatments: Treatments = "all",
    skip_missing: bool = False,
    sample: int = SAMPLE,
) -> Checked:
    """What a source in one of LAYOUTS holds: every table, name and image's head, and the pixels of `sample` fields.

    Raises InputError, as the readers do, where it cannot be used; with `skip_missing` what is missing is counted. Size
    and pixel type must be the same in all fields looked at.
    """
    config = config or LayoutConfig()
    source = Path(source)
    if layout == "cropset":
        screen, cells = read_cropset(source, treatments=treatments, skip_missing=skip_missing)
        first = _first_crop(source / cells["path"].iloc[0])
        crops = f"crops of {first.shape[0]} x {first.shape[1]} px, {first.dtype}"
        return _checked(screen, (("images", crops),), cells, str(source), layout)
    if layout == "h5sc":
        screen, cells, _ = read_h5sc(source, config=config, treatments=treatments, skip_missing=skip_missing)
        crops = f"{side_px(h5sc_file(source, config))} px wide crops of scPortrait"
        return _checked(screen, (("images", crops),), cells, str(source), layout)
    screen = read_screen(source, layout=layout, config=config, treatments=treatments, skip_missing=skip_missing)
    for plate in screen.table["plate"].unique():
        part_name(str(plate))
    screen = with_whole_files(screen, skip_missing=skip_missing)
    images, quality = look_at_fields(screen, sample=sample)
    pictures = (("images", images), ("quality", quality))
    lacking = missing_chunks(screen)
    path = centres_path(source, config)
    if not path.exists() and config.centres is None:
        return _checked(screen, pictures, None, str(path), layout, lacking=lacking)
    cells, screen = read_screen_centres(source, screen, config=config, skip_missing=skip_missing)
    field = screen.table.iloc[0]
    where = f'{where_of(field)}: channel "{screen.channels[0]}"'
    refuse_outside(cells, field_size(screen.folder / field[f"file_{screen.channels[0]}"], where=where))
    return _checked(screen, pictures, cells, str(path), layout, lacking=lacking)


def _first_crop(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{path}: not a whole .npy ({error}); replace the file") from error


def _checked(
    screen: Screen,
    pictures: tuple[tuple[str, str], ...],
    cells: pd.DataFrame | None,
    centres: str,
    layout: str,
    *,
    lacking: MissingChunks | None = None,
) -> Checked:
    table, wells, treatments = screen.table, screen.wells, screen.treatments
    sites = table.groupby(["plate", "well"]).size()
    by_role = wells["role"].value_counts()
    controls = wells["compound"][wells["role"] == "control"].unique()
    known = treatments["moa"].notna()
    there = [
        ("layout", layout),
        ("plates", f"{table['plate'].nunique()} in {table['batch'].nunique()} batches"),
        ("wells", f"{len(wells)}: " + ", ".join(f"{n} {role}" for role, n in by_role.items())),
        ("sites", f"{_range(sites)} a well, {len(table):,} fields in all"),
        ("channels", ", ".join(screen.channels)),
        *pictures,
        ("controls", ", ".join(map(str, controls))),
        (
            "compounds",
            f"{treatments['compound'].nunique()} in {len(treatments)} treatments (compound at a concentration)",
        ),
        ("mechanisms", f"{treatments['moa'].nunique()}, known for {int(known.sum())} of {len(treatments)} treatments"),
    ]
    missing = list(screen.left_out.items())
    if cells is not None:
        per_field = cells.groupby(FIELD).size().reindex(pd.MultiIndex.from_frame(table[FIELD]), fill_value=0)
        there.append(
            ("cells", f"{len(cells):,} in {centres}, {_range(per_field)} a field (median {per_field.median():g})")
        )
        missing.append(("fields without a cell", int((per_field == 0).sum())))
    if not (wells["role"] == "treated").any():
        missing.append(("wells without a treatment, so that nothing can be profiled", len(wells)))
    per_plate = wells.groupby("plate")["role"].agg(lambda role: bool((role == "control").any()))
    missing += [
        ("plates without a control well", int((~per_plate).sum())),
        ("treatments without a mechanism (no crops unless --treatments all)", int((~known).sum())),
    ]
    counted = tuple((what, f"{n:,}") for what, n in missing if n)
    if lacking is not None:
        counted += (("chunks", str(lacking)),)
    if cells is None:
        counted += (("centres of cells", f"no {centres}: give them with --centres, or crop finds the cells"),)
    return Checked(screen, tuple(there), counted, has_cells=cells is not None)


def _range(counts: pd.Series) -> str:
    low, high = int(counts.min()), int(counts.max())
    return f"{low}" if low == high else f"{low} to {high}"
