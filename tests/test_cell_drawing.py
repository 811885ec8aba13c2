import numpy as np
import pandas as pd
import pytest
from scipy import ndimage
from skimage.morphology import convex_hull_image

from phenolens.simulation.bodies import Light
from phenolens.simulation.microscope import (
    BACKGROUND,
    COUNTS,
    PlateOptics,
    acquire,
    draw_cells,
    illumination_field,
    plate_optics,
)
from phenolens.simulation.phenotypes import MARGIN_PX, MECHANISMS, UNTREATED, Phenotype, sample_cells

SIDE_PX = 160
PERFECT = PlateOptics(np.ones(3), np.zeros(3), BACKGROUND, np.zeros((3, 5)), 1.0, 1.0)


def cells_of(phenotype: Phenotype, *, seed: int) -> pd.DataFrame:
    """One cell in the middle of a field."""
    rng = np.random.default_rng(seed)
    cells = sample_cells(rng, target=phenotype, strength=1.0, n_expected=22, height_px=464, width_px=512)
    cells = cells[cells["state"] == "interphase"].iloc[:1]
    return cells.assign(y_px=80.3, x_px=79.6)


def drawn(cells: pd.DataFrame, *, seed: int = 0) -> np.ndarray:
    """All light of the field (3, SIDE_PX, SIDE_PX), as if all were in focus."""
    light = draw_cells(cells, np.random.default_rng(seed), height_px=SIDE_PX, width_px=SIDE_PX, seed=0)
    return (light.sharp + light.soft)[:, MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX]


def fineness(channel: np.ndarray) -> float:
    """Share of the variance that is finer than about 4 px."""
    return float((channel - ndimage.gaussian_filter(channel, 2)).var() / channel.var())


def solidity(mask: np.ndarray) -> float:
    """Share of its convex hull that a mask fills."""
    return float(mask.sum() / convex_hull_image(mask).sum())


@pytest.mark.parametrize("seed", range(4))
def test_nucleus_is_drawn_as_large_as_the_truth_says_and_where(seed: int):
    cells = cells_of(UNTREATED, seed=seed).assign(n_fragments=1, nucleolus_depth=0.0, chromatin_contrast=0.0)
    dna = drawn(cells)[0]
    nucleus = dna > dna.max() / 2
    np.testing.assert_allclose(nucleus.sum(), cells["nucleus_area_px"].iloc[0], rtol=0.08)
    np.testing.assert_allclose(ndimage.center_of_mass(nucleus), (80.3, 79.6), atol=1.5)


@pytest.mark.parametrize("seed", range(4))
def test_body_covers_the_area_of_its_radius(seed: int):
    cells = cells_of(UNTREATED, seed=seed)
    body = ndimage.gaussian_filter(drawn(cells)[2], 1) > 0.15
    np.testing.assert_allclose(body.sum(), np.pi * cells["cell_radius_px"].iloc[0] ** 2, rtol=0.2)


def test_a_fragmented_nucleus_is_in_several_pieces():
    cells = cells_of(UNTREATED, seed=1).assign(n_fragments=6, nucleus_radius_px=18.0)
    pieces, whole = (drawn(cells.assign(n_fragments=n))[0] for n in (6, 1))
    assert solidity(whole > 0.4 * np.median(whole[whole > 0.5])) > 0.93
    assert solidity(pieces > 0.4 * np.median(pieces[pieces > 0.5])) < 0.85


def test_depolymerised_tubulin_has_no_fine_structure():
    untreated = [fineness(drawn(cells_of(UNTREATED, seed=seed))[1]) for seed in range(4)]
    hazy = [fineness(drawn(cells_of(MECHANISMS["Microtubule destabilizers"], seed=seed))[1]) for seed in range(4)]
    assert max(hazy) < 0.5 * min(untreated)


def test_bundled_tubulin_leaves_more_of_the_body_dark():
    cells = cells_of(UNTREATED, seed=2).assign(tubulin_diffuse=0.0, tubulin_bundling=0.0)
    loose, bundled = drawn(cells)[1], drawn(cells.assign(tubulin_bundling=0.95))[1]
    np.testing.assert_allclose(bundled.sum(), loose.sum(), rtol=0.35)
    assert (bundled > 0.1 * np.percentile(bundled, 99.5)).sum() < 0.75 * (
        loose > 0.1 * np.percentile(loose, 99.5)
    ).sum()


def test_stress_fibres_run_along_the_cell():
    cells = cells_of(UNTREATED, seed=3).assign(
        n_stress_fibres=40.0, actin_diffuse=0.0, actin_cortex=0.0, n_filopodia=0.0, n_actin_aggregates=0.0,
        orientation_rad=0.0,
    )  # fmt: skip
    across, along = np.gradient(ndimage.gaussian_filter(drawn(cells)[2], 1))
    assert (across**2).sum() > 2 * (along**2).sum()


def test_drawing_depends_on_the_random_numbers_given_alone():
    cells = cells_of(UNTREATED, seed=0)
    np.testing.assert_array_equal(drawn(cells, seed=5), drawn(cells, seed=5))


def test_a_cell_beyond_the_border_is_cut_there():
    cells = cells_of(UNTREATED, seed=0).assign(y_px=-20.0, x_px=170.0)
    body = drawn(cells)[2]
    assert body[:20, -20:].max() > 0.1
    assert body[80:, :].max() == 0


def dark_field() -> Light:
    shape = (3, SIDE_PX + 2 * MARGIN_PX, SIDE_PX + 2 * MARGIN_PX)
    return Light(np.zeros(shape, np.float32), np.zeros(shape, np.float32))


def test_without_light_and_noise_the_camera_sees_its_background(rng: np.random.Generator):
    image = acquire(dark_field(), PERFECT, rng, noise=0)
    for c in range(3):
        np.testing.assert_array_equal(image[c], 16 * int(BACKGROUND[c]))


def test_blur_and_haze_keep_the_light(rng: np.random.Generator):
    light = dark_field()
    middle = MARGIN_PX + SIDE_PX // 2
    light.sharp[:, middle - 20 : middle + 20, middle - 20 : middle + 20] = 2.0
    light.soft[:, middle - 20 : middle + 20, middle - 20 : middle + 20] = 1.0
    counts = acquire(light, PERFECT, rng, noise=0) / 16 - BACKGROUND[:, None, None]
    np.testing.assert_allclose(counts.sum(axis=(1, 2)), 3.0 * 40 * 40 * COUNTS, rtol=0.02)


def test_noise_has_the_stated_standard_deviation(rng: np.random.Generator):
    image = acquire(dark_field(), PERFECT, rng, noise=1.0) / 16
    # read noise, shot noise, rounding to whole counts
    expected = np.sqrt(2.2**2 + 0.22 * BACKGROUND + 1 / 12)
    np.testing.assert_allclose(image.std(axis=(1, 2)), expected, rtol=0.03)


def test_illumination_is_even_without_coefficients_and_tilts_with_the_first():
    np.testing.assert_array_equal(illumination_field(np.zeros(5), height_px=4, width_px=6), np.ones((4, 6)))
    tilted = illumination_field(np.array([0.25, 0, 0, 0, 0]), height_px=3, width_px=5)
    np.testing.assert_allclose(tilted[1], [0.75, 0.875, 1.0, 1.125, 1.25])


def test_plates_of_a_batch_are_more_alike_than_batches():
    def gains(batch: int) -> list[np.ndarray]:
        plates = [plate_optics(np.random.default_rng([9, batch]), np.random.default_rng([8, batch, plate]),
                               batch_effect=1.0, unevenness=0.3) for plate in range(20)]  # fmt: skip
        return [np.log(plate.gain) for plate in plates]

    batches = [gains(batch) for batch in range(20)]
    within = np.mean([np.var(batch, axis=0) for batch in batches])
    between = np.var([np.mean(batch, axis=0) for batch in batches], axis=0).mean()
    assert within < 0.4 * between


def test_no_batch_effect_leaves_all_plates_alike(rng: np.random.Generator):
    optics = plate_optics(rng, rng, batch_effect=0.0, unevenness=0.0)
    np.testing.assert_array_equal(optics.gain, 1.0)
    np.testing.assert_array_equal(optics.blur_px, 0.0)
    np.testing.assert_array_equal(optics.illumination, 0.0)
    assert (optics.size_factor, optics.density_factor) == (1.0, 1.0)
