"""What AE, VAE and VAE+ learn, side by side: how true their pictures of unseen cells are, and how well they match.

    python benchmarks/learned.py OUT --source SCREEN --layout bbbc021 --steps 1500 --batch-size 32 --seeds 0 1 2

For each seed, every model is trained for the same steps, with the same batch size and learning rate, and never sees
the same held-out wells. On cells of those wells its reconstructions are measured, in evaluation mode. OUT gets a study
of all runs, `learned.csv` (a row a measure), `learned.md` (mean and standard deviation over seeds), and two pictures of
the same held-out cells. Killed at any moment, the same command goes on.

N cells, C channels, S crop side in px.
"""

import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
import tyro
from tyro.conf import OmitArgPrefixes, Positional, Suppress

from phenolens import pipeline
from phenolens.commands.image_commands import LayoutName, crops_summary
from phenolens.commands.model_commands import with_few_crops
from phenolens.core.bounds import Bounded, Count
from phenolens.core.errors import InputError, Interrupted, RunError
from phenolens.core.files import write_text, write_whole
from phenolens.core.progress import tell, track
from phenolens.crops.config import CropConfig
from phenolens.crops.store import CropStore
from phenolens.models import model_title
from phenolens.models.config import VAEPlusConfig
from phenolens.models.interface import Representation
from phenolens.models.vaeplus import ACTIVE_NATS, VAE, kl_per_feature
from phenolens.morphology.reconstruction_metrics import FINE_BAND, fidelity
from phenolens.pipeline import EmbedConfig, EvaluateConfig, ProfileConfig
from phenolens.plotting.cell_images import reconstructions
from phenolens.plotting.style import png
from phenolens.study import Study
from phenolens.training.checkpoint import RunFolder, trained_model
from phenolens.training.config import TrainConfig
from phenolens.training.data import held_out_cells
from phenolens.training.device import Compute
from phenolens.training.embed import BATCH, decode, embed_crops

ModelName = Literal["ae", "vae", "vaeplus", "pca"]
FIDELITY = ("error", "ssim", "power_ratio", "ring_correlation", "line_ratio")
ALL_CHANNELS = "all"  # in the column `channel`: a measure of the whole run
MEASURE_PRECISION = "float32"  # as embeddings: what is measured should not depend on the processor
SHOWN_CELLS = 8


@dataclass(frozen=True)
class Schedule(TrainConfig):
    """How every model is trained; the defaults are those of Lafarge et al. 2019, but for the held-out wells."""

    model: Suppress[ModelName] = "vaeplus"  # --models says which
    seed: Suppress[int] = 0  # --seeds says which
    held_out_wells: float = 0.1  # share of wells no batch draws from; reconstructions are measured on their cells


@dataclass(frozen=True)
class Flags(Bounded):
    """What the benchmark takes."""

    out: Positional[Path]  # folder for the study, the tables and the pictures; new, empty, or begun by this command
    source: Path  # folder with the images and tables, or with the crop set
    layout: LayoutName  # how the source lies on disk: a BBBC021 download with Nuclei.csv, or the public crop set
    models: tuple[ModelName, ...] = ("ae", "vae", "vaeplus", "pca")  # pca is the linear yardstick
    seeds: tuple[int, ...] = (0, 1, 2)  # of weights, batches, noise and held-out wells; one after the other
    measured_cells: Count = 2000  # of the held-out wells, at random; all where there are fewer
    crop: CropConfig = field(default_factory=CropConfig)
    train: Schedule = field(default_factory=Schedule)
    profile: ProfileConfig = field(default_factory=ProfileConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)

    def __post_init__(self) -> None:
        """InputError on a number out of bounds, or without a model or a seed."""
        super().__post_init__()
        if not self.models or not self.seeds:
            raise InputError("--models, --seeds: expected at least one of each")


@dataclass(frozen=True)
class HeldOut:
    """Cells that no model of a seed was trained on."""

    crops: np.ndarray  # (N, C, S, S) as stored
    originals: np.ndarray  # (N, C, S, S) as models see them
    labels: pd.Series  # treatment of each cell
    shown: np.ndarray  # positions of those that are pictured


def learned(flags: Flags) -> None:
    """Train, match and measure every model for every seed, then write tables and pictures."""
    pipeline.check_source(flags.source)
    study = Study.create(flags.out / "study")
    store = pipeline.crop(study, source=flags.source, layout=flags.layout, config=flags.crop)
    tell(crops_summary(store))
    pipeline.check_design(store.cells, flags.evaluate, where=store.folder)
    configs = [settings(flags.train, model, seed, store) for seed in flags.seeds for model in flags.models]
    for config in configs:
        take_steps(study, config, flags.profile)
    names = [pipeline.run_name(config) for config in configs]
    pipeline.evaluate(study, names, flags.evaluate)
    compute = Compute.chosen(device=flags.train.device, precision=MEASURE_PRECISION, threads=flags.train.threads)
    measures = [measured(study, config, flags, compute) for config in track(configs, "measuring", total=len(configs))]
    table = pd.concat([*measures, scored(study)], ignore_index=True)
    write_text(flags.out / "learned.csv", table.to_csv(index=False))
    write_text(flags.out / "learned.md", report(table, flags))
    write_pictures(study, configs, flags, compute)
    print((flags.out / "learned.md").read_text())
    tell(f"every measure: {flags.out / 'learned.csv'}; pictures: {flags.out / 'reconstructions.png'}, channels.png")
    tell(f"next: phenolens report {study.folder}; or the same command with more --seeds or under another OUT")


def settings(train: Schedule, model: ModelName, seed: int, store: CropStore) -> TrainConfig:
    """A model's run: the schedule with its name and seed; a --beta is that of VAE and VAE+ alike (AE has no KL)."""
    config = replace(train, seed=seed)
    if model in ("pca", train.model):
        return config if model == train.model else with_few_crops(config.of_model(model), n_crops=len(store))
    network = asdict(config.network)
    own = {"latent_size": network["latent_size"]}
    if model == "vae" and network["beta"] != VAEPlusConfig().beta:
        own["beta"] = network["beta"]
    return config.of_model(model, **own)


def take_steps(study: Study, config: TrainConfig, profile: ProfileConfig) -> None:
    """From crops to the profiles of one run; what is done already is kept."""
    name = pipeline.run_name(config)
    pipeline.train(study, config, name=name)
    pipeline.embed(study, name, EmbedConfig(device=config.device, precision=MEASURE_PRECISION, threads=config.threads))
    pipeline.profile(study, name, profile)
    tell(f"{name}: trained, embedded, profiled")


def held_out(store: CropStore, config: TrainConfig, flags: Flags, compute: Compute) -> HeldOut:
    """Cells of the wells that a run never drew from, the same for all models of a seed; noise crops are left out."""
    cells = store.cells
    unseen = held_out_cells(cells, share=config.held_out_wells, seed=config.seed) & ~cells["is_noise"].to_numpy(bool)
    rows = np.flatnonzero(unseen)
    if not len(rows):
        raise InputError(
            f"--held-out-wells {config.held_out_wells}: holds out no well of this screen; give a larger share"
        )
    random = np.random.default_rng(config.seed)
    rows = np.sort(random.choice(rows, min(flags.measured_cells, len(rows)), replace=False))
    crops = store.take(rows)
    of_cells = cells.iloc[rows].reset_index(drop=True)
    # one cell of each mechanism at most, the control counting as one
    shown = of_cells.sample(frac=1, random_state=config.seed).drop_duplicates("moa").index[:SHOWN_CELLS].to_numpy()
    return HeldOut(crops, compute.normalised(crops).cpu().numpy(), treatment_labels(of_cells), shown)


def treatment_labels(cells: pd.DataFrame) -> pd.Series:
    """`taxol 0.3 µM`; the control without a dose."""
    dose = cells["concentration_um"].map(" {:g} µM".format).where(cells["role"] != "control", "")
    return cells["compound"] + dose


def measured(study: Study, config: TrainConfig, flags: Flags, compute: Compute) -> pd.DataFrame:
    """Fidelity of each channel, active features and training time of one run, a row a measure."""
    run = RunFolder(study.run_folder(pipeline.run_name(config)))
    model, _ = trained_model(run)
    store = study.crops
    cells = held_out(store, config, flags, compute)
    drawn = redrawn(model, cells.crops, compute)
    by_channel = fidelity(cells.originals, drawn, store.channels)
    by_channel["line_ratio"] = line_share(drawn) / line_share(cells.originals)
    of_run = {
        "error": by_channel["error"].sum(),
        "active_features": active_features(model, cells.crops, compute),
        "minutes": training_minutes(run),
        "measured_cells": len(cells.crops),
    }
    rows = by_channel.melt("channel", var_name="measure")
    whole = pd.DataFrame({"channel": ALL_CHANNELS, "measure": list(of_run), "value": list(of_run.values())})
    table = pd.concat([rows, whole.astype({"value": float})], ignore_index=True)
    return table.assign(model=config.model, seed=config.seed)[["model", "seed", "channel", "measure", "value"]]


def training_minutes(run: RunFolder) -> float:
    """How long a run was trained, with what came before a kill."""
    origin = run.origin()
    state = None if origin is None else run.load(origin)
    assert state is not None
    return state["seconds"] / 60


def redrawn(model: Representation, crops: np.ndarray, compute: Compute) -> np.ndarray:
    """What a model makes of crops (N, C, S, S) in evaluation mode: the decoded means of their posteriors."""
    parts = (crops[start : start + BATCH] for start in range(0, len(crops), BATCH))
    return np.concatenate([decode(model, embed_crops(model, part, compute=compute), compute=compute) for part in parts])


def line_share(crops: np.ndarray) -> np.ndarray:
    """Share (C,) of the power in FINE_BAND that is horizontal and vertical lines, all crops (N, C, S, S) together.

    Decoders draw such lines; cells have no reason to. At most one frequency step off an axis counts: a sixth of
    FINE_BAND at 68 px. The share of reconstructions over that of originals, `line_ratio`, tells invented lines.
    """
    side = crops.shape[-1]
    window = np.hanning(side + 2)[1:-1]
    centred = (crops - crops.mean((2, 3), keepdims=True)) * window[:, None] * window
    power = np.square(np.abs(np.fft.fft2(centred))).sum(0)
    frequency_steps = np.abs(np.fft.fftfreq(side)) * side
    radius = np.hypot(frequency_steps[:, None], frequency_steps) / side
    fine = (radius >= FINE_BAND[0]) & (radius < FINE_BAND[1])
    lines = np.minimum.outer(frequency_steps, frequency_steps) < 1.5
    return power[:, fine & lines].sum(1) / power[:, fine].sum(1)


@torch.inference_mode()
def active_features(model: torch.nn.Module, crops: np.ndarray, compute: Compute) -> float:
    """How many features have a KL above ACTIVE_NATS, mean over cells; NaN for a model without a prior."""
    if not isinstance(model, VAE):
        return float("nan")
    compute.place(model).eval()
    parts = [model.encoder(compute.normalised(crops[start : start + BATCH])) for start in range(0, len(crops), BATCH)]
    mean, log_variance = (torch.cat(halves) for halves in zip(*parts))
    return float((kl_per_feature(mean, log_variance) > ACTIVE_NATS).sum())


def scored(study: Study) -> pd.DataFrame:
    """The study's scores in percent, a row per score, laid out as `measured` does."""
    scores = pd.read_csv(study.scores_path, keep_default_na=False)
    kinds = scores["protocol"] + " " + scores["statistics"] + " " + scores["whitening"]
    table = scores[["model", "seed"]].assign(channel=ALL_CHANNELS, measure=kinds)
    return table.assign(value=100 * scores["accuracy"].astype(float))


def report(table: pd.DataFrame, flags: Flags) -> str:
    """The tables of learned.md: fidelity a channel, then what each run learned, then its scores."""
    whole = table[table["channel"] == ALL_CHANNELS]
    channels = [channel for channel in table["channel"].unique() if channel != ALL_CHANNELS]
    truth = pd.DataFrame(
        [
            {"channel": channel, "model": model_title(model)}
            | {measure: summary(of(table, model, channel, measure)) for measure in FIDELITY}
            for channel in channels
            for model in flags.models
        ]
    )
    protocols = [measure for measure in whole["measure"].unique() if measure.startswith("NSC")]
    return "\n".join(
        [
            heading(whole, flags),
            markdown(truth),
            markdown(of_runs(whole, flags.models, ("error", "active_features", "minutes"))),
            markdown(of_runs(whole, flags.models, protocols)),
        ]
    )


def heading(whole: pd.DataFrame, flags: Flags) -> str:
    """Over which seeds and on how many cells."""
    n_cells = whole.loc[whole["measure"] == "measured_cells", "value"].astype(int).unique()
    several = f"mean ± standard deviation over seeds {', '.join(map(str, flags.seeds))}"
    spread = several if len(flags.seeds) > 1 else f"seed {flags.seeds[0]} alone, so no spread"
    return (
        f"{flags.train.steps} steps; {spread}. Reconstructions of {', '.join(map(str, n_cells))} cells of held-out "
        " wells (a number per seed), noise crops left out; error over all channels is half the summed squares.\n"
    )


def of(table: pd.DataFrame, model: str, channel: str, measure: str) -> pd.Series:
    """The values of one measure, one a seed."""
    chosen = (table["model"] == model) & (table["channel"] == channel) & (table["measure"] == measure)
    return table.loc[chosen, "value"]


def of_runs(whole: pd.DataFrame, models: Iterable[str], measures: Iterable[str]) -> pd.DataFrame:
    """A row per model, a column a measure of whole runs."""
    measures = list(measures)
    return pd.DataFrame(
        [
            {"model": model_title(model)}
            | {measure: summary(of(whole, model, ALL_CHANNELS, measure)) for measure in measures}
            for model in models
        ]
    )


def summary(values: pd.Series) -> str:
    """`0.56 ± 0.02`, the n - 1 deviation over seeds; the number alone for one seed, `-` where it is not defined."""
    if values.isna().all():
        return "-"
    decimals = 1 if values.abs().max() >= 10 else 3
    mean = f"{values.mean():.{decimals}f}"
    return mean if len(values) == 1 else f"{mean} ± {values.std(ddof=1):.{decimals}f}"


def markdown(table: pd.DataFrame) -> str:
    """A table as Markdown."""
    rows = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows) + "\n"


def write_pictures(study: Study, configs: list[TrainConfig], flags: Flags, compute: Compute) -> None:
    """Held-out cells of the first seed above what each model makes of them: in colour, and channel by channel."""
    store = study.crops
    cells = held_out(store, configs[0], flags, compute)
    by_model = {}
    for config in configs[: len(flags.models)]:
        model, _ = trained_model(RunFolder(study.run_folder(pipeline.run_name(config))))
        by_model[model_title(config.model)] = redrawn(model, cells.crops[cells.shown], compute)
    labels = cells.labels.iloc[cells.shown].tolist()
    for name, apart in (("reconstructions", False), ("channels", True)):
        figure = reconstructions(cells.originals[cells.shown], by_model, labels, channels=store.channels, apart=apart)
        with write_whole(flags.out / f"{name}.png") as file:
            file.write(png(figure))


def main() -> int:
    """0 when it is done, 2 for bad input, 1 when a computation cannot go on, 130 when stopped."""
    try:
        learned(tyro.cli(Flags, prog="learned.py", description=__doc__, config=(OmitArgPrefixes,)))
    except InputError as error:
        tell(f"learned.py: {error}")
        return 2
    except RunError as error:
        tell(f"learned.py: {error}")
        return 130 if isinstance(error, Interrupted) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
