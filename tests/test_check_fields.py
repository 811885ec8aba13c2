"""`phenolens check` judges the fields it looks at, counts nuclei in them and draws those of one field."""

import io
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

from layout_sources import read_screen
from phenolens.cli import main
from phenolens.core.errors import InputError
from phenolens.core.workers import ONE
from phenolens.crops.check import check_source, count_nuclei, found_nuclei, median_field, sampled_fields
from phenolens.crops.config import CropConfig
from phenolens.crops.prepare_plate import found_centres
from phenolens.crops.quality_measures import detector_maximum
from phenolens.plotting.quality_figures import nuclei_overlay
from phenolens.plotting.style import png

WELLS = ("B02", "B03", "B04", "B05", "B06")
N_NUCLEI = {"B02": 2, "B03": 6, "B04": 1, "B05": 3, "B06": 5}  # B05 has the median number
SIZE = ["--nucleus-px", "20"]


@pytest.fixture
def source(tmp_path, rng):
    """A screen of one plate whose wells show so many round nuclei, 20 px wide, on camera noise."""
    folder = tmp_path / "a screen"
    (folder / "p").mkdir(parents=True)
    y, x = np.mgrid[:150, :200]
    for well, n in N_NUCLEI.items():
        light = rng.normal(500, 10, (150, 200))
        for k in range(n):
            light += 2000 * (np.hypot(y - 40 - 60 * (k // 3), x - 40 - 60 * (k % 3)) < 10)
        tifffile.imwrite(folder / "p" / f"{well}_DNA.tif", ndimage.gaussian_filter(light, 1).astype(np.uint16))
    table = pd.DataFrame({"plate": "p", "well": WELLS, "site": 1, "compound": ["DMSO", *"abcd"]})
    table["concentration_um"], table["moa"] = [0, 1, 1, 1, 1], ["", *"xxyy"]
    table.assign(file_DNA=[f"p/{well}_DNA.tif" for well in WELLS]).to_csv(folder / "images.csv", index=False)
    return folder


def check(source, *more) -> int:
    return main(["check", str(source), "--layout", "table", *map(str, more)])


def row(text: str, name: str) -> str:
    """What the printed table says in a row, lines joined."""
    lines = [[cell.strip() for cell in line.split("│")[1:3]] for line in text.splitlines() if line.startswith("│")]
    first = [line[0] for line in lines].index(name)
    more = [line[1] for line in lines[first + 1 :]][: next(k for k, line in enumerate(lines[first + 1 :]) if line[0])]
    return " ".join([lines[first][1], *more])


def refused(capsys, source, *more) -> str:
    """The one line with which check refuses, with code 2 and an empty stdout."""
    assert check(source, *more) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.strip().splitlines()
    return line


def test_sharp_fields_are_not_flagged_and_a_blurred_one_is_named(tiny_screen, tmp_path):
    assert quality_of(tiny_screen) == "20 fields checked, none flagged"
    blurred = shutil.copytree(tiny_screen, tmp_path / "blurred")
    field = read_screen(blurred, layout="bbbc021", treatments="all").table.iloc[7]
    for channel in ("DNA", "tubulin", "actin"):
        path = blurred / field[f"file_{channel}"]
        tifffile.imwrite(path, ndimage.gaussian_filter(tifffile.imread(path), 5))
    where = f"plate {field['plate']}, well {field['well']}, site {field['site']}"
    assert quality_of(blurred) == f"20 fields checked, 1 flagged:\n{where}: out of focus"


def quality_of(source) -> str:
    return dict(check_source(source, layout="bbbc021", sample=100).there)["quality"]


def test_empty_fields_are_flagged_and_only_the_first_four_are_named(source, rng):
    for well in WELLS:
        noise = rng.integers(400, 600, (150, 200)).astype(np.uint16)
        tifffile.imwrite(source / "p" / f"{well}_DNA.tif", noise)
    lines = dict(check_source(source, layout="table").there)["quality"].split("\n")
    assert lines == [
        "5 fields checked, 5 flagged:",
        *[f"plate p, well {well}, site 1: empty field" for well in WELLS[:4]],
        "and 1 more",
    ]


def test_as_many_fields_are_looked_at_as_are_asked_for(source, capsys):
    assert check(source, "--sample", 2) == 0
    said = capsys.readouterr().out
    assert row(said, "quality").startswith("2 fields checked, ")
    assert "(read: 2 of 5 fields)" in row(said, "images")


def test_sampled_fields_are_the_first_the_last_and_evenly_between(source):
    screen = read_screen(source, layout="table", treatments="all")
    assert sampled_fields(screen, 3)["well"].tolist() == ["B02", "B04", "B06"]
    assert sampled_fields(screen, 99)["well"].tolist() == list(WELLS)


@pytest.mark.parametrize(("largest", "full_scale"), [(1_000, 1_023), (16_000, 16_383), (60_000, 65_535)])
def test_check_reports_the_detectors_maximum_that_crop_judges_saturation_by(source, largest, full_scale):
    for well in WELLS:
        pixels = np.arange(80 * 80, dtype=np.uint16).reshape(80, 80) % largest
        pixels[:20] = largest + 1
        tifffile.imwrite(source / "p" / f"{well}_DNA.tif", pixels)
    images = dict(check_source(source, layout="table").there)["images"]
    assert f"full scale {full_scale:,}," in images
    assert detector_maximum([pixels]) == full_scale


def test_fields_smaller_than_a_tile_are_not_judged(source):
    for well in WELLS:
        tifffile.imwrite(source / "p" / f"{well}_DNA.tif", np.arange(63 * 70, dtype=np.uint16).reshape(63, 70))
    quality = dict(check_source(source, layout="table").there)["quality"]
    assert quality == "not judged: fields have less than 64 px a side"


def test_nuclei_are_counted_as_crop_finds_them(source, tmp_path):
    screen = read_screen(source, layout="table", treatments="all")
    config = CropConfig(nucleus_px=20).nuclei(usual_pixel_um=None)
    counted = count_nuclei(screen, sample=8, config=config)
    assert dict(zip(counted["well"], counted["n_nuclei"])) == N_NUCLEI
    found = found_centres(screen, tmp_path / "crops", config, at_once=ONE)
    assert found["well"].value_counts().to_dict() == N_NUCLEI
    assert median_field(counted)["well"] == "B05"
    assert median_field(counted.iloc[:4])["well"] == "B02"  # of 1, 2, 3 and 6: the lower of the two in the middle


def test_the_overlay_shows_the_median_field_and_is_the_only_file_written(source, tmp_path, capsys):
    before = set(tmp_path.rglob("*"))
    assert check(source, "--overlay", tmp_path / "nuclei.png", *SIZE) == 0
    assert set(tmp_path.rglob("*")) - before == {tmp_path / "nuclei.png"}
    said = capsys.readouterr()
    nuclei = row(said.out, "nuclei")
    assert nuclei.startswith("17 found in channel DNA of 5 fields, 1 to 6 per field (median 3); median diameter 2")
    assert nuclei.endswith(" px, searched as 20 px")
    assert row(said.out, "overlay").startswith("plate p, well B05, site 1, channel DNA: 3 nuclei outlined in ")
    screen = read_screen(source, layout="table", treatments="all")
    found = found_nuclei(screen, screen.table.iloc[3], config=CropConfig(nucleus_px=20).nuclei(usual_pixel_um=None))
    expected = nuclei_overlay(found.dna, found.labels, name="plate p, well B05, site 1, channel DNA")
    assert (tmp_path / "nuclei.png").read_bytes() == png(expected)
    assert Image.open(io.BytesIO((tmp_path / "nuclei.png").read_bytes())).size[0] == 1440
    remark, line = said.err.strip().splitlines()[-2:]
    assert remark == "note: cells will be found in the first channel, DNA"
    assert " STUDY --source " in line
    assert line.endswith(" --nucleus-px 22 --crop-px 68")


def test_overlays_of_other_settings_show_the_same_field(source, tmp_path, capsys):
    """Outlines can only be compared on one field; where faint nuclei count, the median number is in another one."""
    path = source / "p" / "B03_DNA.tif"
    light = tifffile.imread(path).astype(float)
    tifffile.imwrite(path, (light - 0.95 * np.maximum(light - 600, 0)).astype(np.uint16))
    shown, medians = set(), []
    for least in (5, 300):
        assert check(source, "--overlay", tmp_path / "nuclei.png", *SIZE, "--least-contrast", least) == 0
        said = capsys.readouterr().out
        shown.add(row(said, "overlay").partition(", channel")[0])
        medians.append(row(said, "nuclei").partition("(median ")[2][:1])
    assert medians == ["3", "2"]
    assert shown == {"plate p, well B02, site 1"}


@pytest.mark.parametrize("told", [12, 36])
def test_the_nuclei_are_measured_and_a_wrong_size_leads_to_another_check(source, tmp_path, monkeypatch, capsys, told):
    monkeypatch.chdir(tmp_path)
    assert check(source, "--nucleus-px", told) == 0
    said = capsys.readouterr()
    assert row(said.out, "note").startswith(f"nuclei were searched as {told} px wide, the median one found is ")
    line = said.err.strip().splitlines()[-1]
    _, _, verb, *words = shlex.split(line)
    assert (verb, words[-4:]) == ("check", ["--nucleus-px", "22", "--overlay", "nuclei.png"])
    assert main([verb, *words]) == 0  # as it is pasted
    assert capsys.readouterr().err.strip().splitlines()[-1].endswith(" --nucleus-px 22 --crop-px 68")
    assert (tmp_path / "nuclei.png").is_file()


def test_a_size_that_is_no_number_is_refused_by_what_can_be_given(source, capsys):
    assert refused(capsys, source, "--nucleus-px", "PIXELS").endswith("--nucleus-px PIXELS: expected a number")
    with pytest.raises(InputError, match=r"expected a number above 0$"):
        CropConfig(nucleus_px="wide")


@pytest.mark.parametrize("told", [10, 20, 40])
def test_crops_smaller_than_one_and_a_half_nuclei_as_measured_and_cells_lost_at_the_border_are_said(
    source, tmp_path, capsys, told
):
    more = ["--source", str(source), "--layout", "table", "--nucleus-px", str(told), "--crop-px", "30"]
    assert main(["crop", str(tmp_path / "small"), *more]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "crops of 30 px are less than 1.5 nuclei wide (their median diameter: 2" in said
    assert "three nuclei are --crop-px 68" in said
    assert ("nuclei were searched as" in said) == (told != 20)
    assert "are left out, because" not in said
    assert main(["crop", str(tmp_path / "large"), *more[:-1], "84", "--treatments", "all", "--skip-missing"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "nuclei wide" not in said
    assert "note: 15 of 17 cells (88%) are left out, because their crop of 84 px would leave the field" in said


def test_a_field_can_be_named_for_the_overlay(source, tmp_path, capsys):
    more = ["--overlay", tmp_path / "nuclei.png", "--overlay-field", "p", "B03", 1, "--sample", 1, *SIZE]
    assert check(source, *more) == 0
    said = capsys.readouterr().out
    assert row(said, "overlay").startswith("plate p, well B03, site 1, channel DNA: 6 nuclei outlined in ")
    assert row(said, "nuclei").startswith("2 found in channel DNA of 1 field, ")


def test_a_field_that_is_not_there_is_refused_by_its_name(source, tmp_path, capsys):
    more = ["--overlay", tmp_path / "nuclei.png", *SIZE, "--overlay-field", "p"]
    assert 'well "C01"' in refused(capsys, source, *more, "C01", 1)
    assert 'site "2"' in refused(capsys, source, *more, "B02", 2)
    assert not (tmp_path / "nuclei.png").exists()


def test_a_nucleus_size_alone_counts_nuclei_and_writes_nothing(source, tmp_path, capsys):
    before = set(tmp_path.rglob("*"))
    assert check(source, "--pixel-size-um", 0.75) == 0  # 15 um are 20 px
    assert row(capsys.readouterr().out, "nuclei").endswith(" px, searched as 20 px")
    assert set(tmp_path.rglob("*")) == before


def test_an_overlay_needs_the_size_of_a_nucleus_where_the_layout_has_none(source, tmp_path, capsys):
    assert "give --pixel-size-um" in refused(capsys, source, "--overlay", tmp_path / "nuclei.png")
    assert "nucleus_px" in refused(capsys, source, "--nucleus-px", 2)


def test_a_bbbc021_download_has_its_pixel_size(tiny_screen, tmp_path, capsys):
    more = ["--layout", "bbbc021", "--overlay", str(tmp_path / "nuclei.png"), "--sample", "2"]
    assert main(["check", str(tiny_screen), *more]) == 0
    assert row(capsys.readouterr().out, "nuclei").endswith(", searched as 30.2 px")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a screen/nuclei.png", "inside the source"),
        ("nuclei.tif", "ends in .png"),
        ("nowhere/nuclei.png", "there is no folder"),
        ("folder.png", "is a folder"),
    ],
)
def test_a_picture_is_not_written_just_anywhere(source, tmp_path, capsys, path, expected):
    (tmp_path / "folder.png").mkdir()
    before = set(tmp_path.rglob("*"))
    assert expected in refused(capsys, source, "--overlay", tmp_path / path, *SIZE)
    assert set(tmp_path.rglob("*")) == before


def test_what_makes_no_sense_together_is_refused(source, tmp_path, capsys):
    assert "requires --overlay" in refused(capsys, source, "--overlay-field", "p", "B02", 1)
    more = ["--layout", "cropset", "--overlay", str(tmp_path / "nuclei.png")]
    assert main(["check", str(source), *more]) == 2
    assert "--layout cropset" in capsys.readouterr().err


def test_a_damaged_image_leaves_the_earlier_picture_as_it_was(source, tmp_path, capsys):
    (tmp_path / "nuclei.png").write_bytes(b"the earlier picture")
    (source / "p" / "B06_DNA.tif").write_bytes(b"II*\0 no image")
    refused(capsys, source, "--overlay", tmp_path / "nuclei.png", *SIZE)
    assert (tmp_path / "nuclei.png").read_bytes() == b"the earlier picture"


def test_checking_loads_no_matplotlib_unless_it_draws():
    imports = "import sys, phenolens.crops.check, phenolens.commands.image_commands"
    code = imports + "; print(sorted({'torch', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_real_nuclei_are_outlined(real_data, tmp_path, capsys):
    source = tmp_path / "real"
    (source / "p").mkdir(parents=True)
    for site, well in ((1, "B02"), (2, "B03")):
        found = next((real_data / "bbbc021" / "fields" / "Week2_24381").glob(f"*_B02_s{site}_w1*"))
        shutil.copy(found, source / "p" / f"{well}_wDNA.tif")
    (source / "plate_map.csv").write_text("well,compound,concentration_um,moa\nB02,DMSO,0,\nB03,x,1,y\n")
    pattern = ["--layout", "pattern", "--pattern", "{plate}/{well}_w{channel}.tif", "--pixel-size-um", "0.496296"]
    assert main(["check", str(source), *pattern, "--overlay", str(tmp_path / "nuclei.png")]) == 0
    said = capsys.readouterr().out
    assert row(said, "quality") == "2 fields checked, none flagged"
    assert "159 to 195 per field" in row(said, "nuclei")  # by eye on the overlays none is missed
    assert "well B03" in row(said, "overlay")
