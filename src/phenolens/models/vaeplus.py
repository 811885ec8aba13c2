"""AE, VAE and VAE+, in the order of sections 3.2 to 3.4 of Lafarge et al. 2019; docs/ledger.md lists the differences.

B cells per batch, C channels, crops of S px, Z latent size, M side of the last feature map (S = 8 M + 28: 5 for 68).
x: crops, each channel of each crop divided by its own maximum; z: embeddings.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, Optimizer

from phenolens.core.bounds import Count
from phenolens.core.errors import InputError
from phenolens.core.keywords import checked
from phenolens.models import processes
from phenolens.models.config import AEConfig, AutoencoderConfig, BetaVAEConfig, ModelConfig, VAEConfig, VAEPlusConfig
from phenolens.models.interface import Batch, Loss, Player, Trained, latent_names
from phenolens.models.layers import (
    Convolution,
    TransposedConvolution,
    UpsampleTransposedConvolution,
    UpsampleTransposedConvolutionByParity,
    full_precision,
    in_picture_order,
    noise_like,
)

ACTIVE_NATS = 0.01  # a feature with more KL than this is in use
KERNEL_PX = 5
LEAK = 0.01

# 3.2 The VAE framework.


def decaying(module: nn.Module, optimiser: Optimizer, config: AutoencoderConfig) -> Player:
    """A player whose kernels decay as the settings say."""
    decay = {"multiplicative": "kernel_decay", "gradient": "kernel_penalty"}[config.weight_decay_form]
    return Player(module, optimiser, **{decay: config.weight_decay})  # type: ignore[arg-type]


def pixel_loss(x: Tensor, reconstruction: Tensor) -> Tensor:
    """L_pixel: half the sum of squares over (C, S, S), mean over the batch."""
    return 0.5 * (x - reconstruction).square().sum((1, 2, 3)).mean()


def kl_per_feature(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL divergence of each feature (Z,) from the standard normal prior, in nats, mean over the batch."""
    return 0.5 * (log_variance.exp() + mean.square() - 1 - log_variance).mean(0)


class AE(Trained):
    """Autoencoder: the posterior's mean is decoded, without noise (unless `ae_noise`) and without a prior.

    Args:
        channels: C of the crops (B, C, S, S), each divided by its maximum.
        crop_px: S; 28 more than a multiple of 8, at least 36 px (68 in Lafarge et al. 2019).
        config: `latent_size` (Z of the embeddings (B, Z)), `width`, learning rates; docs/training.md.

    Raises:
        InputError: The side does not pass the four stages.
    """

    Config: ClassVar[type[ModelConfig]] = AEConfig
    recordable = True

    @checked
    def __init__(self, channels: Count, crop_px: Count, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config: Any = config
        self.noisy = config.ae_noise if isinstance(config, AEConfig) else True
        self.encoder = Encoder(channels, crop_px, config)
        self.decoder = Decoder(channels, crop_px, config)

    def players(self) -> dict[str, Player]:
        """Encoder and decoder learn together, with Adam and the constants of the released code."""
        module = nn.ModuleList([self.encoder, self.decoder])
        parameters = list(module.parameters())
        fused = parameters[0].is_cuda
        adam = Adam(parameters, lr=self.config.learning_rate, eps=1e-7, fused=fused)
        return {"autoencoder": decaying(module, adam, self.config)}

    def losses(self, batch: Batch) -> dict[str, Loss]:
        """Pixel loss and, with noise, beta times the KL."""
        _, total, terms = self.reconstruct(batch.x[0])
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
        return reconstruction, pixel + self.config.beta * kl.sum(), terms  # sum over Z, not mean

    def embed(self, x: Tensor) -> Tensor:
        """The mean of each cell's posterior."""
        return self.encoder(x)[0]

    def stages(self, x: Tensor) -> Tensor:
        """Means over the crop of the maps of the encoder's three stages (B, 3 width)."""
        return torch.cat([full_precision(maps).mean((2, 3)) for maps in self.encoder.maps(x)], dim=1)

    def feature_names(self) -> list[str]:
        """Latent features in the order of the encoder."""
        return latent_names(self.config.latent_size)

    def decode(self, z: Tensor) -> Tensor:
        """The decoder's reconstruction of each embedding."""
        return self.decoder(z)

    def kl(self, x: Tensor) -> Tensor | None:
        """KL divergence of each feature (Z,) from the prior, nats, mean over crops; None when trained without noise."""
        return kl_per_feature(*self.encoder(x)) if self.noisy else None


class VAE(AE):
    """Variational autoencoder: noise around the mean, and a standard normal prior with weight beta.

    Args:
        channels: C, as for AE.
        crop_px: S, as for AE.
        config: As for AE; `beta` is the weight of the KL term.

    Raises:
        InputError: As for AE.
    """

    Config: ClassVar[type[ModelConfig]] = VAEConfig

    def draw(self, n: int, seed: int) -> Tensor:
        """Decode n draws from the prior: crops (n, C, S, S)."""
        z = torch.randn(n, self.config.latent_size, generator=torch.Generator().manual_seed(seed))
        return self.decode(z.to(self.decoder.to_channels.kernel))


class BetaVAE(VAE):
    """The VAE with a stronger prior: Higgins et al. 2016. Arguments as for VAE."""

    Config: ClassVar[type[ModelConfig]] = BetaVAEConfig


# 3.3 Transition from pixel-wise to adversarial-driven reconstructions.


def gammas(step: int, *, ramp_steps: int, layers: int, weight: float = 1.0) -> list[float]:
    """gamma_i(t) of layers i = 1..layers at step t: min(1, max(0, t / T - i)), times `weight`."""
    return [weight * min(1.0, max(0.0, step / ramp_steps - i)) for i in range(1, layers + 1)]


class VAEPlus(VAE):
    """Two players: the autoencoder, and a discriminator that learns to distinguish real from reconstructed crops.

    The autoencoder is not trained to fool the discriminator: it matches the discriminator's hidden layers (Lafarge et
    al. 2019, section 3.2).

    Args:
        channels: C, as for AE.
        crop_px: S, as for AE.
        config: As for VAE; `ramp_steps`, `feature_layers` and `feature_weight` set when and how much the layers count.

    Raises:
        InputError: As for AE.
    """

    Config: ClassVar[type[ModelConfig]] = VAEPlusConfig
    draws = 2

    def __init__(self, channels: int, crop_px: int, config: VAEPlusConfig) -> None:
        super().__init__(channels, crop_px, config)
        self.values = channels * crop_px**2
        self.discriminator = Discriminator(channels, crop_px, config)

    def players(self) -> dict[str, Player]:
        """Adam for the autoencoder, SGD with momentum for the discriminator."""
        rate = self.config.discriminator_learning_rate
        sgd = SGD(self.discriminator.parameters(), lr=rate, momentum=0.9)
        return {**super().players(), "discriminator": decaying(self.discriminator, sgd, self.config)}

    def weights(self, step: int) -> list[float]:
        """The weight gamma_i of each layer of the discriminator."""
        config = self.config
        return gammas(step, ramp_steps=config.ramp_steps, layers=config.feature_layers, weight=config.feature_weight)

    def losses(self, batch: Batch) -> dict[str, Loss]:
        """Both players' losses from two draws: B1 is reconstructed, B2 is the independent real batch."""
        x, independent = batch.x
        reconstruction, vae_loss, terms = self.reconstruct(x)
        numbers = self.weights(batch.step)
        n_layers = sum(weight > 0 for weight in numbers)
        if batch.weights is None:
            weights = [torch.full((), weight, dtype=x.dtype, device=x.device) for weight in numbers]
        else:
            weights = list(batch.weights.to(x.dtype))
        pairs, real_logits, fake_logits = self.discriminator(independent, reconstruction, x, n_layers=n_layers)

        similarity = torch.zeros((), device=x.device)
        for i, (weight, (of_x, of_reconstruction)) in enumerate(zip(weights, pairs), start=1):
            feature_loss = self.feature_loss(of_x, of_reconstruction)
            similarity = similarity + weight * feature_loss
            terms[f"feature_{i}"] = feature_loss.detach()
        terms |= {f"gamma_{i}": weight for i, weight in enumerate(weights, start=1)}

        # mean over both batches, 1 for real and 0 for reconstructed
        cross_entropy = (F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()) / 2
        right = ((real_logits > 0).float().mean() + (fake_logits <= 0).float().mean()) / 2
        return {
            "autoencoder": Loss(vae_loss + similarity, terms),
            "discriminator": Loss(cross_entropy, {"cross_entropy": cross_entropy.detach(), "accuracy": right.detach()}),
        }

    def feature_loss(self, of_x: Tensor, of_reconstruction: Tensor) -> Tensor:
        """L_i: half the squared difference of a discriminator layer, scaled as `feature_loss_scale` says."""
        squares = (full_precision(of_x) - full_precision(of_reconstruction)).square()
        if self.config.feature_loss_scale == "image":
            return 0.5 * self.values * squares.mean()
        return 0.5 * squares.flatten(1).sum(1).mean()


# 3.4 Architectures. Every convolution is 5x5 and batch-normalised; the last of encoder and discriminator spans M x M.


def last_side_px(crop_px: int) -> int:
    """M, the side of the feature map that the last convolution takes in; InputError for a side that does not fit."""
    last, rest = divmod(crop_px - 28, 8)
    if rest or last < 1:
        below = max(36, 28 + 8 * last)
        raise InputError(
            f"crops are {crop_px} px wide, which does not fit the encoder's four stages; use {below} or {below + 8} px"
        )
    return last


def pooling_stages(channels: int, width: int) -> nn.ModuleList:
    """Three convolutions to `width` maps; each is followed by twofold max pooling and the leaky ReLU."""
    return nn.ModuleList([Convolution(n, width, KERNEL_PX) for n in (channels, width, width)])


class Encoder(nn.Module):
    """Crops to the posterior of each cell: sides 68 > 64/32 > 28/14 > 10/5 > 1."""

    def __init__(self, channels: int, crop_px: int, config: AutoencoderConfig) -> None:
        super().__init__()
        self.stages = pooling_stages(channels, config.width)
        size = 2 * config.latent_size
        self.head = Convolution(config.width, size, last_side_px(crop_px), normed=config.posterior_norm)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, S, S) to the posterior's mean (B, Z) and log-variance (B, Z)."""
        mean, log_variance = full_precision(self.head(self.maps(x)[-1]).flatten(1)).chunk(2, dim=1)
        return mean, log_variance

    def maps(self, x: Tensor) -> list[Tensor]:
        """The feature maps of each stage."""
        found = []
        for stage in self.stages:
            x = F.leaky_relu(F.max_pool2d(stage(x), 2), LEAK)
            found.append(x)
        return found


class Decoder(nn.Module):
    """Embeddings to crops, the encoder mirrored: sides 1 > 5/10 > 14/28 > 32/64 > 68, then 1x1 to the channels."""

    def __init__(self, channels: int, crop_px: int, config: AutoencoderConfig) -> None:
        super().__init__()
        width = config.width
        self.stages = nn.ModuleList(
            [
                TransposedConvolution(config.latent_size, width, last_side_px(crop_px)),
                UpsampleTransposedConvolution(width, width, KERNEL_PX),
                UpsampleTransposedConvolution(width, width, KERNEL_PX),
                UpsampleTransposedConvolutionByParity(width, width, KERNEL_PX),
            ]
        )
        self.to_channels = Convolution(width, channels, 1)

    def forward(self, z: Tensor) -> Tensor:
        """(B, Z) to (B, C, S, S)."""
        y = z
        for stage in self.stages:
            y = F.leaky_relu(stage(y), LEAK)
        return in_picture_order(F.leaky_relu(full_precision(self.to_channels(y)), LEAK))


class Discriminator(nn.Module):
    """Classifies crops as real or reconstructed; its hidden layers D_1..D_4 are the features to match."""

    def __init__(self, channels: int, crop_px: int, config: VAEPlusConfig) -> None:
        super().__init__()
        self.stages = pooling_stages(channels, config.width)
        self.head = Convolution(config.width, 2 * config.width, last_side_px(crop_px))
        self.to_logit = Convolution(2 * config.width, 1, 1, normed=config.logit_norm)

    def forward(
        self, independent: Tensor, fake: Tensor, x: Tensor, *, n_layers: int
    ) -> tuple[list[tuple[Tensor, Tensor]], Tensor, Tensor]:
        """[(D_i(x), D_i(fake)) for i = 1..n_layers], and the logits (B,) of the independent real batch and the fakes.

        Batch-norm moments come from [independent | fake] only; x is normalised with those, and is computed no further
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
