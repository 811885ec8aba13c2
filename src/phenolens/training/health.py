"""Warnings while a model trains: when a problem begins and when it is over.

A warning is a function of the history only, so a resumed run reports what an uninterrupted run reports.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean, median
from typing import Any

RECORDS = 20  # how many of the latest history records a verdict looks at
LATEST = 5  # records whose median is the level now
USUAL = 100  # records before them, at most, whose median is the usual level
LONG = 50  # records that a rise must last before it is reported

WON, WON_NO_MORE = 0.98, 0.95  # share of crops the discriminator is right on
GUESSING, GUESSING_NO_MORE = 0.52, 0.55
GREW, GREW_NO_MORE = 5.0, 2.5  # times the usual level
WORSE, WORSE_NO_MORE = 1.5, 1.25  # times the best mean reconstruction error
FEW_ACTIVE, FEW_ACTIVE_SHARE = 3, 0.04  # features; of the most that were ever in use

# column of the history: its name in messages
GROWING = {
    "autoencoder.gradient_norm": "the gradient of the autoencoder",
    "autoencoder.pixel": "the reconstruction error",
}
TERMS = {"autoencoder.pixel": "the reconstruction error", "autoencoder.kl": "the KL"}

Record = Mapping[str, float]
Verdict = tuple[str, bool, str]  # message when it begins (empty: it does not), whether it lasts, message when over
NO_VERDICT: Verdict = ("", False, "")


@dataclass
class Episode:
    """A problem, from the step of its warning to the step at which it was over, if it is."""

    what: str
    began: int
    seen: str  # the warning
    passed: int | None = None


@dataclass
class Health:
    """What has gone wrong in a run so far."""

    episodes: list[Episode] = field(default_factory=list)
    most_active: tuple[float, int] = (0.0, 0)  # features in use, and the step
    best_error: tuple[float, int] = (float("inf"), 0)  # lowest mean error over RECORDS records, and the step
    records_worse: int = 0  # how many records in a row had a mean error far above the best
    usual: dict[str, float] = field(default_factory=dict)  # the level before it grew, of each of GROWING that grew

    @classmethod
    def of(cls, history: Sequence[Record]) -> "Health":
        """The health of a run that has this history."""
        health = cls()
        for n in range(1, len(history) + 1):
            health.look(history[max(0, n - USUAL - LATEST) : n])
        return health

    def look(self, history: Sequence[Record]) -> list[str]:
        """Messages about what begins and what is over at the latest record; `history` ends with it."""
        self._remember(history)
        if len(history) < RECORDS:
            return []
        step = int(history[-1]["step"])
        found = {
            "won": self._won(history),
            "guessing": self._guessing(history),
            "collapsed": self._collapsed(history),
            **{what: self._grew(history, what) for what in GROWING},
            "rising": self._rising(history),
        }
        told = []
        for what, (begins, lasts, passed) in found.items():
            standing = next((e for e in self.episodes if e.what == what and e.passed is None), None)
            if standing is None and begins:
                self.episodes.append(Episode(what, step, begins))
                told.append(begins)
            elif standing is not None and not lasts:
                standing.passed = step
                told.append(passed)
        return told

    @property
    def standing(self) -> list[str]:
        """The warnings that hold now."""
        return [f"since step {e.began}: {e.seen}" for e in self.episodes if e.passed is None]

    def as_json(self) -> dict[str, Any]:
        """The warnings that hold and every episode, for `health.json`."""
        return {"warnings": self.standing, "episodes": [asdict(episode) for episode in self.episodes]}

    def _remember(self, history: Sequence[Record]) -> None:
        latest = history[-1]
        if latest.get("autoencoder.active_features", 0) > self.most_active[0]:
            self.most_active = (latest["autoencoder.active_features"], int(latest["step"]))
        error = _mean(history, "autoencoder.pixel")
        if error is not None and len(history) >= RECORDS:
            self.best_error = min(self.best_error, (error, int(latest["step"])))
            self.records_worse = self.records_worse + 1 if error > WORSE * self.best_error[0] else 0

    def _won(self, history: Sequence[Record]) -> Verdict:
        """The discriminator is nearly always right while its layers are in the loss, so it has little left to learn."""
        accuracy = _mean(history, "discriminator.accuracy")
        if accuracy is None or not _layers_guide(history):
            return NO_VERDICT
        begins = (
            f"the discriminator has won: right on {accuracy:.1%} of crops {_span(history)} (more than {WON:.0%}), so "
            "its layers hardly learn any more; try a lower --discriminator-learning-rate or longer --ramp-steps"
        )
        passed = f"the discriminator no longer wins: right on {accuracy:.1%} of crops"
        return begins if accuracy > WON else "", accuracy >= WON_NO_MORE, passed

    def _guessing(self, history: Sequence[Record]) -> Verdict:
        """The discriminator is at chance while its layers are in the loss."""
        accuracy = _mean(history, "discriminator.accuracy")
        if accuracy is None or not _layers_guide(history):
            return NO_VERDICT
        begins = (
            f"the discriminator is guessing: right on {accuracy:.1%} of crops {_span(history)} (less than "
            f"{GUESSING:.0%}), so its layers give no direction; try a higher --discriminator-learning-rate"
        )
        passed = f"the discriminator is no longer guessing: right on {accuracy:.1%} of crops"
        return begins if accuracy < GUESSING else "", accuracy <= GUESSING_NO_MORE, passed

    def _collapsed(self, history: Sequence[Record]) -> Verdict:
        """Few features carry information (posterior collapse); an AE has no prior and is not checked."""
        active = _mean(history, "autoencoder.active_features")
        if active is None:
            return NO_VERDICT
        most, at = self.most_active
        few = max(min(FEW_ACTIVE, most / 2), FEW_ACTIVE_SHARE * most)
        begins = (
            f"the embedding has collapsed: {active:.1f} features carry information {_span(history)}, {most:.0f} did at "
            f"step {at}; try a lower --beta"
        )
        passed = f"the embedding has recovered: {active:.1f} features carry information"
        return begins if active < few else "", active < 2 * few, passed

    def _grew(self, history: Sequence[Record], name: str) -> Verdict:
        """A value far above its recent median.

        The gradient grows by design while a layer joins the loss, so then it counts only if reconstructions worsen.
        """
        now, usual = _level(history, name, latest=True), _level(history, name, latest=False)
        if now is None or not usual:
            return NO_VERDICT
        grew = now > GREW * usual
        if name == "autoencoder.gradient_norm" and _layer_joins(history):
            error, before = (_level(history, "autoencoder.pixel", latest=latest) for latest in (True, False))
            grew = grew and error is not None and before is not None and error > WORSE * before
        if grew and not any(e.what == name and e.passed is None for e in self.episodes):
            self.usual[name] = usual
        passed = f"{GROWING[name]} is near its usual size again ({now:,.0f})"
        lasts = now > GREW_NO_MORE * self.usual.get(name, usual)
        if not grew:
            return "", lasts, passed
        begins = (
            f"{GROWING[name]} has grown to {now / usual:.1f} times its usual size ({now:,.0f}, usually {usual:,.0f})"
            f"{_most_grown(history, name)}; try --clip-norm, a lower --learning-rate, or, if a discriminator layer has "
            "just joined, longer --ramp-steps or a lower --feature-weight"
        )
        return begins, lasts, passed

    def _rising(self, history: Sequence[Record]) -> Verdict:
        """Reconstructions have been far worse than their best for a long time."""
        error, (best, at) = _mean(history, "autoencoder.pixel"), self.best_error
        if error is None:
            return NO_VERDICT
        passed = f"reconstructions are near their best again: mean error {error:,.0f}"
        lasts = error > WORSE_NO_MORE * best
        if self.records_worse < LONG:
            return "", lasts, passed
        begins = (
            f"reconstructions have been worse than they were for {self.records_worse} records: mean error {error:,.0f} "
            f"{_span(history)}, {best:,.0f} at best (step {at}){_most_grown(history, 'autoencoder.pixel')}; try a "
            "lower --learning-rate, longer --ramp-steps, fewer --feature-layers or a lower --feature-weight"
        )
        return begins, lasts, passed


def _mean(history: Sequence[Record], name: str) -> float | None:
    """Mean over the latest RECORDS records, None where none has the column."""
    values = [record[name] for record in history[-RECORDS:] if name in record]
    return fmean(values) if values else None


def _level(history: Sequence[Record], name: str, *, latest: bool) -> float | None:
    """The median of the LATEST records, or of the USUAL before them; None where fewer than RECORDS are before."""
    before = history[-USUAL - LATEST : -LATEST]
    values = [record[name] for record in (history[-LATEST:] if latest else before) if name in record]
    return median(values) if values and len(before) >= RECORDS else None


def _span(history: Sequence[Record]) -> str:
    """`from step 110 to 300`, of the latest RECORDS records."""
    return f"from step {history[-RECORDS:][0]['step']:.0f} to {history[-1]['step']:.0f}"


def _gammas(record: Record) -> dict[str, float]:
    """The weight of each discriminator layer by its number."""
    return {name.rpartition("_")[2]: value for name, value in record.items() if ".gamma_" in name}


def _layers_guide(history: Sequence[Record]) -> bool:
    """Whether a discriminator layer has been in the loss for RECORDS records."""
    return any(_gammas(history[-RECORDS:][0]).values())


def _layer_joins(history: Sequence[Record]) -> bool:
    """Whether a layer's weight has risen over the records that a usual level is taken from."""
    return _gammas(history[-1]) != _gammas(history[-USUAL - LATEST :][0])


def _most_grown(history: Sequence[Record], but: str) -> str:
    """The weighted term of the autoencoder's loss that grew most beside `but`, for a message; empty where none grew."""
    weighted = [_weighted_terms(record, but) for record in history[-USUAL - LATEST :]]
    before, now = weighted[:-LATEST], weighted[-LATEST:]
    growth = {
        name: median(terms.get(name, 0) for terms in now) - median(terms.get(name, 0) for terms in before)
        for name in weighted[-1]
    }
    most = max(growth, key=growth.__getitem__, default=None)
    return "" if most is None or growth[most] <= 0 else f", and most of all {most} (by {growth[most]:,.0f})"


def _weighted_terms(record: Record, but: str) -> dict[str, float]:
    """The terms of the autoencoder's loss as they weigh in it (the KL without beta), beside `but`, by their names."""
    layers = {
        f"gamma_{i} L_{i}, the discriminator's layer {i}": gamma * record.get(f"autoencoder.feature_{i}", 0)
        for i, gamma in _gammas(record).items()
    }
    return layers | {words: record[name] for name, words in TERMS.items() if name in record and name != but}
