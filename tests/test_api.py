"""The public names, as a notebook uses them on a small study."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.figure import Figure

import phenolens as ph
from phenolens.cli import VERBS

QUICK = dict(steps=4, batch_size=4, width=4, latent_size=8, threads=1, precision="float32", device="cpu")
NAMESPACES = {"": ph, "pp.": ph.pp, "tl.": ph.tl, "pl.": ph.pl}
FUNCTIONS = {
    prefix + name: getattr(module, name)
    for prefix, module in NAMESPACES.items()
    for name in module.__all__
    if inspect.isfunction(getattr(module, name))
}


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    """A screen of three mechanisms."""
    out = tmp_path_factory.mktemp("api") / "screen"
    settings = dict(mechanisms=3, compounds=2, doses=1, active_doses=1, replicates=1, cells=12)
    assert ph.simulate(out, **settings, field_width_px=256, field_height_px=256) == out
    return out


def test_a_study_goes_from_images_to_a_report_in_python(screen, tmp_path):
    found = ph.check(screen, layout="bbbc021")
    assert not found["missing"].any()
    study = ph.crop(tmp_path / "study", source=screen, layout="bbbc021", crop_px=36)
    assert isinstance(study, ph.Study)
    cells = study.cells
    assert len(cells) == len(study.crops) > 50
    assert "crops" in repr(study)
    assert repr(study.crops).startswith(f"CropStore {study.crops.folder}: {len(study.crops)} crops of ")
    assert "which is not there yet" in repr(ph.Study(tmp_path / "nope"))
    assert all(dir(module) == sorted(module.__all__) for module in (ph.pp, ph.tl, ph.pl))
    assert str(study) == str(study.folder)

    folder = ph.train(study, model="vae", beta=0.5, watch_every=0, **QUICK)
    assert study.runs == [folder.name] == ["vae-seed0"]
    ph.train(str(study.folder), model="pca", latent_size=8, threads=1, device="cpu")
    assert ph.embed(study, device="cpu").folder == study.folder
    embeddings = study.embeddings("vae-seed0")
    assert isinstance(embeddings, AnnData)
    assert embeddings.shape == (len(cells), 8)

    model = ph.load(study, "vae-seed0", device="cpu")
    crops = study.crops.take([0, 1, 2])
    z = model.encode(crops)
    np.testing.assert_allclose(z, embeddings.X[:3], atol=1e-4)
    np.testing.assert_allclose(ph.load(folder, device="cpu").encode(crops / crops.max()), z, atol=0.05)
    assert model.decode(z).shape == crops.shape == (3, 3, 36, 36)

    ph.profile(study, runs=["vae-seed0", "pca-seed0"])
    treatments = study.profiles("vae-seed0")
    wells = study.profiles("vae-seed0", level="well")
    assert set(treatments.obs["Metadata_Compound"]) <= set(wells.obs["Metadata_Compound"])
    again = ph.pp.treatment_profiles(ph.pp.whiten(wells, ridge=1.0))
    np.testing.assert_allclose(again.X, study.profiles("vae-seed0", whitening="whitened").X, atol=1e-5)

    written = {path: path.stat().st_mtime_ns for path in study.folder.glob("embeddings/*/*.h5ad")}
    with pytest.raises(ph.InputError, match="pca-seed0"):
        ph.embed(study, layer="stages", runs=["vae-seed0", "pca-seed0"])
    assert {path: path.stat().st_mtime_ns for path in written} == written

    scores = ph.evaluate(study, bootstraps=10, shuffles=5)
    pd.testing.assert_frame_equal(scores, study.scores)
    headline = scores.query("model == 'vae' and statistics == 'mean' and whitening == 'aligned' and protocol == 'NSC'")
    score = ph.tl.nsc(treatments)
    assert headline["accuracy"].tolist() == [score.accuracy]
    assert 0 <= ph.tl.nscb(treatments).accuracy <= 1
    table = ph.evaluate(study.profiles_folder("vae-seed0") / "wells_mean.h5ad", out=tmp_path / "scores", bootstraps=10)
    assert (tmp_path / "scores" / "protocol.md").is_file()
    assert set(table.as_table()["protocol"]) >= {"NSC"}

    compound = treatments.obs["Metadata_Compound"].iloc[0]
    travel = ph.travel(study, to=compound, run="vae-seed0", frames=3, pictures="png")
    assert (travel / "measured.csv").is_file()
    (trajectory,) = ph.tl.travel(study, to=compound, run="vae-seed0", frames=3)
    assert trajectory.pictures.shape == (3, 3, 36, 36)

    figures = [
        ph.figure("reconstructions", study, runs="vae-seed0", shown_cells=2, out=tmp_path / "figure.svg"),
        ph.pl.reconstructions(study, runs=("vae-seed0",), shown_cells=2),
        ph.pl.travel_strip(trajectory),
        ph.pl.confusion_matrix(score.confusion, "NSC"),
        ph.pl.treatment_map(treatments),
        ph.pl.cells(crops, channels=study.crops.channels),
        ph.pl.learning_curves(pd.read_csv(folder / "history.csv")),
    ]
    for figure in figures:
        assert isinstance(figure, Figure)
        assert figure._repr_png_().startswith(b"\x89PNG")  # what a notebook shows
    assert (tmp_path / "figure.svg").is_file()
    assert trajectory._repr_png_().startswith(b"\x89PNG")
    assert repr(score).startswith(f"NSC: {score.n_correct} of {score.n_treatments} = ")

    assert ph.report(study) == study.report_path
    assert "vae-seed0" in study.report_path.read_text()
    assert ph.export(study, out=tmp_path / "crops.h5sc").stat().st_size > 0


@pytest.mark.parametrize(
    ("keywords", "named"),
    [({"stepz": 3}, "steps"), ({"steps": -1}, "--steps -1"), ({"model": "vea"}, "vea"), ({"beta": -1}, "beta")],
)
def test_a_wrong_setting_is_an_input_error_that_names_it(tiny_study, keywords, named):
    with pytest.raises(ph.InputError, match=named):
        ph.train(tiny_study, **keywords)
    assert tiny_study.runs == []


def test_what_is_missing_is_an_input_error_that_names_the_command(tiny_study, tmp_path):
    with pytest.raises(ph.InputError, match="phenolens train"):
        _ = tiny_study.scores
    with pytest.raises(ph.InputError, match="no study here"):
        ph.embed(tmp_path)
    with pytest.raises(ph.InputError, match="to is missing"):
        ph.travel(tiny_study)
    with pytest.raises(ph.InputError, match="--out"):
        ph.export(tiny_study, out=tmp_path / "crops.zip")
    with pytest.raises(AttributeError, match="no public name 'trane'"):
        _ = ph.trane


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_every_public_function_documents_what_it_takes_and_returns(name):
    function = FUNCTIONS[name]
    text = inspect.getdoc(function)
    signature = inspect.signature(inspect.unwrap(function))
    parts = [part for part, wanted in (("Args:", signature.parameters), ("Returns:", returns(signature))) if wanted]
    assert [part for part in parts if part not in text] == []
    arguments = text.partition("Args:")[2].partition("Returns:")[0]
    assert [parameter for parameter in signature.parameters if f"{parameter}:" not in arguments] == []


def returns(signature):
    """Whether a function returns something."""
    return signature.return_annotation not in (None, "None")


def test_the_signature_shows_each_setting_with_its_default():
    parameters = inspect.signature(ph.train).parameters
    assert parameters["checkpoint_every"].default == 250
    assert "training" not in parameters
    assert inspect.signature(ph.travel).parameters["to"].default is inspect.Parameter.empty


def test_the_packages_help_begins_with_a_screen_that_names_every_command():
    words = set(re.findall(r"\w+", ph.__doc__))
    assert set(VERBS) - words == set()
    assert set(re.findall(r"ph\.(\w+)", ph.__doc__)) <= set(dir(ph))
    assert len(ph.__doc__.splitlines()) <= 24


def test_importing_costs_no_library_and_scoring_no_torch():
    code = "import sys, phenolens as ph; assert 'numpy' not in sys.modules; ph.pp, ph.tl, ph.Study, ph.evaluate; "
    code += "print('torch' in sys.modules or 'matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_no_module_has_the_name_of_a_command():
    modules = {path.stem for path in Path(ph.__file__).parent.iterdir()}
    assert modules & set(ph.__all__) == {"pl", "pp", "tl"}


def test_a_notebook_shows_a_study_with_its_scores_and_a_score_with_its_matrix(explored, tmp_path):
    shown = explored._repr_html_()
    assert f"{len(explored.crops):,} on " in shown
    for run in explored.runs:
        assert run in shown
    headline = explored.scores.query("whitening == @explored.headline['whitening'] and statistics == 'mean'")
    assert shown.count("<tr>") == len(headline) + 5 + shown.count("<th>report</th>")
    score = ph.tl.nsc(explored.profiles(explored.runs[0]))
    assert repr(score) in score._repr_html_()
    assert all(name in score._repr_html_() for name in score.confusion.index)
    assert "<script>" not in ph.Study(tmp_path / "<script>")._repr_html_()
