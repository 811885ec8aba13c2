import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from bbbc021_source import edit_csv, write_source
from phenolens.core.errors import InputError
from phenolens.crops import build as build_module
from phenolens.crops import source as source_module
from phenolens.crops.config import CropConfig
from phenolens.crops.make_crops import make_crops
from phenolens.crops.store import CropStore
from phenolens.screens.image_states import middle_sha256

SMALL = CropConfig(crop_px=8)
N_RENAMES = 6  # about.json (unfinished), two plates of crops and table, about.json

KILLED_AT_A_RENAME = """
import os, pathlib, signal, sys
from phenolens.crops.config import CropConfig
from phenolens.crops.make_crops import make_crops
source, folder, survived = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
rename, calls = pathlib.Path.replace, []
def replace(self, target):
    calls.append(target)
    if len(calls) > survived:
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, target)
pathlib.Path.replace = replace
make_crops(source, folder, layout="bbbc021", config=CropConfig(crop_px=8))
"""


@pytest.fixture
def source(tmp_path):
    folder = write_source(tmp_path / "source")
    for path in folder.rglob("*.tif"):
        os.utime(path, ns=(10**18, 10**18))  # long ago
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def times(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def make(source: Path, folder: Path, config: CropConfig = SMALL) -> dict[str, bytes]:
    make_crops(source, folder, layout="bbbc021", config=config)
    return files(folder)


@pytest.fixture
def fields_read(monkeypatch) -> list[str]:
    """The fields that are read from here on."""
    read: list[str] = []
    read_field = source_module.read_field

    def counted(paths, *, where, **known):
        read.append(where)
        return read_field(paths, where=where, **known)

    monkeypatch.setattr(source_module, "read_field", counted)
    return read


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
@pytest.mark.parametrize("survived", range(N_RENAMES))
def test_killed_anywhere_the_same_command_ends_with_the_same_files(source, tmp_path, survived):
    undisturbed = make(source, tmp_path / "undisturbed")
    command = [sys.executable, "-c", KILLED_AT_A_RENAME, source, tmp_path / "killed", str(survived)]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    assert any(name.endswith(".partial") for name in files(tmp_path / "killed"))
    assert make(source, tmp_path / "killed") == undisturbed


def test_a_killed_build_goes_on_at_the_plate_where_it_stood(source, tmp_path, fields_read, monkeypatch):
    counted = source_module.read_field

    def stopped_at_the_last_plate(paths, *, where, **known):
        if 'plate "Week1_22123"' in where:
            raise KeyboardInterrupt
        return counted(paths, where=where, **known)

    with monkeypatch.context() as while_stopped:
        while_stopped.setattr(source_module, "read_field", stopped_at_the_last_plate)
        with pytest.raises(KeyboardInterrupt):
            make(source, tmp_path / "crops")
    assert fields_read  # of the plate before it
    fields_read.clear()
    make(source, tmp_path / "crops")
    assert len(fields_read) == 6
    assert all('plate "Week1_22123"' in where for where in fields_read)


def test_run_again_nothing_is_read_and_nothing_written(source, tmp_path, fields_read):
    make(source, tmp_path / "crops")
    before = times(tmp_path / "crops")
    fields_read.clear()
    make(source, tmp_path / "crops")
    assert fields_read == []
    assert times(tmp_path / "crops") == before


def test_another_side_makes_all_plates_anew_and_back_again(source, tmp_path):
    first = make(source, tmp_path / "crops")
    assert make(source, tmp_path / "crops", CropConfig(crop_px=6)) != first
    assert make(source, tmp_path / "crops") == first


def test_a_corrected_mechanism_rewrites_tables_and_reads_no_image(source, tmp_path, fields_read):
    first = make(source, tmp_path / "crops")
    before = CropStore.open(tmp_path / "crops")
    fields_read.clear()
    moa = pd.read_csv(source / "BBBC021_v1_moa.csv")["moa"].iloc[0]
    edit_csv(source / "BBBC021_v1_moa.csv", lambda table: table.assign(moa=table["moa"].replace(moa, "corrected")))
    corrected = make(source, tmp_path / "crops")
    after = CropStore.open(tmp_path / "crops")
    assert fields_read == []
    assert "corrected" in set(after.cells["moa"])
    assert moa not in set(after.cells["moa"])
    assert after.identity != before.identity
    assert after.identity_without_mechanisms == before.identity_without_mechanisms
    assert make(source, tmp_path / "anew") == corrected != first


def test_a_plate_is_made_anew_when_its_centres_change(source, tmp_path, fields_read):
    make(source, tmp_path / "crops")
    fields_read.clear()
    edit_csv(source / "Nuclei.csv", lambda table: table.assign(Location_Center_Y=15.0 + table["TableNumber"]))
    make(source, tmp_path / "crops")
    assert {where.split(",")[0] for where in fields_read} == {'plate "Week1_22123"'}


def test_centres_taken_back_after_a_death_between_crops_and_table_give_the_first_crops(source, tmp_path, monkeypatch):
    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    first = make(source, tmp_path / "crops")
    edit_csv(source / "Nuclei.csv", lambda table: table.assign(Location_Center_Y=table["Location_Center_Y"] + 1))
    with monkeypatch.context() as patched:
        patched.setattr(build_module, "write_parquet", die)
        with pytest.raises(KeyboardInterrupt):
            make(source, tmp_path / "crops")
    edit_csv(source / "Nuclei.csv", lambda table: table.assign(Location_Center_Y=table["Location_Center_Y"] - 1))
    assert make(source, tmp_path / "crops") == first


def test_the_count_at_the_border_is_of_these_centres(source, tmp_path):
    nuclei = (source / "Nuclei.csv").read_text()
    without_border = make(source, tmp_path / "crops")
    (source / "Nuclei.csv").write_text(nuclei + "1,1,8,0.0,0.0\n")
    assert make(source, tmp_path / "crops")["about.json"] != without_border["about.json"]
    (source / "Nuclei.csv").write_text(nuclei)
    assert make(source, tmp_path / "crops") == without_border


def test_a_plate_is_made_anew_when_an_image_is_newer(source, tmp_path):
    first = make(source, tmp_path / "crops")
    path = source / "Week1_22123" / "B02_s1_w1123AB-0.tif"
    tifffile.imwrite(path, np.flip(tifffile.imread(path)))
    second = make(source, tmp_path / "crops")
    assert second["Week1_22123.npy"] != first["Week1_22123.npy"]
    assert second["Week10_40111.npy"] == first["Week10_40111.npy"]


def test_a_plate_is_cropped_again_when_an_older_image_takes_the_place_of_one(source, tmp_path):
    first = make(source, tmp_path / "crops")
    path = source / "Week1_22123" / "B02_s1_w1123AB-0.tif"
    tifffile.imwrite(path, np.flip(tifffile.imread(path)))
    os.utime(path, (0, 0))
    assert make(source, tmp_path / "crops")["Week1_22123.npy"] != first["Week1_22123.npy"]


def test_an_image_is_sampled_once_and_again_when_another_takes_its_place(tmp_path, monkeypatch):
    path, other = tmp_path / "a.tif", tmp_path / "b.tif"
    for file, letter in ((path, b"1"), (other, b"2")):
        file.write_bytes(9000 * letter)
        os.utime(file, (0, 0))
    first = middle_sha256(path)
    other.replace(path)
    second = middle_sha256(path)
    assert second != first
    monkeypatch.setattr(Path, "open", None)
    assert middle_sha256(path) == second


def test_a_damaged_plate_is_made_anew(source, tmp_path):
    first = make(source, tmp_path / "crops")
    (tmp_path / "crops" / "Week1_22123.npy").write_bytes(first["Week1_22123.npy"][:-1])
    (tmp_path / "crops" / "Week10_40111.parquet").write_bytes(b"PAR1")
    assert make(source, tmp_path / "crops") == first


def test_plates_that_are_no_longer_asked_for_are_removed(source, tmp_path, fields_read):
    make(source, tmp_path / "crops")
    fields_read.clear()
    left = make(source, tmp_path / "crops", CropConfig(crop_px=8, plates=("Week1_22123",)))
    assert set(left) == {"about.json", "Week1_22123.npy", "Week1_22123.parquet", "quality/Week1_22123.parquet"}
    assert fields_read == []


def test_a_folder_that_holds_something_else_is_left_alone(source, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "Week1_22123.npy").write_text("years of work")
    with pytest.raises(InputError, match=r'holds "Week1_22123.npy"'):
        make(source, tmp_path / "mine")
    assert files(tmp_path / "mine") == {"Week1_22123.npy": b"years of work"}
    with pytest.raises(InputError, match="is a file; give a folder"):
        make(source, tmp_path / "mine" / "Week1_22123.npy")


def test_where_the_source_lies_does_not_matter(source, tmp_path):
    first = make(source, tmp_path / "crops")
    source.rename(tmp_path / "moved")
    assert make(tmp_path / "moved", tmp_path / "other") == first
