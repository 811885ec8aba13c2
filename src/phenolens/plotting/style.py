"""What every figure has: one look, a caption that says n and what is left out, and the same bytes each time.

Figures are matplotlib's own objects, made without pyplot, so nothing is kept open and nothing needs a screen.
"""

import io
import pickle
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

INK = "#1f2933"
QUIET = "#6b7785"
RULE = "#d5dae0"
PIXELS_PER_INCH = 160
VECTOR_PIXELS_PER_INCH = 300  # of the pictures inside an SVG or a PDF
# What matplotlib would write of the machine and the day into a file of each kind
UNTOLD = {"png": ("Software",), "svg": ("Creator", "Date"), "pdf": ("Creator", "Producer", "CreationDate")}
CHARACTERS_PER_INCH = 15.5  # of the caption's font

LOOK: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so every machine draws the same
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a compound's name is a dollar sign
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.hashsalt": "phenolens",
    "pdf.fonttype": 42,  # whole fonts, so that letters can be edited
}


@contextmanager
def figure_style() -> Iterator[None]:
    """Draw within: matplotlib's defaults and LOOK, whatever the user's own settings are."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        for name, setting in LOOK.items():
            matplotlib.rcParams[name] = setting  # type: ignore[index]
        yield


def new_figure(width_in: float, height_in: float, *, pad_in: float) -> Figure:
    """An empty white figure that lays itself out, with `pad_in` around each of its axes."""
    layout = ConstrainedLayoutEngine(w_pad=pad_in, h_pad=pad_in, wspace=0, hspace=0)
    return Figure(figsize=(width_in, height_in), dpi=PIXELS_PER_INCH, layout=layout)


def add_caption(figure: Figure, *, caption: str, alt: str) -> Figure:
    """The figure with its caption under the picture, and `alt`: what is to be seen, for those who cannot see it.

    The figure grows by the caption's height.
    """
    lines = textwrap.wrap(caption, int(figure.get_figwidth() * CHARACTERS_PER_INCH))
    figure.set_figheight(figure.get_figheight() + _caption_in(len(lines)))
    figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=8, color=QUIET, linespacing=1.3)
    figure.set_label(alt)
    return figure


def caption_of(figure: Figure) -> str:
    """The figure's caption as one line; empty where it has none."""
    return " ".join(figure.get_supxlabel().split("\n"))


def alt_of(figure: Figure) -> str:
    """What is to be seen in the figure, in words; its caption where nothing was said."""
    return str(figure.get_label() or caption_of(figure) or "figure")


def png(figure: Figure, *, with_caption: bool = True) -> bytes:
    """The figure as PNG, without dates or versions inside: the same figure gives the same bytes."""
    return file_of(figure, "png", with_caption=with_caption)


def file_of(figure: Figure, kind: Literal["png", "svg", "pdf"], *, with_caption: bool = True) -> bytes:
    """The figure as a file of this kind, without dates or versions inside: the same figure gives the same bytes.

    A copy is drawn: drawing moves what is in a figure, so that drawing it once more would give other bytes.
    """
    copy: Figure = pickle.loads(pickle.dumps(figure))
    if not with_caption:
        _take_caption_off(copy)
    metadata: dict[str, str | None] = dict.fromkeys(UNTOLD[kind])
    if kind != "png":
        metadata["Title"] = alt_of(figure)  # read aloud where the picture cannot be seen
    dpi = PIXELS_PER_INCH if kind == "png" else VECTOR_PIXELS_PER_INCH
    buffer = io.BytesIO()
    with figure_style():
        copy.savefig(buffer, format=kind, dpi=dpi, metadata=metadata)
    return buffer.getvalue()


def bare(axes: Axes) -> Axes:
    """Axes without frame, ticks and numbers, for pictures."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    return axes


def _take_caption_off(figure: Figure) -> None:
    caption = figure.get_supxlabel()
    for text in [text for text in figure.texts if caption and text.get_text() == caption]:
        text.set_visible(False)
        text.set_in_layout(False)
        figure.set_figheight(figure.get_figheight() - _caption_in(caption.count("\n") + 1))


def _caption_in(n_lines: int) -> float:
    return 0.16 * n_lines + 0.08
