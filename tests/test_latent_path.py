"""Phenotype travel: known answers first, then what must hold for any two cells."""

import numpy as np
import pytest

from phenolens.core.errors import InputError
from phenolens.runs.latent_path import (
    along_direction,
    decode_frames,
    feature_swap,
    row_cosines,
    straight_line,
    through,
)


def test_features_that_differ_most_are_copied_first_in_equal_shares_of_the_squared_difference():
    z0, z1 = np.array([1.0, 0.0, 0.0, 5.0, 0.0]), np.array([0.0, -2.0, 1.0, 5.0, 1.0])
    travel = feature_swap(z0, z1, 3)  # squares 1 4 1 0 1: half of 7 is 3.5, met by feature 1 alone
    np.testing.assert_array_equal(travel.embeddings, [[1, 0, 0, 5, 0], [1, -2, 0, 5, 0], [0, -2, 1, 5, 1]])
    np.testing.assert_array_equal(travel.n_copied, [0, 1, 5])


def test_equal_differences_are_shared_out_evenly_and_in_their_own_order():
    travel = feature_swap(np.zeros(6), np.full(6, 0.1), 4)
    np.testing.assert_array_equal(travel.n_copied, [0, 2, 4, 6])
    np.testing.assert_array_equal(travel.embeddings[1], [0.1, 0.1, 0, 0, 0, 0])
    # the sum of nine 0.01 is rounded: a third of it must still be three of them
    np.testing.assert_array_equal(feature_swap(np.zeros(9), np.full(9, 0.1), 4).n_copied, [0, 3, 6, 9])


def test_one_feature_that_holds_several_shares_makes_neighbouring_frames_equal():
    travel = feature_swap(np.zeros(2), np.array([0.1, 10.0]), 4)
    np.testing.assert_array_equal(travel.embeddings, [[0, 0], [0, 10], [0, 10], [0.1, 10]])


@pytest.mark.parametrize("way", [feature_swap, straight_line])
def test_every_way_starts_at_the_start_and_ends_at_the_target_exactly(way, rng):
    z0, z1 = rng.normal(size=(2, 256))
    travel = way(z0, z1, 9)
    np.testing.assert_array_equal(travel.embeddings[0], z0)
    np.testing.assert_array_equal(travel.embeddings[-1], z1)
    assert travel.cosines[-1] == pytest.approx(1, abs=1e-12)
    assert travel.cosines[0] == pytest.approx(z0 @ z1 / np.sqrt(z0 @ z0 * (z1 @ z1)), abs=1e-12)


@pytest.mark.parametrize("way", [feature_swap, straight_line])
def test_every_step_brings_the_cell_nearer_to_the_target(way, rng):
    z0, z1 = rng.normal(size=(2, 256))
    distances = np.square(way(z0, z1, 12).embeddings - z1).sum(axis=1)
    assert (np.diff(distances) < 0).all()


def test_each_swap_covers_its_share_and_less_than_one_feature_more(rng):
    z0, z1 = rng.normal(size=(2, 256))
    squares = np.square(z1 - z0)
    travel = feature_swap(z0, z1, 9)
    covered = squares.sum() - np.square(travel.embeddings - z1).sum(axis=1)
    shares = squares.sum() * np.arange(9) / 8
    assert (covered >= shares - 1e-9).all()
    assert (covered[:-1] < shares[:-1] + squares.max()).all()


def test_a_frame_holds_only_values_of_the_start_and_the_target(rng):
    z0, z1 = rng.normal(size=(2, 64))
    embeddings = feature_swap(z0, z1, 5).embeddings
    assert ((embeddings == z0) | (embeddings == z1)).all()
    np.testing.assert_array_equal((embeddings == z1).sum(axis=1), feature_swap(z0, z1, 5).n_copied)


def test_the_straight_line_passes_through_the_middle():
    np.testing.assert_allclose(straight_line(np.array([0.0, 2.0]), np.array([1.0, 4.0]), 3).embeddings[1], [0.5, 3.0])


def test_a_direction_is_added_to_the_start_and_goes_beyond_when_asked():
    z0, direction = np.array([1.0, 0.0]), np.array([0.0, 2.0])
    np.testing.assert_allclose(along_direction(z0, direction, 3).embeddings, [[1, 0], [1, 1], [1, 2]])
    beyond = along_direction(z0, direction, 5, beyond=2)
    np.testing.assert_allclose(beyond.embeddings[:, 1], [0, 1, 2, 3, 4])
    np.testing.assert_allclose(beyond.distances, [2, 1, 0, 1, 2])  # to the start and the direction, not to the end
    assert beyond.cosines[2] == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("beyond", [0.0, -1.0, np.inf, np.nan])
def test_a_direction_goes_forwards_and_not_for_ever(beyond):
    with pytest.raises(InputError, match="above 0"):
        along_direction(np.zeros(2), np.ones(2), 5, beyond=beyond)


@pytest.mark.parametrize("way", ["swap", "line"])
def test_a_way_through_the_doses_stands_at_each_of_them_and_ends_at_the_last(way, rng):
    z0, *doses = rng.normal(size=(4, 32))
    travel = through(z0, doses, 8, way=way)  # three legs in seven steps: 2, 3 and 2
    np.testing.assert_array_equal(travel.embeddings[[0, 2, 5, 7]], [z0, *doses])
    np.testing.assert_array_equal(travel.leg, [0, 0, 0, 1, 1, 1, 2, 2])
    np.testing.assert_allclose(travel.distances, np.linalg.norm(travel.embeddings - doses[-1], axis=1))
    one_leg = {"swap": feature_swap, "line": straight_line}[way](doses[0], doses[1], 4)
    np.testing.assert_array_equal(travel.embeddings[2:6], one_leg.embeddings)


def test_a_way_through_doses_has_a_frame_for_each():
    np.testing.assert_array_equal(
        through(np.zeros(1), [np.ones(1), np.full(1, 3.0)], 3, way="line").embeddings[:, 0], [0, 1, 3]
    )
    with pytest.raises(InputError, match="2 frames through 2 targets: expected at least 3"):
        through(np.zeros(1), [np.ones(1), np.full(1, 3.0)], 2, way="line")


def test_a_cell_that_is_already_there_stays_there():
    z = np.array([1.0, -2.0, 3.0])
    np.testing.assert_array_equal(feature_swap(z, z, 4).embeddings, np.tile(z, (4, 1)))


def test_cosines_have_their_known_values_and_none_for_an_empty_embedding():
    rows = np.array([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0], [-1.0, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(row_cosines(rows, np.array([5.0, 0.0])), [1, 0, np.sqrt(0.5), -1, np.nan])


@pytest.mark.parametrize(
    ("z0", "z1", "frames", "message"),
    [
        (np.zeros(3), np.zeros(4), 5, "same model"),
        (np.zeros(0), np.zeros(0), 5, "same model"),
        (np.zeros(3), np.array([0, np.inf, 0]), 5, "not finite"),
        (np.zeros(3), np.ones(3), 1, "at least 2"),
    ],
)
def test_a_way_needs_two_embeddings_of_one_model_and_two_frames(z0, z1, frames, message):
    with pytest.raises(InputError, match=message):
        feature_swap(z0, z1, frames)


def test_frames_are_decoded_in_their_order():
    travel = straight_line(np.zeros(2), np.array([1.0, 3.0]), 4)
    crops = decode_frames(travel, lambda z: np.broadcast_to(z[:, :, None, None], (len(z), 2, 6, 6)))
    np.testing.assert_allclose(crops[:, 1, 2, 2], [0, 1, 2, 3])


@pytest.mark.parametrize("crops", [np.zeros((3, 1, 4, 4)), np.zeros((4, 4)), np.full((4, 1, 4, 4), np.nan)])
def test_a_decoder_that_gives_no_pictures_is_refused(crops):
    with pytest.raises(InputError, match="decoded frames"):
        decode_frames(straight_line(np.zeros(2), np.ones(2), 4), lambda z: crops)
