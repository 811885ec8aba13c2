"""Training diagnostics: warn when a problem begins and report when it has ended.

A warning is a function of the history only, so a resumed run reports what an uninterrupted run reports.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean, median
from typing import Any

RECORDS = 20  # latest history records that a check averages
LATEST = 5  # records whose median is the current level
USUAL = 100  # records before them, at most, whose median is the usual level
LONG = 50  # records that an increase must last before it is reported

STRONG, STRONG_ENDS = 0.98, 0.95  # discriminator accuracy
CHANCE, CHANCE_ENDS = 0.52, 0.55
GREW, GREW_ENDS = 5.0, 2.5  # times the usual level
WORSE, WORSE_ENDS = 1.5, 1.25  # times the best mean reconstruction error
FEW_ACTIVE, FEW_ACTIVE_SHARE = 3, 0.04  # number of features; share of the most ever active

# column of the history: its name in messages
GROWING = {
    "autoencoder.gradient_norm": "the gradient of the autoencoder",
    "autoencoder.pixel": "the reconstruction error",
}
TERMS = {"autoencoder.pixel": "the reconstruction error", "autoencoder.kl": "the KL"}

Record = Mapping[str, float]
Verdict = tuple[str, bool, str]  # warning (empty if none begins), whether the problem lasts, message when it ends
NO_VERDICT: Verdict = ("", False, "")


@dataclass
class Episode:
    """A problem, from the step of its warning to the step at which it ended, if it has."""

    what: str
    began: int
    seen: str  # the warning
    passed: int | None = None


@dataclass
class Health:
    """Problems of a training run so far."""

    episodes: list[Episode] = field(default_factory=list)
    most_active: tuple[float, int] = (0.0, 0)  # most active features, and the step
    best_error: tuple[float, int] = (float("inf"), 0)  # lowest mean error over RECORDS records, and the step
    records_worse: int = 0  # consecutive records with a mean error far above the best
    usual: dict[str, float] = field(default_factory=dict)  # level of each value in GROWING before it grew

    @classmethod
    def from_history(cls, history: Sequence[Record]) -> "Health":
        """Diagnose a complete history."""
        health = cls()
        for n in range(1, len(history) + 1):
            health.update(history[max(0, n - USUAL - LATEST) : n])
        return health

    def update(self, history: Sequence[Record]) -> list[str]:
        """Check the last record of `history`; return messages about problems that begin or end there."""
        self._update_extremes(history)
        if len(history) < RECORDS:
            return []
        step = int(history[-1]["step"])
        found = {
            "won": self._too_strong(history),
            "guessing": self._at_chance(history),
            "collapsed": self._collapsed(history),
            **{what: self._grew(history, what) for what in GROWING},
            "rising": self._rising(history),
        }
        messages = []
        for what, (begins, lasts, passed) in found.items():
            open_episode = next((e for e in self.episodes if e.what == what and e.passed is None), None)
            if open_episode is None and begins:
                self.episodes.append(Episode(what, step, begins))
                messages.append(begins)
            elif open_episode is not None and not lasts:
                open_episode.passed = step
                messages.append(passed)
        return messages

    @property
    def current(self) -> list[str]:
        """Warnings of problems that have not ended."""
        return [f"since step {e.began}: {e.seen}" for e in self.episodes if e.passed is None]

    def as_json(self) -> dict[str, Any]:
        """Current warnings and all episodes, for `health.json`."""
        return {"warnings": self.current, "episodes": [asdict(episode) for episode in self.episodes]}

    def _update_extremes(self, history: Sequence[Record]) -> None:
        latest = history[-1]
        if latest.get("autoencoder.active_features", 0) > self.most_active[0]:
            self.most_active = (latest["autoencoder.active_features"], int(latest["step"]))
        error = _mean(history, "autoencoder.pixel")
        if error is not None and len(history) >= RECORDS:
            self.best_error = min(self.best_error, (error, int(latest["step"])))
            self.records_worse = self.records_worse + 1 if error > WORSE * self.best_error[0] else 0

    def _too_strong(self, history: Sequence[Record]) -> Verdict:
        """Check for a discriminator that is nearly always right while its layers are in the loss."""
        accuracy = _mean(history, "discriminator.accuracy")
        if accuracy is None or not _layers_in_loss(history):
            return NO_VERDICT
        begins = (
            f"the discriminator is too strong: accuracy {accuracy:.1%} {_span(history)} (more than {STRONG:.0%}), so "
            "its features hardly improve; try a lower --discriminator-learning-rate or longer --ramp-steps"
        )
        passed = f"the discriminator is no longer too strong: accuracy {accuracy:.1%}"
        return begins if accuracy > STRONG else "", accuracy >= STRONG_ENDS, passed

    def _at_chance(self, history: Sequence[Record]) -> Verdict:
        """Check for a discriminator at chance level while its layers are in the loss."""
        accuracy = _mean(history, "discriminator.accuracy")
        if accuracy is None or not _layers_in_loss(history):
            return NO_VERDICT
        begins = (
            f"the discriminator is at chance: accuracy {accuracy:.1%} {_span(history)} (less than "
            f"{CHANCE:.0%}), so its features carry no information; try a higher --discriminator-learning-rate"
        )
        passed = f"the discriminator is no longer at chance: accuracy {accuracy:.1%}"
        return begins if accuracy < CHANCE else "", accuracy <= CHANCE_ENDS, passed

    def _collapsed(self, history: Sequence[Record]) -> Verdict:
        """Check for posterior collapse: few active features. An AE has no prior and is not checked."""
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
        """Check for a value far above its recent median.

        The gradient grows by design while a layer is added to the loss, so it then counts only if the error grows too.
        """
        now, usual = _level(history, name, latest=True), _level(history, name, latest=False)
        if now is None or not usual:
            return NO_VERDICT
        grew = now > GREW * usual
        if name == "autoencoder.gradient_norm" and _layer_weights_change(history):
            error, before = (_level(history, "autoencoder.pixel", latest=latest) for latest in (True, False))
            grew = grew and error is not None and before is not None and error > WORSE * before
        if grew and not any(e.what == name and e.passed is None for e in self.episodes):
            self.usual[name] = usual
        passed = f"{GROWING[name]} is near its usual level again ({now:,.0f})"
        lasts = now > GREW_ENDS * self.usual.get(name, usual)
        if not grew:
            return "", lasts, passed
        begins = (
            f"{GROWING[name]} has grown to {now / usual:.1f} times its usual level ({now:,.0f}, usually {usual:,.0f})"
            f"{_largest_increase(history, name)}; try --clip-norm, a lower --learning-rate, or, if a discriminator "
            "layer was just added, longer --ramp-steps or a lower --feature-weight"
        )
        return begins, lasts, passed

    def _rising(self, history: Sequence[Record]) -> Verdict:
        """Check for a reconstruction error that has long been far above its minimum."""
        error, (best, at) = _mean(history, "autoencoder.pixel"), self.best_error
        if error is None:
            return NO_VERDICT
        passed = f"the reconstruction error is near its minimum again: mean {error:,.0f}"
        lasts = error > WORSE_ENDS * best
        if self.records_worse < LONG:
            return "", lasts, passed
        begins = (
            f"the reconstruction error has been high for {self.records_worse} records: mean {error:,.0f} "
            f"{_span(history)}, minimum {best:,.0f} (step {at}){_largest_increase(history, 'autoencoder.pixel')}; try "
            "a lower --learning-rate, longer --ramp-steps, fewer --feature-layers or a lower --feature-weight"
        )
        return begins, lasts, passed


def _mean(history: Sequence[Record], name: str) -> float | None:
    """Mean over the latest RECORDS records, None if none has the column."""
    values = [record[name] for record in history[-RECORDS:] if name in record]
    return fmean(values) if values else None


def _level(history: Sequence[Record], name: str, *, latest: bool) -> float | None:
    """Median of the LATEST records, or of the USUAL before them; None if fewer than RECORDS precede."""
    before = history[-USUAL - LATEST : -LATEST]
    values = [record[name] for record in (history[-LATEST:] if latest else before) if name in record]
    return median(values) if values and len(before) >= RECORDS else None


def _span(history: Sequence[Record]) -> str:
    """`from step 110 to 300`, of the latest RECORDS records."""
    return f"from step {history[-RECORDS:][0]['step']:.0f} to {history[-1]['step']:.0f}"


def _gammas(record: Record) -> dict[str, float]:
    """Weight of each discriminator layer, by its number."""
    return {name.rpartition("_")[2]: value for name, value in record.items() if ".gamma_" in name}


def _layers_in_loss(history: Sequence[Record]) -> bool:
    """Whether a discriminator layer has been in the loss for RECORDS records."""
    return any(_gammas(history[-RECORDS:][0]).values())


def _layer_weights_change(history: Sequence[Record]) -> bool:
    """Whether a layer's weight changed over the records that define the usual level."""
    return _gammas(history[-1]) != _gammas(history[-USUAL - LATEST :][0])


def _largest_increase(history: Sequence[Record], excluded: str) -> str:
    """Message about the loss term other than `excluded` that grew most; empty if none grew."""
    weighted = [_weighted_terms(record, excluded) for record in history[-USUAL - LATEST :]]
    before, now = weighted[:-LATEST], weighted[-LATEST:]
    growth = {
        name: median(terms.get(name, 0) for terms in now) - median(terms.get(name, 0) for terms in before)
        for name in weighted[-1]
    }
    most = max(growth, key=growth.__getitem__, default=None)
    return (
        ""
        if most is None or growth[most] <= 0
        else f"; the loss term that grew most is {most} (by {growth[most]:,.0f})"
    )


def _weighted_terms(record: Record, excluded: str) -> dict[str, float]:
    """Weighted terms of the autoencoder's loss (the KL without beta) other than `excluded`, by name."""
    layers = {
        f"gamma_{i} L_{i}, the discriminator's layer {i}": gamma * record.get(f"autoencoder.feature_{i}", 0)
        for i, gamma in _gammas(record).items()
    }
    return layers | {label: record[name] for name, label in TERMS.items() if name in record and name != excluded}
