"""`phenolens travel`: the folder that it writes, the same bytes each time, and what it says."""

import json
import shutil
from hashlib import sha256

import numpy as np
import pandas as pd
import pytest

from phenolens.cli import main
from phenolens.study import Study
from phenolens.travels.compute import Traveller
from phenolens.travels.config import TravelConfig
from phenolens.travels.saved import folder_name
from travelling_study import RUN, SERIES


@pytest.fixture(scope="module")
def study(travelling, tmp_path_factory):
    return Study.open(shutil.copytree(travelling.folder, tmp_path_factory.mktemp("travels") / "study"))


def travel(study, *flags):
    return main(["travel", str(study.folder), *map(str, flags)])


def files_in(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_a_travel_is_kept_whole_with_its_origin_and_comes_out_the_same_again(study, capsys):
    flags = ("--to", f"{SERIES}@10", "--frames", 3, "--pictures", "png", "svg", "--film", "gif")
    assert travel(study, *flags) == 0
    said = capsys.readouterr()
    folder = study.folder / "travels" / RUN / folder_name(f"{SERIES}@10", TravelConfig(SERIES))
    assert said.out.strip() == str(folder.resolve())
    assert "--targets medoids" in said.err  # the next command
    kept = files_in(folder)
    tables = ["change.csv", "frames.csv", "measured.csv", "two_sample_test.csv"]
    assert sorted(kept) == sorted(["about.json", "film.gif", *tables, "strip.png", "strip.svg"])
    about = json.loads(kept["about.json"])
    assert about["files"] == {name: sha256(part).hexdigest() for name, part in kept.items() if name != "about.json"}
    assert (about["run"], about["travel"]["frames"], about["crops"]) == (RUN, 3, study.crops.identity)
    assert travel(study, *flags) == 0
    assert files_in(folder) == kept
    assert travel(study, *flags[:6]) == 0  # what is not asked for this time does not stay from before
    assert sorted(files_in(folder)) == sorted(["about.json", *tables, "strip.png"])


def test_the_numbers_are_those_of_the_trajectory(study):
    assert travel(study, "--to", f"{SERIES}@1", "--frames", 4, "--way", "line", "--pictures", "png") == 0
    folder = study.folder / "travels" / RUN / folder_name(f"{SERIES}@1", TravelConfig(SERIES, way="line"))
    (trajectory,) = Traveller.open(study).travel(TravelConfig(f"{SERIES}@1", frames=4, way="line"))
    frames = pd.read_csv(folder / "frames.csv", keep_default_na=False)
    assert frames["frame"].tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(frames["cosine"], trajectory.frames["cosine"])
    assert frames["nearest_cell"].tolist() == trajectory.frames["nearest_cell"].tolist()
    measured = pd.read_csv(folder / "measured.csv").set_index(["of", "measure"]).sort_index(kind="stable")
    area = "nucleus_area_px"
    np.testing.assert_allclose(measured.loc[("frame", area), "value"], trajectory.measured.frames[area])
    np.testing.assert_allclose(measured.loc[("frame", area), "change_sd"], trajectory.measured.change[area])
    start, target = trajectory.measured.ends[area]
    real = measured.loc[("real target", area)].iloc[0]
    assert (real["value"], real["cell"]) == (pytest.approx(target), trajectory.target.cell_id)
    assert real["change_sd"] == pytest.approx((target - start) / trajectory.measured.control_sd[area])
    assert real["words"] == "nucleus area, px²"
    change = pd.read_csv(folder / "change.csv")
    assert list(change)[:2] == ["population", "measure"]
    np.testing.assert_allclose(change[["decoded", "real"]], trajectory.change.table[["decoded", "real"]])
    assert set(change["n_moved"]) == {trajectory.change.n_moved}
    tests = pd.read_csv(folder / "two_sample_test.csv")
    assert tests["cells"].tolist() == ["moved control cells", "real treated cells"]
    assert tests["accuracy"].isna().all()
    assert set(tests["not_tested"]) == {trajectory.change.test.reason}


def test_with_medoids_each_population_has_a_strip_and_all_stand_beside_each_other(study, capsys):
    flags = ("--targets", "medoids", "--medoids", 2, "--frames", 2, "--pictures", "png")
    assert travel(study, "--to", SERIES, *flags) == 0
    said = capsys.readouterr().err
    assert f"highest of 2 doses, {SERIES}@10" in said
    assert said.count("the highest of 2 doses") == 1
    assert "population 2 of 2" in said
    asked = TravelConfig(SERIES, targets="medoids", medoids=2)
    names = set(files_in(study.folder / "travels" / RUN / folder_name(f"{SERIES}@10", asked)))
    assert {"strip_1.png", "strip_2.png", "populations.png"} <= names


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (("--to", "two/dozes"), ["two/doses"]),
        (("--to", "lonely", "--targets", "medoids"), ["lonely", "--medoids"]),
        (("--to", SERIES, "--run", "nobody"), ["nobody"]),
        (("--to", SERIES, "--beyond", "2"), ["--beyond", "--way direction"]),
    ],
)
def test_bad_input_is_one_line_and_code_2_and_writes_nothing(study, capsys, flags, names):
    before = sorted((study.folder / "travels").rglob("*"))
    assert travel(study, *flags) == 2
    line = capsys.readouterr().err.strip().split("\n")[-1]
    assert [name for name in names if name not in line] == []
    assert sorted((study.folder / "travels").rglob("*")) == before


def test_every_treatment_has_a_folder_of_its_own_that_can_be_one():
    asked = TravelConfig("x")
    names = [folder_name(name, asked) for name in ("a/b@1", "a_b@1", "a:b@1", "../a@1", "taxol@0.3")]
    assert len(set(names)) == 5
    assert names[-1] == "taxol@0.3--swap"
    assert not any(set(name) & set("/\\: ") or name.startswith("../") for name in names)
    medoids = folder_name("taxol@0.3", TravelConfig("x", targets="medoids", start="P1_B02_s1_3"))
    assert medoids == "taxol@0.3--swap--3-medoids-by-nucleus--from-P1_B02_s1_3"
    assert folder_name("taxol@0.3", TravelConfig("x", residual=True)) == "taxol@0.3--swap--residual"
