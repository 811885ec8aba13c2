"""BEGAN as CytoGAN trains it on cells: Berthelot et al. 2017, "BEGAN"; Goldsborough et al. 2017, "CytoGAN".

The discriminator is an autoencoder that is to reconstruct real cells well and drawn ones badly. Its code is the
embedding, its decoder draws embeddings. docs/rivals.md lists the differences from the original.

B cells per batch, C channels, crops of S px, Z features.
"""

import math
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from phenolens.models import processes
from phenolens.models.config import BEGANConfig, ModelConfig
from phenolens.models.gan import GAN, SameConvolution, adam, cut, noisy, to_peak, to_signed
from phenolens.models.interface import Batch, Loss, Player
from phenolens.models.layers import full_precision

FIRST_BALANCE, BALANCE_RATE, RATIO = 1e-8, 1e-3, 0.75
KERNEL_PX = 3


class BEGAN(GAN):
    """Generator and autoencoder, kept in balance by k.

    Args:
        channels: C of the crops (B, C, S, S), each divided by its maximum.
        crop_px: S.
        config: `latent_size` (Z of embedding and noise), `width`, `learning_rate`; docs/training.md.
    """

    Config: ClassVar[type[ModelConfig]] = BEGANConfig

    def __init__(self, channels: int, crop_px: int, config: BEGANConfig) -> None:
        super().__init__(channels, crop_px, config)
        self.generator = Decoder(channels, crop_px, config, generates=True)
        self.discriminator = nn.ModuleDict(
            {
                "encoder": Encoder(channels, crop_px, config),
                "decoder": Decoder(channels, crop_px, config, generates=False),
            }
        )
        self.k: Tensor
        self.register_buffer("k", torch.tensor(FIRST_BALANCE))

    def players(self) -> dict[str, Player]:
        """Discriminator and generator."""
        networks = {"discriminator": self.discriminator, "generator": self.generator}
        return {name: adam(network, self.config.learning_rate) for name, network in networks.items()}

    def losses(self, batch: Batch) -> dict[str, Loss]:
        """L(real) - k L(drawn) for the discriminator, L(drawn) for the generator; then k changes."""
        x = to_signed(batch.x[0])
        real, drawn = self.error(x), self.error(self.generator(self.noise(x)))
        terms = {"real": real.detach(), "drawn": drawn.detach(), "k": self.k.clone()}
        total = real - terms["k"] * drawn
        self.k.copy_(next_k(self.k, *processes.averaged(torch.stack([terms["real"], terms["drawn"]]))))
        return {"discriminator": Loss(total, terms), "generator": Loss(drawn, {})}

    def error(self, v: Tensor) -> Tensor:
        """L(v): mean absolute difference between pictures (B, C, S, S) and what the autoencoder makes of them."""
        return (v - self.discriminator["decoder"](self.discriminator["encoder"](v))).abs().mean()

    def embed(self, x: Tensor) -> Tensor:
        """The autoencoder's code."""
        return self.discriminator["encoder"](to_signed(x))

    def decode(self, z: Tensor) -> Tensor:
        """The autoencoder's reconstruction of each embedding."""
        return to_peak(self.discriminator["decoder"](z))


def next_k(k: Tensor, real: Tensor, drawn: Tensor) -> Tensor:
    """The balance after a step: it grows while drawn cells are reconstructed better than RATIO times real ones."""
    return (k + BALANCE_RATE * (RATIO * real - drawn)).clamp(FIRST_BALANCE, 1)


class Encoder(nn.Module):
    """Pictures to codes: four stages of three convolutions, each stage halving the side: 68 > 34 > 17 > 9 > 5."""

    def __init__(self, channels: int, crop_px: int, config: BEGANConfig) -> None:
        super().__init__()
        widths = [config.width * n for n in (1, 2, 4, 6)]
        self.convolutions = nn.ModuleList()
        for n_in, n_out in pairwise([channels, *widths]):
            sizes = [(n_in, n_out, 2), (n_out, n_out, 1), (n_out, n_out, 1)]
            self.convolutions.extend(SameConvolution(a, b, KERNEL_PX, stride=s, normed=False) for a, b, s in sizes)
        self.to_code = nn.Linear(widths[-1] * math.ceil(crop_px / 16) ** 2, config.latent_size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, S, S) to (B, Z); in training the pictures are noisy."""
        x = noisy(x) if self.training else x
        for convolution in self.convolutions:
            x = F.elu(convolution(x))
        return full_precision(self.to_code(x.flatten(1)))


class Decoder(nn.Module):
    """Codes or noise to pictures: four stages of two convolutions, the side doubled before the last three.

    The generator has an ELU after its first layer and a tanh after its last one.
    """

    def __init__(self, channels: int, crop_px: int, config: BEGANConfig, *, generates: bool) -> None:
        super().__init__()
        self.crop_px, self.generates = crop_px, generates
        size = 2 * config.width
        self.shape = (size, root_px := math.ceil(crop_px / 8), root_px)
        self.root = nn.Linear(config.latent_size, math.prod(self.shape))
        self.convolutions = nn.ModuleList(SameConvolution(size, size, KERNEL_PX, normed=False) for _ in range(8))
        self.to_channels = SameConvolution(size, channels, KERNEL_PX, normed=False)

    def forward(self, z: Tensor) -> Tensor:
        """(B, Z) to (B, C, S, S) in [-1, 1]."""
        y = self.root(z).unflatten(1, self.shape)
        y = F.elu(y) if self.generates else y
        for number, convolution in enumerate(self.convolutions):
            y = F.interpolate(y, scale_factor=2, mode="nearest") if number in (2, 4, 6) else y
            y = F.elu(convolution(y))
        y = full_precision(self.to_channels(y))
        return cut(y.tanh() if self.generates else y, self.crop_px)
