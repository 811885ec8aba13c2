"""Treatments beside the treatment that each was most like: what a right and a wrong match look like.

n cells of a treatment, C channels, S crop side in px.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from phenolens.core.colours import Contrast, cell_image, checked_crops, colour_words, shared_contrast
from phenolens.core.errors import InputError
from phenolens.crops.store import CropStore, normalised
from phenolens.plotting.style import INK, QUIET, add_caption, bare, figure_style, new_figure
from phenolens.runs.embeddings import EmbeddedCells

WIDTH_IN, LABEL_IN = 9.0, 1.55
PAD_IN = 0.012  # around each picture
LABEL_CHARACTERS = 22


@dataclass(frozen=True)
class Match:
    """A treatment and its nearest neighbour, with cells of both."""

    treatment: str
    moa: str
    neighbour: str
    predicted: str  # the neighbour's mechanism
    distance: float  # cosine, 0 to 2
    cells: np.ndarray  # (n, C, S, S) of the treatment
    neighbour_cells: np.ndarray  # (n, C, S, S)

    @property
    def right(self) -> bool:
        """Whether both have one mechanism."""
        return self.moa == self.predicted


def matches(rows: Sequence[Match], *, channels: Sequence[str], contrast: Contrast | None = None) -> Figure:
    """A row a treatment: its cells, and those of the treatment nearest to it; right or wrong in words and by a mark.

    One contrast for all, their own where none is given. InputError without a row.
    """
    if not rows:
        raise InputError("no treatment with a neighbour; expected at least one to show")
    for row in rows:
        checked_crops(row.cells, channels, what=row.treatment)
        checked_crops(row.neighbour_cells, channels, what=row.neighbour)
    every = np.concatenate([crops for row in rows for crops in (row.cells, row.neighbour_cells)])
    contrast = contrast or shared_contrast(every, channels)
    n = max(len(crops) for row in rows for crops in (row.cells, row.neighbour_cells))
    side = min((WIDTH_IN - 2 * LABEL_IN) / (2 * n), 0.9)
    ratios = [LABEL_IN / side] + [1.0] * n + [LABEL_IN / side] + [1.0] * n
    with figure_style():
        figure = new_figure(side * sum(ratios), 0.35 + (side + 2 * PAD_IN) * len(rows), pad_in=PAD_IN)
        grid = figure.subplots(len(rows), len(ratios), squeeze=False, gridspec_kw={"width_ratios": ratios})
        for axes_row, row in zip(grid, rows):
            for axes in axes_row:
                bare(axes).set_facecolor("none")
            for first, crops in ((1, row.cells), (n + 2, row.neighbour_cells)):
                for axes, crop in zip(axes_row[first:], crops):
                    axes.imshow(cell_image(crop, contrast), interpolation="nearest")
            verdict = ("✓ right" if row.right else "✗ wrong") + f", distance {row.distance:.2f}"
            for axes, name, moa, mark in (
                (axes_row[0], row.treatment, row.moa, ""),
                (axes_row[n + 1], row.neighbour, row.predicted, verdict),
            ):
                _words(axes, [(name, INK, True), (moa, INK, False)] + ([(mark, QUIET, False)] if mark else []))
        for axes, title in ((grid[0, 1], "treatment"), (grid[0, n + 2], "the treatment most like it")):
            axes.set_title(title, fontsize=8.5, loc="left", color=QUIET).set_in_layout(False)
        n_right = sum(row.right for row in rows)
        return add_caption(
            figure,
            caption=f"n = {len(rows)} treatments, {n_right} matched to a treatment of their own mechanism and "
            f"{len(rows) - n_right} to another's; of each the cells nearest to its mean, which hide how mixed it is. "
            f"Distance: cosine, between profiles. {colour_words(contrast)}; one contrast for all; each channel is "
            "divided by its maximum in the cell.",
            alt=". ".join(
                f"{row.treatment} ({row.moa}) beside {row.neighbour} ({row.predicted}), "
                f"{'right' if row.right else 'wrong'}"
                for row in rows
            ),
        )


def _words(axes: Axes, lines: list[tuple[str, str, bool]]) -> None:
    """Text from the top of an empty picture on, wrapped: each part its words, its colour and whether it is bold."""
    number = 0
    for text, colour, bold in lines:
        for line in textwrap.wrap(text, LABEL_CHARACTERS):
            axes.text(
                0.02,
                1 - 0.18 * number,
                line,
                transform=axes.transAxes,
                fontsize=7.5,
                color=colour,
                fontweight="bold" if bold else "normal",
                va="top",
            ).set_in_layout(False)
            number += 1


SHOWN_WRONG = 4  # treatments that were matched with another mechanism
SHOWN_RIGHT = 4  # and with their own


def shown_matches(queries: pd.DataFrame, cells: EmbeddedCells, store: CropStore, *, n_cells: int) -> list[Match]:
    """Up to SHOWN_WRONG wrong treatments and SHOWN_RIGHT right ones, each of another mechanism where there are so many.

    `queries` is a score's neighbours table as it is written: a row a treatment. The most alike pairs come first, so a
    wrong one is one that the profiles were sure of. Cells are those nearest to their treatment's mean embedding.
    """
    counted = queries[queries["counted"]]
    right = counted["right"]
    chosen = pd.concat([_varied(counted[~right], SHOWN_WRONG), _varied(counted[right], SHOWN_RIGHT)])

    def typical(treatment: str) -> np.ndarray:
        rows = cells.catalogue.rows_of(treatment)
        away = np.square(cells.z[rows] - cells.z[rows].mean(axis=0)).sum(axis=1)
        return normalised(store.take(rows[np.argsort(away, kind="stable")[:n_cells]]))

    return [
        Match(
            treatment=row["treatment"],
            moa=row["moa"],
            neighbour=row["neighbour"],
            predicted=row["predicted"],
            distance=row["distance"],
            cells=typical(row["treatment"]),
            neighbour_cells=typical(row["neighbour"]),
        )
        for row in chosen.to_dict("records")
    ]


def _varied(queries: pd.DataFrame, n: int) -> pd.DataFrame:
    """The `n` rows of smallest distance, one of each mechanism before a second of any."""
    ordered = queries.assign(distance=queries["distance"].astype(float)).sort_values("distance", kind="stable")
    turn = ordered.groupby("moa", sort=False).cumcount()
    return ordered.assign(turn=turn).sort_values(["turn", "distance"], kind="stable").head(n).drop(columns="turn")
