"""Encoder, decoder and discriminator of Lafarge et al. 2019, section 3.4, for any crop side that fits.

B cells, C channels, S crop side in px, Z latent size, M side of the last feature map (5 for S = 68: S = 8 M + 28).
Every convolution is 5x5 "valid" and followed by batch normalisation; the last one covers its whole M x M input.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from phenolens.errors import InputError

LEAK = 0.01
KERNEL_PX = 5
BN_EPS = 1e-5
BN_KEPT = 0.9  # share of the old running average that each step keeps


def last_side_px(crop_px: int) -> int:
    """M, the side of the feature map that the last convolution takes in; InputError for a side that does not fit."""
    last, rest = divmod(crop_px - 28, 8)
    if rest or last < 1:
        below = max(36, 28 + 8 * last)
        raise InputError(f"a crop side of {crop_px} px does not pass the four stages; use {below} or {below + 8} px")
    return last


def initialised_kernel(out_channels: int, in_channels: int, kernel_px: int) -> nn.Parameter:
    """A kernel (out, in, k, k), normal with std sqrt(2 / (k k in + out))."""
    std = math.sqrt(2 / (kernel_px**2 * in_channels + out_channels))
    return nn.Parameter(torch.randn(out_channels, in_channels, kernel_px, kernel_px) * std)


class BatchNorm(nn.Module):
    """Batch normalisation whose moments can come from the first rows of the batch alone.

    Biased variance, also in the running averages; gradients flow through the moments. In evaluation mode the running
    averages are used.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, y: Tensor, n_moment_rows: int | None = None) -> Tensor:
        """Normalise y (B, channels, H, W) by the moments of its first `n_moment_rows` rows (default: all rows)."""
        if not self.training:
            return F.batch_norm(y, self.running_mean, self.running_var, self.weight, self.bias, eps=BN_EPS)
        if n_moment_rows is None or n_moment_rows == len(y):
            out, mean, inverse_std = torch.native_batch_norm(
                y, self.weight, self.bias, None, None, True, 1 - BN_KEPT, BN_EPS
            )
        else:
            out, mean, inverse_std = _NormByFirstRows.apply(y, self.weight, self.bias, n_moment_rows)
        with torch.no_grad():
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), 1 - BN_KEPT)
            self.running_var.lerp_(inverse_std.to(self.running_var.dtype) ** -2 - BN_EPS, 1 - BN_KEPT)
        return out


class _NormByFirstRows(torch.autograd.Function):
    """(y - mean) * inverse_std * weight + bias for all rows, mean and std from the first n rows, moments in float32.

    With h = (y - mean) * inverse_std and g = d out * weight, all rows contribute to the gradients of the moments, and
    only the first n rows receive them:  d y = inverse_std * (g - [row < n] * (sum g + h * sum(g h)) / count).
    """

    @staticmethod
    def forward(ctx, y, weight, bias, n):  # type: ignore[no-untyped-def]  # autograd's own signature
        out_first, mean, inverse_std = torch.native_batch_norm(y[:n], weight, bias, None, None, True, 0.0, BN_EPS)
        scale = weight * inverse_std
        shift = bias - mean * scale
        out_rest = torch.addcmul(_along_channels(shift, y), y[n:], _along_channels(scale, y))
        ctx.save_for_backward(y, weight, mean, inverse_std)
        ctx.n = n
        ctx.mark_non_differentiable(mean, inverse_std)
        return torch.cat([out_first, out_rest]), mean, inverse_std

    @staticmethod
    def backward(ctx, d_out, _d_mean, _d_inverse_std):  # type: ignore[no-untyped-def]
        y, weight, mean, inverse_std = ctx.saved_tensors
        n = ctx.n
        over = (0, 2, 3)
        count = y[:n].numel() / y.shape[1]
        # First rows by the native kernel: its own share of the sums, then the share the other rows add.
        d_first, d_weight, d_bias = torch.ops.aten.native_batch_norm_backward(
            d_out[:n], y[:n], weight, None, None, mean, inverse_std, True, BN_EPS, [True, True, True]
        )
        d_rest = d_out[n:]
        sum_d = d_rest.sum(over, dtype=torch.float32)
        sum_d_y = (d_rest * y[n:]).sum(over, dtype=torch.float32)
        sum_d_h = (sum_d_y - mean * sum_d) * inverse_std
        scale = weight * inverse_std
        # d_first -= scale / count * (sum_d + h * sum_d_h), h = (y - mean) * inverse_std
        slope = -scale * sum_d_h * inverse_std / count
        level = -scale * sum_d / count - slope * mean
        d_first = d_first + torch.addcmul(_along_channels(level, y), y[:n], _along_channels(slope, y))
        d_y = torch.cat([d_first, d_rest * _along_channels(scale, y)])
        return d_y, d_weight + sum_d_h, d_bias + sum_d, None


def full_precision(x: Tensor) -> Tensor:
    """What leaves a network is at least float32, whatever its convolutions were computed in."""
    return x.float() if x.dtype == torch.bfloat16 else x


def _along_channels(values: Tensor, y: Tensor) -> Tensor:
    """(channels,) shaped to broadcast over y (B, channels, H, W), in y's type."""
    return values.to(y.dtype).view(1, -1, 1, 1)


def full_convolution_of_points(z: Tensor, kernel: Tensor) -> Tensor:
    """z (B, Z), as 1x1 maps zero-padded by k - 1 and convolved with kernel (out, Z, k, k): (B, out, k, k).

    Each output pixel sees one tap, so this is one matrix product with the kernel turned by 180 degrees.
    """
    out_channels, _, k, _ = kernel.shape
    taps = kernel.flip(2, 3).permute(1, 2, 3, 0).flatten(1)  # (Z, k k out)
    return (z @ taps).view(len(z), k, k, out_channels).permute(0, 3, 1, 2)


def full_convolution_of_upsampled(y: Tensor, kernel: Tensor) -> Tensor:
    """y (B, in, H, W) up-sampled twofold (nearest), zero-padded by 4, convolved with kernel (out, in, 5, 5).

    The five taps of an even output row fall on source rows (-2 -2 -1 -1 0), of an odd one on (-2 -1 -1 0 0), so four
    3x3 convolutions of the small map, one a parity of row and column, give (B, out, 2 H + 4, 2 W + 4) exactly: 36 taps
    for four output pixels instead of 100.
    """
    out_channels, in_channels = kernel.shape[:2]
    with torch.autocast(kernel.device.type, enabled=False):
        onto = _taps_onto_source(kernel)
        # (out, in, 5, 5) -> (out, row parity, column parity, in, 3, 3)
        small = torch.einsum("oikl,pak,qbl->opqiab", kernel, onto, onto).reshape(4 * out_channels, in_channels, 3, 3)
        small = small.contiguous(memory_format=torch.channels_last)
    return F.pixel_shuffle(F.conv2d(y, small, padding=2), 2)


def _taps_onto_source(kernel: Tensor) -> Tensor:
    """(parity, source row, tap): 1 where a tap of the 5-tap kernel falls on that source row."""
    return torch.tensor(
        [[[1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]], [[1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 1]]],
        dtype=kernel.dtype,
        device=kernel.device,
    )


class Convolution(nn.Module):
    """A "valid" convolution and its batch normalisation; no bias, since the normalisation would take it away."""

    def __init__(self, in_channels: int, out_channels: int, kernel_px: int) -> None:
        super().__init__()
        self.kernel = initialised_kernel(out_channels, in_channels, kernel_px)
        self.norm = BatchNorm(out_channels)

    def forward(self, x: Tensor, n_moment_rows: int | None = None) -> Tensor:
        """(B, in, H, W) to (B, out, H - k + 1, W - k + 1)."""
        return self.norm(F.conv2d(x, self.kernel), n_moment_rows)


class FullConvolutionOfPoints(Convolution):
    """1x1 maps, zero-padded on every side and convolved: the decoder's first stage."""

    def forward(self, x: Tensor, n_moment_rows: int | None = None) -> Tensor:
        """(B, in) to (B, out, k, k)."""
        return self.norm(full_convolution_of_points(x, self.kernel), n_moment_rows)


class FullConvolutionOfUpsampled(Convolution):
    """Maps up-sampled twofold, zero-padded and convolved: the decoder's later stages."""

    def forward(self, x: Tensor, n_moment_rows: int | None = None) -> Tensor:
        """(B, in, H, W) to (B, out, 2 H + 4, 2 W + 4)."""
        return self.norm(full_convolution_of_upsampled(x, self.kernel), n_moment_rows)


class Encoder(nn.Module):
    """Crops to the posterior of each cell: sides 68 > 64/32 > 28/14 > 10/5 > 1."""

    def __init__(self, channels: int, crop_px: int, width: int, latent_size: int) -> None:
        super().__init__()
        last_px = last_side_px(crop_px)
        self.stages = nn.ModuleList([Convolution(n, width, KERNEL_PX) for n in (channels, width, width)])
        self.head = Convolution(width, 2 * latent_size, last_px)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, S, S) to the posterior's mean (B, Z) and log-variance (B, Z)."""
        for stage in self.stages:
            x = F.leaky_relu(F.max_pool2d(stage(x), 2), LEAK)
        mean, log_variance = full_precision(self.head(x).flatten(1)).chunk(2, dim=1)
        return mean, log_variance


class Decoder(nn.Module):
    """Embeddings to crops, the encoder mirrored: sides 1 > 5/10 > 14/28 > 32/64 > 68, then 1x1 to the channels."""

    def __init__(self, channels: int, crop_px: int, width: int, latent_size: int) -> None:
        super().__init__()
        last_px = last_side_px(crop_px)
        root = FullConvolutionOfPoints(latent_size, width, last_px)
        self.stages = nn.ModuleList([root, *(FullConvolutionOfUpsampled(width, width, KERNEL_PX) for _ in range(3))])
        self.to_channels = Convolution(width, channels, 1)

    def forward(self, z: Tensor) -> Tensor:
        """(B, Z) to (B, C, S, S)."""
        y = z
        for stage in self.stages:
            y = F.leaky_relu(stage(y), LEAK)
        return F.leaky_relu(full_precision(self.to_channels(y)), LEAK)


class Discriminator(nn.Module):
    """Tells real crops from reconstructions; its hidden layers are the features that reconstructions should match."""

    def __init__(self, channels: int, crop_px: int, width: int) -> None:
        super().__init__()
        last_px = last_side_px(crop_px)
        self.stages = nn.ModuleList([Convolution(n, width, KERNEL_PX) for n in (channels, width, width)])
        self.head = Convolution(width, 2 * width, last_px)
        self.to_logit = Convolution(2 * width, 1, 1)

    def forward(self, x: Tensor, n_moment_rows: int, n_layers_of_rest: int) -> tuple[list[Tensor], Tensor]:
        """Hidden layers [D_1 .. D_4] and logits (n_moment_rows,) of crops x (rows, C, S, S).

        The first `n_moment_rows` rows give the batch-norm moments and pass through to the logit; the rest are
        normalised with those moments and computed up to layer `n_layers_of_rest` only.
        """
        layers = []
        for depth, stage in enumerate([*self.stages, self.head], start=1):
            if depth == n_layers_of_rest + 1:
                x = x[:n_moment_rows]
            x = stage(x, n_moment_rows)
            x = F.leaky_relu(F.max_pool2d(x, 2) if depth <= 3 else x, LEAK)
            layers.append(x)
        return layers, full_precision(self.to_logit(x[:n_moment_rows]).flatten())
