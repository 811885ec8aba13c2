"""How well nuclei are found in simulated fields, whose true centres are known, at three densities.

    python benchmarks/nuclei.py

The parameters of NucleiConfig were chosen on seeds 101 and 102 and on three real fields; give others here.
"""

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tyro
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from phenolens.core.errors import InputError
from phenolens.core.progress import tell, track
from phenolens.crops.config import NucleiConfig
from phenolens.crops.nuclei import find_nuclei
from phenolens.screens.bbbc021 import read_bbbc021
from phenolens.screens.read_image import read_field
from phenolens.simulation.simulate import TRUTH_TABLE, SimulateConfig, simulate
from phenolens.training.device import processor_name

CHOSEN_ON = (101, 102)
DENSITIES = {"sparse": 8.0, "default": 21.0, "crowded": 45.0}  # untreated cells a field of 512 x 464 px
FIELD = ["plate", "well", "site"]


@dataclass(frozen=True)
class Flags:
    """What the benchmark takes."""

    seeds: tuple[int, ...] = (3,)  # a screen each: 2 compounds per mechanism at one active dose, and the controls
    within_px: float = 10.0  # how far a nucleus may be from the true centre that it is matched with
    border_px: int = 20  # centres nearer to the border than this are matched, but not counted


def main(flags: Flags) -> None:
    """Draw the screens, find their nuclei, print precision, recall and errors."""
    if set(flags.seeds) & set(CHOSEN_ON):
        raise InputError(f"seeds {flags.seeds}: the parameters were chosen on {CHOSEN_ON}; give other seeds")
    print(f"{processor_name()}, {os.cpu_count()} cores")
    print("| density | fields | true nuclei | found | precision | recall | error px, median | 95 % | s a field |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    by_density = {name: measured(cells, flags) for name, cells in DENSITIES.items()}
    for name, (true, found, seconds, n_fields) in by_density.items():
        error = true["error_px"].dropna()
        print(
            f"| {name} | {n_fields} | {len(true):,} | {len(found):,} | {found['is_true'].mean():.3f} | "
            f"{true['is_found'].mean():.3f} | {error.median():.2f} | {error.quantile(0.95):.2f} | {seconds:.2f} |"
        )
    true = pd.concat([parts[0] for parts in by_density.values()])
    found = pd.concat([parts[1] for parts in by_density.values()])
    missing = found[~found["is_true"]]
    print(f"\nFound without a true centre: {len(missing):,}; the nearest true nucleus is {shares(missing['nearest'])}")
    for column in ("kind", "mechanism"):
        print(f"\n| {column} | true nuclei | recall |\n| --- | --- | --- |")
        for name, group in true.groupby(column):
            print(f"| {name} | {len(group):,} | {group['is_found'].mean():.3f} |")


def shares(kinds: pd.Series) -> str:
    """`fragmented (57), mitotic (5)`."""
    return ", ".join(f"{name} ({n})" for name, n in kinds.value_counts().items())


def measured(cells: float, flags: Flags) -> tuple[pd.DataFrame, pd.DataFrame, float, int]:
    """The true nuclei and the found ones of all fields at one density, seconds per field, how many fields."""
    true, found, seconds = [], [], []
    for seed in flags.seeds:
        config = SimulateConfig(
            seed=seed, batches=1, replicates=1, compounds=2, doses=1, active_doses=1, least_efficacy=1.0, cells=cells
        )
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "screen"
            simulate(folder, config)
            screen = read_bbbc021(folder, images=folder, treatments="all")
            truth = dict(list(pd.read_parquet(folder / TRUTH_TABLE).groupby(FIELD)))
            for _, row in track(screen.table.iterrows(), "fields", total=len(screen.table)):
                dna = read_field({"dna": folder / row[f"file_{screen.channels[0]}"]}, where=row["well"])[0]
                began = time.perf_counter()
                nuclei = find_nuclei(dna, config=NucleiConfig())
                seconds.append(time.perf_counter() - began)
                own = truth[tuple(row[FIELD])]
                parts = matched(own, nuclei, size=dna.shape, flags=flags)
                true.append(parts[0])
                found.append(parts[1])
    tell(f"{cells:g} cells a field: done")
    return pd.concat(true), pd.concat(found), float(np.median(seconds)), len(seconds)


def matched(
    truth: pd.DataFrame, nuclei: pd.DataFrame, *, size: tuple[int, ...], flags: Flags
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One field's true and found nuclei, matched one to one within the radius; those near the border left out."""
    true_at, found_at = truth[["y_px", "x_px"]].to_numpy(), nuclei[["y", "x"]].to_numpy()
    distance = cdist(true_at, found_at)
    # beyond the radius all are equally bad, so that no far pair moves a near one
    rows, columns = linear_sum_assignment(np.minimum(distance, 2 * flags.within_px))
    near = distance[rows, columns] <= flags.within_px
    rows, columns = rows[near], columns[near]
    error = np.full(len(truth), np.nan)
    error[rows] = distance[rows, columns]
    kind = truth["state"].where(truth["state"] != "interphase", "one-piece interphase").to_numpy(dtype=object)
    kind[(truth["state"] == "interphase") & (truth["n_fragments"] > 1)] = "fragmented interphase"
    true = pd.DataFrame(
        {
            "kind": kind,
            "mechanism": truth["mechanism"].replace("", "control (DMSO)").to_numpy(),
            "is_found": np.isfinite(error),
            "error_px": error,
        }
    )
    is_true = np.isin(np.arange(len(nuclei)), columns)
    found = pd.DataFrame({"is_true": is_true, "nearest": kind[distance.argmin(axis=0)] if len(nuclei) else []})
    return true[inside(true_at, size, flags)], found[inside(found_at, size, flags)]


def inside(centres: np.ndarray, size: tuple[int, ...], flags: Flags) -> np.ndarray:
    """Which centres lie at least `border_px` inside the field."""
    return ((centres >= flags.border_px) & (centres <= np.array(size) - 1 - flags.border_px)).all(axis=1)


if __name__ == "__main__":
    main(tyro.cli(Flags, description=__doc__.splitlines()[0]))
