"""`phenolens train`: learn a representation from the crops."""

from dataclasses import dataclass, field
from pathlib import Path

from tyro.conf import Positional

from phenolens import pipeline
from phenolens.core.progress import tell
from phenolens.study import Study
from phenolens.training.config import TrainConfig


@dataclass(frozen=True)
class Flags:
    """What `phenolens train` takes."""

    study: Positional[Path]  # the study's folder
    name: str | None = None  # of the run; left out: the model and its seed, such as vaeplus-seed0
    train: TrainConfig = field(default_factory=TrainConfig)


def act(flags: Flags) -> None:
    """Train, or go on."""
    study = Study.open(flags.study)
    name = flags.name or pipeline.run_name(flags.train)
    pipeline.train(study, flags.train, name=name)
    tell(f"{name} is trained: {study.run_folder(name)}")
    tell(f"next: phenolens embed {study.folder}")
