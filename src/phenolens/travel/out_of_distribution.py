"""Out-of-distribution frames: farther from real cells, or less stable under decoding, than real cells are.

N real cells, F frames, Z features. Two scores, each divided by a quantile of the real cells' own score, so that 1 is
the limit: the mean distance to the nearest real cells (of a real cell: to the others), and how far an embedding moves
when it is decoded and embedded again.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from phenolens.core.errors import InputError
from phenolens.morphology.medoids import distances

Reembed = Callable[[np.ndarray], np.ndarray]  # decodes embeddings (n, Z) and embeds the pictures (n, Z)

NEAREST = 5  # real cells whose distances are averaged
QUANTILE = 0.99  # of the real cells' scores: by definition, one real cell in a hundred is beyond each limit
SAMPLE = 400  # real cells on which the limits are measured
CHUNK = 2048  # reference cells at once


@dataclass(frozen=True)
class Limits:
    """The scores of real cells that frames are compared with."""

    cells: np.ndarray  # (N, Z) the real cells
    nearest: int  # how many of them are averaged
    quantile: float
    far: float  # the quantile of a real cell's mean distance to its nearest others
    moved: float  # the quantile of how far a real cell moves when it is decoded and embedded again


@dataclass(frozen=True)
class FrameScores:
    """The out-of-distribution scores of frames."""

    far: np.ndarray  # (F,) mean distance to the nearest real cells, the limit being 1
    moved: np.ndarray  # (F,) how far the frame moves when decoded and embedded again, the limit being 1
    flags: tuple[str, ...]  # (F,) which score is beyond its limit, as a sentence; empty where none is
    nearest: np.ndarray  # (F, limits.nearest) rows of the limits' cells nearest to each frame, the nearest first
    distances: np.ndarray  # (F, limits.nearest) Euclidean distances to them

    @property
    def flagged(self) -> np.ndarray:
        """(F,) whether a score is beyond its limit."""
        return np.array([bool(flag) for flag in self.flags])


def fit_limits(
    cells: np.ndarray,
    reembed: Reembed,
    *,
    nearest: int = NEAREST,
    quantile: float = QUANTILE,
    sample: int = SAMPLE,
    seed: int = 0,
) -> Limits:
    """The limits set by real cells (N, Z), from at most `sample` random ones, each compared with all others.

    Raises:
        InputError: too few cells to have `nearest` others, or values that are not finite.
    """
    cells = np.asarray(cells)
    if cells.ndim != 2 or not np.isfinite(cells).all():
        raise InputError(f"embeddings of shape {cells.shape}: expected finite values, a row a cell")
    if len(cells) <= nearest:
        raise InputError(f"{len(cells)} cells: expected more than {nearest}, so that each has {nearest} others near it")
    random = np.random.default_rng(seed)
    drawn = np.sort(random.choice(len(cells), min(sample, len(cells)), replace=False))
    away = nearest_cells(cells[drawn], cells, nearest + 1)[1]
    # the nearest one is the cell itself
    far = float(np.quantile(away[:, 1:].mean(axis=1), quantile))
    moved = float(np.quantile(np.linalg.norm(reembed(cells[drawn]) - cells[drawn], axis=1), quantile))
    return Limits(cells, nearest, quantile, far, moved)


def frame_scores(limits: Limits, frames: np.ndarray, reembedded: np.ndarray) -> FrameScores:
    """Score frames (F, Z) against the limits.

    Args:
        limits: From `fit_limits`.
        frames: (F, Z) embeddings.
        reembedded: (F, Z) embeddings of the pictures that the frames decode into.
    """
    rows, away = nearest_cells(frames, limits.cells, limits.nearest)
    moved = np.linalg.norm(reembedded - frames, axis=1)
    far_ratio, moved_ratio = _over(away.mean(axis=1), limits.far), _over(moved, limits.moved)
    share = f"{100 * limits.quantile:g} %"
    flags = []
    for far, shift in zip(far_ratio.tolist(), moved_ratio.tolist()):
        reasons = []
        if far > 1:
            reasons.append(f"{far:.3g} times as far from the real cells nearest to it as {share} of real cells are")
        if shift > 1:
            reasons.append(f"decoded and embedded again it moves {shift:.3g} times as far as {share} of real cells do")
        flags.append("; ".join(reasons))
    return FrameScores(far_ratio, moved_ratio, tuple(flags), rows, away)


def nearest_cells(z: np.ndarray, cells: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows (m, n) of the cells (N, Z) nearest to each of z (m, Z), and their distances (m, n), nearest first.

    Ties go to the smaller row. The cells are read in chunks, so that memory stays small.
    """
    n = min(n, len(cells))
    rows, away = np.full((len(z), n), -1), np.full((len(z), n), np.inf)
    for first in range(0, len(cells), CHUNK):
        part = cells[first : first + CHUNK]
        there = distances(z, part)
        nearer = np.flatnonzero((there < away[:, -1:]).any(axis=1))  # few in later chunks
        candidates = np.concatenate([away[nearer], there[nearer]], axis=1)
        order = np.argsort(candidates, axis=1, kind="stable")[:, :n]
        numbers = np.concatenate([rows[nearer], np.tile(np.arange(first, first + len(part)), (len(nearer), 1))], axis=1)
        rows[nearer], away[nearer] = (np.take_along_axis(of, order, axis=1) for of in (numbers, candidates))
    return rows, away


def _over(values: np.ndarray, limit: float) -> np.ndarray:
    """Values divided by the limit; where the limit is 0, 0 stays 0 and everything else is infinite."""
    if limit > 0:
        return values / limit
    return np.where(values > 0, np.inf, 0.0)
