"""Slow, literal definitions of Lafarge et al. 2019, sections 3.2 to 3.4, that the package must agree with.

Everything is written out literally: up-sampling then padding then convolving, moments by name, one loss at a time.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from phenolens.models.layers import BN_EPS


def zero_padded_convolution(x: Tensor, kernel: Tensor) -> Tensor:
    """Zero-pad by k - 1 on every side, then convolve."""
    pad = kernel.shape[-1] - 1
    return F.conv2d(F.pad(x, (pad, pad, pad, pad)), kernel)


def upsampled(x: Tensor) -> Tensor:
    """Every pixel twice in both directions."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def normed(y: Tensor, weight: Tensor, bias: Tensor, moments_of: Tensor) -> Tensor:
    """Batch normalisation of y by the biased moments of another batch, through which gradients flow."""
    mean = moments_of.mean((0, 2, 3), keepdim=True)
    variance = ((moments_of - mean) ** 2).mean((0, 2, 3), keepdim=True)
    return (y - mean) / torch.sqrt(variance + BN_EPS) * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)


def self_normed(convolution: torch.nn.Module, y: Tensor) -> Tensor:
    """Batch normalisation by y's own moments, as the library defines it."""
    return F.batch_norm(y, None, None, convolution.norm.weight, convolution.norm.bias, training=True, eps=BN_EPS)


def encoded(encoder: torch.nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log-variance (B, Z) of the posterior."""
    for stage in encoder.stages:
        x = F.leaky_relu(F.max_pool2d(self_normed(stage, F.conv2d(x, stage.kernel)), 2), 0.01)
    head = self_normed(encoder.head, F.conv2d(x, encoder.head.kernel))
    size = head.shape[1] // 2
    return head[:, :size, 0, 0], head[:, size:, 0, 0]


def decoded(decoder: torch.nn.Module, z: Tensor) -> Tensor:
    """Crops (B, C, S, S)."""
    y = z[:, :, None, None]
    for depth, stage in enumerate(decoder.stages):
        if depth > 0:
            y = upsampled(y)
        y = F.leaky_relu(self_normed(stage, zero_padded_convolution(y, stage.kernel)), 0.01)
    return F.leaky_relu(self_normed(decoder.to_channels, F.conv2d(y, decoder.to_channels.kernel)), 0.01)


def discriminated(discriminator: torch.nn.Module, independent: Tensor, fake: Tensor, real: Tensor) -> dict[str, list]:
    """Hidden layers 1..4 and the logit of each of three batches, all normalised by the moments of the first two."""
    batches = {"independent": independent, "fake": fake, "real": real}
    layers = {name: [] for name in batches}
    for depth, stage in enumerate([*discriminator.stages, discriminator.head, discriminator.to_logit]):
        batches = {name: F.conv2d(x, stage.kernel) for name, x in batches.items()}
        moments_of = torch.cat([batches["independent"], batches["fake"]])
        batches = {name: normed(y, stage.norm.weight, stage.norm.bias, moments_of) for name, y in batches.items()}
        if depth < 3:
            batches = {name: F.max_pool2d(y, 2) for name, y in batches.items()}
        if depth < 4:
            batches = {name: F.leaky_relu(y, 0.01) for name, y in batches.items()}
        for name, y in batches.items():
            layers[name].append(y)
    return layers


def vaeplus_losses(model: torch.nn.Module, b1: Tensor, b2: Tensor, noise: Tensor, step: int) -> dict[str, Tensor]:
    """Both players' losses of one iteration, and the terms they are made of."""
    mean, log_variance = encoded(model.encoder, b1)
    fake = decoded(model.decoder, mean + torch.exp(log_variance / 2) * noise)
    layers = discriminated(model.discriminator, b2, fake, b1)
    n = len(b1)
    pixel = 0.5 * ((b1 - fake) ** 2).sum() / n
    kl = 0.5 * (log_variance.exp() + mean**2 - 1 - log_variance).sum() / n
    values = b1[0].numel()
    feature = [0.5 * values * ((layers["real"][i] - layers["fake"][i]) ** 2).mean() for i in range(4)]
    gamma = [min(1.0, max(0.0, step / model.config.ramp_steps - i)) for i in (1, 2, 3, 4)]
    real, fooled = torch.sigmoid(layers["independent"][4]), torch.sigmoid(layers["fake"][4])
    return {
        "autoencoder": pixel + 2 * kl + sum(g * f for g, f in zip(gamma, feature)),
        "discriminator": -(torch.log(real).mean() + torch.log(1 - fooled).mean()) / 2,
        "pixel": pixel,
        "kl": kl,
        **{f"feature_{i}": f for i, f in enumerate(feature, start=1)},
    }


def vae_losses(model: torch.nn.Module, b1: Tensor, noise: Tensor | None, beta: float) -> dict[str, Tensor]:
    """The one player's loss of an AE (no noise) or a VAE, and its terms."""
    mean, log_variance = encoded(model.encoder, b1)
    fake = decoded(model.decoder, mean if noise is None else mean + torch.exp(log_variance / 2) * noise)
    pixel = 0.5 * ((b1 - fake) ** 2).sum() / len(b1)
    kl = 0.5 * (log_variance.exp() + mean**2 - 1 - log_variance).sum() / len(b1)
    return {"autoencoder": pixel + beta * kl, "pixel": pixel, "kl": kl}


class Iteration:
    """One iteration of VAE+ written out: all gradients at the same weights, Adam, SGD with momentum, decay."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        self.adam = [*model.encoder.parameters(), *model.decoder.parameters()]
        self.sgd = list(model.discriminator.parameters())
        self.kernels = [parameter for parameter in model.parameters() if parameter.ndim == 4]
        self.first = [torch.zeros_like(p) for p in self.adam]
        self.second = [torch.zeros_like(p) for p in self.adam]
        self.velocity = [torch.zeros_like(p) for p in self.sgd]
        self.done = 0

    def __call__(self, b1: Tensor, b2: Tensor, noise: Tensor, step: int) -> dict[str, Tensor]:
        """One iteration; its losses, before the step."""
        losses = vaeplus_losses(self.model, b1, b2, noise, step)
        of_autoencoder = torch.autograd.grad(losses["autoencoder"], self.adam, retain_graph=True)
        of_discriminator = torch.autograd.grad(losses["discriminator"], self.sgd)
        self.done += 1
        with torch.no_grad():
            for p, g, m, v in zip(self.adam, of_autoencoder, self.first, self.second):
                m.mul_(0.9).add_(0.1 * g)
                v.mul_(0.999).add_(0.001 * g**2)
                unbiased_m, unbiased_v = m / (1 - 0.9**self.done), v / (1 - 0.999**self.done)
                p.sub_(1e-3 * unbiased_m / (unbiased_v.sqrt() + 1e-7))
            for p, g, velocity in zip(self.sgd, of_discriminator, self.velocity):
                velocity.mul_(0.9).add_(g)
                p.sub_(1e-2 * velocity)
            for kernel in self.kernels:
                kernel.mul_(1 - 1e-4)
        return losses
