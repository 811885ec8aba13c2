"""`phenolens check` says what is there and what comes next, and writes nothing."""

import shlex

import numpy as np
import pandas as pd
import pytest
import tifffile

from bbbc021_source import write_source
from cropset_source import write_cropset
from layout_sources import fields, write_images, write_plate_map, write_table
from phenolens.cli import main
from phenolens.core.errors import InputError
from phenolens.crops.check import check_source
from phenolens.crops.config import CropConfig
from phenolens.crops.make_crops import make_crops

PATTERN = "{plate}/{well}_s{site}_w{channel}.tif"


@pytest.fixture
def source(tmp_path):
    return write_table(write_images(tmp_path / "a screen"))


def write_nuclei(source) -> None:
    """A nucleus in every field but the last."""
    table = pd.DataFrame(fields()[:-1], columns=["plate", "well", "site"])
    table.assign(ObjectNumber=1, Location_Center_Y=20, Location_Center_X=25).to_csv(source / "Nuclei.csv", index=False)


def test_it_counts_what_is_there_and_what_is_missing(source):
    write_nuclei(source)
    checked = check_source(source, layout="table")
    there = dict(checked.there)
    assert there["plates"] == "2 in 2 batches"
    assert there["wells"] == "6: 4 treated, 2 control"
    assert there["sites"] == "2 a well, 12 fields in all"
    assert there["channels"] == "DNA, actin"
    assert there["images"].startswith(
        "40 x 50 px (height x width), uint16; full scale 4,095, the brightest pixel has 3,"
    )
    assert there["compounds"].startswith("2 in 2 treatments")
    assert there["mechanisms"] == "1, known for 1 of 2 treatments"
    assert there["cells"].startswith("11 in ")
    assert dict(checked.missing) == {
        "fields without a cell": "1",
        "treatments without a mechanism (no crops unless --treatments all)": "1",
    }


@pytest.mark.parametrize("with_treatments", [True, False])
def test_the_plates_of_one_size_are_checked_alone_as_the_error_advises(tmp_path, capsys, with_treatments):
    source = write_images(tmp_path / "a screen")
    if with_treatments:
        write_plate_map(source)
    for path in source.glob("p-2/*.tif"):
        tifffile.imwrite(path, tifffile.imread(path)[:30])
    arguments = ["check", str(source), "--layout", "pattern", "--pattern", PATTERN]
    assert main(arguments) == 2
    assert "choose plates with --plates" in capsys.readouterr().err
    assert main([*arguments, "--plates", "007"]) == 0
    said = capsys.readouterr()
    assert "--plates 007" in said.err.strip().splitlines()[-1]
    assert "40 x 50 px" in said.out


def test_the_next_command_is_whole(tmp_path, capsys):
    source = write_plate_map(write_images(tmp_path / "a screen"))
    before = sorted(tmp_path.rglob("*"))
    arguments = ["--layout", "pattern", "--pattern", PATTERN, "--channels", "nuclei=DNA", "--skip-missing"]
    assert main(["check", str(source), *arguments]) == 0
    said = capsys.readouterr()
    line = said.err.strip().splitlines()[-1]
    words = shlex.split(line.removeprefix("next: phenolens "))
    assert words == ["check", str(source), *arguments, "--nucleus-px", "30", "--overlay", "nuclei.png"]
    assert "note: nuclei of 30 px are a guess, the next command measures them" in said.err
    assert "give them with --centres, or crop finds the cells" in said.out
    assert sorted(tmp_path.rglob("*")) == before


def test_what_cannot_be_used_ends_with_code_2_and_one_line(source, capsys):
    (source / "p-2" / "B03_s2_wactin.tif").unlink()
    assert main(["check", str(source), "--layout", "table"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.strip().splitlines()) == 1
    assert 'plate "p-2", well "B03", site 2: channel "actin" has no file' in said.err
    assert main(["check", str(source), "--layout", "table", "--skip-missing"]) == 0
    assert "fields without an image of each channel" in capsys.readouterr().out


def test_fields_of_another_size_are_refused(source):
    for channel in ("DNA", "actin"):
        tifffile.imwrite(source / "p-2" / f"C11_s2_w{channel}.tif", np.zeros((40, 51), np.uint16))
    with pytest.raises(InputError, match=r'well "C11", site 2.* is 40 x 51 px'):
        check_source(source, layout="table")


def test_a_bbbc021_download_and_a_crop_set_are_checked_too(tmp_path):
    bbbc021 = check_source(write_source(tmp_path / "fields"), layout="bbbc021")
    assert dict(bbbc021.there)["cells"].startswith("16 in ")
    (tmp_path / "crops").mkdir()
    cropset = check_source(write_cropset(tmp_path / "crops"), layout="cropset")
    assert dict(cropset.there)["images"].startswith("crops of ")
    assert cropset.has_cells


def rewritten(source, **columns) -> None:
    table = pd.read_csv(source / "images.csv", dtype={"plate": str})
    table.assign(**columns).to_csv(source / "images.csv", index=False)


def test_a_screen_of_controls_alone_can_be_looked_at_but_not_cropped_as_a_whole(source, tmp_path, capsys):
    write_nuclei(source)
    rewritten(source, compound="DMSO", concentration_um=0, moa=None)
    assert main(["check", str(source), "--layout", "table"]) == 0
    out, err = capsys.readouterr()
    assert "6: 6 control" in out
    assert "wells without a treatment, so that nothing can be profiled" in out
    assert err.splitlines()[-2].startswith("note: first add control wells and treated wells")
    assert err.splitlines()[-1].startswith("next: phenolens check")
    crop = ["--source", str(source), "--layout", "table", "--treatments", "all", "--crop-px", "10"]
    assert main(["crop", str(tmp_path / "study"), *crop]) == 2
    assert "no well has the role treated, there is nothing to profile" in capsys.readouterr().err
    assert not (tmp_path / "study" / "crops").exists()
    assert main(["crop", str(tmp_path / "study"), *crop, "--plates", "007"]) == 0


@pytest.mark.parametrize("name", ["P" * 250, "ä" * 120])
def test_a_plate_name_that_no_file_can_have_is_refused_at_once(source, tmp_path, capsys, name):
    rewritten(source, plate=lambda table: table["plate"].replace("007", name))
    for command in (["check", str(source)], ["crop", str(tmp_path / "study"), "--source", str(source)]):
        assert main([*command, "--layout", "table", "--treatments", "all"]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert f"has a name of {len(name)} letters, {len(name.encode())} bytes; files are named after it" in line
    assert not (tmp_path / "study" / "crops").exists()


def test_copies_of_an_image_under_other_names_are_named(source):
    assert dict(check_source(source, layout="table").there)["copies"] == "none among 24 image files"
    (source / "p-2" / "C11_s2_wactin.tif").write_bytes((source / "007" / "B03_s1_wDNA.tif").read_bytes())
    found = dict(check_source(source, layout="table").there)["copies"]
    assert [name for name in ("1 of 24", "C11_s2_wactin.tif", "B03_s1_wDNA.tif") if name not in found] == []


def test_channels_with_the_same_pixels_are_named(source):
    dna = tifffile.imread(source / "007" / "B03_s1_wDNA.tif")
    tifffile.imwrite(source / "007" / "B03_s1_wactin.tif", dna, description="other tags")
    there = check_source(source, layout="table").there
    (note,) = [text for what, text in there if what == "note" and "no batch" not in text]
    assert [key for key in ("DNA", "actin", "in 1 of") if key not in note] == []


def test_wells_without_a_cell_are_named(source, tmp_path, capsys):
    table = pd.DataFrame(fields()[:-2], columns=["plate", "well", "site"])
    table.assign(ObjectNumber=1, Location_Center_Y=20, Location_Center_X=25).to_csv(source / "Nuclei.csv", index=False)
    missing = dict(check_source(source, layout="table").missing)
    assert [text for what, text in missing.items() if "wells without a cell" in what] == ["1: p-2 C11"]
    config = CropConfig(crop_px=8, treatments="all")
    store = make_crops(source, tmp_path / "crops", layout="table", config=config)
    assert store.empty_wells == {"p-2 C11": "drug two@5"}
    assert "p-2 C11" in capsys.readouterr().err


def test_nuclei_with_the_centre_of_another_are_counted(source):
    write_nuclei(source)
    nuclei = pd.read_csv(source / "Nuclei.csv", dtype={"plate": str})
    again = nuclei[:3].assign(ObjectNumber=7, Location_Center_X=25.2)
    pd.concat([nuclei, again]).to_csv(source / "Nuclei.csv", index=False)
    (note,) = [
        text for what, text in check_source(source, layout="table").there if what == "note" and "no batch" not in text
    ]
    assert [key for key in ("3 of 14 nuclei", "object 7") if key not in note] == []


def test_mechanisms_in_lists_name_the_command_that_reads_them(source, capsys):
    images = pd.read_csv(source / "images.csv")
    images["moa"] = images["compound"].map({"drug/one": "b; a", "drug two": "a; c"})
    images.to_csv(source / "images.csv", index=False)
    assert main(["check", str(source), "--layout", "table"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert 'phenolens evaluate (and run) --several-mechanisms ";"' in said
