"""VAE+: a VAE whose reconstructions must also look right to a discriminator's hidden layers.

B cells, C channels, S crop side in px. Lafarge et al. 2019, section 3.3;
docs/ledger.md lists where paper and released code differ.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Optimizer

from phenolens.models.autoencoders import VAE
from phenolens.models.model import Loss, ModelConfig
from phenolens.models.networks import Discriminator, full_precision


def gammas(step: int, *, ramp_steps: int, layers: int, weight: float = 1.0) -> list[float]:
    """Weight of each discriminator layer i = 1..layers at a step: min(1, max(0, step / T - i)), times `weight`."""
    return [weight * min(1.0, max(0.0, step / ramp_steps - i)) for i in range(1, layers + 1)]


class VAEPlus(VAE):
    """Two players: the autoencoder, and a discriminator that learns real from reconstructed.

    There is no fooling term: the autoencoder wants the discriminator to *see the same*, not to be wrong.
    """

    batches = 2
    beta_default = 2.0

    def __init__(self, channels: int, crop_px: int, config: ModelConfig) -> None:
        super().__init__(channels, crop_px, config)
        self.values = channels * crop_px**2
        self.discriminator = Discriminator(channels, crop_px, config.width)

    def players(self) -> dict[str, nn.Module]:
        """The autoencoder and the discriminator."""
        return {**super().players(), "discriminator": self.discriminator}

    def optimisers(self) -> dict[str, Optimizer]:
        """Adam for the autoencoder, SGD with momentum for the discriminator."""
        sgd = SGD(self.discriminator.parameters(), lr=self.config.discriminator_learning_rate, momentum=0.9)
        return {**super().optimisers(), "discriminator": sgd}

    def losses(self, crops: Tensor, step: int) -> dict[str, Loss]:
        """Both players' losses from crops (2, B, C, S, S): B1 is reconstructed, B2 is the independent real batch."""
        x, independent = crops
        reconstruction, vae_loss, terms = self.reconstruct(x)
        weights = gammas(
            step,
            ramp_steps=self.config.ramp_steps,
            layers=self.config.feature_layers,
            weight=self.config.feature_weight,
        )
        terms |= {f"gamma_{i}": torch.tensor(weight) for i, weight in enumerate(weights, start=1)}
        n = len(x)
        n_on = sum(weight > 0 for weight in weights)
        seen = torch.cat([independent, reconstruction] + ([x] if n_on else []))
        layers, logits = self.discriminator(seen, n_moment_rows=2 * n, n_layers_of_rest=n_on)

        similarity = torch.zeros((), device=x.device)
        for i, (weight, layer) in enumerate(zip(weights[:n_on], layers), start=1):
            feature_loss = self.feature_loss(layer[2 * n :], layer[n : 2 * n])
            similarity = similarity + weight * feature_loss
            terms[f"feature_{i}"] = feature_loss.detach()

        real, fake = logits[:n], logits[n:]
        cross_entropy = F.binary_cross_entropy_with_logits(
            logits, torch.cat([torch.ones_like(real), torch.zeros_like(fake)])
        )
        right = ((real > 0).float().mean() + (fake <= 0).float().mean()) / 2
        return {
            "autoencoder": Loss(vae_loss + similarity, terms),
            "discriminator": Loss(cross_entropy, {"cross_entropy": cross_entropy.detach(), "accuracy": right.detach()}),
        }

    def feature_loss(self, of_real: Tensor, of_reconstruction: Tensor) -> Tensor:
        """L_i: half the squared difference of a discriminator layer, by the scale that the config names."""
        squares = full_precision(of_real - of_reconstruction).square()
        if self.config.feature_loss_scale == "image":
            return 0.5 * self.values * squares.mean()
        return 0.5 * squares.flatten(1).sum(1).mean()
