"""What tests share: the real data beside the project, and seeded randomness."""

import os
from pathlib import Path

import numpy as np
import pytest


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
