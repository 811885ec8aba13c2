"""Batches hold each treatment equally often, never a noise crop, and depend on seed and step alone."""

import numpy as np
import pandas as pd
import pytest

from phenolens.training.data import TreatmentSampler, held_out_cells, sampled_treatments


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


def test_paired_batches_hold_other_cells_of_the_same_treatments(treatments):
    sampler = TreatmentSampler(treatments, batch_size=2, seed=5, paired=True)
    drawn = [sampler.draw(step, batches=2) for step in range(50)]
    assert all(list(treatments[one]) == list(treatments[two]) for one, two in drawn)
    assert any((one != two).all() for one, two in drawn)
    assert len({tuple(treatments[one]) for one, _ in drawn}) > 3


def test_cells_within_a_treatment_are_drawn_evenly(treatments):
    sampler = TreatmentSampler(treatments, batch_size=None, seed=2)
    rows = np.concatenate([sampler.draw(step, batches=1)[0] for step in range(3000)])
    of_a = pd.Series(rows[(rows >= 100) & (rows < 103)]).value_counts() / 3000
    np.testing.assert_allclose(of_a, 1 / 3, atol=0.03)


def test_a_spread_sample_takes_rare_treatments_whole_and_no_cell_twice(treatments):
    rows = TreatmentSampler(treatments, batch_size=None, seed=0).spread(10)
    assert len(set(rows)) == 10
    assert set(range(100, 104)) <= set(rows)


def screen_of_wells(wells_a_treatment: int) -> pd.DataFrame:
    """Ten treatments in as many wells each as asked, five cells per well."""
    wells = [f"B{i:02d}" for i in range(10 * wells_a_treatment)]
    of_well = {"plate": "p", "compound": [f"c{i % 10}" for i in range(len(wells))], "well": wells}
    return pd.DataFrame(of_well).loc[lambda t: t.index.repeat(5)].assign(concentration_um=1.0, is_noise=False)


def test_held_out_are_whole_wells_of_the_asked_share_and_no_treatment_loses_its_last_well():
    cells = screen_of_wells(3)
    held = held_out_cells(cells, share=0.2, seed=0)
    of_well = pd.Series(held).groupby(cells["well"].to_numpy()).mean()
    assert set(of_well) == {0.0, 1.0}
    assert of_well.sum() == 6
    all_but_one = held_out_cells(cells, share=0.9, seed=0)
    assert sampled_treatments(cells, held_out=all_but_one).nunique() == 10
    assert not held_out_cells(screen_of_wells(1), share=0.5, seed=0).any()


def test_held_out_wells_depend_on_the_seed_and_share_zero_holds_out_none():
    cells = screen_of_wells(3)
    one, again, other = (held_out_cells(cells, share=0.3, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    assert not held_out_cells(cells, share=0.0, seed=0).any()


def test_cells_of_held_out_wells_are_never_drawn():
    cells = screen_of_wells(3).reset_index(drop=True)
    held = held_out_cells(cells, share=0.4, seed=3)
    sampler = TreatmentSampler(sampled_treatments(cells, held_out=held), batch_size=200, seed=1)
    assert not held[sampler.draw(0, batches=2).ravel()].any()
