"""`--cells cellpose`, with a stand-in for Cellpose that is called as Cellpose is: a nucleus where it says one is."""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from layout_sources import fields, write_images, write_table
from phenolens.cli import main
from phenolens.crops.nuclei import load_cellpose
from phenolens.crops.store import CropStore

PLACE = ["--layout", "table"]


class SeesOne:
    """Says that the pixels of rows 18 to 22 and columns 23 to 27 are a nucleus."""

    loaded = 0

    def __init__(self, *, gpu: bool) -> None:
        assert gpu
        type(self).loaded += 1

    def eval(self, image: np.ndarray, *, diameter: float) -> tuple[np.ndarray, list, list]:
        assert (image.dtype, diameter) == (np.dtype(np.float32), 9)
        masks = np.zeros(image.shape, np.uint16)
        masks[18:23, 23:28] = 1
        return masks, [], []


class HasNoWeights:
    """Fails as a download does."""

    def __init__(self, *, gpu: bool) -> None:
        raise OSError("<urlopen error [Errno -3] Temporary failure\n in name resolution>")


@pytest.fixture
def installed(monkeypatch):
    """Puts a stand-in where `from cellpose import models` looks."""

    def install(model: type | None) -> None:
        package = None if model is None else ModuleType("cellpose")
        if package is not None:
            package.models = ModuleType("cellpose.models")
            package.models.CellposeModel = model
        monkeypatch.setitem(sys.modules, "cellpose", package)
        load_cellpose.cache_clear()

    yield install
    load_cellpose.cache_clear()


@pytest.fixture
def source(tmp_path) -> Path:
    return write_table(write_images(tmp_path / "screen"))


def crop(source: Path, study: Path) -> int:
    how = ["--cells", "cellpose", "--nucleus-px", "9", "--crop-px", "14", "--treatments", "all"]
    return main(["crop", str(study), "--source", str(source), *PLACE, *how])


def test_crops_lie_around_what_cellpose_sees_and_it_is_loaded_once(source, tmp_path, installed, capsys):
    installed(SeesOne)
    SeesOne.loaded = 0
    assert crop(source, tmp_path / "study") == 0
    assert "by Cellpose, nuclei of about 9 px" in capsys.readouterr().err
    store = CropStore.open(tmp_path / "study" / "crops")
    assert store.cells[["y", "x"]].to_numpy().tolist() == [[20, 25]] * len(fields())
    assert store.about["source"]["cells"] == "cellpose"
    assert SeesOne.loaded == 1
    installed(HasNoWeights)  # what was found is kept, so that it is not asked for again
    assert crop(source, tmp_path / "study") == 0


def test_check_outlines_what_cellpose_sees_and_says_the_command(source, tmp_path, installed, capsys):
    installed(SeesOne)
    picture = tmp_path / "nuclei.png"
    said = ["--overlay", str(picture), "--cells", "cellpose", "--nucleus-px", "9"]
    assert main(["check", str(source), *PLACE, *said]) == 0
    out, err = capsys.readouterr()
    assert "8 found by Cellpose in channel DNA of 8 fields" in out
    assert picture.stat().st_size > 1000
    assert "--cells cellpose --nucleus-px 6 " in err  # as measured: 9 is more than 1.3 times off


@pytest.mark.parametrize("model", [None, HasNoWeights])
def test_without_cellpose_or_its_weights_one_line_is_said_and_no_crop_begun(source, tmp_path, installed, capsys, model):
    installed(model)
    assert crop(source, tmp_path / "study") == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert ("Cellpose is not installed" if model is None else "Cellpose cannot load its weights (<urlopen") in last
    assert "(--cells found)" in last
    assert not (tmp_path / "study" / "crops" / "about.json").exists()
