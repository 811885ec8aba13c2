"""The training loop, in the order of events: draw, losses, gradients, steps, decay, record, checkpoint.

B cells a batch, C channels, S crop side in px. All randomness of a step is a function of (seed, step), so a run that
was killed goes on from its last checkpoint and, on a CPU, ends bit for bit where it would have ended.
"""

import dataclasses
import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from phenolens.errors import Interrupted
from phenolens.images.store import CropStore
from phenolens.models import FittedModel, Loss, Model
from phenolens.progress import track
from phenolens.training.checkpoint import RunFolder
from phenolens.training.config import TrainConfig
from phenolens.training.device import Compute, StopRequest
from phenolens.training.failure import NotFinite, bad_step, check_weights, forget_failure
from phenolens.training.sampling import TreatmentSampler, held_out_cells, sampled_treatments
from phenolens.training.watch import Watch, watched_cells

FIT_CROPS = 4096  # crops, evenly over treatments, that a model without a loop is fitted on


@dataclasses.dataclass
class Progress:
    """How far a run is: steps done, seconds of training so far, one history record each `record_every` steps."""

    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)


def train(model: Model, store: CropStore, config: TrainConfig, *, compute: Compute, run: RunFolder) -> Progress:
    """Train `model` in place up to `config.steps`, from where the run's checkpoint stands.

    Raises RunError when a loss is not finite and Interrupted on SIGINT or SIGTERM; the checkpoint then is a whole one.
    """
    compute.place(model).train()
    optimisers = model.optimisers()
    progress = restore(run, model, optimisers)
    if progress.step >= config.steps:
        return progress
    held_out = held_out_cells(store.cells, share=config.held_out_wells, seed=config.seed)
    treatments = sampled_treatments(store.cells, held_out=held_out)
    sampler = TreatmentSampler(treatments, batch_size=config.batch_size, seed=config.seed)
    forget_failure(run)
    watched = watched_cells(store.cells, held_out=held_out, seed=config.seed)
    if isinstance(model, FittedModel):
        began = time.monotonic()
        model.fit(compute.normalised(store.take(sampler.spread(FIT_CROPS))))
        progress = Progress(step=config.steps, seconds=time.monotonic() - began)
        with Watch(run, store, config, compute=compute, rows=watched, step=0, history=[]) as watch:
            watch.look(model, config.steps)
        save(run, model, optimisers, progress)
        return progress

    began = time.monotonic() - progress.seconds
    watch = Watch(run, store, config, compute=compute, rows=watched, step=progress.step, history=progress.history)
    with StopRequest() as stop, watch:
        steps = range(progress.step, config.steps)
        for step in track(steps, lambda: spoken(run.name, progress), total=config.steps, done=progress.step):
            compute.seed(config.seed, step)
            rows = sampler.draw(step, batches=model.batches)
            crops = compute.normalised(store.take(rows.ravel())).unflatten(0, rows.shape)
            with compute.autocast():
                losses = model.losses(crops, step)
            set_learning_rates(optimisers, share=cooldown(step, config))
            try:
                check_finite(losses)
                norms = step_players(model, losses, optimisers, clip_norm=config.clip_norm)
                decay_kernels(model)
                stopping = stop.requested
                saving = stopping or (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps
                if saving or watch.due(step + 1):
                    check_weights(model)
            except NotFinite as bad:
                raise bad_step(run, store.cells, step=step, rows=rows, bad=bad) from None

            progress.step, progress.seconds = step + 1, time.monotonic() - began
            if progress.step % config.record_every == 0 or progress.step == config.steps:
                timing = {"seconds": progress.seconds, "cells_per_second": sampler.batch_size * speed(progress)}
                progress.history.append({"step": progress.step, **record(losses, norms), **timing})
                watch.record(progress.history)
            if watch.due(progress.step):
                watch.look(model, progress.step)
            if saving:
                save(run, model, optimisers, progress)
            if stopping:
                raise Interrupted(
                    f"{run.name}: stopped at step {progress.step} of {config.steps}; the same command goes on"
                )
    return progress


def cooldown(step: int, config: TrainConfig) -> float:
    """The share of their full value that learning rates have at a step: 1, then falling to 0 over the last steps."""
    return min(1.0, (config.steps - step) / config.cooldown_steps) if config.cooldown_steps else 1.0


def set_learning_rates(optimisers: Mapping[str, Optimizer], *, share: float) -> None:
    """Set every optimiser's learning rate to this share of the one it was made with."""
    for optimiser in optimisers.values():
        for group in optimiser.param_groups:
            group["lr"] = share * group.setdefault("initial_lr", group["lr"])


def step_players(
    model: Model, losses: Mapping[str, Loss], optimisers: Mapping[str, Optimizer], *, clip_norm: float | None
) -> dict[str, Tensor]:
    """Each player's gradient from its own loss, all at the same weights, then all players step; gradient norms.

    NotFinite when a gradient is not finite; nothing has been stepped by then.
    """
    parameters = {player: list(module.parameters()) for player, module in model.players().items()}
    gradients = {
        player: torch.autograd.grad(losses[player].total, of_player, retain_graph=player != list(parameters)[-1])
        for player, of_player in parameters.items()
    }
    norms = {}
    for player, of_player in parameters.items():
        for parameter, gradient in zip(of_player, gradients[player]):
            # Laid out as the parameter: autograd.grad keeps its own strides, and fused optimisers trust them blindly.
            parameter.grad = torch.empty_like(parameter).copy_(gradient)
        norms[player] = torch.nn.utils.clip_grad_norm_(of_player, math.inf if clip_norm is None else clip_norm)
    for player, norm in norms.items():
        if not norm.isfinite():
            raise NotFinite(f"the gradient of the {player}", {k: float(v) for k, v in losses[player].terms.items()})
    for optimiser in optimisers.values():
        optimiser.step()
        optimiser.zero_grad()
    return norms


@torch.no_grad()
def decay_kernels(model: Model) -> None:
    """Multiply every convolution kernel by 1 - weight_decay, whatever the learning rate (released code)."""
    kernels: list[Tensor] = [parameter for parameter in model.parameters() if parameter.ndim == 4]
    torch._foreach_mul_(kernels, 1 - model.config.weight_decay)


def record(losses: Mapping[str, Loss], norms: Mapping[str, Tensor]) -> dict[str, float]:
    """The named terms of all players' losses and their gradient norms, as numbers."""
    values = {f"{player}.{name}": float(term) for player, loss in losses.items() for name, term in loss.terms.items()}
    return values | {f"{player}.gradient_norm": float(norm) for player, norm in norms.items()}


def spoken(name: str, progress: Progress) -> str:
    """The run's name and the terms a person follows, in a few words."""
    latest = progress.history[-1] if progress.history else {}
    names = {"pixel": "autoencoder.pixel", "KL": "autoencoder.kl", "D right": "discriminator.accuracy"}
    return ", ".join([name, *(f"{word} {latest[term]:.3g}" for word, term in names.items() if term in latest)])


def speed(progress: Progress) -> float:
    """Steps a second of training since the last record, so that neither a slow start nor a kill lingers."""
    last = progress.history[-1] if progress.history else {"step": 0, "seconds": 0.0}
    return (progress.step - last["step"]) / (progress.seconds - last["seconds"])


def check_finite(losses: Mapping[str, Loss]) -> None:
    """NotFinite when a player's loss is not finite; nothing has been stepped by then."""
    for player, loss in losses.items():
        if not loss.total.isfinite():
            raise NotFinite(f"the loss of the {player}", {name: float(term) for name, term in loss.terms.items()})


def save(run: RunFolder, model: Model, optimisers: Mapping[str, Optimizer], progress: Progress) -> None:
    """Checkpoint first, then the history it holds as a table."""
    run.save(
        {
            "model": model.state_dict(),
            "optimisers": {player: optimiser.state_dict() for player, optimiser in optimisers.items()},
            **dataclasses.asdict(progress),
        }
    )


def restore(run: RunFolder, model: Model, optimisers: Mapping[str, Optimizer]) -> Progress:
    """Bring model and optimisers to the run's checkpoint; a fresh Progress when it has none."""
    state: dict[str, Any] | None = run.load()
    if state is None:
        return Progress()
    model.load_state_dict(state["model"])
    for player, optimiser in optimisers.items():
        optimiser.load_state_dict(state["optimisers"][player])
    return Progress(step=state["step"], seconds=state["seconds"], history=state["history"])
