"""Measured cells: drawn shapes of known size, and simulated cells beside what was planted in them."""

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage
from skimage.measure import regionprops
from sklearn.metrics import roc_auc_score

from phenolens.core.errors import InputError
from phenolens.crops.config import CropConfig
from phenolens.crops.make_crops import make_crops
from phenolens.crops.store import CropStore
from phenolens.morphology.features import by_subject, describe, eccentricity, measures, solidity
from phenolens.simulation.simulate import SimulateConfig, simulate

CHANNELS = ["DNA", "tubulin"]
SIDE = 68
ROW, COLUMN = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2


def ellipse(y: float = 0, x: float = 0, *, along_y: float, along_x: float) -> np.ndarray:
    """1 within an ellipse, 0 outside; centre as px from the crop's, half axes in px."""
    return (np.hypot((ROW - y) / along_y, (COLUMN - x) / along_x) <= 1).astype(float)


def crop(nucleus: np.ndarray, body: np.ndarray) -> np.ndarray:
    """A crop (1, 2, S, S) over a dim background, sharp as optics leave it."""
    return ndimage.gaussian_filter(0.1 + 0.9 * np.stack([nucleus, body])[None], (0, 0, 0.7, 0.7))


def measured(nucleus: np.ndarray, body: np.ndarray) -> pd.Series:
    """The only row of a crop's measures."""
    return measures(crop(nucleus, body), channels=CHANNELS).iloc[0]


def disk(radius_px: float, y: float = 0, x: float = 0) -> np.ndarray:
    """1 within a disk, 0 outside."""
    return ellipse(y, x, along_y=radius_px, along_x=radius_px)


BODY = disk(26)


def test_a_drawn_nucleus_has_its_area_and_its_elongation():
    round_one = measured(disk(12), BODY)
    long_one = measured(ellipse(along_y=16, along_x=8), BODY)
    assert round_one["nucleus_area_px"] == pytest.approx(np.pi * 12**2, rel=0.03)
    assert long_one["nucleus_area_px"] == pytest.approx(np.pi * 16 * 8, rel=0.03)
    assert round_one["nucleus_eccentricity"] < 0.1
    assert long_one["nucleus_eccentricity"] == pytest.approx(np.sqrt(1 - (8 / 16) ** 2), abs=0.02)
    assert round_one["nucleus_solidity"] > 0.95


def test_a_nucleus_is_as_large_in_a_blurred_picture_and_twice_as_large_in_px_in_one_twice_as_wide():
    sharp = crop(disk(12), BODY)
    wide = sharp.repeat(2, axis=2).repeat(2, axis=3)
    blurred = ndimage.gaussian_filter(sharp, (0, 0, 2.5, 2.5))
    areas = [measures(one, channels=CHANNELS)["nucleus_area_px"].item() for one in (sharp, blurred, wide)]
    assert areas[1] == pytest.approx(areas[0], rel=0.05)
    assert areas[2] == pytest.approx(4 * areas[0], rel=0.03)


def test_pieces_of_one_nucleus_are_counted_and_those_of_neighbours_are_not():
    pieces = disk(7, -9, 0) + disk(6, 6, -8) + disk(6, 6, 8)
    touching = disk(8, 0, -7.5) + disk(8, 0, 7.5)
    beside = disk(12) + disk(9, -26, -26) + disk(9, 26, 26)
    assert measured(pieces, BODY)["n_nuclear_fragments"] == 3
    assert measured(np.minimum(touching, 1), BODY)["n_nuclear_fragments"] == 2
    row = measured(beside, np.ones_like(BODY))
    assert (row["n_nuclear_fragments"], row["n_neighbours"]) == (1, 2)
    assert row["nucleus_area_px"] == pytest.approx(np.pi * 12**2, rel=0.03)


def test_a_cell_body_has_its_area_and_ends_half_way_to_a_neighbour():
    alone = measured(disk(8), disk(20))
    assert alone["cell_area_px"] == pytest.approx(np.pi * 20**2, rel=0.08)
    assert alone["nucleus_share"] == pytest.approx((8 / 20) ** 2, rel=0.08)
    assert measured(disk(8), ellipse(along_y=28, along_x=14))["cell_eccentricity"] == pytest.approx(0.866, abs=0.03)
    # a nucleus on each side of a picture that light fills: the own body ends in the middle between the two
    shared = measured(disk(8) + disk(8, 0, 25), np.ones((SIDE, SIDE)))
    assert shared["cell_area_px"] == pytest.approx(SIDE * (SIDE / 2 + 12.5), rel=0.03)


def test_dark_spots_in_a_nucleus_are_counted_and_their_depth_is_measured():
    holes = 0.5 * (disk(2.2, -5.2, 0.3) + disk(2.2, 5.2, 4.3))
    row = measured(disk(14) - holes, BODY)
    assert row["nucleus_dark_spots"] == 2
    assert 0.25 < row["nucleus_dark_depth"] < 0.5  # half of the light is missing, before the optics
    assert measured(disk(14), BODY)["nucleus_dark_spots"] == 0


def test_where_the_light_of_a_channel_lies_is_told():
    rim = BODY * (np.hypot(ROW, COLUMN) > 22)
    around = BODY * (np.hypot(ROW, COLUMN) < 17)
    even, edge, near = (measured(disk(12), 0.4 * BODY + 0.6 * more) for more in (BODY, rim, around))
    assert edge["tubulin_edge"] > 1.2 > even["tubulin_edge"]
    assert near["tubulin_near_nucleus"] > 1.3 > 1.1 > even["tubulin_near_nucleus"] > 0.9
    assert even["tubulin_over_nucleus"] == pytest.approx(1, abs=0.1)
    one_side = measured(disk(12), BODY * (0.7 + 0.3 * COLUMN / 26))
    # light that grows evenly from side to side has its centre a quarter of the radius off, times its relative slope
    assert one_side["tubulin_polarity_px"] == pytest.approx(26 / 4 * 0.3 / 0.7, rel=0.1)
    assert even["tubulin_polarity_px"] < 0.3


def test_spots_fibres_and_their_direction_are_told_from_even_light():
    dots = sum(disk(1.5, y, x) for y in (-20, 20) for x in (-8, 8))
    stripes = BODY * (np.cos(ROW * 2 * np.pi / 8) > 0.7)
    crossed = np.maximum(stripes, stripes.T)
    even, spotted, lined, woven = (
        measured(disk(12), 0.4 * BODY + 0.6 * more) for more in (0 * BODY, dots, stripes, crossed)
    )
    assert (even["tubulin_spots"], spotted["tubulin_spots"]) == (0, 4)
    assert lined["tubulin_fibres"] > 3 * even["tubulin_fibres"]
    assert lined["tubulin_alignment"] > 0.9 > 0.2 > woven["tubulin_alignment"]


def test_texture_is_told_by_its_grain_and_blur_lowers_sharpness(rng):
    noise = rng.normal(size=(SIDE, SIDE))
    fine, coarse = (ndimage.gaussian_filter(noise, px) for px in (0.8, 2.5))
    fine_row, coarse_row = (measured(disk(20) * (1 + 0.2 * grain / grain.std()), BODY) for grain in (fine, coarse))
    grain = [row["DNA_fine_texture"] / row["DNA_coarse_texture"] for row in (fine_row, coarse_row)]
    assert grain[0] > 1.5 * grain[1]
    smooth = measured(disk(20), BODY)
    assert min(fine_row["DNA_fine_texture"], coarse_row["DNA_coarse_texture"]) > 0.05
    assert max(smooth["DNA_fine_texture"], smooth["DNA_coarse_texture"]) < 0.05
    sharp = crop(disk(20) * (1 + 0.2 * fine / fine.std()), BODY)
    values = measures(np.concatenate([sharp, ndimage.gaussian_filter(sharp, (0, 0, 2, 2))]), channels=CHANNELS)
    assert values["DNA_sharpness"][1] < 0.5 * values["DNA_sharpness"][0]
    assert values["tubulin_sharpness"][1] < 0.7 * values["tubulin_sharpness"][0]


def test_a_dimmer_picture_of_the_same_cell_changes_its_means_alone():
    bright = crop(disk(12), BODY * (0.7 + 0.3 * np.cos(ROW)))
    bright, dim = (measures(share * bright, channels=CHANNELS).iloc[0] for share in (1.0, 0.5))
    means = ["DNA_mean", "tubulin_mean"]
    np.testing.assert_allclose(dim[means].to_numpy(), 0.5 * bright[means].to_numpy(), rtol=1e-9)
    pd.testing.assert_series_equal(dim.drop(means), bright.drop(means), check_names=False, rtol=1e-9)


def test_shapes_are_those_of_scikit_image(rng):
    masks = ndimage.gaussian_filter(rng.normal(size=(20, SIDE, SIDE)), (0, 6, 6)) > 0.01
    for mask, found_eccentricity, found_solidity in zip(masks, eccentricity(masks), solidity(masks)):
        [region] = regionprops(mask.astype(np.uint8))
        assert found_eccentricity == pytest.approx(region.eccentricity, abs=0.002)  # there a pixel is a point
        assert found_solidity == pytest.approx(
            region.solidity, rel=0.02
        )  # there in whole pixels, here the exact polygon


def test_a_crop_without_a_nucleus_has_the_same_columns_and_no_nuclear_measure(rng):
    dark, noise = np.zeros((1, 2, SIDE, SIDE)), 0.7 + 0.02 * rng.normal(size=(1, 2, SIDE, SIDE))
    values = measures(np.concatenate([crop(disk(12), BODY), dark, noise]), channels=CHANNELS)
    nuclear = ["nucleus_area_px", "n_nuclear_fragments", "n_neighbours", "nucleus_dark_spots", "tubulin_near_nucleus"]
    assert values.loc[0].notna().all()
    assert values.loc[1:, nuclear].isna().all(axis=None)
    assert not np.isinf(values.to_numpy()).any()


def test_a_crop_is_measured_alike_alone_and_in_a_stack_and_is_not_changed(rng):
    crops = np.concatenate([crop(disk(r), disk(2 * r)) for r in (6, 9, 12, 15)])
    crops += 0.02 * rng.normal(size=crops.shape)
    before = crops.copy()
    together = measures(crops, channels=CHANNELS)
    alone = pd.concat([measures(crops[i : i + 1], channels=CHANNELS) for i in range(4)], ignore_index=True)
    pd.testing.assert_frame_equal(together, alone, rtol=1e-12)
    np.testing.assert_array_equal(crops, before)


def test_without_a_channel_of_nuclei_what_needs_one_is_no_column():
    one = crop(disk(12), BODY)
    unnamed = measures(one, channels=["A", "B"])
    assert not [name for name in unnamed if name.startswith("nucle") or name.endswith(("polarity_px", "near_nucleus"))]
    assert unnamed["cell_area_px"].item() > 0
    named = measures(one, channels=["A", "B"], nuclei="A")
    assert named["nucleus_area_px"].item() == measured(disk(12), BODY)["nucleus_area_px"]
    alone = measures(one[:, :1], channels=["Hoechst"])
    assert alone["cell_area_px"].item() == alone["nucleus_area_px"].item()


def test_no_crops_give_a_table_without_rows_and_with_all_columns():
    none = measures(np.empty((0, 2, SIDE, SIDE)), channels=CHANNELS)
    assert list(none.columns) == list(measures(crop(disk(12), BODY), channels=CHANNELS).columns)
    assert len(none) == 0


def test_measures_are_grouped_by_what_they_are_of(rng):
    names = measures(np.zeros((0, 3, 36, 36)), channels=("DNA", "alpha_tubulin", "nucleus")).columns
    groups = by_subject({name: describe(name) for name in names})
    assert list(groups) == ["Nucleus", "Cell", "DNA", "alpha_tubulin", "nucleus"]
    assert [name for of_subject in groups.values() for name in of_subject] == list(names)
    assert groups["Cell"]["cell_area_px"] == "cell area within the crop, px²"
    assert {name for name in names if name.startswith("alpha_tubulin_")} == set(groups["alpha_tubulin"])


def test_every_measure_is_described_in_words_with_its_channel():
    columns = measures(np.zeros((1, 3, 40, 40)), channels=["DAPI", "alpha_tubulin", "actin"]).columns
    words = [describe(name) for name in columns]
    assert len(set(words)) == len(columns)
    assert describe("nucleus_area_px") == "nucleus area, px²"
    assert describe("alpha_tubulin_spots") == "bright spots of alpha_tubulin in the cell, number"
    assert "in the nucleus" in describe("DAPI_fine_texture")
    with pytest.raises(InputError, match='measure "nucleus_size": not known; expected one of nucleus_area_px'):
        describe("nucleus_size")


def test_what_cannot_be_measured_is_told():
    one = crop(disk(12), BODY)
    with pytest.raises(InputError, match='there is no channel "ER"; expected one of DNA, tubulin'):
        measures(one, channels=CHANNELS, nuclei="ER")
    with pytest.raises(InputError, match="DNA, DNA"):
        measures(one, channels=["DNA", "DNA"])
    with pytest.raises(InputError, match="not finite"):
        measures(np.full_like(one, np.nan), channels=CHANNELS)
    with pytest.raises(InputError, match="expected at least one cell as"):
        measures(one, channels=["DNA"])


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measures of simulated cells of all twelve mechanisms, and what was planted in each of them."""
    folder = tmp_path_factory.mktemp("planted")
    config = SimulateConfig(batches=1, replicates=1, compounds=1, doses=1, active_doses=1, least_efficacy=1)
    simulate(folder / "screen", config)
    make_crops(folder / "screen", folder / "crops", layout="bbbc021", config=CropConfig(crop_px=SIDE))
    store = CropStore.open(folder / "crops")
    truth = pd.read_parquet(folder / "screen" / "truth.parquet")
    place = ["plate", "well", "site", "object_number"]
    truth = store.cells[place].merge(truth, on=place, how="left", validate="1:1")
    crops = store.take(np.arange(len(store))).astype(float)
    return measures(crops / crops.max(axis=(2, 3), keepdims=True), channels=store.channels), truth


@pytest.mark.slow
def test_measures_of_simulated_cells_follow_what_was_planted(planted: tuple[pd.DataFrame, pd.DataFrame]):
    found, truth = planted
    interphase = (truth["state"] == "interphase").to_numpy()
    found, truth = found[interphase], truth[interphase]
    assert found["nucleus_area_px"].notna().mean() > 0.99
    assert found["nucleus_area_px"].corr(truth["nucleus_area_px"], method="spearman") > 0.93
    whole = truth["n_fragments"] == 1
    follow = {"nucleus_eccentricity": "nucleus_eccentricity", "DNA_fine_texture": "chromatin_contrast"}
    for measure, parameter in follow.items():
        assert found.loc[whole, measure].corr(truth.loc[whole, parameter], method="spearman") > 0.6, measure
    assert found["cell_area_px"].corr(truth["cell_radius_px"], method="spearman") > 0.65
    assert found["tubulin_fibres"].corr(truth["tubulin_diffuse"], method="spearman") < -0.5


@pytest.mark.slow
def test_fragmented_nuclei_of_simulated_cells_are_told_from_whole_ones(planted: tuple[pd.DataFrame, pd.DataFrame]):
    found, truth = planted
    interphase = truth["state"] == "interphase"
    fragmented = truth.loc[interphase, "n_fragments"] > 1
    assert 10 < fragmented.sum() < 0.5 * len(fragmented)
    assert roc_auc_score(fragmented, found.loc[interphase, "n_nuclear_fragments"].fillna(0)) > 0.75
    assert roc_auc_score(fragmented, -found.loc[interphase, "nucleus_solidity"].fillna(1)) > 0.85


def test_a_nucleus_that_fills_its_crop_is_the_whole_cell():
    crops = np.full((1, 3, 40, 40), 0.9)
    crops[0, 0, 5:14, 5:14] = 0  # a dark hole gives the background; filled, the nucleus reaches to every border
    table = measures(crops, channels=("DNA", "tubulin", "actin"))
    assert table["nucleus_area_px"].item() == table["cell_area_px"].item() == 40 * 40
