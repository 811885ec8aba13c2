"""The blinded test's design: which cells are shown as they are, which redrawn by the model, and what that can show.

N cells of a study, n real and n synthetic pictures. Lafarge et al. 2019, section 4.3.2: 50 and 50.

A assessors who all answered, I images of one kind.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import ndtri, stdtrit  # scipy.stats takes more than a second to import

from phenolens.core.errors import InputError

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


PAPER_PASS_RATE = 0.407  # of VAE+'s synthetic cells taken for real; Lafarge et al. 2019
CYTOGAN_PASS_RATE = 0.30  # of CytoGAN's, as the paper quotes it
POWER = 0.8  # chance of telling an assessor of the detectable d' from one who guesses, at 5 %, two-sided


@dataclass(frozen=True)
class Power:
    """What n real and n synthetic pictures can show of one assessor."""

    n: int
    half_width: float  # of the 95 % interval of the pass rate, where that is the paper's
    detectable_d: float  # smallest d' that is told from 0 with a chance of POWER


def power(n: int) -> Power:
    """The power of a test of n real and n synthetic pictures.

    d' near 0 has the variance pi / n: two rates of 1/2, each with 1/(4n), over the normal density at 0 squared
    (Gourevitch and Galanter 1967).
    """
    rate = wilson(PAPER_PASS_RATE * n, n)
    detectable = (NORMAL + ndtri(POWER)) * np.sqrt(np.pi / n)
    return Power(n, (rate.high - rate.low) / 2, float(detectable))


def balanced_design(
    treatments: np.ndarray, *, controls: frozenset[str], n: int, seed: int, views: int = 1
) -> pd.DataFrame:
    """Which cells are shown, and how: `row` (into `treatments`), `treatment`, `is_synthetic`, `view`; n rows a kind.

    `treatments` (N,) names each cell's treatment, empty for cells that are not to be shown; a control is one
    treatment among the others, and always shown. Real and synthetic pictures have the same number of cells of every
    treatment, so that a phenotype tells nothing, and numbers of two treatments differ by one at most where there are
    cells enough. Each pair is shown in one of the `views`, numbered from 0: as many in each as n allows, and of every
    treatment too, so that views can be compared. No cell is shown twice, so none with both faces. The rows come in an
    order that tells nothing.
    InputError when there are fewer than 2n cells in pairs.
    """
    if n < 1:
        raise InputError(f"{n} pictures of each kind: expected at least 1")
    chance = np.random.default_rng([seed, n])
    names = [name for name in np.unique(treatments.astype(str)) if name]
    left = {name: list(chance.permutation(np.flatnonzero(treatments == name))) for name in names}
    rows: list[tuple[int, str, bool]] = []
    while len(rows) < 2 * n:
        able = [name for name in names if len(left[name]) > 1]
        if not able:
            raise InputError(
                f"{n} real and {n} synthetic cells: the study's treatments have cells for {len(rows) // 2} of each; "
                f"give --n {len(rows) // 2} or fewer"
            )
        mixed = [able[place] for place in chance.permutation(len(able))]
        turn = sorted(mixed, key=lambda name: name not in controls)  # controls are not missed by a short test
        for name in turn[: n - len(rows) // 2]:
            rows += [(int(left[name].pop()), name, is_synthetic) for is_synthetic in (False, True)]
    table = pd.DataFrame(rows, columns=["row", "treatment", "is_synthetic"])
    order = chance.permutation(len(table))
    # dealt in turn, one treatment after the other: dealt over rounds of treatments, a control would have one view alone
    places = {name: place for place, name in enumerate(chance.permutation(names))}
    by_treatment = np.argsort(table["treatment"].map(places).to_numpy()[::2], kind="stable")  # of the pairs
    view = np.empty(n, int)
    view[by_treatment] = np.arange(n) % views
    return table.assign(view=np.repeat(view, 2)).iloc[order].reset_index(drop=True)
