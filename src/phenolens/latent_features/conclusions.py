"""What the table of latent features shows, as values that the page's template puts into sentences.

The table has a row a used feature, the most used first, with the columns of `compute.feature_table`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from phenolens.morphology.features import short_name

FOLLOWS, LEANS = 0.5, 0.3  # rank correlation from which a feature follows a measure, closely or weakly
SIGNIFICANT = 0.05  # false-discovery rate
LEAST_SHARE = 0.05  # of a feature's variance, beyond chance, from which plates or batches differ
LEAST_CHANGE = 0.01  # of a measure, from which a moved feature changes it
NAMED = 3  # features named in a conclusion
GROUPS = {"treatment": "treatments", "batch": "batches", "plate": "plates"}


@dataclass(frozen=True)
class Conclusions:
    """What to conclude from the used features."""

    n_following: int  # features that follow a measure closely
    n_unrelated: int  # features that follow none, not even weakly
    following: list[tuple[str, str, float]]  # up to NAMED: feature, measure, rho
    groups: str | None  # batches or plates; None where neither could be tested
    batch_features: list[str]  # the strongest first
    most_treated: dict[str, float]  # up to NAMED: feature -> share of variance between treatments, beyond chance

    @property
    def named(self) -> list[str]:
        """The features that the conclusions name, each of which needs a strip."""
        followers = [name for name, _, _ in self.following]
        return list(dict.fromkeys([*followers, *self.batch_features[:NAMED], *self.most_treated]))


def conclude(used: pd.DataFrame) -> Conclusions:
    """Draw the conclusions from the table of used features."""
    strength = used["rho_1"].abs()
    followers = used[strength >= FOLLOWS].sort_values("rho_1", key=abs, ascending=False, kind="stable")
    best = followers.drop_duplicates("measure_1").head(NAMED)
    tested = used[["plate_q", "batch_q"]].notna().any(axis=None)
    differs = np.array([differs_between(row) is not None for _, row in used.iterrows()], bool)
    batch_features = used[differs].sort_values("plate_share", ascending=False, kind="stable")
    excess = (used["treatment_share"] - used["treatment_by_chance"]).dropna()
    most = excess.sort_values(ascending=False, kind="stable").head(NAMED)
    return Conclusions(
        n_following=len(followers),
        n_unrelated=int((~(strength >= LEANS)).sum()),
        following=[(str(name), short_name(row["measure_1"]), row["rho_1"]) for name, row in best.iterrows()],
        groups=None if not tested else "batches" if used["batch_q"].notna().any() else "plates",
        batch_features=list(map(str, batch_features.index)),
        most_treated={str(name): float(share) for name, share in most.items()},
    )


def differs_between(row: pd.Series) -> str | None:
    """`batches` or `plates` if a feature differs between them significantly and more than between treatments."""
    treatments = row["treatment_share"] - row["treatment_by_chance"]
    for kind in ("batch", "plate"):
        share = row[f"{kind}_share"] - row[f"{kind}_by_chance"]
        significant = row[f"{kind}_q"] < SIGNIFICANT and share >= LEAST_SHARE
        if significant and (math.isnan(treatments) or share > treatments):
            return GROUPS[kind]
    return None


def correlated_measures(row: pd.Series) -> list[tuple[str, float, int]]:
    """A feature's strongest significant correlations: measure, rho, number of cells."""
    return [
        (short_name(row[f"measure_{i}"]), row[f"rho_{i}"], int(row[f"n_{i}"]))
        for i in (1, 2, 3)
        if row[f"q_{i}"] < SIGNIFICANT and abs(row[f"rho_{i}"]) >= LEANS
    ]


def variance_shares(row: pd.Series) -> list[tuple[str, float, float]]:
    """The shares of a feature's variance that were tested: between which groups, share, share by chance."""
    shares = [(groups, row[f"{kind}_share"], row[f"{kind}_by_chance"]) for kind, groups in GROUPS.items()]
    return [one for one in shares if math.isfinite(one[1])]


def agrees(rho: float, first: float, last: float) -> bool | None:
    """Whether a measure that goes from `first` to `last` changes in the direction of the correlation.

    None if it changes by less than LEAST_CHANGE or is not known.
    """
    change = (last - first) * rho
    moves = abs(last - first) >= LEAST_CHANGE * max(abs(first), abs(last))
    return bool(change > 0) if moves and math.isfinite(change) and change else None


def strip_counts(agreements: Sequence[bool | None]) -> dict[str, int]:
    """How many moved features agree with their correlation, change their measure at all, and do not."""
    n_unchanged = sum(one is None for one in agreements)
    n_agree = sum(one is True for one in agreements)
    return {"n_agree": n_agree, "n_changed": len(agreements) - n_unchanged, "n_unchanged": n_unchanged}


def page_table(used: pd.DataFrame) -> pd.DataFrame:
    """The table of the page: a row a used feature, shares in percent."""
    use = {"KL, nats": used["kl_nats"].round(3)} if used["kl_nats"].notna().any() else {"variance": used["variance"]}
    strongest = {"strongest correlation": used["measure_1"].map(short_name), "ρ": used["rho_1"].round(2)}
    percent = {f"between {groups}, %": 100 * used[f"{kind}_share"].round(3) for kind, groups in GROUPS.items()}
    chance = {"between treatments by chance, %": 100 * used["treatment_by_chance"].round(3)}
    return pd.DataFrame({"feature": used.index, **use, **strongest, **percent, **chance})
