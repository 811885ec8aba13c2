"""The ways of drawing a study's cells that realism is asked about: as they are, blurred, redrawn, sampled.

n cells of a chunk, N measured cells, C channels, S crop side in px.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

from phenolens.contents.pictured import PicturedRun
from phenolens.images.fidelity import cell_fidelity, fine_power
from phenolens.images.store import CropStore, normalised
from phenolens.phenotype.measures import measures
from phenolens.phenotype.realism import Look, normal_samples

Array = np.ndarray

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
    draw: Callable[[Array], Array]  # places (n,) to crops (n, C, S, S)
    beside: Callable[[Array], Array] | None  # the crops that structural similarity compares them with


def drawings(store: CropStore, runs: Sequence[PicturedRun], rows: Array, *, seed: int) -> list[Drawing]:
    """Every look of these rows (N,) of the store, real cells first, then the blurred ones, then each run's."""
    # a cell's other: the one before it in a random ring, so never itself
    ring = np.random.default_rng([seed, 2]).permutation(len(rows))
    other = np.empty_like(ring)
    other[ring] = np.roll(ring, 1)

    def originals(places: Array) -> Array:
        return normalised(store.take(rows[places]))

    every = [Drawing(REAL, "control", "", originals, lambda places: originals(other[places]))]
    for sigma in BLURS_PX:
        every.append(Drawing(f"originals, blurred {sigma:g} px", "control", "", _blurred(originals, sigma), originals))
    for run, name in zip(runs, names_of(runs)):
        every.append(Drawing(name, "reconstruction", run.name, _redrawn(run, rows), originals))
        if run.model_name in SAMPLED:
            every.append(Drawing(f"{name}, samples", "samples", run.name, _sampled(run, rows, seed), None))
    return every


def chunks(n: int) -> list[Array]:
    """The places 0 to n - 1 in parts of CHUNK."""
    return [np.arange(start, min(start + CHUNK, n)) for start in range(0, n, CHUNK)]


def measured_look(drawing: Drawing, parts: Iterator[Array], *, channels: Sequence[str], nuclei: str | None) -> Look:
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


def _blurred(originals: Callable[[Array], Array], sigma: float) -> Callable[[Array], Array]:
    return lambda places: gaussian_filter(originals(places), (0, 0, sigma, sigma))


def _redrawn(run: PicturedRun, rows: Array) -> Callable[[Array], Array]:
    return lambda places: run.redrawn(rows[places])


def _sampled(run: PicturedRun, rows: Array, seed: int) -> Callable[[Array], Array]:
    """Pictures of the space between the cells: as many samples as there are cells, of the measured cells' embeddings.

    They are drawn when they are first asked for. Place i has nothing of cell i.
    """
    samples: list[Array] = []

    def draw(places: Array) -> Array:
        if not samples:
            z = np.concatenate([run.embedded(run.store.take(rows[part])) for part in chunks(len(rows))])
            samples.append(normal_samples(z, n=len(z), random=np.random.default_rng([seed, 3])))
        return run.decoded(samples[0][places])

    return draw
