"""Settings from files, as flags before the ones given by hand, which win.

`study.toml` in the study's folder has a table per step with the names of the flags; `--config FILE` takes the
`config.json` of a run as it is.
"""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phenolens.core.errors import InputError
from phenolens.core.keywords import setting_types, unknown_setting

# Settings of older versions, and where to read what to do instead.
REMOVED = {"harmony": "docs/scoring.md, Batch correction with Harmony", "harmony_seed": "docs/scoring.md"}
STUDY_TABLES = (
    "simulate", "check", "crop", "train", "embed", "profile", "evaluate", "travel", "realism", "features", "report",
    "export", "explore", "assess", "run",
)  # fmt: skip


def with_file_settings(
    verb: str, arguments: list[str], flags: Any, *, usage: str = "STUDY", tables: tuple[str, ...] | None = None
) -> list[str]:
    """The command's arguments, with those of `study.toml` and `--config FILE` before the flags given by hand.

    Args:
        verb: Name of the command.
        arguments: What was given by hand; the folder comes first.
        flags: The function or dataclass whose settings are the flags.
        usage: What comes before the flags.
        tables: The tables of `study.toml` that are read; default: the command's own.

    Raises:
        InputError: A setting is unknown, or flags come before the folder, whose `study.toml` would be missed.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        return arguments
    if arguments[0].startswith("-"):
        raise InputError(f"{arguments[0]}: {usage} comes first, then the flags: phenolens {verb} {usage} ...")
    if tables == ():
        return arguments
    kinds = setting_types(flags)
    folder, by_hand = arguments[0], arguments[1:]
    from_files: list[str] = []
    toml = Path(folder) / "study.toml"
    if toml.is_file():
        from_files += _toml_arguments(toml, tables or (verb,), kinds, model=_flag(by_hand, "--model"))
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


def _flag(arguments: list[str], flag: str) -> str | None:
    """The value of a flag given by hand, None when it is not given."""
    words = [part for word in arguments for part in word.split("=", 1)]
    return words[words.index(flag) + 1] if flag in words[:-1] else None


def _toml_arguments(path: Path, tables: tuple[str, ...], kinds: Mapping[str, Any], *, model: str | None) -> list[str]:
    """What the tables say; a setting of another model than the one to train is left out."""
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not readable as TOML ({error})") from error
    for table, content in settings.items():
        if table not in STUDY_TABLES or not isinstance(content, dict):
            raise InputError(f"{path}: no table of settings [{table}]; expected one of {', '.join(STUDY_TABLES)}")
    merged = {key: value for table in tables for key, value in settings.get(table, {}).items()}
    if "train" in tables and merged:
        from phenolens.models import MODELS
        from phenolens.training.checkpoint import own_settings
        from phenolens.training.config import TrainConfig

        model = model or str(merged.get("model", TrainConfig.model))
        merged = own_settings(model, merged) if model in MODELS else merged
    return _as_arguments(merged, kinds, source=path)


def _json_arguments(path: Path, kinds: Mapping[str, Any]) -> list[str]:
    from phenolens.training.checkpoint import own_settings

    try:
        config = json.loads(path.read_text())["config"]
        network = own_settings(config["model"], config.get("network", {}))
        flat = {key: value for key, value in config.items() if key != "network"} | network
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
            raise InputError(f"{source}: {unknown_setting(key, kinds)}")
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
