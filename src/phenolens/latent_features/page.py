"""The page of a run's latent features: what to conclude, then a feature at a time. Opens offline, has no script.

The same contents give the same bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from phenolens.plotting.page import inline_pictures, page_environment, page_style


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
    environment = page_environment()
    return environment.get_template("features.html").render(
        contents=contents,
        style=page_style(),
        sections=[(section, inline_pictures(section.strip)[0]) for section in contents.sections],
    )
