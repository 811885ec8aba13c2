"""A whole run, killed in the middle of every step, ends with the files of the run that was never killed."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from whole_files import different_files

pytestmark = pytest.mark.slow

FLAGS = (
    "--layout bbbc021 --crop-px 36 --steps 40 --batch-size 4 --width 4 --latent-size 8 --ramp-steps 5 --also pca "
    "--checkpoint-every 5 --record-every 5 --watch-every 10 --threads 1 --precision float32 "
    "--bootstraps 20 --shuffles 5"
)
# One file that each step writes on its way: when it is there, the process is in the middle of that step or the next.
MOMENTS = [
    "crops/*.npy",
    "crops/about.json",
    "runs/vaeplus-seed0/config.json",
    "runs/vaeplus-seed0/checkpoint.pt",
    "runs/vaeplus-seed0/health.json",
    "embeddings/vaeplus-seed0/*.h5ad",
    "profiles/vaeplus-seed0/wells_mean.h5ad",
    "embeddings/pca-seed0/*.h5ad",
    "scores/vaeplus-seed0/neighbours*.csv",
    "scores.csv",
]


def start(study: Path, source: Path) -> subprocess.Popen:
    """`phenolens run` in a process of its own."""
    command = [sys.executable, "-m", "phenolens.cli", "run", str(study), "--source", str(source), *FLAGS.split()]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(study: Path, source: Path) -> str:
    """Run to the end; the last line of stdout."""
    out, err = (process := start(study, source)).communicate(timeout=300)
    assert process.returncode == 0, err
    return out.splitlines()[-1]


def kill_when(study: Path, source: Path, moment: str) -> int:
    """Start, kill with SIGKILL as soon as a file of this pattern is there; the exit status."""
    process = start(study, source)
    deadline = time.monotonic() + 120
    while not list(study.glob(moment)) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode


def test_killed_in_the_middle_of_any_step_the_same_command_ends_with_the_same_files(tiny_screen, tmp_path):
    whole, killed = tmp_path / "whole" / "study", tmp_path / "killed" / "study"
    report = finish(whole, tiny_screen)
    assert report == str((whole / "report.html").resolve())
    statuses = [kill_when(killed, tiny_screen, moment) for moment in MOMENTS]
    assert statuses == [-signal.SIGKILL] * len(MOMENTS)
    finish(killed, tiny_screen)
    assert different_files(whole, killed) == []


def test_a_finished_run_given_again_changes_no_file(tiny_screen, tmp_path):
    study = tmp_path / "study"
    finish(study, tiny_screen)
    before = {path: path.stat().st_mtime_ns for path in study.rglob("*") if path.suffix in (".npy", ".pt", ".h5ad")}
    assert len(before) > 10
    finish(study, tiny_screen)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_what_is_written_is_readable_by_others(tiny_screen, tmp_path):
    """AnnData files open with h5py's own reader and hold finite numbers and CellProfiler-style names."""
    study = tmp_path / "study"
    finish(study, tiny_screen)
    for path in (study / "embeddings" / "vaeplus-seed0").glob("*.h5ad"):
        with h5py.File(path) as file:
            assert {"Metadata_Plate", "Metadata_Well", "Metadata_Compound"} <= set(file["obs"])
            assert np.isfinite(file["X"][()]).all()
