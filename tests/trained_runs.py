"""Train a run in a test's own process, as the step does."""

from pathlib import Path

import numpy as np

from phenolens.crops.store import CropStore
from phenolens.models import MODELS
from phenolens.models.interface import Drawing, Source
from phenolens.training import loop
from phenolens.training.checkpoint import RunFolder, begin, built_model
from phenolens.training.config import TrainConfig
from phenolens.training.device import Compute


def trained(store: CropStore, config: TrainConfig, compute: Compute, folder: Path) -> RunFolder:
    """Train up to the config's last step, or go on; the run's folder."""
    run = RunFolder(folder)
    z, source = None, None
    if issubclass(MODELS[config.model].load(), Drawing):
        z, source = np.random.default_rng(3).random((len(store), 5), np.float32), Source("made up", features=5, turns=8)
    model = built_model(store, config, source)
    begin(run, store, config, compute, source)
    loop.train(model, store, config, compute=compute, run=run, z=z)
    return run
