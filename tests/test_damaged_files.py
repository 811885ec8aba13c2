"""Files that are not whole are found before any work: named, or with --skip-missing left out and counted."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from layout_sources import fields, read_screen, say, write_images, write_plate_map, write_plates, write_table
from phenolens.cli import main
from phenolens.commands.image_commands import crops_summary
from phenolens.core.errors import InputError
from phenolens.crops.check import check_source
from phenolens.crops.config import CropConfig
from phenolens.crops.make_crops import make_crops
from phenolens.crops.source import OF_OTHER_SIZE, UNREADABLE, open_source
from phenolens.screens.ome_zarr import Chunks, plane_chunks
from phenolens.screens.read_image import read_field
from phenolens.screens.screen import Selection

ALL = Selection(treatments="all")
CONFIG = CropConfig(crop_px=10, treatments="all", skip_missing=True)


@pytest.fixture
def source(tmp_path):
    """A screen of files with a nucleus in every field."""
    source = write_table(write_images(tmp_path / "a screen"))
    write_nuclei(source)
    return source


def write_nuclei(source: Path) -> None:
    rows = [f"{plate},{well},{site},1,20,25" for plate, well, site in fields()]
    names = "plate,well,site,ObjectNumber,Location_Center_Y,Location_Center_X"
    (source / "Nuclei.csv").write_text("\n".join([names, *rows]) + "\n")


def crops(source: Path, out: Path, layout: str = "table"):
    return make_crops(source, out, layout=layout, config=CONFIG)


def halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE = {
    "truncated": halved,
    "not a complete TIFF": lambda path: path.write_text("<html>404 Not Found</html>"),
    "0 bytes": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("found", DAMAGE)
def test_a_field_with_a_file_that_cannot_be_read_is_left_out_counted_and_named(source, tmp_path, capsys, found):
    DAMAGE[found](source / "007" / "B03_s1_wactin.tif")
    store = crops(source, tmp_path / "crops")
    kept = store.cells[["plate", "well", "site"]].apply(tuple, axis=1).tolist()
    assert kept == sorted(set(fields()) - {("007", "B03", 1)})
    if found == "0 bytes":  # told by the folder's list alone
        assert store.about["left_out"] == {"fields without an image of each channel": 1}
    else:
        assert store.about["left_out"] == {UNREADABLE: 1}
        said = capsys.readouterr().err
        assert (
            'left out, 1 of 12 fields with a file that cannot be read; the first: plate "007", well "B03", si' in said
        )
        assert found in said


def test_without_leave_to_skip_check_names_the_first_such_file_and_counts_them(source, capsys):
    for well in ("B02", "C11"):
        halved(source / "p-2" / f"{well}_s2_wDNA.tif")
    assert main(["check", str(source), "--layout", "table", "--sample", "1"]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert 'plate "p-2", well "B02", site 2: channel "DNA" is truncated' in line
    assert line.endswith("(2 of 12 fields have such a file)")
    checked = check_source(source, layout="table", skip_missing=True)
    assert dict(checked.missing)[f"left out: {UNREADABLE}"] == "2"


def test_an_empty_file_of_a_bbbc021_download_is_left_out_too(tiny_screen, tmp_path):
    source = shutil.copytree(tiny_screen, tmp_path / "screen")
    sorted(source.glob("Week*/*_w2*.tif"))[0].write_bytes(b"")
    with pytest.raises(InputError, match="0 bytes"):
        check_source(source, layout="bbbc021")
    store = make_crops(source, tmp_path / "crops", layout="bbbc021", config=CropConfig(crop_px=36, skip_missing=True))
    assert store.about["left_out"]["fields without an image of each channel"] == 1
    assert crops_summary(store).endswith("; left out: fields without an image of each channel (1)")


def test_a_png_that_is_cut_is_seen_without_being_decoded(tmp_path, rng):
    imagecodecs = pytest.importorskip("imagecodecs")
    path = tmp_path / "a.png"
    whole = imagecodecs.png_encode(rng.integers(0, 65_536, (200, 200), dtype=np.uint16))
    path.write_bytes(whole)
    assert read_field({"DNA": path}, where="here").shape == (1, 200, 200)
    for n_bytes in (len(whole) - 1, len(whole) // 2, 40):
        path.write_bytes(whole[:n_bytes])
        with pytest.raises(InputError, match="is truncated"):
            read_field({"DNA": path}, where="here")


def test_where_no_field_can_be_read_nothing_is_begun(source, tmp_path):
    for path in source.glob("*/*_wDNA.tif"):
        halved(path)
    with pytest.raises(InputError, match=r"12 of 12 fields have such a file"):
        crops(source, tmp_path / "crops")
    assert not (tmp_path / "crops").exists()


KINDS = {"zarr 2": (2, None), "zarr 3": (3, None), "shards of two planes": (3, (2, 32, 32)), "shards": (3, (1, 48, 64))}


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_that_are_not_on_disk_are_counted_a_plane(tmp_path, kind):
    zarr_format, shards = KINDS[kind]
    stack = np.arange(1, 4001, dtype=np.uint16).reshape(2, 40, 50)
    stack[1, 16:32, :16] = stack[1, 32:, 48:] = 0  # what zarr leaves out; 3 x 4 chunks, the last of 8 x 2 px
    how = {"chunks": (1, 16, 16), "shards": shards, "zarr_format": zarr_format}
    zarr.create_array(tmp_path / "a", data=stack, **how)
    array = zarr.open_array(tmp_path / "a", mode="r")
    np.testing.assert_array_equal(array[:], stack)
    assert plane_chunks(array, tmp_path / "a", (0,)) == Chunks(12, 0)
    assert plane_chunks(array, tmp_path / "a", (1,)) == Chunks(12, 2)


def test_a_file_of_chunks_that_is_lost_takes_all_of_them(tmp_path):
    zarr.create_array(tmp_path / "a", data=np.ones((2, 40, 50), np.uint16), chunks=(1, 16, 16), shards=(2, 32, 32))
    (tmp_path / "a" / "c" / "0" / "0" / "0").unlink()  # 32 x 32 px of both planes
    array = zarr.open_array(tmp_path / "a", mode="r")
    assert plane_chunks(array, tmp_path / "a", (0,)) == plane_chunks(array, tmp_path / "a", (1,)) == Chunks(12, 4)


@pytest.fixture(params=[2, 3])
def plates(request, tmp_path):
    """OME-Zarr plates whose planes lie in 20 x 50 px chunks, two a plane."""
    (tmp_path / "zarr").mkdir()
    source = write_plates(write_plate_map(tmp_path / "zarr"), zarr_format=request.param)
    for path in sorted(source.glob("*.zarr/*/*/*")):
        if path.is_dir():
            group = zarr.open_group(path, mode="r+")
            attributes, stack = dict(group.attrs), np.asarray(group["0"])
            del group["0"]
            group.create_array("0", data=stack, chunks=(1, 20, 50))
            ome = attributes.get("ome", attributes)
            say(group, ome, request.param)
    write_nuclei(source)
    return source


def chunk(source: Path, number: int) -> Path:
    """The file of one chunk of the first channel of plate p-2, well B02, site 1."""
    image = source / "p-2.zarr" / "B" / "2" / "0" / "0"
    v2, v3 = image / f"0.{number}.0", image / "c" / "0" / str(number) / "0"
    return v3 if v3.exists() else v2


def test_a_lost_chunk_is_said_and_the_rest_is_taken(plates, tmp_path, capsys):
    assert open_source(plates, layout="ome-zarr", selection=ALL).missing_chunks is None
    chunk(plates, 1).unlink()
    said = 'plate "p-2", well "B02", site 1: channel "DNA" lacks 1 of 2'
    assert said in dict(check_source(plates, layout="ome-zarr").missing)["chunks"]
    store = crops(plates, tmp_path / "crops", "ome-zarr")
    assert len(store) == 12
    assert f"note: not on disk and read as empty: 1 chunk in 1 field: {said}" in capsys.readouterr().err
    assert store.about["source"]["chunks_not_on_disk"] == 1


def test_a_plane_without_any_chunk_is_refused_or_its_field_left_out(plates, tmp_path):
    for number in (0, 1):
        chunk(plates, number).unlink()
    with pytest.raises(InputError, match=r'site 1: channel "DNA" has no pixels .*none of the plane\'s 2 chunks is on'):
        check_source(plates, layout="ome-zarr")
    store = crops(plates, tmp_path / "crops", "ome-zarr")
    assert (len(store), store.about["left_out"]) == (11, {UNREADABLE: 1})


def test_crops_are_not_begun_before_every_file_was_looked_at(source, tmp_path, capsys):
    (source / "Nuclei.csv").unlink()  # they would be searched, plate after plate
    halved(source / "p-2" / "C11_s2_wactin.tif")
    study = tmp_path / "study"
    command = ["crop", str(study), "--source", str(source), "--layout", "table", "--treatments", "all"]
    assert main([*command, "--nucleus-px", "8", "--crop-px", "10"]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert 'plate "p-2", well "C11", site 2: channel "actin" is truncated' in line
    assert line.endswith("or run with --skip-missing (1 of 12 fields have such a file)")
    assert not (study / "crops").exists()


def test_an_image_of_another_size_is_named_beforehand_and_in_check(source, tmp_path):
    path = source / "p-2" / "C11_s2_wactin.tif"
    tifffile.imwrite(path, tifffile.imread(path)[:-1])
    with pytest.raises(InputError, match=r'site 2: channel "actin" is \d+ x \d+ px, plate .*--plates.*--skip-missing'):
        check_source(source, layout="table", sample=1)
    store = crops(source, tmp_path / "crops")  # skips what is missing
    assert (len(store), store.about["left_out"]) == (11, {OF_OTHER_SIZE: 1})


def test_fields_that_are_all_of_another_size_or_type_than_most_are_refused(source, tmp_path):
    for number, (plate, well, site) in enumerate(fields()):
        for channel, odd in {"DNA": (3, 4, 5), "actin": (0, 1, 2, 6)}.items():
            path = source / plate / f"{well}_s{site}_w{channel}.tif"
            image = tifffile.imread(path)[: None if number < 7 else -1]
            tifffile.imwrite(path, image.astype(np.uint8 if number in odd else np.uint16))
    with pytest.raises(InputError, match=r'site 1: channel "actin" is uint8, .* is uint16; .*--plates$'):
        crops(source, tmp_path / "crops")


def test_who_skips_already_is_not_told_to_skip(source, tmp_path, capsys):
    halved(source / "007" / "B03_s1_wactin.tif")
    crops(source, tmp_path / "crops")
    assert "replace the file\n" in capsys.readouterr().err


def test_a_chunk_of_no_bytes_is_refused_or_its_field_left_out(plates, tmp_path):
    chunk(plates, 1).write_bytes(b"")
    with pytest.raises(InputError, match=r'channel "DNA" is not whole \(.*: the file is empty, 0 bytes\)'):
        check_source(plates, layout="ome-zarr")
    store = crops(plates, tmp_path / "crops", "ome-zarr")
    assert (len(store), store.about["left_out"]) == (11, {UNREADABLE: 1})


ODD_WELLS = {
    "a well without a path": ("", {"plate": {"wells": [{"rowIndex": 0}]}}),
    "a field without a path": ("B/2", {"well": {"images": [{"acquisition": 1}]}}),
    "no list of fields": ("B/2", {"well": {"images": 3}}),
}


@pytest.mark.parametrize("odd", ODD_WELLS)
def test_metadata_of_a_plate_that_names_no_path_is_refused_in_one_line(plates, odd):
    place, said = ODD_WELLS[odd]
    version = 3 if (plates / "p-2.zarr" / "zarr.json").exists() else 2
    say(zarr.open_group(plates / "p-2.zarr" / place, mode="r+"), said, version)
    with pytest.raises(InputError, match=r'p-2\.zarr.*: its metadata lists .*, which has no "path"; correct the met'):
        check_source(plates, layout="ome-zarr")


def test_where_the_controls_cannot_be_read_no_crop_is_begun(source, tmp_path):
    controls = read_screen(source, layout="table", treatments="all").table.query("role == 'control'")
    for path in controls["file_actin"]:
        halved(source / path)
    with pytest.raises(InputError, match="no control well is left, and profiles are scaled by the controls"):
        crops(source, tmp_path / "crops")
    assert not (tmp_path / "crops").exists()
