"""HTML pages that open offline: pictures embedded, one style sheet, no script, every value escaped."""

import base64
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from matplotlib.figure import Figure

from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.number_text import beyond, change_text, number_text, signed, unbroken
from phenolens.plotting.style import alt_of, caption_of, png

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class SavedPicture:
    """A PNG with its caption and its alternative text."""

    png: bytes
    caption: str
    alt: str


Picture = Figure | SavedPicture


@dataclass(frozen=True)
class InlinePicture:
    """A picture as the templates use it."""

    source: str
    alt: str
    caption: str
    width: int
    height: int


def render_page(folder: Path, name: str, **values: Any) -> str:
    """Render an HTML template.

    Args:
        folder: The feature's own templates; these extend and import the shared ones.
        name: The template's file name.
        values: What the template shows; strings are escaped.

    Returns:
        The page. The same values give the same text.
    """
    style = Markup((TEMPLATES / "page.css").read_text(encoding="utf-8"))
    return _environment(folder).get_template(name).render(style=style, **values)


def text_lines(folder: Path, name: str, **values: Any) -> list[str]:
    """Render a text template, one sentence or paragraph a line, without empty lines."""
    text = _environment(folder).get_template(name).render(**values)
    return [line.strip() for line in text.splitlines() if line.strip()]


def inline_pictures(pictures: Sequence[Picture] | Picture | None) -> list[InlinePicture]:
    """Any number of pictures as the templates use them.

    Raises:
        InputError: If a saved picture is not a PNG.
    """
    if pictures is None:
        return []
    if isinstance(pictures, Figure | SavedPicture):
        pictures = [pictures]
    return [_inline(picture) for picture in pictures]


def _environment(folder: Path) -> Environment:
    environment = Environment(
        loader=FileSystemLoader([folder, TEMPLATES]),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "counted": counted,
        "value": _value,
        "signed": signed,
        "change": change_text,
        "beyond": beyond,
        "unbroken": unbroken,
        "label": lambda name: str(name).replace("_", " "),
    }
    return environment


def _inline(picture: Picture) -> InlinePicture:
    """Embed a picture; a figure's caption becomes text of the page, which wraps and can be read aloud."""
    if isinstance(picture, Figure):
        picture = SavedPicture(png(picture, with_caption=False), caption_of(picture), alt_of(picture))
    if picture.png[:8] != b"\x89PNG\r\n\x1a\n":
        raise InputError(f'picture "{picture.alt}": not a PNG file; expected the bytes of one')
    width, height = struct.unpack(">II", picture.png[16:24])
    source = "data:image/png;base64," + base64.b64encode(picture.png).decode("ascii")
    return InlinePicture(source, picture.alt, picture.caption, width, height)


def _value(value: object) -> str:
    """A value as people write it: 1,996; 0.871; yes; – if missing."""
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number_text(value, "z,.0f" if value.is_integer() or abs(value) >= 1000 else "z.3g")
    if hasattr(value, "__index__"):
        return f"{value:,}"
    return str(value)
