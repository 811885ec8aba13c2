"""The page of a run's latent features: what to conclude, then a feature at a time. Opens offline, has no script.

The same contents give the same bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from phenolens.viewing.report import _pictures, _value

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class FeatureSection:
    """One feature's part of the page."""

    name: str  # Z017
    title: str  # what it follows, in a few words
    sentences: Sequence[str]
    strip: Figure


@dataclass(frozen=True)
class FeaturesContents:
    """What the page says, in its order."""

    title: str
    verdict: str  # one sentence: how many features are used
    conclusions: Sequence[str]  # what to conclude, and what to do next, in sentences
    sections: Sequence[FeatureSection]  # the most used features first
    table: pd.DataFrame  # a row a used feature
    how: Sequence[tuple[str, str]]  # each word of the page and what it means, or how it was measured
    commands: Sequence[str]  # that make it again


def features_html(contents: FeaturesContents) -> str:
    """The whole page as text: images inline, nothing loaded from anywhere, every string escaped."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["value"] = _value
    return environment.get_template("features.html").render(
        contents=contents,
        style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        sections=[(section, _pictures(section.strip)[0]) for section in contents.sections],
    )
