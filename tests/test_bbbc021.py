import gzip
import shutil

import pandas as pd
import pytest

from bbbc021_source import MECHANISMS, PLATES, edit_csv, write_labels, write_source
from phenolens.core.errors import InputError
from phenolens.screens.bbbc021 import read_bbbc021, roles


@pytest.fixture
def source(tmp_path):
    return write_source(tmp_path)


def refusal(source, **choice) -> str:
    with pytest.raises(InputError) as error:
        read_bbbc021(source, images=source, **choice)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_real_tables_are_the_papers_screen(real_data):
    screen = read_bbbc021(real_data / "bbbc021" / "metadata")
    wells = screen.wells
    assert wells["plate"].nunique() == 55
    assert set(wells["batch"]) == {f"Week{week}" for week in range(1, 11)}
    assert dict(wells["role"].value_counts()) == {"control": 330, "other": 330, "treated": 302}
    assert len(screen.treatments) == 103
    assert screen.treatments["compound"].nunique() == 38
    assert screen.treatments["moa"].nunique() == 12
    assert screen.channels == ("DNA", "tubulin", "actin")
    assert set(screen.table.groupby(["plate", "well"]).size()) == {4}


def test_the_real_treatments_have_three_wells_but_for_seven_with_two(real_data):
    wells = read_bbbc021(real_data / "bbbc021" / "metadata").wells
    treated = wells[wells["role"] == "treated"]
    n_wells = treated.groupby(["compound", "concentration_um"]).size()
    assert dict(n_wells.value_counts()) == {3: 96, 2: 7}


def test_taxol_in_the_positive_control_wells_is_no_treated_well(real_data):
    wells = read_bbbc021(real_data / "bbbc021" / "metadata").wells
    taxol = wells[(wells["compound"] == "taxol") & (wells["concentration_um"] == 0.3)]
    assert set(taxol["well"][taxol["role"] == "treated"]) == {"D05"}
    assert set(taxol["batch"][taxol["role"] == "treated"]) == {"Week1"}
    assert set(taxol["well"][taxol["role"] == "other"]) == {"E02", "F02", "G02", "B11", "C11", "D11"}


def test_all_treatments_of_the_real_tables_are_read_when_asked_for(real_data):
    screen = read_bbbc021(real_data / "bbbc021" / "metadata", treatments="all")
    assert len(screen.table) == 13_200
    unlabelled = screen.table[(screen.table["role"] == "treated") & screen.table["moa"].isna()]
    assert unlabelled["compound"].nunique() > 70
    assert screen.table["moa"].nunique() == 12


def test_the_real_fields_are_found_where_they_are_complete(real_data):
    folder = real_data / "bbbc021"
    screen = read_bbbc021(folder / "metadata", images=folder / "fields", skip_missing=True)
    assert list(screen.table["site"]) == [1, 2]
    assert set(screen.table["plate"]) == {"Week2_24381"}
    assert screen.left_out == {"fields without an image of each channel": 3_846}
    assert (screen.folder / screen.table["file_actin"][1]).name.startswith("Week2_180607_B02_s2_w4")


def test_the_real_field_without_actin_is_named(real_data):
    folder = real_data / "bbbc021"
    with pytest.raises(InputError) as error:
        read_bbbc021(folder / "metadata", images=folder / "fields", plates=["Week2_24381"], wells=["B02"], sites=[3])
    assert 'plate "Week2_24381", well "B02", site 3: channel "actin" has no file' in str(error.value)


@pytest.mark.parametrize("weeks_as_folders", [False, True])
def test_plates_are_found_as_unpacked_and_as_the_table_has_them(tmp_path, weeks_as_folders):
    source = write_source(tmp_path, weeks_as_folders=weeks_as_folders)
    screen = read_bbbc021(source, images=source)
    files = [source / name for channel in screen.channels for name in screen.table[f"file_{channel}"]]
    assert len(set(files)) == 3 * len(screen.table) == 36
    assert all(path.is_file() for path in files)


def test_the_batch_is_the_plates_week_though_table_number_says_otherwise(source):
    table = read_bbbc021(source).table
    assert set(zip(table["batch"], table["table_number"])) == {("Week1", 1), ("Week10", 0)}


def test_roles_follow_from_compound_dose_and_well():
    fields = pd.DataFrame(
        [
            ("DMSO", 0.0, "B02", "control"),
            ("taxol", 0.3, "E02", "other"),
            ("taxol", 0.3, "D05", "treated"),
            ("taxol", 1.0, "E02", "treated"),
            ("emetine", 0.3, "E02", "treated"),
        ],
        columns=["compound", "concentration_um", "well", "expected"],
    )
    assert list(roles(fields)) == list(fields["expected"])


def test_unlabelled_treatments_are_left_out_unless_all_are_asked_for(source):
    assert set(read_bbbc021(source).table["compound"]) == {"DMSO", "drug/one", "taxol"}
    table = read_bbbc021(source, treatments="all").table
    assert set(table["moa"][table["compound"] == "drug two"]) == {None}


def test_without_images_the_screen_names_no_files(source):
    assert [name for name in read_bbbc021(source).table.columns if name.startswith("file_")] == []


def test_tables_may_be_compressed_and_have_old_line_ends(source):
    expected = read_bbbc021(source).table
    labels, images = source / "BBBC021_v1_moa.csv", source / "BBBC021_v1_image.csv"
    labels.write_bytes(labels.read_bytes().replace(b"\n", b"\r"))
    images.with_name("BBBC021_v1_image.csv.gz").write_bytes(gzip.compress(images.read_bytes()))
    images.unlink()
    pd.testing.assert_frame_equal(read_bbbc021(source).table, expected)


def test_sources_are_the_sums_of_the_tables(source):
    before = read_bbbc021(source).sources
    write_labels(source, [("drug/one", 0.3, "Eg5 inhibitors"), ("taxol", 0.3, "Microtubule stabilizers")])
    after = read_bbbc021(source).sources
    assert set(before) == {"BBBC021_v1_image.csv", "BBBC021_v1_moa.csv"}
    assert before["BBBC021_v1_image.csv"] == after["BBBC021_v1_image.csv"]
    assert before["BBBC021_v1_moa.csv"] != after["BBBC021_v1_moa.csv"]


def test_a_missing_table_is_named(source):
    (source / "BBBC021_v1_moa.csv").unlink()
    assert "no BBBC021_v1_moa.csv or BBBC021_v1_moa.csv.gz" in refusal(source)


def test_a_missing_column_is_named(source):
    edit_csv(source / "BBBC021_v1_image.csv", lambda table: table.drop(columns="Image_PathName_Actin"))
    assert "BBBC021_v1_image.csv: no column Image_PathName_Actin (found: TableNumber," in refusal(source)


def test_a_table_cut_in_its_compressed_middle_is_refused(source):
    path = source / "BBBC021_v1_image.csv"
    whole = gzip.compress(path.read_bytes())
    path.unlink()
    path.with_name("BBBC021_v1_image.csv.gz").write_bytes(whole[: len(whole) // 2])
    assert "not a table of comma-separated values" in refusal(source)


def test_a_concentration_that_is_no_number_is_named_by_row(source):
    edit = {"Image_Metadata_Concentration": lambda table: ["high", *table["Image_Metadata_Concentration"][1:]]}
    edit_csv(source / "BBBC021_v1_image.csv", lambda table: table.assign(**edit))
    assert 'row 2: Image_Metadata_Concentration is "high", expected a number (1 such row)' in refusal(source)


def test_a_label_without_an_image_is_named_with_its_place(source):
    (source / "Week1_22123" / "B03_s2_w4123AB-0.tif").unlink()
    line = refusal(source)
    assert 'plate "Week1_22123", well "B03", site 2: channel "actin" has no file' in line
    assert "Week1_22123/B03_s2_w4123AB-0.tif" in line
    assert "--skip-missing" in line


def test_skip_missing_leaves_out_the_whole_field_and_counts_it(source):
    (source / "Week1_22123" / "B03_s2_w4123AB-0.tif").unlink()
    (source / "Week1_22123" / "B03_s2_w2123AB-0.tif").unlink()
    screen = read_bbbc021(source, images=source, skip_missing=True)
    assert screen.left_out == {"fields without an image of each channel": 1}
    assert len(screen.table) == 11


def test_a_plate_that_is_not_there_is_told_before_any_work(source):
    shutil.rmtree(source / "Week10_40111")
    assert 'plate "Week10_40111", well "B02", site 1: channel "DNA" has no file' in refusal(source)
    assert set(read_bbbc021(source, images=source, plates=["Week1_22123"]).table["plate"]) == {"Week1_22123"}


def test_an_image_without_a_label_is_named(source):
    (source / "Week1_22123" / "G11_s1_w1123AB-0.tif").touch()
    assert "an image that the table does not name: Week1_22123/G11_s1_w1123AB-0.tif" in refusal(source)
    screen = read_bbbc021(source, images=source, skip_missing=True)
    assert screen.left_out == {"images that the table does not name": 1}


def test_a_plate_without_a_label_is_named(source):
    (source / "Week3_25421").mkdir()
    assert "an image that the table does not name: Week3_25421/" in refusal(source)


def test_images_of_unlabelled_treatments_are_no_images_without_a_label(source):
    assert read_bbbc021(source, images=source).left_out == {}


def test_a_labelled_treatment_that_no_well_has_is_named_with_its_nearest(source):
    labels = [(compound, dose, moa) for (compound, dose), moa in MECHANISMS.items()]
    write_labels(source, [*labels, ("drug-one", 0.3, "Actin disruptors"), ("taxoll", 1, "Actin disruptors")])
    line = refusal(source)
    assert "drug-one@0.3 (the first of 2)" in line
    assert 'the nearest compound there is "drug/one"' in line
    screen = read_bbbc021(source, images=source, skip_missing=True)
    assert screen.left_out == {"labelled treatments that no well has": 2}


def test_two_spellings_of_a_dose_are_one_treatment(source):
    path = source / "BBBC021_v1_moa.csv"
    path.write_text(path.read_text().replace("0.3,", "0.3000000001,"))
    assert len(read_bbbc021(source).treatments) == 2


def test_a_screen_without_control_wells_is_refused(source):
    edit_csv(source / "BBBC021_v1_image.csv", lambda table: table[table["Image_Metadata_Compound"] != "DMSO"])
    assert "no well with the role control" in refusal(source)


def test_a_file_name_of_another_well_is_refused(source):
    path = source / "BBBC021_v1_image.csv"
    path.write_text(path.read_text().replace("B03_s1_w2123", "B05_s1_w2123"))
    assert 'row 4: Image_FileName_Tubulin is "B05_s1_w2123AB-0.tif"' in refusal(source)


def test_a_file_name_without_a_site_is_refused(source):
    path = source / "BBBC021_v1_image.csv"
    path.write_text(path.read_text().replace("B03_s1_w2123", "B03_w2123"))
    assert 'row 4: Image_FileName_Tubulin is "B03_w2123AB-0.tif"' in refusal(source)


def test_a_plate_that_does_not_begin_with_its_week_is_refused(source):
    path = source / "BBBC021_v1_image.csv"
    path.write_text(path.read_text().replace("Week10_40111", "40111"))
    assert 'plate "40111" does not begin with its week' in refusal(source)


def test_a_plate_that_the_screen_does_not_have_is_refused(source):
    assert f"({len(PLATES)} are; the nearest is" in refusal(source, plates=["Week1_2212"])
