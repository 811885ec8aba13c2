"""phenolens: see what a treatment does to a cell.

From the images of a multi-well screen to single-cell representations that match treatments by phenotype and decode
back into pictures. The names below are loaded when they are first used, so importing the package costs nothing.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "AE": "phenolens.models",
    "CropStore": "phenolens.crops.store",
    "InputError": "phenolens.core.errors",
    "Screen": "phenolens.screens.screen",
    "VAE": "phenolens.models",
    "VAEPlus": "phenolens.models",
    "nsc": "phenolens.profiles.nsc",
    "nscb": "phenolens.profiles.nsc",
    "read_bbbc021": "phenolens.screens.bbbc021",
    "read_cropset": "phenolens.screens.cropset",
    "simulate": "phenolens.simulation.simulate",
    "treatment_profiles": "phenolens.profiles.profiles",
    "well_profiles": "phenolens.profiles.profiles",
    "whiten": "phenolens.profiles.whitening",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    """Load a public name from the module where it lives."""
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"phenolens has no public name {name!r}; it has {', '.join(__all__)}")
