"""The model interface: who learns, what each player wants small, and what a cell's embedding is.

B cells a batch, C channels, S crop side in px, Z latent size.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.optim import Optimizer

from phenolens.core.errors import InputError, at_least, at_most


@dataclass(frozen=True)
class ModelConfig:
    """What a model is made of; the defaults are those of Lafarge et al. 2019 (see docs/ledger.md)."""

    latent_size: int | None = None  # Z, numbers a cell is embedded into; left out: 256, for pca 64
    width: int = 32  # feature maps of each convolution
    beta: float | None = None  # weight of the KL term; left out: 0 for ae, 1 for vae, 2 for vaeplus
    ramp_steps: int = 2500  # T: discriminator layer i joins the loss at step T*i and has full weight T steps later
    feature_layers: int = 4  # how many discriminator layers join the loss, 0 to 4
    feature_weight: float = 1.0  # the full weight gamma reaches for each discriminator layer; 1 is the paper's
    feature_loss_scale: Literal["image", "sum"] = "image"  # image: each layer weighs as much as the image; sum: plain
    learning_rate: float = 1e-3  # Adam, encoder and decoder
    discriminator_learning_rate: float = 1e-2  # SGD with momentum 0.9, discriminator
    weight_decay: float = 1e-4  # by how much convolution kernels are pulled towards zero each step
    # multiplicative: kernels times 1 - weight_decay after each step (the code's); gradient: weight_decay times the
    # kernel is added to its gradient, half a squared penalty in the loss (the plain reading of the paper)
    weight_decay_form: Literal["multiplicative", "gradient"] = "multiplicative"
    posterior_norm: bool = True  # batch normalisation of the posterior's mean and log-variance (the code's)
    logit_norm: bool = True  # batch normalisation of the discriminator's logit (the code's)
    ae_noise: bool = False  # noise around the mean also when an ae is trained (the code's)

    def __post_init__(self) -> None:
        """InputError on a number that cannot be."""
        at_least("--latent-size", 1 if self.latent_size is None else self.latent_size, 1)
        at_least("--beta", self.beta or 0, 0)
        at_most("--latent-size", self.latent_size or 1, 100_000)
        at_most("--width", self.width, 10_000)
        for name in ("width", "ramp_steps"):
            at_least(f"--{name.replace('_', '-')}", getattr(self, name), 1)
        for name in ("feature_weight", "learning_rate", "discriminator_learning_rate", "weight_decay"):
            at_least(f"--{name.replace('_', '-')}", getattr(self, name), 0)
        if self.weight_decay >= 1:
            raise InputError(f"--weight-decay {self.weight_decay}: expected a number below 1")
        if not 0 <= self.feature_layers <= 4:
            raise InputError(f"--feature-layers {self.feature_layers}: expected 0 to 4 layers")


@dataclass(frozen=True)
class Loss:
    """What a player wants small, and the named terms it is made of (scalars, for the history)."""

    total: Tensor
    terms: dict[str, Tensor]


class Model(nn.Module, ABC):
    """A representation of cells that learns from crops alone.

    Crops are floats, each channel of each crop divided by its own maximum. All randomness comes from torch's global
    generator, which the training loop seeds anew for every step.
    """

    batches: int = 1  # independent batches that one step needs
    config: ModelConfig

    @abstractmethod
    def players(self) -> dict[str, nn.Module]:
        """Who learns: disjoint modules that together are the whole model."""

    @abstractmethod
    def optimisers(self) -> dict[str, Optimizer]:
        """One optimiser a player, over all its parameters."""

    @abstractmethod
    def losses(self, crops: Tensor, step: int) -> dict[str, Loss]:
        """What each player wants small at this step, from crops (batches, B, C, S, S) in training mode."""

    @abstractmethod
    def embed(self, crops: Tensor) -> Tensor:
        """Crops (B, C, S, S) to embeddings (B, Z), without noise; call in evaluation mode."""


class Generative(Model):
    """A model whose embeddings decode back into pictures."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """Embeddings (B, Z) to crops (B, C, S, S); call in evaluation mode."""


class FittedModel(Model):
    """A model that is fitted once on a sample of crops instead of trained step by step."""

    @abstractmethod
    def fit(self, crops: Tensor) -> None:
        """Learn from crops (n, C, S, S) at once."""
