"""The realism figure: cells of each set of images next to their metrics.

n shown cells, C channels, S crop side in px.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from phenolens.core.colours import checked_crops, shared_contrast
from phenolens.plotting.cell_images import contrast_words, draw_cell, key_above, label_row
from phenolens.plotting.charts import ORANGE, SKY
from phenolens.plotting.style import INK, QUIET, RULE, add_caption, figure_style, new_figure

CELL_IN = 0.64  # side of a crop
LABEL_IN = 1.15
PANEL_IN = 1.1
BETWEEN_IN = 0.1
KIND_COLOURS = {"control": QUIET, "reconstruction": SKY, "samples": ORANGE}
KIND_LABELS = {"control": "real and blurred cells", "reconstruction": "reconstructions", "samples": "samples"}
MARKERS = "osD^vPX*"
DASHED = (0, (4, 3))
CAPTION = (
    "Left: {n} of the cells, the same in every row except for samples, which are decoded from the normal distribution "
    "of the embeddings, or drawn where a model does not decode. Right: bars are 95 % intervals over wells (classifier) "
    "or the standard deviation over random halves of the cells; dashed: no difference, or the value of other real "
    "cells. Other real cells are compared with another cell in place and SSIM, so both are low there."
)


@dataclass(frozen=True)
class Panel:
    """One column of dots."""

    title: str
    metrics: tuple[str, ...]
    best: str  # which values are good
    reference: float | None = None  # the value without a difference; None: the first row's
    range: tuple[float, float] | None = (-0.04, 1.06)  # None: logarithmic, as wide as the values


def realism_figure(
    table: pd.DataFrame, examples: Mapping[str, np.ndarray], *, channels: Sequence[str], notes: Sequence[str] = ()
) -> Figure:
    """Example cells of each set of images next to its realism metrics.

    Args:
        table: A row a set of images, the first the real cells, as `measure_realism` returns it.
        examples: Crops (n, C, S, S) of each set; all are drawn in the real cells' contrast.
        channels: C names.
        notes: Sentences for the caption.
    """
    real = checked_crops(examples[table["images"].iloc[0]], channels, what="real cells")
    contrast = shared_contrast(real, channels)
    panels = panels_of(channels)
    n_cells = len(real)
    widths = [CELL_IN] * n_cells + [BETWEEN_IN, PANEL_IN] * len(panels)
    with figure_style():
        figure = new_figure(LABEL_IN + sum(widths), 0.95 + (CELL_IN + 0.03) * len(table), pad_in=0.01)
        grid = figure.add_gridspec(len(table), len(widths), width_ratios=widths)
        for row, name in enumerate(table["images"]):
            crops = checked_crops(examples[name], channels, what=name)
            axes_row = [figure.add_subplot(grid[row, column]) for column in range(n_cells)]
            for axes, crop in zip(axes_row, crops):
                draw_cell(axes, crop, contrast)
            label_row(axes_row[0], name, characters=16)
        for index, panel in enumerate(panels):
            _draw(figure.add_subplot(grid[:, n_cells + 1 + 2 * index]), table, panel)
        _key(figure, channels, table)
        caption = " ".join([*notes, CAPTION.format(n=n_cells), contrast_words(contrast, real)])
        return add_caption(figure, caption=caption, alt=_alt(table))


def panels_of(channels: Sequence[str]) -> list[Panel]:
    """The columns of dots, from the detail of a cell to the whole distribution."""
    sharpness, in_place, ssim = (
        tuple(f"{metric} {name}" for name in channels) for metric in ("sharpness", "in place", "ssim")
    )
    return [
        Panel("sharpness:\nfine power", sharpness, "1: as sharp", 1.0, None),
        Panel("fine detail\nin its place", in_place, "1: all of it", 1.0),
        Panel("SSIM to the\noriginal", ssim, "1: identical", 1.0),
        Panel("Fréchet\ndistance", ("frechet",), "smaller: closer", None, None),
        Panel("precision,\nrecall", ("precision", "recall"), "larger: better"),
        Panel("accuracy of\na classifier", ("accuracy",), "0.5: chance", 0.5, (0.38, 1.04)),
    ]


def _draw(axes: Axes, table: pd.DataFrame, panel: Panel) -> None:
    for index, metric in enumerate(panel.metrics):
        places = np.arange(len(table)) + (index - (len(panel.metrics) - 1) / 2) * 0.2
        low, high = _bar(table, metric)
        for value, place, kind, left, right in zip(table[metric], places, table["kind"], low, high):
            colour = KIND_COLOURS[kind]
            axes.plot([left, right], [place, place], color=colour, linewidth=1.3, alpha=0.6)
            face = "white" if metric == "recall" else colour
            axes.plot(value, place, MARKERS[index % len(MARKERS)], color=colour, markerfacecolor=face, markersize=4.2)
        if panel.reference is None:
            axes.axvline(table[metric].iloc[0], color=INK, linewidth=0.7, linestyle=DASHED, zorder=0)
    if panel.reference is not None:
        axes.axvline(panel.reference, color=INK, linewidth=0.7, linestyle=DASHED, zorder=0)
    values = table[list(panel.metrics)].to_numpy(float)
    if panel.range is None and not (values > 0).any():  # nothing that a logarithm has
        axes.set_xticks([])
    elif panel.range is None:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=5))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xlim(*panel.range)
        axes.set_xticks([0.5, 1] if panel.range[0] > 0 else [0, 0.5, 1])
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    for place in range(len(table) - 1):
        axes.axhline(place + 0.5, color=RULE, linewidth=0.6, zorder=0)
    axes.set_ylim(len(table) - 0.5, -0.5)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_title(panel.title, fontsize=8, loc="center")
    axes.set_xlabel(panel.best, fontsize=7.5, color=QUIET)
    axes.tick_params(axis="x", labelsize=7.5)


def _bar(table: pd.DataFrame, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of each value's bar: its interval if it has one, else one standard deviation to each side."""
    if f"{metric}_low" in table:
        return table[f"{metric}_low"].to_numpy(float), table[f"{metric}_high"].to_numpy(float)
    values, deviations = table[metric].to_numpy(float), table[f"{metric}_sd"].to_numpy(float)
    return values - np.minimum(deviations, 0.9 * np.abs(values)), values + deviations  # 0.9: above 0 on a log axis


def _key(figure: Figure, channels: Sequence[str], table: pd.DataFrame) -> None:
    """Legend of the colours (kinds of set) and markers (channels, precision and recall)."""
    handles = [
        _mark(KIND_LABELS[kind], "|", KIND_COLOURS[kind], markeredgewidth=4) for kind in dict.fromkeys(table["kind"])
    ]
    handles += [_mark(name, MARKERS[index % len(MARKERS)], INK) for index, name in enumerate(channels)]
    handles += [_mark("precision", "o", INK), _mark("recall", "s", INK, markerfacecolor="white")]
    key_above(figure, handles, columnspacing=1.1, handletextpad=0.4, borderpad=0.5)


def _mark(label: str, marker: str, colour: str, **more: Any) -> Line2D:
    return Line2D([], [], color=colour, marker=marker, linestyle="none", markersize=4.2, label=label, **more)


def _alt(table: pd.DataFrame) -> str:
    known = table[table["accuracy"].notna()]
    values = ", ".join(f"{name} {share:.2f}" for name, share in zip(known["images"], known["accuracy"]))
    accuracy = f" Accuracy of a classifier against real cells: {values}." if values else ""
    return f"Cells of {len(table)} sets of images, real ones first, and their realism metrics.{accuracy}"
