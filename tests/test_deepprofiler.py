"""A project of DeepProfiler, index and locations, is a complete source."""

import re

import numpy as np
import pandas as pd
import pytest

from layout_sources import CHANNELS, fields, pixels, read_screen, write_deepprofiler, write_locations, write_plate_map
from phenolens.cli import main
from phenolens.core.errors import InputError
from phenolens.crops.check import check_source
from phenolens.crops.config import CropConfig
from phenolens.crops.make_crops import make_crops


@pytest.fixture
def project(tmp_path):
    return write_locations(write_deepprofiler(tmp_path / "project"))


def edited(project, edit) -> None:
    path = project / "inputs" / "metadata" / "index.csv"
    edit(pd.read_csv(path, dtype={"Metadata_Plate": str})).to_csv(path, index=False)


def refusal(project, **choice) -> str:
    with pytest.raises(InputError) as error:
        read_screen(project, layout="deepprofiler", treatments="all", **choice)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_crops_are_the_pixels_around_its_locations(project, tmp_path):
    config = CropConfig(crop_px=10, treatments="all")
    store = make_crops(project, tmp_path / "crops", layout="deepprofiler", config=config)
    assert len(store) == len(fields()) - 1  # the last field has no file of locations
    for place, (_, cell) in zip(range(len(store)), store.cells.iterrows(), strict=True):
        for channel, crop in zip(CHANNELS, store.take([place])[0]):
            whole = pixels(cell["plate"], cell["well"], cell["site"], channel)
            np.testing.assert_array_equal(crop, whole[15:25, 20:30])


def test_check_names_the_project_its_cells_and_the_field_without_one(project, capsys):
    checked = check_source(project, layout="deepprofiler")
    there = dict(checked.there)
    assert there["layout"] == "deepprofiler"
    assert there["channels"] == "DNA, actin"
    assert there["cells"].startswith("11 in ")
    assert there["cells"].split(",")[0].endswith("locations")
    assert dict(checked.missing)["fields without a cell"] == "1"
    assert main(["check", str(project), "--layout", "deepprofiler"]) == 0
    assert f"STUDY --source {project} --layout deepprofiler" in capsys.readouterr().err


def test_the_folder_of_inputs_is_a_source_too(project):
    whole = read_screen(project, layout="deepprofiler", treatments="all")
    inside = read_screen(project / "inputs", layout="deepprofiler", treatments="all")
    pd.testing.assert_series_equal(inside.table["file_DNA"], whole.table["file_DNA"].str.removeprefix("inputs/"))
    assert check_source(project / "inputs", layout="deepprofiler").has_cells


def test_a_plate_map_says_what_was_done_where_the_index_does_not(project):
    expected = read_screen(project, layout="deepprofiler", treatments="all").table
    edited(project, lambda index: index.drop(columns=["Compound", "Concentration", "moa", "Treatment"]))
    assert "no column for the compound" in refusal(project)
    write_plate_map(project)
    found = read_screen(project, layout="deepprofiler", treatments="all").table
    pd.testing.assert_frame_equal(found[expected.columns], expected)


def test_an_index_without_images_and_an_image_that_is_not_there_are_named(project):
    lost = next((project / "inputs" / "images" / "007").glob("B02_s1_wDNA*"))
    lost.unlink()
    assert 'plate "007", well "B02", site 1: channel "DNA" has no file' in refusal(project)
    edited(project, lambda index: index.drop(columns=list(CHANNELS)))
    assert re.search(r"index.csv: no column .* \(found: Metadata_Plate,", refusal(project))
    (project / "inputs" / "metadata" / "index.csv").unlink()
    assert "index.csv: no such file" in refusal(project)


def test_a_channel_with_one_file_of_another_kind_is_not_left_out_in_silence(project):
    name = pd.read_csv(project / "inputs" / "metadata" / "index.csv")["actin"][3]
    edited(project, lambda index: index.replace({name: f"{name}.jpg"}))
    said = refusal(project)
    assert said.startswith(f'index.csv, row 5: actin is "{name}.jpg"')


def test_a_column_of_pictures_that_are_not_read_is_refused(project):
    edited(project, lambda index: index.assign(ER=index["Metadata_Well"] + ".JPG"))
    assert re.match(r'index.csv, row 2: ER is "\w+\.JPG"; expected', refusal(project))


def test_a_centre_that_is_no_number_is_told_with_its_file(project):
    path = sorted((project / "inputs" / "locations").glob("*/*.csv"))[3]
    path.write_text(path.read_text().replace("20", "twenty").replace("25", "x"))
    with pytest.raises(InputError, match=rf"{path.name}, row 2: Location_Center_. is \"\w+\", expected a number"):
        check_source(project, layout="deepprofiler", skip_missing=True)


def test_a_centre_outside_its_field_is_told_by_check_already(project):
    path = sorted((project / "inputs" / "locations").glob("*/*.csv"))[3]
    path.write_text(path.read_text().replace("20", "2000"))
    with pytest.raises(InputError, match=r"object 1: centre y .* is outside the field of 40 x 50 px \(1 such cell\)"):
        check_source(project, layout="deepprofiler")
