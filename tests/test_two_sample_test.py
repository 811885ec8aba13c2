"""Telling drawn cells from real ones on unseen plates: chance where there is no difference, all where there is."""

import numpy as np
import pytest

from phenolens.morphology.two_sample_test import area_under_curve, two_sample_test


def told_apart(real, drawn, *, n_plates=3, plates=None, wells=None, seed=0):
    def of(cells, given, n):
        return np.arange(len(cells)) % n if given is None else given

    return two_sample_test(
        real,
        drawn,
        real_plates=of(real, plates, n_plates),
        decoded_plates=of(drawn, plates, n_plates),
        real_wells=of(real, wells, 12),
        decoded_wells=of(drawn, wells, 12),
        seed=seed,
    )


def test_cells_of_one_kind_cannot_be_told_apart(rng):
    test = told_apart(*rng.normal(size=(2, 300, 4)))
    assert test.accuracy_interval[0] < 0.5 < test.accuracy_interval[1]
    assert test.auc_interval[0] < 0.5 < test.auc_interval[1]
    assert test.n_folds == 3


def test_cells_far_apart_are_always_told_apart(rng):
    real = rng.normal(size=(100, 4))
    test = told_apart(real, real + 10)
    assert (test.accuracy, test.auc, test.accuracy_interval) == (1, 1, (1, 1))


def test_a_difference_is_found_as_often_as_the_best_rule_finds_it(rng):
    real, drawn = rng.normal(size=(2, 1500, 1))
    test = told_apart(real, drawn + 2)  # the best rule cuts halfway: right with probability Phi(1) = 0.841
    assert test.accuracy == pytest.approx(0.841, abs=0.025)
    assert test.auc == pytest.approx(0.921, abs=0.025)  # Phi(2 / root of 2)
    assert test.accuracy_interval[0] < 0.841 < test.accuracy_interval[1]


def test_a_difference_in_form_alone_is_found(rng):
    """Two measures that go together in real cells and against each other in drawn ones: no mean differs."""
    along = rng.normal(size=(2, 400, 1)) * 2
    across = rng.normal(size=(2, 400, 1)) * 0.2
    assert (
        told_apart(np.hstack([along[0], along[0] + across[0]]), np.hstack([along[1], across[1] - along[1]])).auc > 0.9
    )


def test_what_differs_on_one_plate_only_is_of_no_use_on_the_others(rng):
    """A classifier that saw the plates it is asked about would tell these apart: each plate has its own mark."""
    plates = np.repeat([0, 1], 150)
    real, drawn = rng.normal(size=(2, 300, 1))
    sign = np.where(plates == 0, 1, -1)[:, None]
    test = told_apart(real, drawn + 6 * sign, plates=plates)
    assert test.n_folds == 2
    assert test.accuracy < 0.55


def test_what_is_not_measured_tells_cells_apart_too(rng):
    real, drawn = rng.normal(size=(2, 120, 2))
    drawn[:, 1] = np.nan
    assert told_apart(real, drawn).accuracy == 1


def test_wells_that_say_the_same_many_times_over_make_no_interval_narrower(rng):
    centres = rng.normal(size=(2, 12, 1)) * np.ones((1, 1, 2))
    wells = np.repeat(np.arange(12), 20)
    real, drawn = (side[wells] + 0.01 * rng.normal(size=(240, 2)) for side in centres)
    of_wells = told_apart(real, drawn, plates=wells % 3, wells=wells).accuracy_interval
    of_cells = told_apart(real, drawn, plates=wells % 3, wells=np.arange(240)).accuracy_interval
    assert of_wells[1] - of_wells[0] > 2 * (of_cells[1] - of_cells[0])


def test_one_plate_cannot_be_held_out_and_few_cells_cannot_be_learnt_from(rng):
    assert np.isnan(told_apart(*rng.normal(size=(2, 100, 2)), n_plates=1).accuracy)
    assert np.isnan(told_apart(*rng.normal(size=(2, 12, 2))).auc)


def test_the_same_seed_gives_the_same_numbers(rng):
    cells = rng.normal(size=(2, 100, 2))
    assert told_apart(*cells) == told_apart(*cells)


def test_the_area_under_the_curve_is_the_share_of_pairs_in_the_right_order(rng):
    scores, is_decoded = rng.integers(6, size=40).astype(float), rng.random(40) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[is_decoded] for b in scores[~is_decoded]]
    assert area_under_curve(scores, is_decoded) == pytest.approx(np.mean(pairs))
    assert np.isnan(area_under_curve(scores, np.zeros(40, bool)))
