"""The training loop, in the order of events: draw, losses, gradients, steps, decay, record, checkpoint.

B cells a batch, C channels, S crop side in px. All randomness of a step is a function of (seed, step), so a run that
was killed goes on from its last checkpoint and, on a CPU, ends bit for bit where it would have ended.
"""

import dataclasses
import math
import time
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from phenolens.core.errors import Interrupted
from phenolens.core.progress import track
from phenolens.crops.store import CropStore
from phenolens.models import FittedModel, Loss, Model, processes
from phenolens.training.batches import crops_for
from phenolens.training.checkpoint import RunFolder, optimiser_state
from phenolens.training.config import TrainConfig
from phenolens.training.device import Compute, StopRequest
from phenolens.training.distributed import any_process, average_gradients
from phenolens.training.failure import FirstBad, NotFinite, bad_step, check_learned, forget_failure
from phenolens.training.origin import Origin
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
    if config.compiled:
        for network in model.children():
            network.compile()
    optimisers = model.optimisers()
    origin = Origin.of(store, config)
    progress = restore(run, origin, model, optimisers)
    if progress.step >= config.steps:
        return progress
    # The last record of a shorter run is none of a longer one.
    progress.history = [record for record in progress.history if record["step"] % config.record_every == 0]
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
        save(run, origin, model, optimisers, progress)
        return progress

    source = crops_for(store, compute, kept=config.crops_kept)
    first_bad = FirstBad(waits=compute.waits, device=compute.device)
    stopping = False
    began = time.monotonic() - progress.seconds
    watch = Watch(run, store, config, compute=compute, rows=watched, step=progress.step, history=progress.history)
    with StopRequest() as stop, watch:
        steps = range(progress.step, config.steps)
        for step in track(steps, lambda: spoken(run.name, progress), total=config.steps, done=progress.step):
            compute.seed(config.seed, step)
            rows = sampler.draw(step, batches=model.batches)
            own_rows = np.split(rows, processes.count(), axis=1)[processes.number()]
            crops = source.batch(own_rows)
            with compute.autocast():
                losses = model.losses(crops, step)
            set_learning_rates(optimisers, share=cooldown(step, config))
            try:
                first_bad.look_at_losses(losses, step)
                norms = take_gradients(model, losses, clip_norm=config.clip_norm)
                first_bad.look_at_gradients(norms, losses, step)
                step_players(model, optimisers)
                done = step + 1
                stopping, *_ = any_process(stop.requested, device=compute.device)
                recording = done % config.record_every == 0 or done == config.steps
                saving = stopping or done % config.checkpoint_every == 0 or done == config.steps
                if recording or saving or watch.due(done):
                    first_bad.ask()
                if saving or watch.due(done):
                    check_learned(model, optimisers, step)
            except NotFinite as bad:
                rows = sampler.draw(bad.step, batches=model.batches)
                raise bad_step(run, store.cells, rows=rows, bad=bad) from None

            progress.step, progress.seconds = done, time.monotonic() - began
            if recording:
                timing = {"seconds": progress.seconds, "cells_per_second": sampler.batch_size * speed(progress)}
                progress.history.append({"step": done, **record(losses, norms), **timing})
                watch.record(progress.history)
            if watch.due(done):
                watch.look(model, done)
            if saving:
                save(run, origin, model, optimisers, progress)
            if stopping:
                break
    stopping, *_ = any_process(stopping or stop.requested, device=compute.device)  # also while the last step was saved
    if stopping:
        raise Interrupted(f"{run.name}: stopped at step {progress.step} of {config.steps}; the same command goes on")
    return progress


def cooldown(step: int, config: TrainConfig) -> float:
    """The share of their full value that learning rates have at a step: 1, then falling to 0 over the last steps."""
    return min(1.0, (config.steps - step) / config.cooldown_steps) if config.cooldown_steps else 1.0


def set_learning_rates(optimisers: Mapping[str, Optimizer], *, share: float) -> None:
    """Set every optimiser's learning rate to this share of the one it was made with."""
    for optimiser in optimisers.values():
        for group in optimiser.param_groups:
            group["lr"] = share * group.setdefault("initial_lr", group["lr"])


def take_gradients(model: Model, losses: Mapping[str, Loss], *, clip_norm: float | None) -> dict[str, Tensor]:
    """Give each player's weights the gradient of its own loss, all at the same weights; the gradients' norms."""
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
        average_gradients(of_player)
        if model.config.weight_decay_form == "gradient":
            decay_gradients(of_player, model.config.weight_decay)
        norms[player] = torch.nn.utils.clip_grad_norm_(of_player, math.inf if clip_norm is None else clip_norm)
    return norms


def step_players(model: Model, optimisers: Mapping[str, Optimizer]) -> None:
    """Every player steps by its gradients, then kernels decay."""
    for optimiser in optimisers.values():
        optimiser.step()
        optimiser.zero_grad()
    if model.config.weight_decay_form == "multiplicative":
        decay_kernels(model)


@torch.no_grad()
def decay_gradients(parameters: list[torch.nn.Parameter], weight_decay: float) -> None:
    """Add weight_decay times each convolution kernel to its gradient (the plain reading of the paper)."""
    for parameter in parameters:
        if parameter.ndim == 4 and parameter.grad is not None:
            parameter.grad.add_(parameter, alpha=weight_decay)


@torch.no_grad()
def decay_kernels(model: Model) -> None:
    """Multiply every convolution kernel by 1 - weight_decay, whatever the learning rate (released code)."""
    kernels: list[Tensor] = [parameter for parameter in model.parameters() if parameter.ndim == 4]
    torch._foreach_mul_(kernels, 1 - model.config.weight_decay)


def record(losses: Mapping[str, Loss], norms: Mapping[str, Tensor]) -> dict[str, float]:
    """The named terms of all players' losses, means over processes, and their gradient norms, as numbers."""
    terms = {f"{player}.{name}": term for player, loss in losses.items() for name, term in loss.terms.items()}
    terms |= {f"{player}.gradient_norm": norm for player, norm in norms.items()}
    values = processes.averaged(torch.stack([term.double() for term in terms.values()]))
    return dict(zip(terms, values.tolist()))


def spoken(name: str, progress: Progress) -> str:
    """The run's name and the terms a person follows, in a few words."""
    latest = progress.history[-1] if progress.history else {}
    names = {"pixel": "autoencoder.pixel", "KL": "autoencoder.kl", "D right": "discriminator.accuracy"}
    return ", ".join([name, *(f"{word} {latest[term]:.3g}" for word, term in names.items() if term in latest)])


def speed(progress: Progress) -> float:
    """Steps a second of training since the last record, so that neither a slow start nor a kill lingers."""
    last = progress.history[-1] if progress.history else {"step": 0, "seconds": 0.0}
    return (progress.step - last["step"]) / (progress.seconds - last["seconds"])


def save(run: RunFolder, origin: Origin, model: Model, optimisers: Mapping[str, Optimizer], progress: Progress) -> None:
    """Checkpoint first, then the history it holds as a table; by process 0 alone."""
    if processes.number() > 0:
        return
    state = {
        "model": model.state_dict(),
        "optimisers": {player: optimiser_state(optimiser) for player, optimiser in optimisers.items()},
        **dataclasses.asdict(progress),
    }
    run.save(state, origin)


def restore(run: RunFolder, origin: Origin, model: Model, optimisers: Mapping[str, Optimizer]) -> Progress:
    """Bring model and optimisers to the run's checkpoint; a fresh Progress when it has none."""
    state = run.load(origin)
    if state is None:
        return Progress()
    run.restore(state, model, optimisers)
    return Progress(step=state["step"], seconds=state["seconds"], history=state["history"])
