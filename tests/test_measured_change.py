"""Own controls cancel batch effects; measured changes and their intervals by known answers; the population test."""

import numpy as np
import pandas as pd
import pytest

from phenolens.morphology.two_sample_test import LEAST_COMPARED, NOT_TESTED
from phenolens.runs.own_controls import own_controls
from phenolens.runs.real_change import without_squares
from phenolens.travels.measured_change import MeasuredChange, PopulationTest, change_table, population_test
from test_benchmarks import script


def cells_on(*plates):
    """A cell on each of these plates; the batch is the first letter."""
    return pd.DataFrame({"plate": plates, "batch": [plate[0] for plate in plates]}).astype("category")


def test_a_batch_effect_is_no_part_of_a_direction_however_unevenly_cells_lie_on_plates():
    """Plate b2 adds 100; treated cells differ from controls by 1. Most treated cells and few controls are on b2."""
    cells = cells_on(*["a1"] * 12, *["b2"] * 12)
    controls, treated = np.array([*range(10), 22, 23]), np.array([10, 11, *range(12, 22)])
    values = 100.0 * (cells["plate"] == "b2").to_numpy()
    values[treated] += 1
    own = own_controls(cells, controls, treated)
    assert values[treated].mean() - own.mean(values[own.rows]) == pytest.approx(1)
    assert values[treated].mean() - values[controls].mean() > 50
    np.testing.assert_array_equal(own.cells, controls)
    assert own.weights.sum() == pytest.approx(1)


def test_without_controls_on_a_plate_those_of_its_batch_and_without_these_all_are_compared():
    cells = cells_on("a1", "a2", "b1", "b1")
    controls = np.array([1, 3])
    assert own_controls(cells, controls, np.array([0])).cells.tolist() == [1]
    assert own_controls(cells, controls, np.array([2])).cells.tolist() == [3]
    assert own_controls(cells_on("a1", "b1", "c1"), np.array([1, 2]), np.array([0])).cells.tolist() == [1, 2]


def table_of(values, name="size"):
    return pd.DataFrame({name: values})


def changes(first, last, treated, controls, sd=2.0):
    cells = cells_on(*["a"] * (len(treated) + len(controls)))
    own = own_controls(cells, np.arange(len(controls)), len(controls) + np.arange(len(treated)))
    tables = map(table_of, (first, last, treated, controls))
    return change_table(*tables, own=own, control_sd=pd.Series({"size": sd}), seed=0).loc["size"]


def test_changes_are_mean_differences_in_deviations_with_the_interval_of_the_mean(rng):
    first, step, treated, controls = rng.normal(size=(4, 400))
    row = changes(first, first + 4 + step, treated + 3, controls)
    assert row["decoded"] == pytest.approx((4 + step.mean()) / 2)
    assert row["real"] == pytest.approx((3 + treated.mean() - controls.mean()) / 2)
    half = (row["decoded_high"] - row["decoded_low"]) / 2
    assert half == pytest.approx(1.96 * step.std() / 20 / 2, rel=0.1)
    half = (row["real_high"] - row["real_low"]) / 2
    assert half == pytest.approx(1.96 * np.hypot(treated.std(), controls.std()) / 20 / 2, rel=0.1)
    assert row["agrees"]
    assert not changes(first, first - 4, treated + 3, controls)["agrees"]


def test_cells_without_a_measure_are_left_out_and_few_cells_have_no_interval():
    many = np.arange(10.0)
    step = np.array([0.5, 1.5] + [np.nan] * 8)
    row = changes(many, many + 4 * step, many + 10, many)
    assert row["decoded"] == pytest.approx(2)
    assert np.isnan(row["decoded_low"])
    assert row["real_low"] < 5 < row["real_high"]
    unknown = changes(many, many * np.nan, many, many)
    assert pd.isna(unknown["agrees"])


def test_moved_cells_like_the_treated_ones_cannot_be_separated_and_others_can(rng):
    def cells(n, shift=0.0):
        return pd.DataFrame(rng.normal(size=(n, 4)) + shift)

    def wells(n):
        return np.array([f"p{i % 3}/w{i % 12}" for i in range(n)])

    alike = population_test(cells(200), cells(400), wells=(wells(200), wells(400)), seed=0)
    assert alike.n_cells == 200
    for test in (alike.moved, alike.real):
        assert test.auc == pytest.approx(0.5, abs=0.12)
    apart = population_test(cells(60, shift=9), cells(LEAST_COMPARED), wells=(wells(60), wells(LEAST_COMPARED)), seed=0)
    assert apart.n_cells == LEAST_COMPARED // 2
    assert apart.moved.accuracy == 1
    few = population_test(cells(60), cells(LEAST_COMPARED - 1), wells=(wells(60), wells(LEAST_COMPARED - 1)), seed=0)
    assert few.n_cells == 0
    assert np.isnan(few.moved.auc)
    assert few.sentence("real").endswith(
        "not compared by a classifier (too few cells: 60 moved and 59 treated; it needs 30 and 60)"
    )
    assert few.brief("real").startswith(
        "Untested: whether moved and treated cells look alike (too few cells: 60 moved and 59"
    )
    one_plate = np.array(["p/w"] * 60)
    assert "plates" in population_test(cells(60), cells(60), wells=(one_plate, one_plate), seed=0).reason


def test_the_outline_of_a_cell_that_fills_its_crop_is_left_out():
    table = pd.DataFrame({"cell_area_px": [30.0, 60.0], "cell_solidity": 0.9, "nucleus_area_px": 9.0})
    kept = without_squares(table, crop_px=8)
    assert kept["cell_solidity"].notna().tolist() == [True, False]
    assert kept["nucleus_area_px"].notna().all()


def test_a_contradiction_that_the_caption_does_not_mark_is_counted_by_the_benchmark():
    row = {"decoded": 1.0, "decoded_low": 0.5, "decoded_high": 1.5, "real": -2.0, "real_low": -3.0, "real_high": -1.0}
    table = pd.DataFrame({"nucleus_area_px": row}).T.assign(agrees=pd.array([False], dtype="boolean"))
    untested = PopulationTest(0, NOT_TESTED, NOT_TESTED, "few cells")
    change = MeasuredChange(table, n_moved=8, n_treated=9, n_controls=9, test=untested)
    counted = script("headlines").counted
    assert counted(change) == (1, 1, 0)

    class Silent(MeasuredChange):
        def sentences(self, n=5):
            return ["all is well"]

    assert counted(Silent(**vars(change))) == (1, 1, 1)
