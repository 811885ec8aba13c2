import numpy as np
import pandas as pd
import pytest

from phenolens.simulation.phenotypes import (
    MARGIN_PX,
    MECHANISMS,
    SPREAD,
    UNTREATED,
    Phenotype,
    dose_strength,
    interpolate,
    sample_cells,
)


def population(target: Phenotype, strength: float, *, seed: int = 0) -> pd.DataFrame:
    """The cells of twelve fields."""
    return pd.concat(
        [
            sample_cells(
                np.random.default_rng([seed, k]), target=target, strength=strength, n_expected=22, height_px=464,
                width_px=512,
            )
            for k in range(12)
        ]
    )  # fmt: skip


def interphase(cells: pd.DataFrame) -> pd.DataFrame:
    return cells[cells["state"] == "interphase"]


@pytest.mark.parametrize(
    ("mechanism", "parameter", "direction"),
    [
        ("Actin disruptors", "n_actin_aggregates", +1),
        ("Actin disruptors", "n_stress_fibres", -1),
        ("Actin disruptors", "cell_radius_px", -1),
        ("Aurora kinase inhibitors", "nucleus_area_px", +1),
        ("Aurora kinase inhibitors", "nucleus_lobing", +1),
        ("Cholesterol-lowering", "cell_aspect", +1),
        ("Cholesterol-lowering", "tubulin_polarity", +1),
        ("DNA damage", "nucleus_area_px", +1),
        ("DNA damage", "n_stress_fibres", +1),
        ("DNA replication", "nucleolus_radius_px", +1),
        ("DNA replication", "chromatin_contrast", -1),
        ("Epithelial", "actin_junction", +1),
        ("Epithelial", "protrusion", -1),
        ("Kinase inhibitors", "n_stress_fibres", -1),
        ("Kinase inhibitors", "actin_diffuse", +1),
        ("Microtubule destabilizers", "n_microtubules", -1),
        ("Microtubule destabilizers", "tubulin_diffuse", +1),
        ("Microtubule stabilizers", "tubulin_bundling", +1),
        ("Microtubule stabilizers", "n_fragments", +1),
        ("Protein degradation", "aggresome", +1),
        ("Protein degradation", "nucleus_area_px", -1),
        ("Protein synthesis", "nucleolus_radius_px", -1),
        ("Protein synthesis", "n_microtubules", -1),
    ],
)
def test_true_parameters_move_in_the_planted_direction_with_the_dose(mechanism: str, parameter: str, direction: int):
    means = [interphase(population(MECHANISMS[mechanism], s))[parameter].mean() for s in (0.0, 0.4, 0.8)]
    assert (direction * np.diff(means) > 0).all()


@pytest.mark.parametrize(
    ("mechanism", "state"), [("Eg5 inhibitors", "monopolar"), ("Microtubule destabilizers", "mitotic"),
                             ("Protein degradation", "rounded"), ("Protein degradation", "dying")]
)  # fmt: skip
def test_states_become_more_frequent_with_the_dose(mechanism: str, state: str):
    shares = [(population(MECHANISMS[mechanism], s)["state"] == state).mean() for s in (0.0, 0.5, 1.0)]
    assert (np.diff(shares) > 0).all()


def test_destabilizers_leave_a_mixed_population():
    cells = interphase(population(MECHANISMS["Microtubule destabilizers"], 1.0))
    fragmented = (cells["n_fragments"] > 1).mean()
    assert 0.3 < fragmented < 0.6


def test_dna_damage_leaves_fewer_cells():
    assert len(population(MECHANISMS["DNA damage"], 1.0)) < 0.7 * len(population(UNTREATED, 0.0))


def test_untreated_cells_have_the_untreated_means():
    cells = interphase(population(UNTREATED, 0.0))
    for name in ("n_microtubules", "actin_diffuse", "chromatin_contrast", "actin_cortex"):
        np.testing.assert_allclose(cells[name].mean(), getattr(UNTREATED, name), rtol=0.08)


def test_untreated_fields_hold_the_expected_number_of_cells():
    cells = population(UNTREATED, 0.0)
    in_field = cells["y_px"].between(0, 463) & cells["x_px"].between(0, 511)
    np.testing.assert_allclose(in_field.sum() / 12, 22, rtol=0.15)
    assert cells["y_px"].between(-MARGIN_PX, 464 + MARGIN_PX).all()


def test_no_treatment_leaves_no_trace_of_the_mechanism():
    pd.testing.assert_frame_equal(population(MECHANISMS["Epithelial"], 0.0), population(MECHANISMS["DNA damage"], 0.0))


def test_half_the_effect_is_reached_at_the_half_effect_concentration():
    assert dose_strength(3.0, half_effect_um=3.0) == 0.5
    assert dose_strength(0.0, half_effect_um=3.0) == 0.0
    assert dose_strength(9.0, half_effect_um=3.0) == pytest.approx(0.9)


def test_between_ends_at_untreated_and_at_the_full_effect():
    target = MECHANISMS["Epithelial"]
    assert interpolate(target, strength=0) == UNTREATED
    assert interpolate(target, strength=1) == target
    assert interpolate(target, strength=0.5).cell_radius_px == (UNTREATED.cell_radius_px + target.cell_radius_px) / 2


def test_every_cell_has_every_parameter():
    cells = population(MECHANISMS["Aurora kinase inhibitors"], 1.0)
    assert set(SPREAD) <= set(cells.columns)
    assert cells.notna().all(axis=None)
