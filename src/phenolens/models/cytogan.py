"""The networks of CytoGAN that do not decode: DCGAN, LSGAN and WGAN. Goldsborough et al. 2017, "CytoGAN".

A generator learns to draw cells that a discriminator takes for real. The embedding of a cell is the discriminator's
last hidden layer. docs/rivals.md lists the differences from the original.

B cells per batch, C channels, crops of S px, Z features.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from phenolens.models.config import (
    CytoGANConfig,
    DCGANConfig,
    ModelConfig,
)
from phenolens.models.gan import GAN, Encoder, Generator, adam, real_labels, share_right, to_signed
from phenolens.models.interface import Batch, Loss, Player
from phenolens.models.layers import full_precision, noise_like

PENALTY = 10.0  # weight of WGAN's gradient penalty


class CytoGAN(GAN):
    """Generator and discriminator; subclasses have the losses.

    Args:
        channels: C of the crops (B, C, S, S), each divided by its maximum.
        crop_px: S.
        config: `latent_size` (Z of embedding and noise), `width`, learning rates; docs/training.md.
    """

    Config: ClassVar[type[ModelConfig]] = CytoGANConfig

    def __init__(self, channels: int, crop_px: int, config: CytoGANConfig) -> None:
        super().__init__(channels, crop_px, config)
        widths = [config.width * n for n in (8, 4, 2, 1)]
        self.generator = Generator(channels, crop_px, config.latent_size, widths)
        self.discriminator = Discriminator(channels, crop_px, config)

    def players(self) -> dict[str, Player]:
        """Discriminator and generator, each with its rate."""
        return {
            "discriminator": adam(self.discriminator, self.config.discriminator_learning_rate),
            "generator": adam(self.generator, self.config.learning_rate),
        }

    def losses(self, batch: Batch) -> dict[str, Loss]:
        """The discriminator is to tell real cells from drawn ones, the generator to prevent it."""
        x = to_signed(batch.x[0])
        drawn = self.generator(self.noise(x))
        real, fake = self.discriminator(x), self.discriminator(drawn)
        return {
            "discriminator": self.discriminator_loss(x, drawn, real=real, fake=fake),
            "generator": self.generator_loss(fake),
        }

    @abstractmethod
    def discriminator_loss(self, x: Tensor, drawn: Tensor, *, real: Tensor, fake: Tensor) -> Loss:
        """Its loss, given real and drawn pictures (B, C, S, S) and its outputs (B,) for them."""

    @abstractmethod
    def generator_loss(self, fake: Tensor) -> Loss:
        """Its loss, given the discriminator's outputs (B,) for drawn pictures."""

    def embed(self, x: Tensor) -> Tensor:
        """The discriminator's last hidden layer, without the noise of training."""
        return self.discriminator.features(to_signed(x))


class Discriminator(nn.Module):
    """Pictures to one number each, by way of the embedding; no batch normalisation."""

    def __init__(self, channels: int, crop_px: int, config: CytoGANConfig) -> None:
        super().__init__()
        self.features = Encoder(channels, crop_px, [config.width * n for n in (1, 2, 4, 8)], config.latent_size)
        self.to_output = nn.Linear(config.latent_size, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, S, S) to (B,)."""
        return full_precision(self.to_output(self.features(x)).flatten())


class LabelledGAN(CytoGAN):
    """The outputs are compared with labels: about 1 for real cells, 0 for drawn ones; the generator wants 1."""

    error: ClassVar[Callable[..., Tensor]]
    threshold: ClassVar[float]  # outputs above it say "real"

    def discriminator_loss(self, x: Tensor, drawn: Tensor, *, real: Tensor, fake: Tensor) -> Loss:
        """The mean error over both, real cells with smoothed labels."""
        loss = self.error(torch.cat([real, fake]), torch.cat([real_labels(real), torch.zeros_like(fake)]))
        right = share_right(real, fake, threshold=self.threshold)
        return Loss(loss, {"error": loss.detach(), "accuracy": right})

    def generator_loss(self, fake: Tensor) -> Loss:
        """The error of drawn cells with the label of real ones."""
        loss = self.error(fake, torch.ones_like(fake))
        return Loss(loss, {"error": loss.detach()})


class DCGAN(LabelledGAN):
    """Labels by cross-entropy; arguments as for CytoGAN."""

    Config: ClassVar[type[ModelConfig]] = DCGANConfig
    error: ClassVar[Callable[..., Tensor]] = staticmethod(F.binary_cross_entropy_with_logits)
    threshold: ClassVar[float] = 0.0


class LSGAN(LabelledGAN):
    """Labels by squared error; arguments as for CytoGAN."""

    error: ClassVar[Callable[..., Tensor]] = staticmethod(F.mse_loss)
    threshold: ClassVar[float] = 0.5


class WGAN(CytoGAN):
    """Outputs are far apart, as far as a slope of 1 permits; arguments as for CytoGAN."""

    def discriminator_loss(self, x: Tensor, drawn: Tensor, *, real: Tensor, fake: Tensor) -> Loss:
        """How much more drawn cells get than real ones, and the penalty between the two."""
        share = noise_like(x, torch.rand)  # of each pixel, as in CytoGAN
        penalty = gradient_penalty(self.discriminator, torch.lerp(drawn, x, share))
        distance = real.mean() - fake.mean()
        return Loss(PENALTY * penalty - distance, {"distance": distance.detach(), "penalty": penalty.detach()})

    def generator_loss(self, fake: Tensor) -> Loss:
        """Drawn cells are to get much."""
        loss = -fake.mean()
        return Loss(loss, {"output": loss.detach()})


def gradient_penalty(discriminator: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """How far the norm of the output's gradient at each picture x (B, C, S, S) is from 1: mean squared difference."""
    x = x.detach().requires_grad_()
    with torch.autocast(x.device.type, enabled=False):
        (gradient,) = torch.autograd.grad(discriminator(x).sum(), x, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()
