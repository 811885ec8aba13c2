"""Wrong calls in Python: each is an InputError that names the argument, before anything is computed or written."""

import anndata
import numpy as np
import pandas as pd
import pytest

import phenolens as ph
from phenolens.core.files import write_json
from phenolens.runs.loaded_model import LoadedModel

PROFILES = anndata.AnnData(np.eye(3))
TABLE = pd.DataFrame({"a": [1, 2]})
CALLS = {
    "method": lambda: ph.pp.whiten(PROFILES, method="bogus"),
    "scaling": lambda: ph.pp.whiten(PROFILES, scaling="bogus"),
    "ridge_unit": lambda: ph.pp.whiten(PROFILES, ridge_unit="bogus"),
    "estimate": lambda: ph.pp.whiten(PROFILES, estimate="bogus"),
    "learnt_on": lambda: ph.pp.whiten(PROFILES, learnt_on="bogus"),
    "per": lambda: ph.pp.whiten(PROFILES, per="bogus"),
    "ridge": lambda: ph.pp.whiten(PROFILES, ridge=-1.0),
    "profiles of type DataFrame": lambda: ph.pp.whiten(TABLE),
    '"methd"; did you mean "method"': lambda: ph.pp.whiten(PROFILES, methd="pca"),
    "cells of type DataFrame": lambda: ph.pp.well_profiles(TABLE),
    "cells of type list": lambda: ph.pp.well_profiles([TABLE]),
    "profiles of type DataFrame: expected AnnData": lambda: ph.tl.nsc(TABLE),
    "similarity 'cosin': .*cosine": lambda: ph.tl.nsc(PROFILES, similarity="cosin"),
    "n_bootstrap": lambda: ph.tl.nsc(PROFILES, n_bootstrap=-1),
    "positive_same": lambda: ph.tl.average_precision(PROFILES, positive_same="moa", negative_different=["moa"]),
    "name one": lambda: ph.tl.average_precision(PROFILES, positive_same=[], negative_different=[]),
    "compound": lambda: ph.tl.compare_queries(TABLE, TABLE),
    "history of type Study": lambda: ph.pl.learning_curves(ph.Study("x")),
    "trajectories": lambda: ph.pl.populations([1]),
    "crops": lambda: ph.pl.cells([], channels=("DNA",)),
    "what 'bogus'": lambda: ph.figure("bogus", "x"),
    "folder None": lambda: ph.Study(None),
    "run None": lambda: ph.Study("x").embeddings(None),
    "level 'cell'": lambda: ph.Study("x").profiles("run", level="cell"),
    "whitening 'x': .*zscore": lambda: ph.Study("x").profiles("run", whitening="x"),
    "study 3": lambda: ph.embed(3),
    "source of type AnnData": lambda: ph.evaluate(PROFILES),
    "a 1": lambda: ph.compare(1, 2),
    "run 3": lambda: ph.load(3),
    "config None": lambda: ph.VAE(3, 68, None),
    "latent-size 2.5": lambda: ph.VAE.Config(latent_size=2.5),
}


@pytest.mark.parametrize("named", CALLS)
def test_a_wrong_call_is_an_input_error_that_names_the_argument(named):
    with pytest.raises(ph.InputError, match=named) as refused:
        CALLS[named]()
    assert "\n" not in str(refused.value)


def test_a_wrong_number_of_arguments_is_refused_as_python_does():
    for arguments in ((), (PROFILES, "pca")):
        with pytest.raises(TypeError):
            ph.pp.whiten(*arguments)
    with pytest.raises(TypeError, match="profiles"):
        ph.pp.whiten(PROFILES, profiles=PROFILES)


@pytest.mark.parametrize("steps", [1.5, "ten", True])
def test_a_wrong_number_of_steps_leaves_no_folder(tmp_path, steps):
    study = ph.Study.create(tmp_path / "study")
    with pytest.raises(ph.InputError, match=f"--steps .*{steps}"):
        ph.train(study, steps=steps)
    assert not (study.folder / "runs").exists()
    with pytest.raises(ph.InputError, match="steps"):
        ph.demo(tmp_path / "demo", steps=-1)
    assert not (tmp_path / "demo").exists()


@pytest.fixture
def model(compute):
    """A model of two channels that was never trained."""
    return LoadedModel("vae", ("DNA", "actin"), 36, ph.VAE(2, 36, ph.VAE.Config(latent_size=8, width=4)), compute)


@pytest.mark.parametrize(
    "z", [np.ones(8), np.ones((2, 3)), np.ones((0, 8)), "x", None, [[1], [1, 2]], np.full((1, 8), np.nan)]
)
def test_embeddings_that_do_not_fit_are_refused_with_the_shape_expected(model, z):
    assert model.decode(np.ones((2, 8))).shape == (2, 2, 36, 36)
    with pytest.raises(ph.InputError, match=r"\(cells, 8\)"):
        model.decode(z)


@pytest.mark.parametrize(
    "crops",
    [
        np.ones((0, 2, 36, 36)),
        np.ones((2, 36, 36)),
        np.ones((1, 3, 36, 36)),
        np.ones((1, 2, 36, 36), bool),
        np.array("x"),
    ],
)
def test_crops_that_do_not_fit_are_refused_with_the_shape_expected(model, crops):
    assert model.encode(np.ones((1, 2, 36, 36), np.uint8)).shape == (1, 8)
    with pytest.raises(ph.InputError, match=r"\(cells, 2, 36, 36\)"):
        model.encode(crops)
    with pytest.raises(ph.InputError, match="65535"):
        model.encode(np.full((1, 2, 36, 36), -1))


def test_what_a_study_has_is_named_where_something_else_is_asked_for(tmp_path):
    study = ph.Study.create(tmp_path / "study")
    for run in ("vae-seed0", "pca-seed0"):
        write_json(study.run_folder(run) / "config.json", {})
    for whitening in ("none", "zscore"):
        path = study.treatments_path("vae-seed0", statistics="mean", whitening=whitening)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for whole in (study, study.folder, str(study.folder)):
        with pytest.raises(ph.InputError, match="pca-seed0, vae-seed0"):
            ph.load(whole)
    with pytest.raises(ph.InputError, match="none, zscore"):
        study.profiles("vae-seed0", whitening="aligned")
    with pytest.raises(ph.InputError, match="pca-seed0, vae-seed0"):
        study.profiles("vae-seed1")
