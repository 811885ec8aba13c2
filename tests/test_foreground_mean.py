"""The mean of the foreground gives the illumination though cells crowd in one place, unlike the mean of all pixels."""

import shutil

import numpy as np
import pandas as pd
import pytest
import tifffile

from phenolens.core.errors import InputError
from phenolens.crops.config import CropConfig, IlluminationConfig
from phenolens.crops.illumination import (
    BRIGHTNESS,
    EDGES,
    FOREGROUND,
    N_BINS,
    block_means,
    correct,
    estimate_illumination,
    foreground_mean,
    load_illumination,
    spot_counts,
)
from phenolens.crops.make_crops import make_crops
from phenolens.screens.bbbc021 import read_bbbc021
from phenolens.screens.config import LayoutConfig
from phenolens.screens.read_image import read_field

HEIGHT, WIDTH, N_FIELDS, OFFSET = 256, 320, 60, 700
BY_FOREGROUND = IlluminationConfig(average="foreground", offset="subtract")
ALL_CONFIG = IlluminationConfig(average="all", offset="subtract", smooth_px=160)


@pytest.fixture(scope="module")
def planted() -> np.ndarray:
    """Light that falls by half from left to right, and by a tenth from the top."""
    return np.linspace(1, 0.9, HEIGHT)[:, None] * np.linspace(1.2, 0.6, WIDTH)


@pytest.fixture(scope="module")
def fields(planted) -> list[np.ndarray]:
    """Squares of 24 px and of all brightnesses, four in five of them in the right half, over the camera's counts."""
    rng = np.random.default_rng(7)
    taken = []
    for _ in range(N_FIELDS):
        seen = np.zeros((HEIGHT, WIDTH))
        for _ in range(25):
            half = 0 if rng.random() < 0.2 else WIDTH // 2
            y, x = rng.integers(0, HEIGHT), half + rng.integers(0, WIDTH // 2)
            seen[y : y + 24, x : x + 24] = 1500 * rng.uniform(0.7, 1.3)
        noise = 30 * rng.standard_normal(seen.shape)
        taken.append(np.rint(OFFSET + planted * seen + noise).astype(np.uint16)[None])
    return taken


def error_percent(function: np.ndarray, planted: np.ndarray) -> float:
    ratio = function / function.mean() * planted.mean() / planted
    return float(100 * np.abs(ratio - 1).mean())


def test_light_is_found_where_cells_crowd_in_its_dark_half(fields, planted):
    found = estimate_illumination(fields, channels=("DNA",), config=BY_FOREGROUND)
    everything = estimate_illumination(fields, channels=("DNA",), config=ALL_CONFIG)
    assert error_percent(np.ones_like(planted), planted) > 15
    assert error_percent(everything.functions[0], planted) > 25  # worse than nothing: it takes the crowd for light
    assert error_percent(found.functions[0], planted) < 5
    assert abs(found.offset[0] - OFFSET) < 0.03 * OFFSET
    assert found.functions.min() == 1


def test_spots_are_counted_as_if_one_looked_at_each(rng):
    image = rng.integers(1, 60_000, (70, 41), dtype=np.uint16)  # the last spots and places are not whole
    image[:8, :8] = 0
    counts = spot_counts(block_means(image, block_px=8))
    expected = np.zeros((3, 2, N_BINS), int)
    for y in range(0, 70, 8):
        for x in range(0, 41, 8):
            brightness = max(image[y : y + 8, x : x + 8].mean(), 1)
            (bin_of,) = np.flatnonzero((EDGES[:-1] <= brightness) & (brightness < EDGES[1:]))
            expected[y // 32, x // 32, bin_of] += 1
    np.testing.assert_array_equal(counts, expected)


def test_the_light_of_a_place_is_the_mean_of_its_lit_spots(rng):
    counts = rng.integers(0, 4, (3, 4, N_BINS)).astype(np.int32)
    counts[..., :200] *= 50  # most spots are dark
    light = foreground_mean(counts, offset=5, smooth_px=1, named="DNA")  # not smoothed at all
    usual = (counts * (BRIGHTNESS - 5)).sum() / counts.sum()
    means = np.empty((3, 4))
    for place in np.ndindex(3, 4):
        spots = np.repeat(BRIGHTNESS - 5, counts[place])
        means[place] = spots[spots > FOREGROUND * usual * light[place]].mean()
    np.testing.assert_allclose(light, means / means.mean(), rtol=2e-3)
    assert np.ptp(light) > 0.1


def test_a_place_that_is_never_lit_and_an_offset_that_is_kept_are_refused(fields):
    dark = [field.copy() for field in fields]
    for field in dark:
        field[:, :, :200] = OFFSET
    with pytest.raises(InputError, match='plate "P1": channel "DNA" has places'):
        estimate_illumination(dark, channels=("DNA",), where='plate "P1"', config=BY_FOREGROUND)
    with pytest.raises(InputError, match="offset"):
        IlluminationConfig(average="foreground")


def test_crops_are_cut_from_fields_that_lit_pixels_corrected(tiny_screen, tmp_path):
    config = CropConfig(crop_px=36, illumination="foreground", least_fields=1, illumination_px=320)
    store = make_crops(tiny_screen, tmp_path, layout="bbbc021", config=config)
    light, _ = load_illumination(next((tmp_path / "illumination").glob("*.npz")))
    assert light.offset.min() > 0
    screen = read_bbbc021(tiny_screen, images=tiny_screen)
    cell = store.cells.iloc[0]
    row = screen.table.merge(cell[["plate", "well", "site"]].to_frame().T).iloc[0]
    field = read_field({name: screen.folder / row[f"file_{name}"] for name in screen.channels}, where="here")
    middle = correct(field, light)[:, int(np.floor(cell["y"] + 0.5)), int(np.floor(cell["x"] + 0.5))]
    np.testing.assert_array_equal(store.take([0])[0, :, 18, 18], middle)


def test_what_is_saturated_stays_known_when_uneven_light_is_corrected(tiny_screen, tmp_path):
    source = shutil.copytree(tiny_screen, tmp_path / "screen")
    for path in source.glob("Week*/*_w1*.tif"):
        brighter = 40.0 * tifffile.imread(path)
        tifffile.imwrite(path, np.minimum(brighter, 65_520).astype(np.uint16))
    measured = {}
    for light in ("as it is", "corrected", "foreground"):
        config = CropConfig(crop_px=36, illumination=light, least_fields=1, illumination_px=320)
        as_given = LayoutConfig(black_level=0)  # grey values begin at 40 times the offset
        store = make_crops(source, tmp_path / light, layout="bbbc021", config=config, reading=as_given)
        assert store.cells["flags"].str.contains("saturated in DNA").mean() > 0.5
        measured[light] = pd.concat([pd.read_parquet(path) for path in (tmp_path / light / "quality").glob("*")])
    for light in ("corrected", "foreground"):
        for name in ("saturated_share_DNA", "saturated_DNA", "saturated_actin"):
            pd.testing.assert_series_equal(measured[light][name], measured["as it is"][name])
