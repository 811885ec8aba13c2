"""Bounds in a setting's annotation are checked when the settings are made, and do not disturb the command line."""

from dataclasses import dataclass
from typing import Annotated

import pytest
import tyro

from phenolens.core.bounds import Bounded, Bounds, Count, Positive, Seed, Share
from phenolens.core.errors import InputError


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
    ],
)
def test_a_setting_out_of_bounds_is_refused_by_its_flag(setting):
    (name,) = setting
    with pytest.raises(InputError, match=f"--{name.replace('_', '-')}"):
        Config(**setting)


def test_settings_on_their_bounds_are_taken():
    at_bounds = {"n_cells": 1, "seed": 0, "width": 10_000, "decay": 0.0, "share": 1.0, "sites": (1,)}
    assert Config(**at_bounds).width == 10_000


def test_the_command_line_reads_bounded_settings():
    parsed = tyro.cli(Config, args=["--n-cells", "3", "--pixel-um", "0.5", "--sites", "2", "4"])
    assert (parsed.n_cells, parsed.pixel_um, parsed.sites) == (3, 0.5, (2, 4))
    with pytest.raises(InputError, match="--n-cells"):
        tyro.cli(Config, args=["--n-cells", "0"])


def test_a_bound_reads_as_a_phrase():
    assert str(Bounds(ge=0, lt=1)) == "of at least 0 and below 1"
