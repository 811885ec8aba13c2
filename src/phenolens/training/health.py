"""Say in plain words when training goes wrong, while it runs."""

from collections.abc import Mapping, Sequence

RECORDS = 20  # how many of the latest history records a verdict looks at

Record = Mapping[str, float]


def verdicts(history: Sequence[Record]) -> list[str]:
    """What is wrong with the latest RECORDS history records, in sentences; empty when nothing is or can be said."""
    if len(history) < RECORDS:
        return []
    latest = history[-RECORDS:]
    found = []
    accuracy = _mean(latest, "discriminator.accuracy")
    if accuracy is not None and accuracy > 0.98:
        found.append(
            "the discriminator has won (right on more than 98 % of crops): its features no longer guide the "
            "reconstructions; a lower --discriminator-learning-rate or longer --ramp-steps helps"
        )
    if accuracy is not None and accuracy < 0.52 and history[-1]["step"] > 500:
        found.append("the discriminator is guessing (right on fewer than 52 % of crops): it gives no direction")
    active = _mean(latest, "autoencoder.active_features")
    if active is not None and active < 3:
        found.append(f"the embedding has collapsed: {active:.0f} features carry information; a lower --beta helps")
    return found


def _mean(records: Sequence[Record], name: str) -> float | None:
    values = [record[name] for record in records if name in record]
    return sum(values) / len(values) if values else None
