"""Which treatments the report interpolates to."""

import anndata
import numpy as np
import pandas as pd
import pytest

from phenolens.core.errors import InputError
from phenolens.report.compute import chosen_treatments

# treatment, compound, mechanism, distance from the controls
ROWS = [
    ("taxol@0.1", "taxol", "stabilizers", 3),
    ("taxol@1", "taxol", "stabilizers", 9),
    ("taxol@10", "taxol", "stabilizers", 5),
    ("other@1", "other", "stabilizers", 7),
    ("nocodazole@1", "nocodazole", "destabilizers", 8),
    ("unknown@1", "unknown", "", 20),
]


@pytest.fixture
def profiles():
    treatments, compounds, mechanisms, distances = zip(*ROWS)
    obs = pd.DataFrame(
        {"Metadata_Treatment": treatments, "Metadata_Compound": compounds, "Metadata_MoA": mechanisms}, dtype="category"
    )
    obs.index = obs.index.astype(str)
    return anndata.AnnData(X=np.array(distances, float)[:, None] * [[0.6, 0.8]], obs=obs)


def test_the_strongest_treatment_of_each_known_mechanism_is_taken(profiles):
    assert chosen_treatments(profiles, ()) == ["taxol@1", "nocodazole@1"]


def test_a_compound_means_its_strongest_dose(profiles):
    asked = ("nocodazole", "taxol", "taxol@0.1", "unknown")
    assert chosen_treatments(profiles, asked) == ["nocodazole@1", "taxol@1", "taxol@0.1", "unknown@1"]


def test_an_unknown_name_is_refused_with_the_nearest_names(profiles):
    with pytest.raises(InputError, match=r'COMPOUND@DOSE "taxol@2"; did you mean "taxol@1"'):
        chosen_treatments(profiles, ("taxol@2",))
