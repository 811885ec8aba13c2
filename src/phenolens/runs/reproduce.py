"""The commands that reproduce a study, with the settings that differ from the defaults."""

import shlex
from dataclasses import asdict
from typing import Any

from phenolens.core.files import read_json
from phenolens.core.keywords import flags_of
from phenolens.crops.config import CropConfig
from phenolens.crops.store import CropStore
from phenolens.pipeline import EvaluateConfig, ProfileConfig
from phenolens.readiness import scores_about
from phenolens.study import Study
from phenolens.training.checkpoint import RunFolder
from phenolens.training.config import TrainConfig


def commands(study: Study, store: CropStore, runs: list[str], *, measured: list[str], report: list[str]) -> list[str]:
    """The commands that reproduce this study.

    Args:
        study: The study.
        store: Its crops.
        runs: Names of the scored runs.
        measured: Flags of `phenolens realism`; empty where it was not run.
        report: Flags of `phenolens report`.
    """
    folder = shlex.quote(study.folder.resolve().name)
    source = store.about["source"]
    settings = [_joined(source.get("reading", {}), {}), _joined(store.about["config"], asdict(CropConfig()))]
    lines = [
        " ".join(["phenolens crop", folder, "--source SOURCE --layout", source["layout"], *filter(None, settings)])
    ]
    for name in runs:
        config = (RunFolder(study.run_folder(name)).about() or {})["config"]
        named = [] if name == f"{config['model']}-seed{config['seed']}" else ["--name", name]
        flat, default = ({**c, **c["network"]} for c in (config, asdict(TrainConfig(model=config["model"]))))
        default["model"] = TrainConfig.model
        lines.append(" ".join(["phenolens train", folder, *named, _joined(flat, default)]))
    lines.append(f"phenolens embed {folder}")
    profile = read_json(study.profiles_folder(runs[0]) / "about.json", remedy="run `phenolens profile` again")
    lines.append(f"phenolens profile {folder} {_joined(profile['config'], asdict(ProfileConfig()))}")
    lines.append(f"phenolens evaluate {folder} {_joined(scores_about(study)['config'], asdict(EvaluateConfig()))}")
    lines += [shlex.join(["phenolens", "realism", study.folder.resolve().name, *measured])] if measured else []
    lines.append(shlex.join(["phenolens", "report", study.folder.resolve().name, *report]))
    return [command.rstrip() for command in lines]


def _joined(config: dict[str, Any], default: dict[str, Any]) -> str:
    return shlex.join(flags_of(config, default))
