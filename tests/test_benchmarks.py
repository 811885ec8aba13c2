"""Benchmarks of mAP, well profiles and crops at tiny size: what they hold true, and that they would notice."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SOURCES = Path(__file__).parents[1] / "src"


def script(name: str) -> ModuleType:
    """A benchmark as a module (its own name is one of the standard library's)."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def told(name: str, *arguments: object) -> str:
    """What a benchmark prints, run as a person runs it."""
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *map(str, arguments)]
    path = os.pathsep.join([str(SOURCES), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def number(text: str, before: str) -> float:
    """The number that follows these words."""
    found = re.search(re.escape(before) + r" ([0-9.e+-]+)", text)
    assert found is not None, text
    return float(found[1])


def rows(text: str) -> dict[str, list[str]]:
    """The table's rows by their first column."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {first: rest for first, *rest in cells[2:]}


def test_both_sides_of_the_map_benchmark_give_one_answer_on_a_design_of_all_pairs():
    text = told("map", "--plates", 4, "--wells", 48, "--features", 32, "--rounds", 1, "--draws", 500, "--threads", 1)
    # 192 profiles; 16 controls of a plate are neither positives nor negatives of each other
    assert f"{192 * 191 // 2 - 4 * (16 * 15 // 2):,} pairs" in text
    assert number(text, "largest difference of average precision:") <= 1e-6
    assert number(text, "largest difference of mAP:") <= 1e-6
    called = [number(text, "below 0.05: ours"), number(text, ", copairs")]
    assert 0 < min(called) <= max(called) < 33  # of 33 treatments some have a signal, some hardly any
    table = rows(text)
    assert set(table) == {"copairs", "ours"}
    for cells in table.values():
        whole, first, second = (float(cell.split()[0]) for cell in cells[:3])
        assert whole == pytest.approx(first + second, abs=0.02)  # all three are rounded
        assert float(cells[4]) > 50  # MiB: an interpreter with numpy


def test_the_map_benchmark_notices_other_scores_other_pairs_and_p_values_of_another_null(rng):
    benchmark = script("map")
    n_draws = 10_000
    p_value = rng.uniform(0.1, 0.9, size=50)
    ours = {
        "average_precision": rng.random(200),
        "n_positive": np.full(200, 3),
        "n_total": np.full(200, 190),
        "mean_average_precision": rng.random(50),
        "p_value": p_value,
        "corrected_p_value": p_value,
    }

    def error(**changed: np.ndarray) -> str:
        return benchmark.disagreement(ours, {**ours, **changed}, n_draws=n_draws)

    one = np.eye(200)[7]
    assert error() == ""
    assert error(average_precision=ours["average_precision"] + 0.9e-6 * one) == ""
    assert "average precision" in error(average_precision=ours["average_precision"] + 1.1e-6 * one)
    assert "average precision" in error(average_precision=ours["average_precision"] + np.where(one, np.nan, 0))
    assert "positives or negatives" in error(n_total=ours["n_total"] + one.astype(int))
    drawn_again = rng.binomial(n_draws, p_value) / n_draws
    assert error(p_value=drawn_again) == ""
    assert "p-values" in error(p_value=p_value + 0.06)  # eight standard errors


def test_no_two_distances_of_the_map_benchmark_differ_by_rounding_alone():
    benchmark = script("map")
    obs, features = benchmark.profiles(benchmark.Flags(plates=12, wells=24, features=64))
    squared = np.square(features).sum(axis=1)
    assert np.ptp(squared) == 0
    assert 0.9 < squared[0] / 2**20 < 1.01
    cosines = np.unique(features @ features.T / squared[0])
    assert np.diff(cosines).min() > 8 * np.finfo(np.float32).eps / 2  # steps of single precision below 1
    wells_of = obs.groupby("Metadata_Treatment")["Metadata_Plate"].agg(["size", "nunique"])
    assert wells_of.loc["t00000"].tolist() == [12 * 16, 12]
    assert (wells_of.drop("t00000") == 6).all(axis=None)


@pytest.mark.slow
def test_the_profile_benchmark_finds_the_wells_of_pandas_with_a_last_plate_that_is_not_full():
    sizes = ["--cells", 2450, "--wells", 6, "--cells-of-a-well", 100, "--features", 8]
    text = told("profiles", *sizes, "--statistics", "median+mad")
    assert "5 plates" in text
    assert "\n25 wells; largest difference of the first plate's 6 " in text
    assert number(text, "from pandas in float64:") <= 1e-9
    table = rows(text)
    assert set(table) == {"making the plates alone", "ours", "pandas groupby mean"}
    assert all(float(cells[5].replace(",", "")) > 50 for cells in table.values())
    assert "an extrapolation, linear in plates; it was not run" in text


def test_the_profile_benchmark_notices_a_wrong_well_and_a_missing_one():
    benchmark = script("profiles")
    flags = benchmark.Flags(cells=1200, wells=4, cells_of_a_well=200, features=3, statistics="mean+sd")
    right = np.concatenate([benchmark.first_plate_by_pandas(flags), np.zeros((2, 6))])
    cells = benchmark.plate_of(flags, 0).X[:200].astype(np.float64)
    np.testing.assert_allclose(right[0], [*cells.mean(axis=0), *cells.std(axis=0)])
    wrong = right + 1e-8 * np.eye(6)
    assert benchmark.disagreement(flags, right, right[:4]) == ""
    assert "differs from pandas'" in benchmark.disagreement(flags, wrong, right[:4])
    assert "5 wells were profiled; expected 6" in benchmark.disagreement(flags, right[:5], right[:4])


TINY_FIELDS = {"wells": 2, "sites": 1, "width_px": 240, "height_px": 200, "cells": 5}


@pytest.mark.slow
def test_the_crop_benchmark_holds_crops_against_the_plain_read_of_the_same_fields():
    sizes = [word for name, value in TINY_FIELDS.items() for word in ("--" + name.replace("_", "-"), value)]
    text = told("crop", *sizes, "--plates", 1, 2, "--rounds", 1, "--sides", "centres given")
    assert "2 plates, 4 fields of 0.29 MB, 1 turns" in text  # 3 channels of 240 x 200 pixels of 2 bytes
    speeds, memory = (rows("\n" + part) for part in text.split("\n\n")[1:3])
    assert list(speeds) == list(memory) == ["plain read", "centres given"]
    seconds = {side: float(cells[0].split()[0]) for side, cells in speeds.items()}
    assert 0 <= seconds["plain read"] < seconds["centres given"]  # cropping reads the same files and does more
    assert float(speeds["plain read"][4]) == 1
    for cells in memory.values():
        assert min(float(cell) for cell in cells[:2]) > 50  # MiB: an interpreter with numpy
        assert float(cells[3]) == pytest.approx(float(cells[1]) / float(cells[0]), abs=0.01)  # all are rounded
    assert "memory from 1 to 2 plates: " in text


def test_the_crop_benchmark_crops_what_it_says_and_notices_other_crops(tmp_path):
    benchmark = script("crop")
    flags = benchmark.Flags(plates=(2,), source=tmp_path / "screen", crop_px=20, **TINY_FIELDS)

    def worked(side: str) -> dict:
        return benchmark.work_as_side(replace(flags, side=side, out=tmp_path / side))

    worked("make")
    nuclei = pd.read_csv(tmp_path / "screen" / "Nuclei.csv")
    fits = nuclei["Location_Center_Y"].between(10, 190) & nuclei["Location_Center_X"].between(10, 230)
    given, found, lit = (worked(side) for side in ("centres given", "cells found", "centres given, light corrected"))
    assert given["fields"] == 4
    assert given["cells"] == fits.sum() > 0
    assert given["megabytes"] == sum(path.stat().st_size for path in tmp_path.rglob("*.tif")) / 1e6
    assert 0 < found["cells"] <= len(nuclei)  # spots that lie over each other are one
    assert len({given["crops"], found["crops"], lit["crops"]}) == 3
    two = "centres given, 2 processes"
    assert benchmark.disagreement({("centres given", 2): [given, given], (two, 2): [given]}) == ""
    assert two in benchmark.disagreement({("centres given", 2): [given], (two, 2): [lit]})
    assert "centres given" in benchmark.disagreement({("centres given", 2): [given, found]})


@pytest.mark.slow
def test_a_section_of_the_gpu_script_that_fails_is_written_down_and_the_others_follow(cropped_study, tmp_path):
    benchmark = script("gpu")
    flags = benchmark.Flags(cropped_study, tmp_path, sections=("figures", "environment"), tiny=True)
    shutil.copytree(cropped_study, tmp_path / "study")
    (tmp_path / "study" / "runs" / "ae-seed0").mkdir(parents=True)
    (tmp_path / "study" / "runs" / "ae-seed0" / "config.json").write_text("not JSON")
    results = benchmark.work_through(flags, flags.sections)
    assert "figures.log" in results["figures"]["failed"]
    assert results["environment"]["copied, TB/s"] > 0
    assert benchmark.problems(results) == ["figures: failed"]
    assert json.loads((tmp_path / "results.json").read_text()).keys() >= {"figures", "environment", "budget"}


@pytest.mark.slow
def test_the_gpu_script_trains_on_a_processor_too_and_packs_the_run(cropped_study, tmp_path):
    text = told("gpu", cropped_study, tmp_path, "--tiny", "--sections", "train-ae", "embedding")
    assert "nothing failed" in text
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["train-ae"]["latest"]["step"] == 12
    assert results["embedding"]["float32, 16 at once: crops/s"] > 0
    with tarfile.open(tmp_path / "run-ae-seed0.tar.gz") as archive:
        assert "runs/ae-seed0/checkpoint.pt" in archive.getnames()
    assert not (tmp_path / "study").exists()


@pytest.mark.slow
def test_shuffled_labels_are_learned_beside_true_ones_and_none(tiny_study):
    printed = told("shuffled_labels", tiny_study.folder, "--seeds", 0, "--steps", 2, "--batch-size", 4, "--threads", 1)
    lines = [line.split() for line in printed.splitlines() if " NSC" in line]
    assert [line[:2] for line in lines] == [[name, kind] for kind in ("NSC", "NSCB") for name in ("weak", "wssimclr")]
    assert all(0 < float(line[-1]) <= 1 for line in lines)  # p
    assert len(tiny_study.runs) == 6
    of = {run: (tiny_study.run_folder(run) / "history.csv").read_text() for run in tiny_study.runs if "weak" in run}
    assert of["weak-seed0"] != of["weak-shuffled-seed0"]
