"""Score profiles: the one scorer of studies and tables.

N rows, Z features. Nothing is written here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import pandas as pd

from phenolens.core.bounds import Bounded, Count, Seed
from phenolens.core.counted import counted, left_out_line
from phenolens.core.errors import InputError
from phenolens.core.names import shortened
from phenolens.core.progress import tell, track
from phenolens.profiles.activity import activity
from phenolens.profiles.average_precision import Of, mean_average_precision, rankable
from phenolens.profiles.candidates import NAMED, HeldOut, impossible_scores, list_separator
from phenolens.profiles.columns import Columns
from phenolens.profiles.distances import Similarity
from phenolens.profiles.nsc import (
    DroppedMechanisms,
    Matching,
    Score,
    is_treated,
    labelled_rows,
    match_all,
    one_row_a_treatment,
    score_of,
)
from phenolens.profiles.profiles import METADATA, metadata
from phenolens.profiles.read_table import ForeignTable
from phenolens.profiles.table_profiles import Profiles, TableConfig, profiles_of
from phenolens.profiles.uncertainty import AveragedOver, ShuffledLabels, shuffled_labels
from phenolens.profiles.whitening import Recipe

if TYPE_CHECKING:
    from anndata import AnnData

COUNTS = ("protocol", "accuracy", "n_treatments", "n_correct", "ci_low", "ci_high")
BY_CHANCE = ("chance", "shuffled", "p_value")


@dataclass(frozen=True)
class EvaluateConfig(Bounded):
    """Which scores are computed, and how their uncertainty is estimated."""

    protocols: tuple[str, ...] = ()  # NSC, NSCB, or what is held out (compound+plate); left out: NSC, NSCB if possible
    bootstraps: Count = 10_000  # resamplings of compounds for the 95 % interval
    shuffles: Count = 1_000  # permutations of mechanisms across compounds: the chance level of this screen
    bootstrap_seed: Seed = 0  # of all draws
    headline: Literal["aligned", "whitened", "zscore", "none"] = "aligned"  # of a study: whose score comes first
    several_mechanisms: str = ""  # separator of several mechanisms in one name, such as |: a match in any counts
    # compounds, mechanisms or treatments (taxol@0.3) to compare with the controls, beside each treatment
    against_controls: tuple[str, ...] = ()
    null_draws: Count = 10_000  # permutations and random rankings for the p-values of activity and mAP
    confusion_figures: bool = True  # draw confusion matrices; their tables are always written

    def __post_init__(self) -> None:
        """Validate the settings."""
        super().__post_init__()
        for protocol in self.protocols:
            held_out(protocol)


@dataclass(frozen=True)
class ScoreConfig(EvaluateConfig):
    """The scores of a table: EvaluateConfig with the conventions, which a study keeps at their defaults."""

    queries: Literal["treatments", "wells"] = "treatments"  # what is matched
    similarity: Similarity = "cosine"  # how near two profiles are
    dropped_mechanisms: DroppedMechanisms = "stay"  # candidates of mechanisms that no query can find
    averaged_over: AveragedOver = "treatments"  # compounds: each counts once, however many doses it has


def held_out(protocol: str) -> tuple[HeldOut, ...]:
    """What a protocol leaves out: NSC, NSCB, or names joined by +; InputError on any other word."""
    words = protocol.split("+")
    if protocol in NAMED:
        return NAMED[protocol]
    if not set(words) <= set(get_args(HeldOut)) or len(set(words)) < len(words):
        raise InputError(
            f'--protocols "{protocol}": expected NSC, NSCB, or what is held out, of {", ".join(get_args(HeldOut))}, '
            "joined by +, such as compound+plate"
        )
    return cast("tuple[HeldOut, ...]", tuple(words))


@dataclass(frozen=True)
class Scored:
    """A score and its shuffled labels."""

    score: Score
    shuffled: ShuffledLabels
    queries: str  # what was matched: treatments or wells

    @property
    def row(self) -> dict[str, Any]:
        """The score as a row of scores.csv."""
        return {name: getattr(self.score, name) for name in COUNTS}

    @property
    def by_chance(self) -> dict[str, float]:
        """What the same profiles score by chance and with shuffled labels."""
        shuffled = float(self.shuffled.shuffled.mean())
        return {"chance": self.score.chance, "shuffled": shuffled, "p_value": self.shuffled.p_value}


def matchings_of(profiles: AnnData, config: ScoreConfig) -> tuple[list[Matching], dict[str, str]]:
    """The nearest neighbours by each protocol, all distances computed once, and why others are impossible.

    InputError where a protocol that is named in the settings is impossible.
    """
    if config.queries == "treatments" and (not config.protocols or set(config.protocols) & NAMED.keys()):
        one_row_a_treatment(profiles)
    named = {frozenset(held_out(name)): name for name in reversed(config.protocols or tuple(NAMED))}
    asked = {name: held_out(name) for name in reversed(named.values())}
    columns = {"moa", *chain(*asked.values())}
    rows = metadata(profiles, sorted(columns | ({"plate"} if "well" in columns else set())))[is_treated(profiles)]
    absent = impossible_scores(rows, asked, separator=config.several_mechanisms)
    if config.protocols and absent:
        raise InputError(f"profiles: {next(iter(absent.values()))}; leave it out of --protocols")
    possible = [names for name, names in asked.items() if name not in absent]
    if not possible:
        return [], absent
    labelled = labelled_rows(profiles, config.similarity, separator=config.several_mechanisms)
    return match_all(labelled, possible, dropped_mechanisms=config.dropped_mechanisms), absent


def scored(matching: Matching, config: ScoreConfig) -> Scored:
    """The score of one protocol with its interval and its shuffled labels."""
    return Scored(
        score=score_of(
            matching, averaged_over=config.averaged_over, n_bootstrap=config.bootstraps, seed=config.bootstrap_seed
        ),
        shuffled=shuffled_labels(
            matching, averaged_over=config.averaged_over, n_shuffles=config.shuffles, seed=config.bootstrap_seed
        ),
        queries=config.queries,
    )


def matched_rows(profiles: Profiles, config: ScoreConfig) -> AnnData:
    """The rows to match."""
    if config.queries == "treatments":
        return profiles.treatments
    if profiles.wells is None:
        raise InputError("--queries wells: a row of this table is a treatment; expected rows of wells or cells")
    return profiles.whitened


def precision_of(profiles: Profiles, of: Of, config: ScoreConfig) -> pd.DataFrame | None:
    """mAP of treatments (on whitened wells) or of mechanisms (on treatments); None where nothing can be ranked."""
    table = profiles.treatments if of == "mechanisms" else profiles.whitened
    several = config.several_mechanisms
    if (of == "treatments" and profiles.wells is None) or rankable(table, of, separator=several) is None:
        return None
    return mean_average_precision(
        table,
        of=of,
        similarity=config.similarity,
        several_mechanisms=several,
        n_draws=config.null_draws,
        seed=config.bootstrap_seed,
    )


def activities_of(wells: AnnData, config: ScoreConfig) -> dict[str, pd.DataFrame]:
    """Wells against control wells, by the name of the file: each treatment, and what `--against-controls` names."""
    asked: dict[str, Sequence[str]] = {"activity": ()}
    if config.against_controls:
        asked["against_controls"] = config.against_controls
    return {
        what: activity(
            wells,
            names=names,
            similarity=config.similarity,
            several_mechanisms=config.several_mechanisms,
            n_draws=config.null_draws,
            seed=config.bootstrap_seed,
        )
        for what, names in asked.items()
    }


def list_note(texts: Iterable[str], config: EvaluateConfig) -> str:
    """A note where mechanisms look like lists and are not read as such; else empty."""
    named = set(texts) - {""}
    separator = "" if config.several_mechanisms else list_separator(named)
    if not separator:
        return ""
    lists = sorted(text for text in named if separator in text)
    return (
        f'mechanism "{lists[0]}" looks like several ({len(lists):,} such of {len(named):,}) and counts as one of its '
        f'own; phenolens evaluate (and run) --several-mechanisms "{separator}" counts a match in any of them'
    )


@dataclass(frozen=True)
class Evaluation:
    """A table's scores and everything they were made with."""

    table: ForeignTable
    config: TableConfig
    recipe: Recipe
    score: ScoreConfig  # with the protocols that were scored
    profiles: Profiles
    scores: list[Scored]
    precision: dict[Of, pd.DataFrame]  # mAP per treatment and per mechanism, where it could be computed
    activities: dict[str, pd.DataFrame]  # against the controls, as `activities_of`; empty without controls or wells
    absent: dict[str, str]  # protocol -> why it could not be scored

    def as_table(self) -> pd.DataFrame:
        """A row per score, as scores.csv holds it."""
        rows = [{"queries": one.queries} | one.row | one.by_chance | one.score.conventions for one in self.scores]
        conventions = ("held_out", "similarity", "dropped_mechanisms", "averaged_over", "several_mechanisms")
        return pd.DataFrame(rows, columns=["queries", *COUNTS, *BY_CHANCE, *conventions])

    @property
    def source(self) -> str:
        """The name of the table's file or folder."""
        return self.table.path.resolve().name

    @property
    def made_with(self) -> dict[str, Any]:
        """The table and all settings, for about.json."""
        return {
            "source": self.source,
            "sha256": self.table.sha256,
            "columns": asdict(self.table.columns),
            "table": asdict(self.config),
            "recipe": asdict(self.recipe),
            "scores": asdict(self.score),
        }


def evaluate_table(
    path: Path, *, columns: Columns, config: TableConfig, recipe: Recipe, score: ScoreConfig
) -> Evaluation:
    """Read a table, make profiles and score them; nothing is written.

    What cannot be scored is refused before anything is reported of the table.
    """
    for protocol in score.protocols:
        if "well" in held_out(protocol) and score.queries == "treatments":
            raise InputError(
                f'--protocols "{protocol}": a treatment has several wells, so holding out the well goes with '
                "--queries wells; add that, or hold out compound, batch or plate"
            )
    table = ForeignTable(path, columns)
    profiles = profiles_of(table.parts(), config, recipe)
    matchings, absent = matchings_of(matched_rows(profiles, score), score)
    is_control = profiles.whitened.obs[METADATA["role"]] == "control"
    if score.against_controls and (profiles.wells is None or not is_control.any()):
        raise InputError("--against-controls: expected a table of cells or wells with control rows (--control DMSO)")
    can_compare = profiles.wells is not None and is_control.any()
    activities = activities_of(profiles.whitened, score) if can_compare else {}
    if note := list_note(metadata(profiles.treatments, ("moa",))["moa"], score):
        table.notes.add(note)
    table.notes |= set(profiles.notes)
    _report(table, profiles)
    for why in absent.values():
        tell(f"not scored: {why}")
    names = tuple(m.protocol if m.held_out in NAMED.values() else "+".join(m.held_out) for m in matchings)
    scores = [scored(matching, score) for matching in track(matchings, "scoring", total=len(matchings))]
    precision = {of: precision_of(profiles, of, score) for of in get_args(Of)}
    return Evaluation(
        table=table,
        config=config,
        recipe=recipe,
        score=replace(score, protocols=names),
        profiles=profiles,
        scores=scores,
        precision={of: found for of, found in precision.items() if found is not None},
        activities=activities,
        absent=absent,
    )


def _report(table: ForeignTable, profiles: Profiles) -> None:
    """Report what was assumed, what was left out, and the size of the table."""
    for note in sorted(table.notes):
        tell(f"note: {note}")
    for why, names in profiles.left_out.items():
        tell(f"{left_out_line(why, len(names))}: {shortened(names, 3)}")
    role = profiles.whitened.obs[METADATA["role"]].astype(str).value_counts()
    obs = profiles.treatments.obs
    treated = set(obs.loc[obs[METADATA["role"]] != "control", METADATA["treatment"]])
    features = profiles.whitening.features
    tell(
        f"{counted(profiles.whitened.n_obs, 'treatment' if profiles.rows == 'treatments' else 'well')} "
        f"({', '.join(f'{n:,} {name}' for name, n in role.items())}), {counted(len(treated), 'treatment')}, "
        f"{counted(len(features), 'feature')} ({shortened(features, 3)})"
    )
