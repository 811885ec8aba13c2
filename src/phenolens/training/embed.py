"""Embed every crop, without noise and with normalisation by running averages; decode embeddings.

N cells of a plate, C channels, S crop side in px, Z features.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from phenolens.models.interface import Decodes, HasPrior, Representation
from phenolens.screens.screen import cell_metadata
from phenolens.training.device import Compute

BATCH = 512  # crops a forward pass; always the same chunks of a plate, so results do not depend on the process


@torch.inference_mode()
def embed_crops(model: Representation, crops: np.ndarray, *, compute: Compute) -> np.ndarray:
    """Embeddings (N, Z) float32 of crops (N, C, S, S) of any number type."""
    compute.place(model).eval()
    parts = []
    for start in range(0, len(crops), BATCH):
        with compute.autocast():
            parts.append(model.embed(compute.scaled(crops[start : start + BATCH], model.input)).float())
    return torch.cat(parts).cpu().numpy()


@torch.inference_mode()
def mean_kl(model: Representation, crops: np.ndarray, *, compute: Compute) -> np.ndarray | None:
    """KL of each feature (Z,) from the prior, nats, mean over crops (N, C, S, S); None for a model without a prior."""
    if not isinstance(model, HasPrior):
        return None
    compute.place(model).eval()
    total = torch.zeros(())
    for start in range(0, len(crops), BATCH):
        part = crops[start : start + BATCH]
        with compute.autocast():
            kl = model.kl(compute.scaled(part, model.input))
        if kl is None:
            return None
        total = total + len(part) * kl.double().cpu()
    return (total / len(crops)).numpy()


@torch.inference_mode()
def decode(model: Representation, z: np.ndarray, *, compute: Compute) -> np.ndarray:
    """Crops (N, C, S, S) float32 that embeddings z (N, Z) decode into."""
    assert isinstance(model, Decodes)
    compute.place(model).eval()
    with compute.autocast():
        return model.decode(torch.from_numpy(z.astype(np.float32)).to(compute.device)).float().cpu().numpy()


def embedding_table(z: np.ndarray, cells: pd.DataFrame, *, features: Sequence[str], about: dict[str, Any]) -> AnnData:
    """Embeddings (N, Z) with their cells' `Metadata_*` columns; `about` says which crops and run they come from."""
    return AnnData(
        X=z,
        obs=cell_metadata(cells),
        var=pd.DataFrame(index=list(features)),
        uns={"phenolens": json.dumps(about)},
    )
