"""From cells to wells: ten million cells that go by plate by plate; speed, memory, and pandas as the yardstick.

    python benchmarks/profiles.py                            # 10,000,000 cells of 256 features, means
    python benchmarks/profiles.py --statistics median+mad

Three sides take turns, each in a process of its own so that its peak memory is its own, and only one works at a time:
making the plates alone (a plate is noise around a mean of each well), ours on them, and pandas' groupby(["plate",
"well"]).mean() on them. Each side makes the plates anew, one at a time, and the seconds of that are told apart. The run
ends with an error unless the first plate's wells are those that pandas finds in float64.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import tyro

from phenolens.core.progress import tell, track

SIDES = {"noise": "making the plates alone", "ours": "ours", "pandas": "pandas groupby mean"}
SAME = 1e-9  # the largest difference from pandas in float64 that passes; the noise has deviation 1
AIM_MIB, AIM_SECONDS, AIM_OF_PANDAS = 1024.0, 60.0, 1.5  # of means of ten million cells
MANY_CELLS = 100_000_000  # what the time is extrapolated to


@dataclass(frozen=True)
class Flags:
    """What the benchmark takes."""

    cells: int = 10_000_000
    features: int = 256
    statistics: Literal["mean", "mean+sd", "median+mad"] = "mean"  # of ours
    rounds: int = 1  # how often the sides take turns
    wells: int = 384  # of a plate; the last plate may have fewer
    cells_of_a_well: int = 1000
    seed: int = 0
    side: Literal["all", "noise", "ours", "pandas"] = "all"
    answer: Path | None = None  # for the processes that the benchmark starts: do the side's work once, leave it here

    @property
    def n_plates(self) -> int:
        """How many plates hold the cells."""
        return -(-self.cells // (self.wells * self.cells_of_a_well))


@dataclass
class Plates:
    """The plates of cells, made one at a time and not kept; how long that took so far, by both clocks."""

    flags: Flags
    seconds: float = field(default=0.0, init=False)
    processor_seconds: float = field(default=0.0, init=False)

    def __iter__(self) -> Iterator[Any]:
        """An AnnData a plate."""
        for number in track(range(self.flags.n_plates), f"plates, {self.flags.side}", total=self.flags.n_plates):
            began = time.perf_counter(), time.process_time()
            made = plate_of(self.flags, number)
            self.seconds += time.perf_counter() - began[0]
            self.processor_seconds += time.process_time() - began[1]
            yield made
            del made  # before the next one is made


def main(flags: Flags) -> None:
    """Let the sides take turns, hold the wells against pandas, and print the table."""
    names = tuple(SIDES) if flags.side == "all" else (flags.side,)
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(flags.rounds):
            for name in names:
                turns[name].append(worked(flags, name, Path(folder) / f"{name}.npy"))
                tell(f"turn {turn + 1}, {name}: {turns[name][-1]['seconds']:.1f} s")
        from phenolens.training.device import processor_name  # loads PyTorch, which no side needs

        print(f"{processor_name()}, {os.cpu_count()} cores")
        print(
            f"{flags.cells:,} cells of {flags.features} features, {flags.n_plates} plates of {flags.wells} wells",
            end="",
        )
        print(f" of {flags.cells_of_a_well:,} cells; statistics {flags.statistics}, {flags.rounds} turns")
        print(f"numpy {np.__version__}, pandas {pd.__version__}\n")
        print_table(flags, turns)
        if "ours" in turns:
            error = disagreement(flags, np.load(Path(folder) / "ours.npy"), first_plate_by_pandas(flags))
            if error:
                sys.exit(f"error: {error}")
            print_aim(flags, turns)


def worked(flags: Flags, side: str, answer: Path) -> dict[str, Any]:
    """One turn of a side in a process of its own: its seconds, those of making plates, and its peak memory in MiB."""
    options = {"cells": flags.cells, "features": flags.features, "statistics": flags.statistics, "wells": flags.wells}
    options |= {"cells-of-a-well": flags.cells_of_a_well, "seed": flags.seed, "side": side, "answer": answer}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    done = subprocess.run([sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: {side} has died; its message stands above")
    return json.loads(done.stdout)


def work_as_side(flags: Flags) -> None:
    """The side's work once; its seconds and memory as JSON on stdout, its wells (W, statistics x Z) in `answer`."""
    import anndata  # noqa: F401  # so that no side's seconds hold its import

    from phenolens.profiles.profiles import well_profiles

    plates = Plates(flags)
    began = time.perf_counter(), time.process_time()
    match flags.side:
        case "ours":
            wells = well_profiles(plates, statistics=flags.statistics).X
        case "pandas":
            wells = np.concatenate([grouped(plate).mean().to_numpy() for plate in plates])
        case _:
            wells = np.array([plate.n_obs for plate in plates])
    seconds, of_processor = time.perf_counter() - began[0], time.process_time() - began[1] - plates.processor_seconds
    assert flags.answer is not None
    np.save(flags.answer, wells)
    times = {"seconds": seconds, "making": plates.seconds, "processor": of_processor}
    print(json.dumps({**times, "peak_mib": peak_mib()}))


def plate_of(flags: Flags, number: int):  # type: ignore[no-untyped-def]
    """The cells of one plate, an AnnData as `phenolens embed` writes it: float32, each well's mean and noise of 1."""
    from anndata import AnnData

    of_a_plate = flags.wells * flags.cells_of_a_well
    n = min(of_a_plate, flags.cells - number * of_a_plate)
    rng = np.random.default_rng([flags.seed, number])
    numbers = rng.standard_normal((n, flags.features), dtype=np.float32)
    for start in range(0, n, flags.cells_of_a_well):
        numbers[start : start + flags.cells_of_a_well] += rng.normal(size=flags.features).astype(np.float32)
    well = np.arange(n) // flags.cells_of_a_well
    names = [f"w{code:04}" for code in range(flags.wells)]
    of_a_well = {
        "Well": names,
        "Compound": [f"c{name}" for name in names],
        "Treatment": [f"c{name}@1" for name in names],
    }
    of_the_plate = {"Plate": f"p{number:04}", "Batch": "b0", "MoA": "unknown", "Role": "treated"}
    obs = {name: pd.Categorical.from_codes(well, values) for name, values in of_a_well.items()}
    obs |= {name: pd.Categorical.from_codes(np.zeros(n, int), [value]) for name, value in of_the_plate.items()}
    cells = pd.DataFrame(obs, index=pd.RangeIndex(n).astype(str)).assign(Concentration_um=1.0, Is_Noise=False)
    cells = cells.add_prefix("Metadata_")
    return AnnData(numbers, obs=cells, var=pd.DataFrame(index=[f"Z{axis:03}" for axis in range(flags.features)]))


def grouped(plate: Any, dtype: type = np.float32) -> Any:
    """The cells of a plate as pandas groups them, a group per well."""
    frame = pd.DataFrame(plate.X.astype(dtype, copy=False))
    return frame.groupby([plate.obs["Metadata_Plate"].array, plate.obs["Metadata_Well"].array], observed=True)


def first_plate_by_pandas(flags: Flags) -> np.ndarray:
    """Statistics of the first plate's wells in float64: (W, statistics x Z)."""
    groups = grouped(plate_of(flags, 0), np.float64)
    found = {
        "mean": lambda: groups.mean(),
        "sd": lambda: groups.std(ddof=0),
        "median": lambda: groups.median(),
        "mad": lambda: groups.agg(lambda values: (values - values.median()).abs().median()),
    }
    return np.concatenate([found[name]().to_numpy() for name in flags.statistics.split("+")], axis=1)


def peak_mib() -> float:
    """The most memory this process has held, MiB. (It begins at that of its parent, which therefore does little.)"""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def disagreement(flags: Flags, ours: np.ndarray, first_plate: np.ndarray) -> str:
    """Print how far ours is from pandas on the first plate, and how many wells there are; what is wrong, or nothing."""
    n_wells = -(-flags.cells // flags.cells_of_a_well)
    if len(ours) != n_wells:
        return f"{len(ours):,} wells were profiled; expected {n_wells:,}"
    apart = float(np.abs(ours[: len(first_plate)] - first_plate).max())
    print(f"\n{n_wells:,} wells; largest difference of the first plate's {len(first_plate):,}", end="")
    print(f" from pandas in float64: {apart:.1e} ({SAME:.0e} passes)")
    return "" if apart <= SAME else f"a well's {flags.statistics} differs from pandas' by more than {SAME:.0e}"


def print_table(flags: Flags, turns: dict[str, list[dict[str, Any]]]) -> None:
    """A row per side: seconds, how many of them made the plates, cells per second with and without that, memory.

    Processor seconds are those of the side's own work; they change little when other programs are running too.
    """
    columns = ("side", "seconds, median (range)", "making the plates", "cells per second", "without the making")
    columns += ("its processor seconds",)
    print(f"| {' | '.join(columns)} | peak memory, MiB |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, found in turns.items():
        seconds = [turn["seconds"] for turn in found]
        whole, making = (
            statistics.median(seconds),
            statistics.median(turn["making"] / turn["seconds"] for turn in found),
        )
        alone = "-" if name == "noise" else f"{flags.cells / own_seconds(found):,.0f}"
        processor = "-" if name == "noise" else f"{statistics.median(turn['processor'] for turn in found):,.1f}"
        memory = f"{max(turn['peak_mib'] for turn in found):,.0f}"
        spread = f"{whole:,.1f} ({min(seconds):,.1f} to {max(seconds):,.1f})"
        own = f"{flags.cells / whole:,.0f} | {alone} | {processor}"
        print(f"| {SIDES[name]} | {spread} | {making:.0%} | {own} | {memory} |")


def own_seconds(turns: list[dict[str, Any]]) -> float:
    """Seconds of a side's own work, the making of plates left out: the median of its turns."""
    return statistics.median(turn["seconds"] - turn["making"] for turn in turns)


def print_aim(flags: Flags, turns: dict[str, list[dict[str, Any]]]) -> None:
    """Whether memory, seconds and the ratio to pandas are as aimed for, and what a larger screen would take."""
    memory = max(turn["peak_mib"] for turn in turns["ours"])
    print(f"aim of less than 1 GiB: {'met' if memory < AIM_MIB else 'missed'} ({memory:,.0f} MiB)")
    seconds = own_seconds(turns["ours"])
    print(f"aim of less than 60 s: {'met' if seconds < AIM_SECONDS else 'missed'} ({seconds:,.0f} s)")
    if "pandas" in turns:
        ours, pandas = (statistics.median(turn["processor"] for turn in turns[side]) for side in ("ours", "pandas"))
        verdict = "met" if ours <= AIM_OF_PANDAS * pandas else "missed"
        print(f"aim of at most 1.5 times pandas' processor seconds: {verdict} ({ours / pandas:.2f} times)")
    minutes = seconds * MANY_CELLS / flags.cells / 60
    print(f"{MANY_CELLS:,} cells, without making them: {minutes:.1f} minutes", end="")
    print(" (an extrapolation, linear in plates; it was not run)")


if __name__ == "__main__":
    flags = tyro.cli(Flags, description=__doc__.splitlines()[0])
    main(flags) if flags.answer is None else work_as_side(flags)
