"""Plots: matplotlib Figures, which a notebook shows. Each carries its caption and a description for screen readers."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from phenolens.commands.model_commands import figure
from phenolens.core.colours import checked_crops
from phenolens.core.keywords import checked
from phenolens.plotting import cell_images, charts, quality_figures
from phenolens.plotting import confusion_matrix as _confusion_matrix
from phenolens.study import Study
from phenolens.travels import figure as _travel_figure
from phenolens.travels import widget as _travel_widget

__all__ = [
    "cells",
    "comparison",
    "confusion_matrix",
    "contact_sheet",
    "flagged_crops",
    "illumination",
    "interpolation",
    "learning_curves",
    "nuclei_overlay",
    "populations",
    "reconstructions",
    "travel_strip",
    "travel_widget",
    "treatment_map",
]

confusion_matrix = checked(_confusion_matrix.confusion_matrix)
contact_sheet = checked(cell_images.contact_sheet)
flagged_crops = checked(quality_figures.flagged_crops)
illumination = checked(quality_figures.illumination)
learning_curves = checked(charts.learning_curves)
nuclei_overlay = checked(quality_figures.nuclei_overlay)
populations = checked(_travel_figure.populations)
travel_strip = checked(_travel_figure.travel_strip)
travel_widget = checked(_travel_widget.travel_widget)
treatment_map = checked(charts.treatment_map)


def reconstructions(
    study: Study | Path | str,
    *,
    runs: tuple[str, ...] = (),
    cells: tuple[str, ...] = (),
    shown_cells: int | None = None,
    apart: bool = False,
    picture_seed: int = 0,
) -> Figure:
    """Original cells above their reconstructions by each model (Lafarge et al. 2019, Figure 2).

    Args:
        study: The study, or its folder.
        runs: Names of runs; default: all that decode.
        cells: Ids of cells; default: chosen by the seed.
        shown_cells: How many cells, when none is named.
        apart: Show each channel in a row of its own, too.
        picture_seed: Selects the cells.

    Returns:
        The figure.

    Raises:
        InputError: There is no such run or cell, or a run's model does not decode.
    """
    settings = dict(runs=runs, cells=cells, shown_cells=shown_cells, apart=apart, picture_seed=picture_seed)
    return figure("reconstructions", study, **settings)  # type: ignore[arg-type]


def interpolation(
    study: Study | Path | str, *, runs: tuple[str, ...] = (), compounds: tuple[str, ...] = (), frames: int = 7
) -> Figure:
    """A control cell interpolated towards treatments in latent space (Lafarge et al. 2019, Figure 3).

    Args:
        study: The study, or its folder.
        runs: Name of one run; default: the first flow decoder, else VAE+, VAE, AE.
        compounds: Compounds, or COMPOUND@DOSE; default: one of each of six mechanisms.
        frames: Decoded cells on each path.

    Returns:
        The figure.

    Raises:
        InputError: There is no such run or compound, or the run's model does not decode.
    """
    return figure("interpolation", study, runs=runs, compounds=compounds, frames=frames)  # type: ignore[call-arg]


def comparison(
    study: Study | Path | str, *, runs: tuple[str, ...] = (), treatment: str | None = None, picture_seed: int = 0
) -> Figure:
    """Which treatment two models match with one treatment, with reconstructions (Lafarge et al. 2019, Figure 4).

    Args:
        study: The study, or its folder.
        runs: Names of two runs; default: the best two.
        treatment: COMPOUND@DOSE; default: chosen by the seed.
        picture_seed: Selects the treatment and the cells.

    Returns:
        The figure.

    Raises:
        InputError: There are no two scored runs, or no such treatment.
    """
    return figure("comparison", study, runs=runs, treatment=treatment, picture_seed=picture_seed)  # type: ignore[call-arg]


@checked
def cells(crops: np.ndarray, *, channels: tuple[str, ...], title: str = "") -> Figure:
    """Cells side by side, with one contrast for all.

    Args:
        crops: Crops (n, C, S, S), counts or floats; each channel of each crop is divided by its maximum.
        channels: Names of the C channels.
        title: Of the row.

    Returns:
        The figure.

    Raises:
        InputError: The crops do not have these channels, or are not finite.
    """
    crops = checked_crops(crops, channels, what="crops")
    peaks = np.maximum(np.asarray(crops, float).max(axis=(-2, -1), keepdims=True), 1e-12)
    return cell_images.contact_sheet([crops / peaks], [title], channels=channels)


def __dir__() -> list[str]:
    return __all__
