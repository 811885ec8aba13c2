"""NSC and NSCB as profiles grow: processor seconds and peak memory, each size in a process of its own.

    python benchmarks/neighbours.py                          # 3,000, 10,000 and 30,000 profiles of 500 features
    python benchmarks/neighbours.py --profiles 100000        # 10 minutes of one thread

The profiles are noise with a signal of their mechanism: 4 doses a compound, 50 compounds a mechanism, one or two of 20
batches a compound. Timed are the nearest neighbours by both protocols, and their scores with intervals and shuffled
labels.
"""

import json
import os
import platform
import resource
import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np
import pandas as pd
import tyro
from anndata import AnnData

from phenolens.profiles.evaluate import ScoreConfig, matchings_of, scored
from phenolens.training.device import processor_name

DOSES, COMPOUNDS_OF_A_MECHANISM, BATCHES, SIGNAL = 4, 50, 20, 0.2


@dataclass(frozen=True)
class Flags:
    """What the benchmark takes."""

    profiles: tuple[int, ...] = (3_000, 10_000, 30_000)
    features: int = 500
    threads: int = 1
    seed: int = 0
    alone: bool = False  # for the processes that the benchmark starts: measure the only size here


def main(flags: Flags) -> None:
    """Measure every size and print the table."""
    print(f"{processor_name()}, {os.cpu_count()} cores, {flags.threads} threads; numpy {np.__version__}")
    print(f"Python {platform.python_version()}; {flags.features} features, processor seconds\n")
    print(
        "| profiles | nearest by NSC and NSCB | intervals and shuffles | peak memory, MiB |\n| --- | --- | --- | --- |"
    )
    for n in flags.profiles:
        options = ["--alone", "--profiles", n, "--features", flags.features, "--seed", flags.seed]
        environment = {**os.environ, "OMP_NUM_THREADS": str(flags.threads), "OPENBLAS_NUM_THREADS": str(flags.threads)}
        words = [sys.executable, __file__, *map(str, options)]
        found = json.loads(subprocess.run(words, env=environment, check=True, stdout=subprocess.PIPE).stdout)
        print(f"| {n:,} | {found['nearest']:.1f} s | {found['scores']:.1f} s | {found['peak_mib']:,.0f} |", flush=True)


def measure(flags: Flags) -> dict[str, float]:
    """Processor seconds of both parts, and the peak memory in MiB."""
    profiles = made_up(flags.profiles[0], flags)
    began = time.process_time()
    matchings, _ = matchings_of(profiles, ScoreConfig())
    matched = time.process_time()
    for matching in matchings:
        scored(matching, ScoreConfig())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"nearest": matched - began, "scores": time.process_time() - matched, "peak_mib": peak}


def made_up(n: int, flags: Flags) -> AnnData:
    """`n` treatments with what NSCB needs."""
    rng = np.random.default_rng(flags.seed)
    compound = np.arange(n) // DOSES
    mechanism = rng.integers(0, max(2, n // DOSES // COMPOUNDS_OF_A_MECHANISM), compound[-1] + 1)
    batches = rng.integers(0, BATCHES, (compound[-1] + 1, 2))
    names = np.array(["|".join(f"b{batch}" for batch in sorted(set(own))) for own in batches])
    signal = SIGNAL * rng.normal(size=(mechanism.max() + 1, flags.features))
    obs = {"Metadata_Compound": [f"c{code}" for code in compound], "Metadata_Batch": names[compound]}
    obs |= {"Metadata_MoA": [f"m{code}" for code in mechanism[compound]], "Metadata_Role": "treated"}
    obs |= {
        "Metadata_Concentration_um": 1.0 + np.arange(n) % DOSES,
        "Metadata_Treatment": [f"t{row}" for row in range(n)],
    }
    features = signal[mechanism[compound]] + rng.normal(size=(n, flags.features))
    return AnnData(features.astype(np.float32), pd.DataFrame(obs, index=[f"row{row}" for row in range(n)]))


if __name__ == "__main__":
    given = tyro.cli(Flags, description=__doc__.splitlines()[0])
    print(json.dumps(measure(given))) if given.alone else main(given)
