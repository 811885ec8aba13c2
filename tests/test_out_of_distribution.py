"""When a frame leaves the data: frames planted inside and outside of a cloud of cells."""

import numpy as np
import pytest

from phenolens.core.errors import InputError
from phenolens.travels.out_of_distribution import fit_limits, frame_scores, nearest_cells


def on_a_plane(z):
    """A model that can draw the first two features alone."""
    return z * np.array([1.0, 1.0, 0.0])


@pytest.fixture
def cells(rng):
    """A cloud of cells near a plane, a little off it."""
    return rng.normal(size=(500, 3)) * [1.0, 1.0, 0.05]


def test_a_frame_among_the_cells_is_inside_and_one_far_away_outside(cells):
    limits = fit_limits(cells, lambda rows: on_a_plane(cells[rows]))
    frames = np.array([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
    scores = frame_scores(limits, frames, on_a_plane(frames))
    assert [bool(flag) for flag in scores.flags] == [False, True, True]
    assert scores.flags[0] == ""
    assert "as far from the nearest cells of the screen as 99 %" in scores.flags[1]
    assert "moves" not in scores.flags[1]  # the model can draw it: only the cells are far away
    assert "embedded again it moves" in scores.flags[2]


def test_by_its_making_one_real_cell_in_a_hundred_is_beyond_each_limit(cells):
    limits = fit_limits(cells, lambda rows: on_a_plane(cells[rows]), sample=len(cells))
    away = np.sort(np.linalg.norm(cells[:, None] - cells, axis=2), axis=1)[:, 1:6].mean(axis=1)  # of its 5 nearest
    assert (away > limits.far).mean() == pytest.approx(0.01)
    assert (np.abs(cells[:, 2]) > limits.moved).mean() == pytest.approx(0.01)


def test_a_ratio_of_two_is_twice_the_limit(cells):
    limits = fit_limits(cells, lambda rows: on_a_plane(cells[rows]))
    frames = np.array([[0.0, 0.0, 2 * limits.moved]])
    assert frame_scores(limits, frames, on_a_plane(frames)).moved[0] == pytest.approx(2)
    nearest_five = np.sort(np.linalg.norm(cells - [7.0, 0, 0], axis=1))[:5].mean()
    frames = np.array([[7.0, 0.0, 0.0]])
    assert frame_scores(limits, frames, on_a_plane(frames)).far[0] == pytest.approx(nearest_five / limits.far)


def test_a_model_that_draws_everything_truly_flags_whatever_moves_at_all(cells):
    limits = fit_limits(cells, lambda rows: cells[rows])
    frames = cells[:2]
    assert limits.moved == 0
    assert "moves inf times" in frame_scores(limits, frames, frames + np.array([[0, 0, 0], [0, 0, 1]])).flags[1]
    np.testing.assert_array_equal(frame_scores(limits, frames, frames).moved, [0, 0])


def test_the_nearest_cells_are_those_of_the_definition(cells, rng):
    z = rng.normal(size=(7, 3))
    rows, away = nearest_cells(z, cells, 4)
    full = np.linalg.norm(z[:, None] - cells, axis=2)
    np.testing.assert_array_equal(rows, np.argsort(full, axis=1)[:, :4])
    np.testing.assert_allclose(away, np.sort(full, axis=1)[:, :4], atol=1e-9)


def test_too_few_cells_set_no_limit(cells):
    with pytest.raises(InputError, match="5 cells: expected more than 5"):
        fit_limits(cells[:5], on_a_plane)
    with pytest.raises(InputError, match="finite"):
        fit_limits(np.full((9, 2), np.nan), on_a_plane)
