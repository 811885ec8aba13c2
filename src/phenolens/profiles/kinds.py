"""The kinds of profiles of a run: statistics of a well's cells, and what is done to profiles before they are scored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from phenolens.core.bounds import Bounded, Count, NotNegative, Seed
from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.profiles.cell_scaling import fit_cell_scaling, fit_cell_tvn
from phenolens.profiles.populations import METHODS, Method, check_controls, population_profiles
from phenolens.profiles.profiles import treatment_profiles, well_profiles
from phenolens.profiles.score_table import STATISTICS
from phenolens.profiles.validate import refuse_repeated_rows
from phenolens.profiles.whitening import UNTOUCHED, Recipe, apply_whitening, fit_whitening
from phenolens.profiles.within_treatments import fit_within_treatments

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

# What is done to the profiles before scoring.
WHITENINGS = ("none", "whitened", "zscore")
ALIGNED = "aligned"  # means alone: whitened by how cells vary within treatments, batches aligned
LEAST_CONTROLS = 2  # wells; one alone has no spread
ON_ALL = "profiles (but aligned ones) are scaled by how all wells vary, treated ones too"
ScaledOn = Literal["controls", "everything"]  # the wells by whose spread profiles are scaled and whitened


@dataclass(frozen=True)
class ProfileConfig(Bounded):
    """How cells become profiles of wells and treatments."""

    min_cells: Count = 1  # wells with fewer cells are left out and listed
    well_statistic: Literal["median", "mean"] = "median"  # over the wells of a treatment
    positive_controls: Literal["left out", "counted"] = "left out"  # wells of a treated dose that are positive controls
    ridge: NotNegative = 1.0  # added to the eigenvalues when whitening; fixed in advance, never chosen on the score
    methods: tuple[Method, ...] = ()  # further profiles of wells, from the distribution of their cells (docs/rivals.md)
    methods_seed: Seed = 0  # of their draws
    # of cells, before all profiles. percentiles: each plate's 1st and 99th of its control cells become 0 and 1; tvn:
    # whitened on control cells, batches aligned (docs/rivals.md)
    cell_scaling: Literal["none", "percentiles", "tvn"] = "none"


def kinds(methods: Iterable[str] = ()) -> list[tuple[str, str]]:
    """The statistics and whitening of each kind of profiles, with those of further methods."""
    chosen = [method for method in METHODS if method in set(methods)]
    return [*product(STATISTICS, WHITENINGS), ("mean", ALIGNED), *product(chosen, WHITENINGS)]


def check_cells(cells: pd.DataFrame, config: ProfileConfig) -> None:
    """Whether a study has the cells that its profiles will need; known before anything is trained.

    Args:
        cells: A row per cell: plate, well, role, is_noise.
        config: How they become profiles.

    Raises:
        InputError: No well has enough cells, or a plate too few controls for a method.
    """
    used = cells[~cells["is_noise"]]
    most = used.groupby(["plate", "well"]).size().max() if len(used) else 0
    if most < config.min_cells:
        raise InputError(f"--min-cells {config.min_cells}: no well has so many cells; the largest has {most}")
    check_controls(used, config.methods, min_cells=config.min_cells)


def scaled_on(cells: pd.DataFrame, config: ProfileConfig) -> ScaledOn:
    """The wells by whose spread profiles are scaled: the controls, or all wells where fewer than two have enough cells.

    Args:
        cells: A row per cell: plate, well, role, is_noise.
        config: How they become profiles.
    """
    controls = cells[(cells["role"] == "control") & ~cells["is_noise"]]
    sizes = controls.groupby(["plate", "well"]).size()
    return "controls" if (sizes >= config.min_cells).sum() >= LEAST_CONTROLS else "everything"


def few_controls(wells: pd.DataFrame) -> str:
    """What too few control wells of a plate map (plate, well, role; several rows a well) mean; else empty."""
    n = len(wells.loc[wells["role"] == "control", ["plate", "well"]].drop_duplicates())
    return "" if n >= LEAST_CONTROLS else f"{counted(n, 'control well')}: {ON_ALL}; add control wells"


def cell_scaling_of(
    cells: Callable[[], Iterable[AnnData]], config: ProfileConfig
) -> Callable[[AnnData], AnnData] | None:
    """What the settings do to cells before all profiles, fitted to the control cells of all plates; None: nothing."""
    if config.cell_scaling == "percentiles":
        return fit_cell_scaling(_Again(cells)).scaled
    if config.cell_scaling == "tvn":
        return partial(apply_whitening, whitening=fit_cell_tvn(_Again(cells), ridge=config.ridge))
    return None


def profiles_of_statistic(
    cells: Callable[[], Iterable[AnnData]],
    config: ProfileConfig,
    statistics: str,
    *,
    learnt_on: ScaledOn,
    scaling: Callable[[AnnData], AnnData] | None,
    folder: Path,
) -> Iterator[tuple[str, AnnData, AnnData]]:
    """The whitening, the wells and the treatments of each kind of profiles of one statistic.

    Args:
        cells: gives the cells, plate by plate; read several times.
        config: how they become profiles.
        statistics: one of those in `kinds`.
        learnt_on: the wells by which they are scaled, as `scaled_on` returns them.
        scaling: of cells, as `cell_scaling_of` returns it.
        folder: of the profiles, for messages.
    """
    parts = _Again(cells if scaling is None else lambda: map(scaling, cells()))
    if statistics in STATISTICS:
        wells = well_profiles(parts, statistics=statistics, min_cells=config.min_cells)
        refuse_repeated_rows(wells, what=f"{folder}: wells")
    else:
        seed, least = config.methods_seed, config.min_cells
        wells = population_profiles(parts, method=statistics, seed=seed, min_cells=least)  # type: ignore[arg-type]
    fitted = {whitening: fit_whitening(wells, recipe) for whitening, recipe in _recipes(config, learnt_on).items()}
    if statistics == "mean":  # of wells; whitened means are means of whitened cells
        of_cells = fit_within_treatments(parts, _aligned(config))
        fitted[ALIGNED] = replace(of_cells, features=tuple(f"{feature}_mean" for feature in of_cells.features))
    for whitening, fit in fitted.items():
        whitened = apply_whitening(wells, fit)
        statistic = "cells" if whitening == ALIGNED else config.well_statistic
        treatments = treatment_profiles(whitened, statistic=statistic, positive_controls=config.positive_controls)
        yield whitening, whitened if whitening != "none" else wells, treatments


@dataclass(frozen=True)
class _Again:
    """Tables that can be read more than once."""

    read: Callable[[], Iterable[AnnData]]

    def __iter__(self) -> Iterator[AnnData]:
        return iter(self.read())


def _aligned(config: ProfileConfig) -> Recipe:
    """The recipe of ALIGNED, of cells."""
    return Recipe(learnt_on="treatments", scaled_over="batch", ridge=config.ridge, constant_features="left out")


def _recipes(config: ProfileConfig, learnt_on: ScaledOn) -> dict[str, Recipe]:
    """The recipe of each of WHITENINGS; constant features (collapsed ones of an embedding) are left out and listed."""
    return {
        "none": UNTOUCHED,
        "zscore": Recipe(whitening="none", learnt_on=learnt_on, constant_features="left out"),
        "whitened": Recipe(learnt_on=learnt_on, ridge=config.ridge, constant_features="left out"),
    }
