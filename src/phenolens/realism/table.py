"""The realism metrics as a table for people, and the sentences that explain it."""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from phenolens.morphology.features import describe
from phenolens.plotting.page import text_lines
from phenolens.realism.compute import MeasuredCells

TEMPLATES = Path(__file__).parent / "templates"
HEADINGS = ("images", "sharpness", "in place", "SSIM", "Fréchet", "kernel", "precision", "recall", "accuracy", "AUC")
FEW_CELLS = 400  # with fewer, distances and intervals are wide
LEAST_AUC = 0.65  # of a measure that is named as a difference
MOST_DIFFERENCES = 3  # named for each set


def channels_of(table: pd.DataFrame) -> list[str]:
    """The channels of a realism table, in their order."""
    named = [str(name).removeprefix("sharpness ") for name in table if str(name).startswith("sharpness ")]
    return [name for name in named if not (name.endswith("_sd") and name.removesuffix("_sd") in named)]


def realism_rows(table: pd.DataFrame) -> list[list[str]]:
    """The table's rows as text under HEADINGS: one value a channel, values with their spread, a dash for NaN."""
    channels = channels_of(table)
    return [_row_texts(row, channels) for row in table.to_dict("records")]


def measured_notes(table: pd.DataFrame, cells: MeasuredCells) -> list[str]:
    """Which cells were measured and what could not be measured, in sentences."""
    often_unmeasured = table[table["unmeasured"] > 2 * table["unmeasured"].iloc[0] + 0.05]
    return text_lines(
        TEMPLATES,
        "measured.txt",
        cells=cells,
        few_cells=FEW_CELLS,
        no_classifier=bool(table["accuracy"].isna().any()),
        no_frechet=bool(table["frechet"].isna().any()),
        unmeasured=often_unmeasured.set_index("images")["unmeasured"].to_dict(),
    )


def realism_notes(
    table: pd.DataFrame, differences: pd.DataFrame, cells: MeasuredCells, *, nuclei: str | None
) -> list[str]:
    """Everything that explains the table, in sentences: measured cells, strongest differences, how to read it."""
    decoded = table.loc[table["kind"] != "control", "images"]
    named = {name: strongest_differences(differences, name, nuclei=nuclei) for name in decoded}
    return measured_notes(table, cells) + text_lines(TEMPLATES, "reading.txt", differences=named)


def strongest_differences(differences: pd.DataFrame, images: str, *, nuclei: str | None = None) -> dict[str, float]:
    """The measures that differ most from real cells, described with their unit, and their shifts in real SDs."""
    of_set = differences[differences["images"] == images]
    strength = (of_set["auc"] - 0.5).abs()
    strong = of_set[strength >= LEAST_AUC - 0.5].sort_values("auc", key=lambda auc: -(auc - 0.5).abs(), kind="stable")[
        :MOST_DIFFERENCES
    ]
    return {describe(name, nuclei=nuclei): shift for name, shift in zip(strong["measure"], strong["shift"])}


def _row_texts(row: Mapping[Hashable, Any], channels: list[str]) -> list[str]:
    by_channel = [
        ", ".join(_number(row[f"{metric} {name}"], 2) for name in channels)
        for metric in ("sharpness", "in place", "ssim")
    ]
    spreads = [_spread(row, name, digits) for name, digits in (("frechet", 1), ("kernel", 2))]
    spreads += [_spread(row, name, 2) for name in ("precision", "recall")]
    return [str(row["images"]), *by_channel, *spreads, _interval(row, "accuracy"), _interval(row, "auc")]


def _number(value: float, digits: int) -> str:
    # a kernel distance can be slightly negative, but never prints as "-0.00"
    return "–" if pd.isna(value) else f"{round(value, digits) + 0.0:.{digits}f}"


def _spread(row: Mapping[Hashable, Any], name: str, digits: int) -> str:
    return "–" if pd.isna(row[name]) else f"{_number(row[name], digits)} ± {_number(row[f'{name}_sd'], digits)}"


def _interval(row: Mapping[Hashable, Any], name: str) -> str:
    if pd.isna(row[name]):
        return "–"
    return f"{row[name]:.2f} ({row[f'{name}_low']:.2f} to {row[f'{name}_high']:.2f})"
