"""Models of cells behind one small interface; MODELS names those that can be trained."""

from phenolens.models.autoencoders import AE, VAE
from phenolens.models.model import FittedModel, Generative, Loss, Model, ModelConfig
from phenolens.models.pca import PixelPCA
from phenolens.models.vaeplus import VAEPlus

MODELS = {"ae": AE, "vae": VAE, "vaeplus": VAEPlus, "pca": PixelPCA}

__all__ = ["AE", "MODELS", "VAE", "FittedModel", "Generative", "Loss", "Model", "ModelConfig", "PixelPCA", "VAEPlus"]
