"""Shares with their 95 % intervals, of answers that share images and assessors.

A assessors who all answered, I images of one kind.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit  # scipy.stats takes more than a second to import

LEVEL = 0.95
NORMAL = float(ndtri((1 + LEVEL) / 2))  # 1.96


@dataclass(frozen=True)
class Interval:
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Crossed:
    """The variance of a mean over A assessors, split into where it comes from."""

    images: float  # had other images been drawn
    assessors: float  # had other assessors been asked, beyond what the images make
    freedom: float  # degrees of freedom of their sum, by Satterthwaite

    @property
    def variance(self) -> float:
        """Of the mean."""
        return self.images + self.assessors

    @property
    def quantile(self) -> float:
        """Student's, for a two-sided interval of LEVEL."""
        return float(stdtrit(self.freedom, (1 + LEVEL) / 2)) if np.isfinite(self.freedom) else NORMAL


def wilson(n_yes: float, n: float, *, quantile: float = NORMAL) -> Interval:
    """A share n_yes / n and its interval by Wilson (1927), which stays within 0 and 1 and never shrinks to nothing."""
    share, spread = n_yes / n, quantile**2 / n
    centre = (share + spread / 2) / (1 + spread)
    half = np.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    return Interval(share, max(0.0, float(centre - half)), min(1.0, float(centre + half)))


def crossed(values: np.ndarray, influence: np.ndarray, own: np.ndarray) -> Crossed:
    """The variance of the mean of `values` (A,), one a assessor, when all saw the same images.

    `influence` (A, I): how far each image moves each assessor's value; rows sum to 0. `own` (A,): the variance of each
    assessor's value, were the images alone drawn anew. Two-way clustering (Cameron, Gelbach and Miller 2011), with
    each part at least 0 and images never counted for less than independent ones, so that few answers give no false
    certainty. One assessor: nothing is known of others, and the variance is `own`.
    """
    n_assessors, n_images = influence.shape
    independent = float(own.sum()) / n_assessors**2
    if n_assessors == 1:
        return Crossed(independent, 0.0, np.inf)
    drift = n_images / max(n_images - 1, 1)
    images = max(float(np.square(influence.mean(axis=0)).sum()) * drift, independent)
    spread = float(np.var(values, ddof=1)) / n_assessors
    assessors = max(spread - independent, 0.0)
    if images + assessors == 0:
        return Crossed(0.0, 0.0, np.inf)
    freedom = (images + assessors) ** 2 / (images**2 / max(n_images - 1, 1) + assessors**2 / (n_assessors - 1))
    return Crossed(images, assessors, freedom)


def crossed_share(said: np.ndarray) -> Interval:
    """The share of True in `said` (A, I) and its interval, which holds for other images and other assessors.

    Wilson's, at the number of independent answers that would have the variance found by `crossed`. Where all answers
    are alike there is no variance to find, and the images are that number.
    """
    shares = said.mean(axis=1)
    share, n_images = float(said.mean()), said.shape[1]
    found = crossed(shares, (said - shares[:, None]) / n_images, shares * (1 - shares) / n_images)
    if found.variance == 0:
        return wilson(share * n_images, n_images)
    n_effective = min(share * (1 - share) / found.variance, float(said.size))
    return wilson(share * n_effective, n_effective, quantile=found.quantile)


def wider_share(said: np.ndarray) -> Interval:
    """The share of True in `said` (A, I) of few images: the wider of `crossed_share` and Wilson's of I answers.

    So neither many assessors narrow what few images show, nor does their number hide that assessors differ.
    """
    found, plain = crossed_share(said), wilson(said.mean() * said.shape[1], said.shape[1])
    return Interval(found.value, min(found.low, plain.low), max(found.high, plain.high))
