"""Statistics of a blinded test: pass rate, false-alarm rate, d' and criterion, agreement, each with a 95 % interval.

A assessors who judged all I pictures. Synthetic is the signal: a hit is a synthetic cell judged synthetic, a false
alarm a real cell judged synthetic. Assessors see the same pictures, so answers are not independent.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import ndtri, stdtrit  # importing scipy.stats takes more than a second

ANSWERS = {
    "assessor": "name of the assessor",
    "item": "number of the picture",
    "treatment": "of the cell",
    "mechanism": "of the treatment; `control` for controls, empty where unknown",
    "shown": "the channels in the picture",
    "is_synthetic": "whether the picture is a reconstruction",
    "said_synthetic": "the answer",
    "seconds": "from sending the picture to the answer; empty where the clock was turned back",
}
LEVEL = 0.95
NORMAL = float(ndtri((1 + LEVEL) / 2))  # 1.96
KAPPA_DRAWS = 2000
PAPER_PASS_RATE = 0.407  # share of VAE+'s synthetic cells judged real; Lafarge et al. 2019
CYTOGAN_PASS_RATE = 0.30  # of CytoGAN's, as quoted there
POWER = 0.8  # chance of finding the smallest d' that a test can show


@dataclass(frozen=True)
class Interval:
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ClusteredVariance:
    """The variance of a mean over assessors, by source."""

    pictures: float  # between samples of pictures
    assessors: float  # between samples of assessors, beyond what the pictures cause
    freedom: float  # degrees of freedom of the sum (Satterthwaite)

    @property
    def total(self) -> float:
        """The variance of the mean."""
        return self.pictures + self.assessors

    @property
    def quantile(self) -> float:
        """Student's quantile for a two-sided interval of LEVEL."""
        return float(stdtrit(self.freedom, (1 + LEVEL) / 2)) if np.isfinite(self.freedom) else NORMAL


def clustered_variance(values: np.ndarray, influence: np.ndarray, own: np.ndarray) -> ClusteredVariance:
    """The variance of the mean of `values` when all assessors saw the same pictures.

    Two-way clustering (Cameron, Gelbach and Miller 2011). Each part is at least 0, and pictures never count for less
    than independent ones, so that few answers give no false certainty. For one assessor the variance is `own`.

    Args:
        values: (A,) one value per assessor.
        influence: (A, I) how far each picture moves each assessor's value; rows sum to 0.
        own: (A,) variance of each assessor's value over samples of pictures.
    """
    n_assessors, n_pictures = influence.shape
    independent = float(own.sum()) / n_assessors**2
    if n_assessors == 1:
        return ClusteredVariance(independent, 0.0, np.inf)
    correction = n_pictures / max(n_pictures - 1, 1)
    pictures = max(float(np.square(influence.mean(axis=0)).sum()) * correction, independent)
    assessors = max(float(np.var(values, ddof=1)) / n_assessors - independent, 0.0)
    if pictures + assessors == 0:
        return ClusteredVariance(0.0, 0.0, np.inf)
    freedom = (pictures + assessors) ** 2 / (pictures**2 / max(n_pictures - 1, 1) + assessors**2 / (n_assessors - 1))
    return ClusteredVariance(pictures, assessors, freedom)


def wilson(n_yes: float, n: float, *, quantile: float = NORMAL) -> Interval:
    """The share n_yes / n with Wilson's (1927) interval, which stays within 0 and 1."""
    share, spread = n_yes / n, quantile**2 / n
    centre = (share + spread / 2) / (1 + spread)
    half = np.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    return Interval(share, max(0.0, float(centre - half)), min(1.0, float(centre + half)))


def power(n: int) -> tuple[float, float]:
    """What n real and n synthetic pictures can show about one assessor.

    Near d' = 0 its variance is pi / n: two rates of 1/2, each with variance 1/(4n), over the squared normal density at
    0 (Gourevitch and Galanter 1967).

    Returns:
        Half the width of the 95 % interval of the pass rate, at the paper's rate; the smallest d' that differs from 0
        at the 5 % level, two-sided, with a chance of POWER.
    """
    rate = wilson(PAPER_PASS_RATE * n, n)
    return (rate.high - rate.low) / 2, float((NORMAL + ndtri(POWER)) * np.sqrt(np.pi / n))


def clustered_share(yes: np.ndarray) -> Interval:
    """The share of True in `yes` (A, I) with an interval for other pictures and other assessors.

    Wilson's, at the number of independent answers that has the variance of `clustered_variance`. Where all answers
    agree there is no variance to estimate, and that number is I.
    """
    shares = yes.mean(axis=1)
    share, n_pictures = float(yes.mean()), yes.shape[1]
    variance = clustered_variance(shares, (yes - shares[:, None]) / n_pictures, shares * (1 - shares) / n_pictures)
    if variance.total == 0:
        return wilson(share * n_pictures, n_pictures)
    n_effective = min(share * (1 - share) / variance.total, float(yes.size))
    return wilson(share * n_effective, n_effective, quantile=variance.quantile)


def wider_share(yes: np.ndarray) -> Interval:
    """The share of True in `yes` (A, I) of few pictures: the wider of `clustered_share` and Wilson's of I answers.

    So many assessors do not narrow what few pictures show, and their number does not hide that they differ.
    """
    clustered, plain = clustered_share(yes), wilson(yes.mean() * yes.shape[1], yes.shape[1])
    return Interval(clustered.value, min(clustered.low, plain.low), max(clustered.high, plain.high))


def detection(hits: np.ndarray, alarms: np.ndarray) -> tuple[Interval, Interval]:
    """d' and criterion c, means over assessors.

    d' = z(hit rate) - z(false-alarm rate), c = -(z(hit rate) + z(false-alarm rate)) / 2. Half an answer is added to
    each count, since rates of 0 and 1 have no z (log-linear, Hautus 1995). Variances: Gourevitch and Galanter 1967.

    Args:
        hits: (A, I1) whether each synthetic picture was judged synthetic.
        alarms: (A, I0) whether each real picture was judged synthetic.
    """
    (z_hit, hit_influence, hit_own), (z_alarm, alarm_influence, alarm_own) = map(_z_scores, (hits, alarms))
    own = hit_own + alarm_own
    d_prime = _mean(z_hit - z_alarm, np.concatenate([hit_influence, -alarm_influence], axis=1), own)
    criterion = _mean(-(z_hit + z_alarm) / 2, -np.concatenate([hit_influence, alarm_influence], axis=1) / 2, own / 4)
    return d_prime, criterion


def _z_scores(yes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """z of each assessor's rate (A,), the influence of each picture on it (A, I), and its own variance (A,)."""
    n_pictures = yes.shape[1]
    rate = (yes.sum(axis=1) + 0.5) / (n_pictures + 1)
    z = ndtri(rate)
    slope = np.sqrt(2 * np.pi) * np.exp(z**2 / 2)  # dz/drate: one over the normal density
    influence = slope[:, None] * (yes - yes.mean(axis=1, keepdims=True)) / n_pictures
    return z, influence, slope**2 * rate * (1 - rate) / n_pictures


def _mean(values: np.ndarray, influence: np.ndarray, own: np.ndarray) -> Interval:
    variance = clustered_variance(values, influence, own)
    mean, half = float(values.mean()), variance.quantile * variance.total**0.5
    return Interval(mean, mean - half, mean + half)


def agreement(yes: np.ndarray, synthetic: np.ndarray, *, seed: int) -> Interval:
    """Fleiss' kappa of answers (A, I) with a bootstrap interval over pictures within their kind (I,).

    Assessors are not resampled: one who is drawn twice would agree with himself. NaN where all answers are the same.
    """
    votes = np.stack([yes.sum(axis=0), (~yes).sum(axis=0)], axis=1)  # (I, 2)
    rng = np.random.default_rng(seed)
    kinds = [np.flatnonzero(synthetic), np.flatnonzero(~synthetic)]
    draws = [
        fleiss_kappa(votes[np.concatenate([rng.choice(rows, len(rows)) for rows in kinds])]) for _ in range(KAPPA_DRAWS)
    ]
    low, high = np.nanquantile(draws, [0.025, 0.975]) if np.isfinite(draws).any() else (np.nan, np.nan)
    return Interval(fleiss_kappa(votes), float(low), float(high))


def fleiss_kappa(votes: np.ndarray) -> float:
    """Agreement beyond chance of `votes` (subjects, categories) with equally many raters per row. Fleiss 1971.

    NaN where all votes are for one category: then chance agrees as well.
    """
    n_raters = votes.sum(axis=1)[0]
    observed = ((np.square(votes).sum(axis=1) - n_raters) / (n_raters * (n_raters - 1))).mean()
    by_chance = np.square(votes.mean(axis=0) / n_raters).sum()
    return float((observed - by_chance) / (1 - by_chance)) if by_chance < 1 else float("nan")


@dataclass(frozen=True)
class AssessmentResults:
    """Results over the assessors who finished; None while nobody has (kappa: while fewer than two have)."""

    n_assessors: int  # with any answer
    n_finished: int
    n_images: int  # pictures of both kinds
    passed: Interval | None  # share of synthetic cells judged real
    false_alarms: Interval | None  # share of real cells judged synthetic
    d_prime: Interval | None  # 0: the kinds cannot be distinguished; mean over assessors
    criterion: Interval | None  # above 0: "real" is answered more often; mean over assessors
    kappa: Interval | None  # Fleiss' kappa; 0: agreement as expected by chance
    assessors: pd.DataFrame  # a row per assessor, unfinished ones included
    treatments: pd.DataFrame  # a row per treatment
    mechanisms: pd.DataFrame  # a row per mechanism
    shown: pd.DataFrame  # a row for what pictures show: all channels, or one
    images: pd.DataFrame  # a row per picture

    @property
    def median_seconds(self) -> float:
        """Over pictures, of each one's median; NaN where there is none."""
        return float(self.images["median_seconds"].dropna().median())

    def mistaken(self, n: int) -> dict[str, pd.DataFrame]:
        """The at most `n` pictures of each kind that were judged wrong most often, at least once."""
        synthetic, n_synthetic = self.images["is_synthetic"].astype(bool), self.images["n_said_synthetic"]
        wrong = n_synthetic.where(~synthetic, self.images["n_answers"] - n_synthetic)
        table = self.images.assign(n_wrong=wrong)[wrong > 0]
        table = table.sort_values(["n_wrong", "item"], ascending=[False, True])
        return {kind: table[table["is_synthetic"] == (kind == "synthetic")].head(n) for kind in ("synthetic", "real")}


def analyse(answers: pd.DataFrame, *, n_images: int, seed: int = 0) -> AssessmentResults:
    """The results of a test of `n_images` pictures, half of each kind.

    Assessors who did not judge all pictures are in the table of assessors and nowhere else, so the moment at which
    somebody stops cannot bias a result.

    Args:
        answers: columns ANSWERS, a row per answer; an assessor answers a picture once.
        n_images: pictures of both kinds.
        seed: of the bootstrap for kappa's interval.
    """
    counts = answers.groupby("assessor").size()
    complete = answers[answers["assessor"].isin(counts.index[counts == n_images])]
    yes, synthetic = answer_matrix(complete)
    finished = len(yes) > 0
    hits, alarms = yes[:, synthetic], yes[:, ~synthetic]
    d_prime, criterion = detection(hits, alarms) if finished else (None, None)
    return AssessmentResults(
        n_assessors=len(counts),
        n_finished=len(yes),
        n_images=n_images,
        passed=clustered_share(~hits) if finished else None,
        false_alarms=clustered_share(alarms) if finished else None,
        d_prime=d_prime,
        criterion=criterion,
        kappa=agreement(yes, synthetic, seed=seed) if len(yes) > 1 else None,
        assessors=_by_assessor(answers, n_images),
        treatments=_by(complete, "treatment"),
        mechanisms=_by(complete, "mechanism"),
        shown=_by(complete, "shown"),
        images=_by_image(complete),
    )


def answer_matrix(complete: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The answers (A, I) of assessors who judged all, True for synthetic, and the kind of each picture (I,)."""
    wide = complete.pivot(index="assessor", columns="item", values="said_synthetic")
    kinds = complete.drop_duplicates("item").set_index("item")["is_synthetic"].reindex(wide.columns)
    return wide.to_numpy(bool), kinds.to_numpy(bool)


def _by_assessor(answers: pd.DataFrame, n_images: int) -> pd.DataFrame:
    """A row per assessor: answers, rates, d' and c with intervals, seconds; NaN where a kind has no answer."""
    rows = []
    for name, given in answers.groupby("assessor", sort=True):
        yes, synthetic = (given[column].to_numpy(bool) for column in ("said_synthetic", "is_synthetic"))
        both = 0 < synthetic.sum() < len(given)
        d_prime, criterion = detection(yes[None, synthetic], yes[None, ~synthetic]) if both else (None, None)
        shares = {"passed": ~yes[synthetic], "false_alarms": yes[~synthetic]}
        intervals = {name: wilson(share.sum(), len(share)) if len(share) else None for name, share in shares.items()}
        row = {"assessor": name, "n_answers": len(given), "finished": len(given) == n_images}
        row |= flat(intervals | {"d_prime": d_prime, "criterion": criterion})
        rows.append(row | {"median_seconds": given["seconds"].dropna().median()})
    return pd.DataFrame(rows)


def _by(complete: pd.DataFrame, column: str) -> pd.DataFrame:
    """A row per value of a column: both rates, with the intervals of `wider_share`."""
    rows = []
    for value, given in complete.groupby(column, sort=True):
        intervals: dict[str, Interval | None] = {}
        row: dict[str, object] = {column: value}
        for rate, synthetic in (("passed", True), ("false_alarms", False)):
            of_kind = given[given["is_synthetic"] == synthetic]
            row[f"{rate}_images"] = of_kind["item"].nunique()
            yes, _ = answer_matrix(of_kind)
            intervals[rate] = wider_share(yes != synthetic) if yes.size else None
        rows.append(row | flat(intervals))
    return pd.DataFrame(rows)


def _by_image(complete: pd.DataFrame) -> pd.DataFrame:
    """A row per picture: treatment, channels, kind, answers, how many of them "synthetic", median seconds."""
    groups = complete.groupby(["item", "treatment", "shown", "is_synthetic"])
    return groups.agg(
        n_said_synthetic=("said_synthetic", "sum"),
        n_answers=("said_synthetic", "size"),
        median_seconds=("seconds", "median"),
    ).reset_index()


def flat(intervals: Mapping[str, Interval | None]) -> dict[str, float]:
    """`name`, `name_low`, `name_high` of each interval; NaN where there is none."""
    missing = Interval(float("nan"), float("nan"), float("nan"))
    ends = {"": "value", "_low": "low", "_high": "high"}
    return {
        f"{name}{ending}": getattr(interval or missing, end)
        for name, interval in intervals.items()
        for ending, end in ends.items()
    }
