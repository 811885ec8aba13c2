"""Nearest-neighbour pairs: treatments next to the treatment with the most similar profile, with cells of both.

n cells of a treatment, C channels, S crop side in px.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from phenolens.core.colours import colour_names, shared_contrast
from phenolens.core.counted import counted
from phenolens.crops.store import CropStore, normalised
from phenolens.plotting.cell_images import PAD_IN, WIDTH_IN, cell_grid, draw_cell
from phenolens.plotting.style import INK, QUIET, add_caption, bare, figure_style, new_figure
from phenolens.runs.embeddings import EmbeddedCells

LABEL_IN = 1.55
LABEL_CHARACTERS = 22
SHOWN_WRONG = 4  # treatments whose neighbour has another mechanism
SHOWN_RIGHT = 4
SHOWN_CELLS = 4  # of each treatment
MARKS = {True: "✓ right, ", False: "✗ wrong, ", None: ""}


@dataclass(frozen=True)
class Pair:
    """A treatment and its nearest neighbour, with cells of both."""

    treatment: str  # its label: taxol 0.3 µM
    moa: str
    neighbour: str
    predicted: str  # the neighbour's mechanism
    distance: float  # cosine, 0 to 2
    cells: np.ndarray  # (n, C, S, S) of the treatment
    neighbour_cells: np.ndarray  # (n, C, S, S)
    right: bool | None  # whether they share a mechanism; None where mechanisms are not compared


def neighbour_pairs(queries: pd.DataFrame, cells: EmbeddedCells, store: CropStore) -> Figure | None:
    """The figure of a study's pairs; None if no query counts."""
    pairs = chosen_pairs(queries, cells, store, n_cells=SHOWN_CELLS)
    return nearest_neighbour_pairs(pairs, channels=store.channels) if pairs else None


def chosen_pairs(queries: pd.DataFrame, cells: EmbeddedCells, store: CropStore, *, n_cells: int) -> list[Pair]:
    """Up to SHOWN_WRONG wrong pairs, then SHOWN_RIGHT right ones, the smallest distances of different mechanisms first.

    Args:
        queries: A score's neighbours table as it is saved, or without `right` that of `nearest_treatments`, of which
            the pairs of smallest distance are chosen. A row per treatment.
        cells: Embedded cells; those closest to their treatment's mean are shown.
        store: Their crops.
        n_cells: Cells of each treatment.
    """
    if "right" in queries:
        counted = queries[queries["counted"]]
        right = counted["right"]
        chosen = pd.concat([_varied(counted[~right], SHOWN_WRONG), _varied(counted[right], SHOWN_RIGHT)])
    else:
        chosen = _different(queries[queries["neighbour"] != ""]).head(SHOWN_WRONG + SHOWN_RIGHT).assign(right=None)

    def typical(treatment: str) -> np.ndarray:
        rows = cells.catalogue.rows_of(treatment)
        distance = cells.squared_distances(rows, cells.mean(rows))
        return normalised(store.take(rows[np.argsort(distance, kind="stable")[:n_cells]]))

    return [
        Pair(
            treatment=cells.catalogue.label(row["treatment"]),
            moa=row["moa"],
            neighbour=cells.catalogue.label(row["neighbour"]),
            predicted=row["predicted"],
            distance=row["distance"],
            cells=typical(row["treatment"]),
            neighbour_cells=typical(row["neighbour"]),
            right=row["right"],
        )
        for row in chosen.to_dict("records")
    ]


def nearest_neighbour_pairs(pairs: Sequence[Pair], *, channels: Sequence[str]) -> Figure:
    """Cells of treatments next to cells of their nearest neighbours, a row a pair, marked as right or wrong.

    Args:
        pairs: The pairs, from the top; at least one.
        channels: C names.
    """
    groups = [crops for pair in pairs for crops in (pair.cells, pair.neighbour_cells)]
    contrast = shared_contrast(np.concatenate(groups), channels)
    n = max(map(len, groups))
    side = min((WIDTH_IN - 2 * LABEL_IN) / (2 * n), 0.9)
    ratios = [LABEL_IN / side] + [1.0] * n + [LABEL_IN / side] + [1.0] * n
    with figure_style():
        figure = new_figure(side * sum(ratios), 0.35 + (side + 2 * PAD_IN) * len(pairs), pad_in=PAD_IN)
        grid = cell_grid(figure, len(pairs), len(ratios), width_ratios=ratios)
        for axes_row, pair in zip(grid, pairs):
            for axes in axes_row:
                bare(axes).set_facecolor("none")
            for first, crops in ((1, pair.cells), (n + 2, pair.neighbour_cells)):
                for axes, crop in zip(axes_row[first:], crops):
                    draw_cell(axes, crop, contrast)
            mark = f"{MARKS[pair.right]}distance {pair.distance:.2f}"
            _label(axes_row[0], pair.treatment, pair.moa)
            _label(axes_row[n + 1], pair.neighbour, pair.predicted, mark)
        for axes, title in ((grid[0, 1], "treatment"), (grid[0, n + 2], "nearest neighbour")):
            axes.set_title(title, fontsize=8.5, loc="left", color=QUIET).set_in_layout(False)
        n_right = sum(pair.right is True for pair in pairs)
        compared = pairs[0].right is not None
        kinds = (
            f": {n_right} whose nearest neighbour has the same mechanism, {len(pairs) - n_right} whose neighbour has "
            "another one"
        )
        return add_caption(
            figure,
            caption=f"n = {counted(len(pairs), 'treatment')}{kinds if compared else ''}. The cells are those closest "
            "to the treatment's mean, which hides how mixed it is. Distance: cosine, between profiles (0 the same, 1 "
            "unrelated). "
            f"{colour_names(contrast)}; one contrast for all; each channel is divided by its maximum in the cell.",
            alt=". ".join(
                f"{pair.treatment} ({pair.moa}) next to {pair.neighbour} ({pair.predicted}), "
                f"{'right' if pair.right else 'wrong'}"
                if compared
                else f"{pair.treatment} next to {pair.neighbour}"
                for pair in pairs
            ),
        )


def _label(axes: Axes, name: str, moa: str, mark: str = "") -> None:
    """Write a treatment, its mechanism and a mark from the top of empty axes."""
    parts = ((name, INK, "bold"), (moa, INK, "normal"), (mark, QUIET, "normal"))
    lines = [(line, *style) for text, *style in parts for line in textwrap.wrap(text, LABEL_CHARACTERS)]
    for number, (line, colour, weight) in enumerate(lines):
        text = axes.text(0.02, 1 - 0.18 * number, line, transform=axes.transAxes, fontsize=7.5, va="top")
        text.set(color=colour, fontweight=weight, in_layout=False)


def _different(queries: pd.DataFrame) -> pd.DataFrame:
    """The rows by distance, each pair of treatments once."""
    ordered = queries.sort_values("distance", kind="stable")
    pair = [frozenset(names) for names in zip(ordered["treatment"], ordered["neighbour"])]
    return ordered[~pd.Series(pair, index=ordered.index).duplicated()]


def _varied(queries: pd.DataFrame, n: int) -> pd.DataFrame:
    """The `n` rows of smallest distance, each mechanism once before any is repeated."""
    ordered = queries.assign(distance=queries["distance"].astype(float)).sort_values("distance", kind="stable")
    turn = ordered.groupby("moa", sort=False).cumcount()
    return ordered.assign(turn=turn).sort_values(["turn", "distance"], kind="stable").head(n).drop(columns="turn")
