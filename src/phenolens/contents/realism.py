"""How real the pictures of a study's models look, beside each other and beside real and blurred cells.

N measured cells, C channels, S crop side in px.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd

from phenolens.contents.looks import Drawing, chunks, drawings, measured_look
from phenolens.contents.pictured import PicturedRun
from phenolens.errors import InputError, at_least
from phenolens.images.store import CropStore
from phenolens.phenotype.measures import nuclei_channel
from phenolens.phenotype.realism import Look, halves, realism_row, what_tells
from phenolens.progress import track
from phenolens.training.sampling import held_out_cells

LEAST_CELLS = 60
FEW_CELLS = 400  # of fewer, distances and intervals are wide; said
LEAST_UNSEEN = 200  # cells of held-out wells; with fewer, all cells are measured, and that is said
SHOWN_CELLS = 5

Item = TypeVar("Item")


@dataclass(frozen=True)
class RealismConfig:
    """What realism is measured on."""

    cells: int = 1000  # measured at most, random ones; half of them are the real side, half are drawn
    seed: int = 0  # chooses cells, halves, samples and what the classifier draws
    halvings: int = 10  # random ways of halving the cells; a metric's spread is over them
    nuclei: str | None = None  # channel that shows the nuclei; left out: the first whose name says so

    def __post_init__(self) -> None:
        """InputError on a number that cannot be."""
        at_least("--cells", self.cells, LEAST_CELLS)
        at_least("--seed", self.seed, 0)
        at_least("--halvings", self.halvings, 2)


@dataclass(frozen=True)
class Realism:
    """What was measured."""

    table: pd.DataFrame  # a row a look: `look`, `kind`, `run`, `n_cells`, then the metrics of realism_row
    telling: pd.DataFrame  # a row a look and measure: how well that measure alone tells drawn from real
    pictures: dict[str, np.ndarray]  # by look: crops (SHOWN_CELLS, C, S, S), of the same cells but for samples
    notes: tuple[str, ...]  # what was measured and what was left out, in sentences


def measured_realism(store: CropStore, runs: Sequence[PicturedRun], config: RealismConfig) -> Realism:
    """Each metric for what every run redraws, for samples of the VAEs, and for real and blurred cells beside them.

    InputError when cells are too few or no channel is known to show the nuclei.
    """
    if config.nuclei is None and nuclei_channel(store.channels) is None:
        raise InputError(
            f"channels {', '.join(store.channels)}: none says that it shows nuclei, which the measures look for; "
            "name it with --nuclei"
        )
    rows, notes = measured_cells(store, runs, config)
    cells = store.cells.iloc[rows]
    plates = cells["plate"].astype(str).to_numpy()
    wells = plates + "/" + cells["well"].astype(str).to_numpy()
    shown = _shown(cells, config.seed)
    every = drawings(store, runs, rows, seed=config.seed)
    looks = list(_looks(every, len(rows), store, config))
    ways = halves(len(rows), n=config.halvings, seed=config.seed)
    table, telling = [], []
    for drawing, look in track(list(zip(every, looks)), "telling drawn from real", total=len(looks)):
        of_look = {"look": look.name, "kind": drawing.kind, "run": drawing.run, "n_cells": int((~ways[0]).sum())}
        of_look |= realism_row(
            look, looks[0], ways, channels=store.channels, plates=plates, wells=wells, seed=config.seed
        )
        table.append(of_look)
        telling.append(what_tells(look, looks[0], ways[0]).assign(look=look.name))
    pictures = {drawing.name: drawing.draw(shown) for drawing in every}
    notes += remarks(pd.DataFrame(table), n_plates=len(set(plates)))
    return Realism(pd.DataFrame(table), pd.concat(telling, ignore_index=True), pictures, tuple(notes))


def measured_cells(
    store: CropStore, runs: Sequence[PicturedRun], config: RealismConfig
) -> tuple[np.ndarray, list[str]]:
    """Rows of the store to be measured, sorted, and in words which they are.

    Cells of wells that no run has drawn from, where there are LEAST_UNSEEN of them; else any. Never noise.
    """
    fine = ~store.cells["is_noise"].to_numpy(bool)
    unseen = fine.copy()
    for run in runs:
        origin = run.run.origin()
        assert origin is not None  # its model was loaded
        trained = origin.config
        unseen &= held_out_cells(store.cells, share=trained.held_out_wells, seed=trained.seed)
    n_unseen = int(unseen.sum())
    eligible = np.flatnonzero(unseen if n_unseen >= LEAST_UNSEEN else fine)
    if len(eligible) < LEAST_CELLS:
        raise InputError(
            f"{store.folder}: {len(eligible)} cells that are not noise; expected at least {LEAST_CELLS}, since real "
            "cells of one half are held against drawn ones of the other"
        )
    n = min(config.cells, len(eligible))
    rows = np.sort(np.random.default_rng([config.seed, 0]).choice(eligible, n, replace=False))
    which = (
        "of wells that no run has drawn from in training"
        if n_unseen >= LEAST_UNSEEN
        else f"that runs have seen in training ({n_unseen} cells are of wells held out from all of them: too few)"
    )
    notes = [f"n = {n:,} cells {which}; {int((~fine).sum()):,} crops flagged as noise are left out."]
    if n < FEW_CELLS:
        notes.append(f"{n} cells are few: distances are far from 0 between real cells too, and intervals are wide.")
    return rows, notes


def remarks(table: pd.DataFrame, *, n_plates: int) -> list[str]:
    """What a reader must know of the numbers, in sentences."""
    said = []
    if table["accuracy"].isna().any():
        why = "there is one plate alone" if n_plates < 2 else "some plates leave too few cells to learn from"
        said.append(f"Real and drawn cells could not be told apart on unseen plates: {why}.")
    if table["frechet"].isna().any():
        said.append("Where there are fewer measured cells than measures, there is no Fréchet distance.")
    lacking = table[table["unmeasured"] > 2 * table["unmeasured"].iloc[0] + 0.05]
    for look, share in zip(lacking["look"], lacking["unmeasured"]):
        said.append(f"{look}: {share:.0%} of the cells lack a measure (no nucleus found, mostly); distances omit them.")
    return said


def _looks(every: Sequence[Drawing], n: int, store: CropStore, config: RealismConfig) -> Iterator[Look]:
    """Each drawing, measured; progress is told over all of them."""
    parts = chunks(n)
    steps = iter(track(range(len(every) * len(parts)), "cells drawn and measured", total=len(every) * len(parts)))
    for drawing in every:
        counted = (part for part, _ in zip(parts, steps))
        yield measured_look(drawing, counted, channels=store.channels, nuclei=config.nuclei)
    next(steps, None)  # ends the telling


def _shown(cells: pd.DataFrame, seed: int) -> np.ndarray:
    """Places of a few cells for pictures, of different mechanisms while there are any."""
    order = np.random.default_rng([seed, 1]).permutation(len(cells))
    turn = cells.iloc[order].groupby("moa", sort=False, dropna=False).cumcount().to_numpy()
    return np.sort(order[np.argsort(turn, kind="stable")][:SHOWN_CELLS])
