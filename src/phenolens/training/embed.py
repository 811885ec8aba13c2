"""Embed every crop: the mean of each cell's posterior, without noise, normalisation by running averages.

N cells of a plate, C channels, S crop side in px, Z latent size.
"""

import json
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from phenolens.models import AE, Generative, Model
from phenolens.models.vaeplus import kl_per_feature
from phenolens.screens.screen import cell_metadata
from phenolens.training.device import Compute

BATCH = 512  # crops a forward pass; always the same chunks of a plate, so results do not depend on who embeds it


@torch.inference_mode()
def embed_crops(model: Model, crops: np.ndarray, *, compute: Compute) -> np.ndarray:
    """Embeddings (N, Z) float32 of crops (N, C, S, S) of any number type."""
    compute.place(model).eval()
    parts = []
    for start in range(0, len(crops), BATCH):
        with compute.autocast():
            parts.append(model.embed(compute.normalised(crops[start : start + BATCH])).float())
    return torch.cat(parts).cpu().numpy()


@torch.inference_mode()
def mean_kl(model: Model, crops: np.ndarray, *, compute: Compute) -> np.ndarray | None:
    """KL of each feature (Z,) from the prior, nats, mean over crops (N, C, S, S); None for a model without a prior."""
    if not isinstance(model, AE) or not model.noisy:
        return None
    compute.place(model).eval()
    total = torch.zeros(())
    for start in range(0, len(crops), BATCH):
        part = crops[start : start + BATCH]
        with compute.autocast():
            mean, log_variance = model.encoder(compute.normalised(part))
        total = total + len(part) * kl_per_feature(mean, log_variance).double().cpu()
    return (total / len(crops)).numpy()


@torch.inference_mode()
def decode(model: Generative, z: np.ndarray, *, compute: Compute) -> np.ndarray:
    """Pictures (N, C, S, S) float32 that embeddings z (N, Z) decode into."""
    compute.place(model).eval()
    with compute.autocast():
        return model.decode(torch.from_numpy(z.astype(np.float32)).to(compute.device)).float().cpu().numpy()


def embedding_table(z: np.ndarray, cells: pd.DataFrame, *, about: dict[str, Any]) -> AnnData:
    """Embeddings (N, Z) with their cells' `Metadata_*` columns; `about` says which crops and run they come from."""
    var = pd.DataFrame(index=[f"Z{i:03d}" for i in range(z.shape[1])])
    return AnnData(X=z, obs=cell_metadata(cells), var=var, uns={"phenolens": json.dumps(about)})
