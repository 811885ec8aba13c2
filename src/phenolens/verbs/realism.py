"""`phenolens realism`: how real the models' pictures look, beside each other and beside real and blurred cells."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from phenolens.contents.realism import RealismConfig
from phenolens.progress import tell
from phenolens.study import Study

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Flags:
    """What `phenolens realism` takes."""

    study: Positional[Path]  # the study's folder
    runs: tuple[str, ...] = ()  # runs whose pictures are measured; all that are trained when none is named
    realism: RealismConfig = field(default_factory=RealismConfig)


def act(flags: Flags) -> None:
    """Measure, keep table and figure in the study's `realism/`, and print the table; what is done already is kept."""
    from phenolens.contents.realism_folder import realism_of_study

    study = Study.open(flags.study)
    kept = realism_of_study(study, flags.runs, flags.realism)
    show(kept.table, kept.notes)
    print((kept.folder / "realism.png").resolve())
    tell(
        f"next: open that figure; {kept.folder / 'telling.csv'} says which measure tells drawn from real; sharper "
        f"pictures need a longer training: phenolens train {study.folder} --steps N"
    )


def show(table: "pd.DataFrame", notes: tuple[str, ...]) -> None:
    """Print a row a look: the metrics with their spread, and what was measured."""
    from phenolens.viewing.realism_table import HEADINGS, READING, cell_texts

    shown = Table(*HEADINGS)
    for row in table.to_dict("records"):
        shown.add_row(*cell_texts({str(name): value for name, value in row.items()}))
    Console(width=150).print(shown)
    for sentence in (*notes, *READING):
        print(sentence)
