"""Build a CropStore plate by plate; an interrupted build resumes at its first unfinished plate.

A plate's table is written after its crops and has a fingerprint of what they were made from. A plate whose fingerprint
still matches, and whose images are no newer than its crops, is kept; of other mechanisms its table alone is written.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa

from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.files import read_parquet_about, sha256, write_json, write_parquet
from phenolens.core.progress import track
from phenolens.core.workers import ONE, AtOnce, done_by_workers
from phenolens.crops.config import FLAGS, CropConfig
from phenolens.crops.prepare_plate import ILLUMINATION_FOLDER, NUCLEI_FOLDER
from phenolens.crops.quality_control import crop_quality, quality_flags
from phenolens.crops.quality_measures import Saturation, is_constant
from phenolens.crops.source import Source
from phenolens.crops.store import (
    ABOUT,
    FORMAT,
    QUALITY_FOLDER,
    VERSION,
    WITHOUT_MECHANISMS,
    CropStore,
    UInt16Array,
    read_about,
    whole_npy,
    write_npy,
)
from phenolens.screens.image_states import content_sha256, fields_sha256, part_name, states_and_newest
from phenolens.screens.screen import COLUMNS, FIELD, CropReader, treatment_name

CELL_COLUMNS = ["cell_id", "field", "object_number", "y", "x", *COLUMNS]  # and is_noise, known once the crop is read
UNFINISHED = {"format": FORMAT, "version": VERSION, "complete": False}
PARTS = ("*.npy", "*.parquet", "*/*.parquet", "*/*.npz")  # files that are named after a plate


@dataclass(frozen=True)
class PlateJob:
    """A plate whose crops are to be written."""

    folder: Path
    plate: str
    cells: pd.DataFrame
    read: CropReader
    channels: tuple[str, ...]
    config: CropConfig
    fingerprint: str  # of all that the crops and table follow from, but for the mechanisms
    n_at_border: int

    @property
    def table_path(self) -> Path:
        """The table of the plate's cells."""
        return self.folder / f"{self.plate}.parquet"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Crops, channels, side, side."""
        return (len(self.cells), len(self.channels), self.config.crop_px, self.config.crop_px)

    def fields(self) -> Iterator[pd.DataFrame]:
        """The rows of each field's cells."""
        for _, rows in self.cells.groupby(FIELD, sort=False):
            yield rows


def build_store(
    folder: Path,
    source: Source,
    *,
    n_at_border: Mapping[str, int],
    config: CropConfig,
    origin: Mapping[str, Any],
    at_once: AtOnce = ONE,
) -> CropStore:
    """Write the crops of a source's cells (a row per crop, field by field) and describe them in about.json.

    `n_at_border` counts, by plate, the cells that are left out because their crop would leave the field; `origin`
    describes the source in about.json. The bytes do not depend on how many plates are processed `at_once`. Raises
    InputError when `folder` holds something else, and for a channel that is constant in all crops of a plate.
    """
    assert source.cells is not None
    screen, read = source.screen, source.read
    folder = Path(folder)
    refuse_other_folder(folder)
    by_plate = {part_name(str(plate)): rows for plate, rows in source.cells.groupby("plate", sort=False)}
    due: list[PlateJob] = []
    renamed: list[tuple[PlateJob, dict[str, Any]]] = []  # kept, but for the mechanisms in their tables
    for plate, rows in by_plate.items():
        states, newest_ns = states_and_newest(read.files(rows))
        at_border = int(n_at_border.get(plate, 0))
        fields = fields_sha256(rows.drop(columns="moa"), screen.folder)
        fingerprint = _fingerprint(fields, states, at_border, screen.channels, config)
        job = PlateJob(folder, plate, rows, read, screen.channels, config, fingerprint, at_border)
        kept = _kept(job, newest_ns=newest_ns)
        if kept is None:
            due.append(job)
        elif kept["mechanisms"] != _mechanisms_sha256(rows):
            renamed.append((job, kept))
    unused = _unused_folders(folder, config, origin)
    leftovers = _leftovers(folder, keep=set(by_plate), unused=unused)
    if due or renamed or leftovers:
        write_json(folder / ABOUT, UNFINISHED)
    for path in leftovers:
        path.unlink(missing_ok=True)  # writing about.json has removed its own
    for emptied in unused:
        if emptied.is_dir() and not any(emptied.iterdir()):
            emptied.rmdir()
    if at_once == ONE:
        _write_one_by_one(due)
    else:
        written = done_by_workers(write_plate, due, at_once)
        with closing(written):
            for _ in track(written, "Plates cropped", total=len(due)):
                pass
    for job, kept in renamed:
        _write_table(job, pd.read_parquet(job.table_path).assign(moa=job.cells["moa"].to_numpy()), kept)
    without = _only_noise(folder, list(by_plate), config)
    left_out = screen.leaving_out({"treatments with only noise crops": without}).left_out
    about = _about(folder, source, list(by_plate), left_out=left_out, config=config, origin=origin)
    if not _is_same(about, read_about(folder)):
        write_json(folder / ABOUT, about)
    return CropStore.open(folder)


def refuse_other_folder(folder: Path) -> None:
    """InputError when `folder` has something in it that is not a crop store, finished or not."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give a folder for the crops")
    if folder.is_dir() and read_about(folder) is None:
        found = sorted(path.name for path in folder.iterdir() if not path.name.endswith(".partial"))
        if found:
            raise InputError(f'{folder}: holds "{found[0]}" and no crops of phenolens; give a new or empty folder')


def begin(folder: Path) -> None:
    """Mark `folder` as an unfinished crop store, unless it is a store already; InputError as above."""
    refuse_other_folder(folder)
    if read_about(folder) is None:
        write_json(folder / ABOUT, UNFINISHED)


def _fingerprint(
    fields: str, states: list[str], n_at_border: int, channels: tuple[str, ...], config: CropConfig
) -> str:
    """SHA-256 of everything that a plate's crops and table follow from; of the images, names, sizes and samples."""
    settings = {
        "version": VERSION,
        "channels": channels,
        "crop_px": config.crop_px,
        "quality": asdict(config.quality()),
        "leave_out": config.leave_out,
        "n_at_border": n_at_border,
    }
    return sha256(settings, fields, ",".join(states))


def _kept(job: PlateJob, *, newest_ns: int) -> dict[str, Any] | None:
    """What the plate's table says of itself, where its crops are kept; None where they are to be made."""
    crops, table = job.folder / f"{job.plate}.npy", job.table_path
    quality = job.folder / QUALITY_FOLDER / f"{job.plate}.parquet"
    if not table.is_file() or not quality.is_file() or not whole_npy(crops, job.shape):
        return None
    try:
        written = read_parquet_about(table)
    except (OSError, pa.ArrowException):
        return None
    if written is None or written.get("fingerprint") != job.fingerprint or newest_ns > crops.stat().st_mtime_ns:
        return None
    return written


def _unused_folders(folder: Path, config: CropConfig, origin: Mapping[str, Any]) -> list[Path]:
    """Folders that crops of other settings had made and these do not use."""
    light = [ILLUMINATION_FOLDER] if config.illumination == "as it is" else []
    return [folder / name for name in ([] if origin.get("cells") else [NUCLEI_FOLDER]) + light]


def _leftovers(folder: Path, *, keep: set[str], unused: Collection[Path]) -> list[Path]:
    """Files of plates or folders that are no longer needed, and partial files of an interrupted run."""
    parts = [
        path for pattern in PARTS for path in folder.glob(pattern) if path.stem not in keep or path.parent in unused
    ]
    return sorted([*parts, *folder.rglob(".*.partial")])


def _write_one_by_one(jobs: list[PlateJob]) -> None:
    """Plate by plate in this process, with progress by fields."""
    n_fields = [job.cells.groupby(FIELD).ngroups for job in jobs]
    tracked = track((rows for job in jobs for rows in job.fields()), "Fields cropped", total=sum(n_fields))
    with closing(cast(Any, tracked)):
        for job, n in zip(jobs, n_fields, strict=True):
            write_plate(job, islice(tracked, n))


def write_plate(job: PlateJob, fields: Iterable[pd.DataFrame] | None = None) -> None:
    """Write a plate's crops, their quality, then its table, so that a table always describes the crops on disk.

    `fields` are those of the job, for a caller that counts them.
    """
    folder, plate, channels, shape = job.folder, job.plate, job.channels, job.shape
    varies = np.zeros(len(channels), dtype=bool)
    saturation = Saturation(shape[0])

    def batches() -> Iterator[UInt16Array]:
        for rows in job.fields() if fields is None else fields:
            batch, as_given = job.read(rows, job.config.crop_px)
            saturation.add(as_given)
            np.logical_or(varies, ~is_constant(batch).all(axis=0), out=varies)
            yield batch
        if not varies.all():
            channel = channels[int(np.argmin(varies))]
            raise InputError(
                f'plate "{plate}": channel "{channel}" has one value in all pixels of all {shape[0]:,} crops; '
                "replace its images, or leave the plate out with --plates"
            )

    job.table_path.unlink(missing_ok=True)
    npy_sha256 = write_npy(folder / f"{plate}.npy", batches(), shape)
    crops = np.load(folder / f"{plate}.npy", mmap_mode="r")
    config = job.config.quality()
    saturated = saturation.shares(maximum=config.detector_maximum)
    quality = crop_quality(crops, channels=channels, config=config, saturated=saturated)
    flags = quality_flags(quality, channels=channels)
    cell_ids = job.cells["cell_id"].reset_index(drop=True)
    write_parquet(folder / QUALITY_FOLDER / f"{plate}.parquet", pd.concat([cell_ids, quality], axis=1), about={})
    has = {kind: flags.str.contains(kind, regex=False).to_numpy(bool) for kind in FLAGS}
    table = job.cells[CELL_COLUMNS].assign(
        is_noise=np.logical_or.reduce([has[kind] for kind in job.config.leave_out] or [np.zeros(len(flags), bool)]),
        flags=flags.to_numpy(),
    )
    flagged = {kind: int(of_kind.sum()) for kind, of_kind in has.items()}
    about = {"fingerprint": job.fingerprint, "n_at_border": job.n_at_border, "n_crops": len(table)}
    about |= {"n_noise": int(table["is_noise"].sum()), "n_flagged": flagged, "npy_sha256": npy_sha256}
    _write_table(job, table, about)


def _write_table(job: PlateJob, table: pd.DataFrame, about: dict[str, Any]) -> None:
    """Write a plate's cells, and in `about` the checksums of them."""
    about |= {"mechanisms": _mechanisms_sha256(table), "cells_sha256": content_sha256(table)}
    about |= {WITHOUT_MECHANISMS: content_sha256(table.drop(columns="moa"))}
    write_parquet(job.table_path, table, about=about)


def _mechanisms_sha256(cells: pd.DataFrame) -> str:
    return content_sha256(cells[["moa"]])


def _is_same(about: dict[str, Any], before: dict[str, Any] | None) -> bool:
    """Whether only the version of this program differs: then the crops, and runs made from them, stay valid."""
    return before is not None and {**before, "phenolens": about["phenolens"]} == about


def _only_noise(folder: Path, plates: list[str], config: CropConfig) -> int:
    """How many treatments have only noise crops; without skip_missing an InputError that names the first."""
    columns = ["compound", "concentration_um", "role", "is_noise"]
    cells = pd.concat([pd.read_parquet(folder / f"{plate}.parquet", columns=columns) for plate in plates])
    cells = cells[cells["role"] != "other"]
    is_empty = cells["is_noise"].groupby(treatment_name(cells["compound"], cells["concentration_um"])).all()
    without = list(is_empty.index[is_empty])
    if without and not config.skip_missing:
        raise InputError(
            f"treatment {without[0]} has only crops of camera noise ({counted(len(without), 'such treatment')}). "
            "Check its images, run with --skip-missing to leave it out, or with a smaller --noise-correlation"
        )
    return len(without)


def _about(
    folder: Path,
    source: Source,
    plates: list[str],
    *,
    left_out: Mapping[str, int],
    config: CropConfig,
    origin: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of about.json; without local paths, so that the same source gives the same file anywhere."""
    assert source.cells is not None
    parts = {plate: read_parquet_about(folder / f"{plate}.parquet") or {} for plate in plates}
    for part in parts.values():
        del part["fingerprint"], part["mechanisms"]
    return {
        "format": FORMAT,
        "version": VERSION,
        "complete": True,
        "phenolens": version("phenolens"),
        "channels": list(source.screen.channels),
        "crop_px": config.crop_px,
        "pixel_size_um": config.pixel_size_um,
        "source": {
            **origin,
            "tables": dict(source.screen.sources),
            "cells_sha256": fields_sha256(source.cells, source.screen.folder),
        },
        "left_out": dict(left_out),
        "config": {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()},
        "plates": parts,
    }
