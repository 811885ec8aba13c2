"""Figure 3 for several compounds: from one control cell to a cell of each, a row a compound.

F frames, C channels, S crop side in px. Crops are floats, each channel divided by its own maximum. Lafarge et al. 2019.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from phenolens.core.colours import Contrast, checked_crops, colour_words, shared_contrast
from phenolens.core.errors import InputError
from phenolens.plotting.cell_images import PAD_IN, SPACE, WIDTH_IN, cell_grid, channel_key, draw_cell, label_row, listed
from phenolens.plotting.style import QUIET, add_caption, bare, figure_style, new_figure

LABEL_IN = 1.35  # left of the pictures, for the compounds
NUMBER_IN = 0.2  # under each picture, for its cosine


@dataclass(frozen=True)
class Way:
    """What lies between the start and one treated cell."""

    label: str  # the treatment, and its mechanism where that is known
    frames: np.ndarray  # (F, C, S, S) decoded
    cosines: np.ndarray  # (F,) of each frame's embedding to the target's
    target: np.ndarray  # (C, S, S) the real treated cell


def interpolations(
    start: np.ndarray,
    start_label: str,
    ways: Sequence[Way],
    *,
    channels: Sequence[str],
    model: str,
    how: str = "the features that differ most first",
    note: str = "",
    contrast: Contrast | None = None,
) -> Figure:
    """From one real cell (C, S, S) to a real cell of each treatment, a row a way, a cosine under each frame.

    The contrast is that of the real cells, or the one that is given. `how` says in what order features change, `note`
    in sentences how the cells were chosen.
    """
    if not ways:
        raise InputError("no way to show: expected at least one treatment")
    real = checked_crops(np.stack([start, *(way.target for way in ways)]), channels, what="real cells")
    n_frames = len(ways[0].frames)
    for way in ways:
        checked_crops(way.frames, channels, what=f"frames to {way.label}")
        if not len(way.frames) == len(way.cosines) == n_frames:
            raise InputError(
                f"{len(way.frames)} frames and {len(way.cosines)} cosines to {way.label}: expected {n_frames} of each"
            )
    contrast = contrast or shared_contrast(real, channels)
    ratios = [1.0, SPACE, *[1.0] * n_frames, SPACE, 1.0]
    with figure_style():
        side = (WIDTH_IN - LABEL_IN) / sum(ratios)
        figure = new_figure(WIDTH_IN, 0.62 + (side + NUMBER_IN) * len(ways), pad_in=PAD_IN)
        grid = cell_grid(figure, len(ways), len(ratios), width_ratios=ratios)
        for axes_row, way in zip(grid, ways):
            shown = axes_row[np.array(ratios) == 1]
            for axes in axes_row:
                bare(axes).set_visible(axes in shown)
            for axes, crop in zip(shown, [start, *way.frames, way.target]):
                draw_cell(axes, crop, contrast)
            for axes, cosine in zip(shown[1:], way.cosines):
                axes.set_xlabel(f"{cosine:.2f}".replace("-", "−"), fontsize=8.5, labelpad=2)
            label_row(shown[0], way.label, characters=20)
        grid[0, 0].set_title("real cell", fontsize=8.5, loc="center", color=QUIET)
        grid[0, -1].set_title("real cell", fontsize=8.5, loc="center", color=QUIET)
        grid[0, 2].set_title(f"decoded by {model}", fontsize=8.5, color=QUIET)
        channel_key(figure, contrast)
        return add_caption(
            figure,
            caption=f"n = 1 cell of {start_label} (left), on its way to 1 cell of each of {len(ways)} treatments, "
            f"{n_frames} decoded frames ({how}); under each, the cosine similarity of its embedding to the target's. "
            f"Nothing between the ends was imaged. {note + ' ' if note else ''}{colour_words(contrast)}; one contrast "
            "for all.",
            alt=f"Frames decoded by {model} from a cell of {start_label} to a cell of "
            f"{listed([' '.join(way.label.split()) for way in ways])}, a row each, real cells at both ends",
        )
