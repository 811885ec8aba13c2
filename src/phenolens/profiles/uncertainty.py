"""Uncertainty of scores: intervals, shuffled labels, and the comparison of two scores.

Compounds are drawn, never single treatments: the doses of a compound are not independent. T counted treatments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from phenolens.core.bounds import Count, Seed
from phenolens.core.errors import InputError

if TYPE_CHECKING:
    from phenolens.profiles.nsc import Matching

AveragedOver = Literal["treatments", "compounds"]
LEVEL = 0.95
COUNTS_AT_A_TIME = 2**22  # how often each compound is drawn, in several draws
ANSWER = ("neighbour", "predicted", "right")


def bootstrap_interval(
    right: np.ndarray, compounds: np.ndarray, *, averaged_over: AveragedOver, n_bootstrap: int, seed: int
) -> tuple[float, float, float]:
    """Accuracy and its 95 % percentile interval, compounds drawn with replacement; neighbours stay as they are.

    `right` (T,) bool, or a share of several scores; `compounds` (T,) names or codes. Without draws the interval is NaN.
    """
    code = np.unique(compounds, return_inverse=True)[1]
    n_right, n_all = _votes(right, code, averaged_over)
    accuracy = float(n_right.sum() / n_all.sum())
    if n_bootstrap == 0:
        return accuracy, float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    n_compounds = len(n_all)
    drawn = []
    step = max(1, COUNTS_AT_A_TIME // n_compounds)
    for start in range(0, n_bootstrap, step):
        n_draws = min(step, n_bootstrap - start)
        times = rng.multinomial(n_compounds, np.full(n_compounds, 1 / n_compounds), size=n_draws)  # (draws, C)
        drawn.append(times @ n_right / (times @ n_all))
    low, high = np.quantile(np.concatenate(drawn), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return accuracy, float(low), float(high)


def _votes(right: np.ndarray, code: np.ndarray, averaged_over: AveragedOver) -> tuple[np.ndarray, np.ndarray]:
    """Correct and all votes of each compound; compounds without a treatment have none."""
    n_right, n_all = np.bincount(code, weights=right), np.bincount(code).astype(float)
    if averaged_over == "treatments":
        return n_right, n_all
    return np.divide(n_right, n_all, out=np.zeros_like(n_all), where=n_all > 0), (n_all > 0).astype(float)


def share_reached(null: np.ndarray, observed: float) -> float:
    """Permutation p-value: the share of draws that reach `observed`, 1 added above and below (never 0)."""
    return float((np.sum(null >= observed - 1e-12) + 1) / (len(null) + 1))  # 1e-12: rounding of means


@dataclass(frozen=True)
class ShuffledLabels:
    """The accuracy with the true labels, and with shuffled ones."""

    accuracy: float
    shuffled: np.ndarray  # (shuffles,) accuracies, without shuffles that leave no query to count
    p_value: float  # share of shuffles that reach the accuracy, 1 added above and below


def shuffled_labels(
    matching: Matching, *, averaged_over: AveragedOver = "treatments", n_shuffles: int = 1000, seed: int = 0
) -> ShuffledLabels:
    """Score again with mechanism labels permuted across compounds, so that the treatments of a compound stay together.

    A compound with two mechanisms receives two. Profiles, batches and the number of compounds of each mechanism stay;
    which queries count follows from the new labels.
    """
    labelled = matching.labelled

    def accuracy(mechanism: np.ndarray) -> float:
        answers = matching.answer(mechanism)
        counted = answers.eligible
        if not counted.any():
            return float("nan")
        n_right, n_all = _votes(answers.right[counted], labelled.compound[counted], averaged_over)
        return float(n_right.sum() / n_all.sum())

    pairs = np.stack([labelled.compound, labelled.mechanism], axis=1)
    kinds, unit = np.unique(pairs, axis=0, return_inverse=True)  # a unit: a compound and one of its mechanisms
    rng = np.random.default_rng(seed)
    shuffled = np.array([accuracy(rng.permutation(kinds[:, 1])[unit]) for _ in range(n_shuffles)])
    shuffled = shuffled[np.isfinite(shuffled)]
    observed = accuracy(labelled.mechanism)
    return ShuffledLabels(accuracy=observed, shuffled=shuffled, p_value=share_reached(shuffled, observed))


@dataclass(frozen=True)
class Comparison:
    """Two scores over the queries that both count."""

    n_treatments: int  # counted in both
    only_a_right: int
    only_b_right: int
    p_value: float  # two-sided, by flipping the signs of whole compounds
    p_value_mcnemar: float  # two-sided, exact, as if all treatments were independent
    changed: pd.DataFrame  # a row per query right in one only: mechanism, and neighbour and answer in each


def sign_flip_p(gained: np.ndarray, *, n_draws: int, seed: int) -> float:
    """Two-sided p-value of the sum of gains (C,), a number per compound, by flipping the signs of whole compounds."""
    signs = np.random.default_rng(seed).choice([-1, 1], size=(n_draws, len(gained)))
    return share_reached(np.abs(signs @ gained), abs(gained.sum()))


def compare_queries(a: pd.DataFrame, b: pd.DataFrame, *, n_draws: Count = 10_000, seed: Seed = 0) -> Comparison:
    """Compare two scores query by query.

    Args:
        a: the queries of one score, as `Score.queries` or `read_queries` return them.
        b: those of the other, by the same protocol.
        n_draws: draws of signs for the p-value.
        seed: of the draws.

    Returns:
        The queries that are correct in one score only, and whether their number could be chance.

    Raises:
        InputError: no query is counted in both, or a table has other columns.
    """
    from scipy.stats import binomtest  # slow to import, and only needed here

    for name, queries in (("a", a), ("b", b)):
        if missing := {"counted", "compound", "concentration_um", "moa", *ANSWER}.difference(queries.columns):
            raise InputError(f"{name}: no column {min(missing)}; expected the queries of a score: `nsc(...).queries`")
    counted_a, counted_b = (queries[queries["counted"]] for queries in (a, b))
    names = counted_a.index[counted_a.index.isin(counted_b.index)]
    if names.empty:
        raise InputError("scores: no treatment is counted in both; expected scores of the same treatments")
    one, other = counted_a.loc[names], counted_b.loc[names]
    gained = other["right"].to_numpy(dtype=int) - one["right"].to_numpy(dtype=int)  # 1: only b, -1: only a
    by_compound = pd.Series(gained).groupby(one["compound"].to_numpy()).sum().to_numpy()
    answers = one[["compound", "concentration_um", "moa"]]
    for suffix, queries in (("a", one), ("b", other)):
        answers = answers.assign(**{f"{name}_{suffix}": queries[name] for name in ANSWER})
    only_a, only_b = int((gained < 0).sum()), int((gained > 0).sum())
    return Comparison(
        n_treatments=len(names),
        only_a_right=only_a,
        only_b_right=only_b,
        p_value=sign_flip_p(by_compound, n_draws=n_draws, seed=seed),
        p_value_mcnemar=float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0,
        changed=answers[gained != 0],
    )
