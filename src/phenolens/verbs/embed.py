"""`phenolens embed`: every crop as numbers."""

from dataclasses import dataclass, field
from pathlib import Path

from tyro.conf import Positional

from phenolens import pipeline
from phenolens.core.progress import tell
from phenolens.pipeline import EmbedConfig
from phenolens.readiness import ready_runs
from phenolens.study import Study


@dataclass(frozen=True)
class Flags:
    """What `phenolens embed` takes."""

    study: Positional[Path]  # the study's folder
    runs: tuple[str, ...] = ()  # runs to embed with; all when none is named
    embed: EmbedConfig = field(default_factory=EmbedConfig)


def act(flags: Flags) -> None:
    """Embed with each run."""
    study = Study.open(flags.study)
    for name in study.chosen_runs(flags.runs) if flags.runs else ready_runs(study, "trained"):
        pipeline.embed(study, name, flags.embed)
        tell(f"embeddings of {name}: {study.embeddings_folder(name)}")
    tell(f"next: phenolens profile {study.folder}")
