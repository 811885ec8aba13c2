"""What a run is made from: crops and settings. It stands in the run's config and in every checkpoint."""

import dataclasses
from pathlib import Path
from typing import Any, Self

from phenolens.core.errors import InputError
from phenolens.crops.store import CropStore
from phenolens.models import MODELS, ModelConfig
from phenolens.training.config import HOW, TrainConfig


@dataclasses.dataclass(frozen=True)
class Origin:
    """The crops of a run and its settings."""

    config: TrainConfig
    crops: str  # the CropStore's identity
    channels: tuple[str, ...]
    crop_px: int
    n_crops: int

    @classmethod
    def of(cls, store: CropStore, config: TrainConfig) -> Self:
        """What a run with these settings on these crops is made from."""
        return cls(config, store.identity, store.channels, store.crop_px, len(store))

    @classmethod
    def read(cls, written: Any, *, path: Path, mend: str) -> Self:
        """What `written` gave, as it stands in the file `path`; InputError, with how to `mend` it, when it does not."""
        try:
            settings = {**written["config"], "network": ModelConfig(**written["config"]["network"])}
            crops, channels, crop_px, n_crops = (written[name] for name in ("crops", "channels", "crop_px", "n_crops"))
            if settings["model"] not in MODELS:
                raise InputError(f"unknown model {settings['model']}")
            return cls(TrainConfig(**settings), str(crops), tuple(map(str, channels)), int(crop_px), int(n_crops))
        except (KeyError, TypeError, ValueError, InputError) as error:
            found = f"no setting {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
            raise InputError(f"{path}: does not say what the run is made from ({found}); {mend}") from error

    def written(self) -> dict[str, Any]:
        """As it stands in a file: dicts, lists, text, numbers."""
        return {**dataclasses.asdict(self), "channels": list(self.channels)}

    def same_crops(self, other: Self) -> bool:
        """Whether both are made from the same crops."""
        return (self.crops, self.channels, self.crop_px) == (other.crops, other.channels, other.crop_px)

    def changed_settings(self, now: Self) -> list[str]:
        """The settings that decide what is computed and are others now, each as `name before -> now`."""
        before, after = (_deciding(origin.config) for origin in (self, now))
        return [f"{name} {before[name]} -> {after[name]}" for name in after if before.get(name) != after[name]]


def _deciding(config: TrainConfig) -> dict[str, Any]:
    """The settings that decide what a run computes, flat."""
    how = HOW if config.cooldown_steps else (*HOW, "steps")
    settings = dataclasses.asdict(config)
    network = settings.pop("network")
    return {name: value for name, value in settings.items() if name not in how} | network
