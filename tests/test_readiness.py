"""Which steps of a run are done and up to date, for commands and pages alike."""

import shutil

import pytest

from phenolens.core.errors import InputError
from phenolens.core.files import read_json, write_json
from phenolens.readiness import check_scores, default_run, ready_runs, steps_done
from phenolens.study import Study
from phenolens.web.study_view import StudyView
from travelling_study import RUN

ALL = {"trained": True, "embedded": True, "profiled": True, "scored": True}


@pytest.fixture
def study(explored, tmp_path) -> Study:
    return Study.open(shutil.copytree(explored.folder, tmp_path / "study"))


def changed(path, **values):
    write_json(path, read_json(path, remedy="") | values)


def test_every_step_of_a_finished_study_is_done(study):
    assert steps_done(study, RUN) == ALL
    check_scores(study)
    assert ready_runs(study, "scored") == [RUN]


def test_profiles_of_other_embeddings_are_not_ready_for_commands_nor_in_the_explorer(study):
    changed(study.profiles_folder(RUN) / "about.json", embeddings=["of an earlier training"])
    expected = ALL | {"profiled": False, "scored": False}
    assert steps_done(study, RUN) == expected
    assert StudyView(study).models() == {RUN: expected}
    assert StudyView(study).next_step() == f"phenolens profile {study.folder}"
    with pytest.raises(InputError, match="phenolens profile"):
        ready_runs(study, "profiled")


def test_embeddings_of_a_shorter_training_are_not_ready_for_commands_nor_in_the_explorer(study):
    config = read_json(study.run_folder(RUN) / "config.json", remedy="")["config"]
    changed(study.run_folder(RUN) / "config.json", config=config | {"steps": config["steps"] + 1})
    assert StudyView(study).models()[RUN] == {"trained": True, "embedded": False, "profiled": False, "scored": False}
    with pytest.raises(InputError, match="phenolens embed"):
        ready_runs(study, "embedded")


def test_scores_of_other_profiles_are_not_ready_for_the_report_nor_in_the_explorer(study):
    changed(study.scores_folder / "about.json", profiles={RUN: "of earlier profiles"})
    assert StudyView(study).models()[RUN] == ALL | {"scored": False}
    with pytest.raises(InputError, match="phenolens evaluate"):
        check_scores(study)


def test_the_default_run_is_chosen_by_its_model_and_not_by_its_name(tmp_path):
    study = Study.create(tmp_path / "study")
    for run, model in (("vaeplus-like", "ae"), ("control", "vaeplus"), ("a-first", "vae")):
        write_json(study.run_folder(run) / "config.json", {"config": {"model": model, "seed": 0, "steps": 1}})
    assert default_run(study, study.runs) == StudyView(study).run("") == "control"
    assert default_run(study, ["a-first", "vaeplus-like"]) == "a-first"
    assert default_run(study, []) == ""


def test_an_embedding_that_is_written_again_is_read_again(study):
    path = study.embeddings_folder(RUN) / f"{study.crops.plates[0]}.h5ad"
    assert steps_done(study, RUN)["embedded"]
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert not steps_done(study, RUN)["embedded"]
    path.write_bytes(whole)
    assert steps_done(study, RUN)["embedded"]
