"""A run and what it was made from: begun once, gone on with only when nothing but its length changed."""

import dataclasses
from typing import Any

import torch

from phenolens import __version__
from phenolens.errors import InputError
from phenolens.files import sha256
from phenolens.images.store import CropStore
from phenolens.models import MODELS, Model, ModelConfig
from phenolens.training.checkpoint import RunFolder
from phenolens.training.config import HOW, TrainConfig
from phenolens.training.device import Compute


def built_model(store: CropStore, config: TrainConfig) -> Model:
    """A model with its first weights, which depend on the seed alone."""
    torch.manual_seed(config.seed)
    return MODELS[config.model](len(store.channels), store.crop_px, config.network)


def begin(run: RunFolder, store: CropStore, config: TrainConfig, compute: Compute) -> None:
    """Write down what the run is made from; InputError when it exists already and is made from something else."""
    made_from: dict[str, Any] = {
        "config": dataclasses.asdict(config),
        "crops": store.identity,
        "channels": list(store.channels),
        "crop_px": store.crop_px,
        "n_crops": len(store.cells),
    }
    before = run.about()
    if before is not None:
        if before["crops"] != store.identity:
            raise InputError(
                f"{run.folder}: trained on other crops than those in {store.folder} now; "
                "give another --name, or delete that folder to train anew"
            )
        old, new = (_what(about["config"]) for about in (before, made_from))
        changed = [f"{name} {old.get(name)} -> {new.get(name)}" for name in new if old.get(name) != new.get(name)]
        if changed:
            raise InputError(
                f"{run.folder}: trained with other settings ({', '.join(changed)}); "
                "give another --name, or delete that folder to train anew"
            )
        done = run.load()
        if done is not None and done["step"] > config.steps:
            raise InputError(f"{run.folder}: has {done['step']} steps already, more than --steps {config.steps}")
    run.begin({**made_from, "computed_with": compute.described(), "phenolens": __version__})


def weights_sha256(model: Model) -> str:
    """What a model has learned, as one SHA-256 over its weights and running averages."""
    state = sorted(model.state_dict().items())
    return sha256(*(part for name, value in state for part in (name, value.contiguous().numpy().tobytes())))


def _what(config: dict[str, Any]) -> dict[str, Any]:
    """The settings that decide what a run computes, flat."""
    how = HOW if config["cooldown_steps"] else (*HOW, "steps")
    return {**{k: v for k, v in config.items() if k not in (*how, "network")}, **config["network"]}


def trained_model(run: RunFolder) -> tuple[Model, TrainConfig]:
    """The run's model in evaluation mode, on the CPU, and its config; InputError when it is not trained to its end."""
    about = run.about()
    state = run.load() if about else None
    if about is None or state is None:
        raise InputError(f"{run.folder}: nothing has been trained there; run `phenolens train` first")
    config = TrainConfig(**{**about["config"], "network": ModelConfig(**about["config"]["network"])})
    if state["step"] < config.steps:
        raise InputError(
            f"{run.folder}: stands at step {state['step']} of {config.steps}; "
            "give the same `phenolens train` command again to finish it"
        )
    model = MODELS[config.model](len(about["channels"]), about["crop_px"], config.network)
    model.load_state_dict(state["model"])
    return model.eval(), config
