"""Figure 3: one control cell interpolated towards a cell of each compound, a row per compound. Lafarge et al. 2019.

F frames, C channels, S crop side in px. Crops are floats, each channel divided by its own maximum.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from phenolens.core.colours import colour_names, shared_contrast
from phenolens.core.errors import InputError
from phenolens.core.progress import track
from phenolens.paper_figures.config import FigureConfig
from phenolens.plotting.cell_images import PAD_IN, SPACE, WIDTH_IN, cell_grid, channel_key, draw_cell, label_row, listed
from phenolens.plotting.style import QUIET, add_caption, bare, figure_style, new_figure
from phenolens.runs.decoder import DecodingRun, find_decoding_run
from phenolens.runs.embeddings import EmbeddedCells, embedded_cells
from phenolens.runs.example_cells import seen_words, unseen_cells
from phenolens.runs.latent_path import decode_frames, feature_swap, straight_line
from phenolens.study import Study

LABEL_IN = 1.35  # left of the pictures, for the compounds
NUMBER_IN = 0.2  # under each picture, for its cosine
MOST_COMPOUNDS = 6  # where none is named
ORDER = {"swap": "the features that differ most first", "line": "all features at once, in equal steps"}


@dataclass(frozen=True)
class Interpolation:
    """The frames between the start and one treated cell."""

    label: str  # the treatment, and its mechanism where known
    frames: np.ndarray  # (F, C, S, S) decoded
    cosines: np.ndarray  # (F,) of each frame's embedding to the target's
    target: np.ndarray  # (C, S, S) the real treated cell


def interpolation_figure(study: Study, config: FigureConfig) -> Figure:
    """Figure 3: from one control cell to a cell of each chosen compound, a row per compound."""
    run = _one_run(study, config.runs)
    if len(config.cells) > 1:
        raise InputError(f"--cells: {len(config.cells)} cells are named; an interpolation starts from one")
    cells = embedded_cells(study, run.name)
    catalogue, unseen = cells.catalogue, unseen_cells(run.store, [run])
    chosen = config.compounds or cells.strongest_treatments()[:MOST_COMPOUNDS]
    treatments = list(dict.fromkeys(catalogue.find_treatment(name) for name in chosen))
    start = _start(cells, config.cells, unseen)
    interpolate = {"swap": feature_swap, "line": straight_line}[config.way]
    rows = []
    for treatment in track(treatments, f"interpolations by {run.name}", total=len(treatments)):
        treated = _unseen_first(catalogue.rows_of(treatment), unseen)
        target = cells.nearest_to_mean(treated)
        path = interpolate(cells.z[start], cells.z[target], config.frames)
        moa = str(catalogue.cells["moa"].iloc[target])
        label = catalogue.label(treatment) + (f"\n{moa}" if moa else "")
        (original,) = run.originals(np.array([target]))
        pictures = decode_frames(path, partial(run.changed, np.array([start]), cells.z[[start]]))
        rows.append(Interpolation(label, pictures, path.cosines, original))
    how_start = "was named" if config.cells else "is the one nearest to the controls' mean embedding"
    (original,) = run.originals(np.array([start]))
    return interpolations(
        original,
        str(catalogue.cells["compound"].iloc[start]),
        rows,
        channels=run.store.channels,
        model=run.title,
        order=ORDER[config.way],
        note=f"The start {how_start}, each target the one nearest to its treatment's; other cells of a treatment may "
        f"look different. {seen_words(np.array([start]), unseen)}",
    )


def interpolations(
    start: np.ndarray,
    start_label: str,
    rows: Sequence[Interpolation],
    *,
    channels: Sequence[str],
    model: str,
    order: str,
    note: str,
) -> Figure:
    """Draw interpolations from one real cell to a real cell of each treatment, with a cosine under each frame.

    Args:
        start: (C, S, S), the real control cell.
        start_label: Its treatment.
        rows: One interpolation per row.
        channels: The C names.
        model: The title of the model.
        order: For the caption: in what order features change.
        note: For the caption: how the cells were chosen.
    """
    if not rows:
        raise InputError("no interpolation to show: expected at least one treatment")
    contrast = shared_contrast(np.stack([start, *(row.target for row in rows)]), channels)
    n_frames = len(rows[0].frames)
    ratios = [1.0, SPACE, *[1.0] * n_frames, SPACE, 1.0]
    with figure_style():
        side = (WIDTH_IN - LABEL_IN) / sum(ratios)
        figure = new_figure(WIDTH_IN, 0.62 + (side + NUMBER_IN) * len(rows), pad_in=PAD_IN)
        grid = cell_grid(figure, len(rows), len(ratios), width_ratios=ratios)
        for axes_row, row in zip(grid, rows):
            shown = axes_row[np.array(ratios) == 1]
            for axes in axes_row:
                bare(axes).set_visible(axes in shown)
            for axes, crop in zip(shown, [start, *row.frames, row.target]):
                draw_cell(axes, crop, contrast)
            for axes, cosine in zip(shown[1:], row.cosines):
                axes.set_xlabel(f"{cosine:.2f}".replace("-", "−"), fontsize=8.5, labelpad=2)
            label_row(shown[0], row.label, characters=20)
        grid[0, 0].set_title("real cell", fontsize=8.5, loc="center", color=QUIET)
        grid[0, -1].set_title("real cell", fontsize=8.5, loc="center", color=QUIET)
        grid[0, 2].set_title(f"decoded by {model}", fontsize=8.5, color=QUIET)
        channel_key(figure, contrast)
        return add_caption(
            figure,
            caption=f"n = 1 cell of {start_label} (left), interpolated towards 1 cell of each of {len(rows)} "
            f"treatments, {n_frames} decoded frames ({order}); under each, the cosine similarity to the target of the "
            f"embedding it is decoded from, which ends at 1. Nothing between the ends was imaged. {note} "
            f"{colour_names(contrast)}; one contrast for all.",
            alt=f"Frames decoded by {model} from a cell of {start_label} to a cell of "
            f"{listed([' '.join(row.label.split()) for row in rows])}, a row each, real cells at both ends",
        )


def _one_run(study: Study, names: Sequence[str]) -> DecodingRun:
    if len(names) > 1:
        raise InputError(f"--runs {' '.join(names)}: an interpolation is decoded by one run; name one")
    return find_decoding_run(study, names[0] if names else None)


def _start(cells: EmbeddedCells, ids: Sequence[str], unseen: np.ndarray) -> int:
    """The row of the named cell; else of the control cell nearest to the controls' mean."""
    if ids:
        return int(cells.catalogue.find_cells(ids)[0])
    controls = cells.catalogue.rows(role="control")
    if not len(controls):
        raise InputError("no control cells; name a start with --cells")
    return cells.nearest_to_mean(_unseen_first(controls, unseen))


def _unseen_first(rows: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    """Those of these rows that were held out of training; all where none was."""
    return rows[unseen[rows]] if unseen[rows].any() else rows
