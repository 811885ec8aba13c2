"""What was flagged, to look at: example crops of each kind of defect, channel by channel.

n crops, C channels, S crop side in px.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from phenolens.colours import Array, checked_crops
from phenolens.errors import InputError
from phenolens.viewing.canvas import QUIET, bare, describe, look, new_figure

LABEL_IN, WIDTH_IN = 1.5, 9.0
PAD_IN = 0.008  # around each picture
SPACE = 0.14  # between crops, in crop sides
MOST_SHOWN = 6


def defects(
    examples: Mapping[str, Array], counts: Mapping[str, int], *, n_crops: int, n_flagged: int, channels: Sequence[str]
) -> Figure:
    """A row of crops for each kind of flag: its channels side by side, in grey.

    `examples`: the flag and crops (n, C, S, S) that have it, as they were imaged; the first MOST_SHOWN are drawn.
    `counts`: how many of the `n_crops` crops have the flag; `n_flagged`: how many have any. Each channel of each crop
    is drawn from its own darkest to its own brightest pixel, since a defect is often dim. InputError for a flag without
    a crop or without a count.
    """
    if not examples:
        raise InputError("no kind of flag; expected at least one with a crop to show")
    for flag, crops in examples.items():
        checked_crops(crops, channels, what=flag)
        if not len(crops) <= counts.get(flag, 0) <= n_flagged <= n_crops:
            raise InputError(
                f"{flag}: {len(crops)} examples, {counts.get(flag, 0)} crops with this flag, {n_flagged} with any, "
                f"{n_crops} in all; expected each to be at most the next"
            )
    shown = {flag: np.asarray(crops)[:MOST_SHOWN] for flag, crops in examples.items()}
    n_columns = max(len(crops) for crops in shown.values())
    ratios = ([1.0] * len(channels) + [SPACE]) * n_columns
    ratios.pop()
    side = min((WIDTH_IN - LABEL_IN) / sum(ratios), 0.8)
    with look():
        height = 0.25 + (side + 2 * PAD_IN) * len(shown)
        figure = new_figure(LABEL_IN + side * sum(ratios), height, pad_in=PAD_IN)
        grid = figure.subplots(len(shown), len(ratios), squeeze=False, gridspec_kw={"width_ratios": ratios})
        for axes in grid.flat:
            bare(axes).set_facecolor("none")
        for row, (flag, crops) in zip(grid, shown.items()):
            for first, crop in zip(range(0, len(row), len(channels) + 1), crops):
                for axes, image in zip(row[first:], crop):
                    axes.imshow(image, cmap="gray", vmin=image.min(), vmax=image.max(), interpolation="nearest")
            label = f"{flag}\n{counts[flag]:,} of {n_crops:,}"
            row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8.5, labelpad=6)
        for axes, channel in zip(grid[0], channels):
            axes.set_title(channel, fontsize=6.5, color=QUIET, pad=2, loc="center")
        return describe(
            figure,
            caption=f"n = {n_crops:,} crops, {n_flagged:,} flagged; a crop can have several flags. "
            f"Shown are at most {n_columns} of each. Crops are {next(iter(shown.values())).shape[-1]} px wide; each "
            f"channel ({', '.join(channels)} from left to right) is drawn from its own darkest to its own brightest "
            "pixel, so brightness cannot be compared. A flag says what to look at; only noise is left out by default.",
            alt="Example crops of each kind of flag: "
            + ", ".join(f"{flag} ({counts[flag]:,} of {n_crops:,})" for flag in shown),
        )
