"""Models of cells behind one small interface; MODELS names those that can be trained."""

from phenolens.models.autoencoders import AE, VAE
from phenolens.models.model import Generative, Loss, Model, ModelConfig
from phenolens.models.vaeplus import VAEPlus

MODELS = {"ae": AE, "vae": VAE, "vaeplus": VAEPlus}

__all__ = ["AE", "MODELS", "VAE", "Generative", "Loss", "Model", "ModelConfig", "VAEPlus"]
