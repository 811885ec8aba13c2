"""A whole run, killed in the middle of every step, ends with the files of the run that was never killed."""

import signal
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from processes import Command
from whole_files import different_files

pytestmark = pytest.mark.slow

FLAGS = (
    "--layout bbbc021 --crop-px 36 --model vaeplus --steps 40 --batch-size 4 --width 4 --latent-size 8 --ramp-steps 5 "
    "--also pca --checkpoint-every 5 --record-every 5 --watch-every 10 --threads 1 --precision float32 "
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


def run(study: Path, source: Path) -> Command:
    """`phenolens run` in a process of its own, beside the study's folder."""
    return Command("run", study, "--source", source, *FLAGS.split(), said=study.with_name("said"))


def finish(study: Path, source: Path) -> None:
    """Run to the end."""
    status, lines = run(study, source).ended()
    assert status == 0, lines


def kill_when(study: Path, source: Path, moment: str) -> int:
    """Start, kill with SIGKILL as soon as a file of this pattern is there; the exit status."""
    process = run(study, source)
    deadline = time.monotonic() + 120
    while not list(study.glob(moment)) and process.is_running() and time.monotonic() < deadline:
        time.sleep(0.002)
    return process.kill_after(0)


@pytest.fixture(scope="module")
def finished(tiny_screen, tmp_path_factory) -> Path:
    """A study that was never killed."""
    study = tmp_path_factory.mktemp("whole") / "study"
    finish(study, tiny_screen)
    return study


def test_killed_in_the_middle_of_any_step_the_same_command_ends_with_the_same_files(finished, tiny_screen, tmp_path):
    killed = tmp_path / "study"
    statuses = [kill_when(killed, tiny_screen, moment) for moment in MOMENTS]
    assert statuses == [-signal.SIGKILL] * len(MOMENTS)
    finish(killed, tiny_screen)
    assert different_files(finished, killed) == []


def test_a_finished_run_given_again_changes_no_file(finished, tiny_screen):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.suffix in (".npy", ".pt", ".h5ad")}
    assert len(before) > 10
    finish(finished, tiny_screen)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_what_is_written_is_readable_by_others(finished):
    """AnnData files open with h5py's own reader and hold finite numbers and CellProfiler-style names."""
    for path in (finished / "embeddings" / "vaeplus-seed0").glob("*.h5ad"):
        with h5py.File(path) as file:
            assert {"Metadata_Plate", "Metadata_Well", "Metadata_Compound"} <= set(file["obs"])
            assert np.isfinite(file["X"][()]).all()
