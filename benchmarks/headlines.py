"""Count headlines of travels that contradict the real cells without a mark, over all treatments of a study.

A headline is one of the first N_HEADLINES measures beside a travel's frames. It contradicts the real cells where the
decoded change of the moved control cells has another sign than the treated minus control cells, both 95 % intervals
apart; it is marked where the caption lists it among those that do not agree. Every contradiction must be marked.

    python benchmarks/headlines.py STUDY
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro
from tyro.conf import Positional

from phenolens.core.bounds import Bounded, Count
from phenolens.core.progress import track
from phenolens.morphology.features import describe
from phenolens.study import Study
from phenolens.travels.compute import Traveller
from phenolens.travels.config import TravelConfig
from phenolens.travels.measured_change import MeasuredChange
from phenolens.travels.trajectory import FEW_MOVED

N_HEADLINES = 5  # measures in a caption


@dataclass(frozen=True)
class Flags(Bounded):
    """What the benchmark takes."""

    study: Positional[Path]
    run: str | None = None  # left out: the best decoding run
    treatments: Count | None = None  # the first so many; left out: all


def counted(change: MeasuredChange) -> tuple[int, int, int]:
    """Headlines, those that contradict the real cells, and those of these that the caption does not mark."""
    headlines = change.largest()[:N_HEADLINES]
    against = headlines[~headlines["agrees"].fillna(False).astype(bool)]
    _, _, marked = change.sentences(N_HEADLINES)[0].partition("not ")
    unmarked = [name for name in against.index if describe(str(name)).split(",")[0] not in marked]
    return len(headlines), len(against), len(unmarked)


def headlines(given: Flags) -> int:
    """Print the counts of a study as JSON; 1 where a contradiction is unmarked."""
    traveller = Traveller.open(Study.open(given.study), given.run)
    table = traveller.catalogue.treatments
    names = list(table.index[table["role"] == "treated"])[: given.treatments]
    totals = [0, 0, 0]
    for name in track(names, "travels", total=len(names)):
        ((change, _),) = traveller.measured_changes(TravelConfig(to=name, moved_cells=FEW_MOVED))
        totals = [total + more for total, more in zip(totals, counted(change))]
    keys = ("treatments", "headlines", "against_real_cells", "unmarked")
    print(json.dumps(dict(zip(keys, (len(names), *totals)))))
    return int(totals[2] > 0)


if __name__ == "__main__":
    sys.exit(headlines(tyro.cli(Flags, description=__doc__)))
