"""NSC and NSCB: does a treatment's nearest other treatment have the same mechanism?

N rows, M of them labelled (treated, with a known mechanism), Z features, K mechanisms. Ljosa et al. 2013; conventions
in docs/definitions.md, "Scores".
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from phenolens.core.bounds import NotNegativeCount, Seed
from phenolens.core.errors import InputError
from phenolens.profiles.candidates import NAMED, NSC, NSCB, Candidates, HeldOut, sharing, why_impossible
from phenolens.profiles.distances import Similarity, directions, distance_blocks, rows_at_a_time
from phenolens.profiles.profiles import METADATA, metadata
from phenolens.profiles.uncertainty import AveragedOver, bootstrap_interval

if TYPE_CHECKING:
    from anndata import AnnData

DroppedMechanisms = Literal["stay", "leave"]
NAMES = {names: protocol for protocol, names in NAMED.items()}
TIE = 1e-12  # distances nearer to each other than this share of the largest are a tie (rounding of sums)
NO_MECHANISM = "no mechanism is known"


@dataclass(frozen=True, repr=False)
class Score:
    """The share of correct queries, and what it was counted over."""

    protocol: str  # NSC, NSCB, or what is held out
    accuracy: float  # 0..1; over queries, or the mean over compounds
    n_treatments: int  # counted
    n_correct: int
    ci_low: float  # 95 % interval, bootstrap over compounds
    ci_high: float
    chance: float  # expected accuracy of neighbours drawn uniformly from the candidates
    queries: pd.DataFrame  # a row per query, counted or not: neighbour, distance, prediction, right, reason
    conventions: dict[str, str]

    def __repr__(self) -> str:
        """`NSC: 83 of 103 = 80.6 % (95 % interval 70 to 90, chance 4.1 %)`."""
        interval = f"95 % interval {100 * self.ci_low:.0f} to {100 * self.ci_high:.0f}, "
        return (
            f"{self.protocol}: {self.n_correct} of {self.n_treatments} = {100 * self.accuracy:.1f} % "
            f"({interval if self.ci_low == self.ci_low else ''}chance {100 * self.chance:.1f} %)"
        )

    def _repr_html_(self) -> str:
        """In a notebook: the sentence, and the confusion matrix."""
        return f"<p>{html.escape(repr(self))}</p>{self.confusion.to_html()}"

    @property
    def not_counted(self) -> dict[str, int]:
        """How many queries could not be counted, by reason."""
        reasons = self.queries["reason"][~self.queries["counted"]]
        return {str(reason): int(n) for reason, n in reasons.value_counts().items()}

    @property
    def confusion(self) -> pd.DataFrame:
        """Counted treatments by their mechanism (rows) and that of their nearest neighbour (columns).

        Correct ones are on the diagonal, also where the neighbour shares one of several mechanisms.
        """
        counted = self.queries[self.queries["counted"]]
        predicted = counted["predicted"].mask(counted["right"], counted["moa"])
        names = sorted(set(counted["moa"]) | set(predicted))
        crossed = pd.crosstab(counted["moa"], predicted)
        crossed = crossed.reindex(index=names, columns=names, fill_value=0)
        return crossed.rename_axis(index="mechanism", columns="predicted")


def nsc(
    profiles: AnnData,
    *,
    similarity: Similarity = "cosine",
    dropped_mechanisms: DroppedMechanisms = "stay",
    averaged_over: AveragedOver = "treatments",
    several_mechanisms: str = "",
    n_bootstrap: NotNegativeCount = 10_000,
    seed: Seed = 0,
) -> Score:
    """Share of treatments whose nearest treatment of another compound has the same mechanism (NSC).

    Ties go to the smaller row by compound, concentration and name, so the order of rows does not matter.

    Args:
        profiles: a row per treatment, as `study.profiles(run)`, `pp.treatment_profiles` and, of a CSV,
            `evaluate("table.csv").profiles` have them. Rows without a mechanism (Metadata_MoA) or of
            another role than `treated` are neither queries nor candidates.
        similarity: by which the nearest treatment is found.
        dropped_mechanisms: whether treatments of mechanisms that no query can find stay candidates.
        averaged_over: `treatments`, or `compounds`: each compound has one vote.
        several_mechanisms: separator of several mechanisms in one name, such as `|`: a match in any of them counts.
        n_bootstrap: resamplings of compounds for the 95 % interval; 0: no interval.
        seed: of the resampling.

    Returns:
        The score with its interval, chance level, and a table of all queries.

    Raises:
        InputError: NaN, a row of zeros, a treatment in two rows, fewer than two mechanisms, or no query to count.
    """
    return neighbour_score(
        one_row_a_treatment(profiles),
        held_out=NSC,
        similarity=similarity,
        dropped_mechanisms=dropped_mechanisms,
        averaged_over=averaged_over,
        several_mechanisms=several_mechanisms,
        n_bootstrap=n_bootstrap,
        seed=seed,
    )


def nscb(
    profiles: AnnData,
    *,
    similarity: Similarity = "cosine",
    dropped_mechanisms: DroppedMechanisms = "stay",
    averaged_over: AveragedOver = "treatments",
    several_mechanisms: str = "",
    n_bootstrap: NotNegativeCount = 10_000,
    seed: Seed = 0,
) -> Score:
    """NSC without candidates of the query's own batch: treatments share a batch if any of their batches is common.

    Args:
        profiles: a row per treatment, as `study.profiles(run)`, with Metadata_Batch.
        similarity: as for `nsc`.
        dropped_mechanisms: as for `nsc`.
        averaged_over: as for `nsc`.
        several_mechanisms: as for `nsc`.
        n_bootstrap: as for `nsc`.
        seed: as for `nsc`.

    Returns:
        The score, as `nsc` returns it.

    Raises:
        InputError: as for `nsc`, and where all rows are of one batch.
    """
    return neighbour_score(
        one_row_a_treatment(profiles),
        held_out=NSCB,
        similarity=similarity,
        dropped_mechanisms=dropped_mechanisms,
        averaged_over=averaged_over,
        several_mechanisms=several_mechanisms,
        n_bootstrap=n_bootstrap,
        seed=seed,
    )


def neighbour_score(
    profiles: AnnData,
    *,
    held_out: Sequence[HeldOut],
    similarity: Similarity = "cosine",
    dropped_mechanisms: DroppedMechanisms = "stay",
    averaged_over: AveragedOver = "treatments",
    several_mechanisms: str = "",
    n_bootstrap: int = 10_000,
    seed: int = 0,
) -> Score:
    """Share of rows (treatments or wells) whose nearest neighbour has the same mechanism.

    Candidates that share anything of `held_out` with the query are excluded; everything else is as in `nsc`. A query
    without a candidate of its own mechanism is not counted.
    """
    labelled = labelled_rows(profiles, similarity, separator=several_mechanisms)
    matching = match(labelled, held_out, dropped_mechanisms=dropped_mechanisms)
    refuse_uncountable(matching)
    return score_of(matching, averaged_over=averaged_over, n_bootstrap=n_bootstrap, seed=seed)


@dataclass(frozen=True)
class Labelled:
    """The labelled rows in canonical order."""

    profiles: AnnData  # all rows as given
    place: np.ndarray  # (M,) of each labelled row in `profiles`
    table: pd.DataFrame  # treatment, compound, concentration_um, moa; index: the rows' names
    rows: np.ndarray  # (M, Z) as `directions` makes them
    similarity: Similarity
    separator: str = ""  # of several mechanisms in one text

    def blocks(self) -> Iterable[tuple[slice, np.ndarray]]:
        """Distances of some rows at a time to all rows: (slice, M); kept where they are few."""
        n = len(self.rows)
        return self._few if n <= rows_at_a_time(n) else distance_blocks(self.rows, self.similarity)

    @cached_property
    def _few(self) -> list[tuple[slice, np.ndarray]]:
        """All distances, in one block."""
        return list(distance_blocks(self.rows, self.similarity))

    def columns(self, held_out: Sequence[HeldOut]) -> pd.DataFrame:
        """The mechanisms of the rows and what a protocol holds out: (M rows)."""
        wanted = {"moa", *held_out, *(("plate",) if "well" in held_out else ())}
        return metadata(self.profiles, [column for column in METADATA if column in wanted]).iloc[self.place]

    @cached_property
    def same(self) -> np.ndarray:
        """Which mechanisms match: (K, K) 0/1 float32, so that a matrix product counts."""
        return sharing(self.mechanisms.tolist(), self.separator).astype(np.float32)

    @cached_property
    def mechanisms(self) -> np.ndarray:
        """The mechanisms (K,) as they are written, sorted."""
        return np.unique(self.table["moa"].to_numpy(dtype=str))

    @cached_property
    def mechanism(self) -> np.ndarray:
        """Code of each row's mechanism: (M,)."""
        return np.searchsorted(self.mechanisms, self.table["moa"].to_numpy(dtype=str))

    @cached_property
    def compound(self) -> np.ndarray:
        """Code of each row's compound: (M,)."""
        return np.unique(self.table["compound"].to_numpy(dtype=str), return_inverse=True)[1]


@dataclass(frozen=True)
class Answers:
    """Each query's nearest neighbour under some labels; -1 and NaN where it has no candidate at all."""

    nearest: np.ndarray  # (M,) row of the neighbour
    distance: np.ndarray  # (M,)
    own: np.ndarray  # (M,) candidates of the query's mechanism
    kept: np.ndarray  # (M,) whether a row is a candidate at all: not of a mechanism that leaves
    right: np.ndarray  # (M,)

    @property
    def eligible(self) -> np.ndarray:
        """Whether a candidate has the query's mechanism: (M,)."""
        return self.own > 0


@dataclass(frozen=True)
class Matching:
    """One protocol on labelled rows: the candidates of each query and the nearest of them, whatever the labels."""

    labelled: Labelled
    held_out: tuple[HeldOut, ...]
    dropped_mechanisms: DroppedMechanisms
    candidates: Candidates
    nearest: np.ndarray  # (M,)
    distance: np.ndarray  # (M,)

    @property
    def protocol(self) -> str:
        """NSC, NSCB, or what is held out."""
        return NAMES.get(self.held_out, "not same " + " or ".join(self.held_out))

    def answer(self, mechanism: np.ndarray) -> Answers:
        """The answers under the labels `mechanism` (M,), which may be permuted."""
        same, nearest, distance = self.labelled.same, self.nearest, self.distance
        own = self.candidates.count(mechanism, same if self.labelled.separator else None)
        kept = np.ones(len(own), dtype=bool)
        if self.dropped_mechanisms == "leave":
            kept = (same[np.unique(mechanism[own > 0])].max(axis=0, initial=0) > 0)[mechanism]
        if not kept.all():
            ((nearest, distance),) = _nearest(self.labelled, [self.candidates], kept)
        right = (own > 0) & (same[mechanism, mechanism[nearest]] > 0)
        return Answers(nearest, distance, own, kept, right)

    def chance(self, answers: Answers) -> float:
        """The share of the candidates that have the query's mechanism; mean over the queries that count."""
        total = self.candidates.count(answers.kept.astype(int), np.array([[0, 0], [1, 1]]))  # the kept, for any query
        return float((answers.own[answers.eligible] / total[answers.eligible]).mean())


def labelled_rows(profiles: AnnData, similarity: Similarity = "cosine", *, separator: str = "") -> Labelled:
    """The labelled rows in canonical order.

    InputError on a row name listed twice, on fewer than two mechanisms, on NaN, and on a row without a direction.
    """
    known = (metadata(profiles, ("moa",))["moa"] != "").to_numpy() & is_treated(profiles)
    labelled = _in_order(profiles, known, similarity, separator=separator)
    if len(mechanisms := labelled.mechanisms) < 2:
        found = f'only "{mechanisms[0]}"' if len(mechanisms) else "no mechanism at all"
        raise InputError(f"profiles: {found} in {METADATA['moa']}; expected treated rows of at least two mechanisms")
    return labelled


def _in_order(profiles: AnnData, chosen: np.ndarray, similarity: Similarity, *, separator: str = "") -> Labelled:
    """The chosen rows (N,) in canonical order."""
    table = metadata(profiles, ("treatment", "compound", "concentration_um", "moa"))
    if not table.index.is_unique:
        raise InputError(
            f'profiles: row name "{table.index[table.index.duplicated()][0]}" is listed twice; expected unique names'
        )
    table = table.assign(place=np.arange(len(table)), name=table.index.astype(str))[chosen]
    table = table.sort_values(["compound", "concentration_um", "name"])
    place = table["place"].to_numpy()
    rows = directions(profiles[place], similarity)
    table = table.drop(columns=["place", "name"])
    return Labelled(profiles, place, table, rows, similarity, separator)


def nearest_treatments(profiles: AnnData, similarity: Similarity = "cosine") -> pd.DataFrame:
    """Each treatment's nearest other treatment, whatever is known of mechanisms; of another compound if there is one.

    Returns:
        A row per treated row in canonical order: treatment, compound, concentration_um, moa, neighbour (its row's name;
        "" where there is none), predicted (its mechanism) and distance.
    """
    rows = _in_order(profiles, is_treated(profiles), similarity)
    several = rows.table["compound"].nunique() > 1
    ((nearest, distance),) = _nearest(rows, [Candidates(rows.table, NSC if several else ())])
    neighbour = rows.table.iloc[nearest]
    found = nearest >= 0
    return rows.table.assign(
        neighbour=np.where(found, neighbour.index, ""),
        predicted=np.where(found, neighbour["moa"], ""),
        distance=distance,
    )


def match(
    labelled: Labelled, held_out: Sequence[HeldOut], *, dropped_mechanisms: DroppedMechanisms = "stay"
) -> Matching:
    """Find each labelled row's nearest candidate outside `held_out`; ties go to the smaller row."""
    return match_all(labelled, [held_out], dropped_mechanisms=dropped_mechanisms)[0]


def match_all(
    labelled: Labelled, protocols: Sequence[Sequence[HeldOut]], *, dropped_mechanisms: DroppedMechanisms = "stay"
) -> list[Matching]:
    """`match` for several protocols; each distance is computed once."""
    candidates = [Candidates(labelled.columns(held_out), held_out) for held_out in protocols]
    return [
        Matching(labelled, tuple(held_out), dropped_mechanisms, own, *found)
        for held_out, own, found in zip(protocols, candidates, _nearest(labelled, candidates))
    ]


def refuse_uncountable(matching: Matching) -> None:
    """InputError where the protocol cannot count any query."""
    labelled, held_out = matching.labelled, matching.held_out
    if why := why_impossible(labelled.columns(held_out), matching.protocol, held_out, separator=labelled.separator):
        raise InputError(f"profiles: {why}; score NSC only, or hold out less (--protocols)")


def score_of(matching: Matching, *, averaged_over: AveragedOver, n_bootstrap: int, seed: int) -> Score:
    """The score of a matching under the true labels, which must count at least one query."""
    labelled = matching.labelled
    answers = matching.answer(labelled.mechanism)
    counted, right = answers.eligible, answers.right
    accuracy, ci_low, ci_high = bootstrap_interval(
        right[counted], labelled.compound[counted], averaged_over=averaged_over, n_bootstrap=n_bootstrap, seed=seed
    )
    return Score(
        protocol=matching.protocol,
        accuracy=accuracy,
        n_treatments=int(counted.sum()),
        n_correct=int(right[counted].sum()),
        ci_low=ci_low,
        ci_high=ci_high,
        chance=matching.chance(answers),
        queries=_query_table(matching, answers),
        conventions={
            "held_out": "+".join(matching.held_out),
            "similarity": labelled.similarity,
            "dropped_mechanisms": matching.dropped_mechanisms,
            "averaged_over": averaged_over,
            "several_mechanisms": labelled.separator,
        },
    )


def one_row_a_treatment(profiles: AnnData) -> AnnData:
    """The profiles as they are; InputError on a treatment in several rows."""
    treatments = metadata(profiles, ("treatment",))["treatment"]
    twice = treatments.duplicated()
    if twice.any():
        name = treatments[twice].iloc[0]
        raise InputError(
            f'profiles: treatment "{name}" is in {int((treatments == name).sum())} rows; expected one row per '
            "treatment: make treatment profiles of the wells first (of a table: --rows wells)"
        )
    return profiles


def is_treated(profiles: AnnData) -> np.ndarray:
    """Which rows (N,) are treated; all of them where there are no roles."""
    if METADATA["role"] not in profiles.obs.columns:
        return np.ones(profiles.n_obs, dtype=bool)
    return (metadata(profiles, ("role",))["role"] == "treated").to_numpy()


def _nearest(
    labelled: Labelled, protocols: Sequence[Candidates], kept: np.ndarray | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """By each protocol, each row's first nearest candidate and its distance; -1 and NaN without candidates.

    `kept` (M,) says which rows may be candidates; all of them where None.
    """
    n = len(labelled.rows)
    answers = [(np.full(n, -1), np.full(n, np.nan)) for _ in protocols]
    for block, distance in labelled.blocks():
        tie = TIE * distance.max(axis=1)
        for candidates, (nearest, away) in zip(protocols, answers):
            candidate = candidates.block(block) if kept is None else candidates.block(block) & kept
            allowed = np.where(candidate, distance, np.inf)
            best = allowed.min(axis=1)
            first = (allowed <= (best + tie)[:, None]).argmax(axis=1)
            found = np.isfinite(best)
            nearest[block] = np.where(found, first, -1)
            away[block] = np.where(found, allowed[np.arange(len(first)), first], np.nan)
    return answers


def _query_table(matching: Matching, answers: Answers) -> pd.DataFrame:
    """A row per treated row, in canonical order; those without a mechanism last."""
    wanted = {"treatment", "compound", "concentration_um", "moa", *matching.held_out}
    wanted |= {"plate"} if "well" in matching.held_out else set()
    labelled = matching.labelled
    everything = metadata(labelled.profiles, [column for column in METADATA if column in wanted])
    table = everything.iloc[labelled.place]
    found = answers.nearest >= 0
    neighbour = table.iloc[answers.nearest]
    missing = f"no candidate has its mechanism once the same {' or '.join(matching.held_out)} is left out"
    asked = table.assign(
        counted=answers.eligible,
        reason=np.where(answers.eligible, "", missing),
        neighbour=np.where(found, neighbour.index, ""),
        predicted=np.where(found, neighbour["moa"], ""),
        distance=answers.distance,
        right=answers.right,
    )
    others = everything[~everything.index.isin(table.index) & is_treated(labelled.profiles)]
    unasked = others.sort_values(["compound", "concentration_um"]).assign(
        counted=False, reason=NO_MECHANISM, neighbour="", predicted="", distance=np.nan, right=False
    )
    return pd.concat([asked, unasked]) if len(unasked) else asked
