"""AE and VAE: encoder and decoder as one player, judged by pixels (and by the prior).

B cells, C channels, S crop side in px, Z latent size. Lafarge et al. 2019, section 3.2.
"""

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from phenolens.models.model import Generative, Loss, ModelConfig
from phenolens.models.networks import Decoder, Encoder

LATENT_SIZE = 256
ACTIVE_NATS = 0.01  # a feature with more KL than this is in use


def pixel_loss(x: Tensor, reconstruction: Tensor) -> Tensor:
    """Half the sum of squares over (C, S, S), mean over the batch."""
    return 0.5 * (x - reconstruction).square().sum((1, 2, 3)).mean()


def kl_per_feature(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL from the standard normal prior of each feature (Z,), in nats, mean over the batch."""
    return 0.5 * (log_variance.exp() + mean.square() - 1 - log_variance).mean(0)


class AE(Generative):
    """Autoencoder: the posterior's mean is decoded, no noise, no prior."""

    beta_default = 0.0
    noisy = False

    def __init__(self, channels: int, crop_px: int, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.beta = self.beta_default if config.beta is None else config.beta
        latent_size = config.latent_size or LATENT_SIZE
        self.encoder = Encoder(channels, crop_px, config.width, latent_size)
        self.decoder = Decoder(channels, crop_px, config.width, latent_size)

    def players(self) -> dict[str, nn.Module]:
        """Encoder and decoder learn together."""
        return {"autoencoder": nn.ModuleList([self.encoder, self.decoder])}

    def optimisers(self) -> dict[str, Optimizer]:
        """Adam with the constants of the released code."""
        return {"autoencoder": Adam(self.players()["autoencoder"].parameters(), lr=self.config.learning_rate, eps=1e-7)}

    def losses(self, crops: Tensor, step: int) -> dict[str, Loss]:
        """Pixel loss and, for a VAE, beta times the KL."""
        _, total, terms = self.reconstruct(crops[0])
        return {"autoencoder": Loss(total, terms)}

    def reconstruct(self, x: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Reconstruction of x in training mode, L_pixel + beta KL, and the terms."""
        mean, log_variance = self.encoder(x)
        z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean) if self.noisy else mean
        reconstruction = self.decoder(z)
        pixel = pixel_loss(x, reconstruction)
        terms = {"pixel": pixel.detach()}
        if not self.noisy:
            return reconstruction, pixel, terms
        kl = kl_per_feature(mean, log_variance)
        terms |= {"kl": kl.sum().detach(), "active_features": (kl.detach() > ACTIVE_NATS).sum()}  # sum over Z, not mean
        return reconstruction, pixel + self.beta * kl.sum(), terms

    def embed(self, crops: Tensor) -> Tensor:
        """The mean of each cell's posterior."""
        return self.encoder(crops)[0]

    def decode(self, z: Tensor) -> Tensor:
        """The decoder's picture of each embedding."""
        return self.decoder(z)


class VAE(AE):
    """Variational autoencoder: noise around the mean, and a standard normal prior with weight beta."""

    beta_default = 1.0
    noisy = True
