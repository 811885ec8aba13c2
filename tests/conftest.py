"""What tests share: the real data beside the project, and seeded randomness."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from phenolens.images.config import CropConfig
from phenolens.images.crops import make_crops
from phenolens.images.store import CropStore
from phenolens.screen.simulate import SimulateConfig, simulate
from phenolens.study import Study
from phenolens.training.device import Compute

if TYPE_CHECKING:
    from playwright.sync_api import Browser

TINY = SimulateConfig(
    mechanisms=4, compounds=2, doses=1, active_doses=1, replicates=1, field_width_px=150, field_height_px=140, cells=10
)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with real BBBC021 data and real files of other formats; it is not part of the project."""
    folder = Path(os.environ.get("PHENOLENS_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "bbbc021" / "README.md").is_file():
        pytest.skip(f"no real data at {folder} (set PHENOLENS_REAL_DATA to the folder that holds bbbc021/)")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(2019)


@pytest.fixture(scope="session")
def tiny_screen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated screen of 4 mechanisms, 8 compounds at one dose, 2 batches of 1 plate: drawn in seconds."""
    folder = tmp_path_factory.mktemp("tiny") / "screen"
    simulate(folder, TINY)
    return folder


@pytest.fixture
def tiny_study(tiny_screen: Path, tmp_path: Path) -> Study:
    """A study with crops of 36 px of the tiny screen."""
    study = Study.create(tmp_path / "study")
    make_crops(tiny_screen, study.crops, layout="bbbc021", config=CropConfig(crop_px=36))
    return study


@pytest.fixture
def store(tiny_study: Study) -> CropStore:
    """The crops of the tiny screen."""
    return tiny_study.store()


@pytest.fixture
def compute() -> Compute:
    """One thread, float32: what is computed twice is the same."""
    return Compute.chosen(device="cpu", precision="float32", threads=1)


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """Debian's chromium without a window, for one module: while it is open, nothing else can run an event loop here.

    A page of it: `browser.new_page(viewport={"width": 390, "height": 844})`."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium here: install the package chromium to test pages in a browser")
    from playwright.sync_api import sync_playwright

    # as root it cannot start in its sandbox; it asks nobody for anything; WebGL is computed by the processor
    flags = ["--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", "--enable-unsafe-swiftshader", "--use-angle=swiftshader"]
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield started
        started.close()
