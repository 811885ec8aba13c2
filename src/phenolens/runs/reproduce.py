"""The commands that reproduce a study, with the settings that differ from the defaults."""

import shlex
from dataclasses import asdict
from typing import Any

from phenolens.core.files import read_json
from phenolens.core.keywords import flags_of
from phenolens.crops.config import CropConfig
from phenolens.crops.store import CropStore
from phenolens.models import MODELS
from phenolens.models.interface import Trained
from phenolens.pipeline import EvaluateConfig, ProfileConfig
from phenolens.readiness import decoded_run, run_config, scores_about
from phenolens.study import Study
from phenolens.training.config import OF_STEPS, TrainConfig


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
    for name in sorted(runs, key=lambda name: decoded_run(study, name) in runs):  # decoders after what they decode
        config = run_config(study, name)
        if not issubclass(MODELS[config["model"]].load(), Trained):
            config = {key: value for key, value in config.items() if key not in OF_STEPS}
        if (of := decoded_run(study, name)) in runs:
            lines.append(f"phenolens embed {folder} --runs {of}")
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
