"""Train a run in a test's own process, as the step does."""

from pathlib import Path

from phenolens.crops.store import CropStore
from phenolens.training import loop
from phenolens.training.checkpoint import RunFolder, begin, built_model
from phenolens.training.config import TrainConfig
from phenolens.training.device import Compute


def trained(store: CropStore, config: TrainConfig, compute: Compute, folder: Path) -> RunFolder:
    """Train up to the config's last step, or go on; the run's folder."""
    run = RunFolder(folder)
    model = built_model(store, config)
    begin(run, store, config, compute)
    loop.train(model, store, config, compute=compute, run=run)
    return run
