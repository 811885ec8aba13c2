"""Settings from files, as flags that come before the ones given by hand, so that those win.

`study.toml` in the study's folder has a table a step with the names of the flags; `--config FILE` takes the
`config.json` of a run as it is.
"""

import dataclasses
import json
import tomllib
import typing
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from phenolens.errors import InputError

# The tables of study.toml that a verb reads.
TABLES = {"run": ("crop", "train", "profile", "evaluate", "run"), "demo": ()}


def with_file_settings(verb: str, arguments: list[str], flags: type) -> list[str]:
    """The verb's arguments, preceded by what `study.toml` and `--config FILE` say; InputError on an unknown key."""
    names = flag_names(flags)
    from_files: list[str] = []
    first = next((argument for argument in arguments if not argument.startswith("-")), None)
    toml = Path(first) / "study.toml" if first is not None else None
    if toml is not None and toml.is_file():
        from_files += _toml_arguments(toml, TABLES.get(verb, (verb,)), names)
    if "--config" in arguments:
        position = arguments.index("--config")
        if position + 1 == len(arguments):
            raise InputError("--config: expected a file, such as the config.json of a run")
        from_files += _json_arguments(Path(arguments[position + 1]), names)
        arguments = arguments[:position] + arguments[position + 2 :]
    return from_files + arguments


def flag_names(flags: type) -> set[str]:
    """The names of all fields of a dataclass, those of nested dataclasses in place of their own."""
    names: set[str] = set()
    for name, kind in typing.get_type_hints(flags).items():
        if dataclasses.is_dataclass(kind):
            names |= flag_names(typing.cast(type, kind))
        else:
            names.add(name)
    return names


def _toml_arguments(path: Path, tables: tuple[str, ...], names: set[str]) -> list[str]:
    try:
        settings = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not readable as TOML ({error})") from error
    known = {"simulate", "crop", "train", "embed", "profile", "evaluate", "report", "run", "explore"}
    for table, content in settings.items():
        if table not in known or not isinstance(content, dict):
            raise InputError(f"{path}: [{table}] is no table of settings; expected one of {', '.join(sorted(known))}")
    merged = {key: value for table in tables for key, value in settings.get(table, {}).items()}
    return _as_arguments(merged, names, source=path)


def _json_arguments(path: Path, names: set[str]) -> list[str]:
    try:
        config = json.loads(path.read_text())["config"]
        flat = {key: value for key, value in config.items() if key != "network"} | config.get("network", {})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"--config {path}: not the config.json of a run ({error})") from error
    return _as_arguments(flat, names, source=path)


def _as_arguments(settings: Mapping[str, Any], names: set[str], *, source: Path) -> list[str]:
    arguments: list[str] = []
    for key, value in settings.items():
        if key not in names:
            near = get_close_matches(key, names, n=1)
            hint = f'did you mean "{near[0]}"?' if near else f"expected one of {', '.join(sorted(names))}"
            raise InputError(f'{source}: no setting "{key}"; {hint}')
        flag = f"--{key.replace('_', '-')}"
        if isinstance(value, bool):
            arguments.append(flag if value else f"--no-{key.replace('_', '-')}")
        elif isinstance(value, list):
            arguments += [flag, *map(str, value)]
        elif value is not None:
            arguments += [flag, str(value)]
    return arguments
