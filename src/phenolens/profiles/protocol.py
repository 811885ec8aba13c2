"""How a table was scored, in words that another lab can follow without our code.

The text is made from the very settings and objects that made the scores.
"""

from __future__ import annotations

from collections.abc import Sequence

from phenolens.profiles.evaluate import BOOTSTRAPS, SHUFFLES, Profiles, ScoreConfig, TableConfig, held_out, protocols_of
from phenolens.profiles.harmony import certificate_of
from phenolens.profiles.profiles import TRIMMED_SHARE, metadata
from phenolens.profiles.recipe import Recipe

LISTED = 1000  # names in a list at most
DISTANCES = {"cosine": "1 - cosine", "pearson": "1 - Pearson correlation", "euclidean": "Euclidean distance"}


def protocol_text(
    profiles: Profiles,
    *,
    config: TableConfig,
    recipe: Recipe,
    score: ScoreConfig,
    made_from: Sequence[str] = (),
    precisions: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> str:
    """A page of Markdown: rows, scale, whitening with its certificates, treatments, scores, what was left out.

    `made_from` says which file and columns, `precisions` of what mAP was computed ("treatments", "mechanisms"), `notes`
    what was taken for granted when the table was read.
    """
    obs = metadata(profiles.whitened, ("role", "plate", "batch", "treatment"))
    roles = obs["role"].value_counts()
    n_treated, n_control = int(roles.get("treated", 0)), int(roles.get("control", 0))
    what = "treatments" if profiles.rows == "treatments" else "wells"
    lines = [
        "# How these scores were made",
        "",
        *[line for part in made_from for line in (part, "")],
        f"Scored rows: {profiles.whitened.n_obs:,} {what} on {obs['plate'].nunique()} plates in "
        f"{obs['batch'].nunique()} batches: {n_treated:,} treated, {n_control:,} control, "
        f"{profiles.whitened.n_obs - n_treated - n_control:,} other. {len(profiles.whitening.features):,} features "
        "(last section).",
        "",
        *_numbered(
            [
                *_of_wells(profiles, config),
                *_of_scale(recipe),
                *_of_whitening(profiles, config, recipe),
                *_of_coral(recipe),
                *_of_harmony(config),
                *_of_treatments(profiles, config),
                *_of_scores(profiles, score),
                *_of_doubt(score),
                *_of_precision(precisions, score),
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
        + (f" {_trimmed('cells')}" if "trimmed" in config.statistics.split("+") else "")
    ]


def _trimmed(what: str) -> str:
    share = f"{100 * TRIMMED_SHARE:g} %"
    return (
        f"trimmed: the mean without the lowest and the highest {share}, their number rounded down, so that of fewer "
        f"than {1 / TRIMMED_SHARE:g} {what} nothing is left out."
    )


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


def _of_whitening(profiles: Profiles, config: TableConfig, recipe: Recipe) -> list[str]:
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
        f"eigenvalues and eigenvectors of {estimate}{kept}." + _of_axes(profiles, config, recipe)
    ]


def _of_axes(profiles: Profiles, config: TableConfig, recipe: Recipe) -> str:
    """What hangs on the eigensolver: a mean over wells, like every distance, is the same however axes are turned."""
    n_features = len(profiles.whitening.features)
    kept = min(recipe.n_components or n_features, n_features)
    spanned = all(certificate.rank >= kept for certificate in profiles.whitening.certificates)
    turned = recipe.whitening == "pca" and profiles.rows != "treatments" and config.well_statistic != "mean"
    if spanned or not turned:
        return ""
    return (
        " The rows learnt on do not span all directions. The axes of the others are whatever the eigensolver returns, "
        f"and a {config.well_statistic} over wells hangs on them: another eigensolver or order of the columns changes "
        "distances (by about 2e-4 with ridge 1 on the 449 features of Ljosa et al. 2013; by more with a smaller ridge)."
    )


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
        + (f" {_trimmed('wells')}" if config.well_statistic == "trimmed" else "")
    ]


def _of_scores(profiles: Profiles, score: ScoreConfig) -> list[str]:
    stay = "stay candidates" if score.dropped_mechanisms == "stay" else "are no candidates either"
    each = "treatment" if score.queries == "treatments" else "well"
    lines = [
        f"{protocol}: each {each} with a mechanism is given that of its nearest neighbour by "
        f"{DISTANCES[score.similarity]} among the other {each}s with a mechanism (no controls) that do not share its "
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
    return [
        f"Interval: 95 % percentiles over {score.bootstraps or BOOTSTRAPS:,} resamplings of compounds with replacement "
        f"(seed {score.bootstrap_seed}), neighbours kept. Shuffled labels: mechanisms dealt anew to compounds, "
        f"{score.shuffles or SHUFFLES:,} times (same seed); p is the share of shuffles that reach the accuracy, 1 "
        "added above and below. Chance: the mean share of a query's candidates that have its mechanism."
    ]


def _of_precision(precisions: Sequence[str], score: ScoreConfig) -> list[str]:
    """How mAP was computed, of each kind that was."""
    ranked = {
        "treatments": "each treated well, after scale and whitening, ranks the other wells of its treatment "
        "(positives) and all control wells (negatives)",
        "mechanisms": "each treatment with a mechanism ranks those of its mechanism and another compound (positives) "
        "and those of another mechanism and another compound (negatives)",
    }
    of = {
        "treatments": "a treatment's mAP is the mean over its wells",
        "mechanisms": "a mechanism's that over its treatments",
    }
    if not precisions:
        return []
    each = "; ".join(ranked[what] for what in precisions)
    return [
        f"mAP of {' and of '.join(precisions)} (Kalinin et al. 2025): {each}; "
        f"by {DISTANCES[score.similarity]} in single precision, positives first in a tie. Average precision: the mean, "
        "over the positives, of positives so far / rank; "
        + "; ".join(of[what] for what in precisions)
        + ". p is the share of "
        f"{score.null_draws:,} random rankings of as many positives among as many (seed {score.bootstrap_seed}; equal "
        "counts share their draws) that reach the mean, 1 added above and below; corrected_p_value is that after "
        "Benjamini and Hochberg over all rows of the table."
    ]


def _numbered(lines: Sequence[str]) -> list[str]:
    return [f"{number}. {line}" for number, line in enumerate(lines, start=1)]


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
