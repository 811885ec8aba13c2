"""A strip of images for one latent feature: the feature moves, all others stay as in one real cell.

F frames, C channels, S crop side in px. Crops are floats, each channel divided by its own maximum.
"""

import numpy as np
from matplotlib.figure import Figure

from phenolens.core.colours import Contrast, colour_names
from phenolens.plotting.cell_images import PAD_IN, SPACE, WIDTH_IN, cell_grid, draw_cell, draw_difference
from phenolens.plotting.style import INK, QUIET, add_caption, bare, figure_style, new_figure


def traversal_strip(
    frames: np.ndarray,
    deviations: np.ndarray,
    real_cell: np.ndarray,
    *,
    feature: str,
    channels: tuple[str, ...],
    contrast: Contrast,
    own: float,
    limit: float,
) -> Figure:
    """A real cell, the frames decoded as one feature is moved, and the difference of the last and first frame.

    Args:
        frames: Decoded crops (F, C, S, S).
        deviations: The feature's values (F,), in standard deviations from the mean of real cells.
        real_cell: The crop (C, S, S) whose other features are kept.
        feature: The feature's name.
        channels: C names; each has its own difference.
        contrast: For all cells.
        own: The real cell's own value, in standard deviations.
        limit: The difference shown in full colour.
    """
    ratios = [1.0, SPACE, *[1.0] * len(frames), SPACE, *[1.0] * len(channels)]
    with figure_style():
        side = WIDTH_IN / sum(ratios)
        figure = new_figure(WIDTH_IN, side + 0.24, pad_in=PAD_IN)
        every = cell_grid(figure, 1, len(ratios), width_ratios=ratios)[0]
        for axes, ratio in zip(every, ratios):
            bare(axes).set_visible(ratio == 1)
        shown = every[np.array(ratios) == 1]
        for axes, crop in zip(shown, [real_cell, *frames]):
            draw_cell(axes, crop, contrast)
        labels = ["real cell", *map(in_deviations, deviations), *channels]
        for axes, label in zip(shown, labels):
            axes.set_xlabel(label, fontsize=8, labelpad=3, color=INK if label.endswith("SD") else QUIET)
        for axes, difference in zip(shown[1 + len(frames) :], frames[-1] - frames[0]):
            draw_difference(axes, difference, limit)
        return add_caption(
            figure,
            caption=f"{feature} moved, all other features as in the real cell, whose own value is {in_deviations(own)} "
            f"(standard deviations from the mean of real cells). Right, the last frame minus the first: orange more, "
            f"purple less, full colour at {limit:.2g} of a channel's maximum. {colour_names(contrast)}; one contrast "
            "and one scale for all strips.",
            alt=f"A real cell and {len(frames)} frames decoded from it as {feature} is moved from "
            f"{in_deviations(deviations[0])} to {in_deviations(deviations[-1])}",
        )


def in_deviations(value: float) -> str:
    """`+1.3 SD`, with a minus sign."""
    return f"{value:+.1f} SD".replace("-", "−")
