"""VAE-GAN: a VAE whose reconstructions are compared in a discriminator's features. Larsen et al. 2016, "Autoencoding
beyond pixels using a learned similarity metric", the ancestor of VAE+. docs/rivals.md lists the differences.

B cells per batch, C channels, crops of S px, Z features.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import RMSprop

from phenolens.models import processes
from phenolens.models.config import ModelConfig, VAEGANConfig
from phenolens.models.gan import GAN, Generator, SameConvolution, share_right, to_peak, to_signed
from phenolens.models.interface import Batch, Loss, Player
from phenolens.models.layers import BatchNorm, full_precision, noise_like
from phenolens.models.vaeplus import kl_per_feature

WEIGHT_DECAY = 1e-5
EQUAL, MARGIN = 0.68, 0.35  # cross-entropy of a discriminator at chance, and how far from it both players step


class VAEGAN(GAN):
    """Encoder, decoder (the generator) and discriminator; a player that is ahead waits for the other.

    Args:
        channels: C of the crops (B, C, S, S), each divided by its maximum.
        crop_px: S.
        config: `latent_size` (Z), `width`, `learning_rate`, `feature_share`; docs/training.md.
    """

    Config: ClassVar[type[ModelConfig]] = VAEGANConfig

    def __init__(self, channels: int, crop_px: int, config: VAEGANConfig) -> None:
        super().__init__(channels, crop_px, config)
        width = config.width
        self.encoder = Encoder(channels, crop_px, config)
        widths = [8 * width, 8 * width, 4 * width, width]
        self.generator = Generator(channels, crop_px, config.latent_size, widths, leak=0)
        self.discriminator = Discriminator(channels, crop_px, width)

    def players(self) -> dict[str, Player]:
        """Encoder, generator and discriminator, each with RMSProp."""
        networks = {"encoder": self.encoder, "generator": self.generator, "discriminator": self.discriminator}
        rate = self.config.learning_rate
        return {
            name: Player(network, RMSprop(network.parameters(), lr=rate), kernel_penalty=WEIGHT_DECAY)
            for name, network in networks.items()
        }

    def losses(self, batch: Batch) -> dict[str, Loss]:
        """Encoder: KL and feature loss; generator: feature loss and fooling; discriminator: cross-entropy."""
        x = to_signed(batch.x[0])
        mean, log_variance = self.encoder(x)
        z = mean + (0.5 * log_variance).exp() * noise_like(mean)
        pictures = torch.cat([x, self.generator(torch.cat([z, self.noise(x)]))])
        maps, logits = self.discriminator(pictures)
        of_x, of_reconstruction, _ = maps.chunk(3)
        kl = kl_per_feature(mean, log_variance).sum()
        features = 0.5 * (of_x - of_reconstruction).square().sum((1, 2, 3)).mean()
        real, fakes = F.softplus(-logits[0]).mean(), F.softplus(logits[1:]).mean(1)
        share = self.config.feature_share
        steps = stepping(*processes.averaged(torch.stack([real, fakes.mean()]).detach()).tolist())
        accuracy = share_right(logits[0], logits[1:])
        judged = {"real": real.detach(), "fake": fakes.detach().mean(), "accuracy": accuracy}
        return {
            "encoder": Loss(kl + features, {"kl": kl.detach(), "features": features.detach()}),
            "generator": Loss(share * features - (1 - share) * fakes.sum(), {}, steps=steps["generator"]),
            "discriminator": Loss(real + fakes.sum(), judged, steps=steps["discriminator"]),
        }

    def embed(self, x: Tensor) -> Tensor:
        """The mean of each cell's posterior."""
        return self.encoder(to_signed(x))[0]

    def decode(self, z: Tensor) -> Tensor:
        """The decoder's reconstruction of each embedding."""
        return to_peak(self.generator(z))

    def kl(self, x: Tensor) -> Tensor:
        """KL divergence of each feature (Z,) from the prior, nats, mean over crops."""
        return kl_per_feature(*self.encoder(to_signed(x)))


def stepping(real: float, fake: float) -> dict[str, bool]:
    """Which player steps, by the discriminator's mean cross-entropy of real and of fake cells.

    The discriminator waits while one of them is small, the generator while one of them is large; both step when both
    would wait.
    """
    discriminator = min(real, fake) >= EQUAL - MARGIN
    generator = max(real, fake) <= EQUAL + MARGIN
    both = not (discriminator or generator)
    return {"discriminator": discriminator or both, "generator": generator or both}


class Encoder(nn.Module):
    """Pictures to the posterior of each cell: sides 68 > 34 > 17 > 9."""

    def __init__(self, channels: int, crop_px: int, config: VAEGANConfig) -> None:
        super().__init__()
        width = config.width
        self.stages = nn.ModuleList(
            SameConvolution(*sizes, stride=2, normed=True)
            for sizes in [(channels, 2 * width), (2 * width, 4 * width), (4 * width, 8 * width)]
        )
        self.hidden = Dense(8 * width * math.ceil(crop_px / 8) ** 2, 32 * width)
        self.to_posterior = nn.Linear(32 * width, 2 * config.latent_size)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, S, S) to the posterior's mean (B, Z) and log-variance (B, Z)."""
        for stage in self.stages:
            x = stage(x).relu()
        mean, log_variance = full_precision(self.to_posterior(self.hidden(x))).chunk(2, dim=1)
        return mean, log_variance


class Discriminator(nn.Module):
    """Pictures to the maps that are compared, and logits: sides 68 > 34 > 17 > 9."""

    def __init__(self, channels: int, crop_px: int, width: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            [
                SameConvolution(channels, width, normed=False),
                SameConvolution(width, 4 * width, stride=2, normed=True),
                SameConvolution(4 * width, 8 * width, stride=2, normed=True),
            ]
        )
        self.compared = SameConvolution(8 * width, 8 * width, stride=2, normed=False)
        self.norm = BatchNorm(8 * width)
        self.hidden = Dense(8 * width * math.ceil(crop_px / 8) ** 2, 16 * width)
        self.to_logit = nn.Linear(16 * width, 1)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Three batches (3 B, C, S, S) to the last convolution before its normalisation, and logits (3, B)."""
        y = pictures
        for stage in self.stages:
            y = stage(y).relu()
        maps = self.compared(y)
        logits = self.to_logit(self.hidden(self.norm(maps).relu()))
        return full_precision(maps), full_precision(logits).view(3, -1)


class Dense(nn.Module):
    """A linear layer of flattened maps, with batch normalisation and ReLU."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(n_in, n_out, bias=False), BatchNorm(n_out)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, maps, H, W) to (B, n_out)."""
        return self.norm(self.linear(maps.flatten(1))[..., None, None]).flatten(1).relu()
