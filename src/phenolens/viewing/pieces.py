"""The pieces that pictures of cells are made of: a grid, a cell in it, its labels, the key of channels.

n cells, C channels, S crop side in px. Crops are floats, each channel divided by its own maximum.
"""

import textwrap
from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch

from phenolens.colours import Contrast, cell_image, colour_words
from phenolens.errors import InputError
from phenolens.viewing.canvas import INK, bare

Array = np.ndarray

WIDTH_IN = 9.0  # of a whole figure
PAD_IN = 0.012  # around each picture
SPACE = 0.16  # between real and decoded cells, in crop sides


def cell_grid(figure: Figure | SubFigure, n_rows: int, n_columns: int, **options: Sequence[float]) -> Array:
    """Axes (n_rows, n_columns), one a cell; `options` are matplotlib's, such as `width_ratios`."""
    return figure.subplots(n_rows, n_columns, squeeze=False, gridspec_kw=dict(options))


def draw_cell(axes: Axes, crop: Array, contrast: Contrast, channel: int | None = None) -> None:
    """Draw a crop (C, S, S) in colours, or one channel of it in grey."""
    if channel is not None:
        crop, contrast = crop[channel : channel + 1], contrast.of_channel(channel)
    bare(axes).imshow(cell_image(crop, contrast), interpolation="nearest")


def draw_difference(axes: Axes, difference: Array, limit: float) -> None:
    """Draw what a channel gained or lost (S, S): orange more, purple less, full colour at `limit`, white none."""
    bare(axes).imshow(difference, cmap="PuOr_r", vmin=-limit, vmax=limit, interpolation="nearest")


def label_end(axes: Axes, text: str, edge: Literal["left", "right"]) -> None:
    """A label above the picture from its outer edge on; a long one pushes nothing aside."""
    label = axes.annotate(
        text,
        (0 if edge == "left" else 1, 1),
        xycoords="axes fraction",
        xytext=(0, 5),
        textcoords="offset points",
        ha=edge,
        va="bottom",
        fontsize=9,
        fontweight="bold",
    )
    label.set_in_layout(False)


def label_row(axes: Axes, text: str, *, characters: int = 14, size: float = 8.5) -> None:
    """A label to the left of a row's first picture, in lines of so many characters."""
    axes.set_ylabel(wrapped(text, characters), rotation=0, ha="right", va="center", fontsize=size, labelpad=6)


def wrapped(text: str, characters: int) -> str:
    """The text in lines of so many characters, its own line ends kept; a number stays with its µM."""
    text = text.replace(" µM", "\u00a0µM")
    return "\n".join("\n".join(textwrap.wrap(line, characters)) for line in text.split("\n"))


def cell_label(label: str, side_in: float) -> str:
    """A treatment in lines as wide as a crop; a slash may end a line."""
    return wrapped(label.replace("/", "/ "), max(8, int(side_in * 14.5))).replace("/ ", "/")


def listed(names: Sequence[str]) -> str:
    """`VAE+, VAE and AE`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def channel_key(figure: Figure | SubFigure, contrast: Contrast) -> None:
    """Which colour is which channel, above the pictures."""
    if len(contrast.channels) > 1:
        handles = [
            Patch(facecolor=tuple(rgb), edgecolor=INK, linewidth=0.4, label=name)
            for name, rgb in zip(contrast.channels, contrast.colours)
        ]
        key_above(figure, handles, handleheight=0.9, columnspacing=1.2, borderpad=0.3)


def key_above(figure: Figure | SubFigure, handles: Sequence[Artist], **spaces: float) -> None:
    """A key in one line above everything; `spaces` as matplotlib's legend names them."""
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


def contrast_words(contrast: Contrast, crops: Array) -> str:
    """What a caption says of the crops' contrast and colours."""
    return (
        f"Crops are {crops.shape[-1]} px wide, each channel divided by its maximum in the cell, so differences in "
        f"brightness between cells are not shown; one contrast for all; {colour_words(contrast)}."
    )


def same_cells(crops: Array, originals: Array, name: str) -> None:
    """InputError unless the crops have the originals' shape."""
    if crops.shape != originals.shape:
        raise InputError(f"{name}: shape {crops.shape}, originals {originals.shape}; expected the same cells")
