"""Batches hold each treatment equally often, never a noise crop, and depend on seed and step alone."""

import numpy as np
import pandas as pd
import pytest

from phenolens.training.sampling import TreatmentSampler, sampled_treatments


@pytest.fixture
def treatments() -> pd.Series:
    """A hundred DMSO cells, three of drug a, one of drug b, and two that must not be drawn."""
    return pd.Series(["DMSO@0"] * 100 + ["a@1"] * 3 + ["b@1"] + [None] * 2)


def test_by_default_a_batch_is_one_cell_of_each_treatment_and_one_control(treatments):
    rows = TreatmentSampler(treatments, batch_size=None, seed=0).draw(7, batches=2)
    assert rows.shape == (2, 3)
    assert [sorted(treatments[batch]) for batch in rows] == [["DMSO@0", "a@1", "b@1"]] * 2


def test_a_larger_batch_takes_each_treatment_before_any_comes_again(treatments):
    sampler = TreatmentSampler(treatments, batch_size=7, seed=0)
    counts = treatments[sampler.draw(0, batches=1)[0]].value_counts()
    assert sorted(counts) == [2, 2, 3]


def test_a_smaller_batch_draws_treatments_evenly_in_the_long_run(treatments):
    sampler = TreatmentSampler(treatments, batch_size=1, seed=0)
    drawn = treatments[np.concatenate([sampler.draw(step, batches=1)[0] for step in range(3000)])].value_counts()
    np.testing.assert_allclose(drawn / 3000, 1 / 3, atol=0.03)


def test_noise_crops_are_never_drawn():
    cells = pd.DataFrame(
        {"compound": ["a", "a", "b"], "concentration_um": [1.0, 1.0, 2.0], "is_noise": [False, True, False]}
    )
    sampler = TreatmentSampler(sampled_treatments(cells), batch_size=50, seed=1)
    assert set(sampler.draw(0, batches=4).ravel()) == {0, 2}


def test_the_same_step_draws_the_same_cells_and_the_next_step_others(treatments):
    first, again = (TreatmentSampler(treatments, batch_size=64, seed=5) for _ in range(2))
    np.testing.assert_array_equal(first.draw(3, batches=2), again.draw(3, batches=2))
    assert (first.draw(3, batches=2) != first.draw(4, batches=2)).any()
    one, two = first.draw(3, batches=2)
    assert (one != two).any()


def test_cells_within_a_treatment_are_drawn_evenly(treatments):
    sampler = TreatmentSampler(treatments, batch_size=None, seed=2)
    rows = np.concatenate([sampler.draw(step, batches=1)[0] for step in range(3000)])
    of_a = pd.Series(rows[(rows >= 100) & (rows < 103)]).value_counts() / 3000
    np.testing.assert_allclose(of_a, 1 / 3, atol=0.03)


def test_a_spread_sample_takes_rare_treatments_whole_and_no_cell_twice(treatments):
    rows = TreatmentSampler(treatments, batch_size=None, seed=0).spread(10)
    assert len(set(rows)) == 10
    assert set(range(100, 104)) <= set(rows)
