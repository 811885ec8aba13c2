"""Report what a source holds and what is missing, before any work; nothing is written.

Only the pixels of a sample of fields are decoded, one field in memory at a time. Damage in the middle of a compressed
image of another field is found when it is read.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.names import shortened
from phenolens.core.progress import track
from phenolens.core.workers import ONE, AtOnce
from phenolens.crops.centres_on_pixels import CentresHeld
from phenolens.crops.config import NucleiConfig
from phenolens.crops.grey_values import DARKEST, SAMPLE, grey_range, refuse_raised, sampled_fields
from phenolens.crops.nuclei import diameters_px, label_nuclei
from phenolens.crops.quality_control import TILE_PX, field_quality, quality_flags
from phenolens.crops.quality_measures import detector_maximum
from phenolens.crops.source import Source, open_source, source_of_fields, with_whole_files
from phenolens.screens.config import LayoutConfig
from phenolens.screens.layouts import centres_path, layout_named
from phenolens.screens.plate_map import NoTreatments
from phenolens.screens.read_image import Headers, read_field
from phenolens.screens.remote import shown
from phenolens.screens.repeated_images import copied_images
from phenolens.screens.screen import FIELD, Screen, Selection, Treatments, where_of

MOST_NAMED = 4  # flagged fields that are named; more are counted

Rows = list[tuple[str, str]]  # what, and what was found


@dataclass(frozen=True)
class Checked:
    """What was found: rows of `there` and `missing`; `has_cells` and `has_treatments` say what is given."""

    screen: Screen
    there: tuple[tuple[str, str], ...]
    missing: tuple[tuple[str, str], ...]
    has_cells: bool
    has_treatments: bool = True


def check_source(
    source: Path,
    *,
    layout: str,
    config: LayoutConfig | None = None,
    treatments: Treatments = "all",
    plates: Sequence[str] = (),
    skip_missing: bool = False,
    sample: int = SAMPLE,
    at_once: AtOnce = ONE,
) -> Checked:
    """Check every table, file name and image header of a source (or of `plates`), and the pixels of `sample` fields.

    Raises InputError, as `open_source` does, where it cannot be used; with `skip_missing` what is missing is counted.
    """
    source, config = Path(source), config or LayoutConfig()
    selection = Selection(treatments, plates=tuple(plates), skip_missing=skip_missing)
    try:
        opened = open_source(source, layout=layout, config=config, selection=selection, at_once=at_once)
    except NoTreatments as error:
        if not layout_named(layout).has_fields:
            raise
        return _without_treatments(error, layout=layout, config=config, selection=selection, sample=sample)
    if opened.field_px is None:
        assert opened.cells is not None
        crops, _ = opened.read(opened.cells.iloc[:1], None)
        images: Rows = [("images", f"crops of {crops.shape[2]} x {crops.shape[3]} px")]
        of_cells = shown(source)
    else:
        of_cells = shown(centres_path(source, config))
        images = _sampled_images(opened, sample=sample, config=config, of_cells=of_cells)
        images += _copies(opened.screen)
    there, missing = _contents(opened.screen, images)
    there += [("note", note) for note in opened.screen.notes]
    if opened.cells is not None:
        fields = pd.MultiIndex.from_frame(opened.screen.table[FIELD])
        per_field = opened.cells.groupby(FIELD).size().reindex(fields, fill_value=0)
        in_words = f"{len(opened.cells):,} in {of_cells}, {_range(per_field)} a field (median {per_field.median():g})"
        there.append(("cells", in_words))
        missing += _counted({"fields without a cell": int((per_field == 0).sum())})
        if empty := opened.screen.wells_without(opened.cells):
            missing.append(("wells without a cell, so without a profile", f"{len(empty):,}: {shortened([*empty])}"))
    if opened.missing_chunks is not None:
        missing.append(("chunks", str(opened.missing_chunks)))
    if opened.cells is None:
        missing.append(("centres of cells", f"no {of_cells}: give them with --centres, or crop finds the cells"))
    return Checked(opened.screen, (("layout", layout), *there), tuple(missing), has_cells=opened.cells is not None)


def _without_treatments(
    error: NoTreatments, *, layout: str, config: LayoutConfig, selection: Selection, sample: int
) -> Checked:
    """The images of a source whose treatments are not known, and what is missing."""
    headers = Headers()
    chosen = replace(selection, treatments="all").of(error.screen)
    screen = with_whole_files(chosen, headers, skip_missing=selection.skip_missing)
    opened = source_of_fields(screen, None, headers=headers)
    table, wells = screen.table, screen.wells
    there = [
        ("layout", layout),
        ("plates", f"{table['plate'].nunique()}: {shortened(sorted(table['plate'].unique()))}"),
        ("wells", f"{len(wells)}: {shortened(sorted(wells['well'].unique()))}"),
        ("sites", f"{_range(table.groupby(['plate', 'well']).size())} a well, {counted(len(table), 'field')} in all"),
        ("channels", ", ".join(screen.channels)),
        *_sampled_images(opened, sample=sample, config=config, of_cells=""),
        *_copies(screen),
        *(("note", note) for note in screen.notes),
    ]
    missing = _left_out(screen)
    missing += [("chunks", str(opened.missing_chunks))] if opened.missing_chunks is not None else []
    return Checked(screen, tuple(there), (*missing, ("treatments", str(error))), has_cells=False, has_treatments=False)


def _contents(screen: Screen, images: Rows) -> tuple[Rows, Rows]:
    """What a screen has, and what it lacks."""
    table, wells, treatments = screen.table, screen.wells, screen.treatments
    sites = table.groupby(["plate", "well"]).size()
    by_role = wells["role"].value_counts()
    controls = wells["compound"][wells["role"] == "control"].unique()
    known = treatments["moa"].notna()
    n_compounds = treatments["compound"].nunique()
    there = [
        ("plates", f"{table['plate'].nunique()} in {counted(table['batch'].nunique(), 'batch', plural='batches')}"),
        ("wells", f"{len(wells)}: " + ", ".join(f"{n} {role}" for role, n in by_role.items())),
        ("sites", f"{_range(sites)} a well, {counted(len(table), 'field')} in all"),
        ("channels", ", ".join(screen.channels)),
        *images,
        ("controls", ", ".join(map(str, controls))),
        ("compounds", f"{n_compounds} in {counted(len(treatments), 'treatment')} (compound at a concentration)"),
        (
            "mechanisms",
            f"{treatments['moa'].nunique()}, known for {int(known.sum())} of {counted(len(treatments), 'treatment')}",
        ),
    ]
    has_control = (wells["role"] == "control").groupby(wells["plate"]).any()
    missing = {
        "wells without a treatment, so that nothing can be profiled": 0 if "treated" in by_role else len(wells),
        "plates without a control well": int((~has_control).sum()),
        f"treatments without a mechanism{' (no crops unless --treatments all)' if known.any() else ''}": (~known).sum(),
    }
    return there, _left_out(screen) + _counted(missing)


def _left_out(screen: Screen) -> Rows:
    return [(f"left out: {what}", n) for what, n in _counted(screen.left_out)]


def _counted(counts: Mapping[str, int]) -> Rows:
    return [(what, f"{n:,}") for what, n in counts.items() if n]


def _range(counts: pd.Series) -> str:
    low, high = int(counts.min()), int(counts.max())
    return f"{low}" if low == high else f"{low} to {high}"


def _sampled_images(source: Source, *, sample: int, config: LayoutConfig, of_cells: str) -> Rows:
    """Size, pixel type and grey values of the images, and the quality of `sample` fields.

    InputError where the given centres, from `of_cells`, do not fit the images.
    """
    screen, fields = source.screen, sampled_fields(source.screen, sample)
    headers = [source.headers.of_field(screen, row) for _, row in fields.iterrows()]
    held = None if source.cells is None else CentresHeld(source.cells, screen.channels)
    ranges, rows = [], []
    alike: Counter[tuple[str, str]] = Counter()  # fields whose two channels have the same pixels
    values: list[list[npt.NDArray[np.uint16]]] = []  # of each field, those of each channel
    for _, row in track(fields.iterrows(), "Fields checked", total=len(fields)):
        pixels = read_field(screen.files(row), where=where_of(row))
        if held is not None:
            held.add(row, pixels)
        ranges.append(grey_range(pixels))
        pairs = combinations(range(len(pixels)), 2)
        alike.update((screen.channels[i], screen.channels[j]) for i, j in pairs if np.array_equal(pixels[i], pixels[j]))
        values.append([np.unique(channel) for channel in pixels])  # all that the detector's maximum follows from
        if min(pixels.shape[1:]) >= TILE_PX:
            rows.append(field_quality(pixels, channels=screen.channels))
    if config.black_level is None:
        refuse_raised(ranges, fields, screen.channels)
    dark, bright = np.moveaxis(np.stack(ranges), 2, 0)
    scales: dict[int, list[str]] = {}  # the largest value of a detector -> its channels
    for channel, of_channel in zip(screen.channels, zip(*values)):
        largest = detector_maximum(of_channel, bits=max(header[channel].bits for header in headers))
        scales.setdefault(largest, []).append(channel)
    named = [f"{largest:,} ({', '.join(names)})" for largest, names in scales.items()]
    scale = " and ".join(named) if len(scales) > 1 else f"{next(iter(scales)):,}"
    types = ", ".join(sorted({str(header.pixel_type) for of_field in headers for header in of_field.values()}))
    height, width = headers[0][screen.channels[0]].shape
    images = (
        f"{height} x {width} px (height x width), {types}; full scale {scale}, the brightest pixel has "
        f"{bright.max():,.0f}, the darkest {DARKEST:g} % are below {dark.min():,.0f} (read: {len(fields)} of "
        f"{counted(len(screen.table), 'field')})"
    )
    found = [("images", images), ("quality", _quality(screen, fields, rows))]
    found += [
        ("note", f"channels {first} and {second} have the same pixels in {n} of {counted(len(fields), 'field')} read")
        for (first, second), n in alike.items()
    ]
    centres = None if held is None else held.result()
    if centres is not None and centres.problem:
        if not config.trust_centres:
            raise InputError(centres.refusal(of_cells))
        found.append(("note", f"the centres may not fit the images: {centres.problem}"))
    return found if centres is None else [*found, ("centres", str(centres))]


def _copies(screen: Screen) -> Rows:
    """Which image files are copies of another under a second name."""
    copies, n_files = copied_images(screen)
    if not copies:
        return [("copies", f"none among {counted(n_files, 'image file')}")] if n_files else []
    path, first = copies[0]
    found = f"{len(copies):,} of {n_files:,} image files have the bytes of another; the first: {path} and {first}"
    return [("copies", found)]


def _quality(screen: Screen, fields: pd.DataFrame, rows: list[dict[str, float | bool]]) -> str:
    """How many of the fields are flagged, and the first of them with the reason."""
    if len(rows) < len(fields):
        return f"not judged: fields have less than {TILE_PX} px a side"
    flags = quality_flags(pd.DataFrame(rows), channels=screen.channels)
    flagged = [
        f"plate {field['plate']}, well {field['well']}, site {field['site']}: {why}"
        for (_, field), why in zip(fields.iterrows(), flags)
        if why
    ]
    more = [f"and {len(flagged) - MOST_NAMED} more"] if len(flagged) > MOST_NAMED else []
    count = f"{counted(len(fields), 'field')} checked, {len(flagged) or 'none'} flagged"
    return "\n".join([f"{count}:", *flagged[:MOST_NAMED], *more]) if flagged else count


def field_of(screen: Screen, plate: str, well: str, site: int) -> pd.Series:
    """The row of one field; InputError names what the screen does not have."""
    return Selection("all", (plate,), (well,), (site,)).of(screen).table.iloc[0]


@dataclass(frozen=True)
class FieldWithNuclei:
    """A field's DNA channel (H, W) and the label image of the nuclei found in it (0 background, 1..n)."""

    name: str
    dna: npt.NDArray[np.uint16]
    labels: npt.NDArray[np.int32]

    @property
    def signal(self) -> float:
        """What the pixels exceed the background by, on average: more with more nuclei, however these are searched."""
        return float(self.dna.mean() - np.median(self.dna))

    @property
    def n_nuclei(self) -> int:
        """How many nuclei are found, those cut by the border too."""
        return int(self.labels.max(initial=0))

    @property
    def diameters_px(self) -> list[float]:
        """The diameter of each nucleus that no border cuts, in pixels."""
        return [float(diameter) for diameter in diameters_px(self.labels) if diameter > 0]


def found_nuclei(screen: Screen, field: pd.Series, *, config: NucleiConfig) -> FieldWithNuclei:
    """The nuclei found in a field's first channel, as `phenolens crop` finds them."""
    channel = screen.channels[0]
    name = where_of(field)
    dna = read_field({channel: screen.files(field)[channel]}, where=name)[0]
    return FieldWithNuclei(f"{name}, channel {channel}".replace('"', ""), dna, label_nuclei(dna, config=config))


def count_nuclei(screen: Screen, *, sample: int, config: NucleiConfig) -> pd.DataFrame:
    """`sampled_fields` with `signal`, `n_nuclei` (also those cut by the border) and the others' `diameters_px`."""
    fields = sampled_fields(screen, sample)
    tracked = track(fields.iterrows(), "Fields searched for nuclei", total=len(fields))
    found = [found_nuclei(screen, row, config=config) for _, row in tracked]
    diameters = pd.Series([each.diameters_px for each in found], index=fields.index)
    signal, n_nuclei = [each.signal for each in found], [each.n_nuclei for each in found]
    return fields.assign(signal=signal, n_nuclei=n_nuclei, diameters_px=diameters)


def median_field(counted: pd.DataFrame) -> pd.Series:
    """The field with the median signal; of two in the middle the lower, of equals the first.

    Not of the number of nuclei, so that pictures with other settings of nuclei show the same field.
    """
    order = counted.sort_values("signal", kind="stable")
    return order.iloc[(len(order) - 1) // 2]
