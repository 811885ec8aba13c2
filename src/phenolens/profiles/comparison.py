"""Which queries changed between two scores, and whether that could be luck."""

from dataclasses import dataclass
from math import comb

import numpy as np
import pandas as pd

from phenolens.core.errors import InputError
from phenolens.profiles.nsc import Score
from phenolens.profiles.uncertainty import share_reached

ANSWER = ("neighbour", "predicted", "right")


@dataclass(frozen=True)
class Comparison:
    """Two scores over the queries that both count."""

    n_treatments: int  # counted in both
    only_a_right: int
    only_b_right: int
    p_value: float  # two-sided, signs of whole compounds drawn anew: treatments of a compound are not independent
    p_value_mcnemar: float  # two-sided, exact, as if all treatments were independent
    changed: pd.DataFrame  # a row a query right in one only: mechanism, and neighbour and answer in each


def compare_scores(a: Score, b: Score, *, n_draws: int = 10_000, seed: int = 0) -> Comparison:
    """Compare two scores of the same treatments, query by query.

    InputError where they are of different protocols and where no query is counted in both.
    """
    if a.protocol != b.protocol:
        raise InputError(f"scores: {a.protocol} and {b.protocol} have other candidates; expected two of one protocol")
    return compare_queries(a.queries, b.queries, n_draws=n_draws, seed=seed)


def compare_queries(a: pd.DataFrame, b: pd.DataFrame, *, n_draws: int = 10_000, seed: int = 0) -> Comparison:
    """The same from the scores' tables of queries, as `Score.queries` or a `neighbours_*.csv` holds them."""
    counted_a, counted_b = (queries[queries["counted"].astype(bool)] for queries in (a, b))
    names = counted_a.index[counted_a.index.isin(counted_b.index)]
    if names.empty:
        raise InputError("scores: no treatment is counted in both; expected scores of the same treatments")
    one, other = counted_a.loc[names], counted_b.loc[names]
    gained = other["right"].to_numpy(dtype=int) - one["right"].to_numpy(dtype=int)  # 1: only b, -1: only a
    by_compound = pd.Series(gained).groupby(one["compound"].to_numpy()).sum().to_numpy()
    signs = np.random.default_rng(seed).choice([-1, 1], size=(n_draws, len(by_compound)))
    changed = one.assign(neighbour_a=one["neighbour"], predicted_a=one["predicted"], right_a=one["right"])
    changed = changed.assign(neighbour_b=other["neighbour"], predicted_b=other["predicted"], right_b=other["right"])
    kept = ["compound", "concentration_um", "moa"] + [f"{name}_{of}" for of in "ab" for name in ANSWER]
    only_a, only_b = int((gained < 0).sum()), int((gained > 0).sum())
    return Comparison(
        n_treatments=len(names),
        only_a_right=only_a,
        only_b_right=only_b,
        p_value=share_reached(np.abs(signs @ by_compound), abs(int(by_compound.sum()))),
        p_value_mcnemar=exact_mcnemar(only_a, only_b),
        changed=changed.loc[gained != 0, kept],
    )


def exact_mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided probability of so uneven a split of the changed queries if each were a fair coin; 1 if none changed."""
    n, fewer = only_a + only_b, min(only_a, only_b)
    return min(1.0, 2 * sum(comb(n, k) for k in range(fewer + 1)) / 2**n)
