"""Latent paths: interpolate a control cell towards a treated cell in a model's latent space.

F frames, Z features, n cells, C channels, S crop side in px. Lafarge et al. 2019, Figure 3.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from phenolens.core.errors import InputError

Decoder = Callable[[np.ndarray], np.ndarray]  # embeddings (n, Z) to crops (n, C, S, S)

# swap: the paper's, features copied from the target, those that differ most first; line: all features at once;
# direction: the treatment's mean minus the controls' mean, added to the real control cell
Interpolation = Literal["swap", "line", "direction"]


@dataclass(frozen=True)
class LatentPath:
    """Embeddings from the start to the target."""

    embeddings: np.ndarray  # (F, Z)
    target: np.ndarray  # (Z,)
    cosines: np.ndarray  # (F,) cosine similarity of each frame to the target; NaN where a frame is all zero
    n_copied: np.ndarray  # (F,) features copied from the target; 0 for a straight line
    distances: np.ndarray  # (F,) Euclidean distance of each frame to the target
    leg: np.ndarray  # (F,) the target that the frame leads to, from 0, where there are several


def feature_swap(z0: np.ndarray, z1: np.ndarray, frames: int) -> LatentPath:
    """From z0 (Z,) to z1 (Z,), copying the features that differ most first.

    Features are ordered by |z1 - z0|, largest first (equal ones in their own order). In each of the frames - 1 steps
    the next group of them is copied from z1, until at least that step's equal share of the summed squared difference
    has been covered; one feature that holds several shares makes neighbouring frames equal.
    """
    z0, z1 = _checked_ends(z0, z1, frames)
    order = np.argsort(-np.abs(z1 - z0), kind="stable")
    covered = np.cumsum(np.square(z1 - z0)[order])
    shares = covered[-1] * np.arange(frames) / (frames - 1)
    # the tolerance keeps rounding from copying one feature more where a group meets its share exactly
    n_copied = np.searchsorted(covered, shares * (1 - 1e-12), side="left") + 1
    n_copied[0], n_copied[-1] = 0, len(z0)
    rank = np.empty(len(z0), int)
    rank[order] = np.arange(len(z0))
    embeddings = np.where(rank < n_copied[:, None], z1, z0)
    return _to_target(embeddings, z1, n_copied=n_copied)


def straight_line(z0: np.ndarray, z1: np.ndarray, frames: int) -> LatentPath:
    """From z0 (Z,) to z1 (Z,) in equal steps, all features at once."""
    z0, z1 = _checked_ends(z0, z1, frames)
    share = np.linspace(0, 1, frames)[:, None]
    embeddings = (1 - share) * z0 + share * z1
    return _to_target(embeddings, z1)


def along_direction(z0: np.ndarray, direction: np.ndarray, frames: int, *, beyond: float = 1.0) -> LatentPath:
    """From z0 (Z,) in equal steps along the direction (Z,), to `beyond` times its length.

    Cosines and distances refer to z0 + direction, whatever `beyond` is: at 2 the middle frame is there and the last one
    twice as far from the start.
    """
    z0, direction = _checked_ends(z0, direction, frames)
    if not 0 < beyond < np.inf:
        raise InputError(f"{beyond} times the direction: expected a finite number above 0")
    share = beyond * np.linspace(0, 1, frames)[:, None]
    return _to_target(z0 + share * direction, z0 + direction)


def through(z0: np.ndarray, targets: Sequence[np.ndarray], frames: int, *, way: Literal["swap", "line"]) -> LatentPath:
    """From z0 (Z,) through each of the targets (Z,) in turn, such as the doses of a compound.

    Legs have equal numbers of frames, or one less; one frame is at each target. Cosines and distances refer to the last
    target. InputError where there are fewer frames than start and targets.
    """
    if frames < len(targets) + 1:
        raise InputError(
            f"{frames} frames through {len(targets)} targets: expected at least {len(targets) + 1}, one a target and "
            "the start"
        )
    stops = np.rint(np.linspace(0, frames - 1, len(targets) + 1)).astype(int)
    ends = [z0, *targets]
    interpolate = feature_swap if way == "swap" else straight_line
    legs = [interpolate(ends[i], ends[i + 1], stops[i + 1] - stops[i] + 1) for i in range(len(targets))]
    embeddings = np.concatenate([legs[0].embeddings[:1], *(leg.embeddings[1:] for leg in legs)])
    n_copied = np.concatenate([[0], *(leg.n_copied[1:] for leg in legs)])
    which = np.concatenate([[0], *(np.full(len(leg.embeddings) - 1, i) for i, leg in enumerate(legs))])
    return _to_target(embeddings, np.asarray(targets[-1], float), n_copied=n_copied, leg=which)


def decode_frames(path: LatentPath, decode: Decoder) -> np.ndarray:
    """The frames as crops (F, C, S, S); InputError when the decoder gives something else, or values not finite."""
    crops = np.asarray(decode(path.embeddings))
    if crops.ndim != 4 or len(crops) != len(path.embeddings):
        raise InputError(
            f"decoded frames have shape {crops.shape}: expected ({len(path.embeddings)}, channels, side, side)"
        )
    if not np.isfinite(crops).all():
        raise InputError("decoded frames hold values that are not finite: the model has diverged; train it again")
    return crops


def row_cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine similarity (F,) of each row of a (F, Z) to that of b (F, Z), or to b (Z,); NaN where one is all zero."""
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.divide((a * b).sum(axis=-1), lengths, out=np.full(len(a), np.nan), where=lengths > 0)


def _to_target(
    embeddings: np.ndarray, target: np.ndarray, *, n_copied: np.ndarray | None = None, leg: np.ndarray | None = None
) -> LatentPath:
    none = np.zeros(len(embeddings), int)
    return LatentPath(
        embeddings,
        target,
        row_cosines(embeddings, target),
        none if n_copied is None else n_copied,
        np.linalg.norm(embeddings - target, axis=1),
        none if leg is None else leg,
    )


def _checked_ends(z0: np.ndarray, z1: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray]:
    z0, z1 = np.asarray(z0, float), np.asarray(z1, float)
    if z0.ndim != 1 or z0.shape != z1.shape or not z0.size:
        raise InputError(f"start {z0.shape} and target {z1.shape}: expected two embeddings of the same model")
    if not (np.isfinite(z0).all() and np.isfinite(z1).all()):
        raise InputError("start or target embedding holds values that are not finite; run `phenolens embed` again")
    if frames < 2:
        raise InputError(f"{frames} frames: expected at least 2, the start and the target")
    return z0, z1
