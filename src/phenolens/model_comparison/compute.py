"""Train or fit each encoder, profile its embeddings, and compare their scores.

An entry is a row of the table: a model for all its seeds, the same model untrained, or a table of embeddings from
elsewhere. Everything that an entry takes is a run of the study, so a killed comparison resumes with finished runs.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from phenolens import pipeline
from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.files import read_json
from phenolens.core.progress import tell, track
from phenolens.crops.store import CropStore
from phenolens.image_realism.saved import add_realism
from phenolens.models import MODELS, encoders, model_title, plainest_first
from phenolens.models.config import Turns
from phenolens.models.interface import Decodes, Drawing, Fitted, Frozen, Representation, Trained
from phenolens.pipeline import EmbedConfig, EvaluateConfig, ProfileConfig, kinds_of
from phenolens.profiles.average_precision import mean_average_precision
from phenolens.profiles.evaluate import held_out
from phenolens.profiles.mechanism_classifier import CLASSIFIED, classified_right
from phenolens.profiles.scores_folder import read_queries
from phenolens.profiles.uncertainty import bootstrap_interval, sign_flip_p
from phenolens.readiness import about_of
from phenolens.runs.decoder import open_decoding_runs
from phenolens.study import Study
from phenolens.training.checkpoint import Origin, RunFolder, as_begun, check_same, trained_model
from phenolens.training.config import ComparedTraining, TrainConfig
from phenolens.training.device import Compute
from phenolens.training.embed import PLAIN, embed_crops

ALL = "all"
UNKNOWN = "unknown"  # what a table of embeddings does not tell
MEASURED_CELLS = 256  # on which the time of an embedding is measured
REFERENCES = ("vaeplus", "pca")  # entries that all others are tested against, beside their own untrained network


@dataclass(frozen=True)
class Entry:
    """A row of the table, and the runs that make it."""

    name: str
    title: str
    configs: tuple[TrainConfig, ...]  # one per seed
    turns: Turns | None = None  # orientations that embeddings are the mean of; None: the model's own
    untrained_of: str = ""  # the name of the trained entry

    @property
    def runs(self) -> list[str]:
        """The name of each run."""
        return [f"{self.name}-seed{config.seed}" for config in self.configs]

    @property
    def table(self) -> str:
        """The file of a table of embeddings from elsewhere; empty of a model."""
        return getattr(self.configs[0].network, "of", "")


def entries(
    models: Sequence[str],
    seeds: Sequence[int],
    training: ComparedTraining,
    *,
    untrained: bool,
    tables: Sequence[Path],
    turns: Turns | None = None,
) -> list[Entry]:
    """The rows to make: the plainest model first, each beside itself untrained, then tables of embeddings.

    Raises:
        InputError: no such model, one that is no encoder, one whose optional dependency is missing, or a setting that
            no chosen model has.
    """
    found = []
    chosen = _chosen(models)
    training.check_used(chosen)
    for model in chosen:
        kind = MODELS[model].load()
        config = training.config_of(model)
        of_seeds = [replace(config, seed=seed) for seed in (seeds[:1] if issubclass(kind, Frozen) else seeds)]
        found.append(Entry(model, model_title(model), tuple(of_seeds), turns))
        if untrained and issubclass(kind, Trained):
            initial = [replace(each, steps=0, cooldown_steps=0) for each in of_seeds]
            found.append(_untrained(model, initial, turns))
        elif untrained and kind.Config.untrained:
            found.append(_untrained(model, [training.config_of(model, **kind.Config.untrained)], turns))
    for table in tables:
        settings = {"device": training.device, "threads": training.threads, "network": {"of": str(table)}}
        config = TrainConfig(model="flow", steps=0, cooldown_steps=0, **settings)  # type: ignore[arg-type]
        found.append(Entry(table.stem, f"{table.name} (given)", (config,)))
    return found


def _untrained(model: str, configs: Sequence[TrainConfig], turns: Turns | None) -> Entry:
    return Entry(f"{model}-untrained", f"{model_title(model)}, untrained", tuple(configs), turns, untrained_of=model)


def _chosen(models: Sequence[str]) -> list[str]:
    known = encoders()
    chosen = list(dict.fromkeys(models))
    for name in chosen:
        if name != ALL and name not in known:
            raise InputError(f"--models {name}: expected {ALL}, or some of the encoders {', '.join(known)}")
    if ALL in chosen:
        chosen = []
        for name in known:
            try:
                MODELS[name].check_installed()
                chosen.append(name)
            except InputError as error:
                tell(f"left out: {error}")
    else:
        for name in chosen:
            MODELS[name].check_installed()
    return sorted(chosen, key=plainest_first)


def possible(study: Study, rows: Sequence[Entry], profiling: ProfileConfig, *, leave_out: bool) -> list[Entry]:
    """The rows that can be made of this study; what will replace something there is printed. Nothing is trained yet.

    Args:
        study: The study.
        rows: As `entries` returns them.
        profiling: How cells become profiles.
        leave_out: Print which models cannot take the study's crops and leave them out, instead of refusing them.

    Raises:
        InputError: two rows of one name, a name that no run can have, a table that is not of these cells, a model that
            cannot take the crops, or a run that was trained otherwise.
    """
    unfit = set()
    for entry in rows:
        if not entry.untrained_of and not entry.table:
            try:
                Origin.of(study.crops, entry.configs[0]).build()
            except InputError as error:
                if not leave_out:
                    raise
                tell(f"left out: {entry.title}: {error}")
                unfit.add(entry.name)
    left = [entry for entry in rows if not unfit & {entry.name, entry.untrained_of}]
    for entry in left:
        _check_name(study, entry, left)
    for entry in left:
        for run, config in zip(entry.runs, entry.configs):
            _check_run(study, RunFolder(study.run_folder(run)), config)
            _tell_replaced(study, entry, run, profiling)
    return left


def _check_name(study: Study, entry: Entry, rows: Sequence[Entry]) -> None:
    """InputError where a table's name is a model's or another row's, or cannot be a run's."""
    if not entry.table:
        return
    if entry.name.removesuffix("-untrained") in MODELS:
        raise InputError(f'--tables {entry.table}: "{entry.name}" is the name of a model; rename the file')
    if [other.name for other in rows].count(entry.name) > 1:
        raise InputError(
            f'--tables {entry.table}: another row of the comparison is named "{entry.name}"; rename the file'
        )
    try:
        study.run_folder(entry.name)
    except InputError as error:
        raise InputError(f"--tables {entry.table}: {error}; rename the file") from error


def _check_run(study: Study, run: RunFolder, config: TrainConfig) -> None:
    """InputError where the run is there and is another one; a finished run that trains on is named."""
    config = as_begun(run, config)
    _, _, source = pipeline.decoded(study, config)
    again = "give the comparison the same, or delete that folder to train it again"
    if getattr(config.network, "of", ""):
        again = "rename the file, or delete that folder"
    check_same(run, study.crops, Origin.of(study.crops, config, source), instead=again)
    before = run.origin()
    if before is None or not (run.folder / "health.json").exists():  # no run, or one that is not finished
        return
    if before.config.steps > config.steps:
        raise InputError(f"{run.folder}: has {before.config.steps} steps already, more than {config.steps}; {again}")
    if before.config.steps < config.steps:
        tell(f"{run.name}: has {before.config.steps} steps and is trained on to {config.steps}")


def _tell_replaced(study: Study, entry: Entry, run: str, profiling: ProfileConfig) -> None:
    """Name the embeddings and profiles of a run that were made with other settings, which the comparison replaces."""
    asked: dict[str, Any] = {"turns": entry.turns or MODELS[entry.configs[0].model].load().turns, "layer": "latent"}
    plates = (about_of(study.embeddings_folder(run) / f"{plate}.h5ad") for plate in study.crops.plates)
    embedded: dict[str, Any] = next((about.get("summary", PLAIN) for about in plates if about), {})
    profiles = study.profiles_folder(run) / "about.json"
    profiled = read_json(profiles, remedy="delete it")["config"] if profiles.exists() else {}
    for what, before, now in (
        ("embeddings", {} if entry.table else embedded, asked),
        ("profiles", profiled, json.loads(json.dumps(asdict(profiling)))),
    ):
        changed = [f"{name} {value} -> {now.get(name)}" for name, value in before.items() if value != now.get(name)]
        if changed:
            tell(f"{run}: its {what} are replaced by those of the comparison ({', '.join(changed)})")


def take_runs(study: Study, rows: Sequence[Entry], profiling: ProfileConfig, scoring: EvaluateConfig) -> None:
    """Train, embed and profile every run that is not finished, then score all of them."""
    names = [run for entry in rows for run in entry.runs]
    for entry in rows:
        for run, config in zip(entry.runs, entry.configs):
            pipeline.train(study, config, name=run)
            embedding = EmbedConfig(device=config.device, threads=config.threads, turns=entry.turns)
            pipeline.embed(study, run, embedding)
            pipeline.profile(study, run, profiling)
            tell(f"{run}: trained, embedded, profiled ({names.index(run) + 1} of {counted(len(names), 'run')})")
    pipeline.evaluate_all(study, scoring)


def compared(study: Study, rows: Sequence[Entry], scoring: EvaluateConfig) -> pd.DataFrame:
    """A row per entry and kind of score.

    Returns:
        Columns: `entry`, `title`, `statistics`, `whitening`, `protocol`; `accuracy` (0 to 1, mean over seeds),
        `sd` (over seeds, NaN for one), `ci_low` and `ci_high` (95 %, over compounds), `over_compounds` (each compound
        counts once, as in CytoGAN's numbers), `n_treatments`, `n_seeds`;
        `p_vaeplus`, `p_pca`, `p_untrained`: paired sign-flip tests over compounds against these entries.
    """
    protocols = list(dict.fromkeys(study.scores["protocol"]))
    found = []
    of_runs = [kinds_of(study, run) for entry in rows for run in entry.runs]
    for statistics, whitening in (kind for kind in of_runs[0] if all(kind in of_run for of_run in of_runs)):
        for protocol in protocols:
            right_of = {
                entry.name: answers(study, entry.runs, statistics=statistics, whitening=whitening, protocol=protocol)
                for entry in rows
            }
            for entry in rows:
                right = right_of[entry.name]
                of_seeds = right.mean()
                accuracy, low, high = bootstrap_interval(
                    right.mean(axis=1).to_numpy(),
                    right.index.get_level_values("compound").to_numpy(),
                    averaged_over="treatments",
                    n_bootstrap=scoring.bootstraps,
                    seed=0,
                )
                others = {f"p_{name}": name for name in REFERENCES} | {"p_untrained": f"{entry.name}-untrained"}
                tests = {
                    column: p_value(right, right_of[other])
                    for column, other in others.items()
                    if other in right_of and other != entry.name
                }
                found.append(
                    {"entry": entry.name, "title": entry.title, "statistics": statistics, "whitening": whitening}
                    | {"protocol": protocol, "accuracy": accuracy, "sd": of_seeds.std(ddof=1)}
                    | {"ci_low": low, "ci_high": high}
                    | {"over_compounds": right.mean(axis=1).groupby(level="compound").mean().mean()}
                    | {"n_treatments": len(right), "n_seeds": len(of_seeds)}
                    | tests
                )
    return pd.DataFrame(found)


def answers(study: Study, runs: Sequence[str], **kind: str) -> pd.DataFrame:
    """Whether each counted treatment (rows: treatment, compound) is matched right, a column per run."""
    columns = {}
    for run in runs:
        queries = read_queries(study.score_table_path(run, "neighbours", **kind))
        counted = queries[queries["counted"]]
        columns[run] = counted.set_index("compound", append=True)["right"].astype(float)
    table = pd.DataFrame(columns)
    table.index.names = ["treatment", "compound"]
    return table


def p_value(a: pd.DataFrame, b: pd.DataFrame) -> float:
    """Sign-flip test over compounds of the difference of two tables of answers, each the mean over its runs."""
    difference = (a.mean(axis=1) - b.mean(axis=1)).dropna()
    return sign_flip_p(difference.groupby(level="compound").sum().to_numpy(), n_draws=10_000, seed=0)


def facts(study: Study, rows: Sequence[Entry], scoring: EvaluateConfig) -> pd.DataFrame:
    """A row per entry with what it is and what it costs.

    Returns:
        Columns: `entry`, `title`, `labels` (which labels it learns from, or none), `outside_data` (or none),
        `decodes`, `parameters`, `turns` (orientations that embeddings are the mean of), `features`, `fit_seconds` and
        `embed_ms` (per cell; medians over seeds, on this machine), `map` (mean average precision of mechanisms) and for
        each protocol `classified_NSC` and so on (what a classifier that sees the mechanisms of other compounds gets
        right), both 0 to 1, of headline profiles, mean over seeds. What a table of embeddings does not tell is
        "unknown", or NaN.
    """
    found = []
    protocols = list(dict.fromkeys(study.scores["protocol"]))
    for entry in track(rows, "models timed and described", total=len(rows)):
        model, config = trained_model(RunFolder(study.run_folder(entry.runs[0])))
        compute = Compute.chosen(device=config.device, precision="float32", threads=config.threads)
        profiles = [study.profiles(run, whitening=scoring.headline) for run in entry.runs]
        ranked = [mean_average_precision(each, n_draws=1)["mean_average_precision"].mean() for each in profiles]
        given, spec = isinstance(model, Drawing), MODELS[config.model]  # given: a table of embeddings from elsewhere
        learns = isinstance(model, Trained | Fitted) and not given and config.steps > 0
        found.append(
            {"entry": entry.name, "title": entry.title}
            | {"labels": UNKNOWN if given else (learns and ", ".join(getattr(model, "labels", ()))) or "none"}
            | {"outside_data": UNKNOWN if given else "none" if entry.untrained_of else spec.outside_data or "none"}
            | {"decodes": isinstance(model, Decodes) and not given, "features": profiles[0].n_vars}
            | {"parameters": None if given else _parameters(model)}
            | {"turns": None if given else entry.turns or model.turns}
            | {"fit_seconds": None if given else _fit_seconds(study, entry.runs) if learns else 0.0}
            | {"embed_ms": float("nan") if given else 1000 * _seconds_per_cell(model, entry, study.crops, compute)}
            | {"map": float(np.mean(ranked))}
            | {f"{CLASSIFIED}{protocol}": _classified(profiles, protocol, scoring) for protocol in protocols}
        )
    return pd.DataFrame(found).astype({"parameters": "Int64", "turns": "Int64", "fit_seconds": float})


def _classified(profiles: Sequence[AnnData], protocol: str, scoring: EvaluateConfig) -> float:
    several = scoring.several_mechanisms
    return float(np.mean([classified_right(each, held_out(protocol), several_mechanisms=several) for each in profiles]))


def _parameters(model: Representation) -> int:
    """How many numbers it learned: those of a fitted model are in its buffers."""
    return sum(numbers.numel() for numbers in (model.buffers() if isinstance(model, Fitted) else model.parameters()))


def _fit_seconds(study: Study, runs: Sequence[str]) -> float:
    """Median over the runs; NaN where a run does not say it."""
    found = []
    for folder in (RunFolder(study.run_folder(run)) for run in runs):
        origin = folder.origin()
        state = None if origin is None else folder.load(origin)
        found.append(float(state["seconds"]) if state else float("nan"))
    return float(np.median(found))


def _seconds_per_cell(model: Representation, entry: Entry, store: CropStore, compute: Compute) -> float:
    """Of the second of two passes over the same cells, in as many orientations as the entry's embeddings."""
    crops = store.take(np.arange(min(MEASURED_CELLS, len(store))))
    began = 0.0
    for _ in range(2):
        began = time.monotonic()
        embed_crops(model, crops, compute=compute, turns=entry.turns or model.turns)
    return (time.monotonic() - began) / len(crops)


def realism_of(study: Study, rows: Sequence[Entry]) -> pd.DataFrame:
    """The two-sample test of each entry's pictures (index: entry), of the first seed; measured where missing.

    Of reconstructions; of samples where a model draws cells but does not decode. `kind` says which.
    """
    first = {entry.runs[0]: entry.name for entry in rows if not entry.untrained_of and not entry.table}
    pictured = [run.name for run in open_decoding_runs(study, list(first), or_draw=True)]
    if not pictured:
        return pd.DataFrame(columns=["accuracy", "accuracy_low", "accuracy_high", "kind"])
    table = add_realism(study, pictured).table
    table = table[table["run"].isin(pictured)].sort_values("kind", kind="stable").drop_duplicates("run")
    return table.assign(entry=table["run"].map(first)).set_index("entry")
