"""What the tables of a screen say and is not used is named, and one image is of one field and channel."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from bbbc021_source import edit_csv, write_source
from layout_sources import (
    CHANNELS,
    PLATES,
    fields,
    read_screen,
    write_deepprofiler,
    write_images,
    write_loaddata,
    write_plate_map,
    write_table,
)
from phenolens.core.errors import InputError
from phenolens.crops.centres_on_pixels import CentresHeld, hold_centres
from phenolens.crops.check import check_source
from phenolens.crops.config import CropConfig
from phenolens.crops.make_crops import make_crops
from phenolens.profiles.columns import Columns
from phenolens.profiles.read_table import ForeignTable
from phenolens.profiles.validate import refuse_repeated_rows
from phenolens.screens.config import LayoutConfig
from phenolens.screens.plate_map import read_plate_map
from phenolens.screens.read_image import read_field
from table_source import FEATURES, NAMED, wells

PATTERN = LayoutConfig(pattern="{plate}/{well}_s{site}_w{channel}.tif")


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path)


def screen_of(source, layout="pattern", config=PATTERN):
    return read_screen(source, layout=layout, config=config, treatments="all")


def refusal(source, layout="pattern", config=PATTERN) -> str:
    with pytest.raises(InputError) as error:
        screen_of(source, layout, config)
    assert "\n" not in str(error.value)
    return str(error.value)


def assert_named(text, *names):
    assert [name for name in names if name not in text] == []


# One image, one field and channel


def test_an_image_of_two_fields_is_refused_with_the_count(images):
    write_table(images)
    edit_csv(
        images / "images.csv",
        lambda t: t.assign(**{f"file_{c}": [t[f"file_{c}"][0], *t[f"file_{c}"][:-1]] for c in CHANNELS}),
    )
    assert_named(refusal(images, "table", None), 'well "B02", site 2', "007/B02_s1_wDNA.tif", "site 1", "2 such images")


def test_an_image_of_two_channels_is_refused(images):
    write_table(images)
    edit_csv(images / "images.csv", lambda t: t.assign(file_actin=t["file_DNA"] + "#page=1"))
    assert_named(refusal(images, "table", None), "007/B02_s1_wDNA.tif#page=1", '"DNA"', "12 such images")


def test_a_link_to_an_image_is_that_image(images):
    other = images / "p-2" / "B02_s1_wDNA.tif"
    other.unlink()
    other.symlink_to(images / "007" / "B02_s1_wDNA.tif")
    assert_named(refusal(write_plate_map(images)), "p-2/B02_s1_wDNA.tif", '"007"', "(1 such image)")


def test_deepprofilers_index_is_held_to_it_too(tmp_path):
    source = write_deepprofiler(tmp_path)
    edit_csv(source / "inputs" / "metadata" / "index.csv", lambda t: t.assign(actin=t["DNA"]))
    assert_named(refusal(source, "deepprofiler", None), "007/B02_s1_wDNA.tif", "12 such images")


def test_folders_that_end_alike_are_never_one(images):
    """Plate p-2 is not here, and its folder ends as that of 007."""
    write_loaddata(write_plate_map(images), path_name="/elsewhere")
    moved = lambda t: t.assign(**{f"PathName_{c}": "/data/" + t["Metadata_Plate"] + "/Images" for c in CHANNELS})  # noqa: E731
    (images / "007").rename(images / "Images")
    edit_csv(images / "load_data.csv", moved)
    assert_named(refusal(images, "loaddata", None), 'plate "p-2"', "Images/B02_s1_wDNA.tif", '"007"', "12 such images")
    of_other_wells = lambda t: moved(t)[(t["Metadata_Plate"] == "007") != (t["Metadata_Well"] == "C11")]  # noqa: E731
    edit_csv(images / "load_data.csv", of_other_wells)
    assert_named(refusal(images, "loaddata", None), "load_data.csv", "/data/007/Images", "/data/p-2/Images")


def moved(source, to: str, *, rename=str):
    """The images of each plate in another folder, and under other names."""
    write_loaddata(write_plate_map(source), path_name="/elsewhere")
    for plate in PLATES:
        (source / to).mkdir(parents=True, exist_ok=True)
        (source / plate).rename(source / to / f"{plate}_images")
    for path in list(source.glob(f"{to}/*/*.tif")):
        path.rename(path.with_name(rename(path.name)))
    return source


@pytest.mark.parametrize(
    ("rename", "there"),
    [(str, "B02_s1_wDNA.tif"), (str.upper, "B02_S1_WDNA.TIF"), (lambda name: f"{name}f", "B02_s1_wDNA.tiff")],
)
def test_images_of_loaddata_that_are_elsewhere_are_named_where_they_are(images, rename, there):
    line = refusal(moved(images, "raw", rename=rename), "loaddata", None)
    assert_named(line, "expected B02_s1_wDNA.tif under", f"There is raw/007_images/{there} and 1 more", "24 such files")


def test_an_image_of_loaddata_that_is_nowhere_is_said_to_be(images):
    source = moved(images, "raw", rename=lambda name: f"x{name}")
    assert "No image B02_s1_wDNA.tif is anywhere in" in refusal(source, "loaddata", None)
    with pytest.raises(InputError, match=r"none of the 12 fields has an image of each channel. No image B02"):
        read_screen(source, layout="loaddata", treatments="all", skip_missing=True)


def test_images_of_several_folders_in_one_are_reported(images):
    write_loaddata(write_plate_map(images))
    for path in list(images.glob("*/*.tif")):
        path.rename(images / f"{path.parent.name}_{path.name}")
    for plate in PLATES:
        (images / plate).rmdir()
    edit_csv(
        images / "load_data.csv",
        lambda t: t.assign(**{f"FileName_{c}": t["Metadata_Plate"] + "_" + t[f"FileName_{c}"] for c in CHANNELS}),
    )
    (note,) = [note for note in screen_of(images, "loaddata", None).notes if "source itself" in note]
    assert_named(note, "load_data.csv", "/mnt/nas/screen/007", "/mnt/nas/screen/p-2")
    edit_csv(images / "load_data.csv", lambda t: t[t["Metadata_Plate"] == "007"])
    (note,) = [note for note in screen_of(images, "loaddata", None).notes if "source itself" in note]
    assert_named(note, "images of 1 folder are", "/mnt/nas/screen/007")
    edit_csv(images / "load_data.csv", lambda t: t.assign(**{f"PathName_{c}": str(images) for c in CHANNELS}))
    assert not any("source itself" in note for note in screen_of(images, "loaddata", None).notes)


def test_wells_with_the_same_profile_are_refused():
    import anndata

    profiles = anndata.AnnData(np.array([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]]), obs=pd.DataFrame(index=["a", "b", "c"]))
    with pytest.raises(InputError) as error:
        refuse_repeated_rows(profiles, what="wells")
    assert_named(str(error.value), "wells", '"c"', '"a"', "1 such row of 3")


# Columns


def test_columns_that_are_not_read_and_columns_that_are_pooled_are_named(images):
    edit_csv(
        write_plate_map(images) / "plate_map.csv",
        lambda t: t.assign(
            Compound=["DMSO", "a", "a"], concentration=1, MoA=None, time=["", "24h", "48h"], row="B", vendor="x"
        ),
    )
    notes = screen_of(images).notes
    assert any("plate_map.csv" in note and "not read: time, row, vendor" in note for note in notes)
    (pooled,) = [note for note in notes if "pooled" in note]
    assert_named(pooled, "plate_map.csv", "time", "24h", "48h")
    assert "vendor" not in pooled


def test_wells_of_one_value_of_a_column_are_taken(images):
    edit_csv(
        write_plate_map(images) / "plate_map.csv",
        lambda t: pd.concat([t.assign(plate=plate, time=f"{h}h", cell_line="U2OS") for plate, h in zip(PLATES, "12")]),
    )
    assert any("time (1h, 2h)" in note and "--only" in note for note in screen_of(images).notes)
    screen = screen_of(images, config=replace(PATTERN, only=("time=2h", "cell_line=U2OS")))
    assert set(screen.table["plate"]) == {"p-2"}
    assert set(screen.not_selected["plate"]) == {"007"}
    assert not any("time" in note or "cell_line" in note for note in screen.notes)
    assert len(screen_of(images, config=replace(PATTERN, only=("time=1h", "time=2h"))).wells) == 6
    for only, names in (("tim=2h", ('"time"',)), ("time=3h", ("1h",)), ("time", ("1h",))):
        assert_named(refusal(images, config=replace(PATTERN, only=(only,))), "--only", only, *names)


def test_columns_of_bbbc021s_tables_are_named(tmp_path):
    source = write_source(tmp_path)
    assert not any("not read" in note for note in read_screen(source, layout="bbbc021").notes)
    edit_csv(source / "BBBC021_v1_image.csv", lambda t: t.assign(time=[f"{row}h" for row in range(len(t))]))
    notes = read_screen(source, layout="bbbc021").notes
    assert any("not read: time" in note for note in notes)
    assert any("pooled" in note for note in notes)


@pytest.mark.parametrize("layout", ["table", "loaddata", "deepprofiler"])
def test_columns_of_every_table_are_named(tmp_path, layout):
    write = {"table": write_table, "loaddata": write_loaddata, "deepprofiler": write_deepprofiler}[layout]
    if layout != "deepprofiler":
        write_plate_map(write_images(tmp_path))
    source = write(tmp_path)
    if layout == "table":
        (source / "plate_map.csv").unlink()
    path = source / {"table": "images.csv", "loaddata": "load_data.csv"}.get(layout, "inputs/metadata/index.csv")
    edit_csv(path, lambda t: t.assign(Metadata_donor="x"))
    assert any(path.name in note and "Metadata_donor" in note for note in screen_of(source, layout, None).notes)


@pytest.mark.parametrize(
    "column", ["Concentration (uM)", "conc_uM", "dose", "Final Conc", "Metadata_Concentration..uM.", "conc. [µM]"]
)
def test_a_dose_column_of_another_name_is_read(images, column):
    edit_csv(write_plate_map(images) / "plate_map.csv", lambda t: t.rename(columns={"concentration": column}))
    assert screen_of(images).treatments["concentration_um"].tolist() == [5.0, 0.3]


def test_other_units_are_converted(images):
    edit_csv(write_plate_map(images) / "plate_map.csv", lambda t: t.rename(columns={"concentration": "dose_nM"}))
    assert screen_of(images).treatments["concentration_um"].tolist() == [0.005, 0.0003]


@pytest.mark.parametrize("column", ["log_conc_nM", "logconc", "pConc"])
def test_logarithms_of_concentrations_are_refused_without_a_flag_that_reads_them(images, column):
    edit_csv(write_plate_map(images) / "plate_map.csv", lambda t: t.rename(columns={"concentration": column}))
    assert_named(refusal(images), "plate_map.csv", column, "logarithms", "concentration_um")
    assert "--concentration" not in refusal(images)


@pytest.mark.parametrize("column", ["dose_level", "Konzentration", "amount (nM)"])
def test_a_column_that_may_hold_doses_is_refused_or_named_by_a_flag(images, column):
    edit_csv(write_plate_map(images) / "plate_map.csv", lambda t: t.rename(columns={"concentration": column}))
    assert_named(refusal(images), "plate_map.csv", column, "--concentration-column", "conc_nM")
    named = LayoutConfig(pattern=PATTERN.pattern, concentration_column=column)
    doses = screen_of(images, config=named).treatments["concentration_um"]
    np.testing.assert_allclose(doses, np.array([5.0, 0.3]) / (1000 if "nM" in column else 1))


@pytest.mark.parametrize("column", ["plate_name", "Assay Plate", "assay_barcode"])
def test_a_column_of_a_plate_map_that_may_name_the_plate_is_refused_or_named_by_a_flag(images, column):
    edit_csv(write_plate_map(images) / "plate_map.csv", lambda t: pd.concat([t.assign(**{column: p}) for p in PLATES]))
    assert_named(refusal(images), "plate_map.csv", column, "--plate-column")
    assert len(screen_of(images, config=replace(PATTERN, plate_column=column)).wells) == 6


def test_a_plate_map_of_other_plates_is_refused_with_the_names(images):
    edit_csv(write_plate_map(images) / "plate_map.csv", lambda t: t.assign(plate="Plate1"))
    assert_named(refusal(images), "plate_map.csv", "Plate1", "007", "p-2", "{plate}", "--pattern")


def plate_map_of_both(images, **more):
    """A plate map of all wells, with these columns beside the usual ones (a value per plate, or per well)."""
    rows = [(plate, *well) for plate in PLATES for well in (("B2", "DMSO", 0), ("B3", "one", 0.3), ("C11", "two", 5))]
    table = pd.DataFrame(rows, columns=["plate", "well", "compound", "conc"])
    for name, values in more.items():
        table[name] = np.repeat(values, 3) if len(values) == len(PLATES) else values
    table.to_csv(images / "plate_map.csv", index=False)


def test_wells_without_a_batch_or_role_are_counted(images):
    plate_map_of_both(images, batch=["week1", None], role=["", "treated", "treated", "control", None, None])
    screen = screen_of(images)
    assert screen.table.groupby("plate")["batch"].unique().str[0].to_dict() == {"007": "week1", "p-2": "p-2"}
    assert set(screen.table.loc[screen.table["well"] == "B02", "role"]) == {"control"}
    notes = "; ".join(screen.notes)
    assert_named(notes, "3 wells without a batch, which is then the plate: p-2")
    assert_named(notes, "3 wells without a role, which the compound decides: treated (2), control (1)")


def test_a_compound_with_another_mechanism_at_another_dose_is_noted(images, tmp_path):
    compounds, moa = ["DMSO", "one", "one"] * 2, [None, "actin", "tubulin"] * 2
    plate_map_of_both(images, compound=compounds, moa=moa)
    said = "1 compound with several mechanisms, each at some concentrations (the first: one, actin, tubulin)"
    assert any(said in note for note in screen_of(images).notes)
    plate_map_of_both(images, compound=compounds, moa=[None, "actin", None] * 2)
    assert not any("several mechanisms" in note for note in screen_of(images).notes)
    table = wells()
    table.loc[(table["drug"] == "dna1") & (table["uM"] == 1), "target"] = "actin"
    assert any("(the first: dna1, actin, dna)" in note for note in notes_of(table, tmp_path, NAMED))


def test_a_batch_in_some_wells_of_a_plate_only_is_refused(images):
    plate_map_of_both(images, batch=["w1", "w1", None, "w1", "w1", "w1"])
    assert_named(refusal(images), "1 of 3 wells of plate 007 have no batch", "w1")


def test_a_well_of_a_plate_map_without_a_plate_is_refused(images):
    plate_map_of_both(images)
    edit_csv(images / "plate_map.csv", lambda t: t.assign(plate=[*t["plate"][:5], ""]))
    assert_named(refusal(images), 'row 7: plate is ""', "the name of the plate")


def test_numbers_that_a_program_wrote_with_a_point_are_the_same_names(images):
    plate_map_of_both(images, batch=["1", "1.0"])
    assert set(screen_of(images).table["batch"]) == {"1"}
    plate_map_of_both(images, batch=["01", "1"])
    assert_named("; ".join(screen_of(images).notes), 'batch names "01" and "1" differ')


@pytest.mark.parametrize("column", ["plate", "batch"])
def test_a_barcode_that_excel_rounded_is_refused(images, tmp_path, column):
    plate_map_of_both(images, batch=["w1", "w2"])
    edit_csv(images / "plate_map.csv", lambda t: t.assign(**{column: "1.23457E+11"}))
    assert_named(refusal(images), f'{column} is "1.23457E+11"', "Excel")
    table = wells().assign(**{{"plate": "barcode", "batch": "week"}[column]: "1.23457E+11"})
    table.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(InputError, match="long number"):
        list(ForeignTable(tmp_path / "t.csv", NAMED).parts())


def test_a_well_that_its_row_and_column_contradict_is_refused(images):
    path = write_plate_map(images) / "plate_map.csv"
    edit_csv(path, lambda t: t.assign(row=["B", 2, "3"], column=["2", "4", "11"]))
    assert_named(refusal(images), "plate_map.csv, row 3", '"B03"', "B04", "row", "column")


@pytest.mark.parametrize(("rows", "columns"), [("BBC", (2, 3, 11)), ((2, 2, 3), (2, 3, 11)), ((1, 1, 2), (1, 2, 10))])
def test_a_row_and_column_that_say_what_the_well_says_are_read(images, rows, columns):
    """As letters, as numbers from 1, or as numbers from 0."""
    edit_csv(write_plate_map(images) / "plate_map.csv", lambda t: t.assign(row=list(rows), column=columns))
    assert not any("not read" in note for note in screen_of(images).notes)


@pytest.mark.parametrize("place", [("site", "site"), (1, 1)])
def test_the_place_of_a_field_does_not_contradict_the_well(images, place):
    write_table(images)
    edit_csv(images / "images.csv", lambda t: t.assign(row=t.get(place[0], place[0]), column=t.get(place[1], place[1])))
    assert any("not read: row, column" in note for note in screen_of(images, "table", None).notes)


@pytest.mark.parametrize(
    "names", ["Metadata_Row Metadata_Col", "Metadata_WellRow Metadata_WellColumn", "Row_Nr Col_Nr"]
)
@pytest.mark.parametrize("kind", ["shifted", "swapped", "shuffled", "one row"])
def test_a_well_of_loaddata_that_its_row_and_column_contradict_is_refused(images, names, kind):
    write_loaddata(write_plate_map(images))
    path, (row, column) = images / "load_data.csv", names.split()

    def edit(table):
        rows, columns = table["Metadata_Well"].str[0].map({"B": 2, "C": 3}), table["Metadata_Well"].str[1:].astype(int)
        if kind == "shuffled":  # each column sorted by itself
            rows, columns = np.tile([2, 2, 3], 4), np.tile([2, 3, 11], 4)
        places = {"shifted": (rows + 1, columns), "swapped": (columns, rows), "one row": (columns * 0 + 1, columns)}
        rows, columns = places.get(kind, (rows, columns))
        return table.assign(**{row: rows, column: columns})

    edit_csv(path, edit)
    line = refusal(images, "loaddata", None)
    assert_named(line, "load_data.csv, row ", f"{row} and {column} say ", "correct the table, or rename")


def test_columns_of_another_meaning_do_not_contradict_the_well(images):
    edit_csv(write_plate_map(images) / "plate_map.csv", lambda t: t.assign(row="first", column="left"))
    assert any("not read: row, column" in note for note in screen_of(images).notes)


def test_controls_of_several_doses_are_named_with_their_numbers(images):
    edit_csv(write_plate_map(images) / "plate_map.csv", lambda t: t.assign(Compound="b", concentration=[0.1, 0.5, 1]))
    edit_csv(images / "plate_map.csv", lambda t: t.assign(Compound=["taxol", "taxol", "b"]))
    (note,) = [note for note in screen_of(images, config=replace(PATTERN, control=("taxol",))).notes if "taxol" in note]
    assert_named(note, "0.1 µM (2)", "0.5 µM (2)", "role")


def test_roles_of_a_plate_map_may_have_capitals(images):
    edit_csv(write_plate_map(images) / "plate_map.csv", lambda t: t.assign(role=["Control", "TREATED", "other"]))
    assert set(screen_of(images).table["role"]) == {"control", "treated", "other"}


def test_mechanisms_that_are_not_known_are_counted(images):
    edit_csv(write_plate_map(images) / "plate_map.csv", lambda t: t.assign(MoA=["-", "unknown", "?"]))
    screen = screen_of(images)
    assert screen.treatments["moa"].isna().all()
    assert_named(" ".join(screen.notes), "moa", '"unknown" (2)', '"?" (2)')


def test_a_plate_map_without_any_concentration_or_compound_says_what_to_do(images):
    edit_csv(write_plate_map(images) / "plate_map.csv", lambda t: t.assign(concentration=["", "", ""]))
    assert_named(refusal(images), "plate_map.csv", "no treated well has a concentration", "delete the column", "0")
    edit_csv(images / "plate_map.csv", lambda t: t.assign(Compound=["", "", ""]))
    assert_named(refusal(images), "plate_map.csv", "fill in the column compound")


def test_controls_that_only_leaves_out_are_said(images):
    edit_csv(write_plate_map(images) / "plate_map.csv", lambda t: t.assign(time=["", "24h", "24h"]))
    text = refusal(images, config=replace(PATTERN, only=("time=24h",)))
    assert_named(text, "--only time=24h", "2 control wells", "plate_map.csv")


def test_an_empty_compound_of_a_control_is_to_be_filled_in(images):
    edit_csv(
        write_plate_map(images) / "plate_map.csv",
        lambda t: t.assign(Compound=["", "a", "b"], role=["control", "treated", "treated"]),
    )
    assert_named(refusal(images), "plate_map.csv", "empty compound", "B02", "DMSO")


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        (["B2,DMSO", "B3,a", "C11,b", "Total: 3 wells,"], ("row 5", '"Total: 3 wells"', "footer")),
        (["B2,DMSO", "B3,a", "C11,b", ",made by hand", "2026-11-28,"], ("row 5", "empty", "last 2 rows", "footer")),
        (["text,text", "B2,DMSO", "B3,a", "C11,b"], ("row 2", '"text"', "column names")),
        ([",µM", "B2,DMSO", "B3,a", "C11,b"], ("row 2", "empty", "units")),
        (["B2,DMSO", "B3?,a", "C11,b"], ("row 3", '"B3?"', "correct")),
    ],
)
def test_rows_that_are_no_wells_are_named_with_what_they_look_like(images, lines, names):
    (images / "plate_map.csv").write_text("\n".join(["well,compound", *lines]) + "\n")
    assert_named(refusal(images), "plate_map.csv", *names)


def test_wells_by_row_and_column_numbers_are_read_with_a_dash_only(images):
    edit_csv(write_plate_map(images) / "plate_map.csv", lambda t: t.assign(Metadata_Well=["02-02", "2-3", "03-11"]))
    assert set(screen_of(images).table["well"]) == {"B02", "B03", "C11"}
    edit_csv(images / "plate_map.csv", lambda t: t.assign(Metadata_Well=["0202", "0203", "0311"]))
    assert_named(refusal(images), "plate_map.csv, row 2", "202", "02-02")


def test_flags_name_the_columns_of_a_plate_map(images):
    renamed = {"Metadata_Well": "pos", "Compound": "gene", "MoA": "pathway", "concentration": "level"}
    edit_csv(
        write_plate_map(images) / "plate_map.csv", lambda t: t.rename(columns=renamed).assign(compound="none here")
    )
    flags = {"well_column": "pos", "compound_column": "gene", "mechanism_column": "pathway"}
    screen = screen_of(images, config=LayoutConfig(pattern=PATTERN.pattern, concentration_column="level", **flags))
    assert screen.treatments.to_numpy().tolist() == [["drug two", 5.0, None], ["drug/one", 0.3, "Actin disruptors"]]
    misspelt = LayoutConfig(pattern=PATTERN.pattern, **(flags | {"compound_column": "gen"}))
    assert_named(refusal(images, config=misspelt), "--compound-column", '"gen"', "gene")


# Names


def test_names_are_read_by_one_rule(images):
    edit_csv(
        write_plate_map(images) / "plate_map.csv",
        lambda t: t.assign(
            Compound=["dmso\u200b", "taxol ", "Taxol"], concentration=[0, 1, 2], MoA=["", "stab ", "stab"]
        ),
    )
    screen = screen_of(images, config=LayoutConfig(pattern=PATTERN.pattern, control=("DMSO\u00a0",)))
    assert screen.treatments[["compound", "moa"]].to_numpy().tolist() == [["Taxol", "stab"], ["taxol", "stab"]]
    assert any('"Taxol" and "taxol"' in note for note in screen.notes)


def test_a_plates_name_may_have_either_unicode_form(tmp_path):
    source = write_images(tmp_path / "screen")
    (source / "007").rename(source / "e\u0301 1")
    rows = [(plate, well, c) for plate in ("é 1 ", "p-2") for well, c in zip(("B2", "B3", "C11"), ("DMSO", "a", "b"))]
    pd.DataFrame(rows, columns=["plate", "well", "compound"]).to_csv(source / "plate_map.csv", index=False)
    assert set(screen_of(source).table["plate"]) == {"é 1", "p-2"}


def test_doses_within_a_per_cent_are_reported_or_joined_in_a_screen(images):
    edit_csv(
        write_plate_map(images) / "plate_map.csv",
        lambda t: t.assign(Compound=["DMSO", "a", "a"], concentration=[0, 0.3, 0.3001], MoA=None),
    )
    screen = screen_of(images)
    assert len(screen.treatments) == 2
    assert any("--same-dose-within" in note for note in screen.notes)
    joined = screen_of(images, config=LayoutConfig(pattern=PATTERN.pattern, same_dose_within=0.01))
    assert joined.treatments["concentration_um"].tolist() == [0.3]


# Centres


def nuclei_of(source, *, per_field=5, edit=lambda t: t) -> pd.DataFrame:
    """Bright discs in every image, and their centres in Nuclei.csv."""
    rng, rows = np.random.default_rng(0), []
    yy, xx = np.mgrid[:60, :90]
    for plate, well, site in fields():
        image = rng.normal(100, 5, (60, 90))
        for number, (y, x) in enumerate(zip(rng.integers(4, 56, per_field), rng.integers(4, 86, per_field)), start=1):
            image += 900 * np.exp(-((yy - y) ** 2 + (xx - x) ** 2) / 18)
            rows.append((plate, well, site, number, y, x))
        for channel in CHANNELS:
            tifffile.imwrite(source / plate / f"{well}_s{site}_w{channel}.tif", image.astype(np.uint16))
    names = ["plate", "well", "site", "ObjectNumber", "Location_Center_Y", "Location_Center_X"]
    edit(pd.DataFrame(rows, columns=names)).to_csv(source / "Nuclei.csv", index=False)


@pytest.mark.parametrize(
    ("edit", "names"),
    [
        (lambda t: t.assign(site=t["site"] - 1), ("30 of 60", "site 0", "0 to 1", "1 to 2")),
        (lambda t: t.assign(plate=t["plate"].replace("007", "7")), ("30 of 60", "plate 7", "007", "--skip-missing")),
        (lambda t: t.assign(well=t["well"].replace("C11", "D11")), ("20 of 60", "well D11")),
        (lambda t: t.assign(plate=t["plate"].where(t["plate"] != "007")), ("30 of 60",)),
    ],
)
def test_nuclei_in_no_field_are_refused_with_the_count(images, edit, names):
    write_plate_map(images)
    nuclei_of(images, edit=edit)
    with pytest.raises(InputError) as error:
        check_source(images, layout="pattern", config=PATTERN)
    assert_named(str(error.value), "Nuclei.csv", *names)


def test_nuclei_in_no_field_are_counted_where_they_may_be_skipped(images):
    write_plate_map(images)
    nuclei_of(images, edit=lambda t: t.assign(well=t["well"].replace("C11", "D11")))
    checked = check_source(images, layout="pattern", config=PATTERN, skip_missing=True)
    assert dict(checked.missing)["left out: nuclei in no field of the screen"] == "20"


def test_given_centres_are_held_against_the_pixels(images):
    write_plate_map(images)
    nuclei_of(images)
    checked = check_source(images, layout="pattern", config=PATTERN)
    assert_named(dict(checked.there)["centres"], "40 in 8 fields")
    screen = checked.screen
    cells = pd.read_csv(images / "Nuclei.csv", dtype={"plate": str}).rename(
        columns={"Location_Center_Y": "y", "Location_Center_X": "x"}
    )

    def held(cells):
        centres = CentresHeld(cells, screen.channels)
        for _, field in screen.table.iterrows():
            centres.add(field, read_field(screen.files(field), where=""))
        return centres.result()

    assert held(cells).problem == ""
    inside = cells[cells["x"] < 60]
    assert "x and y" in held(inside.assign(y=inside["x"], x=inside["y"])).problem
    elsewhere = cells.assign(site=3 - cells["site"])
    assert "mirrored" in held(elsewhere).problem
    few = held(elsewhere[:10])
    assert (few.n_cells, few.problem) == (10, "")


def test_centres_that_do_not_fit_are_refused_by_check_and_crop_unless_they_are_trusted(images, tmp_path, capsys):
    write_plate_map(images)
    nuclei_of(images, edit=lambda t: t.assign(site=3 - t["site"]))
    crops = CropConfig(crop_px=4, treatments="all")

    def crop(config):
        return make_crops(images, tmp_path / "crops", layout="pattern", config=crops, reading=config)

    for command in (lambda: check_source(images, layout="pattern", config=PATTERN), lambda: crop(PATTERN)):
        with pytest.raises(InputError, match=r"Nuclei\.csv.*do not fit the images.*--trust-centres"):
            command()
    trusted = replace(PATTERN, trust_centres=True)
    notes = [text for what, text in check_source(images, layout="pattern", config=trusted).there if what == "note"]
    assert any("may not fit the images" in note for note in notes)
    assert len(crop(trusted)) > 0
    assert "may not fit the images" in capsys.readouterr().err
    assert "trust_centres" not in (tmp_path / "crops" / "about.json").read_text()


# Tables to score


def notes_of(table, tmp_path, columns) -> set[str]:
    table.to_csv(tmp_path / "t.csv", index=False)
    read = ForeignTable(tmp_path / "t.csv", columns)
    list(read.parts())
    return read.notes


NAMED_WELLS = Columns(compound="drug", concentration="uM", plate="barcode", well="position", metadata=("[a-z]*",))
SCORED = Columns(compound="drug", plate="barcode", well="position", control=("DMSO",), metadata=("[a-z]*",))


def test_columns_of_a_table_to_score_are_named(tmp_path):
    table = wells().drop(columns=["uM", "drug_dose"]).assign(Metadata_Time=["24h", "48h"] * 34)
    notes = notes_of(table, tmp_path, SCORED)
    assert any("not read" in note and "Metadata_Time" in note for note in notes)
    assert any("pooled" in note and "Metadata_Time (24h, 48h)" in note for note in notes)


def test_controls_of_several_compounds_are_noted(tmp_path):
    table = wells().drop(columns=["uM", "drug_dose"])
    both = replace(SCORED, control=("DMSO", table["drug"][0]))
    assert not any("negative controls" in note for note in notes_of(table, tmp_path, SCORED))
    (note,) = [note for note in notes_of(table, tmp_path, both) if "negative controls" in note]
    assert_named(note, "2 compounds", "DMSO (32)", table["drug"][0])


def test_a_text_of_each_well_is_pooled_and_a_measurement_or_a_file_is_not(tmp_path):
    table = wells().drop(columns=["uM", "drug_dose"])
    numbers = [f"{0.1 * row:.1f}" for row in range(len(table))]
    texts = {"Metadata_Partner": "siRNA ", "Metadata_FileName": "image ", "Metadata_Area": ""}
    table = table.assign(**{name: [text + number for number in numbers] for name, text in texts.items()})
    (pooled,) = [note for note in notes_of(table, tmp_path, SCORED) if "pooled" in note]
    assert "Metadata_Partner (" in pooled
    assert "Metadata_Area" not in pooled
    assert "Metadata_FileName" not in pooled


def test_concentrations_of_a_table_to_score_are_read_or_refused(tmp_path):
    table = wells().drop(columns="drug_dose")
    for name, factor in (("Metadata_Dose_nM", 1000), ("Metadata_conc", 1)):
        given = table.assign(uM=table["uM"] * factor).rename(columns={"uM": name})
        notes = notes_of(given, tmp_path, SCORED)
        assert any(name in note and "--concentration" in note for note in notes)
        (part,) = [*ForeignTable(tmp_path / "t.csv", SCORED).parts()]
        assert set(part.obs["Metadata_Concentration_um"]) == {0, 1, 10}
        assert list(part.var_names) == FEATURES
    with pytest.raises(InputError) as error:
        notes_of(table.rename(columns={"uM": "Metadata_Dose_Level"}), tmp_path, SCORED)
    assert_named(str(error.value), "Metadata_Dose_Level", "--concentration")
    with pytest.raises(InputError) as error:
        notes_of(table.rename(columns={"uM": "dose"}), tmp_path, Columns(compound="drug"))
    assert_named(str(error.value), "dose", "--concentration")


@pytest.mark.parametrize("name", ["uM", "molarity", "ug_per_ml", "volume_nl", "Transfer Volume"])
def test_a_dose_column_that_is_called_by_its_unit_is_no_feature(tmp_path, name):
    table = wells().drop(columns="drug_dose").rename(columns={"uM": name})
    with pytest.raises(InputError, match="may hold concentrations") as error:
        notes_of(table, tmp_path, Columns(compound="drug"))
    assert_named(str(error.value), name, "--concentration", "--metadata")


def test_a_plate_map_without_a_well_names_the_flag(tmp_path):
    pd.DataFrame({"position_in_plate": ["B02"], "compound": ["a"]}).to_csv(tmp_path / "m.csv", index=False)
    with pytest.raises(InputError) as error:
        read_plate_map(tmp_path / "m.csv")
    assert_named(str(error.value), "m.csv", "--well-column")
    pd.DataFrame({"well": ["1", "2"], "compound": ["a", "b"]}).to_csv(tmp_path / "m.csv", index=False)
    with pytest.raises(InputError) as error:
        read_plate_map(tmp_path / "m.csv")
    assert_named(str(error.value), '"1" is not a well name', "all wells", "--well-column")


def test_columns_of_another_meaning_in_a_plate_map_are_named(images):
    edit_csv(write_plate_map(images) / "plate_map.csv", lambda t: t.assign(site=2))
    assert any("plate_map.csv" in note and "site" in note for note in screen_of(images).notes)


def test_treated_wells_at_concentration_0_are_reported_by_name(images):
    edit_csv(
        write_plate_map(images) / "plate_map.csv",
        lambda t: t.assign(Compound=["DMSO", "DMSO 0.1 %", "a"], concentration=[0, 0, 1], MoA=None),
    )
    assert any("DMSO 0.1 %" in note and "--control" in note for note in screen_of(images).notes)


def test_a_control_that_no_well_has_is_refused_with_the_nearest(images):
    write_plate_map(images)
    assert_named(
        refusal(images, config=LayoutConfig(pattern=PATTERN.pattern, control=("DMSO", "drug tow"))), "drug two"
    )


def test_wells_of_a_table_to_score_that_are_one_by_their_places_are_reported(tmp_path):
    table = wells().drop(columns="drug_dose")
    table.loc[0, "position"], table.loc[1, "position"] = "A1", "A01"
    assert any('"A01" and "A1"' in note for note in notes_of(table, tmp_path, NAMED_WELLS))


def test_images_that_are_there_twice_under_other_names_are_reported(images, tmp_path, capsys):
    write_plate_map(images)
    nuclei_of(images)
    for channel in CHANNELS:
        copied = (images / "007" / f"B03_s1_w{channel}.tif").read_bytes()
        (images / "007" / f"C11_s1_w{channel}.tif").write_bytes(copied)
    table = pd.read_csv(images / "Nuclei.csv", dtype={"plate": str})
    of_copy = table[(table["plate"] == "007") & (table["well"] == "B03") & (table["site"] == 1)].assign(well="C11")
    others = table[~((table["plate"] == "007") & (table["well"] == "C11") & (table["site"] == 1))]
    pd.concat([others, of_copy]).to_csv(images / "Nuclei.csv", index=False)
    config = CropConfig(crop_px=8, treatments="all", leave_out=())
    make_crops(images, tmp_path / "crops", layout="pattern", reading=PATTERN, config=config)
    assert_named(capsys.readouterr().err, "crops are alike", 'plate "007", well "B03", site 1')


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda t: t.assign(y=59 - t["y"]), "y counts from the bottom"),
        (lambda t: t.assign(x=89 - t["x"]), "x counts from the right"),
        (lambda t: t.assign(y=59 - t["y"], x=89 - t["x"]), "y and x count"),
    ],
)
def test_centres_that_count_from_another_side_are_found(images, edit, words):
    write_plate_map(images)
    nuclei_of(images)
    screen = screen_of(images)
    cells = pd.read_csv(images / "Nuclei.csv", dtype={"plate": str})
    cells = cells.rename(columns={"Location_Center_Y": "y", "Location_Center_X": "x"})
    assert words in hold_centres(screen, edit(cells)).problem
    assert hold_centres(screen, cells).problem == ""


@pytest.mark.parametrize(
    ("layout", "setting"),
    [
        ("bbbc021", {"same_dose_within": 0.01}),
        ("bbbc021", {"compound_column": "gene"}),
        ("cropset", {"centres": Path("Nuclei.csv")}),
        ("table", {"pattern": "{well}.tif"}),
        ("pattern", {"table": Path("images.csv")}),
    ],
)
def test_a_flag_that_a_layout_does_not_use_is_refused(images, layout, setting):
    with pytest.raises(InputError, match=f"--{next(iter(setting))}".replace("_", "-")):
        check_source(images, layout=layout, config=LayoutConfig(**setting))


@pytest.mark.parametrize("skip_missing", [False, True])
def test_sites_of_one_well_that_count_from_0_are_refused_in_any_case(images, skip_missing):
    write_plate_map(images)
    nuclei_of(images, edit=lambda t: t.assign(site=t["site"] - ((t["well"] == "B03") & (t["plate"] == "007"))))
    with pytest.raises(InputError) as error:
        check_source(images, layout="pattern", config=PATTERN, skip_missing=skip_missing)
    assert_named(str(error.value), "007 B03", "0 to 1", "1 to 2")
