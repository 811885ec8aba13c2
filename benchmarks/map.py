"""Mean average precision with p-values: copairs and ours on the same profiles, in turn, in one run.

    python benchmarks/map.py --rounds 3                  # 9,216 profiles; copairs needs 4 GB
    python benchmarks/map.py --side ours --controls 0    # ours alone; no well is a control

Each turn of a side is a process of its own, so that its peak memory is its own, and only one works at a time. Positives
are profiles of the same treatment on another plate, negatives those of any other treatment: the design in which every
pair counts. The profiles are noise with a signal of each treatment's own strength, as ranks (see `profiles`), and 16
wells of a plate are one control. The run ends with an error unless both sides give the same average precision.
"""

import importlib.metadata
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import tyro
from scipy.special import ndtri

from phenolens.core.progress import tell

PLATES_OF_A_LAYOUT = 6  # so often each treatment is repeated, at the same well of as many plates
STRONGEST_SIGNAL = 0.7  # deviations of the noise; at 256 features it brings the positives to the first places
SQUARED_LENGTH = 2**20  # of a profile in whole numbers: cosines differ by a millionth or not at all
SAME_PRECISION = 1e-6  # the largest difference of average precision that passes
SAME_P_VALUE = 5.0  # standard errors of the difference of two p-values that are drawn
AIM_RATIO, AIM_MIB = 10.0, 1024.0
TIMED = ("average precision", "mAP and p-values")


@dataclass(frozen=True)
class Flags:
    """What the benchmark takes."""

    rounds: int = 3  # how often the sides take turns
    plates: int = 24
    wells: int = 384  # of a plate
    controls: int = 16  # wells of a plate that hold one and the same treatment
    features: int = 256
    draws: int = 10_000  # random rankings of the null, for either side
    threads: int = os.cpu_count() or 1  # of numpy; what copairs shares out itself, it shares among all cores
    seed: int = 0
    side: Literal["both", "ours", "copairs"] = "both"
    answer: Path | None = None  # for the processes that the benchmark starts: do the side's work once, leave it here


def main(flags: Flags) -> None:
    """Let the sides take turns, hold their answers against each other, and print the table."""
    names = ("copairs", "ours") if flags.side == "both" else (flags.side,)
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(flags.rounds):
            for name in names:
                tell(f"turn {turn + 1}, {name}: begun")
                turns[name].append(worked(flags, name, Path(folder) / f"{name}.npz"))
                tell(f"turn {turn + 1}, {name}: {sum(turns[name][-1]['seconds']):.2f} s")
        answers = {name: dict(np.load(Path(folder) / f"{name}.npz", allow_pickle=False)) for name in names}
    n_pairs = int(answers[names[0]]["n_total"].sum()) // 2
    from phenolens.training.device import processor_name  # loads PyTorch, which no side needs

    print(f"{processor_name()}, {os.cpu_count()} cores")
    print(
        f"{flags.plates * flags.wells:,} profiles ({flags.plates} plates of {flags.wells}), {flags.features} features,"
    )
    print(f"{len(answers[names[0]]['p_value']):,} treatments, {n_pairs:,} pairs, {flags.draws:,} draws,")
    print("positives: same treatment, another plate; negatives: another treatment")
    print(f"{flags.threads} threads; copairs {importlib.metadata.version('copairs')}, numpy {np.__version__}\n")
    print_table(turns)
    if flags.side == "both":
        error = disagreement(answers["ours"], answers["copairs"], n_draws=flags.draws)
        if error:
            sys.exit(f"error: {error}")
        print_aims(turns)


def worked(flags: Flags, side: str, answer: Path) -> dict[str, Any]:
    """One turn of a side in a process of its own: its seconds, a part each, and its peak memory in MiB."""
    options = {"plates": flags.plates, "wells": flags.wells, "controls": flags.controls, "features": flags.features}
    options |= {"draws": flags.draws, "seed": flags.seed, "side": side, "answer": answer}  # type: ignore[dict-item]
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    threads = {name: str(flags.threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, __file__, *words],
        stdout=subprocess.PIPE,
        env={**os.environ, **threads},
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"error: {side} has died; its message stands above")
    return json.loads(done.stdout)


def work_as_side(flags: Flags) -> None:
    """The side's work once; its seconds and memory as JSON on stdout, its numbers in the file `answer`."""
    obs, features = profiles(flags)
    began = time.process_time()
    seconds, answer = {"ours": ours, "copairs": copairs}[flags.side](obs, features, flags)
    processor = time.process_time() - began
    assert flags.answer is not None
    np.savez(flags.answer, **answer)
    print(json.dumps({"seconds": seconds, "processor": processor, "peak_mib": peak_mib()}))


def profiles(flags: Flags) -> tuple[pd.DataFrame, np.ndarray]:
    """Plate and treatment of each profile, and its features (N, Z): noise and a signal of its treatment's own strength.

    A profile's features are replaced by the normal scores of their ranks, in whole numbers. All profiles are then of
    one length, and two distances are equal or differ by more than rounding does. With plain noise some pairs are
    ordered by the last digit of single precision, which each side rounds in its own way.
    """
    rng = np.random.default_rng(flags.seed)
    plate, well = (axis.ravel() for axis in np.indices((flags.plates, flags.wells)))
    layout = plate // min(PLATES_OF_A_LAYOUT, flags.plates)
    treatment = np.where(well < flags.controls, 0, 1 + layout * flags.wells + well)
    strength = rng.uniform(0, STRONGEST_SIGNAL, size=(treatment.max() + 1, 1))
    signal = strength * rng.normal(size=(len(strength), flags.features))
    measured = signal[treatment] + rng.normal(size=(len(plate), flags.features))
    quantiles = ndtri((np.arange(flags.features) + 0.5) / flags.features)
    scores = np.rint(quantiles * np.sqrt(SQUARED_LENGTH / flags.features))
    features = scores[measured.argsort(axis=1).argsort(axis=1)]
    obs = pd.DataFrame(
        {"Metadata_Plate": [f"p{code}" for code in plate], "Metadata_Treatment": [f"t{code:05}" for code in treatment]},
        index=[f"p{p}_w{w}" for p, w in zip(plate, well)],
    )
    return obs, features


def ours(obs: pd.DataFrame, features: np.ndarray, flags: Flags) -> tuple[list[float], dict[str, np.ndarray]]:
    """The package's two functions: seconds of each, and what they say."""
    from anndata import AnnData

    from phenolens.profiles.average_precision import average_precision, mean_by_group

    table = AnnData(features, obs=obs)
    design = {"positive_same": ["treatment"], "positive_different": ["plate"], "negative_different": ["treatment"]}
    first, scores = timed(lambda: average_precision(table, **design))  # type: ignore[arg-type]
    second, means = timed(lambda: mean_by_group(scores, by=["treatment"], n_draws=flags.draws, seed=flags.seed))
    return [first, second], numbers(scores, means, n_positive="n_positive", n_total="n_total")


def copairs(obs: pd.DataFrame, features: np.ndarray, flags: Flags) -> tuple[list[float], dict[str, np.ndarray]]:
    """The same by copairs, its cache of nulls empty, as on the first run of a screen."""
    from copairs.map import average_precision, mean_average_precision

    treatment, plate = ["Metadata_Treatment"], ["Metadata_Plate"]
    first, scores = timed(lambda: average_precision(obs, features, treatment, plate, [], treatment, progress_bar=False))
    with tempfile.TemporaryDirectory() as cache:
        options = {"null_size": flags.draws, "threshold": 0.05, "seed": flags.seed, "cache_dir": cache}
        second, means = timed(lambda: mean_average_precision(scores, treatment, progress_bar=False, **options))
    return [first, second], numbers(scores, means, n_positive="n_pos_pairs", n_total="n_total_pairs")


def timed(work: Callable[[], pd.DataFrame]) -> tuple[float, pd.DataFrame]:
    """Seconds, and what came of it."""
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found


def numbers(scores: pd.DataFrame, means: pd.DataFrame, *, n_positive: str, n_total: str) -> dict[str, np.ndarray]:
    """What is held against the other side: a number per profile, then a number per treatment in the order of names."""
    means = means.sort_values("Metadata_Treatment")
    of_profiles = {"average_precision": "average_precision", "n_positive": n_positive, "n_total": n_total}
    of_treatments = ("mean_average_precision", "p_value", "corrected_p_value")
    return {
        **{name: scores[column].to_numpy() for name, column in of_profiles.items()},
        **{name: means[name].to_numpy() for name in of_treatments},
    }


def peak_mib() -> float:
    """The most memory this process has held, MiB. (It begins at that of its parent, which therefore does little.)"""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def disagreement(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], *, n_draws: int) -> str:
    """Print how far the two answers are apart; what is wrong with that, or nothing.

    p-values are shares of `n_draws` random rankings that each side draws for itself, so they are compared in standard
    errors of the difference of two such shares.
    """
    apart = {
        name: float(np.abs(ours[name] - theirs[name]).max()) for name in ("average_precision", "mean_average_precision")
    }
    middle = (ours["p_value"] + theirs["p_value"]) / 2
    standard_error = np.sqrt(2 * middle * (1 - middle).clip(min=1 / n_draws) / n_draws)
    apart["p_value"] = float(np.abs(ours["p_value"] - theirs["p_value"]).max())
    errors = float((np.abs(ours["p_value"] - theirs["p_value"]) / standard_error).max())
    print(f"\nlargest difference of average precision: {apart['average_precision']:.1e} ({SAME_PRECISION:.0e} passes)")
    print(f"largest difference of mAP: {apart['mean_average_precision']:.1e}")
    print(f"largest difference of p-values: {apart['p_value']:.4f}", end="")
    print(f", {errors:.1f} standard errors ({SAME_P_VALUE:.0f} pass)")
    called = [f"{int((answer['corrected_p_value'] < 0.05).sum()):,}" for answer in (ours, theirs)]
    print(f"treatments with a corrected p-value below 0.05: ours {called[0]}, copairs {called[1]}")
    if any((ours[name] != theirs[name]).any() for name in ("n_positive", "n_total")):
        return "the sides count different positives or negatives"
    if not max(apart["average_precision"], apart["mean_average_precision"]) <= SAME_PRECISION:
        return f"average precision or mAP differs by more than {SAME_PRECISION:.0e}"
    if not errors <= SAME_P_VALUE:
        return f"p-values differ by more than {SAME_P_VALUE:.0f} standard errors of their draws"
    return ""


def print_table(turns: dict[str, list[dict[str, Any]]]) -> None:
    """A row per side: seconds of all and of each part, memory, and how many times longer copairs takes, turn by turn.

    Processor seconds hold the imports too; they change little when other programs are running.
    """
    columns = ("side", "seconds, median (range)", *TIMED, "processor seconds", "peak memory, MiB", "copairs / ours")
    print(f"| {' | '.join(columns)} |")
    print(f"|{' --- |' * len(columns)}")
    for name, found in turns.items():
        whole = spread([sum(turn["seconds"]) for turn in found])
        parts = " | ".join(spread([turn["seconds"][part] for turn in found]) for part in range(len(TIMED)))
        ratio = spread(ratios(turns)) if name == "ours" and len(turns) > 1 else "-"
        processor = statistics.median(turn["processor"] for turn in found)
        memory = max(turn["peak_mib"] for turn in found)
        print(f"| {name} | {whole} | {parts} | {processor:,.1f} | {memory:,.0f} | {ratio} |")


def spread(values: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):,.2f} ({min(values):,.2f} to {max(values):,.2f})"


def ratios(turns: dict[str, list[dict[str, Any]]]) -> list[float]:
    """Seconds of copairs over ours, a number a turn."""
    return [sum(a["seconds"]) / sum(b["seconds"]) for a, b in zip(turns["copairs"], turns["ours"])]


def print_aims(turns: dict[str, list[dict[str, Any]]]) -> None:
    """Whether ours is ten times as fast, with p-values no slower, and stays under a gigabyte."""
    ratio = statistics.median(ratios(turns))
    memory = max(turn["peak_mib"] for turn in turns["ours"])
    print(f"\naim of {AIM_RATIO:.0f} times copairs' speed: {met(ratio >= AIM_RATIO)} ({ratio:.1f} times)")
    ours, theirs = (statistics.median(turn["seconds"][1] for turn in turns[side]) for side in ("ours", "copairs"))
    print(f"aim of p-values at least as fast: {met(ours <= theirs)} ({theirs / ours:.1f} times)")
    print(f"aim of less than 1 GiB: {met(memory < AIM_MIB)} ({memory:,.0f} MiB)")


def met(reached: bool) -> str:
    """In a word."""
    return "met" if reached else "missed"


if __name__ == "__main__":
    flags = tyro.cli(Flags, description=__doc__.splitlines()[0])
    main(flags) if flags.answer is None else work_as_side(flags)
