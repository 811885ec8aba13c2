"""AE, VAE and VAE+, to be read beside section 3 of Lafarge et al. 2019; docs/ledger.md says where its code differs.

B cells a batch, C channels, S crop side in px, Z latent size, M side of the last feature map (S = 8 M + 28: 5 for 68).
x: crops, each channel of each crop divided by its own maximum; z: embeddings.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, Optimizer

from phenolens.core.errors import InputError
from phenolens.models import processes
from phenolens.models.layers import (
    Convolution,
    FullConvolutionInParts,
    FullConvolutionOfPoints,
    FullConvolutionOfUpsampled,
    full_precision,
    noise_like,
    put_together,
)
from phenolens.models.model import Generative, Loss, ModelConfig

LATENT_SIZE = 256
ACTIVE_NATS = 0.01  # a feature with more KL than this is in use
KERNEL_PX = 5
LEAK = 0.01


# 3.4 Architectures. Every convolution is 5x5 and batch-normalised; the last of encoder and discriminator spans M x M.


def last_side_px(crop_px: int) -> int:
    """M, the side of the feature map that the last convolution takes in; InputError for a side that does not fit."""
    last, rest = divmod(crop_px - 28, 8)
    if rest or last < 1:
        below = max(36, 28 + 8 * last)
        raise InputError(f"a crop side of {crop_px} px does not pass the four stages; use {below} or {below + 8} px")
    return last


def pooling_stages(channels: int, width: int) -> nn.ModuleList:
    """Three convolutions to `width` maps; after each, its user pools twofold and applies the leaky ReLU."""
    return nn.ModuleList([Convolution(n, width, KERNEL_PX) for n in (channels, width, width)])


class Encoder(nn.Module):
    """Crops to the posterior of each cell: sides 68 > 64/32 > 28/14 > 10/5 > 1."""

    def __init__(self, channels: int, crop_px: int, config: ModelConfig) -> None:
        super().__init__()
        self.stages = pooling_stages(channels, config.width)
        size = 2 * (config.latent_size or LATENT_SIZE)
        self.head = Convolution(config.width, size, last_side_px(crop_px), normed=config.posterior_norm)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, S, S) to the posterior's mean (B, Z) and log-variance (B, Z)."""
        for stage in self.stages:
            x = F.leaky_relu(F.max_pool2d(stage(x), 2), LEAK)
        mean, log_variance = full_precision(self.head(x).flatten(1)).chunk(2, dim=1)
        return mean, log_variance


class Decoder(nn.Module):
    """Embeddings to crops, the encoder mirrored: sides 1 > 5/10 > 14/28 > 32/64 > 68, then 1x1 to the channels."""

    def __init__(self, channels: int, crop_px: int, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        root = FullConvolutionOfPoints(config.latent_size or LATENT_SIZE, width, last_side_px(crop_px))
        middle = [FullConvolutionOfUpsampled(width, width, KERNEL_PX) for _ in range(2)]
        self.stages = nn.ModuleList([root, *middle, FullConvolutionInParts(width, width, KERNEL_PX)])
        self.to_channels = Convolution(width, channels, 1)

    def forward(self, z: Tensor) -> Tensor:
        """(B, Z) to (B, C, S, S)."""
        y = z
        for stage in self.stages:
            y = F.leaky_relu(stage(y), LEAK)
        return put_together(F.leaky_relu(full_precision(self.to_channels(y)), LEAK))


class Discriminator(nn.Module):
    """Tells real crops from reconstructions; its hidden layers D_1..D_4 are the features that should match."""

    def __init__(self, channels: int, crop_px: int, config: ModelConfig) -> None:
        super().__init__()
        self.stages = pooling_stages(channels, config.width)
        self.head = Convolution(config.width, 2 * config.width, last_side_px(crop_px))
        self.to_logit = Convolution(2 * config.width, 1, 1, normed=config.logit_norm)

    def forward(
        self, independent: Tensor, fake: Tensor, x: Tensor, *, n_layers: int
    ) -> tuple[list[tuple[Tensor, Tensor]], Tensor, Tensor]:
        """[(D_i(x), D_i(fake)) for i = 1..n_layers], and the logits (B,) of the independent real batch and the fakes.

        Batch-norm moments come from [independent | fake] alone; x is normalised with those, and is computed no further
        than layer `n_layers`.
        """
        seen = [independent, fake, x]
        pairs = []
        for i, stage in enumerate([*self.stages, self.head], start=1):
            if i == n_layers + 1:
                seen = seen[:2]
            seen = stage.together(seen, n_moments=2)
            seen = [F.leaky_relu(F.max_pool2d(y, 2) if i <= 3 else y, LEAK) for y in seen]
            if i <= n_layers:
                pairs.append((seen[2], seen[1]))
        real_logits, fake_logits = (full_precision(y.flatten()) for y in self.to_logit.together(seen[:2], n_moments=2))
        return pairs, real_logits, fake_logits


# 3.2 The VAE framework.


def pixel_loss(x: Tensor, reconstruction: Tensor) -> Tensor:
    """L_pixel: half the sum of squares over (C, S, S), mean over the batch."""
    return 0.5 * (x - reconstruction).square().sum((1, 2, 3)).mean()


def kl_per_feature(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL from the standard normal prior of each feature (Z,), in nats, mean over the batch."""
    return 0.5 * (log_variance.exp() + mean.square() - 1 - log_variance).mean(0)


class AE(Generative):
    """Autoencoder: the posterior's mean is decoded, no noise (unless `ae_noise`), no prior."""

    beta_default = 0.0
    noise_default = False

    def __init__(self, channels: int, crop_px: int, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.beta = self.beta_default if config.beta is None else config.beta
        self.noisy = self.noise_default or config.ae_noise
        self.encoder = Encoder(channels, crop_px, config)
        self.decoder = Decoder(channels, crop_px, config)

    def players(self) -> dict[str, nn.Module]:
        """Encoder and decoder learn together."""
        return {"autoencoder": nn.ModuleList([self.encoder, self.decoder])}

    def optimisers(self) -> dict[str, Optimizer]:
        """Adam with the constants of the released code."""
        parameters = list(self.players()["autoencoder"].parameters())
        fused = parameters[0].is_cuda
        return {"autoencoder": Adam(parameters, lr=self.config.learning_rate, eps=1e-7, fused=fused)}

    def losses(self, crops: Tensor, step: int) -> dict[str, Loss]:
        """Pixel loss and, where z is noisy, beta times the KL."""
        _, total, terms = self.reconstruct(crops[0])
        return {"autoencoder": Loss(total, terms)}

    def reconstruct(self, x: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Reconstruction of x in training mode, L_pixel + beta KL, and the terms."""
        mean, log_variance = self.encoder(x)
        z = mean + (0.5 * log_variance).exp() * noise_like(mean) if self.noisy else mean
        reconstruction = self.decoder(z)
        pixel = pixel_loss(x, reconstruction)
        if not self.noisy:
            return reconstruction, pixel, {"pixel": pixel.detach()}
        kl = kl_per_feature(mean, log_variance)
        active = (processes.averaged(kl.detach()) > ACTIVE_NATS).sum()
        terms = {"pixel": pixel.detach(), "kl": kl.sum().detach(), "active_features": active}
        return reconstruction, pixel + self.beta * kl.sum(), terms  # sum over Z, not mean

    def embed(self, crops: Tensor) -> Tensor:
        """The mean of each cell's posterior."""
        return self.encoder(crops)[0]

    def decode(self, z: Tensor) -> Tensor:
        """The decoder's picture of each embedding."""
        return self.decoder(z)


class VAE(AE):
    """Variational autoencoder: noise around the mean, and a standard normal prior with weight beta."""

    beta_default = 1.0
    noise_default = True


# 3.3 Transition from pixel-wise to adversarial-driven reconstructions.


def gammas(step: int, *, ramp_steps: int, layers: int, weight: float = 1.0) -> list[float]:
    """gamma_i(t) of layers i = 1..layers at step t: min(1, max(0, t / T - i)), times `weight`."""
    return [weight * min(1.0, max(0.0, step / ramp_steps - i)) for i in range(1, layers + 1)]


class VAEPlus(VAE):
    """Two players: the autoencoder, and a discriminator that learns real from reconstructed.

    There is no fooling term: the autoencoder wants the discriminator to *see the same*, not to be wrong.
    """

    batches = 2
    beta_default = 2.0

    def __init__(self, channels: int, crop_px: int, config: ModelConfig) -> None:
        super().__init__(channels, crop_px, config)
        self.values = channels * crop_px**2
        self.discriminator = Discriminator(channels, crop_px, config)

    def players(self) -> dict[str, nn.Module]:
        """The autoencoder and the discriminator."""
        return {**super().players(), "discriminator": self.discriminator}

    def optimisers(self) -> dict[str, Optimizer]:
        """Adam for the autoencoder, SGD with momentum for the discriminator."""
        sgd = SGD(self.discriminator.parameters(), lr=self.config.discriminator_learning_rate, momentum=0.9)
        return {**super().optimisers(), "discriminator": sgd}

    def losses(self, crops: Tensor, step: int) -> dict[str, Loss]:
        """Both players' losses from crops (2, B, C, S, S): B1 is reconstructed, B2 is the independent real batch."""
        x, independent = crops
        reconstruction, vae_loss, terms = self.reconstruct(x)
        weights = gammas(
            step,
            ramp_steps=self.config.ramp_steps,
            layers=self.config.feature_layers,
            weight=self.config.feature_weight,
        )
        n_layers = sum(weight > 0 for weight in weights)
        pairs, real_logits, fake_logits = self.discriminator(independent, reconstruction, x, n_layers=n_layers)

        similarity = torch.zeros((), device=x.device)
        for i, (weight, (of_x, of_reconstruction)) in enumerate(zip(weights, pairs), start=1):
            feature_loss = self.feature_loss(of_x, of_reconstruction)
            similarity = similarity + weight * feature_loss
            terms[f"feature_{i}"] = feature_loss.detach()
        terms |= {f"gamma_{i}": torch.full((), weight, device=x.device) for i, weight in enumerate(weights, start=1)}

        # mean over both batches, 1 for real and 0 for reconstructed
        cross_entropy = (F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()) / 2
        right = ((real_logits > 0).float().mean() + (fake_logits <= 0).float().mean()) / 2
        return {
            "autoencoder": Loss(vae_loss + similarity, terms),
            "discriminator": Loss(cross_entropy, {"cross_entropy": cross_entropy.detach(), "accuracy": right.detach()}),
        }

    def feature_loss(self, of_x: Tensor, of_reconstruction: Tensor) -> Tensor:
        """L_i: half the squared difference of a discriminator layer, by the scale that the config names."""
        squares = (full_precision(of_x) - full_precision(of_reconstruction)).square()
        if self.config.feature_loss_scale == "image":
            return 0.5 * self.values * squares.mean()
        return 0.5 * squares.flatten(1).sum(1).mean()
