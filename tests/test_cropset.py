import subprocess
import sys

import numpy as np
import pytest

from bbbc021_source import edit_csv
from cropset_source import FOLDER, write_cropset
from phenolens.core.errors import InputError
from phenolens.screens.bbbc021 import read_cropset


@pytest.fixture
def source(tmp_path):
    return write_cropset(tmp_path)


def refusal(source) -> str:
    with pytest.raises(InputError) as error:
        read_cropset(source)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_real_crop_set_is_read_whole(real_data, tmp_path):
    writer = real_data / "bbbc021" / "expand_crops.py"
    subprocess.run([sys.executable, writer, tmp_path], check=True, capture_output=True)
    screen, cells = read_cropset(tmp_path)
    assert len(cells) == 1_996
    assert screen.table["plate"].nunique() == 55
    assert screen.table["batch"].nunique() == 10
    assert len(screen.treatments) == 103
    assert screen.treatments["moa"].nunique() == 12
    assert len(screen.wells) == 543
    assert screen.left_out == {}
    assert not cells.duplicated(["plate", "well", "site", "object_number"]).any()


def test_each_crop_has_its_field_number_and_file(source):
    _, cells = read_cropset(source)
    first = cells.iloc[0]
    assert first[["plate", "well", "site", "object_number"]].tolist() == ["Week10_40111", "B02", 3, 1]
    assert first["path"] == f"{FOLDER}/B02_s3_w1111AB-0/B02_s3_w1111AB-0_1.npy"
    assert np.load(source / first["path"]).shape == (8, 8, 3)


def test_objects_are_in_the_order_of_their_numbers_not_of_their_text(source):
    _, cells = read_cropset(source)
    assert cells["object_number"].tolist() == [1, 12] * 4


def test_the_control_has_no_mechanism_and_the_unlabelled_are_left_out(source):
    screen, _ = read_cropset(source)
    assert set(screen.table["moa"][screen.table["role"] == "control"]) == {None}
    assert set(screen.table["compound"]) == {"DMSO", "drug/one"}


def test_all_treatments_come_when_asked_for(source):
    screen, cells = read_cropset(source, treatments="all")
    assert set(screen.table["compound"]) == {"DMSO", "drug/one", "drug two"}
    assert len(cells) == 12


def test_plates_and_wells_can_be_chosen(source):
    screen, cells = read_cropset(source, plates=["Week4_27861"], wells=["B03"])
    assert len(screen.table) == 1
    assert set(cells["plate"] + cells["well"]) == {"Week4_27861B03"}


def test_a_row_without_its_crop_is_named(source):
    gone = source / FOLDER / "B03_s3_w1861AB-0" / "B03_s3_w1861AB-0_12.npy"
    gone.unlink()
    assert f"metadata.csv names a crop that is not under {source}: {FOLDER}/B03_s3_w1861AB-0/" in refusal(source)
    screen, cells = read_cropset(source, skip_missing=True)
    assert len(cells) == 7
    assert screen.left_out == {"crops that metadata.csv names but are not there": 1}


def test_a_crop_without_a_row_is_named(source):
    edit_csv(source / "metadata.csv", lambda table: table[:-2])
    assert "a crop that metadata.csv does not name: " in refusal(source)
    assert "(the first of 2)" in refusal(source)
    screen, _ = read_cropset(source, skip_missing=True)
    assert screen.left_out == {"crops that metadata.csv does not name": 2}


def test_a_crop_listed_twice_is_refused(source):
    edit_csv(source / "metadata.csv", lambda table: table.assign(Single_Cell_Image_Name="one.npy"))
    assert "metadata.csv, row 3: path is" in refusal(source)


def test_an_object_listed_twice_is_refused(source):
    edit_csv(source / "metadata.csv", lambda table: table.assign(Single_Cell_Image_Id=1))
    assert "each object of a field in one row" in refusal(source)


@pytest.mark.parametrize(
    "column", ["moa", "Single_Cell_Image_Name", "Image_Metadata_Plate_DAPI", "Image_FileName_DAPI"]
)
def test_a_missing_column_is_named(source, column):
    edit_csv(source / "metadata.csv", lambda table: table.drop(columns=column))
    assert f"no column {column} (found: " in refusal(source)


def test_a_set_without_controls_is_refused(source):
    edit_csv(source / "metadata.csv", lambda table: table[table["Image_Metadata_Compound"] != "DMSO"])
    for path in (source / FOLDER).glob("B02*/*.npy"):
        path.unlink()
    assert "no well with the role control" in refusal(source)


def test_a_folder_that_is_no_crop_set_is_refused(source):
    (source / FOLDER).rename(source / "elsewhere")
    assert f"no folder {FOLDER}" in refusal(source)
    (source / "metadata.csv").unlink()
    assert "metadata.csv: no such file" in refusal(source)
