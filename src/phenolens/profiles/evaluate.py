"""From anybody's table to scores: wells, scale and whitening, treatments, neighbours, precision; each choice named.

N rows, Z features. Nothing is read or written here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Literal, cast, get_args

import numpy as np
import pandas as pd

from phenolens.core.errors import InputError, at_least
from phenolens.core.provenance import provenance
from phenolens.profiles.average_precision import average_precision, mean_average_precision
from phenolens.profiles.nsc import HeldOut, Score, Similarity, can_be_counted, neighbour_score, nsc, nscb
from phenolens.profiles.permutation import ShuffledLabels, shuffled_label_test
from phenolens.profiles.profiles import METADATA, metadata, named_summaries, treatment_profiles, well_profiles
from phenolens.profiles.recipe import Recipe
from phenolens.profiles.validate import feature_matrix, repeated_rows, without_non_finite
from phenolens.profiles.whitening import Whitening, apply_whitening, fit_whitening

if TYPE_CHECKING:
    from anndata import AnnData

Rows = Literal["cells", "wells", "treatments"]
SEPARATOR = "+"  # between what a further protocol holds out
BOOTSTRAPS, SHUFFLES = 10_000, 1_000  # where no number is given


@dataclass(frozen=True)
class TableConfig:
    """How the rows of a table become profiles of treatments."""

    rows: Literal["auto", "cells", "wells", "treatments"] = "auto"  # what a row is; auto: told by plate and well
    statistics: str = "mean"  # of a well's cells: mean, median, sd, mad, trimmed, q25 ..., joined by +
    min_cells: int = 1  # wells with fewer cells are left out and listed
    well_statistic: Literal["median", "mean", "trimmed"] = "median"  # over the wells of a treatment
    positive_controls: Literal["left out", "counted"] = "left out"  # rows of role other that hold a treated dose
    non_finite: Literal["refused", "features", "rows"] = "refused"  # what is left out on a NaN or infinity
    duplicates: Literal["refused", "left out"] = "refused"  # rows that repeat another, number for number
    harmony: Literal["none", "batch", "plate"] = "none"  # Harmony over these, after whitening; an extra
    harmony_seed: int = 0  # of Harmony's first clusters

    def __post_init__(self) -> None:
        """InputError on a choice that cannot be."""
        at_least("--min-cells", self.min_cells, 1)
        at_least("--harmony-seed", self.harmony_seed, 0)
        named_summaries(self.statistics)


@dataclass(frozen=True)
class ScoreConfig:
    """How treatments are matched, by which convention, and how sure that is."""

    protocols: tuple[str, ...] = ()  # NSC, NSCB, or what is held out (compound+plate); left out: NSC, NSCB if possible
    queries: Literal["treatments", "wells"] = "treatments"  # what is matched
    similarity: Similarity = "cosine"
    dropped_mechanisms: Literal["stay", "leave"] = "stay"  # candidates of mechanisms that no query can find
    averaged_over: Literal["treatments", "compounds"] = "treatments"
    bootstraps: int | None = None  # resamplings of compounds for the interval; left out: 10,000 (a study: 2,000)
    shuffles: int | None = None  # permutations of mechanisms over compounds; left out: 1,000 (a study: 200)
    null_draws: int = 10_000  # random rankings for the p-values of mean average precision
    bootstrap_seed: int = 0  # of all draws

    def __post_init__(self) -> None:
        """InputError on a choice that cannot be."""
        for flag, value in (
            ("bootstraps", self.bootstraps),
            ("shuffles", self.shuffles),
            ("null-draws", self.null_draws),
        ):
            at_least(f"--{flag}", 1 if value is None else value, 1)
        at_least("--bootstrap-seed", self.bootstrap_seed, 0)
        for protocol in self.protocols:
            held_out(protocol)


def held_out(protocol: str) -> tuple[HeldOut, ...]:
    """What a protocol leaves out: NSC, NSCB, or names joined by +; InputError on any other word."""
    named: dict[str, tuple[HeldOut, ...]] = {"NSC": ("compound",), "NSCB": ("compound", "batch")}
    words = protocol.split(SEPARATOR)
    if protocol in named:
        return named[protocol]
    if not set(words) <= set(get_args(HeldOut)) or len(set(words)) < len(words):
        raise InputError(
            f'--protocols "{protocol}": expected NSC, NSCB, or what is held out, of {", ".join(get_args(HeldOut))}, '
            f"joined by {SEPARATOR}, such as compound+plate"
        )
    return cast("tuple[HeldOut, ...]", tuple(words))


@dataclass(frozen=True)
class Profiles:
    """A table on its way: wells as given, whitened, and treatments of them."""

    rows: Rows  # what a row of the table was
    wells: AnnData | None  # as they were before scaling; None where a row is a treatment
    whitened: AnnData  # the rows that scale and whitening were learnt on and applied to
    treatments: AnnData
    whitening: Whitening
    left_out: dict[str, list[str]] = field(default_factory=dict)  # by why: names of features, rows, wells


@dataclass(frozen=True)
class Scored:
    """A score beside its shuffled labels."""

    score: Score
    shuffled: ShuffledLabels
    queries: str  # what was matched: treatments or wells


def profiles_of(parts: Iterable[AnnData], config: TableConfig, recipe: Recipe) -> Profiles:
    """Profiles of wells and treatments from a table that comes in parts, each of whole wells.

    InputError on what cannot be computed with, in words that name the row and feature; nothing is dropped unasked.
    """
    rows, parts = kind_of_rows(iter(parts), config.rows)
    left_out: dict[str, list[str]] = {}
    if rows == "cells":
        given = well_profiles(
            _checked(parts, config, left_out),
            statistics=config.statistics,
            min_cells=config.min_cells,
            non_finite={"refused": "refused", "features": "features left out", "rows": "cells left out"}[
                config.non_finite
            ],  # type: ignore[arg-type]
        )
        about = provenance(given)
        left_out["wells with too few cells"] = [f"{well['plate']}_{well['well']}" for well in about["wells_left_out"]]
        left_out["features that are not finite"] = about["features_left_out"]
    else:
        given = _one_table(_checked(parts, config, left_out))
        if config.non_finite != "refused":
            what: Literal["features", "rows"] = config.non_finite
            given, left_out[f"{what} that are not finite"] = without_non_finite(given, left_out=what)
    feature_matrix(given)
    whitening = fit_whitening(given, recipe)
    left_out["features without spread"] = list(whitening.constant_features)
    whitened = apply_whitening(given, whitening)
    if config.harmony != "none":
        from phenolens.profiles.harmony import harmonise

        whitened = harmonise(whitened, over=config.harmony, seed=config.harmony_seed)
    if rows == "treatments":
        treatments = whitened
    else:
        treatments = treatment_profiles(
            whitened, statistic=config.well_statistic, positive_controls=config.positive_controls
        )
    wells = None if rows == "treatments" else given
    return Profiles(rows, wells, whitened, treatments, whitening, {why: n for why, n in left_out.items() if n})


def kind_of_rows(parts: Iterator[AnnData], asked: str) -> tuple[Rows, Iterator[AnnData]]:
    """What a row is, and all parts again: cells where most wells have several rows in the first part, else wells.

    Rows are treatments where no column tells wells apart and no treatment stands twice in any part.
    """
    first = next(parts, None)
    if first is None:
        raise InputError("table: no rows; expected at least one")
    again = chain([first], parts)
    if asked != "auto":
        return cast(Rows, asked), again
    obs = metadata(first, ("plate", "well", "treatment", "role"), what="table")
    counts = obs.groupby(["plate", "well"]).size()
    if counts.median() > 1:
        return "cells", again
    if (obs["well"] != obs.index).any():
        return "wells", again
    whole = list(again)  # of a table without wells, which is put together anyway: a treatment may be on another plate
    told = pd.concat([metadata(part, ("treatment", "role"), what="table") for part in whole])
    unique = told.loc[told["role"] == "treated", "treatment"].is_unique
    return ("treatments" if unique else "wells"), iter(whole)


def scores_of(profiles: Profiles, config: ScoreConfig) -> Iterator[Scored]:
    """Each protocol's score with its shuffled labels; errors as in `neighbour_score`."""
    table = profiles.treatments if config.queries == "treatments" else _wells_to_match(profiles)
    for protocol in protocols_of(profiles, config):
        left_out = held_out(protocol)
        conventions = {
            "similarity": config.similarity,
            "dropped_mechanisms": config.dropped_mechanisms,
            "averaged_over": config.averaged_over,
        }
        drawn = {"n_bootstrap": config.bootstraps or BOOTSTRAPS, "seed": config.bootstrap_seed}
        if config.queries == "treatments" and protocol in ("NSC", "NSCB"):
            score = (nsc if protocol == "NSC" else nscb)(table, **conventions, **drawn)  # type: ignore[arg-type]
        else:
            score = neighbour_score(table, held_out=left_out, **conventions, **drawn)  # type: ignore[arg-type]
        shuffled = shuffled_label_test(
            table,
            held_out=left_out,
            n_shuffles=config.shuffles or SHUFFLES,
            seed=config.bootstrap_seed,
            **conventions,  # type: ignore[arg-type]
        )
        yield Scored(score, shuffled, config.queries)


def protocols_of(profiles: Profiles, config: ScoreConfig) -> tuple[str, ...]:
    """The protocols that were asked for; else NSC, and NSCB where some treatment can be counted by it."""
    if config.protocols:
        return config.protocols
    table = profiles.treatments if config.queries == "treatments" else _wells_to_match(profiles)
    return ("NSC", "NSCB") if can_be_counted(table, held_out("NSCB")) else ("NSC",)


def replicate_precision(profiles: Profiles, config: ScoreConfig) -> pd.DataFrame | None:
    """mAP of each treatment: do its wells find each other before the control wells? None without wells or controls.

    Positives of a treated well: other wells of its treatment. Negatives: control wells. On whitened wells.
    """
    if profiles.wells is None:
        return None
    role = metadata(profiles.whitened, ("role",))["role"]
    treatments = metadata(profiles.whitened, ("treatment",))["treatment"][role == "treated"]
    if not (role == "control").any() or treatments.is_unique:
        return None
    wells = profiles.whitened[role.isin(["treated", "control"]).to_numpy()]
    precisions = average_precision(
        wells, positive_same=["treatment"], negative_different=["role"], similarity=config.similarity
    )
    treated = precisions[precisions[METADATA["role"]] == "treated"]
    return mean_average_precision(treated, by=["treatment"], n_draws=config.null_draws, seed=config.bootstrap_seed)


def mechanism_precision(profiles: Profiles, config: ScoreConfig) -> pd.DataFrame | None:
    """mAP of each mechanism: do its treatments find each other before those of other mechanisms?

    Positives: same mechanism, another compound. Negatives: another mechanism, another compound. None where no
    mechanism has two compounds.
    """
    obs = metadata(profiles.treatments, ("moa", "role", "compound"))
    labelled = (obs["role"] == "treated") & (obs["moa"] != "")
    compounds = obs[labelled].groupby("moa")["compound"].nunique()
    if (compounds < 2).all() or len(compounds) < 2:
        return None
    precisions = average_precision(
        profiles.treatments[labelled.to_numpy()],
        positive_same=["moa"],
        positive_different=["compound"],
        negative_different=["moa", "compound"],
        similarity=config.similarity,
    )
    return mean_average_precision(precisions, by=["moa"], n_draws=config.null_draws, seed=config.bootstrap_seed)


def _wells_to_match(profiles: Profiles) -> AnnData:
    if profiles.wells is None:
        raise InputError("--queries wells: a row of this table is a treatment; expected rows of wells or cells")
    return profiles.whitened


def _checked(parts: Iterable[AnnData], config: TableConfig, left_out: dict[str, list[str]]) -> Iterator[AnnData]:
    """Each part without rows that repeat another number for number; InputError on such rows unless they may go.

    Another is a row of this part or of any before it: the same rows under two plates are found, too.
    """
    seen: set[bytes] = set()
    n_rows = 0
    for part in parts:
        n_rows += part.n_obs
        repeated = repeated_rows(np.asarray(part.X), seen=seen)
        if not repeated.any():
            yield part
            continue
        names = np.asarray(part.obs_names)[repeated]
        if config.duplicates == "refused":
            raise InputError(
                f'table: row "{names[0]}" repeats another row in all {part.n_vars} features ({len(names):,} such rows '
                f'of the {n_rows:,} read so far); remove them, or have them left out (--duplicates "left out")'
            )
        left_out.setdefault("rows that repeat another", []).extend(map(str, names))
        yield part[~repeated].copy()


def _one_table(parts: Iterable[AnnData]) -> AnnData:
    import anndata

    tables = list(parts)
    first = list(tables[0].var_names)
    for table in tables[1:]:
        if list(table.var_names) != first:
            other = next((name for name in table.var_names if name not in first), "another order or number")
            raise InputError(f'table: its parts have different features (first difference: "{other}")')
    table = tables[0] if len(tables) == 1 else anndata.concat(tables, merge="same")
    table.uns.update(tables[0].uns)
    return table


def sentence(names: Sequence[str]) -> str:
    """Up to three of the names, and how many more there are."""
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
