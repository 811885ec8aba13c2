"""The words of a command line: the folder before the flags, and settings from files before those given by hand."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from phenolens.core.errors import InputError
from phenolens.core.keywords import flags_of, unknown_setting


def folder_first(arguments: Sequence[str], kinds: Mapping[str, Any], *, usage: str) -> list[str]:
    """The arguments with the words that belong to no flag in front, so that flags may come before the folder.

    Args:
        arguments: What was given by hand.
        kinds: The type of each flag.
        usage: What stands in front in the documentation, such as STUDY.

    Raises:
        InputError: Every word belongs to a flag.
    """
    if not arguments or not arguments[0].startswith("-") or {"-h", "--help"} & set(arguments):
        return list(arguments)
    folders: list[str] = []
    flags: list[str] = []
    left = 0.0
    for word in arguments:
        if word.startswith("--"):
            flags.append(word)
            left = 0 if "=" in word else _n_values(word, kinds)
        elif left:
            flags.append(word)
            left -= 1
        else:
            folders.append(word)
    if not folders:
        raise InputError(f"{arguments[0]}: {usage} is missing; write it before the flags")
    return [*folders, *flags]


def _n_values(word: str, kinds: Mapping[str, Any]) -> float:
    """How many words a flag takes at most."""
    name = word.removeprefix("--").replace("-", "_")
    kind = kinds.get(name)
    if kind is bool or (name.startswith("no_") and kinds.get(name.removeprefix("no_")) is bool):
        return 0
    for part in (kind, *get_args(kind)):
        if get_origin(part) is tuple:
            return float("inf") if Ellipsis in get_args(part) else len(get_args(part))
    return 1


def with_file_settings(
    arguments: list[str], *, tables: tuple[str, ...], known: Sequence[str], kinds: Mapping[str, Any]
) -> tuple[list[str], dict[str, Path]]:
    """The command's arguments, with settings from files before the flags given by hand, which win.

    `study.toml` in the study's folder has a table per step with the names of the flags; `--config FILE` takes the
    `config.json` of a run as it is.

    Args:
        arguments: What was given by hand; the folder comes first.
        tables: The tables of `study.toml` that are read.
        known: All tables that it may have.
        kinds: The type of each flag.

    Returns:
        The arguments, and which file each flag that is not given by hand comes from.

    Raises:
        InputError: A setting is unknown.
    """
    folder = arguments[0]
    split = ("--config=", "--model=")
    by_hand = [part for word in arguments[1:] for part in (word.split("=", 1) if word.startswith(split) else [word])]
    settings: list[str] = []
    files: dict[str, Path] = {}
    toml = Path(folder) / "study.toml"
    if toml.is_file():
        model = by_hand[by_hand.index("--model") + 1] if "--model" in by_hand[:-1] else None
        settings += _toml_arguments(toml, tables, known, kinds, model=model)
        files |= dict.fromkeys((word for word in settings if word.startswith("--")), toml)
    if "--config" in by_hand:
        position = by_hand.index("--config")
        if position + 1 == len(by_hand):
            raise InputError("--config: expected a file, such as the config.json of a run")
        config = Path(by_hand[position + 1])
        of_config = _json_arguments(config, kinds)
        settings += of_config
        files |= dict.fromkeys((word for word in of_config if word.startswith("--")), config)
        by_hand = by_hand[:position] + by_hand[position + 2 :]
    given = {word.split("=", 1)[0] for word in by_hand}
    return [folder, *settings, *by_hand], {name: file for name, file in files.items() if name not in given}


def _toml_arguments(
    path: Path, tables: tuple[str, ...], known: Sequence[str], kinds: Mapping[str, Any], *, model: str | None
) -> list[str]:
    """What the tables say; a setting of another model than the one to train is left out."""
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not readable as TOML ({error})") from error
    for table, content in settings.items():
        if table not in known or not isinstance(content, dict):
            raise InputError(f"{path}: no table of settings [{table}]; expected one of {', '.join(known)}")
    merged = {key: value for table in tables for key, value in settings.get(table, {}).items()}
    if "train" in tables and merged:
        from phenolens.models import MODELS
        from phenolens.training.config import RecommendedTraining, TrainConfig, own_settings

        default = RecommendedTraining if len(tables) > 1 else TrainConfig
        model = model or str(merged.get("model", default.model))
        merged = own_settings(model, merged) if model in MODELS else merged
    return _as_arguments(merged, kinds, source=path)


def _json_arguments(path: Path, kinds: Mapping[str, Any]) -> list[str]:
    from phenolens.training.config import own_settings

    try:
        config = json.loads(path.read_text())["config"]
        network = own_settings(config["model"], config.get("network", {}))
        flat = {key: value for key, value in config.items() if key != "network"} | network
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"--config {path}: not the config.json of a run ({error})") from error
    return _as_arguments(flat, kinds, source=path)


def _as_arguments(settings: Mapping[str, Any], kinds: Mapping[str, Any], *, source: Path) -> list[str]:
    for key, value in settings.items():
        if key not in kinds:
            raise InputError(f"{source}: {unknown_setting(key, kinds)}")
        if isinstance(value, bool) != (kinds[key] is bool):
            wanted = "true or false" if kinds[key] is bool else "a value, not true or false"
            raise InputError(f'{source}: setting "{key}" is {value!r}; expected {wanted}')
    return flags_of(settings, {})
