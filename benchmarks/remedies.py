"""What mends VAE+: each remedy alone, trained for the same processor time, on the same cells.

    python benchmarks/remedies.py OUT --source CROPSET --layout cropset --minutes 4 --seeds 0

Pictures are measured on cells of held-out wells, as by `learned.py`; profiles are the study's default ones, of
embeddings over eight turns. Processor time a step is measured first, and kept in OUT/pace.csv. The same command
resumes.

B cells per batch, C channels, S crop side in px, Z latent size.
"""

import copy
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import tyro
from torch import Tensor, nn
from torch.nn import functional as F
from tyro.conf import OmitArgPrefixes, Positional

from phenolens import pipeline
from phenolens.commands.image_commands import LayoutName
from phenolens.core.bounds import Bounded, Count, Positive
from phenolens.core.errors import InputError
from phenolens.core.files import write_text
from phenolens.core.progress import tell, track
from phenolens.crops.config import CropConfig
from phenolens.crops.store import CropStore
from phenolens.model_comparison.compute import answers
from phenolens.models import MODELS, Spec
from phenolens.models.config import VAEPlusConfig
from phenolens.models.interface import Batch, Loss
from phenolens.models.layers import full_precision
from phenolens.models.pca import principal_components
from phenolens.models.vaeplus import KERNEL_PX, LEAK, VAEPlus, last_side_px
from phenolens.morphology.reconstruction_metrics import fidelity
from phenolens.pipeline import EmbedConfig, EvaluateConfig, ProfileConfig
from phenolens.study import Study
from phenolens.training.checkpoint import RunFolder, trained_model
from phenolens.training.config import TrainConfig
from phenolens.training.data import held_out_cells
from phenolens.training.device import Compute

sys.path.append(str(Path(__file__).parent))
from learned import MEASURE_PRECISION, held_out, line_share, markdown, redrawn, summary

# the schedule of docs/results.md, "How the schedule was chosen"; VAE+ learns from two layers of its discriminator
SETTINGS = {"beta": 0.5, "learning_rate": 3e-3, "discriminator_learning_rate": 1e-3}
SETTINGS |= {"feature_layers": 2, "feature_weight": 0.1}
RAMP, COOLDOWN = 0.25, 0.3  # shares of the steps
PACE_STEPS = (4, 5, 25)  # of short trainings; the first warms up, the time of a step is the difference of the others
LARSEN_FLOOR = 0.33  # cross-entropy, nats, below which the discriminator rests
NOISE = 0.03  # standard deviation; pixels are 0 to 1
AVERAGE_KEPT = 0.99
FOOLING = 0.5  # gradient of the fooling term over that of the pixel loss, at the picture


class Paused(VAEPlus):
    """The discriminator rests while it wins: Larsen et al. 2016."""

    def losses(self, batch: Batch) -> dict[str, Loss]:
        """Both players' losses; the discriminator does not step below the floor."""
        losses = super().losses(batch)
        discriminator = losses["discriminator"]
        return losses | {"discriminator": replace(discriminator, steps=bool(discriminator.total >= LARSEN_FLOOR))}


class Averaged(VAEPlus):
    """Embeds and decodes with weights averaged over the last hundred steps or so."""

    def __init__(self, channels: int, crop_px: int, config: VAEPlusConfig) -> None:
        super().__init__(channels, crop_px, config)
        self.average = copy.deepcopy(nn.ModuleList([self.encoder, self.decoder])).requires_grad_(False)

    def losses(self, batch: Batch) -> dict[str, Loss]:
        """Both players' losses; the averages follow first."""
        kept = min(AVERAGE_KEPT, batch.step / (batch.step + 10))
        for average, now in zip(self.average, (self.encoder, self.decoder)):
            new = now.state_dict()
            for name, value in average.state_dict().items():
                value.lerp_(new[name], 1 - kept)
        return super().losses(batch)

    def embed(self, x: Tensor) -> Tensor:
        """The mean of each cell's posterior."""
        return self.average[0](x)[0]

    def decode(self, z: Tensor) -> Tensor:
        """The averaged decoder's reconstruction."""
        return self.average[1](z)


class SmoothDecoder(nn.Module):
    """A decoder without zero padding, which tells places: a learned constant, bilinear steps, replicated borders."""

    def __init__(self, channels: int, crop_px: int, config: VAEPlusConfig) -> None:
        super().__init__()
        width, first = config.width, last_side_px(crop_px)
        self.sides = [2 * first + 4, 4 * first + 12, crop_px]
        self.root = nn.Linear(config.latent_size, width * first**2)  # its bias is the constant
        same: dict[str, Any] = {"padding": KERNEL_PX // 2, "padding_mode": "replicate", "bias": False}
        self.stages = nn.ModuleList([nn.Conv2d(width, width, KERNEL_PX, **same) for _ in self.sides])
        self.norms = nn.ModuleList([nn.BatchNorm2d(width) for _ in self.sides])
        self.to_channels = nn.Conv2d(width, channels, 1)
        self.first = (width, first, first)

    def forward(self, z: Tensor) -> Tensor:
        """(B, Z) to (B, C, S, S)."""
        y = F.leaky_relu(self.root(z).unflatten(1, self.first), LEAK)
        for side, stage, norm in zip(self.sides, self.stages, self.norms):
            y = F.leaky_relu(norm(stage(F.interpolate(y, size=(side, side), mode="bilinear"))), LEAK)
        return full_precision(self.to_channels(y))


class Smooth(VAEPlus):
    """VAE+ with a smooth decoder."""

    def __init__(self, channels: int, crop_px: int, config: VAEPlusConfig) -> None:
        super().__init__(channels, crop_px, config)
        self.decoder = SmoothDecoder(channels, crop_px, config)  # type: ignore[assignment]


class Noisy(VAEPlus):
    """The discriminator sees noise over every crop, so that the camera's does not tell real cells."""

    def __init__(self, channels: int, crop_px: int, config: VAEPlusConfig) -> None:
        super().__init__(channels, crop_px, config)
        self.discriminator.register_forward_pre_hook(self.with_noise)

    @staticmethod
    def with_noise(_: nn.Module, crops: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The independent real crops, the reconstructions, and their originals with the same noise as these."""
        independent, fake, x = crops
        noise = NOISE * torch.randn_like(x)
        return independent + NOISE * torch.randn_like(independent), fake + noise, x + noise


class UnitFeatures(VAEPlus):
    """Layers of the discriminator are compared by direction at each place, as in LPIPS (Zhang et al. 2018)."""

    def feature_loss(self, of_x: Tensor, of_reconstruction: Tensor) -> Tensor:
        """L_i of maps whose channels have the norm 1 together."""
        return super().feature_loss(F.normalize(full_precision(of_x)), F.normalize(full_precision(of_reconstruction)))


class Fooling(VAEPlus):
    """The autoencoder is also told to fool the discriminator, with a gradient in proportion to the pixel loss's."""

    def reconstruct(self, x: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """As VAE+; the reconstruction is kept for the step."""
        found = super().reconstruct(x)
        self._drawn = found[0]
        return found

    def losses(self, batch: Batch) -> dict[str, Loss]:
        """Both players' losses and the fooling term."""
        losses = super().losses(batch)
        x, independent = batch.x
        _, _, logits = self.discriminator(independent, self._drawn, x, n_layers=0)
        fooling = F.softplus(-logits).mean()
        of_fooling = torch.autograd.grad(fooling, self._drawn, retain_graph=True)[0].norm()
        of_pixels = (self._drawn - x).detach().norm() / len(x)
        joins = min(1.0, batch.step / self.config.ramp_steps)
        loss = losses["autoencoder"]
        total = loss.total + joins * FOOLING * (of_pixels / (of_fooling + 1e-4)).clamp(max=1e4) * fooling
        return losses | {"autoencoder": replace(loss, total=total)}


class LinearStart(VAEPlus):
    """A fixed linear path, the best linear VAE of the training crops, beside networks that begin at zero.

    For a principal component of variance v > beta, the optimum encodes its score u as sqrt(v - beta) u / v with
    variance beta / v, and decodes z as sqrt(v - beta) z; components of less variance are not used (Lucas et al. 2019).
    """

    crops: Tensor  # (n, C, S, S) of training cells, set before a model is built

    def __init__(self, channels: int, crop_px: int, config: VAEPlusConfig) -> None:
        super().__init__(channels, crop_px, config)
        linear = LinearPath(self.crops, config)
        self.encoder.register_forward_hook(linear.encoded)
        self.decoder.register_forward_hook(linear.decoded)
        self.encoder.gain, self.decoder.gain = (nn.Parameter(torch.zeros(())) for _ in range(2))
        self.linear = linear


class LinearPath(nn.Module):
    """The linear VAE, added to what the networks find times their gains."""

    def __init__(self, crops: Tensor, config: VAEPlusConfig) -> None:
        super().__init__()
        n = min(config.latent_size, len(crops) - 1)
        mean, components, variances = principal_components(crops.flatten(1), n)
        used = (variances - config.beta).clamp_min(0).sqrt()
        size = config.latent_size
        self.mean, self.to_z, self.to_x, self.log_variance = (
            nn.Buffer(torch.zeros(shape)) for shape in (len(mean), (size, len(mean)), (size, len(mean)), size)
        )
        self.mean.copy_(mean)
        self.to_z[:n] = ((used / variances)[:, None] * components).float()
        self.to_x[:n] = (used[:, None] * components).float()
        self.log_variance[:n] = (config.beta / variances.clamp_min(config.beta)).log().float()

    def encoded(self, encoder: nn.Module, given: tuple[Tensor], found: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The posterior (B, Z), twice."""
        with torch.autocast(given[0].device.type, enabled=False):
            mean = (given[0].float().flatten(1) - self.mean) @ self.to_z.T
        return mean + encoder.gain * found[0], self.log_variance + encoder.gain * found[1]

    def decoded(self, decoder: nn.Module, given: tuple[Tensor], found: Tensor) -> Tensor:
        """The crops (B, C, S, S)."""
        with torch.autocast(given[0].device.type, enabled=False):
            return (given[0].float() @ self.to_x + self.mean).view_as(found) + decoder.gain * found


@dataclass(frozen=True)
class Remedy:
    """One change of VAE+."""

    title: str
    model: type[VAEPlus] = VAEPlus
    settings: dict[str, float] = field(default_factory=dict)
    turns: int = 1


REMEDIES = {
    "plain": Remedy("none"),
    "turned": Remedy("crops of a batch in random orientations", turns=8),
    "beta": Remedy("beta 0.05", settings={"beta": 0.05}),
    "paused": Remedy("the discriminator rests while it wins", Paused),
    "averaged": Remedy("averaged weights", Averaged),
    "smooth": Remedy("smooth decoder", Smooth),
    "noisy": Remedy("noise before the discriminator", Noisy),
    "unit": Remedy("features compared by direction", UnitFeatures),
    "fooling": Remedy("a fooling term", Fooling),
    "linear": Remedy("linear start, beta 0.05", LinearStart, settings={"beta": 0.05}),
}


@dataclass(frozen=True)
class Flags(Bounded):
    """What the benchmark takes."""

    out: Positional[Path]  # folder for the study and the table; new, or begun by this command
    source: Path  # folder with the images and tables, or with the crop set
    layout: LayoutName
    minutes: Positive = 4.0  # of one processor core for each training
    remedies: tuple[str, ...] = tuple(REMEDIES)
    seeds: tuple[int, ...] = (0,)
    batch_size: Count = 32
    width: Count = 32  # feature maps of the narrowest convolutions
    held_out_wells: float = 0.1
    measured_cells: Count = 2000  # of the held-out wells, at random; all where there are fewer
    crop: CropConfig = field(default_factory=CropConfig)


def remedies(flags: Flags) -> None:
    """Train, embed, profile, score and measure each remedy for each seed; print and write the table."""
    if unknown := sorted(set(flags.remedies) - set(REMEDIES)):
        raise InputError(f"--remedies {unknown[0]}: expected some of {', '.join(REMEDIES)}")
    pipeline.check_source(flags.source)
    study = Study.create(flags.out / "study")
    store = pipeline.crop(study, source=flags.source, layout=flags.layout, config=flags.crop)
    compute = Compute.chosen(device="cpu", precision=MEASURE_PRECISION, threads=1)
    for name in flags.remedies:
        MODELS[name] = Spec(REMEDIES[name].model, title=REMEDIES[name].title, order=0)
    rows = []
    todo = [(name, seed) for name in flags.remedies for seed in flags.seeds]
    for name, seed in track(todo, "remedies", total=len(todo)):
        LinearStart.crops = training_crops(store, flags, seed, compute)
        config = settings(name, seed, steps_in(study, name, flags), flags)
        run = pipeline.run_name(config)
        pipeline.train(study, config, name=run)
        pipeline.embed(study, run, EmbedConfig(device="cpu", threads=1, turns=8))
        pipeline.profile(study, run, ProfileConfig())
        rows.append({"remedy": name, "seed": seed, "steps": config.steps} | measured(study, config, flags, compute))
    runs = [f"{row['remedy']}-seed{row['seed']}" for row in rows]
    pipeline.evaluate(study, runs, EvaluateConfig())
    table = pd.DataFrame([row | scores(study, run) for row, run in zip(rows, runs)])
    write_text(flags.out / "remedies.csv", table.to_csv(index=False))
    print(shown(table))


def training_crops(store: CropStore, flags: Flags, seed: int, compute: Compute) -> Tensor:
    """Crops (n, C, S, S) of the cells that batches are drawn from, as models see them."""
    out = held_out_cells(store.cells, share=flags.held_out_wells, seed=seed) | store.cells["is_noise"].to_numpy(bool)
    return compute.normalised(store.take((~out).nonzero()[0])).float()


def settings(name: str, seed: int, steps: int, flags: Flags) -> TrainConfig:
    """The training of one remedy."""
    remedy = REMEDIES[name]
    network = SETTINGS | {"width": flags.width, "ramp_steps": max(1, round(RAMP * steps))} | remedy.settings
    return TrainConfig(
        model=name,
        steps=steps,
        seed=seed,
        batch_size=flags.batch_size,
        held_out_wells=flags.held_out_wells,
        cooldown_steps=round(COOLDOWN * steps),
        turns=remedy.turns,  # type: ignore[arg-type]
        watch_every=0,
        threads=1,
        network=network,  # type: ignore[arg-type]
    )


def steps_in(study: Study, name: str, flags: Flags) -> int:
    """How many steps the given time is enough for."""
    path = flags.out / "pace.csv"
    known = dict(pd.read_csv(path).itertuples(index=False)) if path.exists() else {}
    if name not in known:
        seconds = []
        for steps in PACE_STEPS:
            begun = time.process_time()
            pipeline.train(study, settings(name, 0, steps, flags), name=f"pace-{name}-{steps}")
            seconds.append(time.process_time() - begun)
        known[name] = (seconds[2] - seconds[1]) / (PACE_STEPS[2] - PACE_STEPS[1])
        write_text(path, pd.DataFrame(known.items(), columns=["remedy", "seconds_per_step"]).to_csv(index=False))
    return max(1, round(60 * flags.minutes / known[name]))


def measured(study: Study, config: TrainConfig, flags: Flags, compute: Compute) -> dict[str, float]:
    """How true reconstructions of held-out cells are, and how often the discriminator was right at the end."""
    run = RunFolder(study.run_folder(pipeline.run_name(config)))
    model, _ = trained_model(run)
    store = study.crops
    cells = held_out(store, config, flags, compute)  # type: ignore[arg-type]
    drawn = redrawn(model, cells.crops, compute)
    truth = fidelity(cells.originals, drawn, store.channels)
    truth["line_ratio"] = line_share(drawn) / line_share(cells.originals)
    found = {"error": truth["error"].sum()}
    for measure in ("ssim", "power_ratio", "line_ratio"):
        found |= {f"{measure} {channel}": value for channel, value in zip(truth["channel"], truth[measure])}
    history = pd.read_csv(run.folder / "history.csv")
    return found | {"D right": history["discriminator.accuracy"].tail(10).mean()}


def scores(study: Study, run: str) -> dict[str, float]:
    """% right of the headline."""
    found = {}
    for protocol in ("NSC", "NSCB"):
        where = {"protocol": protocol, "statistics": "mean", "whitening": study.headline["whitening"]}
        found[protocol] = 100 * answers(study, [run], **where)[run].mean()
    return found


def shown(table: pd.DataFrame) -> str:
    """A row per remedy in Markdown, mean and deviation over seeds; channels in their order, divided by commas."""
    rows = []
    for name, of in table.groupby("remedy", sort=False):
        row = {"remedy": REMEDIES[str(name)].title, "steps": str(of["steps"].iloc[0]), "error": summary(of["error"])}
        for measure in ("ssim", "power_ratio", "line_ratio"):
            columns = [column for column in of if column.startswith(f"{measure} ")]
            row[measure] = ", ".join(f"{of[column].mean():.2f}" for column in columns)
        rows.append(row | {name: summary(of[name]) for name in ("D right", "NSC", "NSCB")})
    return markdown(pd.DataFrame(rows))


if __name__ == "__main__":
    try:
        remedies(tyro.cli(Flags, description=__doc__, config=(OmitArgPrefixes,)))
    except InputError as error:
        tell(f"remedies.py: {error}")
        sys.exit(2)
