"""What a setting may be, declared in its annotation: `steps: Annotated[int, Bounds(ge=1)]`, `Literal["pca", "zca"]`.

A frozen dataclass of settings derives from `Bounded`, which checks every field whenever one is made.
"""

import math
import os
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from difflib import get_close_matches
from numbers import Integral, Number, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union

import numpy as np

from phenolens.core.errors import InputError


@dataclass(frozen=True)
class Bounds:
    """The finite numbers that a setting may be."""

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


@dataclass(frozen=True, eq=False)
class OneOf:
    """The names in a registry that may gain some after the annotation is made."""

    names: Collection[str]


Count = Annotated[int, Bounds(ge=1)]
NotNegativeCount = Annotated[int, Bounds(ge=0)]
Seed = Annotated[int, Bounds(ge=0, lt=2**63)]
Positive = Annotated[float, Bounds(gt=0)]
NotNegative = Annotated[float, Bounds(ge=0)]
Share = Annotated[float, Bounds(ge=0, le=1)]


class Bounded:
    """Base of dataclasses of settings, whose annotations say what each may be."""

    def __post_init__(self) -> None:
        """Check every field; InputError names the first flag whose value its annotation does not allow."""
        kinds = typing.get_type_hints(type(self), include_extras=True)
        for field in fields(self):  # type: ignore[arg-type]  # subclasses are dataclasses
            if not is_dataclass(kinds[field.name]):  # nested settings check themselves
                check(flag(field.name), getattr(self, field.name), kinds[field.name])


def flag(name: str) -> str:
    """A setting's flag: `--batch-size`."""
    return f"--{name.replace('_', '-')}"


def check(name: str, value: Any, kind: Any) -> None:
    """Check a value against an annotation.

    Args:
        name: What the message calls the value.
        value: The value.
        kind: A type, with Bounds or OneOf in it; unions, Literals and tuples of such.

    Raises:
        InputError: The value is of another type, out of bounds, or none of the choices.
    """
    if _fits(value, kind):
        return
    each = [inner[0] for inner in map(typing.get_args, _members(kind)) if inner[1:] == (Ellipsis,)]
    if each and isinstance(value, tuple | list):  # of a list, the message names the wrong one
        kind = each[0]
        value = next(one for one in value if not _fits(one, kind))
    near = get_close_matches(value, _choices(kind), n=1) if isinstance(value, str) else []
    hint = f'; did you mean "{near[0]}"?' if near else ""
    raise InputError(f"{name} {_shown(value)}: expected {expected(kind)}{hint}")


def _fits(value: Any, kind: Any) -> bool:
    """Whether an annotation allows a value; what is not known here is allowed."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        for rule in kind.__metadata__:
            if isinstance(rule, OneOf):
                return isinstance(value, str) and value in rule.names
            if isinstance(rule, Bounds) and isinstance(value, Number) and not rule.hold(value):  # type: ignore[arg-type]
                return False
        return _fits(value, inner[0])
    if origin is Literal:
        return any(value == one for one in inner if isinstance(value, type(one)))
    if origin in (Union, UnionType):
        return any(_fits(value, member) for member in inner)
    if origin is tuple:
        kinds = inner[:1] * len(value) if isinstance(value, tuple | list) and inner[1:] == (Ellipsis,) else inner
        return isinstance(value, tuple | list) and len(value) == len(kinds) and all(map(_fits, value, kinds))
    if kind is Any:
        return True
    if kind in (int, float):
        return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    if origin in (Sequence, Iterable):  # generators are not run, and arrays not read
        listed = value if isinstance(value, list | tuple) else ()
        fits = isinstance(value, Iterable) and not isinstance(value, str) and not hasattr(value, "columns")
        return fits and all(_fits(one, inner[0]) for one in listed)
    known = {bool: bool | np.bool_, Path: str | os.PathLike}.get(kind, origin or kind)
    if kind is np.ndarray:
        return hasattr(value, "__array__") or isinstance(value, list | tuple)
    return not isinstance(known, type | UnionType) or isinstance(value, known)


def expected(kind: Any) -> str:
    """An annotation in words: `an integer of at least 1`; None, which a setting left out is, is not named."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if choices := _choices(kind):
        return f"one of {', '.join(choices)}"
    if origin is Annotated:
        bounds = [str(rule) for rule in kind.__metadata__ if isinstance(rule, Bounds)]
        return " ".join([expected(inner[0]), *filter(None, bounds)])
    if origin in (Union, UnionType):
        given = [member for member in inner if member is not NoneType]
        members = [expected(member) for member in given if not (member is str and Path in inner)]
        return " or ".join(dict.fromkeys(members))
    if origin is tuple:
        return (
            f"a list, each {expected(inner[0])}" if inner[1:] == (Ellipsis,) else f"({', '.join(map(expected, inner))})"
        )
    names = {int: "an integer", float: "a number", bool: "True or False", str: "text", Path: "a path"}
    names |= {np.ndarray: "an array", Sequence: "a list", Iterable: "a list", Mapping: "a dict"}
    return names.get(origin or kind, getattr(origin or kind, "__name__", str(kind)))


def _members(kind: Any) -> tuple[Any, ...]:
    """The members of a union, without annotations; a single kind is its only member."""
    if typing.get_origin(kind) is Annotated:
        return _members(typing.get_args(kind)[0])
    return typing.get_args(kind) if typing.get_origin(kind) in (Union, UnionType) else (kind,)


def _choices(kind: Any) -> list[str]:
    """The choices of a Literal or OneOf, also where None is allowed; none where other values are allowed."""
    rules = [rule for rule in getattr(kind, "__metadata__", ()) if isinstance(rule, OneOf)]
    if rules:
        return list(rules[0].names)
    members = [member for member in _members(kind) if member is not NoneType]
    if len(members) == 1 and members[0] is not kind:
        return _choices(members[0])
    return [str(one) for one in typing.get_args(kind)] if typing.get_origin(kind) is Literal else []


def _shown(value: object) -> str:
    """A value in a message: short ones as they are, others by their type."""
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else f"{value[:57]}...")
    return str(value) if value is None or isinstance(value, Number | Path) else f"of type {type(value).__name__}"
