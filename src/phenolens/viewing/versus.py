"""Figure 4: one treatment redrawn by several models, channel by channel, and what each takes it for.

n cells, C channels, S crop side in px. Crops are floats, each channel divided by its own maximum. Lafarge et al. 2019.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from phenolens.colours import Array, Contrast, checked_crops, shared_contrast
from phenolens.errors import InputError
from phenolens.viewing.canvas import PIXELS_PER_INCH, bare, describe, look
from phenolens.viewing.pieces import (
    PAD_IN,
    cell_grid,
    channel_key,
    channels_apart,
    contrast_words,
    draw_cell,
    label_row,
    listed,
    same_cells,
    wrapped,
)

SIDE_IN = 0.82  # of a real cell
LABEL_IN, KEY_IN = 0.75, 0.55  # left of the pictures, for the models' names; above them, for the channels
ANSWER_IN = 0.17  # a line of text above each group of real cells
REAL_COLUMNS = 5
GAP_IN = 0.3  # between the two
LETTERS = 60  # in a line above real cells


@dataclass(frozen=True)
class RealCells:
    """Random real cells, and what is said above them: the treatment, or what a model takes it for."""

    title: str
    crops: Array  # (n, C, S, S)


def versus(
    originals: Array,
    by_model: Mapping[str, Array],
    real: Sequence[RealCells],
    treatment: str,
    *,
    channels: Sequence[str],
    note: str = "",
    contrast: Contrast | None = None,
) -> Figure:
    """Originals (n, C, S, S) of one treatment over each model's reconstructions, channels apart; real cells beside.

    `by_model`: the model's name and its reconstructions (n, C, S, S). `real`: groups of random real cells, such as
    those of the treatment that each model takes for the nearest. `note` says in sentences how cells were chosen.
    """
    originals = checked_crops(originals, channels, what="originals")
    for name, crops in by_model.items():
        same_cells(checked_crops(crops, channels, what=name), originals, name)
    for group in real:
        checked_crops(group.crops, channels, what=group.title)
    if not by_model or not real:
        raise InputError(f"{len(by_model)} models, {len(real)} groups of real cells: expected at least one of each")
    contrast = contrast or shared_contrast(np.concatenate([originals, *(group.crops for group in real)]), channels)
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
    with look():
        figure = Figure(figsize=(left_in + GAP_IN + right_in, height_in), dpi=PIXELS_PER_INCH)
        figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=PAD_IN, h_pad=PAD_IN, wspace=0, hspace=0))
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
        models = listed(list(by_model))
        return describe(
            figure,
            caption=f"n = {len(originals)} cells of {treatment}: the originals over what {models} decoded from each "
            f"cell's embedding, channels together and apart; beside, {sum(len(group.crops) for group in real)} random "
            f"real cells. {note + ' ' if note else ''}{contrast_words(contrast, originals)}",
            alt=f"{len(originals)} cells of {treatment} over their reconstructions by {models}, channel by channel; "
            + "; ".join(" ".join(group.title.split()) for group in real),
        )
