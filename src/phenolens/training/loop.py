"""The training loop, in the order of events: draw, losses, gradients, steps, record, checkpoint.

B cells per batch, C channels, S crop side in px. All randomness of a step is a function of (seed, step), so a run that
was killed resumes from its last checkpoint and, on a CPU, ends with the same bits as without the interruption.
"""

import dataclasses
import math
import time
from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch._functorch import config as functorch
from torch.optim import Optimizer

from phenolens.core.errors import Interrupted
from phenolens.core.mapped_rows import Rows
from phenolens.core.progress import tell, track
from phenolens.crops.store import CropStore
from phenolens.models import processes
from phenolens.models.interface import Batch, Drawing, Fitted, Frozen, Loss, Player, Representation, Trained
from phenolens.training.checkpoint import Origin, RunFolder, learned_state, optimiser_state
from phenolens.training.config import TrainConfig
from phenolens.training.data import Batches, TreatmentSampler, held_out_cells, sampled_treatments
from phenolens.training.device import Compute, StopRequest
from phenolens.training.distributed import any_process, average_gradients
from phenolens.training.monitor import (
    FAILED_BATCH,
    FirstBad,
    Monitor,
    NotFinite,
    bad_step,
    check_learned,
    watched_cells,
)
from phenolens.training.recorded import Recorded, can_be_recorded, capture_graph

FIT_CROPS = 4096  # crops, evenly over treatments, that a fitted model learns from


@dataclasses.dataclass
class Progress:
    """How far a run is: steps done, seconds of training so far, one history record each `record_every` steps."""

    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)


def train(
    model: Representation,
    store: CropStore,
    config: TrainConfig,
    *,
    compute: Compute,
    run: RunFolder,
    z: Rows | None = None,
) -> Progress:
    """Train `model` in place up to `config.steps`, from the run's checkpoint on; `z` (N, Z) is what a Drawing decodes.

    Raises:
        RunError: a loss, gradient or weight is not finite; the last checkpoint is kept.
        Interrupted: SIGINT or SIGTERM; everything up to here is saved.
    """
    compute.place(model).train()
    if config.compiled:
        functorch.donated_buffer = False  # players share a forward pass, so a backward pass may not consume it
        for network in model.children():
            network.compile(dynamic=False)  # sizes do not change, and batch_norm_update_stats has no symbolic ones
    players = model.players() if isinstance(model, Trained) else {}
    optimisers = {name: player.optimiser for name, player in players.items()}
    origin = Origin.of(store, config, model.source if isinstance(model, Drawing) else None)
    progress = restore(run, origin, model, optimisers)
    if progress.step >= config.steps and run.checkpoint.exists():
        return progress
    if not isinstance(model, Trained):
        progress = Progress()
    # The last record of a shorter run is not one of a longer run.
    progress.history = [record for record in progress.history if record["step"] % config.record_every == 0]
    held_out = held_out_cells(store.cells, share=config.held_out_wells, seed=config.seed)
    treatments = sampled_treatments(store.cells, held_out=held_out)
    paired = isinstance(model, Trained) and model.paired
    sampler = TreatmentSampler(treatments, batch_size=config.batch_size, seed=config.seed, paired=paired)
    (run.folder / FAILED_BATCH).unlink(missing_ok=True)  # of an earlier attempt
    watched = watched_cells(store.cells, held_out=held_out, seed=config.seed)
    if isinstance(model, Drawing) and z is not None and not progress.step:
        rows = sampler.spread(FIT_CROPS)
        model.prepare(torch.from_numpy(z[rows]).to(compute.device), compute.scaled(store.take(rows), model.input))
    monitor = Monitor(
        run,
        store,
        config,
        model=model,
        compute=compute,
        rows=watched,
        step=progress.step,
        history=progress.history,
        z=None if z is None else z[watched],
    )
    if not isinstance(model, Trained):
        began = time.monotonic()
        if isinstance(model, Fitted):
            model.fit(compute.scaled(store.take(sampler.spread(FIT_CROPS)), model.input))
        progress = Progress(step=config.steps, seconds=time.monotonic() - began)
        with monitor:
            monitor.look(config.steps)
        save(run, origin, model, optimisers, progress)
        return progress

    source = Batches(store, compute, input=model.input, kept=config.crops_kept, z=z, turns=config.turns)
    first_bad = FirstBad(waits=compute.waits, device=compute.device)
    work = partial(one_step, model, players, compute=compute, first_bad=first_bad, clip_norm=config.clip_norm)
    recorded = None
    if config.recorded:
        if can_be_recorded(model, compute.device, processes=processes.count()):
            recorded = Recorded(work, model, optimisers, capture=capture_graph)
        else:
            tell(f"{run.name}: --recorded has no effect on this model and device; steps are done one by one")
    stopping = False
    began = time.monotonic() - progress.seconds
    with StopRequest() as stop, monitor:
        steps = range(progress.step, config.steps)
        for step in track(steps, lambda: progress_line(run.name, progress), total=config.steps, done=progress.step):
            compute.seed(config.seed, step)
            rows = sampler.draw(step, batches=model.draws)
            own_rows = np.split(rows, processes.count(), axis=1)[processes.number()]
            batch = source.batch(own_rows, step)
            set_learning_rates(optimisers, share=cooldown(step, config))
            try:
                losses, norms = work(batch, step) if recorded is None else recorded(batch)
                done = step + 1
                recording = done % config.record_every == 0 or done == config.steps
                if recording or processes.count() == 1:  # processes wait for each other to agree
                    stopping, *_ = any_process(stop.requested, device=compute.device)
                saving = stopping or done % config.checkpoint_every == 0 or done == config.steps
                if recording or saving or monitor.due(done):
                    first_bad.ask()
                if saving or monitor.due(done):
                    check_learned(model, optimisers, step)
            except NotFinite as bad:
                rows = sampler.draw(bad.step, batches=model.draws)
                raise bad_step(run, store.cells, rows=rows, bad=bad) from None

            progress.step, progress.seconds = done, time.monotonic() - began
            if recording:
                timing = {"seconds": progress.seconds, "cells_per_second": sampler.batch_size * speed(progress)}
                progress.history.append({"step": done, **record(losses, norms), **timing})
                monitor.record(progress.history)
            if monitor.due(done):
                monitor.look(done)
            if saving:
                save(run, origin, model, optimisers, progress)
            if stopping:
                break
    if not config.steps:
        save(run, origin, model, optimisers, progress)
    stopping, *_ = any_process(stopping or stop.requested, device=compute.device)  # also while the last step was saved
    if stopping:
        raise Interrupted(f"{run.name}: stopped at step {progress.step} of {config.steps}; the same command resumes it")
    return progress


def one_step(
    model: Trained,
    players: Mapping[str, Player],
    batch: Batch,
    step: int | Tensor,
    *,
    compute: Compute,
    first_bad: FirstBad,
    clip_norm: float | None,
) -> tuple[dict[str, Loss], dict[str, Tensor]]:
    """Losses, gradients, and a step of every player that steps now; the losses, and the norms of the gradients."""
    with compute.autocast():
        losses = model.losses(batch)
    stepping = {name: p for name, p in players.items() if batch.step % p.every == 0 and losses[name].steps}
    first_bad.look_at_losses(losses, step)
    norms = take_gradients(stepping, losses, clip_norm=clip_norm)
    first_bad.look_at_gradients(norms, losses, step)
    step_players(stepping)
    return losses, norms


def cooldown(step: int, config: TrainConfig) -> float:
    """The share of their full value that learning rates have at a step: 1, then falling to 0 over the last steps."""
    return min(1.0, (config.steps - step) / config.cooldown_steps) if config.cooldown_steps else 1.0


def set_learning_rates(optimisers: Mapping[str, Optimizer], *, share: float) -> None:
    """Set every optimiser's learning rate to this share of its initial one."""
    for optimiser in optimisers.values():
        for group in optimiser.param_groups:
            rate = share * group.setdefault("initial_lr", group["lr"])
            if isinstance(group["lr"], Tensor):  # a recorded step reads it there
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate


def take_gradients(
    players: Mapping[str, Player], losses: Mapping[str, Loss], *, clip_norm: float | None
) -> dict[str, Tensor]:
    """Give each player's weights the gradient of its own loss, all at the same weights; the gradients' norms."""
    parameters = {name: player.parameters() for name, player in players.items()}
    gradients = {
        name: torch.autograd.grad(losses[name].total, of_player, retain_graph=name != list(parameters)[-1])
        for name, of_player in parameters.items()
    }
    norms = {}
    for name, of_player in parameters.items():
        for parameter, gradient in zip(of_player, gradients[name]):
            # Laid out as the parameter: autograd.grad keeps its own strides, and fused optimisers do not check them.
            parameter.grad = torch.empty_like(parameter).copy_(gradient)
        average_gradients(of_player)
        players[name].penalise()
        clip = players[name].clip if clip_norm is None else clip_norm
        norms[name] = torch.nn.utils.clip_grad_norm_(of_player, math.inf if clip is None else clip)
    return norms


def step_players(players: Mapping[str, Player]) -> None:
    """Every player steps by its gradients."""
    for player in players.values():
        player.step()


def record(losses: Mapping[str, Loss], norms: Mapping[str, Tensor]) -> dict[str, float]:
    """The named terms of all players' losses, means over processes, and their gradient norms, as numbers."""
    terms = {f"{player}.{name}": term for player, loss in losses.items() for name, term in loss.terms.items()}
    terms |= {f"{player}.gradient_norm": norm for player, norm in norms.items()}
    values = processes.averaged(torch.stack([term.double() for term in terms.values()]))
    return dict(zip(terms, values.tolist()))


def progress_line(name: str, progress: Progress) -> str:
    """The run's name and the terms of its loss to follow, for the progress bar."""
    latest = progress.history[-1] if progress.history else {}
    names = {"pixel": "autoencoder.pixel", "KL": "autoencoder.kl", "D right": "discriminator.accuracy"}
    names["velocity"] = "decoder.velocity"
    return ", ".join([name, *(f"{word} {latest[term]:.3g}" for word, term in names.items() if term in latest)])


def speed(progress: Progress) -> float:
    """Steps per second of training since the last record, so that neither a slow start nor a kill lingers."""
    last = progress.history[-1] if progress.history else {"step": 0, "seconds": 0.0}
    return (progress.step - last["step"]) / (progress.seconds - last["seconds"])


def save(
    run: RunFolder, origin: Origin, model: Representation, optimisers: Mapping[str, Optimizer], progress: Progress
) -> None:
    """Write the checkpoint, then its history as a table; by process 0 only."""
    if processes.number() > 0:
        return
    state = {
        "model": learned_state(model),
        "identity": model.identity if isinstance(model, Frozen) else None,
        "optimisers": {player: optimiser_state(optimiser) for player, optimiser in optimisers.items()},
        **dataclasses.asdict(progress),
    }
    run.save(state, origin)


def restore(run: RunFolder, origin: Origin, model: Representation, optimisers: Mapping[str, Optimizer]) -> Progress:
    """Set model and optimisers to the run's checkpoint; a new Progress when it has none."""
    state = run.load(origin)
    if state is None:
        return Progress()
    run.restore(state, model, optimisers)
    return Progress(step=state["step"], seconds=state["seconds"], history=state["history"])
