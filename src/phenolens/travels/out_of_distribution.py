"""Out-of-distribution frames: farther from real cells, or less stable under decoding, than real cells are.

N real cells, F frames, Z features. Two scores, each divided by a quantile of the real cells' own score, so that 1 is
the limit: the mean distance to the nearest real cells (of a real cell: to the others), and how far an embedding moves
when it is decoded and embedded again.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from phenolens.core.errors import InputError
from phenolens.morphology.medoids import sampled

Reembed = Callable[[np.ndarray], np.ndarray]  # rows (n,) of cells to the embeddings (n, Z) of their reconstructions

NEAREST = 5  # real cells whose distances are averaged
QUANTILE = 0.99  # of the real cells' scores: by definition, one real cell in a hundred is beyond each limit
SAMPLE = 400  # real cells on which the limits are measured


@dataclass(frozen=True)
class Limits:
    """The scores of real cells that frames are compared with."""

    cells: np.ndarray  # (N, Z) the real cells
    far: float  # the QUANTILE of a real cell's mean distance to its nearest others
    moved: float  # the QUANTILE of how far a real cell moves when it is decoded and embedded again; may be NaN


@dataclass(frozen=True)
class FrameScores:
    """The out-of-distribution scores of frames."""

    far: np.ndarray  # (F,) mean distance to the nearest real cells, the limit being 1
    moved: np.ndarray  # (F,) how far the frame moves when decoded and embedded again, the limit being 1; may be NaN
    flags: tuple[str, ...]  # (F,) which score is beyond its limit, as a sentence; empty where none is
    nearest: np.ndarray  # (F, NEAREST) rows of the limits' cells nearest to each frame, the nearest first
    distances: np.ndarray  # (F, NEAREST) Euclidean distances to them


def fit_limits(cells: np.ndarray, reembed: Reembed, *, sample: int = SAMPLE, seed: int = 0) -> Limits:
    """The limits set by real cells (N, Z), from at most `sample` random ones, each compared with all others.

    A `reembed` that gives NaN, as where pictures cannot be embedded, sets no limit on moving.

    Raises:
        InputError: too few cells to have NEAREST others, or values that are not finite.
    """
    cells = np.asarray(cells)
    if cells.ndim != 2 or not np.isfinite(cells).all():
        raise InputError(f"embeddings of shape {cells.shape}: expected finite values, a row per cell")
    if len(cells) <= NEAREST:
        raise InputError(f"{len(cells)} cells: expected more than {NEAREST}, so that each has {NEAREST} others near it")
    rows = sampled(np.arange(len(cells)), sample, seed=seed)
    drawn = cells[rows]
    away = nearest_cells(drawn, cells, NEAREST + 1)[1][:, 1:]  # the nearest one is the cell itself
    far = float(np.quantile(away.mean(axis=1), QUANTILE))
    moved = float(np.quantile(np.linalg.norm(reembed(rows) - drawn, axis=1), QUANTILE))
    return Limits(cells, far, moved)


def frame_scores(limits: Limits, frames: np.ndarray, reembedded: np.ndarray) -> FrameScores:
    """Score frames (F, Z) against the limits.

    Args:
        limits: From `fit_limits`.
        frames: (F, Z) embeddings.
        reembedded: (F, Z) embeddings of the pictures that the frames decode into.
    """
    rows, away = nearest_cells(frames, limits.cells, NEAREST)
    moved = np.linalg.norm(reembedded - frames, axis=1)
    far_ratio, moved_ratio = _over(away.mean(axis=1), limits.far), _over(moved, limits.moved)
    share = f"{100 * QUANTILE:g} %"
    flags = []
    for far, shift in zip(far_ratio.tolist(), moved_ratio.tolist()):
        reasons = []
        if far > 1:
            reasons.append(f"{far:.3g} times as far from the nearest cells of the screen as {share} of these are")
        if shift > 1:
            reasons.append(
                f"decoded and embedded again it moves {shift:.3g} times as far as {share} of the screen's cells do"
            )
        flags.append("; ".join(reasons))
    return FrameScores(far_ratio, moved_ratio, tuple(flags), rows, away)


def nearest_cells(z: np.ndarray, cells: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows (m, n) of the cells (N, Z) nearest to each of z (m, Z), and their distances (m, n), nearest first."""
    from sklearn.neighbors import NearestNeighbors  # slow to import, and only needed here

    search = NearestNeighbors(n_neighbors=min(n, len(cells)), algorithm="brute").fit(cells)
    away, rows = search.kneighbors(z.astype(cells.dtype))
    return rows, away


def _over(values: np.ndarray, limit: float) -> np.ndarray:
    """Values divided by the limit; where the limit is 0, 0 stays 0 and everything else is infinite."""
    return values / limit if limit != 0 else np.where(values > 0, np.inf, 0.0)
