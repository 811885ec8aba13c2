"""Every command that makes a study again, with the settings that are not the defaults."""

import shlex
from dataclasses import asdict
from typing import Any

from phenolens.files import read_json
from phenolens.images.config import CropConfig
from phenolens.images.store import CropStore
from phenolens.steps import ProfileConfig
from phenolens.study import Study
from phenolens.training.checkpoint import RunFolder
from phenolens.training.config import TrainConfig


def commands(study: Study, store: CropStore, runs: list[str]) -> list[str]:
    """The commands that make this study again; settings that are not the default are spelt out."""
    folder = shlex.quote(study.folder.resolve().name)
    source = store.about["source"]
    said = [_flags(source.get("reading", {}), {}), _flags(store.about["config"], asdict(CropConfig()))]
    lines = [" ".join(["phenolens crop", folder, "--source SOURCE --layout", source["layout"], *filter(None, said)])]
    for name in runs:
        config = (RunFolder(study.run(name)).about() or {})["config"]
        named = [] if name == f"{config['model']}-seed{config['seed']}" else ["--name", name]
        flat, default = ({**c, **c["network"]} for c in (config, asdict(TrainConfig())))
        lines.append(" ".join(["phenolens train", folder, *named, _flags(flat, default)]))
    lines.append(f"phenolens embed {folder}")
    profile = read_json(study.profiles(runs[0]) / "about.json", mend="run `phenolens profile` again")
    lines.append(f"phenolens profile {folder} {_flags(profile['config'], asdict(ProfileConfig()))}")
    lines += [f"phenolens {verb} {folder}" for verb in ("evaluate", "report")]
    return [command.rstrip() for command in lines]


def _flags(config: dict[str, Any], default: dict[str, Any]) -> str:
    """The settings that are not the defaults, as flags."""
    words: list[str] = []
    for key, value in config.items():
        plain = list(default[key]) if isinstance(default.get(key), tuple) else default.get(key)
        if value == plain or isinstance(value, dict):
            continue
        flag = f"--{key.replace('_', '-')}"
        words += [flag] if value is True else [flag, *map(str, value if isinstance(value, list) else [value])]
    return shlex.join(words)
