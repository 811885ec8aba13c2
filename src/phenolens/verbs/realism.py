"""`phenolens realism`: how real the models' pictures look, beside each other and beside real and blurred cells."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from phenolens.core.progress import tell
from phenolens.realism.compute import RealismConfig
from phenolens.study import Study

if TYPE_CHECKING:
    from phenolens.realism.saved import KeptRealism


@dataclass(frozen=True)
class Flags:
    """What `phenolens realism` takes."""

    study: Positional[Path]  # the study's folder
    runs: tuple[str, ...] = ()  # runs whose pictures are measured; all that are trained when none is named
    realism: RealismConfig = field(default_factory=RealismConfig)


def act(flags: Flags) -> None:
    """Measure, keep table and figure in the study's `realism/`, and print the table; what is done already is kept."""
    from phenolens.realism.saved import realism_of_study

    study = Study.open(flags.study)
    kept = realism_of_study(study, flags.runs, flags.realism)
    show(kept)
    print((kept.folder / "realism.png").resolve())
    tell(
        f"next: open that figure, or phenolens report {study.folder}, which shows it; every measure is in "
        f"{kept.folder / 'telling.csv'}; what to try in training stands in docs/training.md"
    )


def show(kept: "KeptRealism") -> None:
    """Print a row a look: the metrics with their spread; what was measured, and what tells the drawn cells."""
    from phenolens.realism.table import HEADINGS, READING, realism_rows

    shown = Table(*HEADINGS)
    for row in realism_rows(kept.table):
        shown.add_row(*row)
    Console(width=150).print(shown)
    for sentence in (*kept.sentences(), *READING):
        print(sentence)
