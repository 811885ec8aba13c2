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

from phenolens.core.errors import InputError

# Verbs that begin with something else than a study's folder, and read no study.toml: what they begin with.
BEGINS_WITH = {"fetch": "bbbc021 OUT", "figure": "FIGURE STUDY"}
# Settings of older versions, and where to read what to do instead.
REMOVED = {"harmony": "docs/scoring.md, Batch correction with Harmony", "harmony_seed": "docs/scoring.md"}
# The tables of study.toml that a verb reads.
TABLES = {"run": ("crop", "train", "profile", "evaluate", "run"), "demo": ()}


def with_file_settings(verb: str, arguments: list[str], flags: type) -> list[str]:
    """The verb's arguments, with what `study.toml` and `--config FILE` say put before the flags given by hand.

    InputError on an unknown key, and when flags come before the study's folder, whose `study.toml` would be missed.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        return arguments
    if verb in BEGINS_WITH:
        if arguments[0].startswith("-"):
            raise InputError(
                f"{arguments[0]}: {BEGINS_WITH[verb]} comes first: phenolens {verb} {BEGINS_WITH[verb]} ..."
            )
        return arguments
    if arguments[0].startswith("-"):
        raise InputError(f"{arguments[0]}: the folder comes first, then the flags: phenolens {verb} FOLDER ...")
    kinds = flag_kinds(flags)
    folder, by_hand = arguments[0], arguments[1:]
    from_files: list[str] = []
    toml = Path(folder) / "study.toml"
    if toml.is_file():
        from_files += _toml_arguments(toml, TABLES.get(verb, (verb,)), kinds)
    by_hand = [part for word in by_hand for part in (word.split("=", 1) if word.startswith("--config=") else [word])]
    for word in by_hand:
        if word.startswith("--"):
            _refuse_removed(word[2:].replace("-", "_").split("=")[0], source=word.split("=")[0])
    if "--config" in by_hand:
        position = by_hand.index("--config")
        if position + 1 == len(by_hand):
            raise InputError("--config: expected a file, such as the config.json of a run")
        from_files += _json_arguments(Path(by_hand[position + 1]), kinds)
        by_hand = by_hand[:position] + by_hand[position + 2 :]
    return [folder, *from_files, *by_hand]


def flag_kinds(flags: type) -> dict[str, Any]:
    """The types of all fields of a dataclass by name, those of nested dataclasses in place of their own."""
    kinds: dict[str, Any] = {}
    for name, kind in typing.get_type_hints(flags).items():
        kinds |= flag_kinds(typing.cast(type, kind)) if dataclasses.is_dataclass(kind) else {name: kind}
    return kinds


def _toml_arguments(path: Path, tables: tuple[str, ...], kinds: Mapping[str, Any]) -> list[str]:
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not readable as TOML ({error})") from error
    known = {"simulate", "crop", "train", "embed", "profile", "evaluate", "realism", "report", "run"}
    known |= {"features", "explore", "assess"}
    for table, content in settings.items():
        if table not in known or not isinstance(content, dict):
            raise InputError(f"{path}: [{table}] is no table of settings; expected one of {', '.join(sorted(known))}")
    merged = {key: value for table in tables for key, value in settings.get(table, {}).items()}
    return _as_arguments(merged, kinds, source=path)


def _json_arguments(path: Path, kinds: Mapping[str, Any]) -> list[str]:
    try:
        config = json.loads(path.read_text())["config"]
        flat = {key: value for key, value in config.items() if key != "network"} | config.get("network", {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"--config {path}: not the config.json of a run ({error})") from error
    return _as_arguments(flat, kinds, source=path)


def _refuse_removed(key: str, *, source: str | Path) -> None:
    if key in REMOVED:
        raise InputError(f'{source}: "{key}" is no setting any more; see {REMOVED[key]}')


def _as_arguments(settings: Mapping[str, Any], kinds: Mapping[str, Any], *, source: Path) -> list[str]:
    arguments: list[str] = []
    for key, value in settings.items():
        _refuse_removed(key, source=source)
        if key not in kinds:
            near = get_close_matches(key, kinds, n=1)
            hint = f'did you mean "{near[0]}"?' if near else f"expected one of {', '.join(sorted(kinds))}"
            raise InputError(f'{source}: no setting "{key}"; {hint}')
        flag = f"--{key.replace('_', '-')}"
        if isinstance(value, bool) != (kinds[key] is bool):
            wanted = "true or false" if kinds[key] is bool else "a value, not true or false"
            raise InputError(f'{source}: setting "{key}" is {value!r}; expected {wanted}')
        if isinstance(value, bool):
            arguments.append(flag if value else f"--no-{key.replace('_', '-')}")
        elif isinstance(value, list):
            arguments += [flag, *map(str, value)]
        elif value is not None:
            arguments += [flag, str(value)]
    return arguments
