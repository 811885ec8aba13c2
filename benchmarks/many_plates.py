"""How long does a study of thousands of plates take to open: its crops and the table of all its cells?

    python benchmarks/many_plates.py                 # 2,000 plates of 384 cells
    python benchmarks/many_plates.py --plates 5000

The plates are made up: one simulated plate under many names. Each opening is a process of its own; seconds are those
after its libraries are loaded.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

import phenolens as ph
from phenolens.core.files import write_json, write_parquet
from phenolens.core.progress import track
from phenolens.crops.cells_index import INDEX, MANY_PLATES
from phenolens.crops.store import ABOUT, CropStore, write_npy
from phenolens.training.device import processor_name

OPEN = """
import sys, time, anndata, pyarrow.feather, pyarrow.parquet
import phenolens as ph
wall, own = time.perf_counter(), time.process_time()
n = len(ph.Study(sys.argv[1]).crops.cells)
print(n, time.perf_counter() - wall, time.process_time() - own)
"""


@dataclass(frozen=True)
class Flags:
    """What the benchmark takes."""

    plates: int = 2000
    cells: int = 384  # of each plate
    rounds: int = 5


def main(flags: Flags) -> None:
    """Make the study, and print what opening it takes."""
    if flags.plates < MANY_PLATES:
        raise SystemExit(f"error: --plates {flags.plates}: an index is made from {MANY_PLATES} plates on; give more")
    with tempfile.TemporaryDirectory() as temporary:
        study = made_up(Path(temporary), flags)
        index = study.crops_folder / INDEX
        first = opened(study)
        again = [opened(study) for _ in range(flags.rounds)]
        print(f"{processor_name()}, {os.cpu_count()} cores")
        print(f"{flags.plates:,} plates, {first[0]:,.0f} cells; index {index.stat().st_size / 1e6:,.1f} MB")
        print("| opening | s, median (range) | processor s |\n| --- | --- | --- |")
        for name, times in (("first, which makes the index", [first]), ("with the index", again)):
            print(f"| {name} | {shown([wall for _, wall, _ in times])} | {shown([own for *_, own in times])} |")


def made_up(folder: Path, flags: Flags) -> ph.Study:
    """A study of many plates, all copies of one."""
    screen = {"mechanisms": 1, "compounds": 1, "doses": 1, "active_doses": 1, "replicates": 1, "cells": 10}
    ph.simulate(folder / "screen", **screen)
    study = ph.crop(folder / "study", source=folder / "screen", layout="bbbc021", crop_px=36)
    store, crops = study.crops, study.crops_folder
    rows = [row % len(store) for row in range(flags.cells)]
    shape = (flags.cells, len(store.channels), store.crop_px, store.crop_px)
    sha256 = write_npy(folder / "crops.npy", [store.take(rows)], shape)
    cells = store.cells.iloc[rows].reset_index(drop=True)
    plate = {**store.about["plates"][store.plates[0]], "n_crops": flags.cells, "npy_sha256": sha256}
    names = [f"P{number:05d}" for number in range(flags.plates)]
    for name in track(names, "Plates made up", total=len(names)):
        os.link(folder / "crops.npy", crops / f"{name}.npy")
        own = cells.assign(plate=name, cell_id=[f"{name}_{row}" for row in range(len(cells))])
        write_parquet(crops / f"{name}.parquet", own, about={})
    write_json(crops / ABOUT, {**store.about, "plates": dict.fromkeys(names, plate)})
    assert len(CropStore.open(crops)) == flags.plates * flags.cells
    return study


def opened(study: ph.Study) -> tuple[float, float, float]:
    """Cells, seconds and processor seconds of one opening."""
    done = subprocess.run([sys.executable, "-c", OPEN, study.folder], check=True, capture_output=True, text=True)
    n, wall, own = map(float, done.stdout.split())
    return n, wall, own


def shown(seconds: Sequence[float]) -> str:
    """The median, and of several the range."""
    of_several = f" ({min(seconds):.2f} to {max(seconds):.2f})" if len(seconds) > 1 else ""
    return f"{statistics.median(seconds):.2f}{of_several}"


if __name__ == "__main__":
    main(tyro.cli(Flags, description=__doc__.splitlines()[0]))
