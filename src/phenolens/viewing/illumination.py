"""The light over a plate's fields: illumination functions, and a field before and after it was divided by them.

C channels, H x W pixels.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from phenolens.colours import Array
from phenolens.errors import InputError
from phenolens.viewing.canvas import bare, describe, look, new_figure

COLUMN_IN = 1.9
LIGHT_COLOURS, RATIO_COLOURS, FIELD_COLOURS = "viridis", "RdBu_r", "gray"
DARKEST, BRIGHTEST = 1.0, 99.5  # percentiles of a field before correction that are shown black and white
LEAST_SPAN = 0.01  # of the ratio's colours on both sides of 1: smaller differences stay pale


def illumination_figure(
    functions: Array,
    before: Array,
    after: Array,
    *,
    channels: Sequence[str],
    n_fields: int,
    planted: Array | None = None,
    plate: str = "",
    how: str = "",
) -> Figure:
    """A row a channel: the illumination function (C, H, W) and a field (C, H, W) `before` and `after` correction.

    `planted` (C, H, W) is the true light where it is known; it and its ratio to the estimate stand beside. Both are
    shown as shares of their own mean. A field is shown in one contrast before and after, each as a share of its mean,
    so that what changes is where it is bright. `how` says in words how the light was estimated, for the caption.
    """
    parts = [functions, before, after] if planted is None else [planted, functions, before, after]
    if any(np.shape(part) != np.shape(functions) for part in parts) or np.shape(functions)[:1] != (len(channels),):
        raise InputError(
            f"illumination figure: shapes {', '.join(str(np.shape(part)) for part in parts)}; expected one shape with "
            f"the {len(channels)} channels {', '.join(channels)} first"
        )
    titles = ["estimated light", "a field before", "the same after"]
    if planted is not None:
        titles = ["planted light", "estimated light", "estimated / planted", *titles[1:]]
    height, width = np.shape(functions)[1:]
    row_in = COLUMN_IN * height / width
    with look():
        figure = new_figure(COLUMN_IN * len(titles) + 0.9, row_in * len(channels) + 0.45, pad_in=0.03)
        grid = figure.subplots(len(channels), len(titles), squeeze=False)
        for c, name in enumerate(channels):
            estimate = functions[c] / np.mean(functions[c])
            axes, lights = grid[c], [estimate]
            if planted is not None:
                lights = [planted[c] / np.mean(planted[c]), estimate]
                _ratio(figure, axes[2], estimate / lights[0])
            low, high = min(map(np.min, lights)), max(map(np.max, lights))
            for place, light in enumerate(lights):
                drawn = _drawn(axes[place], light, LIGHT_COLOURS, low, high)
            figure.colorbar(drawn, ax=axes[len(lights) - 1], fraction=0.05, pad=0.02).ax.tick_params(labelsize=7)
            _fields(axes[-2], axes[-1], np.asarray(before[c], float), np.asarray(after[c], float))
            axes[0].set_ylabel(name, fontsize=9)
        for axis, title in zip(grid[0], titles):
            axis.set_title(title, fontsize=9)
        of_plate = f" of plate {plate}" if plate else ""
        ratio = "" if planted is None else " Planted light is known because the screen is simulated."
        return describe(
            figure,
            caption=f"n = {n_fields} fields{of_plate} averaged{how and ', '}{how}; fields of {width} x {height} px. "
            f"Light as a share of its mean over the field.{ratio} One of the fields before and after it is divided by "
            f"the estimate, in one contrast (its {DARKEST:g}st to {BRIGHTEST:g}th percentile before, as a share of its "
            "mean).",
            alt=f"Uneven light in {', '.join(channels)}, and a field before and after correction",
        )


def _drawn(axes: Axes, image: Array, colours: str, low: float, high: float) -> AxesImage:
    return bare(axes).imshow(image, cmap=colours, vmin=low, vmax=high, interpolation="nearest")


def _ratio(figure: Figure, axes: Axes, ratio: Array) -> None:
    span = max(float(np.abs(ratio - 1).max()), LEAST_SPAN)
    drawn = _drawn(axes, ratio, RATIO_COLOURS, 1 - span, 1 + span)
    figure.colorbar(drawn, ax=axes, fraction=0.05, pad=0.02).ax.tick_params(labelsize=7)


def _fields(axes_before: Axes, axes_after: Axes, before: Array, after: Array) -> None:
    before, after = (image / max(float(image.mean()), 1e-9) for image in (before, after))
    low, high = np.percentile(before, [DARKEST, BRIGHTEST])
    _drawn(axes_before, before, FIELD_COLOURS, low, high)
    _drawn(axes_after, after, FIELD_COLOURS, low, high)
