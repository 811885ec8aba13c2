"""How far drawn cells lie from real ones, as two clouds of measured cells.

n real cells, m drawn cells, D measures, standardised on the real cells by `standardised`. No cell is paired with
another: a model that draws other cells, but cells, is near.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist

from phenolens.errors import InputError

Array = np.ndarray

MOST_MISSING = 0.1  # of the real cells; a measure that more of them lack is left out
FURTHEST = 10.0  # real standard deviations; a value beyond is set there, so that one odd cell does not rule a distance
NEIGHBOURS = 3  # Kynkäänniemi et al. 2019
ROWS_AT_A_TIME = 1024  # of a matrix of distances


@dataclass(frozen=True)
class Scale:
    """Means and standard deviations of real cells, by which every cloud is measured."""

    names: tuple[str, ...]  # the measures that count, D of them
    mean: Array  # (D,)
    deviation: Array  # (D,) n - 1, above 0

    @classmethod
    def of(cls, real: pd.DataFrame) -> "Scale":
        """The scale of real cells, a row a cell; measures that are constant or often missing are left out.

        InputError when none is left.
        """
        values = real.astype(float).replace([np.inf, -np.inf], np.nan)
        known = values.columns[values.isna().mean() <= MOST_MISSING]
        deviation = values[known].std()
        names = deviation.index[deviation > 1e-9 * (1 + values[known].mean().abs())]
        if not len(names):
            raise InputError(f"{len(real)} real cells: no measure differs between them; expected cells of a screen")
        return cls(tuple(names), values[names].mean().to_numpy(), deviation[names].to_numpy())


def standardised(cells: pd.DataFrame, scale: Scale) -> Array:
    """Cells as rows (n, D) in standard deviations of the real ones, within ±FURTHEST; NaN where not measured."""
    values = cells[list(scale.names)].to_numpy(float)
    values = np.where(np.isfinite(values), values, np.nan)
    return np.clip((values - scale.mean) / scale.deviation, -FURTHEST, FURTHEST)


def frechet_distance(real: Array, drawn: Array) -> float:
    """Squared Fréchet distance between the normal distributions of real (n, D) and drawn (m, D) cells.

    |mean difference|^2 + trace(A + B - 2 (A B)^(1/2)) of the covariances A, B. From 0, without an end; smaller is
    nearer. Cells are few, so it is above 0 between two samples of the same cells too: read it beside theirs. NaN with
    fewer than D + 1 rows on a side, whose covariances are not known. Dowson & Landau 1982; as a score of
    generated images, on features of a network, Heusel et al. 2017.
    """
    if min(len(real), len(drawn)) <= real.shape[1]:
        return float("nan")
    a, b = (np.atleast_2d(np.cov(side, rowvar=False)) for side in (real, drawn))
    values, vectors = np.linalg.eigh(a)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    # the eigenvalues of A B are those of A^(1/2) B A^(1/2), which is symmetric
    shared = np.sqrt(np.clip(np.linalg.eigvalsh(root @ b @ root), 0, None)).sum()
    return float(np.square(real.mean(0) - drawn.mean(0)).sum() + np.trace(a) + np.trace(b) - 2 * shared)


def kernel_distance(real: Array, drawn: Array) -> float:
    """Squared maximum mean discrepancy of real (n, D) and drawn (m, D) cells, kernel (x·y / D + 1)^3, unbiased.

    About 0 for cells of one kind, whatever their number (so it can be a little below 0), without an end above; smaller
    is nearer. NaN with fewer than 2 rows on a side. Gretton et al. 2012; Bińkowski et al. 2018 (KID).
    """
    n, m = len(real), len(drawn)
    if min(n, m) < 2:
        return float("nan")
    within_real = (_kernel_sum(real, real) - _kernel_of_self(real)) / (n * (n - 1))
    within_drawn = (_kernel_sum(drawn, drawn) - _kernel_of_self(drawn)) / (m * (m - 1))
    return within_real + within_drawn - 2 * _kernel_sum(real, drawn) / (n * m)


def precision_recall(real: Array, drawn: Array, *, neighbours: int = NEIGHBOURS) -> tuple[float, float]:
    """Precision and recall of drawn cells (m, D), 0 to 1, larger is better.

    Precision: the share of drawn cells that lie among the real ones, nearer to one of them than its own third-nearest
    (`neighbours`) real neighbour. Recall: the share of real cells that lie so among the drawn ones. A model that draws
    one good cell again and again has precision and no recall; one that draws noise of every kind, neither. Between two
    samples of the same cells both stay below 1: read them beside theirs. NaN with too few rows for
    a neighbour. Kynkäänniemi et al. 2019.
    """
    if min(len(real), len(drawn)) <= neighbours:
        return float("nan"), float("nan")
    return _share_among(drawn, real, neighbours), _share_among(real, drawn, neighbours)


def _share_among(points: Array, cloud: Array, neighbours: int) -> float:
    """Share of points (n, D) that are nearer to a row of the cloud (m, D) than that row's own k-th neighbour."""
    # a row's nearest is itself
    radius = np.concatenate(
        [np.partition(cdist(rows, cloud), neighbours, axis=1)[:, neighbours] for rows in _chunks(cloud)]
    )
    return float(np.concatenate([(cdist(rows, cloud) <= radius).any(axis=1) for rows in _chunks(points)]).mean())


def _kernel_sum(a: Array, b: Array) -> float:
    return float(sum(((rows @ b.T / b.shape[1] + 1) ** 3).sum() for rows in _chunks(a)))


def _kernel_of_self(a: Array) -> float:
    return float(((np.square(a).sum(axis=1) / a.shape[1] + 1) ** 3).sum())


def _chunks(rows: Array) -> list[Array]:
    """The rows in parts, so that memory does not grow with their square."""
    return [rows[start : start + ROWS_AT_A_TIME] for start in range(0, len(rows), ROWS_AT_A_TIME)]
