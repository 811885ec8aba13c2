"""Centres from what CellProfiler, cytominer-database, CytoTable and DeepProfiler write: always the one table."""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from phenolens.core.errors import InputError
from phenolens.screens.centres import read_centres
from phenolens.screens.read_image import read_field
from phenolens.screens.screen import Screen, checked_screen

FIELDS = [("007", "B02", 1), ("007", "B02", 2), ("007", "B03", 1)]  # ImageNumber 1, 2, 3
NUCLEI = [(1, 1, 15.0, 24.5), (1, 2, 30.0, 8.0), (2, 1, 5.5, 6.0), (3, 4, 20.0, 21.0)]  # image, object, y, x


def screen_of(fields, **files) -> Screen:
    """A screen of these fields, the first well the control."""
    table = pd.DataFrame(fields, columns=["plate", "well", "site"])
    table["compound"] = np.where(table["well"] == table["well"][0], "DMSO", "drug")
    table["role"] = np.where(table["compound"] == "DMSO", "control", "treated")
    table = table.assign(concentration_um=0.0, moa=None, batch=table["plate"], **files)
    return checked_screen(table, channels=["DNA"], folder=Path(), source="here")


@pytest.fixture
def screen():
    return screen_of(FIELDS)


@pytest.fixture
def nuclei():
    return pd.DataFrame(NUCLEI, columns=["ImageNumber", "ObjectNumber", "Location_Center_Y", "Location_Center_X"])


@pytest.fixture
def images():
    table = pd.DataFrame(FIELDS, columns=["Metadata_Plate", "Metadata_Well", "Metadata_Site"])
    return table.assign(ImageNumber=[1, 2, 3], Metadata_Well=["B2", "b02", "B3"])


@pytest.fixture
def expected():
    rows = [(*FIELDS[image - 1], number, y, x) for image, number, y, x in NUCLEI]
    return pd.DataFrame(rows, columns=["plate", "well", "site", "object_number", "y", "x"])


def refusal(path, screen) -> str:
    with pytest.raises(InputError) as error:
        read_centres(path, screen)
    assert "\n" not in str(error.value)
    return str(error.value)


def of_object(table: pd.DataFrame, prefix: str = "Nuclei_") -> pd.DataFrame:
    """CellProfiler's own columns with the object's name before them."""
    return table.rename(
        columns={name: prefix + name for name in ("Location_Center_Y", "Location_Center_X")}
        | {"ObjectNumber": f"{prefix}Number_Object_Number"}
    )


def write_sqlite(path, tables) -> Path:
    with closing(sqlite3.connect(path)) as database:
        for name, table in tables.items():
            table.to_sql(name, database, index=False)
    return path


def test_nuclei_and_images_are_joined_by_image_number(tmp_path, screen, nuclei, images, expected):
    nuclei.to_csv(tmp_path / "Nuclei.csv", index=False)
    images.to_csv(tmp_path / "image.csv", index=False)  # cytominer-database writes it small
    found, left_out = read_centres(tmp_path / "Nuclei.csv", screen)
    pd.testing.assert_frame_equal(found, expected)
    assert left_out == {}


def test_a_table_that_says_the_field_itself_is_read_as_ever(tmp_path, screen, nuclei, images, expected):
    nuclei.merge(images).drop(columns="ImageNumber").to_csv(tmp_path / "Nuclei.csv", index=False)
    (tmp_path / "Image.csv").write_text("this is not read")
    pd.testing.assert_frame_equal(read_centres(tmp_path / "Nuclei.csv", screen)[0], expected)
    pd.testing.assert_frame_equal(read_centres(tmp_path / "Nuclei.csv", screen)[0], expected)


def test_without_plates_the_names_of_files_say_which_field_it_is(tmp_path, nuclei, expected):
    screen = screen_of(FIELDS, file_DNA=["x/a.tif#page=1", "x/b.tif", "x/c.tif"])
    nuclei.to_csv(tmp_path / "Nuclei.csv", index=False)
    names = pd.DataFrame({"ImageNumber": [1, 2, 3], "FileName_DNA": ["a.tif", "b.tif", "c.tif"]})
    names.to_csv(tmp_path / "Image.csv", index=False)
    pd.testing.assert_frame_equal(read_centres(tmp_path / "Nuclei.csv", screen)[0], expected)
    screen = screen_of(FIELDS, file_DNA=["x/a.tif", "y/a.tif", "z/c.tif"])
    assert "does not name the field of an image" in refusal(tmp_path / "Nuclei.csv", screen)


@pytest.mark.parametrize("names", [("Per_Image", "Per_Nuclei"), ("Image", "Nuclei"), ("Per_Image", "Per_Object")])
def test_cellprofilers_sqlite_gives_the_same_table(tmp_path, screen, nuclei, images, expected, names):
    said = images.rename(columns={name: f"Image_{name}" for name in images if name.startswith("Metadata")})
    path = write_sqlite(tmp_path / "cells.sqlite", dict(zip(names, (said, of_object(nuclei)))))
    pd.testing.assert_frame_equal(read_centres(path, screen)[0], expected)


def test_table_number_keeps_images_of_one_number_apart(tmp_path, screen, nuclei, images, expected):
    numbers = pd.Series([11, 12, 13])  # cytominer-database: ImageNumber alone is not the key
    one = images.assign(TableNumber=numbers, ImageNumber=1)
    nuclei = nuclei.assign(TableNumber=numbers[nuclei["ImageNumber"] - 1].to_numpy(), ImageNumber=1)
    path = write_sqlite(tmp_path / "cells.db", {"Image": one, "Nuclei": of_object(nuclei)})
    pd.testing.assert_frame_equal(read_centres(path, screen)[0], expected)


@pytest.mark.parametrize("end", ["", "_x"])
def test_cytotables_parquet_gives_the_same_table(tmp_path, screen, nuclei, images, expected, end):
    said = images.rename(columns={name: f"Image_{name}{end}" for name in images if name.startswith("Metadata")})
    cells = of_object(nuclei).merge(said).rename(columns={"ImageNumber": "Metadata_ImageNumber"})
    cells = cells.rename(columns={"Nuclei_Number_Object_Number": "Metadata_Nuclei_Number_Object_Number"})
    cells.to_parquet(tmp_path / "cells.parquet")
    pd.testing.assert_frame_equal(read_centres(tmp_path / "cells.parquet", screen)[0], expected)


def test_deepprofilers_locations_count_objects_by_their_row(tmp_path, screen, nuclei, expected):
    folder = tmp_path / "inputs" / "locations" / "007"
    folder.mkdir(parents=True)
    for number, (_, well, site) in enumerate(FIELDS, start=1):
        rows = of_object(nuclei)[nuclei["ImageNumber"] == number]
        rows[["Nuclei_Location_Center_X", "Nuclei_Location_Center_Y"]].to_csv(
            folder / f"{well}-{site}-Nuclei.csv", index=False
        )
    by_row = expected.assign(object_number=[1, 2, 1, 1])
    for path in (tmp_path / "inputs", folder.parent):
        pd.testing.assert_frame_equal(read_centres(path, screen)[0], by_row)
    (folder / "B03-1-Nuclei.csv").write_bytes(b"")
    assert "B03-1-Nuclei.csv: an empty file of 0 bytes" in refusal(folder.parent, screen)
    found, left_out = read_centres(folder.parent, screen, skip_missing=True)
    assert (len(found), left_out) == (3, {"site folders or files without centres": 1})


def test_nuclei_without_their_images_are_refused(tmp_path, screen, nuclei, images):
    nuclei.to_csv(tmp_path / "Nuclei.csv", index=False)
    images[:2].to_csv(tmp_path / "Image.csv", index=False)
    assert "Image.csv: no row for ImageNumber 3, of 1 nuclei" in refusal(tmp_path / "Nuclei.csv", screen)
    pd.concat([images, images]).to_csv(tmp_path / "Image.csv", index=False)
    assert "ImageNumber 1 occurs twice" in refusal(tmp_path / "Nuclei.csv", screen)


def test_what_is_no_table_of_centres_is_refused(tmp_path, screen, nuclei, images):
    (tmp_path / "a.sqlite").write_text("not a database, though it is long enough")
    assert "a.sqlite: not a complete SQLite" in refusal(tmp_path / "a.sqlite", screen)
    assert "b.sqlite: no such file" in refusal(tmp_path / "b.sqlite", screen)
    assert "no table Per_Image or Image" in refusal(write_sqlite(tmp_path / "c.db", {"Nuclei": nuclei}), screen)
    lacking = write_sqlite(tmp_path / "d.db", {"Image": images, "Nuclei": nuclei.drop(columns="Location_Center_Y")})
    assert "d.db, Nuclei: no column Location_Center_Y" in refusal(lacking, screen)
    (tmp_path / "a.parquet").write_text("PAR1")
    assert "a.parquet: not a complete Parquet" in refusal(tmp_path / "a.parquet", screen)
    (tmp_path / "nothing").mkdir()
    assert "no folder in it holds Nuclei.csv" in refusal(tmp_path / "nothing", screen)
    (tmp_path / "locations").mkdir()
    assert "no file <plate>/<well>-<site>-Nuclei.csv" in refusal(tmp_path / "locations", screen)


def test_real_nuclei_lie_on_bright_dna_and_not_where_x_and_y_are_swapped(real_data):
    folder = real_data / "formats" / "cellprofiler_example_human"
    image = "AS_09125_050116030001_D03f00d0.tif"
    screen = screen_of([("p", "D03", 1), ("p", "D04", 1)], file_DNA=[image, "another.tif"])
    centres, _ = read_centres(folder / "Nuclei.csv", screen)
    (dna,) = read_field({"DNA": folder / image}, where="here")
    y, x = np.round(centres[["y", "x"]].to_numpy()).astype(int).T
    assert (len(centres), np.median(dna[y, x]), np.median(dna[x, y])) == (289, 72, 11)


def test_real_sqlite_nuclei_are_all_found(real_data):
    path = real_data / "formats" / "cellprofiler_sqlite" / "all_cellprofiler.sqlite"
    fields = [("001", f"{row}0{column}", site) for row in "CDEF" for column in (6, 7) for site in range(1, 5)]
    centres, _ = read_centres(path, screen_of(fields))
    assert len(centres) == 433
    assert centres.groupby(["well", "site"]).size()[("C06", 1)] == 14


def test_real_cytotable_rows_name_their_fields(real_data):
    path = real_data / "formats" / "nf1_cell_painting" / "Plate_2_with_image_data_shrunken.parquet"
    fields = [("Plate_2", "B07", 3), ("Plate_2", "D06", 2), ("Plate_2", "D07", 1)]
    assert "2 of 5 nuclei are in no field of the screen (first: plate Plate_2, well H12, site 1" in refusal(
        path, screen_of(fields)
    )
    centres, left_out = read_centres(path, screen_of(fields), skip_missing=True)
    assert left_out == {"nuclei in no field of the screen": 2}
    assert centres[["well", "object_number"]].to_numpy().tolist() == [["B07", 8], ["D06", 7], ["D07", 3]]
    np.testing.assert_allclose(centres[["y", "x"]].iloc[0], [229.469597, 401.369963], atol=1e-6)


def test_real_site_folders_with_empty_tables_are_named_or_counted(real_data):
    folder = real_data / "formats" / "cytominer_database"
    wells = [("A01", 1), ("A01", 2), ("B01", 1), ("B01", 2), ("E17", 4), ("J21", 2), ("N23", 5)]
    screen = screen_of([("SQ00015116", *well) for well in wells])
    assert "E17-4/Nuclei.csv: an empty file of 0 bytes" in refusal(folder / "data_b", screen).replace("\\", "/")
    centres, left_out = read_centres(folder / "data_b", screen, skip_missing=True)
    assert left_out == {"site folders or files without centres": 2}  # E17-4 of 0 bytes, N23-5 without an image
    assert centres.groupby("well").size().to_dict() == {"A01": 20, "B01": 20, "J21": 1}
    from_sqlite, _ = read_centres(folder / "data_b_sqlite" / "data_b.sqlite", screen)
    pd.testing.assert_frame_equal(from_sqlite, centres[centres["well"] != "J21"])


@pytest.mark.parametrize("objects", ["Nuclei", "FilteredNuclei"])
@pytest.mark.parametrize("prefix", ["", "MyExpt_"])
def test_names_that_cellprofiler_gives_by_default_are_found(
    tmp_path, screen, nuclei, images, expected, prefix, objects
):
    nuclei.to_csv(tmp_path / f"{prefix}{objects}.csv", index=False)
    images.to_csv(tmp_path / f"{prefix}Image.csv", index=False)
    said = images.rename(columns={name: f"Image_{name}" for name in images if name.startswith("Metadata")})
    cells = of_object(nuclei).rename(columns=lambda name: name.replace("Nuclei_", f"{objects}_"))
    database = write_sqlite(tmp_path / "cp.db", {f"{prefix}Per_Image": said, f"{prefix}Per_{objects}": cells})
    for path in (tmp_path / f"{prefix}{objects}.csv", tmp_path, database):
        pd.testing.assert_frame_equal(read_centres(path, screen, objects=objects)[0], expected)
    if objects != "Nuclei":
        for path in (tmp_path, database):
            assert "--objects" in refusal(path, screen)
            assert objects in refusal(path, screen)


def test_the_images_of_another_run_are_not_those_beside_the_nuclei(tmp_path, screen, nuclei, images):
    nuclei.to_csv(tmp_path / "MyExpt_Nuclei.csv", index=False)
    images.to_csv(tmp_path / "Image.csv", index=False)
    assert "MyExpt_Nuclei.csv" in refusal(tmp_path, screen)
    assert "MyExpt_Nuclei.csv" in refusal(tmp_path / "MyExpt_Nuclei.csv", screen)


def test_a_second_row_of_names_joins_the_first(tmp_path, screen, nuclei, images, expected):
    of = ",".join("Image" if name == "ImageNumber" else "Nuclei" for name in nuclei)
    (tmp_path / "Nuclei.csv").write_text(f"{of}\n{nuclei.to_csv(index=False)}")
    images.to_csv(tmp_path / "Image.csv", index=False)
    pd.testing.assert_frame_equal(read_centres(tmp_path / "Nuclei.csv", screen)[0], expected)


def test_a_nucleus_without_a_centre_is_refused_or_counted(tmp_path, screen, nuclei, images, expected):
    nuclei.loc[nuclei.index[-1], ["Location_Center_X", "Location_Center_Y"]] = np.nan
    nuclei.to_csv(tmp_path / "Nuclei.csv", index=False)
    images.to_csv(tmp_path / "Image.csv", index=False)
    for path in (tmp_path / "Nuclei.csv", tmp_path):
        assert "Location_Center_" in refusal(path, screen)
        found, left_out = read_centres(path, screen, skip_missing=True)
        assert (len(found), left_out) == (len(expected) - 1, {"nuclei without a centre": 1})


def test_files_in_locations_that_name_no_field_are_counted(tmp_path, screen, nuclei):
    folder = tmp_path / "locations" / "007"
    folder.mkdir(parents=True)
    of_object(nuclei)[:1].to_csv(folder / "B02-1-Nuclei.csv", index=False)
    of_object(nuclei)[:1].to_csv(folder / "B02_2.csv", index=False)
    assert read_centres(tmp_path, screen)[1] == {"files in locations that name no field": 1}
