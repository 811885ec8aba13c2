"""A run's folder: its config, its state and its history; whole files, refused when they are not this run's."""

import io
import math
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.optim import Optimizer

from phenolens.core.errors import InputError
from phenolens.core.files import read_json, write_json, write_text, write_whole
from phenolens.models import MODELS, Model
from phenolens.training.origin import Origin

CHECKPOINT_FORMAT = "phenolens checkpoint 2"
RUN_FORMAT = "phenolens run 1"


@dataclass(frozen=True)
class RunFolder:
    """Where a run is kept: `config.json`, `checkpoint.pt`, `history.csv`, `health.json`."""

    folder: Path

    @property
    def name(self) -> str:
        """The run's name."""
        return self.folder.name

    @property
    def checkpoint(self) -> Path:
        """What the run is made from, weights, optimisers, steps done, history."""
        return self.folder / "checkpoint.pt"

    @property
    def config(self) -> Path:
        """What the run is made from, machine and versions."""
        return self.folder / "config.json"

    def about(self) -> dict[str, Any] | None:
        """What `config.json` says, None when there is no such run; InputError when it is something else."""
        if not self.config.exists():
            return None
        about = read_json(self.config, mend=self._mend_config)
        if not isinstance(about, dict) or about.get("format") != RUN_FORMAT:
            raise InputError(
                f'{self.config}: not a run of this version of phenolens (expected format "{RUN_FORMAT}"); '
                + self._mend_config
            )
        Origin.read(about, path=self.config, mend=self._mend_config)
        return about

    def origin(self) -> Origin | None:
        """What `config.json` says the run is made from, None when there is no such run."""
        about = self.about()
        return None if about is None else Origin.read(about, path=self.config, mend=self._mend_config)

    @property
    def _mend_config(self) -> str:
        return "delete it, and the same `phenolens train` command writes it anew and goes on"

    def begin(self, about: dict[str, Any]) -> None:
        """Write down what the run is made from; what a killed process left half-written goes."""
        for partial in self.folder.glob(".*.partial"):
            partial.unlink()
        write_json(self.config, {"format": RUN_FORMAT, **about})

    def save(self, state: dict[str, Any], origin: Origin) -> None:
        """Replace the checkpoint by `state` (tensors, numbers, text, lists, dicts), then the history table."""
        buffer = io.BytesIO()
        torch.save({"format": CHECKPOINT_FORMAT, "made_from": origin.written(), **state}, buffer)
        with write_whole(self.checkpoint) as file:
            file.write(buffer.getbuffer())
        self.write_history(state["history"])

    def write_history(self, history: list[dict[str, float]]) -> None:
        """The history as a table."""
        write_text(self.folder / "history.csv", pd.DataFrame(history).to_csv(index=False))

    def load(self, origin: Origin) -> dict[str, Any] | None:
        """The state that was saved, None when there is none.

        InputError when the file is damaged, something else, not finite, or of a run that is made from something else
        than `origin`. Nothing in it is run: torch reads weights only.
        """
        if not self.checkpoint.exists() and not self.checkpoint.is_symlink():
            return None
        try:
            content = io.BytesIO(self.checkpoint.read_bytes())
        except OSError as error:
            raise self.refused(f"cannot be read ({error.strerror})") from error
        try:
            with zipfile.ZipFile(content) as archive:
                damaged = archive.testzip()  # torch.load itself does not look at the checksums
            content.seek(0)
            state = None if damaged else torch.load(content, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever zip and pickle stumble over in bytes that can be anything
            raise self.refused(
                "not a readable checkpoint (truncated, damaged, or written by something else)"
            ) from error
        if damaged:
            raise self.refused(f"damaged (the checksum of its part {damaged} is wrong)")
        if not isinstance(state, dict) or state.get("format") != CHECKPOINT_FORMAT:
            raise self.refused(f'not a checkpoint of this version (expected "{CHECKPOINT_FORMAT}")')
        theirs = Origin.read(state.get("made_from"), path=self.checkpoint, mend=self._mend)
        if not theirs.same_crops(origin):
            raise self.refused("of a run on other crops")
        if changed := theirs.changed_settings(origin):
            raise self.refused(f"of a run with other settings ({', '.join(changed)})")
        if found := _not_a_state(state):
            raise self.refused(found)
        with torch.random.fork_rng(devices=[]):
            expected = MODELS[origin.config.model](len(origin.channels), origin.crop_px, origin.config.network)
        if misfit := _misfit(state["model"], expected.state_dict()):
            raise self.refused(f"of another architecture ({misfit})")
        return state

    @property
    def _mend(self) -> str:
        return f"put back this run's own checkpoint, or delete {self.folder} to train it anew"

    def refused(self, found: str) -> InputError:
        """The error for a checkpoint that is not this run's, with what to do."""
        return InputError(f"{self.checkpoint}: {' '.join(found.split())}; {self._mend}")

    def restore(self, state: dict[str, Any], model: Model, optimisers: Mapping[str, Optimizer]) -> None:
        """Bring model and optimisers to a loaded state; InputError, and nothing changed, when optimisers are others."""
        fitting = {}
        for player, optimiser in optimisers.items():
            saved = _laid_out(state["optimisers"].get(player), optimiser)
            if saved is None:
                raise self.refused(f"its optimiser of the {player} does not fit the weights")
            fitting[player] = saved
        model.load_state_dict(state["model"])
        for player, optimiser in optimisers.items():
            optimiser.load_state_dict(fitting[player])


def optimiser_state(optimiser: Optimizer) -> dict[str, Any]:
    """What a checkpoint holds of an optimiser: its kind, and what it has gathered for each weight."""
    return {"kind": type(optimiser).__name__, **optimiser.state_dict()}


def _not_a_state(state: dict[str, Any]) -> str | None:
    """What is wrong with a loaded state, None when it has all parts, each of its kind, with finite numbers."""
    step, seconds, history = (state.get(name) for name in ("step", "seconds", "history"))
    if not isinstance(step, int) or step < 0 or not isinstance(seconds, float | int) or not math.isfinite(seconds):
        return "does not say how far it is"
    if not isinstance(history, list) or not all(_is_record(record) for record in history):
        return "has no history of numbers"
    if not all(isinstance(state.get(part), dict) for part in ("model", "optimisers")):
        return "has no weights or no optimisers"
    lost = _not_finite(state)
    return None if lost is None else f"{lost} is not finite"


def _is_record(record: Any) -> bool:
    return (
        isinstance(record, dict)
        and isinstance(record.get("step"), int)
        and all(isinstance(value, float | int) for value in record.values())
    )


def _not_finite(state: Mapping[str, Any]) -> str | None:
    """The first of the model's or the optimisers' tensors with a number that is not finite."""
    parts = {name: state[name] for name in ("model", "optimisers")}
    return next((name for name, value in _tensors("", parts) if not _is_finite(value)), None)


def _is_finite(value: Tensor) -> bool:
    """Whether a tensor holds plain numbers, all finite."""
    plain = value.layout is torch.strided and not value.is_meta and not value.is_quantized
    return plain and bool(value.isfinite().all())


def _tensors(name: str, part: Any) -> Iterator[tuple[str, Tensor]]:
    """All tensors in nested dicts, each with its address."""
    if isinstance(part, Tensor):
        yield name, part
    elif isinstance(part, Mapping):
        for key, value in part.items():
            yield from _tensors(f"{name} {key}".strip(), value)


def _misfit(theirs: Mapping[str, Any], ours: Mapping[str, Tensor]) -> str | None:
    """The first tensor that is missing, too much, or of another shape or type; None when all fit."""
    for name in [*ours, *theirs]:
        there, here = (_described(tensors[name]) if name in tensors else "none" for tensors in (theirs, ours))
        if there != here:
            return f"{name}: {there} -> {here}"
    return None


def _described(value: Any) -> str:
    return f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else type(value).__name__


def _laid_out(saved: Any, optimiser: Optimizer) -> dict[str, Any] | None:
    """An optimiser's state as it was saved, for `load_state_dict`; None when it does not fit the optimiser's weights.

    Learning rates and the like are the config's, not the file's. What was gathered for a weight is laid out in memory
    as the weight: fused optimisers trust the layout blindly, and others may round in another way.
    """
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    gathered = saved.get("state") if isinstance(saved, dict) and saved.get("kind") == type(optimiser).__name__ else None
    if not isinstance(gathered, dict) or set(gathered) not in (set(), set(range(len(weights)))):
        return None
    laid_out = {}
    for index, values in gathered.items():
        weight = weights[index]
        if not isinstance(values, dict) or values.keys() != gathered[0].keys():
            return None
        if not all(isinstance(value, Tensor) and value.shape in ((), weight.shape) for value in values.values()):
            return None
        laid_out[index] = {
            name: torch.empty_like(weight, dtype=value.dtype).copy_(value) if value.shape == weight.shape else value
            for name, value in values.items()
        }
    return {**optimiser.state_dict(), "state": laid_out}
