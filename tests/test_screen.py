from pathlib import Path

import pandas as pd
import pytest

from phenolens.core.errors import InputError
from phenolens.screens.screen import Screen, Selection, checked_screen, treatment_name
from phenolens.screens.well_names import well_name


def four_wells() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "plate": ["P2", "P1", "P1", "P1"],
            "well": ["B02", "C03", "B03", "B02"],
            "site": [1, 1, 1, 1],
            "batch": ["b", "a", "a", "a"],
            "compound": ["DMSO", "taxol", "taxol", "DMSO"],
            "concentration_um": [0.0, 0.3, 3.0, 0.0],
            "moa": [None, "Microtubule stabilizers", "Microtubule stabilizers", None],
            "role": ["control", "other", "treated", "control"],
        }
    )


def checked(table: pd.DataFrame) -> Screen:
    return checked_screen(table, channels=["DNA"], folder=Path("images"), source="plate_map.csv")


def changed(row: int, **values: object) -> pd.DataFrame:
    table = four_wells().astype(object)
    for column, value in values.items():
        table.loc[row, column] = value
    return table


def test_a_screen_is_sorted_by_plate_well_and_site():
    table = checked(four_wells()).table
    assert list(table["plate"] + table["well"]) == ["P1B02", "P1B03", "P1C03", "P2B02"]


def test_the_given_table_is_not_edited():
    given = four_wells().astype({"concentration_um": str})  # becomes a number in the screen
    checked(given)
    pd.testing.assert_frame_equal(given, four_wells().astype({"concentration_um": str}))


def test_treatments_are_the_compounds_at_a_concentration_without_the_controls():
    treatments = checked(four_wells()).treatments
    assert list(treatment_name(treatments["compound"], treatments["concentration_um"])) == ["taxol@0.3", "taxol@3"]


def test_wells_have_one_row_however_many_sites():
    table = pd.concat([four_wells(), four_wells().assign(site=2)])
    assert len(checked(table).wells) == 4


@pytest.mark.parametrize(
    ("raw", "name"), [("b2", "B02"), ("B002", "B02"), (" H12 ", "H12"), ("\u200bＢ２", "B02"), ("AA7", "AA07")]
)
def test_well_names_get_two_digit_columns(raw, name):
    assert well_name(raw) == name


@pytest.mark.parametrize("raw", ["", "2B", "B", "B0", "B-2", "B123"])
def test_what_is_no_well_name_is_refused(raw):
    with pytest.raises(InputError, match="is not a well name"):
        well_name(raw)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (four_wells().drop(columns="moa"), "plate_map.csv: no column moa"),
        (four_wells().iloc[:0], "plate_map.csv: no rows"),
        (changed(1, compound=" "), 'column "compound" is empty at plate "P1", well "C03", site 1'),
        (changed(1, well="3C"), 'the well name is not like B02 at plate "P1", well "3C"'),
        (changed(1, role="dosed"), "the role is not one of treated, control, other"),
        (changed(1, concentration_um=-1), "the concentration is not a number of at least 0"),
        (changed(1, concentration_um=float("inf")), "the concentration is not a number of at least 0"),
        (changed(2, well="C03"), "the plate, well and site are those of an earlier row"),
        (changed(2, well="C03", site=2), 'one well, two treatments: plate "P1", well "C03"'),
        (changed(1, concentration_um=3.0, moa="Eg5 inhibitors"), 'one treatment, two mechanisms: compound "taxol"'),
        (changed(1, batch="b"), 'one plate, two batches: plate "P1"'),
        (four_wells().query("role != 'control'"), "no well with the role control"),
    ],
)
def test_a_table_that_breaks_a_promise_is_refused(table, message):
    with pytest.raises(InputError) as error:
        checked(table)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_select_takes_fields_that_are_in_all_of_the_choices():
    chosen = Selection(
        "all",
        plates=("P1",),
        wells=(
            "B02",
            "C03",
        ),
    ).of(checked(four_wells()))
    assert list(chosen.table["well"]) == ["B02", "C03"]
    assert list(chosen.table.index) == [0, 1]


def test_select_takes_all_when_nothing_is_chosen():
    screen = checked(four_wells())
    pd.testing.assert_frame_equal(Selection("all").of(screen).table, screen.table)


def test_select_names_the_nearest_of_what_the_screen_does_not_have():
    with pytest.raises(InputError, match='well "C04" is not in the screen \\(3 are; the nearest is "C03"\\)'):
        Selection("all", wells=("C04",)).of(checked(four_wells()))


def test_select_refuses_a_choice_that_leaves_nothing():
    with pytest.raises(InputError, match="no field is in all"):
        Selection("all", plates=("P2",), wells=("C03",)).of(checked(four_wells()))


def test_what_is_selected_for_its_mechanism_is_noted_with_what_is_not():
    screen = checked(changed(1, compound="novel", moa=None))
    selected = Selection().of(screen)
    assert list(selected.table["compound"]) == ["DMSO", "taxol", "DMSO"]
    assert selected.notes == ("1 well of 1 treatment without a mechanism left out; --treatments all takes them too",)
    unknown = checked(four_wells().assign(moa=None))
    (note,) = Selection().of(unknown).notes
    assert note == "images: no treatment has a mechanism (column moa); all are taken"
