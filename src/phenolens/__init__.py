"""phenolens: see what a treatment does to a cell.

From the images of a multi-well screen to single-cell representations that match treatments by phenotype and decode back
into images. `Study` is a study's folder; each command is a function (`crop`, `train`, `embed`, ...); `load` gives a
trained model; `pp`, `tl` and `pl` preprocess, score and plot AnnData. Names are loaded when they are first used.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_COMMANDS = {
    "image_commands": ("simulate", "fetch", "check", "crop", "export"),
    "train_command": ("train",),
    "model_commands": ("run", "demo", "travel", "realism", "features", "figure", "report"),
    "score_commands": ("measure", "embed", "profile", "evaluate", "compare"),
    "comparison_commands": ("benchmark",),
    "web_commands": ("explore", "assess"),
}
_MODULES = {
    "AE": "models.vaeplus",
    "CropStore": "crops.store",
    "InputError": "core.errors",
    "RunError": "core.errors",
    "Screen": "screens.screen",
    "Study": "study",
    "VAE": "models.vaeplus",
    "VAEPlus": "models.vaeplus",
    "load": "runs.loaded_model",
    "pl": "",
    "pp": "",
    "read_bbbc021": "screens.bbbc021",
    "read_cropset": "screens.bbbc021",
    "tl": "",
    **{name: f"commands.{module}" for module, names in _COMMANDS.items() for name in names},
}
__all__ = ["__version__", *sorted(_MODULES)]


def __getattr__(name: str) -> Any:
    """Load a public name from the module where it is."""
    if name not in _MODULES:
        raise AttributeError(f"phenolens has no public name {name!r}; it has {', '.join(__all__)}")
    module = _MODULES[name]
    return getattr(import_module(f"phenolens.{module}"), name) if module else import_module(f"phenolens.{name}")


def __dir__() -> list[str]:
    return __all__
