"""VAE+ as a good engineer would write it in plain PyTorch: the yardstick of benchmarks/train.py.

The same mathematics as phenolens.models.vaeplus and the same order of parameters, with torch's own modules.
"""

import torch
from torch import Tensor, nn
from torch._functorch import config as functorch
from torch.nn import functional as F

from phenolens.models.vaeplus import VAEPlus, gammas
from phenolens.training.device import Compute

LEAK, DECAY = 0.01, 1e-4


def convolution(n_in: int, n_out: int, side: int, padding: int = 0) -> nn.Sequential:
    """A convolution without bias and its batch normalisation."""
    return nn.Sequential(nn.Conv2d(n_in, n_out, side, padding=padding, bias=False), nn.BatchNorm2d(n_out))


def pooled(n_in: int, n_out: int) -> list[nn.Module]:
    """A stage of the encoder."""
    return [convolution(n_in, n_out, 5), nn.MaxPool2d(2), nn.LeakyReLU(LEAK)]


class Discriminator(nn.Module):
    """Real and reconstructed crops as one batch; originals are normalised by its moments."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        sizes = [(channels, width, 5), (width, width, 5), (width, width, 5), (width, 2 * width, 5), (2 * width, 1, 1)]
        self.layers = nn.ModuleList(convolution(*size) for size in sizes)

    def forward(self, both: Tensor, x: Tensor, n_layers: int) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
        """Pairs of hidden layers (originals, reconstructions), and the logits of the batch."""
        pairs = []
        for i, (convolve, norm) in enumerate(self.layers, start=1):
            y = convolve(both)
            both = norm(y)
            if i <= n_layers:
                variance, mean = torch.var_mean(y.float(), (0, 2, 3), correction=0, keepdim=True)
                scale = norm.weight.view(1, -1, 1, 1) * (variance + norm.eps).rsqrt()
                x = ((convolve(x) - mean) * scale + norm.bias.view(1, -1, 1, 1)).to(both.dtype)
            if i <= 3:
                both = F.max_pool2d(both, 2)
                x = F.max_pool2d(x, 2) if i <= n_layers else x
            if i <= 4:
                both = F.leaky_relu(both, LEAK)
            if i <= n_layers:
                x = F.leaky_relu(x, LEAK)
                pairs.append((x, both[len(both) // 2 :]))
        return pairs, both.flatten().float()


class PlainVAEPlus(nn.Module):
    """The three networks, for crops of 68 px."""

    def __init__(self, channels: int, width: int = 32, latent: int = 256) -> None:
        super().__init__()
        stages = [*pooled(channels, width), *pooled(width, width), *pooled(width, width)]
        self.encoder = nn.Sequential(*stages, convolution(width, 2 * latent, 5))
        stages = []
        for place, n_in in enumerate((latent, width, width, width)):
            stages += [nn.Upsample(scale_factor=2)] * (place > 0)
            stages += [convolution(n_in, width, 5, padding=4), nn.LeakyReLU(LEAK)]
        self.decoder = nn.Sequential(*stages, convolution(width, channels, 1), nn.LeakyReLU(LEAK))
        self.discriminator = Discriminator(channels, width)

    def losses(self, x: Tensor, independent: Tensor, noise: Tensor, weights: list[float]) -> tuple[Tensor, Tensor]:
        """The losses of the autoencoder and of the discriminator."""
        mean, log_variance = self.encoder(x).flatten(1).float().chunk(2, dim=1)
        z = mean + (0.5 * log_variance).exp() * noise
        fake = self.decoder(z[:, :, None, None]).float()
        pairs, logits = self.discriminator(torch.cat([independent, fake]), x, sum(weight > 0 for weight in weights))
        loss = 0.5 * (x - fake).square().sum() / len(x)
        loss = loss + 2 * 0.5 * (log_variance.exp() + mean.square() - 1 - log_variance).sum() / len(x)
        for weight, (of_x, of_fake) in zip(weights, pairs):
            loss = loss + weight * 0.5 * x[0].numel() * (of_x.float() - of_fake.float()).square().mean()
        target = torch.cat([torch.ones_like(logits[: len(x)]), torch.zeros_like(logits[len(x) :])])
        return loss, F.binary_cross_entropy_with_logits(logits, target)


class PlainTraining:
    """An iteration: both gradients at the same weights, both steps, decay of the kernels."""

    def __init__(self, model: PlainVAEPlus, like: VAEPlus, compute: Compute, *, compiled: bool) -> None:
        with torch.no_grad():
            for own, theirs in zip(model.parameters(), like.parameters()):
                own.copy_(theirs)
        self.model = compute.place(model).train()
        self.compute = compute
        if compiled:
            functorch.donated_buffer = False  # two losses go back through one forward pass
            for network in self.model.children():
                network.compile()
        self.autoencoder = [*model.encoder.parameters(), *model.decoder.parameters()]
        self.discriminator = list(model.discriminator.parameters())
        self.adam = torch.optim.Adam(self.autoencoder, lr=1e-3, eps=1e-7, fused=compute.device.type == "cuda")
        self.sgd = torch.optim.SGD(self.discriminator, lr=1e-2, momentum=0.9)
        self.kernels = [parameter for parameter in model.parameters() if parameter.ndim == 4]

    def __call__(self, x: Tensor, independent: Tensor, noise: Tensor, step: int) -> Tensor:
        """Do one iteration; the autoencoder's loss before it."""
        weights = gammas(step, ramp_steps=2500, layers=4)
        with self.compute.autocast():
            of_autoencoder, of_discriminator = self.model.losses(x, independent, noise, weights)
        self.adam.zero_grad()
        self.sgd.zero_grad()
        of_autoencoder.backward(inputs=self.autoencoder, retain_graph=True)
        of_discriminator.backward(inputs=self.discriminator)
        self.adam.step()
        self.sgd.step()
        with torch.no_grad():
            torch._foreach_mul_(self.kernels, 1 - DECAY)
        return of_autoencoder.detach()
