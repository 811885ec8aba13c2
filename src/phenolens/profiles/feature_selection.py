"""Features that other pipelines leave out, and features or rows that alone make the length of profiles.

N rows, Z features, scaled. The rules and their limits are those of pycytominer's feature_select (1.7).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd

from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.profiles.profiles import metadata
from phenolens.profiles.validate import feature_matrix

if TYPE_CHECKING:
    from anndata import AnnData

Rule = Literal["variance", "frequency", "correlation", "blocklist", "outliers"]
LEAST_VARIANCE = 1e-6
LEAST_FREQUENCY = 0.05  # count of the second most common value over that of the most common
LEAST_DIFFERENT = 0.01  # different values over rows
MOST_CORRELATED = 0.9
LARGEST = 500.0  # standard deviations of the controls
# Of CellProfiler; known to be noisy (Way 2019, doi:10.6084/m9.figshare.10255811).
BLOCKLIST = (
    "Nuclei_Correlation_Manders_*",
    "Nuclei_Correlation_RWC_*",
    "Nuclei_Granularity_14_*",
    "Nuclei_Granularity_15_*",
    "Nuclei_Granularity_16_*",
)
DOMINANT = 0.5  # share of the squared length of profiles
FEW = 5  # with fewer features or rows than this, one of them has a large share anyway
LONE = 0.999  # share of a plate's controls' squared deviations from their median
FEW_CONTROLS = 6  # of a plate; with fewer, one of them has a large share anyway


def excluded_features(profiles: AnnData, rules: Sequence[Rule]) -> dict[str, list[str]]:
    """The features that each rule leaves out, judged on all rows and features of `profiles`.

    Args:
        profiles: scaled profiles.
        rules: `variance` (at most LEAST_VARIANCE), `frequency` (one value is almost everywhere, or few are
            different), `correlation` (of each pair correlated by more than MOST_CORRELATED, the one with the larger sum
            of absolute correlations), `blocklist`, `outliers` (a value beyond LARGEST).

    Returns:
        The names by why they are left out, for the rules that leave out any.

    Raises:
        InputError: no feature is left.
    """
    numbers, names = feature_matrix(profiles), [str(name) for name in profiles.var_names]
    found = {rule: RULES[rule](numbers, names) for rule in rules}
    excluded = {WHY[rule]: [name for name, out in zip(names, found[rule]) if out] for rule in rules}
    if rules and np.logical_or.reduce(list(found.values())).all():
        raise InputError(f"profiles: --select-features {' '.join(rules)} leaves out all {len(names)} features")
    return {why: left_out for why, left_out in excluded.items() if left_out}


def _is_rare(numbers: np.ndarray, names: list[str]) -> np.ndarray:
    rare = np.zeros(len(names), dtype=bool)
    for place, column in enumerate(numbers.T):
        counts = np.sort(np.unique(column, return_counts=True)[1])[::-1]
        second = counts[1] / counts[0] if len(counts) > 1 else 0.0
        rare[place] = second < LEAST_FREQUENCY or len(counts) / len(column) < LEAST_DIFFERENT
    return rare


def _is_correlated(numbers: np.ndarray, names: list[str]) -> np.ndarray:
    correlation = pd.DataFrame(numbers).corr().to_numpy()  # NaN where a feature is constant
    np.fill_diagonal(correlation, np.nan)
    sums = np.nansum(np.abs(correlation), axis=0)
    rank = np.empty(len(names), dtype=int)
    rank[np.argsort(sums, kind="stable")] = np.arange(len(names))
    return np.asarray(((correlation > MOST_CORRELATED) & (rank[:, None] > rank)).any(axis=1))


def _is_listed(numbers: np.ndarray, names: list[str]) -> np.ndarray:
    return np.array([any(fnmatchcase(name, pattern) for pattern in BLOCKLIST) for name in names])


RULES: dict[Rule, Callable[[np.ndarray, list[str]], np.ndarray]] = {
    "variance": lambda numbers, names: numbers.var(axis=0) <= LEAST_VARIANCE,
    "frequency": _is_rare,
    "correlation": _is_correlated,
    "blocklist": _is_listed,
    "outliers": lambda numbers, names: np.abs(numbers).max(axis=0) > LARGEST,
}
WHY: dict[Rule, str] = {
    "variance": "features with little variance",
    "frequency": "features with few different values",
    "correlation": "features correlated with another",
    "blocklist": "features on the blocklist",
    "outliers": "features with outliers",
}
assert RULES.keys() == WHY.keys() == set(get_args(Rule))


def dominant(profiles: AnnData, *, remedy: str) -> list[str]:
    """A sentence on the feature, and one on the row, that alone makes most of the squared length of scaled profiles.

    A feature counts where it has most of the length of all rows together, or on average of each row's.

    Args:
        profiles: scaled profiles.
        remedy: what to do, as the end of each sentence.
    """
    squares = np.square(feature_matrix(profiles))
    of_rows = squares.sum(axis=1)
    total = of_rows.sum()
    if not total:
        return []
    each = np.divide(squares, of_rows[:, None], out=np.zeros_like(squares), where=of_rows[:, None] > 0).mean(axis=0)
    kinds = (
        ("feature", profiles.var_names, np.maximum(squares.sum(axis=0) / total, each)),
        ("row", profiles.obs_names, of_rows / total),
    )
    return [
        f'{what} "{names[int(share.argmax())]}" alone makes {100 * share.max():.0f} % of the squared length of the '
        f"scaled profiles, so it decides distances; {remedy}"
        for what, names, share in kinds
        if len(share) >= FEW and share.max() > DOMINANT
    ]


def scaled_by_one_control(profiles: AnnData, *, remedy: str) -> list[str]:
    """A sentence on features whose spread among the controls of a plate is that of one well, so that they lose weight.

    Args:
        profiles: profiles of wells, with plate and role.
        remedy: what to do, as the end of the sentence.
    """
    numbers, obs = feature_matrix(profiles), metadata(profiles, ("plate", "role"))
    found: list[tuple[str, str]] = []
    controls = np.flatnonzero(obs["role"] == "control")
    for _, rows in pd.Series(controls).groupby(obs["plate"].to_numpy()[controls]):
        if len(rows) < FEW_CONTROLS:
            continue
        deviations = np.abs(numbers[rows] - np.median(numbers[rows], axis=0))
        squares = np.square(deviations)
        alone = (squares.max(axis=0) > LONE * squares.sum(axis=0)) & (np.median(deviations, axis=0) > 0)
        largest = rows.to_numpy()[squares.argmax(axis=0)]
        found += [(profiles.var_names[place], profiles.obs_names[largest[place]]) for place in np.flatnonzero(alone)]
    if not found:
        return []
    feature, row = found[0]
    return [
        f'control "{row}" alone makes the spread of feature "{feature}" among the controls of its plate '
        f"({counted(len(found), 'such feature')}), so the feature hardly counts there; {remedy}"
    ]
