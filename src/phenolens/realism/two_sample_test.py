"""Can a classifier tell drawn cells from real ones? On plates that it has not seen.

n real cells, m drawn cells, D measures.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata
from sklearn.ensemble import HistGradientBoostingClassifier

from phenolens.core.errors import InputError

MOST_FOLDS = 5
LEAST_CELLS = 10  # of each kind, to be learnt from
DRAWS = 1000  # of wells, for the intervals
LEVEL = 0.95


@dataclass(frozen=True)
class TwoSampleTest:
    """How well real and drawn cells of unseen plates are told apart; NaN where it could not be asked."""

    accuracy: float  # share of cells told rightly, real and drawn counted alike; 0.5 when they cannot be told apart
    accuracy_interval: tuple[float, float]  # 95 %
    auc: float  # how often a drawn cell looks more drawn than a real one, 0 to 1; 0.5 when they cannot be told apart
    auc_interval: tuple[float, float]
    n_folds: int  # times a classifier was trained


NOT_ASKED = TwoSampleTest(np.nan, (np.nan, np.nan), np.nan, (np.nan, np.nan), 0)


def two_sample_test(
    real: np.ndarray,
    drawn: np.ndarray,
    *,
    real_plates: np.ndarray,
    drawn_plates: np.ndarray,
    real_wells: np.ndarray,
    drawn_wells: np.ndarray,
    seed: int,
) -> TwoSampleTest:
    """Train a classifier on cells of some plates, real (n, D) against drawn (m, D), and ask it about the others.

    Plates are dealt into at most MOST_FOLDS groups; each is asked about by a classifier trained on the others. So each
    cell is asked about once, by a classifier that has seen no cell of its plate. The caller sees to it that no
    cell is there both as real and as drawn. Gradient-boosted trees, which take NaN as a value of its own: how often no
    nucleus is found in drawn cells is a difference too. Settings are fixed beforehand.

    Wells stand for their cells in the intervals: they are drawn with replacement, DRAWS times, the classifiers staying
    as they are. What another choice of plates to learn from would do is not in them. Nothing is asked
    with fewer than two plates, or too few cells to learn from. Lopez-Paz & Oquab 2017.
    """
    if real.ndim != 2 or drawn.shape[1:] != real.shape[1:]:
        raise InputError(f"real cells {real.shape}, drawn cells {drawn.shape}: expected rows of the same measures")
    cells = np.concatenate([real, drawn])
    is_drawn = np.repeat([False, True], [len(real), len(drawn)])
    group = _plate_groups(np.concatenate([real_plates, drawn_plates]).astype(str), seed)
    wells = np.concatenate([real_wells, drawn_wells]).astype(str)
    if group.max(initial=0) < 1:
        return NOT_ASKED
    looks_drawn = np.full(len(cells), np.nan)
    for fold in range(group.max() + 1):
        asked = group == fold
        if min(np.sum(is_drawn & ~asked), np.sum(~is_drawn & ~asked)) < LEAST_CELLS:
            return NOT_ASKED
        classifier = _classifier(seed).fit(cells[~asked], is_drawn[~asked])
        looks_drawn[asked] = classifier.predict_proba(cells[asked])[:, 1]
    measured = _accuracy_and_auc(looks_drawn, is_drawn)
    drawn_again = [_accuracy_and_auc(looks_drawn[rows], is_drawn[rows]) for rows in _well_draws(wells, seed)]
    low, high = np.nanquantile(drawn_again, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    intervals = [(float(a), float(b)) for a, b in zip(low, high)]
    return TwoSampleTest(measured[0], intervals[0], measured[1], intervals[1], int(group.max()) + 1)


def area_under_curve(scores: np.ndarray, is_drawn: np.ndarray) -> float:
    """How often a drawn cell's score is above a real one's, ties counting half; NaN without both kinds."""
    n_drawn = int(is_drawn.sum())
    n_real = len(is_drawn) - n_drawn
    if not n_drawn or not n_real:
        return float("nan")
    return float((rankdata(scores)[is_drawn].sum() - n_drawn * (n_drawn + 1) / 2) / (n_drawn * n_real))


def _accuracy_and_auc(looks_drawn: np.ndarray, is_drawn: np.ndarray) -> tuple[float, float]:
    told = looks_drawn > 0.5
    kinds = [np.mean(told[is_drawn == kind] == kind) for kind in (False, True) if (is_drawn == kind).any()]
    return float(np.mean(kinds)), area_under_curve(looks_drawn, is_drawn)


def _classifier(seed: int) -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(
        max_iter=100, max_leaf_nodes=15, min_samples_leaf=10, early_stopping=False, random_state=seed
    )


def _plate_groups(plates: np.ndarray, seed: int) -> np.ndarray:
    """Which group of plates each cell is in, from 0: plates at random, the groups as even in plates as can be."""
    names, plate = np.unique(plates, return_inverse=True)
    order = np.random.default_rng([seed, 1]).permutation(len(names))
    return (np.argsort(order) % MOST_FOLDS)[plate]


def _well_draws(wells: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """Rows of as many wells as there are, drawn with replacement, DRAWS times."""
    _, well = np.unique(wells, return_inverse=True)
    order = np.argsort(well, kind="stable")
    rows_of = np.split(order, np.cumsum(np.bincount(well))[:-1])
    rng = np.random.default_rng([seed, 2])
    for _ in range(DRAWS):
        yield np.concatenate([rows_of[i] for i in rng.integers(len(rows_of), size=len(rows_of))])
