"""A decoder for the embeddings of any run: conditional flow matching, from noise to pictures of cells.

B cells per batch, C channels, S crop side in px, Z features of an embedding, K numbers of its code.

A crop is x = g + SCALE y, with g a coarse layout of the cell. The network learns the velocity of
y_t = (1 - t) noise + t y from t, g and the code of the embedding. Integrated from noise at t = 0 it draws a cell at
t = 1; integrated backwards from a real cell it finds the noise that draws this very cell. What the embedding does not
determine is random, or kept from a real cell. Lipman et al. 2023, "Flow matching for generative modeling"; Liu et al.
2023, "Flow straight and fast".
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from phenolens.models.config import FlowConfig, ModelConfig
from phenolens.models.interface import Batch, Drawing, Loss, Player, Source, mean_over_turns, randomly_turned, turned
from phenolens.models.muon import Muon
from phenolens.models.pca import principal_components

SCALE = 0.25  # about the standard deviation of a crop around its coarse layout
CODE_NOISE = 0.05  # standard deviations of a code added in training, so that neighbouring codes draw alike
LAYOUT_DROPPED = 0.2  # share of training crops drawn without their layout
KEPT = 0.999  # share of the averaged weights kept at each step, less at the start
EMBEDDED_TIME = 64
CHANGE_STEPS = 8  # there and back; more than to draw, so that a cell that is not changed stays itself to 0.1 %
KERNEL_RATE = 20  # learning rate of kernels (Muon) over that of the other parameters (AdamW)
AT_ONCE = 64  # cells that pass the network at once
RECORDS = 10  # of the history, that are averaged
FAIR_STEPS, NOISE = 500, 0.5  # an error of the velocity above this is noise; cells have 0.1 to 0.2
RIDGE = 10.0  # cells' worth of shrinkage of what a code says about the layout
LAYOUT_CROPS = 512  # crops, each in eight orientations, that the layout's components are made of


class Flow(Drawing):
    """Draws cells from embeddings: from noise, from the layout of a real cell, or a real cell changed."""

    Config: ClassVar[type[ModelConfig]] = FlowConfig

    def __init__(self, channels: int, crop_px: int, config: FlowConfig) -> None:
        super().__init__()
        self.config, self.shape = config, (channels, crop_px, crop_px)
        values = channels * crop_px**2
        self.network = Velocity(channels, config.code_size, config.flow_width)
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.layout_mean: Tensor
        self.layout_components: Tensor
        self.register_buffer("layout_mean", torch.zeros(values))
        self.register_buffer("layout_components", torch.zeros(config.layout_size, values))

    def take(self, source: Source) -> None:
        """Set the shape of the code's components."""
        super().take(source)
        self.code_mean: Tensor
        self.code_components: Tensor
        self.register_buffer("code_mean", torch.zeros(source.features))
        self.register_buffer("code_components", torch.zeros(self.config.code_size, source.features))
        self.layout_of_code: Tensor
        self.register_buffer("layout_of_code", torch.zeros(self.config.code_size, self.config.layout_size))

    def prepare(self, z: Tensor, x: Tensor) -> None:
        """Fit code and layout, by principal components, to embeddings (n, Z) and crops (n, C, S, S).

        Then what a code says about the layout, by ridge regression. Embeddings without an orientation say nothing about
        that of the layout: it is the mean over the eight.
        """
        mean, components, variances = principal_components(z, min(self.config.code_size, len(z) - 1, z.shape[1]))
        self.code_mean.copy_(mean)
        scale = variances.clamp_min(1e-6 * variances[0]).rsqrt()[:, None]
        self.code_components[: len(components)].copy_(components * scale)
        views = torch.cat([turned(x[:LAYOUT_CROPS], turn) for turn in range(8)]).flatten(1)
        mean, components, _ = principal_components(views, min(self.config.layout_size, len(views) - 1))
        self.layout_mean.copy_(mean)
        self.layout_components[: len(components)].copy_(components)
        code = self.code(z)
        layouts = mean_over_turns(self._layout_numbers, x, self.source.turns)
        squares = code.T @ code + RIDGE * torch.eye(self.config.code_size, device=z.device)
        self.layout_of_code.copy_(torch.linalg.solve(squares, code.T @ (layouts - layouts.mean(0))))

    def code(self, z: Tensor) -> Tensor:
        """Embeddings (B, Z) to codes (B, code_size) of mean 0 and variance 1 over the cells of `prepare`."""
        with torch.autocast(z.device.type, enabled=False):
            return (z.float() - self.code_mean) @ self.code_components.T

    def layout(self, x: Tensor) -> Tensor:
        """The coarse layout (B, C, S, S) of crops: their projection on a few principal components of all crops."""
        with torch.autocast(x.device.type, enabled=False):
            return (self._layout_numbers(x) @ self.layout_components + self.layout_mean).unflatten(1, self.shape)

    def _layout_numbers(self, x: Tensor) -> Tensor:
        return (x.float().flatten(1) - self.layout_mean) @ self.layout_components.T

    def no_layout(self, n: int) -> Tensor:
        """The layout of an unknown cell: the mean of all crops."""
        return self.layout_mean.unflatten(0, self.shape).expand(n, *self.shape)

    def players(self) -> dict[str, Player]:
        """The network; the kernels of its blocks learn by Muon."""
        kernels = self.network.hidden_kernels()
        others = [each for each in self.network.parameters() if not any(each is kernel for kernel in kernels)]
        rate = self.config.flow_rate
        optimiser = Muon(kernels, others, kernel_rate=rate, rate=rate / KERNEL_RATE)
        return {"decoder": Player(self.network, optimiser, clip=1.0)}

    def losses(self, batch: Batch) -> dict[str, Loss]:
        """Squared error of the velocity at a random time, in a random orientation where the embedding has none."""
        assert batch.z is not None
        x, z = batch.x[0], batch.z[0]
        self._average(batch.step)
        if self.source.turns == 8:
            x = randomly_turned(x)
        code = self.code(z)
        code = code + CODE_NOISE * torch.randn_like(code)
        known = (torch.rand(len(x), 1, 1, 1, device=x.device) >= LAYOUT_DROPPED).float()
        g = torch.lerp(self.no_layout(len(x)), self.layout(x), known)
        y = (x - g) / SCALE
        noise = torch.randn_like(y)
        t = torch.sigmoid(torch.randn(len(x), device=x.device))
        at = t[:, None, None, None]
        velocity = self.network(torch.lerp(noise, y, at), t, code, self._seen(g))
        loss = (velocity.float() - (y - noise)).square().mean()
        return {"decoder": Loss(loss, {"velocity": loss.detach()})}

    def verdicts(self, history: Sequence[Mapping[str, float]]) -> list[str]:
        """Whether pictures are still noise after a fair number of steps."""
        error = fmean(record["decoder.velocity"] for record in history[-RECORDS:])
        if history[-1]["step"] < FAIR_STEPS or error < NOISE:
            return []
        return [f"the decoder still draws noise: its error is above {NOISE}; give more --steps or another --flow-rate"]

    def decode(self, z: Tensor) -> Tensor:
        """A cell of each embedding, without a real cell's layout, all from the same noise."""
        noise = self._noise(0).to(z.device).expand(len(z), *self.shape)
        return self._drawn(noise, self.code(z), self.no_layout(len(z)))

    def redraw(self, x: Tensor, z: Tensor, *, seeds: Sequence[int]) -> Tensor:
        """Draw cells with the layout of crops x and embeddings z, each from the noise of its seed."""
        noise = torch.stack([self._noise(seed) for seed in seeds]).to(x.device)
        return self._drawn(noise, self.code(z), self.layout(x))

    def changed(self, x: Tensor, z: Tensor, to: Tensor, *, emphasis: float = 0.0) -> Tensor:
        """Find the noise of crops x with embeddings z, and draw it with embeddings `to`.

        A layout changes as far as embeddings determine it, so that nuclei can grow and cells shrink. What the other
        embedding changes in the velocity counts 1 + `emphasis` times: a cell's own noise holds it back. Always in
        float32: an inversion in bfloat16 does not return to the cell.
        """
        with torch.autocast(x.device.type, enabled=False):
            code, to_code, g = self.code(z), self.code(to), self.layout(x)
            noise = integrated((x - g) / SCALE, self._velocity(code, g), start=1, end=0, steps=CHANGE_STEPS)
            own = self._velocity(code.expand_as(to_code), g.expand(len(to), *self.shape))
            g = g + ((to_code - code) @ self.layout_of_code @ self.layout_components).unflatten(1, self.shape)
            other = self._velocity(to_code, g)

            def emphasised(y: Tensor, t: float) -> Tensor:
                velocity = other(y, t)
                return velocity + emphasis * (velocity - own(y, t)) if emphasis else velocity

            noise = noise.expand(len(to), *self.shape)
            return g + SCALE * integrated(noise, emphasised, start=0, end=1, steps=CHANGE_STEPS)

    def _noise(self, seed: int) -> Tensor:
        return torch.randn(self.shape, generator=torch.Generator().manual_seed(seed))

    def _drawn(self, noise: Tensor, code: Tensor, g: Tensor) -> Tensor:
        """Crops of codes and layouts g, from noise."""
        return g + SCALE * integrated(noise, self._velocity(code, g), start=0, end=1, steps=self.config.draw_steps)

    def _velocity(self, code: Tensor, g: Tensor) -> "Field":
        """The velocity dy/dt of cells with these codes and layouts, by the averaged weights."""
        seen = self._seen(g)

        def velocity(y: Tensor, t: float) -> Tensor:
            parts = zip(y.split(AT_ONCE), code.split(AT_ONCE), seen.split(AT_ONCE))
            return torch.cat(
                [self.average(part, part.new_full((len(part),), t), *given).float() for part, *given in parts]
            )

        return velocity

    def _seen(self, g: Tensor) -> Tensor:
        """The layout as the network takes it in."""
        return (g - self.layout_mean.unflatten(0, self.shape)) / SCALE

    @torch.no_grad()
    def _average(self, step: int) -> None:
        """Follow the weights, which are those after `step` steps, with the averaged ones."""
        kept = min(KEPT, (1 + step) / (10 + step))
        for average, weight in zip(self.average.parameters(), self.network.parameters()):
            average.lerp_(weight, 1 - kept)


Field = Callable[[Tensor, float], Tensor]  # pictures (B, C, S, S) and a time to their velocity


def integrated(y: Tensor, velocity: Field, *, start: float, end: float, steps: int) -> Tensor:
    """Integrate dy/dt from `start` to `end` by Heun's method."""
    h = (end - start) / steps
    for step in range(steps):
        t = start + step * h
        first = velocity(y, t)
        second = velocity(y + h * first, t + h)
        y = y + h * (first + second) / 2
    return y


class Velocity(nn.Module):
    """The velocity dy/dt (B, C, S, S): a U-Net on blocks of 2 x 2 px, with one halving."""

    def __init__(self, channels: int, code_size: int, width: int) -> None:
        super().__init__()
        size = 2 * width
        self.time = nn.Sequential(nn.Linear(EMBEDDED_TIME, size), nn.SiLU(), nn.Linear(size, size))
        self.code = nn.Sequential(nn.Linear(code_size, size), nn.SiLU(), nn.Linear(size, size))
        self.first = nn.Conv2d(8 * channels, width, 3, padding=1)
        self.down = Residual(width, width, size)
        self.coarser = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.middle = nn.ModuleList([Residual(2 * width, 2 * width, size), Residual(2 * width, 2 * width, size)])
        self.finer = nn.Conv2d(2 * width, width, 1)
        self.up = Residual(2 * width, width, size)
        self.last = nn.Conv2d(width, 4 * channels, 3, padding=1)
        nn.init.zeros_(self.last.weight)

    def hidden_kernels(self) -> list[nn.Parameter]:
        """The kernels between the first and the last layer."""
        ends = (self.first.weight, self.last.weight)
        return [each for each in self.parameters() if each.ndim == 4 and not any(each is end for end in ends)]

    def forward(self, y: Tensor, t: Tensor, code: Tensor, layout: Tensor) -> Tensor:
        """y and layout (B, C, S, S), t (B,) from 0 to 1, code (B, code_size)."""
        frequencies = torch.exp(torch.arange(EMBEDDED_TIME // 2, device=t.device) * (-math.log(1000) / 31))
        angles = 100 * t[:, None] * frequencies
        given = F.silu(self.time(torch.cat([angles.sin(), angles.cos()], dim=1)) + self.code(code))
        side, more = y.shape[-1], -y.shape[-1] % 4  # blocks come in pairs
        pictures = F.pad(torch.cat([y, layout], dim=1), (0, more, 0, more)) if more else torch.cat([y, layout], dim=1)
        blocks = F.pixel_unshuffle(pictures, 2)
        kept = self.down(self.first(blocks.contiguous(memory_format=torch.channels_last)), given)
        h = self.coarser(kept)
        for block in self.middle:
            h = block(h, given)
        h = F.interpolate(self.finer(h), size=kept.shape[-2:], mode="nearest")
        h = self.up(torch.cat([h, kept], dim=1), given)
        return F.pixel_shuffle(self.last(h), 2)[..., :side, :side]


class Residual(nn.Module):
    """Two convolutions and a skip connection; time and code scale and shift the maps between them (FiLM)."""

    def __init__(self, n_in: int, n_out: int, n_given: int) -> None:
        super().__init__()
        self.norm_in, self.norm_out = Norm(n_in), Norm(n_out)
        self.conv_in, self.conv_out = nn.Conv2d(n_in, n_out, 3, padding=1), nn.Conv2d(n_out, n_out, 3, padding=1)
        self.film = nn.Linear(n_given, 2 * n_out)
        self.skip = nn.Conv2d(n_in, n_out, 1) if n_in != n_out else nn.Identity()
        nn.init.zeros_(self.conv_out.weight)

    def forward(self, x: Tensor, given: Tensor) -> Tensor:
        """Maps (B, n_in, H, W) and given (B, n_given) to (B, n_out, H, W)."""
        scale, shift = self.film(given)[:, :, None, None].chunk(2, dim=1)
        h = self.norm_out(self.conv_in(F.silu(self.norm_in(x))))
        return self.skip(x) + self.conv_out(F.silu(h * (1 + scale) + shift))


class Norm(nn.GroupNorm):
    """Group normalisation in float32, also of maps in bfloat16, in which processors are slow at it."""

    def __init__(self, n: int) -> None:
        super().__init__(8, n)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, n, H, W) to normalised ones."""
        return super().forward(x.float())
