"""How fast fields become crops, against the plain read of the same files; and whether memory grows with the plates.

    python benchmarks/crop.py                                            # noise and spots of BBBC021's size
    python benchmarks/crop.py --source SCREEN --layout bbbc021           # a screen of yours

Every side is a process of its own, so that its peak memory is its own, and only one works at a time; they take turns.
The yardstick is tifffile.imread of the same files in the same order, nothing done with them. Files were just written or
read, so they come from memory, not from the disk. The run ends with an error unless one and two processes leave the
same crops.
"""

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tifffile
import tyro

from phenolens.core.errors import InputError
from phenolens.core.progress import tell, track
from phenolens.core.workers import AtOnce
from phenolens.crops.config import CropConfig
from phenolens.crops.make_crops import make_crops
from phenolens.screens.bbbc021 import PIXEL_UM
from phenolens.screens.config import LayoutConfig
from phenolens.screens.layouts import layout_named
from phenolens.screens.screen import Selection

CHANNELS = ("DNA", "tubulin", "actin")
BACKGROUND, SPOT = 600, 6000  # counts
YARDSTICK, TWO = "plain read", ", 2 processes"
# name: (what crop is asked for, processes)
SIDES: dict[str, tuple[dict[str, Any], int]] = {
    YARDSTICK: ({}, 1),
    "centres given": ({"cells": "given"}, 1),
    f"centres given{TWO}": ({"cells": "given"}, 2),
    "centres given, light corrected": ({"cells": "given", "illumination": "corrected"}, 1),
    "cells found": ({"cells": "found"}, 1),
    f"cells found{TWO}": ({"cells": "found"}, 2),
}
FLAT = 1.05  # peak memory of the most plates over that of the fewest, up to which memory is called flat


@dataclass(frozen=True)
class Flags:
    """What the benchmark takes."""

    plates: tuple[int, ...] = (1, 20)  # how many plates are cropped; speed is told of the last
    wells: int = 2  # of a plate
    sites: int = 4  # of a well
    width_px: int = 1280
    height_px: int = 1024
    cells: int = 100  # of a field
    crop_px: int = 68
    rounds: int = 3  # how often the sides take turns
    found_rounds: int = 1  # in how many of these turns cells are found, which takes much longer
    seed: int = 0
    sides: tuple[str, ...] = tuple(SIDES)  # which sides take turns; the plain read always does
    source: Path | None = None  # a screen of yours, with centres of its cells, in place of one made here
    layout: str = "table"  # of it
    side: str = ""  # for the processes that the benchmark starts: crop `plates` once into `out`
    out: Path | None = None


def main(flags: Flags) -> None:
    """Make the screen, let the sides take turns, print the tables."""
    with tempfile.TemporaryDirectory() as folder:
        source = flags.source or Path(folder) / "screen"
        if flags.source is None:  # in a process of its own: what this one holds, the sides' peaks begin with
            started(flags, "make", plates=max(flags.plates), source=source, out=Path(folder) / "out")
        turns: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for turn in range(flags.rounds):
            for n_plates in flags.plates:
                for side in chosen(flags):
                    if "found" in side and turn >= flags.found_rounds:
                        continue
                    if turn and n_plates != flags.plates[-1]:
                        continue  # for their memory, which does not vary
                    answer = started(flags, side, plates=n_plates, source=source, out=Path(folder) / "out")
                    turns.setdefault((side, n_plates), []).append(answer)
                    tell(f"turn {turn + 1}, {n_plates} plates, {side}: {answer['seconds']:.1f} s")
    print_tables(flags, turns)
    if error := disagreement(turns):
        sys.exit(f"error: {error}")


def chosen(flags: Flags) -> list[str]:
    """The sides that take turns, the yardstick first and each side before the same by two processes."""
    if unknown := set(flags.sides) - set(SIDES):
        raise InputError(f"--sides {unknown.pop()}: expected one of {', '.join(SIDES)}")
    return [side for side in SIDES if side == YARDSTICK or side in flags.sides]


def started(flags: Flags, side: str, *, plates: int, source: Path, out: Path) -> dict[str, Any]:
    """One turn of a side in a process of its own, which leaves nothing behind."""
    options = {name: getattr(flags, name) for name in ("wells", "sites", "width_px", "height_px", "cells", "crop_px")}
    options |= {"seed": flags.seed, "layout": flags.layout, "side": side, "plates": plates}
    options |= {"source": source, "out": out}
    words = [word for name, value in options.items() for word in ("--" + name.replace("_", "-"), str(value))]
    done = subprocess.run([sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True, check=False)
    shutil.rmtree(out, ignore_errors=True)
    if done.returncode:
        sys.exit(f"error: {side} has died; its message stands above")
    return json.loads(done.stdout)


def work_as_side(flags: Flags) -> dict[str, Any]:
    """What a side took to do its work once: seconds by both clocks, and the most memory it held.

    Its workers' processor seconds count, and the seconds in which they start; of their memory the largest worker's.
    """
    assert flags.source is not None
    assert flags.out is not None
    if flags.side == "make":
        write_screen(flags.source, flags)
        return {}
    asked, processes = SIDES[flags.side]
    screen, _ = layout_named(flags.layout).open(flags.source, LayoutConfig(), Selection())
    plates = tuple(screen.table["plate"].unique()[: flags.plates[0]])
    table = screen.table[screen.table["plate"].isin(plates)]
    paths = [screen.folder / row[f"file_{channel}"] for _, row in table.iterrows() for channel in screen.channels]
    n_cells, crops = 0, ""
    began, of_processor = time.perf_counter(), processor_seconds()
    if asked:
        store = make_crops(
            flags.source,
            flags.out,
            layout=flags.layout,
            config=CropConfig(crop_px=flags.crop_px, plates=plates, pixel_size_um=PIXEL_UM, least_fields=1, **asked),
            at_once=AtOnce(processes),
        )
        n_cells, crops = len(store), store.identity
    else:
        for path in track(paths, "Files read", total=len(paths)):
            tifffile.imread(path)
    seconds, of_processor = time.perf_counter() - began, processor_seconds() - of_processor
    return {
        "seconds": seconds,
        "processor": of_processor,
        "peak_mib": peak_mib(resource.RUSAGE_SELF),
        "worker_mib": peak_mib(resource.RUSAGE_CHILDREN) if processes > 1 else 0.0,
        "fields": len(table),
        "cells": n_cells,
        "megabytes": sum(path.stat().st_size for path in paths) / 1e6,
        "crops": crops,
    }


def processor_seconds() -> float:
    """Of this process and of its workers that have ended."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)


def peak_mib(who: int) -> float:
    """The most memory this process (or the largest of its workers) has held, MiB; pages of mapped files count."""
    return resource.getrusage(who).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def write_screen(folder: Path, flags: Flags) -> None:
    """A screen in the layout table: camera noise and a round spot a cell in each channel, drawn from the seed.

    The spots are as wide as nuclei of BBBC021 (30 px), twice and three times as wide in the other channels.
    """
    random = np.random.default_rng(flags.seed)
    size = flags.height_px, flags.width_px
    noise = random.poisson(BACKGROUND, size).astype(np.uint16)
    reach = np.hypot(*np.mgrid[-60:61, -60:61])
    spots = [SPOT / (1 + np.exp((reach - radius) / 1.5)) for radius in (15, 30, 45)]
    images, nuclei = [], []
    for number in track(range(flags.plates[0]), "Plates drawn", total=flags.plates[0]):
        plate = f"plate{number:03}"
        (folder / plate).mkdir(parents=True)
        for field in range(flags.wells * flags.sites):
            well, site = f"B{field // flags.sites + 1:02}", field % flags.sites + 1
            compound = "DMSO" if well == "B01" else f"compound {well}"
            at = random.integers(0, size, (flags.cells, 2))
            row = {"plate": plate, "well": well, "site": site, "compound": compound, "concentration_um": 1.0}
            row["moa"] = "" if compound == "DMSO" else f"mechanism {well}"
            for channel, spot in zip(CHANNELS, spots):
                light = np.zeros((size[0] + 120, size[1] + 120), np.float32)
                for y, x in at:
                    light[y : y + 121, x : x + 121] += spot * random.uniform(0.5, 1)
                image = np.roll(noise, random.integers(0, size), axis=(0, 1)) + light[60:-60, 60:-60]
                row[f"file_{channel}"] = f"{plate}/{well}_s{site}_{channel}.tif"
                tifffile.imwrite(folder / row[f"file_{channel}"], np.minimum(image, 65_520).astype(np.uint16))
            images.append(row)
            for object_number, (y, x) in enumerate(at, start=1):
                nuclei.append((plate, well, site, object_number, y, x))
    names = ["plate", "well", "site", "ObjectNumber", "Location_Center_Y", "Location_Center_X"]
    pd.DataFrame(nuclei, columns=names).to_csv(folder / "Nuclei.csv", index=False)
    pd.DataFrame(images).to_csv(folder / "images.csv", index=False)


def disagreement(turns: dict[tuple[str, int], list[dict[str, Any]]]) -> str:
    """Which side's crops are not those of its first turn, or of one process; nothing when all are."""
    for (side, n_plates), found in turns.items():
        by_one = turns.get((side.removesuffix(TWO), n_plates), found)
        if {turn["crops"] for turn in found} != {by_one[0]["crops"]}:
            return f"{side}, {n_plates} plates: the crops are not those of the other turns"
    return ""


def print_tables(flags: Flags, turns: dict[tuple[str, int], list[dict[str, Any]]]) -> None:
    """A row per side: speed at the most plates, then its peak memory by the number of plates."""
    fewest, most = flags.plates[0], flags.plates[-1]  # they are given in ascending order
    read = turns[YARDSTICK, most]
    first = read[0]
    from phenolens.training.device import processor_name  # loads PyTorch, which no side needs

    print(f"{processor_name()}, {os.cpu_count()} cores")
    print(f"{most} plates, {first['fields']:,} fields of {first['megabytes'] / first['fields']:.2f} MB,", end="")
    print(f" {flags.rounds} turns (cells found: {flags.found_rounds})\n")
    print(
        "| side | seconds, median (range) | fields per second | cells per second | MB per second | read / this |",
        end="",
    )
    print(" processor seconds |\n| --- | --- | --- | --- | --- | --- | --- |")
    for side in chosen(flags):
        found = turns[side, most]
        seconds = [turn["seconds"] for turn in found]
        middle = statistics.median(seconds)
        per_second = [found[0][name] / middle for name in ("fields", "cells", "megabytes")]
        share = statistics.median(one["seconds"] / turn["seconds"] for one, turn in zip(read, found))
        processor = statistics.median(turn["processor"] for turn in found)
        print(f"| {side} | {middle:,.2f} ({min(seconds):,.2f} to {max(seconds):,.2f}) | {per_second[0]:,.1f} |", end="")
        print(f" {per_second[1]:,.0f} | {per_second[2]:,.0f} | {share:.3f} | {processor:,.1f} |")
    print(f"\n| side | peak memory, MiB: {' | '.join(f'{n} plates' for n in flags.plates)} | largest worker |", end="")
    print(f" last over first |\n| --- | {'--- | ' * len(flags.plates)}--- | --- |")
    not_flat = []
    for side in chosen(flags):
        peaks = [max(max(turn["peak_mib"], turn["worker_mib"]) for turn in turns[side, n]) for n in flags.plates]
        worker = max(turn["worker_mib"] for turn in turns[side, most])
        cells = " | ".join(f"{peak:,.0f}" for peak in peaks)
        print(f"| {side} | {cells} | {f'{worker:,.0f}' if worker else '-'} | {peaks[-1] / peaks[0]:.2f} |")
        if peaks[-1] > FLAT * peaks[0]:
            not_flat.append(f"{side} (+{peaks[-1] - peaks[0]:,.0f} MiB)")
    words = f"not flat: {', '.join(not_flat)}" if not_flat else f"flat (within {FLAT - 1:.0%})"
    print(f"\nmemory from {fewest} to {most} plates: {words}")


if __name__ == "__main__":
    flags = tyro.cli(Flags, description=__doc__.splitlines()[0])
    print(json.dumps(work_as_side(flags))) if flags.side else main(flags)
