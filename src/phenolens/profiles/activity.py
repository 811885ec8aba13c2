"""Activity: do the wells of a treatment differ from the control wells?

N wells, Z features, K wells of one comparison (those of a group and its control wells). Labels are permuted within
plates, so the effect of a plate is never counted as that of a treatment. docs/definitions.md, "Activity".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice, product
from math import comb, prod
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from phenolens.core.bounds import Count, Seed
from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.names import nearest
from phenolens.core.progress import track
from phenolens.profiles.average_precision import mean_by_group, ranking_precision
from phenolens.profiles.candidates import mechanism_names
from phenolens.profiles.distances import Similarity, directions, distances
from phenolens.profiles.profiles import METADATA, metadata
from phenolens.profiles.validate import feature_matrix
from phenolens.screens.screen import treatment_name

if TYPE_CHECKING:
    from anndata import AnnData

OF = ("treatment", "compound", "moa")
VALUES_AT_A_TIME = 4_000_000  # of permuted labels
LEVEL = 0.05  # of a corrected p-value
ROUNDING = 1e-9  # statistics nearer to each other than this share of the largest value are a tie


@dataclass(frozen=True)
class Comparison:
    """The wells of one group and the control wells that they are compared with."""

    rows: np.ndarray  # (K,) of the table, the group's wells first
    n_wells: int  # of the group
    stratum: np.ndarray  # (K,) code of the plate; 0 everywhere where a plate has no control well

    @property
    def design(self) -> tuple[tuple[int, int], ...]:
        """The numbers of treated and control wells in each stratum, which decide what permutations there are."""
        treated, controls = self.stratum[: self.n_wells], self.stratum[self.n_wells :]
        return tuple((int((treated == code).sum()), int((controls == code).sum())) for code in np.unique(self.stratum))

    @property
    def n_permutations(self) -> int:
        """How many different permutations there are."""
        return prod(comb(treated + controls, treated) for treated, controls in self.design)

    @property
    def described(self) -> dict[str, object]:
        """The numbers of wells, and the smallest p-value that they allow."""
        n_controls = len(self.rows) - self.n_wells
        return {"n_wells": self.n_wells, "n_control_wells": n_controls, "smallest_p_value": 1 / self.n_permutations}

    def weights(self, is_treated: np.ndarray) -> np.ndarray:
        """Weights (draws, K) that sum rows to the mean difference between treated and control wells of a stratum."""
        of_stratum = {code: design for code, design in zip(np.unique(self.stratum), self.design)}
        control = np.array([-of_stratum[code][0] / (self.n_wells * of_stratum[code][1]) for code in self.stratum])
        return np.where(is_treated, 1 / self.n_wells, control)


def activity(
    wells: AnnData,
    *,
    names: Sequence[str] = (),
    similarity: Similarity = "cosine",
    several_mechanisms: str = "",
    n_draws: Count = 10_000,
    seed: Seed = 0,
) -> pd.DataFrame:
    """Compare the wells of each treatment, or of the named groups, with the control wells.

    Args:
        wells: a row per well, scaled or whitened, with Metadata_Role, Metadata_Plate and so on.
        names: compounds, mechanisms or treatments (`taxol@0.3`) to compare instead of each treatment.
        similarity: for nearest neighbours and rankings.
        several_mechanisms: separator of several mechanisms in one name, such as `|`.
        n_draws: permutations of labels within plates, drawn where there are more, each of them once otherwise; and
            random rankings for mAP.
        seed: of the draws.

    Returns:
        A row per group: `of` (treatment, compound or moa), `name`, compound, concentration_um and moa of a treatment,
        `n_wells`, `n_control_wells`, then

        - `distance`: from the mean of the controls, 1 where it is as far as by chance, with `p_value` (permutation),
          `corrected_p_value` (Benjamini and Hochberg) and `smallest_p_value`, which the number of wells allows;
        - `accuracy` of 1-nearest-neighbour (mean of the shares of treated and of control wells whose nearest well has
          their role), `left_out` (`plate`: neighbours are of other plates; `well`: where there is one plate), and its
          `accuracy_p_value`;
        - `mean_average_precision` of ranking the group's wells before control wells, and its `map_p_value` and
          `map_corrected_p_value`; NaN of one well;
        - `cells`: per well, relative to the control wells, and its `cells_p_value` (two-sided).

    Raises:
        InputError: NaN, no control well, no treated well, or no group of such a name.
    """
    obs = metadata(wells, ("role", "plate", "treatment", "compound", "moa")).reset_index(drop=True)
    controls = np.flatnonzero(obs["role"] == "control")
    treated = np.flatnonzero(obs["role"] == "treated")
    if not len(controls) or not len(treated):
        found = "control" if not len(controls) else "treated"
        raise InputError(f"profiles: no {found} well (Metadata_Role), so no treatment can be compared with controls")
    groups = _groups(obs.iloc[treated], names, separator=several_mechanisms)
    compared = [_comparison(obs["plate"], rows, controls) for rows in groups.values()]
    numbers, turned = feature_matrix(wells), directions(wells, similarity)
    counts = metadata(wells, ("cell_count",))["cell_count"].to_numpy() if METADATA["cell_count"] in wells.obs else None
    measured = _tested(compared, numbers, turned, counts, similarity=similarity, n_draws=n_draws, seed=seed)
    table = pd.DataFrame([{"of": of, "name": name} for of, name in groups])
    if (table["of"] == "treatment").all():
        described = metadata(wells, ("treatment", "compound", "concentration_um", "moa")).iloc[treated]
        described = described.drop_duplicates("treatment").set_index("treatment")
        table = table.join(described, on="name")
    table = pd.concat([table, pd.DataFrame(measured)], axis=1)
    table = table.join(_precisions(groups, controls, turned, similarity=similarity, n_draws=n_draws, seed=seed))
    table["corrected_p_value"] = _corrected(table["p_value"])
    table["map_corrected_p_value"] = _corrected(table["map_p_value"])
    return table.sort_values(["of", "p_value", "distance"], ascending=[False, True, False], ignore_index=True)


def _groups(treated: pd.DataFrame, names: Sequence[str], *, separator: str) -> dict[tuple[str, str], np.ndarray]:
    """The rows of each treatment, or of each name, by what it is of; InputError on an unknown name."""
    if not names:
        return {("treatment", str(name)): rows.to_numpy() for name, rows in treated.groupby("treatment").groups.items()}
    groups = {}
    for name in dict.fromkeys(names):
        for of in OF:
            names_of = {text: mechanism_names(text, separator) if of == "moa" else () for text in set(treated[of])}
            own = treated[of].isin([text for text, several in names_of.items() if name == text or name in several])
            if own.any():
                groups[of, name] = treated.index[own].to_numpy()
                break
        else:
            known = sorted({text for of in OF for text in treated[of]} - {""})
            raise InputError(f'--against-controls "{name}": no treated well of it; {nearest(name, known)}')
    return groups


def _comparison(plate: pd.Series, rows: np.ndarray, controls: np.ndarray) -> Comparison:
    """Wells and controls of the same plates; all controls, as if of one plate, where a plate has none."""
    own, of_controls = plate.iloc[rows].to_numpy(), plate.iloc[controls].to_numpy()
    if not set(own) <= set(of_controls):
        chosen = np.concatenate([rows, controls])
        return Comparison(chosen, len(rows), np.zeros(len(chosen), dtype=int))
    chosen = np.concatenate([rows, controls[np.isin(of_controls, own)]])
    return Comparison(chosen, len(rows), pd.factorize(plate.iloc[chosen], sort=True)[0])


def _tested(
    compared: list[Comparison],
    numbers: np.ndarray,
    turned: np.ndarray,
    counts: np.ndarray | None,
    *,
    similarity: Similarity,
    n_draws: int,
    seed: int,
) -> list[dict[str, object]]:
    """The statistics of each comparison and their p-values; comparisons of one design share their permutations."""
    results: list[dict[str, object]] = [{} for _ in compared]
    designs = pd.Series([repr((one.design, one.stratum.tolist())) for one in compared])
    kinds = list(designs.groupby(designs, sort=False).groups.values())
    for places in track(kinds, "comparing wells with controls", total=len(kinds)):
        members = [_Member(compared[place], numbers, turned, counts, similarity) for place in places]
        for is_treated in _permuted(compared[places[0]], n_draws=n_draws, seed=seed):
            weights = compared[places[0]].weights(is_treated)
            for member in members:
                member.add(is_treated, weights)
        for place, member in zip(places, members):
            results[place] = member.result()
    return results


class _Member:
    """One comparison: its observed statistics, and how many permutations reached them so far."""

    def __init__(
        self,
        comparison: Comparison,
        numbers: np.ndarray,
        turned: np.ndarray,
        counts: np.ndarray | None,
        similarity: Similarity,
    ) -> None:
        self.comparison, rows = comparison, comparison.rows
        self.points = _in_their_span(numbers[rows])
        self.counts = None if counts is None else counts[rows]
        self.left_out, self.neighbour = _neighbours(turned[rows], comparison, similarity)
        self.observed = self._statistics(self.is_treated, comparison.weights(self.is_treated))
        self.reached = {name: 0 for name in self.observed}
        largest = {"distance": np.abs(self.points).max(), "accuracy": 1.0}
        largest |= {} if self.counts is None else {"cells": self.counts.max()}
        self.rounding = {name: ROUNDING * value for name, value in largest.items()}
        self.sum_of_distances, self.n_permuted = 0.0, 0

    @property
    def is_treated(self) -> np.ndarray:
        """The true labels: (1, K)."""
        return np.arange(len(self.comparison.rows))[None] < self.comparison.n_wells

    def add(self, is_treated: np.ndarray, weights: np.ndarray) -> None:
        """Count the permutations that reach the observed statistics."""
        drawn = self._statistics(is_treated, weights)
        for name, values in drawn.items():
            self.reached[name] += int((values >= self.observed[name][0] - self.rounding[name]).sum())
        self.n_permuted += len(is_treated)
        self.sum_of_distances += float(drawn["distance"].sum())

    def result(self) -> dict[str, object]:
        """The row of the table."""
        own = int(self.n_permuted < self.comparison.n_permutations)  # the true labels are one of all permutations
        p_value = {name: (reached + own) / (self.n_permuted + own) for name, reached in self.reached.items()}
        by_chance = self.sum_of_distances / self.n_permuted
        n_wells = self.comparison.n_wells
        row: dict[str, object] = self.comparison.described | {
            "distance": float(self.observed["distance"][0]) / by_chance if by_chance else float("nan"),
            "p_value": p_value["distance"],
            "accuracy": float(self.observed["accuracy"][0]) if n_wells > 1 else float("nan"),
            "accuracy_p_value": p_value["accuracy"] if n_wells > 1 else float("nan"),
            "left_out": self.left_out,
        }
        if self.counts is not None:
            of_controls = self.counts[n_wells:].mean()
            row |= {"cells": self.counts[:n_wells].mean() / of_controls, "cells_p_value": p_value["cells"]}
        return row

    def _statistics(self, is_treated: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Each statistic under some labels (draws, K): (draws,)."""
        right = is_treated == is_treated[:, self.neighbour]
        n_wells, n = self.comparison.n_wells, is_treated.shape[1]
        of_treated = (right & is_treated).sum(axis=1) / n_wells
        statistics = {
            "distance": np.linalg.norm(weights @ self.points, axis=1),
            "accuracy": (of_treated + (right & ~is_treated).sum(axis=1) / (n - n_wells)) / 2,
        }
        return statistics if self.counts is None else statistics | {"cells": np.abs(weights @ self.counts)}


def _permuted(comparison: Comparison, *, n_draws: int, seed: int) -> Iterator[np.ndarray]:
    """Labels permuted within strata, (some, K) bool each; the same for comparisons of one design.

    All permutations, each once, if there are at most `n_draws`, otherwise so many random ones.
    """
    if comparison.n_permutations <= n_draws:
        yield from _all_permuted(comparison)
        return
    rng = np.random.default_rng([seed, *(n for pair in comparison.design for n in pair)])
    n, codes = len(comparison.rows), np.unique(comparison.stratum)
    step = max(1, VALUES_AT_A_TIME // n)
    for start in range(0, n_draws, step):
        is_treated = np.zeros((min(step, n_draws - start), n), dtype=bool)
        for code, (n_treated, _) in zip(codes, comparison.design):
            own = np.flatnonzero(comparison.stratum == code)
            chosen = rng.random((len(is_treated), len(own))).argsort(axis=1)[:, :n_treated]
            np.put_along_axis(is_treated, own[chosen], True, axis=1)
        yield is_treated


def _all_permuted(comparison: Comparison) -> Iterator[np.ndarray]:
    n, codes = len(comparison.rows), np.unique(comparison.stratum)
    chosen = product(
        *(
            combinations(np.flatnonzero(comparison.stratum == code), n_treated)
            for code, (n_treated, _) in zip(codes, comparison.design)
        )
    )
    while some := list(islice(chosen, max(1, VALUES_AT_A_TIME // n))):
        is_treated = np.zeros((len(some), n), dtype=bool)
        np.put_along_axis(is_treated, np.array([sum(places, ()) for places in some]), True, axis=1)
        yield is_treated


def _in_their_span(points: np.ndarray) -> np.ndarray:
    """The points (K, Z) in at most K coordinates, with the same distances."""
    return points if points.shape[1] <= len(points) else np.asarray(np.linalg.qr(points.T, mode="r")).T


def _neighbours(
    turned: np.ndarray, comparison: Comparison, similarity: Similarity
) -> tuple[Literal["plate", "well"], np.ndarray]:
    """What is left out, and the place of each well's nearest other well: (K,)."""
    distance = distances(turned, turned, similarity)
    several = len(np.unique(comparison.stratum)) > 1
    same = comparison.stratum[:, None] == comparison.stratum if several else np.eye(len(distance), dtype=bool)
    return ("plate" if several else "well"), np.where(same, np.inf, distance).argmin(axis=1)


def _precisions(
    groups: dict[tuple[str, str], np.ndarray],
    controls: np.ndarray,
    turned: np.ndarray,
    *,
    similarity: Similarity,
    n_draws: int,
    seed: int,
) -> pd.DataFrame:
    """mAP of ranking each group's wells before all control wells, with its p-value, in the groups' order."""
    tables = []
    for place, rows in enumerate(groups.values()):
        compared = np.concatenate([rows, controls])
        distance = distances(turned[rows], turned[compared], similarity).astype(np.float32)
        own = np.arange(len(compared)) < len(rows)
        positive = own & ~np.eye(len(rows), len(compared), dtype=bool)
        scores = ranking_precision(distance, positive, np.broadcast_to(~own, positive.shape))
        counts = {"n_positive": len(rows) - 1, "n_total": len(compared) - 1}
        tables.append(pd.DataFrame({"place": place, "average_precision": scores, **counts}))
    found = mean_by_group(pd.concat(tables), by=["place"], n_draws=n_draws, seed=seed).set_index("place")
    columns = {"mean_average_precision": "mean_average_precision", "p_value": "map_p_value"}
    return found[[*columns]].rename(columns=columns).reindex(range(len(groups)))


def _corrected(p_values: pd.Series) -> pd.Series:
    """Benjamini and Hochberg over the rows that have a p-value."""
    from scipy.stats import false_discovery_control  # slow to import, and only needed here

    known = p_values.astype(float).dropna()
    return pd.Series(false_discovery_control(known) if len(known) else [], known.index, float).reindex(p_values.index)


def is_active(table: pd.DataFrame) -> pd.Series:
    """Which rows of `activity` differ from the controls: a corrected p-value of the distance below LEVEL."""
    return table["corrected_p_value"] < LEVEL


def is_testable(designs: pd.DataFrame) -> pd.Series:
    """Which rows have enough wells for a p-value below LEVEL."""
    return designs["smallest_p_value"] < LEVEL


def n_active(table: pd.DataFrame) -> str:
    """`7 of 12 treatments differ from the controls`, of those with enough wells to be tested."""
    words = [of for of in ("treatment", "compound", "moa") if of in set(table["of"])]
    words = ["mechanism" if of == "moa" else of for of in words]
    n = int(is_testable(table).sum())
    if not n:
        return f"No {' or '.join(words)} has enough wells to be tested against the controls"
    what = counted(n, " or ".join(words), plural=" and ".join(f"{word}s" for word in words))
    untested = f"; {len(table) - n} more cannot be tested" if n < len(table) else ""
    differ = "differs" if n == 1 else "differ"
    return f"{int(is_active(table).sum())} of {what} {differ} from the controls{untested}"


def activity_sentence(table: pd.DataFrame) -> str:
    """How many groups differ from the controls, and whether the number of wells allows a small p-value."""
    tested = f" (permutation test of the distance, corrected p below {LEVEL:g})" if is_testable(table).any() else ""
    return ". ".join(filter(None, (n_active(table) + tested, weakness(table)))) + "."


def weakness(designs: pd.DataFrame) -> str:
    """Where too few wells allow a small p-value, from n_wells, n_control_wells and smallest_p_value; else empty."""
    weak = designs[~is_testable(designs)]
    if weak.empty:
        return ""
    worst = weak.iloc[int(weak["smallest_p_value"].to_numpy().argmax())]
    wells = counted(int(worst["n_wells"]), "well")
    controls = counted(int(worst["n_control_wells"]), "control well")
    which = f"For {len(weak)} of {len(designs)}: " if len(weak) < len(designs) else ""
    smallest_p = f"{worst['smallest_p_value']:.2g}"
    return f"{which}{wells} and {controls} allow no p-value below {smallest_p}; add replicates or control wells"


def smallest(table: pd.DataFrame) -> str:
    """How many groups of `activity` have the smallest p-value that their wells allow; empty for none."""
    n = int((table["p_value"] <= table["smallest_p_value"]).sum())
    return f"{n} of {len(table)} reached the smallest p that their number of wells allows" if n else ""


def weak_designs(rows: pd.DataFrame) -> str:
    """For how many treatments a plate map has too few wells for a small p-value; empty where for none.

    Args:
        rows: plate, well, compound, concentration_um and role, a row per well or several.
    """
    wells = rows.drop_duplicates(["plate", "well"]).reset_index(drop=True)
    controls = np.flatnonzero(wells["role"] == "control")
    treated = wells[wells["role"] == "treated"]
    names = treatment_name(treated["compound"].astype(str), treated["concentration_um"])
    compared = [
        _comparison(wells["plate"], rows.to_numpy(), controls) for rows in treated.groupby(names).groups.values()
    ]
    return weakness(pd.DataFrame([one.described for one in compared])) if compared else ""
