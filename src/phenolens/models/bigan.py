"""BiGAN and ALI: a generator and an encoder that a discriminator of pairs makes inverse to each other.

Donahue et al. 2017, "Adversarial feature learning", as Goldsborough et al. 2017 (CytoGAN) train it on cells; Dumoulin
et al. 2017, "Adversarially learned inference". docs/rivals.md lists the differences from the originals.

B cells per batch, C channels, crops of S px, Z features.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from phenolens.models.config import (
    ALIConfig,
    BiGANConfig,
    ModelConfig,
)
from phenolens.models.gan import (
    GAN,
    LEAK,
    Encoder,
    Generator,
    Halving,
    adam,
    dropped,
    real_labels,
    share_right,
    to_peak,
    to_signed,
)
from phenolens.models.interface import Batch, Loss, Player
from phenolens.models.layers import full_precision, noise_like

DROPOUT = 0.2
WIDTHS = (8, 4, 2, 1)


def uniform(*size: int, **how: Any) -> Tensor:
    """Noise between -1 and 1."""
    return 2 * torch.rand(*size, **how) - 1


class BiGAN(GAN):
    """The discriminator is shown real cells with their embeddings, and noise with the cells drawn from it.

    Args:
        channels: C of the crops (B, C, S, S), each divided by its maximum.
        crop_px: S.
        config: `latent_size` (Z of embedding and noise), `width`, `learning_rate`; docs/training.md.
    """

    Config: ClassVar[type[ModelConfig]] = BiGANConfig
    sample: ClassVar[Callable[..., Tensor]] = staticmethod(uniform)
    outputs: ClassVar[int] = 1  # numbers that the encoder gives for each feature

    def __init__(self, channels: int, crop_px: int, config: BiGANConfig) -> None:
        super().__init__(channels, crop_px, config)
        widths = [config.width * n for n in WIDTHS]
        self.generator = Generator(channels, crop_px, config.latent_size, widths)
        self.encoder = Encoder(channels, crop_px, widths, self.outputs * config.latent_size, normed=True)
        self.discriminator = PairDiscriminator(channels, crop_px, config)

    def players(self) -> dict[str, Player]:
        """Discriminator, generator and encoder."""
        networks = {"discriminator": self.discriminator, "generator": self.generator, "encoder": self.encoder}
        return {name: adam(network, self.config.learning_rate) for name, network in networks.items()}

    def losses(self, batch: Batch) -> dict[str, Loss]:
        """Cross-entropies: 1 for pairs of real cells, 0 for drawn ones; generator and encoder want the reverse."""
        x = to_signed(batch.x[0])
        z = self.noise(x)
        real, fake = self.discriminator(x, self.encode(x)), self.discriminator(self.generator(z), z)
        labels = torch.cat([self.real_labels(real), torch.zeros_like(fake)])
        discriminator = F.binary_cross_entropy_with_logits(torch.cat([real, fake]), labels)
        generator, encoder = F.softplus(-fake).mean(), F.softplus(real).mean()
        return {
            "discriminator": Loss(
                discriminator, {"error": discriminator.detach(), "accuracy": share_right(real, fake)}
            ),
            "generator": Loss(generator, {"error": generator.detach()}),
            "encoder": Loss(encoder, {"error": encoder.detach()}),
        }

    def encode(self, x: Tensor) -> Tensor:
        """Embeddings (B, Z) of pictures as the discriminator sees them."""
        return self.encoder(x)

    def real_labels(self, logits: Tensor) -> Tensor:
        """What the discriminator is to say of real cells."""
        return real_labels(logits)

    def embed(self, x: Tensor) -> Tensor:
        """The encoder's output, or the first half of it, the mean."""
        return self.encoder(to_signed(x))[:, : self.config.latent_size]

    def decode(self, z: Tensor) -> Tensor:
        """What the generator draws of each embedding."""
        return to_peak(self.generator(z))

    def stages(self, x: Tensor) -> Tensor:
        """Means over the crop of the maps of the encoder's stages (B, 15 width)."""
        maps = self.encoder.convolutions.maps(to_signed(x))
        return torch.cat([full_precision(of_stage).mean((2, 3)) for of_stage in maps], dim=1)


class ALI(BiGAN):
    """The encoder gives mean and log-variance of each feature, the prior is normal, labels are not smoothed.

    Arguments as for BiGAN.
    """

    Config: ClassVar[type[ModelConfig]] = ALIConfig
    sample: ClassVar[Callable[..., Tensor]] = staticmethod(torch.randn)
    outputs: ClassVar[int] = 2

    def encode(self, x: Tensor) -> Tensor:
        """A draw (B, Z) from each cell's posterior."""
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        return mean + (0.5 * log_variance).exp() * noise_like(mean)

    def real_labels(self, logits: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(logits)


class PairDiscriminator(nn.Module):
    """A picture and a code to one logit: the encoder's convolutions without normalisation, then linear layers."""

    def __init__(self, channels: int, crop_px: int, config: BiGANConfig) -> None:
        super().__init__()
        unit = config.width
        self.convolutions = Halving(channels, crop_px, [unit * n for n in WIDTHS], dropout=DROPOUT)
        sizes = [self.convolutions.size + config.latent_size, 64 * unit, 64 * unit, 16 * unit]
        self.hidden = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(sizes))
        self.to_logit = nn.Linear(sizes[-1], 1)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """(B, C, S, S) and (B, Z) to (B,)."""
        y = torch.cat([self.convolutions(x), z], dim=1)
        for layer in self.hidden:
            y = F.leaky_relu(layer(y), LEAK)
            y = dropped(y, DROPOUT) if self.training else y
        return full_precision(self.to_logit(y).flatten())
