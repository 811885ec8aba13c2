"""Draw batches with the same number of cells of every treatment.

T treatments (the control counts as one), B cells a batch. What is drawn at a step depends on the seed and the step
alone, so a resumed run needs no sampler state.
"""

import numpy as np
import pandas as pd

from phenolens.screen.table import treatment_name


class TreatmentSampler:
    """Draws store rows for one step: independent batches, treatments evenly, cells at random within a treatment."""

    def __init__(self, treatments: pd.Series, *, batch_size: int | None, seed: int) -> None:
        """`treatments`: the treatment of each store row, missing where a row must not be drawn (noise crops)."""
        rows = np.flatnonzero(treatments.notna().to_numpy())
        codes, self.names = pd.factorize(treatments.to_numpy()[rows], sort=True)
        order = np.argsort(codes, kind="stable")
        self.rows = rows[order]
        self.counts = np.bincount(codes, minlength=len(self.names))
        self.starts = np.concatenate([[0], np.cumsum(self.counts)[:-1]])
        self.batch_size = batch_size or len(self.names)
        self.seed = seed

    def draw(self, step: int, *, batches: int) -> np.ndarray:
        """Store rows (batches, B) of one step.

        With B = T each batch holds one cell of each treatment (Lafarge et al. 2019, section 4.1). With another B the
        treatments come in random order, each once before any comes again.
        """
        random = np.random.default_rng([self.seed, step])
        rounds = -(-self.batch_size // len(self.names))
        treatments = np.stack(
            [
                np.concatenate([random.permutation(len(self.names)) for _ in range(rounds)])[: self.batch_size]
                for _ in range(batches)
            ]
        )
        within = random.integers(self.counts[treatments])
        return self.rows[self.starts[treatments] + within]

    def spread(self, n: int) -> np.ndarray:
        """At most `n` different store rows, as evenly over treatments as their counts allow; the same each time."""
        random = np.random.default_rng([self.seed, -1 % 2**32])
        turn = np.concatenate([random.permutation(count) for count in self.counts])  # each cell's turn in its treatment
        return np.sort(self.rows[np.lexsort((np.arange(len(turn)), turn))[:n]])


def sampled_treatments(cells: pd.DataFrame) -> pd.Series:
    """The treatment each crop stands for, missing for noise crops (they teach nothing about cells)."""
    return treatment_name(cells["compound"], cells["concentration_um"]).where(~cells["is_noise"])
