"""The steps of a study, each from folder to folder: open, call, save.

Run again, a step does nothing when nothing changed.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from phenolens import __version__
from phenolens.core.bounds import Bounded, Count
from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.files import alone, read_h5ad, read_json, sha256, write_h5ad, write_json, write_text
from phenolens.core.names import shortened
from phenolens.core.progress import tell, track
from phenolens.core.workers import ONE, AtOnce, done_by_workers
from phenolens.crops.config import CropConfig
from phenolens.crops.store import CropStore
from phenolens.profiles.evaluate import EvaluateConfig
from phenolens.profiles.kinds import (
    ON_ALL,
    ProfileConfig,
    cell_scaling_of,
    kinds,
    profiles_of_statistic,
    scaled_on,
)
from phenolens.readiness import (
    VALUES_FROM,
    about_of,
    embedding_sources,
    is_scored,
    profile_source,
    ready_runs,
    run_config,
    score_name,
)
from phenolens.screens.config import LayoutConfig
from phenolens.study import Study, made_from

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from phenolens.core.mapped_rows import Rows
    from phenolens.models.interface import Representation, Source
    from phenolens.training.config import TrainConfig

EMBEDDING_TABLES = (".h5ad", ".parquet", ".csv")  # what a foreign table may be


@dataclass(frozen=True)
class EmbedConfig(Bounded):
    """How crops are embedded."""

    device: str = "auto"  # cpu, cuda, cuda:1 ...; auto: a CUDA card when there is one
    precision: Literal["auto", "float32", "bfloat16"] = "float32"  # of convolutions; auto: bfloat16 where it is faster
    threads: Count | None = None  # processor threads; left out: all
    # 8: mean of the embedding over each crop's eight turns and flips; left out: 8 of imagenet, 1 of others
    turns: Literal[1, 8] | None = None
    layer: Literal["latent", "stages"] = "latent"  # stages: means of the encoder's earlier maps instead of its output
    # controls: statistics of batch normalisation from each plate's control cells, instead of the training's
    norm_from: Literal["training", "controls"] = "training"


def check_source(source: Path) -> None:
    """InputError when the source folder is not there; before a study is begun."""
    if not source.is_dir():
        raise InputError(f"--source {source}: no such folder; expected the folder that holds the screen")


def run_name(config: "TrainConfig") -> str:
    """The name of a run that was not given one."""
    return f"{config.model}-seed{config.seed}"


def crop(
    study: Study,
    *,
    source: Path,
    layout: str,
    config: CropConfig,
    reading: LayoutConfig | None = None,
    at_once: AtOnce = ONE,
) -> CropStore:
    """Make the study's crops from a source folder; crops that are made from the same are kept."""
    from phenolens.crops.make_crops import make_crops

    with alone(study.crops_lock, doing="making crops"):
        return make_crops(source, study.crops_folder, layout=layout, config=config, reading=reading, at_once=at_once)


def train(study: Study, config: "TrainConfig", *, name: str) -> None:
    """Train one model, or resume from its last checkpoint."""
    from phenolens.models import processes
    from phenolens.models.interface import Trained
    from phenolens.training import loop
    from phenolens.training.checkpoint import RunFolder, as_begun, begin, built_model
    from phenolens.training.config import check_can_watch
    from phenolens.training.data import sampled_treatments
    from phenolens.training.device import Compute
    from phenolens.training.distributed import check_batch_size, is_first, together
    from phenolens.training.health import Health

    run = RunFolder(study.run_folder(name))
    config = as_begun(run, config)
    check_can_watch(config)
    store = study.crops
    check_batch_size(config.batch_size or sampled_treatments(store.cells).nunique())
    compute = Compute.chosen(device=config.device, precision=config.precision, threads=config.threads)
    z, _, source = decoded(study, config)
    model = built_model(store, config, source)
    held = alone(study.training_lock(name), doing="training") if is_first() else nullcontext()
    with together(compute.device), held:
        if is_first():
            begin(run, store, config, compute, source)
            (run.folder / "health.json").unlink(missing_ok=True)  # it exists when a training is finished
        processes.wait_for_all()
        progress = loop.train(model, store, config, compute=compute, run=run, z=z)
        if is_first():
            run.write_history(progress.history)  # also when a kill came between the last checkpoint and its history
            health = {"steps": progress.step, **Health.from_history(progress.history).as_json()}
            if isinstance(model, Trained) and progress.history:
                health["warnings"] += model.verdicts(progress.history)
            write_json(run.folder / "health.json", health | {"latest": _without_timing(progress.history)})


def decoded(study: Study, config: "TrainConfig") -> "tuple[Rows | None, list[str], Source | None]":
    """The embeddings (N, Z) that a decoder draws from, the features' names, and their source; None of other models."""
    from phenolens.embedding_files import mapped_embeddings
    from phenolens.models.interface import Source

    of = getattr(config.network, "of", None)
    if of is None:
        return None, [], None
    if not of:
        there = f"one of {', '.join(study.runs)}" if study.runs else "train and embed one first"
        raise InputError(
            f"--model {config.model}: expected --of RUN or TABLE, the embeddings that are decoded; runs: {there}"
        )
    identity = _decoded_identity(study, of)
    if of not in study.runs:
        from phenolens.training.foreign_embeddings import foreign_embeddings

        table, names = foreign_embeddings(Path(of), study.crops.cells["cell_id"])
        return table, names, Source(identity, table.shape[1], turns=1)
    first = next(embeddings(study, of))
    summary = json.loads(first.uns["phenolens"]).get("summary", {"turns": 1})
    if summary.get("norm_from"):
        raise InputError(
            f"--of {of}: embedded with --norm-from controls, which new crops cannot be; embed it again without"
        )
    z = mapped_embeddings(study, of, study.crops, decoding=False)
    return z, list(first.var_names), Source(identity, first.n_vars, summary["turns"])


def _decoded_identity(study: Study, of: str) -> str:
    """A checksum of what the embeddings of this run, or of this table, are made from."""
    if of in study.runs:
        return made_from(embeddings=embedding_sources(study, of, values=True))
    if Path(of).suffix not in EMBEDDING_TABLES:
        runs = ", ".join(study.runs) or "none yet"
        raise InputError(f"{of}: expected a run of the study ({runs}), or a table as {' or '.join(EMBEDDING_TABLES)}")
    if not Path(of).is_file():
        raise InputError(f"{of}: no such file; expected a table of embeddings, with a row per cell of the study")
    return sha256(Path(of))


def _without_timing(history: list[dict[str, float]]) -> dict[str, float]:
    latest = history[-1] if history else {}
    return {name: value for name, value in latest.items() if name not in ("seconds", "cells_per_second")}


def embeddable(study: Study, name: str, config: EmbedConfig) -> "tuple[Representation, TrainConfig]":
    """The model of a run and its settings; InputError where it is not trained on these crops, or cannot embed so."""
    from phenolens.models.interface import Drawing, HasStages
    from phenolens.training.checkpoint import RunFolder, trained_model
    from phenolens.training.embed import check_norm_by_controls

    run = RunFolder(study.run_folder(name))
    model, trained = trained_model(run)
    if (run.about() or {})["crops"] != study.crops.identity_without_mechanisms:
        raise InputError(f"{run.folder}: trained on other crops than those in {study.crops_folder} now; train it again")
    if config.layer == "stages" and not isinstance(model, HasStages | Drawing):
        raise InputError(f"--layer stages: the model of {name}, {trained.model}, has no earlier layers; leave it out")
    if config.norm_from == "controls" and not isinstance(model, Drawing):
        check_norm_by_controls(model, study.crops, where=(config.device, config.precision, config.threads))
    return model, trained


def embed(study: Study, name: str, config: EmbedConfig, *, scheduler: str | None = None) -> None:
    """Embed every crop with a trained model, a file per plate; up-to-date plates are kept.

    With a Dask `scheduler` its workers, which must see the study's folder, embed a plate each.
    """
    from phenolens.models.interface import Drawing
    from phenolens.training.checkpoint import weights_sha256
    from phenolens.training.device import Compute
    from phenolens.training.distributed import is_first, own_share, together
    from phenolens.training.embed import PLAIN, PlateEmbedder, controls_to_norm_by

    store = study.crops
    model, trained = embeddable(study, name, config)
    compute = Compute.chosen(device=config.device, precision=config.precision, threads=config.threads)
    if isinstance(model, Drawing):
        with together(compute.device):
            pass  # until all processes have embedded their plates of the run that is decoded
        if is_first():
            _copy_embeddings(study, name, trained)
        return
    turns = config.turns or model.turns
    summary: dict[str, int | str] = {"turns": turns, "layer": config.layer}
    by_controls = config.norm_from == "controls"
    summary |= {"norm_from": config.norm_from} if by_controls else {}
    plain = summary == PLAIN  # as in versions without these settings
    computed: dict[str, Any] = {"weights": weights_sha256(model), "precision": str(compute.precision)}
    computed |= {"version": __version__, **({} if plain else summary)}
    source = made_from(crops=store.identity, **computed)
    about = {
        "made_from": source,
        VALUES_FROM: made_from(crops=store.identity_without_mechanisms, **computed),
        "crops": store.identity,
        "run": name,
        "config": asdict(trained),
        "summary": summary,
        "phenolens": __version__,
    }
    kept = {plate: about_of(study.embeddings_folder(name) / f"{plate}.h5ad").get("made_from") for plate in store.plates}
    todo = [plate for plate in own_share(store.plates) if kept[plate] != source]
    if todo:
        tell(f"embedding {counted(int(store.cells['plate'].isin(todo).sum()), 'cell')} with {name}")
    rows = controls_to_norm_by(store.cells) if by_controls and todo else {}
    folders = study.run_folder(name), study.crops_folder, study.embeddings_folder(name)
    embedder = PlateEmbedder(*folders, about, (config.device, config.precision, config.threads))
    results = done_by_workers(embedder, [(plate, rows.get(plate)) for plate in todo], AtOnce(scheduler=scheduler))
    with closing(results):
        for _ in track(results, f"embedding with {name}", total=len(todo)):
            pass


def _copy_embeddings(study: Study, name: str, trained: "TrainConfig") -> None:
    """Give a decoder's run the embeddings that it decodes; up-to-date plates are kept."""
    from phenolens.training.checkpoint import RunFolder
    from phenolens.training.embed import embedding_table

    origin = RunFolder(study.run_folder(name)).origin()
    of = trained.network.of  # type: ignore[attr-defined]
    source = origin.source if origin else None
    if source is None or source.identity != _decoded_identity(study, of):
        before = f"phenolens embed {study.quoted} --runs {of} --turns {source.turns if source else 1}"
        raise InputError(
            f"{study.run_folder(name)}: decodes other embeddings than those now in {of}; embed those as before "
            f"({before}), or train the decoder again under another --name"
        )
    store = study.crops
    made = made_from(crops=store.identity, decoded=source.identity)
    about = {
        "made_from": made,
        VALUES_FROM: source.identity,
        "crops": store.identity,
        "run": name,
        "config": asdict(trained),
    }
    about |= {"summary": {"turns": source.turns, "layer": "latent"}, "phenolens": __version__}
    paths = {plate: study.embeddings_folder(name) / f"{plate}.h5ad" for plate in store.plates}
    todo = [plate for plate, path in paths.items() if about_of(path) != json.loads(json.dumps(about))]
    if not todo:
        return
    z, features, _ = decoded(study, trained)
    assert z is not None  # only decoders come here
    for plate in todo:
        own = (store.cells["plate"] == plate).to_numpy()
        table = embedding_table(z[np.flatnonzero(own)], store.cells[own], features=features, about=about, also={})
        write_h5ad(paths[plate], table)


def embeddings(study: Study, name: str) -> "Iterator[AnnData]":
    """The embedded cells of a run, plate by plate."""
    for plate in study.crops.plates:
        path = study.embeddings_folder(name) / f"{plate}.h5ad"
        yield read_h5ad(path, remedy=f"run `phenolens embed {study.quoted}` again")


def profile(study: Study, name: str, config: ProfileConfig, *, scheduler: str | None = None) -> None:
    """Profiles of wells and treatments of each kind: raw, z-scored, whitened on the control wells, aligned.

    With a Dask `scheduler` its workers make the profiles of a statistic each.
    """
    sources = embedding_sources(study, name)
    source = made_from(embeddings=sources, config=asdict(config), version=__version__)
    folder = study.profiles_folder(name)
    about = folder / "about.json"
    paths = {kind: _profile_paths(study, name, *kind) for kind in kinds(config.methods)}
    is_complete = about.exists() and all(path.exists() for of_kind in paths.values() for path in of_kind)
    if is_complete and read_json(about, remedy="delete it and run `phenolens profile` again")["made_from"] == source:
        return
    about.unlink(missing_ok=True)  # written last: without it the profiles are incomplete
    for other in {*folder.glob("*.h5ad")} - {path for of_kind in paths.values() for path in of_kind}:
        other.unlink()  # of methods that are not asked for now
    chosen = list(dict.fromkeys(statistics for statistics, _ in paths))
    cells = partial(embeddings, study, name)
    learnt_on = scaled_on(study.crops.cells, config)
    if learnt_on == "everything":
        tell(f"note: {name}: fewer than two control wells with cells: {ON_ALL}")
    scaling = cell_scaling_of(cells, config)
    made = partial(profiles_of_statistic, cells, config, learnt_on=learnt_on, scaling=scaling, folder=folder)
    of_statistic = partial(_profile_statistic, study, name, made)
    results = done_by_workers(of_statistic, chosen, AtOnce(scheduler=scheduler))
    with closing(results):
        for notes in track(results, f"profiles of {name}", total=len(chosen)):
            for sentence in notes:
                tell(f"note: {name}: {sentence}")
    settings = {"config": asdict(config), "scaled_on": learnt_on}
    write_json(about, {"made_from": source, "embeddings": sources, **settings})


def _profile_statistic(study: Study, name: str, made: Callable[..., Iterator[Any]], statistics: str) -> list[str]:
    """Write all profiles of one statistic; what a person should know about them."""
    from phenolens.profiles.feature_selection import dominant, scaled_by_one_control

    notes: list[str] = []
    for whitening, wells, treatments in made(statistics):
        if (statistics, whitening) == ("mean", "zscore"):
            remedy = "score the wells as a table with --largest-deviation to see whether results depend on it"
            notes += [*dominant(wells, remedy=remedy), *scaled_by_one_control(wells, remedy=remedy)]
        for path, table in zip(_profile_paths(study, name, statistics, whitening), (treatments, wells)):
            write_h5ad(path, table)
    return notes


def _profile_paths(study: Study, name: str, statistics: str, whitening: str) -> list[Path]:
    """The files of one kind of profiles: treatments, and wells as they are; whitened wells of means alone."""
    treatments = study.treatments_path(name, statistics=statistics, whitening=whitening)
    has_wells = whitening == "none" or statistics == "mean"
    wells = [study.wells_path(name, statistics=statistics, whitening=whitening)] if has_wells else []
    return [treatments, *wells]


def kinds_of(study: Study, name: str) -> list[tuple[str, str]]:
    """The statistics and whitening of each kind of profiles that a run has."""
    path = study.profiles_folder(name) / "about.json"
    about = read_json(path, remedy=f"run `phenolens profile {study.quoted}` again")
    return kinds(about["config"].get("methods", ()))


def check_design(cells: "pd.DataFrame", config: EvaluateConfig, *, where: object) -> dict[str, str]:
    """Which scores a screen does not allow, and why: known from its plate map alone, before anything is trained.

    Args:
        cells: A row per cell (or field): plate, well, batch, compound, concentration_um, moa, role.
        config: What is asked for.
        where: What a message calls the screen.

    Raises:
        InputError: A protocol that is asked for is impossible, or there is no control well.
    """
    from phenolens.profiles.candidates import impossible_scores, treated_treatments
    from phenolens.profiles.evaluate import list_note

    other = [protocol for protocol in config.protocols if protocol not in ("NSC", "NSCB")]
    if other:
        raise InputError(
            f'--protocols "{other[0]}": a study is scored by NSC and NSCB; other protocols score its profiles as a '
            "table (docs/scoring.md)"
        )
    if not (cells["role"] == "control").any():
        raise InputError(
            f"{where}: no control well, with which treated ones are compared: name the controls (--control), or add "
            "wells of them to the plate map"
        )
    treatments = treated_treatments(cells)
    impossible = impossible_scores(treatments, separator=config.several_mechanisms)
    asked = [protocol for protocol in config.protocols if protocol in impossible]
    if asked:
        raise InputError(f"{where}: {impossible[asked[0]]}; leave {asked[0]} out of --protocols")
    if note := list_note(treatments["moa"], config):
        tell(f"note: {note}")
    return {} if config.protocols else impossible


def evaluate_all(study: Study, config: EvaluateConfig) -> None:
    """Score every run that has profiles, where the scores are not theirs already, with these settings."""
    names = ready_runs(study, "profiled")
    if not is_scored(study, names, asdict(config)):
        evaluate(study, names, config)


def evaluate(study: Study, names: list[str], config: EvaluateConfig) -> None:
    """Score the treatment profiles of these runs: scores.csv, and each run's activity, neighbours, confusion, chance.

    What the screen does not allow is left out and named.
    """
    import pandas as pd

    from phenolens.profiles.evaluate import BY_CHANCE, COUNTS, ScoreConfig, activities_of, matchings_of, scored
    from phenolens.profiles.scores_folder import draw_confusion, file_name, write_score

    absent = check_design(study.crops.cells, config, where=study.folder)
    if empty := [f"{well} ({treatment})" for well, treatment in study.crops.empty_wells.items()]:
        tell(f"note: {counted(len(empty), 'well')} without a cell, in no activity or cell count: {shortened(empty)}")
    sources = {name: profile_source(study, name) for name in names}
    of_runs = [(name, *kind) for name in names for kind in kinds_of(study, name)]
    wells_of = {name: study.wells_path(name, whitening=config.headline) for name in names}
    again = f"run `phenolens profile {study.quoted}`"
    for path in [study.treatments_path(n, statistics=s, whitening=w) for n, s, w in of_runs] + [*wells_of.values()]:
        if not path.exists():
            raise InputError(f"{path}: missing, as in studies of earlier versions; {again}")
    score_config = ScoreConfig(**asdict(config))
    tested = track(wells_of.items(), "testing activity", total=len(wells_of))
    activities = {name: activities_of(read_h5ad(path, remedy=again), score_config) for name, path in tested}
    shutil.rmtree(study.scores_folder, ignore_errors=True)  # tables of other protocols or runs do not stay
    for name, tables in activities.items():
        for what, table in tables.items():
            write_text(study.scores_folder / name / f"{what}.csv", table.to_csv(index=False))
    scores, chances = [], []
    for name, statistics, whitening in track(of_runs, "scoring", total=len(of_runs)):
        run, kind = run_config(study, name), {"statistics": statistics, "whitening": whitening}
        path = study.treatments_path(name, **kind)
        profiles = read_h5ad(path, remedy=f"delete it and run `phenolens profile {study.quoted}` again")
        matchings, impossible = matchings_of(profiles, score_config)
        absent |= impossible
        for matching in matchings:
            found = scored(matching, score_config)
            protocol = {"protocol": file_name(found.score)}
            confusion = study.score_table_path(name, "confusion", **kind, **protocol)
            write_score(
                found, queries=study.score_table_path(name, "neighbours", **kind, **protocol), confusion=confusion
            )
            if config.confusion_figures and kind == {"statistics": "mean", "whitening": config.headline}:
                title = f"{name}: {found.score.protocol}, {statistics}, {whitening}"
                draw_confusion(found, confusion.with_suffix(".png"), title=title)
            scores.append({"model": score_name(name, run), "seed": run["seed"], **kind} | found.row)
            chances.append({"run": name, **protocol, **kind} | found.by_chance)
    kind_columns = ["statistics", "whitening"]
    chance_columns = ["run", "protocol", *kind_columns, *BY_CHANCE]
    write_text(study.chance_path, pd.DataFrame(chances, columns=chance_columns).to_csv(index=False))
    score_columns = ["model", "seed", *kind_columns, *COUNTS]
    write_text(study.scores_path, pd.DataFrame(scores, columns=score_columns).to_csv(index=False))
    about = {"profiles": sources, "config": asdict(config), "absent": absent}
    write_json(study.scores_folder / "about.json", about)
    for why in absent.values():
        tell(f"not scored: {why}")
