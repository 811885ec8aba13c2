"""A classifier that sees mechanisms: it never sees the compound that it is asked about."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from phenolens.core.errors import InputError
from phenolens.profiles.candidates import NSC, NSCB
from phenolens.profiles.mechanism_classifier import classified_right
from phenolens.profiles.nsc import nsc


def treatments(rng, spread: float) -> AnnData:
    """Two mechanisms in a feature that is small beside those in which compounds differ."""
    rows = [(f"c{c}", f"m{c % 2}", dose, f"b{c % 3}") for c in range(30) for dose in (1.0, 2.0)]
    obs = pd.DataFrame(
        rows, columns=["Metadata_Compound", "Metadata_MoA", "Metadata_Concentration_um", "Metadata_Batch"]
    )
    obs["Metadata_Treatment"] = [f"{c} {d}" for c, d in zip(obs["Metadata_Compound"], obs["Metadata_Concentration_um"])]
    obs["Metadata_Role"] = "treated"
    obs.index = obs["Metadata_Treatment"].tolist()
    own = {name: rng.normal(size=6) for name in obs["Metadata_Compound"]}
    numbers = np.stack([np.r_[2.0 * (moa == "m1") - 1, spread * own[name]] for name, moa, *_ in rows])
    return AnnData(numbers, obs=obs)


@pytest.mark.parametrize("held_out", [NSC, NSCB])
def test_it_finds_the_feature_of_the_mechanism_that_neighbours_miss(rng, held_out):
    profiles = treatments(rng, spread=2.0)
    assert nsc(profiles, n_bootstrap=0).accuracy < 0.8
    assert classified_right(profiles, held_out) > 0.8


def test_the_doses_of_the_compound_itself_are_never_seen(rng):
    profiles = treatments(rng, spread=2.0)
    compounds = profiles.obs["Metadata_Compound"]
    shuffled = dict(zip(compounds.unique(), rng.permutation(["m0", "m1"] * 15)))
    profiles.obs["Metadata_MoA"] = compounds.map(shuffled).to_numpy()
    profiles.X[:, 0] = 0.0
    assert classified_right(profiles, NSC) < 0.75  # with the other dose of a compound it would be 1


def test_a_mechanism_in_common_is_right_and_one_mechanism_is_refused(rng):
    profiles = treatments(rng, spread=0.1)
    several = profiles.copy()
    several.obs["Metadata_MoA"] = several.obs["Metadata_MoA"] + "|m2"
    assert classified_right(several, NSC, several_mechanisms="|") == 1.0
    profiles.obs["Metadata_MoA"] = "m0"
    with pytest.raises(InputError, match="mechanism"):
        classified_right(profiles, NSC)
