"""The confusion matrix of a score: true mechanism against that of the nearest neighbour."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.plotting.charts import MOST_NAMED, ORANGE, SKY, mechanism_label
from phenolens.plotting.style import INK, RULE, add_caption, figure_style, new_figure

BOLD_PER_INCH = 11  # characters of a title's font


def confusion_matrix(matrix: pd.DataFrame, title: str, *, what: str = "treatments", how: str = "") -> Figure:
    """Treatments by true mechanism (rows) and mechanism of the nearest neighbour (columns).

    Args:
        matrix: Counts, a row a true mechanism. Colour is the share of the row: blue if right, orange if wrong.
        title: Above the figure.
        what: What was scored, if not treatments.
        how: Sentences for the caption, such as the accuracy with its interval.

    Returns:
        The figure.

    Raises:
        InputError: If counts are negative or not finite.

    Of more than MOST_NAMED mechanisms, those with most treatments have a row, and the others share a column.
    """
    given = matrix.to_numpy(float)
    if not given.size or (given < 0).any() or not np.isfinite(given).all():
        raise InputError(f"confusion matrix {given.shape}: expected counts of at least 0, a row per mechanism")
    n_mechanisms, n_all = len(matrix), given.sum()
    n_right = (given * (matrix.index.to_numpy()[:, None] == matrix.columns.to_numpy())).sum()
    matrix = _largest(matrix)
    counts = matrix.to_numpy(float)
    row_totals = counts.sum(axis=1)
    share = np.divide(counts, row_totals[:, None], out=np.zeros_like(counts), where=row_totals[:, None] > 0)
    right = matrix.index.to_numpy()[:, None] == matrix.columns.to_numpy()
    picture = np.ones((*counts.shape, 3))
    for where, colour in ((right, SKY), (~right, ORANGE)):
        strength = (share * where)[..., None]
        picture -= strength * (1 - np.array(to_rgb(colour)))

    n_rows, n_columns = counts.shape
    with figure_style():
        size = 3.1 + 0.5 * max(n_columns, 4), 2.3 + 0.4 * max(n_rows, 5)  # with room for the labels of few
        figure = new_figure(*size, pad_in=0.05)
        axes = figure.subplots()
        axes.imshow(picture, aspect="auto", interpolation="nearest")
        for row, column in np.argwhere(counts > 0):
            dark = share[row, column] > 0.55
            text = f"{counts[row, column]:g}"
            axes.text(column, row, text, ha="center", va="center", color="white" if dark else INK, fontsize=9)
        axes.set_xticks(
            range(n_columns), [mechanism_label(name) for name in matrix.columns], rotation=45, ha="left", fontsize=8
        )
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        names = [f"{mechanism_label(name)}  ({total:g})" for name, total in zip(matrix.index, row_totals)]
        axes.set_yticks(range(n_rows), names, fontsize=8)
        axes.set_xticks(np.arange(n_columns + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(n_rows + 1) - 0.5, minor=True)
        axes.grid(which="minor", color=RULE, linewidth=0.6)
        axes.tick_params(which="minor", length=0)
        axes.spines[:].set_visible(False)
        axes.set_ylabel(f"true mechanism ({what})")
        axes.set_xlabel("mechanism of the nearest neighbour")
        axes.xaxis.set_label_position("top")
        lines = textwrap.wrap(title, int(figure.get_figwidth() * BOLD_PER_INCH))
        figure.set_figheight(figure.get_figheight() + 0.17 * max(0, len(lines) - 1))
        figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=10, fontweight="bold")
        small = counted(n_mechanisms - n_rows, "smaller mechanism")
        others = f" Without a row: {small}; the table of the matrix has all." if n_mechanisms > n_rows else ""
        percent = f", {100 * n_right / n_all:.1f} %" if n_all and not how else ""
        return add_caption(
            figure,
            caption=f"n = {n_all:g} {what}, {n_right:g} of them right (blue{percent}); orange: the neighbour has "
            f"another mechanism. Colour is the share of the row.{others} {how + ' ' if how else ''}Not counted: "
            f"controls, and {what} without a mechanism, or without another profile of their mechanism.",
            alt=f"Confusion matrix of {n_mechanisms} mechanisms: {n_right:g} of {n_all:g} {what} on the diagonal",
        )


def _largest(matrix: pd.DataFrame) -> pd.DataFrame:
    """The rows of the mechanisms with most treatments, and a last column of all mechanisms without a row."""
    if len(matrix) <= MOST_NAMED:
        return matrix
    kept = matrix.sum(axis=1).sort_values(ascending=False, kind="stable").index[:MOST_NAMED]
    shown = matrix.loc[matrix.index.isin(kept)]
    own = shown.reindex(columns=shown.index, fill_value=0)
    return own.assign(**{"another mechanism": shown.sum(axis=1) - own.sum(axis=1)})
