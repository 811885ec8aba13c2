import numpy as np
import pandas as pd
import pytest
import tifffile

from bbbc021_source import HEIGHT, WIDTH, cut_crops, edit_csv, known_pixel, write_source
from cropset_source import FOLDER, known_crop, write_cropset
from phenolens.core.errors import InputError
from phenolens.crops.config import CropConfig
from phenolens.crops.make_crops import make_crops
from phenolens.crops.source import cut, fits_inside
from phenolens.screens.bbbc021 import read_bbbc021

SMALL = CropConfig(crop_px=8)


@pytest.fixture
def source(tmp_path):
    return write_source(tmp_path / "source")


@pytest.fixture
def cropset(tmp_path):
    return write_cropset(tmp_path / "cropset")


def refusal(source, folder, layout="bbbc021", config=SMALL) -> str:
    with pytest.raises(InputError) as error:
        make_crops(source, folder, layout=layout, config=config)
    assert "\n" not in str(error.value)
    assert not (folder / "about.json").exists() or '"complete": false' in (folder / "about.json").read_text()
    return str(error.value)


def move_nucleus(source, **position) -> None:
    """Put the first nucleus of a chosen field (Week1, B02, site 1) elsewhere."""
    edit_csv(source / "Nuclei.csv", lambda table: pd.concat([table[:1].assign(**position), table[1:]]))


def test_a_real_crop_is_cut_from_its_real_field_bit_for_bit(real_data, tmp_path):
    folder = real_data / "bbbc021"
    screen = read_bbbc021(
        folder / "metadata", images=folder / "fields", plates=["Week2_24381"], wells=["B02"], sites=[1, 2]
    )
    centres = pd.DataFrame(
        {
            "plate": "Week2_24381",
            "well": "B02",
            "site": [2, 1],
            "object_number": [84, 5],
            "y": [599, 400.2],
            "x": [1173, 700.9],
        }
    )
    store = cut_crops(screen, centres, tmp_path / "crops")
    published = np.load(folder / "crops" / "crops.npz")
    name = "Week2_180607_B02_s2_w15E8615AC-20DC-42E7-978F-B7B6A60E77FC_84.npy"
    dna, actin, tubulin = published["images"][published["names"] == name][0].transpose(2, 0, 1)
    assert store.channels == ("DNA", "tubulin", "actin")
    assert store.cells["cell_id"].tolist() == ["Week2_24381_B02_s1_5", "Week2_24381_B02_s2_84"]
    np.testing.assert_array_equal(store.take([1])[0], np.stack([dna, tubulin, actin]))


def test_the_real_crop_set_is_taken_over_with_channels_in_our_order(real_data, tmp_path):
    published = np.load(real_data / "bbbc021" / "crops" / "crops.npz")
    metadata = pd.read_csv(real_data / "bbbc021" / "crops" / "metadata.csv")
    for row, image in zip(metadata.itertuples(), published["images"]):
        path = tmp_path / "cropset" / FOLDER / row.Multi_Cell_Image_Name / row.Single_Cell_Image_Name
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, image)
    metadata.to_csv(tmp_path / "cropset" / "metadata.csv", index=False)
    store = make_crops(tmp_path / "cropset", tmp_path / "crops", layout="cropset")
    assert len(store) == 1_996
    assert len(store.plates) == 55
    assert store.cells["is_noise"].sum() == 55
    place = metadata["Image_Metadata_Plate_DAPI"] + "_" + metadata["Image_Metadata_Well_DAPI"]
    site = metadata["Image_FileName_DAPI"].str.extract(r"(_s\d)_w1", expand=False)
    cell_id = place + site + "_" + metadata["Single_Cell_Image_Id"].astype(str)
    rows = store.cells.reset_index().set_index("cell_id")["index"].loc[cell_id].to_numpy()
    np.testing.assert_array_equal(store.take(rows), published["images"][..., [0, 2, 1]].transpose(0, 3, 1, 2))


def test_a_crop_holds_the_pixels_around_its_centre(source, tmp_path):
    store = make_crops(source, tmp_path / "crops", layout="bbbc021", config=SMALL)
    cell = store.cells.query("cell_id == 'Week1_22123_B03_s2_7'")
    assert cell[["y", "x"]].to_numpy().tolist() == [[15.0, 24.0]]
    y, x = np.mgrid[11:19, 20:28]
    expected = np.stack([known_pixel(channel, y, x) for channel in range(3)])
    np.testing.assert_array_equal(store.take(cell.index)[0], expected)


@pytest.mark.parametrize(("y", "top"), [(10.0, 6), (10.49, 6), (10.5, 7), (11.49, 7), (11.5, 8)])
def test_centres_are_rounded_to_the_nearest_pixel_halves_upwards(y, top):
    rows = np.arange(HEIGHT, dtype=np.uint16)[:, np.newaxis] * np.ones(WIDTH, np.uint16)
    assert cut(rows[np.newaxis], np.array([y]), np.array([20.0]), 8)[0, 0, 0, 0] == top


def test_an_odd_side_has_the_centre_in_its_middle(rng):
    field = rng.integers(0, 65_536, (2, 40, 50), dtype=np.uint16)
    crop = cut(field, np.array([20.2]), np.array([30.0]), 7)[0]
    np.testing.assert_array_equal(crop[:, 3, 3], field[:, 20, 30])


def test_cutting_equals_slicing_one_cell_after_the_other(rng):
    field = rng.integers(0, 65_536, (3, 90, 120), dtype=np.uint16)
    y, x = rng.uniform(10, 80, 25), rng.uniform(10, 110, 25)
    expected = []
    for top, left in zip(np.floor(y + 0.5).astype(int) - 8, np.floor(x + 0.5).astype(int) - 8):
        expected.append(field[:, top : top + 16, left : left + 16])
    np.testing.assert_array_equal(cut(field, y, x, 16), expected)


def test_only_crops_that_lie_wholly_inside_fit():
    y = np.array([3.4, 3.5, 36.4, 36.5, 20.0, 20.0])
    x = np.array([25.0, 25.0, 25.0, 25.0, 3.0, 46.0])
    assert fits_inside(y, x, (40, 50), 8).tolist() == [False, True, True, False, False, True]


def test_cells_at_the_border_are_left_out_and_counted(source, tmp_path):
    move_nucleus(source, Location_Center_Y=1.0)
    store = make_crops(source, tmp_path / "crops", layout="bbbc021", config=SMALL)
    assert store.about["plates"]["Week1_22123"]["n_at_border"] == 1
    assert store.about["plates"]["Week10_40111"]["n_at_border"] == 0
    assert "Week1_22123_B02_s1_7" not in set(store.cells["cell_id"])
    assert len(store) == 11


@pytest.mark.parametrize(("y", "x"), [(-0.6, 20), (HEIGHT - 0.5, 20), (20, -1), (20, WIDTH)])
def test_a_centre_outside_its_field_is_named(source, tmp_path, y, x):
    move_nucleus(source, Location_Center_Y=y, Location_Center_X=x)
    line = refusal(source, tmp_path / "crops")
    assert f'plate "Week1_22123", well "B02", site 1, object 7: centre y {y:g}, x {x:g} is outside the field' in line
    assert "of 40 x 50 px (1 such cell)" in line
    assert not (tmp_path / "crops").exists()


def test_a_centre_that_is_no_number_is_named(source, tmp_path):
    screen = read_bbbc021(source, images=source)
    centres = screen.table[["plate", "well", "site"]].assign(object_number=1, y=20.0, x=np.nan)
    with pytest.raises(InputError, match=r'plate "Week10_40111", well "B02", site 1, object 1: centre'):
        cut_crops(screen, centres, tmp_path / "crops", config=SMALL)
    assert not (tmp_path / "crops").exists()


def test_two_cells_with_one_number_are_refused(source, tmp_path):
    screen = read_bbbc021(source, images=source)
    centres = pd.concat([screen.table[["plate", "well", "site"]].assign(object_number=1, y=20.0, x=20.0)] * 2)
    with pytest.raises(InputError, match="two cells with one object number"):
        cut_crops(screen, centres, tmp_path / "crops", config=SMALL)


def test_a_screen_without_images_cannot_be_cut(source, tmp_path):
    with pytest.raises(InputError, match="the screen names no images"):
        cut_crops(read_bbbc021(source), pd.DataFrame(), tmp_path / "crops")


def test_a_treatment_with_no_cells_is_named_or_counted(source, tmp_path):
    edit_csv(source / "Nuclei.csv", lambda table: table[~table["ImageNumber"].isin([3, 4])])  # well B03 on both plates
    line = refusal(source, tmp_path / "crops")
    assert "treatment drug/one@0.3 has no cell whose crop lies inside a field (1 of 2 treatments have none)" in line
    assert not (tmp_path / "crops").exists()
    store = make_crops(source, tmp_path / "crops", layout="bbbc021", config=CropConfig(crop_px=8, skip_missing=True))
    assert store.about["left_out"] == {"treatments without cells": 1}


def test_a_well_with_no_cells_is_named(source, tmp_path, capsys):
    edit_csv(source / "Nuclei.csv", lambda t: t[~((t["TableNumber"] == 1) & t["ImageNumber"].isin([3, 4]))])
    make_crops(source, tmp_path / "crops", layout="bbbc021", config=CropConfig(crop_px=8))
    assert "Week1_22123 B03" in capsys.readouterr().err


def test_a_plate_with_no_cells_is_named_or_counted(source, tmp_path):
    edit_csv(source / "Nuclei.csv", lambda table: table[table["TableNumber"] == 1])
    assert 'plate "Week10_40111" has no cell whose crop lies inside a field' in refusal(source, tmp_path / "crops")
    store = make_crops(source, tmp_path / "crops", layout="bbbc021", config=CropConfig(crop_px=8, skip_missing=True))
    assert store.plates == ("Week1_22123",)
    assert store.about["left_out"] == {"plates without cells": 1}


def test_crops_that_all_lie_at_the_border_are_refused(source, tmp_path):
    line = refusal(source, tmp_path / "crops", config=CropConfig(crop_px=40))
    assert "no cell has a crop that lies inside a field" in line


def test_a_crop_larger_than_the_field_is_refused(source, tmp_path):
    assert "is 40 x 50 px, smaller than a crop" in refusal(source, tmp_path / "crops", config=CropConfig(crop_px=41))


def test_fields_of_unequal_size_are_refused(source, tmp_path):
    for path in (source / "Week1_22123").glob("B03_s2_*"):
        tifffile.imwrite(path, np.arange(41 * 50, dtype=np.uint16).reshape(41, 50))
    line = refusal(source, tmp_path / "crops")
    assert 'plate "Week1_22123", well "B03", site 2: channel "DNA" is 41 x 50 px' in line
    assert "all fields must have the same size" in line


def test_fields_of_another_pixel_type_are_refused(source, tmp_path):
    for path in (source / "Week1_22123").glob("B03_s2_*"):
        tifffile.imwrite(path, np.ones((HEIGHT, WIDTH), dtype=np.uint8))
    line = refusal(source, tmp_path / "crops")
    assert 'plate "Week1_22123", well "B03", site 2: channel "DNA" is uint8' in line
    assert "is uint16" in line


def test_a_truncated_image_is_named_and_its_plate_is_not_half_written(source, tmp_path):
    path = source / "Week1_22123" / "B03_s2_w2123AB-0.tif"
    path.write_bytes(path.read_bytes()[:-1])
    line = refusal(source, tmp_path / "crops")
    assert 'plate "Week1_22123", well "B03", site 2: channel "tubulin" is truncated' in line
    assert not list((tmp_path / "crops").glob("*Week1_22123*"))


def test_a_dead_channel_is_refused_and_a_blank_field_is_noise(source, tmp_path):
    blank = np.full((HEIGHT, WIDTH), 500, np.uint16)
    for path in (source / "Week1_22123").glob("B03_s1_w4*"):
        tifffile.imwrite(path, blank)
    store = make_crops(source, tmp_path / "crops", layout="bbbc021", config=SMALL)
    assert store.cells["cell_id"][store.cells["is_noise"]].tolist() == ["Week1_22123_B03_s1_7"]
    for path in (source / "Week1_22123").glob("*_w4*"):
        tifffile.imwrite(path, blank)
    line = refusal(source, tmp_path / "crops")
    assert 'plate "Week1_22123": channel "actin" has one value in all pixels of all 6 crops' in line


def test_a_treatment_with_only_noise_crops_is_named_or_counted(source, tmp_path, rng):
    for path in source.glob("Week*/*B03_s*"):
        tifffile.imwrite(path, rng.normal(500, 40, (HEIGHT, WIDTH)).astype(np.uint16))
    assert "treatment drug/one@0.3 has only crops of camera noise" in refusal(source, tmp_path / "crops")
    store = make_crops(source, tmp_path / "crops", layout="bbbc021", config=CropConfig(crop_px=8, skip_missing=True))
    assert store.about["left_out"] == {"treatments with only noise crops": 1}


@pytest.mark.parametrize("leave_out", [("noise",), ()])
def test_cells_left_out_for_a_dark_stain_are_noted(source, tmp_path, rng, capsys, leave_out):
    def written(path, *, noise: bool) -> None:
        y, x = np.mgrid[:HEIGHT, :WIDTH]
        pixels = rng.integers(0, 200, (HEIGHT, WIDTH)) if noise else 1000 + 900 * np.sin(x / 4) * np.sin(y / 4)
        tifffile.imwrite(path, pixels.astype(np.uint16))

    for path in source.rglob("*.tif"):
        written(path, noise="_s1_w2" in path.name)  # tubulin
    store = make_crops(source, tmp_path / "crops", layout="bbbc021", config=CropConfig(crop_px=8, leave_out=leave_out))
    n = int(store.cells["flags"].str.contains("noise in tubulin").sum())
    note = f"{n} of {len(store)} crops are left out for noise in tubulin"
    assert n > 0
    assert (note in capsys.readouterr().err) == bool(leave_out)


def test_the_table_has_what_was_done_to_each_cell(source, tmp_path):
    cells = make_crops(source, tmp_path / "crops", layout="bbbc021", config=SMALL).cells
    cell = cells.set_index("cell_id").loc["Week10_40111_E02_s1_7"]
    assert cell[["field", "batch", "compound", "concentration_um", "role"]].tolist() == [
        "Week10_40111_E02_s1",
        "Week10",
        "taxol",
        0.3,
        "other",
    ]
    assert cells["cell_id"].is_unique


def test_plates_wells_sites_and_treatments_can_be_chosen(source, tmp_path):
    config = CropConfig(crop_px=8, plates=("Week1_22123",), wells=("B04",), sites=(2,), treatments="all")
    store = make_crops(source, tmp_path / "crops", layout="bbbc021", config=config)
    assert store.cells["cell_id"].tolist() == ["Week1_22123_B04_s2_7"]


def test_crops_are_taken_over_with_their_channels_in_order(cropset, tmp_path):
    store = make_crops(cropset, tmp_path / "crops", layout="cropset", config=SMALL)
    first = store.cells.index[store.cells["cell_id"] == "Week4_27861_B02_s3_12"]  # the first that was written
    np.testing.assert_array_equal(store.take(first)[0], known_crop(0).transpose(2, 0, 1)[[0, 2, 1]])
    assert store.cells["y"].isna().all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros((8, 8, 3), np.float32), "found float32 8 x 8 x 3, expected uint16 S x S x 3 (DNA, actin, tubulin)"),
        (np.zeros((8, 8), np.uint16), "found uint16 8 x 8, expected uint16"),
        (np.zeros((9, 8, 3), np.uint16), "the crop is 9 x 8 px, expected 8 x 8; give its side with --crop-px"),
        (np.array([{}]), "not a whole .npy"),
    ],
)
def test_a_crop_that_is_none_is_named(cropset, tmp_path, content, message):
    path = next((cropset / FOLDER).glob("B03*/*_12.npy"))
    np.save(path, content)
    line = refusal(cropset, tmp_path / "crops", layout="cropset")
    assert line.startswith(f"{path}: ")
    assert message in line


@pytest.mark.parametrize("n_bytes", [0, 5, 100, 300])
def test_a_crop_that_is_cut_short_is_named(cropset, tmp_path, n_bytes):
    path = next((cropset / FOLDER).glob("B03*/*_12.npy"))
    path.write_bytes(path.read_bytes()[:n_bytes])
    assert f"{path}: not a whole .npy" in refusal(cropset, tmp_path / "crops", layout="cropset")


def test_an_unknown_layout_names_the_known_ones(source, tmp_path):
    assert 'layout "zarr" is not known; expected bbbc021 or cropset' in refusal(source, tmp_path, layout="zarr")


@pytest.mark.parametrize(
    ("setting", "message"), [({"crop_px": 0}, "--crop-px 0"), ({"noise_correlation": 2}, "--noise-correlation 2")]
)
def test_settings_that_make_no_sense_are_refused(setting, message):
    with pytest.raises(InputError, match=message):
        CropConfig(**setting)
