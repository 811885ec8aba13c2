"""Activity against the controls: planted answers, p-values of all permutations, and naive twins."""

import itertools

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from phenolens.core.errors import InputError
from phenolens.profiles.activity import Comparison, activity, activity_sentence, smallest, weak_designs
from phenolens.profiles.average_precision import mean_average_precision


def wells_of(
    rng, *, plates=("p1", "p2"), n_controls=6, replicates=2, shift=(("far", 4.0), ("near", 0.0)), n=5
) -> AnnData:
    """Wells of DMSO and of each compound on every plate; a compound's wells are shifted along the first feature."""
    rows, points = [], []
    for number, plate in enumerate(plates):
        named = [("DMSO", 0.0, n_controls), *((name, size, replicates) for name, size in shift)]
        for compound, size, n_wells in named:
            for _ in range(n_wells):
                rows.append((compound, plate, "control" if compound == "DMSO" else "treated"))
                points.append(rng.normal(size=n) + 10 * number + size * np.eye(n)[0])  # plates are far apart
    obs = pd.DataFrame(rows, columns=["Metadata_Compound", "Metadata_Plate", "Metadata_Role"])
    obs["Metadata_Concentration_um"] = np.where(obs["Metadata_Role"] == "control", 0.0, 1.0)
    obs["Metadata_Treatment"] = obs["Metadata_Compound"] + "@1"
    obs["Metadata_MoA"] = obs["Metadata_Compound"].map({"far": "kills", "other": "kills"}).fillna("")
    obs["Metadata_Cell_Count"] = np.where(obs["Metadata_Compound"] == "far", 5, 20)
    return AnnData(np.array(points), obs=obs.set_index(obs.index.astype(str)))


def test_a_planted_effect_is_found_and_nothing_else(rng):
    table = activity(wells_of(rng, n_controls=8, replicates=3)).set_index("name")
    assert table["corrected_p_value"]["far@1"] < 0.001
    assert table["corrected_p_value"]["near@1"] > 0.05
    assert table["distance"]["far@1"] > 2
    assert 0.5 < table["distance"]["near@1"] < 1.6
    assert table["cells"].to_dict() == {"far@1": 0.25, "near@1": 1.0}
    assert table["cells_p_value"]["far@1"] < 0.001
    assert table["cells_p_value"]["near@1"] == 1
    assert activity_sentence(table.reset_index()).startswith("1 of 2 treatments")


def test_the_p_value_is_that_of_all_permutations_within_plates(rng, monkeypatch):
    wells = wells_of(rng, n_controls=3, replicates=1, shift=(("far", 1.5),))
    points, plate = wells.X, wells.obs["Metadata_Plate"].to_numpy()
    treated = (wells.obs["Metadata_Role"] == "treated").to_numpy()

    def distance(labels: np.ndarray) -> float:
        differences = [
            points[labels & (plate == p)].mean(0) - points[~labels & (plate == p)].mean(0) for p in ("p1", "p2")
        ]
        return float(np.linalg.norm(np.mean(differences, axis=0)))

    null = []
    for pair in itertools.product(np.flatnonzero(plate == "p1"), np.flatnonzero(plate == "p2")):
        null.append(distance(np.isin(np.arange(len(points)), pair)))
    exact, by_chance = np.mean(np.array(null) >= distance(treated) - 1e-9), np.mean(null)
    (row,) = activity(wells, n_draws=16).to_dict("records")  # as many as there are: each counts once
    assert row["p_value"] == pytest.approx(exact)
    assert row["distance"] == pytest.approx(distance(treated) / by_chance)
    assert row["smallest_p_value"] == pytest.approx(1 / 16)
    monkeypatch.setattr(Comparison, "n_permutations", 10**6)  # drawn
    (drawn,) = activity(wells, n_draws=20_000).to_dict("records")
    assert drawn["p_value"] == pytest.approx(exact, abs=0.01)
    assert drawn["distance"] == pytest.approx(distance(treated) / by_chance, rel=0.02)


@pytest.mark.parametrize("replicates", [1, 2])
def test_the_largest_effect_has_the_smallest_p_value_that_the_wells_allow(rng, replicates):
    wells = wells_of(rng, n_controls=6, replicates=replicates, shift=(("far", 1000.0),))
    (row,) = activity(wells).to_dict("records")
    assert row["p_value"] == row["smallest_p_value"] == {1: 1 / 49, 2: 1 / 28**2}[replicates]
    assert smallest(pd.DataFrame([row])) == "1 of 1 reached the smallest p that their number of wells allows"
    assert smallest(pd.DataFrame([row | {"p_value": 0.5}])) == ""


def test_the_effect_of_a_plate_is_not_that_of_a_treatment(rng):
    wells = wells_of(rng, plates=("p1", "p2", "p3"), n_controls=8, shift=(("near", 0.0),))
    kept = (wells.obs["Metadata_Role"] == "control") | (wells.obs["Metadata_Plate"] == "p3")
    (row,) = activity(wells[kept.to_numpy()]).to_dict("records")
    assert row["p_value"] > 0.05
    assert (row["n_control_wells"], row["left_out"]) == (8, "well")


def test_accuracy_is_that_of_the_nearest_well_on_another_plate(rng):
    wells = wells_of(rng, plates=("p1", "p2", "p3"), n_controls=4, shift=(("far", 30.0),))
    wells.X -= wells.X.mean(axis=0)
    role, plate = wells.obs["Metadata_Role"].to_numpy(), wells.obs["Metadata_Plate"].to_numpy()
    directions = wells.X / np.linalg.norm(wells.X, axis=1, keepdims=True)
    right = {"treated": [], "control": []}
    for query in range(len(role)):
        others = [other for other in range(len(role)) if plate[other] != plate[query]]
        nearest = max(others, key=lambda other: directions[query] @ directions[other])
        right[role[query]].append(role[nearest] == role[query])
    (row,) = activity(wells).to_dict("records")
    assert row["accuracy"] == pytest.approx(np.mean([np.mean(answers) for answers in right.values()]))
    assert row["left_out"] == "plate"


def test_map_is_that_of_mean_average_precision(rng):
    wells = wells_of(rng, shift=(("far", 4.0), ("near", 0.0), ("other", 1.0)))
    ours = activity(wells, n_draws=500, seed=3).set_index("name").sort_index()
    theirs = mean_average_precision(wells, of="treatments", n_draws=500, seed=3)
    np.testing.assert_allclose(ours["mean_average_precision"], theirs["mean_average_precision"])
    np.testing.assert_allclose(ours["map_p_value"], theirs["p_value"])
    np.testing.assert_allclose(ours["map_corrected_p_value"], theirs["corrected_p_value"])


def test_one_well_against_four_controls_allows_no_small_p_value_and_it_is_said(rng):
    wells = wells_of(rng, plates=("p1",), n_controls=4, replicates=1)
    table = activity(wells)
    assert (table["smallest_p_value"] == 0.2).all()
    assert (table["p_value"] >= 0.2).all()
    assert table[["mean_average_precision", "accuracy"]].isna().all(axis=None)
    assert activity_sentence(table).startswith(
        "No treatment has enough wells to be tested against the controls. 1 well"
    )
    assert "no p-value below 0.2;" in activity_sentence(table)
    tested = table.iloc[:1].assign(smallest_p_value=0.01, corrected_p_value=0.01)
    both = activity_sentence(pd.concat([tested, table]))
    assert both.startswith(f"1 of 1 treatment differs from the controls; {len(table)} more cannot be tested (")
    assert f"For {len(table)} of {len(table) + 1}: 1 well and 4 control wells" in both
    columns = ("plate", "compound", "concentration_um", "role")
    names = ("Metadata_Plate", "Metadata_Compound", "Metadata_Concentration_um", "Metadata_Role")
    rows = wells.obs[[*names]].set_axis(columns, axis=1).assign(well=[f"w{n}" for n in range(wells.n_obs)])
    assert "0.2" in weak_designs(rows)
    assert weak_designs(rows[rows["role"] == "control"]) == ""


def test_compounds_mechanisms_and_treatments_are_compared_by_name(rng):
    wells = wells_of(rng, shift=(("far", 4.0), ("near", 0.0), ("other", 4.0)))
    table = activity(wells, names=("near@1", "kills", "far"), n_draws=200).set_index("name")
    assert table["of"].to_dict() == {"near@1": "treatment", "far": "compound", "kills": "moa"}
    assert table["n_wells"].to_dict() == {"near@1": 4, "far": 4, "kills": 8}
    with pytest.raises(InputError, match=r'"farr".*"far"'):
        activity(wells, names=("farr",))


def test_a_plate_without_controls_is_compared_with_all_of_them(rng):
    wells = wells_of(rng, n_controls=4)
    kept = (wells.obs["Metadata_Role"] == "treated") | (wells.obs["Metadata_Plate"] == "p1")
    assert (activity(wells[kept.to_numpy()], n_draws=50)["left_out"] == "well").all()


def test_without_controls_there_is_nothing_to_compare_with(rng):
    wells = wells_of(rng)
    with pytest.raises(InputError, match="control"):
        activity(wells[(wells.obs["Metadata_Role"] == "treated").to_numpy()])
