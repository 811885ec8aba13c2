"""Preprocessing: from cells to profiles of wells and treatments, whitened on the control wells."""

from phenolens.profiles.profiles import treatment_profiles, well_profiles
from phenolens.profiles.whitening import whiten

__all__ = ["treatment_profiles", "well_profiles", "whiten"]
