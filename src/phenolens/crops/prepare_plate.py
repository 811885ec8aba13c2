"""Prepare a plate before its crops are cut: estimate its illumination, find the centres of its cells.

Both are kept with the crops, a file per plate, and computed again only when the images or the settings changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.files import read_parquet_about, sha256, write_parquet
from phenolens.core.progress import track
from phenolens.core.workers import AtOnce, done_by_workers
from phenolens.crops.config import IlluminationConfig, NucleiConfig
from phenolens.crops.illumination import estimate_illumination, load_illumination, save_illumination
from phenolens.crops.nuclei import find_in_field
from phenolens.screens.image_states import content_sha256, fields_sha256, part_name, states_and_newest
from phenolens.screens.read_image import read_field
from phenolens.screens.screen import Screen, where_of

ILLUMINATION_FOLDER, NUCLEI_FOLDER = "illumination", "nuclei"  # in the folder of the crops


@dataclass(frozen=True)
class PlateFile:
    """A plate's fields, and the file of what is computed from them."""

    screen: Screen  # its fields alone
    plate: str
    path: Path
    made_from: (
        str  # hash of everything it follows from and the wells' treatments; of the images, names, sizes and samples
    )
    newest_ns: int  # modification time of its newest image


def plate_files(screen: Screen, folder: Path, *, suffix: str, settings: dict[str, Any]) -> list[PlateFile]:
    """Each plate of the screen with its file in `folder`."""
    plates = []
    for plate, rows in screen.table.groupby("plate", sort=False):
        own = replace(screen, table=rows.reset_index(drop=True))
        states, newest_ns = states_and_newest(
            [path for _, field in rows.iterrows() for path in screen.files(field).values()]
        )
        made_from = sha256(settings, fields_sha256(own.table.drop(columns="moa"), screen.folder), ",".join(states))
        plates.append(PlateFile(own, str(plate), folder / f"{part_name(str(plate))}{suffix}", made_from, newest_ns))
    return plates


def plate_illuminations(
    screen: Screen, folder: Path, config: IlluminationConfig, *, at_once: AtOnce
) -> dict[str, Path]:
    """The illumination of each plate, estimated from all its fields in `screen`: plate -> file of save_illumination.

    InputError as in `illumination_of`: a plate with too few fields, above all.
    """
    plates = plate_files(screen, folder / ILLUMINATION_FOLDER, suffix=".npz", settings={"light": asdict(config)})
    due = [plate for plate in plates if not _illumination_is_kept(plate)]
    results = done_by_workers(partial(_estimate_illumination, config), due, at_once)
    with closing(results):
        for _ in track(results, "Illumination of plates", total=len(due)):
            pass
    return {plate.plate: plate.path for plate in plates}


def check_enough_fields(screen: Screen, config: IlluminationConfig) -> None:
    """InputError for a plate with too few fields to separate its light from its cells; before any work."""
    counts = screen.table.groupby("plate").size()
    if (counts < config.least_fields).any():
        plate = counts.index[counts < config.least_fields][0]
        raise InputError(
            f'plate "{plate}": {counted(counts[plate], "field")}, expected at least {config.least_fields} '
            "(--least-fields) to separate the illumination from the cells; leave its fields uncorrected, or take "
            "more (--treatments all)"
        )


def _estimate_illumination(config: IlluminationConfig, plate: PlateFile) -> None:
    screen = plate.screen
    pixels = (read_field(screen.files(field), where=where_of(field)) for _, field in screen.table.iterrows())
    light = estimate_illumination(pixels, channels=screen.channels, where=f'plate "{plate.plate}"', config=config)
    save_illumination(plate.path, light, about={"made_from": plate.made_from})


def _illumination_is_kept(plate: PlateFile) -> bool:
    try:
        about = load_illumination(plate.path)[1]
    except InputError:
        return False
    return about.get("made_from") == plate.made_from and plate.newest_ns <= plate.path.stat().st_mtime_ns


def found_centres(screen: Screen, folder: Path, config: NucleiConfig, *, at_once: AtOnce) -> pd.DataFrame:
    """The nuclei found in the screen's first channel, as by `find_in_field`; InputError when none is.

    Those found by an earlier version have no diameter.
    """
    plates = plate_files(screen, folder / NUCLEI_FOLDER, suffix=".parquet", settings={"nuclei": asdict(config)})
    kept = {plate.plate: _kept_centres(plate) for plate in plates}
    due = [plate for plate in plates if kept[plate.plate] is None]
    wells = [well for plate in due for well in _wells(plate)]
    results = done_by_workers(partial(_find_in_well, config), wells, at_once)
    with closing(results):
        tracked = track(results, "Wells searched for nuclei", total=len(wells))
        with closing(cast(Any, tracked)):
            for plate in due:
                found = [next(tracked) for _ in _wells(plate)]
                table = pd.concat(found, ignore_index=True)
                write_parquet(plate.path, table, about=_about(plate, table))
                kept[plate.plate] = table
    centres = pd.concat([kept[plate.plate] for plate in plates], ignore_index=True)
    if centres.empty:
        raise InputError(
            f'no nucleus is found in channel "{screen.channels[0]}" of {len(screen.table):,} fields; is it the nuclei '
            "(the first channel is searched: --channels), and is their size right (--nucleus-um, --nucleus-px)?"
        )
    return centres


def _wells(plate: PlateFile) -> Iterator[Screen]:
    for _, rows in plate.screen.table.groupby("well", sort=False):
        yield replace(plate.screen, table=rows.reset_index(drop=True))


def _find_in_well(config: NucleiConfig, well: Screen) -> pd.DataFrame:
    """The centres of all cells in a well's fields."""
    fields = well.table.iterrows()
    return pd.concat(
        [find_in_field(well, field, channel=well.channels[0], config=config) for _, field in fields],
        ignore_index=True,
    )


def _kept_centres(plate: PlateFile) -> pd.DataFrame | None:
    """The centres found before; None if there are none, or they are damaged or of other images or settings."""
    if not plate.path.is_file() or plate.newest_ns > plate.path.stat().st_mtime_ns:
        return None
    try:
        about = read_parquet_about(plate.path)
        table = pq.read_table(plate.path).to_pandas(ignore_metadata=True)
    except (OSError, ValueError, pa.ArrowException):
        return None
    return table if about == _about(plate, table) else None


def _about(plate: PlateFile, table: pd.DataFrame) -> dict[str, str]:
    return {"made_from": plate.made_from, "centres_sha256": content_sha256(table)}
