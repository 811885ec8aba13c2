"""Functions that take the fields of their settings dataclasses as keywords: `train(study, steps=500, beta=0.5)`."""

import ast
import functools
import inspect
import re
import shlex
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from phenolens.core.errors import InputError

Function = TypeVar("Function", bound=Callable[..., Any])


def keyword_settings(function: Function) -> Function:
    """Let a function also take each field of the dataclasses among its parameters as a keyword.

    The signature shows the fields, nested dataclasses included, so that a notebook completes them. Lists become
    tuples, and text becomes a path where a path is expected.

    Raises:
        InputError: When called with an unknown keyword, a value that is no valid choice, or without a required one.
    """

    @functools.wraps(function)
    def called(*positional: Any, **given: Any) -> Any:
        return function(*positional, **_arguments(function, given))

    called.__signature__ = _flat_signature(function)  # type: ignore[attr-defined]
    return typing.cast(Function, called)


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


def _own_types(settings: Any) -> dict[str, Any]:
    types = typing.get_type_hints(settings)
    return {name: kind for name, kind in types.items() if name != "return"}


def _arguments(function: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    types, known = _own_types(function), setting_types(function)
    for name in given:
        if name not in known and name not in types:
            raise InputError(f"{function.__name__}: {unknown_setting(name, known)}")
    arguments = {}
    for name, kind in types.items():
        if name in given:
            arguments[name] = given[name] if is_dataclass(kind) else _value(name, given[name], kind)
        elif is_dataclass(kind):
            required = inspect.signature(function).parameters[name].default is inspect.Parameter.empty
            own = {field: given[field] for field in setting_types(kind) if field in given}
            if own or required:
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
            values[field.name] = _value(field.name, given[field.name], inner)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise InputError(f"{function.__name__}: {field.name} is missing")
    return kind(**values)


def _value(name: str, value: Any, kind: Any) -> Any:
    """The value as its type says: tuples, paths, and one of the choices; InputError where it is no choice."""
    parts = _parts(kind)
    if isinstance(value, list):
        value = tuple(value)
    elif tuple in parts and isinstance(value, str | Path):
        value = (value,)
    if Path in parts and str not in parts:
        value = tuple(map(Path, value)) if isinstance(value, tuple) else Path(value) if value is not None else None
    choices = [
        choice for part in parts if typing.get_origin(part) is typing.Literal for choice in typing.get_args(part)
    ]
    if choices and not parts & {str, int, float}:
        wrong = [one for one in (value if isinstance(value, tuple) else (value,)) if one is not None]
        wrong = [one for one in wrong if one not in choices]
        if wrong:
            raise InputError(f"{name}: {wrong[0]!r}; expected one of {', '.join(map(str, choices))}")
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
