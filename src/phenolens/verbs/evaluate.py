"""`phenolens evaluate`: how well treatments match by mechanism."""

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from phenolens import steps
from phenolens.progress import tell
from phenolens.steps import EvaluateConfig
from phenolens.study import Study


@dataclass(frozen=True)
class Flags:
    """What `phenolens evaluate` takes."""

    study: Positional[Path]  # the study's folder
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)


def act(flags: Flags) -> None:
    """Score each run's profiles and print the table."""
    study = Study.open(flags.study)
    steps.evaluate(study, steps.profiled_runs(study), flags.evaluate)
    show_scores(study)
    tell(f"next: phenolens report {study.folder}")


def show_scores(study: Study) -> None:
    """The study's scores as a table on stdout."""
    table = Table("model", "seed", "statistics", "whitening", "score", "right", "accuracy", "95 % interval")
    for row in pd.read_csv(study.scores, keep_default_na=False).to_dict("records"):
        names = [str(row[name]) for name in ("model", "seed", "statistics", "whitening", "protocol")]
        right = f"{row['n_correct']} of {row['n_treatments']}"
        interval = f"{100 * row['ci_low']:.0f} to {100 * row['ci_high']:.0f} %"
        table.add_row(*names, right, f"{100 * row['accuracy']:.1f} %", interval)
    Console(width=110).print(table)
