"""Real change: a known change is found with its sign, a flat one is not clear, plates do not count as change."""

import numpy as np
import pandas as pd
import pytest

from phenolens.morphology.medoids import MeasuredCells
from phenolens.runs.catalogue import Catalogue
from phenolens.runs.real_change import RealChanges, clear_changes

N = 40


class Measured(MeasuredCells):
    """Measures that are given and not taken from crops."""

    def __init__(self, table, controls):
        super().__init__(lambda rows: np.zeros(0), ["DNA"], controls)
        self.known = dict(enumerate(row for _, row in table.iterrows()))


@pytest.fixture
def changes(rng):
    plates = np.tile(np.repeat(["P1", "P2"], N // 2), 2)
    cells = pd.DataFrame({"plate": plates, "well": np.repeat(["A01", "B01"], N), "batch": "1", "is_noise": False})
    cells["compound"] = np.repeat(["DMSO", "taxol"], N)
    cells["role"] = np.repeat(["control", "treated"], N)
    cells = cells.assign(concentration_um=1.0, moa="", flags="", cell_id=[str(i) for i in range(2 * N)])
    names = ["nucleus_area_px", "cell_area_px", "n_neighbours", "DNA_sharpness"]
    table = pd.DataFrame(rng.normal(size=(2 * N, 4)), columns=names)
    table["cell_area_px"] += 10 * (plates == "P2")
    table.loc[N:, ["nucleus_area_px", "DNA_sharpness"]] -= 3
    catalogue = Catalogue.of(cells)
    return RealChanges(catalogue, Measured(table, catalogue.rows(role="control")), crop_px=100)


def test_the_largest_clear_change_comes_first_and_sharpness_and_plates_are_none(changes):
    table = changes.of("taxol@1")
    assert table.index[0] == "nucleus_area_px"
    assert table["real"].iloc[0] == pytest.approx(-3, abs=0.8)
    assert "DNA_sharpness" not in table.index
    assert abs(table.loc["cell_area_px", "real"]) < 0.2
    assert [name for name, _ in clear_changes(table, 1)] == ["nucleus area"]


def test_cells_are_compared_with_the_rest_where_rows_are_given(changes):
    table = changes.between(np.arange(N), np.arange(N, 2 * N))
    assert table.loc["nucleus_area_px", "real"] == pytest.approx(3, abs=0.8)
