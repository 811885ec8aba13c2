"""Embed every crop, without noise and with normalisation by running averages; decode embeddings.

N cells of a plate, C channels, S crop side in px, Z features.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.files import write_h5ad
from phenolens.core.progress import tell
from phenolens.crops.store import CropStore, normalised
from phenolens.models.config import Turns
from phenolens.models.interface import (
    Decodes,
    Drawing,
    Draws,
    HasPrior,
    HasStages,
    Representation,
    mean_over_turns,
    stage_names,
)
from phenolens.models.layers import BatchNorm
from phenolens.screens.screen import LATENT, cell_metadata
from phenolens.training.checkpoint import RunFolder, trained_model
from phenolens.training.device import Compute

Layer = Literal["latent", "stages"]
MAX_COUNT = np.iinfo(np.uint16).max
LEAST_CONTROLS = 64  # of a plate, to estimate the statistics of batch normalisation
PLAIN = {"turns": 1, "layer": "latent"}  # the summary of embeddings without further settings
BATCH = 512  # crops a forward pass; always the same chunks of a plate, so results do not depend on the process


@torch.inference_mode()
def embed_crops(
    model: Representation, crops: np.ndarray, *, compute: Compute, turns: Turns = 1, layer: Layer = "latent"
) -> np.ndarray:
    """Features (N, Z) float32 of crops (N, C, S, S) of any number type.

    Args:
        model: The model.
        crops: The crops.
        compute: Device and precision.
        turns: 8: the mean over each crop's eight orientations.
        layer: The embedding, or the stages of a model that HasStages.
    """
    compute.place(model).eval()
    features = model.stages if layer == "stages" and isinstance(model, HasStages) else model.embed
    parts = []
    for start in range(0, len(crops), BATCH):
        x = compute.scaled(crops[start : start + BATCH], model.input)
        with compute.autocast():
            parts.append(mean_over_turns(features, x, turns))
    return torch.cat(parts).cpu().numpy()


@contextmanager
def normalised_by(model: Representation, crops: np.ndarray, *, compute: Compute) -> Iterator[None]:
    """Take the statistics of batch normalisation from these crops (at most BATCH, C, S, S) instead of the training's.

    Adaptive batch normalisation (Li et al. 2016), layer by layer: each sees the maps that the new statistics make.

    Raises:
        InputError: Embeddings do not depend on batch normalisation.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, BatchNorm)]
    before = [(layer.running_mean.clone(), layer.running_var.clone()) for layer in layers]
    try:
        for layer in layers:
            layer.measures = True
        embed_crops(model, crops[:BATCH], compute=compute)
        for layer in layers:
            layer.measures = False
        if all(torch.equal(layer.running_mean, mean) for layer, (mean, _) in zip(layers, before)):
            raise InputError(
                f"--norm-from controls: {type(model).__name__} embeds without batch normalisation; leave it out, or "
                "choose other --runs"
            )
        yield
    finally:
        for layer, (mean, variance) in zip(layers, before):
            layer.measures = False
            layer.running_mean.copy_(mean)
            layer.running_var.copy_(variance)


def controls_to_norm_by(cells: pd.DataFrame, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Of each plate the rows of at most BATCH control cells: its own, or those of all plates where they are too few.

    Args:
        cells: A row per cell of the study: `plate`, `role`, `is_noise`.
        seed: Of the draws.

    Raises:
        InputError: There are too few control cells on all plates together.
    """
    everywhere, random = _control_rows(cells), np.random.default_rng(seed)
    pooled = np.sort(random.permutation(everywhere)[:BATCH])
    of_plate = cells["plate"].to_numpy()[everywhere]
    rows, few = {}, []
    for plate in cells["plate"].unique():
        controls = everywhere[of_plate == plate]
        if len(controls) < LEAST_CONTROLS:
            few.append(f'"{plate}" {len(controls)}')
        enough = len(controls) >= LEAST_CONTROLS
        rows[str(plate)] = np.sort(random.permutation(controls)[:BATCH]) if enough else pooled
    if few:
        tell(
            f"--norm-from controls: {len(few)} of {counted(len(rows), 'plate')} with fewer than {LEAST_CONTROLS} "
            f"control cells ({few[0]}), normalised by the controls of all plates"
        )
    return rows


def check_norm_by_controls(model: Representation, store: CropStore, *, where: tuple[str, str, int | None]) -> None:
    """InputError for too few control cells in a study, or a model that embeds without batch normalisation."""
    some, (device, precision, threads) = _control_rows(store.cells)[:2], where
    compute = Compute.chosen(device=device, precision=precision, threads=threads)
    with normalised_by(model, store.take(some), compute=compute):
        pass


def _control_rows(cells: pd.DataFrame) -> np.ndarray:
    """The rows of the control cells of all plates that are not noise; InputError for too few."""
    rows = np.flatnonzero((cells["role"] == "control") & ~cells["is_noise"])
    if len(rows) < LEAST_CONTROLS:
        raise InputError(
            f"--norm-from controls: the study has {counted(len(rows), 'control cell')}; expected {LEAST_CONTROLS} or "
            "more: leave it out"
        )
    return rows


def as_counts(crops: np.ndarray, model: Representation) -> np.ndarray:
    """Float crops (n, C, S, S) rounded to 16 bits as a camera would, negative values as 0.

    For a model that takes in peak-normalised crops, each channel is first divided by its maximum.
    """
    counts = normalised(np.maximum(crops, 0)) * MAX_COUNT if model.input == "peak" else np.clip(crops, 0, MAX_COUNT)
    return np.rint(counts).astype(np.uint16)


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
        return model.decode(_on(z, compute)).float().cpu().numpy()


@torch.inference_mode()
def draw(model: Representation, n: int, *, seed: int, compute: Compute) -> np.ndarray:
    """Crops (n, C, S, S) float32 of cells that do not exist."""
    assert isinstance(model, Draws)
    compute.place(model).eval()
    with compute.autocast():
        return model.draw(n, seed).float().cpu().numpy()


@torch.inference_mode()
def redraw(model: Drawing, crops: np.ndarray, z: np.ndarray, *, seeds: Sequence[int], compute: Compute) -> np.ndarray:
    """Crops (N, C, S, S) float32 of embeddings z (N, Z) with the layout of crops (N, C, S, S), a seed per cell."""
    compute.place(model).eval()
    return model.redraw(compute.scaled(crops, model.input), _on(z, compute), seeds=seeds).cpu().numpy()


@torch.inference_mode()
def change(
    model: Drawing, crops: np.ndarray, z: np.ndarray, to: np.ndarray, *, emphasis: float, compute: Compute
) -> np.ndarray:
    """Crops (F, C, S, S) float32: a real crop (1, C, S, S) with embedding z (1, Z), changed to embeddings (F, Z)."""
    compute.place(model).eval()
    x = compute.scaled(crops, model.input)
    changed = model.changed(x, _on(z, compute), _on(to, compute), emphasis=emphasis)
    return changed.cpu().numpy()


def _on(z: np.ndarray, compute: Compute) -> torch.Tensor:
    return torch.from_numpy(z.astype(np.float32)).to(compute.device)


def embedding_table(
    z: np.ndarray, cells: pd.DataFrame, *, features: Sequence[str], about: dict[str, Any], also: dict[str, np.ndarray]
) -> AnnData:
    """Features (N, F) with their cells' `Metadata_*` columns.

    Args:
        z: The features that profiles are made of.
        cells: The cells.
        features: Their names.
        about: Which crops and run they come from.
        also: Other arrays with a row per cell, by name.
    """
    return AnnData(
        X=z,
        obs=cell_metadata(cells),
        var=pd.DataFrame(index=list(features)),
        obsm=also,
        uns={"phenolens": json.dumps(about)},
    )


@dataclass(frozen=True)
class PlateEmbedder:
    """Writes the embeddings of a plate; another process that it is sent to loads the model once."""

    run: Path
    crops: Path
    folder: Path  # of the embeddings
    about: dict[str, Any]  # what they are made from; its `summary` has `turns` and `layer`
    where: tuple[str, str, int | None]  # device, precision, threads

    def __call__(self, job: tuple[str, np.ndarray | None]) -> None:
        """Embed a plate: its name, and the rows of the control cells whose statistics batch normalisation takes.

        InputError for a model that outputs NaN.
        """
        model, store, compute = _loaded(self.run, self.crops, self.where, self.about["made_from"])
        (plate, rows), summary = job, self.about["summary"]
        crops = store.crops(plate)
        with nullcontext() if rows is None else normalised_by(model, store.take(rows), compute=compute):
            z = embed_crops(model, crops, compute=compute, turns=summary["turns"], layer=summary["layer"])
        if not (z == z).all():
            raise InputError(f'{self.run}: the model outputs NaN for cells of plate "{plate}"; train it again')
        decoding = summary != PLAIN and isinstance(model, Decodes)
        also = {LATENT: embed_crops(model, crops, compute=compute)} if decoding else {}
        features = model.feature_names() if summary["layer"] == "latent" else stage_names(z.shape[1])
        cells = store.cells[(store.cells["plate"] == plate).to_numpy()]
        table = embedding_table(z, cells, features=features, about=self.about, also=also)
        write_h5ad(self.folder / f"{plate}.h5ad", table)


@lru_cache(maxsize=1)  # a process embeds many plates with one model
def _loaded(
    run: Path, crops: Path, where: tuple[str, str, int | None], made_from: str
) -> tuple[Representation, CropStore, Compute]:
    device, precision, threads = where
    compute = Compute.chosen(device=device, precision=precision, threads=threads)
    return trained_model(RunFolder(run))[0], CropStore.open(crops), compute
