"""The benchmark of what models learn: from a screen to a table in which every number can be wrong."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from phenolens.crops.store import normalised
from phenolens.study import Study

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "learned.py"
CHANNELS = ("DNA", "tubulin", "actin")
FIDELITY = ("error", "ssim", "power_ratio", "ring_correlation", "line_ratio")
PICTURES = ("reconstructions.png", "channels.png")
MODELS = ["ae", "vae", "vaeplus", "pca"]
TINY = "--steps 4 --batch-size 6 --width 4 --ramp-steps 1 --crop-px 36 --held-out-wells 0.2 --threads 1"


@pytest.fixture(scope="module")
def learned() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("learned", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["learned"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def run(learned: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["learned.py", *map(str, arguments)])
    return learned.main()


@pytest.fixture
def out(learned, tiny_screen, tmp_path, monkeypatch) -> Path:
    """What the script makes of the tiny screen in four steps."""
    flags = ["--source", tiny_screen, "--layout", "bbbc021", "--seeds", 3, "--protocols", "NSC", "--shuffles", 2]
    assert run(learned, monkeypatch, tmp_path / "out", *flags, *TINY.split()) == 0
    return tmp_path / "out"


@pytest.mark.slow
def test_every_model_is_measured_a_channel_on_cells_it_never_saw(out):
    table = pd.read_csv(out / "learned.csv")
    value = table.set_index(["model", "channel", "measure"])["value"]
    assert value.index.is_unique
    for model in MODELS:
        of_channels = value[model].unstack("measure").loc[list(CHANNELS), list(FIDELITY)]
        assert np.isfinite(of_channels).all(axis=None)
        assert value[model, "all", "error"] == pytest.approx(of_channels["error"].sum())
        assert 0 < value[model, "all", "measured_cells"] < 0.4 * len(Study.open(out / "study").crops)
    undefined = table[table["value"].isna()]
    assert set(undefined["measure"]) == {"active_features"}
    assert set(undefined["model"]) == {"ae", "pca"}  # without a prior there is nothing to count
    # four steps teach a network nothing; what is fitted at once draws cells that are nearer than black pictures
    assert value["pca", "all", "error"] < 0.2 * error_of_black_pictures(out)
    assert value["vae", "all", "error"] > 0.5 * error_of_black_pictures(out)
    text = (out / "learned.md").read_text()
    assert all(f"| {channel} | {name} | " in text for channel in CHANNELS for name in ("AE", "VAE", "VAE+"))
    assert all((out / picture).read_bytes().startswith(b"\x89PNG") for picture in PICTURES)


def test_the_spread_is_the_deviation_over_seeds_and_one_seed_has_none(learned):
    assert learned.summary(pd.Series([0.50, 0.52, 0.54])) == "0.520 ± 0.020"
    assert learned.summary(pd.Series([31.2])) == "31.2"
    assert learned.summary(pd.Series([np.nan, np.nan])) == "-"


def test_lines_along_the_axes_are_told_from_lines_aslant_and_from_noise(learned, rng):
    y, x = np.mgrid[:68, :68]
    upright, aslant = (np.sin(2 * np.pi * way / 7)[None, None] for way in (x, (x + y) / np.sqrt(2)))
    assert learned.line_share(upright) > 0.95
    assert learned.line_share(aslant) < 0.05
    of_noise = learned.line_share(rng.normal(size=(200, 2, 68, 68)))
    np.testing.assert_allclose(of_noise, 0.165, atol=0.01)  # its share of the frequencies


def error_of_black_pictures(out: Path) -> float:
    """Half the sum of squares of the study's crops, mean over cells."""
    store = Study.open(out / "study").crops
    return float(0.5 * np.square(normalised(store.take(range(len(store))))).sum((1, 2, 3)).mean())
