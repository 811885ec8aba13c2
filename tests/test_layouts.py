"""The same screen in four layouts is the same screen; what does not fit is told in one line."""

import json
import os
import re
import unicodedata

import pandas as pd
import pytest

from bbbc021_source import edit_csv, write_source
from layout_sources import (
    CHANNELS,
    PLATES,
    WELLS,
    fields,
    pixels,
    read_screen,
    write_deepprofiler,
    write_images,
    write_loaddata,
    write_plate_map,
    write_plates,
    write_table,
)
from phenolens.core.errors import InputError
from phenolens.screens.bbbc021 import read_bbbc021
from phenolens.screens.config import LayoutConfig
from phenolens.screens.guess_layout import guess_layout
from phenolens.screens.read_image import read_field
from phenolens.screens.screen import COLUMNS

PATTERN = LayoutConfig(pattern="{plate}/{well}_s{site}_w{channel}.tif")
LAYOUTS = {
    "table": (lambda folder: write_table(write_images(folder)), LayoutConfig()),
    "loaddata": (lambda folder: write_loaddata(write_plate_map(write_images(folder))), LayoutConfig()),
    "pattern": (lambda folder: write_plate_map(write_images(folder)), PATTERN),
    "ome-zarr": (lambda folder: write_plates(write_plate_map(folder)), LayoutConfig()),
    "deepprofiler": (write_deepprofiler, LayoutConfig()),
}


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path)


def refusal(source, layout, config=None, **choice) -> str:
    with pytest.raises(InputError) as error:
        read_screen(source, layout=layout, config=config, **{"treatments": "all", **choice})
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_screen_that_was_written(tmp_path, layout):
    write, config = LAYOUTS[layout]
    screen = read_screen(write(tmp_path), layout=layout, config=config, treatments="all")
    rows = []
    for plate, well, site in fields():
        compound, dose, moa = WELLS[well]
        role = "control" if compound == "DMSO" else "treated"
        rows.append((plate, well, site, plate, compound, dose, moa, role))
    pd.testing.assert_frame_equal(screen.table[list(COLUMNS)], pd.DataFrame(rows, columns=list(COLUMNS)))
    assert screen.channels == CHANNELS
    assert screen.left_out == {}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_leads_to_the_pixels_of_each_field(tmp_path, layout):
    write, config = LAYOUTS[layout]
    screen = read_screen(write(tmp_path), layout=layout, config=config, treatments="all")
    for _, row in screen.table.iterrows():
        field = read_field({name: screen.folder / row[f"file_{name}"] for name in screen.channels}, where="here")
        for channel, image in zip(CHANNELS, field):
            assert (image == pixels(row["plate"], row["well"], row["site"], channel)).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_labelled_treatments_channels_and_fields_are_chosen_alike(tmp_path, layout):
    write, config = LAYOUTS[layout]
    config = LayoutConfig(pattern=config.pattern, channels=("phalloidin=actin",))
    screen = read_screen(write(tmp_path), layout=layout, config=config, plates=["007"], sites=[2])
    assert screen.table[["plate", "well", "site"]].to_numpy().tolist() == [["007", "B02", 2], ["007", "B03", 2]]
    assert screen.channels == ("phalloidin",)
    field = read_field({"phalloidin": screen.folder / screen.table["file_phalloidin"][0]}, where="here")
    assert (field[0] == pixels("007", "B02", 2, "actin")).all()
    assert 'no channel "w9" (there are: ' in refusal(
        tmp_path, layout, LayoutConfig(pattern=config.pattern, channels=("w9",))
    )


@pytest.mark.parametrize("layout", ["table", "loaddata", "pattern"])
def test_a_field_without_a_file_is_named_or_counted(tmp_path, layout):
    write, config = LAYOUTS[layout]
    source = write(tmp_path)
    (source / "p-2" / "B03_s2_wactin.tif").unlink()
    assert 'plate "p-2", well "B03", site 2: channel "actin" has no file' in refusal(source, layout, config)
    screen = read_screen(source, layout=layout, config=config, treatments="all", skip_missing=True)
    assert len(screen.table) == len(fields()) - 1
    assert screen.left_out == {"fields without an image of each channel": 1}


def test_a_file_of_no_bytes_is_no_image(tmp_path):
    source = write_table(write_images(tmp_path))
    (source / "p-2" / "B03_s2_wactin.tif").write_bytes(b"")
    assert 'channel "actin" is an empty file of 0 bytes (expected p-2/B03_s2_wactin.tif' in refusal(source, "table")


def test_images_that_a_table_does_not_name_are_counted_and_not_refused(images):
    write_table(images)
    edit_csv(images / "images.csv", lambda table: table[table["site"] == 1])
    screen = read_screen(images, layout="table", treatments="all")
    assert screen.left_out == {"images that the table does not name": len(fields()) // 2 * len(CHANNELS)}


@pytest.mark.parametrize("layout", ["table", "loaddata"])
def test_a_folder_of_images_that_a_table_does_not_name_is_counted_and_named(images, layout):
    (write_table if layout == "table" else write_loaddata)(images)
    name, column = {"table": ("images.csv", "plate"), "loaddata": ("load_data.csv", "Metadata_Plate")}[layout]
    if layout == "loaddata":
        write_plate_map(images)
    edit_csv(images / name, lambda table: table[table[column] == PLATES[0]])
    screen = read_screen(images, layout=layout, treatments="all")
    n = len(fields()) // 2 * len(CHANNELS)
    assert screen.left_out["images that the table does not name"] == n
    assert f"folders with images that the table does not name: {PLATES[1]} ({n})" in screen.notes


@pytest.mark.parametrize("layout", ["loaddata", "pattern", "ome-zarr"])
def test_a_plate_map_and_images_that_do_not_match_are_refused_or_counted(tmp_path, layout):
    write, config = LAYOUTS[layout]
    source = write(tmp_path)
    edit_csv(source / "plate_map.csv", lambda table: table.assign(Metadata_Well=["B2", "B3", "C12"]))
    found = refusal(source, layout, config)
    assert [key for key in ("plate_map.csv", "images: C11.", "without images: C12.") if key not in found] == []
    screen = read_screen(source, layout=layout, config=config, treatments="all", skip_missing=True)
    assert screen.left_out == {
        "fields whose well has no compound in the plate map": 4,
        "wells of the plate map without images": 1,
    }


@pytest.mark.parametrize("name", ["Plate_Map.CSV", "PLATEMAP.csv", "plate map.TSV", "Plate-map.txt"])
def test_a_plate_map_is_found_in_any_capitals(images, name):
    write_plate_map(images)
    (images / "plate_map.csv").rename(images / name)
    assert len(read_screen(images, layout="pattern", config=PATTERN, treatments="all").wells) == len(PLATES) * len(
        WELLS
    )
    (images / "plate_map.tsv").write_text("well\n")
    assert all(key in refusal(images, "pattern", PATTERN) for key in (name, "plate_map.tsv", "--plate-map"))


@pytest.mark.parametrize("name", ["Plate_Map_v2.csv", "Layout of June.XLSX", "P1_platemap.xls", "compounds.csv"])
def test_tables_that_may_be_plate_maps_and_are_not_read_are_named(images, name):
    (images / name).write_text("well,compound\n")
    assert f"({name})" in refusal(images, "pattern", PATTERN).replace("there: ", "")
    write_plate_map(images)
    (images / PLATES[0] / "plate_map.csv").write_text("well,compound\n")
    notes = read_screen(images, layout="pattern", config=PATTERN, treatments="all").notes
    unread = next(note for note in notes if "not read" in note)
    assert [key for key in (name, f"{PLATES[0]}/plate_map.csv", "--plate-map") if key not in unread] == []


def test_a_plate_map_with_plates_holds_for_each_plate_alone(images):
    rows = [(plate, well, "DMSO" if well == "B02" else f"drug of {plate}") for plate in PLATES for well in WELLS]
    pd.DataFrame(rows, columns=["plate", "well", "compound"]).to_csv(images / "plate_map.csv", index=False)
    screen = read_screen(images, layout="pattern", config=PATTERN, treatments="all")
    treated = screen.wells[screen.wells["role"] == "treated"]
    assert (treated["compound"] == "drug of " + treated["plate"]).all()
    assert (treated["concentration_um"] == 0).all()  # no column says otherwise


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.assign(well="B2x"), 'images.csv, row 2: "B2x" is not a well name'),
        (
            lambda t: t.assign(site=1),
            'images.csv, row 2 and images.csv, row 3 are both plate "007", well "B02", site 1',
        ),
        (lambda t: t.assign(site=0), 'images.csv, row 2: site is "0", expected a whole number from 1'),
        (lambda t: t.assign(site=1.5), 'row 2: site is "1.5", expected a whole number'),
        (lambda t: t.drop(columns="well"), "no column for the well"),
        (lambda t: t.drop(columns="well"), "found: plate, site"),
        (lambda t: t.drop(columns="plate"), "no column for the plate"),
        (lambda t: t.drop(columns="compound"), "no column for the compound"),
        (lambda t: t.drop(columns=["file_DNA", "file_actin"]), "no column file_<channel>"),
        (lambda t: t.assign(Metadata_Well="B02"), "the columns well and Metadata_Well both give the well"),
        (lambda t: t.assign(compound="x"), "no control well: no compound is DMSO"),
        (lambda t: t.assign(concentration_um="much"), 'row 2: concentration_um is "much", expected micromolar'),
        (lambda t: t.assign(concentration_um=[None] * len(t)), "no treated well has a concentration"),
        (lambda t: t.assign(role="blank"), "the role is not one of treated, control, other"),
        (
            lambda t: t.assign(file_DNA=[None, *t["file_DNA"][1:]]),
            'images.csv, plate "007", well "B02", site 1: channel "DNA" has no file ',
        ),
        (lambda t: t[:0], "no rows"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(images, edit, message):
    write_table(images)
    edit_csv(images / "images.csv", edit)
    assert message in refusal(images, "table")


def test_a_row_that_repeats_another_is_left_out_and_counted(images):
    write_table(images)
    whole = read_screen(images, layout="table")
    edit_csv(images / "images.csv", lambda table: pd.concat([table, table[3:5].assign(exported="again")]))
    screen = read_screen(images, layout="table")
    assert screen.table.equals(whole.table)
    assert any("images.csv, row 14" in note and "2 such rows" in note for note in screen.notes)


def test_one_site_and_one_batch_a_plate_are_the_defaults(images):
    write_table(images)
    edit_csv(images / "images.csv", lambda table: table[table["site"] == 2].drop(columns="site"))
    screen = read_screen(images, layout="table", treatments="all")
    assert set(screen.table["site"]) == {1}
    assert (screen.table["batch"] == screen.table["plate"]).all()


def test_without_any_mechanism_all_treatments_are_taken_and_the_column_is_named(images):
    write_table(images)
    edit_csv(images / "images.csv", lambda table: table.drop(columns="moa"))
    labelled = read_screen(images, layout="table", treatments="labelled")
    assert any("(column moa)" in note for note in labelled.notes)
    pd.testing.assert_frame_equal(labelled.table, read_screen(images, layout="table", treatments="all").table)


def test_a_page_of_a_file_is_named_in_the_table(images):
    write_table(images)
    both = lambda table: table.assign(file_DNA=table["file_DNA"] + "#page=1")  # noqa: E731
    edit_csv(images / "images.csv", both)
    screen = read_screen(images, layout="table", treatments="all")
    assert screen.table["file_DNA"][0] == "007/B02_s1_wDNA.tif#page=1"


def test_a_table_may_have_capitals_and_paths_of_windows(images):
    expected = read_screen(write_table(images), layout="table", treatments="all").table
    text = re.sub("(007|p-2)/", r"\1\\", (images / "images.csv").read_text())
    (images / "images.csv").write_text(text.replace("file_", "File_").replace("plate,", "Plate,"))
    assert "007\\B02_s1_wDNA.tif" in text
    assert guess_layout(images, LayoutConfig()).layout == "table"
    pd.testing.assert_frame_equal(read_screen(images, layout="table", treatments="all").table, expected)


def test_names_in_the_other_unicode_form_are_found(images):
    write_table(images)
    (images / "007" / "B02_s1_wDNA.tif").rename(images / "007" / unicodedata.normalize("NFD", "é.tif"))
    composed = f"007/{unicodedata.normalize('NFC', 'é.tif')}"
    edit_csv(images / "images.csv", lambda table: table.replace("007/B02_s1_wDNA.tif", composed))
    screen = read_screen(images, layout="table", treatments="all")
    assert screen.table["file_DNA"][0] != composed
    assert field_is_read(screen, screen.table.iloc[0])


def field_is_read(screen, row) -> bool:
    field = read_field({name: screen.folder / row[f"file_{name}"] for name in screen.channels}, where="here")
    return bool((field[0] == pixels(row["plate"], row["well"], row["site"], "DNA")).all())


def test_loaddata_finds_folders_by_the_end_of_their_path_on_windows_too(images):
    write_loaddata(write_plate_map(images), path_name="X:\\data\\screen")
    text = (images / "load_data.csv").read_text()
    (images / "load_data.csv").write_text(text.replace("/007", "\\007").replace("/p-2", "\\p-2"))
    assert "X:\\data\\screen\\p-2" in (images / "load_data.csv").read_text()
    assert len(read_screen(images, layout="loaddata", treatments="all").table) == len(fields())


def test_loaddata_reads_addresses_of_this_machine_and_refuses_others(images):
    write_loaddata(write_plate_map(images))

    def addresses(start):
        def edit(table):
            for channel in CHANNELS:
                table[f"URL_{channel}"] = start + "/" + table["Metadata_Plate"] + "/" + table[f"FileName_{channel}"]
            return table.drop(columns=[name for name in table if name.startswith(("FileName", "PathName"))])

        return edit

    edit_csv_as_text(images / "load_data.csv", addresses(images.as_uri()))
    assert len(read_screen(images, layout="loaddata", treatments="all").table) == len(fields())
    write_loaddata(images)
    edit_csv_as_text(images / "load_data.csv", addresses("ftp://host"))
    assert "URL_DNA has ftp://host/007/B02_s1_wDNA.tif" in refusal(images, "loaddata")


def edit_csv_as_text(path, edit) -> None:
    edit(pd.read_csv(path, dtype=str)).to_csv(path, index=False)


def test_loaddata_frames_are_pages(images):
    write_loaddata(write_plate_map(images), Frame_DNA=1, Frame_actin=0)
    screen = read_screen(images, layout="loaddata", treatments="all")
    assert screen.table["file_DNA"][0].endswith("B02_s1_wDNA.tif#page=2")
    assert screen.table["file_actin"][0].endswith("B02_s1_wactin.tif")


def test_thumbnails_and_other_files_do_not_become_channels(images):
    write_plate_map(images)
    for name in ("B02_s1_wDNA_thumb.tif", "B02_s1_wDNA_THUMB2.tif", "notes.txt"):
        (images / "007" / name).write_text("x")
    screen = read_screen(images, layout="pattern", config=PATTERN, treatments="all")
    assert screen.channels == CHANNELS
    assert screen.left_out == {"thumbnails": 2, "files that do not match the pattern": 1}


def test_a_pattern_that_two_files_of_a_channel_match_is_refused(images):
    write_plate_map(images)
    (images / "007" / "B02_s1_wDNA.tiff").write_text("x")
    config = LayoutConfig(pattern="{plate}/{well}_s{site}_w{channel}.tif*")
    assert "has two files, 007/B02_s1_wDNA.tif and 007/B02_s1_wDNA.tiff" in refusal(images, "pattern", config)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{well}.tif", "no file has the pattern"),
        ("", "it has no {well}"),
        ("{well}_{dye}_{channel}.tif", "{dye} is not known"),
        ("{well}_{well}_{channel}", "{well} is not known or occurs twice"),
        ("{well}_w{channel}.png", "no file has the pattern"),
    ],
)
def test_a_pattern_that_cannot_work_is_refused(images, pattern, message):
    write_plate_map(images)
    assert message in refusal(images, "pattern", LayoutConfig(pattern=pattern))


def test_a_real_imagexpress_plate_is_read_without_its_thumbnails(real_data, tmp_path):
    table = pd.DataFrame({"well": ["E7", "E08"], "compound": ["DMSO", "beads"]})
    table.to_csv(tmp_path / "map.csv", index=False)
    for pattern in ("*_{well}_s{site}_w{channel}{guid}.tif", "*_{well}_s{site}_w{channel}*.tif"):
        config = LayoutConfig(pattern=pattern, plate_map=tmp_path / "map.csv")
        screen = read_screen(real_data / "formats" / "imagexpress", layout="pattern", config=config, treatments="all")
        assert screen.channels == ("1", "2", "3")
        assert len(screen.table) == 4
        assert screen.left_out == {"thumbnails": 12}
        first = {name: screen.folder / screen.table[f"file_{name}"][0] for name in screen.channels}
        assert read_field(first, where="here").shape == (3, 512, 512)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_ome_zarr_plates_of_both_zarr_formats_are_one_screen(tmp_path, zarr_format):
    source = write_plates(write_plate_map(tmp_path), zarr_format=zarr_format)
    screen = read_screen(source, layout="ome-zarr", treatments="all")
    assert all(field_is_read(screen, row) for _, row in screen.table.iterrows())
    config = LayoutConfig(plate_map=source / "plate_map.csv")
    one = read_screen(source / "007.zarr", layout="ome-zarr", config=config, treatments="all")
    assert field_is_read(one, one.table.iloc[0])
    assert set(one.table["plate"]) == {"007"}


def test_ome_zarr_channels_without_labels_are_named_by_the_person(tmp_path):
    source = write_plates(write_plate_map(tmp_path), labels=())
    assert "its channels have no labels (omero); name them with --channels" in refusal(source, "ome-zarr")
    config = LayoutConfig(channels=("DNA", "actin"))
    screen = read_screen(source, layout="ome-zarr", config=config, treatments="all")
    assert field_is_read(screen, screen.table.iloc[3])


def test_an_ome_zarr_plate_whose_metadata_and_folders_differ_is_refused(tmp_path, real_data):
    source = write_plates(write_plate_map(tmp_path))
    (source / "007.zarr" / "B" / "2" / "1").rename(source / "elsewhere")
    assert "007.zarr/B/2/1: missing, although the plate's metadata names it (1 such well" in refusal(source, "ome-zarr")
    screen = read_screen(source, layout="ome-zarr", treatments="all", skip_missing=True)
    assert screen.left_out == {"wells and fields that the plate names but are not there": 1}
    image = source / "p-2.zarr" / "C" / "11" / "0" / ".zattrs"
    image.write_text(image.read_text().replace("actin", "tubulin"))
    found = refusal(source, "ome-zarr", skip_missing=True)
    assert 'plate "p-2", well "C11", site 1 has the channels DNA, tubulin; ' in found
    single = real_data / "formats" / "ome_zarr_v3" / "6001240_labels_v0.5.zarr"
    assert "is a zarr group without a plate" in refusal(single, "ome-zarr")


def test_bbbc021_is_still_read_as_itself(tmp_path):
    source = write_source(tmp_path)
    screen = read_screen(source, layout="bbbc021")
    pd.testing.assert_frame_equal(screen.table, read_bbbc021(source, images=source).table)


@pytest.mark.parametrize("layout", ["table", "pattern"])
def test_a_folder_that_may_not_be_read_is_named(images, monkeypatch, layout):
    write_table(images)
    listed = os.scandir

    def refuse(folder):
        if str(folder).endswith("p-2"):
            raise PermissionError(13, "Permission denied", str(folder))
        return listed(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    assert "p-2: cannot be listed (Permission denied); make it readable" in refusal(images, layout, PATTERN)


def test_folders_and_layouts_that_are_not_there_are_refused(tmp_path):
    assert "absent: no such folder" in refusal(tmp_path / "absent", "table")
    assert 'layout "tabel" is not known' in refusal(tmp_path, "tabel")
    assert "images.csv: no such file" in refusal(tmp_path, "table")


def test_a_link_that_leads_nowhere_is_as_if_not_there(tmp_path):
    source = write_plate_map(write_images(tmp_path))
    whole = read_screen(source, layout="pattern", config=PATTERN, treatments="all")
    plate = source / PLATES[0]
    (plate / "notes.txt").symlink_to("nowhere")
    (plate / "loop.tif").symlink_to("loop.tif")
    again = read_screen(source, layout="pattern", config=PATTERN, treatments="all")
    pd.testing.assert_frame_equal(again.table, whole.table)
    lost = plate / sorted(path.name for path in plate.glob("*_w*.tif"))[0]
    lost.unlink()
    lost.symlink_to("nowhere")
    assert lost.name in refusal(source, "pattern", PATTERN)
    kept = read_screen(source, layout="pattern", config=PATTERN, treatments="all", skip_missing=True)
    assert len(kept.table) == len(whole.table) - 1


def rename_in_zarr(source, *, rows=None, columns=None, sites=None, indices=True) -> None:
    """Give the rows, columns and fields of the plates other names, as old -> new."""
    for plate in sorted(source.glob("*.zarr")):
        text = json.loads((plate / ".zattrs").read_text())
        for kind, names in (("rows", rows), ("columns", columns)):
            for one in text["plate"][kind]:
                one["name"] = (names or {}).get(one["name"], one["name"])
        for well in text["plate"]["wells"]:
            row, column = well["path"].split("/")
            old = plate / well["path"]
            well["path"] = f"{(rows or {}).get(row, row)}/{(columns or {}).get(column, column)}"
            (plate / well["path"]).parent.mkdir(exist_ok=True)
            old.rename(plate / well["path"])
            if not indices:
                del well["rowIndex"], well["columnIndex"]
            if sites:
                attributes = plate / well["path"] / ".zattrs"
                images = json.loads(attributes.read_text())
                for image in sorted(images["well"]["images"], key=lambda one: -int(one["path"])):
                    (attributes.parent / image["path"]).rename(attributes.parent / sites[image["path"]])
                    image["path"] = sites[image["path"]]
                attributes.write_text(json.dumps(images))
        if not indices:
            del text["plate"]["rows"], text["plate"]["columns"]
        (plate / ".zattrs").write_text(json.dumps(text))


@pytest.mark.parametrize("indices", [True, False])
def test_rows_of_ome_zarr_may_be_named_by_their_number(tmp_path, indices):
    source = write_plates(write_plate_map(tmp_path))
    rename_in_zarr(source, rows={"B": "2", "C": "3"}, indices=indices)
    screen = read_screen(source, layout="ome-zarr", treatments="all")
    assert screen.table["well"].drop_duplicates().tolist() == list(WELLS)
    assert all(field_is_read(screen, row) for _, row in screen.table.iterrows())


def test_a_field_of_ome_zarr_that_a_well_lacks_does_not_move_the_others(tmp_path):
    source = write_plates(write_plate_map(tmp_path))
    attributes = source / "007.zarr" / "B" / "2" / ".zattrs"
    attributes.write_text(json.dumps({"well": {"images": [{"path": "1"}]}}))
    screen = read_screen(source, layout="ome-zarr", treatments="all")
    first = screen.table[(screen.table["plate"] == "007") & (screen.table["well"] == "B02")]
    assert first["site"].tolist() == [2]
    assert all(field_is_read(screen, row) for _, row in screen.table.iterrows())


def test_fields_of_ome_zarr_that_count_from_one_are_the_sites_of_their_names(tmp_path):
    source = write_plates(write_plate_map(tmp_path))
    rename_in_zarr(source, sites={"0": "1", "1": "2"})
    screen = read_screen(source, layout="ome-zarr", treatments="all")
    assert set(screen.table["site"]) == {1, 2}
    assert all(field_is_read(screen, row) for _, row in screen.table.iterrows())


def test_a_hidden_zarr_folder_is_no_plate(tmp_path):
    source = write_plates(write_plate_map(tmp_path))
    (source / "p-2.zarr").rename(source / ".p-2.zarr")
    screen = read_screen(source, layout="ome-zarr", treatments="all")
    assert set(screen.table["plate"]) == {"007"}
    assert screen.left_out == {"hidden files and folders (._x, Thumbs.db, @eaDir)": 1}


@pytest.mark.parametrize("kind", ["numbers", "letters", "r02c02"])
def test_a_table_may_name_wells_by_row_and_column(images, kind):
    write_table(images)

    def edit(table):
        row, column = table["well"].str[0], table["well"].str[1:].astype(int)
        number = row.map(ord) - 64
        if kind == "r02c02":
            return table.assign(well=[f"r{r:02d}c{c:02d}" for r, c in zip(number, column)])
        by = {"Metadata_Row": number if kind == "numbers" else row, "Metadata_Col": column}
        return table.drop(columns="well").assign(**by)

    edit_csv(images / "images.csv", edit)
    screen = read_screen(images, layout="table", treatments="all")
    assert screen.table[["plate", "well", "site"]].apply(tuple, axis=1).tolist() == fields()
    assert not any("Metadata_Row" in note for note in screen.notes)
    for wrong in ("0202", "A1 2", "r0c2", "B"):
        edit_csv(images / "images.csv", lambda table, well=wrong: table.assign(well=well))
        assert "images.csv, row 2" in refusal(images, "table")
