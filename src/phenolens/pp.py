"""Preprocessing: from cells to profiles of wells and treatments, whitened on the control wells."""

from phenolens.core.keywords import checked
from phenolens.profiles import cell_scaling, populations, profiles, whitening

__all__ = ["population_profiles", "scale_cells", "treatment_profiles", "well_profiles", "whiten"]

population_profiles = checked(populations.population_profiles)
scale_cells = checked(cell_scaling.scale_cells)
treatment_profiles = checked(profiles.treatment_profiles)
well_profiles = checked(profiles.well_profiles)
whiten = checked(whitening.whiten)


def __dir__() -> list[str]:
    return __all__
