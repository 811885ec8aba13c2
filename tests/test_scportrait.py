"""scPortrait's sets of single-cell images: out and in again, and in as scPortrait lays them out itself."""

import subprocess
import sys

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest

from phenolens.cli import main
from phenolens.core.errors import InputError
from phenolens.crops.config import CropConfig
from phenolens.crops.make_crops import make_crops
from phenolens.screens.config import LayoutConfig
from processes import with_small_files

CONFIG = CropConfig(crop_px=36)


def test_crops_go_out_and_come_back_to_a_float16s_precision(tiny_study, tmp_path):
    store = tiny_study.crops
    (tmp_path / "set").mkdir()
    assert main(["export", str(tiny_study.folder), "--out", str(tmp_path / "set" / "crops.h5sc")]) == 0
    again = make_crops(tmp_path / "set", tmp_path / "again", layout="h5sc", config=CONFIG)
    assert again.channels == store.channels
    ours = store.cells.reset_index(drop=True)
    theirs = again.cells
    assert theirs["plate"].tolist() == ours["plate"].tolist()
    assert theirs["compound"].tolist() == ours["compound"].tolist()
    assert theirs["moa"].fillna("").tolist() == ours["moa"].fillna("").tolist()
    assert theirs["cell_id"].tolist() == ours["cell_id"].tolist()
    np.testing.assert_array_equal(theirs[["y", "x"]], ours[["y", "x"]])
    assert main(["export", str(tiny_study.folder), "--out", str(tmp_path / "set" / "crops.h5sc")]) == 2
    assert main(["check", str(tmp_path / "set"), "--layout", "h5sc"]) == 0
    before = store.take(np.arange(len(store))).astype(float)
    after = again.take(np.arange(len(again))).astype(float)
    np.testing.assert_allclose(after, before, rtol=2**-11, atol=0.51)
    assert list((tmp_path / "set").iterdir()) == [tmp_path / "set" / "crops.h5sc"]


def scportraits_own(path, *, side: int = 24) -> np.ndarray:
    """A file as scPortrait writes it: two masks, then two channels; cell ids; its size in uns. The images are given."""
    rng = np.random.default_rng(0)
    n = 12
    images = rng.random((n, 4, side, side)).astype(np.float16)
    images[:, :2] = images[:, :2] > 0.5
    obs = pd.DataFrame({"cell_id": np.arange(100, 100 + n, dtype=np.uint64), "well": ["A1", "A2", "B01"] * 4})
    obs.index = obs.index.astype(str)
    var = pd.DataFrame({"channels": ["seg_nucleus", "seg_cytosol", "DAPI", "mCherry"]}, index=list("0123"))
    var["channel_mapping"] = ["mask", "mask", "image_channel", "image_channel"]
    anndata.AnnData(obs=obs, var=var, uns={"single_cell_images": {"n_cells": n}}).write_h5ad(path)
    with h5py.File(path, "a") as file:
        file.create_dataset("obsm/single_cell_images", data=images, chunks=(1, 1, side, side), compression="gzip")
    return images


PLATE_MAP = "well,compound,concentration,moa\nA01,DMSO,0,\nA02,taxol,1,stabilisers\nB01,noco,2,destabilisers\n"


@pytest.fixture
def theirs(tmp_path):
    source = tmp_path / "theirs"
    source.mkdir()
    images = scportraits_own(source / "single_cells.h5sc")
    (source / "plate_map.csv").write_text(PLATE_MAP)
    return source, images


def test_scportraits_own_file_is_read_without_its_masks_and_with_a_plate_map(theirs, tmp_path):
    source, images = theirs
    reading = LayoutConfig(channels=("DNA=DAPI", "actin=mCherry"))
    config = CropConfig(crop_px=24, skip_missing=True, leave_out=())
    store = make_crops(source, tmp_path / "crops", layout="h5sc", config=config, reading=reading)
    assert store.channels == ("DNA", "actin")
    assert store.plates == ("single_cells",)
    assert store.cells["object_number"].tolist() == [100, 103, 106, 109, 101, 104, 107, 110, 102, 105, 108, 111]
    rows = store.cells["object_number"].to_numpy() - 100
    np.testing.assert_array_equal(store.take(np.arange(12)), np.rint(images[rows, 2:].astype(np.float32) * 65535))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda file: file.__delitem__("obsm/single_cell_images"), "not a set of single-cell images"),
        (lambda file: file["obs"].move("well", "hole"), "not a set|the well"),
        (lambda file: file["obsm/single_cell_images"].__setitem__((0, 3, 0, 0), 7), "grey values"),
    ],
)
def test_a_file_that_is_none_is_refused_in_a_line(theirs, tmp_path, spoil, words):
    source, _ = theirs
    with h5py.File(source / "single_cells.h5sc", "a") as file:
        spoil(file)
    with pytest.raises(InputError, match=words) as refused:
        make_crops(source, tmp_path / "crops", layout="h5sc", config=CropConfig(crop_px=24))
    assert "\n" not in str(refused.value)


def test_the_file_is_named_where_there_are_several(theirs, tmp_path):
    source, _ = theirs
    (source / "more.h5sc").write_bytes(b"")
    with pytest.raises(InputError, match="2 files named"):
        make_crops(source, tmp_path / "crops", layout="h5sc", config=CropConfig(crop_px=24))
    with pytest.raises(InputError, match="images of 24 x 24 px, expected 36 x 36"):
        make_crops(
            source,
            tmp_path / "c2",
            layout="h5sc",
            config=CONFIG,
            reading=LayoutConfig(table=source / "single_cells.h5sc"),
        )
    with pytest.raises(InputError, match="not a set"):
        make_crops(source, tmp_path / "c3", layout="h5sc", reading=LayoutConfig(table=source / "more.h5sc"))


def test_a_full_disk_is_one_line(tiny_study, tmp_path):
    command = [sys.executable, "-m", "phenolens.cli", "export", str(tiny_study.folder), "--out", "crops.h5sc"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=with_small_files,
    )
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "the disk is full" in done.stderr
    assert not list(tmp_path.glob("*.h5sc*"))
    assert not list(tmp_path.glob(".*.partial"))


def test_another_ending_is_refused(tiny_study, capsys):
    assert main(["export", str(tiny_study.folder), "--out", "crops.h5"]) == 2
    assert "ends in .h5sc" in capsys.readouterr().err
