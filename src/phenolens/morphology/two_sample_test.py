"""Classifier two-sample test: can real and decoded cells be distinguished by their measures, on unseen plates?

n real and m decoded cells, D measures.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from phenolens.core.errors import InputError

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingClassifier

MOST_MISSING = 0.1  # of the real cells; a measure that is missing more often is left out
FURTHEST = 10.0  # real standard deviations; values are clipped there, so that one outlier does not rule a distance
LEAST_COMPARED = 60  # real cells; with fewer, one half of them says little about the other
MOST_FOLDS = 5
LEAST_CELLS = 10  # of each class, to train on
RESAMPLES = 1000  # of wells, for the intervals
LEVEL = 0.95


@dataclass(frozen=True)
class Scale:
    """Means and standard deviations of real cells, which standardise every set."""

    names: tuple[str, ...]  # the D measures that are used
    mean: np.ndarray  # (D,)
    deviation: np.ndarray  # (D,) n - 1, above 0

    @classmethod
    def of(cls, real: pd.DataFrame) -> "Scale":
        """The scale of real cells, a row per cell, without measures that are constant or often missing.

        Raises:
            InputError: If no measure is left.
        """
        values = real.astype(float).replace([np.inf, -np.inf], np.nan)
        known = values.columns[values.isna().mean() <= MOST_MISSING]
        deviation = values[known].std()
        names = deviation.index[deviation > 1e-9 * (1 + values[known].mean().abs())]
        if not len(names):
            raise InputError(f"{len(real)} real cells: every measure is constant; expected cells of a screen")
        return cls(tuple(names), values[names].mean().to_numpy(), deviation[names].to_numpy())


def standardised(cells: pd.DataFrame, scale: Scale) -> np.ndarray:
    """Cells (n, D) in standard deviations of the real ones, clipped to ±FURTHEST; NaN where not measured."""
    values = cells[list(scale.names)].to_numpy(float)
    values = np.where(np.isfinite(values), values, np.nan)
    return np.clip((values - scale.mean) / scale.deviation, -FURTHEST, FURTHEST)


@dataclass(frozen=True)
class TwoSampleTest:
    """How well a classifier separates real from decoded cells; NaN where it could not be tested."""

    accuracy: float  # balanced, 0 to 1; 0.5 is chance
    accuracy_interval: tuple[float, float]  # 95 %
    auc: float  # probability that a decoded cell scores above a real one, 0 to 1; 0.5 is chance
    auc_interval: tuple[float, float]
    n_folds: int  # classifiers trained


NOT_TESTED = TwoSampleTest(np.nan, (np.nan, np.nan), np.nan, (np.nan, np.nan), 0)


def two_sample_test(
    real: np.ndarray,
    decoded: np.ndarray,
    *,
    real_plates: np.ndarray,
    decoded_plates: np.ndarray,
    real_wells: np.ndarray,
    decoded_wells: np.ndarray,
    seed: int,
) -> TwoSampleTest:
    """Train a classifier on cells of some plates, and test it on the cells of the other plates.

    Plates are split into at most MOST_FOLDS folds, so each cell is tested once, by a classifier that saw no cell of
    its plate (Lopez-Paz & Oquab 2017). Gradient-boosted trees treat NaN as a value of its own, because missing nuclei
    are a difference too. The intervals resample wells with replacement; the classifiers are not retrained, so they
    leave out the variation from the choice of training plates.

    Args:
        real: Measures of real cells (n, D), with the plate and well of each. No cell may be in both sets.
        decoded: Measures of decoded cells (m, D), with the plate and well of each.
        seed: Of the folds, the classifier and the resampling.

    Returns:
        The test; all NaN with fewer than two plates or too few cells to train on.
    """
    cells = np.concatenate([real, decoded])
    is_decoded = np.repeat([False, True], [len(real), len(decoded)])
    fold_of = _plate_folds(np.concatenate([real_plates, decoded_plates]).astype(str), seed)
    wells = np.concatenate([real_wells, decoded_wells]).astype(str)
    n_folds = int(fold_of.max(initial=0)) + 1
    if n_folds < 2:
        return NOT_TESTED
    scores = np.full(len(cells), np.nan)
    for fold in range(n_folds):
        tested = fold_of == fold
        if min(np.sum(is_decoded & ~tested), np.sum(~is_decoded & ~tested)) < LEAST_CELLS:
            return NOT_TESTED
        classifier = _classifier(seed).fit(cells[~tested], is_decoded[~tested])
        scores[tested] = classifier.predict_proba(cells[tested])[:, 1]
    accuracy, auc = _accuracy_and_auc(scores, is_decoded)
    resampled = [_accuracy_and_auc(scores[rows], is_decoded[rows]) for rows in _resampled_wells(wells, seed)]
    low, high = np.nanquantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0).tolist()
    return TwoSampleTest(accuracy, (low[0], high[0]), auc, (low[1], high[1]), n_folds)


def area_under_curve(scores: np.ndarray, is_decoded: np.ndarray) -> float:
    """Probability that a decoded cell's score is above a real one's, ties counting half; NaN without both classes.

    From ranks (Mann-Whitney U): scikit-learn's `roc_auc_score` gives the same value 20 times as slowly, and each test
    needs a thousand of them.
    """
    n_decoded = int(is_decoded.sum())
    n_real = len(is_decoded) - n_decoded
    if not n_decoded or not n_real:
        return float("nan")
    from scipy.stats import rankdata  # slow to import, and only needed here

    return float((rankdata(scores)[is_decoded].sum() - n_decoded * (n_decoded + 1) / 2) / (n_decoded * n_real))


def _accuracy_and_auc(scores: np.ndarray, is_decoded: np.ndarray) -> tuple[float, float]:
    right = (scores > 0.5) == is_decoded
    by_class = [right[is_decoded == kind].mean() for kind in (False, True) if (is_decoded == kind).any()]
    return float(np.mean(by_class)), area_under_curve(scores, is_decoded)


def _classifier(seed: int) -> "HistGradientBoostingClassifier":
    from sklearn.ensemble import HistGradientBoostingClassifier  # slow to import, and only needed here

    return HistGradientBoostingClassifier(
        max_iter=100, max_leaf_nodes=15, min_samples_leaf=10, early_stopping=False, random_state=seed
    )


def _plate_folds(plates: np.ndarray, seed: int) -> np.ndarray:
    """The fold of each cell, from 0: plates at random, folds with as equal numbers of plates as possible."""
    names, plate = np.unique(plates, return_inverse=True)
    order = np.random.default_rng([seed, 1]).permutation(len(names))
    return (np.argsort(order) % MOST_FOLDS)[plate]


def _resampled_wells(wells: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """Rows of as many wells as there are, drawn with replacement, RESAMPLES times."""
    _, well = np.unique(wells, return_inverse=True)
    rows_of = np.split(np.argsort(well, kind="stable"), np.cumsum(np.bincount(well))[:-1])
    rng = np.random.default_rng([seed, 2])
    for _ in range(RESAMPLES):
        yield np.concatenate([rows_of[i] for i in rng.integers(len(rows_of), size=len(rows_of))])
