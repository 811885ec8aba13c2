"""What can be shown of every well: its cells, its noise, how far its profile lies from the controls, each feature.

W wells, Z features.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from phenolens.errors import InputError
from phenolens.files import read_h5ad, read_json
from phenolens.profiling.recipe import Recipe
from phenolens.profiling.whitening import whiten
from phenolens.study import Study

CELLS, NOISE, DISTANCE = "cells", "noise", "distance"


@dataclass(frozen=True)
class WellProfiles:
    """The profiles of a run's wells, as far as maps of plates need them; index: (plate, well)."""

    distance: pd.Series  # length of the whitened profile over that of the median control well: 1 is such a well
    features: pd.DataFrame  # (W, Z) in standard deviations of the control wells, 0 being their mean
    left_out: tuple[str, ...]  # features without spread among the controls


@dataclass(frozen=True)
class WellMeasure:
    """One measure of every well."""

    name: str
    values: pd.Series  # index: (plate, well); a well that has no profile is not in it
    words: str  # what it is, with its unit
    signed: bool  # whether 0 is the controls' mean and values lie on both sides


def well_profiles(study: Study, run: str) -> WellProfiles:
    """The wells of a run, whitened and z-scored on their controls; InputError, naming the command, without profiles."""
    mend = f"run `phenolens profile {study.folder}`"
    wells = read_h5ad(study.profiles(run) / "wells_mean.h5ad", mend=mend)
    config = read_json(study.profiles(run) / "about.json", mend=mend).get("config", {})
    whitened = whiten(wells, Recipe(ridge=float(config.get("ridge", Recipe.ridge)), constant_features="left out"))
    scaled = whiten(wells, Recipe(whitening="none", constant_features="left out"))
    index = pd.MultiIndex.from_frame(
        wells.obs[["Metadata_Plate", "Metadata_Well"]].astype(str), names=["plate", "well"]
    )
    length = np.linalg.norm(np.asarray(whitened.X, float), axis=1)
    control = float(np.median(length[(wells.obs["Metadata_Role"].astype(str) == "control").to_numpy()]))
    if not control > 0:
        raise InputError(f"{study.profiles(run)}: control wells that are all alike, so nothing is far from them")
    features = pd.DataFrame(np.asarray(scaled.X, float), index=index, columns=scaled.var_names.astype(str))
    left_out = tuple(name for name in wells.var_names.astype(str) if name not in features)
    return WellProfiles(pd.Series(length / control, index=index), features, left_out)


def well_measure(wells: pd.DataFrame, profiles: WellProfiles | None, name: str) -> WellMeasure:
    """A measure by its name: CELLS, NOISE, DISTANCE or a feature.

    `wells` has plate, well, n_cells, n_noise; without `profiles` only the first two can be had. KeyError otherwise.
    """
    counted = wells.set_index(["plate", "well"])
    if name == CELLS:
        return WellMeasure(name, counted["n_cells"].astype(float), "cells in the well", signed=False)
    if name == NOISE:
        share = 100 * counted["n_noise"] / counted["n_cells"]
        return WellMeasure(name, share, "cells flagged and left out, % of the well's", signed=False)
    if profiles is None:
        raise KeyError(name)
    if name == DISTANCE:
        words = "distance of the whitened profile from the controls' mean; 1 is the median control well"
        return WellMeasure(name, profiles.distance, words, signed=False)
    words = f"feature {name}: standard deviations of the control wells from their mean"
    return WellMeasure(name, profiles.features[name], words, signed=True)
