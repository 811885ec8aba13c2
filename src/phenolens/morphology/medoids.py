"""k medoids: the cells that stand for the populations of a mixed treatment, each with its share of the cells.

n cells, Z features, k medoids. One target hides a mixed population: the mean of fragmented and whole nuclei is near
neither (METHOD 8; the nocodazole failure of Lafarge et al. 2019). Method: partitioning around medoids, Kaufman and
Rousseeuw 1990, with the swap step that looks at all k medoids at once (Schubert and Rousseeuw 2019).
"""

from dataclasses import dataclass

import numpy as np

from phenolens.core.errors import InputError

MOST_CELLS = 2000  # of a treatment that are searched for medoids: their distances to one another stay in memory
RESTARTS = 4  # random beginnings beside the greedy one; the best of them is kept
LEAST_GAIN = 1e-9  # of the sum of distances, below which a swap is rounding


@dataclass(frozen=True)
class Medoids:
    """Cells that stand for populations, the largest population first."""

    rows: np.ndarray  # (k,) the medoids, rows of the cells given
    population: np.ndarray  # (n,) the medoid, 0 to k-1, that each cell is nearest to
    shares: np.ndarray  # (k,) share of the cells in each population; the sum is 1
    mean_distance: float  # of the cells to their medoid, Euclidean


def medoids(z: np.ndarray, k: int, *, seed: int = 0) -> Medoids:
    """The k of the cells z (n, Z) whose distances to the cells nearest to them add up to the least.

    The search ends where no exchange of one medoid for one other cell is better, from a greedy beginning and from
    RESTARTS random ones; of more than MOST_CELLS cells that many are searched, drawn at random, and all are counted.
    The same cells and seed give the same answer. InputError where there are fewer than k different cells.
    """
    z = np.asarray(z, float)
    if z.ndim != 2 or not z.size or not np.isfinite(z).all():
        raise InputError(f"embeddings of shape {z.shape}: expected finite values, a row a cell, at least one cell")
    if k < 1:
        raise InputError(f"{k} medoids: expected at least 1")
    random = np.random.default_rng(seed)
    searched = np.arange(len(z))
    if len(z) > MOST_CELLS:
        searched = np.sort(random.choice(len(z), MOST_CELLS, replace=False))
    n_different = len(np.unique(z[searched], axis=0))
    if n_different < k:
        raise InputError(f"{n_different} different cells: expected at least {k}, one a medoid; ask for fewer medoids")
    away = distances(z[searched], z[searched])
    beginnings = [_greedy(away, k)] + [random.choice(len(searched), k, replace=False) for _ in range(RESTARTS)]
    ends = [_exchanged(away, beginning) for beginning in beginnings]
    best = min(ends, key=lambda chosen: away[:, chosen].min(axis=1).sum())
    rows = np.sort(searched[best])
    to_medoid = distances(z, z[rows])
    population = to_medoid.argmin(axis=1)
    order = np.argsort(-np.bincount(population, minlength=k), kind="stable")
    rank = np.empty(k, int)
    rank[order] = np.arange(k)
    population = rank[population]
    shares = np.bincount(population, minlength=k) / len(z)
    return Medoids(rows[order], population, shares, float(to_medoid.min(axis=1).mean()))


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Euclidean distances (n, m) between rows of a (n, Z) and of b (m, Z)."""
    kind = np.result_type(a, b)
    a, b = a.astype(kind, copy=False), b.astype(kind, copy=False)  # a product of two kinds takes three times as long
    squared = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1) - 2 * a @ b.T
    return np.sqrt(np.maximum(squared, 0))


def _greedy(away: np.ndarray, k: int) -> np.ndarray:
    """Cells chosen one by one, each the one that lessens the sum of distances most; ties go to the smaller row."""
    chosen = [int(away.sum(axis=0).argmin())]
    while len(chosen) < k:
        nearest = away[:, chosen].min(axis=1)
        sums = np.minimum(nearest[:, None], away).sum(axis=0)
        sums[chosen] = np.inf
        chosen.append(int(sums.argmin()))
    return np.array(chosen)


def _exchanged(away: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The medoids after the best exchange of one for another cell, again and again, until none is better."""
    chosen = np.array(chosen)
    n, k = len(away), len(chosen)
    while True:
        to_chosen = away[:, chosen]
        own = to_chosen.argmin(axis=1)
        nearest = to_chosen[np.arange(n), own]
        second = np.partition(to_chosen, 1, axis=1)[:, 1] if k > 1 else np.full(n, np.inf)
        # the sum of distances after medoid m went and cell c came: those of m's cells fall back on their second
        with_new = np.minimum(nearest[:, None], away)
        orphaned = np.minimum(second[:, None], away) - with_new
        sums = np.stack([with_new.sum(axis=0) + orphaned[own == m].sum(axis=0) for m in range(k)])
        sums[:, chosen] = np.inf
        medoid, cell = np.unravel_index(sums.argmin(), sums.shape)
        if not sums[medoid, cell] < nearest.sum() * (1 - LEAST_GAIN):
            return chosen
        chosen[medoid] = cell
