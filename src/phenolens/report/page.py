"""The report: one HTML page that holds everything and loads nothing.

It is made of values that other steps computed; a section whose content is None says which command would make it. The
same contents give the same bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from phenolens.plotting.page import Picture, inline_pictures, page_environment, page_style
from phenolens.profiles.score_table import (
    COLUMN_TITLES,
    MODEL_NAMES,
    OTHERS,
    first_whitening,
    outside_table,
    score_rows,
)
from phenolens.realism.table import HEADINGS, READING, realism_rows

SECTIONS = (
    ("run", "What was run"),
    ("scores", "Scores"),
    ("confusion", "Taken for what"),
    ("matches", "Matches to look at"),
    ("wrong", "Wrong ones"),
    ("travel", "From control to compound"),
    ("reconstructions", "Redrawn cells"),
    ("realism", "How real they look"),
    ("cells", "Real cells"),
    ("learning", "How it learned"),
    ("quality", "Quality"),
    ("whitening", "Whitening"),
    ("left-out", "Left out"),
    ("repeat", "To repeat it"),
    ("glossary", "Words"),
)

GLOSSARY = (
    (
        "Embedding",
        "the numbers, 256 by default, into which a model compresses one cell's picture, and from which it redraws it.",
    ),
    (
        "Profile",
        "a treatment's signature: the embeddings of its cells, averaged (Mean) or with their spread beside it "
        "(Mean+S.D.) over each well, then the median over wells. A treatment is a compound at one concentration.",
    ),
    (
        "Whitened",
        "rescaled so that untreated control wells vary equally in every direction; what differs anyway between "
        "untreated wells then counts for less.",
    ),
    (
        "NSC",
        "not same compound: a treatment is right when the most similar profile of any other compound has its "
        "mechanism.",
    ),
    (
        "NSCB",
        "not same compound or batch: the same, with everything of the treatment's own batches left out as well; "
        "harder, because likeness by batch cannot help.",
    ),
)


@dataclass(frozen=True)
class QualityContents:
    """How good the crops are: what was flagged, where, and what it looks like."""

    sentences: Sequence[str]
    by_plate: pd.DataFrame  # a row a plate, the first all plates together
    examples: Sequence[Picture] = ()  # crops of each kind of flag; none where nothing is flagged


@dataclass(frozen=True)
class RealismContents:
    """How real the models' pictures look."""

    table: pd.DataFrame  # a row a look, as realism_table.cell_texts makes it of
    notes: Sequence[str]  # what was measured
    picture: Picture


@dataclass(frozen=True)
class ReportContents:
    """What the report says, section by section in the page's order; None (or nothing inside) leaves a section out."""

    title: str
    verdict: str  # one sentence in plain words; scoretable.verdict_sentence makes one
    facts: Mapping[str, Mapping[str, object]] | None = None  # what was run on what: group -> name -> value
    scores: pd.DataFrame | None = None  # the layout of scores.csv
    is_bbbc021: bool = False  # puts the published scores beside ours
    amount_of_data: str = ""  # what ours was measured on, where it is not the full data: "1,996 of some 488,000 cells"
    confusion: Sequence[Picture] | None = None
    treatment_map: Picture | None = None
    matches: Picture | None = None  # treatments beside the one each was most like, with cells of both
    wrong: pd.DataFrame | None = None  # a row a wrong treatment and its neighbour; empty: all were right
    learning_curves: Sequence[Picture] | None = None
    warnings: Sequence[str] | None = None  # the health of the training in sentences; empty: nothing was wrong
    reconstructions: Sequence[Picture] | None = None
    interpolations: Sequence[Picture] | None = None
    realism: RealismContents | None = None
    cells: Picture | None = None  # real cells by mechanism
    quality: QualityContents | None = None
    whitening: Sequence[str] | None = None  # what was whitened on what, and how well, in sentences
    left_out: pd.DataFrame | None = None  # a row a kind: what, how many, why; empty: nothing was
    commands: Sequence[str] | None = None  # every command that repeats this, in order
    study: str = "STUDY"  # the study's folder as it stands in the commands
    glossary: Sequence[tuple[str, str]] = field(default=GLOSSARY)


def report_html(contents: ReportContents) -> str:
    """The whole page as text: images inline, no script, nothing loaded from anywhere, every string escaped."""
    environment = page_environment()
    environment.filters["label"] = lambda name: str(name).replace("_", " ")
    scores = contents.scores
    return environment.get_template("report.html").render(
        contents=contents,
        style=page_style(),
        column_titles=COLUMN_TITLES,
        rows=None if scores is None else score_rows(scores, with_published=contents.is_bbbc021),
        whitening_name="" if scores is None else first_whitening(scores),
        further_scores=None if scores is None else outside_table(scores),
        model_names=MODEL_NAMES,
        others=OTHERS,
        confusion=inline_pictures(contents.confusion),
        treatment_map=inline_pictures(contents.treatment_map),
        matches=inline_pictures(contents.matches),
        learning_curves=inline_pictures(contents.learning_curves),
        reconstructions=inline_pictures(contents.reconstructions),
        interpolations=inline_pictures(contents.interpolations),
        realism_rows=[] if contents.realism is None else realism_rows(contents.realism.table),
        realism_headings=HEADINGS,
        realism_reading=READING,
        realism=inline_pictures(None if contents.realism is None else contents.realism.picture),
        sections=SECTIONS,
        cells=inline_pictures(contents.cells),
        flagged=inline_pictures(None if contents.quality is None else contents.quality.examples),
    )
