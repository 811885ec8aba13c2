"""See what a treatment does to a cell: what to call for what.

    import phenolens as ph

From images to a report:
    ph.check("IMAGES")                          what is there, what is missing, what comes next
    study = ph.run("STUDY", source="IMAGES")    every step below, and report.html
    crop, measure, train, embed, profile, evaluate, report      the steps of run, one by one
    simulate, demo, fetch                       images to try it with
Results:
    study = ph.Study("STUDY")                   .cells .crops .scores .runs .embeddings() .profiles()
    ph.explore(study)                           plates, maps, treatments and travels in the browser
    ph.travel(study, to="taxol")                a cell interpolated towards a treatment
    features, realism, figure, assess, benchmark, export
Tables of other programs:
    ph.evaluate("profiles.csv", compound="drug", mechanism="moa", control="DMSO")
    ph.compare("SCORES", "OTHER_SCORES")        which answers differ
Parts:
    ph.pp, ph.tl, ph.pl                         preprocess, score and plot AnnData, as in scanpy
    ph.load(study, "RUN")                       a trained model: .encode() .decode()

help(ph.train) lists the settings of a command; docs/python.md has examples.
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
