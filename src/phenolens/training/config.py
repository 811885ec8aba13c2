"""What a training run is told, each setting with its sentence."""

from dataclasses import dataclass, field
from typing import Literal

from phenolens.core.errors import InputError, at_least, at_most
from phenolens.models import ModelConfig

# Settings that say how a run is computed and watched, not what it computes: they may change when a run goes on. So may
# `steps`, unless learning rates fall towards the last one.
HOW = ("checkpoint_every", "threads", "device", "crops_kept", "compiled", "watch_every", "tensorboard")


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained; the defaults are those of Lafarge et al. 2019."""

    model: Literal["ae", "vae", "vaeplus", "pca"] = "vaeplus"  # what to train; pca is the linear yardstick
    steps: int = 40_000  # optimiser steps; an epoch has no meaning when treatments are drawn evenly
    seed: int = 0  # of the first weights, the batches and the noise
    batch_size: int | None = None  # cells a batch; left out: one of each treatment and one control
    held_out_wells: float = 0.0  # share of wells no batch draws from, to judge reconstructions on; 0 is the paper's
    cooldown_steps: int = 0  # last steps, over which learning rates fall to zero in a straight line; 0 is the paper's
    clip_norm: float | None = None  # largest gradient norm of a player; left out: no clipping, as in the paper
    record_every: int = 10  # steps between two lines of history.csv
    checkpoint_every: int = 250  # steps between two checkpoints
    watch_every: int = 500  # steps between two pictures of how the model redraws the same 16 cells; 0: none
    tensorboard: bool = False  # write history and pictures for TensorBoard too; needs the extra tensorboard
    device: str = "auto"  # cpu, cuda, cuda:1 ...; auto: a CUDA card when there is one
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # of convolutions; auto: bfloat16 where it is faster
    threads: int | None = None  # processor threads; left out: all
    crops_kept: Literal["auto", "disk", "device"] = "auto"  # where batches are drawn; auto: on a CUDA card with room
    compiled: bool = False  # compile the networks with torch.compile first; on a processor this needs a C++ compiler
    network: ModelConfig = field(default_factory=ModelConfig)

    def __post_init__(self) -> None:
        """InputError on a number that cannot be."""
        for flag, count in (("--steps", self.steps), ("--record-every", self.record_every)):
            at_least(flag, count, 1)
        at_least("--checkpoint-every", self.checkpoint_every, 1)
        batch_size = (
            2 if self.batch_size is None else self.batch_size
        )  # of one cell, batch normalisation leaves nothing
        at_least("--batch-size", batch_size, 2)
        at_most("--batch-size", batch_size, 100_000)
        at_most("--threads", self.threads or 1, 4096)
        at_least("--threads", 1 if self.threads is None else self.threads, 1)
        at_least("--seed", self.seed, 0)
        at_least("--watch-every", self.watch_every, 0)
        at_least("--cooldown-steps", self.cooldown_steps, 0)
        if not 0 <= self.held_out_wells < 1:
            raise InputError(f"--held-out-wells {self.held_out_wells}: expected a share of at least 0 and below 1")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise InputError(f"--clip-norm {self.clip_norm}: expected a number above 0, or leave it out")
        if self.seed >= 2**63 or self.cooldown_steps > self.steps:
            raise InputError(
                f"--seed {self.seed}, --cooldown-steps {self.cooldown_steps}: expected a seed below 2^63 and no more "
                f"cool-down than --steps {self.steps}"
            )
