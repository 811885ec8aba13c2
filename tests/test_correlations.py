"""Correlations of latent features with measures, variance shares between plates and treatments, traversals."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from phenolens.core.errors import InputError
from phenolens.latent_features.correlations import between_groups, correlations, false_discovery_rates, traversal


def naive_share(z, groups):
    """Eta squared of each column, group by group."""
    total = ((z - z.mean(axis=0)) ** 2).sum(axis=0)
    between = sum(
        (groups == name).sum() * (z[groups == name].mean(axis=0) - z.mean(axis=0)) ** 2 for name in set(groups)
    )
    return between / total


@pytest.fixture
def cells(rng):
    """240 cells in 24 wells of 4 plates; Z0 differs between plates, Z1 between wells only, Z2 in nothing."""
    wells = np.repeat(np.arange(24), 10)
    plates = wells // 6
    z = rng.normal(size=(240, 3))
    z[:, 0] += 3 * plates
    z[:, 1] += 2 * rng.normal(size=24)[wells]
    return z, wells, plates


def test_a_monotonic_function_of_a_measure_correlates_by_one_and_a_falling_one_by_minus_one(rng):
    area = rng.uniform(1, 9, 60)
    found = correlations(np.stack([area**3, -np.log(area), rng.normal(size=60)], axis=1), pd.DataFrame({"area": area}))
    np.testing.assert_allclose(found.rho[:2, 0], [1, -1], atol=1e-12)
    assert abs(found.rho[2, 0]) < 0.4
    assert found.q[0, 0] < 1e-10 < found.q[2, 0]


def test_correlations_are_scipys_pair_by_pair_over_the_cells_where_the_measure_was_measured(rng):
    z = rng.normal(size=(50, 4)).round(1)  # ties
    measured = pd.DataFrame({"a": z[:, 0] + rng.normal(size=50), "b": rng.integers(3, size=50).astype(float)})
    measured.loc[::3, "a"] = np.nan
    found = correlations(z, measured)
    assert found.n.tolist() == [33, 50]
    for i in range(4):
        for j, name in enumerate(measured):
            there = measured[name].notna()
            expected = stats.spearmanr(z[there, i], measured[name][there])
            np.testing.assert_allclose([found.rho[i, j], found.p[i, j]], [*expected], atol=1e-10)


def test_the_false_discovery_rate_is_benjamini_and_hochbergs():
    p = np.array([[0.01, 0.04], [0.03, np.nan]])
    np.testing.assert_allclose(
        false_discovery_rates(p), [[0.03, 0.04], [0.04, np.nan]]
    )  # 3 tests: 3 p / rank, monotonic


def test_what_does_not_vary_or_was_hardly_measured_has_no_correlation(rng):
    measured = pd.DataFrame({"constant": np.ones(30), "rare": [1.0, 2.0, 3.0, *[np.nan] * 27], "fine": np.arange(30.0)})
    found = correlations(np.stack([rng.normal(size=30), np.ones(30)], axis=1), measured)
    assert np.isnan(found.rho).tolist() == [[True, True, False], [True, True, True]]
    assert np.isnan(found.q).tolist() == np.isnan(found.rho).tolist()


def test_a_feature_that_differs_between_plates_is_found_and_one_that_differs_between_wells_alone_is_not(cells):
    z, wells, plates = cells
    found = between_groups(z, wells=wells, groups=plates, n_shuffles=199, seed=0)
    np.testing.assert_allclose(found.share, naive_share(z, plates))
    assert found.p[0] == 1 / 200
    assert found.share[0] - found.by_chance[0] > 0.7
    # shuffled cell by cell, differences of wells would look like differences of plates; well by well they do not
    assert found.share[1] > 3 * 3 / 239
    assert found.p[1] > 0.05
    assert found.p[2] > 0.05


def test_chance_is_the_mean_over_shuffles_of_whole_wells(cells):
    z, wells, plates = cells
    found = between_groups(z, wells=wells, groups=plates, n_shuffles=30, seed=7)
    random = np.random.default_rng(7)
    shares = []
    for _ in range(30):
        dealt = random.permutation(np.arange(24) // 6)
        shares.append(naive_share(z, dealt[wells]))
    np.testing.assert_allclose(found.by_chance, np.mean(shares, axis=0))
    np.testing.assert_allclose(found.p, ((np.array(shares) >= found.share).sum(axis=0) + 1) / 31)


def test_the_names_of_wells_and_groups_and_the_order_of_cells_do_not_matter(cells, rng):
    z, wells, plates = cells
    plain = between_groups(z, wells=wells, groups=plates, n_shuffles=20, seed=1)
    order = rng.permutation(len(z))
    named = between_groups(
        z[order],
        wells=np.array([f"w{well:02d}" for well in wells])[order],
        groups=np.array(["a", "b", "c", "d"])[plates][order],
        n_shuffles=20,
        seed=1,
    )
    np.testing.assert_allclose(named.share, plain.share)
    np.testing.assert_allclose(named.by_chance, plain.by_chance)


def test_one_group_or_a_well_a_group_cannot_be_tested(cells):
    z, wells, _ = cells
    assert between_groups(z, wells=wells, groups=np.zeros(240), n_shuffles=5, seed=0) is None
    assert between_groups(z, wells=wells, groups=wells, n_shuffles=5, seed=0) is None


def test_a_well_in_two_groups_is_refused(cells):
    z, wells, _ = cells
    with pytest.raises(InputError, match='well "0" is in two groups'):
        between_groups(z, wells=wells, groups=np.arange(240) % 2, n_shuffles=5, seed=0)


def test_a_constant_feature_has_no_share_between_groups(cells):
    z, wells, plates = cells
    found = between_groups(np.ones_like(z), wells=wells, groups=plates, n_shuffles=5, seed=0)
    assert found.share.tolist() == [0, 0, 0]


def test_a_traversal_moves_one_feature_and_leaves_the_others():
    moved = traversal(np.array([1.0, 2.0, 3.0]), 1, np.array([-1.0, 0.5]))
    assert moved.tolist() == [[1, -1, 3], [1, 0.5, 3]]
