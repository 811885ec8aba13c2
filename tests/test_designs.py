"""`run` gives a report for every design of a screen, and says beforehand which scores it does not allow."""

import json

import numpy as np
import pandas as pd
import pytest
import tifffile

from phenolens import cli
from phenolens.core.errors import InputError
from phenolens.profiles.whitening import whiten
from phenolens.study import Study
from phenolens.web.umap_map import map_of_treatments

FLAGS = ["--layout", "pattern", "--pattern", "{plate}_{well}_s{site}_w{channel}.tif", "--nucleus-px", 10]
SMALL = ["--crop-px", 36, "--threads", 1, "--watch-every", 0, "--bootstraps", 20, "--shuffles", 5, "--null-draws", 200]
PCA = ["--model", "pca", "--latent-size", 8, "--also"]
COLUMNS = ["well", "compound", "concentration", "moa"]
CONTROLS = [("B02", "DMSO", 0, ""), ("B03", "DMSO", 0, ""), ("B04", "DMSO", 0, "")]
DESIGNS = {  # plates, wells of each, and the scores that are impossible
    "no mechanism, one plate": (
        ("P1",),
        [("B05", "a", 1, ""), ("B06", "b", 1, ""), ("B07", "c", 1, "")],
        {"NSC", "NSCB"},
    ),
    "replicate plates": (
        ("P1", "P2"),
        [("B05", "a", 1, "x"), ("B06", "b", 1, "x"), ("B07", "c", 1, "y"), ("B08", "d", 1, "y")],
        {"NSCB"},
    ),
    "one compound": (("P1", "P2"), [("B05", "a", 1, ""), ("B06", "a", 1, "")], {"NSC", "NSCB"}),
}


def write_screen(folder, plates, wells) -> None:
    """A field of nine discs for each well, brighter in treated wells; one site and channel."""
    folder.mkdir()
    random = np.random.default_rng(0)
    y, x = np.mgrid[:150, :150]
    for plate in plates:
        for well, compound, *_ in wells:
            field = np.full((150, 150), 200.0)
            for row in (30, 75, 120):
                for column in (30, 75, 120):
                    away = np.hypot(y - row, x - column) - random.uniform(4, 6)
                    field += (2000 if compound == "DMSO" else 3000) / (1 + np.exp(away))
            noisy = np.clip(field + random.normal(0, 12, field.shape), 0, 65535)
            tifffile.imwrite(folder / f"{plate}_{well}_s1_w1.tif", noisy.astype(np.uint16))
    pd.DataFrame(wells, columns=COLUMNS).to_csv(folder / "plate_map.csv", index=False)


def command(*words: object) -> int:
    return cli.main(list(map(str, words)))


@pytest.mark.slow
@pytest.mark.parametrize("design", DESIGNS)
def test_every_design_gets_its_report_and_impossible_scores_are_named_beforehand(tmp_path, capsys, design):
    plates, treated, impossible = DESIGNS[design]
    write_screen(tmp_path / "screen", plates, CONTROLS + treated)
    assert command("check", tmp_path / "screen", *FLAGS) == 0
    checked = capsys.readouterr().out
    assert all(f"│ {name} " in checked for name in impossible)
    study = Study(tmp_path / "study")
    assert command("run", study.folder, "--source", tmp_path / "screen", *FLAGS, *SMALL, *PCA) == 0
    told = capsys.readouterr().err
    for name in impossible:  # before the training and after it
        assert f"will not be scored: {name}" in told[: told.index("trained")]
    assert json.loads((study.scores_folder / "about.json").read_text())["absent"].keys() == impossible
    assert set(study.scores["protocol"]) == {"NSC", "NSCB"} - impossible
    activity = pd.read_csv(study.activity_path("pca-seed0"))
    assert len(activity) == len({well[1:3] for well in treated})
    assert activity["n_wells"].sum() == len(plates) * len(treated)
    html = study.report_path.read_text()
    assert "Not scored" in html
    assert "NSCB" in html
    assert html.count("<img") >= 4  # the map, cells, interpolations, reconstructions


@pytest.mark.slow
def test_the_recommended_models_and_a_report_of_one_compound_with_two_control_wells(tmp_path):
    write_screen(tmp_path / "screen", ("P1",), [*CONTROLS[:2], ("B05", "a", 1, ""), ("B06", "a", 1, "")])
    flow = ["--steps", 2, "--flow-width", 8, "--code-size", 4, "--layout-size", 2, "--draw-steps", 1, "--also"]
    study = Study(tmp_path / "study")
    assert command("run", study.folder, "--source", tmp_path / "screen", *FLAGS, *SMALL, *flow) == 0
    assert set(study.runs) == {"imagenet-seed0", "flow-seed0"}
    assert study.report_path.exists()
    assert command("evaluate", study.folder, "--against-controls", "a", "--null-draws", 50) == 0
    (row,) = pd.read_csv(study.scores_folder / "flow-seed0" / "against_controls.csv").to_dict("records")
    assert (row["name"], row["n_wells"], row["n_control_wells"]) == ("a", 2, 2)


def test_a_score_that_is_asked_for_and_impossible_is_refused_before_any_training(tmp_path, capsys):
    write_screen(tmp_path / "screen", ("P1",), CONTROLS + DESIGNS["one compound"][1])
    run = ["run", tmp_path / "st", "--source", tmp_path / "screen", *FLAGS, *SMALL, "--model", "pca"]
    assert command(*run, "--protocols", "NSC") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert all(word in line for word in ("NSC", "moa", "--protocols"))
    assert not (tmp_path / "st" / "runs").exists()


@pytest.mark.parametrize("n_treated", [1, 4])
def test_with_one_control_well_profiles_are_scaled_by_all_wells_which_is_said_first(tmp_path, capsys, n_treated):
    treated = [(f"{row}05", "a", 1, "") for row in "BCDE"[:n_treated]]
    write_screen(tmp_path / "screen", ("P1",), [CONTROLS[0], *treated])
    assert command("check", tmp_path / "screen", *FLAGS[:-1], 13) == 0
    checked = capsys.readouterr()
    assert "1 control well:" in checked.out
    assert "next: phenolens run" in checked.err
    study = Study(tmp_path / "st")
    assert command("run", study.folder, "--source", tmp_path / "screen", *FLAGS, *SMALL, *PCA) == 0
    told = capsys.readouterr().err
    assert told.index("1 control well:") < told.index("crops of 1 plate")
    wells = study.profiles("pca-seed0", level="well")
    scaled = whiten(wells, method="none", learnt_on="everything", constant_features="left out")
    treatments = study.profiles("pca-seed0", whitening="zscore")
    of_treated = (wells.obs["Metadata_Role"] == "treated").to_numpy()
    assert np.allclose(treatments.X, np.median(scaled.X[of_treated], axis=0))
    with pytest.raises(InputError, match="a map of treatments needs 3, and this study has 1; see the map of cells"):
        map_of_treatments(study, "pca-seed0", projection="pca")
    study.scores_path.unlink()
    assert command("evaluate", study.folder, "--headline", "whitened") == 0
    assert "whitened on all wells" in capsys.readouterr().err
    assert study.report_path.is_file()


def test_a_side_of_crops_that_a_model_does_not_take_is_refused_before_cropping(tmp_path, capsys):
    write_screen(tmp_path / "screen", ("P1",), CONTROLS + DESIGNS["one compound"][1])
    run = ["run", tmp_path / "st", "--source", tmp_path / "screen", *FLAGS, *SMALL, "--model", "vae", "--crop-px", 40]
    assert command(*run) == 2
    assert "40 px" in capsys.readouterr().err
    assert not (tmp_path / "st").exists()
