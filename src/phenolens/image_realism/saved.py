"""A study's `realism/` folder: two tables, a figure, what they were made from, and the sentences that explain them."""

from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from phenolens import __version__
from phenolens.core.errors import InputError
from phenolens.core.files import alone, read_json, write_json, write_text, write_whole
from phenolens.core.keywords import flags_of
from phenolens.core.progress import tell
from phenolens.image_realism.compute import ComparedCells, measure_realism
from phenolens.image_realism.config import RealismConfig
from phenolens.image_realism.figure import realism_figure
from phenolens.morphology.features import describe
from phenolens.plotting.page import text_lines
from phenolens.plotting.style import alt_of, png
from phenolens.runs.decoder import DecodingRun, find_decoding_runs
from phenolens.study import Study, made_from
from phenolens.training.checkpoint import weights_sha256

FILES = ("realism.csv", "differences.csv", "realism.png")
ABOUT = {"made_from", "runs", "config", "cells", "alt"}  # keys that the about.json of this version has
TEMPLATES = Path(__file__).parent / "templates"
HEADINGS = ("images", "sharpness", "in place", "SSIM", "Fréchet", "kernel", "precision", "recall", "accuracy", "AUC")
FEW_CELLS = 400  # with fewer, distances and intervals are wide
LEAST_AUC = 0.65  # of a measure that is named as a difference
MOST_DIFFERENCES = 3  # named for each set


@dataclass(frozen=True)
class SavedRealism:
    """The content of the folder."""

    folder: Path
    table: pd.DataFrame  # a row a set of images
    notes: list[str]  # everything that explains the table
    alt: str  # describes the figure
    flags: list[str]  # of the `phenolens realism` command that makes the same

    @property
    def figure(self) -> Path:
        """The figure as PNG."""
        return self.folder / "realism.png"


def saved_realism(study: Study) -> SavedRealism | None:
    """The saved realism; None if there is none, or if it is out of date because crops, weights or version changed."""
    about = _about(study)
    if not about:
        return None
    try:
        runs = runs_of_current_crops(study, about["runs"])
    except InputError:  # a run was removed or trained on other crops
        return None
    return _read(study, about) if about["made_from"] == _source(study, runs, about["config"]) else None


def write_realism(study: Study, names: Sequence[str], config: RealismConfig) -> SavedRealism:
    """Measure the realism of runs and save it in `realism/`; what is there and up to date is read instead.

    Args:
        study: The study.
        names: Runs; all trained runs that decode or draw if empty.
        config: What is measured.

    Returns:
        The saved tables and notes.

    Raises:
        InputError: If a run does not exist, is not fully trained, was trained on other crops, or makes no pictures.
    """
    folder = study.realism_folder
    runs = runs_of_current_crops(study, names)
    source = _source(study, runs, asdict(config))
    before = _about(study)
    if before.get("made_from") == source:
        tell(f"{folder}: up to date, nothing to measure")
        return _read(study, before)
    with alone(study.realism_lock, doing="measuring realism"):
        measured = measure_realism(study.crops, runs, config)
        figure = realism_figure(
            measured.table,
            measured.examples,
            channels=study.crops.channels,
            notes=measured_notes(measured.table, measured.cells),
        )
        about = {
            "made_from": source,
            "phenolens": __version__,
            "runs": [run.name for run in runs],
            "config": asdict(config),
            "cells": asdict(measured.cells),
            "alt": alt_of(figure),
        }
        (folder / "about.json").unlink(missing_ok=True)  # written last: without it the folder is not complete
        write_text(folder / "realism.csv", measured.table.to_csv(index=False))
        write_text(folder / "differences.csv", measured.differences.to_csv(index=False))
        with write_whole(folder / "realism.png") as file:
            file.write(png(figure))
        write_json(folder / "about.json", about)
    return _read(study, about)


def add_realism(study: Study, names: Sequence[str]) -> SavedRealism:
    """Measure the realism of runs beside those that were measured already, with the settings that these had."""
    before = _about(study)
    kept = []
    for run in before.get("runs", []):
        with suppress(InputError):  # it was removed, or trained on other crops
            kept += [one.name for one in runs_of_current_crops(study, [run])]
    config = RealismConfig(**before["config"]) if before else RealismConfig()
    return write_realism(study, [*dict.fromkeys([*kept, *names])], config)


def runs_of_current_crops(study: Study, names: Sequence[str]) -> list[DecodingRun]:
    """The runs of these names, or all trained runs that decode or draw.

    Raises:
        InputError: If a named run does neither, one was trained on other crops, or there is no run.
    """
    crops = study.crops.identity_without_mechanisms
    runs = find_decoding_runs(study, names, or_draw=True)
    for run in runs:
        if (run.run.about() or {}).get("crops") != crops:
            raise InputError(f"{run.run.folder}: out of date: the study's crops changed; train it again")
    return runs


def _source(study: Study, runs: Sequence[DecodingRun], config: dict[str, Any]) -> str:
    weights = {run.name: weights_sha256(run.model) for run in runs}
    return made_from(crops=study.crops.identity_without_mechanisms, weights=weights, config=config, version=__version__)


def _about(study: Study) -> dict[str, Any]:
    """The content of about.json; empty if the folder is not complete or was written by an earlier version."""
    folder = study.realism_folder
    path = folder / "about.json"
    if not path.exists() or not all((folder / name).exists() for name in FILES):
        return {}
    about = read_json(path, remedy="delete it and run `phenolens realism` again")
    return about if isinstance(about, dict) and about.keys() >= ABOUT else {}


def _read(study: Study, about: dict[str, Any]) -> SavedRealism:
    folder, config = study.realism_folder, about["config"]
    table, differences = pd.read_csv(folder / "realism.csv"), pd.read_csv(folder / "differences.csv")
    notes = realism_notes(table, differences, ComparedCells(**about["cells"]), nuclei=config["nuclei"])
    flags = ["--runs", *about["runs"], *flags_of(config, asdict(RealismConfig()))]
    return SavedRealism(folder, table, notes, about["alt"], flags)


def channels_of(table: pd.DataFrame) -> list[str]:
    """The channels of a realism table, in their order."""
    named = [str(name).removeprefix("sharpness ") for name in table if str(name).startswith("sharpness ")]
    return [name for name in named if not (name.endswith("_sd") and name.removesuffix("_sd") in named)]


def realism_rows(table: pd.DataFrame) -> list[list[str]]:
    """The table's rows as text under HEADINGS: one value per channel, values with their spread, a dash for NaN."""
    channels = channels_of(table)
    return [_row_texts(row, channels) for row in table.to_dict("records")]


def measured_notes(table: pd.DataFrame, cells: ComparedCells) -> list[str]:
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
    table: pd.DataFrame, differences: pd.DataFrame, cells: ComparedCells, *, nuclei: str | None
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
