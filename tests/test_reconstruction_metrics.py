"""Each measure of a reconstruction moves as it should: blur, noise, shift and invented texture are told apart."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from phenolens.morphology.reconstruction_metrics import fidelity


@pytest.fixture
def cells(rng) -> np.ndarray:
    """Twelve cells of two channels with structure of a few pixels, 0 to 1."""
    drawn = gaussian_filter(rng.random((12, 2, 68, 68)), (0, 0, 1.2, 1.2))
    low, high = drawn.min((2, 3), keepdims=True), drawn.max((2, 3), keepdims=True)
    return (drawn - low) / (high - low)


def blurred(cells, sigma):
    return gaussian_filter(cells, (0, 0, sigma, sigma))


def test_a_perfect_reconstruction_has_no_error_full_structure_and_the_originals_sharpness(cells):
    table = fidelity(cells, cells.copy(), ["DNA", "actin"])
    assert list(table["channel"]) == ["DNA", "actin"]
    np.testing.assert_allclose(table["error"], 0)
    for measure in ("ssim", "power_ratio", "ring_correlation"):
        np.testing.assert_allclose(table[measure], 1, rtol=1e-12)


def test_the_error_is_half_the_sum_of_squares_and_adds_up_over_channels(cells):
    table = fidelity(cells, cells + 0.5, ["a", "b"])
    np.testing.assert_allclose(table["error"], 0.5 * 0.25 * 68**2)
    assert table["error"].sum() == pytest.approx(0.5 * np.square(0.5) * cells[0].size)


def test_blur_takes_power_away_and_leaves_what_is_left_at_its_place(cells):
    weak, strong = (fidelity(cells, blurred(cells, sigma), ["a", "b"]) for sigma in (1, 2))
    assert (strong["power_ratio"] < weak["power_ratio"]).all()
    assert (weak["power_ratio"] < 0.7).all()
    assert (weak["ring_correlation"] > 0.9).all()
    assert (strong["ssim"] < weak["ssim"]).all()


def test_invented_texture_of_the_right_power_is_seen_by_the_measures_of_place(cells, rng):
    invented = gaussian_filter(rng.random(cells.shape), (0, 0, 1.2, 1.2))
    invented = (invented - invented.mean()) / invented.std() * cells.std() + cells.mean()
    table = fidelity(cells, invented, ["a", "b"])
    np.testing.assert_allclose(table["power_ratio"], 1, atol=0.3)
    assert (table["ring_correlation"].abs() < 0.15).all()
    assert (table["ssim"] < 0.3).all()


def test_a_gain_changes_the_power_and_not_the_place(cells):
    table = fidelity(cells, 0.5 * cells, ["a", "b"])
    np.testing.assert_allclose(table["power_ratio"], 0.25)
    np.testing.assert_allclose(table["ring_correlation"], 1)


def test_a_channel_is_measured_alone(cells):
    mixed = np.stack([cells[:, 0], blurred(cells, 2)[:, 1]], axis=1)
    table = fidelity(cells, mixed, ["kept", "blurred"]).set_index("channel")
    assert table.loc["kept", "error"] == 0
    assert table.loc["blurred", "power_ratio"] < 0.5


def test_an_empty_channel_has_no_sharpness_to_speak_of(cells):
    empty = cells * np.array([1.0, 0.0])[None, :, None, None]
    table = fidelity(empty, cells, ["a", "empty"])
    assert np.isnan(table["power_ratio"][1])
    assert np.isfinite(table["power_ratio"][0])
