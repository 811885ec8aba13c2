"""Pictures of cells: originals over reconstructions, the way from control to compound, contact sheets.

n cells, F frames, C channels, S crop side in px. Crops are floats, each channel divided by its own maximum. Every
figure uses one contrast for all its cells, its own or the one it is given. Lafarge et al. 2019, Figures 2 and 3.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from phenolens.colours import Array, Contrast, checked_crops, shared_contrast
from phenolens.errors import InputError
from phenolens.viewing.canvas import bare, describe, look, new_figure
from phenolens.viewing.pieces import (
    PAD_IN,
    WIDTH_IN,
    cell_grid,
    cell_label,
    channel_key,
    channels_apart,
    contrast_words,
    draw_cell,
    label_row,
    listed,
    same_cells,
)


def reconstructions(
    originals: Array,
    by_model: Mapping[str, Array],
    labels: Sequence[str],
    *,
    channels: Sequence[str],
    apart: bool = False,
    contrast: Contrast | None = None,
    note: str = "",
) -> Figure:
    """Originals (n, C, S, S) above each model's reconstructions of the same cells: the paper's Figure 2.

    `by_model`: the model's name and its reconstructions (n, C, S, S), in the order of the rows. `labels`: what each
    cell is, its treatment. With `apart`, each row of cells is followed by its channels one by one, in grey (Figure 4).
    `note` says in sentences how the cells were chosen.
    """
    originals = checked_crops(originals, channels, what="originals")
    contrast = contrast or shared_contrast(originals, channels)
    rows = {"original": originals, **{name: crops for name, crops in by_model.items()}}
    for name, crops in rows.items():
        same_cells(checked_crops(crops, channels, what=name), originals, name)
    if len(labels) != len(originals):
        raise InputError(f"{len(labels)} labels for {len(originals)} cells: expected one label a cell")
    if apart:
        lines = [(f"{name}\n{part}", crops, i) for i, part in channels_apart(contrast) for name, crops in rows.items()]
    else:
        lines = [(name, crops, None) for name, crops in rows.items()]

    n = len(originals)
    with look():
        side = min((WIDTH_IN - 1.0) / n, 1.35)
        figure = new_figure(1.0 + side * n, 0.75 + (side + 2 * PAD_IN) * len(lines), pad_in=PAD_IN)
        grid = cell_grid(figure, len(lines), n)
        for axes_row, (name, crops, channel) in zip(grid, lines):
            for axes, crop in zip(axes_row, crops):
                draw_cell(axes, crop, contrast, channel)
            label_row(axes_row[0], name)
        for axes, label in zip(grid[0], labels):
            axes.set_title(cell_label(label, side), fontsize=8, loc="center")
        channel_key(figure, contrast)
        models = listed(list(by_model))
        return describe(
            figure,
            caption=f"n = {n} cells; top row the originals, below what {models} decoded from each cell's embedding. "
            f"{note + ' ' if note else ''}{contrast_words(contrast, originals)}",
            alt=f"{n} original cells ({', '.join(dict.fromkeys(labels))}) above their reconstructions by {models}",
        )


def cell_sheet(
    crops: Sequence[Array], titles: Sequence[str], *, channels: Sequence[str], contrast: Contrast | None = None
) -> Figure:
    """A contact sheet of real cells, a row of crops (n_i, C, S, S) for each title (a mechanism or a treatment)."""
    if len(crops) != len(titles) or not titles:
        raise InputError(
            f"{len(crops)} groups of cells, {len(titles)} titles: expected one title a group, at least one"
        )
    for group, title in zip(crops, titles):
        checked_crops(group, channels, what=title)
    contrast = contrast or shared_contrast(np.concatenate(list(crops)), channels)
    n_columns = max(len(group) for group in crops)
    n_cells = sum(len(group) for group in crops)
    with look():
        label_in = 1.75
        side = min((WIDTH_IN - label_in) / n_columns, 1.1)
        figure = new_figure(label_in + side * n_columns, 0.4 + (side + 2 * PAD_IN) * len(crops), pad_in=PAD_IN)
        grid = cell_grid(figure, len(crops), n_columns)
        for axes_row, group, title in zip(grid, crops, titles):
            for axes, crop in zip(axes_row, group):
                draw_cell(axes, crop, contrast, None)
            for axes in axes_row[len(group) :]:
                bare(axes)
            label_row(axes_row[0], title, characters=20)
        channel_key(figure, contrast)
        return describe(
            figure,
            caption=f"n = {n_cells} real cells, {len(titles)} groups. {contrast_words(contrast, crops[0])}",
            alt=f"Contact sheet of {n_cells} real cells in rows: {', '.join(titles)}",
        )
