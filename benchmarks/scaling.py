"""Time and memory of every step as a study grows: simulated screens of several sizes, each step a process of its own.

    python benchmarks/scaling.py                        # 1,000, 10,000, 100,000 and 1,000,000 cells
    python benchmarks/scaling.py --cells 300 1000 3000  # smaller

Of more than 10,000 cells the plates are copies of simulated ones, of more than 100,000 copies of their crops (`crop` is
not measured there); a million takes 30 GB of disk. Time is in processor seconds (user and system), which other work on
the machine hardly changes. Peak memory is at least that of this script, which starts the steps (300 MiB). The slope
between the two largest sizes extrapolates each step: an estimate, not a measurement.
"""

import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
import tyro

from phenolens.core.files import write_json, write_parquet
from phenolens.core.progress import tell
from phenolens.crops.store import ABOUT, QUALITY_FOLDER, CropStore, write_npy
from phenolens.training.device import processor_name

CELLS_OF_A_FIELD, WELLS_OF_A_SITE = 17, 36  # of the simulated screens below
MOST_SIMULATED = 10_000  # cells; a larger screen has its plates several times
OF_PLATE = ["plate", "field", "cell_id"]  # columns that name the plate
MOST_CROPPED = 100_000  # cells; a larger study has its crops several times
RUN = "vaeplus-seed0"
LARGE = (1_000_000, 100_000_000)  # cells that the slope extrapolates to


@dataclass(frozen=True)
class Flags:
    """What the benchmark takes."""

    cells: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)  # of the studies, about
    rounds: int = 1  # how often each step is done
    train_steps: int = 20  # of VAE+, of 32 cells
    threads: int = 1


def main(flags: Flags) -> None:
    """Do all steps at all sizes, and print the table."""
    spent: dict[str, dict[int, list[tuple[float, float]]]] = {}
    for wanted in flags.cells:
        for turn in range(flags.rounds):
            with tempfile.TemporaryDirectory() as folder:
                n, found = one_study(Path(folder), wanted, flags)
            for step, cost in found.items():
                spent.setdefault(step, {}).setdefault(n, []).append(cost)
            tell(f"{n:,} cells, turn {turn + 1}: " + ", ".join(f"{step} {s:.1f} s" for step, (s, _) in found.items()))
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("numpy", "pandas", "torch", "anndata"))
    print(f"{processor_name()}, {os.cpu_count()} cores, {flags.threads} threads; Python {platform.python_version()}")
    print(f"{versions}; {flags.rounds} rounds; processor seconds, median (range), and peak MiB\n")
    sizes = sorted({n for of_step in spent.values() for n in of_step})
    print(f"| step | {' | '.join(f'{n:,} cells' for n in sizes)} | seconds per 1,000 cells | "
          f"{' | '.join(f'{n:,}' for n in LARGE)} |")  # fmt: skip
    print("| --- " * (len(sizes) + len(LARGE) + 2) + "|")
    for step, of_step in spent.items():
        costs = [described(of_step.get(n)) for n in sizes]
        print(f"| {step} | {' | '.join(costs)} | {' | '.join(extrapolated(of_step))} |")


def one_study(folder: Path, wanted: int, flags: Flags) -> tuple[int, dict[str, tuple[float, float]]]:
    """The number of cells of a study, and seconds and MiB of each step on it."""
    screen, study = folder / "screen", folder / "study"
    crop_times = math.ceil(wanted / MOST_CROPPED)
    times = math.ceil(wanted / crop_times / MOST_SIMULATED)
    sites = max(1, round(wanted / crop_times / times / CELLS_OF_A_FIELD / WELLS_OF_A_SITE))
    design = ["--mechanisms", 3, "--compounds", 2, "--doses", 1, "--active-doses", 1, "--replicates", 2]
    phenolens(flags, "simulate", screen, *design, "--sites", sites, "--processes", 1)
    add_copies(screen, times)
    found = {"crop": phenolens(flags, "crop", study, "--source", screen, "--layout", "bbbc021")}
    shutil.rmtree(screen)
    if crop_times > 1:
        del found["crop"]
        add_copies_of_crops(study / "crops", crop_times)
    n = len(CropStore.open(study / "crops"))
    training = ["--steps", flags.train_steps, "--batch-size", 32, "--watch-every", 0, "--threads", flags.threads]
    found[f"train, {flags.train_steps} steps of 32 cells"] = phenolens(flags, "train", study, *training)
    found["embed"] = phenolens(flags, "embed", study, "--runs", RUN, "--threads", flags.threads)
    found["profile"] = phenolens(flags, "profile", study)
    found["evaluate"] = phenolens(flags, "evaluate", study, "--bootstraps", 200, "--shuffles", 20)
    found["travel"] = phenolens(flags, "travel", study, "--to", "actin-disruptors-1")
    found["report"] = phenolens(flags, "report", study)
    return n, found


def add_copies(screen: Path, times: int) -> None:
    """Give a simulated screen each of its plates `times` times, under other names and a little brighter each time.

    Wells with the same images would be refused.
    """
    images, nuclei = (pd.read_csv(screen / name) for name in ("BBBC021_v1_image.csv", "Nuclei.csv"))
    plates, n = images["Image_Metadata_Plate_DAPI"].unique(), images["ImageNumber"].max()
    of_plate = [column for column in images if "PathName" in column or "Plate" in column]
    more_images, more_nuclei = [images], [nuclei]
    for copy in range(1, times):
        renamed = {plate: f"{plate}{copy:03d}" for plate in plates}
        for plate, name in renamed.items():
            (screen / name).mkdir()
            for image in (screen / plate).iterdir():
                tifffile.imwrite(screen / name / image.name, tifffile.imread(image) + np.uint16(copy))
        texts = images[of_plate].replace(renamed, regex=True)
        more_images.append(images.assign(**texts, ImageNumber=images["ImageNumber"] + copy * n))
        more_nuclei.append(nuclei.assign(ImageNumber=nuclei["ImageNumber"] + copy * n))
    pd.concat(more_images).to_csv(screen / "BBBC021_v1_image.csv", index=False)
    pd.concat(more_nuclei).to_csv(screen / "Nuclei.csv", index=False)


def add_copies_of_crops(crops: Path, times: int) -> None:
    """Give a study's crops each of its plates `times` times, as `add_copies` does with images, but brighter."""
    about = CropStore.open(crops).about
    plates = dict(about["plates"])
    for plate, copy in product(about["plates"], range(1, times)):
        name = f"{plate}x{copy:03d}"
        pixels = np.load(crops / f"{plate}.npy", mmap_mode="r") + np.uint16(copy * len(about["plates"]))
        plates[name] = about["plates"][plate] | {"npy_sha256": write_npy(crops / f"{name}.npy", [pixels], pixels.shape)}
        for table in (crops / f"{plate}.parquet", crops / QUALITY_FOLDER / f"{plate}.parquet"):
            rows = pd.read_parquet(table)
            rows = rows.assign(**{c: rows[c].str.replace(plate, name) for c in OF_PLATE if c in rows})
            write_parquet(table.with_stem(name), rows, about={})
    write_json(crops / ABOUT, {**about, "plates": plates})


def phenolens(flags: Flags, *words: object) -> tuple[float, float]:
    """Processor seconds and peak MiB of one command."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(flags.threads), "MKL_NUM_THREADS": str(flags.threads)}
    process = subprocess.Popen(
        [sys.executable, "-m", "phenolens.cli", *map(str, words), "--quiet"], env=environment, stdout=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"phenolens {' '.join(map(str, words))}: exit code {process.returncode}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def described(costs: list[tuple[float, float]] | None) -> str:
    """The median and range of the seconds, and the most memory."""
    if costs is None:
        return "not measured"
    seconds = [s for s, _ in costs]
    spread = f" ({min(seconds):.1f} to {max(seconds):.1f})" if len(seconds) > 1 else ""
    return f"{statistics.median(seconds):.1f} s{spread}, {max(mib for _, mib in costs):,.0f} MiB"


def extrapolated(of_step: dict[int, list[tuple[float, float]]]) -> list[str]:
    """Seconds per 1,000 cells between the two largest sizes, and the time of LARGE numbers of cells by this slope."""
    if len(of_step) < 2:
        return ["one size", *("-" for _ in LARGE)]
    *_, fewer, more = sorted(of_step)
    low, high = (statistics.median(s for s, _ in of_step[n]) for n in (fewer, more))
    slope = (high - low) / (more - fewer)
    if slope * (more - fewer) < 0.1 * high:
        return ["below the spread", *("as measured" for _ in LARGE)]
    return [f"{1000 * slope:.2g}", *(duration(high + slope * (n - more)) for n in LARGE)]


def duration(seconds: float) -> str:
    """Rounded, in a unit that fits."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.0f} s"


if __name__ == "__main__":
    main(tyro.cli(Flags, description=__doc__.splitlines()[0]))
