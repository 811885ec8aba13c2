"""The main job end to end: the demo from nothing to a report, and the same on real crops and real fields."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bbbc021_source import cut_crops
from phenolens.crops.config import CropConfig
from phenolens.screens.bbbc021 import read_bbbc021
from processes import peak_bytes_of_children

GIB = 2**30


def phenolens(*arguments: object) -> list[str]:
    """Run one command in a process of its own; the lines of its stdout."""
    command = [sys.executable, "-m", "phenolens.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo with fewer steps than it takes by default; its study."""
    out = tmp_path_factory.mktemp("demo") / "out"
    last_line = phenolens("demo", out, "--steps", 60, "--threads", 1)[-1]
    assert last_line == str((out / "study" / "report.html").resolve())
    return out / "study"


@pytest.mark.slow
def test_the_demo_recovers_planted_mechanisms_far_above_chance_and_shuffled_labels(demo):
    chance = pd.read_csv(demo / "scores" / "chance.csv", keep_default_na=False)
    scores = pd.read_csv(demo / "scores.csv", keep_default_na=False)
    kind = ["statistics", "whitening", "protocol"]
    ours = scores[scores["model"] == "imagenet"].set_index(kind)
    control = chance[chance["run"] == "imagenet-seed0"].set_index(kind)
    headline = ("mean", "aligned", "NSC")
    assert ours.loc[headline, "n_treatments"] == 72
    assert ours.loc[headline, "accuracy"] > 4 * control.loc[headline, "chance"]
    assert ours.loc[headline, "accuracy"] > 4 * control.loc[headline, "shuffled"]
    assert (control["p_value"] < 0.01).all()


@pytest.mark.slow
def test_the_demos_travels_start_at_the_real_cell_whatever_the_decoder_has_learned(demo):
    from phenolens.runs.decoder import find_decoding_run
    from phenolens.study import Study

    run = find_decoding_run(Study.open(demo), None)
    rows = np.flatnonzero(~Study.open(demo).crops.cells["is_noise"].to_numpy())[::400]
    z, originals = run.embedded(run.store.take(rows)), run.originals(rows)
    error = ((run.changed(rows, z, z) - originals) ** 2).mean((1, 2, 3))
    assert (error < 0.01 * originals.var((1, 2, 3))).all()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read as Linux counts it")
def test_the_demo_stays_under_4_gb(demo):
    assert peak_bytes_of_children() < 4 * GIB


@pytest.mark.slow
def test_the_real_crop_set_goes_to_a_report_over_103_treatments(real_data, tmp_path):
    source = tmp_path / "cropset"
    subprocess.run([sys.executable, real_data / "bbbc021" / "expand_crops.py", source], check=True, capture_output=True)
    flags = "--layout cropset --model vaeplus --steps 20 --batch-size 26 --width 8 --latent-size 32 --ramp-steps 10"
    last_line = phenolens("run", tmp_path / "study", "--source", source, *flags.split())[-1]
    report = Path(last_line).read_text()
    assert "Lafarge" in report  # the published rows stand beside ours
    assert "1,996 of 488,396 cells" in report
    scores = pd.read_csv(tmp_path / "study" / "scores.csv")
    assert scores.groupby("protocol")["n_treatments"].unique().map(list).to_dict() == {"NSC": [103], "NSCB": [92]}
    assert set(scores["model"]) == {"vaeplus", "pca"}


def test_cells_are_cut_from_the_real_fields_at_centres_given_in_a_table(real_data, tmp_path):
    folder = real_data / "bbbc021"
    screen = read_bbbc021(
        folder / "metadata", images=folder / "fields", plates=("Week2_24381",), wells=("B02",), sites=(1, 2)
    )
    centres = pd.DataFrame(
        {
            "plate": "Week2_24381",
            "well": "B02",
            "site": [1, 2, 2, 2],
            "object_number": [1, 84, 85, 86],
            "y": [500.0, 599.0, 10.0, 300.4],
            "x": [640.0, 1173.0, 600.0, 200.6],
        }
    )
    store = cut_crops(screen, centres, tmp_path / "crops", config=CropConfig())
    assert list(store.cells["object_number"]) == [1, 84, 86]  # the third lies too near to the border
    assert store.about["plates"]["Week2_24381"]["n_at_border"] == 1
    assert store.crops("Week2_24381").shape == (3, 3, 68, 68)
