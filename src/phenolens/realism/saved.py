"""A study's `realism/` folder: two tables, a figure, and what they were made from."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from phenolens import __version__
from phenolens.core.errors import InputError
from phenolens.core.files import alone, read_json, write_json, write_text, write_whole
from phenolens.core.keywords import flags_of
from phenolens.core.progress import tell
from phenolens.plotting.style import alt_of, png
from phenolens.realism.compute import MeasuredCells, RealismConfig, measure_realism
from phenolens.realism.figure import realism_figure
from phenolens.realism.table import measured_notes, realism_notes
from phenolens.runs.decoder import DecodingRun, find_decoding_runs
from phenolens.study import Study, made_from
from phenolens.training.checkpoint import weights_sha256

FILES = ("realism.csv", "differences.csv", "realism.png")
ABOUT = {"made_from", "runs", "config", "cells", "alt"}  # keys that the about.json of this version has


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
        names: Runs; all trained runs that decode if empty.
        config: What is measured.

    Returns:
        The saved tables and notes.

    Raises:
        InputError: If a run does not exist, is not fully trained, was trained on other crops, or does not decode.
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


def runs_of_current_crops(study: Study, names: Sequence[str]) -> list[DecodingRun]:
    """The runs of these names, or all trained runs that decode.

    Raises:
        InputError: If a named run does not decode, one was trained on other crops, or there is no run.
    """
    crops = study.crops.identity
    runs = find_decoding_runs(study, names)
    for run in runs:
        if (run.run.about() or {}).get("crops") != crops:
            raise InputError(f"{run.run.folder}: out of date: the study's crops changed; train it again")
    return runs


def _source(study: Study, runs: Sequence[DecodingRun], config: dict[str, Any]) -> str:
    weights = {run.name: weights_sha256(run.model) for run in runs}
    return made_from(crops=study.crops.identity, weights=weights, config=config, version=__version__)


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
    notes = realism_notes(table, differences, MeasuredCells(**about["cells"]), nuclei=config["nuclei"])
    flags = ["--runs", *about["runs"], *flags_of(config, asdict(RealismConfig()))]
    return SavedRealism(folder, table, notes, about["alt"], flags)
