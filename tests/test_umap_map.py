"""Embeddings on a plane: main directions against the slow definition, UMAP keeps apart what is apart."""

import sys

import numpy as np
import pytest

from phenolens.core.errors import InputError
from phenolens.web.umap_map import fit_pca, pca_places, umap_places


def test_points_on_a_line_lie_in_their_order_and_the_line_holds_all_the_variance():
    along = np.array([3.0, -1.0, 0.0, 7.0])
    pca = fit_pca(np.outer(along, [0, 2, 0, 1]) + 5)
    assert pca.explained_variance_ratio_ == pytest.approx((1, 0))
    np.testing.assert_allclose(
        pca_places(pca, np.outer(along, [0, 2, 0, 1]) + 5)[:, 0], (along - 2.25) * 5**0.5, rtol=1e-5
    )


def test_places_are_those_of_the_singular_value_decomposition(rng):
    rows = rng.normal(size=(60, 7)) * [5, 1, 1, 3, 1, 1, 1] + 10
    u, s, vt = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    signs = [np.sign(axis[np.abs(axis).argmax()]) for axis in vt[:2]]
    np.testing.assert_allclose(pca_places(fit_pca(rows), rows), u[:, :2] * s[:2] * signs, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(fit_pca(rows).explained_variance_ratio_, (s**2 / (s**2).sum())[:2], rtol=1e-9)


def test_a_map_never_flips(rng):
    rows = rng.normal(size=(30, 4)) * [4, 2, 1, 1]
    np.testing.assert_allclose(fit_pca(rows).components_, fit_pca(rows[::-1]).components_, atol=1e-9)


def test_one_feature_has_a_plane_too():
    pca = fit_pca(np.array([[1.0], [2.0], [4.0]]))
    assert pca.explained_variance_ratio_ == pytest.approx([1])
    assert pca_places(pca, np.array([[1.0], [4.0]]))[:, 1].tolist() == [0, 0]


@pytest.mark.parametrize("rows", [np.zeros((2, 3)), np.zeros(5), np.full((4, 2), np.nan), np.ones((9, 3))])
def test_rows_without_a_direction_are_refused_in_words(rows):
    with pytest.raises(InputError, match=r"expected finite values|no direction"):
        fit_pca(rows)


@pytest.mark.slow
def test_umap_keeps_groups_apart_and_is_the_same_again(rng):
    group = np.repeat([0, 1, 2], 20)
    rows = rng.normal(size=(60, 5)) + 40 * np.eye(3, 5)[group]
    places = umap_places(rows, metric="euclidean")
    away = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(away, np.inf)
    np.testing.assert_array_equal(group[away.argmin(axis=1)], group)
    np.testing.assert_array_equal(umap_places(rows, metric="euclidean"), places)


def test_umap_that_is_not_installed_is_named_with_its_install_line(monkeypatch, rng):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(InputError, match=r'umap is not installed; UMAP needs: pip install "phenolens\[umap\]"'):
        umap_places(rng.normal(size=(9, 3)), metric="cosine")
