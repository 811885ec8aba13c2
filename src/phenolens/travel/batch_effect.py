"""Batch or biology: how much of a direction between cells is what batches differ by.

n control cells, b batches (or plates), r dimensions of the space of their differences, Z features.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.covariance import ledoit_wolf

from phenolens.core.errors import InputError

SAME = 1e-9  # of the largest difference: what batches differ by less than this is rounding
MOST = 0.5  # a direction with more than this share in the batch space is called a batch difference; fixed beforehand


@dataclass(frozen=True)
class BatchShare:
    """How much of a direction lies in the batch space."""

    share: float  # of its squared length, counted in deviations of control cells, 0 to 1
    chance: float  # the share of directions in which control cells differ within a batch, 0 to 1
    n_batches: int

    @property
    def is_batch(self) -> bool:
        """Whether most of the direction is what batches differ by."""
        return self.share > MOST

    def words(self, kind: str = "batches") -> str:
        """`12 % of this direction is what batches differ by (chance 3 %)`, and what to do where that is most of it."""
        said = f"{self.share:.0%} of this direction is what {kind} differ by (chance {self.chance:.0%})".replace(
            "%", " %"
        )
        return f"{said}: a difference of {kind}, not of the treatment" if self.is_batch else said


@dataclass(frozen=True)
class BatchSpace:
    """The space spanned by the differences between the batches' control means, where controls vary alike all around."""

    whitening: np.ndarray  # (Z, Z) after which control cells of one batch have the same variance in every direction
    basis: np.ndarray  # (r, Z) orthonormal, after whitening
    chance: float  # share of the within-batch variance of control cells that lies in it, 0 to 1
    n_batches: int

    def share(self, direction: np.ndarray) -> BatchShare:
        """How much of a direction (Z,), such as treatment mean minus control mean, lies in this space.

        InputError for a direction without a length or of other features.
        """
        direction = np.asarray(direction, float)
        if direction.shape != self.basis.shape[1:] or not np.isfinite(direction).all() or not direction.any():
            raise InputError(
                f"direction of shape {direction.shape}: expected {self.basis.shape[1]} finite values, not all of them "
                "0, as the controls have features"
            )
        # scaled first, so that squares neither vanish nor overflow
        white = direction / np.abs(direction).max() @ self.whitening
        share = float(np.square(self.basis @ white).sum() / np.square(white).sum())
        return BatchShare(min(share, 1.0), self.chance, self.n_batches)


def batch_space(z_controls: np.ndarray, batches: np.ndarray) -> BatchSpace:
    """The space in which batches differ, from the control cells (n, Z) and the batch (n,) of each.

    Controls had the same done to them everywhere, so what their means differ by between batches is no biology. Of b
    batches it has b - 1 dimensions, fewer where means coincide.

    Lengths are counted in the deviations of control cells within a batch (their covariance W, shrunk as by Ledoit and
    Wolf 2004). Along the few directions in which all cells vary much, batches and treatments move alike, and without
    this they would share much of their length there though neither goes the other's way. `chance` is what a direction
    has of the space that goes as control cells differ within a batch: tr(P W) / tr(W), P the projection onto it; near
    r / Z once lengths are counted so. InputError where there are fewer than two batches, values that are not finite,
    or no batch with two cells that differ.
    """
    z, batches = np.asarray(z_controls, float), np.asarray(batches)
    if z.ndim != 2 or len(z) != len(batches) or not z.size or not np.isfinite(z).all():
        raise InputError(
            f"controls of shape {z.shape}, {len(batches)} batches of cells: expected finite values, a row a cell"
        )
    names, of_batch = np.unique(batches.astype(str), return_inverse=True)
    if len(names) < 2:
        raise InputError(f'all control cells are of one batch, "{names[0]}": what batches differ by needs two or more')
    means = np.zeros((len(names), z.shape[1]))
    np.add.at(means, of_batch, z)
    means /= np.bincount(of_batch)[:, None]
    within = z - means[of_batch]
    if np.abs(within).max() <= SAME * np.abs(z).max():
        raise InputError("control cells do not differ within a batch: expected a batch with two or more of them")
    variances, axes = np.linalg.eigh(ledoit_wolf(within, assume_centered=True)[0])
    # features that no cell uses have no variance, and nothing can be counted in deviations of 0
    used = variances > SAME * variances[-1]
    whitening = axes[:, used] / np.sqrt(variances[used]) @ axes[:, used].T
    white = within @ whitening
    _, lengths, directions = np.linalg.svd((means - means.mean(axis=0)) @ whitening, full_matrices=False)
    basis = directions[lengths > SAME * max(lengths[0], np.abs(white).max())]
    chance = float(np.square(white @ basis.T).sum() / np.square(white).sum())
    return BatchSpace(whitening, basis, chance, len(names))


def share_in_batch_space(direction: np.ndarray, z_controls: np.ndarray, batches: np.ndarray) -> BatchShare:
    """How much of a direction (Z,) is what batches differ by, from control cells (n, Z) and the batch (n,) of each.

    The direction is best the treatment's mean minus that of all controls: minus the controls of its own batches, what
    those differ by from other batches is out of it already. Few cells make a mean uncertain in all directions, which
    lowers the share.
    """
    return batch_space(z_controls, batches).share(direction)
