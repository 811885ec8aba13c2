"""Charts: learning curves and the map of treatments.

T treatments, Z features.
"""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.plotting.style import QUIET, RULE, add_caption, figure_style, new_figure

if TYPE_CHECKING:
    from anndata import AnnData

SKY, ORANGE, TEAL, PURPLE, RED, GOLD = "#2f6fb0", "#d9822b", "#1f8a70", "#8a5aa8", "#b5403a", "#b8930a"
LINES = (SKY, ORANGE, TEAL, PURPLE, RED, GOLD)

# panel title, unit, log scale, {column of the history: name in the panel}
PANELS: tuple[tuple[str, str, bool, dict[str, str]], ...] = (
    ("Reconstruction error", "½ · sum of squares, a cell", True, {"autoencoder.pixel": "pixels"}),
    ("Information in the embedding (KL)", "nats a cell", True, {"autoencoder.kl": "KL"}),
    ("Features in use", "features", False, {"autoencoder.active_features": "active features"}),
    (
        "Feature-reconstruction error",
        "½ · sum of squares, a cell",
        True,
        {f"autoencoder.feature_{i}": f"layer {i}" for i in range(1, 5)},
    ),
    ("Feature weights (γ)", "weight", False, {f"gamma_{i}": f"layer {i}" for i in range(1, 5)}),
    ("Discriminator accuracy", "share right", False, {"discriminator.accuracy": "accuracy"}),
    ("Discriminator loss", "cross-entropy, nats", False, {"discriminator.cross_entropy": "cross-entropy"}),
    (
        "Gradient norm",
        "norm",
        True,
        {"autoencoder.gradient_norm": "autoencoder", "discriminator.gradient_norm": "discriminator"},
    ),
    ("Speed", "cells per second", False, {"cells_per_second": "cells per second"}),
)
NOT_DRAWN = ("step", "seconds")
MOST_NAMED = 30  # names that a chart tells apart
SMOOTHED_FROM = 60  # records; with fewer, each is drawn as it is


def learning_curves(history: pd.DataFrame, *, title: str = "") -> Figure:
    """Training records against the step, a panel a quantity.

    Args:
        history: A row per record, with the column `step` and any columns of PANELS; other numeric columns get a panel
            under their own name. From SMOOTHED_FROM records on, their running mean over a fiftieth is drawn too.
        title: Above the figure.

    Returns:
        The figure.

    Raises:
        InputError: If there is no record or nothing to draw.
    """
    if "step" not in history.columns or history.empty:
        raise InputError("history: no rows or no column step; expected a row per record, as train writes history.csv")
    panels = [(name, unit, log, _present(history, columns)) for name, unit, log, columns in PANELS]
    known = {column for *_, columns in PANELS for column in columns}
    further = [name for name in history.select_dtypes("number").columns if name not in known and name not in NOT_DRAWN]
    panels += [(str(name), "", False, _present(history, {str(name): str(name)})) for name in further]
    panels = [panel for panel in panels if panel[3]]
    if not panels:
        raise InputError(f"history: nothing to draw in the columns {', '.join(map(str, history.columns))}")

    n_columns = min(2, len(panels))
    n_rows = -(-len(panels) // n_columns)
    window = max(1, len(history) // 50) if len(history) >= SMOOTHED_FROM else 1
    with figure_style():
        figure = new_figure(9.0, 0.25 + 1.85 * n_rows, pad_in=0.07)
        grid = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True).ravel()
        for axes, (name, unit, log, columns) in zip(grid, panels):
            _curves(axes, history, columns, window=window, log=log)
            axes.set_title(name)
            axes.set_ylabel(unit, fontsize=8)
            if name == "Discriminator accuracy":
                axes.axhline(0.5, color=QUIET, linewidth=0.8, linestyle=(0, (4, 3)), label="chance")
                axes.legend(frameon=False, fontsize=7.5, loc="best")
        for axes in grid[len(panels) :]:
            axes.remove()
        for axes in grid[max(0, len(panels) - n_columns) : len(panels)]:
            axes.set_xlabel("step")
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
            axes.tick_params(labelbottom=True)
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=10, fontweight="bold")
        steps = int(history["step"].max())
        smooth = f" Pale: records; dark: running mean over {window}." if window > 1 else ""
        return add_caption(
            figure,
            caption=f"n = {counted(len(history), 'record')} up to step {steps:,}.{smooth} These are "
            "training losses, with noise and batch normalisation as in training.",
            alt=f"Learning curves up to step {steps:,}: {', '.join(name for name, *_ in panels)}",
        )


def treatment_map(profiles: "AnnData", *, title: str = "") -> Figure:
    """Treatment profiles on their first two principal components, coloured by mechanism.

    Args:
        profiles: A row per treatment, with `Metadata_MoA`; treatments without a mechanism are left out.
        title: Above the figure.

    Returns:
        The figure. Beyond MOST_NAMED mechanisms, the smaller ones are grey.

    Raises:
        InputError: If fewer than three treatments have a mechanism, or values are not finite.
    """
    named = profiles.obs["Metadata_MoA"].astype(object)
    known = (named.notna() & (named != "")).to_numpy()
    moa = named[known].astype(str)
    return _principal_map(
        np.asarray(profiles.X, float)[known],
        moa,
        what=f"treatments, {counted(moa.nunique(), 'mechanism')}; controls are left out",
        title=title,
    )


def well_map(wells: "AnnData", *, title: str = "") -> Figure:
    """Well profiles on their first two principal components, control wells in grey, others coloured by compound.

    Args:
        wells: A row per well, with `Metadata_Role` and `Metadata_Compound`; wells of the role other are left out.
        title: Above the figure.

    Raises:
        InputError: If there are fewer than three wells, or values are not finite.
    """
    obs = wells.obs[["Metadata_Role", "Metadata_Compound"]].astype(str)
    shown = obs["Metadata_Role"].isin(["control", "treated"])
    is_control = (obs["Metadata_Role"] == "control")[shown].to_numpy()
    compounds = obs["Metadata_Compound"][shown]
    return _principal_map(
        np.asarray(wells.X, float)[shown.to_numpy()],
        compounds,
        grey=compounds[is_control].unique().tolist(),
        what=f"wells, {is_control.sum()} of them controls, of {counted(compounds[~is_control].nunique(), 'compound')}",
        title=title,
    )


def _principal_map(numbers: np.ndarray, names: pd.Series, *, what: str, title: str, grey: Sequence[str] = ()) -> Figure:
    """Rows (N, Z) on their first two principal components, coloured by name; those of `grey` are crosses."""
    from sklearn.decomposition import PCA  # slow to import, and only needed here

    if min(len(names) - 1, numbers.shape[1]) < 2 or not np.isfinite(numbers).all():
        raise InputError(f"profiles {numbers.shape} of {what}: expected finite rows, at least 3 rows and 2 features")
    pca = PCA(2, svd_solver="full")
    points = pca.fit_transform(numbers)
    explained = pca.explained_variance_ratio_
    counts = names[~names.isin(grey)].value_counts()
    coloured = sorted(counts.index if len(counts) <= MOST_NAMED else counts.index[:MOST_NAMED])
    n_others = len(counts) - len(coloured)
    groups: list[tuple[str, np.ndarray, dict[str, Any]]] = [
        (name, (names == name).to_numpy(), {"color": QUIET, "marker": "x"}) for name in grey
    ]
    if n_others:
        others = ~names.isin([*coloured, *grey]).to_numpy()
        groups.append((counted(n_others, "other"), others, {"color": RULE, "edgecolor": QUIET}))
    for index, name in enumerate(coloured):
        marker = "osD^vP"[index // len(LINES) % 6]
        style: dict[str, Any] = {"color": LINES[index % len(LINES)], "marker": marker, "edgecolor": "white"}
        groups.append((mechanism_label(name), (names == name).to_numpy(), style))
    with figure_style():
        figure = new_figure(9.0, max(4.6, 0.6 + 0.19 * sum(label.count("\n") + 1 for label, *_ in groups)), pad_in=0.05)
        axes = figure.subplots()
        for label, rows, style in groups:
            width = 1.0 if style.get("marker") == "x" else 0.5
            axes.scatter(
                points[rows, 0], points[rows, 1], s=34, linewidth=width, label=f"{label} ({rows.sum()})", **style
            )
        axes.set_xlabel(f"first principal component ({100 * explained[0]:.0f} % of the variance)")
        axes.set_ylabel(f"second ({100 * explained[1]:.0f} %)")
        figure.legend(loc="outside right upper", frameon=False, fontsize=8)
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=10, fontweight="bold")
        return add_caption(
            figure,
            caption=f"n = {len(names)} {what}. Two of "
            f"{numbers.shape[1]} dimensions are shown ({100 * explained.sum():.0f} % of the variance); scores use all.",
            alt=f"Map of {len(names)} {what}, on two principal components",
        )


def _present(history: pd.DataFrame, columns: dict[str, str]) -> dict[str, str]:
    return {column: name for column, name in columns.items() if column in history and history[column].notna().any()}


def _curves(axes: Axes, history: pd.DataFrame, columns: dict[str, str], *, window: int, log: bool) -> None:
    for colour, (column, name) in zip(LINES, columns.items()):
        records = history[["step", column]].dropna()
        if column.startswith("gamma_"):  # a schedule has no noise
            window = 1
        if window > 1:
            axes.plot(records["step"], records[column], color=colour, linewidth=0.6, alpha=0.3)
        means = records[column].rolling(window, min_periods=1, center=True).mean()
        axes.plot(records["step"], means, color=colour, linewidth=1.4, label=name)
    values = history[list(columns)].to_numpy(float)
    values = values[np.isfinite(values)]
    if log and values.size and values.min() > 0 and values.max() > 3 * values.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    if len(columns) > 1:
        axes.legend(frameon=False, fontsize=7.5, ncols=2, loc="best")


def mechanism_label(name: object) -> str:
    """A mechanism's name, wrapped."""
    return "\n".join(textwrap.wrap(str(name), 26)) or "(none)"
