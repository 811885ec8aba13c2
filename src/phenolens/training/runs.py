"""A run and what it was made from: begun once, gone on with only when nothing but its length changed."""

from typing import Any

import torch

from phenolens import __version__
from phenolens.core.errors import InputError
from phenolens.core.files import sha256
from phenolens.core.progress import tell
from phenolens.crops.store import CropStore
from phenolens.models import MODELS, Model
from phenolens.training.checkpoint import RunFolder
from phenolens.training.config import TrainConfig
from phenolens.training.device import Compute
from phenolens.training.origin import Origin


def built_model(store: CropStore, config: TrainConfig) -> Model:
    """A model with its first weights, which depend on the seed alone."""
    torch.manual_seed(config.seed)
    return MODELS[config.model](len(store.channels), store.crop_px, config.network)


def begin(run: RunFolder, store: CropStore, config: TrainConfig, compute: Compute) -> None:
    """Write down what the run is made from; InputError when it exists already and is made from something else."""
    origin = Origin.of(store, config)
    about = run.about()
    before = run.origin()
    if before is not None and run.checkpoint.exists():  # where none is, nothing was trained: begun anew
        if not before.same_crops(origin):
            raise InputError(
                f"{run.folder}: trained on other crops than those in {store.folder} now; "
                "give another --name, or delete that folder to train anew"
            )
        if changed := before.changed_settings(origin):
            raise InputError(
                f"{run.folder}: trained with other settings ({', '.join(changed)}); "
                "give another --name, or delete that folder to train anew"
            )
    state = run.load(origin)
    if state is not None and state["step"] > config.steps:
        raise InputError(f"{run.folder}: has {state['step']} steps already, more than --steps {config.steps}")
    now = {"computed_with": compute.described(), "phenolens": __version__}
    if about is not None and state is not None and 0 < state["step"] < config.steps:
        tell_what_changed(run, about, now, step=state["step"])
    run.begin({**origin.written(), **now})


def tell_what_changed(run: RunFolder, about: dict[str, Any], now: dict[str, Any], *, step: int) -> None:
    """Say which parts of machine and versions are others than they were: numbers are rounded in another way there."""
    before, after = ({**said.get("computed_with", {}), "phenolens": said.get("phenolens")} for said in (about, now))
    changed = [f"{name} {before.get(name)} -> {after[name]}" for name in after if before.get(name) != after[name]]
    if changed:
        tell(
            f"{run.name}: goes on at step {step} with {', '.join(changed)}; its last digits will not be those of a run "
            "that was never stopped"
        )


def weights_sha256(model: Model) -> str:
    """What a model has learned, as one SHA-256 over its weights and running averages."""
    state = sorted(model.state_dict().items())
    return sha256(*(part for name, value in state for part in (name, value.contiguous().numpy().tobytes())))


def trained_model(run: RunFolder) -> tuple[Model, TrainConfig]:
    """The run's model in evaluation mode, on the CPU, and its config; InputError when it is not trained to its end."""
    origin = run.origin()
    state = None if origin is None else run.load(origin)
    if origin is None or state is None:
        raise InputError(f"{run.folder}: nothing has been trained there; run `phenolens train` first")
    config = origin.config
    if state["step"] < config.steps:
        raise InputError(
            f"{run.folder}: stands at step {state['step']} of {config.steps}; "
            "give the same `phenolens train` command again to finish it"
        )
    model = MODELS[config.model](len(origin.channels), origin.crop_px, config.network)
    run.restore(state, model, {})
    return model.eval(), config
