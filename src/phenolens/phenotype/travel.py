"""Phenotype travel: the way from a control cell to a treated cell through a model's embeddings.

F frames, Z features, n cells, C channels, S crop side in px. Lafarge et al. 2019, Figure 3.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from phenolens.errors import InputError

Array = np.ndarray
Decoder = Callable[[Array], Array]  # embeddings (n, Z) to crops (n, C, S, S)


@dataclass(frozen=True)
class Travel:
    """Embeddings on the way, first the start and last the target."""

    embeddings: Array  # (F, Z)
    cosines: Array  # (F,) cosine similarity of each frame to the target; NaN where a frame is all zero
    n_copied: Array  # (F,) features that have the target's value because they were copied; 0 for a straight line


def target_cell(z_treatment: Array) -> int:
    """Row of the cell (n, Z) nearest, by Euclidean distance, to the mean of all of them; ties go to the smaller row.

    One cell hides a mixed population: where a treatment acts on some of its cells only, the mean lies between the two
    kinds (the paper's own failure: fragmented nuclei under nocodazole).
    """
    if z_treatment.ndim != 2 or not z_treatment.size or not np.isfinite(z_treatment).all():
        raise InputError(
            f"embeddings of shape {z_treatment.shape}: expected finite values, a row a cell, at least one cell"
        )
    return int(np.argmin(np.square(z_treatment - z_treatment.mean(axis=0)).sum(axis=1)))


def feature_swap(z0: Array, z1: Array, frames: int) -> Travel:
    """From z0 (Z,) to z1 (Z,), copying the features that differ most first.

    Features are ordered by |z1 - z0|, largest first (equal ones in their own order). In each of the frames - 1 steps
    the next group of them is copied from z1, until at least that step's equal share of the summed squared difference
    has been covered; one feature that holds several shares makes neighbouring frames equal.
    """
    z0, z1 = _checked_ends(z0, z1, frames)
    order = np.argsort(-np.abs(z1 - z0), kind="stable")
    covered = np.cumsum(np.square(z1 - z0)[order])
    shares = covered[-1] * np.arange(frames) / (frames - 1)
    # a share that a group meets exactly is met: without the tolerance, rounding would draw in one feature more
    n_copied = np.searchsorted(covered, shares * (1 - 1e-12), side="left") + 1
    n_copied[0], n_copied[-1] = 0, len(z0)
    rank = np.empty(len(z0), int)
    rank[order] = np.arange(len(z0))
    embeddings = np.where(rank < n_copied[:, None], z1, z0)
    return Travel(embeddings, cosines_to(embeddings, z1), n_copied)


def straight_line(z0: Array, z1: Array, frames: int) -> Travel:
    """From z0 (Z,) to z1 (Z,) in equal steps, all features at once: the alternative to feature_swap."""
    z0, z1 = _checked_ends(z0, z1, frames)
    share = np.linspace(0, 1, frames)[:, None]
    embeddings = (1 - share) * z0 + share * z1
    return Travel(embeddings, cosines_to(embeddings, z1), np.zeros(frames, int))


def decode_frames(travel: Travel, decode: Decoder) -> Array:
    """The frames as crops (F, C, S, S); InputError when the decoder gives something else, or values not finite."""
    crops = np.asarray(decode(travel.embeddings))
    if crops.ndim != 4 or len(crops) != len(travel.embeddings):
        raise InputError(
            f"decoded frames have shape {crops.shape}: expected ({len(travel.embeddings)}, channels, side, side)"
        )
    if not np.isfinite(crops).all():
        raise InputError("decoded frames hold values that are not finite: the model has diverged; train it anew")
    return crops


def cosines_to(embeddings: Array, target: Array) -> Array:
    """Cosine similarity (F,) of each row (F, Z) to the target (Z,); NaN where a row is all zero."""
    lengths = np.linalg.norm(embeddings, axis=1) * np.linalg.norm(target)
    return np.divide(embeddings @ target, lengths, out=np.full(len(embeddings), np.nan), where=lengths > 0)


def _checked_ends(z0: Array, z1: Array, frames: int) -> tuple[Array, Array]:
    z0, z1 = np.asarray(z0, float), np.asarray(z1, float)
    if z0.ndim != 1 or z0.shape != z1.shape or not z0.size:
        raise InputError(f"start {z0.shape} and target {z1.shape}: expected two embeddings of the same model")
    if not (np.isfinite(z0).all() and np.isfinite(z1).all()):
        raise InputError("start or target embedding holds values that are not finite; embed these cells anew")
    if frames < 2:
        raise InputError(f"{frames} frames: expected at least 2, the start and the target")
    return z0, z1
