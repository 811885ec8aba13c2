"""How soon a command answers: `phenolens --help`, the flags of each command, and the first output of commands at work.

    python benchmarks/start.py                  # a small simulated screen
    python benchmarks/start.py --rounds 10

Every start is a process of its own at a pseudo-terminal, where a command also says which libraries are loading, and
ends with its first readable character. Commands take turns with the yardstick, a Python that imports pandas. Each works
on a fresh copy of the study. On so small a screen the first output of `check` and `crop` is their whole answer.
"""

import os
import pty
import re
import select
import shutil
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
from phenolens.training.device import processor_name

SCREEN = {"mechanisms": 2, "compounds": 2, "doses": 1, "active_doses": 1, "replicates": 1, "cells": 8}
YARDSTICK = "python -c 'import pandas'"
LONGEST = 60  # s without an output after which the benchmark fails
ESCAPE = re.compile(rb"\x1b\[[0-9;?]*[a-zA-Z]")  # what colours a terminal, or hides its cursor


@dataclass(frozen=True)
class Flags:
    """What the benchmark takes."""

    rounds: int = 5


def main(flags: Flags) -> None:
    """Make the study, start every command in turn, print when each first said something."""
    with tempfile.TemporaryDirectory() as temporary:
        made = Path(temporary) / "made"
        make_study(made)
        seconds: dict[str, list[float]] = {name: [] for name in commands(made)}
        turns = [(turn, name) for turn in range(flags.rounds) for name in seconds]
        for turn, name in track(turns, "Commands started", total=len(turns)):
            fresh = Path(temporary) / f"{turn}"
            shutil.copytree(made, fresh)
            seconds[name].append(first_output(commands(fresh)[name]))
            shutil.rmtree(fresh)
    print(f"{processor_name()}, {os.cpu_count()} cores; Python {sys.version.split()[0]}, {flags.rounds} rounds\n")
    print("| command | s to its first output, median (range) | times the yardstick |\n| --- | --- | --- |")
    for name, of_command in seconds.items():
        ratio = statistics.median(own / of for own, of in zip(of_command, seconds[YARDSTICK]))
        print(f"| `{name}` | {statistics.median(of_command):.2f}", end="")
        print(f" ({min(of_command):.2f} to {max(of_command):.2f}) | {ratio:.2f} |")


def make_study(folder: Path) -> None:
    """A screen, and a study of it with a run that has profiles."""
    screen, study = folder / "screen", folder / "study"
    ph.simulate(screen, **SCREEN)
    ph.crop(study, source=screen, layout="bbbc021", crop_px=36)
    ph.train(study, model="pca")
    ph.embed(study)
    ph.profile(study)


def commands(folder: Path) -> dict[str, list[str]]:
    """Each command to start, on the study in this folder: its name, and its words."""
    screen, study, new = str(folder / "screen"), str(folder / "study"), str(folder / "new")
    made_from = ["--source", screen, "--layout", "bbbc021"]
    at_work = {
        "simulate": [new, "--mechanisms", "2"],
        "check": [screen, "--layout", "bbbc021"],
        "crop": [new, *made_from],
        "run": [new, *made_from],
        "measure": [study],
        "train": [study, "--model", "pca", "--name", "another"],
        "embed": [study],
        "profile": [study],
        "evaluate": [study],
        "features": [study],
        "realism": [study],
        "report": [study],
        "export": [study, "--out", f"{new}.h5sc"],
        "explore": [study, "--port", "0"],
    }
    phenolens = [sys.executable, "-m", "phenolens.cli"]
    found = {YARDSTICK: [sys.executable, "-c", "import pandas; print(1)"], "--help": [*phenolens, "--help"]}
    found |= {f"{verb} --help": [*phenolens, verb, "--help"] for verb in VERBS}
    return found | {f"{verb} ...": [*phenolens, verb, *words] for verb, words in at_work.items()}


def first_output(words: list[str]) -> float:
    """Seconds from a process's start to its first readable character; the process is ended then."""
    reading, writing = pty.openpty()
    began = time.perf_counter()
    process = subprocess.Popen(words, stdin=writing, stdout=writing, stderr=writing, start_new_session=True)
    os.close(writing)
    said = b""
    try:
        while not ESCAPE.sub(b"", said).strip():
            left = LONGEST - (time.perf_counter() - began)
            if not select.select([reading], [], [], max(left, 0))[0]:
                sys.exit(f"error: no output within {LONGEST} s: {' '.join(words)}")
            said += read_some(reading, words)
        return time.perf_counter() - began
    finally:
        process.kill()
        process.wait()
        os.close(reading)


def read_some(reading: int, words: list[str]) -> bytes:
    """What the process said; the benchmark ends with an error where it ended without a word."""
    try:
        return os.read(reading, 1024)
    except OSError:  # its end of the terminal is closed
        sys.exit(f"error: ended without an output: {' '.join(words)}")


if __name__ == "__main__":
    main(tyro.cli(Flags, description=__doc__.splitlines()[0]))
