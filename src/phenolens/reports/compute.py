"""Gather a study's results into the report; nothing is scored here.

The scores are those of all runs. The pictures, the headline and the excluded data are those of one run.
"""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd

from phenolens.core.errors import InputError
from phenolens.core.files import read_h5ad, read_json, sha256, write_text
from phenolens.core.keywords import flags_of
from phenolens.core.progress import tell, track
from phenolens.crops.store import CropStore, normalised
from phenolens.image_realism.saved import saved_realism
from phenolens.model_comparison.claims import claims
from phenolens.model_comparison.figure import score_against_realism
from phenolens.model_comparison.saved import ModelComparison, saved_comparison, shown_facts, shown_scores
from phenolens.morphology.medoids import MeasuredCells
from phenolens.paper_figures.config import FigureConfig
from phenolens.paper_figures.figure2_reconstructions import draw_reconstructions
from phenolens.plotting.cell_images import contact_sheet
from phenolens.plotting.charts import MOST_NAMED, learning_curves, treatment_map, well_map
from phenolens.plotting.confusion_matrix import confusion_matrix
from phenolens.plotting.page import Picture, SavedPicture
from phenolens.profiles.activity import is_testable, smallest, weakness
from phenolens.profiles.nsc import nearest_treatments
from phenolens.profiles.profiles import metadata
from phenolens.profiles.score_table import PROTOCOLS, is_bbbc021
from phenolens.profiles.whitening_certificate import Certificate
from phenolens.readiness import check_scores, default_run, scores_about, steps_done
from phenolens.reports.compounds import SHOWN_CHANGES, compound_rows
from phenolens.reports.config import ReportConfig
from phenolens.reports.crop_quality import crop_quality, excluded_crops
from phenolens.reports.nearest_neighbours import neighbour_pairs
from phenolens.reports.page import ReportContents, report_html
from phenolens.runs.catalogue import Catalogue
from phenolens.runs.decoder import DecodingRun, open_decoding_runs
from phenolens.runs.embeddings import EmbeddedCells, embedded_cells
from phenolens.runs.real_change import measured_cells
from phenolens.runs.reproduce import commands
from phenolens.runs.scores import activity_of, profiles_in_words, queries_of, scores_of_encoders, verdict_of
from phenolens.screens.screen import treatment_label, treatment_name
from phenolens.study import Study, made_from
from phenolens.training.checkpoint import RunFolder
from phenolens.training.config import OF_STEPS
from phenolens.training.health import RECORDS
from phenolens.travels.compute import PRECISION, Traveller
from phenolens.travels.config import TravelConfig
from phenolens.travels.figure import shared_sentences, travel_strip
from phenolens.travels.trajectory import FEW_MOVED

PACKAGE = Path(__file__).parents[1]
# Settings that change no result
NOT_SHOWN = ("model", "network", "record_every", "checkpoint_every", "watch_every", "tensorboard")
RUN_FILES = ("config.json", "checkpoint.pt", "history.csv", "health.json", "reconstructions.png")
PROFILE_AGAIN = "run `phenolens profile` again"
MOST_ACTIVE = 20  # treatments in the table
ACTIVITY_COLUMNS = {
    "name": "treatment",
    "moa": "mechanism",
    "n_wells": "wells",
    "distance": "distance (1: chance)",
    "corrected_p_value": "corrected p",
    "mean_average_precision": "mAP of replicates",
    "cells": "cells / controls' cells",
    "cells_p_value": "its p",
}
MOST_STRIPS = 3  # interpolations where no compound is named
WRONG_COLUMNS = {
    "treatment": "treatment",
    "moa": "its mechanism",
    "neighbour": "nearest treatment",
    "predicted": "the neighbour's mechanism",
    "distance": "cosine distance",
}


def write_report(study: Study, config: ReportConfig) -> None:
    """Write `report.html` from a study's results; a page that is up to date is kept.

    Args:
        study: A scored study.
        config: What to show.

    Raises:
        InputError: If a step is missing or out of date; the message names the command.
    """
    check_scores(study)
    store, source = study.crops, report_source(study, config)
    if _is_made_from(study.report_path, source):
        tell(f"{study.report_path}: up to date, nothing to draw")
        return
    about = scores_about(study)
    scored = list(about["profiles"])
    run = pictured_run(study, scored, config.run)
    cells = embedded_cells(study, run)
    measured = measured_cells(study, store, cells.catalogue)
    scores, headline = scores_of_encoders(study), study.headline
    whitening = headline["whitening"]
    profiles = _treatments(study, run, whitening)
    wells = read_h5ad(study.wells_path(run, whitening=whitening), remedy=PROFILE_AGAIN)
    queries, active = queries_of(study, run), activity_of(study, run)
    neighbours = nearest_treatments(profiles) if queries is None else queries
    realism, compared = saved_realism(study), saved_comparison(study)
    history = _history(study, run)
    contents = ReportContents(
        title=f"{study.folder.resolve().name}: what the treatments do to the cells",
        verdict=verdict_of(study, run, scores, active),
        facts=_facts(store, RunFolder(study.run_folder(run)).about() or {}, run, history),
        scores=scores,
        headline=whitening,
        profile=profiles_in_words(study, run),
        n_cells_of_bbbc021=len(store) if is_bbbc021(store.cells) else None,
        confusion=_confusion_matrices(study, run, headline) if about["config"].get("confusion_figures", True) else [],
        treatment_map=_map(profiles, wells),
        activity=None if active is None else _activity(active, cells.catalogue),
        compounds=[]
        if active is None
        else compound_rows(active, store, cells.catalogue, measured, seed=config.picture_seed),
        n_compounds=0 if active is None else active["compound"].nunique(),
        n_treatments=0 if active is None else len(active),
        has_mechanisms=bool(cells.catalogue.treatments["moa"].ne("").any()),
        is_first=all(_history(study, run).empty for run in scored),
        weakness="" if active is None else weakness(active),
        smallest="" if active is None else smallest(active),
        **({} if compared is None else _comparison(compared, whitening, store.origin)),
        absent=list(about.get("absent", {}).values()),
        neighbours=neighbour_pairs(neighbours, cells, store),
        wrong=None if queries is None else _wrong(queries, cells.catalogue),
        **_decoded_pictures(study, store, run, scored, cells, measured, config),
        realism=realism,
        cells=mechanism_sheet(
            store, n=config.shown_cells, seed=config.picture_seed, strongest=cells.strongest_treatments()
        ),
        learning_curves=_learning_curves(study, run, history),
        has_steps=not history.empty,
        **_health(study, run, history),
        quality=crop_quality(store),
        whitening=[str(Certificate(**one)) for one in _certificates(json.loads(profiles.uns["phenolens"]))],
        excluded=_excluded(study, store, run, scored),
        commands=commands(
            study,
            store,
            scored,
            measured=realism.flags if realism else [],
            report=flags_of(asdict(config), asdict(ReportConfig())),
        ),
        study=shlex.quote(study.folder.resolve().name),
        origin=store.origin,
    )
    write_text(study.report_path, _with_source(report_html(contents), source))


def report_source(study: Study, config: ReportConfig) -> str:
    """A checksum of what the report shows (crops, runs, scores, realism, comparison, settings) and of what draws it."""
    return made_from(
        crops=study.crops.identity,
        config=asdict(config),
        title=study.folder.resolve().name,
        steps={run: steps_done(study, run) for run in study.runs},
        code=made_from(**{path.relative_to(PACKAGE).as_posix(): path for path in _code()}),
        **{path.relative_to(study.folder).as_posix(): path for path in _shown_files(study)},
    )


def _shown_files(study: Study) -> Iterator[Path]:
    """The files of all steps but crops and embeddings, whose `about` and profiles hold checksums of these."""
    yield study.scores_path
    for folder in (study.scores_folder, study.realism_folder, study.comparison_folder):
        yield from (path for path in folder.rglob("*") if path.suffix in (".csv", ".json", ".png"))
    for run in study.runs:
        paths = [*(study.run_folder(run) / name for name in RUN_FILES), study.profiles_folder(run) / "about.json"]
        yield from filter(Path.is_file, paths)


def _code() -> Iterator[Path]:
    """The package's source, because the code that draws a page changes within a version."""
    return (path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".html", ".css", ".txt"))


def _with_source(html: str, source: str) -> str:
    """The page with a last line that says what it was made from, and the page's own checksum."""
    return f"{html}<!-- made from {source}, page {sha256(html)} -->\n"


def _is_made_from(path: Path, source: str) -> bool:
    """Whether a page was made from this and has not changed since."""
    try:
        content = path.read_bytes().decode()
    except (FileNotFoundError, UnicodeDecodeError):
        return False
    return content == _with_source(content.rpartition("<!-- made from ")[0], source)


def pictured_run(study: Study, scored: list[str], named: str | None) -> str:
    """The run that was named, or the first scored flow decoder, else VAE+, VAE, AE, else any."""
    if named is not None and named not in scored:
        raise InputError(f'{study.folder}: no scores of run "{named}" (there are: {", ".join(scored)})')
    return named or default_run(study, scored)


def _treatments(study: Study, run: str, whitening: str) -> anndata.AnnData:
    path = study.treatments_path(run, statistics="mean", whitening=whitening)
    return read_h5ad(path, remedy=f"delete it and run `phenolens profile {study.quoted}` again")


def _facts(store: CropStore, about: Mapping[str, Any], run: str, history: pd.DataFrame) -> dict[str, dict[str, object]]:
    cells = store.cells
    treated = cells[cells["role"] == "treated"]
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
    config = about["config"]
    left_out = NOT_SHOWN + ((*OF_STEPS, "recorded", "compiled") if history.empty else ())
    settings = {key: value for key, value in config.items() if key not in left_out} | config["network"]
    model = {"run": run} | {key: value for key, value in settings.items() if value is not None}
    machine = dict(about["computed_with"]) | {"phenolens": about["phenolens"]}
    if not history.empty:
        machine["training"] = f"{history['seconds'].iloc[-1] / 60:.1f} minutes"
    return {"Screen": screen, "Model": model, "Machine": machine}


def _history(study: Study, run: str) -> pd.DataFrame:
    path = study.run_folder(run) / "history.csv"
    if path.stat().st_size < 5:  # a fitted model has none
        return pd.DataFrame()
    return pd.read_csv(path).rename(columns=lambda column: column.replace("autoencoder.gamma_", "gamma_"))


def _map(profiles: anndata.AnnData, wells: anndata.AnnData) -> Picture | None:
    """The map of treatments by mechanism, or of wells by compound where fewer than three treatments have one.

    None where there are fewer than three wells.
    """
    known = metadata(profiles, ("moa",))["moa"] != ""
    if known.sum() > 2:
        return treatment_map(profiles)
    return well_map(wells) if wells.n_obs > 2 else None


def _activity(table: pd.DataFrame, catalogue: Catalogue) -> pd.DataFrame:
    """The treatments that differ most from the controls, as the report shows them; no p-values that mean nothing."""
    p_values = ["corrected_p_value", *table.columns.intersection(["cells_p_value"])]
    table = table.assign(**table[p_values].where(is_testable(table)))
    shown = [name for name in ACTIVITY_COLUMNS if name in table and (table[name].notna() & (table[name] != "")).any()]
    return _labelled(table.head(MOST_ACTIVE)[shown], ["name"], catalogue).rename(columns=ACTIVITY_COLUMNS)


def _confusion_matrices(study: Study, run: str, headline: dict[str, str]) -> list[Picture]:
    paths = {
        protocol: study.score_table_path(run, "confusion", **headline | {"protocol": protocol})
        for protocol in PROTOCOLS
    }
    return [
        confusion_matrix(pd.read_csv(path, index_col=0), title=protocol)
        for protocol, path in paths.items()
        if path.exists()
    ]


def _comparison(compared: ModelComparison, whitening: str, origin: str) -> dict[str, Any]:
    return {
        "comparison": shown_scores(compared.scores),
        "model_facts": shown_facts(compared.facts, origin=origin),
        "claims": claims(compared.scores),
        "scatter": score_against_realism(compared.scores, compared.facts, headline=whitening, origin=origin),
    }


def _decoded_pictures(
    study: Study,
    store: CropStore,
    run: str,
    scored: list[str],
    cells: EmbeddedCells,
    measured: MeasuredCells,
    config: ReportConfig,
) -> dict[str, Any]:
    """Reconstructions by all runs that decode, and interpolations by the pictured run or else the last of these."""
    decoding = sorted(
        open_decoding_runs(study, scored, precision=PRECISION), key=lambda one: (one.name == run, one.title)
    )
    if not decoding:
        return {}
    decoder = decoding[-1]
    cells = cells if decoder.name == run else embedded_cells(study, decoder.name, catalogue=cells.catalogue)
    chosen = config.compounds or tuple(cells.strongest_treatments()[:MOST_STRIPS])
    figure = FigureConfig(shown_cells=config.shown_cells, picture_seed=config.picture_seed)
    return {
        "interpolated": chosen,
        **interpolation_strips(decoder, cells, measured, compounds=chosen, frames=config.frames),
        "reconstructions": draw_reconstructions(store, decoding, figure),
    }


def mechanism_sheet(store: CropStore, *, n: int, seed: int, strongest: Sequence[str] = ()) -> Picture:
    """Random real cells, a row per mechanism (or treatment, where no mechanism is known), the control first.

    Of more than MOST_NAMED, those of the treatments that come first in `strongest` are shown.
    """
    random = np.random.default_rng(seed)
    cells = store.cells
    counted = ~cells["is_noise"].to_numpy(bool)
    is_control, treatments = cells["role"] == "control", treatment_name(cells["compound"], cells["concentration_um"])
    labels = pd.Series(
        list(map(treatment_label, cells["compound"], cells["concentration_um"], cells["role"])), cells.index
    )
    kinds = cells["moa"] if cells["moa"].fillna("").ne("").any() else labels
    groups = kinds.where(~is_control, cells["compound"])
    controls = sorted(set(cells.loc[is_control, "compound"]))
    others = sorted(set(groups[counted & ~is_control].dropna()) - set(controls) - {""})
    if len(others) > MOST_NAMED:
        order = dict.fromkeys(groups.groupby(treatments).first().reindex(list(strongest)).dropna())
        others = sorted([*order, *(name for name in others if name not in order)][:MOST_NAMED])
    titles = controls + others
    crops = []
    for title in titles:
        rows = np.flatnonzero((groups == title).to_numpy() & counted)
        chosen = np.sort(random.choice(rows, min(n, len(rows)), replace=False))
        crops.append(normalised(store.take(chosen)))
    return contact_sheet(crops, titles, channels=store.channels, origin=store.origin)


def interpolation_strips(
    run: DecodingRun,
    cells: EmbeddedCells,
    measured: MeasuredCells,
    *,
    compounds: tuple[str, ...],
    frames: int,
) -> dict[str, Any]:
    """Interpolations from the control cell nearest to the controls' mean to a cell of each chosen treatment.

    Returns:
        `interpolations`, a strip each, and `shared_captions`, the sentences that hold for all of them.

    Raises:
        InputError: If a named compound has no cells.
    """
    traveller = Traveller(run, cells, measured)
    travels = [
        traveller.travel(TravelConfig(to=treatment, frames=frames, moved_cells=FEW_MOVED))[0]
        for treatment in track(compounds, f"interpolations by {run.name}", total=len(compounds))
    ]
    said = shared_sentences(travels)
    strips = [travel_strip(travel, n_measures=SHOWN_CHANGES, said=said) for travel in travels]
    return {"interpolations": strips, "shared_captions": said}


def _labelled(table: pd.DataFrame, columns: Sequence[str], catalogue: Catalogue) -> pd.DataFrame:
    """The table with the labels of the treatments in these columns."""
    return table.assign(**{name: table[name].map(catalogue.label) for name in columns})


def _wrong(queries: pd.DataFrame, catalogue: Catalogue) -> pd.DataFrame:
    """A row per treatment whose nearest neighbour has another mechanism."""
    wrong = queries[queries["counted"] & ~queries["right"]]
    return _labelled(wrong[list(WRONG_COLUMNS)], ["treatment", "neighbour"], catalogue).rename(columns=WRONG_COLUMNS)


def _learning_curves(study: Study, run: str, history: pd.DataFrame) -> list[Picture] | None:
    if history.empty:  # fitted or frozen: it took no steps
        return None
    # the speed of training tells nothing about what was learned
    pictures: list[Picture] = [learning_curves(history.drop(columns=["seconds", "cells_per_second"]), title=run)]
    during = study.run_folder(run) / "reconstructions.png"
    if during.exists():
        caption = (
            f"{run} during training: a row per cell, first the original, then its reconstruction after more steps."
        )
        pictures.append(SavedPicture(during.read_bytes(), caption, alt="Reconstructions of the same cells over steps"))
    return pictures


def _health(study: Study, run: str, history: pd.DataFrame) -> dict[str, Any]:
    """The warnings of a training, and the number of its records where these are too few to judge it."""
    health = read_json(study.run_folder(run) / "health.json", remedy="run its `phenolens train` command again")
    too_few = not health["warnings"] and 0 < len(history) < RECORDS
    return {"warnings": health["warnings"], "too_few_records": len(history) if too_few else None}


def _certificates(about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The whitening certificates, wherever they are in the chain of provenance."""
    if "certificates" in about:
        return about["certificates"]
    return _certificates(about["made_from"]) if isinstance(about.get("made_from"), dict) else []


def _excluded(study: Study, store: CropStore, run: str, scored: list[str]) -> pd.DataFrame:
    """What is in no batch, profile or score: a row per kind."""
    wells = read_h5ad(study.wells_path(run), remedy=PROFILE_AGAIN)
    about = json.loads(wells.uns["phenolens"])
    table = excluded_crops(store, n_wells=len(about["wells_left_out"]), min_cells=about["min_cells"])
    unscored = [
        (
            f"run {name}",
            1,
            "no scores: run `phenolens embed`, `profile` and `evaluate`"
            if steps_done(study, name)["trained"]
            else "training is not finished",
        )
        for name in sorted(set(study.runs) - set(scored))
    ]
    return pd.concat([table, pd.DataFrame(unscored, columns=table.columns)], ignore_index=True) if unscored else table
