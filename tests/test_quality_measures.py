"""The measures of an image's defects have known answers on images whose defects are known."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from phenolens.crops.quality_control import crop_quality, field_quality
from phenolens.crops.quality_measures import (
    Saturation,
    brightest_spots,
    count_spots,
    detector_maxima,
    detector_maximum,
    is_constant,
    neighbour_correlation,
    power_slope,
    power_slope_of_field,
    saturated_share,
)

SIDE = 68


def textures(rng, slope: float, n: int = 30) -> np.ndarray:
    """Crops (n, 1, S, S) whose power falls with frequency to the power of `slope`."""
    radius = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.fftfreq(SIDE))
    amplitude = np.where(radius > 0, np.maximum(radius, 1 / SIDE) ** (slope / 2), 0)
    pictures = np.fft.ifft2(np.fft.fft2(rng.normal(size=(n, 1, SIDE, SIDE))) * amplitude).real
    return (20_000 + 4_000 * pictures / pictures.std((2, 3), keepdims=True)).clip(0, 65_535).astype(np.uint16)


def blurred_before_the_camera(rng, crops: np.ndarray, px: float) -> np.ndarray:
    seen = gaussian_filter(crops.astype(float), (0, 0, px, px), mode="wrap") + rng.normal(0, 60, crops.shape)
    return seen.clip(0, 65_535).astype(np.uint16)


def naive_slope(image: np.ndarray) -> float:
    window = np.hanning(SIDE + 2)[1:-1]
    power = np.abs(np.fft.fft2((image - image.mean()) * np.outer(window, window))) ** 2
    radius = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.fftfreq(SIDE))
    noise = power[radius > 0.5].mean()
    x, y = [], []
    for ring in range(3, 14):  # 0.04 to 0.2 cycles per pixel
        mean = power[np.rint(radius * SIDE) == ring].mean()
        if mean <= 2 * noise:
            break
        x.append(np.log(ring))
        y.append(np.log(mean - noise))
    assert len(x) >= 4
    return float(np.polyfit(x, y, 1)[0])


@pytest.mark.parametrize("slope", [-2, -3, -4])
def test_the_slope_of_a_texture_of_known_spectrum_is_that_slope(rng, slope):
    assert power_slope(textures(rng, slope)).mean() == pytest.approx(slope, abs=0.2)


def test_the_slope_is_that_of_a_line_through_the_rings_before_noise(rng):
    crops = blurred_before_the_camera(rng, textures(rng, -3, n=6), px=1.5)
    expected = [naive_slope(crop[0].astype(float)) for crop in crops]
    np.testing.assert_allclose(power_slope(crops)[:, 0], expected, rtol=1e-3)


def test_noise_has_no_slope_and_a_constant_channel_none_to_speak_of(rng):
    noise = rng.normal(500, 40, (60, 1, SIDE, SIDE)).astype(np.uint16)
    assert abs(power_slope(noise).mean()) < 0.5
    assert np.isnan(power_slope(np.full((1, 1, SIDE, SIDE), 512, np.uint16))).all()


@pytest.mark.parametrize("px", [2, 4, 8])
def test_blur_steepens_the_slope_though_the_camera_adds_its_noise_after_it(rng, px):
    sharp = textures(rng, -3)
    focused, blurred = (power_slope(blurred_before_the_camera(rng, sharp, width)) for width in (0.3, px))
    assert blurred.max() < focused.min()


def test_brightness_does_not_change_the_slope(rng):
    crops = textures(rng, -3) // 16
    np.testing.assert_allclose(power_slope(crops), power_slope(crops * 16), rtol=1e-3)


@pytest.mark.parametrize("side", [36, 67])
def test_other_sides_of_crops_have_the_same_slope(rng, side):
    crops = textures(rng, -3)
    assert power_slope(crops[..., :side, :side]).mean() == pytest.approx(-3, abs=0.4)


def test_the_slope_of_a_field_is_that_of_its_tiles_where_there_is_light(rng):
    tiles = textures(rng, -3, n=40)
    tiles[20:] = rng.normal(500, 40, (20, 1, SIDE, SIDE))  # half of the field is empty
    assert power_slope_of_field(tiles)[0] == pytest.approx(-3, abs=0.2)


def test_crops_too_small_for_their_focus_have_none(rng):
    crops = rng.integers(0, 4000, size=(2, 3, 24, 24), dtype=np.uint16)
    assert np.isfinite(power_slope(crops)).all()
    assert np.isnan(power_slope(crops[..., :23, :23])).all()


@pytest.mark.parametrize(
    ("values", "maximum"),
    [
        ([0, 16, 48, 4_000], 65_520),  # 12 bits times 16
        ([65_520], 65_520),
        ([0, 257, 514, 65_535], 65_535),  # 8 bits stretched to 16
        ([4, 12, 30_000], 65_532),  # 14 bits times 4
        ([3, 255], 255),
        ([3, 700], 1_023),
        ([3, 4_095], 4_095),
        ([3, 4_096], 16_383),
        ([3, 40_001], 65_535),
        ([0, 0], 65_535),
    ],
)
def test_the_detectors_maximum_is_told_from_the_values(values, maximum):
    assert detector_maximum(np.array(values, np.uint16)) == maximum


def test_pixels_clipped_a_little_below_the_detectors_maximum_are_saturated():
    crops = np.arange(SIDE * SIDE, dtype=np.uint16).reshape(1, 1, SIDE, SIDE).repeat(3, axis=0) * 8
    crops[0, 0, :10, :20] = 63_296  # as BBBC021 clips
    crops[1, 0, :10, :20] = 50_000  # many pixels of one value, but no detector's limit
    crops[2, 0, 0, 0] = 65_000  # bright, but one pixel alone
    share = saturated_share(crops, maximum=65_520)[:, 0]
    np.testing.assert_allclose(share, [200 / SIDE**2, 0, 1 / SIDE**2], rtol=1e-6)


def test_each_channel_is_judged_by_its_own_detector():
    """A clipped channel of 8 bits beside one of 16 bits is flagged in crops, in plates and in fields."""
    crops = np.random.default_rng(0).integers(0, 200, (3, 2, SIDE, SIDE), dtype=np.uint16)
    crops[:, 1] = crops[:, 1] * 101
    crops[1:, 0, :10, :20] = 255
    share = [0, 200 / SIDE**2, 200 / SIDE**2]
    np.testing.assert_array_equal(detector_maxima([crops]), [255, 65_535])
    np.testing.assert_array_equal(detector_maxima([crops], given=4_095), [4_095, 4_095])
    table = crop_quality(crops, channels=("a", "b"))
    np.testing.assert_allclose(table["saturated_share_a"], share, rtol=1e-6)
    assert table["saturated_a"].tolist() == [False, True, True]
    assert not table["saturated_b"].any()
    plate = Saturation(len(crops))
    plate.add(crops)
    np.testing.assert_allclose(plate.shares()[:, 0], share, rtol=1e-6)
    assert field_quality(crops[1], channels=("a", "b"))["saturated_a"]


def test_the_brightest_spots_height_contrast_and_size_are_those_planted():
    crops = np.full((2, 1, SIDE, SIDE), 1_000, np.uint16)
    crops[:, 0, 20:50, 20:50] = 3_000  # a cell, more than a twentieth of the crop
    crops[1, 0, 5:12, 5:12] = 21_000
    spots = brightest_spots(crops)
    np.testing.assert_allclose(spots.height[:, 0], [2_000, 20_000], rtol=1e-5)
    np.testing.assert_allclose(spots.contrast[:, 0], [1, 10], rtol=1e-5)
    assert spots.px[1, 0] == 7 * 7 - 4  # a mean with neighbours rounds the corners
    assert spots.px[0, 0] == 30 * 30 - 4


def test_one_hot_pixel_is_lower_than_a_spot_of_the_same_brightness():
    crops = np.full((2, 1, SIDE, SIDE), 1_000, np.uint16)
    crops[0, 0, 30, 30] = 10_000
    crops[1, 0, 29:32, 29:32] = 10_000
    np.testing.assert_allclose(brightest_spots(crops).height[:, 0], [1_000, 9_000], rtol=1e-4)


def test_spots_of_a_field_are_counted_when_bright_and_small_alone():
    field = np.full((2, 300, 300), 500, np.uint16)
    field[:, 100:200, 100:200] = 1_500  # cells
    for y in (20, 60):
        field[0, y : y + 6, 40:46] = 20_000
    field[0, 220:260, 220:260] = 3_500  # three times as bright as the cells: not bright enough
    field[1, 20:60, 20:26] = 20_000  # 240 px: too large
    assert count_spots(field, times=6, at_most_px=100).tolist() == [2, 0]


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
