"""Figures for quality control: flagged crops, nuclei outlined in a field, and illumination correction.

n crops, C channels, S crop side in px; fields of H x W px.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from scipy import ndimage

from phenolens.core.colours import checked_crops
from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.plotting.style import QUIET, add_caption, bare, figure_style, new_figure

LABEL_IN, WIDTH_IN = 1.5, 9.0
PAD_IN = 0.008  # around each picture
SPACE = 0.14  # between crops, in crop sides
MOST_SHOWN = 6
OUTLINE = "#ff5a3c"


def flagged_crops(
    examples: Mapping[str, np.ndarray],
    counts: Mapping[str, int],
    *,
    n_crops: int,
    n_flagged: int,
    channels: Sequence[str],
    framed: Mapping[str, np.ndarray] | None = None,
) -> Figure:
    """Example crops of each kind of flag, channels side by side in grey.

    Each image is scaled from its own darkest to its brightest pixel, because defects are often dim.

    Args:
        examples: The flag and unscaled crops (n, C, S, S) that have it; the first MOST_SHOWN are shown.
        counts: How many crops have each flag.
        n_crops: All crops.
        n_flagged: Crops with any flag.
        channels: C names.
        framed: The flag and booleans (n, C): the channels that it concerns, which get a frame.

    Returns:
        The figure.

    Raises:
        InputError: If there is no example, or counts do not fit.
    """
    if not examples:
        raise InputError("no flags: expected at least one with a crop to show")
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
    with figure_style():
        height = 0.25 + (side + 2 * PAD_IN) * len(shown)
        figure = new_figure(LABEL_IN + side * sum(ratios), height, pad_in=PAD_IN)
        grid = figure.subplots(len(shown), len(ratios), squeeze=False, gridspec_kw={"width_ratios": ratios})
        for axes in grid.flat:
            bare(axes).set_facecolor("none")
        for row, (flag, crops) in zip(grid, shown.items()):
            of_flag = (framed or {}).get(flag, np.zeros((len(crops), len(channels)), bool))
            for first, crop, has_frame in zip(range(0, len(row), len(channels) + 1), crops, of_flag):
                for axes, image, is_framed in zip(row[first:], crop, has_frame):
                    axes.imshow(image, cmap="gray", vmin=image.min(), vmax=image.max(), interpolation="nearest")
                    axes.spines[:].set(visible=bool(is_framed), color=OUTLINE, linewidth=1.5)
            label = f"{flag}\n{counts[flag]:,} of {n_crops:,}"
            row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8.5, labelpad=6)
        for axes, channel in zip(grid[0], channels):
            axes.set_title(channel, fontsize=6.5, color=QUIET, pad=2, loc="center")
        named = ", with a frame around each channel that the flag names" if framed else ""
        return add_caption(
            figure,
            caption=f"n = {counted(n_crops, 'crop')}, {n_flagged:,} flagged; a crop can have several flags. "
            f"Shown are at most {n_columns} of each{named}. "
            f"Crops are {next(iter(shown.values())).shape[-1]} px wide; each "
            f"channel ({', '.join(channels)} from left to right) is scaled from its own darkest to its brightest "
            "pixel, so brightness cannot be compared. Only noise is left out by default.",
            alt="Example crops of each kind of flag: "
            + ", ".join(f"{flag} ({counts[flag]:,} of {n_crops:,})" for flag in shown),
        )


OVERLAY_WIDTH_IN = 9.0


def nuclei_overlay(
    dna: np.ndarray, labels: np.ndarray, *, name: str, rows: slice = slice(None), columns: slice = slice(None)
) -> Figure:
    """The DNA channel in grey with the outline of each nucleus.

    Args:
        dna: The DNA channel (H, W). Grey is the square root of the 1st to 99.7th percentile, to show dim nuclei too.
        labels: Labels (H, W), 0 for background.
        name: The field's name, for the caption.
        rows: A window of rows; left out, all.
        columns: A window of columns; left out, all.

    Returns:
        The figure.

    Raises:
        InputError: If sizes differ, or the window is empty.
    """
    if dna.ndim != 2 or dna.shape != labels.shape:
        raise InputError(f"DNA channel {dna.shape} and labels {labels.shape}: expected two images of one size")
    shown, outlined = dna[rows, columns].astype(np.float32), labels[rows, columns]
    if not shown.size:
        raise InputError(f"rows {rows}, columns {columns}: no pixel of the field {dna.shape} is in this window")
    numbers = np.unique(outlined[outlined > 0])
    low, high = np.percentile(shown, [1, 99.7])
    grey = np.sqrt(np.clip((shown - low) / max(high - low, 1), 0, 1))
    top, left = rows.indices(dna.shape[0])[0], columns.indices(dna.shape[1])[0]
    height, width = shown.shape
    extent = (left - 0.5, left + width - 0.5, top + height - 0.5, top - 0.5)
    with figure_style():
        figure = new_figure(OVERLAY_WIDTH_IN, OVERLAY_WIDTH_IN * height / width, pad_in=0.02)
        axes = bare(figure.subplots())
        axes.imshow(grey, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="nearest")
        boxes = ndimage.find_objects(outlined)
        for number in numbers:  # within its own box: 30 times as fast as in the whole field
            box = tuple(slice(max(part.start - 1, 0), part.stop + 1) for part in boxes[number - 1])
            inside = outlined[box] == number
            if min(inside.shape) < 2:
                continue  # a line of pixels at the edge of a window has no outline
            axes.contour(
                np.arange(inside.shape[1]) + left + box[1].start,
                np.arange(inside.shape[0]) + top + box[0].start,
                inside,
                levels=[0.5],
                colors=OUTLINE,
                linewidths=0.7,
            )
        axes.set_aspect("equal")
        window = f"rows {top} to {top + height - 1}, columns {left} to {left + width - 1}"
        return add_caption(
            figure,
            caption=f"{name}: n = {counted(len(numbers), 'nucleus', plural='nuclei')} found, outlined over the DNA "
            f"channel; {window} (px). "
            "Nuclei at the edge are included. Grey is the square root of the intensity.",
            alt=f"Outlines of {len(numbers)} nuclei over a field's DNA channel",
        )


COLUMN_IN = 1.9
LIGHT_COLOURS, RATIO_COLOURS, FIELD_COLOURS = "viridis", "RdBu_r", "gray"
DARKEST, BRIGHTEST = 1.0, 99.5  # percentiles of a field before correction that are shown black and white
LEAST_SPAN = 0.01  # of the ratio's colours on both sides of 1: smaller differences stay pale


def illumination(
    functions: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    *,
    channels: Sequence[str],
    n_fields: int,
    planted: np.ndarray | None = None,
    plate: str = "",
    how: str = "",
) -> Figure:
    """The illumination function of each channel, and a field before and after correction.

    Args:
        functions: Illumination functions (C, H, W), shown as a share of their mean.
        before: A field (C, H, W), shown as a share of its mean.
        after: The same field, corrected, in the same contrast.
        channels: C names.
        n_fields: Fields that the functions were estimated from.
        planted: The true illumination (C, H, W) of a simulated screen, shown with its ratio to the estimate.
        plate: The plate's name, for the caption.
        how: How the functions were estimated, for the caption.

    Returns:
        The figure.

    Raises:
        InputError: If shapes differ.
    """
    parts = [functions, before, after] if planted is None else [planted, functions, before, after]
    if any(np.shape(part) != np.shape(functions) for part in parts) or np.shape(functions)[:1] != (len(channels),):
        raise InputError(
            f"illumination figure: shapes {', '.join(str(np.shape(part)) for part in parts)}; expected one shape with "
            f"the {len(channels)} channels {', '.join(channels)} first"
        )
    titles = ["estimated illumination", "a field before", "the same after"]
    if planted is not None:
        titles = ["true illumination", "estimated illumination", "estimated / true", *titles[1:]]
    height, width = np.shape(functions)[1:]
    row_in = COLUMN_IN * height / width
    with figure_style():
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
        ratio = "" if planted is None else " The true illumination is known because the screen is simulated."
        return add_caption(
            figure,
            caption=f"n = {counted(n_fields, 'field')}{of_plate} averaged{how and ', '}{how}; fields of {width} x "
            f"{height} px. "
            f"Illumination as a share of its mean over the field.{ratio} Right: one field before and after division by "
            f"the estimate, in one contrast ({DARKEST:g}st to {BRIGHTEST:g}th percentile before).",
            alt=f"Illumination of {', '.join(channels)}, and a field before and after correction",
        )


def _drawn(axes: Axes, image: np.ndarray, colours: str, low: float, high: float) -> AxesImage:
    return bare(axes).imshow(image, cmap=colours, vmin=low, vmax=high, interpolation="nearest")


def _ratio(figure: Figure, axes: Axes, ratio: np.ndarray) -> None:
    span = max(float(np.abs(ratio - 1).max()), LEAST_SPAN)
    drawn = _drawn(axes, ratio, RATIO_COLOURS, 1 - span, 1 + span)
    figure.colorbar(drawn, ax=axes, fraction=0.05, pad=0.02).ax.tick_params(labelsize=7)


def _fields(axes_before: Axes, axes_after: Axes, before: np.ndarray, after: np.ndarray) -> None:
    before, after = (image / max(float(image.mean()), 1e-9) for image in (before, after))
    low, high = np.percentile(before, [DARKEST, BRIGHTEST])
    _drawn(axes_before, before, FIELD_COLOURS, low, high)
    _drawn(axes_after, after, FIELD_COLOURS, low, high)
