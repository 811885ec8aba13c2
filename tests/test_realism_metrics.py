"""Distances of drawn cells from real ones: known answers, a literal twin of each, and the order of things."""

import numpy as np
import pandas as pd
import pytest
from scipy.linalg import sqrtm

from phenolens.core.errors import InputError
from phenolens.image_realism import metrics
from phenolens.image_realism.metrics import frechet_distance, kernel_distance, precision_recall
from phenolens.morphology.two_sample_test import FURTHEST, Scale, standardised


def correlated(rng, n, d=6):
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d))


# Fréchet distance


def test_cells_are_at_no_frechet_distance_from_themselves_in_another_order(rng):
    cells = correlated(rng, 200)
    assert frechet_distance(cells, cells[::-1]) == pytest.approx(0, abs=1e-9)


def test_a_shift_of_all_cells_is_its_squared_length_away(rng):
    cells = correlated(rng, 200)
    assert frechet_distance(cells, cells + np.array([3, 0, 4, 0, 0, 0])) == pytest.approx(25)


def test_cells_that_spread_twice_as_far_are_their_variance_away(rng):
    cells = correlated(rng, 200)
    centred = cells - cells.mean(0)  # the roots of covariances V and 4 V differ by the root of V
    assert frechet_distance(centred, 2 * centred) == pytest.approx(np.trace(np.cov(cells.T)))


def test_the_frechet_distance_is_that_of_its_formula_with_a_matrix_root(rng):
    a, b = correlated(rng, 60), correlated(rng, 90) + 0.7
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    literal = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)
    assert frechet_distance(a, b) == pytest.approx(literal, rel=1e-6)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b))


def test_a_covariance_of_too_few_cells_gives_no_frechet_distance(rng):
    assert np.isnan(frechet_distance(correlated(rng, 6), correlated(rng, 50)))
    assert np.isfinite(frechet_distance(correlated(rng, 7), correlated(rng, 50)))


# kernel distance


def literal_kernel_distance(a, b):
    def kernel(x, y):
        return (x @ y / len(x) + 1) ** 3

    same_a = [kernel(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j]
    same_b = [kernel(x, y) for i, x in enumerate(b) for j, y in enumerate(b) if i != j]
    return np.mean(same_a) + np.mean(same_b) - 2 * np.mean([kernel(x, y) for x in a for y in b])


def test_two_heaps_of_equal_cells_are_as_far_as_the_kernel_says():
    a, b = np.tile([1.0, 1.0], (5, 1)), np.tile([0.0, 2.0], (4, 1))
    # (2/2 + 1)^3 + (4/2 + 1)^3 - 2 (2/2 + 1)^3
    assert kernel_distance(a, b) == pytest.approx(8 + 27 - 16)


def test_the_kernel_distance_is_the_mean_over_all_pairs_whatever_is_computed_at_a_time(rng, monkeypatch):
    a, b = correlated(rng, 23), correlated(rng, 17) + 0.3
    whole = kernel_distance(a, b)
    assert whole == pytest.approx(literal_kernel_distance(a, b))
    monkeypatch.setattr(metrics, "ROWS_AT_A_TIME", 5)
    assert kernel_distance(a, b) == pytest.approx(whole)


def test_the_kernel_distance_of_cells_of_one_kind_is_zero_on_average_with_few_cells_too(rng):
    draws = [kernel_distance(*rng.normal(size=(2, 10, 4))) for _ in range(400)]
    assert abs(np.mean(draws)) < 3 * np.std(draws) / 20  # 20: root of 400
    assert np.min(draws) < 0 < np.max(draws)
    assert np.isnan(kernel_distance(np.ones((1, 4)), np.ones((9, 4))))


# precision and recall


def literal_share_among(points, cloud, k):
    inside = 0
    for x in points:
        for i, y in enumerate(cloud):
            others = sorted(np.linalg.norm(y - z) for j, z in enumerate(cloud) if j != i)
            if np.linalg.norm(x - y) <= others[k - 1]:
                inside += 1
                break
    return inside / len(points)


def test_drawn_cells_that_are_the_real_ones_have_all_precision_and_recall(rng):
    cells = rng.normal(size=(50, 3))
    assert precision_recall(cells, cells) == (1, 1)


def test_drawn_cells_far_from_all_real_ones_have_neither(rng):
    cells = rng.normal(size=(50, 3))
    assert precision_recall(cells, cells + 100) == (0, 0)


def test_one_real_cell_drawn_again_and_again_is_precise_and_recalls_little(rng):
    cells = rng.normal(size=(200, 3))
    precision, recall = precision_recall(cells, cells[:1] + 1e-6 * rng.normal(size=(200, 3)))
    assert precision == 1
    assert recall <= 1 / 200


def test_drawn_cells_of_every_kind_and_more_recall_all_and_are_half_precise(rng):
    real = rng.normal(size=(200, 2))
    precision, recall = precision_recall(real, np.concatenate([real, real + 50]))
    assert (precision, recall) == (0.5, 1)


def test_precision_and_recall_are_those_of_their_definition_whatever_is_computed_at_a_time(rng, monkeypatch):
    real, drawn = rng.normal(size=(31, 3)), rng.normal(size=(22, 3)) * 0.8 + 0.5
    expected = literal_share_among(drawn, real, 3), literal_share_among(real, drawn, 3)
    assert precision_recall(real, drawn) == expected
    assert 0 < expected[0] < 1
    assert 0 < expected[1] < 1
    monkeypatch.setattr(metrics, "ROWS_AT_A_TIME", 4)
    assert precision_recall(real, drawn) == expected


def test_three_cells_have_no_third_neighbour(rng):
    assert np.isnan(precision_recall(rng.normal(size=(3, 2)), rng.normal(size=(9, 2)))).all()


# the scale


def test_real_cells_on_their_own_scale_have_mean_zero_and_deviation_one(rng):
    real = pd.DataFrame(correlated(rng, 80, 3) + 7, columns=list("abc"))
    values = standardised(real, Scale.of(real))
    np.testing.assert_allclose(values.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(values.std(0, ddof=1), 1)


def test_a_measure_that_is_constant_or_often_missing_does_not_count():
    n = np.arange(20.0)
    real = pd.DataFrame(
        {"a": n, "same": 5.0, "seldom": np.where(n < 3, np.nan, n), "mostly": np.where(n < 2, np.inf, n)}
    )
    assert Scale.of(real).names == ("a", "mostly")
    with pytest.raises(InputError, match="20 real cells"):
        Scale.of(real[["same"]])


def test_one_odd_cell_does_not_rule_a_distance_and_what_is_not_measured_stays_so():
    real = pd.DataFrame({"a": np.arange(20.0)})
    odd = standardised(pd.DataFrame({"a": [1e9, -1e9, np.nan, np.inf, 9.5]}), Scale.of(real))
    np.testing.assert_allclose(odd[:, 0], [FURTHEST, -FURTHEST, np.nan, np.nan, 0])
