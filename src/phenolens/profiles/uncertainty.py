"""Intervals and p-values by drawing: compounds with replacement, for treatments of one compound are not independent.

T counted treatments of C compounds.
"""

from typing import Literal

import numpy as np

LEVEL = 0.95
DRAWS_AT_A_TIME = 500


def bootstrap_interval(
    right: np.ndarray,
    compounds: np.ndarray,
    *,
    averaged_over: Literal["treatments", "compounds"],
    n_bootstrap: int,
    seed: int,
) -> tuple[float, float, float]:
    """Accuracy and its 95 % percentile interval, compounds drawn with replacement; neighbours stay as they are.

    `right` (T,) bool, `compounds` (T,) names. With no draws the interval is NaN.
    """
    _, code = np.unique(compounds.astype(str), return_inverse=True)
    n_right = np.bincount(code, weights=right)
    n_all = np.bincount(code).astype(float)
    if averaged_over == "compounds":
        n_right, n_all = n_right / n_all, np.ones_like(n_all)
    accuracy = float(n_right.sum() / n_all.sum())
    if n_bootstrap == 0:
        return accuracy, float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    n_compounds = len(n_all)
    drawn = []
    for start in range(0, n_bootstrap, DRAWS_AT_A_TIME):
        n_draws = min(DRAWS_AT_A_TIME, n_bootstrap - start)
        times = rng.multinomial(n_compounds, np.full(n_compounds, 1 / n_compounds), size=n_draws)  # (draws, C)
        drawn.append(times @ n_right / (times @ n_all))
    low, high = np.quantile(np.concatenate(drawn), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return accuracy, float(low), float(high)


def share_reached(null: np.ndarray, observed: float) -> float:
    """Permutation p-value: the share of draws that reach `observed`, 1 added above and below (never 0)."""
    return float((np.sum(null >= observed - 1e-12) + 1) / (len(null) + 1))  # 1e-12: rounding of means
