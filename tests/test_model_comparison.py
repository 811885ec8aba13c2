"""One command trains every encoder on the same cells: its rows, its tests, resuming, strangers' models and tables."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest

import phenolens as ph
from made_up_model import MadeUp
from phenolens import pipeline
from phenolens.cli import main
from phenolens.core.errors import InputError
from phenolens.core.keywords import setting_types
from phenolens.core.provenance import provenance
from phenolens.image_realism import compute as image_realism
from phenolens.image_realism.saved import saved_realism
from phenolens.model_comparison.claims import claims
from phenolens.model_comparison.compute import entries, possible
from phenolens.model_comparison.saved import saved_comparison, shown_facts
from phenolens.models import MODELS, Spec
from phenolens.pipeline import ProfileConfig
from phenolens.profiles.mechanism_classifier import classified_right
from phenolens.profiles.nsc import nsc
from phenolens.profiles.scores_folder import read_queries
from phenolens.runs.decoder import find_decoding_run
from phenolens.study import Study
from phenolens.tl import compare_queries, mean_average_precision
from phenolens.training.config import ComparedTraining, TrainConfig

QUICK = {"steps": 2, "batch_size": 6, "bootstraps": 50, "shuffles": 10, "threads": 1, "pictures": False}
SMALL_SCREEN = {"mechanisms": 3, "compounds": 2, "doses": 1, "active_doses": 1, "cells": 10}
SMALL_SCREEN |= {"field_width_px": 150, "field_height_px": 140}
MEASURED = ["fit_seconds", "embed_ms"]


@pytest.fixture(scope="module")
def finished(cropped_study, tmp_path_factory):
    """PCA, and AE with two seeds, compared; not to be changed."""
    study = Study.open(shutil.copytree(cropped_study, tmp_path_factory.mktemp("comparison") / "study"))
    return study, ph.benchmark(study, models=("ae", "pca"), seeds=(0, 1), **(QUICK | {"pictures": True}))


def test_each_encoder_is_trained_for_each_seed_and_stands_beside_itself_untrained(finished):
    study, comparison = finished
    names = ["ae-seed0", "ae-seed1", "ae-untrained-seed0", "ae-untrained-seed1", "pca-seed0", "pca-seed1"]
    assert sorted(study.runs) == names
    assert list(comparison.facts["entry"]) == ["pca", "ae", "ae-untrained"]
    assert set(comparison.scores["n_seeds"]) == {2}
    kinds = comparison.scores.groupby("entry")[["statistics", "whitening"]].value_counts()
    assert kinds.nunique() == 1


def test_a_score_is_the_mean_over_seeds_with_the_interval_around_it(finished):
    study, comparison = finished
    main_score = comparison.scores.query("entry == 'ae' and statistics == 'mean' and whitening == 'none'")
    own = study.scores.query("model == 'ae' and statistics == 'mean' and whitening == 'none'")
    for _, row in main_score.iterrows():
        accuracies = own.loc[own["protocol"] == row["protocol"], "accuracy"]
        assert row["accuracy"] == pytest.approx(accuracies.mean())
        assert row["sd"] == pytest.approx(accuracies.std(ddof=1))
        assert row["ci_low"] <= row["accuracy"] <= row["ci_high"]


def test_with_one_seed_each_the_test_is_that_of_compare(cropped_study, tmp_path):
    study = Study.open(shutil.copytree(cropped_study, tmp_path / "study"))
    comparison = ph.benchmark(study, models=("ae", "pca"), seeds=(3,), untrained=False, methods=("ks",), **QUICK)
    row = comparison.scores.query("entry == 'ae' and whitening == 'aligned' and protocol == 'NSC'").iloc[0]
    paths = [
        study.score_table_path(f"{name}-seed3", "neighbours", protocol="NSC", statistics="mean", whitening="aligned")
        for name in ("pca", "ae")
    ]
    assert row["p_pca"] == compare_queries(*map(read_queries, paths), seed=0).p_value
    assert np.isnan(row["sd"])
    assert np.isnan(comparison.facts["realism"]).all()
    assert set(comparison.scores.query("statistics == 'ks'")["entry"]) == {"ae", "pca"}
    assert "ks +Whitened" in (comparison.folder / "table.md").read_text()
    profiles = study.profiles("ae-seed3", whitening="aligned")
    assert comparison.facts.set_index("entry").loc["ae", "map"] == pytest.approx(
        mean_average_precision(profiles)["mean_average_precision"].mean()
    )
    compounds = nsc(profiles, averaged_over="compounds", n_bootstrap=0).accuracy
    assert row["over_compounds"] == pytest.approx(compounds)
    assert comparison.facts.set_index("entry").loc["ae", "classified_NSC"] == classified_right(profiles, ("compound",))
    assert f"{100 * compounds:.1f}" in (comparison.folder / "table.md").read_text().split("By other rules")[1]


def test_pictures_are_measured_where_there_are_any_and_costs_are_named(finished):
    _, comparison = finished
    facts = comparison.facts.set_index("entry")
    assert facts.loc["ae", "realism"] > 0.5
    assert facts.loc["ae", "realism_low"] <= facts.loc["ae", "realism"] <= facts.loc["ae", "realism_high"]
    assert np.isnan(facts.loc["ae-untrained", "realism"])
    assert facts.loc["ae", "fit_seconds"] > facts.loc["ae-untrained", "fit_seconds"] == 0
    assert (facts["parameters"] > 0).all()
    assert facts["decodes"].all()
    for name in ("scores.csv", "models.csv", "table.md", "realism.png"):
        assert (comparison.folder / name).stat().st_size
    text = (comparison.folder / "table.md").read_text()
    assert all(title in text for title in facts["title"])
    assert "told from simulated cells" in text
    assert "real" not in text
    assert "Lafarge" not in text  # published rows stand beside BBBC021 alone


def test_claims_of_papers_stand_beside_what_holds():
    accuracies = {"vaeplus": 0.5, "vae": 0.25, "lsgan": 0.6, "pca": 0.3, "vae-untrained": 0.9}
    kinds = [("mean", "none", -0.1), ("mean", "whitened", 0.0), ("mean+sd", "none", 0.1), ("mean+sd", "whitened", 0.0)]
    rows = [
        {"entry": entry, "title": entry.upper(), "statistics": statistics, "whitening": whitening, "protocol": protocol}
        | {"accuracy": accuracy + (more if entry != "pca" else 0), "p_vaeplus": 0.034}
        | {"over_compounds": accuracy - 0.01}
        for entry, accuracy in accuracies.items()
        for statistics, whitening, more in kinds
        for protocol in ("NSC", "compound+plate")
    ]
    found = claims(pd.DataFrame(rows)).set_index(["claim", "protocol"])
    assert found.loc[("VAE+ is above VAE", "NSC")].tolist() == [
        "92.9 against 87.1",
        "50.0 against 25.0, p = 0.034",
    ]
    assert found.loc[("whitening helps (mean)", "NSC")].tolist() == [
        "AE +4.6, VAE -2.9, VAE+ -0.3",
        "3 of 4 models gain, median +10.0",
    ]
    assert found.loc[("whitening helps (mean+sd)", "compound+plate"), "here"] == "0 of 4 models gain, median -10.0"
    low = found.loc[("GANs score low (mean, whitened, over compounds)", "NSC")]
    assert low.tolist() == ["LSGAN 76", "LSGAN 59.0, VAEPLUS 49.0"]
    assert "VAE+ is above AE" not in found.index.get_level_values("claim")


def test_the_report_shows_the_comparison_until_profiles_change(finished, tmp_path):
    study = Study.open(shutil.copytree(finished[0].folder, tmp_path / "study"))
    saved = saved_comparison(study)
    pd.testing.assert_frame_equal(saved.scores, finished[1].scores)
    ph.report(study, shown_cells=2, frames=2)
    page = study.report_path.read_text()
    assert "phenolens benchmark; comparison/table.md" in page
    assert "AE, untrained" in page
    assert all(f">{count:,}<" in page for count in finished[1].facts["parameters"])
    ph.profile(study, runs=("ae-seed0",), min_cells=2)
    assert saved_comparison(study) is None


def test_a_stopped_comparison_resumes_to_the_same_table(finished, cropped_study, tmp_path, monkeypatch):
    study = Study.open(shutil.copytree(cropped_study, tmp_path / "study"))
    asked = {"models": ("ae", "pca"), "seeds": (0, 1), **(QUICK | {"pictures": True})}
    profile, done = pipeline.profile, []

    def stopping(*given):
        done.append(given[1])
        if len(done) == 4:
            raise KeyboardInterrupt
        profile(*given)

    monkeypatch.setattr(pipeline, "profile", stopping)
    with pytest.raises(KeyboardInterrupt):
        ph.benchmark(study, **asked)
    monkeypatch.setattr(pipeline, "profile", profile)
    resumed = ph.benchmark(study, **asked)
    pd.testing.assert_frame_equal(resumed.scores, finished[1].scores)
    pd.testing.assert_frame_equal(resumed.facts.drop(columns=MEASURED), finished[1].facts.drop(columns=MEASURED))
    monkeypatch.setattr(pipeline, "evaluate", lambda *given: pytest.fail("scored again"))
    pd.testing.assert_frame_equal(ph.benchmark(study, **asked).scores, resumed.scores)


def test_a_model_of_a_stranger_is_in_the_table_without_any_other_change(tiny_study, monkeypatch):
    monkeypatch.setitem(MODELS, "madeup", Spec(MadeUp, title="Made up", order=-1))
    comparison = ph.benchmark(tiny_study, models=("madeup",), seeds=(0,), **QUICK)
    assert list(comparison.facts["title"]) == ["Made up", "Made up, untrained"]
    assert comparison.scores["accuracy"].between(0, 1).all()


def test_embeddings_of_all_models_can_be_of_eight_turns(cropped_study, tmp_path):
    study = Study.open(shutil.copytree(cropped_study, tmp_path / "study"))
    asked = {"models": ("pca",), "seeds": (0,), **QUICK}
    plain = ph.benchmark(study, **asked)
    eight = ph.benchmark(study, **asked, embed_turns=8)
    assert (plain.facts["turns"].item(), eight.facts["turns"].item()) == (1, 8)
    assert provenance(study.embeddings("pca-seed0"))["summary"]["turns"] == 8


def test_a_model_that_only_draws_is_measured_by_its_samples(cropped_study, tmp_path):
    study = Study.open(shutil.copytree(cropped_study, tmp_path / "study"))
    comparison = ph.benchmark(study, models=("lsgan",), seeds=(0,), **(QUICK | {"pictures": True}))
    facts = comparison.facts.set_index("entry")
    assert (facts.loc["lsgan", "pictures"], facts.loc["lsgan", "decodes"]) == ("samples", False)
    assert facts.loc["lsgan", "realism"] > 0.5
    assert "(samples)" in (comparison.folder / "table.md").read_text()
    assert set(saved_realism(study).table["kind"]) == {"control", "samples"}
    with pytest.raises(InputError, match="lsgan-seed0"):
        find_decoding_run(study, "lsgan-seed0")


def test_a_table_of_embeddings_joins_by_one_flag_with_the_scores_of_its_numbers(finished, cropped_study, tmp_path):
    study = Study.open(shutil.copytree(cropped_study, tmp_path / "study"))
    parts = [
        table.to_df().assign(Metadata_Cell=table.obs["Metadata_Cell"]) for table in embedded(finished[0], "pca-seed0")
    ]
    given = tmp_path / "theirs.csv"
    pd.concat(parts).sample(frac=1, random_state=0).to_csv(given, index=False)
    comparison = ph.benchmark(study, models=("pca",), seeds=(0,), tables=(given,), **QUICK)
    assert list(comparison.facts["title"]) == ["PCA of pixels", "theirs.csv (given)"]
    accuracy = comparison.scores.pivot_table(
        index=["statistics", "whitening", "protocol"], columns="entry", values="accuracy"
    )
    np.testing.assert_array_equal(accuracy["pca"], accuracy["theirs"])


def given_table(study, path):
    """A table of embeddings of the study's cells."""
    numbers = np.random.default_rng(0).normal(size=(len(study.cells), 3))
    table = pd.DataFrame(numbers, columns=["a", "b", "c"]).assign(Metadata_Cell=study.cells["cell_id"].to_numpy())
    path.parent.mkdir(exist_ok=True)
    table.to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("names", "named"),
    [
        (("my table (v2).csv",), "rename the file"),
        (("pca.csv",), '"pca" is the name of a model; rename the file'),
        (("theirs.csv", "vaeplus.csv"), '"vaeplus" is the name of a model; rename the file'),
        (("vae-untrained.csv",), '"vae-untrained" is the name of a model; rename the file'),
        (("one/theirs.csv", "two/theirs.csv"), '"theirs"; rename the file'),
    ],
)
def test_a_table_whose_name_is_anothers_or_no_runs_is_refused_before_any_training(tiny_study, tmp_path, names, named):
    tables = [given_table(tiny_study, tmp_path / name) for name in names]
    with pytest.raises(InputError, match=re.escape(named)):
        ph.benchmark(tiny_study, models=("pca",), tables=tables, **QUICK)
    assert tiny_study.runs == []


def test_a_moved_table_is_the_same_and_another_of_its_name_is_refused_at_once(tiny_study, tmp_path, capsys):
    table = given_table(tiny_study, tmp_path / "one" / "theirs.csv")
    asked = {"untrained": False, "seeds": (0,), "models": ("pca",), **QUICK}
    ph.benchmark(tiny_study, tables=(table,), **(asked | {"pictures": True}))  # none of the table's are measured
    (tmp_path / "two").mkdir()
    moved = table.rename(tmp_path / "two" / "theirs.csv")
    facts = ph.benchmark(tiny_study, tables=(moved,), **asked).facts
    assert list(facts["entry"]) == ["pca", "theirs"]
    for told in (facts, saved_comparison(tiny_study).facts):  # what a table does not tell is not made up
        ours, theirs = shown_facts(told, origin="real").to_dict("records")
        assert [theirs[name] for name in ("labels", "parameters", "turns", "fit, s")] == ["unknown", "–", "–", "–"]
        assert [ours["labels"], ours["outside data"], theirs["outside data"]] == ["none", "none", "unknown"]
        assert ours["parameters"] == f"{facts['parameters'][0]:,}"
    assert main(["report", str(tiny_study.folder)]) == 0
    assert "theirs.csv (given)" in tiny_study.report_path.read_text()
    moved.write_text(moved.read_text().replace("0.", "1."))
    with pytest.raises(InputError, match=r"theirs-seed0.*the embeddings that it decodes.*rename the file"):
        ph.benchmark(tiny_study, tables=(moved,), **asked)


def test_what_was_made_otherwise_is_named_and_realism_of_other_runs_is_kept(finished, tmp_path, capsys):
    study = Study.open(shutil.copytree(finished[0].folder, tmp_path / "study"))
    asked = {"models": ("pca",), "seeds": (0,), **QUICK}
    ph.embed(study, runs=("pca-seed0",), turns=8)
    ph.profile(study, runs=("pca-seed0",), methods=("ks",))
    measured = set(saved_realism(study).table["run"].dropna())
    capsys.readouterr()
    ph.benchmark(study, **(asked | {"pictures": True}))
    said = capsys.readouterr().err
    assert "pca-seed0: its embeddings are replaced by those of the comparison (turns 8 -> 1)" in said
    assert "pca-seed0: its profiles are replaced by those of the comparison (methods ['ks'] -> [])" in said
    assert "ae-seed0" in measured
    assert set(saved_realism(study).table["run"].dropna()) == measured


def test_other_steps_are_named_with_a_way_out(tiny_study, capsys):
    asked = {"models": ("ae",), "seeds": (0,), "untrained": False, **QUICK}
    ph.train(tiny_study, model="ae", steps=2, batch_size=6, threads=1)
    with pytest.raises(InputError, match=r"ae-seed0: has 2 steps already, more than 1; .*delete that folder"):
        ph.benchmark(tiny_study, **(asked | {"steps": 1}))
    with pytest.raises(InputError, match=r"batch_size 6 -> 4\); give the comparison the same, or delete"):
        ph.benchmark(tiny_study, **(asked | {"batch_size": 4}))
    capsys.readouterr()
    ph.benchmark(tiny_study, **(asked | {"steps": 3}))
    assert "ae-seed0: has 2 steps and is trained on to 3" in capsys.readouterr().err


def test_a_model_that_cannot_take_the_crops_is_refused_or_left_out_of_all_and_a_table_is_not(tmp_path, capsys):
    study = Study.create(tmp_path / "study")
    ph.simulate(tmp_path / "screen", **SMALL_SCREEN)
    ph.crop(study, source=tmp_path / "screen", crop_px=38)
    rows = entries(("ae", "pca"), (0,), ComparedTraining(threads=1), untrained=True, tables=())
    with pytest.raises(InputError, match="38"):
        possible(study, rows, ProfileConfig(), leave_out=False)
    assert [row.name for row in possible(study, rows, ProfileConfig(), leave_out=True)] == ["pca"]
    assert "left out: AE: " in capsys.readouterr().err
    table = given_table(study, tmp_path / "theirs.csv")
    comparison = ph.benchmark(study, models=("pca",), seeds=(0,), tables=(table,), latent_size=4, **QUICK)
    assert list(comparison.facts["entry"]) == ["pca", "theirs"]


def test_pictures_without_a_channel_of_nuclei_are_refused_before_any_training(tiny_study, monkeypatch):
    monkeypatch.setattr(image_realism, "nuclei_channel", lambda channels: None)
    with pytest.raises(InputError, match="--no-pictures"):
        ph.benchmark(tiny_study, models=("pca",), **(QUICK | {"pictures": True}))
    assert tiny_study.runs == []


def test_pictures_of_too_few_cells_are_refused_before_any_training(tiny_study, monkeypatch):
    n = len(tiny_study.crops)
    monkeypatch.setattr(image_realism, "LEAST_COMPARED", n + 1)
    with pytest.raises(InputError, match=rf"expected at least {n + 1}, .*; or give --no-pictures"):
        ph.benchmark(tiny_study, models=("pca",), **(QUICK | {"pictures": True}))
    assert tiny_study.runs == []


def embedded(study, run):
    return list(pipeline.embeddings(study, run))


def test_all_means_every_encoder_that_is_installed_and_decoders_are_none(monkeypatch, capsys):
    monkeypatch.setitem(
        MODELS, "missing", Spec("no.such:Model", title="Missing", order=9, extra="x", needs="no_such_one")
    )
    monkeypatch.setattr(Spec, "load", lambda spec: MadeUp if spec.title == "Missing" else load(spec))
    rows = entries(("all",), (0,), ComparedTraining(), untrained=True, tables=())
    trained = [row.name for row in rows if not row.untrained_of]
    assert set(trained) == set(MODELS) - {"flow", "missing"}
    assert "no_such_one" in capsys.readouterr().err
    assert trained[0] == "pca"
    assert trained[-1] == "vaeplus"
    assert "pca-untrained" not in [row.name for row in rows]
    (imagenet,) = [row for row in rows if row.name == "imagenet-untrained"]
    assert imagenet.configs[0].network.weights == "random"
    with pytest.raises(InputError, match="flow"):
        entries(("flow",), (0,), ComparedTraining(), untrained=True, tables=())
    with pytest.raises(InputError, match="no_such_one"):
        entries(("missing",), (0,), ComparedTraining(), untrained=True, tables=())


load = Spec.load


def configs(models: tuple[str, ...], training: ComparedTraining) -> dict[str, TrainConfig]:
    """The settings of each trained entry."""
    return {row.name: row.configs[0] for row in entries(models, (0,), training, untrained=False, tables=())}


def test_a_setting_goes_to_every_chosen_model_that_has_it_and_the_rest_is_each_models_own():
    given = {"width": 32, "learning_rate": 1e-3, "beta": 3.0, "latent_size": 16, "backbone": "multiscale"}
    training = ComparedTraining(steps=40_000, cooldown_steps=0, network=given)
    of = configs(("pca", "vae", "betavae", "began", "weak", "vaeplus"), training)
    assert {of[name].network.latent_size for name in ("pca", "vae", "betavae", "began", "vaeplus")} == {16}
    assert {of[name].network.beta for name in ("vae", "betavae", "vaeplus")} == {3.0}
    assert (of["began"].network.width, of["began"].network.learning_rate) == (32, 1e-3)
    assert (of["weak"].steps, of["weak"].cooldown_steps, of["weak"].network.backbone) == (40_000, 0, "multiscale")
    assert of["weak"].batch_size == TrainConfig(model="weak").batch_size
    own = configs(("began", "weak", "vaeplus"), ComparedTraining())
    assert own == {name: TrainConfig(model=name) for name in own}


def test_steps_say_nothing_about_a_fitted_model_and_its_run_is_kept(tiny_study, capsys):
    ph.train(tiny_study, model="pca", threads=1, steps=9)
    before = (tiny_study.run_folder("pca-seed0") / "config.json").read_bytes()
    ph.benchmark(tiny_study, models=("pca",), seeds=(0,), **QUICK)
    ph.train(tiny_study, model="pca", threads=1)
    assert (tiny_study.run_folder("pca-seed0") / "config.json").read_bytes() == before


def test_help_lists_the_settings_of_encoders_alone():
    assert "backbone" in setting_types(ph.benchmark)
    assert "flow_width" in setting_types(ph.train)
    assert not {"flow_width", "of"} & setting_types(ph.benchmark).keys()


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--models", "transformer"], "transformer"),
        (["--models", "flow"], "flow"),
        (["--models"], "--models"),
        (["--seeds", "1", "1"], "--seeds"),
        (["--backbone", "multiscale"], "--backbone: not a setting of pca (it is a setting of weak)"),
        (["--models", "pca", "weak", "--mixup", "-1"], "--mixup"),
        (["--tables", "none.csv"], "none.csv: no such file"),
        (["--min-cells", "1000"], "--min-cells 1000: no well has so many cells; the largest has"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line_before_any_training(tiny_study, capsys, flags, named):
    given = [*flags, *([] if "--models" in flags else ["--models", "pca"])]
    assert main(["benchmark", str(tiny_study.folder), "--steps", "2", *given]) == 2
    assert named in capsys.readouterr().err.strip().splitlines()[-1]
    assert tiny_study.runs == []
