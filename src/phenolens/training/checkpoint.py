"""A run's folder: what the run is made from, its checkpoint and its history; files of another run are refused."""

import dataclasses
import io
import math
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pandas as pd
import torch
from torch import Tensor
from torch.optim import Optimizer

from phenolens import __version__
from phenolens.core.errors import InputError, one_line
from phenolens.core.files import read_json, sha256, write_json, write_text, write_whole
from phenolens.core.progress import tell
from phenolens.crops.store import CropStore
from phenolens.models import MODELS
from phenolens.models.interface import LABELS, Drawing, Frozen, KnowsChannels, Representation, Source, Trained
from phenolens.training.config import HOW, OF_STEPS, TrainConfig, own_settings
from phenolens.training.data import label_codes
from phenolens.training.device import Compute

CHECKPOINT_FORMAT = "phenolens checkpoint 2"
RUN_FORMAT = "phenolens run 1"
INSTEAD = "delete that folder to train it again, or give `phenolens train` another --name"


@dataclass(frozen=True)
class Origin:
    """What a run is made from: crops and settings. It is part of the run's config and of every checkpoint."""

    config: TrainConfig
    crops: str  # the CropStore's identity without mechanisms
    channels: tuple[str, ...]
    crop_px: int
    n_crops: int
    source: Source | None = None  # the embeddings that a Drawing draws from
    classes: Mapping[str, int] | None = None  # how many there are of each label that the model learns from

    @classmethod
    def of(cls, store: CropStore, config: TrainConfig, source: Source | None = None) -> Self:
        """What a run with these settings on these crops, and embeddings for a decoder, is made from."""
        made_of = (config, store.identity_without_mechanisms, store.channels, store.crop_px, len(store), source)
        labels = getattr(MODELS[config.model].load(), "labels", ())
        codes = dict(zip(LABELS, label_codes(store.cells))) if labels else {}
        return cls(*made_of, {name: int(codes[name].max()) + 1 for name in labels} or None)

    @classmethod
    def read(cls, written: Any, *, path: Path, remedy: str) -> Self:
        """The origin that `written` returned, as found in the file `path`.

        Raises:
            InputError: it is not complete or not valid; the message ends with `remedy`, what to do.
        """
        try:
            config = written["config"]
            if config["model"] not in MODELS:
                remedy = "add that model to phenolens.models.MODELS, or move the run's folder elsewhere"
            settings = {**config, "network": own_settings(config["model"], config["network"])}
            crops, channels, crop_px, n_crops = (written[name] for name in ("crops", "channels", "crop_px", "n_crops"))
            made_of = (TrainConfig(**settings), str(crops), tuple(map(str, channels)), int(crop_px), int(n_crops))
            source = Source(**written["source"]) if written.get("source") else None
            return cls(*made_of, source, written.get("classes"))
        except (KeyError, TypeError, ValueError, AttributeError, InputError) as error:
            found = f"no setting {error}" if isinstance(error, KeyError) else one_line(error)
            raise InputError(f"{path}: does not say what the run is made from ({found}); {remedy}") from error

    def written(self) -> dict[str, Any]:
        """As written to a file: dicts, lists, text, numbers."""
        return {**dataclasses.asdict(self), "channels": list(self.channels)}

    def same_crops(self, other: Self) -> bool:
        """Whether both are made from the same crops."""
        return (self.crops, self.channels, self.crop_px) == (other.crops, other.channels, other.crop_px)

    def changed_settings(self, now: Self) -> list[str]:
        """The settings that decide what is computed and differ from `now`, each as `name before -> now`."""
        before, after = (_deciding(origin.config) for origin in (self, now))
        if self.source and now.source:
            after.pop("of")  # a table may be moved: what is in it is compared below
        changed = [f"{name} {before.get(name)} -> {after[name]}" for name in after if before.get(name) != after[name]]
        return changed + (["the embeddings that it decodes"] if self.source != now.source else [])

    def build(self) -> Representation:
        """The model with its initial weights."""
        model = MODELS[self.config.model].build(len(self.channels), self.crop_px, self.config.network)
        if isinstance(model, KnowsChannels):
            model.take_channels(self.channels)
        if isinstance(model, Drawing) and self.source is not None:
            model.take(self.source)
        if isinstance(model, Trained) and self.classes:
            model.take_classes(self.classes)
        return model


def _deciding(config: TrainConfig) -> dict[str, Any]:
    """The settings that decide what a run computes, flat."""
    how = HOW if config.cooldown_steps else (*HOW, "steps")
    settings = dataclasses.asdict(config)
    network = settings.pop("network")
    return {name: value for name, value in settings.items() if name not in how} | network


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run: `config.json`, `checkpoint.pt`, `history.csv`, `health.json`."""

    folder: Path

    @property
    def name(self) -> str:
        """The run's name."""
        return self.folder.name

    @property
    def checkpoint(self) -> Path:
        """The file with weights, optimisers, steps done, history, and what the run is made from."""
        return self.folder / "checkpoint.pt"

    @property
    def config(self) -> Path:
        """The file that says what the run is made from, with machine and versions."""
        return self.folder / "config.json"

    def about(self) -> dict[str, Any] | None:
        """The content of `config.json`, None when there is no such run; InputError when it is not a run's."""
        if not self.config.exists():
            return None
        about = read_json(self.config, remedy=self._config_remedy)
        if not isinstance(about, dict) or about.get("format") != RUN_FORMAT:
            raise InputError(
                f'{self.config}: not a run of this version of phenolens (expected format "{RUN_FORMAT}"); '
                + self._config_remedy
            )
        return {**about, **Origin.read(about, path=self.config, remedy=self._config_remedy).written()}

    def origin(self) -> Origin | None:
        """What `config.json` says the run is made from, None when there is no such run."""
        about = self.about()
        return None if about is None else Origin.read(about, path=self.config, remedy=self._config_remedy)

    @property
    def _config_remedy(self) -> str:
        return "delete it, and the same `phenolens train` command writes it again and resumes"

    def begin(self, about: dict[str, Any]) -> None:
        """Write what the run is made from; delete what a killed process left half-written."""
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

        InputError when the file is damaged, not a checkpoint, not finite, or of a run with another `origin`. No code in
        it is executed: torch reads weights only.
        """
        if not self.checkpoint.exists() and not self.checkpoint.is_symlink():
            return None
        try:
            content = io.BytesIO(self.checkpoint.read_bytes())
        except OSError as error:
            raise self.refused(f"cannot be read ({error.strerror})") from error
        try:
            with zipfile.ZipFile(content) as archive:
                damaged = archive.testzip()  # torch.load does not check the checksums
            content.seek(0)
            state = None if damaged else torch.load(content, map_location="cpu", weights_only=True)
        except Exception as error:  # damaged bytes raise many kinds of errors in zip and pickle
            raise self.refused("not a readable checkpoint (truncated, damaged, or of another program)") from error
        if damaged:
            raise self.refused(f"damaged (the checksum of its part {damaged} is wrong)")
        if not isinstance(state, dict) or state.get("format") != CHECKPOINT_FORMAT:
            raise self.refused(f'not a checkpoint of this version (expected "{CHECKPOINT_FORMAT}")')
        theirs = Origin.read(state.get("made_from"), path=self.checkpoint, remedy=self._remedy)
        if not theirs.same_crops(origin):
            raise self.refused("of a run on other crops")
        if changed := theirs.changed_settings(origin):
            raise self.refused(f"of a run with other settings ({', '.join(changed)})")
        if found := _not_a_state(state):
            raise self.refused(found)
        with torch.random.fork_rng(devices=[]):
            expected = origin.build()
        if misfit := _misfit(state["model"], learned_state(expected)):
            raise self.refused(f"of another architecture ({misfit})")
        if isinstance(expected, Frozen) and state.get("identity") != expected.identity:
            raise self.refused(f"made with other pretrained weights ({state.get('identity')}, now {expected.identity})")
        return state

    @property
    def _remedy(self) -> str:
        return f"restore this run's own checkpoint, or delete {self.folder} to train it again"

    def refused(self, found: str) -> InputError:
        """The error for a checkpoint that is not this run's."""
        return InputError(f"{self.checkpoint}: {' '.join(found.split())}; {self._remedy}")

    def restore(self, state: dict[str, Any], model: Representation, optimisers: Mapping[str, Optimizer]) -> None:
        """Set model and optimisers to a loaded state; InputError, and nothing changed, when optimisers do not fit."""
        fitting = {}
        for player, optimiser in optimisers.items():
            saved = _laid_out(state["optimisers"].get(player), optimiser)
            if saved is None:
                raise self.refused(f"its optimiser of the {player} does not fit the weights")
            fitting[player] = saved
        if not isinstance(model, Frozen):
            model.load_state_dict(state["model"])
        for player, optimiser in optimisers.items():
            optimiser.load_state_dict(fitting[player])


def as_begun(run: RunFolder, config: TrainConfig) -> TrainConfig:
    """The settings; those that decide nothing about a fitted or frozen model are as its run already has them."""
    before = run.origin()
    if before is None or before.config.model != config.model or issubclass(MODELS[config.model].load(), Trained):
        return config
    return dataclasses.replace(config, **{name: getattr(before.config, name) for name in OF_STEPS})


def check_same(run: RunFolder, store: CropStore, now: Origin, *, instead: str) -> None:
    """InputError that ends with `instead`, what to do, when the run is trained on other crops or otherwise."""
    before = run.origin()
    if before is None or not run.checkpoint.exists():  # without a checkpoint nothing was trained
        return
    if not before.same_crops(now):
        raise InputError(f"{run.folder}: trained on other crops than those in {store.folder} now; {instead}")
    if changed := before.changed_settings(now):
        raise InputError(f"{run.folder}: trained with other settings ({', '.join(changed)}); {instead}")


def begin(
    run: RunFolder, store: CropStore, config: TrainConfig, compute: Compute, source: Source | None = None
) -> None:
    """Write what the run is made from; InputError when the run exists already and is made from something else."""
    origin = Origin.of(store, config, source)
    about = run.about()
    check_same(run, store, origin, instead=INSTEAD)
    state = run.load(origin)
    if state is not None and state["step"] > config.steps:
        raise InputError(
            f"{run.folder}: has {state['step']} steps already, more than --steps {config.steps}; give at least as "
            f"many, or {INSTEAD}"
        )
    now = {"computed_with": compute.described(), "phenolens": __version__}
    if about is not None and state is not None and 0 < state["step"] < config.steps:
        _tell_what_changed(run, about, now, step=state["step"])
    run.begin({**origin.written(), **now})


def _tell_what_changed(run: RunFolder, about: dict[str, Any], now: dict[str, Any], *, step: int) -> None:
    """Report a change of machine or versions, which round numbers differently."""
    before, after = ({**part.get("computed_with", {}), "phenolens": part.get("phenolens")} for part in (about, now))
    changed = [f"{name} {before.get(name)} -> {after[name]}" for name in after if before.get(name) != after[name]]
    if changed:
        tell(
            f"{run.name}: resumes at step {step} with {', '.join(changed)}; its last digits will differ from "
            "those of a run that was never interrupted"
        )


def built_model(store: CropStore, config: TrainConfig, source: Source | None = None) -> Representation:
    """A model with its initial weights, which depend on the seed only."""
    torch.manual_seed(config.seed)
    return Origin.of(store, config, source).build()


def trained_model(run: RunFolder) -> tuple[Representation, TrainConfig]:
    """The run's model in evaluation mode, on the CPU, and its config; InputError when its training is not finished."""
    origin = run.origin()
    state = None if origin is None else run.load(origin)
    if origin is None or state is None:
        raise InputError(f"{run.folder}: nothing has been trained there; run `phenolens train` first")
    config = origin.config
    if state["step"] < config.steps:
        raise InputError(
            f"{run.folder}: stopped at step {state['step']} of {config.steps}; "
            "give the same `phenolens train` command again to finish it"
        )
    model = origin.build()
    run.restore(state, model, {})
    if isinstance(model, Drawing):
        encoder = RunFolder(run.folder.parent / config.network.of)  # type: ignore[attr-defined]
        if encoder.config.exists():
            model.attach(trained_model(encoder)[0])
    return model.eval(), config


def learned_state(model: Representation) -> dict[str, Tensor]:
    """What a checkpoint holds of a model: weights and running averages, none of a frozen one."""
    return {} if isinstance(model, Frozen) else model.state_dict()


def weights_sha256(model: Representation) -> str:
    """What a model has learned, as one SHA-256 over its weights and running averages, or its identity if frozen."""
    if isinstance(model, Frozen):
        return sha256(model.identity)
    state = sorted(model.state_dict().items())
    return sha256(*(part for name, value in state for part in (name, value.contiguous().numpy().tobytes())))


def optimiser_state(optimiser: Optimizer) -> dict[str, Any]:
    """What a checkpoint holds of an optimiser: its kind, and its state for each weight."""
    return {"kind": type(optimiser).__name__, **optimiser.state_dict()}


def _not_a_state(state: dict[str, Any]) -> str | None:
    """What is wrong with a loaded state, None when it has all parts, each of its kind, with finite numbers."""
    step, seconds, history = (state.get(name) for name in ("step", "seconds", "history"))
    if not isinstance(step, int) or step < 0 or not isinstance(seconds, float | int) or not math.isfinite(seconds):
        return "does not say how many steps are done"
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
    """All tensors in nested dicts, each with its path."""
    if isinstance(part, Tensor):
        yield name, part
    elif isinstance(part, Mapping):
        for key, value in part.items():
            yield from _tensors(f"{name} {key}".strip(), value)


def _misfit(theirs: Mapping[str, Any], ours: Mapping[str, Tensor]) -> str | None:
    """The first tensor that is missing, unexpected, or of another shape or type; None when all fit."""
    for name in [*ours, *theirs]:
        there, here = (_described(tensors[name]) if name in tensors else "none" for tensors in (theirs, ours))
        if there != here:
            return f"{name}: {there} -> {here}"
    return None


def _described(value: Any) -> str:
    return f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else type(value).__name__


def _laid_out(saved: Any, optimiser: Optimizer) -> dict[str, Any] | None:
    """An optimiser's state as it was saved, for `load_state_dict`; None when it does not fit the optimiser's weights.

    Learning rates and the like are the config's, not the file's. The state of a weight gets the memory layout of the
    weight: fused optimisers assume it, and others may round differently without it.
    """
    weights: list[Tensor] = []
    firsts: list[int] = []  # of each weight's group, whose states are alike
    for group in optimiser.param_groups:
        firsts += [len(weights)] * len(group["params"])
        weights += group["params"]
    gathered = saved.get("state") if isinstance(saved, dict) and saved.get("kind") == type(optimiser).__name__ else None
    if not isinstance(gathered, dict) or set(gathered) not in (set(), set(range(len(weights)))):
        return None
    laid_out = {}
    for index, values in gathered.items():
        weight = weights[index]
        if not isinstance(values, dict) or values.keys() != gathered[firsts[index]].keys():
            return None
        if not all(isinstance(value, Tensor) and value.shape in ((), weight.shape) for value in values.values()):
            return None
        laid_out[index] = {
            name: torch.empty_like(weight, dtype=value.dtype).copy_(value) if value.shape == weight.shape else value
            for name, value in values.items()
        }
    return {**optimiser.state_dict(), "state": laid_out}
