"""The style, caption and file of every figure.

Figures are matplotlib Figures made without pyplot, so none stays open and none needs a display. A figure gives the same
bytes each time.
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
# Metadata that matplotlib would write about the machine and the date
OMITTED_METADATA = {"png": ("Software",), "svg": ("Creator", "Date"), "pdf": ("Creator", "Producer", "CreationDate")}
CHARACTERS_PER_INCH = 15.5  # of the caption's font

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so it is the same on every machine
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # compounds' names can contain a dollar sign
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
    "pdf.fonttype": 42,  # embeds fonts, so that text can be edited
}


@contextmanager
def figure_style() -> Iterator[None]:
    """A context with matplotlib's defaults and STYLE, whatever the user's settings are."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        for name, setting in STYLE.items():
            matplotlib.rcParams[name] = setting  # type: ignore[index]
        yield


class NotebookFigure(Figure):
    """A figure that a notebook shows, whether pyplot is loaded or not."""

    def _repr_png_(self) -> bytes:
        return png(self)


def new_figure(width_in: float, height_in: float, *, pad_in: float) -> Figure:
    """An empty white figure with automatic layout and `pad_in` inches around each of its axes."""
    layout = ConstrainedLayoutEngine(w_pad=pad_in, h_pad=pad_in, wspace=0, hspace=0)
    return NotebookFigure(figsize=(width_in, height_in), dpi=PIXELS_PER_INCH, layout=layout)


def add_caption(figure: Figure, *, caption: str, alt: str) -> Figure:
    """The figure with a caption below, by whose height it grows, and `alt`, a text for screen readers."""
    lines = textwrap.wrap(caption, int(figure.get_figwidth() * CHARACTERS_PER_INCH), break_on_hyphens=False)
    figure.set_figheight(figure.get_figheight() + _caption_in(len(lines)))
    figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=8, color=QUIET, linespacing=1.3)
    figure.set_label(alt)
    return figure


def caption_of(figure: Figure) -> str:
    """The figure's caption as one line; empty if it has none."""
    return " ".join(figure.get_supxlabel().split("\n"))


def alt_of(figure: Figure) -> str:
    """The figure's text for screen readers, or else its caption."""
    return str(figure.get_label() or caption_of(figure) or "figure")


def png(figure: Figure, *, with_caption: bool = True) -> bytes:
    """The figure as PNG, without dates or versions inside: the same figure gives the same bytes."""
    return file_of(figure, "png", with_caption=with_caption)


def file_of(figure: Figure, kind: Literal["png", "svg", "pdf"], *, with_caption: bool = True) -> bytes:
    """The figure as a file of this kind, without dates or versions inside: the same figure gives the same bytes.

    A copy is drawn, because drawing changes a figure's layout.
    """
    copy: Figure = pickle.loads(pickle.dumps(figure))
    if not with_caption:
        _remove_caption(copy)
    metadata: dict[str, str | None] = dict.fromkeys(OMITTED_METADATA[kind])
    if kind != "png":
        metadata["Title"] = alt_of(figure)  # for screen readers
    dpi = PIXELS_PER_INCH if kind == "png" else VECTOR_PIXELS_PER_INCH
    buffer = io.BytesIO()
    with figure_style():
        copy.savefig(buffer, format=kind, dpi=dpi, metadata=metadata)
    return buffer.getvalue()


def bare(axes: Axes) -> Axes:
    """Axes without frame, ticks and numbers."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    return axes


def _remove_caption(figure: Figure) -> None:
    caption = figure.get_supxlabel()
    for text in [text for text in figure.texts if caption and text.get_text() == caption]:
        text.set_visible(False)
        text.set_in_layout(False)
        figure.set_figheight(figure.get_figheight() - _caption_in(caption.count("\n") + 1))


def _caption_in(n_lines: int) -> float:
    return 0.16 * n_lines + 0.08
