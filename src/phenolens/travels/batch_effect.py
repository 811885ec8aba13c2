"""Batch effect: how much of a direction in latent space is a difference between batches.

n control cells, b batches (or plates), r dimensions of the space of their differences, Z features.
"""

from dataclasses import dataclass

import numpy as np

from phenolens.core.errors import InputError
from phenolens.travels.trajectory import BatchShare

SAME = 1e-9  # share of the largest difference, below which batches differ by rounding


@dataclass(frozen=True)
class BatchSpace:
    """The space spanned by differences between the batches' control means, after whitening by control cells."""

    whitening: np.ndarray  # (Z, Z); whitened control cells of one batch have equal variance in every direction
    basis: np.ndarray  # (r, Z) orthonormal, after whitening
    chance: float  # share of the within-batch variance of control cells in this space, 0 to 1

    def share(self, direction: np.ndarray) -> BatchShare:
        """How much of a direction (Z,) lies in this space.

        Use the treatment's mean minus the mean of all controls: minus the controls of its own batches, the difference
        to other batches is already removed. A mean of few cells is uncertain in all directions, which lowers the share.
        """
        # scaled first, so that squares neither underflow nor overflow
        white = direction / np.abs(direction).max() @ self.whitening
        share = float(np.square(self.basis @ white).sum() / np.square(white).sum())
        return BatchShare(min(share, 1.0), self.chance)


def batch_space(z_controls: np.ndarray, batches: np.ndarray) -> BatchSpace:
    """The space in which control cells of different batches differ.

    Controls are treated alike everywhere, so a difference between their batch means is not biology. For b batches the
    space has b - 1 dimensions, fewer where means coincide. Cells are first whitened by the covariance W of controls
    within a batch (Ledoit and Wolf 2004): otherwise the few directions of large variance dominate every direction.
    `chance` is tr(P W) / tr(W) with P the projection onto the space; near r / Z after whitening.

    Args:
        z_controls: (n, Z) embeddings of control cells.
        batches: (n,) the batch of each, two or more in all.

    Raises:
        InputError: values that are not finite, or no batch with two cells that differ.
    """
    from sklearn.covariance import ledoit_wolf  # slow to import, and only needed here

    z = np.asarray(z_controls, float)
    if not np.isfinite(z).all():
        raise InputError(f"control cells of shape {z.shape}: expected finite values, a row per cell")
    names, of_batch = np.unique(batches, return_inverse=True)
    means = np.zeros((len(names), z.shape[1]))
    np.add.at(means, of_batch, z)
    means /= np.bincount(of_batch)[:, None]
    within = z - means[of_batch]
    if np.abs(within).max() <= SAME * np.abs(z).max():
        raise InputError("control cells do not differ within a batch: expected a batch with two or more of them")
    variances, axes = np.linalg.eigh(ledoit_wolf(within, assume_centered=True)[0])
    # unused features have no variance and cannot be whitened
    used = variances > SAME * variances[-1]
    whitening = axes[:, used] / np.sqrt(variances[used]) @ axes[:, used].T
    white = within @ whitening
    _, lengths, directions = np.linalg.svd((means - means.mean(axis=0)) @ whitening, full_matrices=False)
    basis = directions[lengths > SAME * max(lengths[0], np.abs(white).max())]
    chance = float(np.square(white @ basis.T).sum() / np.square(white).sum())
    return BatchSpace(whitening, basis, chance)
