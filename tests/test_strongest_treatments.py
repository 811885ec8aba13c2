"""Which treatments figures, report and explorer interpolate to when none is named."""

import numpy as np
import pandas as pd
import pytest

from phenolens.core.errors import InputError
from phenolens.core.mapped_rows import MappedRows
from phenolens.runs.catalogue import Catalogue
from phenolens.runs.embeddings import EmbeddedCells

# compound, concentration, mechanism, role, embedding
CONTROLS = [("DMSO", 0.0, "", "control", -4.0), ("DMSO", 0.0, "", "control", 4.0)]  # mean 0, variance 16
TREATED = [
    ("taxol", 0.1, "stabilizers", "treated", 5.0),  # 25 - 16: one cell
    *[("taxol", 1.0, "stabilizers", "treated", 4.0)] * 4,  # 16 - 16 / 4
    ("nocodazole", 1.0, "destabilizers", "treated", -8.0),
    ("unknown", 1.0, "", "treated", 20.0),
]


def cells(rows) -> EmbeddedCells:
    table = pd.DataFrame(rows, columns=["compound", "concentration_um", "moa", "role", "z"])
    table = table.assign(plate="P", batch="B", well=[f"B{row:02d}" for row in range(len(table))], is_noise=False)
    return EmbeddedCells(MappedRows([len(table)], lambda _: table[["z"]].to_numpy(np.float32)), Catalogue.of(table))


def test_of_each_mechanism_the_treatment_farthest_from_the_controls_beyond_chance_comes_first():
    assert cells(CONTROLS + TREATED).strongest_treatments() == ["nocodazole@1", "taxol@1"]


def test_without_mechanisms_one_treatment_of_each_compound_is_taken():
    unlabelled = [(compound, dose, "", role, z) for compound, dose, _, role, z in TREATED]
    assert cells(CONTROLS + unlabelled).strongest_treatments() == ["unknown@1", "nocodazole@1", "taxol@1"]


def test_without_controls_no_treatment_is_the_strongest():
    with pytest.raises(InputError, match="control"):
        cells(TREATED).strongest_treatments()
