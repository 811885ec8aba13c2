"""One catalogue of cells, wells, treatments and doses for the command line, figures, report and explorer."""

import numpy as np
import pandas as pd
import pytest

from phenolens.core.errors import InputError
from phenolens.runs.catalogue import Catalogue, nearest_names
from phenolens.screens.screen import treatment_label


@pytest.fixture
def catalogue() -> Catalogue:
    wells = [  # well, compound, dose, mechanism, role, cells, of these noise
        ("B01", "DMSO", 0.0, "", "control", 3, 1),
        ("B02", "taxol", 0.3, "stabiliser", "treated", 4, 1),
        ("B03", "taxol", 10.0, "stabiliser", "treated", 2, 0),
        ("B04", "taxol", 0.3, "stabiliser", "other", 5, 0),
        ("B05", "water", 1.0, None, "other", 2, 0),
        ("B06", "debris", 1.0, "", "treated", 1, 1),
    ]
    rows = [(*well, row < n_noise) for *well, n_cells, n_noise in wells for row in range(n_cells)]
    table = pd.DataFrame(rows, columns=["well", "compound", "concentration_um", "moa", "role", "is_noise"])
    return Catalogue.of(table.assign(plate="P", batch="W", cell_id=[f"c{row}" for row in range(len(table))]))


def test_treatments_count_cells_that_are_not_noise_and_leave_out_positive_controls_of_the_same_dose(catalogue):
    table = catalogue.treatments
    assert table["n_cells"].to_dict() == {"DMSO@0": 2, "debris@1": 0, "taxol@0.3": 3, "taxol@10": 2, "water@1": 2}
    assert table["n_wells"].tolist() == [1, 1, 1, 1, 1]
    for treatment, n_cells in table["n_cells"].items():
        assert len(catalogue.rows_of(treatment)) == n_cells
    assert catalogue.wells.set_index("well").loc["B02", ["n_cells", "n_noise"]].tolist() == [4, 1]


def test_one_label_for_a_treatment_wherever_it_is_shown(catalogue):
    assert catalogue.treatments["label"].tolist() == [
        "DMSO",
        "debris 1 µM",
        "taxol 0.3 µM",
        "taxol 10 µM",
        "water 1 µM",
    ]
    assert catalogue.labels(np.array([0, 3])) == ["DMSO", "taxol 0.3 µM"]
    assert [catalogue.label(name) for name in ("taxol@10", "no@1")] == ["taxol 10 µM", "no@1"]


def test_what_has_no_dose_is_labelled_without_one():
    assert treatment_label("water", 0.0, "other") == "water"
    assert treatment_label("water", 0.5, "other") == "water 0.5 µM"


@pytest.mark.parametrize(
    ("name", "found"),
    [("taxol", "taxol@10"), ("taxol@0.3", "taxol@0.3"), ("taxol@3e-1", "taxol@0.3"), ("water", "water@1")],
)
def test_a_treatment_is_found_by_its_name_or_its_highest_dose(catalogue, name, found):
    assert catalogue.find_treatment(name) == found


@pytest.mark.parametrize(
    ("name", "offered"),
    [("taxil", "taxol"), ("taxol@2", "taxol@0.3, taxol@10"), ("DMSO", "control"), ("debris", "no cells")],
)
def test_a_name_that_is_no_treatment_with_cells_is_refused_and_the_nearest_are_offered(catalogue, name, offered):
    with pytest.raises(InputError, match=offered):
        catalogue.find_treatment(name)


def test_lower_doses_are_those_of_the_same_compound_and_role(catalogue):
    assert catalogue.doses_up_to("taxol@10") == ["taxol@0.3", "taxol@10"]
    assert catalogue.doses_up_to("taxol@0.3") == ["taxol@0.3"]


def test_cells_are_found_by_id_and_noise_is_refused(catalogue):
    assert catalogue.find_cells(["c4", "c2"]).tolist() == [4, 2]
    assert catalogue.find_cells([]).tolist() == []
    for cell_id in ("c0", "x4"):
        with pytest.raises(InputError, match=cell_id):
            catalogue.find_cells([cell_id])
    assert catalogue.rows(role="control").tolist() == [1, 2]


def test_nearest_names_offers_the_first_names_where_none_is_near():
    assert '"taxol"' in nearest_names("taxl", ["taxol", "DMSO"])
    assert "DMSO" in nearest_names("zzz", ["taxol", "DMSO"])
