"""The benchmark of mixed populations: the truth is joined cell by cell, and its table counts what it says."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from phenolens.core.errors import InputError

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "mixed_populations.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mixed_populations", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mixed_populations"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_each_crop_is_told_its_own_planted_fragments_whatever_the_order_of_the_truth(
    script, tiny_study, tiny_screen, tmp_path
):
    truth = pd.read_parquet(tiny_screen / "truth.parquet")
    truth["n_fragments"] = np.where(truth["object_number"] % 3 == 0, 2, 1)
    truth.sample(frac=1, random_state=0).to_parquet(tmp_path / "truth.parquet")
    planted = script.planted_fragments(tiny_study, tmp_path / "truth.parquet")
    np.testing.assert_array_equal(planted, tiny_study.crops.cells["object_number"] % 3 == 0)
    assert 0 < planted.sum() < len(planted)
    truth.iloc[:5].to_parquet(tmp_path / "truth.parquet")
    with pytest.raises(InputError, match="does not hold every cell"):
        script.planted_fragments(tiny_study, tmp_path / "truth.parquet")


class MadeUp:
    """Ten cells of one treatment: the populations are 6 and 4 cells, the second has more pieces of the nucleus."""

    def __init__(self, script):
        self.run = SimpleNamespace(name="made-up")
        self.catalogue = SimpleNamespace(rows_of=lambda treatment: np.arange(10))
        self.script = script
        self.measured = self

    def targets(self, treatment, asked):
        if asked.targets == "mean":
            return [SimpleNamespace(row=0, rows=np.arange(10))]
        return [SimpleNamespace(row=0, rows=np.arange(6)), SimpleNamespace(row=7, rows=np.arange(6, 10))]

    def of(self, rows):
        return pd.DataFrame({self.script.PIECES: np.where(np.asarray(rows) >= 6, 2.0, 1.0)})


def test_purity_recall_base_and_p_are_those_of_the_definition(script, tmp_path):
    planted = np.isin(np.arange(10), [5, 6, 7, 8])  # three of four in the population that is shown, one outside
    flags = replace(script.Flags(tmp_path, tmp_path, tmp_path), shuffles=4000)
    rows = list(script.shown(MadeUp(script), "t@1", "m", 2, "nucleus", planted, flags))
    assert [(row["n_shown"], row["n_shown_planted"], row["n_planted"]) for row in rows] == [(4, 3, 4)]
    assert rows[0]["medoid_planted"]
    assert not rows[0]["mean_target_planted"]
    header, _, line = script.report(pd.DataFrame(rows), MadeUp(script), flags).strip().split("\n")[-3:]
    said = dict(zip(header.strip("| ").split(" | "), line.strip("| ").split(" | ")))
    assert (said["base"], said["purity"], said["recall"]) == ("0.40", "0.75 (3 of 4)", "0.75")
    # hypergeometric: of 10 cells with 4 planted, 4 drawn: (C(4,3) C(6,1) + C(4,4)) / C(10,4) = 25 / 210
    assert float(said["p"]) == pytest.approx(25 / 210, abs=0.02)
