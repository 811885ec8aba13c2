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
    from phenolens.contents.realism_folder import KeptRealism


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
    show(kept, flags.realism.nuclei)
    print((kept.folder / "realism.png").resolve())
    tell(
        f"next: open that figure; every measure is in {kept.folder / 'telling.csv'}; what to try in training stands in "
        "docs/training.md"
    )


def show(kept: "KeptRealism", nuclei: str | None) -> None:
    """Print a row a look: the metrics with their spread; what was measured, and what tells the drawn cells."""
    from phenolens.viewing.realism_table import HEADINGS, READING, cell_texts, telling_sentence

    shown = Table(*HEADINGS)
    for row in kept.table.to_dict("records"):
        shown.add_row(*cell_texts({str(name): value for name, value in row.items()}))
    Console(width=150).print(shown)
    drawn = kept.table.loc[kept.table["kind"] != "control", "look"]
    told = (telling_sentence(kept.telling, look, nuclei=nuclei) for look in drawn)
    for sentence in (*kept.notes, *filter(None, told), *READING):
        print(sentence)
