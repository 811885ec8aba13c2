"""Layers: initial weights, batch normalisation, convolutions and transposed convolutions in a fast, exact form.

B cells per batch, C channels, crops of S px, Z latent size, k kernel side in px. A transposed convolution of stride 1
zero-pads by k - 1 and convolves. tests/naive.py has the literal definitions.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from phenolens.models import processes

BN_EPS = 1e-5
BN_KEPT = 0.9  # share of the old running average kept at each step


def initialised_kernel(out_channels: int, in_channels: int, kernel_px: int) -> nn.Parameter:
    """A kernel (out, in, k, k), normal with std sqrt(2 / (k k in + out))."""
    std = math.sqrt(2 / (kernel_px**2 * in_channels + out_channels))
    return nn.Parameter(torch.randn(out_channels, in_channels, kernel_px, kernel_px) * std)


class BatchNorm(nn.Module):
    """Batch normalisation whose moments can be taken from some of the maps only, over all processes.

    Biased variance, also in the running averages; gradients flow through the moments. In evaluation mode the running
    averages are used, which become the moments of the next batch first while `measures` is set.
    """

    measures = False

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, y: Tensor) -> Tensor:
        """Normalise maps y (B, channels, H, W) by their own moments."""
        return self.together([y], n_moments=1)[0]

    def together(self, ys: list[Tensor], *, n_moments: int) -> list[Tensor]:
        """Normalise several batches of maps (B, channels, H, W) by the joint moments of the first `n_moments`."""
        if self.measures:
            values = torch.cat(ys[:n_moments]).transpose(0, 1).flatten(1).float()
            self.running_mean.copy_(values.mean(1))
            self.running_var.copy_(values.var(1, correction=0))
        if not self.training:
            moments = self.running_mean, self.running_var
            return [F.batch_norm(y, *moments, self.weight, self.bias, eps=BN_EPS) for y in ys]
        if len(ys) == 1 and processes.count() == 1:  # torch's own kernel computes the same
            *normed, mean, inverse_std = torch.native_batch_norm(
                ys[0], self.weight, self.bias, None, None, True, 0.0, BN_EPS
            )
            variance = inverse_std**-2 - BN_EPS
        else:
            *normed, mean, variance = _NormByJointMoments.apply(self.weight, self.bias, n_moments, *ys)
        with torch.no_grad():
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), 1 - BN_KEPT)
            self.running_var.lerp_(variance.to(self.running_var.dtype), 1 - BN_KEPT)
        return normed


class _NormByJointMoments(torch.autograd.Function):
    """h = (y - mean) / std of every map, times weight plus bias; mean and std over the first maps of all processes.

    With g = d out * weight, all maps add to the gradients of the moments and only the first ones receive them:
    d y = (g - [first] * (sum g + h * sum(g h)) / count) / std, sums and count over everything and all processes.
    """

    @staticmethod
    def forward(ctx, weight, bias, n_moments, *ys):  # type: ignore[no-untyped-def]  # autograd's own signature
        own = [
            torch.stack([*torch.batch_norm_update_stats(y, None, None, 0.0), torch.full_like(weight, y[:, 0].numel())])
            for y in ys[:n_moments]
        ]
        means, variances, counts = processes.gathered(torch.stack(own)).flatten(0, 1).unbind(1)
        count = counts.sum(0)
        mean = (counts * means).sum(0) / count
        variance = (counts * (variances + (means - mean) ** 2)).sum(0) / count
        ctx.save_for_backward(weight, mean, (variance + BN_EPS).rsqrt(), count, *ys)
        ctx.n_moments = n_moments
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(mean, variance)
        return *(F.batch_norm(y, mean, variance, weight, bias, eps=BN_EPS) for y in ys), mean, variance

    @staticmethod
    def backward(ctx, *d_outs):  # type: ignore[no-untyped-def]
        weight, mean, inverse_std, count, *ys = ctx.saved_tensors
        d_weight, d_bias = torch.zeros_like(mean), torch.zeros_like(mean)
        for y, d_out in zip(ys, d_outs):
            if d_out is not None:
                _, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
                    d_out, y, weight, None, None, mean, inverse_std, True, BN_EPS, [False, True, True]
                )
                d_weight, d_bias = d_weight + of_weight, d_bias + of_bias  # sum(d out * h) and sum(d out)
        sum_dh, sum_d = processes.summed(torch.stack([d_weight, d_bias])) / count
        scale = weight * inverse_std
        slope = -scale * inverse_std * sum_dh
        level = -scale * sum_d - slope * mean
        d_ys: list[Tensor | None] = []
        for place, (y, d_out) in enumerate(zip(ys, d_outs)):
            level_of, slope_of, scale_of = (_along_channels(values, y) for values in (level, slope, scale))
            d_y = torch.addcmul(level_of, y, slope_of) if place < ctx.n_moments else None
            if d_out is not None:
                d_y = d_out * scale_of if d_y is None else d_y.addcmul_(d_out, scale_of)
            d_ys.append(d_y)
        return d_weight, d_bias, None, *d_ys


def noise_like(x: Tensor, draw: Callable[..., Tensor] = torch.randn) -> Tensor:
    """Noise shaped as x (B, ...), standard normal or by `draw`: this process's rows of that of the whole batch."""
    return processes.own_rows(draw(len(x) * processes.count(), *x.shape[1:], dtype=x.dtype, device=x.device))


def full_precision(x: Tensor) -> Tensor:
    """At least float32, whatever precision the convolutions used."""
    return x.float() if x.dtype == torch.bfloat16 else x


def _along_channels(values: Tensor, y: Tensor) -> Tensor:
    """(channels,) shaped to broadcast over y (B, channels, H, W), in y's type."""
    return values.to(y.dtype).view(1, -1, 1, 1)


def transposed_convolution_of_points(z: Tensor, kernel: Tensor) -> Tensor:
    """Transposed convolution of z (B, Z), taken as 1x1 maps, with kernel (out, Z, k, k): (B, out, k, k).

    Each output pixel depends on one tap, so this is one matrix product with the kernel rotated by 180 degrees.
    """
    out_channels, _, k, _ = kernel.shape
    taps = kernel.flip(2, 3).permute(1, 2, 3, 0).flatten(1)  # (Z, k k out)
    return (z @ taps).view(len(z), k, k, out_channels).permute(0, 3, 1, 2)


def taps_onto_source() -> Tensor:
    """(parity, source row, tap): 1 where a tap of a 5-tap kernel falls on that row of the map before up-sampling."""
    even = [[1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]]
    odd = [[1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 1]]
    return torch.tensor([even, odd], dtype=torch.get_default_dtype())


def transposed_convolution_of_upsampled(y: Tensor, kernel: Tensor, onto: Tensor) -> Tensor:
    """Up-sample y (B, in, H, W) twofold (nearest), then a transposed convolution with kernel (out, in, 5, 5).

    The five taps of an even output row fall on source rows (-2 -2 -1 -1 0), of an odd one on (-2 -1 -1 0 0), so four
    3x3 convolutions of the small map, one a parity of row and column, give (B, out, 2 H + 4, 2 W + 4) exactly: 36 taps
    for four output pixels instead of 100. `onto` are the `taps_onto_source`, on the device of the kernel.
    """
    return F.pixel_shuffle(F.conv2d(y, _by_parity(kernel, onto, "opqiab"), padding=2), 2)


def transposed_convolution_by_parity(y: Tensor, kernel: Tensor, onto: Tensor) -> Tensor:
    """The same pixels sorted by parity, which saves a copy: (B, out, H + 2, 4 W + 8).

    Each column of the small map becomes four, of (row parity, column parity) 00, 01, 10 and 11. Operations on single
    pixels do not depend on this order; `in_picture_order` restores the picture.
    """
    parts = F.conv2d(y, _by_parity(kernel, onto, "pqoiab"), padding=2).permute(0, 2, 3, 1)
    return parts.reshape(*parts.shape[:2], -1, len(kernel)).permute(0, 3, 1, 2)


def in_picture_order(parts: Tensor) -> Tensor:
    """Pixels sorted as by `transposed_convolution_by_parity` (B, C, H, 4 W) to the picture (B, C, 2 H, 2 W)."""
    n, channels, rows, columns = parts.shape
    pixels = parts.unflatten(3, (columns // 4, 2, 2)).permute(0, 2, 4, 3, 5, 1)
    return pixels.reshape(n, 2 * rows, columns // 2, channels).permute(0, 3, 1, 2)


def _by_parity(kernel: Tensor, onto: Tensor, order: str) -> Tensor:
    """The four 3x3 kernels (4 out, in, 3, 3) that act on the map before up-sampling; o, p and q in this order."""
    with torch.autocast(kernel.device.type, enabled=False):
        onto = onto.to(kernel.dtype)
        small = torch.einsum(f"oikl,pak,qbl->{order}", kernel, onto, onto).flatten(0, 2)
        return small.contiguous(memory_format=torch.channels_last)


class Convolution(nn.Module):
    """A "valid" convolution with batch normalisation, or with a bias where it is not normalised."""

    def __init__(self, in_channels: int, out_channels: int, kernel_px: int, *, normed: bool = True) -> None:
        super().__init__()
        self.kernel = initialised_kernel(out_channels, in_channels, kernel_px)
        self.norm = BatchNorm(out_channels) if normed else None
        self.bias = None if normed else nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) to (B, out, H - k + 1, W - k + 1)."""
        return self.together([x], n_moments=1)[0]

    def together(self, xs: list[Tensor], *, n_moments: int) -> list[Tensor]:
        """The same for several batches, normalised by the joint moments of the first `n_moments` of them."""
        ys = [self.convolved(x) for x in xs]
        return ys if self.norm is None else self.norm.together(ys, n_moments=n_moments)

    def convolved(self, x: Tensor) -> Tensor:
        """Before normalisation."""
        return F.conv2d(x, self.kernel, self.bias)


class TransposedConvolution(Convolution):
    """Transposed convolution of 1x1 maps: (B, in) to (B, out, k, k)."""

    def convolved(self, x: Tensor) -> Tensor:
        """Before normalisation."""
        return transposed_convolution_of_points(x, self.kernel)


class UpsampleTransposedConvolution(Convolution):
    """Up-sample twofold, transposed convolution: (B, in, H, W) to (B, out, 2 H + 4, 2 W + 4)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_px: int, *, normed: bool = True) -> None:
        super().__init__(in_channels, out_channels, kernel_px, normed=normed)
        self.onto: Tensor  # kept on the device: a copy at each step would make a card wait
        self.register_buffer("onto", taps_onto_source(), persistent=False)

    def convolved(self, x: Tensor) -> Tensor:
        """Before normalisation."""
        return transposed_convolution_of_upsampled(x, self.kernel, self.onto)


class UpsampleTransposedConvolutionByParity(UpsampleTransposedConvolution):
    """The same with pixels sorted as by `transposed_convolution_by_parity`: (B, out, H + 2, 4 W + 8)."""

    def convolved(self, x: Tensor) -> Tensor:
        """Before normalisation."""
        return transposed_convolution_by_parity(x, self.kernel, self.onto)
