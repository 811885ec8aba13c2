"""What tests share: real data, seeded randomness, and screens and studies that are built once in a run of the tests."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from filelock import FileLock

from phenolens.crops.config import CropConfig
from phenolens.crops.make_crops import make_crops
from phenolens.crops.store import CropStore
from phenolens.simulation.simulate import SimulateConfig, simulate
from phenolens.study import Study
from phenolens.training.device import Compute
from travelling_study import explored_study, travelling_study

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


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """A test that sets the number of threads does not leave it to the next, whose workers would wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(2019)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules with slow tests first, so that no worker is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """`built_once(name, build)`: a folder that `build` fills in the first worker that asks for it.

    All workers share the folder. A test that changes it takes a copy.
    """
    own = tmp_path_factory.getbasetemp()
    root = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    root.mkdir(exist_ok=True)

    def folder_of(name: str, build: Callable[[Path], object]) -> Path:
        folder, finished = root / name, root / f"{name}.finished"
        with FileLock(root / f"{name}.lock"):
            if not finished.exists():
                shutil.rmtree(folder, ignore_errors=True)
                build(folder)
                finished.touch()
        return folder

    return folder_of


@pytest.fixture(scope="session")
def tiny_screen(built_once) -> Path:
    """A simulated screen of 4 mechanisms, 8 compounds at one dose, 2 batches of 1 plate."""
    return built_once("tiny-screen", lambda folder: simulate(folder, TINY))


@pytest.fixture(scope="session")
def cropped_study(built_once, tiny_screen: Path) -> Path:
    """The folder of a study with crops of 36 px of the tiny screen; not to be changed."""

    def build(folder: Path) -> None:
        make_crops(tiny_screen, Study.create(folder).crops_folder, layout="bbbc021", config=CropConfig(crop_px=36))

    return built_once("cropped-study", build)


@pytest.fixture
def tiny_study(cropped_study: Path, tmp_path: Path) -> Study:
    """A copy of the cropped study for one test."""
    return Study.open(shutil.copytree(cropped_study, tmp_path / "study"))


@pytest.fixture(scope="session")
def travelling(built_once, cropped_study: Path) -> Study:
    """A study to travel in; not to be changed."""
    return Study.open(built_once("travelling-study", lambda folder: travelling_study(cropped_study, folder)))


@pytest.fixture(scope="session")
def explored(built_once, travelling: Study) -> Study:
    """The travelling study, profiled and scored; not to be changed."""
    return Study.open(built_once("explored-study", lambda folder: explored_study(travelling.folder, folder)))


@pytest.fixture
def store(tiny_study: Study) -> CropStore:
    """The crops of the tiny screen."""
    return tiny_study.crops


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
