"""k medoids: planted populations first, then every choice tried by brute force."""

from itertools import combinations

import numpy as np
import pytest

from phenolens.core.errors import InputError
from phenolens.morphology import medoids as module
from phenolens.morphology.medoids import distances, medoids


def three_kinds(rng, n=(30, 20, 10)):
    """Cells of three populations far apart, and which each is of."""
    centres = np.array([[0.0, 0, 0], [20, 0, 0], [0, 20, 5]])
    kinds = np.repeat([0, 1, 2], n)
    order = rng.permutation(len(kinds))
    return (centres[kinds] + rng.normal(size=(len(kinds), 3)))[order], kinds[order]


def test_planted_populations_are_found_with_their_shares_the_largest_first(rng):
    z, kinds = three_kinds(rng)
    found = medoids(z, 3)
    np.testing.assert_array_equal(found.population, kinds)
    np.testing.assert_allclose(found.shares, [30 / 60, 20 / 60, 10 / 60])
    np.testing.assert_array_equal(kinds[found.rows], [0, 1, 2])


def test_the_mean_of_two_populations_is_near_neither_and_medoids_are(rng):
    z, kinds = three_kinds(rng, (26, 24, 0))
    middle = np.linalg.norm(z - z.mean(axis=0), axis=1).min()
    to_own = np.linalg.norm(z - z[medoids(z, 2).rows[kinds]], axis=1)
    assert to_own.max() < middle


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_no_other_choice_of_cells_is_better(rng, k):
    z = rng.normal(size=(12, 4))
    away = np.linalg.norm(z[:, None] - z, axis=2)
    best = min(away[:, list(chosen)].min(axis=1).mean() for chosen in combinations(range(12), k))
    assert medoids(z, k).mean_distance == pytest.approx(best, rel=1e-9)


def test_every_cell_belongs_to_the_medoid_nearest_to_it(rng):
    z = rng.normal(size=(80, 5))
    found = medoids(z, 4)
    away = np.linalg.norm(z[:, None] - z[found.rows], axis=2)
    np.testing.assert_array_equal(found.population, away.argmin(axis=1))
    np.testing.assert_allclose(found.shares, np.bincount(found.population) / 80)
    assert (np.diff(found.shares) <= 0).all()


def test_one_medoid_is_the_cell_with_the_least_sum_of_distances(rng):
    z = rng.normal(size=(40, 3))
    found = medoids(z, 1)
    assert found.rows[0] == np.linalg.norm(z[:, None] - z, axis=2).sum(axis=0).argmin()
    np.testing.assert_array_equal(found.shares, [1.0])


def test_of_many_cells_some_are_searched_and_all_are_counted(rng, monkeypatch):
    monkeypatch.setattr(module, "MOST_CELLS", 40)
    z, kinds = three_kinds(rng)
    found = medoids(z, 3, seed=1)
    np.testing.assert_array_equal(found.population, kinds)
    np.testing.assert_array_equal(found.rows, medoids(z, 3, seed=1).rows)


def test_more_medoids_than_different_cells_are_refused():
    with pytest.raises(InputError, match="2 different cells: expected at least 3"):
        medoids(np.array([[0.0], [1.0], [1.0]]), 3)
    with pytest.raises(InputError, match="at least 1"):
        medoids(np.zeros((3, 1)), 0)
    with pytest.raises(InputError, match="expected finite values"):
        medoids(np.array([[0.0], [np.nan]]), 1)


def test_distances_are_those_of_the_definition(rng):
    a, b = rng.normal(size=(5, 7)), rng.normal(size=(6, 7))
    np.testing.assert_allclose(distances(a, b), np.linalg.norm(a[:, None] - b, axis=2), atol=1e-12)
