"""Learning by comparison: SimCLR (Chen et al. 2020; on BBBC021 Perakis et al. 2021), and a form with weak labels.

A network learns embeddings in which two random views of one cell are closer than views of different cells. The form
with weak labels takes another cell of the same treatment, from another well, as the second view (after WS-DINO,
Cross-Zamirski et al. 2022): what all wells of a treatment share is learnt, what a well alone has is not. What differs
from the originals is in docs/rivals.md. B cells per batch, C channels, S px.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam

from phenolens.models.config import ModelConfig, SimCLRConfig
from phenolens.models.interface import Batch, Loss, Player
from phenolens.models.resnet import OfNetwork, ResNet18
from phenolens.models.views import view

PROJECTED = 64  # numbers in which views are compared


class SimCLR(OfNetwork):
    """Two views of each cell attract, all others repel; embeddings are the network's features."""

    Config: ClassVar[type[ModelConfig]] = SimCLRConfig

    def __init__(self, channels: int, crop_px: int, config: Any) -> None:
        super().__init__()
        self.config = config
        self.network = ResNet18(channels, crop_px, config.net_width)
        size = self.network.top
        self.projection = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, PROJECTED))

    def players(self) -> dict[str, Player]:
        """Network and projection learn together."""
        return {"network": Player(self, Adam(self.parameters(), lr=1e-3, weight_decay=1e-5))}

    def losses(self, batch: Batch) -> dict[str, Loss]:
        """Cross-entropy of finding a cell's other view among all views."""
        cell = torch.arange(batch.x.shape[1], device=batch.x.device).repeat(2)
        x = batch.x[0].repeat(2, 1, 1, 1)
        return self._compared(x, same=cell[:, None] == cell, left_out=torch.zeros(len(x), len(x), dtype=torch.bool))

    def _compared(self, x: Tensor, *, same: Tensor, left_out: Tensor) -> dict[str, Loss]:
        """The loss of random views of crops x (n, C, S, S); `same` and `left_out` say which pairs count how."""
        z = self.projection(self.network(view(x))[1])
        loss, right = contrastive_loss(z.float(), same=same, left_out=left_out, temperature=self.config.temperature)
        return {"network": Loss(loss, {"contrastive": loss.detach(), "accuracy": right.detach()})}


class WeakSimCLR(SimCLR):
    """Two cells of one treatment from different wells attract; cells of other treatments repel."""

    labels: ClassVar[tuple[str, ...]] = ("treatment", "well")
    draws = 2
    paired = True  # in batches of less than all treatments, independent draws would rarely share one

    def losses(self, batch: Batch) -> dict[str, Loss]:
        """Cross-entropy of finding cells of the same treatment from another well; those of one well do not count."""
        treatment, well = batch.treatment.flatten(), batch.well.flatten()
        same_treatment, same_well = (label[:, None] == label for label in (treatment, well))
        return self._compared(
            batch.x.flatten(0, 1), same=same_treatment & ~same_well, left_out=same_treatment & same_well
        )


def contrastive_loss(z: Tensor, *, same: Tensor, left_out: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """NT-Xent, with several positives as in Khosla et al. 2020.

    Args:
        z: Projected views (n, F).
        same: Which pairs (n, n) are positives; a view is never its own.
        left_out: Which pairs (n, n) are neither positives nor negatives.
        temperature: Of the softmax over cosines.

    Returns:
        The mean over the views with a positive of the mean cross-entropy over its positives, and the share of them
        whose most similar view is a positive; both 0 where no view has one.
    """
    oneself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    same = same.to(z.device) & ~oneself
    z = F.normalize(z, dim=1)
    logits = (z @ z.T / temperature).masked_fill((left_out.to(z.device) & ~same) | oneself, -torch.inf)
    n_positives = same.sum(1)
    found = n_positives > 0
    log_share = logits.log_softmax(1).masked_fill(~same, 0).sum(1) / n_positives.clamp(min=1)
    right = same.gather(1, logits.argmax(1, keepdim=True))[:, 0]
    count = found.sum().clamp(min=1)
    return -log_share[found].sum() / count, (right & found).sum() / count
