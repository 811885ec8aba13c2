"""Gather what a study holds into the report's contents; nothing is scored here.

The run that is pictured is one of the study's; scores are those of all runs.
"""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd

from phenolens.core.errors import InputError, at_least
from phenolens.core.files import read_h5ad, read_json, write_text
from phenolens.crops.store import CropStore
from phenolens.pipeline import score_name
from phenolens.plotting.charts import confusion_matrix, learning_curves, treatment_map
from phenolens.plotting.page import Picture, SavedPicture
from phenolens.profiles.score_table import COMPOUNDS, verdict_sentence
from phenolens.readiness import check_scores
from phenolens.realism.saved import KeptRealism, kept_realism
from phenolens.report.crop_quality import left_out, quality
from phenolens.report.page import RealismContents, ReportContents, report_html
from phenolens.report.pictures import matched_cells, real_cells, redrawn_cells, travel_strips
from phenolens.runs.decoder import pictured_runs
from phenolens.runs.reproduce import commands, flags_of
from phenolens.runs.scores import chance_of, queries_of, scored_runs
from phenolens.study import HEADLINE, Study
from phenolens.training.checkpoint import RunFolder
from phenolens.training.health import RECORDS

UNTOLD = ("record_every", "checkpoint_every", "watch_every", "tensorboard")  # settings that change no result
FULL_BBBC021_CROPS = 488_396  # the public crop set, as a yardstick for how much of it a study holds


@dataclass(frozen=True)
class ReportConfig:
    """What the report shows."""

    run: str | None = None  # the run that is pictured; left out: the first VAE+ run, else the first that decodes
    compounds: tuple[str, ...] = ()  # to travel to, or COMPOUND@DOSE; left out: the strongest of six mechanisms
    shown_cells: int = 8  # cells in a row of pictures
    frames: int = 7  # of an interpolation
    picture_seed: int = 0  # chooses the cells that are shown

    def __post_init__(self) -> None:
        """InputError on a number that cannot be."""
        at_least("--shown-cells", self.shown_cells, 1)
        at_least("--frames", self.frames, 2)
        at_least("--picture-seed", self.picture_seed, 0)


def write_report(study: Study, config: ReportConfig) -> None:
    """Write `report.html` from what the study holds."""
    check_scores(study)
    store = study.crops
    name = _pictured_run(study, config.run)
    scores = pd.read_csv(study.scores_path, keep_default_na=False)
    about = RunFolder(study.run_folder(name)).about() or {}
    headline = scores[scores["model"] == score_name(name, about["config"])]
    headline = headline[headline["seed"] == about["config"]["seed"]]
    headline = headline[np.logical_and.reduce([headline[key] == value for key, value in HEADLINE.items()])]
    treated = store.cells[store.cells["role"] == "treated"]
    is_bbbc021 = set(treated["compound"]) == COMPOUNDS
    queries, measured = queries_of(study, name), kept_realism(study)
    contents = ReportContents(
        title=f"{study.folder.resolve().name}: what the treatments do to the cells",
        verdict=_verdict(headline, study, name),
        facts=_facts(store, about, study, name),
        scores=scores,
        is_bbbc021=is_bbbc021,
        amount_of_data=_amount(store) if is_bbbc021 else "",
        confusion=_confusions(study, name),
        treatment_map=_map(study, name),
        matches=None if queries is None else matched_cells(study, name, queries, store),
        wrong=None if queries is None else _wrong(queries),
        **_of_training(study, name),
        **_pictures(study, name, config),
        realism=None if measured is None else _realism(measured),
        quality=quality(store, seed=config.picture_seed),
        whitening=_whitening_words(study, name),
        left_out=_left_out(store, study, name),
        commands=commands(
            study,
            store,
            scored_runs(study),
            measured=[] if measured is None else list(measured.flags),
            report=flags_of(asdict(config), asdict(ReportConfig())),
        ),
        study=shlex.quote(study.folder.resolve().name),
    )
    write_text(study.report_path, report_html(contents))


def _pictured_run(study: Study, asked: str | None) -> str:
    """The run asked for; else the first VAE+ run that is scored, else the first VAE, else the first."""
    scored = scored_runs(study)
    if asked is not None and asked not in scored:
        raise InputError(f'{study.folder}: no scores of a run "{asked}" (there are: {", ".join(scored)})')
    order = ["vaeplus", "vae", "ae"]
    models = {name: (RunFolder(study.run_folder(name)).about() or {})["config"]["model"] for name in scored}
    return asked or min(scored, key=lambda n: (order.index(models[n]) if models[n] in order else len(order), n))


def _amount(store: CropStore) -> str:
    return f"{len(store):,} of {FULL_BBBC021_CROPS:,} cells" if len(store) < FULL_BBBC021_CROPS else ""


def _headline_profiles(study: Study, name: str) -> anndata.AnnData:
    kind = {key: HEADLINE[key] for key in ("statistics", "whitening")}
    path = study.treatments_path(name, **kind)
    return read_h5ad(path, mend=f"delete it and run `phenolens profile {study.folder}` again")


def _headline_table(study: Study, name: str, what: str, protocol: str) -> Path:
    return study.score_table_path(name, what, **{**HEADLINE, "protocol": protocol})


def _verdict(headline: pd.DataFrame, study: Study, name: str) -> str:
    if headline.empty:
        return "NSC, the headline of this report, was not scored; run phenolens evaluate with --protocols NSC."
    return verdict_sentence(headline, **chance_of(study, name))


def _facts(store: CropStore, about: dict[str, Any], study: Study, name: str) -> dict[str, dict[str, object]]:
    cells = store.cells
    treated = cells[cells["role"] == "treated"]
    history = _history(study, name)
    screen = {
        "plates": cells["plate"].nunique(),
        "batches": cells["batch"].nunique(),
        "wells": len(cells[["plate", "well"]].drop_duplicates()),
        "control wells": len(cells.loc[cells["role"] == "control", ["plate", "well"]].drop_duplicates()),
        "treatments": len(treated[["compound", "concentration_um"]].drop_duplicates()),
        "compounds": treated["compound"].nunique(),
        "mechanisms": treated["moa"].nunique(),
        "cells": len(cells),
        "channels": ", ".join(store.channels),
        "crop": f"{store.crop_px} x {store.crop_px} px",
    }
    network = {key: value for key, value in about["config"]["network"].items() if value is not None}
    model = {
        "run": name,
        **{
            key: value
            for key, value in about["config"].items()
            if key not in ("network", "model", *UNTOLD) and value is not None
        },
        **network,
    }
    machine = dict(about["computed_with"]) | {"phenolens": about["phenolens"]}
    if not history.empty:
        machine["training"] = f"{history['seconds'].iloc[-1] / 60:.1f} minutes"
    return {"Screen": screen, "Model": model, "Machine": machine}


def _history(study: Study, name: str) -> pd.DataFrame:
    path = study.run_folder(name) / "history.csv"
    if path.stat().st_size < 5:  # a model that is fitted at once has none
        return pd.DataFrame()
    return pd.read_csv(path).rename(columns=lambda column: column.replace("autoencoder.gamma_", "gamma_"))


def _confusions(study: Study, name: str) -> list[Picture]:
    figures: list[Picture] = []
    for protocol in ("NSC", "NSCB"):
        path = _headline_table(study, name, "confusion", protocol)
        if path.exists():
            figures.append(confusion_matrix(pd.read_csv(path, index_col=0), title=protocol))
    return figures


def _map(study: Study, name: str) -> Picture:
    profiles = _headline_profiles(study, name)
    labelled = profiles[profiles.obs["Metadata_MoA"].astype(str) != ""]
    return treatment_map(np.asarray(labelled.X), labelled.obs["Metadata_MoA"].astype(str).tolist())


def _wrong(queries: pd.DataFrame) -> pd.DataFrame:
    """A row a treatment whose neighbour has another mechanism."""
    counted = queries[queries["counted"]]
    wrong = counted[~counted["right"]]
    columns = {
        "treatment": "treatment",
        "moa": "its mechanism",
        "neighbour": "nearest treatment",
        "predicted": "the neighbour's mechanism",
        "distance": "cosine distance",
    }
    return wrong[list(columns)].rename(columns=columns)


def _of_training(study: Study, name: str) -> dict[str, Any]:
    curves: list[Picture] = []
    history = _history(study, name)
    if not history.empty:
        untimed = history.drop(
            columns=["seconds", "cells_per_second"]
        )  # how fast it was says nothing of how it learned
        curves.append(learning_curves(untimed, title=name))
    film = study.run_folder(name) / "reconstructions.png"
    if film.exists():
        caption = (
            f"{name} as it learned: a row a cell, first the original, then its reconstruction after so many steps."
        )
        curves.append(SavedPicture(film.read_bytes(), caption, alt="Reconstructions of the same cells, step by step"))
    health = read_json(study.run_folder(name) / "health.json", mend="give the run's `phenolens train` command again")
    warnings = health["warnings"]
    if not warnings and 0 < len(history) < RECORDS:
        warnings = [f"the training is too short to be judged: {len(history)} records, {RECORDS} are needed"]
    return {"learning_curves": curves or None, "warnings": warnings}


def _pictures(study: Study, name: str, config: ReportConfig) -> dict[str, Any]:
    """Real cells; and, of models that decode, originals over reconstructions and the ways to treated cells."""
    store = study.crops
    shown: dict[str, Any] = {"cells": real_cells(store, n=config.shown_cells, seed=config.picture_seed)}
    decoding = sorted(pictured_runs(study, scored_runs(study)), key=lambda run: (run.name == name, run.title))
    if decoding:
        drawn = redrawn_cells(store, decoding, n=config.shown_cells, seed=config.picture_seed)
        shown["reconstructions"] = [drawn]
        profiles = _headline_profiles(study, name)
        shown["interpolations"] = travel_strips(
            study, decoding[-1], profiles, compounds=config.compounds, frames=config.frames
        )
    return shown


def _realism(kept: KeptRealism) -> RealismContents:
    """What `phenolens realism` measured of the crops and runs as they are now."""
    picture = SavedPicture((kept.folder / "realism.png").read_bytes(), "", kept.alt)
    return RealismContents(kept.table, kept.sentences(), picture)


def _whitening_words(study: Study, name: str) -> list[str]:
    profiles = _headline_profiles(study, name)
    about = json.loads(profiles.uns["phenolens"])
    return list(_certificate_words(about))


def _certificate_words(about: dict[str, Any]) -> Sequence[str]:
    """The words of the whitening certificates, wherever in the chain of provenance they stand."""
    if "certificates" in about:
        return [certificate_sentence(certificate) for certificate in about["certificates"]]
    return _certificate_words(about["made_from"]) if isinstance(about.get("made_from"), dict) else []


def certificate_sentence(certificate: dict[str, Any]) -> str:
    """A whitening certificate as one or two sentences."""
    from phenolens.profiles.whitening import Certificate

    return str(Certificate(**certificate))


def _left_out(store: CropStore, study: Study, name: str) -> pd.DataFrame:
    wells = read_h5ad(study.profiles_folder(name) / "wells_mean.h5ad", mend="run `phenolens profile` again")
    about = json.loads(wells.uns["phenolens"])
    table = left_out(store, n_wells=len(about["wells_left_out"]), min_cells=about["min_cells"])
    unscored = sorted(set(study.runs) - set(scored_runs(study)))
    runs = [(f"run {run}", 1, _why_unscored(study, run)) for run in unscored]
    return pd.concat([table, pd.DataFrame(runs, columns=table.columns)], ignore_index=True) if runs else table


def _why_unscored(study: Study, run: str) -> str:
    if not (study.run_folder(run) / "health.json").exists():
        return "not trained to its end: give its `phenolens train` command again"
    return "no scores: run `phenolens embed`, `profile` and `evaluate` again"
