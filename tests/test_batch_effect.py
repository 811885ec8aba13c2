"""Batch or biology: directions of which it is known how much is a batch difference."""

import re

import numpy as np
import pytest

from phenolens.core.errors import InputError
from phenolens.travels.batch_effect import batch_space


def controls(rng: np.random.Generator, offsets: np.ndarray, *, n: int = 400, spread: np.ndarray | float = 1.0):
    """Control cells (b n, Z) whose batches are moved by these offsets (b, Z), and the batch of each."""
    z = np.concatenate([offset + spread * rng.normal(size=(n, len(offset))) for offset in offsets])
    return z, np.repeat([f"week {k}" for k in range(len(offsets))], n)


def share_in_batch_space(direction, z, batches):
    return batch_space(z, batches).share(direction)


def test_a_pure_batch_difference_is_one_and_what_is_across_it_is_none(rng):
    offsets = np.zeros((2, 20))
    offsets[1, :2] = [300, 400]
    z, batch = controls(rng, offsets)
    along, across = np.eye(20)[0] * 3 + np.eye(20)[1] * 4, np.eye(20)[0] * 4 - np.eye(20)[1] * 3
    assert share_in_batch_space(along, z, batch).share == pytest.approx(1, abs=1e-3)
    assert share_in_batch_space(-1e-200 * along, z, batch).share == pytest.approx(1, abs=1e-3)
    assert share_in_batch_space(across, z, batch).share == pytest.approx(0, abs=1e-3)
    # a direction of which a quarter of the squared length is the batch's: 1 along, sqrt(3) across, both of length 1
    mixed = along / 5 + np.sqrt(3) * across / 5
    found = share_in_batch_space(mixed, z, batch)
    assert found.share == pytest.approx(0.25, abs=0.02)
    assert not found.is_batch
    assert share_in_batch_space(along, z, batch).is_batch


def test_chance_is_what_random_directions_have(rng):
    z, batch = controls(rng, 3 * rng.normal(size=(4, 50)))
    space = batch_space(z, batch)
    assert space.basis.shape == (3, 50)
    assert space.chance == pytest.approx(3 / 50, rel=0.1)
    random = [space.share(direction).share for direction in rng.normal(size=(2000, 50))]
    assert np.mean(random) == pytest.approx(space.chance, rel=0.1)


def test_lengths_are_counted_in_deviations_of_control_cells(rng):
    spread = np.ones(30)
    spread[0] = 10
    offsets = np.zeros((2, 30))
    offsets[1, 0] = 400
    z, batch = controls(rng, offsets, n=20_000, spread=spread)
    space = batch_space(z, batch)
    # ten times as long along the first feature, in which cells vary ten times as much: half of it, not 100 of 101
    direction = np.zeros(30)
    direction[:2] = [10, 1]
    assert space.share(direction).share == pytest.approx(0.5, abs=0.02)
    assert space.chance == pytest.approx(1 / 30, rel=0.1)


def test_a_feature_that_no_cell_uses_changes_little(rng):
    z, batch = controls(rng, 5 * rng.normal(size=(3, 8)))
    direction = rng.normal(size=8)
    unused = share_in_batch_space(np.append(direction, 0.0), np.column_stack([z, np.zeros(len(z))]), batch)
    assert unused.share == pytest.approx(share_in_batch_space(direction, z, batch).share, abs=0.05)


def test_the_share_of_a_direction_does_not_depend_on_the_order_or_number_of_cells_of_a_batch(rng):
    z, batch = controls(rng, 5 * rng.normal(size=(3, 8)))
    direction = rng.normal(size=8)
    order = rng.permutation(len(z))
    whole = share_in_batch_space(direction, z, batch).share
    assert share_in_batch_space(direction, z[order], batch[order]).share == pytest.approx(whole, rel=1e-9)
    # counted twice, cells of one batch weigh more in the covariance alone
    twice = np.concatenate([z, z[:400]]), np.concatenate([batch, batch[:400]])
    assert share_in_batch_space(direction, *twice).share == pytest.approx(whole, rel=0.05)


def test_a_share_is_said_in_words_with_its_chance(rng):
    offsets = np.zeros((2, 20))
    offsets[1, 0] = 500
    z, batch = controls(rng, offsets)
    direction = np.zeros(20)
    direction[:2] = [1, 2]
    mixed = share_in_batch_space(direction, z, batch).sentence()
    assert re.findall(r"\d+ %", mixed) == ["20 %", "5 %"]
    alone = share_in_batch_space(offsets[1], z, batch).sentence()
    assert re.findall(r"\d+ %", alone) == ["100 %", "5 %"]
    assert "mostly a batch effect; do not read it as the treatment's" in alone
    assert "batch effect" not in mixed


def test_what_has_no_batch_space_is_told(rng):
    z, batch = controls(rng, np.zeros((2, 5)))
    with pytest.raises(InputError, match="do not differ within a batch"):
        batch_space(z[[0, 400]], batch[[0, 400]])
    with pytest.raises(InputError, match="expected finite values"):
        batch_space(np.full_like(z, np.nan), batch)
