"""`phenolens profile`: from cells to wells to treatments."""

from dataclasses import dataclass, field
from pathlib import Path

from tyro.conf import Positional

from phenolens import pipeline
from phenolens.core.progress import tell
from phenolens.pipeline import ProfileConfig
from phenolens.readiness import ready_runs
from phenolens.study import Study


@dataclass(frozen=True)
class Flags:
    """What `phenolens profile` takes."""

    study: Positional[Path]  # the study's folder
    runs: tuple[str, ...] = ()  # runs to profile; all when none is named
    profile: ProfileConfig = field(default_factory=ProfileConfig)


def act(flags: Flags) -> None:
    """Profile each run's embeddings."""
    study = Study.open(flags.study)
    for name in study.chosen_runs(flags.runs) if flags.runs else ready_runs(study, "embedded"):
        pipeline.profile(study, name, flags.profile)
        tell(f"profiles of {name}: {study.profiles_folder(name)}")
    tell(f"next: phenolens evaluate {study.folder}")
