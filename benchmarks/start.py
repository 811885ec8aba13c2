"""How soon a command answers: `phenolens --help`, the flags of each command, and the first output of commands at work.

    python benchmarks/start.py                  # a small simulated screen
    python benchmarks/start.py --rounds 10

Every start is a process of its own at a pseudo-terminal, where a command also says which libraries are loading, and
ends with its first output. Commands take turns with the yardstick, a Python that imports pandas.
"""

import os
import pty
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

import phenolens as ph
from phenolens.cli import VERBS
from phenolens.core.progress import track

SCREEN = {"mechanisms": 2, "compounds": 1, "doses": 1, "active_doses": 1, "replicates": 1, "cells": 8}
YARDSTICK = "python -c 'import pandas'"
LONGEST = 60  # s without an output after which the benchmark fails


@dataclass(frozen=True)
class Flags:
    """What the benchmark takes."""

    rounds: int = 5


def main(flags: Flags) -> None:
    """Make the study, start every command in turn, print when each first said something."""
    with tempfile.TemporaryDirectory() as temporary:
        started = commands(Path(temporary))
        seconds: dict[str, list[float]] = {name: [] for name in started}
        turns = [(turn, name) for turn in range(flags.rounds) for name in started]
        for _, name in track(turns, "Commands started", total=len(turns)):
            seconds[name].append(first_output(started[name]))
    print("| command | s to its first output, median (range) | times the yardstick |\n| --- | --- | --- |")
    for name, of_command in seconds.items():
        ratio = statistics.median(own / of for own, of in zip(of_command, seconds[YARDSTICK]))
        print(f"| `{name}` | {statistics.median(of_command):.2f}", end="")
        print(f" ({min(of_command):.2f} to {max(of_command):.2f}) | {ratio:.2f} |")


def commands(folder: Path) -> dict[str, list[str]]:
    """Each command to start: its name, and its words. They work on a study that is made for it."""
    screen, study = folder / "screen", folder / "study"
    ph.simulate(screen, **SCREEN)
    ph.crop(study, source=screen, layout="bbbc021", crop_px=36)
    ph.train(study, model="pca")
    ph.embed(study)
    ph.profile(study)
    made_from = ["--source", str(screen), "--layout", "bbbc021"]
    at_work = {
        "check": [str(screen), "--layout", "bbbc021"],
        "crop": [str(folder / "other"), *made_from],
        "run": [str(folder / "whole"), *made_from],
        "measure": [str(study)],
        "train": [str(study), "--model", "pca", "--name", "another"],
        "embed": [str(study)],
        "profile": [str(study)],
        "evaluate": [str(study)],
        "report": [str(study)],
        "explore": [str(study), "--port", "0"],
    }
    phenolens = [sys.executable, "-m", "phenolens.cli"]
    found = {YARDSTICK: [sys.executable, "-c", "import pandas; print(1)"], "--help": [*phenolens, "--help"]}
    found |= {f"{verb} --help": [*phenolens, verb, "--help"] for verb in VERBS}
    return found | {f"{verb} ...": [*phenolens, verb, *words] for verb, words in at_work.items()}


def first_output(words: list[str]) -> float:
    """Seconds from a process's start to its first byte; the process is ended then."""
    reading, writing = pty.openpty()
    began = time.perf_counter()
    process = subprocess.Popen(words, stdin=writing, stdout=writing, stderr=writing)
    os.close(writing)
    try:
        if not select.select([reading], [], [], LONGEST)[0] or not os.read(reading, 1):
            sys.exit(f"error: no output within {LONGEST} s: {' '.join(words)}")
        return time.perf_counter() - began
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        os.close(reading)


if __name__ == "__main__":
    main(tyro.cli(Flags, description=__doc__.splitlines()[0]))
