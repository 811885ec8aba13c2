"""Cells to wells to treatments: known answers on a small plate, then refusals, then a round trip through a file."""

import json
import weakref

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from phenolens.core.errors import InputError
from phenolens.core.provenance import provenance
from phenolens.profiles.profiles import METADATA, treatment_profiles, well_profiles
from phenolens.screens.screen import COLUMNS

# well -> plate, compound, concentration, mechanism, role
WELLS = {
    "B02": ("p1", "DMSO", 0.0, "", "control"),
    "C03": ("p1", "taxol", 0.3, "Microtubule stabilizers", "treated"),
    "C04": ("p1", "taxol", 3.0, "Microtubule stabilizers", "treated"),
    "D05": ("p1", "taxol", 0.3, "Microtubule stabilizers", "other"),
}


def cells_of(features: dict[str, list[list[float]]], *, plate: str = "p1", batch: str = "week1") -> AnnData:
    """A table of cells, well by well: {"B02": [[feature 0, feature 1], ...]}."""
    rows = [(well, cell) for well, cells in features.items() for cell in cells]
    obs = pd.DataFrame(
        {
            "Metadata_Plate": plate,
            "Metadata_Well": [well for well, _ in rows],
            "Metadata_Site": 1,
            "Metadata_Batch": batch,
            "Metadata_Compound": [WELLS[well][1] for well, _ in rows],
            "Metadata_Concentration_um": [WELLS[well][2] for well, _ in rows],
            "Metadata_MoA": [WELLS[well][3] for well, _ in rows],
            "Metadata_Role": [WELLS[well][4] for well, _ in rows],
            "Metadata_Is_Noise": False,
        },
        index=[f"{plate}_{row}" for row in range(len(rows))],
    )
    numbers = np.array([cell for _, cell in rows], dtype=np.float32)
    return AnnData(numbers, obs=obs, var=pd.DataFrame(index=[f"z{axis}" for axis in range(numbers.shape[1])]))


def test_every_column_of_a_screen_has_a_metadata_name():
    assert set(COLUMNS) <= set(METADATA)


def test_a_well_is_the_mean_and_the_deviation_over_its_cells():
    wells = well_profiles(cells_of({"B02": [[1, 10], [3, 10]], "C03": [[5, 0]]}), statistics="mean+sd")
    assert list(wells.var_names) == ["z0_mean", "z1_mean", "z0_sd", "z1_sd"]
    np.testing.assert_array_equal(wells.X, [[2, 10, 1, 0], [5, 0, 0, 0]])
    assert list(wells.obs["Metadata_Cell_Count"]) == [2, 1]
    assert list(wells.obs["Metadata_Treatment"]) == ["DMSO@0", "taxol@0.3"]


@pytest.mark.parametrize(
    ("statistics", "expected"),
    [
        ("median", [3.0]),
        ("mad", [2.0]),
        ("trimmed", [4.5]),
        ("q0+q50+q100", [0.0, 3.0, 100.0]),
        ("median+mad", [3.0, 2.0]),
    ],
)
def test_other_summaries_of_a_well(statistics, expected):
    # medians and deviations by hand: sorted 0 1 1 2 3 3 5 5 9 7 100; trimmed leaves 0 and 100 out
    cells = [[value] for value in (0, 1, 1, 2, 3, 3, 5, 5, 9.5, 11, 100)]
    wells = well_profiles(cells_of({"B02": cells}), statistics=statistics)
    np.testing.assert_allclose(wells.X[0], expected)


def test_noise_cells_are_left_out_unless_asked_for():
    cells = cells_of({"B02": [[1], [1], [100]]})
    cells.obs["Metadata_Is_Noise"] = [False, False, True]
    wells = well_profiles(cells)
    assert wells.X[0, 0] == 1
    assert provenance(wells)["noise_cells_left_out"] == 1
    assert well_profiles(cells, noise="counted").X[0, 0] == 34


def test_a_well_with_too_few_cells_is_left_out_and_listed():
    wells = well_profiles(cells_of({"B02": [[1], [1]], "C03": [[5]]}), min_cells=2)
    assert list(wells.obs["Metadata_Well"]) == ["B02"]
    assert provenance(wells)["wells_left_out"] == [{"plate": "p1", "well": "C03", "cells": 1}]


def test_parts_give_the_same_wells_as_one_table_and_only_one_part_is_held(rng):
    def part(plate):
        return cells_of({"B02": rng.normal(size=(5, 3)).tolist(), "C03": rng.normal(size=(4, 3)).tolist()}, plate=plate)

    parts = [part("p2"), part("p1")]
    whole = anndata.concat(parts)
    together = well_profiles(whole, statistics="mean+sd")
    streamed = well_profiles(iter(parts), statistics="mean+sd")
    np.testing.assert_array_equal(streamed.X, together.X)
    assert list(streamed.obs_names) == list(together.obs_names) == ["p1_B02", "p1_C03", "p2_B02", "p2_C03"]


def test_a_part_is_let_go_before_the_next_one_is_made():
    made: list[weakref.ref[AnnData]] = []

    def parts():
        for plate in ("p1", "p2", "p3"):
            assert [earlier() for earlier in made] == [None] * len(made)
            part = cells_of({"B02": [[1, 2]]}, plate=plate)
            made.append(weakref.ref(part))
            yield part
            del part

    assert len(well_profiles(parts())) == len(made) == 3


def test_a_well_split_over_two_parts_is_refused():
    with pytest.raises(InputError, match=r'plate "p1", well "B02" is in two parts'):
        well_profiles([cells_of({"B02": [[1]]}), cells_of({"B02": [[2]]})])


def test_parts_with_other_features_are_refused():
    with pytest.raises(InputError, match="different features"):
        well_profiles([cells_of({"B02": [[1]]}), cells_of({"B02": [[1, 2]]}, plate="p2")])


def test_a_feature_that_is_not_finite_is_named_with_its_first_place_and_the_count():
    cells = cells_of({"B02": [[1, 2], [np.nan, np.inf]]})
    with pytest.raises(InputError, match=r'nan at row "p1_1", feature "z0" \(2 such values in 2 of 2 features\)'):
        well_profiles(cells)


def test_features_or_cells_that_are_not_finite_are_left_out_when_asked():
    cells = cells_of({"B02": [[1, 2], [np.nan, 4]], "C03": [[3, 5]]})
    without_feature = well_profiles(cells, non_finite="features left out")
    assert list(without_feature.var_names) == ["z1_mean"]
    np.testing.assert_array_equal(without_feature.X, [[3], [5]])
    assert provenance(without_feature)["features_left_out"] == ["z0"]
    without_cell = well_profiles(cells, non_finite="cells left out")
    np.testing.assert_array_equal(without_cell.X, [[1, 2], [3, 5]])
    assert provenance(without_cell)["cells_left_out_as_not_finite"] == 1
    assert np.isnan(cells.X[1, 0])  # the caller's table is as it was


def test_text_in_a_feature_column_is_named():
    cells = cells_of({"B02": [[1, 2]]})
    cells.X = np.array([[1, "many"]], dtype=object)
    with pytest.raises(InputError, match=r'feature "z1" holds "many", which is not a number'):
        well_profiles(cells)


def test_an_empty_table_is_refused():
    with pytest.raises(InputError, match="0 rows"):
        well_profiles(cells_of({"B02": [[1]]})[:0])


def test_a_missing_metadata_column_is_named():
    cells = cells_of({"B02": [[1]]})
    del cells.obs["Metadata_Batch"]
    with pytest.raises(InputError, match="no metadata column Metadata_Batch"):
        well_profiles(cells)


def test_a_well_with_two_treatments_is_refused():
    cells = cells_of({"B02": [[1], [2]]})
    cells.obs["Metadata_Compound"] = ["DMSO", "taxol"]
    with pytest.raises(InputError, match=r'well "B02" has cells with Metadata_Compound "DMSO" and "taxol"'):
        well_profiles(cells)


def test_an_unknown_summary_is_refused():
    with pytest.raises(InputError, match='"mode" is unknown'):
        well_profiles(cells_of({"B02": [[1]]}), statistics="mean+mode")


def three_plates_of_wells() -> AnnData:
    parts = [
        cells_of({"B02": [[0]], "C03": [[value]], "D05": [[1000]]}, plate=plate, batch=batch)
        for plate, batch, value in (("p3", "week2", 1), ("p1", "week1", 2), ("p2", "week1", 9))
    ]
    return well_profiles(parts)


def test_a_treatment_is_the_median_over_its_treated_wells():
    treatments = treatment_profiles(three_plates_of_wells())
    assert list(treatments.obs_names) == ["taxol@0.3"]
    assert treatments.X[0, 0] == 2
    described = treatments.obs.iloc[0]
    assert described["Metadata_Batch"] == "week1|week2"
    assert described["Metadata_Plate"] == "p1|p2|p3"
    assert (described["Metadata_Well_Count"], described["Metadata_Cell_Count"]) == (3, 3)
    assert treatment_profiles(three_plates_of_wells(), statistic="mean").X[0, 0] == 4


def test_positive_controls_count_only_when_asked():
    treatments = treatment_profiles(three_plates_of_wells(), positive_controls="counted", statistic="mean")
    assert treatments.X[0, 0] == (1 + 2 + 9 + 3000) / 6
    assert treatments.obs["Metadata_Well_Count"].iloc[0] == 6


def test_treatments_are_sorted_by_compound_and_number_not_by_text():
    wells = well_profiles(cells_of({"C04": [[1]], "C03": [[2]]}))
    wells.obs["Metadata_Concentration_um"] = [10.0, 3.0]
    del wells.obs["Metadata_Treatment"]
    assert list(treatment_profiles(wells).obs_names) == ["taxol@3", "taxol@10"]


def test_a_treatment_with_two_mechanisms_is_refused():
    wells = three_plates_of_wells()
    wells.obs.loc["p1_C03", "Metadata_MoA"] = "DNA damage"
    with pytest.raises(InputError, match=r'"taxol@0.3" has Metadata_MoA DNA damage and Microtubule stabilizers'):
        treatment_profiles(wells)


def test_a_well_listed_twice_is_refused():
    wells = three_plates_of_wells()
    with pytest.raises(InputError, match=r'plate "p1", well "B02" is listed twice'):
        treatment_profiles(anndata.concat([wells, wells], index_unique="-"))


def test_no_treated_well_is_refused():
    with pytest.raises(InputError, match="no well with the role treated"):
        treatment_profiles(well_profiles(cells_of({"B02": [[1]]})))


def test_profiles_come_back_from_a_file_as_they_were(tmp_path):
    wells = three_plates_of_wells()
    treatments = treatment_profiles(wells)
    for name, profiles in (("wells", wells), ("treatments", treatments)):
        profiles.write_h5ad(tmp_path / f"{name}.h5ad")
        read = anndata.read_h5ad(tmp_path / f"{name}.h5ad")
        np.testing.assert_array_equal(read.X, profiles.X)
        assert read.obs.astype(str).equals(profiles.obs.astype(str))
        assert provenance(read) == provenance(profiles)
    from_file = treatment_profiles(anndata.read_h5ad(tmp_path / "wells.h5ad"))  # categories in place of text
    np.testing.assert_array_equal(from_file.X, treatments.X)


def test_provenance_names_every_step_that_led_here():
    cells = cells_of({"C03": [[1]]})
    cells.uns["phenolens"] = json.dumps({"step": "embed"})
    made = provenance(treatment_profiles(well_profiles(cells)))
    assert made["step"] == "treatment profiles"
    assert made["made_from"]["step"] == "well profiles"
    assert made["made_from"]["made_from"] == {"step": "embed"}
