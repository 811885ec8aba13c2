import pandas as pd
import pytest

from bbbc021_source import edit_csv, write_source
from phenolens.core.errors import InputError
from phenolens.screens.bbbc021 import read_bbbc021
from phenolens.screens.centres import read_centres


@pytest.fixture
def source(tmp_path):
    return write_source(tmp_path)


@pytest.fixture
def screen(source):
    return read_bbbc021(source)


def refusal(source, screen, edit) -> str:
    edit_csv(source / "Nuclei.csv", edit)
    with pytest.raises(InputError) as error:
        read_centres(source / "Nuclei.csv", screen)[0]
    assert "\n" not in str(error.value)
    return str(error.value)


def test_nuclei_are_joined_to_their_field_by_table_and_image_number(source, screen):
    centres = read_centres(source / "Nuclei.csv", screen)[0]
    nucleus = centres[(centres["plate"] == "Week10_40111") & (centres["well"] == "B03") & (centres["site"] == 2)]
    assert nucleus[["object_number", "y", "x"]].to_numpy().tolist() == [[7, 15.0, 24.0]]  # the plate's fourth field


def test_nuclei_of_fields_that_the_screen_does_not_have_are_left_out(source, screen):
    assert len(pd.read_csv(source / "Nuclei.csv")) == 16
    assert len(read_centres(source / "Nuclei.csv", screen)[0]) == 12


@pytest.mark.parametrize("prefix", ["Metadata_", ""])
def test_fields_may_be_named_by_plate_well_and_site(source, screen, prefix):
    by_number = read_centres(source / "Nuclei.csv", screen)[0]
    names = [f"{prefix}{name}" for name in (("Plate", "Well", "Site") if prefix else ("plate", "well", "site"))]
    cells = by_number.rename(
        columns={"object_number": "ObjectNumber", "y": "Location_Center_Y", "x": "Location_Center_X"}
    )
    cells["well"] = cells["well"].str.replace("B0", "b")  # other programs write b2
    cells.rename(columns=dict(zip(["plate", "well", "site"], names))).to_csv(source / "Nuclei.csv", index=False)
    pd.testing.assert_frame_equal(read_centres(source / "Nuclei.csv", screen)[0], by_number)


def test_the_order_of_the_file_does_not_matter(source, screen):
    before = read_centres(source / "Nuclei.csv", screen)[0]
    edit_csv(source / "Nuclei.csv", lambda table: table[::-1])
    pd.testing.assert_frame_equal(read_centres(source / "Nuclei.csv", screen)[0], before)


def test_a_missing_file_says_what_it_should_hold(source, screen):
    with pytest.raises(InputError, match=r"Nuclei2.csv: no such file; expected a table with the columns ObjectNumber"):
        read_centres(source / "Nuclei2.csv", screen)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda table: table.drop(columns="Location_Center_Y"), "no column Location_Center_Y"),
        (
            lambda table: table.drop(columns="ImageNumber"),
            "no columns that name the field: expected TableNumber, Image",
        ),
        (lambda table: table.iloc[:0], "no rows"),
        (
            lambda table: table.assign(Location_Center_X=[float("nan"), *table["Location_Center_X"][1:]]),
            'Nuclei.csv, row 2: Location_Center_X is "nan", expected a number (1 such row)',
        ),
        (
            lambda table: table.assign(TableNumber=77),
            "16 of 16 nuclei are in no field of the screen (first: table_number 77",
        ),
        (lambda table: pd.concat([table, table[:1]]), "object_number 7 occurs twice (1 such row)"),
    ],
)
def test_a_table_of_centres_that_cannot_be_used_is_refused(source, screen, edit, message):
    assert message in refusal(source, screen, edit)


def test_columns_of_metadata_that_are_not_read_are_named(source, screen, capsys):
    """Of a table of many columns, measurements are not named."""
    read_centres(source / "Nuclei.csv", screen)
    assert "not read" not in capsys.readouterr().err
    edit_csv(source / "Nuclei.csv", lambda table: table.assign(Location_Center_Z=1, Metadata_Time="24h"))
    read_centres(source / "Nuclei.csv", screen)
    assert "Nuclei.csv that are not read: Location_Center_Z, Metadata_Time" in capsys.readouterr().err
    edit_csv(source / "Nuclei.csv", lambda table: table.assign(**{f"Intensity_{n}": n for n in range(40)}))
    read_centres(source / "Nuclei.csv", screen)
    assert "not read: Metadata_Time\n" in capsys.readouterr().err
