import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from phenolens.crops.quality_control import is_constant, neighbour_correlation


def is_noise(crops: np.ndarray, *, threshold: float) -> np.ndarray:
    """Which crops have a channel without a picture in it."""
    return (neighbour_correlation(crops) < threshold).any(axis=1)


def naive_correlation(channel: np.ndarray) -> float:
    picture = channel.astype(float)
    along_x = np.corrcoef(picture[:, :-1].ravel(), picture[:, 1:].ravel())[0, 1]
    along_y = np.corrcoef(picture[:-1].ravel(), picture[1:].ravel())[0, 1]
    return (along_x + along_y) / 2


def test_a_ramp_predicts_its_neighbours_wholly_and_a_checkerboard_the_other_way():
    ramp = np.add.outer(np.arange(68), np.arange(68)) * 100
    board = (np.add.outer(np.arange(68), np.arange(68)) % 2) * 100
    crops = np.stack([ramp, board])[np.newaxis].astype(np.uint16)
    np.testing.assert_allclose(neighbour_correlation(crops), [[1, -1]], atol=1e-5)


def test_the_measure_is_pearsons_correlation_of_touching_pixels(rng):
    crops = gaussian_filter(rng.normal(2_000, 900, (4, 3, 20, 20)), (0, 0, 0.7, 0.7)).astype(np.uint16)
    expected = [[naive_correlation(channel) for channel in crop] for crop in crops]
    np.testing.assert_allclose(neighbour_correlation(crops), expected, rtol=1e-4)


def test_white_noise_does_not_predict_its_neighbours(rng):
    noise = rng.normal(500, 40, (50, 3, 68, 68)).astype(np.uint16)
    assert np.abs(neighbour_correlation(noise)).max() < 0.1
    assert is_noise(noise, threshold=0.5).all()


def test_brightness_and_contrast_do_not_matter(rng):
    picture = gaussian_filter(rng.normal(0, 1, (5, 3, 68, 68)), (0, 0, 2, 2))
    dim = np.round(picture * 1_000 + 1_000).astype(np.uint16)
    np.testing.assert_allclose(neighbour_correlation(dim), neighbour_correlation(dim * 16), atol=1e-5)


def test_one_channel_without_a_picture_makes_a_crop_noise(rng):
    crops = np.broadcast_to(np.add.outer(np.arange(68), np.arange(68)), (2, 3, 68, 68)).astype(np.uint16)
    crops[1, 2] = rng.normal(500, 40, (68, 68))
    assert is_noise(crops, threshold=0.5).tolist() == [False, True]


def test_a_constant_channel_is_noise_and_known_as_constant():
    crops = np.broadcast_to(np.arange(68), (2, 3, 68, 68)).astype(np.uint16)
    crops[0, 1] = 512
    assert is_noise(crops, threshold=0.5).tolist() == [True, False]
    assert is_constant(crops).tolist() == [[False, True, False], [False, False, False]]


@pytest.mark.parametrize("threshold", [0.35, 0.5, 0.55])
def test_the_real_noise_crops_stand_apart_from_the_real_cells(real_data, threshold):
    crops = np.load(real_data / "bbbc021" / "crops" / "crops.npz")["images"].transpose(0, 3, 1, 2)
    assert is_noise(crops, threshold=threshold).sum() == 55  # of 1,996: all have an empty channel, by eye
