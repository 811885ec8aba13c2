"""What the table of latent features says, in sentences: what to conclude, and each feature's own.

The table has a row a used feature, the most used first, with the columns of `latent_features/compute.py`.
"""

import math
from collections.abc import Sequence

import pandas as pd

from phenolens.models.vaeplus import ACTIVE_NATS
from phenolens.morphology.features import describe

LEAST_MOVE = 0.01  # share of a measure by which a moved feature must change it to count as changing it
FOLLOWS, LEANS = 0.5, 0.3  # a rank correlation from which a feature follows a measure, or leans towards it
SURE = 0.05  # false-discovery rate
LEAST_SHARE = 0.05  # of a feature's variance, beyond chance, from which plates or batches are said to differ
NAMED = 3  # features named in a conclusion
PLURALS = {"treatment": "treatments", "batch": "batches", "plate": "plates"}


def verdict(table: pd.DataFrame) -> str:
    """How many of all features are used, in a sentence or two."""
    n, of = int(table["used"].sum()), len(table)
    if table["kl_nats"].isna().all():
        return f"{n} of {of} features vary by more than a hundredth of the one that varies most."
    return f"{n} of {of} features are used; together the embedding says {table['kl_nats'].sum():.0f} nats about a cell."


def conclusions(used: pd.DataFrame, *, n_measures: int) -> list[str]:
    """What to conclude, and what to do next, each a sentence or two."""
    if used.empty:
        return ["No feature is used: the embedding has collapsed. Train again with a lower --beta."]
    return [_followed(used, n_measures), _of_batches(used), _of_treatments(used)]


def of_strips(agree: Sequence[bool | None], *, n_unshown: int) -> list[str]:
    """What to conclude from the strips, of each whether it `agrees`, and how many features have none."""
    said, n_still = [], sum(answer is None for answer in agree)
    n_agree, n_moved = sum(answer is True for answer in agree), len(agree) - n_still
    if n_moved:
        said.append(
            f"Moved alone, {n_agree} of {n_moved} features with a strip change the decoded cell the way their "
            "strongest correlation says (half would by chance); where one does not, features share the work: trust the "
            "correlation as a name only where the strip agrees."
        )
    if n_still:
        said.append(
            f"Of {n_still} with a strip the measure hardly changes (less than {100 * LEAST_MOVE:g} %) or is not there."
        )
    if n_unshown:
        said.append(f"{n_unshown} used features have no strip here; the table lists them, and --strips shows more.")
    return said


def listed_table(used: pd.DataFrame) -> pd.DataFrame:
    """The table of the page: a row a used feature, shares as percent."""
    percent = {f"between {plural}, %": 100 * used[f"{kind}_share"].round(3) for kind, plural in PLURALS.items()}
    use = {"KL, nats": used["kl_nats"].round(3)} if used["kl_nats"].notna().any() else {"variance": used["variance"]}
    names = [_name(measure) for measure in used["measure_1"]]
    going = {"goes most with": names, "ρ": used["rho_1"].round(2)}
    chance = {"between treatments by chance, %": 100 * used["treatment_by_chance"].round(3)}
    return pd.DataFrame({"feature": used.index, **use, **going, **percent, **chance})


def how(*, n_cells: int, shuffles: int, frames: int) -> list[tuple[str, str]]:
    """Each word of the page and how it was measured."""
    return [
        (
            "KL",
            f"how far the feature's posterior is from the prior, nats, mean over {n_cells:,} random cells. More than "
            f"{ACTIVE_NATS} counts as used. A model without a prior has none; there the variance over all cells tells.",
        ),
        (
            "ρ",
            f"Spearman's rank correlation with a measured feature of the same cells, over {n_cells:,} random cells of "
            "all treatments. Cells flagged as noise are left out, and cells in which it could not be measured.",
        ),
        (
            "False-discovery rate",
            "of a correlation, over all pairs of feature and measure (Benjamini and Hochberg). It "
            "takes cells for independent; those of a well are not, so look at ρ first.",
        ),
        (
            "Share of variance",
            "eta squared, over all cells between treatments; over control cells, where no treatment can be why, "
            f"between batches and plates. By chance: its mean over {shuffles:,} deals of whole wells to the groups.",
        ),
        (
            "Batch feature",
            f"the share between batches or plates is at least {LEAST_SHARE:.0%} beyond chance, more than that between "
            f"treatments, and sure (false-discovery rate over the used features below {SURE:.0%}).",
        ),
        (
            "Strip",
            f"one real control cell, the feature moved in {frames} steps from the 2nd to the 98th percentile of all "
            "cells, the other features as they are; what is decoded is what the model draws, not what was imaged.",
        ),
    ]


def title_of(row: pd.Series) -> str:
    """What a feature is, in a few words."""
    kinds = [kind for kind in ("batch", "plate") if is_between(row, kind)]
    if kinds:
        return f"Differs between {PLURALS[kinds[0]]} more than between treatments, beyond chance."
    rho = row["rho_1"]
    if math.isnan(rho) or abs(rho) < LEANS:
        return "Follows none of the measures: look at its strip."
    return f"{'Follows' if abs(rho) >= FOLLOWS else 'Leans towards'} {_name(row['measure_1'])} (ρ {_signed(rho)})."


def sentences_of(row: pd.Series) -> list[str]:
    """Each feature's own sentences: use, correlations, and where it differs."""
    said = [f"KL {row['kl_nats']:.2f} nats." if math.isfinite(row["kl_nats"]) else f"Variance {row['variance']:.3g}."]
    going = [
        f"{_name(row[f'measure_{i}'])} (ρ {_signed(row[f'rho_{i}'])}, n {row[f'n_{i}']:,.0f})"
        for i in (1, 2, 3)
        if row[f"q_{i}"] < SURE and abs(row[f"rho_{i}"]) >= LEANS
    ]
    if going:
        said.append(f"Goes with {', '.join(going)}.")
    elif math.isfinite(row["rho_1"]):
        said.append(f"Strongest of all: {_name(row['measure_1'])} (ρ {_signed(row['rho_1'])}).")
    said += [_shares(row)]
    return [sentence for sentence in said if sentence]


def moved_words(row: pd.Series, first: float, last: float) -> str:
    """What a feature's strongest measure does in the decoded cell as it is moved; empty where it was not measured."""
    answer = agrees(row, first, last)
    if not math.isfinite(first + last):
        return ""
    other = {True: "", False: ", not the way real cells go", None: ", so hardly at all"}[answer]
    ends = f"from {_rounded(first)} to {_rounded(last)}"
    return f"Moved as below, the decoded cell's {describe(row['measure_1'])}: {ends}{other}."


def agrees(row: pd.Series, first: float, last: float) -> bool | None:
    """Whether the decoded cell's measure goes the way of the correlation; None where it hardly moves or is unknown."""
    change = (last - first) * row["rho_1"]
    moves = abs(last - first) >= LEAST_MOVE * max(abs(first), abs(last))
    return bool(change > 0) if moves and math.isfinite(change) and change else None


def is_between(row: pd.Series, kind: str) -> bool:
    """Whether a feature differs surely between plates or batches, and more so than between treatments."""
    share = row[f"{kind}_share"] - row[f"{kind}_by_chance"]
    treatments = row["treatment_share"] - row["treatment_by_chance"]
    surely = row[f"{kind}_q"] < SURE and share >= LEAST_SHARE
    return bool(surely and (math.isnan(treatments) or share > treatments))


def named_features(used: pd.DataFrame) -> list[str]:
    """The features that conclusions name, which must have a strip."""
    named = [*_followers(used).index, *_between_batches(used).index[:NAMED], *_most_treated(used).index]
    return list(dict.fromkeys(map(str, named)))


def _followers(used: pd.DataFrame) -> pd.DataFrame:
    """Of the measures that features follow most closely, the feature of each that follows it best."""
    ranked = used[used["rho_1"].abs() >= FOLLOWS]
    return ranked.sort_values("rho_1", key=abs, ascending=False, kind="stable").drop_duplicates("measure_1").head(NAMED)


def _between_batches(used: pd.DataFrame) -> pd.DataFrame:
    """Batch features, those that differ most first."""
    marked = used[[is_between(row, "batch") or is_between(row, "plate") for _, row in used.iterrows()]]
    return marked.sort_values("plate_share", ascending=False, kind="stable")


def _most_treated(used: pd.DataFrame) -> pd.Series:
    """The shares of the features that differ most between treatments, beyond chance; empty where it cannot be told."""
    excess = (used["treatment_share"] - used["treatment_by_chance"]).dropna()
    return excess.sort_values(ascending=False, kind="stable").head(NAMED)


def _followed(used: pd.DataFrame, n_measures: int) -> str:
    n, none = int((used["rho_1"].abs() >= FOLLOWS).sum()), int((~(used["rho_1"].abs() >= LEANS)).sum())
    rest = f" {none} follow none of the {n_measures} measures (|ρ| below {LEANS})." if none else ""
    best = _followers(used)
    if best.empty:
        return f"No feature follows one measure closely (|ρ| {FOLLOWS} or more).{rest}"
    named = [f"{name} follows {_name(row['measure_1'])} (ρ {_signed(row['rho_1'])})" for name, row in best.iterrows()]
    return f"{n} of {len(used)} follow a measure closely (|ρ| {FOLLOWS} or more): {'; '.join(named)}.{rest}"


def _of_batches(used: pd.DataFrame) -> str:
    if used[["plate_q", "batch_q"]].isna().all(axis=None):
        return "Whether plates or batches differ cannot be told: too few control wells, or one plate only."
    kind = "batch" if used["batch_q"].notna().any() else "plate"
    plural, marked = PLURALS[kind], _between_batches(used)
    if marked.empty:
        return f"No feature is seen to differ between {plural} (controls alone) more than between treatments."
    n, first = len(marked), ", ".join(map(str, marked.index[:NAMED]))
    which = f"{first} and {n - NAMED} others differ" if n > NAMED else f"{first} {'differs' if n == 1 else 'differ'}"
    return (
        f"{which} between {plural} more than between treatments, beyond chance: {n} batch feature"
        f"{'' if n == 1 else 's'}. Trust NSCB, which leaves a treatment's own batches out, over NSC."
    )


def _of_treatments(used: pd.DataFrame) -> str:
    most = _most_treated(used)
    if most.empty:
        return "How treatments differ cannot be told against chance: hardly more wells than treatments."
    named = ", ".join(f"{name} ({100 * share:.0f} %)" for name, share in most.items())
    return f"Treatments differ most in {named}: the share of a feature's variance between treatments, beyond chance."


def _shares(row: pd.Series) -> str:
    """`Between treatments 31 % of its variance (chance 3 %), between batches of controls 2 % (chance 1 %).`."""
    parts = [
        f"between {plural} {100 * row[f'{kind}_share']:.0f} % (chance {100 * row[f'{kind}_by_chance']:.0f} %)"
        for kind, plural in PLURALS.items()
        if math.isfinite(row[f"{kind}_share"])
    ]
    return f"Share of its variance {', '.join(parts)}." if parts else ""


def _name(measure: str) -> str:
    """`nucleus area` of `nucleus area, px²`."""
    if measure == "nucleus_share":  # of two areas: its unit is part of its name
        return "the nucleus' share of the cell area"
    return describe(measure).split(",")[0]


def _rounded(value: float) -> str:
    """`3,510`, `0.335`: three digits at least."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
