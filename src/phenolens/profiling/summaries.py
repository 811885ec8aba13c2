"""What is said of the cells of one well: mean, spread, quantiles, feature by feature.

n cells, Z features; every summary takes (n, Z) and gives (Z,).
"""

import re
from collections.abc import Callable

import numpy as np

from phenolens.errors import InputError

Summary = Callable[[np.ndarray], np.ndarray]

TRIMMED_SHARE = 0.1  # of the cells, left out at each end of each feature


def mean(cells: np.ndarray) -> np.ndarray:
    """Mean over cells."""
    return cells.mean(axis=0)


def median(cells: np.ndarray) -> np.ndarray:
    """Median over cells."""
    return np.median(cells, axis=0)


def standard_deviation(cells: np.ndarray) -> np.ndarray:
    """Standard deviation over cells, divided by n, so that a well of one cell has 0."""
    return cells.std(axis=0)


def median_absolute_deviation(cells: np.ndarray) -> np.ndarray:
    """Median of the distances from the median, not rescaled to a normal deviation."""
    return np.median(np.abs(cells - np.median(cells, axis=0)), axis=0)


def trimmed_mean(cells: np.ndarray) -> np.ndarray:
    """Mean without the lowest and the highest tenth of the cells (rounded down) of each feature."""
    n_trimmed = int(TRIMMED_SHARE * len(cells))
    return np.sort(cells, axis=0)[n_trimmed : len(cells) - n_trimmed].mean(axis=0)


def quantile(percent: int) -> Summary:
    """The summary that gives this percentile over cells, linear between neighbours."""
    return lambda cells: np.quantile(cells, percent / 100, axis=0)


SUMMARIES: dict[str, Summary] = {
    "mean": mean,
    "median": median,
    "sd": standard_deviation,
    "mad": median_absolute_deviation,
    "trimmed": trimmed_mean,
}


def named_summaries(statistics: str) -> dict[str, Summary]:
    """`mean+sd` as the two summaries by name, in that order; `q25` is the 25th percentile."""
    chosen: dict[str, Summary] = {}
    for name in statistics.split("+"):
        percentile = re.fullmatch(r"q(\d{1,2}|100)", name)
        if name in chosen or (name not in SUMMARIES and percentile is None):
            raise InputError(
                f'statistics "{statistics}": "{name}" is unknown or named twice; expected {", ".join(SUMMARIES)} or '
                "q0 to q100, joined by +, such as mean+sd or median+mad"
            )
        chosen[name] = SUMMARIES[name] if percentile is None else quantile(int(percentile[1]))
    return chosen
