"""Populations of a mixed treatment: k medoids, the cells that represent them, with their shares.

n cells, Z features, k medoids. A single target hides a mixed population: the mean of fragmented and whole nuclei
resembles neither (the nocodazole failure of Lafarge et al. 2019). Method: partitioning around medoids, Kaufman and
Rousseeuw 1990, with the swap step that evaluates all k medoids at once (Schubert and Rousseeuw 2019).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from phenolens.core.errors import InputError
from phenolens.morphology.config import MedoidsBy
from phenolens.morphology.features import OF_NUCLEUS, measures

MOST_CELLS = 2000  # cells searched for medoids: their pairwise distances stay in memory
RESTARTS = 4  # random starts in addition to the greedy one; the best result is kept
LEAST_GAIN = 1e-9  # share of the sum of distances, below which a swap is rounding
MEASURED_CONTROLS = 100  # control cells whose standard deviation scales each measure
MEASURED_CELLS = 400  # cells of a treatment that are measured to find its populations; of more, a random sample
MOST_SDS = 10.0  # measures are clipped here, so that one outlier is not a population
# measures of the nucleus itself; its share of the cell and its neighbours are not
SHAPE_OF_NUCLEUS = [name for name in OF_NUCLEUS if name not in ("nucleus_share", "n_neighbours")]


@dataclass(frozen=True)
class Medoids:
    """The medoids of k populations, the largest population first."""

    rows: np.ndarray  # (k,) rows of the medoids
    population: np.ndarray  # (n,) the nearest medoid of each cell, 0 to k-1
    shares: np.ndarray  # (k,) share of the cells in each population
    mean_distance: float  # of the cells to their medoid, Euclidean


@dataclass(frozen=True)
class Populations:
    """Cells of a treatment divided into populations, the largest first."""

    rows: np.ndarray  # (n,) of the cells
    features: np.ndarray  # (n, K) in which cells of one population are similar
    medoids: Medoids  # among `rows`

    def rows_of(self, number: int) -> np.ndarray:
        """Rows of the cells of a population, numbered from 0."""
        return self.rows[self.medoids.population == number]

    def medoid(self, number: int) -> int:
        """The row of a population's medoid."""
        return int(self.rows[self.medoids.rows[number]])

    def typical(self, number: int, n: int) -> np.ndarray:
        """Rows of the `n` cells of a population nearest to its medoid, the medoid first."""
        members = np.flatnonzero(self.medoids.population == number)
        away = np.linalg.norm(self.features[members] - self.features[self.medoids.rows[number]], axis=1)
        away[members == self.medoids.rows[number]] = -1  # before cells with equal measures
        return self.rows[members[np.argsort(away, kind="stable")[:n]]]


def medoids(z: np.ndarray, k: int, *, seed: int = 0) -> Medoids:
    """The k of the cells z (n, Z) that minimise the sum of distances of all cells to the nearest of them.

    A local optimum: no swap of one medoid for one cell improves it. It starts from a greedy choice and from RESTARTS
    random ones. Of more than MOST_CELLS cells a random sample is searched, and all are assigned. Deterministic for a
    seed.

    Raises:
        InputError: fewer than k different cells, or values that are not finite.
    """
    z = np.asarray(z, float)
    if z.ndim != 2 or not z.size or not np.isfinite(z).all():
        raise InputError(f"embeddings of shape {z.shape}: expected finite values, a row per cell, at least one cell")
    if k < 1:
        raise InputError(f"{k} medoids: expected at least 1")
    random = np.random.default_rng(seed)
    searched = np.arange(len(z))
    if len(z) > MOST_CELLS:
        searched = np.sort(random.choice(len(z), MOST_CELLS, replace=False))
    n_different = len(np.unique(z[searched], axis=0))
    if n_different < k:
        raise InputError(f"{n_different} different cells: expected at least {k}, one per medoid; ask for fewer medoids")
    away = distances(z[searched], z[searched])
    starts = [_greedy(away, k)] + [random.choice(len(searched), k, replace=False) for _ in range(RESTARTS)]
    ends = [_swapped(away, start) for start in starts]
    best = min(ends, key=lambda chosen: away[:, chosen].min(axis=1).sum())
    rows = np.sort(searched[best])
    to_medoid = distances(z, z[rows])
    population = to_medoid.argmin(axis=1)
    order = np.argsort(-np.bincount(population, minlength=k), kind="stable")
    population = np.argsort(order)[population]
    shares = np.bincount(population, minlength=k) / len(z)
    return Medoids(rows[order], population, shares, float(to_medoid.min(axis=1).mean()))


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Euclidean distances (n, m) between rows of a (n, Z) and of b (m, Z)."""
    kind = np.result_type(a, b)
    a, b = a.astype(kind, copy=False), b.astype(kind, copy=False)  # a product of two types takes three times as long
    squared = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1) - 2 * a @ b.T
    return np.sqrt(np.maximum(squared, 0))


class MeasuredCells:
    """Measures of real cells of a study, each cell measured once.

    Args:
        originals: Gives the crops (n, C, S, S) of rows, each channel divided by its maximum.
        channels: The C names.
        controls: Rows of the control cells.
        seed: Of the sample of control cells.
        stored: Measures of all cells, a row per cell, where they are known already.
    """

    def __init__(
        self,
        originals: Callable[[np.ndarray], np.ndarray],
        channels: Sequence[str],
        controls: np.ndarray,
        *,
        seed: int = 0,
        stored: pd.DataFrame | None = None,
    ) -> None:
        self.channels = channels
        self.known: dict[int, pd.Series] = {}
        self.stored = stored
        self._originals, self._controls, self._seed = originals, controls, seed

    def of(self, rows: np.ndarray) -> pd.DataFrame:
        """Measures of these cells, a row per cell."""
        if self.stored is not None:
            return self.stored.iloc[rows].reset_index(drop=True)
        missing = np.array(sorted({int(row) for row in rows} - self.known.keys()), int)
        if len(missing):
            table = measures(self._originals(missing), channels=self.channels)
            self.known |= {row: table.iloc[i] for i, row in enumerate(missing.tolist())}
        return pd.DataFrame([self.known[int(row)] for row in rows]).reset_index(drop=True)

    @cached_property
    def controls(self) -> pd.DataFrame:
        """Measures of a sample of control cells, a row per cell."""
        return self.of(sampled(self._controls, MEASURED_CONTROLS, seed=self._seed))

    def from_controls(self, values: pd.DataFrame) -> pd.DataFrame:
        """Values of measures (columns) as standard deviations of the control cells from their mean, NaN without any."""
        controls = self.controls[values.columns]
        sds = controls.std()
        return (values - controls.mean()) / sds.where(sds > 0)

    def populations(self, rows: np.ndarray, k: int, *, by: MedoidsBy = "nucleus", seed: int = 0) -> Populations:
        """The k populations of these cells by their measures; of more than MEASURED_CELLS a random sample.

        Raises:
            InputError: fewer than k different cells, no control cells, or no nuclei channel where `by` needs one.
        """
        rows = sampled(rows, MEASURED_CELLS, seed=seed)
        features = self.in_deviations(rows, by)
        return Populations(rows, features, medoids(features, k, seed=seed))

    def in_deviations(self, rows: np.ndarray, by: MedoidsBy) -> np.ndarray:
        """Measures (n, K) of cells less the controls' mean, in standard deviations of controls; 0 where missing."""
        if not len(self._controls):
            raise InputError("no control cells to scale the measures by; choose medoids by embedding")
        names = self.controls.columns.tolist()
        if by == "nucleus":
            names = [name for name in SHAPE_OF_NUCLEUS if name in names]
        if not names:
            raise InputError(
                f"no channel of nuclei by its name ({', '.join(self.channels)}), which medoids by nucleus need; "
                "name it with --channels when cells are cropped, or choose medoids by measures or by embedding"
            )
        sds = self.from_controls(self.of(rows)[names])
        return sds.clip(-MOST_SDS, MOST_SDS).fillna(0).to_numpy()


def sampled(rows: np.ndarray, most: int, *, seed: int) -> np.ndarray:
    """At most `most` of these rows, drawn at random; sorted where drawn."""
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def _greedy(away: np.ndarray, k: int) -> np.ndarray:
    """Cells chosen one by one, each the one that lowers the sum of distances most; ties go to the smaller row."""
    chosen = [int(away.sum(axis=0).argmin())]
    while len(chosen) < k:
        nearest = away[:, chosen].min(axis=1)
        sums = np.minimum(nearest[:, None], away).sum(axis=0)
        sums[chosen] = np.inf
        chosen.append(int(sums.argmin()))
    return np.array(chosen)


def _swapped(away: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The medoids after the best swaps of one medoid for one cell, until none improves the sum of distances."""
    chosen = np.array(chosen)
    n, k = len(away), len(chosen)
    while True:
        to_chosen = away[:, chosen]
        own = to_chosen.argmin(axis=1)
        nearest = to_chosen[np.arange(n), own]
        second = np.partition(to_chosen, 1, axis=1)[:, 1] if k > 1 else np.full(n, np.inf)
        # sum of distances with cell c in place of medoid m: cells of m fall back on their second nearest medoid
        with_new = np.minimum(nearest[:, None], away)
        orphaned = np.minimum(second[:, None], away) - with_new
        sums = np.stack([with_new.sum(axis=0) + orphaned[own == m].sum(axis=0) for m in range(k)])
        sums[:, chosen] = np.inf
        medoid, cell = np.unravel_index(sums.argmin(), sums.shape)
        if not sums[medoid, cell] < nearest.sum() * (1 - LEAST_GAIN):
            return chosen
        chosen[medoid] = cell
