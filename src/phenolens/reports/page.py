"""The report as one HTML page that opens offline.

A section that was not made names the command that makes it. The same contents give the same bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from phenolens.image_realism.saved import HEADINGS, SavedRealism, realism_rows
from phenolens.plotting.page import Picture, SavedPicture, inline_pictures, render_page
from phenolens.profiles.activity import LEVEL
from phenolens.profiles.score_table import (
    OTHERS,
    first_whitening,
    headline_scores,
    outside_table,
    score_columns,
    score_rows,
)
from phenolens.reports import compounds, crop_quality
from phenolens.reports.compounds import CompoundRow

TEMPLATES = Path(__file__).parent / "templates"
FULL_BBBC021_CROPS = 488_396  # the public crop set, to say how much of it a study holds


@dataclass(frozen=True)
class ReportContents:
    """The report section by section; None where a section's command has not been run."""

    title: str
    facts: Mapping[str, Mapping[str, object]]  # group -> name -> value
    scores: pd.DataFrame  # the layout of scores.csv
    confusion: Sequence[Picture]
    treatment_map: Picture | None
    cells: Picture  # real cells by mechanism
    quality: crop_quality.CropQuality
    whitening: Sequence[str]  # a certificate each
    excluded: pd.DataFrame  # a row per kind: what, how many, why
    commands: Sequence[str]  # that repeat all this, in order
    study: str  # the study's folder, as in the commands
    headline: str = ""  # the whitening of the profiles that the headline scores
    profile: str = ""  # how these profiles are made
    origin: str = "real"  # what cells are called: real, or simulated
    activity: pd.DataFrame | None = None  # a row per treatment, the most different from the controls first
    compounds: Sequence[CompoundRow] = ()  # the strongest first
    n_compounds: int = 0  # of the study
    n_treatments: int = 0  # compared with the controls
    has_mechanisms: bool = True  # whether any treatment has one
    is_first: bool = False  # whether no model is trained yet, so that `run` would write the report again
    weakness: str = ""  # of the permutation test, where too few wells allow a small p-value
    smallest: str = ""  # how many treatments have the smallest p-value that their wells allow; empty for none
    absent: Sequence[str] = ()  # why a score is not there
    comparison: Mapping[str, pd.DataFrame] | None = None  # of models: protocol -> a row per model
    model_facts: pd.DataFrame | None = None  # what each model is and costs
    claims: pd.DataFrame | None = None  # of papers, a row per claim, beside what holds here
    scatter: Picture | None = None  # score against realism, a point per model
    verdict: str = ""  # the headline in one sentence; empty where it was not scored
    n_cells_of_bbbc021: int | None = None  # for a study of BBBC021, whose published scores are shown too
    neighbours: Picture | None = None  # nearest-neighbour pairs
    wrong: pd.DataFrame | None = None  # a row per treatment whose neighbour has another mechanism
    interpolations: Sequence[Picture] | None = None
    interpolated: Sequence[str] = ()  # the treatment of each
    shared_captions: Sequence[str] = ()  # sentences that hold for all of them
    reconstructions: Picture | None = None
    realism: SavedRealism | None = None
    learning_curves: Sequence[Picture] | None = None
    has_steps: bool = True  # whether the model was trained step by step, neither fitted nor frozen
    warnings: Sequence[str] = ()  # of the training, in sentences
    too_few_records: int | None = None  # records of a training that is too short to judge


def report_html(contents: ReportContents) -> str:
    """The whole page as text: pictures embedded, no script, nothing loaded, every string escaped."""
    scores, realism, quality = contents.scores, contents.realism, contents.quality
    rows = score_rows(scores, with_published=contents.n_cells_of_bbbc021 is not None, headline=contents.headline)
    figure = SavedPicture(realism.figure.read_bytes(), "", realism.alt) if realism else None
    return render_page(
        TEMPLATES,
        "report.html",
        title=contents.title,
        contents=contents,
        rows=rows,
        headline=headline_scores(rows),
        column_titles=[*score_columns(scores, contents.headline).values()],
        whitening_name=first_whitening(scores),
        further_scores=outside_table(scores, contents.headline),
        others=OTHERS,
        full_bbbc021=FULL_BBBC021_CROPS,
        realism_rows=realism_rows(realism.table) if realism else [],
        realism_headings=HEADINGS,
        limits=crop_quality,
        curve=compounds,
        level=LEVEL,
        has_curves=any(len(row.doses) > 1 for row in contents.compounds),
        has_tests=any(row.testable for row in contents.compounds),
        changes=[change for row in contents.compounds for _, change in row.changes],
        compounds=[(row, inline_pictures(row.picture)[0]) for row in contents.compounds],
        pictures={
            "confusion": inline_pictures(contents.confusion),
            "map": inline_pictures(contents.treatment_map),
            "neighbours": inline_pictures(contents.neighbours),
            "interpolations": inline_pictures(contents.interpolations),
            "reconstructions": inline_pictures(contents.reconstructions),
            "realism": inline_pictures(figure),
            "scatter": inline_pictures(contents.scatter),
            "cells": inline_pictures(contents.cells),
            "learning": inline_pictures(contents.learning_curves),
            "flagged": inline_pictures(quality.example_crops),
        },
    )
