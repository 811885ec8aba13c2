"""Say what a source holds and what is missing, before any work; nothing is written."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from phenolens.errors import InputError
from phenolens.images.cutting import refuse_outside
from phenolens.images.fields import field_size
from phenolens.images.sampling import look_at_fields
from phenolens.images.sources import part_name
from phenolens.images.whole_files import MissingChunks, missing_chunks, with_whole_files
from phenolens.screen.bbbc021 import Treatments
from phenolens.screen.cropset import read_cropset
from phenolens.screen.h5sc import h5sc_file, read_h5sc, side_px
from phenolens.screen.layout_config import LayoutConfig
from phenolens.screen.layouts import centres_path, read_screen, read_screen_centres
from phenolens.screen.table import FIELD, Screen, where_of

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
