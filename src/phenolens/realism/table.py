"""Realism in words and in a table's cells, a row a look; nothing is computed here."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from phenolens.morphology.features import describe

HEADINGS = ("look", "sharpness", "in place", "SSIM", "Fréchet", "kernel", "precision", "recall", "told apart", "AUC")
TELLS = 0.65  # of pairs of a drawn and a real cell, in which a measure puts them in one order
# how to read the columns, each in a sentence
READING = (
    "Read each row beside the real cells' (the best that so many cells can give) and the blurred ones'. "
    "± is the deviation over random halvings of the cells.",
    "sharpness: fine power over that of real cells, a channel; 1 is as sharp, above 1 is invented texture. In place: "
    "how much of the fine detail is where the original has it, a channel, at most 1. SSIM: likeness to the cell's own "
    "original, a channel, at most 1. (In the real cells' row both are those of another cell: no likeness.)",
    "Fréchet and kernel: distance between measured real and drawn cells, smaller is nearer, about 0 for the kernel. "
    "Precision: drawn cells that lie among real ones. Recall: real cells that lie among drawn ones.",
    "told apart: how often a classifier tells drawn from real on plates that it has not seen, with a 95 % interval "
    "over wells; 0.5 is never better than chance, 1 is always.",
)


def channels_of(table: pd.DataFrame) -> list[str]:
    """The channels of a table of realism, in their order."""
    named = [str(name).removeprefix("sharpness ") for name in table if str(name).startswith("sharpness ")]
    return [name for name in named if not (name.endswith("_sd") and name.removesuffix("_sd") in named)]


def cell_texts(row: Mapping[str, Any]) -> list[str]:
    """A look's row under HEADINGS: channels side by side, values with their spread; a dash for what is not known."""
    channels = channels_of(pd.DataFrame([row]))
    return [
        str(row["look"]),
        ", ".join(_number(row[f"sharpness {name}"], 2) for name in channels),
        ", ".join(_number(row[f"in place {name}"], 2) for name in channels),
        ", ".join(_number(row[f"ssim {name}"], 2) for name in channels),
        _spread(row, "frechet", 1),
        _spread(row, "kernel", 2),
        _spread(row, "precision", 2),
        _spread(row, "recall", 2),
        _interval(row, "accuracy"),
        _interval(row, "auc"),
    ]


def telling_sentence(telling: pd.DataFrame, look: str, *, nuclei: str | None = None, n: int = 3) -> str:
    """What tells a look's cells from real ones most, in plain words; `telling` has a row a look and measure.

    Measures that alone are right in fewer than TELLS of the pairs are not named; empty where none is left.
    """
    of_look = telling[telling["look"] == look]
    strong = of_look[(of_look["auc"] - 0.5).abs() >= TELLS - 0.5]
    strong = strong.iloc[(0.5 - strong["auc"]).abs().to_numpy().argsort(kind="stable")[::-1][:n]]
    named = [
        f"{describe(name, nuclei=nuclei)} ({shift:+.1f})".replace("(-", "(−")
        for name, shift in zip(strong["measure"], strong["shift"])
    ]
    return f"{look} differs most in (± real standard deviations): {'; '.join(named)}." if named else ""


def realism_rows(table: pd.DataFrame) -> list[list[str]]:
    """The texts of all looks, a row a look, under HEADINGS."""
    return [cell_texts({str(name): value for name, value in row.items()}) for row in table.to_dict("records")]


def _number(value: float, digits: int) -> str:
    # a kernel distance may be below 0 by chance, never "-0.00"
    return "–" if pd.isna(value) else f"{round(value, digits) + 0.0:.{digits}f}"


def _spread(row: Mapping[str, Any], name: str, digits: int) -> str:
    if pd.isna(row[name]):
        return "–"
    return f"{_number(row[name], digits)} ± {_number(row[f'{name}_sd'], digits)}"


def _interval(row: Mapping[str, Any], name: str) -> str:
    if pd.isna(row[name]):
        return "–"
    return f"{row[name]:.2f} ({row[f'{name}_low']:.2f} to {row[f'{name}_high']:.2f})"
