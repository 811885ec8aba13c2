"""Random views of cells for learning by comparison: what may change without changing the phenotype.

B cells, C channels, S px. Channels are stains: nothing mixes them.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from phenolens.models.interface import randomly_turned

MOST_SHIFT = 0.15  # of the side: 10 px of 68
SCALES = (0.8, 1.2)
FACTORS = (0.8, 1.2)  # of a channel's brightness, and exponents of its grey values
BLUR = (0.25, 0.5, 0.25)


def shifted(x: Tensor) -> Tensor:
    """Crops (B, C, S, S), each moved by up to MOST_SHIFT of its side along both axes; zeros come in."""
    side = x.shape[-1]
    most = round(MOST_SHIFT * side)
    padded = F.pad(x, [most] * 4)
    start = torch.randint(2 * most + 1, (2, len(x), 1), device=x.device)
    rows, columns = start + torch.arange(side, device=x.device)  # (B, S) each
    cells, channels = torch.arange(len(x), device=x.device), torch.arange(x.shape[1], device=x.device)
    return padded[
        cells[:, None, None, None], channels[None, :, None, None], rows[:, None, :, None], columns[:, None, None, :]
    ]


def view(x: Tensor) -> Tensor:
    """A random view of each crop (B, C, S, S) of values 0 to 1: turned, moved, scaled, other brightness, blurred."""
    x = shifted(randomly_turned(x.float()))
    n, channels = x.shape[:2]
    scale = _between(SCALES, (n, 1, 1), x)
    grid = F.affine_grid(torch.eye(2, 3, device=x.device).expand(n, 2, 3) / scale, list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, align_corners=False)
    factor, gamma = (_between(FACTORS, (n, channels, 1, 1), x) for _ in range(2))
    x = factor * x.clamp(min=0) ** gamma
    kernel = torch.outer(*2 * [torch.tensor(BLUR, device=x.device)])
    blurred = F.conv2d(x.flatten(0, 1)[:, None], kernel[None, None], padding=1).view_as(x)
    return torch.where(torch.rand(n, 1, 1, 1, device=x.device) < 0.5, blurred, x)


def _between(limits: tuple[float, float], shape: tuple[int, ...], like: Tensor) -> Tensor:
    low, high = limits
    return low + (high - low) * torch.rand(shape, device=like.device)
