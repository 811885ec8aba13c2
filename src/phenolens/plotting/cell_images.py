"""Images of cells: reconstructions, contact sheets, and the parts that other figures of cells are made of.

n cells, C channels, S crop side in px. Crops are floats, each channel divided by its own maximum. A figure uses one
contrast for all its cells. Lafarge et al. 2019, Figures 2 and 3.
"""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch

from phenolens.core.colours import Contrast, cell_image, channel_label, checked_crops, colour_names, shared_contrast
from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.plotting.style import INK, add_caption, bare, figure_style, new_figure

WIDTH_IN = 9.0  # of a whole figure
PAD_IN = 0.012  # around each picture
SPACE = 0.16  # between real and decoded cells, in crop sides


def cell_grid(figure: Figure | SubFigure, n_rows: int, n_columns: int, **options: Sequence[float]) -> np.ndarray:
    """Axes (n_rows, n_columns), one a cell; `options` are matplotlib's, such as `width_ratios`."""
    return figure.subplots(n_rows, n_columns, squeeze=False, gridspec_kw=dict(options))


def draw_cell(axes: Axes, crop: np.ndarray, contrast: Contrast, channel: int | None = None) -> None:
    """Draw a crop (C, S, S) in colours, or one channel of it in grey."""
    if channel is not None:
        crop, contrast = crop[channel : channel + 1], contrast.of_channels(channel)
    bare(axes).imshow(cell_image(crop, contrast), interpolation="nearest")


def draw_difference(axes: Axes, difference: np.ndarray, limit: float) -> None:
    """Draw a difference of a channel (S, S): orange is more, purple less, full colour at `limit`."""
    bare(axes).imshow(difference, cmap="PuOr_r", vmin=-limit, vmax=limit, interpolation="nearest")


def label_row(axes: Axes, text: str, *, characters: int = 14, size: float = 8.5) -> None:
    """A wrapped label to the left of a row's first picture."""
    axes.set_ylabel(wrapped(text, characters), rotation=0, ha="right", va="center", fontsize=size, labelpad=6)


def wrapped(text: str, characters: int) -> str:
    """The text in lines of at most so many characters; its own line breaks stay, and numbers stay with µM."""
    text = text.replace(" µM", "\u00a0µM")
    return "\n".join("\n".join(textwrap.wrap(line, characters)) for line in text.split("\n"))


def cell_label(label: str, side_in: float) -> str:
    """A treatment in lines as wide as a crop; it may break after a slash."""
    return wrapped(label.replace("/", "/ "), max(8, int(side_in * 14.5))).replace("/ ", "/")


def listed(names: Sequence[str]) -> str:
    """`VAE+, VAE and AE`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def channel_key(figure: Figure | SubFigure, contrast: Contrast) -> None:
    """A legend of the channels' colours above the pictures."""
    if len(contrast.channels) > 1:
        handles = [
            Patch(facecolor=tuple(rgb), edgecolor=INK, linewidth=0.4, label=channel_label(name))
            for name, rgb in zip(contrast.channels, contrast.colours)
            if rgb.any()
        ]
        key_above(figure, handles, handleheight=0.9, columnspacing=1.2, borderpad=0.3)


def key_above(figure: Figure | SubFigure, handles: Sequence[Artist], **spaces: float) -> None:
    """A legend in one line above everything; `spaces` are matplotlib's legend options."""
    figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=len(handles),
        frameon=False,
        fontsize=8,
        handlelength=0.9,
        **spaces,
    )


def channels_apart(contrast: Contrast) -> list[tuple[int | None, str]]:
    """All channels together (None), then each by its index and name."""
    together: list[tuple[int | None, str]] = [(None, "together")]
    return together + [(index, name) for index, name in enumerate(contrast.channels)]


def contrast_words(contrast: Contrast, crops: np.ndarray) -> str:
    """Sentences for a caption: the crops' size, contrast and colours."""
    return (
        f"Crops are {crops.shape[-1]} px wide, each channel divided by its maximum in the cell, so differences in "
        f"brightness between cells are not shown; one contrast for all; {colour_names(contrast)}."
    )


def reconstructions(
    originals: np.ndarray,
    by_model: Mapping[str, np.ndarray],
    labels: Sequence[str],
    *,
    channels: Sequence[str],
    apart: bool = False,
    note: str = "",
) -> Figure:
    """Original cells above each model's reconstructions of them (Lafarge et al. 2019, Figure 2).

    Args:
        originals: Crops (n, C, S, S).
        by_model: Each model's name and its reconstructions (n, C, S, S), in the order of the rows.
        labels: The treatment of each cell.
        channels: C names.
        apart: Also show each channel alone, in grey; always where not all are shown together.
        note: Sentences for the caption, such as how the cells were chosen.

    Returns:
        The figure.

    Raises:
        InputError: If crops differ in shape, or labels are missing.
    """
    originals = checked_crops(originals, channels, what="originals")
    contrast = shared_contrast(originals, channels)
    rows = {"original": originals, **by_model}
    for name, crops in rows.items():
        if checked_crops(crops, channels, what=name).shape != originals.shape:
            raise InputError(f"{name}: shape {crops.shape}, originals {originals.shape}; expected the same cells")
    if len(labels) != len(originals):
        raise InputError(f"{len(labels)} labels for {len(originals)} cells: expected one label per cell")
    if apart or contrast.has_hidden:
        lines = [(f"{name}\n{part}", crops, i) for i, part in channels_apart(contrast) for name, crops in rows.items()]
    else:
        lines = [(name, crops, None) for name, crops in rows.items()]

    n = len(originals)
    with figure_style():
        side = min((WIDTH_IN - 1.0) / n, 1.35)
        figure = new_figure(1.0 + side * n, 0.75 + (side + 2 * PAD_IN) * len(lines), pad_in=PAD_IN)
        grid = cell_grid(figure, len(lines), n)
        for axes_row, (name, crops, channel) in zip(grid, lines):
            for axes, crop in zip(axes_row, crops):
                draw_cell(axes, crop, contrast, channel)
            label_row(axes_row[0], name)
        for axes, label in zip(grid[0], labels):
            axes.set_title(cell_label(label, side), fontsize=8, loc="center")
        channel_key(figure, contrast)
        models = listed(list(by_model))
        return add_caption(
            figure,
            caption=f"n = {counted(n, 'cell')}; the originals above their reconstructions by {models}. "
            f"{note + ' ' if note else ''}{contrast_words(contrast, originals)}",
            alt=f"{counted(n, 'original cell')} ({', '.join(dict.fromkeys(labels))}) above their reconstructions by "
            f"{models}",
        )


def contact_sheet(
    crops: Sequence[np.ndarray],
    titles: Sequence[str],
    *,
    channels: Sequence[str],
    contrast: Contrast | None = None,
    characters: int = 20,
    what: str = "",
    origin: str = "real",
) -> Figure:
    """A contact sheet of real cells, a row per group.

    Args:
        crops: Crops (n_i, C, S, S) of each group.
        titles: The name of each group, such as a mechanism or a treatment.
        channels: C names.
        contrast: For all cells; left out, their own.
        characters: In a line of a title.
        what: What is shown, for the caption and screen readers; left out, the number of cells and groups.
        origin: What these cells are called there: real, or simulated.

    Returns:
        The figure.

    Raises:
        InputError: If there is not one title per group.
    """
    if len(crops) != len(titles) or not titles:
        raise InputError(
            f"{len(crops)} groups of cells, {len(titles)} titles: expected one title per group, at least one"
        )
    for group, title in zip(crops, titles):
        checked_crops(group, channels, what=title)
    contrast = contrast or shared_contrast(np.concatenate(list(crops)), channels)
    n_columns = max(len(group) for group in crops)
    n_cells = sum(len(group) for group in crops)
    with figure_style():
        label_in = 0.1 * characters - 0.25
        side = min((WIDTH_IN - label_in) / n_columns, 1.1)
        figure = new_figure(label_in + side * n_columns, 0.4 + (side + 2 * PAD_IN) * len(crops), pad_in=PAD_IN)
        grid = cell_grid(figure, len(crops), n_columns)
        for axes_row, group, title in zip(grid, crops, titles):
            for axes, crop in zip(axes_row, group):
                draw_cell(axes, crop, contrast, None)
            for axes in axes_row[len(group) :]:
                bare(axes)
            label_row(axes_row[0], title, characters=characters)
        channel_key(figure, contrast)
        what = what or f"n = {counted(n_cells, f'{origin} cell')}, {counted(len(titles), 'group')}"
        rows = "; ".join(title.replace("\n", ", ") for title in titles)
        caption = f"{what}. {contrast_words(contrast, crops[0])}"
        return add_caption(figure, caption=caption, alt=f"Contact sheet, {what}. Rows: {rows}")
