"""A tiny model that nobody needs: what a rival has to write, in one file."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import SGD, Adam

from phenolens.models import MODELS, Spec
from phenolens.models.config import ModelConfig, setting
from phenolens.models.interface import Loss, Player, Trained


@dataclass(frozen=True)
class MadeUpConfig(ModelConfig):
    latent_size: int = setting(3, "numbers that a cell is embedded into", least=2)
    tempo: float = setting(1.0, "factor of the learning rate", least=0)


class MadeUp(Trained):
    """The first feature is the mean count of a raw crop, the others are linear; two players, one at every 2nd step."""

    Config = MadeUpConfig
    input = "raw"

    def __init__(self, channels, crop_px, config):
        super().__init__()
        self.config = config
        self.shape = (channels, crop_px, crop_px)
        values = channels * crop_px**2
        self.coder = nn.Linear(values, config.latent_size - 1)
        self.pictures = nn.Linear(config.latent_size, values)

    def players(self):
        return {
            "fast": Player(self.pictures, Adam(self.pictures.parameters(), lr=0.02 * self.config.tempo), clip=1e4),
            "slow": Player(self.coder, SGD(self.coder.parameters(), lr=1e-9), every=2),
        }

    def losses(self, batch):
        x = batch.x[0]
        loss = (self.decode(self.embed(x)) - x).square().mean()
        known = (batch.treatment >= 0).float().mean()
        return {name: Loss(loss, {"squares": loss.detach(), "known": known}) for name in ("fast", "slow")}

    def verdicts(self, history):
        return ["the made-up loss is large"] if history[-1]["fast.squares"] > 1 else []

    def embed(self, x):
        flat = x.float().flatten(1)
        return torch.cat([flat.mean(1, keepdim=True), self.coder(flat) / flat.shape[1]], dim=1)

    def feature_names(self):
        return ["brightness", *(f"code{i}" for i in range(1, self.config.latent_size))]

    def decode(self, z):
        return self.pictures(z).unflatten(1, self.shape)


def register() -> None:
    """Add it to the list."""
    MODELS["madeup"] = Spec(MadeUp, title="Made up", order=-1)
