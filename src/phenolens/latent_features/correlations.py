"""What a latent feature stands for: how it goes with measured features, and whether plates or treatments differ in it.

n cells, Z latent features, M measures, W wells, G groups of wells, F frames.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from phenolens.core.errors import InputError

FEWEST = 10  # cells that a correlation needs


@dataclass(frozen=True)
class Correlations:
    """Spearman's rank correlation of each latent feature with each measure; NaN where a column is constant."""

    rho: np.ndarray  # (Z, M) -1 to 1
    n: np.ndarray  # (M,) cells in which the measure could be measured
    p: np.ndarray  # (Z, M) two-sided, as if cells were independent; those of a well are not, so it is too small
    q: np.ndarray  # (Z, M) p with the false-discovery rate controlled over all pairs (Benjamini and Hochberg 1995)


@dataclass(frozen=True)
class BetweenGroups:
    """How much of each latent feature's variance lies between groups of wells, beside what shuffled wells give."""

    share: np.ndarray  # (Z,) eta squared, 0 to 1: sum of squares between groups over the total
    by_chance: np.ndarray  # (Z,) its mean when whole wells are dealt to the groups at random
    p: np.ndarray  # (Z,) share of shuffles that reach `share`, 1 added above and below
    n_groups: int
    n_wells: int

    @property
    def excess(self) -> np.ndarray:
        """The share (Z,) beyond chance: many small groups differ in anything."""
        return self.share - self.by_chance


def correlations(z: np.ndarray, measured: pd.DataFrame) -> Correlations:
    """Spearman's correlation of embeddings (n, Z) with measures (n, M), each over the cells where it was measured.

    NaN where fewer than FEWEST cells were measured, or where a column does not vary.
    """
    z = np.asarray(z, float)
    if z.ndim != 2 or len(z) != len(measured) or not np.isfinite(z).all():
        raise InputError(f"embeddings {z.shape}, measures of {len(measured)} cells: expected the same cells, finite")
    values = measured.to_numpy(float)
    finite = np.isfinite(values)
    rho = np.full((z.shape[1], values.shape[1]), np.nan)
    ranked: dict[bytes, np.ndarray] = {}  # most measures are there in the same cells
    for column, there in enumerate(finite.T):
        if there.sum() < FEWEST:
            continue
        key = there.tobytes()
        if key not in ranked:
            ranked[key] = _standard_ranks(z[there])
        rho[:, column] = ranked[key].T @ _standard_ranks(values[there, column][:, None])[:, 0]
    n = finite.sum(axis=0)
    freedom = np.maximum(n - 2, 1)
    rho = np.clip(rho, -1, 1)
    with np.errstate(divide="ignore"):  # a perfect correlation has an infinite t
        t = np.abs(rho) * np.sqrt(freedom / (1 - np.square(rho)))
    p = 2 * stats.t.sf(t, freedom)
    return Correlations(rho, n, p, controlled(p))


def controlled(p: np.ndarray) -> np.ndarray:
    """p-values, of any shape, with the false-discovery rate controlled (Benjamini and Hochberg 1995); NaN stay NaN."""
    q = np.full(p.shape, np.nan)
    there = np.isfinite(p)
    if there.any():
        q[there] = stats.false_discovery_control(p[there])
    return q


def between_groups(
    z: np.ndarray, *, wells: np.ndarray, groups: np.ndarray, n_shuffles: int, seed: int
) -> BetweenGroups | None:
    """The share of variance of embeddings (n, Z) between `groups` (n,), whole `wells` (n,) dealt anew for the chance.

    Cells of a well are alike, so cells dealt one by one would make any plate look different. None where that cannot be
    told: one group, or hardly more wells than groups. InputError for a well in two groups.
    """
    z = np.asarray(z, float)
    well_of, well_names = pd.factorize(np.asarray(wells), sort=True)
    table = pd.DataFrame({"well": well_of, "group": np.asarray(groups)}).drop_duplicates()
    if len(table) > len(well_names):
        twice = table["well"][table["well"].duplicated()].iloc[0]
        raise InputError(f'well "{well_names[twice]}" is in two groups; expected each well in one')
    group_of, names = pd.factorize(table.sort_values("well")["group"].to_numpy(), sort=True)
    if len(names) < 2 or len(well_names) < len(names) + 2:
        return None
    centred = z - z.mean(axis=0)
    total = np.square(centred).sum(axis=0)
    sums = np.zeros((len(well_names), z.shape[1]))
    np.add.at(sums, well_of, centred)
    counts = np.bincount(well_of)

    def share(group_of: np.ndarray) -> np.ndarray:
        is_of = np.eye(len(names))[group_of]  # (W, G)
        between = (np.square(is_of.T @ sums) / (is_of.T @ counts)[:, None]).sum(axis=0)
        return np.divide(between, total, out=np.zeros_like(total), where=total > 0)

    observed = share(group_of)
    random = np.random.default_rng(seed)
    shuffled = np.array([share(random.permutation(group_of)) for _ in range(n_shuffles)])
    # a share that a shuffle meets exactly is met: sums in another order differ in the last digits
    reached = (shuffled >= observed * (1 - 1e-9)).sum(axis=0)
    return BetweenGroups(observed, shuffled.mean(axis=0), (reached + 1) / (n_shuffles + 1), len(names), len(well_names))


def traversal(z: np.ndarray, feature: int, values: np.ndarray) -> np.ndarray:
    """Embeddings (F, Z): one cell's (Z,), the feature set to each of the values (F,), all others as they are."""
    moved = np.repeat(np.asarray(z, float)[None], len(values), axis=0)
    moved[:, feature] = values
    return moved


def _standard_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks of each column of (n, K), equal values sharing their mean rank, centred, of length 1; NaN of a constant."""
    ranks = stats.rankdata(values, axis=0)
    ranks -= ranks.mean(axis=0)
    length = np.sqrt(np.square(ranks).sum(axis=0))
    return np.divide(ranks, length, out=np.full_like(ranks, np.nan), where=length > 0)
