"""alpha-GAN: an autoencoder whose pictures and embeddings are both judged. Rosca et al. 2017, "Variational approaches
for auto-encoding generative adversarial networks". docs/rivals.md lists the differences from the original.

B cells per batch, C channels, crops of S px, Z features.
"""

from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from phenolens.models.config import AlphaGANConfig, ModelConfig
from phenolens.models.gan import GAN, LEAK, Encoder, Generator, adam, share_right, to_peak, to_signed
from phenolens.models.interface import Batch, Loss, Player
from phenolens.models.layers import full_precision

BETAS = (0.5, 0.9)
EVERY = 2  # steps of encoder and generator for each of the two discriminators
CODE_UNITS = 750


class AlphaGAN(GAN):
    """Encoder, generator, a discriminator of pictures and one of codes.

    Args:
        channels: C of the crops (B, C, S, S), each divided by its maximum.
        crop_px: S.
        config: `latent_size` (Z of embedding and noise), `width`, `learning_rate`, `pixel_weight`; docs/training.md.
    """

    Config: ClassVar[type[ModelConfig]] = AlphaGANConfig

    def __init__(self, channels: int, crop_px: int, config: AlphaGANConfig) -> None:
        super().__init__(channels, crop_px, config)
        widths = [config.width * n for n in (1, 2, 4, 8)]
        self.generator = Generator(channels, crop_px, config.latent_size, widths[::-1])
        self.encoder = Encoder(channels, crop_px, widths, config.latent_size, normed=True)
        self.discriminator = Encoder(channels, crop_px, widths, 1)
        self.code_discriminator = CodeDiscriminator(config.latent_size)

    def players(self) -> dict[str, Player]:
        """Encoder and generator step twice as often as the two discriminators."""
        every = {"encoder": 1, "generator": 1, "discriminator": EVERY, "code_discriminator": EVERY}
        rate = self.config.learning_rate
        return {name: adam(getattr(self, name), rate, betas=BETAS, every=n) for name, n in every.items()}

    def losses(self, batch: Batch) -> dict[str, Loss]:
        """Cross-entropies for the discriminators; pixels and fooling one of them for encoder and generator."""
        x = to_signed(batch.x[0])
        z, prior = self.encoder(x), self.noise(x)
        reconstruction, drawn = self.generator(z), self.generator(prior)
        pictures = torch.stack([self.discriminator(each).flatten() for each in (x, reconstruction, drawn)])
        codes = torch.stack([self.code_discriminator(each) for each in (prior, z)])
        pixel = (x - reconstruction).abs().mean()
        pixels, for_generator, for_encoder = self.config.pixel_weight * pixel, fooling(pictures), fooling(codes)
        return {
            "discriminator": judging(pictures),
            "code_discriminator": judging(codes),
            "encoder": Loss(pixels + for_encoder, {"pixel": pixel.detach(), "fooling": for_encoder.detach()}),
            "generator": Loss(pixels + for_generator, {"fooling": for_generator.detach()}),
        }

    def embed(self, x: Tensor) -> Tensor:
        """The encoder's output."""
        return self.encoder(to_signed(x))

    def decode(self, z: Tensor) -> Tensor:
        """What the generator draws of each embedding."""
        return to_peak(self.generator(z))


def judging(logits: Tensor) -> Loss:
    """The sum of a discriminator's cross-entropies for logits (sets, B): 1 for the first set, 0 for the others."""
    real, fakes = logits[0], logits[1:]
    loss = F.softplus(-real).mean() + F.softplus(fakes).mean(1).sum()
    return Loss(loss, {"error": loss.detach(), "accuracy": share_right(real, fakes)})


def fooling(logits: Tensor) -> Tensor:
    """Sum over all sets but the first of the mean of log(1 - D) - log D, which is minus the logit."""
    return -logits[1:].mean(1).sum()


class CodeDiscriminator(nn.Module):
    """Codes (B, Z) to logits (B,) of being drawn from the prior."""

    def __init__(self, latent_size: int) -> None:
        super().__init__()
        self.hidden = nn.ModuleList(nn.Linear(*pair) for pair in pairwise([latent_size] + 3 * [CODE_UNITS]))
        self.to_logit = nn.Linear(CODE_UNITS, 1)

    def forward(self, z: Tensor) -> Tensor:
        """(B, Z) to (B,)."""
        for layer in self.hidden:
            z = F.leaky_relu(layer(z), LEAK)
        return full_precision(self.to_logit(z).flatten())
