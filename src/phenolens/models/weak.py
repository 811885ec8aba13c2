"""Weak supervision (Caicedo et al. 2018): a network learns to name each cell's treatment; its features are kept.

Mechanisms are never used, but the names of the treatments are: tables call this "weak labels". What differs from the
original is in docs/rivals.md. B cells per batch, C channels, S px, T treatments; all controls are one treatment.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn
from torch.distributions import Beta
from torch.nn import functional as F
from torch.optim import SGD

from phenolens.models.config import ModelConfig, WeakConfig
from phenolens.models.interface import Batch, Loss, Player, randomly_turned
from phenolens.models.resnet import BACKBONES, OfNetwork
from phenolens.models.views import shifted


class Weak(OfNetwork):
    """A network with a classifier of treatments; embeddings are its features, not the classifier's answers."""

    Config: ClassVar[type[ModelConfig]] = WeakConfig
    labels: ClassVar[tuple[str, ...]] = ("treatment",)

    def __init__(self, channels: int, crop_px: int, config: Any) -> None:
        super().__init__()
        self.config = config
        self.network = BACKBONES[config.backbone](channels, crop_px, config.net_width)

    def take_classes(self, classes: Mapping[str, int]) -> None:
        """Add the classifier of T treatments."""
        self.to_treatment = nn.Linear(self.network.top, classes["treatment"])

    def players(self) -> dict[str, Player]:
        """Network and classifier learn together."""
        parameters = list(self.parameters())
        optimiser = SGD(parameters, lr=self.config.net_rate, momentum=0.9, nesterov=True, weight_decay=5e-4)
        return {"network": Player(nn.ModuleList([self.network, self.to_treatment]), optimiser)}

    def losses(self, batch: Batch) -> dict[str, Loss]:
        """Cross-entropy of the treatment; with mixup, of both treatments of a blend by their shares."""
        x, own = shifted(randomly_turned(batch.x[0])), batch.treatment[0]
        share, partner = torch.ones(len(x), device=x.device), torch.arange(len(x), device=x.device)
        if self.config.mixup:
            share = Beta(self.config.mixup, self.config.mixup).sample((len(x),)).to(x)
            partner = torch.randperm(len(x), device=x.device)
            x = torch.lerp(x[partner], x, share[:, None, None, None])
        logits = self.to_treatment(self.network(x)[1])
        of_own, of_partner = (F.cross_entropy(logits.float(), y, reduction="none") for y in (own, own[partner]))
        loss = (share * of_own + (1 - share) * of_partner).mean()
        larger = torch.where(share >= 0.5, own, own[partner])
        right = (logits.argmax(1) == larger).float().mean()
        return {"network": Loss(loss, {"cross_entropy": loss.detach(), "accuracy": right})}
