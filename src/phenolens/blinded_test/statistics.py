"""What the blinded test shows: how often synthetic cells pass, how well kinds are told apart, how far assessors agree.

An answer is that a picture is synthetic, or real. A assessors, I images. Synthetic is the signal: a hit is a synthetic
cell called synthetic, a false alarm a real cell called synthetic.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import ndtri

from phenolens.blinded_test.design import Interval, crossed, crossed_share, wider_share, wilson
from phenolens.core.errors import InputError

ANSWERS = {
    "assessor": "name of the assessor",
    "item": "number of the picture",
    "treatment": "of the cell",
    "mechanism": "of the treatment; `control` of the controls, empty where it is not known",
    "shown": "the channels that the picture shows",
    "is_synthetic": "whether the picture is a reconstruction",
    "said_synthetic": "the answer",
    "seconds": "from the page being sent to the answer; empty where the clock was turned back",
}
DRAWS = 2000  # of images, for the interval of kappa


@dataclass(frozen=True)
class AssessmentResults:
    """Results over the assessors who finished; None while none has (kappa: while fewer than two have)."""

    n_assessors: int  # who gave any answer
    n_finished: int
    n_images: int  # of both kinds
    passed: Interval | None  # share of synthetic cells called real
    false_alarms: Interval | None  # share of real cells called synthetic
    d_prime: Interval | None  # 0: kinds cannot be told apart; mean over assessors
    criterion: Interval | None  # above 0: "real" is said more often; mean over assessors
    kappa: Interval | None  # Fleiss' kappa; 0: agreement as by chance
    assessors: pd.DataFrame  # a row an assessor, unfinished ones too
    treatments: pd.DataFrame  # a row a treatment
    mechanisms: pd.DataFrame  # a row a mechanism
    shown: pd.DataFrame  # a row for what pictures show: all channels, or one
    images: pd.DataFrame  # a row a picture

    def mistaken(self, n: int) -> dict[str, pd.DataFrame]:
        """Of the images of each kind, at most `n` that were mistaken most often, and at least once."""
        wrong = np.where(
            self.images["is_synthetic"],
            self.images["n_answers"] - self.images["n_said_synthetic"],
            self.images["n_said_synthetic"],
        )
        table = self.images.assign(n_wrong=wrong).sort_values(["n_wrong", "item"], ascending=[False, True])
        table = table[table["n_wrong"] > 0]
        synthetic = table["is_synthetic"].astype(bool)
        return {"synthetic": table[synthetic].head(n), "real": table[~synthetic].head(n)}


def assessed(answers: pd.DataFrame, *, n_images: int, seed: int = 0) -> AssessmentResults:
    """The results of answers (columns ANSWERS, a row an answer) to a test of n_images pictures, half of each kind.

    Who did not answer all pictures stands in the table of assessors and counts in nothing else, so that when somebody
    stops cannot move a result. `seed` is of the draws for kappa's interval. InputError when an assessor answered a
    picture twice.
    """
    twice = answers.duplicated(["assessor", "item"])
    if twice.any():
        first = answers[twice].iloc[0]
        raise InputError(f'assessor "{first.assessor}" answered picture {first["item"]} twice; expected one answer')
    counts = answers.groupby("assessor").size()
    whole = answers[answers["assessor"].isin(counts.index[counts == n_images])]
    said, synthetic = said_by_assessor(whole)
    some = len(said) > 0
    hits, alarms = said[:, synthetic], said[:, ~synthetic]
    d_prime, criterion = detection(hits, alarms) if some else (None, None)
    return AssessmentResults(
        n_assessors=len(counts),
        n_finished=len(said),
        n_images=n_images,
        passed=crossed_share(~hits) if some else None,
        false_alarms=crossed_share(alarms) if some else None,
        d_prime=d_prime,
        criterion=criterion,
        kappa=agreement(said, synthetic, seed=seed) if len(said) > 1 else None,
        assessors=_by_assessor(answers, n_images),
        treatments=_by(whole, "treatment"),
        mechanisms=_by(whole, "mechanism"),
        shown=_by(whole, "shown"),
        images=_by_image(whole),
    )


def said_by_assessor(whole: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Answers (A, I) of assessors who answered all, True where synthetic was said, and the images' kind (I,)."""
    wide = whole.pivot(index="assessor", columns="item", values="said_synthetic")
    kinds = whole.drop_duplicates("item").set_index("item")["is_synthetic"].reindex(wide.columns)
    return wide.to_numpy(bool), kinds.to_numpy(bool)


def detection(hits: np.ndarray, alarms: np.ndarray) -> tuple[Interval, Interval]:
    """d' and criterion c, means over assessors, from what A assessors said of synthetic (A, I1) and of real (A, I0).

    d' = z(hit rate) - z(false-alarm rate), c = -(z(hit rate) + z(false-alarm rate)) / 2, with half an answer added to
    each kind of answer (log-linear, Hautus 1995), for rates of 0 and 1 have no z. Variances by Gourevitch and Galanter
    (1967), over images and assessors as `crossed` says.
    """
    (z_hit, move_hit, own_hit), (z_alarm, move_alarm, own_alarm) = map(_z_scores, (hits, alarms))
    own = own_hit + own_alarm
    d_prime = _interval(z_hit - z_alarm, np.concatenate([move_hit, -move_alarm], axis=1), own)
    criterion = _interval(-(z_hit + z_alarm) / 2, -np.concatenate([move_hit, move_alarm], axis=1) / 2, own / 4)
    return d_prime, criterion


def agreement(said: np.ndarray, synthetic: np.ndarray, *, seed: int) -> Interval:
    """Fleiss' kappa of answers (A, I), with a percentile interval by drawing images within their kind (I,).

    Assessors are not drawn: one who is drawn twice would agree with himself. NaN where all answers are alike.
    """
    votes = np.stack([said.sum(axis=0), (~said).sum(axis=0)], axis=1)  # (I, 2)
    chance = np.random.default_rng(seed)
    places = [np.flatnonzero(synthetic), np.flatnonzero(~synthetic)]
    drawn = []
    for _ in range(DRAWS):
        rows = np.concatenate([chance.choice(of_kind, len(of_kind)) for of_kind in places])
        drawn.append(fleiss_kappa(votes[rows]))
    low, high = np.nanquantile(drawn, [0.025, 0.975]) if np.isfinite(drawn).any() else (np.nan, np.nan)
    return Interval(fleiss_kappa(votes), float(low), float(high))


def fleiss_kappa(votes: np.ndarray) -> float:
    """Agreement beyond chance of `votes` (subjects, categories), each row the same number of raters. Fleiss 1971.

    NaN where all votes are for one category: then chance would agree as well.
    """
    n_raters = votes.sum(axis=1)[0]
    found = ((np.square(votes).sum(axis=1) - n_raters) / (n_raters * (n_raters - 1))).mean()
    by_chance = np.square(votes.mean(axis=0) / n_raters).sum()
    return float((found - by_chance) / (1 - by_chance)) if by_chance < 1 else float("nan")


def _z_scores(said: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """z of each assessor's rate (A,), how far each image moves it (A, I), and its own variance (A,)."""
    n_images = said.shape[1]
    rate = (said.sum(axis=1) + 0.5) / (n_images + 1)
    z = ndtri(rate)
    slope = np.sqrt(2 * np.pi) * np.exp(z**2 / 2)  # of z over the rate: one over the normal density
    moved = slope[:, None] * (said - said.mean(axis=1, keepdims=True)) / n_images
    return z, moved, slope**2 * rate * (1 - rate) / n_images


def _interval(values: np.ndarray, influence: np.ndarray, own: np.ndarray) -> Interval:
    found = crossed(values, influence, own)
    mean, half = float(values.mean()), found.quantile * found.variance**0.5
    return Interval(mean, mean - half, mean + half)


def _by_assessor(answers: pd.DataFrame, n_images: int) -> pd.DataFrame:
    """A row an assessor: answers given, rates, d' and c with intervals, seconds; NaN where a kind has no answer."""
    rows = []
    for name, given in answers.groupby("assessor", sort=True):
        said, synthetic = (given[column].to_numpy(bool) for column in ("said_synthetic", "is_synthetic"))
        row = {"assessor": name, "n_answers": len(given), "finished": len(given) == n_images}
        both = 0 < synthetic.sum() < len(given)
        d_prime, criterion = detection(said[None, synthetic], said[None, ~synthetic]) if both else (None, None)
        shares = {"passed": ~said[synthetic], "false_alarms": said[~synthetic]}
        intervals = {what: wilson(yes.sum(), len(yes)) if len(yes) else None for what, yes in shares.items()}
        row |= flat(intervals | {"d_prime": d_prime, "criterion": criterion})
        rows.append(row | {"median_seconds": median_seconds(given["seconds"])})
    return pd.DataFrame(rows)


def _by(whole: pd.DataFrame, what: str) -> pd.DataFrame:
    """A row a treatment, say: share of synthetic passed, of real called synthetic, intervals as of `wider_share`."""
    rows = []
    for name, given in whole.groupby(what, sort=True):
        intervals: dict[str, Interval | None] = {}
        row: dict[str, object] = {what: name}
        for of, synthetic in (("passed", True), ("false_alarms", False)):
            of_kind = given[given["is_synthetic"] == synthetic]
            row[f"{of}_images"] = of_kind["item"].nunique()
            said, _ = said_by_assessor(of_kind)
            intervals[of] = wider_share(said != synthetic) if said.size else None
        rows.append(row | flat(intervals))
    return pd.DataFrame(rows)


def _by_image(whole: pd.DataFrame) -> pd.DataFrame:
    """A row a picture: its treatment, channels and kind, how many said synthetic, of how many, their median time."""
    groups = whole.groupby(["item", "treatment", "shown", "is_synthetic"])
    return groups.agg(
        n_said_synthetic=("said_synthetic", "sum"),
        n_answers=("said_synthetic", "size"),
        median_seconds=("seconds", "median"),
    ).reset_index()


def median_seconds(seconds: pd.Series) -> float:
    """The median of the times that are known; NaN where none is."""
    known = seconds.dropna()
    return float(known.median()) if len(known) else float("nan")


def flat(intervals: dict[str, Interval | None]) -> dict[str, float]:
    """`name`, `name_low`, `name_high` of each interval; NaN where there is none."""
    nothing = Interval(float("nan"), float("nan"), float("nan"))
    ends = {"": "value", "_low": "low", "_high": "high"}
    return {
        f"{name}{ending}": getattr(interval or nothing, end)
        for name, interval in intervals.items()
        for ending, end in ends.items()
    }
