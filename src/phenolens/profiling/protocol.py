"""How a table was scored, in words that another lab can follow without our code.

The text is made from the very settings and objects that made the scores.
"""

from __future__ import annotations

from collections.abc import Sequence

from phenolens.profiling.evaluation import SHUFFLES, Profiles, ScoreConfig, TableConfig, held_out, protocols_of
from phenolens.profiling.harmony import certificate_of
from phenolens.profiling.profiles import metadata
from phenolens.profiling.recipe import Recipe

LISTED = 1000  # names in a list at most


def protocol_text(
    profiles: Profiles, *, config: TableConfig, recipe: Recipe, score: ScoreConfig, notes: Sequence[str] = ()
) -> str:
    """A page of Markdown: rows, scale, whitening with its certificates, treatments, scores, what was left out.

    `notes` say what was taken for granted when the table was read.
    """
    obs = metadata(profiles.whitened, ("role", "plate", "batch", "treatment"))
    roles = obs["role"].value_counts()
    n_treated, n_control = int(roles.get("treated", 0)), int(roles.get("control", 0))
    what = "treatments" if profiles.rows == "treatments" else "wells"
    lines = [
        "# How these scores were made",
        "",
        f"Scored rows: {profiles.whitened.n_obs:,} {what} on {obs['plate'].nunique()} plates in "
        f"{obs['batch'].nunique()} batches: {n_treated:,} treated, {n_control:,} control, "
        f"{profiles.whitened.n_obs - n_treated - n_control:,} other. {len(profiles.whitening.features):,} features "
        "(last section).",
        "",
        *_numbered(
            [
                *_of_wells(profiles, config),
                *_of_scale(recipe),
                *_of_whitening(recipe),
                *_of_coral(recipe),
                *_of_harmony(config),
                *_of_treatments(profiles, config),
                *_of_scores(profiles, score),
                *_of_doubt(score),
            ]
        ),
        "",
        *[f"Note: {note}." for note in notes],
        *([""] if notes else []),
        "## What the whitening achieved",
        "",
        *[f"- {certificate}" for certificate in profiles.whitening.certificates],
        *(["- nothing was learnt"] if not profiles.whitening.certificates else []),
        *([f"- Harmony: {certificate_of(profiles.treatments)}"] if config.harmony != "none" else []),
        "",
        "## Left out",
        "",
        *[f"- {why} ({len(names):,}): {_list(names)}" for why, names in profiles.left_out.items()],
        *(["- nothing"] if not profiles.left_out else []),
        "",
        "## Features",
        "",
        _list(list(profiles.whitening.features)),
    ]
    return "\n".join(lines) + "\n"


def _of_wells(profiles: Profiles, config: TableConfig) -> list[str]:
    if profiles.rows != "cells":
        return []
    return [
        f"Well profile: {config.statistics.replace('+', ' and ')} over the well's cells, feature by feature, side by "
        f"side (sd divided by n; mad not rescaled). Wells with fewer than {config.min_cells} cells are left out."
    ]


def _of_scale(recipe: Recipe) -> list[str]:
    learnt = "the control rows" if recipe.learnt_on == "controls" else "all rows"
    over = "" if recipe.scaled_over == "all" else f" of the same {recipe.scaled_over}"
    formula = {
        "zscore": "minus the mean, divided by the standard deviation (n - 1)",
        "robust": "minus the median, divided by 1.4826 x the median absolute deviation",
        "centre": "minus the mean",
    }
    if recipe.scaling == "none":
        return ["Scale: features as they are."]
    return [f"Scale: each feature {formula[recipe.scaling]} of {learnt}{over}."]


def _of_whitening(recipe: Recipe) -> list[str]:
    if recipe.whitening == "none":
        return ["Not whitened."]
    learnt = "the control rows" if recipe.learnt_on == "controls" else "all rows"
    over = "" if recipe.whitened_over == "all" else f" of the same {recipe.whitened_over}"
    estimate = (
        "their covariance (divided by n)"
        if recipe.estimate == "sample"
        else "the Ledoit-Wolf estimate of their covariance (2004, towards a multiple of identity)"
    )
    ridge = f"{recipe.ridge:g}" if recipe.ridge_unit == "absolute" else f"{recipe.ridge:g} x the mean eigenvalue"
    kept = "" if recipe.n_components is None else f", V the {recipe.n_components} leading ones alone"
    rotated = ", then rotated back by V' (ZCA)" if recipe.whitening == "zca" else " (PCA, not rotated back)"
    return [
        f"Whitening: x <- (x - m) V / sqrt(s + {ridge}){rotated}; m the mean of {learnt}{over}, s and V the "
        f"eigenvalues and eigenvectors of {estimate}{kept}."
    ]


def _of_coral(recipe: Recipe) -> list[str]:
    if recipe.coral == "none":
        return []
    return [
        f"Alignment (TVN, CORAL): in each {recipe.coral} b, x <- x (S_b + I)^(-1/2) (S + I)^(1/2); S_b and S the "
        "second moments about 0 (divided by n) of the control rows of b and of all control rows."
    ]


def _of_harmony(config: TableConfig) -> list[str]:
    if config.harmony == "none":
        return []
    return [
        f"Harmony (harmony-pytorch, its defaults, seed {config.harmony_seed}) over {config.harmony}, on all rows, "
        "treated ones too: a treatment that is in one of them alone may lose what is its own."
    ]


def _of_treatments(profiles: Profiles, config: TableConfig) -> list[str]:
    if profiles.rows == "treatments":
        return ["Treatments: the rows as they are."]
    counted = "and, of the same treatment, positive controls " if config.positive_controls == "counted" else ""
    return [
        f"Treatment profile: {config.well_statistic} over its treated wells {counted}after all of the above "
        f"({profiles.treatments.n_obs:,} treatments). Controls are in no treatment."
    ]


def _of_scores(profiles: Profiles, score: ScoreConfig) -> list[str]:
    distance = {"cosine": "1 - cosine", "pearson": "1 - Pearson correlation", "euclidean": "Euclidean distance"}
    stay = "stay candidates" if score.dropped_mechanisms == "stay" else "are no candidates either"
    each = "treatment" if score.queries == "treatments" else "well"
    lines = [
        f"{protocol}: each {each} with a mechanism is given that of its nearest neighbour by "
        f"{distance[score.similarity]} among the other {each}s with a mechanism (no controls) that do not share its "
        f"{' or '.join(held_out(protocol))}."
        for protocol in protocols_of(profiles, score)
    ]
    return [
        *lines,
        f"A query with no candidate of its own mechanism is not counted; mechanisms no query can find {stay}. Ties go "
        "to the smaller by compound, concentration, name. Accuracy: right / counted"
        + (", each compound one vote." if score.averaged_over == "compounds" else f" {each}s."),
    ]


def _of_doubt(score: ScoreConfig) -> list[str]:
    n_shuffles = score.shuffles or SHUFFLES
    return [
        f"Interval: 95 % percentiles over resamplings of compounds with replacement (seed {score.bootstrap_seed}), "
        f"neighbours kept. Shuffled labels: mechanisms dealt anew to compounds, {n_shuffles:,} times; p is the share "
        "of shuffles that reach the accuracy, 1 added above and below."
    ]


def _numbered(lines: Sequence[str]) -> list[str]:
    return [f"{number}. {line}" for number, line in enumerate(lines, start=1)]


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
