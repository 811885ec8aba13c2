"""Figure 4 of a study: one treatment by two models, and the treatment that each finds nearest to it.

Lafarge et al. 2019, Figure 4. A treatment's nearest is that of the headline's score.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from phenolens.contents.destinations import Destinations
from phenolens.contents.embedded import embedded_cells
from phenolens.contents.pictured import PicturedRun, pictured_runs
from phenolens.contents.shown_cells import cells_by_id, chosen_words, drawn_cells, seen_words, unseen_cells
from phenolens.contents.shown_runs import decoding_runs, named_runs, place
from phenolens.errors import InputError
from phenolens.steps import check_scores
from phenolens.study import HEADLINE, Study
from phenolens.viewing.pieces import listed
from phenolens.viewing.versus import RealCells, versus

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REAL_CELLS = 10  # random real cells of a group


def comparison(
    study: Study, asked_runs: Sequence[str], asked: str | None, cells: Sequence[str], *, n_cells: int, seed: int
) -> "Figure":
    """Figure 4: cells of one treatment by two models, channel by channel, and the treatment that each finds nearest."""
    check_scores(study)
    runs = _two_runs(study, asked_runs)
    store, random = study.store(), np.random.default_rng(seed)
    destinations = Destinations(embedded_cells(study, runs[0].name))
    answers = {name: _neighbours(study, run.name) for name, run in named_runs(runs).items()}
    treatment = destinations.treatment(asked or _drawn_treatment(list(answers.values()), random))
    unseen = unseen_cells(store, runs)
    rows = _own_cells(store.cells["cell_id"], cells_by_id(store, cells), destinations, treatment)
    if not len(rows):
        rows = drawn_cells(destinations.rows_of(treatment), n_cells, unseen, random)
    label, moa = destinations.label(treatment), str(destinations.table.loc[treatment, "moa"])
    groups = {treatment: f"{label}: {moa or 'mechanism not known'}"}
    for name, table in answers.items():
        neighbour, words = _answer(table, treatment, destinations)
        groups[neighbour] = "\n".join(filter(None, [groups.get(neighbour, ""), f"{name}: {words}"]))
    real = []
    for nearest, title in groups.items():
        others = np.setdiff1d(destinations.rows_of(nearest), rows)
        drawn = drawn_cells(others if len(others) else rows, REAL_CELLS, unseen, random)
        real.append(RealCells(title, runs[0].originals(drawn)))
    by_model = {name: run.redrawn(rows) for name, run in named_runs(runs).items()}
    chosen = "" if asked else "The treatment was drawn by the seed. "
    return versus(
        runs[0].originals(rows),
        by_model,
        real,
        label,
        channels=store.channels,
        note=f"{chosen}{chosen_words(cells, seed)} {seen_words(rows, unseen)} A model's answer is the mechanism "
        "of the nearest treatment of another compound (whitened mean profiles, cosine).",
    )


def _two_runs(study: Study, asked: Sequence[str]) -> list[PicturedRun]:
    """The two runs asked for; else of the scored ones that decode the VAE+ and the model before it."""
    scored = list(pd.read_csv(study.folder / "scores" / "chance.csv", keep_default_na=False)["run"].unique())
    for name in study.chosen_runs(tuple(asked)):
        if asked and name not in scored:
            raise InputError(f'run "{name}" has no scores; run `phenolens evaluate {study.folder}` first')
    runs = decoding_runs(study, asked) if asked else sorted(pictured_runs(study, scored), key=place)
    first_of_model = list({run.model_name: run for run in reversed(runs)}.values()) if not asked else runs
    chosen = sorted(first_of_model, key=place)[-2:] if not asked else runs
    if len(chosen) != 2:
        there = listed([run.name for run in runs]) or "none"
        raise InputError(
            f"a comparison shows two runs that decode and are scored, not {len(chosen)} (there: {there}); "
            f"name two with --runs, or train another model: phenolens train {study.folder} --model vae"
        )
    return chosen


def _own_cells(ids: pd.Series, rows: np.ndarray, destinations: Destinations, treatment: str) -> np.ndarray:
    """The rows as they are; InputError for a cell of another treatment."""
    others = np.setdiff1d(rows, destinations.rows_of(treatment))
    if len(others):
        raise InputError(f'--cells: cell "{ids.iloc[others[0]]}" is not of {treatment}; name cells of that treatment')
    return rows


def _neighbours(study: Study, name: str) -> pd.DataFrame:
    """What the headline's score says of each treatment, by its name; InputError when it was not scored."""
    path = study.score_table(name, "neighbours", **HEADLINE)
    if not path.exists():
        raise InputError(f"{path}: not there; run `phenolens evaluate {study.folder}` with --protocols NSC first")
    return pd.read_csv(path, keep_default_na=False).set_index("treatment")


def _drawn_treatment(tables: Sequence[pd.DataFrame], random: np.random.Generator) -> str:
    """A treatment that every one of these runs was asked about."""
    counted = [set(table.index[table["counted"].astype(str) == "True"]) for table in tables]
    both = sorted(set.intersection(*counted))
    if not both:
        raise InputError("no treatment was scored by both runs; name one with --treatment")
    return str(random.choice(both))


def _answer(table: pd.DataFrame, treatment: str, destinations: Destinations) -> tuple[str, str]:
    """The nearest treatment, and in words what a run takes this one for; itself where the run was not asked."""
    row = table.loc[treatment].astype(str).to_dict() if treatment in table.index else {}
    if not row.get("neighbour"):
        return treatment, f"was not asked ({row.get('reason', 'it is not in its scores')})"
    right = {"True": "right", "False": "wrong"}[row["right"]] if row["counted"] == "True" else "not counted"
    nearest = f"nearest: {destinations.label(row['neighbour'])} (distance {float(row['distance']):.2f})"
    return row["neighbour"], f"{row['predicted']} ({right})\n{nearest}"
