"""PCA of the pixels: the linear baseline that every trained model should beat.

B cells, C channels, S crop side in px, Z components.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from phenolens.core.errors import InputError
from phenolens.models.interface import Fitted, ModelConfig, latent_names, setting


@dataclass(frozen=True)
class PCAConfig(ModelConfig):
    """Settings of the PCA."""

    latent_size: int = setting(64, "numbers that a cell is embedded into", least=1, most=100_000)


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
        pixels = x.flatten(1).double()
        n_components = len(self.components)
        if len(pixels) <= n_components:
            raise InputError(f"{len(pixels)} crops do not make {n_components} components; lower --latent-size")
        mean = pixels.mean(0)
        centred = pixels - mean
        # Exact eigenvectors of the smaller Gram matrix: the solvers of scikit-learn decompose the larger one, which
        # takes minutes for 4,096 crops of 13,872 pixels, or approximate.
        if len(pixels) < pixels.shape[1]:
            variances, vectors = torch.linalg.eigh(centred @ centred.T)
            components = (vectors.flip(1)[:, :n_components].T @ centred) / variances.flip(0)[:n_components, None].sqrt()
        else:
            components = torch.linalg.eigh(centred.T @ centred)[1].flip(1)[:, :n_components].T
        largest = components.gather(1, components.abs().argmax(1, keepdim=True))
        self.mean.copy_(mean)
        self.components.copy_(components * largest.sign())  # the sign is arbitrary: the largest weight is positive

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
