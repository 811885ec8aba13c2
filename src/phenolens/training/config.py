"""Settings of a training run, and the flags of the models' own settings."""

import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import Field, asdict, dataclass, field, fields, make_dataclass, replace
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import tyro

from phenolens.core.bounds import Bounded, Bounds, Count, NotNegativeCount, OneOf, Positive, Seed, flag
from phenolens.core.errors import InputError
from phenolens.models import MODELS, encoders, model_config, plainest_first
from phenolens.models.config import ModelConfig

# Settings that say how a run is computed and watched, not what it computes: they may change when a run is resumed. So
# may `steps`, unless learning rates fall towards the last one.
HOW = ("checkpoint_every", "threads", "device", "crops_kept", "compiled", "recorded", "watch_every", "tensorboard")
# Settings that decide nothing where a model is fitted or frozen, not trained step by step.
OF_STEPS = ("steps", "batch_size", "cooldown_steps", "turns", "clip_norm", "record_every")
OF_EACH_MODEL = ("beta", "latent_size")  # not taken over when another model is trained with the same settings


def model_flags(models: Iterable[str]) -> type:
    """A dataclass of the settings of these models, each with those it is for; None where it is not given."""
    found: dict[str, dict[str, Field[Any]]] = {}
    for name in sorted(models, key=plainest_first):
        for each in fields(MODELS[name].config()):
            found.setdefault(each.name, {})[name] = each
    return make_dataclass("ModelFlags", [_flag(name, of) for name, of in found.items()], frozen=True)


def _flag(name: str, of: Mapping[str, Field[Any]]) -> tuple[str, Any, Any]:
    """A setting as a field of the flags: name, type with its help, default."""
    defaults = {model: each.default for model, each in of.items()}
    kinds: list[Any] = list(dict.fromkeys(each.type for each in of.values()))
    only = list(dict.fromkeys(defaults.values()))
    owners = [", ".join(model for model, default in defaults.items() if default == value) for value in only]
    whose = owners[0] if len(only) == 1 else "; ".join(f"{names} {value}" for names, value in zip(owners, only))
    sentence = f"{next(iter(of.values())).metadata['help']} [{whose}]"
    if kinds == [bool] and len(only) == 1:
        return name, Annotated[bool, tyro.conf.arg(help=sentence)], only[0]
    unset = f"default: {only[0]}" if len(only) == 1 else "default: the model's"
    return (
        name,
        Annotated[reduce(or_, kinds) | None, tyro.conf.arg(help=sentence, help_behavior_hint=f"({unset})")],
        None,
    )


if TYPE_CHECKING:
    ModelName = str
    ModelFlags = ModelConfig
    EncoderFlags = ModelConfig
    Steps = Any
else:
    ModelName = Annotated[Literal[tuple(MODELS)], OneOf(MODELS)]
    ModelFlags, EncoderFlags = model_flags(MODELS), model_flags(encoders())
    Steps = NotNegativeCount | None  # None only until the model's own number takes its place


@dataclass(frozen=True)
class TrainConfig(Bounded):
    """How a model is trained; the defaults are those of Lafarge et al. 2019.

    `network` takes the model's Config or a dict of some of its settings, and holds the Config.
    """

    model: ModelName = "vaeplus"  # what to train; pca is the linear baseline
    # optimiser steps; an epoch has no meaning when treatments are drawn evenly; left out: 40,000 as in the paper, or
    # the model's own (docs/training.md); 0: the initial weights, to compare with
    steps: Steps = None
    seed: Seed = 0  # of the initial weights, the batches and the noise
    # cells per batch; left out: one of each treatment and one control, or the model's own (docs/training.md)
    batch_size: Annotated[int, Bounds(ge=2, le=100_000)] | None = None
    # share of wells no batch draws from, to judge reconstructions on; 0 is the paper's
    held_out_wells: Annotated[float, Bounds(ge=0, lt=1)] = 0.0
    # last steps, over which learning rates fall linearly to zero; left out: none as in the paper, 30 % of flow's
    cooldown_steps: Steps = None
    turns: Literal[1, 8] = 1  # 8: each crop of a batch in a random one of its turns and flips; 1 is the paper's
    clip_norm: Positive | None = None  # largest gradient norm of a player; left out: no clipping, as in the paper
    record_every: Count = 10  # steps between two lines of history.csv
    checkpoint_every: Count = 250  # steps between two checkpoints
    # steps between two pictures of the same 16 cells and their reconstructions; 0: none
    watch_every: NotNegativeCount = 500
    tensorboard: bool = False  # write history and pictures for TensorBoard too; needs the extra tensorboard
    device: str = "auto"  # cpu, cuda, cuda:1 ...; auto: a CUDA card when there is one
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # of convolutions; auto: bfloat16 where it is faster
    threads: Annotated[int, Bounds(ge=1, le=4096)] | None = None  # processor threads; left out: all
    crops_kept: Literal["auto", "disk", "device"] = "auto"  # where batches are drawn; auto: on a CUDA card with room
    compiled: bool = False  # compile the networks with torch.compile first; on a processor this needs a C++ compiler
    recorded: bool = False  # replay each step as one CUDA graph, on one card; of ae, vae, betavae and vaeplus
    network: ModelFlags = field(default_factory=ModelFlags)

    def __post_init__(self) -> None:
        """Validates the settings, and turns those of the network into the model's Config."""
        super().__post_init__()
        object.__setattr__(self, "network", model_config(self.model, _given(self.network)))
        for name, value in self._scheduled(self.steps).items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        if self.turns == 8 and "of" in self.network.names():
            raise InputError("--turns 8: a decoder turns crops by itself where its embeddings allow it; leave it out")
        if self.cooldown_steps > self.steps:
            raise InputError(f"--cooldown-steps {self.cooldown_steps}: expected no more than --steps {self.steps}")

    def _scheduled(self, steps: int | None) -> dict[str, int | None]:
        """The model's own schedule; its last steps are a share of `steps` where these are given."""
        own = self.network.schedule
        steps = own.steps if steps is None else steps
        return {"steps": steps, "batch_size": own.batch_size, "cooldown_steps": round(own.cooldown_share * steps)}

    def of_model(self, model: str, **settings: Any) -> Self:
        """The same training of another model: its own schedule, beta and latent size, other settings as they are."""
        having = MODELS[model].config().names()
        own_defaults = asdict(type(self.network)())
        given = {k: v for k, v in asdict(self.network).items() if v != own_defaults[k] and k not in OF_EACH_MODEL}
        shared = {k: v for k, v in given.items() if k in having}
        scheduled = self._scheduled(self.steps) | {"steps": self.network.schedule.steps}
        own = {name: None for name, value in scheduled.items() if getattr(self, name) == value}
        return replace(self, model=model, network=shared | settings, **own)  # type: ignore


@dataclass(frozen=True)
class RecommendedTraining(TrainConfig):
    """How the models of `phenolens run` are trained."""

    model: ModelName = "flow"  # flow: the recommended recipe, pictures for the embeddings --of; vaeplus: the paper's


@dataclass(frozen=True)
class ComparedTraining(TrainConfig):
    """How several encoders are trained: what is given is that of all that have it, the rest is each model's own."""

    model: tyro.conf.Suppress[ModelName] = "vaeplus"  # `models` says which
    seed: tyro.conf.Suppress[Seed] = 0  # `seeds` says which
    network: EncoderFlags = field(default_factory=EncoderFlags)

    def __post_init__(self) -> None:
        """Validates the settings; each model's own take their places in `config_of`."""
        Bounded.__post_init__(self)

    def check_used(self, models: Iterable[str]) -> None:
        """InputError on a setting that none of these models has."""
        having = {name for model in models for name in MODELS[model].config().names()}
        for name in _given(self.network):
            if name not in having:
                owners = ", ".join(model for model in MODELS if name in MODELS[model].config().names())
                where = f"it is a setting of {owners}" if owners else "no model has it"
                raise InputError(f"{flag(name)}: not a setting of {', '.join(models)} ({where}); leave it out")

    def config_of(self, model: str, **settings: Any) -> TrainConfig:
        """The training of one model, with those settings that it has; `settings` come before what is given.

        Raises:
            InputError: a value is out of the model's range.
        """
        from phenolens.models.interface import Trained  # loads torch

        spec = MODELS[model]
        own = {name: value for name, value in _given(self.network).items() if name in spec.config().names()}
        unused = ("model", "network", *(() if issubclass(spec.load(), Trained) else OF_STEPS))
        shared = {each.name: getattr(self, each.name) for each in fields(TrainConfig) if each.name not in unused}
        return TrainConfig(model=model, network=own | settings, **shared)  # type: ignore[arg-type]


def _given(network: Any) -> dict[str, Any]:
    """The settings that a Config, a dict, or the flags of all models give."""
    if isinstance(network, Mapping):
        return dict(network)
    settings = {each.name: getattr(network, each.name) for each in fields(network)}
    if isinstance(network, ModelConfig):
        return settings
    return {each.name: settings[each.name] for each in fields(network) if settings[each.name] != each.default}


def own_settings(model: str, network: Mapping[str, Any]) -> dict[str, Any]:
    """Network settings without those of other models, which version 0.1 stored as well, and without empty ones."""
    if model not in MODELS:
        raise InputError(f'no model "{model}" here')
    others = {name for spec in MODELS.values() for name in spec.config().names()}
    unused = others.difference(MODELS[model].config().names())
    if model == "ae" and not network.get("ae_noise"):
        unused.add("beta")
    return {name: value for name, value in network.items() if value is not None and name not in unused}


def check_can_watch(config: TrainConfig) -> None:
    """InputError, before anything is done, when TensorBoard is asked for and not installed."""
    if config.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise InputError('tensorboard is not installed; --tensorboard needs: pip install "phenolens[tensorboard]"')
