"""Models of cells behind one small interface; MODELS names those that can be trained."""

from collections.abc import Callable

from phenolens.models.model import FittedModel, Generative, Loss, Model, ModelConfig
from phenolens.models.pca import PixelPCA
from phenolens.models.vaeplus import AE, VAE, VAEPlus

# (channels, crop side in px, config) -> a model with its first weights
MODELS: dict[str, Callable[[int, int, ModelConfig], Model]] = {
    "ae": AE,
    "vae": VAE,
    "vaeplus": VAEPlus,
    "pca": PixelPCA,
}

__all__ = ["AE", "MODELS", "VAE", "FittedModel", "Generative", "Loss", "Model", "ModelConfig", "PixelPCA", "VAEPlus"]
