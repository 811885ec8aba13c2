"""Draw batches with the same number of cells of every treatment.

T treatments (the control counts as one), B cells a batch. What is drawn at a step depends on the seed and the step
alone, so a resumed run needs no sampler state.
"""

import numpy as np
import pandas as pd

from phenolens.screens.screen import treatment_name


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


def sampled_treatments(cells: pd.DataFrame, *, held_out: np.ndarray | None = None) -> pd.Series:
    """The treatment each crop stands for, missing for noise crops (they teach nothing) and held-out ones."""
    left_out = cells["is_noise"] if held_out is None else cells["is_noise"] | held_out
    return treatment_name(cells["compound"], cells["concentration_um"]).where(~left_out)


def held_out_cells(cells: pd.DataFrame, *, share: float, seed: int) -> np.ndarray:
    """Which crops (n,) lie in wells that are held out of training: whole wells at random, about `share` of them.

    Never the last well of a treatment with cells to draw, so that each treatment stays in every batch.
    """
    wells = cells["plate"].astype(str) + "/" + cells["well"].astype(str)
    drawn = pd.DataFrame({"well": wells, "treatment": sampled_treatments(cells)}).dropna().drop_duplicates()
    left = drawn["treatment"].value_counts()
    wanted = round(share * wells.nunique())
    held: set[str] = set()
    for row in np.random.default_rng([seed, -2 % 2**32]).permutation(len(drawn)):
        well, treatment = drawn.iloc[row]
        if len(held) < wanted and left[treatment] > 1:
            left[treatment] -= 1
            held.add(well)
    return wells.isin(held).to_numpy()
