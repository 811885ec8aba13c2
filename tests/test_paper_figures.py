"""The paper's figures of a study: which runs and cells they show, what they say, and what is refused."""

import dataclasses

import matplotlib
import numpy as np
import pandas as pd
import pytest

from phenolens import pipeline
from phenolens.blinded_test.compute import results
from phenolens.blinded_test.database import AssessmentFile, Picture
from phenolens.cli import main
from phenolens.commands.model_commands import figure as figure_command
from phenolens.core.colours import cell_image, shared_contrast
from phenolens.core.errors import InputError
from phenolens.crops.config import CropConfig
from phenolens.crops.make_crops import make_crops
from phenolens.models import MODELS, Spec
from phenolens.models.config import VAEConfig
from phenolens.models.interface import Representation
from phenolens.models.vaeplus import VAE
from phenolens.paper_figures.blinded_test_figure import assessment_figure
from phenolens.paper_figures.config import FigureConfig
from phenolens.paper_figures.figure2_reconstructions import reconstructions_figure
from phenolens.paper_figures.figure3_interpolation import Interpolation, interpolation_figure, interpolations
from phenolens.paper_figures.figure4_comparison import RealCells, comparison, comparison_figure
from phenolens.plotting.style import alt_of, caption_of
from phenolens.runs.catalogue import Catalogue
from phenolens.runs.decoder import find_decoding_run
from phenolens.runs.embeddings import embedded_cells
from phenolens.runs.example_cells import drawn_cells, of_different_mechanisms, seen_words
from phenolens.runs.latent_path import feature_swap
from phenolens.study import HEADLINE, Study
from phenolens.training.config import TrainConfig
from phenolens.training.data import held_out_cells

CHANNELS = ("DAPI", "actin", "tubulin")
NETWORK = dict(latent_size=8, width=4)
TINY = TrainConfig(steps=3, batch_size=6, network=NETWORK, threads=1, watch_every=0, device="cpu", precision="float32")


@pytest.fixture(scope="module")
def study(tiny_screen, tmp_path_factory) -> Study:
    """A study of the tiny screen with an AE, a VAE and a PCA that are trained, and scored but for the AE."""
    study = Study.create(tmp_path_factory.mktemp("figures") / "study")
    make_crops(tiny_screen, study.crops_folder, layout="bbbc021", config=CropConfig(crop_px=36))
    for model in ("vae", "pca", "ae"):
        tiny = TINY.of_model(model, latent_size=8)
        config = dataclasses.replace(tiny, held_out_wells=0.25 if model != "pca" else 0.0)
        pipeline.train(study, config, name=f"{model}-seed0")
        pipeline.embed(study, f"{model}-seed0", pipeline.EmbedConfig(device="cpu", threads=1))
        pipeline.profile(study, f"{model}-seed0", pipeline.ProfileConfig())
        if model == "pca":
            pipeline.evaluate(study, ["pca-seed0", "vae-seed0"], pipeline.EvaluateConfig(bootstraps=20, shuffles=20))
    return study


@pytest.fixture
def crops(rng):
    return rng.uniform(size=(5, 3, 12, 12))


def pictures(figure) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for image in figure.findobj(matplotlib.image.AxesImage)]


def texts(figure) -> str:
    figure.draw_without_rendering()
    words = [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_visible()]
    return "\n".join(words).replace("\u00a0", " ")


def row_labels(figure) -> list[str]:
    return [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]


def test_originals_stand_over_every_model_that_decodes_the_plainest_first_in_one_contrast(study):
    store = study.crops
    ids = store.cells.loc[~store.cells["is_noise"], "cell_id"].tolist()[3:5]
    figure = reconstructions_figure(study, FigureConfig(cells=tuple(ids)))
    runs = [find_decoding_run(study, name) for name in ("pca-seed0", "ae-seed0", "vae-seed0")]
    assert row_labels(figure) == ["original", *(run.title for run in runs)]
    rows = Catalogue.of(store.cells).find_cells(ids)
    originals = runs[0].originals(rows)
    contrast = shared_contrast(originals, store.channels)
    expected = [
        cell_image(crop, contrast) for row in (originals, *(run.reconstructed(rows) for run in runs)) for crop in row
    ]
    np.testing.assert_array_equal(pictures(figure), expected)


def test_the_same_seed_shows_the_same_cells_and_another_one_others(study):
    shown = [
        pictures(reconstructions_figure(study, FigureConfig(runs=("pca-seed0",), shown_cells=4, picture_seed=seed)))
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(shown[0], shown[1])
    assert not np.array_equal(shown[0], shown[2])


def test_cells_of_held_out_wells_are_shown_before_all_others_and_the_caption_says_so(study):
    held_out = held_out_cells(study.crops.cells, share=0.25, seed=0)
    config = FigureConfig(runs=("vae-seed0", "ae-seed0"), shown_cells=2)
    shown = pictures(reconstructions_figure(study, config))[:2]
    assert held_out.any()
    assert "held out of training" in caption_of(reconstructions_figure(study, config))
    caption = caption_of(reconstructions_figure(study, dataclasses.replace(config, runs=("vae-seed0", "pca-seed0"))))
    assert "These cells' wells were used in training" in caption  # the PCA held none out
    assert len(shown) == 2


def test_drawn_cells_are_the_unseen_ones_first_and_none_twice(rng):
    rows, unseen = np.arange(10), np.arange(12) % 3 == 0
    drawn = drawn_cells(rows, 7, unseen, rng)
    assert set(drawn[:4]) == {0, 3, 6, 9}
    assert len(set(drawn)) == 7


def test_what_training_saw_is_said_for_the_cells_that_are_shown():
    unseen = np.array([True, True, False])
    assert seen_words(np.array([0, 1]), unseen) == "All are from wells held out of training."
    assert seen_words(np.array([0, 2]), unseen) == "1 of 2 are from wells held out of training."
    assert seen_words(np.array([2]), unseen) == "These cells' wells were used in training."


def test_random_cells_begin_with_a_control_and_show_each_mechanism_before_any_comes_again(study, rng):
    store = study.crops
    rows = of_different_mechanisms(Catalogue.of(store.cells), 5, unseen=np.zeros(len(store), bool), random=rng)
    cells = store.cells.iloc[rows]
    assert cells["role"].tolist() == ["control", *["treated"] * 4]
    assert cells["moa"].iloc[1:].nunique() == 4
    assert not cells["is_noise"].any()


def test_a_cell_that_is_not_there_offers_the_nearest_and_a_noise_crop_is_refused(study):
    store = study.crops
    first = store.cells["cell_id"].iloc[0]
    with pytest.raises(InputError, match=f'no cell "{first}x"; did you mean "{first}"'):
        Catalogue.of(store.cells).find_cells([first + "x"])
    store.cells.loc[0, "is_noise"] = True
    with pytest.raises(InputError, match="flagged as noise"):
        Catalogue.of(store.cells).find_cells([first])


def test_an_interpolation_goes_from_the_middle_control_to_the_middle_cell_of_each_compound(study):
    run, cells = find_decoding_run(study, "pca-seed0"), embedded_cells(study, "pca-seed0")
    compounds = tuple(sorted(set(cells.catalogue.treatments.query("role == 'treated'")["compound"])))[:2]
    figure = interpolation_figure(study, FigureConfig(runs=("pca-seed0",), compounds=compounds, frames=4))
    controls = cells.catalogue.rows(role="control")
    start = cells.nearest_to_mean(controls)
    real, frames = [start], []
    for compound in compounds:
        rows = cells.catalogue.rows(compound=compound, role="treated")
        real.append(cells.nearest_to_mean(rows))
        frames.append(run.decoded(feature_swap(cells.z[start], cells.z[real[-1]], 4).embeddings))
    originals = run.originals(np.array(real))
    contrast = shared_contrast(originals, run.store.channels)
    lines = [[originals[0], *frames[i], originals[i + 1]] for i in range(2)]
    np.testing.assert_array_equal(pictures(figure), [cell_image(crop, contrast) for line in lines for crop in line])
    for compound in compounds:
        assert compound in texts(figure).replace("\n", "")
    assert "nearest to the controls' mean" in caption_of(figure)


def test_without_compounds_an_interpolation_goes_to_one_treatment_of_each_mechanism(study):
    figure = interpolation_figure(study, FigureConfig(runs=("vae-seed0",), frames=2))
    mechanisms = set(study.crops.cells["moa"].dropna()) - {""}
    assert len(row_labels(figure)) == len(mechanisms) == 4
    named = {" ".join(label.split("\n")[1:]) for label in row_labels(figure)}
    assert all(any(mechanism in name for name in named) for mechanism in mechanisms)


def test_an_interpolation_starts_from_the_cell_that_is_named(study):
    store = study.crops
    cell = store.cells.loc[store.cells["role"] == "treated", "cell_id"].iloc[1]
    figure = interpolation_figure(study, FigureConfig(cells=(cell,), frames=2, way="line", runs=("pca-seed0",)))
    assert "The start was named" in caption_of(figure)
    assert "all features at once" in caption_of(figure)


def test_a_comparison_says_what_each_model_takes_the_treatment_for_and_shows_real_cells_of_it(study):
    tables = {
        name: pd.read_csv(study.score_table_path(f"{name}-seed0", "neighbours", **HEADLINE)).set_index("treatment")
        for name in ("pca", "vae")
    }
    treatment = tables["vae"].index[0]
    figure = comparison_figure(study, FigureConfig(treatment=treatment, shown_cells=1))
    said = " ".join(texts(figure).split())
    for title, table in (("PCA of pixels", tables["pca"]), ("VAE", tables["vae"])):
        row = table.loc[treatment]
        right = "right" if row["right"] else "wrong"
        compound, dose = row["neighbour"].split("@")
        assert f"{title}: {row['predicted']} ({right}) nearest: {compound} {dose} µM" in said
    labels = [" ".join(label.split()) for label in row_labels(figure)]
    assert labels == ["cell 1 original", "PCA of pixels", "VAE"]
    assert "The treatment was drawn" not in caption_of(figure)


def test_a_comparison_without_a_treatment_draws_one_by_the_seed(study):
    captions = [caption_of(comparison_figure(study, FigureConfig(picture_seed=seed))) for seed in (0, 0, 3)]
    assert captions[0] == captions[1]
    assert captions[0] != captions[2]
    assert "The treatment was drawn" in captions[0]


def test_a_comparison_refuses_cells_of_another_treatment_runs_without_scores_and_fewer_than_two_runs(study):
    store = study.crops
    treated = store.cells[store.cells["role"] == "treated"]
    treatment = f"{treated['compound'].iloc[0]}@{treated['concentration_um'].iloc[0]:g}"
    other = treated.loc[treated["compound"] != treated["compound"].iloc[0], "cell_id"].iloc[0]
    with pytest.raises(InputError, match=f"is not of {treatment}"):
        comparison_figure(study, FigureConfig(treatment=treatment, cells=(other,)))
    with pytest.raises(InputError, match='run "ae-seed0" has no scores; run `phenolens evaluate'):
        comparison_figure(study, FigureConfig(runs=("ae-seed0", "vae-seed0")))
    with pytest.raises(InputError, match="two runs that decode and are scored, not 1"):
        comparison_figure(study, FigureConfig(runs=("vae-seed0",)))


def test_a_name_that_is_not_there_offers_the_nearest_ones(study):
    compound = study.crops.cells.query("role == 'treated'")["compound"].iloc[0]
    with pytest.raises(InputError, match=f'no cells of "{compound[:-1]}_"; did you mean "{compound[:-2]}'):
        interpolation_figure(study, FigureConfig(compounds=(f"{compound[:-1]}_",)))
    with pytest.raises(InputError, match='no run "vea"'):
        reconstructions_figure(study, FigureConfig(runs=("vea",)))


class Blind(Representation):
    """A model that embeds and does not decode."""

    Config = VAEConfig

    def __init__(self, channels, crop_px, config):
        super().__init__()
        self.inner = VAE(channels, crop_px, config)

    def load_state_dict(self, state, **options):
        return self.inner.load_state_dict(state, **options)

    def state_dict(self, **options):
        return self.inner.state_dict(**options)

    def embed(self, x):
        return self.inner.embed(x)

    def feature_names(self):
        return self.inner.feature_names()


def test_a_model_that_cannot_decode_is_named_with_those_that_can(study, monkeypatch):
    monkeypatch.setitem(MODELS, "vae", Spec(Blind, title="Blind", order=2))
    with pytest.raises(InputError, match=r'run "vae-seed0": its model cannot decode .* ae-seed0, pca-seed0'):
        reconstructions_figure(study, FigureConfig(runs=("vae-seed0",)))
    assert "VAE" not in row_labels(reconstructions_figure(study, FigureConfig(shown_cells=1)))


def test_a_study_half_run_says_which_command_comes_first(tiny_study):
    for figure in (reconstructions_figure, interpolation_figure, comparison_figure):
        with pytest.raises(InputError, match=r"run `phenolens train .*` first"):
            figure(tiny_study, FigureConfig())


def test_one_command_writes_a_figure_in_each_kind_of_file_the_same_each_time(study, tmp_path, capsys):
    out = tuple(tmp_path / f"figure.{kind}" for kind in ("png", "svg", "pdf"))
    command = ["figure", "reconstructions", study.folder, "--runs", "pca-seed0", "--shown-cells", 2, "--out", *out]
    assert main(list(map(str, command))) == 0
    first = [path.read_bytes() for path in out]
    assert capsys.readouterr().out.split() == [str(path.resolve()) for path in out]
    settings = FigureConfig(runs=("pca-seed0",), shown_cells=2)
    figure_command("reconstructions", study, out=out[:2], shown=settings)
    assert [path.read_bytes() for path in out] == first
    assert main([*map(str, command), "--no-caption"]) == 0
    assert "n = 2 cells" in capsys.readouterr().err
    assert out[0].read_bytes() != first[0]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"out": ("a.gif",)}, "a.gif: expected a name that ends in .png"),
        ({"out": ("no/such/folder/a.png",)}, "there is no folder"),
        ({"shown": FigureConfig(treatment="taxol@1")}, "--treatment .* reconstructions; it is for comparison"),
        ({"way": "line"}, "it is for interpolation"),
        ({"way": "curve"}, "curve.*swap, line"),
        ({"wey": "line"}, "way"),
    ],
)
def test_what_cannot_be_written_or_says_nothing_is_refused_before_anything_is_done(flags, message, tmp_path):
    given = {"out": ("a.png",)} | flags
    given["out"] = tuple(tmp_path / name for name in given["out"])
    with pytest.raises(InputError, match=message):
        figure_command("reconstructions", tmp_path, **given)


def test_the_command_without_a_file_is_refused(study, capsys):
    assert main(["figure", "reconstructions", str(study.folder)]) == 2
    assert "--out" in capsys.readouterr().err


@pytest.mark.parametrize("number", [{"frames": 1}, {"shown_cells": 0}, {"picture_seed": -1}])
def test_numbers_that_cannot_be_are_refused(number):
    with pytest.raises(InputError, match="--" + next(iter(number)).replace("_", "-")):
        FigureConfig(**number)


def test_a_row_holds_the_start_its_frames_and_its_target_with_a_cosine_under_each_frame(crops):
    rows = [Interpolation(f"to {i}", crops[1:4] ** i, np.array([-0.5, 0.2, 1.0]), crops[4] / i) for i in (1, 2)]
    figure = interpolations(crops[0], "DMSO", rows, channels=CHANNELS, model="VAE+", order="in order", note="")
    contrast = shared_contrast(np.stack([crops[0], crops[4], crops[4] / 2]), CHANNELS)
    lines = [[crops[0], *row.frames, row.target] for row in rows]
    np.testing.assert_array_equal(pictures(figure), [cell_image(crop, contrast) for line in lines for crop in line])
    assert [axes.get_xlabel() for axes in figure.axes if axes.get_xlabel()] == ["−0.50", "0.20", "1.00"] * 2
    assert alt_of(figure).endswith("to a cell of to 1 and to 2, a row each, real cells at both ends")


def test_channels_stand_in_columns_beside_groups_of_real_cells(crops):
    real = [RealCells("taxol: right", crops[2:]), RealCells("DMSO", crops[:1])]
    figure = comparison(
        crops[:2], {"AE": crops[:2] ** 2, "VAE": crops[:2] ** 3}, real, "taxol 1 µM", channels=CHANNELS, note=""
    )
    contrast = shared_contrast(np.concatenate([crops[:2], crops[2:], crops[:1]]), CHANNELS)
    first = pictures(figure)[:4]
    apart = [cell_image(crops[0][i : i + 1], contrast.of_channels(i)) for i in range(3)]
    np.testing.assert_array_equal(first, [cell_image(crops[0], contrast), *apart])
    assert len(pictures(figure)) == 2 * 3 * 4 + 4
    assert "taxol: right" in texts(figure)
    assert "4 random real cells" in caption_of(figure)


def sitting(study: Study, name: str, said: dict[str, str]) -> AssessmentFile:
    """An assessment of four synthetic and four real pictures, and what each assessor says of them in order, S or R."""
    pictures = [Picture(b"png", i % 2 == 0, f"cell {i}", "DMSO@0", "control", "DNA") for i in range(8)]
    about = {"title": "VAE+", "each_channel": name == "second"}
    file = AssessmentFile.create(study.assessments_folder / f"{name}.sqlite", pictures, about)
    for assessor, answers in zip(file.add_assessors(list(said)), said.values()):
        for answer in answers:
            turn = file.turn(assessor.number)
            file.current_picture(assessor.number, turn.picture_id)
            file.answer(assessor.number, turn.picture_id, synthetic=answer == "S")
    return file


def test_the_blinded_test_is_drawn_an_assessor_a_row_with_the_published_shares_beside(tiny_study):
    file = sitting(tiny_study, "first", {"Anna": "RRRRRRRR", "Bence": "SSSSSSSS", "Chen": "SSS"})
    sitting(tiny_study, "second", {"Anna": "RRRRRRRR"})
    figure = assessment_figure(tiny_study, FigureConfig(assessments=("first",)))
    left, right = figure.axes[:2]
    assert [label.get_text() for label in left.get_yticklabels()] == [
        *("first (VAE+)", "Anna", "Bence", "Chen (3 of 8)", "all 2 together")
    ]
    # Anna calls every cell real, so every synthetic one passes and no real one is called synthetic; Bence the reverse
    points = [[line.get_xdata()[0] for line in axes.lines if line.get_marker() in ("o", "D")] for axes in (left, right)]
    assert [points[0][i] for i in (0, 1, 3)] == [100, 0, 50]
    assert [points[1][i] for i in (0, 1, 3)] == [0, 100, 50]
    pooled = results(file).passed
    ends = [line.get_xdata() for line in left.lines if len(line.get_xdata()) == 2 and line.get_linewidth() == 2]
    np.testing.assert_allclose(ends, [[100 * pooled.low, 100 * pooled.high]])
    assert "VAE+, Lafarge 2019: 40.7 %" in texts(figure)
    assert "CytoGAN, Goldsborough 2017: 30 %" in texts(figure)
    assert "n = 2 finished assessors" in caption_of(figure)
    sitting(tiny_study, "third", {"Anna": ""})
    both = assessment_figure(tiny_study, FigureConfig())
    assert "second (VAE+, channels alone too)" in texts(both)
    assert "third (VAE+)" not in [label.get_text() for label in both.axes[0].get_yticklabels()]
    assert "nobody has answered: third (VAE+)." in caption_of(both)


def test_without_an_assessment_or_an_answer_the_command_that_comes_first_is_named(tiny_study):
    with pytest.raises(InputError, match=r"no blinded assessment yet; run `phenolens assess"):
        assessment_figure(tiny_study, FigureConfig())
    sitting(tiny_study, "first", {"Anna": ""})
    with pytest.raises(InputError, match=r"first: nobody has answered yet; .*phenolens assess"):
        assessment_figure(tiny_study, FigureConfig())
    with pytest.raises(InputError, match='no assessment "fist"; did you mean "first"'):
        assessment_figure(tiny_study, FigureConfig(assessments=("fist",)))
