"""`phenolens realism`: how realistic decoded images are, next to real and blurred cells."""

from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from phenolens.core.progress import tell
from phenolens.realism.compute import RealismConfig
from phenolens.study import Study


@dataclass(frozen=True)
class Flags:
    """What `phenolens realism` takes."""

    study: Positional[Path]  # the study's folder
    runs: tuple[str, ...] = ()  # runs to measure; left out: all trained runs that decode
    realism: RealismConfig = field(default_factory=RealismConfig)


def act(flags: Flags) -> None:
    """Measure, save tables and figure in the study's `realism/`, and print the table with its notes."""
    from phenolens.realism.saved import write_realism
    from phenolens.realism.table import HEADINGS, realism_rows

    study = Study.open(flags.study)
    saved = write_realism(study, flags.runs, flags.realism)
    table = Table(*HEADINGS)
    for row in realism_rows(saved.table):
        table.add_row(*row)
    Console(width=150).print(table)
    print("\n".join(saved.notes))
    print(saved.figure.resolve())
    tell(
        f"next: open that figure, or phenolens report {study.folder}, which shows it; every measure is in "
        f"{saved.folder / 'differences.csv'}; docs/training.md says how to improve realism"
    )
