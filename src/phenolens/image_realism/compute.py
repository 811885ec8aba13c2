"""Measure the realism of a study's models: decoded cells next to other real cells and blurred ones.

N measured cells, n of them, C channels, S crop side in px. A cell's position is its index among the N.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.progress import track
from phenolens.crops.store import CropStore, normalised
from phenolens.image_realism.config import RealismConfig
from phenolens.image_realism.metrics import (
    MeasuredImages,
    measure_differences,
    normal_samples,
    random_halves,
    realism_row,
)
from phenolens.models.interface import Draws
from phenolens.morphology.features import measures, nuclei_channel
from phenolens.morphology.reconstruction_metrics import cell_fidelity, fine_power
from phenolens.morphology.two_sample_test import LEAST_COMPARED
from phenolens.runs.decoder import DecodingRun
from phenolens.runs.example_cells import unseen_cells

CHUNK = 256  # cells decoded and measured at once: bounds the memory
BLURS_PX = (1.0, 2.0)  # standard deviations of the two blurred controls
REAL = "other real cells"
LEAST_HELD_OUT = 200  # cells of held-out wells; with fewer, cells of all wells are measured
SHOWN_CELLS = 5

Images = Callable[[np.ndarray], np.ndarray]  # positions (n,) to crops (n, C, S, S)


@dataclass(frozen=True)
class ComparedCells:
    """Which cells were measured."""

    n: int
    held_out: bool  # all from wells that no run used in training
    n_held_out: int  # cells in wells held out of every run
    n_noise: int  # crops flagged as noise, which are left out
    n_plates: int


@dataclass(frozen=True)
class Realism:
    """The result of `measure_realism`."""

    table: pd.DataFrame  # a row a set of images: `images`, `kind`, `run`, `n_cells`, then the metrics of realism_row
    differences: pd.DataFrame  # a row a set and measure: `measure`, `auc`, `shift`, `images`
    examples: dict[str, np.ndarray]  # by set: crops (SHOWN_CELLS, C, S, S), of the same cells except for samples
    cells: ComparedCells


@dataclass(frozen=True)
class ImageSet:
    """One set of images of the measured cells."""

    name: str
    kind: str  # control, reconstruction or samples
    run: str  # empty for a control
    images: Images
    originals: Images | None  # what structural similarity compares them with; None for samples


def measure_realism(store: CropStore, runs: Sequence[DecodingRun], config: RealismConfig) -> Realism:
    """Every realism metric for each run's reconstructions, samples of the VAEs, and real and blurred cells.

    Args:
        store: The study's crops.
        runs: Runs that decode or draw.
        config: How many cells, and which.

    Returns:
        Metrics, differences of single measures, example crops, and which cells were measured.

    Raises:
        InputError: If there are too few cells, or no channel is known to show the nuclei.
    """
    check_measurable(store, config)
    rows, about = compared_cells(store, runs, config)
    cells = store.cells.iloc[rows]
    plates = cells["plate"].astype(str).to_numpy()
    wells = plates + "/" + cells["well"].astype(str).to_numpy()
    sets = image_sets(store, runs, rows, seed=config.seed)
    measured = list(_measured_sets(sets, len(rows), store, config))
    halves = random_halves(len(rows), n=config.halvings, seed=config.seed)
    table, differences = [], []
    for one, images in track(list(zip(sets, measured)), "comparing with real cells", total=len(sets)):
        row = {"images": one.name, "kind": one.kind, "run": one.run, "n_cells": int((~halves[0]).sum())}
        metrics = realism_row(
            images, measured[0], halves, channels=store.channels, plates=plates, wells=wells, seed=config.seed
        )
        table.append(row | metrics)
        differences.append(measure_differences(images, measured[0], halves[0]).assign(images=one.name))
    shown = _shown(cells, config.seed)
    examples = {one.name: one.images(shown) for one in sets}
    return Realism(pd.DataFrame(table), pd.concat(differences, ignore_index=True), examples, about)


def check_measurable(store: CropStore, config: RealismConfig) -> None:
    """InputError where the crops alone tell that no picture of a model can be measured."""
    if config.nuclei is None and nuclei_channel(store.channels) is None:
        raise InputError(
            f"channels {', '.join(store.channels)}: no name says which one shows the nuclei; name it with --nuclei"
        )
    if (n := int((~store.cells["is_noise"].to_numpy(bool)).sum())) < LEAST_COMPARED:
        raise InputError(
            f"{store.folder}: {counted(n, 'cell')} that are not noise; expected at least {LEAST_COMPARED}, because "
            "real cells of one half are compared with decoded cells of the other"
        )


def image_sets(store: CropStore, runs: Sequence[DecodingRun], rows: np.ndarray, *, seed: int) -> list[ImageSet]:
    """All sets of images of these rows (N,) of the store: real cells, blurred cells, then each run's."""
    # a real cell is compared with the one before it in a random ring, so never with itself
    ring = np.random.default_rng([seed, 2]).permutation(len(rows))
    other = np.empty_like(ring)
    other[ring] = np.roll(ring, 1)

    def originals(positions: np.ndarray) -> np.ndarray:
        return normalised(store.take(rows[positions]))

    sets = [ImageSet(REAL, "control", "", originals, lambda positions: originals(other[positions]))]
    for sigma in BLURS_PX:
        sets.append(ImageSet(f"originals, blurred {sigma:g} px", "control", "", _blurred(originals, sigma), originals))
    for run, name in zip(runs, set_names(runs)):
        if run.decodes:
            sets.append(ImageSet(name, "reconstruction", run.name, _reconstructed(run, rows), originals))
        if isinstance(run.model, Draws):  # its prior makes the space between embeddings meaningful
            sets.append(ImageSet(f"{name}, samples", "samples", run.name, _sampled(run, rows, seed), None))
    return sets


def set_names(runs: Sequence[DecodingRun]) -> list[str]:
    """The name of each run's set: its model, with the run's own name where several runs have the same model."""
    titles = [run.title for run in runs]
    return [run.title if titles.count(run.title) == 1 else f"{run.title}, {run.name}" for run in runs]


def compared_cells(
    store: CropStore, runs: Sequence[DecodingRun], config: RealismConfig
) -> tuple[np.ndarray, ComparedCells]:
    """Random rows of the store to measure, sorted, and which cells these are.

    Cells of wells that no run used in training, if there are at least LEAST_HELD_OUT; otherwise of all wells. Crops
    flagged as noise are left out.
    """
    is_cell = ~store.cells["is_noise"].to_numpy(bool)
    unseen = is_cell & unseen_cells(store, runs)
    n_unseen = int(unseen.sum())
    held_out = n_unseen >= LEAST_HELD_OUT
    eligible = np.flatnonzero(unseen if held_out else is_cell)
    n = min(config.cells, len(eligible))
    rows = np.sort(np.random.default_rng([config.seed, 0]).choice(eligible, n, replace=False))
    n_plates = store.cells["plate"].iloc[rows].nunique()
    return rows, ComparedCells(n, held_out, n_unseen, int((~is_cell).sum()), n_plates)


def measured_images(
    images: ImageSet, chunks: Iterator[np.ndarray], *, channels: Sequence[str], nuclei: str | None
) -> MeasuredImages:
    """Make and measure one set of images, a chunk of positions at a time."""
    tables, power, ssim, shared = [], [], [], []
    for positions in chunks:
        crops = images.images(positions)
        tables.append(measures(crops, channels=channels, nuclei=nuclei))
        if images.originals is None:
            power.append(fine_power(crops))
            ssim.append(np.full(power[-1].shape, np.nan))
            shared.append(ssim[-1])
        else:
            fidelity = cell_fidelity(images.originals(positions), crops)
            power.append(fidelity.power_drawn)
            ssim.append(fidelity.ssim)
            shared.append(fidelity.shared)
    arrays = (np.concatenate(part) for part in (power, ssim, shared))
    return MeasuredImages(images.name, pd.concat(tables, ignore_index=True), *arrays)


def position_chunks(n: int) -> list[np.ndarray]:
    """The positions 0 to n - 1 in chunks of CHUNK."""
    return [np.arange(start, min(start + CHUNK, n)) for start in range(0, n, CHUNK)]


def _measured_sets(
    sets: Sequence[ImageSet], n: int, store: CropStore, config: RealismConfig
) -> Iterator[MeasuredImages]:
    """Each set, measured, with one progress bar over all."""
    chunks = position_chunks(n)
    total = len(sets) * len(chunks)
    steps = iter(track(range(total), "decoding and measuring cells", total=total))
    for images in sets:
        shown = (chunk for chunk, _ in zip(chunks, steps))
        yield measured_images(images, shown, channels=store.channels, nuclei=config.nuclei)
    next(steps, None)  # closes the progress bar


def _blurred(originals: Images, sigma: float) -> Images:
    return lambda positions: gaussian_filter(originals(positions), (0, 0, sigma, sigma))


def _reconstructed(run: DecodingRun, rows: np.ndarray) -> Images:
    return lambda positions: run.reconstructed(rows[positions])


def _sampled(run: DecodingRun, rows: np.ndarray, seed: int) -> Images:
    """As many random images as there are cells; position i is not related to cell i.

    Decoded from a normal distribution with the mean and covariance of the cells' embeddings; where embeddings do not
    decode, drawn from the generator's own noise.
    """
    if not run.decodes:
        drawn = cache(lambda: run.drawn(len(rows), seed=seed))
        return lambda positions: drawn()[positions]

    @cache
    def samples() -> np.ndarray:
        z = np.concatenate([run.embedded(run.store.take(rows[chunk])) for chunk in position_chunks(len(rows))])
        return normal_samples(z, n=len(z), random=np.random.default_rng([seed, 3]))

    return lambda positions: run.decoded(samples()[positions])


def _shown(cells: pd.DataFrame, seed: int) -> np.ndarray:
    """Positions of the example cells: random, of different mechanisms as far as possible."""
    order = np.random.default_rng([seed, 1]).permutation(len(cells))
    turn = cells.iloc[order].groupby("moa", sort=False, dropna=False).cumcount().to_numpy()
    return np.sort(order[np.argsort(turn, kind="stable")][:SHOWN_CELLS])
