"""Crops as a model sees them: read from disk, or held on the device and drawn there.

N crops, B a batch, C channels, S crop side in px. Crops are uint16 wherever they are kept; torch calculates with them
as the int16 of the same bits.
"""

from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from phenolens.crops.store import CropStore
from phenolens.training.device import Compute, as_signed

SHARE_OF_FREE_MEMORY = 0.5  # of the device; what a step needs has to fit beside the crops


class Crops(Protocol):
    """Where batches come from."""

    def batch(self, rows: np.ndarray) -> Tensor:
        """The crops of store rows (batches, B), normalised, on the device: (batches, B, C, S, S)."""


class CropsOnDisk:
    """Crops read from the store's memory map for every batch."""

    def __init__(self, store: CropStore, compute: Compute) -> None:
        self.store = store
        self.compute = compute

    def batch(self, rows: np.ndarray) -> Tensor:
        """The crops of store rows (batches, B), normalised, on the device: (batches, B, C, S, S)."""
        return self.compute.normalised(self.store.take(rows.ravel())).unflatten(0, rows.shape)


class CropsOnDevice:
    """All crops held on the device, two bytes a pixel; a batch is drawn and normalised there."""

    def __init__(self, store: CropStore, compute: Compute) -> None:
        self.compute = compute
        self.pixels = torch.cat([as_signed(store.crops(plate)).to(compute.device) for plate in store.plates])

    def batch(self, rows: np.ndarray) -> Tensor:
        """The crops of store rows (batches, B), normalised, on the device: (batches, B, C, S, S)."""
        where = torch.from_numpy(rows.ravel())
        if self.compute.device.type == "cuda":
            where = where.pin_memory().to(self.compute.device, non_blocking=True)
        return self.compute.normalised(self.pixels[where]).unflatten(0, rows.shape)


def crops_for(store: CropStore, compute: Compute, *, kept: Literal["auto", "disk", "device"]) -> Crops:
    """Where a training draws from; auto: the device, when it is a CUDA card with room for all crops."""
    if kept == "auto":
        fits = compute.device.type == "cuda" and size_bytes(store) < SHARE_OF_FREE_MEMORY * compute.free_bytes()
        kept = "device" if fits else "disk"
    return CropsOnDevice(store, compute) if kept == "device" else CropsOnDisk(store, compute)


def size_bytes(store: CropStore) -> int:
    """What all crops take."""
    return len(store) * len(store.channels) * store.crop_px**2 * np.dtype(np.uint16).itemsize
