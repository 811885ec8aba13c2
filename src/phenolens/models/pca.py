"""PCA of the pixels: the linear yardstick that every trained model should beat.

B cells, C channels, S crop side in px, Z components.
"""

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from phenolens.core.errors import InputError
from phenolens.models.model import FittedModel, Generative, Loss, ModelConfig

COMPONENTS = 64


class PixelPCA(Generative, FittedModel):
    """Projection of a crop's pixels on the principal components of a sample of crops; decodes by the way back."""

    def __init__(self, channels: int, crop_px: int, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.shape = (channels, crop_px, crop_px)
        values = channels * crop_px**2
        self.mean: Tensor
        self.components: Tensor
        self.register_buffer("mean", torch.zeros(values))
        self.register_buffer("components", torch.zeros(config.latent_size or COMPONENTS, values))

    def fit(self, crops: Tensor) -> None:
        """Take mean and components (orthonormal, largest variance first) from crops (n, C, S, S)."""
        pixels = crops.flatten(1).double()
        n_components = len(self.components)
        if len(pixels) <= n_components:
            raise InputError(f"{len(pixels)} crops do not make {n_components} components; lower --latent-size")
        mean = pixels.mean(0)
        centred = pixels - mean
        # Eigenvectors of the smaller Gram matrix; n is at most a few thousand.
        if len(pixels) < pixels.shape[1]:
            variances, vectors = torch.linalg.eigh(centred @ centred.T)
            components = (vectors.flip(1)[:, :n_components].T @ centred) / variances.flip(0)[:n_components, None].sqrt()
        else:
            components = torch.linalg.eigh(centred.T @ centred)[1].flip(1)[:, :n_components].T
        largest = components.gather(1, components.abs().argmax(1, keepdim=True))
        self.mean.copy_(mean)
        self.components.copy_(components * largest.sign())  # the sign of an eigenvector is nobody's choice but ours

    def players(self) -> dict[str, nn.Module]:
        """Nobody: it is fitted at once."""
        return {}

    def optimisers(self) -> dict[str, Optimizer]:
        """None."""
        return {}

    def losses(self, crops: Tensor, step: int) -> dict[str, Loss]:
        """None."""
        return {}

    def embed(self, crops: Tensor) -> Tensor:
        """Scores (B, Z) on the components."""
        with torch.autocast(crops.device.type, enabled=False):
            return (crops.float().flatten(1) - self.mean) @ self.components.T

    def decode(self, z: Tensor) -> Tensor:
        """The crop (B, C, S, S) that the scores stand for."""
        with torch.autocast(z.device.type, enabled=False):
            return (z.float() @ self.components + self.mean).unflatten(1, self.shape)
