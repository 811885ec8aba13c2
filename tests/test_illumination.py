"""Uneven light: what was planted is found, fields become even, and what cannot be averaged is refused in one line."""

import importlib.util
import sys
import weakref
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from conftest import TINY
from phenolens.core.errors import InputError
from phenolens.crops.config import IlluminationConfig
from phenolens.crops.illumination import (
    Illumination,
    block_means,
    correct,
    corrected,
    estimate_illumination,
    illumination_function,
    load_illumination,
    save_illumination,
)
from phenolens.plotting.quality_figures import illumination
from phenolens.plotting.style import caption_of, png
from phenolens.screens.read_image import read_field
from phenolens.simulation.bodies import Light
from phenolens.simulation.microscope import PlateOptics, acquire, illumination_field
from phenolens.simulation.phenotypes import MARGIN_PX

CHANNELS = ("DNA", "tubulin", "actin")
HEIGHT, WIDTH, N_FIELDS = 192, 256, 64
NARROW = IlluminationConfig(smooth_px=24)
COEFFICIENTS = np.array([[0.2, 0, -0.2, 0, -0.2], [0, 0.3, 0, 0.1, 0], [-0.1, -0.2, -0.1, 0, 0]])


@pytest.fixture(scope="module")
def planted() -> np.ndarray:
    """Known light (C, H, W)."""
    return np.stack([illumination_field(c, height_px=HEIGHT, width_px=WIDTH) for c in COEFFICIENTS])


@pytest.fixture(scope="module")
def fields(planted) -> list[np.ndarray]:
    """Fields of dots, as bright as the planted light at their place, exponentially distributed, without background."""
    rng = np.random.default_rng(1)
    return [np.rint(3000 * planted * rng.exponential(size=planted.shape)).astype(np.uint16) for _ in range(N_FIELDS)]


@pytest.fixture(scope="module")
def light(fields) -> Illumination:
    return estimate_illumination(fields, channels=CHANNELS, config=NARROW)


def shares(light: np.ndarray) -> np.ndarray:
    return light / light.mean((1, 2), keepdims=True)


def place_explains(image: np.ndarray) -> float:
    """R² of a quadratic in x and y."""
    y, x = (axis.ravel() - axis.mean() for axis in np.mgrid[: image.shape[0], : image.shape[1]])
    terms = np.stack([np.ones_like(y), y, x, y * y, y * x, x * x], 1)
    found = terms @ np.linalg.lstsq(terms, image.ravel(), rcond=None)[0]
    return float(found.var() / image.var())


def at_block_centres(image: np.ndarray) -> np.ndarray:
    """Rows at the centres of blocks of 4, where a line through the two pixels that follow meets it."""
    return 1.5 * image[2::4] - 0.5 * image[3::4]


def refusal(fields, **settings) -> str:
    with pytest.raises(InputError) as error:
        estimate_illumination(fields, channels=CHANNELS, where='plate "P1"', **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_planted_light_is_recovered_to_a_percent_or_two(light, planted):
    error = np.abs(shares(light.functions) / shares(planted) - 1)
    assert error.mean() < 0.01
    # less so in the corners: the darkest 2 % are clipped, and a slope that is reflected at the edge is flat there
    assert np.percentile(error, 95) < 0.03
    assert np.abs(shares(planted) - 1).mean() > 0.08  # there was something to be found


def test_brightness_no_longer_depends_on_the_place_in_the_field(fields, light):
    before = np.mean(fields, axis=0)
    after = np.mean([correct(field, light) for field in fields], axis=0)
    for c in range(3):
        assert place_explains(block_means(before[c], block_px=4)) > 0.7
        assert place_explains(block_means(after[c], block_px=4)) < 0.03  # 3,072 blocks: 5 terms explain 0.2 % by chance


def test_the_function_is_the_median_of_block_means_over_a_disk_written_out(rng):
    mean = rng.uniform(50, 100, (24, 32)) + np.arange(32)
    blocks = mean.reshape(6, 4, 8, 4).mean((1, 3))
    padded = np.pad(blocks, 2, mode="symmetric")
    near = [(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3) if dy**2 + dx**2 <= 4]
    smooth = np.array(
        [[np.median([padded[2 + y + dy, 2 + x + dx] for dy, dx in near]) for x in range(8)] for y in range(6)]
    )
    expected = np.maximum(smooth / np.percentile(smooth, 10), 1)
    config = IlluminationConfig(smooth_px=16, robust_minimum=10)
    function = illumination_function(mean, named="DNA", config=config)
    np.testing.assert_allclose(at_block_centres(at_block_centres(function).T).T, expected, rtol=1e-5)


def test_blocks_at_the_edge_are_means_of_the_pixels_that_are_there():
    image = np.arange(30.0).reshape(5, 6)
    np.testing.assert_array_equal(
        block_means(image, block_px=4),
        [[image[:4, :4].mean(), image[:4, 4:].mean()], [image[4, :4].mean(), image[4, 4:].mean()]],
    )


def test_functions_are_at_least_one_and_no_pixel_gets_brighter(fields, light):
    assert light.functions.dtype == np.float32
    assert light.functions.min() == 1
    assert (correct(fields[0], light) <= fields[0]).all()


def test_a_field_is_divided_and_rounded_and_the_offset_taken_off_first():
    pixels = np.array([[[100, 103, 10]]], np.uint16)
    functions = np.array([[[1, 2, 4]]], np.float32)
    plain = Illumination(functions, np.zeros(1, np.float32), 60)
    dark = Illumination(functions, np.array([20], np.float32), 60)
    np.testing.assert_array_equal(correct(pixels, plain), np.array([[[100, 52, 2]]], np.uint16))  # halves to even
    np.testing.assert_array_equal(correct(pixels, dark), np.array([[[80, 42, 0]]], np.uint16))
    np.testing.assert_array_equal(corrected(pixels, dark), np.array([[[80, 41.5, -2.5]]], np.float32))
    assert correct(pixels, dark).dtype == np.uint16


def test_one_field_is_in_memory_at_a_time():
    alive: list[weakref.ref] = []

    class Field(np.ndarray):
        """An array that can be watched."""

    def made():
        rng = np.random.default_rng(0)
        for _ in range(5):
            assert [seen for seen in alive if seen() is not None] == alive[-1:]  # the one just counted in
            field = rng.integers(1, 99, (3, 8, 8), dtype=np.uint16).view(Field)
            alive.append(weakref.ref(field))
            yield field
            del field

    config = IlluminationConfig(least_fields=5)
    assert estimate_illumination(made(), channels=CHANNELS, config=config).n_fields == 5


@pytest.fixture(scope="module")
def photographs() -> tuple[list[np.ndarray], PlateOptics]:
    """Fields of blobs under the simulated camera, with its background and noise."""
    rng = np.random.default_rng(3)
    optics = PlateOptics(np.ones(3), np.zeros(3), np.array([48.0, 42.0, 46.0]), COEFFICIENTS, 1.0, 1.0)
    shape = (3, HEIGHT + 2 * MARGIN_PX, WIDTH + 2 * MARGIN_PX)
    taken = []
    for _ in range(N_FIELDS):
        sharp = np.kron(rng.random((3, shape[1] // 8, shape[2] // 8)) < 0.15, np.ones((8, 8)))
        padded = np.zeros(shape, np.float32)
        padded[:, : sharp.shape[1], : sharp.shape[2]] = sharp
        taken.append(acquire(Light(padded, np.zeros(shape, np.float32)), optics, rng, noise=1.0))
    return taken, optics


def test_a_cameras_background_flattens_the_functions_unless_it_is_subtracted(photographs, planted):
    taken, optics = photographs
    errors = {}
    for offset in ("keep", "subtract"):
        config = IlluminationConfig(smooth_px=64, offset=offset)
        light = estimate_illumination(taken, channels=CHANNELS, config=config)
        errors[offset] = np.abs(shares(light.functions) / shares(planted) - 1).mean((1, 2))
    assert (errors["subtract"] < errors["keep"]).all()
    np.testing.assert_allclose(light.offset, 16 * optics.background, rtol=0.15)


def test_the_same_illumination_gives_the_same_bytes_and_comes_back(light, tmp_path):
    light = Illumination(light.functions, np.array([700.5, 0, 3], np.float32), N_FIELDS)
    for name in ("a", "b"):
        save_illumination(tmp_path / f"{name}.npz", light, about={"plate": "P1"})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.npz") as parts:
        assert {part.date_time for part in parts.infolist()} == {(1980, 1, 1, 0, 0, 0)}  # no clock in it
    again, about = load_illumination(tmp_path / "a.npz")
    assert about == {"plate": "P1"}
    assert again.n_fields == N_FIELDS
    np.testing.assert_array_equal(again.functions, light.functions)
    np.testing.assert_array_equal(again.offset, light.offset)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz"]


@pytest.mark.parametrize("kept_share", [0.0, 0.3, 0.999])
def test_illumination_that_is_missing_or_cut_short_is_refused(light, tmp_path, kept_share):
    path = tmp_path / "light.npz"
    with pytest.raises(InputError, match="not there; estimate the plate's illumination first"):
        load_illumination(path)
    save_illumination(path, light, about={})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept_share * len(whole))])
    with pytest.raises(InputError, match=r"light.npz: damaged \(.*\); estimate it again"):
        load_illumination(path)


def test_a_foreign_npz_is_refused(tmp_path):
    np.savez(tmp_path / "other.npz", functions=np.ones(3))
    with pytest.raises(InputError, match="damaged"):
        load_illumination(tmp_path / "other.npz")


def test_too_few_fields_are_refused(fields):
    assert refusal(fields[:59]).startswith('plate "P1": 59 fields, expected at least 60')
    assert refusal([]).startswith('plate "P1": 0 fields')
    assert estimate_illumination(fields[:60], channels=CHANNELS).n_fields == 60


def with_channel(fields, image) -> list[np.ndarray]:
    return [np.stack([field[0], image.astype(np.uint16), field[2]]) for field in fields]


@pytest.mark.parametrize("value", [0, 4095])
def test_a_channel_of_one_value_is_refused(fields, value):
    line = refusal(with_channel(fields, np.full((HEIGHT, WIDTH), value)))
    assert line.startswith(f'plate "P1": channel "tubulin" is {value} on average in every pixel of 64 fields')


def test_a_channel_that_is_black_but_for_a_spot_is_refused(fields):
    image = np.zeros((HEIGHT, WIDTH))
    image[5, 5] = 100
    assert 'channel "tubulin" is 0 on average in the darkest 2 % of the field' in refusal(with_channel(fields, image))


def test_fields_of_unequal_size_are_refused(fields):
    line = refusal([*fields[:2], fields[2][:, :, 1:]])
    assert line == (
        'plate "P1": field 3 of those averaged is 3 x 192 x 255 px, those before are 3 x 192 x 256 px; all fields of a '
        "plate must have the same size"
    )


def test_nan_and_other_pixel_types_are_refused(fields):
    broken = fields[0].astype(np.float32)
    broken[0, 0, 0] = np.nan
    assert refusal([broken]).endswith("has pixels of type float32 with NaN; expected uint16 as the camera gave them")
    assert "has pixels of type int32; expected uint16" in refusal([fields[0].astype(np.int32)])
    assert "has shape (192, 256); expected 3 channels x height x width" in refusal([fields[0][0]])


def test_a_field_of_another_size_and_broken_functions_are_refused(fields, light):
    with pytest.raises(InputError, match="a field of 3 x 192 x 255 px cannot be divided"):
        correct(fields[0][:, :, 1:], light)
    for value in (np.nan, np.inf, 0.0):
        functions = light.functions.copy()
        functions[0, 0, 0] = value
        with pytest.raises(InputError, match="not above 0 or not finite"):
            Illumination(functions, light.offset, 60)


@pytest.mark.parametrize(
    "settings", [{"smooth_px": 3}, {"least_fields": 0}, {"robust_minimum": 100}, {"offset_percentile": -1}]
)
def test_numbers_that_cannot_be_are_refused(settings):
    with pytest.raises(InputError, match="expected a"):
        IlluminationConfig(**settings)


def test_real_fields_pass_through_and_are_too_few(real_data):
    folder = real_data / "bbbc021" / "fields" / "Week2_24381"
    fields = [
        read_field({c: next(folder.glob(f"*_B02_{site}_w{c}*")) for c in "124"}, where=site) for site in ("s1", "s2")
    ]
    assert "2 fields, expected at least 60" in refusal(fields)
    light = estimate_illumination(fields, channels=CHANNELS, config=IlluminationConfig(least_fields=2))
    after = correct(fields[0], light)
    assert after.shape == (3, 1024, 1280)
    assert (after <= fields[0]).all()
    assert (after > 0).all()


def test_the_figure_shows_the_light_as_shares_of_its_mean_and_says_how_many_fields(fields, light, planted):
    figure = illumination(
        light.functions,
        fields[0],
        corrected(fields[0], light),
        channels=CHANNELS,
        n_fields=N_FIELDS,
        planted=planted,
        plate="P1",
    )
    drawn = [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]
    assert len(drawn) == 15
    np.testing.assert_allclose(drawn[0], shares(planted)[0])
    np.testing.assert_allclose(drawn[1], shares(light.functions)[0], rtol=1e-6)
    np.testing.assert_allclose(drawn[2], shares(light.functions)[0] / shares(planted)[0], rtol=1e-6)
    assert caption_of(figure).startswith("n = 64 fields of plate P1 averaged; fields of 256 x 192 px.")
    assert png(figure).startswith(b"\x89PNG")


def test_the_figure_of_a_real_plate_has_no_planted_light(fields, light):
    figure = illumination(light.functions, fields[0], fields[0], channels=CHANNELS, n_fields=N_FIELDS)
    assert len([axes for axes in figure.axes if axes.images]) == 9
    with pytest.raises(InputError, match="expected one shape with the 3 channels"):
        illumination(light.functions, fields[0][:1], fields[0], channels=CHANNELS, n_fields=1)


def test_the_benchmark_measures_light_and_cells(tmp_path):
    script = Path(__file__).parents[1] / "benchmarks" / "illumination.py"
    spec = importlib.util.spec_from_file_location("illumination_benchmark", script)
    assert spec is not None
    assert spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = benchmark  # dataclasses look their module up
    spec.loader.exec_module(benchmark)
    benchmark.main(benchmark.Flags(tmp_path, fields=(4, 10), smooth_px=(96,), pictured_px=96, screen=TINY))
    light, cells = pd.read_csv(tmp_path / "light.csv"), pd.read_csv(tmp_path / "cells.csv")
    assert set(light["fields"]) == {0, 4, 10}
    assert set(cells["correction"]) == {"none", "96 px, keep", "96 px, subtract", "96 px, foreground", "planted"}
    assert light["error_percent"].between(0, 100, inclusive="neither").all()
    assert cells["r2_percent"].between(0, 100, inclusive="neither").all()
    assert (tmp_path / "illumination.png").read_bytes().startswith(b"\x89PNG")
