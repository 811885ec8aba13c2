"""Bounds in a setting's annotation are checked when the settings are made, and do not disturb the command line."""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import pytest
import tyro

from phenolens.core.bounds import Bounded, Bounds, Count, OneOf, Positive, Seed, Share
from phenolens.core.errors import InputError

REGISTRY = {"vae": 1}


@dataclass(frozen=True)
class Config(Bounded):
    """Settings of a test."""

    n_cells: Count = 1  # cells
    seed: Seed = 0
    width: Annotated[int, Bounds(ge=1, le=10_000)] = 64
    decay: Annotated[float, Bounds(ge=0, lt=1)] = 0.5
    slope: Annotated[float, Bounds(lt=0)] = -5.5
    share: Share = 0.5
    pixel_um: Positive | None = None
    sites: tuple[Count, ...] = ()
    how: Literal["pca", "zca"] = "pca"
    turns: Literal[1, 8] | None = None
    formats: tuple[Literal["png", "svg"], ...] = ()
    place: tuple[str, int] | None = None
    model: Annotated[Literal["vae"], OneOf(REGISTRY)] = "vae"
    compiled: bool = False


@pytest.mark.parametrize(
    "setting",
    [
        {"n_cells": 0},
        {"seed": -1},
        {"width": 10_001},
        {"decay": 1.0},
        {"slope": 0.0},
        {"share": 1.01},
        {"share": float("nan")},
        {"pixel_um": 0.0},
        {"pixel_um": float("inf")},
        {"sites": (1, 0)},
        {"n_cells": 1.5},
        {"n_cells": "ten"},
        {"n_cells": True},
        {"n_cells": None},
        {"share": "half"},
        {"how": "pcb"},
        {"turns": 2},
        {"formats": ("png", "jpg")},
        {"formats": 3},
        {"place": ("A01",)},
        {"model": "pca"},
        {"compiled": "yes"},
    ],
)
def test_a_setting_out_of_bounds_is_refused_by_its_flag(setting):
    (name,) = setting
    with pytest.raises(InputError, match=f"--{name.replace('_', '-')}"):
        Config(**setting)


def test_settings_on_their_bounds_are_taken():
    at_bounds = {"n_cells": 1, "seed": 0, "width": 10_000, "decay": 0.0, "share": 1.0, "sites": (1,)}
    assert Config(**at_bounds).width == 10_000


def test_choices_are_named_with_the_nearest_and_a_registry_may_grow(monkeypatch):
    with pytest.raises(InputError, match=r'pca, zca.*did you mean "zca"'):
        Config(how="zcaa")
    monkeypatch.setitem(REGISTRY, "made-up", 2)
    assert Config(model="made-up", turns=8, place=("A01", 1), n_cells=np.int64(3)).model == "made-up"


def test_the_command_line_reads_bounded_settings():
    parsed = tyro.cli(Config, args=["--n-cells", "3", "--pixel-um", "0.5", "--sites", "2", "4"])
    assert (parsed.n_cells, parsed.pixel_um, parsed.sites) == (3, 0.5, (2, 4))
    with pytest.raises(InputError, match="--n-cells"):
        tyro.cli(Config, args=["--n-cells", "0"])


def test_a_bound_reads_as_a_phrase():
    assert str(Bounds(ge=0, lt=1)) == "of at least 0 and below 1"
