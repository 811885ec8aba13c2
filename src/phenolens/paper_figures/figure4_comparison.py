"""Figure 4: one treatment by two models, and the treatment that each finds nearest to it. Lafarge et al. 2019.

The nearest treatment is that of the headline score. n cells, C channels, S crop side in px. Crops are floats, each
channel divided by its own maximum.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from phenolens.core.colours import shared_contrast
from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.paper_figures.config import FigureConfig
from phenolens.plotting.cell_images import (
    PAD_IN,
    cell_grid,
    channel_key,
    channels_apart,
    contrast_words,
    draw_cell,
    label_row,
    listed,
    wrapped,
)
from phenolens.plotting.style import add_caption, bare, figure_style, new_figure
from phenolens.readiness import check_scores
from phenolens.runs.catalogue import Catalogue
from phenolens.runs.decoder import DecodingRun, by_model, find_decoding_runs, open_decoding_runs, runs_by_title
from phenolens.runs.example_cells import chosen_words, drawn_cells, seen_words, unseen_cells
from phenolens.runs.scores import queries_of, scored_runs
from phenolens.study import Study

SIDE_IN = 0.82  # of a real cell
LABEL_IN, KEY_IN = 0.75, 0.55  # left of the pictures, for the models' names; above them, for the channels
ANSWER_IN = 0.17  # a line of text above each group of real cells
REAL_COLUMNS = 5
GAP_IN = 0.3  # between the two
REAL_CELLS = 10  # random real cells of a group
SHOWN_CELLS = 2  # by default
LETTERS = 60  # in a line above real cells


@dataclass(frozen=True)
class RealCells:
    """Random real cells, and their title: the treatment, and the answers of models."""

    title: str
    crops: np.ndarray  # (n, C, S, S)


def comparison_figure(study: Study, config: FigureConfig) -> Figure:
    """Figure 4: cells of one treatment by two models, channel by channel, and the treatment that each finds nearest."""
    check_scores(study)
    runs = _two_runs(study, config.runs)
    store, random = study.crops, np.random.default_rng(config.picture_seed)
    catalogue, unseen = Catalogue.of(store.cells), unseen_cells(store, runs)
    answers = {name: _neighbours(study, run.name) for name, run in runs_by_title(runs).items()}
    treatment = catalogue.find_treatment(config.treatment or _random_treatment(list(answers.values()), random))
    rows = _own_cells(catalogue, config.cells, treatment)
    if not len(rows):
        rows = drawn_cells(catalogue.rows_of(treatment), config.shown_cells or SHOWN_CELLS, unseen, random)
    label, moa = catalogue.label(treatment), str(catalogue.treatments.loc[treatment, "moa"])
    groups = {treatment: f"{label}: {moa or 'mechanism not known'}"}
    for name, table in answers.items():
        neighbour, sentence = _answer(table, treatment, catalogue)
        groups[neighbour] = "\n".join(filter(None, [groups.get(neighbour, ""), f"{name}: {sentence}"]))
    real = []
    for nearest, title in groups.items():
        others = np.setdiff1d(catalogue.rows_of(nearest), rows)
        drawn = drawn_cells(others if len(others) else rows, REAL_CELLS, unseen, random)
        real.append(RealCells(title, runs[0].originals(drawn)))
    chosen = "" if config.treatment else "The treatment was drawn at random. "
    return comparison(
        runs[0].originals(rows),
        {name: run.reconstructed(rows) for name, run in runs_by_title(runs).items()},
        real,
        label,
        channels=store.channels,
        note=f"{chosen}{chosen_words(config.cells, config.picture_seed)} {seen_words(rows, unseen)} A model's answer "
        "is the mechanism of the nearest treatment of another compound (whitened mean profiles, cosine).",
    )


def comparison(
    originals: np.ndarray,
    by_model: Mapping[str, np.ndarray],
    real: Sequence[RealCells],
    treatment: str,
    *,
    channels: Sequence[str],
    note: str,
) -> Figure:
    """Draw originals of one treatment over each model's reconstructions, channels apart, next to real cells.

    Args:
        originals: (n, C, S, S).
        by_model: A model's name and its reconstructions (n, C, S, S).
        real: Groups of random real cells, such as those of each model's nearest treatment.
        treatment: Its label.
        channels: The C names.
        note: For the caption: how the cells were chosen.
    """
    contrast = shared_contrast(np.concatenate([originals, *(group.crops for group in real)]), channels)
    columns = channels_apart(contrast) if len(channels) > 1 else [(None, channels[0])]
    lines = [
        (name, crops[i]) for i in range(len(originals)) for name, crops in {"original": originals, **by_model}.items()
    ]
    per_cell = 1 + len(by_model)

    titles = [wrapped(group.title, LETTERS) for group in real]
    real_rows = [-(-len(group.crops) // REAL_COLUMNS) for group in real]
    heights_in = [SIDE_IN * n + ANSWER_IN * (title.count("\n") + 1) + 0.12 for n, title in zip(real_rows, titles)]
    side = max(0.6, min(1.1, (sum(heights_in) - KEY_IN) / len(lines)))
    left_in, right_in = LABEL_IN + side * len(columns), SIDE_IN * REAL_COLUMNS
    height_in = max(KEY_IN + side * len(lines), sum(heights_in))
    with figure_style():
        figure = new_figure(left_in + GAP_IN + right_in, height_in, pad_in=PAD_IN)
        left, _, right = figure.subfigures(1, 3, squeeze=False, width_ratios=[left_in, GAP_IN, right_in]).ravel()
        grid = cell_grid(left, len(lines), len(columns))
        for number, (axes_row, (name, crop)) in enumerate(zip(grid, lines)):
            for axes, (channel, title) in zip(axes_row, columns):
                draw_cell(axes, crop, contrast, channel)
                if number == 0:
                    axes.set_title(title, fontsize=8, loc="center")
            cell = f"cell {number // per_cell + 1}\n" if number % per_cell == 0 else ""
            label_row(axes_row[0], cell + name, characters=10)
        channel_key(left, contrast)
        panels = right.subfigures(len(real), 1, height_ratios=heights_in, squeeze=False).ravel()
        for panel, group, title, n_rows in zip(panels, real, titles, real_rows):
            panel.suptitle(title, x=0, ha="left", fontsize=8.5)
            places = cell_grid(panel, n_rows, REAL_COLUMNS).ravel()
            for axes in places:
                bare(axes)
            for axes, crop in zip(places, group.crops):
                draw_cell(axes, crop, contrast)
        models, shown = listed(list(by_model)), f"{counted(len(originals), 'cell')} of {treatment}"
        return add_caption(
            figure,
            caption=f"n = {shown}: the originals over what {models} decoded from each "
            f"cell's embedding, channels together and apart; next to them, {sum(len(group.crops) for group in real)} "
            f"random real cells. {note} {contrast_words(contrast, originals)}",
            alt=f"{shown} over their reconstructions by {models}, channel by channel; "
            + "; ".join(" ".join(group.title.split()) for group in real),
        )


def _two_runs(study: Study, names: Sequence[str]) -> list[DecodingRun]:
    """The two named runs; else the two best models among the scored runs that decode."""
    scored = scored_runs(study)
    for name in study.chosen_runs(tuple(names)):
        if names and name not in scored:
            raise InputError(f'run "{name}" has no scores; run `phenolens evaluate {study.quoted}` first')
    runs = find_decoding_runs(study, names) if names else sorted(open_decoding_runs(study, scored), key=by_model)
    first_of_model = {run.model_name: run for run in reversed(runs)}.values()
    chosen = runs if names else sorted(first_of_model, key=by_model)[-2:]
    if len(chosen) != 2:
        there = listed([run.name for run in runs]) or "none"
        raise InputError(
            f"a comparison shows two runs that decode and are scored, not {len(chosen)} (there: {there}); "
            f"name two with --runs, or train another model: phenolens train {study.quoted} --model vae"
        )
    return chosen


def _own_cells(catalogue: Catalogue, ids: Sequence[str], treatment: str) -> np.ndarray:
    """The rows of these cells; InputError for a cell of another treatment."""
    rows = catalogue.find_cells(ids)
    others = np.setdiff1d(rows, catalogue.rows_of(treatment))
    if len(others):
        other = catalogue.cells["cell_id"].iloc[others[0]]
        raise InputError(f'--cells: cell "{other}" is not of {treatment}; name cells of that treatment')
    return rows


def _neighbours(study: Study, name: str) -> pd.DataFrame:
    """The headline score's queries by treatment; InputError where there are none."""
    queries = queries_of(study, name)
    if queries is None:
        raise InputError(
            f'run "{name}" has no NSC score; run `phenolens evaluate {study.quoted} --protocols NSC` first'
        )
    return queries


def _random_treatment(tables: Sequence[pd.DataFrame], random: np.random.Generator) -> str:
    """A random treatment that both runs are scored on."""
    counted = [set(table.index[table["counted"]]) for table in tables]
    both = sorted(set.intersection(*counted))
    if not both:
        raise InputError("no treatment was scored by both runs; name one with --treatment")
    return str(random.choice(both))


def _answer(table: pd.DataFrame, treatment: str, catalogue: Catalogue) -> tuple[str, str]:
    """The nearest treatment by a run, and its answer as text; the treatment itself where it was not scored."""
    row = table.loc[treatment].to_dict() if treatment in table.index else {}
    if not row.get("neighbour"):
        return treatment, f"not scored ({row.get('reason', 'it is not in its scores')})"
    right = ("right" if row["right"] else "wrong") if row["counted"] else "not counted"
    nearest = f"nearest: {catalogue.label(row['neighbour'])} (distance {row['distance']:.2f})"
    return row["neighbour"], f"{row['predicted']} ({right})\n{nearest}"
