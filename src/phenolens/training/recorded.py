"""A training step recorded as a CUDA graph and replayed: the same kernels, started at once instead of one by one."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

from phenolens.models.interface import Batch, Trained

PLAIN_STEPS = 3  # before a recording: libraries create handles and choose kernels, optimisers create their state
Work = Callable[[Batch, Tensor], Any]
Capture = Callable[[Callable[[], Any]], Callable[[], Any]]


class Recorded:
    """Does a step on tensors that stay where they are; recorded anew when other weights of the losses are above zero.

    What differs between steps is copied into these tensors: the batch, its weights and the number of the step (and by
    `set_learning_rates` the learning rates). Noise comes from torch's generator, whose seed a replay reads.
    """

    def __init__(self, work: Work, model: Trained, optimisers: Mapping[str, Optimizer], *, capture: Capture) -> None:
        """`work`: what a step does with a batch and its number, on the device alone; `capture`: records it."""
        self.work, self.model, self.capture = work, model, capture
        self.held: Batch | None = None
        self.step: Tensor
        self.active: tuple[bool, ...] | None = None
        self.plain_steps = 0
        self.replay: Callable[[], Any] | None = None
        for optimiser in optimisers.values():
            prepare(optimiser)

    def __call__(self, batch: Batch) -> Any:
        """Do the step of this batch; what `work` returned, whose tensors the next replay overwrites."""
        held = self._hold(batch)
        active = tuple(weight > 0 for weight in self.model.weights(batch.step))
        if active != self.active:
            self.active, self.replay, self.plain_steps = active, None, 0
        if self.plain_steps < PLAIN_STEPS:
            self.plain_steps += 1
            return self.work(held, self.step)
        if self.replay is None:
            self.replay = self.capture(lambda: self.work(held, self.step))
        return self.replay()

    def _hold(self, batch: Batch) -> Batch:
        """The batch in the tensors that stay where they are; nothing waits for the device."""
        weights = self.model.weights(batch.step)
        if self.held is None:
            of_losses = torch.zeros(len(weights), dtype=torch.float64, device=batch.x.device)
            tensors: dict[str, Any] = {name: value.clone() for name, value in _tensors(batch).items()}
            self.held = dataclasses.replace(batch, **tensors, weights=of_losses)
            self.step = torch.zeros((), dtype=torch.int64, device=batch.x.device)
        for name, value in _tensors(batch).items():
            getattr(self.held, name).copy_(value)
        assert self.held.weights is not None
        for place, weight in zip(self.held.weights, weights):
            place.fill_(weight)
        self.step.fill_(batch.step)
        self.held = dataclasses.replace(self.held, step=batch.step)
        return self.held


def can_be_recorded(model: Trained, device: torch.device, *, processes: int) -> bool:
    """Whether the steps of a model can be recorded: on a CUDA card, in one process, if its losses allow it."""
    return device.type == "cuda" and processes == 1 and model.recordable


def capture_graph(work: Callable[[], Any]) -> Callable[[], Any]:
    """Record the kernels of `work` as a CUDA graph, without running them; calling the result replays them."""
    torch.cuda.synchronize()  # an earlier graph, whose memory is given back, is no longer in use
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = work()

    def replay() -> Any:
        graph.replay()
        return found

    return replay


def prepare(optimiser: Optimizer) -> None:
    """Let an optimiser on a card read its learning rate there and count its steps there; others stay as they are."""
    for group in optimiser.param_groups:
        device = group["params"][0].device
        if device.type == "cuda":
            group.setdefault("initial_lr", group["lr"])
            group["lr"] = torch.full((), group["lr"], device=device)
            if isinstance(optimiser, SGD):
                group["fused"], group["foreach"] = True, False  # the foreach form reads the rate on the host
            else:
                group["capturable"] = True


def _tensors(batch: Batch) -> dict[str, Tensor]:
    """The tensors of a batch by name, but for the weights."""
    values = {each.name: getattr(batch, each.name) for each in dataclasses.fields(batch) if each.name != "weights"}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}
