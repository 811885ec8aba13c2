"""Networks that turn crops into features and learn from comparisons: ResNet18 and the multi-scale network of Godinez.

B cells per batch, C channels, crops of S px, w the width.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from phenolens.models.interface import Trained, latent_names
from phenolens.models.layers import BatchNorm, full_precision

WIDE = 32  # wider networks give the first block of stage 3 as features, as published; narrower ones stage 4
COLUMNS = {1: 16, 2: 16, 4: 16, 8: 32}  # of the multi-scale network: scale, feature maps


class ResNet18(nn.Module):
    """ResNet18 (He et al. 2016) for crops of any number of channels; `w` is 64 in the original.

    Features are means over the crop of the maps of stage 4 (8 w), or with w > 32 of the first block of stage 3 (4 w).
    """

    def __init__(self, channels: int, crop_px: int, width: int) -> None:
        super().__init__()
        self.stem = ConvolutionBN(channels, width, 7, stride=2)
        widths = [width, width, width, 2 * width, 2 * width, 4 * width, 4 * width, 8 * width, 8 * width]
        self.blocks = nn.ModuleList(
            [Block(n_in, n_out, stride=1 if n_in == n_out else 2) for n_in, n_out in pairwise(widths)]
        )
        self.tap = 4 if width > WIDE else 7  # of blocks
        self.features = widths[self.tap + 1]
        self.top = widths[-1]

    def maps(self, x: Tensor) -> list[Tensor]:
        """The maps of each block."""
        y = F.max_pool2d(F.relu(self.stem(x)), 3, stride=2, padding=1)
        found = []
        for block in self.blocks:
            y = block(y)
            found.append(y)
        return found

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Crops (B, C, S, S) to features (B, features) and what a head takes in (B, top)."""
        maps = self.maps(x)
        return mean_of_maps(maps[self.tap]), mean_of_maps(maps[-1])

    def stages(self, x: Tensor) -> Tensor:
        """Means of the maps of all four stages (B, 15 w)."""
        return torch.cat([mean_of_maps(y) for y in self.maps(x)[1::2]], dim=1)


class MultiScale(nn.Module):
    """The network of Godinez et al. 2017 and 2018 for single cells: columns of three convolutions at four scales.

    For crops instead of fields of 1,280 x 1,024 px it has scales 1 to 8 instead of 1 to 64, 128 maps after the columns
    instead of 1,024 and 64 features instead of 512. Sides are cut to a multiple of 16 px.
    """

    def __init__(self, channels: int, crop_px: int, width: int) -> None:
        super().__init__()
        self.cut = crop_px % 16
        self.columns = nn.ModuleDict(
            {
                str(scale): nn.Sequential(
                    *(Rectified(n_in, n_out) for n_in, n_out in ((channels, maps), (maps, maps), (maps, maps)))
                )
                for scale, maps in COLUMNS.items()
            }
        )
        self.join = nn.Conv2d(sum(COLUMNS.values()), 8 * width, 1)
        self.features = self.top = 4 * width
        self.dense = nn.Linear(8 * width * (crop_px // 16) ** 2, self.features)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Crops (B, C, S, S) to features (B, features), which a head takes in too."""
        features = full_precision(self.dense(self.maps(x)[-1].flatten(1)))
        return features, features

    def maps(self, x: Tensor) -> list[Tensor]:
        """The maps of the columns, and of what joins them."""
        if self.cut:
            before = self.cut // 2
            x = x[..., before : before - self.cut, before : before - self.cut]
        columns = [
            F.max_pool2d(column(F.max_pool2d(x, int(scale))), 8 // int(scale)) for scale, column in self.columns.items()
        ]
        joined = torch.cat(columns, dim=1)
        return [joined, F.max_pool2d(F.relu(self.join(joined)), 2)]

    def stages(self, x: Tensor) -> Tensor:
        """Means of the maps of the columns, and of what joins them (B, 80 + 8 w)."""
        return torch.cat([mean_of_maps(y) for y in self.maps(x)], dim=1)


BACKBONES: dict[str, type[ResNet18 | MultiScale]] = {"resnet18": ResNet18, "multiscale": MultiScale}


class OfNetwork(Trained):
    """A model whose embeddings are the features of its network, not what its head makes of them."""

    network: ResNet18 | MultiScale

    def embed(self, x: Tensor) -> Tensor:
        """The network's features."""
        return self.network(x)[0]

    def stages(self, x: Tensor) -> Tensor:
        """Means of the maps of the network's stages."""
        return self.network.stages(x)

    def feature_names(self) -> list[str]:
        """Features without a meaning of their own."""
        return latent_names(self.network.features)


class Block(nn.Module):
    """Two 3x3 convolutions beside the identity, or beside a 1x1 convolution where the shape changes."""

    def __init__(self, n_in: int, n_out: int, *, stride: int) -> None:
        super().__init__()
        self.first = ConvolutionBN(n_in, n_out, 3, stride=stride)
        self.second = ConvolutionBN(n_out, n_out, 3)
        self.beside = nn.Identity() if stride == 1 and n_in == n_out else ConvolutionBN(n_in, n_out, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) to (B, out, H / stride, W / stride)."""
        return F.relu(self.beside(x) + self.second(F.relu(self.first(x))))


class ConvolutionBN(nn.Module):
    """A zero-padded convolution without bias, then batch normalisation."""

    def __init__(self, n_in: int, n_out: int, kernel_px: int, *, stride: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(n_in, n_out, kernel_px, stride, padding=kernel_px // 2, bias=False)
        nn.init.kaiming_normal_(self.convolution.weight, mode="fan_out", nonlinearity="relu")
        self.norm = BatchNorm(n_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) to (B, out, H / stride, W / stride)."""
        return self.norm(self.convolution(x))


class Rectified(nn.Conv2d):
    """A zero-padded 5x5 convolution, then ReLU."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__(n_in, n_out, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) to (B, out, H, W)."""
        return F.relu(super().forward(x))


def mean_of_maps(y: Tensor) -> Tensor:
    """Maps (B, n, H, W) to their means (B, n), at least float32."""
    return full_precision(y).mean((2, 3))
