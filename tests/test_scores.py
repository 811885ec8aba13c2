"""A study and a table are scored by one scorer, and the files of scores are read in one way."""

import json
import shutil

import anndata
import numpy as np
import pandas as pd
import pytest

from phenolens import pipeline
from phenolens.core.errors import InputError
from phenolens.profiles import nsc
from phenolens.profiles.activity import n_active
from phenolens.profiles.scores_folder import read_queries
from phenolens.runs.scores import activity_of, chance_of, queries_of, scored_runs, verdict_of
from phenolens.study import HEADLINE, Study
from test_cli import run
from travelling_study import RUN

KIND = {key: HEADLINE[key] for key in ("statistics", "whitening")}
UNCHANGED = ["--scaling", "none", "--whitening", "none"]  # a study's treatment profiles are whitened already


@pytest.fixture
def study(explored, tmp_path) -> Study:
    """A study of one run with profiles and scores."""
    return Study.open(shutil.copytree(explored.folder, tmp_path / "study"))


def test_a_study_and_its_profiles_as_a_table_get_the_same_scores(study, tmp_path):
    pipeline.evaluate(study, [RUN], pipeline.EvaluateConfig())
    table = study.treatments_path(RUN, **KIND)
    assert run("evaluate", table, "--rows", "treatments", *UNCHANGED, "--out", tmp_path / "out") == 0
    of_table = pd.read_csv(tmp_path / "out" / "scores.csv").set_index("protocol")
    of_study = study.scores
    of_study = of_study[(of_study[list(KIND)] == list(KIND.values())).all(axis=1)].set_index("protocol")
    counts = ["accuracy", "n_treatments", "n_correct", "ci_low", "ci_high"]
    pd.testing.assert_frame_equal(of_study[counts], of_table[counts])
    chance = pd.read_csv(study.chance_path)
    chance = chance[(chance[list(KIND)] == list(KIND.values())).all(axis=1)].set_index("protocol")
    among = ["chance", "shuffled", "p_value"]
    pd.testing.assert_frame_equal(chance[among], of_table[among])
    for protocol in of_table.index:
        kept = queries_of(study, RUN, protocol)
        pd.testing.assert_frame_equal(kept, read_queries(tmp_path / "out" / f"neighbours_{protocol}.csv"))


def test_distances_are_computed_once_for_all_protocols_and_draws(study, monkeypatch):
    calls = []
    real = nsc.distance_blocks
    monkeypatch.setattr(nsc, "distance_blocks", lambda *given: calls.append(1) or real(*given))
    pipeline.evaluate(study, [RUN], pipeline.EvaluateConfig(bootstraps=20, shuffles=20))
    assert len(calls) == len(pipeline.kinds_of(study, RUN))


def test_queries_are_read_as_booleans_and_numbers(study):
    queries = queries_of(study, RUN)
    assert queries["counted"].dtype == queries["right"].dtype == bool
    assert queries["distance"].dtype == float
    assert list(queries.index) == queries["treatment"].tolist()
    assert scored_runs(study) == [RUN]
    assert queries_of(study, RUN, "NSCB") is None  # not scored
    row = pd.read_csv(study.chance_path).set_index(list(HEADLINE)).loc[tuple(HEADLINE.values())]
    assert chance_of(study, RUN) == {"chance": row["chance"], "shuffled": row["shuffled"]}


def test_files_of_older_studies_are_read(study):
    path = study.score_table_path(RUN, "neighbours", **HEADLINE)
    before = queries_of(study, RUN)
    pd.read_csv(path).drop(columns="row").to_csv(path, index=False)  # as before 0.1 wrote them
    pd.testing.assert_frame_equal(queries_of(study, RUN), before, check_names=False)
    about = study.scores_folder / "about.json"
    older = {"protocols": ["NSC"], "bootstraps": 2000, "shuffles": 200, "bootstrap_seed": 0}
    about.write_text(json.dumps(json.loads(about.read_text()) | {"config": older}))
    assert run("report", study.folder) == 0
    assert "--bootstraps 2000 --shuffles 200" in study.report_path.read_text()


def test_the_headline_is_that_asked_for_and_the_whitened_means_in_studies_of_older_versions(study):
    assert study.headline == HEADLINE
    assert json.loads(study.profiles(RUN).uns["phenolens"])["made_from"]["recipe"]["scaled_over"] == "batch"
    pipeline.evaluate(study, [RUN], pipeline.EvaluateConfig(bootstraps=5, shuffles=5, headline="zscore"))
    assert study.headline == HEADLINE | {"whitening": "zscore"}
    np.testing.assert_array_equal(study.profiles(RUN).X, study.profiles(RUN, whitening="zscore").X)
    row = study.scores.set_index(list(HEADLINE)).loc[tuple((HEADLINE | {"whitening": "zscore"}).values())]
    activity = activity_of(study, RUN)
    assert f"NSC {100 * row['accuracy']:.1f} %" in verdict_of(study, RUN, study.scores, activity)
    assert verdict_of(study, RUN, study.scores, activity).startswith(n_active(activity))


def test_the_verdict_names_a_model_that_scores_higher_and_no_other(study):
    own = study.scores
    higher, lower = (own.assign(model="vaeplus", accuracy=accuracy) for accuracy in (1.0, 0.0))
    assert own["accuracy"].max() < 1
    assert "VAE+" in verdict_of(study, RUN, pd.concat([own, higher]), None)
    assert "VAE+" not in verdict_of(study, RUN, pd.concat([own, lower]), None)


def test_a_table_has_no_headline_to_choose(study, tmp_path, capsys):
    table = study.treatments_path(RUN, **KIND)
    assert run("evaluate", table, "--headline", "none", "--out", tmp_path / "out") == 2
    assert "--headline" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_damaged_table_of_queries_is_refused_with_the_command_that_renews_it(study):
    path = study.score_table_path(RUN, "neighbours", **HEADLINE)
    queries = pd.read_csv(path)
    queries.assign(right=["maybe", *queries["right"][1:]]).to_csv(path, index=False)
    with pytest.raises(InputError, match=r"row 2.*phenolens evaluate"):
        queries_of(study, RUN)
    study.chance_path.write_text("")
    with pytest.raises(InputError, match="phenolens evaluate"):
        scored_runs(study)


def test_a_study_of_one_batch_is_scored_by_nsc_alone_as_a_table_is(study, capsys):
    for path in study.profiles_folder(RUN).glob("treatments_*.h5ad"):
        profiles = anndata.read_h5ad(path)
        profiles.obs["Metadata_Batch"] = "w1"
        profiles.write_h5ad(path)
    pipeline.evaluate(study, [RUN], pipeline.EvaluateConfig(bootstraps=5, shuffles=5))
    assert set(study.scores["protocol"]) == {"NSC"}
    assert "NSCB" in capsys.readouterr().err


def test_a_protocol_that_a_study_cannot_be_scored_by_is_refused(study):
    before = study.scores_path.read_bytes()
    with pytest.raises(InputError, match=r"compound\+plate"):
        pipeline.evaluate(study, [RUN], pipeline.EvaluateConfig(protocols=("compound+plate",)))
    assert study.scores_path.read_bytes() == before
    assert np.isfinite(study.scores["accuracy"]).all()


def test_profiles_of_an_earlier_version_are_refused_with_the_command_that_adds_what_they_lack(study):
    scores = study.scores_path.read_bytes()
    path = study.treatments_path(RUN, statistics="mean", whitening="aligned")
    path.unlink()
    with pytest.raises(InputError, match="phenolens profile"):
        pipeline.evaluate(study, [RUN], pipeline.EvaluateConfig(bootstraps=20, shuffles=20))
    assert study.scores_path.read_bytes() == scores
    pipeline.profile(study, RUN, pipeline.ProfileConfig())
    assert path.exists()
