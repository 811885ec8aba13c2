"""Realism of a study: real cells show no difference, blur lowers every metric, and results are saved and reused."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter

from conftest import TINY
from phenolens import cli
from phenolens.core.errors import InputError
from phenolens.core.files import write_parquet
from phenolens.image_realism.compute import (
    REAL,
    ComparedCells,
    check_measurable,
    compared_cells,
    image_sets,
    measure_realism,
    position_chunks,
)
from phenolens.image_realism.config import RealismConfig
from phenolens.image_realism.figure import realism_figure
from phenolens.image_realism.metrics import (
    MeasuredImages,
    measure_differences,
    normal_samples,
    random_halves,
    realism_row,
)
from phenolens.image_realism.saved import (
    HEADINGS,
    measured_notes,
    realism_notes,
    realism_rows,
    saved_realism,
    strongest_differences,
)
from phenolens.morphology.segment import _bodies
from phenolens.morphology.two_sample_test import LEAST_COMPARED
from phenolens.plotting.style import alt_of, caption_of
from phenolens.runs.decoder import find_decoding_run
from phenolens.simulation.simulate import simulate
from phenolens.study import Study
from phenolens.training.data import held_out_cells

SHORT = "--steps 30 --batch-size 16 --width 4 --latent-size 8 --threads 1 --precision float32".split()
FEW = "--cells 200 --halvings 3".split()


# from measures to metrics


def measured(rng, n=400, *, power=2.0, ssim=0.7, place=1.0) -> MeasuredImages:
    table = pd.DataFrame(rng.normal(size=(n, 3)), columns=["area", "texture", "spots"])
    return MeasuredImages("real", table, np.full((n, 2), power), np.full((n, 2), ssim), np.full((n, 2), place))


def row_of(images, real, n_plates=4):
    n = len(real.measures)
    plates, wells = np.arange(n) % n_plates, np.arange(n) % 40
    halves = random_halves(n, n=4, seed=0)
    return realism_row(images, real, halves, channels=("DNA", "actin"), plates=plates, wells=wells, seed=0)


def test_real_cells_against_other_real_cells_show_no_difference(rng):
    real = measured(rng)
    row = row_of(real, real)
    assert row["sharpness DNA"] == pytest.approx(1)
    assert row["accuracy_low"] < 0.5 < row["accuracy_high"]
    assert row["auc_low"] < 0.5 < row["auc_high"]
    assert abs(row["kernel"]) < 3 * row["kernel_sd"] + 0.02
    assert row["precision"] > 0.85
    assert row["unmeasured"] == 0


def test_the_kernel_distance_between_random_halves_of_the_same_cells_is_zero_on_average(rng):
    """Halves that were alike by design, well by well, would lie nearer to each other than samples do."""
    real = measured(rng, 60)
    halves, zeros = random_halves(60, n=300, seed=1), np.zeros(60)
    rows = realism_row(real, real, halves, channels=("a", "b"), plates=zeros, wells=zeros, seed=0)
    assert abs(rows["kernel"]) < 3 * rows["kernel_sd"] / np.sqrt(300)


def test_a_measure_shifted_by_two_deviations_gives_that_distance_and_the_best_rules_accuracy(rng):
    real = measured(rng, 1000)
    shifted = MeasuredImages("off", real.measures.add([0, 2, 0]), 0.5 * real.fine_power, real.ssim, real.shared)
    row, without = row_of(shifted, real), row_of(real, real)
    deviation = real.measures["texture"].std()
    assert row["frechet"] - without["frechet"] == pytest.approx(4 / deviation**2, abs=0.6)
    assert row["accuracy"] == pytest.approx(0.841, abs=0.06)  # the best rule cuts halfway
    assert row["sharpness actin"] == pytest.approx(0.5)
    assert row["ssim DNA"] == pytest.approx(0.7)
    assert row["precision"] < without["precision"]


def test_fine_detail_in_place_is_shared_power_over_both(rng):
    real = measured(rng, power=2.0)
    drawn = MeasuredImages("drawn", real.measures, np.full((400, 2), 8.0), real.ssim, np.full((400, 2), 1.0))
    assert row_of(drawn, real)["in place DNA"] == pytest.approx(1 / np.sqrt(2 * 8))


def test_decoded_cells_without_a_nucleus_are_counted_and_left_out_of_the_distances(rng):
    real = measured(rng)
    lacking = real.measures.copy()
    lacking.loc[rng.permutation(400)[:100], "area"] = np.nan
    row = row_of(MeasuredImages("some", lacking, real.fine_power, real.ssim, real.shared), real)
    assert row["unmeasured"] == 0.25
    assert row["frechet"] < 1
    assert row["accuracy"] > 0.55  # what is lacking is a difference to the classifier


def test_the_measure_that_was_changed_is_named_first(rng):
    real = measured(rng)
    changed = MeasuredImages("changed", real.measures.add([0, 0, -1]), real.fine_power, real.ssim, real.shared)
    table = measure_differences(changed, real, random_halves(400, n=1, seed=0)[0])
    assert table["measure"][0] == "spots"
    assert table["auc"][0] == pytest.approx(0.24, abs=0.06)  # Phi(-1 / root of 2)
    assert table["shift"][0] == pytest.approx(-1, abs=0.2)
    assert table["shift"][1:].abs().max() < 0.25


def test_a_half_is_half_and_no_two_halves_are_the_same():
    halves = random_halves(101, n=6, seed=3)
    assert (halves.sum(axis=1) == 50).all()
    assert len({half.tobytes() for half in halves}) == 6
    np.testing.assert_array_equal(halves, random_halves(101, n=6, seed=3))


def test_samples_have_the_mean_and_covariance_of_the_embeddings(rng):
    z = rng.normal(size=(300, 4)) @ rng.normal(size=(4, 4)) + [5, 0, -3, 1]
    samples = normal_samples(z, n=60_000, random=rng)
    np.testing.assert_allclose(samples.mean(0), z.mean(0), atol=0.05)
    np.testing.assert_allclose(np.cov(samples.T), np.cov(z.T), atol=0.2)
    assert np.abs(samples[:300] - z).max() > 0.5


def test_samples_of_embeddings_on_a_line_stay_on_it(rng):
    z = rng.normal(size=(20, 1)) * [1.0, 2.0, -1.0]
    samples = normal_samples(z, n=50, random=rng)
    np.testing.assert_allclose(samples[:, 1], 2 * samples[:, 0])


def test_a_decoded_nucleus_that_fills_its_crop_is_its_own_body():
    """Nothing surrounds it, so no background is known; this never happens in real cells but in decoded ones."""
    whole = np.ones((1, 68, 68), bool)
    assert _bodies(np.full((1, 2, 68, 68), 0.5), whole, ~whole).all()


# of a study


@pytest.fixture(scope="module")
def trained_study(tmp_path_factory):
    """Crops of the paper's size of a screen as small as the tiny one, with a VAE and an AE of a few steps."""
    folder = tmp_path_factory.mktemp("realism") / "study"
    screen = folder.parent / "screen"
    simulate(screen, dataclasses.replace(TINY, field_width_px=330, field_height_px=320, cells=20))
    assert cli.main(["crop", str(folder), "--source", str(screen), "--layout", "bbbc021"]) == 0
    for model in ("vae", "ae"):
        assert cli.main(["train", str(folder), "--model", model, *SHORT]) == 0
    return folder


@pytest.fixture(scope="module")
def kept(trained_study):
    """The study with its realism measured."""
    assert cli.main(["realism", str(trained_study), *FEW]) == 0
    return trained_study / "realism"


@pytest.mark.slow
def test_a_study_shows_real_cells_blurred_ones_and_what_each_model_draws(kept):
    table = pd.read_csv(kept / "realism.csv")
    names = [REAL, "originals, blurred 1 px", "originals, blurred 2 px", "AE", "VAE", "VAE, samples"]
    assert list(table["images"]) == names
    for metric in ("sharpness", "in place", "ssim", "frechet", "kernel", "precision", "recall", "accuracy", "auc"):
        assert [name for name in table if str(name).startswith(metric)], metric


@pytest.mark.slow
def test_every_metric_moves_with_blur_as_it_should(kept):
    table = pd.read_csv(kept / "realism.csv").set_index("images")
    real, weak, strong = (table.loc[name] for name in list(table.index)[:3])
    for channel in ("DNA", "tubulin", "actin"):
        assert 1.4 > real[f"sharpness {channel}"] > 0.7 > weak[f"sharpness {channel}"] > strong[f"sharpness {channel}"]
        assert 1 > weak[f"ssim {channel}"] > strong[f"ssim {channel}"] > real[f"ssim {channel}"]
        assert weak[f"in place {channel}"] > strong[f"in place {channel}"] > 0.5 > real[f"in place {channel}"]
    assert real["frechet"] < weak["frechet"] < strong["frechet"]
    assert real["kernel"] < weak["kernel"] < strong["kernel"]
    assert real["recall"] > weak["recall"] > strong["recall"]
    assert real["precision"] > strong["precision"]
    assert real["accuracy_low"] < 0.5 < real["accuracy_high"]
    assert strong["accuracy"] > 0.9
    assert weak["auc"] > 0.6


@pytest.mark.slow
def test_samples_have_no_original_to_be_like(kept):
    samples = pd.read_csv(kept / "realism.csv").set_index("images").loc["VAE, samples"]
    assert samples.filter(like="ssim").isna().all()
    assert samples["sharpness DNA"] >= 0


@pytest.mark.slow
def test_the_report_shows_realism_while_it_is_of_the_crops_and_runs_that_are_there(kept):
    study = Study.open(kept.parent)
    found = saved_realism(study)
    assert "VAE, samples" in set(found.table["images"])
    assert found.alt
    assert found.flags == ["--runs", "ae-seed0", "vae-seed0", *FEW]  # in the report, to repeat it
    run = kept.parent / "runs" / "ae-seed0"
    run.rename(run.with_name("elsewhere"))
    try:
        assert saved_realism(study) is None  # a run that was measured is gone
    finally:
        run.with_name("elsewhere").rename(run)
    assert saved_realism(study) is not None


@pytest.mark.slow
def test_repeated_with_the_same_settings_it_reads_what_was_saved(kept, capsys):
    before = {path.name: path.stat().st_mtime_ns for path in kept.iterdir()}
    assert set(before) == {"realism.csv", "differences.csv", "realism.png", "about.json"}
    assert cli.main(["realism", str(kept.parent), *FEW]) == 0
    assert "blurred 2 px" in capsys.readouterr().out
    assert {path.name: path.stat().st_mtime_ns for path in kept.iterdir()} == before
    about = json.loads((kept / "about.json").read_text())
    assert about["runs"] == ["ae-seed0", "vae-seed0"]
    cells = about["cells"]
    assert (cells["n"], cells["held_out"], cells["n_held_out"]) == (200, False, 0)


@pytest.mark.slow
def test_realism_saved_by_an_earlier_version_is_out_of_date(kept, tmp_path):
    shutil.copytree(kept.parent, tmp_path / "study")
    path = tmp_path / "study" / "realism" / "about.json"
    about = json.loads(path.read_text())
    about["notes"] = [str(about.pop("cells"))]  # sentences, not values
    path.write_text(json.dumps(about))
    assert saved_realism(Study.open(tmp_path / "study")) is None


@pytest.mark.slow
def test_the_same_seed_gives_the_same_numbers_and_another_seed_other_cells(trained_study):
    store = Study.open(trained_study).crops
    tables = [measure_realism(store, [], RealismConfig(cells=60, halvings=2, seed=seed)).table for seed in (0, 0, 1)]
    pd.testing.assert_frame_equal(tables[0], tables[1])
    assert (tables[0]["frechet"] != tables[2]["frechet"]).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--runs", "vea-seed0"], ["vea-seed0", "ae-seed0", "vae-seed0"]),
        (["--cells", "20"], ["--cells", "60"]),
        (["--halvings", "1"], ["--halvings"]),
        (["--nuclei", "dapi"], ["dapi", "DNA", "tubulin", "actin"]),
    ],
)
def test_invalid_input_is_one_line_and_nothing_is_written(trained_study, tmp_path, capsys, arguments, named):
    shutil.copytree(trained_study, tmp_path / "study", ignore=shutil.ignore_patterns("realism"))
    assert cli.main(["realism", str(tmp_path / "study"), *arguments]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("phenolens ")]
    assert [name for name in named if name not in line] == []
    assert not (tmp_path / "study" / "realism").exists()


def test_a_study_without_runs_says_which_command_comes_first(tiny_study, capsys):
    assert cli.main(["realism", str(tiny_study.folder)]) == 2
    assert "phenolens train" in capsys.readouterr().err


@pytest.mark.slow
def test_a_real_cell_is_compared_with_another_each_cell_once(trained_study):
    store = Study.open(trained_study).crops
    rows = np.arange(0, 90, 3)
    real = image_sets(store, [], rows, seed=0)[0]
    drawn = real.images(np.arange(30)).reshape(30, -1)
    beside = real.originals(np.arange(30)).reshape(30, -1)
    partner = np.square(drawn[:, None] - beside[None]).sum(2).argmin(0)
    assert sorted(partner) == list(range(30))
    assert (partner != np.arange(30)).all()


@pytest.mark.slow
def test_blurred_images_are_the_cells_blurred(trained_study):
    store = Study.open(trained_study).crops
    real, weak, strong = image_sets(store, [], np.arange(10), seed=0)
    cells = real.images(np.arange(10))
    np.testing.assert_allclose(weak.images(np.array([3]))[0, 1], gaussian_filter(cells[3, 1], 1), atol=1e-6)
    np.testing.assert_allclose(strong.images(np.array([3]))[0, 2], gaussian_filter(cells[3, 2], 2), atol=1e-6)


@pytest.mark.slow
def test_cells_of_wells_that_no_run_has_seen_are_taken_where_there_are_enough(trained_study, monkeypatch):
    from phenolens.image_realism import compute

    study = Study.open(trained_study)
    store = study.crops
    again = ["--name", "held", "--held-out-wells", "0.5", "--model", "ae", *SHORT]
    assert cli.main(["train", str(trained_study), *again]) == 0
    held = find_decoding_run(study, "held")
    seen = find_decoding_run(study, "ae-seed0")
    unseen = set(np.flatnonzero(held_out_cells(store.cells, share=0.5, seed=0)))
    monkeypatch.setattr(compute, "LEAST_HELD_OUT", 30)
    monkeypatch.setattr(compute, "LEAST_COMPARED", 30)
    config = RealismConfig(cells=60)
    rows, cells = compared_cells(store, [held], config)
    assert set(rows) <= unseen
    assert (cells.held_out, cells.n_held_out) == (True, len(unseen))
    rows, cells = compared_cells(store, [held, seen], config)
    assert not set(rows) <= unseen
    assert (cells.held_out, cells.n_held_out) == (False, 0)


def test_noise_is_never_measured_and_too_few_cells_are_refused(tiny_study):
    def flag_all_but(n):
        path = tiny_study.crops_folder / f"{tiny_study.crops.plates[0]}.parquet"
        for plate in tiny_study.crops.plates:
            path = tiny_study.crops_folder / f"{plate}.parquet"
            table = pd.read_parquet(path)
            write_parquet(path, table.assign(is_noise=np.arange(len(table)) >= n), about={})

    flag_all_but(40)
    store = tiny_study.crops
    rows, cells = compared_cells(store, [], RealismConfig())
    assert (len(rows), cells.n, cells.n_plates) == (80, 80, 2)
    assert not store.cells["is_noise"].to_numpy()[rows].any()
    flag_all_but(LEAST_COMPARED // 2 - 1)
    with pytest.raises(InputError, match=r"58 cells .* at least 60"):
        check_measurable(tiny_study.crops, RealismConfig())


def test_chunks_hold_every_place_once():
    np.testing.assert_array_equal(np.concatenate(position_chunks(600)), np.arange(600))
    assert [len(part) for part in position_chunks(600)] == [256, 256, 88]


# in a table and a figure


@pytest.mark.slow
def test_the_figure_has_a_row_of_cells_for_each_set_and_describes_itself(kept, rng):
    table = pd.read_csv(kept / "realism.csv")
    examples = {name: rng.random((4, 3, 12, 12)) for name in table["images"]}
    figure = realism_figure(table, examples, channels=["DNA", "tubulin", "actin"], notes=["n = 200 cells."])
    assert len([axes for axes in figure.axes if axes.images]) == 4 * len(table)
    assert "n = 200 cells." in caption_of(figure)
    assert f"other real cells {table['accuracy'][0]:.2f}" in alt_of(figure)


def test_a_figure_without_any_positive_value_has_no_logarithm(rng):
    rows = [{"images": name, "kind": kind} for name, kind in (("real", "control"), ("AE", "reconstruction"))]
    table = pd.DataFrame(rows).assign(accuracy=np.nan, accuracy_low=np.nan, accuracy_high=np.nan)
    metrics = ("sharpness DNA", "in place DNA", "ssim DNA", "frechet", "precision", "recall")  # of an untrained model
    table = table.assign(**{name: np.nan for metric in metrics for name in (metric, f"{metric}_sd")})
    table["sharpness DNA"] = table["sharpness DNA_sd"] = 0.0
    examples = {name: rng.random((2, 1, 12, 12)) for name in table["images"]}
    figure = realism_figure(table, examples, channels=["DNA"])
    assert {axes.get_xscale() for axes in figure.axes} == {"linear"}
    figure.draw_without_rendering()


def test_a_row_of_the_table_has_each_channel_its_spread_and_a_dash_for_what_is_not_known():
    row = {"images": "VAE, samples", "sharpness DNA": 0.514, "sharpness DNA_sd": 0.1, "sharpness a_sd": 1.0}
    row |= {
        "sharpness a_sd_sd": 0.1,
        "in place DNA": np.nan,
        "ssim DNA": np.nan,
        "in place a_sd": 0.5,
        "ssim a_sd": 0.5,
    }
    row |= {"frechet": 3.14, "frechet_sd": 0.2, "kernel": -0.001, "kernel_sd": 0.01, "precision": 0.5}
    row |= {"precision_sd": 0.05, "recall": 1.0, "recall_sd": 0.0, "accuracy": 0.5, "accuracy_low": 0.4}
    row |= {"accuracy_high": 0.6, "auc": np.nan}
    (texts,) = realism_rows(pd.DataFrame([row]))
    by_heading = dict(zip(HEADINGS, texts))
    assert by_heading["sharpness"] == "0.51, 1.00"
    assert by_heading["SSIM"] == "–, 0.50"
    assert by_heading["Fréchet"] == "3.1 ± 0.2"
    assert by_heading["kernel"] == "0.00 ± 0.01"
    assert by_heading["accuracy"] == "0.50 (0.40 to 0.60)"
    assert by_heading["AUC"] == "–"


DIFFERENCES = pd.DataFrame(
    [
        ("nucleus_area_px", 0.70, 0.8, "VAE"),
        ("actin_spots", 0.02, -2.34, "VAE"),
        ("n_neighbours", 0.60, 0.3, "VAE"),
        ("nucleus_area_px", 0.99, 5.0, "AE"),
    ],
    columns=["measure", "auc", "shift", "images"],
)


def test_the_strongest_differences_of_a_set_come_first_with_their_shifts():
    found = strongest_differences(DIFFERENCES, "VAE")
    assert [name.split(",")[0] for name in found] == ["bright spots of actin in the cell", "nucleus area"]
    assert list(found.values()) == [-2.34, 0.8]
    assert strongest_differences(DIFFERENCES[2:3], "VAE") == {}


def test_the_notes_name_each_decoded_set_and_what_could_not_be_measured():
    names = [REAL, "VAE", "AE", "PCA"]
    table = pd.DataFrame(
        {
            "images": names,
            "kind": ["control", *["reconstruction"] * 3],
            "accuracy": np.nan,
            "frechet": 1.0,
            "unmeasured": [0.01, 0.0, 0.4, 0.0],
        }
    )
    cells = ComparedCells(n=1200, held_out=False, n_held_out=31, n_noise=5, n_plates=1)
    notes = realism_notes(table, DIFFERENCES, cells, nuclei=None)
    measured = measured_notes(table, cells)
    assert notes[: len(measured)] == measured
    assert len(measured) == 3  # cells, no classifier, and AE's missing measures
    assert "1,200" in measured[0]
    assert "31" in measured[0]
    assert [note for note in measured if note.startswith("AE:") and "40 %" in note]
    assert [name for name in names if any(note.startswith(f"{name} differs") for note in notes)] == ["VAE", "AE"]
    (vae,) = [note for note in notes if note.startswith("VAE differs")]
    assert "(−2.3)" in vae
    assert "(+0.8)" in vae
