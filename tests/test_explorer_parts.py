"""What the explorer's pages are made of: groups and their signs, heat maps of wells, maps of cells, shown pictures."""

import anndata
import numpy as np
import pandas as pd
import pytest

from phenolens.core.colours import Contrast
from phenolens.core.errors import InputError
from phenolens.models import MODELS, Spec
from phenolens.models.interface import Representation
from phenolens.readiness import run_config
from phenolens.study import HEADLINE, Study
from phenolens.web import umap_map
from phenolens.web.map_groups import COLOURS, CONTROL, SYMBOLS, UNKNOWN, by_measure, grouped
from phenolens.web.plates_page import DISTANCE, NOISE, SHADES, Heat, well_profiles
from phenolens.web.study_view import StudyView
from phenolens.web.travel_page import Display
from phenolens.web.umap_map import fit_pca, map_of_cells, map_of_treatments, pca_places
from travelling_study import RUN


@pytest.fixture(scope="module")
def study(explored):
    return explored


def embedded(study):
    tables = [anndata.read_h5ad(study.embeddings_folder(RUN) / f"{plate}.h5ad") for plate in study.crops.plates]
    return np.concatenate([np.asarray(table.X) for table in tables]).astype(float)


def test_controls_come_first_and_unknown_mechanisms_last():
    table = pd.DataFrame({"role": ["treated", "control", "treated", "treated"], "moa": ["", "", "Eg5", "Actin"]})
    groups = grouped(table, "mechanism")
    assert groups.names == ("control", "Actin", "Eg5", "mechanism not known")
    assert groups.codes.tolist() == [3, 0, 2, 1]
    assert groups.colours == (CONTROL, COLOURS[0], COLOURS[1], UNKNOWN)
    assert [group["count"] for group in groups.as_json()] == [1, 1, 1, 1]


def test_as_many_compounds_as_there_are_colours_and_signs_are_all_drawn_differently():
    n = len(COLOURS) * len(SYMBOLS)
    groups = grouped(pd.DataFrame({"role": "treated", "compound": [f"c{i:02d}" for i in range(n)]}), "compound")
    assert len(set(zip(groups.colours, groups.symbols))) == n == 48


def test_a_measure_has_as_many_cells_in_each_shade_and_cells_without_it_apart():
    groups = by_measure(pd.Series([7, 1, 2, 3, 4, 5, 6, 8, 9, 10, np.nan], dtype=float))
    assert groups.codes.tolist() == [3, 0, 0, 1, 1, 2, 2, 3, 4, 4, 5]
    assert (groups.names[0], groups.names[4:]) == ("1 to 2.8", ("8.2 to 10", "not measured"))
    assert groups.colours[-1] == UNKNOWN
    assert len(set(groups.colours)) == 6


def test_doses_stand_in_their_order_from_light_to_dark():
    groups = grouped(pd.DataFrame({"role": "treated", "concentration_um": [10, 0.1, 0, 0.1]}), "dose")
    assert groups.names == ("no dose", "0.1 µM", "10 µM")
    assert groups.codes.tolist() == [2, 1, 0, 1]
    light = [sum(int(colour[at : at + 2], 16) for at in (1, 3, 5)) for colour in groups.colours]
    assert light == sorted(light, reverse=True)


def test_a_plate_is_coloured_by_its_name_whatever_was_on_it():
    groups = grouped(pd.DataFrame({"role": ["control", "treated"], "plate": ["P2", "P1"]}), "plate")
    assert (groups.names, CONTROL in groups.colours) == (("P1", "P2"), False)


def test_a_map_of_cells_has_each_counted_cell_once_where_its_embedding_lies(study):
    store, z = study.crops, embedded(study)
    fine = np.flatnonzero(~store.cells["is_noise"].to_numpy(bool))
    made = map_of_cells(study, RUN, store, projection="pca")
    assert sorted(made.rows.tolist()) == fine.tolist()
    assert made.rows.tolist() != fine.tolist()
    np.testing.assert_allclose(made.places, pca_places(fit_pca(z[fine]), z)[made.rows], rtol=1e-3, atol=1e-4)


def test_axes_found_in_some_cells_place_all_and_that_is_said(study, monkeypatch):
    monkeypatch.setattr(umap_map, "PCA_CELLS", 30)
    store = study.crops
    made = map_of_cells(study, RUN, store, projection="pca")
    n = int((~store.cells["is_noise"].astype(bool)).sum())
    assert len(made.rows) == n
    assert f"30 of {n:,} cells, evenly over the wells" in made.caption


def test_of_more_cells_than_a_browser_can_draw_some_are_shown_and_that_is_said(study, monkeypatch):
    monkeypatch.setattr(umap_map, "MAP_CELLS", 40)
    store = study.crops
    made = map_of_cells(study, RUN, store, projection="pca")
    n = int((~store.cells["is_noise"].astype(bool)).sum())
    assert len(set(made.rows.tolist())) == 40
    assert f"40 of {n:,} cells, evenly over the wells, by the first two" in made.caption


def test_the_controls_place_on_a_map_of_treatments_is_that_of_their_mean_profile(study, monkeypatch):
    wells = anndata.read_h5ad(study.wells_path(RUN, whitening="aligned"))
    own = (wells.obs["Metadata_Role"] == "control").to_numpy()
    mean = np.average(wells.X[own], axis=0, weights=wells.obs["Metadata_Cell_Count"][own])
    aligned = np.asarray(study.profiles(RUN).X, float)
    made = map_of_treatments(study, RUN, projection="pca")
    np.testing.assert_allclose(made.control, pca_places(fit_pca(aligned), mean[None])[0], rtol=1e-4)
    monkeypatch.setattr(Study, "headline", property(lambda _: HEADLINE | {"whitening": "whitened"}))
    made = map_of_treatments(study, RUN, projection="pca")
    profiles = anndata.read_h5ad(study.treatments_path(RUN, statistics="mean", whitening="whitened"))
    x = np.asarray(profiles.X, float)
    np.testing.assert_allclose(made.control, pca_places(fit_pca(x), np.zeros_like(x[:1]))[0], rtol=1e-4, atol=1e-5)
    assert {made.names[row] for row in made.rows} == set(profiles.obs["Metadata_Treatment"])


def test_embeddings_that_are_missing_or_of_other_crops_are_told_with_the_command(study, tmp_path):
    with pytest.raises(InputError, match="phenolens embed"):
        map_of_cells(study, "none", study.crops, projection="pca")


def test_the_median_control_well_is_at_distance_1_and_features_count_the_controls_deviations(study):
    profiles = well_profiles(study, RUN)
    wells = anndata.read_h5ad(study.profiles_folder(RUN) / "wells_mean.h5ad")
    control = (wells.obs["Metadata_Role"] == "control").to_numpy()
    assert np.median(profiles[DISTANCE].to_numpy()[control]) == pytest.approx(1)
    x = np.asarray(wells.X, float)
    expected = (x - x[control].mean(axis=0)) / x[control].std(axis=0, ddof=1)
    np.testing.assert_allclose(profiles.drop(columns=DISTANCE).to_numpy(), expected, rtol=1e-4, atol=1e-4)
    treated = profiles[DISTANCE].to_numpy()[~control]
    assert np.median(treated) > 1


def test_noise_is_a_share_of_the_wells_cells_and_unknown_measures_are_refused():
    wells = pd.DataFrame({"plate": ["P", "P"], "well": ["B02", "B03"], "n_cells": [40, 10], "n_noise": [1, 5]})
    assert Heat.of(wells, pd.DataFrame(), NOISE).values.tolist() == [2.5, 50]
    with pytest.raises(KeyError):
        Heat.of(wells, pd.DataFrame(), DISTANCE)


def test_shades_have_one_scale_for_all_plates_and_two_sides_where_0_is_the_controls():
    wells = pd.DataFrame(
        {"plate": ["P", "P", "Q"], "well": ["B02", "B03", "B02"], "n_cells": [0, 50, 100], "n_noise": 0}
    )
    heat = Heat.of(wells, pd.DataFrame(), "cells")
    assert heat.of_plate("P")["B03"] == {"text": "50", "shade": f"shade-{round(SHADES * 50 / heat.full)}"}
    assert heat.of_plate("Q")["B02"]["shade"] == "shade-5"
    assert heat.of_plate("nowhere") == {}


def test_a_channel_that_is_off_is_black_and_twice_as_bright_reaches_white_at_half():
    contrast = Contrast(("a", "b"), np.eye(2, 3), np.array([0.1, 0.0]), np.array([0.9, 1.0]))
    shown = Display(channels=["b"], brightness=200).of(contrast)
    np.testing.assert_array_equal(shown.colours, [[0, 0, 0], [0, 1, 0]])
    np.testing.assert_allclose(shown.white, [0.5, 0.5])
    np.testing.assert_array_equal(Display().of(contrast).colours, contrast.colours)


def test_eighteen_mechanisms_and_the_controls_have_a_colour_each():
    moa = [f"mechanism {number:02d}" for number in range(18)]
    table = pd.DataFrame({"role": ["control", *["treated"] * 18], "moa": ["", *moa]})
    assert len(set(grouped(table, "mechanism").colours)) == 19


def test_a_run_that_cannot_decode_is_not_the_default_of_travels(study, monkeypatch):
    view = StudyView(study)
    assert view.travel_run() == RUN
    monkeypatch.setitem(MODELS, run_config(study, RUN)["model"], Spec(Representation, title="encodes only", order=9))
    assert view.travel_run() != RUN
