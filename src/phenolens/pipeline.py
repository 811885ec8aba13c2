"""The steps of a study, each from folder to folder: open, call, save.

Run again, a step does nothing when nothing changed.
"""

import dataclasses
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from phenolens import __version__
from phenolens.core.errors import InputError, at_least
from phenolens.core.files import alone, read_h5ad, read_json, write_h5ad, write_json, write_text
from phenolens.core.progress import track
from phenolens.core.workers import ONE, AtOnce
from phenolens.crops.config import CropConfig
from phenolens.crops.store import CropStore
from phenolens.readiness import about_of, embedding_sources, profile_source, run_config
from phenolens.screens.config import LayoutConfig
from phenolens.study import Study, made_from

if TYPE_CHECKING:
    from anndata import AnnData

    from phenolens.profiles.nsc import Score
    from phenolens.profiles.permutation import ShuffledLabels
    from phenolens.training.config import TrainConfig

# The columns of the paper's table: statistics of a well's cells, and what is done to the profiles before scoring.
STATISTICS = ("mean", "mean+sd")
WHITENINGS = ("none", "whitened", "zscore")


@dataclass(frozen=True)
class EmbedConfig:
    """How crops are embedded."""

    device: str = "auto"  # cpu, cuda, cuda:1 ...; auto: a CUDA card when there is one
    precision: Literal["auto", "float32", "bfloat16"] = "float32"  # of convolutions; auto: bfloat16 where it is faster
    threads: int | None = None  # processor threads; left out: all

    def __post_init__(self) -> None:
        """InputError on a number that cannot be."""
        at_least("--threads", self.threads or 1, 1)


@dataclass(frozen=True)
class ProfileConfig:
    """How cells become profiles of wells and treatments."""

    min_cells: int = 1  # wells with fewer cells are left out and listed
    well_statistic: Literal["median", "mean"] = "median"  # over the wells of a treatment
    positive_controls: Literal["left out", "counted"] = "left out"  # wells of a treated dose that are positive controls
    ridge: float = 1.0  # added to the eigenvalues when whitening; fixed beforehand, never chosen on the score

    def __post_init__(self) -> None:
        """InputError on a number that cannot be."""
        at_least("--min-cells", self.min_cells, 1)
        at_least("--ridge", self.ridge, 0)


@dataclass(frozen=True)
class EvaluateConfig:
    """How treatments are matched and how sure that is."""

    protocols: tuple[Literal["NSC", "NSCB"], ...] = ("NSC", "NSCB")  # NSCB needs treatments of several batches
    bootstraps: int = 2000  # resamplings of compounds for the 95 % interval
    shuffles: int = 200  # permutations of mechanisms over compounds: the chance level of this very screen
    bootstrap_seed: int = 0  # of the resampling and the shuffles

    def __post_init__(self) -> None:
        """InputError on a number that cannot be."""
        at_least("--bootstraps", self.bootstraps, 1)
        at_least("--shuffles", self.shuffles, 1)
        at_least("--bootstrap-seed", self.bootstrap_seed, 0)
        if not self.protocols:
            raise InputError("--protocols: expected NSC, NSCB or both")


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
    """Train one model, or go on where its last checkpoint stands."""
    from phenolens.training.checkpoint import RunFolder
    from phenolens.training.device import Compute
    from phenolens.training.distributed import check_batch_size, is_first, together, wait_for_all
    from phenolens.training.health import Health
    from phenolens.training.loop import train as train_model
    from phenolens.training.runs import begin, built_model
    from phenolens.training.sampling import sampled_treatments
    from phenolens.training.watch import check_can_watch

    check_can_watch(config)
    store = study.crops
    check_batch_size(config.batch_size or sampled_treatments(store.cells).nunique())
    compute = Compute.chosen(device=config.device, precision=config.precision, threads=config.threads)
    run = RunFolder(study.run_folder(name))
    model = built_model(store, config)
    held = alone(run.folder / ".lock", doing="training") if is_first() else nullcontext()
    with together(compute.device), held:
        if is_first():
            begin(run, store, config, compute)
            (run.folder / "health.json").unlink(missing_ok=True)  # it is there when a training has come to its end
        wait_for_all()
        progress = train_model(model, store, config, compute=compute, run=run)
        if is_first():
            run.write_history(progress.history)  # also when a kill came between the last checkpoint and its history
            health = {"steps": progress.step, **Health.of(progress.history).as_json()}
            write_json(run.folder / "health.json", health | {"latest": _without_timing(progress.history)})


def _without_timing(history: list[dict[str, float]]) -> dict[str, float]:
    latest = history[-1] if history else {}
    return {name: value for name, value in latest.items() if name not in ("seconds", "cells_per_second")}


def embed(study: Study, name: str, config: EmbedConfig) -> None:
    """Embed every crop with a trained model, a file a plate; plates that are embedded already are kept."""
    from phenolens.training.checkpoint import RunFolder
    from phenolens.training.device import Compute
    from phenolens.training.distributed import own_share
    from phenolens.training.embed import embed_crops, embedding_table
    from phenolens.training.runs import trained_model, weights_sha256

    store = study.crops
    run = RunFolder(study.run_folder(name))
    model, trained = trained_model(run)
    if (run.about() or {})["crops"] != store.identity:
        raise InputError(f"{run.folder}: trained on other crops than those in {store.folder} now; train it anew")
    compute = Compute.chosen(device=config.device, precision=config.precision, threads=config.threads)
    source = made_from(
        weights=weights_sha256(model), crops=store.identity, precision=str(compute.precision), version=__version__
    )
    about = {
        "made_from": source,
        "crops": store.identity,
        "run": name,
        "config": dataclasses.asdict(trained),
        "phenolens": __version__,
    }
    cells = store.cells
    kept = {plate: about_of(study.embeddings_folder(name) / f"{plate}.h5ad").get("made_from") for plate in store.plates}
    todo = [plate for plate in own_share(store.plates) if kept[plate] != source]
    for plate in track(todo, f"embedding with {name}", total=len(todo)):
        z = embed_crops(model, store.crops(plate), compute=compute)
        if not (z == z).all():
            raise InputError(f'{run.folder}: embeds cells of plate "{plate}" as NaN; the run is no good, train it anew')
        table = embedding_table(z, cells[cells["plate"] == plate], about=about)
        write_h5ad(study.embeddings_folder(name) / f"{plate}.h5ad", table)


def embeddings(study: Study, name: str) -> "Iterator[AnnData]":
    """The embedded cells of a run, plate by plate."""
    for plate in study.crops.plates:
        path = study.embeddings_folder(name) / f"{plate}.h5ad"
        yield read_h5ad(path, mend=f"run `phenolens embed {study.folder}` again")


def profile(study: Study, name: str, config: ProfileConfig) -> None:
    """Profiles of wells and treatments, raw, z-scored and whitened on the controls."""
    from phenolens.profiles.profiles import treatment_profiles, well_profiles
    from phenolens.profiles.whitening import apply_whitening, fit_whitening

    sources = embedding_sources(study, name)
    source = made_from(embeddings=sources, config=dataclasses.asdict(config), version=__version__)
    folder = study.profiles_folder(name)
    about = folder / "about.json"
    files = [folder / f"wells_{statistics}.h5ad" for statistics in STATISTICS]
    files += [study.treatments_path(name, statistics=s, whitening=w) for s in STATISTICS for w in WHITENINGS]
    whole = about.exists() and all(path.exists() for path in files)
    if whole and read_json(about, mend="delete it and run `phenolens profile` again")["made_from"] == source:
        return
    about.unlink(missing_ok=True)  # it is written last: while it is not there, the profiles are not whole
    for statistics in track(STATISTICS, f"profiles of {name}", total=len(STATISTICS)):
        wells = well_profiles(embeddings(study, name), statistics=statistics, min_cells=config.min_cells)
        write_h5ad(folder / f"wells_{statistics}.h5ad", wells)
        for whitening, recipe in _recipes(config).items():
            whitened = apply_whitening(wells, fit_whitening(wells, recipe))
            treatments = treatment_profiles(
                whitened, statistic=config.well_statistic, positive_controls=config.positive_controls
            )
            write_h5ad(study.treatments_path(name, statistics=statistics, whitening=whitening), treatments)
    write_json(about, {"made_from": source, "embeddings": sources, "config": dataclasses.asdict(config)})


def _recipes(config: ProfileConfig) -> dict[str, Any]:
    from phenolens.profiles.recipe import UNTOUCHED, Recipe

    # an embedding may have features that say nothing (collapsed ones): they are left out and listed
    return {
        "none": UNTOUCHED,
        "zscore": Recipe(whitening="none", constant_features="left out"),
        "whitened": Recipe(ridge=config.ridge, constant_features="left out"),
    }


def score_name(name: str, config: dict[str, Any]) -> str:
    """What a run is called in scores.csv: its model, or its own name when it was given one."""
    return config["model"] if name == f"{config['model']}-seed{config['seed']}" else name


def check_protocols(store: CropStore, config: EvaluateConfig) -> None:
    """InputError when a protocol that is asked for is impossible on this screen."""
    treated = store.cells[store.cells["role"] == "treated"]
    batches = sorted(treated["batch"].unique())
    if "NSCB" in config.protocols and len(batches) == 1:
        raise InputError(
            f'{store.folder}: all treatments are of one batch, "{batches[0]}", so NSCB (which leaves out the own '
            "batch) is impossible; run with --protocols NSC, or add plates of another batch"
        )


def evaluate(study: Study, names: list[str], config: EvaluateConfig) -> None:
    """Score the treatment profiles of these runs: scores.csv, and each score's neighbours, confusion and chance."""
    import pandas as pd

    check_protocols(study.crops, config)
    shutil.rmtree(study.scores_folder, ignore_errors=True)  # tables of other protocols or runs are not kept beside
    sources = {name: profile_source(study, name) for name in names}
    kinds = [(name, statistics, whitening) for name in names for statistics in STATISTICS for whitening in WHITENINGS]
    scores, chances = [], []
    for name, statistics, whitening in track(kinds, "scoring", total=len(kinds)):
        run = run_config(study, name)
        kind = {"statistics": statistics, "whitening": whitening}
        for score, shuffled in _scored(study, name, config, **kind):
            counts = ("protocol", "accuracy", "n_treatments", "n_correct", "ci_low", "ci_high")
            scores.append(
                {"model": score_name(name, run), "seed": run["seed"], **kind} | {c: getattr(score, c) for c in counts}
            )
            among = {"chance": score.chance, "shuffled": shuffled.shuffled.mean(), "p_value": shuffled.p_value}
            chances.append({"run": name, "protocol": score.protocol, **kind, **among})
    write_text(study.chance_path, pd.DataFrame(chances).to_csv(index=False))
    write_text(study.scores_path, pd.DataFrame(scores).to_csv(index=False))
    write_json(study.scores_folder / "about.json", {"profiles": sources, "config": dataclasses.asdict(config)})


def _scored(
    study: Study, name: str, config: EvaluateConfig, *, statistics: str, whitening: str
) -> "Iterator[tuple[Score, ShuffledLabels]]":
    """NSC, and NSCB where there are batches, of one kind of profile; neighbours and confusion are written too."""
    from phenolens.profiles.nsc import nsc, nscb
    from phenolens.profiles.permutation import shuffled_label_test

    path = study.treatments_path(name, statistics=statistics, whitening=whitening)
    profiles = read_h5ad(path, mend=f"delete it and run `phenolens profile {study.folder}` again")
    functions = {"NSC": (nsc, ("compound",)), "NSCB": (nscb, ("compound", "batch"))}
    for protocol, held_out in (functions[name] for name in config.protocols):
        score = protocol(profiles, n_bootstrap=config.bootstraps, seed=config.bootstrap_seed)
        kind = {"protocol": score.protocol, "statistics": statistics, "whitening": whitening}
        write_text(study.score_table_path(name, "neighbours", **kind), score.queries.to_csv(index=False))
        write_text(study.score_table_path(name, "confusion", **kind), score.confusion.to_csv())
        yield (
            score,
            shuffled_label_test(
                profiles,
                held_out=held_out,  # type: ignore[arg-type]
                n_shuffles=config.shuffles,
                seed=config.bootstrap_seed,
            ),
        )
