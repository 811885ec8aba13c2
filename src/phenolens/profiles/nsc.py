"""NSC and NSCB: does a treatment's nearest other treatment have the same mechanism?

M labelled rows (treatments, or wells), Z features, K mechanisms. Ljosa et al. 2013; METHOD 6.

M and N rows, Z features.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

import numpy as np
import pandas as pd

from phenolens.core.errors import InputError
from phenolens.profiles.profiles import JOINED_BY, METADATA, metadata
from phenolens.profiles.uncertainty import bootstrap_interval
from phenolens.profiles.validate import feature_matrix

if TYPE_CHECKING:
    from anndata import AnnData

Similarity = Literal["cosine", "pearson", "euclidean"]


def directions(profiles: AnnData, similarity: Similarity) -> np.ndarray:
    """The rows (N, Z) float64 ready for `distances`: of unit length, for Pearson after taking off each row's own mean.

    InputError on NaN, and on a row without a direction (all features 0, or for Pearson all equal).
    """
    rows = feature_matrix(profiles)
    if similarity == "euclidean":
        return rows
    if similarity == "pearson":
        constant = rows.max(axis=1) == rows.min(axis=1)
        rows -= rows.mean(axis=1, keepdims=True)
        rows[constant] = 0.0
    lengths = np.linalg.norm(rows, axis=1)
    if (lengths == 0).any():
        name = profiles.obs_names[int(np.argmax(lengths == 0))]
        values = "equal" if similarity == "pearson" else "0"
        raise InputError(
            f'profiles: all features of row "{name}" are {values}, so it has no {similarity} distance to any other; '
            "leave it out, or use the Euclidean distance"
        )
    return rows / lengths[:, None]


def distances(queries: np.ndarray, candidates: np.ndarray, similarity: Similarity) -> np.ndarray:
    """Distances (M, N) between rows made by `directions`: 1 - cosine, 1 - correlation, or Euclidean."""
    if similarity == "euclidean":
        from scipy.spatial.distance import cdist  # slow to import, and only needed here

        return cdist(queries, candidates)
    return 1.0 - queries @ candidates.T


HeldOut = Literal["compound", "batch", "plate", "well"]
PROTOCOLS: dict[tuple[str, ...], str] = {("compound",): "NSC", ("compound", "batch"): "NSCB"}
SEVERAL = ("batch", "plate")  # a treatment can have several of these, joined by |
TIE = 1e-12  # distances nearer to each other than this share of the largest are a tie (rounding of sums)
BLOCK = 512  # queries held against all candidates at a time


@dataclass(frozen=True)
class Score:
    """A share of right treatments, with what it was counted over."""

    protocol: str  # NSC, NSCB, or what is held out
    accuracy: float  # 0..1; over treatments, or the mean over compounds
    n_treatments: int  # counted
    n_correct: int
    ci_low: float  # 95 % interval, bootstrap over compounds
    ci_high: float
    chance: float  # expected accuracy if each neighbour were drawn evenly from the candidates
    queries: (
        pd.DataFrame
    )  # a row a query, counted or not: who was nearest, how far, right or wrong, and why not counted
    conventions: dict[str, str]

    @property
    def confusion(self) -> pd.DataFrame:
        """Counted treatments by their mechanism (rows) and that of their nearest neighbour (columns)."""
        counted = self.queries[self.queries["counted"]]
        names = sorted(set(counted["moa"]) | set(counted["predicted"]))
        crossed = pd.crosstab(counted["moa"], counted["predicted"])
        crossed = crossed.reindex(index=names, columns=names, fill_value=0)
        return crossed.rename_axis(index="mechanism", columns="predicted")


class Conventions(TypedDict, total=False):
    """What is left open by the names NSC and NSCB; METHOD 6. The defaults stand in `neighbour_score`."""

    similarity: Similarity
    dropped_mechanisms: Literal["stay", "leave"]
    averaged_over: Literal["treatments", "compounds"]
    n_bootstrap: int
    seed: int


def nsc(profiles: AnnData, **conventions: Unpack[Conventions]) -> Score:
    """Share of treatments whose nearest other treatment has the same mechanism; own compound left out.

    Conventions and errors as in `neighbour_score`.
    """
    return neighbour_score(_one_row_a_treatment(profiles), held_out=("compound",), **conventions)


def nscb(profiles: AnnData, **conventions: Unpack[Conventions]) -> Score:
    """NSC with the query's own batch left out as well: a treatment shares a batch if any of its batches is common.

    Conventions and errors as in `neighbour_score`; InputError also where only one batch is there.
    """
    batches = set(JOINED_BY.join(metadata(profiles, ("batch",))["batch"]).split(JOINED_BY))
    if len(batches) == 1:
        raise InputError(
            f'profiles: NSCB leaves out the query\'s own batch, but all rows are of one batch, "{min(batches)}"; '
            "score NSC only, or add treatments of another batch"
        )
    return neighbour_score(_one_row_a_treatment(profiles), held_out=("compound", "batch"), **conventions)


def neighbour_score(
    profiles: AnnData,
    *,
    held_out: Sequence[HeldOut],
    similarity: Similarity = "cosine",
    dropped_mechanisms: Literal["stay", "leave"] = "stay",
    averaged_over: Literal["treatments", "compounds"] = "treatments",
    n_bootstrap: int = 10_000,
    seed: int = 0,
) -> Score:
    """Share of rows whose nearest neighbour has the same mechanism; what shares anything of `held_out` never counts.

    Rows with another role than treated and rows without a mechanism are neither queries nor candidates. A query none
    of whose candidates has its mechanism is not counted; candidates of mechanisms so never asked for stay, or leave.
    Ties go to the smaller row by compound, concentration and name, so the order of files does not matter. InputError on
    NaN, on a row without a direction, on fewer than two mechanisms, and where no query is left.
    """
    design = design_of(profiles, held_out, similarity)
    answers = answer(design, blocks_of(design), design.mechanism, dropped_mechanisms=dropped_mechanisms)
    counted, right = answers.eligible, answers.right
    protocol = PROTOCOLS.get(tuple(held_out), "not same " + " or ".join(held_out))
    if not counted.any():
        raise InputError(
            f"profiles: {protocol} cannot count any of {len(counted)} treatments, since none has a candidate of its "
            f"own mechanism outside its own {' and '.join(held_out)}; hold out less, or label more treatments"
        )
    compounds = design.table["compound"].to_numpy()[counted]
    accuracy, ci_low, ci_high = bootstrap_interval(
        right[counted], compounds, averaged_over=averaged_over, n_bootstrap=n_bootstrap, seed=seed
    )
    return Score(
        protocol=protocol,
        accuracy=accuracy,
        n_treatments=int(counted.sum()),
        n_correct=int(right[counted].sum()),
        ci_low=ci_low,
        ci_high=ci_high,
        chance=float(answers.share_of_own[counted].mean()),
        queries=_query_table(profiles, design, answers, held_out),
        conventions={
            "held_out": "+".join(held_out),
            "similarity": similarity,
            "dropped_mechanisms": dropped_mechanisms,
            "averaged_over": averaged_over,
        },
    )


def can_be_counted(profiles: AnnData, held_out: Sequence[HeldOut]) -> bool:
    """Whether any query has a candidate of its own mechanism once what shares `held_out` is left out."""
    design = design_of(profiles, held_out, "euclidean")  # no distance is computed: any will do
    return any(
        (~_apart(design, queries) & (design.mechanism[queries, None] == design.mechanism)).any()
        for queries in _query_blocks(design)
    )


@dataclass(frozen=True)
class Design:
    """The labelled rows in canonical order, and what each may not be compared with."""

    table: pd.DataFrame  # treatment, compound, concentration_um, moa, batch, ...; index: the rows' names
    rows: np.ndarray  # (M, Z) as `directions` makes them
    members: tuple[np.ndarray, ...]  # each (M, groups) 0/1: rows that share a group of any are not compared
    mechanism: np.ndarray  # (M,) code
    mechanisms: tuple[str, ...]  # name of each code
    similarity: Similarity


@dataclass(frozen=True)
class Answers:
    """Each query's nearest neighbour; -1 and NaN where it has no candidate at all."""

    nearest: np.ndarray  # (M,) row of the neighbour
    distance: np.ndarray  # (M,)
    eligible: np.ndarray  # (M,) whether a candidate has the query's mechanism
    share_of_own: np.ndarray  # (M,) share of the candidates that have it
    right: np.ndarray  # (M,)


Block = tuple[slice, np.ndarray]


def design_of(profiles: AnnData, held_out: Sequence[HeldOut], similarity: Similarity) -> Design:
    """The labelled treated rows in canonical order; InputError on a name that stands twice or on one mechanism only."""
    wanted = {"treatment", "compound", "concentration_um", "moa", *held_out}
    wanted |= {"plate"} if "well" in held_out else set()
    table = metadata(profiles, [column for column in METADATA if column in wanted])
    if not table.index.is_unique:
        raise InputError(
            f'profiles: row name "{table.index[table.index.duplicated()][0]}" stands twice; expected unique names'
        )
    labelled = (table["moa"] != "") & _is_treated(profiles)
    mechanisms = tuple(sorted(set(table["moa"][labelled])))
    if len(mechanisms) < 2:
        found = f'only "{mechanisms[0]}"' if mechanisms else "no mechanism at all"
        raise InputError(f"profiles: {found} in {METADATA['moa']}; expected treated rows of at least two mechanisms")
    table = table.assign(position=np.arange(len(table)))[labelled]
    table = table.assign(name=table.index.astype(str)).sort_values(["compound", "concentration_um", "name"])
    chosen = profiles[table["position"].to_numpy()]
    return Design(
        table=table.drop(columns=["position", "name"]),
        rows=directions(chosen, similarity),
        members=tuple(_membership(table, column) for column in held_out),
        mechanism=np.searchsorted(mechanisms, table["moa"].to_numpy(dtype=str)),
        mechanisms=mechanisms,
        similarity=similarity,
    )


def _is_treated(profiles: AnnData) -> np.ndarray:
    if METADATA["role"] not in profiles.obs.columns:
        return np.ones(profiles.n_obs, dtype=bool)
    return (metadata(profiles, ("role",))["role"] == "treated").to_numpy()


def _membership(table: pd.DataFrame, column: HeldOut) -> np.ndarray:
    """Which groups each row is of: (M, groups) 0/1 float32."""
    if column == "well":
        groups = (table["plate"] + JOINED_BY + table["well"]).map(lambda name: [name])
    else:
        groups = table[column].map(lambda names: names.split(JOINED_BY) if column in SEVERAL else [names])
    names = {name: code for code, name in enumerate(sorted({name for row in groups for name in row}))}
    members = np.zeros((len(table), len(names)), dtype=np.float32)
    for row, own in enumerate(groups):
        members[row, [names[name] for name in own]] = 1
    return members


def blocks_of(design: Design) -> Iterator[Block]:
    """Distances of some queries to all rows (queries, M), infinite where they are not to be compared."""
    for queries in _query_blocks(design):
        block = distances(design.rows[queries], design.rows, design.similarity)
        block[_apart(design, queries)] = np.inf
        yield queries, block


def _query_blocks(design: Design) -> Iterator[slice]:
    """All rows as queries, BLOCK of them at a time."""
    for start in range(0, len(design.rows), BLOCK):
        yield slice(start, min(start + BLOCK, len(design.rows)))


def _apart(design: Design, queries: slice) -> np.ndarray:
    """Which rows some queries are not to be compared with, themselves among them: (queries, M) bool."""
    apart = np.eye(queries.stop - queries.start, len(design.rows), queries.start, dtype=bool)
    for members in design.members:
        apart |= members[queries] @ members.T > 0
    return apart


def answer(
    design: Design, blocks: Iterable[Block], mechanism: np.ndarray, *, dropped_mechanisms: Literal["stay", "leave"]
) -> Answers:
    """Find every query's nearest neighbour under the labels `mechanism` (M,); ties go to the smaller row."""
    n = len(design.rows)
    nearest, distance = np.full(n, -1), np.full(n, np.nan)
    own, total = np.zeros(n), np.zeros(n)
    is_of = np.eye(len(design.mechanisms))[mechanism]  # (M, K)
    kept = blocks if dropped_mechanisms == "stay" else list(blocks)
    for queries, block in kept:
        candidates = np.isfinite(block)
        total[queries] = candidates.sum(axis=1)
        own[queries] = (candidates @ is_of)[np.arange(len(block)), mechanism[queries]]
        nearest[queries], distance[queries] = _nearest(block)
    eligible = own > 0
    if dropped_mechanisms == "leave":
        leaving = ~np.isin(mechanism, mechanism[eligible])
        for queries, block in kept:
            without = np.where(leaving, np.inf, block)
            total[queries] = np.isfinite(without).sum(axis=1)
            nearest[queries], distance[queries] = _nearest(without)
    right = eligible & (mechanism[nearest] == mechanism)
    return Answers(nearest, distance, eligible, np.divide(own, total, out=np.zeros(n), where=total > 0), right)


def _nearest(block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first of the nearest rows of each query and its distance; -1 and NaN where all are infinite."""
    best = block.min(axis=1)
    found = np.isfinite(best)
    largest = np.where(np.isfinite(block), block, 0).max(axis=1)
    first = (block <= (best + TIE * largest)[:, None]).argmax(axis=1)
    return np.where(found, first, -1), np.where(found, block[np.arange(len(block)), first], np.nan)


def _one_row_a_treatment(profiles: AnnData) -> AnnData:
    treatments = metadata(profiles, ("treatment",))["treatment"]
    twice = treatments.duplicated()
    if twice.any():
        name = treatments[twice].iloc[0]
        raise InputError(
            f'profiles: treatment "{name}" stands in {int((treatments == name).sum())} rows; expected one row a '
            "treatment: make treatment profiles of the wells first"
        )
    return profiles


def _query_table(profiles: AnnData, design: Design, answers: Answers, held_out: Sequence[HeldOut]) -> pd.DataFrame:
    """A row a treated row of `profiles`, in canonical order; those without a mechanism last."""
    table = design.table
    found = answers.nearest >= 0
    neighbour = table.iloc[answers.nearest]
    reason = np.where(
        answers.eligible, "", f"no candidate has its mechanism once the same {' or '.join(held_out)} is left out"
    )
    asked = table.assign(
        counted=answers.eligible,
        reason=reason,
        neighbour=np.where(found, neighbour.index, ""),
        predicted=np.where(found, neighbour["moa"], ""),
        distance=answers.distance,
        right=answers.right,
    )
    others = metadata(profiles, list(table.columns))
    others = others[~others.index.isin(table.index) & _is_treated(profiles)].sort_values(
        ["compound", "concentration_um"]
    )
    unasked = others.assign(
        counted=False, reason="no mechanism is known", neighbour="", predicted="", distance=np.nan, right=False
    )
    return pd.concat([asked, unasked]) if len(unasked) else asked
