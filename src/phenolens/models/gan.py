"""What the generative adversarial networks share: settings, scale of pictures, generator, convolutions, optimiser.

B cells per batch, C channels, crops of S px, Z numbers of an embedding and of the noise. Inside these networks pictures
are in [-1, 1]; crops, each channel divided by its maximum, are in [0, 1].
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam

from phenolens.core.bounds import Count
from phenolens.core.keywords import checked
from phenolens.models.config import GANConfig
from phenolens.models.interface import Player, Trained, latent_names
from phenolens.models.layers import (
    BatchNorm,
    Convolution,
    UpsampleTransposedConvolution,
    full_precision,
    noise_like,
)

LEAK = 0.2
NOISE = 0.1  # standard deviation of what CytoGAN adds to pictures before the first convolution, in training
SMOOTHED = 0.8  # the smallest label of a real cell
KERNEL_PX = 5


def to_signed(x: Tensor) -> Tensor:
    """[0, 1] to [-1, 1]."""
    return 2 * x - 1


def to_peak(y: Tensor) -> Tensor:
    """[-1, 1] to [0, 1]."""
    return (y + 1) / 2


def real_labels(logits: Tensor) -> Tensor:
    """Smoothed labels of real cells, between SMOOTHED and 1 at random, shaped as the logits."""
    return SMOOTHED + (1 - SMOOTHED) * noise_like(logits, torch.rand)


def share_right(real: Tensor, drawn: Tensor, *, threshold: float = 0.0) -> Tensor:
    """How often a discriminator's outputs, above the threshold for "real", are right; both kinds count alike."""
    return ((real > threshold).float().mean() + (drawn < threshold).float().mean()) / 2


def adam(module: nn.Module, rate: float, *, betas: tuple[float, float] = (0.5, 0.999), every: int = 1) -> Player:
    """A player that learns by Adam."""
    parameters = list(module.parameters())
    return Player(module, Adam(parameters, lr=rate, betas=betas, fused=parameters[0].is_cuda), every=every)


class GAN(Trained):
    """A model with a generator, which draws cells from noise."""

    generator: nn.Module
    sample: ClassVar[Callable[..., Tensor]] = staticmethod(torch.randn)  # of the noise

    @checked
    def __init__(self, channels: Count, crop_px: Count, config: GANConfig) -> None:
        super().__init__()
        self.config: Any = config

    def noise(self, x: Tensor) -> Tensor:
        """Noise (B, Z), as many rows as x."""
        return noise_like(x.new_empty(len(x), self.config.latent_size), self.sample)

    def draw(self, n: int, seed: int) -> Tensor:
        """Crops (n, C, S, S) that the generator makes of noise."""
        z = self.sample(n, self.config.latent_size, generator=torch.Generator().manual_seed(seed))
        return to_peak(self.generator(z.to(next(self.generator.parameters()))))

    def feature_names(self) -> list[str]:
        """Features in the order of the network."""
        return latent_names(self.config.latent_size)


class SameConvolution(Convolution):
    """A convolution padded with zeros, so that only its stride changes the side."""

    def __init__(self, n_in: int, n_out: int, kernel_px: int = KERNEL_PX, *, stride: int = 1, normed: bool) -> None:
        super().__init__(n_in, n_out, kernel_px, normed=normed)
        self.stride, self.padding = stride, kernel_px // 2

    def convolved(self, x: Tensor) -> Tensor:
        """(B, in, H, W) to (B, out, ceil(H / stride), ceil(W / stride)), before normalisation."""
        return F.conv2d(x, self.kernel, self.bias, self.stride, self.padding)


class UpsampledConvolution(UpsampleTransposedConvolution):
    """Up-sample twofold (nearest), then a padded convolution with 5x5 kernels and batch normalisation."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__(n_in, n_out, KERNEL_PX)

    def convolved(self, x: Tensor) -> Tensor:
        """(B, in, H, W) to (B, out, 2 H, 2 W), before normalisation."""
        return super().convolved(x)[..., 2:-2, 2:-2]


class Halving(nn.Module):
    """Pictures to maps, flattened (B, size): convolutions, each but the first halving the side, and leaky ReLUs."""

    def __init__(
        self, channels: int, crop_px: int, widths: Sequence[int], *, normed: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        strides = [1] + [2] * (len(widths) - 1)
        self.stages = nn.ModuleList(
            SameConvolution(*sizes, stride=stride, normed=normed)
            for sizes, stride in zip(pairwise([channels, *widths]), strides)
        )
        self.dropout = dropout
        self.size = widths[-1] * math.ceil(crop_px / 2 ** (len(widths) - 1)) ** 2

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, S, S) to (B, size)."""
        return self.maps(x)[-1].flatten(1)

    def maps(self, x: Tensor) -> list[Tensor]:
        """The maps of each stage; in training, the pictures are noisy."""
        x = noisy(x) if self.training else x
        found = []
        for stage in self.stages:
            x = F.leaky_relu(stage(x), LEAK)
            x = dropped(x, self.dropout) if self.training and self.dropout else x
            found.append(x)
        return found


class Encoder(nn.Module):
    """Pictures to numbers: `Halving`, then one linear layer. With four widths sides are 68 > 34 > 17 > 9."""

    def __init__(
        self, channels: int, crop_px: int, widths: Sequence[int], outputs: int, *, normed: bool = False
    ) -> None:
        super().__init__()
        self.convolutions = Halving(channels, crop_px, widths, normed=normed)
        self.to_outputs = nn.Linear(self.convolutions.size, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, S, S) to (B, outputs)."""
        return full_precision(self.to_outputs(self.convolutions(x)))


class Generator(nn.Module):
    """Numbers (B, Z) to pictures (B, C, S, S) in [-1, 1]: r x r maps are doubled three times, r = S / 8 rounded up.

    What is more than S is cut off on all sides. `widths` are those of the four stages.
    """

    def __init__(
        self, channels: int, crop_px: int, latent_size: int, widths: Sequence[int], *, leak: float = LEAK
    ) -> None:
        super().__init__()
        self.crop_px, self.leak = crop_px, leak
        self.shape = (widths[0], root_px := math.ceil(crop_px / 8), root_px)
        self.root = nn.Linear(latent_size, math.prod(self.shape))
        self.norm = BatchNorm(widths[0])
        self.stages = nn.ModuleList(UpsampledConvolution(*sizes) for sizes in pairwise(widths))
        self.to_channels = SameConvolution(widths[-1], channels, normed=False)

    def forward(self, z: Tensor) -> Tensor:
        """(B, Z) to (B, C, S, S)."""
        y = F.leaky_relu(self.norm(self.root(z).unflatten(1, self.shape)), self.leak)
        for stage in self.stages:
            y = F.leaky_relu(stage(y), self.leak)
        return cut(full_precision(self.to_channels(y)).tanh(), self.crop_px)


def cut(y: Tensor, crop_px: int) -> Tensor:
    """The middle (B, C, S, S) of larger pictures."""
    start = (y.shape[-1] - crop_px) // 2
    return y[..., start : start + crop_px, start : start + crop_px]


def noisy(x: Tensor) -> Tensor:
    """Pictures with normal noise."""
    return x + NOISE * noise_like(x)


def dropped(x: Tensor, share: float) -> Tensor:
    """A share of the values at random set to zero, the others scaled up to keep the mean."""
    return x * (noise_like(x, torch.rand) >= share) / (1 - share)
