"""Names of image files as instruments and people write them: wells, planes, time points and channels are as named."""

import numpy as np
import pandas as pd
import pytest
import tifffile

from layout_sources import read_screen
from phenolens.core.errors import InputError
from phenolens.screens.config import LayoutConfig
from phenolens.screens.file_listing import COPIES
from phenolens.screens.filename_pattern import PICTURES, UNMATCHED
from phenolens.screens.read_image import read_field
from phenolens.screens.well_names import well_of_index

WELLS = ("B02", "B03", "B04")
GUID = "1A2B3C4D-0000-4000-8000-00000000000{}"


def grey(k: int) -> np.ndarray:
    """An image whose largest value says which one it is."""
    return np.arange(32 * 40, dtype=np.uint16).reshape(32, 40) + k


def write_all(folder, names, *, values=None) -> None:
    """An image of each name, the k-th with the grey values grey(k), and a plate map of three wells."""
    for k, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(folder / name, grey(k) if values is None else values[k])
    table = pd.DataFrame({"well": WELLS, "compound": ["DMSO", "taxol", "nocodazole"]})
    table.to_csv(folder / "plate_map.csv", index=False)


def read(folder, pattern, **config):
    return read_screen(folder, layout="pattern", config=LayoutConfig(pattern=pattern, **config), treatments="all")


def refusal(folder, pattern, **config) -> str:
    with pytest.raises(InputError) as error:
        read(folder, pattern, **config)
    assert "\n" not in str(error.value)
    return str(error.value)


def field(screen, row=0) -> np.ndarray:
    return read_field(screen.files(screen.table.iloc[row]), where="here")


# instrument -> the name of an image of row r, column c (letter and number), channel k (from 0)
NAMES = {
    "phenix": lambda r, c, k: (
        f"P1__2021-08-14T15_29_30-Measurement 1/Images/r{r:02d}c{c:02d}f01p01-ch{k + 1}sk1fk1fl1.tiff"
    ),
    "operetta": lambda r, c, k: f"P1/{r:03d}{c:03d}-1-001001{k + 1:03d}.tif",
    "incell": lambda r, c, k: f"P1/{chr(64 + r)} - {c:02d}(fld 1 wv {('UV - DAPI', 'Blue - FITC')[k]}).tif",
    "cv8000": lambda r, c, k: f"P1/AssayPlate_Greiner_#655090_{chr(64 + r)}{c:02d}_T0001F001L01A01Z01C{k + 1:02d}.tif",
    "imagexpress": lambda r, c, k: f"P1/TimePoint_1/Exp_a_{chr(64 + r)}{c:02d}_s1_w{k + 1}{GUID.format(k)}.TIF",
    "cytation": lambda r, c, k: f"P1/{chr(64 + r)}{c}_02_{k + 1}_1_{('DAPI 377,447', 'GFP')[k]}_001.tif",
    "scanr": lambda r, c, k: f"P1/data/{chr(64 + r)}{c}--W{12 * r + c:05d}--P00001--Z00000--T00000--{'DG'[k]}.tif",
    "evos": lambda r, c, k: f"P1/scan_Plate_R_p00_0_{chr(64 + r)}{c:02d}f01d{k}.TIF",
    "arrayscan": lambda r, c, k: f"P1/AS_09047_050428030001_{chr(64 + r)}{c:02d}f01d{k}.TIF",
    "micromanager": lambda r, c, k: f"P1/{chr(64 + r)}{c:02d}-Site_1/img_000000000_{('DAPI', 'FITC')[k]}_000.tif",
}
CHANNELS = {
    "incell": ("Blue - FITC", "UV - DAPI"),
    "cv8000": ("01", "02"),
    "operetta": ("001", "002"),
    "cytation": ("DAPI 377,447", "GFP"),
    "scanr": ("D", "G"),
    "evos": ("0", "1"),
    "arrayscan": ("0", "1"),
    "micromanager": ("DAPI", "FITC"),
}


@pytest.mark.parametrize("instrument", NAMES)
def test_the_names_of_an_instrument_are_read_by_its_name(tmp_path, instrument):
    names = [NAMES[instrument](2, column, k) for column in (2, 3, 4) for k in (0, 1)]
    write_all(tmp_path, names)
    screen = read(tmp_path, instrument)
    assert screen.table[["plate", "well", "site"]].to_numpy().tolist() == [["P1", well, 1] for well in WELLS]
    assert screen.channels == CHANNELS.get(instrument, ("1", "2"))
    assert not screen.left_out
    order = (1, 0) if instrument == "incell" else (0, 1)
    np.testing.assert_array_equal(field(screen, 1), [grey(2 + k) for k in order])


@pytest.mark.parametrize("instrument", ["phenix", "cv8000", "imagexpress", "incell"])
def test_the_plate_is_the_folder_also_where_it_is_the_source_itself(tmp_path, instrument):
    names = [NAMES[instrument](2, column, k) for column in (2, 3, 4) for k in (0, 1)]
    write_all(tmp_path, names)
    inside = tmp_path / names[0].split("/")[0]
    (tmp_path / "plate_map.csv").rename(inside / "plate_map.csv")
    assert set(read(inside, instrument).table["plate"]) == {"P1"}


@pytest.mark.parametrize(
    ("instrument", "name", "z", "t"),
    [
        ("phenix", "P1/r02c02f01p03-ch1sk2fk1fl1.tiff", "3", 2),
        ("phenix", "P1/r02c02f01p03rc1-ch1sk2fk1fl1.tiff", "3", 2),
        ("operetta", "P1/002002-1-003002001.tif", "3", 2),
        ("incell", "P1/B - 2(fld 1 wv Green - dsRed z 3).tif", "3", None),
        ("incell", "P1/B - 2(fld 1 wv Green - dsRed z 3 time 2 - 600 ms).tif", "3", 2),
        ("cv8000", "P1/x_B02_T0002F001L01A01Z03C01.tif", "3", 2),
        ("imagexpress", f"P1/TimePoint_2/ZStep_3/x_B02_s1_w1{GUID.format(1)}.tif", "3", 2),
        ("imagexpress", "P1/TimePoint_2/ZStep_3/x_B02_w1.tif", "3", 2),
        ("cytation", "P1/B2_02_1_1Z3_DAPI_002.tif", "3", 2),
        ("scanr", "P1/B2--W00014--P00001--Z00003--T00002--DAPI.tif", "3", 2),
        ("evos", "P1/scan_Plate_R_p02_z03_0_B02f00d0.TIF", "3", 2),
        ("micromanager", "P1/B02-Site_0/img_000000002_DAPI_003.tif", "3", 2),
        ("micromanager", "P1/B02-Site_0/img_channel000_position007_time000000002_z003.tif", "3", 2),
    ],
)
def test_planes_and_time_points_of_instruments_are_read(tmp_path, instrument, name, z, t):
    write_all(tmp_path, [name])
    pd.DataFrame({"well": ["B02"], "compound": ["DMSO"]}).to_csv(tmp_path / "plate_map.csv", index=False)
    for chosen in ({"z": z}, {"z": "max"}, {"t": t}, {"z": z, "t": t}):
        assert len(read(tmp_path, instrument, **chosen).table) == 1
    assert f'--z "{int(z) + 1}"' in refusal(tmp_path, instrument, z=str(int(z) + 1))
    if t is not None:
        assert f"--t {t + 1}" in refusal(tmp_path, instrument, t=t + 1)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("r{row}c{column}_{channel}.tif", "r{r:02d}c{c:02d}_{k}.tif"),
        ("r{row}c{column}_{channel}.tif", "r{r}c{c}_{k}.tif"),
        ("{row}-{column}_{channel}.tif", "{R}-{c:02d}_{k}.tif"),
        ("{row}{column}_{channel}.tif", "{R}{c:02d}_{k}.tif"),
        ("{row}{column}_{channel}.tif", "{r:02d}{c:02d}_{k}.tif"),
        ("{row:3}{column:3}_{channel}.tif", "{r:03d}{c:03d}_{k}.tif"),
        ("{row}/{column}/{channel}.tif", "{R}/{c}/{k}.tif"),
    ],
)
def test_rows_by_letter_and_number_and_columns_name_the_well(tmp_path, pattern, name):
    write_all(tmp_path, [name.format(r=2, R="B", c=c, k=k) for c in (2, 3, 4) for k in "ab"])
    screen = read(tmp_path, pattern)
    assert screen.table["well"].tolist() == list(WELLS)
    np.testing.assert_array_equal(field(screen, 2), [grey(4), grey(5)])


def test_rows_beyond_z_have_two_letters(tmp_path):
    write_all(tmp_path, ["r27c2_a.tif", "r32c48_a.tif"])
    pd.DataFrame({"well": ["AA02", "AF48"], "compound": ["DMSO", "x"]}).to_csv(tmp_path / "plate_map.csv", index=False)
    assert read(tmp_path, "r{row}c{column}_{channel}.tif").table["well"].tolist() == ["AA02", "AF48"]


@pytest.mark.parametrize(
    ("pattern", "keys"),
    [
        ("{row}_{channel}.tif", ("{row}", "{column}")),
        ("{well}{row}{column}{channel}.tif", ("{well}", "{row}")),
        ("{well}-{z}{t}{channel}.tif", ("{z}{t}", "{z:3}")),
        ("{well}_{dye}.tif", ("{dye}", "phenix")),
        ("opera", ("{well}", "operetta")),
    ],
)
def test_a_pattern_that_could_be_misread_is_refused(tmp_path, pattern, keys):
    write_all(tmp_path, ["B02.tif"])
    line = refusal(tmp_path, pattern)
    assert all(key in line for key in keys)


def write_stacks(folder):
    """Three planes of two time points a well, one channel: values 10 z + t above those of grey."""
    names = [f"{well}_z{z}_t{t}_a.tif" for well in WELLS for z in (1, 2, 3) for t in (0, 1)]
    values = [grey(10 * (z if z < 3 else 1) + t) for _ in WELLS for z in (1, 2, 3) for t in (0, 1)]
    write_all(folder, names, values=values)


def test_planes_and_time_points_are_chosen_or_asked_for(tmp_path):
    write_stacks(tmp_path)
    pattern = "{well}_z{z}_t{t}_{channel}.tif"
    assert all(key in refusal(tmp_path, pattern, z="1") for key in ("2 time points", "--t"))
    assert all(key in refusal(tmp_path, pattern, t=0) for key in ("3 planes", "--z"))
    np.testing.assert_array_equal(field(read(tmp_path, pattern, z="2", t=1))[0], grey(21))
    np.testing.assert_array_equal(field(read(tmp_path, pattern, z="max", t=0))[0], grey(20))
    np.testing.assert_array_equal(field(read(tmp_path, pattern, z="brightest", t=1))[0], grey(21))
    assert '--z "top"' in refusal(tmp_path, pattern, z="top", t=0)


@pytest.mark.parametrize("pattern", ["incell", "{row} - {column}(fld {site} wv {channel}).tif"])
def test_planes_within_files_are_chosen_too(tmp_path, pattern):
    stack = np.stack([grey(0), grey(20), grey(10)])
    write_all(tmp_path, [f"B - {column}(fld 1 wv DAPI).tif" for column in (2, 3, 4)])
    for column in (2, 3, 4):
        path = tmp_path / f"B - {column}(fld 1 wv DAPI).tif"
        tifffile.imwrite(path, stack, imagej=True, metadata={"axes": "ZYX"})
    np.testing.assert_array_equal(field(read(tmp_path, pattern, z="3"))[0], stack[2])
    np.testing.assert_array_equal(field(read(tmp_path, pattern, z="brightest"))[0], stack[1])
    screen = read(tmp_path, pattern)
    with pytest.raises(InputError, match="z=max"):
        field(screen)


def test_a_plane_that_is_missing_or_empty_is_named(tmp_path):
    write_stacks(tmp_path)
    pattern = "{well}_z{z}_t{t}_{channel}.tif"
    (tmp_path / "B03_z2_t0_a.tif").unlink()
    assert 'well "B03"' in refusal(tmp_path, pattern, z="2", t=0)
    screen = read(tmp_path, pattern, z="max", t=0)
    assert any('well "B03"' in note and "1 of 3 stacks" in note for note in screen.notes)
    np.testing.assert_array_equal(field(screen, 1)[0], grey(10))
    (tmp_path / "B03_z2_t0_a.tif").touch()
    assert "B03_z2_t0_a.tif" in refusal(tmp_path, pattern, z="max", t=0)


@pytest.mark.parametrize("kind", ["pages", "ome", "separate pages", "colour", "imagej"])
def test_a_file_of_all_channels_needs_no_channel_in_its_name(tmp_path, kind):
    write_all(tmp_path, [f"{well}.tif" for well in WELLS])
    stack = np.stack([grey(0), grey(500), grey(900)])
    for well in WELLS:
        path = tmp_path / f"{well}.tif"
        if kind == "separate pages":
            with tifffile.TiffWriter(path) as file:
                for page in stack:
                    file.write(page, contiguous=False)
        elif kind == "colour":
            tifffile.imwrite(path, stack.transpose(1, 2, 0), photometric="rgb")
        else:
            names = {"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP", "Cy5"]}}
            how = {"ome": {"ome": True, "metadata": names}, "imagej": {"imagej": True, "metadata": {"axes": "CYX"}}}
            tifffile.imwrite(path, stack, photometric="minisblack", **how.get(kind, {}))
    screen = read(tmp_path, "{well}.tif")
    usual = {"ome": ("DAPI", "GFP", "Cy5"), "colour": ("red", "green", "blue")}
    assert screen.channels == usual.get(kind, ("1", "2", "3"))
    np.testing.assert_array_equal(field(screen), stack)
    first, last = screen.channels[0], screen.channels[2]
    two = read(tmp_path, "{well}.tif", channels=(f"GFP={last}", f"DNA={first}"))
    assert two.channels == ("GFP", "DNA")
    np.testing.assert_array_equal(field(two), stack[[2, 0]])
    assert all(key in refusal(tmp_path, "{well}.tif", channels=("DNA=7",)) for key in ('"7"', last))


def test_hidden_files_and_thumbnails_are_no_images_and_are_counted(tmp_path):
    write_all(tmp_path, [f"P1/{well}_w{k}.tif" for well in WELLS for k in "12"])
    for name in ("P1/._B02_w1.tif", "P1/@eaDir/B02_w1.tif/x_B02_w3.tif", "P1/Thumbs.db", ".Trash/P1/B02_w4.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    (tmp_path / "P1" / "B02_w1_thumb.tif").touch()
    for pattern in ("{plate}/{well}_w{channel}.tif", "{plate}/*{well}_w{channel}.tif"):
        screen = read(tmp_path, pattern)
        assert screen.channels == ("1", "2")
        assert screen.left_out == {"hidden files and folders (._x, Thumbs.db, @eaDir)": 4, "thumbnails": 1}


def test_folders_behind_links_are_read_once_and_loops_end(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    source = tmp_path / "source"
    write_all(source, [f"P1/{well}_w1.tif" for well in WELLS])
    write_all(elsewhere, [f"{well}_w1.tif" for well in WELLS])
    (source / "P2").symlink_to(elsewhere, target_is_directory=True)
    (source / "P1" / "up").symlink_to(source, target_is_directory=True)
    (source / "P0").symlink_to(source / "P1", target_is_directory=True)
    (source / "gone").symlink_to(tmp_path / "nowhere")
    screen = read(source, "{plate}/{well}_w{channel}.tif")
    assert sorted(set(screen.table["plate"])) == ["P1", "P2"]
    assert len(screen.table) == 6
    assert screen.left_out == {
        "folders behind links that are read already": 2,
        "files that do not match the pattern": 1,
    }


def test_folders_of_thumbnails_are_no_plates(tmp_path):
    write_all(tmp_path, [f"P1{folder}/{well}_w1.tif" for well in WELLS for folder in ("", "/Thumbs", "/thumbnails")])
    screen = read(tmp_path, "imagexpress")
    assert set(screen.table["plate"]) == {"P1"}
    assert screen.left_out == {"folders of thumbnails": 2}


def test_files_named_as_copies_are_left_out_only_beside_what_they_copy(tmp_path):
    copies = ["B02_w1 (1).tif", "B02_w1 - Copy.tif", "B02_w1 - Copy (2).tif", "B03_w1 copy 2.tif", "Copy of B04_w1.tif"]
    write_all(tmp_path, [f"P1/{name}" for name in [*(f"{well}_w1.tif" for well in WELLS), *copies]])
    screen = read(tmp_path, "imagexpress")
    assert (screen.channels, len(screen.table)) == (("1",), 3)
    assert screen.left_out == {COPIES: 5}
    write_all(tmp_path / "alone", [f"{well} ({k}).tif" for well in WELLS for k in "12"])
    assert read(tmp_path / "alone", "{well} ({channel}).tif").channels == ("1", "2")


def test_endings_of_tiff_and_png_are_alike_in_any_case(tmp_path):
    write_all(tmp_path, ["B02_a.tif", "B03_a.TIF", "B04_a.TIFF"])
    assert read(tmp_path, "{well}_{channel}.tiff").table["well"].tolist() == list(WELLS)
    (tmp_path / "B02_a.tiff").write_bytes((tmp_path / "B02_a.tif").read_bytes())
    assert all(key in refusal(tmp_path, "{well}_{channel}.tif") for key in (".tif and .tiff", "move one of them"))


@pytest.mark.parametrize(
    ("more", "keys"),
    [
        ("P1/B2_a.tif", ('"B02" and "B2" are one well', "rename it")),
        ("P1/stitched/B02_a.tif", ('folder below, "stitched"', 'begin --pattern with "P1/"')),
        ("masks/P1/B02_a.tif", ('the folders "P1" and "masks/P1"', "move a copy")),
    ],
)
def test_two_files_of_a_field_by_another_spelling_or_folder_say_what_to_do(tmp_path, more, keys):
    write_all(tmp_path, [f"P1/{well}_a.tif" for well in WELLS] + [more])
    line = refusal(tmp_path, "{well}_{channel}.tif")
    assert [key for key in keys if key not in line] == []
    if "stitched" in more:
        assert len(read(tmp_path, "P1/{well}_{channel}.tif").table) == len(WELLS)


def test_pictures_of_kinds_that_are_not_read_are_counted_as_such(tmp_path):
    write_all(tmp_path, [f"P1/{well}_a.tif" for well in WELLS])
    for name in ("P1/B02_b.jpg", "P1/B03_b.JPEG", "P1/x.log"):
        (tmp_path / name).touch()
    left_out = {UNMATCHED: 1, PICTURES: 2}
    assert read(tmp_path, "{well}_{channel}.tif").left_out == left_out


def test_channels_in_other_capitals_are_refused_as_such(tmp_path):
    write_all(tmp_path, [f"P1/{well}_dapi.tif" for well in WELLS] + [f"P2/{well}_DAPI.tif" for well in WELLS])
    assert "channels DAPI and dapi differ by capitals only" in refusal(tmp_path, "{plate}/{well}_{channel}.tif")
    assert "lack one" in refusal(tmp_path, "{plate}/{well}_{channel}.tif", channels=("dapi",))


def test_a_part_of_the_names_that_the_pattern_lacks_is_named(tmp_path):
    write_all(tmp_path, [f"{plate}_{well}_s1_w1.tif" for plate in ("PlA", "PlB") for well in WELLS])
    line = refusal(tmp_path, "*_{well}_s{site}_w{channel}.tif")
    assert [key for key in ('"PlA"', '"PlB"', "{plate}", "--pattern", "move copies") if key not in line] == []
    assert set(read(tmp_path, "{plate}_{well}_s{site}_w{channel}.tif").table["plate"]) == {"PlA", "PlB"}


def test_wells_by_a_running_number_need_the_number_of_wells_of_a_plate(tmp_path):
    write_all(tmp_path, [f"P1/Image/W{index:04d}F0001T0001Z001C{c}.tif" for index in (14, 15, 16) for c in (1, 2)])
    assert "--plate-wells" in refusal(tmp_path, "cq1")
    screen = read(tmp_path, "cq1", plate_wells=96)
    assert screen.table[["plate", "well"]].to_numpy().tolist() == [["P1", well] for well in WELLS]
    assert screen.channels == ("1", "2")
    assert "well 14" in refusal(tmp_path, "cq1", plate_wells=12)


def test_names_of_scanr_without_a_well_number_the_wells(tmp_path):
    write_all(tmp_path, [f"--W{index:05d}--P00001--Z00000--T00000--dapi.tif" for index in (14, 15, 16)])
    assert "--plate-wells" in refusal(tmp_path, "scanr")
    assert read(tmp_path, "scanr", plate_wells=96).table["well"].tolist() == list(WELLS)


@pytest.mark.parametrize("pattern", ["{plate}/{well}_w{channel}.tif", "imagexpress"])
def test_a_plate_in_two_folders_is_refused_unless_the_pattern_says_what_is_above(tmp_path, pattern):
    write_all(tmp_path, [f"batch{k}/plate1/{well}_w1.tif" for k, well in ((1, "B02"), (1, "B03"), (2, "B04"))])
    line = refusal(tmp_path, pattern)
    keys = ("batch1/plate1", "batch2/plate1", str(tmp_path / "batch2"), "*/{plate}/")
    assert [key for key in keys if key not in line] == []
    assert set(read(tmp_path, "*/{plate}/{well}_w{channel}.tif").table["plate"]) == {"plate1"}


@pytest.mark.parametrize(
    ("n_wells", "wells"),
    [(6, "A01 A03 B03"), (24, "A01 A06 D06"), (96, "A01 A12 H12"), (384, "A01 A24 P24"), (1536, "A01 A48 AF48")],
)
def test_running_numbers_go_row_by_row(n_wells, wells):
    columns = int(wells.split()[1][1:])
    assert [well_of_index(index, n_wells) for index in (1, columns, n_wells)] == wells.split()
