"""PCA of the pixels: the linear baseline that every trained model should beat.

B cells, C channels, S crop side in px, Z components.
"""

from typing import ClassVar

import torch
from torch import Tensor

from phenolens.core.errors import InputError
from phenolens.models.config import ModelConfig, PCAConfig
from phenolens.models.interface import Fitted, latent_names


class PixelPCA(Fitted):
    """Projection of a crop's pixels on the principal components of a sample of crops; decodes by the inverse."""

    Config: ClassVar[type[ModelConfig]] = PCAConfig

    def __init__(self, channels: int, crop_px: int, config: PCAConfig) -> None:
        super().__init__()
        self.shape = (channels, crop_px, crop_px)
        values = channels * crop_px**2
        self.mean: Tensor
        self.components: Tensor
        self.register_buffer("mean", torch.zeros(values))
        self.register_buffer("components", torch.zeros(config.latent_size, values))

    def fit(self, x: Tensor) -> None:
        """Take mean and components (orthonormal, largest variance first) from crops (n, C, S, S)."""
        if len(x) <= len(self.components):
            raise InputError(f"{len(x)} crops do not make {len(self.components)} components; lower --latent-size")
        mean, components, _ = principal_components(x.flatten(1), len(self.components))
        self.mean.copy_(mean)
        self.components.copy_(components)

    def embed(self, x: Tensor) -> Tensor:
        """Scores (B, Z) on the components."""
        with torch.autocast(x.device.type, enabled=False):
            return (x.float().flatten(1) - self.mean) @ self.components.T

    def feature_names(self) -> list[str]:
        """Z000 is the component of the largest variance."""
        return latent_names(len(self.components))

    def decode(self, z: Tensor) -> Tensor:
        """The crops (B, C, S, S) that the scores stand for."""
        with torch.autocast(z.device.type, enabled=False):
            return (z.float() @ self.components + self.mean).unflatten(1, self.shape)


def principal_components(x: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (F,), the first n < N orthonormal components (n, F) and their variances (n,) of x (N, F), in float64.

    The eigenvectors of the smaller Gram matrix, exact: the solvers of scikit-learn decompose the larger one, which
    takes minutes for 4,096 crops of 13,872 pixels, or approximate. The sign is arbitrary: the largest weight is
    positive.
    """
    x = x.double()
    mean = x.mean(0)
    centred = x - mean
    if len(x) < x.shape[1]:
        squares, vectors = torch.linalg.eigh(centred @ centred.T)
        components = (vectors.flip(1)[:, :n].T @ centred) / squares.flip(0)[:n, None].sqrt()
    else:
        squares, vectors = torch.linalg.eigh(centred.T @ centred)
        components = vectors.flip(1)[:, :n].T
    largest = components.gather(1, components.abs().argmax(1, keepdim=True))
    return mean, components * largest.sign(), squares.flip(0)[:n] / (len(x) - 1)
