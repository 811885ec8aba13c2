"""Where a frame leaves the data: farther from real cells, or less faithful to itself, than real cells are.

N real cells, F frames, Z features. Two measures, each in units of what a stated quantile of the real cells shows, so
that 1 is the limit: the mean distance to the nearest real cells (a real cell is compared with the others), and how
far an embedding moves when it is decoded and embedded anew.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from phenolens.core.errors import InputError
from phenolens.morphology.medoids import distances

Again = Callable[[np.ndarray], np.ndarray]  # embeddings (n, Z) to those of the pictures that they decode into (n, Z)

NEAREST = 5  # real cells whose distances are averaged
QUANTILE = 0.99  # of the real cells: by its making, one real cell in a hundred is beyond each limit
SAMPLE = 400  # real cells on which the limits are measured
CHUNK = 2048  # reference cells at once


@dataclass(frozen=True)
class Limits:
    """What real cells show, for frames to be held against."""

    cells: np.ndarray  # (N, Z) the real cells
    nearest: int  # how many of them are averaged
    quantile: float
    far: float  # the quantile of a real cell's mean distance to its nearest others
    moved: float  # the quantile of how far a real cell moves when it is decoded and embedded anew


@dataclass(frozen=True)
class Held:
    """Frames held against the limits."""

    far: np.ndarray  # (F,) mean distance to the nearest real cells, the limit being 1
    moved: np.ndarray  # (F,) how far the frame moves when it is decoded and embedded anew, the limit being 1
    flags: tuple[str, ...]  # (F,) in words what is beyond its limit; empty where nothing is
    nearest: np.ndarray  # (F, limits.nearest) rows of the limits' cells nearest to each frame, the nearest first
    distances: np.ndarray  # (F, limits.nearest) Euclidean distances to them

    @property
    def flagged(self) -> np.ndarray:
        """(F,) whether anything is beyond its limit."""
        return np.array([bool(flag) for flag in self.flags])


def limits_of(
    cells: np.ndarray,
    again: Again,
    *,
    nearest: int = NEAREST,
    quantile: float = QUANTILE,
    sample: int = SAMPLE,
    seed: int = 0,
) -> Limits:
    """The limits that real cells (N, Z) set; `again` decodes embeddings and embeds the pictures.

    They are measured on at most `sample` cells, drawn at random, each against all others. InputError where there are
    too few cells to have `nearest` others.
    """
    cells = np.asarray(cells)
    if cells.ndim != 2 or not np.isfinite(cells).all():
        raise InputError(f"embeddings of shape {cells.shape}: expected finite values, a row a cell")
    if len(cells) <= nearest:
        raise InputError(f"{len(cells)} cells: expected more than {nearest}, so that each has {nearest} others near it")
    random = np.random.default_rng(seed)
    drawn = np.sort(random.choice(len(cells), min(sample, len(cells)), replace=False))
    away = nearest_cells(cells[drawn], cells, nearest + 1)[1]
    # the nearest of all is the cell itself
    far = float(np.quantile(away[:, 1:].mean(axis=1), quantile))
    moved = float(np.quantile(np.linalg.norm(again(cells[drawn]) - cells[drawn], axis=1), quantile))
    return Limits(cells, nearest, quantile, far, moved)


def held_against(limits: Limits, frames: np.ndarray, embedded_anew: np.ndarray) -> Held:
    """How far frames (F, Z) lie inside or outside of what real cells show, and in words which are outside.

    `embedded_anew` (F, Z) are the embeddings of the pictures that the frames decode into.
    """
    rows, away = nearest_cells(frames, limits.cells, limits.nearest)
    moved = np.linalg.norm(embedded_anew - frames, axis=1)
    far_ratio, moved_ratio = _over(away.mean(axis=1), limits.far), _over(moved, limits.moved)
    share = f"{100 * limits.quantile:g} %"
    flags = []
    for far, back in zip(far_ratio.tolist(), moved_ratio.tolist()):
        words = []
        if far > 1:
            words.append(f"{far:.3g} times as far from the real cells nearest to it as {share} of real cells are")
        if back > 1:
            words.append(f"decoded and embedded anew it moves {back:.3g} times as far as {share} of real cells do")
        flags.append("; ".join(words))
    return Held(far_ratio, moved_ratio, tuple(flags), rows, away)


def nearest_cells(z: np.ndarray, cells: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows (m, n) of the cells (N, Z) nearest to each of z (m, Z), and their distances (m, n), nearest first.

    Equal distances come in the order of the rows. The cells are gone through in parts, so that memory stays small.
    """
    n = min(n, len(cells))
    rows, away = np.full((len(z), n), -1), np.full((len(z), n), np.inf)
    for first in range(0, len(cells), CHUNK):
        part = cells[first : first + CHUNK]
        there = distances(z, part)
        nearer = np.flatnonzero((there < away[:, -1:]).any(axis=1))  # later parts hold few of them
        candidates = np.concatenate([away[nearer], there[nearer]], axis=1)
        order = np.argsort(candidates, axis=1, kind="stable")[:, :n]
        numbers = np.concatenate([rows[nearer], np.tile(np.arange(first, first + len(part)), (len(nearer), 1))], axis=1)
        rows[nearer], away[nearer] = (np.take_along_axis(of, order, axis=1) for of in (numbers, candidates))
    return rows, away


def _over(values: np.ndarray, limit: float) -> np.ndarray:
    """Values in units of the limit; where the limit is 0, 0 is inside and everything else infinitely far outside."""
    if limit > 0:
        return values / limit
    return np.where(values > 0, np.inf, 0.0)
