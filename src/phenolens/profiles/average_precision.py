"""Mean average precision: do profiles that belong together rank each other before all others?

N profiles, Z features; every profile is a query once. Kalinin et al. 2025; equal to copairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from phenolens.core.bounds import Count, Seed
from phenolens.core.errors import InputError
from phenolens.profiles.candidates import mechanism_names, sharing
from phenolens.profiles.distances import Similarity, directions, distance_blocks
from phenolens.profiles.profiles import METADATA, metadata
from phenolens.profiles.uncertainty import share_reached

if TYPE_CHECKING:
    from anndata import AnnData

DRAWS_AT_A_TIME = 2_000_000
COUNTED_POSITIVES = 16  # up to so many, negatives before each positive are counted
Of = Literal["treatments", "mechanisms"]
# Positives and negatives of each kind of group, and the column of the group.
PAIRS: dict[Of, dict[str, Any]] = {
    "treatments": {"positive_same": ["treatment"], "negative_different": ["role"]},
    "mechanisms": {
        "positive_same": ["moa"],
        "positive_different": ["compound"],
        "negative_different": ["moa", "compound"],
    },
}
GROUP: dict[Of, str] = {"treatments": "treatment", "mechanisms": "moa"}


def mean_average_precision(
    profiles: AnnData,
    *,
    of: Of = "mechanisms",
    similarity: Similarity = "cosine",
    several_mechanisms: str = "",
    n_draws: Count = 10_000,
    seed: Seed = 0,
) -> pd.DataFrame:
    """Mean average precision of each treatment or mechanism.

    Args:
        profiles: whitened profiles with the columns Metadata_Role, Metadata_Treatment and so on.
        of: `treatments`: rows are wells; do the wells of a treatment rank each other before the control wells?
            `mechanisms`: rows are treatments; do those of a mechanism rank those of its other compounds before
            treatments of other mechanisms and compounds?
        similarity: of two profiles.
        several_mechanisms: separator of several mechanisms in one name, such as `|`. A treatment then counts in each of
            its mechanisms, and only treatments without a common one are ranked against it (as copairs' multilabel).
        n_draws: random rankings for the p-values.
        seed: of the rankings.

    Returns:
        A row per treatment or mechanism: `mean_average_precision` (0 to 1), `n_profiles`, `p_value` and
        `corrected_p_value` (Benjamini and Hochberg over all rows), as `mean_by_group` computes them.

    Raises:
        InputError: NaN, a missing column, or no group with two members and others to rank them against.
    """
    rows = rankable(profiles, of, separator=several_mechanisms)
    if rows is None:
        needed = {
            "treatments": "control wells, and a treatment with two wells",
            "mechanisms": "two mechanisms, and one of them with two compounds",
        }
        raise InputError(f"profiles: nothing to rank for the mAP of {of}; expected {needed[of]}")
    if of == "mechanisms" and several_mechanisms:
        precisions = _by_each_mechanism(rows, similarity=similarity, separator=several_mechanisms)
        return mean_by_group(precisions, by=[GROUP[of]], n_draws=n_draws, seed=seed)
    precisions = average_precision(rows, similarity=similarity, **PAIRS[of])
    treated = precisions[(metadata(rows, ("role",))["role"] == "treated").to_numpy()]
    return mean_by_group(treated, by=[GROUP[of]], n_draws=n_draws, seed=seed)


def rankable(profiles: AnnData, of: Of, *, separator: str = "") -> AnnData | None:
    """The rows that `mean_average_precision` compares; None where no row has a positive or none has a negative."""
    obs = metadata(profiles, ("role", "treatment") if of == "treatments" else ("role", "moa", "compound"))
    treated = obs["role"] == "treated"
    if of == "treatments":
        compared = treated | (obs["role"] == "control")
        possible = (obs["role"] == "control").any() and not obs["treatment"][treated].is_unique
    else:
        compared = treated & (obs["moa"] != "")
        named = obs[compared].assign(moa=obs["moa"].map(lambda text: sorted(mechanism_names(text, separator))))
        compounds = named.explode("moa").groupby("moa")["compound"].nunique()
        possible = len(compounds) > 1 and (compounds > 1).any()
    return profiles[compared.to_numpy()] if possible else None


def average_precision(
    profiles: AnnData,
    *,
    positive_same: Sequence[str],
    positive_different: Sequence[str] = (),
    negative_same: Sequence[str] = (),
    negative_different: Sequence[str],
    similarity: Similarity = "cosine",
) -> pd.DataFrame:
    """Average precision of ranking each profile's positives before its negatives.

    Two profiles are positives (negatives) of each other if they agree in all columns of `..._same` and differ in all of
    `..._different`. Distances are compared in single precision, which makes profiles that differ by rounding alone a
    tie, and in a tie positives come first (as in copairs).

    Args:
        profiles: rows x features.
        positive_same: columns that positives share, by their name in obs or in METADATA.
        positive_different: columns in which positives differ.
        negative_same: columns that negatives share with the query.
        negative_different: columns in which negatives differ from the query.
        similarity: of two profiles.

    Returns:
        `obs` with `average_precision`, `n_positive` and `n_total`. NaN for a profile without positives, or with an
        empty value in a named column, which is a positive or negative of none.

    Raises:
        InputError: a missing column, NaN, or no profile with a positive or a negative.
    """
    rows = directions(profiles, similarity)
    given = (positive_same, positive_different, negative_same, negative_different)
    columns = {name: _codes(profiles, name) for name in dict.fromkeys(name for names in given for name in names)}
    if not columns:
        raise InputError("profiles: no column says which are positives and negatives; name one, such as moa")
    complete = np.ones(len(rows), dtype=bool)
    for code in columns.values():
        complete &= code >= 0

    def pairs(queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        comparable = complete[queries, None] & complete
        comparable[np.arange(len(queries)), queries] = False
        positive = comparable & _paired(queries, columns, same=positive_same, different=positive_different)
        return positive, comparable & _paired(queries, columns, same=negative_same, different=negative_different)

    scores, n_positive, n_negative = _ranked(rows, np.arange(len(rows)), pairs, similarity)
    for kind, counts, same, different in (
        ("positive", n_positive, positive_same, positive_different),
        ("negative", n_negative, negative_same, negative_different),
    ):
        if not counts.any():
            raise InputError(
                f"profiles: no profile has a {kind}, that is, one with the same {', '.join(same) or 'anything'} and "
                f"another {', '.join(different) or 'row'}; choose other columns"
            )
    return profiles.obs.assign(average_precision=scores, n_positive=n_positive, n_total=n_positive + n_negative)


def _by_each_mechanism(profiles: AnnData, *, similarity: Similarity, separator: str) -> pd.DataFrame:
    """Average precision of each treatment in each of its mechanisms, a row for each pair, with the mechanism's name."""
    obs = metadata(profiles, ("moa", "compound"))
    names = [mechanism_names(text, separator) for text in obs["moa"]]
    query = np.array([row for row, own in enumerate(names) for _ in own])
    mechanism = [name for own in names for name in sorted(own)]
    has = {name: np.array([name in own for own in names]) for name in set(mechanism)}
    common = sharing(obs["moa"].tolist(), separator)
    compound = pd.factorize(obs["compound"])[0]

    def pairs(queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        others = compound[query[queries], None] != compound
        of_name = np.stack([has[mechanism[place]] for place in queries])
        return others & of_name, others & ~common[query[queries]]

    rows = directions(profiles, similarity)
    scores, n_positive, n_negative = _ranked(rows, query, pairs, similarity)
    counts = {"average_precision": scores, "n_positive": n_positive, "n_total": n_positive + n_negative}
    return profiles.obs.iloc[query].assign(**{METADATA["moa"]: mechanism}, **counts)


def _ranked(
    rows: np.ndarray,
    query: np.ndarray,
    pairs: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    similarity: Similarity,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Average precision of each query (Q,) and how many positives and negatives it has.

    `query` (Q,) is each query's row; `pairs` gives the positives and negatives (queries, N) of some queries.
    """
    scores, n_positive, n_negative = np.full(len(query), np.nan), np.zeros(len(query), int), np.zeros(len(query), int)
    for block, distance in distance_blocks(rows, similarity, query):
        positive, negative = pairs(np.arange(block.start, block.stop))
        n_positive[block], n_negative[block] = positive.sum(axis=1), negative.sum(axis=1)
        scores[block] = ranking_precision(distance.astype(np.float32), positive, negative)
    return scores, n_positive, n_negative


def mean_by_group(precisions: pd.DataFrame, *, by: Sequence[str], n_draws: int = 10_000, seed: int = 0) -> pd.DataFrame:
    """Mean of the average precision of each group's profiles, with p-values against random rankings.

    The p-value is the share of random rankings (of as many positives among as many profiles) that reach the mean, 1
    added above and below. Profiles of a group with equal counts share their draws (as in copairs), since their scores
    are not independent: the cautious side. Profiles without positives are left out.

    Args:
        precisions: the table of `average_precision`.
        by: columns that make a group.
        n_draws: random rankings.
        seed: of the rankings.

    Returns:
        A row per group: `mean_average_precision`, `n_profiles`, `p_value`, `corrected_p_value` (Benjamini and
        Hochberg).

    Raises:
        InputError: a missing column.
    """
    from scipy.stats import false_discovery_control  # slow to import, and only needed here

    names = [METADATA.get(name, name) for name in by]
    missing = [name for name in names if name not in precisions.columns]
    if missing:
        raise InputError(
            f"average precisions: no column {missing[0]} (found: {', '.join(map(str, precisions.columns))})"
        )
    scored = precisions[precisions["average_precision"].notna()].reset_index(drop=True)
    sizes = scored[["n_positive", "n_total"]].to_numpy(dtype=int)
    kinds, kind = np.unique(sizes, axis=0, return_inverse=True)
    drawn = [random_average_precision(int(n), int(total), n_draws=n_draws, seed=seed) for n, total in kinds]
    precision, keys = scored["average_precision"].to_numpy(), scored[names].astype(object).to_numpy()
    code = scored.groupby(names, observed=True, sort=True).ngroup().to_numpy()  # -1: a row without a group
    order = np.argsort(code, kind="stable")[(code < 0).sum() :]
    groups = []
    for rows in np.split(order, np.flatnonzero(np.diff(code[order])) + 1) if len(order) else []:
        observed = precision[rows].mean()
        kinds_here, times = np.unique(kind[rows], return_counts=True)
        null = sum(n * drawn[k] for n, k in zip(times, kinds_here)) / len(rows)
        groups.append((*keys[rows[0]], observed, len(rows), share_reached(null, observed)))
    table = pd.DataFrame(groups, columns=[*names, "mean_average_precision", "n_profiles", "p_value"])
    return table.assign(corrected_p_value=false_discovery_control(table["p_value"]) if len(table) else [])


def random_average_precision(n_positive: int, n_total: int, *, n_draws: int, seed: int) -> np.ndarray:
    """Average precision of `n_positive` among `n_total` ranked at random: (draws,). Same seed, same draws."""
    rng = np.random.default_rng([seed, n_positive, n_total])
    nth = np.arange(1, n_positive + 1)
    scores = np.empty(n_draws)
    step = max(1, DRAWS_AT_A_TIME // (n_total if 4 * n_positive > n_total else n_positive))
    for start in range(0, n_draws, step):
        n = min(step, n_draws - start)
        ranks = _random_ranks(rng, n, n_positive, n_total)
        scores[start : start + n] = (nth / ranks).mean(axis=1)
    return scores


def _random_ranks(rng: np.random.Generator, n: int, n_positive: int, n_total: int) -> np.ndarray:
    """`n` times `n_positive` different ranks of 1..n_total, rising: (n, n_positive).

    Of few, ranks that occur twice in a row are drawn again until none does; of many, all are put in random order.
    """
    if 4 * n_positive > n_total:
        return np.sort(rng.random((n, n_total)).argsort(axis=1)[:, :n_positive], axis=1) + 1
    ranks = np.sort(rng.integers(1, n_total + 1, size=(n, n_positive)), axis=1)
    rows = np.arange(n)
    while len(rows):
        again = np.diff(ranks[rows], axis=1, prepend=0) == 0
        rows, again = rows[again.any(axis=1)], again[again.any(axis=1)]
        drawn = ranks[rows]
        drawn[again] = rng.integers(1, n_total + 1, size=int(again.sum()))
        ranks[rows] = np.sort(drawn, axis=1)
    return ranks


def _codes(profiles: AnnData, name: str) -> np.ndarray:
    """The values of a metadata column as whole numbers (N,); -1 where empty."""
    column = METADATA.get(name, name)
    if column not in profiles.obs.columns:
        raise InputError(f"profiles: no metadata column {column} (found: {', '.join(map(str, profiles.obs.columns))})")
    values = profiles.obs[column].astype(object)
    return pd.factorize(values.where(values != "", None))[0]


def _paired(
    queries: np.ndarray, columns: dict[str, np.ndarray], *, same: Sequence[str], different: Sequence[str]
) -> np.ndarray:
    """Which rows agree with each query in all of `same` and differ in all of `different`: (queries, N) bool."""
    paired = np.ones((len(queries), len(next(iter(columns.values())))), dtype=bool)
    for name in same:
        paired &= columns[name][queries, None] == columns[name]
    for name in different:
        paired &= columns[name][queries, None] != columns[name]
    return paired


def ranking_precision(distance: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Average precision of each query from distances and kinds (queries, N); NaN without positives."""
    scores = np.full(len(distance), np.nan)
    for query in np.flatnonzero(positive.any(axis=1)):
        found = np.sort(distance[query, positive[query]])
        others = distance[query, negative[query]]
        if len(found) > COUNTED_POSITIVES:
            before = np.searchsorted(np.sort(others), found, side="left")
        else:  # counting a few times is faster than sorting
            before = np.array([np.count_nonzero(others < each) for each in found])
        nth = np.arange(1, len(found) + 1)
        scores[query] = (nth / (nth + before)).mean()
    return scores
