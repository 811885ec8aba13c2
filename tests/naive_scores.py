"""Scores as one would define them on paper: slow, obvious, one query and one candidate at a time."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pandas as pd


def cosine_distance(a: np.ndarray, b: np.ndarray) -> float:
    return 1 - float(np.dot(a, b)) / (math.sqrt(np.dot(a, a)) * math.sqrt(np.dot(b, b)))


def euclidean_distance(a: np.ndarray, b: np.ndarray) -> float:
    return math.sqrt(float(np.dot(a - b, a - b)))


def may_be_compared(query: pd.Series, candidate: pd.Series, held_out: tuple[str, ...]) -> bool:
    columns = {"compound": "Metadata_Compound", "batch": "Metadata_Batch", "plate": "Metadata_Plate"}
    return all(
        not set(query[columns[name]].split("|")) & set(candidate[columns[name]].split("|")) for name in held_out
    ) and (query.name != candidate.name)


def neighbour_score(
    features: np.ndarray,
    obs: pd.DataFrame,
    *,
    held_out: tuple[str, ...],
    dropped_mechanisms: str,
    distance,
    separator: str | None = None,
) -> dict[str, tuple[bool, bool, str]]:
    """name -> (counted, right, neighbour's name) of each labelled treatment."""
    order = [
        row
        for row in sorted(
            range(len(obs)),
            key=lambda row: (
                obs["Metadata_Compound"].iloc[row],
                obs["Metadata_Concentration_um"].iloc[row],
                obs.index[row],
            ),
        )
        if obs["Metadata_MoA"].iloc[row] != "" and obs["Metadata_Role"].iloc[row] == "treated"
    ]
    moa = obs["Metadata_MoA"].map(lambda text: set(text.split(separator)) if separator else {text})
    candidates = {
        query: [other for other in order if may_be_compared(obs.iloc[query], obs.iloc[other], held_out)]
        for query in order
    }
    counted = {query: any(moa.iloc[other] & moa.iloc[query] for other in candidates[query]) for query in order}
    asked_for = [moa.iloc[query] for query in order if counted[query]]
    answers = {}
    for query in order:
        nearest, smallest = "", math.inf
        for other in candidates[query]:
            if dropped_mechanisms == "leave" and not any(moa.iloc[other] & asked for asked in asked_for):
                continue
            here = distance(features[query], features[other])
            if here < smallest - 1e-11:
                nearest, smallest = obs.index[other], here
        right = counted[query] and bool(moa[nearest] & moa.iloc[query])
        answers[obs.index[query]] = (counted[query], right, nearest)
    return answers


def exact_nearness(query: list[int], other: list[int]) -> Fraction:
    """Orders whole-number directions by their cosine with one query, exactly: sign(cos) cos^2 |query|^2."""
    dot = sum(a * b for a, b in zip(query, other))
    return Fraction(dot * abs(dot), sum(b * b for b in other))


def average_precision(similar: list, is_positive: list[bool]) -> float:
    """Mean, over the positives, of the share of positives among all ranked no lower; positives first in a tie."""
    ranked = sorted(zip(similar, is_positive), key=lambda pair: (-pair[0], not pair[1]))
    precisions = []
    for rank, (_, positive) in enumerate(ranked, start=1):
        if positive:
            precisions.append(sum(kind for _, kind in ranked[:rank]) / rank)
    return sum(precisions) / len(precisions)


def exact_p_value(observed: float, n_positive: int, n_total: int) -> float:
    """Share of all ways to rank the positives that reach the observed average precision."""
    reached = total = 0
    for places in itertools.combinations(range(n_total), n_positive):
        labels = [place in places for place in range(n_total)]
        total += 1
        reached += average_precision([-place for place in range(n_total)], labels) >= observed - 1e-12
    return reached / total


def whiten(features: np.ndarray, is_control: np.ndarray, *, ridge: float) -> np.ndarray:
    """Whitening line by line, rotated back (so that the answer has no free sign): z-score, covariance / n, ZCA."""
    controls = features[is_control]
    n = len(controls)
    mean = [sum(column) / n for column in controls.T]
    deviation = [
        math.sqrt(sum((value - mean[axis]) ** 2 for value in controls[:, axis]) / (n - 1))
        for axis in range(controls.shape[1])
    ]
    scored = (features - mean) / deviation
    covariance = sum(np.outer(row, row) for row in scored[is_control]) / n
    values, vectors = np.linalg.eigh(covariance)
    return scored @ sum(np.outer(vector, vector) / math.sqrt(value + ridge) for value, vector in zip(values, vectors.T))
