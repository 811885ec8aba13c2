"""What a training run is told, each setting with its sentence."""

from dataclasses import dataclass, field
from typing import Literal

from phenolens.errors import InputError
from phenolens.models import ModelConfig

# Settings that say how a run is computed, not what it computes: they may change when a run goes on. So may `steps`,
# unless learning rates fall towards the last one.
HOW = ("checkpoint_every", "threads", "device")


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained; the defaults are those of Lafarge et al. 2019."""

    model: Literal["ae", "vae", "vaeplus", "pca"] = "vaeplus"  # what to train; pca is the linear yardstick
    steps: int = 40_000  # optimiser steps; an epoch has no meaning when treatments are drawn evenly
    seed: int = 0  # of the first weights, the batches and the noise
    batch_size: int | None = None  # cells a batch; left out: one of each treatment and one control
    cooldown_steps: int = 0  # last steps, over which learning rates fall to zero in a straight line; 0 is the paper's
    clip_norm: float | None = None  # largest gradient norm of a player; left out: no clipping, as in the paper
    record_every: int = 10  # steps between two lines of history.csv
    checkpoint_every: int = 250  # steps between two checkpoints
    device: str = "auto"  # cpu, cuda, cuda:1 ...; auto: a CUDA card when there is one
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # of convolutions; auto: bfloat16 where it is faster
    threads: int | None = None  # processor threads; left out: all
    network: ModelConfig = field(default_factory=ModelConfig)

    def __post_init__(self) -> None:
        """InputError on a number that cannot be."""
        at_least_one = {name: getattr(self, name) for name in ("steps", "record_every", "checkpoint_every")}
        at_least_one |= {"batch_size": self.batch_size or 1, "threads": self.threads or 1}
        for name, value in at_least_one.items():
            if value < 1:
                raise InputError(f"--{name.replace('_', '-')} {value}: expected a whole number of at least 1")
        for name, value in {"seed": self.seed, "cooldown_steps": self.cooldown_steps}.items():
            if value < 0:
                raise InputError(f"--{name.replace('_', '-')} {value}: expected a whole number of at least 0")
