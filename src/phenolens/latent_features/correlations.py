"""Statistics of latent features: correlation with measures, and differences between plates or treatments.

n cells, Z latent features, M measures, W wells, G groups of wells, F frames.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from phenolens.core.errors import InputError

FEWEST = 10  # cells that a correlation needs


@dataclass(frozen=True)
class Correlations:
    """Spearman's rank correlation of each latent feature with each measure; NaN where a column is constant."""

    rho: np.ndarray  # (Z, M) -1 to 1
    n: np.ndarray  # (M,) cells in which the measure is known
    p: np.ndarray  # (Z, M) two-sided; treats cells as independent, which cells of a well are not, so it is too small
    q: np.ndarray  # (Z, M) false-discovery rates of p over all pairs


@dataclass(frozen=True)
class BetweenGroups:
    """Share of each latent feature's variance that lies between groups of wells, and the share by chance."""

    share: np.ndarray  # (Z,) eta squared, 0 to 1: sum of squares between groups over the total
    by_chance: np.ndarray  # (Z,) its mean when whole wells are assigned to the groups at random
    p: np.ndarray  # (Z,) share of shuffles that reach `share`, with 1 added above and below


def correlations(z: np.ndarray, measured: pd.DataFrame) -> Correlations:
    """Spearman's correlation of embeddings with measures, each over the cells in which the measure is known.

    Args:
        z: Embeddings (n, Z).
        measured: Measures (n rows, M columns).

    Returns:
        Correlations; NaN where fewer than FEWEST cells are known, or where a column is constant.
    """
    from scipy import stats  # slow to import, and only needed here

    z = np.asarray(z, float)
    values = measured.to_numpy(float)
    known = np.isfinite(values)
    rho = np.full((z.shape[1], values.shape[1]), np.nan)
    patterns, pattern_of = np.unique(known.T, axis=0, return_inverse=True)  # most measures are known in the same cells
    for pattern, cells in enumerate(patterns):
        if cells.sum() >= FEWEST:
            columns = np.flatnonzero(pattern_of.ravel() == pattern)
            rho[:, columns] = _standard_ranks(z[cells]).T @ _standard_ranks(values[cells][:, columns])
    n = known.sum(axis=0)
    rho = np.clip(rho, -1, 1)
    freedom = np.maximum(n - 2, 1)
    with np.errstate(divide="ignore"):  # a perfect correlation has an infinite t
        p = 2 * stats.t.sf(np.abs(rho) * np.sqrt(freedom / (1 - np.square(rho))), freedom)
    return Correlations(rho, n, p, false_discovery_rates(p))


def false_discovery_rates(p: np.ndarray) -> np.ndarray:
    """Benjamini and Hochberg's adjusted p-values, in the shape of p; NaN stay NaN."""
    from scipy import stats  # slow to import, and only needed here

    q = np.full(p.shape, np.nan)
    known = np.isfinite(p)
    if known.any():
        q[known] = stats.false_discovery_control(p[known])
    return q


def between_groups(
    z: np.ndarray, *, wells: np.ndarray, groups: np.ndarray, n_shuffles: int, seed: int
) -> BetweenGroups | None:
    """The share of the variance of embeddings that lies between groups of wells.

    Whole wells are shuffled for the share by chance: cells of a well are similar, so shuffling single cells would make
    any plate look different.

    Args:
        z: Embeddings (n, Z).
        wells: The well of each cell (n,), unique over plates.
        groups: The group of each cell (n,): its treatment, batch or plate.
        n_shuffles: Random assignments of wells to groups.
        seed: Of the shuffles.

    Returns:
        The shares; None with one group, or hardly more wells than groups.

    Raises:
        InputError: If a well is in two groups.
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
    sums = pd.DataFrame(centred).groupby(well_of).sum().to_numpy()  # (W, Z)
    counts = np.bincount(well_of)

    def share(group_of: np.ndarray) -> np.ndarray:
        is_of = np.eye(len(names))[group_of]  # (W, G)
        between = (np.square(is_of.T @ sums) / (is_of.T @ counts)[:, None]).sum(axis=0)
        return np.divide(between, total, out=np.zeros_like(total), where=total > 0)

    observed = share(group_of)
    random = np.random.default_rng(seed)
    shuffled = np.array([share(random.permutation(group_of)) for _ in range(n_shuffles)])
    # sums in another order differ in the last digits, so an equal share counts as reached
    reached = (shuffled >= observed * (1 - 1e-9)).sum(axis=0)
    return BetweenGroups(observed, shuffled.mean(axis=0), (reached + 1) / (n_shuffles + 1))


def traversal(z: np.ndarray, feature: int, values: np.ndarray) -> np.ndarray:
    """Embeddings (F, Z): one cell's (Z,) with the feature set to each of the values (F,), the others unchanged."""
    moved = np.repeat(np.asarray(z, float)[None], len(values), axis=0)
    moved[:, feature] = values
    return moved


def _standard_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks of each column of (n, K), ties sharing their mean rank, centred, of length 1; NaN for a constant."""
    from scipy import stats  # slow to import, and only needed here

    ranks = stats.rankdata(values, axis=0)
    ranks -= ranks.mean(axis=0)
    length = np.linalg.norm(ranks, axis=0)
    return np.divide(ranks, length, out=np.full_like(ranks, np.nan), where=length > 0)
