"""Latent features of a run: use, strongest measures, variance shares, strips, and the page."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest
import torch

from phenolens import pipeline
from phenolens.commands.model_commands import features
from phenolens.core.colours import cell_image, shared_contrast
from phenolens.core.errors import InputError
from phenolens.core.mapped_rows import MappedRows
from phenolens.crops.config import CropConfig
from phenolens.crops.make_crops import make_crops
from phenolens.latent_features import conclusions
from phenolens.latent_features.compute import LIMITS, TEMPLATES, feature_table
from phenolens.latent_features.config import FeaturesConfig
from phenolens.latent_features.correlations import between_groups, correlations
from phenolens.latent_features.figure import traversal_strip
from phenolens.morphology.features import measures
from phenolens.plotting.page import render_page
from phenolens.plotting.style import alt_of, caption_of
from phenolens.runs.decoder import find_decoding_run
from phenolens.runs.embeddings import EmbeddedCells, embedded_cells
from phenolens.study import Study
from phenolens.training.config import TrainConfig
from phenolens.training.embed import mean_kl
from test_report import Page

CHANNELS = ("DNA", "tubulin", "actin")
FEW = FeaturesConfig(measured_cells=40, strips=3, frames=3, shuffles=19)


@pytest.fixture(scope="module")
def study(tiny_screen, tmp_path_factory) -> Study:
    """A study of the tiny screen with a VAE and a PCA, embedded."""
    study = Study.create(tmp_path_factory.mktemp("features") / "study")
    make_crops(tiny_screen, study.crops_folder, layout="bbbc021", config=CropConfig(crop_px=36))
    plain = TrainConfig(steps=3, batch_size=6, network=dict(latent_size=6, width=4), threads=1, watch_every=0)
    for model in ("vae", "pca"):
        config = dataclasses.replace(plain.of_model(model, latent_size=6), device="cpu", precision="float32")
        pipeline.train(study, config, name=f"{model}-seed0")
        pipeline.embed(study, f"{model}-seed0", pipeline.EmbedConfig(device="cpu", threads=1))
    return study


@pytest.fixture(scope="module")
def page(study) -> str:
    features(study, run="vae-seed0", describing=FEW)
    return (study.folder / "features" / "vae-seed0.html").read_text()


def used_row(**changed) -> pd.Series:
    """A used feature that follows no measure and differs between no groups."""
    row = {"kl_nats": 0.5, "variance": 1.0, "used": True}
    for place in (1, 2, 3):
        row |= {f"measure_{place}": "cell_area_px", f"rho_{place}": 0.1, f"q_{place}": 0.5, f"n_{place}": 90}
    for kind in ("treatment", "batch", "plate"):
        row |= {f"{kind}_share": 0.03, f"{kind}_by_chance": 0.03, f"{kind}_p": 0.5, f"{kind}_q": 0.5}
    return pd.Series(row | changed)


def used_table(*rows: pd.Series) -> pd.DataFrame:
    names = pd.Index([f"Z{i:03d}" for i in range(len(rows))], name="feature")
    return pd.DataFrame(list(rows)).set_index(names).infer_objects()


def test_the_kl_of_a_feature_is_that_of_its_posterior_averaged_over_cells(study):
    run = find_decoding_run(study, "vae-seed0")
    crops = study.crops.take(np.arange(30))
    with torch.inference_mode():
        mean, log_variance = (part.numpy() for part in run.model.encoder(run.compute.normalised(crops)))
    expected = (0.5 * (np.exp(log_variance) + mean**2 - 1 - log_variance)).mean(axis=0)
    np.testing.assert_allclose(mean_kl(run.model, crops, compute=run.compute), expected, rtol=1e-5)
    assert mean_kl(find_decoding_run(study, "pca-seed0").model, crops, compute=run.compute) is None


def test_the_table_has_the_correlations_and_variance_shares_of_each_feature(study):
    run, cells = find_decoding_run(study, "vae-seed0"), embedded_cells(study, "vae-seed0")
    rows = np.flatnonzero(cells.catalogue.counted)[:50]
    measured = measures(run.originals(rows), channels=run.store.channels)
    found = correlations(cells.z[rows], measured)
    table = feature_table(run, cells, rows, found, list(measured), FEW)
    best = np.nanargmax(np.abs(found.rho), axis=1)
    assert table["measure_1"].tolist() == [measured.columns[i] for i in best]
    np.testing.assert_allclose(table["rho_1"], found.rho[np.arange(6), best])
    obs = cells.catalogue.cells[cells.catalogue.counted]
    shares = between_groups(
        cells.z[np.flatnonzero(cells.catalogue.counted)],
        wells=(obs["plate"].astype(str) + obs["well"].astype(str)).to_numpy(),
        groups=obs["treatment"].astype(str).to_numpy(),
        n_shuffles=19,
        seed=0,
    )
    np.testing.assert_allclose(table["treatment_share"], shares.share)
    np.testing.assert_allclose(table["variance"], cells.z[np.flatnonzero(cells.catalogue.counted)].var(axis=0))


def test_a_feature_that_collapsed_is_counted_and_not_used(study):
    run, cells = find_decoding_run(study, "pca-seed0"), embedded_cells(study, "pca-seed0")
    z = np.asarray(cells.z)
    z[:, 2] = 4.0
    changed = EmbeddedCells(MappedRows([len(z)], lambda _: z), cells.catalogue)
    rows = np.flatnonzero(cells.catalogue.counted)[:40]
    measured = measures(run.originals(rows), channels=run.store.channels)
    table = feature_table(run, changed, rows, correlations(z[rows], measured), list(measured), FEW)
    assert not table.loc["Z002", "used"]
    assert np.isnan(table.loc["Z002", "rho_1"])
    assert table["used"].sum() < 6


def test_batches_are_compared_in_control_cells_alone(study):
    """What a treatment on one plate alone does to a feature must not make it a batch feature."""
    run, cells = find_decoding_run(study, "pca-seed0"), embedded_cells(study, "pca-seed0")
    z = np.asarray(cells.z)
    plates = cells.catalogue.cells["plate"].astype(str)
    z[(cells.catalogue.cells["role"] == "treated").to_numpy() & (plates == plates.iloc[0]).to_numpy(), 0] += 99
    z[(plates == plates.iloc[0]).to_numpy(), 1] += 99
    rows = np.flatnonzero(cells.catalogue.counted)[:40]
    measured = measures(run.originals(rows), channels=run.store.channels)
    changed = EmbeddedCells(MappedRows([len(z)], lambda _: z), cells.catalogue)
    table = feature_table(run, changed, rows, correlations(z[rows], measured), list(measured), FEW)
    assert table.loc["Z000", "plate_share"] < 0.3
    assert table.loc["Z001", "plate_share"] > 0.9


def test_a_feature_is_named_after_the_measure_it_follows():
    area = used_row(measure_1="nucleus_area_px", rho_1=-0.71, q_1=1e-9)
    found = conclusions.conclude(used_table(used_row(), area))
    assert (found.n_following, found.n_unrelated) == (1, 1)
    assert found.following == [("Z001", "nucleus area", -0.71)]
    weaker = used_row(rho_1=0.6)
    assert conclusions.conclude(used_table(used_row(), weaker, area)).named[:2] == ["Z002", "Z001"]
    assert conclusions.correlated_measures(area) == [("nucleus area", -0.71, 90)]


def test_a_feature_that_differs_between_batches_more_than_between_treatments_is_a_batch_feature():
    batch = used_row(batch_share=0.4, batch_q=0.01)
    also_treated = used_row(batch_share=0.4, batch_q=0.01, treatment_share=0.6)
    unsure = used_row(batch_share=0.4, batch_q=0.2)
    small = used_row(batch_share=0.06, batch_q=0.01)
    plate = used_row(plate_share=0.4, plate_q=0.01)
    found = [conclusions.differs_between(row) for row in (batch, also_treated, unsure, small, plate)]
    assert found == ["batches", None, None, None, "plates"]
    found = conclusions.conclude(used_table(also_treated, batch))
    assert (found.groups, found.batch_features) == ("batches", ["Z001"])
    assert conclusions.conclude(used_table(used_row())).batch_features == []


def test_what_could_not_be_tested_is_empty():
    shares = {
        f"{kind}_{what}": np.nan for kind in ("batch", "plate", "treatment") for what in ("share", "by_chance", "q")
    }
    row = used_row(**shares)
    found = conclusions.conclude(used_table(row))
    assert (found.groups, found.most_treated) == (None, {})
    assert conclusions.variance_shares(row) == []
    assert conclusions.variance_shares(used_row())[0] == ("treatments", 0.03, 0.03)


def test_a_decoded_cell_that_changes_against_the_correlation_disagrees():
    ends = ((1, 2), (2, 1), (1, 1), (0, 0), (100, 100.5), (100, 102), (np.nan, 1))
    found = [conclusions.agrees(0.6, *pair) for pair in ends]
    assert found == [True, False, None, None, None, True, None]
    assert conclusions.agrees(-0.6, 2, 1) is True
    assert conclusions.strip_counts(found) == {"n_agree": 2, "n_changed": 3, "n_unchanged": 4}


PAGE = {"title": "t", "n_used": 2, "n_features": 6, "total_nats": 12.0, "used_share": 0.01, "n_unshown": 1}
PAGE |= {"sections": [], "n_measures": 37, "n_cells": 90, "config": FEW, "limits": LIMITS, "command": "phenolens"}


def page_text(used: pd.DataFrame, **changed) -> str:
    strips = conclusions.strip_counts([True, False, None])
    found = {"found": conclusions.conclude(used), "strips": strips, "table": conclusions.page_table(used)}
    return Page(render_page(TEMPLATES, "features.html", **(PAGE | found | changed))).text


def test_the_page_puts_the_conclusions_into_sentences():
    area = used_row(measure_1="nucleus_area_px", rho_1=-0.71)
    text = page_text(used_table(area, used_row(batch_share=0.4, batch_q=0.01)))
    for part in (
        "2 of 6",
        "12 nats",
        "Z000 follows nucleus area (ρ −0.71)",
        "1 batch feature",
        "Z001",
        "1 of 2",
        "the table lists them",
    ):
        assert part in text
    assert "(beta)" in page_text(used_table(area).iloc[:0], n_used=0)  # collapsed


def test_the_page_begins_with_conclusions_and_shows_the_features_it_names(study, page):
    read = Page(page)
    table = pd.read_csv(study.folder / "features" / "vae-seed0.csv").set_index("feature")
    assert f"{table['used'].sum()} of 6 features are used" in read.text
    assert page.index('<section id="conclusions">') < page.index('<section id="features">')
    shown = re.findall(r'<article id="(Z\d+)">', page)
    assert len(shown) == min(3, table["used"].sum())
    assert set(shown) <= set(table.index[table["used"]])
    assert "phenolens features study --run vae-seed0" in read.text


def test_the_page_loads_nothing_has_no_script_and_a_text_for_every_picture(page):
    read = Page(page)
    assert {tag for tag, _ in read.tags} & {"script", "iframe", "object", "form", "base"} == set()
    assert [
        image for image in read.every("img") if not (image["src"].startswith("data:image/png") and image["alt"])
    ] == []
    assert "http" not in re.sub(r"data:image[^\"]*", "", page)


def test_the_same_study_gives_the_same_page_and_tables(study, page):
    files = sorted((study.folder / "features").iterdir())
    before = [path.read_bytes() for path in files]
    features(study, run="vae-seed0", describing=FEW)
    assert [path.read_bytes() for path in files] == before
    assert [path.name for path in files] == ["vae-seed0.csv", "vae-seed0.html", "vae-seed0_correlations.csv"]
    correlated = pd.read_csv(files[2]).set_index(["feature", "measure"])
    table = pd.read_csv(files[0]).set_index("feature")
    strongest = correlated.loc[("Z000", table.loc["Z000", "measure_1"]), "rho"]
    assert strongest == pytest.approx(table.loc["Z000", "rho_1"])


@pytest.mark.parametrize("width_px", [390, 1200])
def test_the_page_fits_a_phone_and_a_screen_and_its_tables_scroll_within(browser, study, page, width_px):
    tab = browser.new_page(viewport={"width": width_px, "height": 800})
    tab.goto((study.folder / "features" / "vae-seed0.html").as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") == width_px
    assert tab.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    tab.close()


def test_an_unfinished_study_names_the_command_that_comes_first(tiny_study, study):
    with pytest.raises(InputError, match=r"phenolens train"):
        features(tiny_study)
    with pytest.raises(InputError, match='no run "vea"'):
        features(study.folder, run="vea")


@pytest.mark.parametrize("number", [{"measured_cells": 5}, {"strips": 0}, {"frames": 1}, {"shuffles": 3}])
def test_settings_out_of_bounds_are_refused(number):
    with pytest.raises(InputError, match="--" + next(iter(number)).replace("_", "-")):
        FeaturesConfig(**number)


def test_a_strip_shows_the_real_cell_the_frames_and_what_changed_in_each_channel(rng):
    crops = rng.uniform(size=(4, 3, 12, 12))
    contrast = shared_contrast(crops, CHANNELS)
    figure = traversal_strip(
        crops[1:], np.array([-2.0, 0.1, 2.0]), crops[0], feature="Z017", channels=CHANNELS, contrast=contrast, own=-0.5,
        limit=0.3,
    )  # fmt: skip
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]
    np.testing.assert_array_equal(shown[:4], [cell_image(crop, contrast) for crop in crops])
    np.testing.assert_allclose(shown[4:], crops[3] - crops[1])
    labels = [axes.get_xlabel() for axes in figure.axes if axes.images]
    assert labels == ["real cell", "−2.0 SD", "+0.1 SD", "+2.0 SD", *CHANNELS]
    assert "0.3 of a channel's maximum" in caption_of(figure)
    assert [part for part in ("3 frames", "Z017", "−2.0 SD", "+2.0 SD") if part not in alt_of(figure)] == []
