"""What a whitening achieved on the rows it was fitted on: their rank, and how far their covariance is from identity.

Z features, K directions that are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from phenolens.core.counted import counted

if TYPE_CHECKING:
    from phenolens.profiles.whitening import Recipe

NOT_WHITENED = "not whitened"


@dataclass(frozen=True)
class Certificate:
    """What one whitening achieved on the rows it was fitted on."""

    group: str  # "all", or the batch or plate
    n_rows: int  # rows fitted on (controls)
    n_features: int
    rank: int  # directions in which those rows themselves vary, whatever the estimate of their covariance
    ridge: float  # absolute, as added to the eigenvalues
    condition_number: float  # of the regularised covariance over the directions kept
    largest_deviation: float  # of those rows' covariance from identity, after the transform
    remarks: tuple[str, ...]  # limits of this fit, one sentence each
    # Smallest and largest variance after the transform along the kept directions that those rows span; 1 is white. For
    # the sample covariance with a ridge it is s / (s + ridge), s the variance before. None in files of older versions.
    spanned_variance: tuple[float, float] | None = None

    def __str__(self) -> str:
        """The certificate as one line."""
        whitened = NOT_WHITENED not in self.remarks
        shape = f"{counted(self.n_rows, 'row')}, {counted(self.n_features, 'feature')}"
        line = f"{self.group}: fitted on {shape}, rank {self.rank}"
        if whitened:
            line += f", ridge {self.ridge:g}, condition number {self.condition_number:.3g}, "
        else:
            line += f"; {NOT_WHITENED}: "
        line += f"covariance deviates from identity by at most {self.largest_deviation:.3g}"
        if self.spanned_variance is not None:
            least, most = self.spanned_variance
            line += f"; along the kept directions that they span, variance is {least:.3g} to {most:.3g} (white: 1)"
        return "; ".join((line, *(self.remarks if whitened else ())))


def certificate_of(
    group: str,
    values: np.ndarray,
    kept: np.ndarray,
    achieved: np.ndarray,
    spanned: np.ndarray,
    *,
    n_rows: int,
    rank: int,
    ridge: float,
    recipe: Recipe,
) -> Certificate:
    """The certificate of a fit.

    Args:
        group: what was fitted together: "all", or the batch or plate.
        values: (Z,) eigenvalues of the estimated covariance, the largest first.
        kept: (K,) those of the kept directions, with the ridge.
        achieved: (K, K) covariance of the rows after the transform.
        spanned: variances after the transform along the kept directions that the rows span, the largest first.
        n_rows: rows fitted on.
        rank: directions in which these rows vary.
        ridge: absolute, as added to the eigenvalues.
        recipe: how it was fitted.
    """
    return Certificate(
        group=group,
        n_rows=n_rows,
        n_features=len(values),
        rank=rank,
        ridge=ridge,
        condition_number=float(kept[0] / kept[-1]) if kept[-1] > 0 else float("inf"),
        largest_deviation=float(np.abs(achieved - np.eye(len(achieved))).max()),
        remarks=_remarks(n_rows, len(values), rank, len(kept), ridge, float(values[-1]), recipe),
        spanned_variance=(float(spanned.min()), float(spanned.max())) if len(spanned) else None,
    )


def _remarks(
    n: int, n_features: int, rank: int, n_kept: int, ridge: float, least: float, recipe: Recipe
) -> tuple[str, ...]:
    """The limits of a fit, one sentence each; `least` is the smallest eigenvalue of the estimate."""
    if recipe.whitening == "none":
        return (NOT_WHITENED,)
    if rank >= n_kept:
        return ()
    rows = "controls" if recipe.learnt_on == "controls" else "rows"
    divided = f"the root of the ridge ({ridge:g})"
    if recipe.estimate == "ledoit-wolf":
        divided = f"the root of the Ledoit-Wolf estimate plus the ridge ({least:.3g} + {ridge:g})"
    unknown = (
        f"{n} {rows} vary in {rank} of {n_features} directions: the spread in the other {n_kept - rank} is "
        f"unknown, so they are only divided by {divided}"
    )
    if recipe.whitening == "zca":
        return (unknown,)
    return unknown, "the axes of those directions are arbitrary, so a median over wells depends on them (not with zca)"
