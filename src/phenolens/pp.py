"""Preprocessing: from cells to profiles of wells and treatments, whitened on the control wells."""

from phenolens.core.keywords import checked
from phenolens.profiles import profiles, whitening

__all__ = ["treatment_profiles", "well_profiles", "whiten"]

treatment_profiles = checked(profiles.treatment_profiles)
well_profiles = checked(profiles.well_profiles)
whiten = checked(whitening.whiten)
