"""Travel in a study: to treatments up their doses and to their populations, by known answers and naive twins."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from phenolens import pipeline
from phenolens.core.errors import InputError
from phenolens.morphology.features import measures
from phenolens.runs.latent_path import feature_swap
from phenolens.runs.real_change import RealChanges
from phenolens.training.config import TrainConfig
from phenolens.training.embed import decode
from phenolens.travels.batch_effect import batch_space
from phenolens.travels.compute import TravelConfig, Traveller
from phenolens.travels.trajectory import FEW_MOVED
from travelling_study import LONELY, SERIES


@pytest.fixture(scope="module")
def study(travelling):
    return travelling


@pytest.fixture(scope="module")
def traveller(study):
    return Traveller.open(study)


def table_of(traveller):
    return traveller.run.store.cells.set_index("cell_id", drop=False)


def cells_of(traveller, compound, dose):
    table = table_of(traveller)
    chosen = (table["compound"] == compound) & (table["concentration_um"] == dose) & ~table["is_noise"].astype(bool)
    return np.flatnonzero(chosen)


def nearest_to_mean(z, rows):
    return rows[np.linalg.norm(z[rows] - z[rows].mean(axis=0), axis=1).argmin()]


def test_a_swap_leads_from_the_control_nearest_to_their_mean_to_the_treated_cell_nearest_to_theirs(traveller):
    (trajectory,) = traveller.travel(TravelConfig(f"{SERIES}@10", frames=5))
    z, obs = np.asarray(traveller.cells.z, float), table_of(traveller)
    start = nearest_to_mean(z, np.flatnonzero((obs["role"] == "control").to_numpy()))
    target = nearest_to_mean(z, cells_of(traveller, SERIES, 10))
    assert (trajectory.start.cell_id, trajectory.target.cell_id) == (obs.index[start], obs.index[target])
    naive = feature_swap(z[start], z[target], 5)
    np.testing.assert_allclose(trajectory.embeddings, naive.embeddings)
    np.testing.assert_allclose(trajectory.frames["cosine"], naive.cosines)
    np.testing.assert_allclose(trajectory.frames["distance"], np.linalg.norm(naive.embeddings - z[target], axis=1))
    pictured = traveller.run
    np.testing.assert_array_equal(
        trajectory.pictures, decode(pictured.model, naive.embeddings, compute=pictured.compute)
    )
    np.testing.assert_array_equal(trajectory.difference, trajectory.pictures[-1] - trajectory.pictures[0])
    crop = traveller.run.store.take([target])[0].astype(float)
    np.testing.assert_allclose(trajectory.target.crop, crop / crop.max(axis=(1, 2), keepdims=True), rtol=1e-6)


def test_a_direction_is_the_treated_mean_less_that_of_the_controls_of_their_plates(traveller):
    start = table_of(traveller).index[cells_of(traveller, "DMSO", 0)[3]]
    asked = TravelConfig(f"{SERIES}@1", start=start, way="direction", frames=4)
    (trajectory,) = traveller.travel(asked)
    z, rows, controls = (
        np.asarray(traveller.cells.z, float),
        cells_of(traveller, SERIES, 1),
        cells_of(traveller, "DMSO", 0),
    )
    plates = table_of(traveller)["plate"].to_numpy()
    assert len(set(plates[rows])) < len(set(plates))  # the compound lies on one plate of several
    beside = controls[np.isin(plates[controls], plates[rows])]
    direction = z[rows].mean(axis=0) - z[beside].mean(axis=0)
    z0 = z[table_of(traveller).index.get_loc(start)]
    np.testing.assert_allclose(trajectory.embeddings, [z0 + share * direction for share in (0, 1 / 3, 2 / 3, 1)])
    assert trajectory.n_controls == len(beside)
    (beyond,) = traveller.travel(replace(asked, beyond=2.0))
    np.testing.assert_allclose(beyond.embeddings[-1], z0 + 2 * direction)


def test_the_change_is_that_of_moved_controls_beside_treated_cells_less_controls_of_their_plates(traveller):
    asked = TravelConfig(f"{SERIES}@1", way="direction", frames=2, moved_cells=6)
    (trajectory,) = traveller.travel(asked)
    change, run = trajectory.change, traveller.run
    z, treated, controls = np.asarray(traveller.cells.z), cells_of(traveller, SERIES, 1), cells_of(traveller, "DMSO", 0)
    plates = table_of(traveller)["plate"].to_numpy()
    beside = controls[np.isin(plates[controls], plates[treated])]
    assert (change.n_moved, change.n_treated, change.n_controls) == (6, len(treated), len(beside))
    name, sd = "nucleus_area_px", trajectory.measured.control_sd["nucleus_area_px"]
    area = {
        row: value
        for row, value in enumerate(measures(run.originals(np.arange(len(z))), channels=run.store.channels)[name])
    }
    real = (np.nanmean([area[row] for row in treated]) - np.nanmean([area[row] for row in beside])) / sd
    assert change.table.loc[name, "real"] == pytest.approx(real, rel=1e-5)
    moved = traveller._moved_cells(asked, traveller.targets(asked.to, asked)[0])
    assert set(moved) <= set(beside)
    direction = trajectory.embeddings[-1] - trajectory.embeddings[0]
    ends = [
        measures(np.maximum(run.decoded(at), 0), channels=run.store.channels)[name]
        for at in (z[moved], z[moved] + direction)
    ]
    assert change.table.loc[name, "decoded"] == pytest.approx(np.nanmean(ends[1] - ends[0]) / sd, rel=1e-3, abs=1e-6)
    assert "6 moved and" in change.test.reason
    assert [made.table.equals(change.table) for made, _ in traveller.measured_changes(asked)] == [True]


def test_each_picture_has_its_own_cosine_to_the_target_beside_that_of_the_other_treated_cells(traveller):
    (trajectory,) = traveller.travel(TravelConfig(f"{SERIES}@10", frames=3))
    z, obs, treated = np.asarray(traveller.cells.z, float), table_of(traveller), cells_of(traveller, SERIES, 10)
    target = list(obs.index).index(trajectory.target.cell_id)

    def cosine(embedding):
        return embedding @ z[target] / np.sqrt((embedding @ embedding) * (z[target] @ z[target]))

    drawn = [cosine(one.astype(float)) for one in traveller.run.embedded(trajectory.pictures)]
    np.testing.assert_allclose(trajectory.frames["cosine_decoded"], drawn, atol=1e-6)
    others = np.median([cosine(z[row]) for row in treated if row != target])
    np.testing.assert_allclose(trajectory.frames["cosine_treated"], others, atol=1e-6)
    assert trajectory.nearness(
        0
    ) == f"similarity to the target {drawn[0]:.2f} (other treated cells {others:.2f})".replace("-", "−")


def test_a_residual_travel_starts_at_the_real_cell_and_adds_the_decoded_change(traveller):
    asked = TravelConfig(f"{SERIES}@10", frames=3)
    ((plain,), (kept,)) = (traveller.travel(replace(asked, residual=residual)) for residual in (False, True))
    np.testing.assert_allclose(kept.pictures[0], kept.start.crop, atol=1e-6)
    np.testing.assert_allclose(kept.difference, plain.difference, atol=1e-6)
    assert (plain.kept, kept.kept) == ("none", "residual")
    np.testing.assert_allclose(kept.frames["cosine_decoded"].iloc[0], kept.frames["cosine"].iloc[0], atol=1e-3)


def test_up_the_doses_a_frame_stands_at_the_target_of_each_dose(traveller):
    (trajectory,) = traveller.travel(TravelConfig(SERIES, way="line", up_the_doses=True, frames=7))
    z = np.asarray(traveller.cells.z)
    low, high = (nearest_to_mean(z, cells_of(traveller, SERIES, dose)) for dose in (1, 10))
    np.testing.assert_allclose(trajectory.embeddings[[3, 6]], z[[low, high]])
    assert trajectory.stops == (f"{SERIES} 1 µM", f"{SERIES} 10 µM")
    assert trajectory.frames["towards"].tolist() == [f"{SERIES}@1"] * 4 + [f"{SERIES}@10"] * 3


@pytest.mark.parametrize("by", ["nucleus", "measures", "embedding"])
def test_with_medoids_each_population_has_a_trajectory_and_their_shares_add_up(traveller, by):
    trajectorys = traveller.travel(TravelConfig(f"{SERIES}@10", targets="medoids", medoids=2, medoids_by=by))
    rows = cells_of(traveller, SERIES, 10)
    assert [trajectory.population.number for trajectory in trajectorys] == [1, 2]
    assert sum(trajectory.population.share for trajectory in trajectorys) == pytest.approx(1)
    assert trajectorys[0].population.share >= trajectorys[1].population.share
    assert {trajectory.population.n_cells for trajectory in trajectorys} == {len(rows)}
    shown = [cell.cell_id for trajectory in trajectorys for cell in trajectory.population.cells]
    assert len(shown) == len(set(shown))  # no cell is of two populations
    assert set(shown) <= set(table_of(traveller).index[rows])
    targets = {trajectory.target.cell_id for trajectory in trajectorys}
    assert len(targets & set(table_of(traveller).index[rows])) == 2


def test_nuclei_planted_in_pieces_are_a_population_of_their_own(study):
    """A third of a treatment's cells are measured as cells with two nuclei side by side, the others with one."""
    whole, pieces = (np.zeros((2, 3, 36, 36), np.uint16) for _ in range(2))
    y, x = np.mgrid[:36, :36]
    whole[:, 0] = 3000 * (np.hypot(y - 18, x - 18) < 9)
    pieces[:, 0] = 3000 * ((np.hypot(y - 18, x - 11) < 6) | (np.hypot(y - 18, x - 24) < 6))
    for crops in (whole, pieces):
        crops[:, 1:] = 2000 * (np.hypot(y - 18, x - 18) < 15)
    traveller = Traveller.open(study)
    rows = cells_of(traveller, SERIES, 10)
    planted = np.arange(len(rows)) % 3 == 0
    noise = np.random.default_rng(0).integers(0, 60, (len(rows), 3, 36, 36))
    shown = (np.where(planted[:, None, None, None], pieces[:1], whole[:1]) + noise).astype(float)
    traveller.measured.known = dict(zip(rows.tolist(), (row for _, row in measures(
        shown / shown.max(axis=(2, 3), keepdims=True), channels=traveller.channels).iterrows())))  # fmt: skip
    asked = TravelConfig(f"{SERIES}@10", targets="medoids", medoids=2)
    first, second = traveller.targets(f"{SERIES}@10", asked)
    assert set(second.rows) == set(rows[planted])
    assert set(first.rows) == set(rows[~planted])
    assert (traveller.measured.of(second.rows)["n_nuclear_fragments"] == 2).all()
    sds = traveller.measured.controls.std()
    for name, ours, others in second.population.marks:
        means = [traveller.measured.of(target.rows)[name].mean() for target in (second, first)]
        assert (ours, others) == pytest.approx(tuple(means))
        assert abs(ours - others) > 3 * sds[name]


def test_the_nearest_real_cell_is_the_nearest_one_but_start_and_target(traveller):
    (trajectory,) = traveller.travel(TravelConfig(f"{SERIES}@10", frames=5))
    obs = table_of(traveller)
    others = np.flatnonzero(
        ~obs.index.isin([trajectory.start.cell_id, trajectory.target.cell_id]) & ~obs["is_noise"].to_numpy(bool)
    )
    away = np.linalg.norm(trajectory.embeddings[:, None] - traveller.cells.z[others], axis=2)
    assert trajectory.frames["nearest_cell"].tolist() == obs.index[others[away.argmin(axis=1)]].tolist()
    np.testing.assert_allclose(trajectory.frames["nearest_distance"], away.min(axis=1), rtol=1e-6)
    assert [cell.treatment for cell in trajectory.nearest] == trajectory.frames["nearest_treatment"].tolist()


def test_what_is_measured_is_measured_on_the_pictures_and_on_the_real_cells(traveller):
    (trajectory,) = traveller.travel(TravelConfig(f"{SERIES}@10", frames=3))
    pictures = np.maximum(trajectory.pictures, 0)
    naive = measures(pictures / pictures.max(axis=(2, 3), keepdims=True), channels=trajectory.channels)
    pd.testing.assert_frame_equal(trajectory.measured.frames, naive, check_exact=False, rtol=1e-6)
    ends = measures(np.stack([trajectory.start.crop, trajectory.target.crop]), channels=trajectory.channels)
    np.testing.assert_allclose(trajectory.measured.ends, ends, rtol=1e-6)
    moved = trajectory.measured.most_moved(3)
    sds = ((naive.iloc[-1] - naive.iloc[0]) / trajectory.measured.control_sd).abs()
    of_cells = sds[~sds.index.str.endswith("_sharpness")].dropna()
    assert sorted(of_cells[moved]) == sorted(of_cells)[-3:]


def test_what_nobody_asked_to_measure_is_not_and_the_same_travel_is_computed_once(traveller):
    asked = TravelConfig(f"{SERIES}@10", frames=4)
    (plain,) = traveller.travel(asked, measured=False)
    (measured,) = traveller.travel(asked)
    assert plain.measured is None
    assert measured.measured is not None
    np.testing.assert_array_equal(plain.pictures, measured.pictures)
    assert traveller.travel(asked)[0] is measured


def test_a_frame_far_beyond_the_data_is_flagged_and_one_at_a_real_cell_is_not(traveller):
    (trajectory,) = traveller.travel(TravelConfig(f"{SERIES}@1", way="direction", beyond=200.0, frames=5))
    assert trajectory.frames["flag"].iloc[0] == ""
    assert "as far from the nearest cells" in trajectory.frames["flag"].iloc[-1]
    assert trajectory.frames["far"].iloc[-1] > 1


def test_the_share_in_the_batch_space_is_that_of_the_treated_mean_less_the_mean_of_all_controls(traveller):
    (trajectory,) = traveller.travel(TravelConfig(f"{SERIES}@1", frames=3))
    z, obs = np.asarray(traveller.cells.z, float), table_of(traveller)
    controls = cells_of(traveller, "DMSO", 0)
    direction = z[cells_of(traveller, SERIES, 1)].mean(axis=0) - z[controls].mean(axis=0)
    naive = batch_space(z[controls], obs["batch"].to_numpy(str)[controls]).share(direction)
    assert trajectory.batch_share.share == pytest.approx(naive.share)
    assert 0 < naive.share < 1


def test_a_treatment_of_one_cell_is_travelled_to_but_has_no_populations(traveller):
    (trajectory,) = traveller.travel(TravelConfig(LONELY))
    assert trajectory.target.treatment.startswith(f"{LONELY}@")
    assert trajectory.population.n_cells == 1
    with pytest.raises(InputError, match="has 1 cell"):
        traveller.travel(TravelConfig(LONELY, targets="medoids"))


def test_the_same_question_is_answered_once(traveller):
    asked = TravelConfig(f"{SERIES}@10", frames=4)
    assert traveller.travel(asked) is traveller.travel(replace(asked))


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        (TravelConfig("two/dozes"), ["two/dozes", "two/doses"]),
        (TravelConfig(f"{SERIES}@3"), ["two/doses at 3 µM", "two/doses@1", "two/doses@10"]),
        (TravelConfig(f"{SERIES}@high"), ["two/doses", "high"]),
        (TravelConfig("DMSO"), ["DMSO@0"]),
        (TravelConfig(SERIES, start="nobody"), ["nobody"]),
        (TravelConfig(SERIES, up_the_doses=True, frames=2), ["2 frames", "2 targets", "3"]),
    ],
)
def test_an_impossible_travel_is_refused_in_one_line_that_names_it(traveller, asked, names):
    with pytest.raises(InputError) as error:
        traveller.travel(asked)
    assert [name for name in names if name not in str(error.value)] == []
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "settings",
    [{"frames": 1}, {"frames": 10**9}, {"medoids": 0}, {"beyond": 0.0, "way": "direction"}, {"beyond": 2.0},
     {"seed": -1}, {"beyond": 2.0, "way": "direction", "up_the_doses": True},
     {"up_the_doses": True, "targets": "medoids"}, {"moved_cells": 1}],
)  # fmt: skip
def test_settings_that_cannot_be_or_do_not_go_together_are_refused(settings):
    with pytest.raises(InputError, match="--"):
        TravelConfig(SERIES, **settings)


def test_decoded_pictures_are_embedded_anew_as_pictures_not_as_zeros(traveller):
    """PCA projects: what it drew comes back to where it was, but for 16 bits and the maximum of each channel."""
    pictured, z = traveller.run, traveller.cells.z[np.arange(20)]
    pictures = pictured.decoded(z)
    scaled = np.maximum(pictures, 0)
    scaled = scaled / scaled.max(axis=(2, 3), keepdims=True)
    mean, components = (getattr(pictured.model, name).numpy() for name in ("mean", "components"))
    naive = (scaled.reshape(20, -1) - mean) @ components.T
    np.testing.assert_allclose(pictured.embedded(pictures), naive, atol=1e-2)


def test_a_study_half_run_says_which_command_comes_first(tmp_path, tiny_study):
    with pytest.raises(InputError, match="run `phenolens train"):
        Traveller.open(tiny_study)
    config = TrainConfig(model="pca", network=dict(latent_size=4), threads=1)
    pipeline.train(tiny_study, config, name="pca-seed0")
    with pytest.raises(InputError, match="run `phenolens embed"):
        Traveller.open(tiny_study)


@pytest.mark.parametrize("dose", ["10", "10.0", "1e1"])
def test_a_dose_is_found_however_its_number_is_written(traveller, dose):
    assert traveller.catalogue.find_treatment(f"{SERIES}@{dose}") == f"{SERIES}@10"


def test_a_travel_on_a_page_shows_the_real_changes_of_the_treatments_page(study, monkeypatch):
    for module in ("runs.real_change", "travels.compute"):
        monkeypatch.setattr(f"phenolens.{module}.MOST_TREATED", 5)
        monkeypatch.setattr(f"phenolens.{module}.MOST_CONTROLS", 7)
    traveller = Traveller.open(study)
    rows = cells_of(traveller, SERIES, 1)
    ((change, _),) = traveller.measured_changes(TravelConfig(f"{SERIES}@1", frames=2, moved_cells=FEW_MOVED))
    assert (change.n_treated, change.n_controls) == (5, 7)
    of_page = RealChanges(traveller.catalogue, traveller.measured, crop_px=traveller.run.store.crop_px).between(rows)
    both = change.table.index.intersection(of_page.index)
    assert len(both) > 20
    pd.testing.assert_series_equal(change.table.loc[both, "real"], of_page.loc[both, "real"])
