"""The model interface: what a model provides so that it can be trained, embedded, profiled, scored and shown.

B cells per batch, C channels, crops of S px, Z features. A model is a `Trained`, `Fitted` or `Frozen` representation;
it may also satisfy `Decodes`, `Draws` or `HasPrior`. It is listed in `phenolens.models.MODELS`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from phenolens.core.errors import InputError
from phenolens.models.config import ModelConfig, Turns

Input = Literal["peak", "raw"]  # each channel of each crop divided by its maximum, or the counts as they are
LABELS = ("treatment", "compound", "well", "plate", "batch", "role")


def turned(x: Tensor, turn: int) -> Tensor:
    """Crops (B, C, S, S) in one of their eight orientations: 0 as they are, 1 to 3 rotated, 4 to 7 also mirrored."""
    return torch.rot90(x.flip(-1) if turn >= 4 else x, turn % 4, (-2, -1))


def randomly_turned(x: Tensor) -> Tensor:
    """Crops (B, C, S, S), each in one of its eight orientations at random."""
    turns = torch.randint(8, (len(x),), device=x.device)
    return torch.stack([turned(crop, turn) for crop, turn in zip(x, turns.tolist())])


def mean_over_turns(features: Callable[[Tensor], Tensor], x: Tensor, turns: Turns) -> Tensor:
    """Features (B, F) of crops (B, C, S, S), float32: the mean over the first `turns` of their orientations."""
    views = [features(turned(x, turn)).float() for turn in range(turns)]
    return views[0] if turns == 1 else torch.stack(views).mean(0)


@dataclass(frozen=True)
class Batch:
    """The cells of one step with their labels as codes, -1 where unknown. A mechanism is never among them."""

    x: Tensor  # (draws, B, C, S, S) float32, scaled as the model's `input` says
    treatment: Tensor  # (draws, B) int64, as are the following: compound and dose, one code for all controls
    compound: Tensor
    well: Tensor  # of one plate
    plate: Tensor
    batch: Tensor  # plates processed together
    role: Tensor  # 0 treated, 1 control, 2 other
    step: int
    z: Tensor | None = None  # (draws, B, Z) the cells' embeddings by another run, for a Drawing
    weights: Tensor | None = None  # what the model's `weights` says for this step, where a step is recorded

    @classmethod
    def unlabelled(cls, x: Tensor, step: int) -> Self:
        """A batch of which nothing but the crops is known."""
        unknown = torch.full(x.shape[:2], -1, device=x.device)
        return cls(x, **dict.fromkeys(LABELS, unknown), step=step)


@dataclass(frozen=True)
class Loss:
    """What a player minimises, and the named terms it is made of (scalars, for the history)."""

    total: Tensor
    terms: dict[str, Tensor]
    steps: bool = True  # False: the player does not step this time


@dataclass(frozen=True)
class Player:
    """A part of a model with its own loss and optimiser. Kernels are parameters with four dimensions."""

    module: nn.Module
    optimiser: Optimizer  # over all parameters of the module
    every: int = 1  # it steps at steps divisible by this
    kernel_decay: float = 0.0  # share by which kernels shrink after each of its steps, whatever the learning rate
    kernel_penalty: float = 0.0  # times the kernel is added to its gradient: half a squared penalty in the loss
    clip: float | None = None  # largest gradient norm; None: the run's --clip-norm

    def parameters(self) -> list[nn.Parameter]:
        """What it learns."""
        return list(self.module.parameters())

    @torch.no_grad()
    def penalise(self) -> None:
        """Add the kernel penalty to the gradients."""
        if self.kernel_penalty:
            for kernel in self._kernels():
                if kernel.grad is not None:
                    kernel.grad.add_(kernel, alpha=self.kernel_penalty)

    @torch.no_grad()
    def step(self) -> None:
        """Step by the gradients and clear them, then shrink the kernels."""
        self.optimiser.step()
        self.optimiser.zero_grad()
        if self.kernel_decay:
            torch._foreach_mul_(self._kernels(), 1 - self.kernel_decay)

    def _kernels(self) -> list[Tensor]:
        return [parameter for parameter in self.module.parameters() if parameter.ndim == 4]


class Representation(nn.Module, ABC):
    """Turns crops into embeddings: all that embedding, profiles, scores and figures need.

    Built as `Class(channels, crop_px, config)`.
    """

    Config: ClassVar[type[ModelConfig]]
    input: ClassVar[Input] = "peak"
    turns: ClassVar[Turns] = 1  # orientations of a crop over which embeddings are averaged by default

    @abstractmethod
    def embed(self, x: Tensor) -> Tensor:
        """Crops (B, C, S, S) to embeddings (B, Z); deterministic, called in evaluation mode."""

    @abstractmethod
    def feature_names(self) -> list[str]:
        """The names of the Z features, in order."""


class Fitted(Representation):
    """A representation fitted once on a sample of crops; what it learns is in its buffers."""

    @abstractmethod
    def fit(self, x: Tensor) -> None:
        """Learn from crops (n, C, S, S)."""


class Frozen(Representation):
    """A representation with the weights of others, which are never copied into checkpoints."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """A checksum of the weights; a run is refused when it no longer matches."""


class Trained(Representation):
    """A representation trained step by step. Randomness comes from torch's global generator, seeded at every step."""

    draws: ClassVar[int] = 1  # batches that one step needs
    paired: ClassVar[bool] = False  # the batches of a step hold cells of the same treatments; else they are independent
    labels: ClassVar[tuple[str, ...]] = ()  # those of LABELS that it learns from: weak labels, which tables name
    recordable: ClassVar[bool] = (
        False  # losses use no number of a step but its `weights`, and never wait for the device
    )

    def take_classes(self, classes: Mapping[str, int]) -> None:
        """Set the shapes that depend on how many there are of each of `labels`; called once, before all else."""

    @abstractmethod
    def players(self) -> dict[str, Player]:
        """What learns: disjoint modules that together hold all parameters, each with a new optimiser."""

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Loss]:
        """The loss of each player that steps at `batch.step`, all at the same weights, in training mode."""

    def weights(self, step: int) -> list[float]:
        """The weights of terms of the losses that change from step to step."""
        return []

    def verdicts(self, history: Sequence[Mapping[str, float]]) -> list[str]:
        """What is wrong at the latest record of the history, beyond what training/health.py finds; one line each."""
        return []


@dataclass(frozen=True)
class Source:
    """The embeddings that a Drawing draws from."""

    identity: str  # a checksum of what they are made from
    features: int  # Z
    turns: Turns  # orientations of a crop that they are the mean of


class Drawing(Trained):
    """A decoder of another run's embeddings, or of a table's; its own embeddings are those."""

    source: Source

    def take(self, source: Source) -> None:
        """Set the shapes that depend on the embeddings; called once, before `prepare` or loading."""
        self.source = source
        self._encoder: list[Representation] = []  # in a list: its weights are not this model's

    @abstractmethod
    def prepare(self, z: Tensor, x: Tensor) -> None:
        """Fit what does not learn step by step to embeddings (n, Z) and crops (n, C, S, S) of training cells."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """Draw a cell of each embedding (B, Z), all from the same noise."""

    @abstractmethod
    def redraw(self, x: Tensor, z: Tensor, *, seeds: Sequence[int]) -> Tensor:
        """Draw cells from embeddings z and the coarse layout of crops x (B, C, S, S), with noise of a seed per cell."""

    @abstractmethod
    def changed(self, x: Tensor, z: Tensor, to: Tensor, *, emphasis: float = 0.0) -> Tensor:
        """Change crops x with embeddings z to embeddings `to`, and keep what embeddings do not determine.

        As many cells as embeddings to change to, or a single cell. The change counts 1 + `emphasis` times.
        """

    def attach(self, encoder: Representation) -> None:
        """Take the model that makes the embeddings, to embed new crops."""
        self._encoder = [encoder]

    @property
    def embeds(self) -> bool:
        """Whether new crops can be embedded: not where the embeddings come from a table."""
        return bool(self._encoder)

    def embed(self, x: Tensor) -> Tensor:
        """The embeddings of the model that is decoded."""
        if not self.embeds:
            raise InputError("the embeddings that are decoded come from a table: new crops cannot be embedded")
        encoder = self._encoder[0].to(x.device).eval()
        return mean_over_turns(encoder.embed, x, self.source.turns)

    def feature_names(self) -> list[str]:
        """The names of the embeddings' features."""
        return self._encoder[0].feature_names() if self.embeds else latent_names(self.source.features)


@runtime_checkable
class Decodes(Protocol):
    """A representation whose embeddings decode into crops."""

    def decode(self, z: Tensor) -> Tensor:
        """Embeddings (B, Z) to crops (B, C, S, S), scaled as the model's `input`; called in evaluation mode."""


@runtime_checkable
class KnowsChannels(Protocol):
    """A representation that treats channels by what they show."""

    def take_channels(self, names: Sequence[str]) -> None:
        """Set the names of the C channels; called once, before all else."""


@runtime_checkable
class HasStages(Protocol):
    """A representation whose earlier layers can be used as features."""

    def stages(self, x: Tensor) -> Tensor:
        """Means over the crop of each map of each stage of the encoder, crops (B, C, S, S) to (B, features)."""


@runtime_checkable
class Draws(Protocol):
    """A model of the distribution of cells."""

    def draw(self, n: int, seed: int) -> Tensor:
        """Crops (n, C, S, S) of cells that do not exist; called in evaluation mode."""


@runtime_checkable
class HasPrior(Protocol):
    """A model that pulls each cell's posterior towards a standard normal prior."""

    def kl(self, x: Tensor) -> Tensor | None:
        """KL divergence of each feature (Z,) from the prior, nats, mean over crops; None when trained without noise."""


def stage_names(n: int) -> list[str]:
    """Names of n means of feature maps: S000, S001, ..."""
    return [f"S{i:03d}" for i in range(n)]


def latent_names(n: int) -> list[str]:
    """Names of n features without a meaning of their own: Z000, Z001, ..."""
    return [f"Z{i:03d}" for i in range(n)]
