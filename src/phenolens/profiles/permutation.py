"""What a score would be if mechanisms meant nothing: labels shuffled over compounds, everything else as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from phenolens.profiles.nsc import Design, HeldOut, Similarity, answer, blocks_of, design_of
from phenolens.profiles.uncertainty import bootstrap_interval, share_reached

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class ShuffledLabels:
    """The accuracy with the true labels beside those with shuffled ones."""

    accuracy: float
    shuffled: np.ndarray  # (shuffles,) accuracies; shuffles that leave no query to count are not among them
    p_value: float  # share of shuffles that reach the accuracy, 1 added above and below


def shuffled_label_test(
    profiles: AnnData,
    *,
    held_out: Sequence[HeldOut] = ("compound",),
    similarity: Similarity = "cosine",
    dropped_mechanisms: Literal["stay", "leave"] = "stay",
    averaged_over: Literal["treatments", "compounds"] = "treatments",
    n_shuffles: int = 1000,
    seed: int = 0,
) -> ShuffledLabels:
    """Score again with mechanisms dealt anew to compounds, so that the treatments of a compound stay together.

    A compound with two mechanisms is dealt one for each. Profiles, batches and the sizes of mechanisms (in compounds)
    stay; which queries count is derived anew. Conventions as in `neighbour_score`. All distances (M, M) are in memory.
    """
    design = design_of(profiles, held_out, similarity)
    blocks = list(blocks_of(design))
    unit, mechanism_of_unit = _units(design)
    compounds = design.table["compound"].to_numpy()

    def accuracy(mechanism: np.ndarray) -> float:
        answers = answer(design, blocks, mechanism, dropped_mechanisms=dropped_mechanisms)
        counted = answers.eligible
        if not counted.any():
            return float("nan")
        return bootstrap_interval(
            answers.right[counted], compounds[counted], averaged_over=averaged_over, n_bootstrap=0, seed=0
        )[0]

    rng = np.random.default_rng(seed)
    shuffled = np.array([accuracy(rng.permutation(mechanism_of_unit)[unit]) for _ in range(n_shuffles)])
    shuffled = shuffled[np.isfinite(shuffled)]
    observed = accuracy(design.mechanism)
    return ShuffledLabels(accuracy=observed, shuffled=shuffled, p_value=share_reached(shuffled, observed))


def _units(design: Design) -> tuple[np.ndarray, np.ndarray]:
    """The unit (compound and mechanism) of each row (M,), and the mechanism of each unit."""
    pairs = design.table[["compound", "moa"]]
    unit = pairs.groupby(["compound", "moa"], sort=True).ngroup().to_numpy()
    _, first = np.unique(unit, return_index=True)
    return unit, design.mechanism[first]
