"""How real the pictures of a study's models look, beside each other and beside real and blurred cells.

N measured cells, C channels, S crop side in px.

n cells of a chunk, N measured cells, C channels, S crop side in px.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

from phenolens.core.errors import InputError, at_least
from phenolens.core.progress import track
from phenolens.crops.store import CropStore, normalised
from phenolens.morphology.features import measures, nuclei_channel
from phenolens.morphology.reconstruction_metrics import cell_fidelity, fine_power
from phenolens.realism.metrics import Look, halves, normal_samples, realism_row, what_tells
from phenolens.runs.decoder import PicturedRun
from phenolens.training.sampling import held_out_cells

CHUNK = 256  # cells drawn and measured at once: bounds the memory
BLURS_PX = (1.0, 2.0)  # standard deviations of the two blurred controls
SAMPLED = ("vae", "vaeplus")  # models whose prior pulls embeddings together, so that what lies between them is asked of
REAL = "other real cells"


@dataclass(frozen=True)
class Drawing:
    """How one look is drawn. `place` i is the i-th measured cell."""

    name: str
    kind: str  # control, reconstruction or samples
    run: str  # empty for a control
    draw: Callable[[np.ndarray], np.ndarray]  # places (n,) to crops (n, C, S, S)
    beside: Callable[[np.ndarray], np.ndarray] | None  # the crops that structural similarity compares them with


def drawings(store: CropStore, runs: Sequence[PicturedRun], rows: np.ndarray, *, seed: int) -> list[Drawing]:
    """Every look of these rows (N,) of the store, real cells first, then the blurred ones, then each run's."""
    # a cell's other: the one before it in a random ring, so never itself
    ring = np.random.default_rng([seed, 2]).permutation(len(rows))
    other = np.empty_like(ring)
    other[ring] = np.roll(ring, 1)

    def originals(places: np.ndarray) -> np.ndarray:
        return normalised(store.take(rows[places]))

    every = [Drawing(REAL, "control", "", originals, lambda places: originals(other[places]))]
    for sigma in BLURS_PX:
        every.append(Drawing(f"originals, blurred {sigma:g} px", "control", "", _blurred(originals, sigma), originals))
    for run, name in zip(runs, names_of(runs)):
        every.append(Drawing(name, "reconstruction", run.name, _redrawn(run, rows), originals))
        if run.model_name in SAMPLED:
            every.append(Drawing(f"{name}, samples", "samples", run.name, _sampled(run, rows, seed), None))
    return every


def chunks(n: int) -> list[np.ndarray]:
    """The places 0 to n - 1 in parts of CHUNK."""
    return [np.arange(start, min(start + CHUNK, n)) for start in range(0, n, CHUNK)]


def measured_look(
    drawing: Drawing, parts: Iterator[np.ndarray], *, channels: Sequence[str], nuclei: str | None
) -> Look:
    """Draw and measure a look, chunk by chunk of places."""
    tables, power, ssim, shared = [], [], [], []
    for places in parts:
        crops = drawing.draw(places)
        tables.append(measures(crops, channels=channels, nuclei=nuclei))
        if drawing.beside is None:
            power.append(fine_power(crops))
            ssim.append(np.full(power[-1].shape, np.nan))
            shared.append(ssim[-1])
        else:
            of_cells = cell_fidelity(drawing.beside(places), crops)
            power.append(of_cells.power_drawn)
            ssim.append(of_cells.ssim)
            shared.append(of_cells.shared)
    parts_of = (np.concatenate(part) for part in (power, ssim, shared))
    return Look(drawing.name, pd.concat(tables, ignore_index=True), *parts_of)


def names_of(runs: Sequence[PicturedRun]) -> list[str]:
    """What each run is called in a table: its model, with the run's own name where several are of one model."""
    titles = [run.title for run in runs]
    return [run.title if titles.count(run.title) == 1 else f"{run.title}, {run.name}" for run in runs]


def _blurred(originals: Callable[[np.ndarray], np.ndarray], sigma: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda places: gaussian_filter(originals(places), (0, 0, sigma, sigma))


def _redrawn(run: PicturedRun, rows: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    return lambda places: run.redrawn(rows[places])


def _sampled(run: PicturedRun, rows: np.ndarray, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """Pictures of the space between the cells: as many samples as there are cells, of the measured cells' embeddings.

    They are drawn when they are first asked for. Place i has nothing of cell i.
    """
    samples: list[np.ndarray] = []

    def draw(places: np.ndarray) -> np.ndarray:
        if not samples:
            z = np.concatenate([run.embedded(run.store.take(rows[part])) for part in chunks(len(rows))])
            samples.append(normal_samples(z, n=len(z), random=np.random.default_rng([seed, 3])))
        return run.decoded(samples[0][places])

    return draw


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
