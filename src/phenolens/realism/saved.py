"""A study's `realism/`: measured once, then read. Two tables, a figure, and what they are made from."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from phenolens import __version__
from phenolens.core.errors import InputError
from phenolens.core.files import alone, read_json, write_json, write_text, write_whole
from phenolens.core.progress import tell
from phenolens.plotting.style import alt_of, png
from phenolens.realism.compute import RealismConfig, measured_realism
from phenolens.realism.figure import realism_figure
from phenolens.realism.metrics import METRICS
from phenolens.realism.table import telling_sentence
from phenolens.runs.decoder import PicturedRun, decoding_runs
from phenolens.runs.reproduce import flags_of
from phenolens.study import Study, made_from
from phenolens.training.runs import weights_sha256

FILES = ("realism.csv", "telling.csv", "realism.png")


@dataclass(frozen=True)
class KeptRealism:
    """What stands in the folder."""

    folder: Path
    table: pd.DataFrame  # a row a look
    telling: pd.DataFrame  # a row a look and measure
    notes: tuple[str, ...]
    nuclei: str | None  # the channel that was said to show the nuclei
    alt: str  # the figure in words
    flags: tuple[str, ...]  # with which `phenolens realism` measures the same

    def sentences(self) -> list[str]:
        """What was measured, and what tells each model's cells from real ones."""
        drawn = self.table.loc[self.table["kind"] != "control", "look"]
        told = (telling_sentence(self.telling, look, nuclei=self.nuclei) for look in drawn)
        return [*self.notes, *filter(None, told)]


def kept_realism(study: Study) -> KeptRealism | None:
    """What was measured and is of the crops and weights that are there now; None where that is not so."""
    about = _about(study)
    if not about:
        return None
    try:
        runs = runs_of_these_crops(study, about["runs"])
    except InputError:  # a run was taken away, or is trained anew
        return None
    return _read(study, about) if about["made_from"] == _source(study, runs, about["config"]) else None


def realism_of_study(study: Study, names: Sequence[str], config: RealismConfig) -> KeptRealism:
    """Measure the realism of these runs (all that are trained, when none is named) and keep it in `realism/`.

    What is there already, made from the same crops, weights and settings, is read instead. InputError for a run that is
    not there, not trained to its end, of other crops, or whose model does not decode.
    """
    folder = study.realism_folder
    runs = runs_of_these_crops(study, names)
    source = _source(study, runs, dataclasses.asdict(config))
    before = _about(study)
    if before.get("made_from") == source:
        tell(f"{folder}: measured already, with the same crops, runs and settings")
        return _read(study, before)
    about = folder / "about.json"
    with alone(study.realism_lock, doing="measuring realism"):
        measured = measured_realism(study.crops, runs, config)
        figure = realism_figure(measured.table, measured.pictures, channels=study.crops.channels, notes=measured.notes)
        about.unlink(missing_ok=True)  # it is written last: while it is not there, the folder is not whole
        write_text(folder / "realism.csv", measured.table.to_csv(index=False))
        write_text(folder / "telling.csv", measured.telling.to_csv(index=False))
        with write_whole(folder / "realism.png") as file:
            file.write(png(figure))
        said = {
            "made_from": source,
            "phenolens": __version__,
            "runs": [run.name for run in runs],
            "config": dataclasses.asdict(config),
            "notes": list(measured.notes),
            "metrics": METRICS,
            "alt": alt_of(figure),
        }
        write_json(about, said)
    return _read(study, said)


def _source(study: Study, runs: Sequence[PicturedRun], config: dict[str, Any]) -> str:
    weights = {run.name: weights_sha256(run.model) for run in runs}
    return made_from(crops=study.crops.identity, weights=weights, config=config, version=__version__)


def _about(study: Study) -> dict[str, Any]:
    """What is said of the measured realism; empty where it is not whole."""
    folder = study.realism_folder
    path = folder / "about.json"
    if not path.exists() or not all((folder / name).exists() for name in FILES):
        return {}
    said = read_json(path, mend="delete it and run `phenolens realism` again")
    return said if isinstance(said, dict) and {"made_from", "runs", "config", "notes", "alt"} <= said.keys() else {}


def _read(study: Study, about: dict[str, Any]) -> KeptRealism:
    folder = study.realism_folder
    table, telling = pd.read_csv(folder / "realism.csv"), pd.read_csv(folder / "telling.csv")
    config = about["config"]
    flags = ("--runs", *about["runs"], *flags_of(config, dataclasses.asdict(RealismConfig())))
    return KeptRealism(folder, table, telling, tuple(about["notes"]), config["nuclei"], about["alt"], flags)


def runs_of_these_crops(study: Study, names: Sequence[str]) -> list[PicturedRun]:
    """The runs of these names, all that are trained and decode when none is named.

    InputError for a named run that does not decode, for one of other crops, and when none is left.
    """
    crops = study.crops.identity
    runs = decoding_runs(study, names)
    for run in runs:
        if (run.run.about() or {}).get("crops") != crops:
            raise InputError(f"{run.run.folder}: trained on other crops than the study's now; train it anew")
    return runs
