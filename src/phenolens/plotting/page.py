"""What a page that opens offline is made of: pictures inside it, one style, no script, every string escaped."""

import base64
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from phenolens.core.errors import InputError
from phenolens.plotting.style import alt_of, caption_of, png

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class SavedPicture:
    """A picture that is a PNG already, with its caption and what is to be seen in words."""

    png: bytes
    caption: str
    alt: str


Picture = Figure | SavedPicture


@dataclass(frozen=True)
class InlinePicture:
    """A picture as the template needs it."""

    source: str
    alt: str
    caption: str
    width: int
    height: int


def page_environment() -> Environment:
    """Templates whose values are escaped, with the filter `value`: a table's value as a person writes it."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["value"] = _value
    return environment


def page_style() -> Markup:
    """The style that all pages have."""
    return Markup((TEMPLATES / "report.css").read_text(encoding="utf-8"))


def inline_pictures(pictures: Sequence[Picture] | Picture | None) -> list[InlinePicture]:
    """The pictures, none, one or several, as templates need them; InputError for one that is no PNG."""
    if pictures is None:
        return []
    if isinstance(pictures, Figure | SavedPicture):
        pictures = [pictures]
    return [_inline(picture) for picture in pictures]


def _inline(picture: Picture) -> InlinePicture:
    """The picture inside the page; a figure's caption becomes text of the page, which wraps and can be read aloud."""
    if isinstance(picture, Figure):
        picture = SavedPicture(png(picture, with_caption=False), caption_of(picture), alt_of(picture))
    if picture.png[:8] != b"\x89PNG\r\n\x1a\n":
        raise InputError(f'picture "{picture.alt}": not a PNG file; expected the bytes of one')
    width, height = struct.unpack(">II", picture.png[16:24])
    source = "data:image/png;base64," + base64.b64encode(picture.png).decode("ascii")
    return InlinePicture(source, picture.alt, picture.caption, width, height)


def _value(value: object) -> str:
    """A table's value as a person writes it: 1,996; 0.871; yes; – for what is missing."""
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() else f"{value:.3g}"
    if hasattr(value, "__index__"):
        return f"{value:,}"
    return str(value)
