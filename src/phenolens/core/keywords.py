"""Public functions: they check what they are given, and take the fields of their settings as keywords.

`train(study, steps=500, beta=0.5)` makes the TrainConfig itself.
"""

import ast
import functools
import inspect
import re
import shlex
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

from phenolens.core.bounds import check, flag
from phenolens.core.errors import InputError
from phenolens.core.workers import end_while_importing

Function = TypeVar("Function", bound=Callable[..., Any])


def keyword_settings(function: Function) -> Function:
    """Let a function also take each field of the dataclasses among its parameters as a keyword.

    The signature shows the fields, nested dataclasses included, so that a notebook completes them. Lists become
    tuples, and text becomes a path where a path is expected.

    Raises:
        InputError: When called with an unknown keyword, a value that is no valid choice, or without a required one.
    """

    called = checked(function)
    called.__signature__ = _flat_signature(function)  # type: ignore[attr-defined]
    return called


def checked(function: Function) -> Function:
    """Let a function refuse arguments that its annotations do not allow.

    Raises:
        InputError: When called with an argument of another type, out of bounds, or unknown.
    """

    @functools.wraps(function)
    def called(*positional: Any, **given: Any) -> Any:
        end_while_importing()
        return function(**_arguments(function, positional, given))

    return typing.cast(Function, called)


def check_flags(function: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """InputError that names the flag where a function's annotations do not allow what it is given."""
    for name, kind in _kinds(function).items():
        if name in given and not is_dataclass(kind):
            check(flag(name), given[name], kind)


def setting_types(settings: Any) -> dict[str, Any]:
    """The type of each keyword of a function, or field of a dataclass; those of nested dataclasses instead of them."""
    types: dict[str, Any] = {}
    for name, kind in _own_types(settings).items():
        types |= setting_types(kind) if is_dataclass(kind) else {name: kind}
    return types


def unknown_setting(name: str, known: Mapping[str, Any]) -> str:
    """The message for a setting that is not known, with the nearest that is."""
    near = get_close_matches(name, known, n=1)
    return f'no setting "{name}"; ' + (f'did you mean "{near[0]}"?' if near else f"expected one of {', '.join(known)}")


def flags_of(config: Mapping[str, Any], default: Mapping[str, Any]) -> list[str]:
    """The settings that differ from the defaults, as flags."""
    flags: list[str] = []
    for key, setting in config.items():
        value, plain = (list(v) if isinstance(v, tuple) else v for v in (setting, default.get(key)))
        if value == plain or isinstance(value, dict):
            continue
        flag = f"--{key.replace('_', '-')}"
        if isinstance(value, bool):
            flags.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            flags += [flag, *map(str, value if isinstance(value, list) else [value])]
    return flags


def with_flags(documentation: str) -> str:
    """A docstring as the command line shows it: `steps=5, model="vae"` becomes `--steps 5 --model vae`."""

    def flags(example: re.Match[str]) -> str:
        call = typing.cast(ast.Call, ast.parse(f"dict({example[1]})", mode="eval").body)
        settings = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
        return f"`{shlex.join(flags_of(settings, {}))}`"

    return re.sub(r"`(\w+=[^`]*)`", flags, documentation)


@functools.cache
def _kinds(settings: Any, *, rules: bool = True) -> dict[str, Any]:
    """The annotations of a function's parameters or a dataclass's fields, with their rules or the types alone."""
    if not isinstance(settings, type):  # what a function returns may be imported for type checkers alone
        own = {name: kind for name, kind in settings.__annotations__.items() if name != "return"}
        settings = SimpleNamespace(__annotations__=own, __globals__=settings.__globals__)
    try:
        return typing.get_type_hints(settings, include_extras=rules)
    except NameError:  # of a module that imports it for type checkers alone
        from anndata import AnnData

        return typing.get_type_hints(settings, localns={"AnnData": AnnData}, include_extras=rules)


def _own_types(settings: Any) -> dict[str, Any]:
    return _kinds(settings, rules=False)


def _arguments(function: Callable[..., Any], positional: Sequence[Any], given: dict[str, Any]) -> dict[str, Any]:
    kinds, known, name_of = _kinds(function), setting_types(function), function.__qualname__
    parameters = inspect.signature(function).parameters
    for name in given:
        if name not in known and name not in parameters:
            raise InputError(f"{name_of}: {unknown_setting(name, known)}")
    direct = {name: value for name, value in given.items() if name in parameters}
    given |= inspect.signature(function).bind_partial(*positional, **direct).arguments
    arguments = {}
    for name, parameter in parameters.items():
        kind = kinds.get(name, Any)
        if name in given:
            arguments[name] = given[name] if is_dataclass(kind) else _value(given[name], _own_types(function).get(name))
            check(f"{name_of}: {name}", arguments[name], kind)
        elif is_dataclass(kind):
            own = {field: given[field] for field in setting_types(kind) if field in given}
            if own or parameter.default is inspect.Parameter.empty:
                arguments[name] = _built(function, typing.cast(type, kind), own)
    return arguments


def _built(function: Callable[..., Any], kind: type, given: dict[str, Any]) -> Any:
    """The dataclass with these fields, also of the dataclasses inside it."""
    values, types = {}, _own_types(kind)
    for field in fields(kind):
        inner = types[field.name]
        if is_dataclass(inner):
            own = {name: given[name] for name in setting_types(inner) if name in given}
            if own:
                values[field.name] = _built(function, typing.cast(type, inner), own)
        elif field.name in given:
            values[field.name] = _value(given[field.name], inner)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise InputError(f"{function.__name__}: {field.name} is missing")
    return kind(**values)


def _value(value: Any, kind: Any) -> Any:
    """The value as its type says: tuples of what is listed or stands alone, and paths."""
    parts = _parts(kind)
    if tuple in parts and isinstance(value, str | Path):
        value = (value,)
    elif tuple in parts and isinstance(value, Iterable):
        value = tuple(value)
    if Path in parts and str not in parts:
        many = isinstance(value, tuple)
        paths = [Path(one) if isinstance(one, str) else one for one in (value if many else (value,))]
        value = tuple(paths) if many else paths[0]
    return value


def _parts(kind: Any) -> set[Any]:
    """A type and all that it is made of: the members of a union, what a tuple holds, each with its origin."""
    inner = () if typing.get_origin(kind) is typing.Literal else typing.get_args(kind)
    parts = {kind, typing.get_origin(kind)}
    return parts.union(*map(_parts, (part for part in inner if part is not Ellipsis)))


def _flat_signature(function: Callable[..., Any]) -> inspect.Signature:
    signature, types = inspect.signature(function), _own_types(function)
    flat: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        if is_dataclass(types.get(name)):
            flat += _field_parameters(typing.cast(type, types[name]))
        else:
            flat.append(parameter.replace(annotation=types.get(name, parameter.annotation)))
    return signature.replace(parameters=flat)


def _field_parameters(kind: type) -> list[inspect.Parameter]:
    found, types = [], _own_types(kind)
    for field in fields(kind):
        if is_dataclass(types[field.name]):
            found += _field_parameters(typing.cast(type, types[field.name]))
            continue
        default = field.default if field.default is not MISSING else inspect.Parameter.empty
        if field.default_factory is not MISSING:
            default = field.default_factory()
        found.append(
            inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=types[field.name])
        )
    return found
