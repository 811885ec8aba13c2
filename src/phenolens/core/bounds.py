"""Bounds of a setting, declared in its annotation: `steps: Annotated[int, Bounds(ge=1)]`.

A frozen dataclass of settings derives from `Bounded`, which checks the bounds whenever one is made.
"""

import math
import typing
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Annotated, Any

from phenolens.core.errors import InputError


@dataclass(frozen=True)
class Bounds:
    """The finite numbers that a setting may be; None and settings that are not given stay unchecked."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    def hold(self, value: float) -> bool:
        """Whether `value` is finite and within the bounds."""
        return (
            math.isfinite(value)
            and (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
        )

    def __str__(self) -> str:
        """As in messages: `of at least 0 and below 1`."""
        limits = (("of at least", self.ge), ("above", self.gt), ("of at most", self.le), ("below", self.lt))
        return " and ".join(f"{words} {limit:,g}" for words, limit in limits if limit is not None)


Count = Annotated[int, Bounds(ge=1)]
NotNegativeCount = Annotated[int, Bounds(ge=0)]
Seed = Annotated[int, Bounds(ge=0, lt=2**63)]
Positive = Annotated[float, Bounds(gt=0)]
NotNegative = Annotated[float, Bounds(ge=0)]
Share = Annotated[float, Bounds(ge=0, le=1)]


class Bounded:
    """Base of dataclasses whose fields have Bounds in their annotations."""

    def __post_init__(self) -> None:
        """Check every field; InputError names the first flag that is out of bounds."""
        kinds = typing.get_type_hints(type(self), include_extras=True)
        for field in fields(self):  # type: ignore[arg-type]  # subclasses are dataclasses
            value = getattr(self, field.name)
            values = value if isinstance(value, tuple) else (value,)
            for bounds in _bounds_in(kinds[field.name]):
                wrong = [one for one in values if one is not None and not bounds.hold(one)]
                if wrong:
                    flag = f"--{field.name.replace('_', '-')}"
                    raise InputError(f"{flag} {wrong[0]}: expected a number {bounds}")


def _bounds_in(kind: Any) -> Iterator[Bounds]:
    """The Bounds in an annotation, also within `X | None` and `tuple[X, ...]`."""
    yield from (part for part in getattr(kind, "__metadata__", ()) if isinstance(part, Bounds))
    for inner in typing.get_args(kind):
        yield from _bounds_in(inner)
