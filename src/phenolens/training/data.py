"""Which cells a step sees, and the batches of them: the same number of cells of every treatment.

N crops, T treatments (all controls count as one), B cells per batch, C channels, S crop side in px. What is drawn at a
step depends on the seed and the step only, so a resumed run needs no sampler state.
"""

from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from phenolens.core.mapped_rows import Rows
from phenolens.crops.store import CropStore
from phenolens.models.config import Turns
from phenolens.models.interface import LABELS, Batch, Input, randomly_turned
from phenolens.screens.screen import ROLES, treatment_name
from phenolens.training.device import Compute, as_signed

SHARE_OF_FREE_MEMORY = 0.8  # of the device, for crops; a step needs the rest


class TreatmentSampler:
    """Draws store rows for one step: independent batches, treatments evenly, cells at random within a treatment."""

    def __init__(self, treatments: pd.Series, *, batch_size: int | None, seed: int, paired: bool = False) -> None:
        """`treatments`: the treatment of each store row, missing where a row must not be drawn (noise crops).

        `paired`: all batches of a step hold the same treatments, in the same order.
        """
        rows = np.flatnonzero(treatments.notna().to_numpy())
        codes, self.names = pd.factorize(treatments.to_numpy()[rows], sort=True)
        order = np.argsort(codes, kind="stable")
        self.rows = rows[order]
        self.counts = np.bincount(codes, minlength=len(self.names))
        self.starts = np.concatenate([[0], np.cumsum(self.counts)[:-1]])
        self.batch_size = batch_size or len(self.names)
        self.seed = seed
        self.paired = paired

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
                for _ in range(1 if self.paired else batches)
            ]
        )
        treatments = np.broadcast_to(treatments, (batches, self.batch_size))
        within = random.integers(self.counts[treatments])
        return self.rows[self.starts[treatments] + within]

    def spread(self, n: int) -> np.ndarray:
        """At most `n` different store rows, as evenly over treatments as their counts allow; the same each time."""
        random = np.random.default_rng([self.seed, -1 % 2**32])
        turn = np.concatenate([random.permutation(count) for count in self.counts])  # each cell's turn in its treatment
        return np.sort(self.rows[np.lexsort((np.arange(len(turn)), turn))[:n]])


def sampled_treatments(cells: pd.DataFrame, *, held_out: np.ndarray | None = None) -> pd.Series:
    """The treatment of each crop, missing for noise crops and held-out ones.

    Wells of a positive control count with the treatment of the same compound and dose.
    """
    left_out = cells["is_noise"] if held_out is None else cells["is_noise"] | held_out
    return treatment_name(cells["compound"], cells["concentration_um"]).where(~left_out)


def held_out_cells(cells: pd.DataFrame, *, share: float, seed: int) -> np.ndarray:
    """Which crops (n,) lie in wells that are held out of training: whole wells at random, about `share` of them.

    Never the last well of a treatment with cells to draw, so that each treatment stays in every batch.
    """
    wells = _wells(cells)
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


def label_codes(cells: pd.DataFrame) -> np.ndarray:
    """The labels of all crops as numbers (labels, N), in the order of LABELS, -1 where unknown; never a mechanism."""
    labels = {
        "treatment": treatment_name(cells["compound"], cells["concentration_um"]),
        "well": _wells(cells),
        **{name: cells[name] for name in ("compound", "plate", "batch")},
    }
    codes = {name: pd.factorize(values.to_numpy(object), sort=True)[0] for name, values in labels.items()}
    codes["role"] = pd.Categorical(cells["role"], categories=ROLES).codes
    return np.stack([codes[name] for name in LABELS]).astype(np.int64)


def _wells(cells: pd.DataFrame) -> pd.Series:
    return cells["plate"].astype(str) + "/" + cells["well"].astype(str)


class Batches:
    """The crops of a store with their labels, read from disk for every batch, or held on the device.

    Crops are uint16 in both places; torch calculates with them as the int16 of the same bits.
    """

    def __init__(
        self,
        store: CropStore,
        compute: Compute,
        *,
        input: Input,
        kept: Literal["auto", "disk", "device"],
        z: Rows | None = None,
        turns: Turns = 1,
    ) -> None:
        """`input`: how the model takes crops in; `kept` auto: on the device, when it is a CUDA card with room.

        `z`: embeddings (N, Z) of all crops, for a decoder. `turns`: 8 shows each crop in a random orientation.
        """
        self.turns = turns
        self.store, self.compute, self.input = store, compute, input
        self.z = z
        self.codes = torch.from_numpy(label_codes(store.cells))
        if kept == "auto":
            fits = compute.device.type == "cuda" and size_bytes(store) < SHARE_OF_FREE_MEMORY * compute.free_bytes()
            kept = "device" if fits else "disk"
        self.pixels: Tensor | None = None
        if kept == "device":
            side = store.crop_px
            self.pixels = torch.empty(
                (len(store), len(store.channels), side, side), dtype=torch.int16, device=compute.device
            )
            parts = self.pixels.split(list(store.sizes))
            for part, plate in zip(parts, store.plates):  # not held twice, as joined parts would be
                part.copy_(as_signed(store.crops(plate)))

    def batch(self, rows: np.ndarray, step: int) -> Batch:
        """The cells of store rows (draws, B), on the device."""
        flat = rows.ravel()
        moved = self.compute.moved
        pixels = self.store.take(flat) if self.pixels is None else self.pixels[moved(torch.from_numpy(flat))]
        x = self.compute.scaled(pixels, self.input)
        x = (randomly_turned(x) if self.turns == 8 else x).unflatten(0, rows.shape)
        codes = moved(self.codes[:, torch.from_numpy(rows)])
        z = None if self.z is None else moved(torch.from_numpy(self.z[rows]))
        return Batch(x, **dict(zip(LABELS, codes)), step=step, z=z)


def size_bytes(store: CropStore) -> int:
    """The size of all crops."""
    return len(store) * len(store.channels) * store.crop_px**2 * np.dtype(np.uint16).itemsize
