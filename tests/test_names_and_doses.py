"""One rule of names, and concentrations in micromolar whatever their column is called."""

import numpy as np
import pandas as pd
import pytest

from phenolens.core.errors import InputError
from phenolens.core.names import case_note, clean_name, clean_names, known_mechanism, substance_note
from phenolens.profiles.candidates import mechanism_names
from phenolens.profiles.columns import resembles_metadata
from phenolens.screens.doses import SameDoses, is_dose_column, is_unit_column, micromolar, resembles_dose
from phenolens.screens.unread_columns import resembles_plate


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("taxol ", "taxol"),
        ("5\u00a0\u00b5M  blank", "5 μM blank"),
        ("5 \u03bcM blank", "5 μM blank"),
        ("N-e\u0301thylamide", "N-éthylamide"),
        ("e\u200b\u0301", "é"),
        ("\u03b2-lapachone\u200b\ufeff", "β-lapachone"),
        ("\uff22\uff10\uff12", "B02"),
        (7.0, "7"),
        ("7.0", "7"),
        ("7.10", "7.10"),
        ("007", "007"),
        (" N/A ", ""),
        ("NaN", ""),
    ],
)
def test_a_name_has_one_form(written, name):
    assert clean_name(written) == name


def test_a_column_of_names_keeps_its_index_and_missing_cells_are_empty():
    names = clean_names(pd.Series(["a ", None, float("nan"), "a"], index=[3, 4, 5, 6]))
    assert names.to_dict() == {3: "a", 4: "", 5: "", 6: "a"}


def test_names_that_differ_by_case_spaces_or_dashes_only_are_reported():
    (note,) = case_note("compound", {"PP-2", "pp\u20112", "taxol", "Taxol", "other"})
    assert 'compound names "PP-2" and "pp\u20112" (and 1 more)' in note
    assert case_note("compound", {"PP-2", "PP-3"}) == set()


@pytest.mark.parametrize(
    "pair",
    [
        ("taxol", "taxol."),
        ("beta-lapachone", "beta lapachone"),
        ("beta-lapachone", "β-lapachone"),
        ("Beta-lapachone", "ß-lapachone"),
        ("5 uM blank", "5 μM blank"),
        ("interferon γ", "interferon-gamma"),
        ("007", "7"),
        ("cpd-01 B", "cpd-1 B"),
    ],
)
def test_names_that_differ_by_punctuation_or_a_greek_letter_are_reported(pair):
    (note,) = case_note("compound", set(pair))
    assert all(f'"{name}"' in note for name in pair)


@pytest.mark.parametrize(
    "pair", [("JUMP 1-12", "JUMP 11-2"), ("x@-1", "x@1"), ("(+)-JQ1", "(-)-JQ1"), ("a1", "a2"), ("0.05", "0.5")]
)
def test_other_names_are_not_reported(pair):
    assert case_note("compound", set(pair)) == set()


@pytest.mark.parametrize(
    "pair",
    [
        ("imatinib", "Imatinib mesylate"),
        ("imatinib HCl", "imatinib (mesylate)"),
        ("cAMP", "cAMP, disodium salt"),
        ("BRD-K12345678-001-01-1", "BRD-K12345678-003-12-9"),
    ],
)
def test_compounds_that_differ_by_a_salt_or_batch_are_reported(pair):
    (note,) = substance_note({*pair, "another"})
    assert all(f'"{name}"' in note for name in pair)


@pytest.mark.parametrize(
    "pair",
    [
        ("potassium chloride", "sodium chloride"),
        ("BRD-K12345678-001-01-1", "BRD-K12345679-001-01-1"),
    ],
)
def test_compounds_of_other_names_are_of_other_substances(pair):
    assert substance_note(set(pair)) == set()


@pytest.mark.parametrize(
    "written",
    [
        "unknown",
        "Unknown MoA",
        "-",
        "–",
        "n/a",
        "n.d.",
        "none",
        "?",
        "not annotated",
        "",
        "other",
        "Unclear",
        "not known",
        "TBD",
        "NaN",
        "unclassified",
        "0",
        "novel",
        "no target",
        "uncharacterized",
        "Various",
        "misc",
        "multiple",
    ],
)
def test_a_mechanism_that_is_not_known_is_empty(written):
    assert known_mechanism(written) == ""
    assert mechanism_names(f"actin|{written}", "|") == {"actin"}


@pytest.mark.parametrize(
    "written",
    [
        "multiple kinase inhibitor",
        "10",
        "unknown kinase inhibitor",
        "other kinases",
        "NAD synthesis",
        "nonexistent",
        "5-HT",
        "moa0",
        "mechanism 0",
    ],
)
def test_other_mechanisms_are_known(written):
    assert known_mechanism(written) == written


@pytest.mark.parametrize(
    "name",
    "passage time_h Count run_date Plate_number WellIndex Replicate_ID x_um level dilution_factor".split(),
)
def test_a_feature_may_have_a_name_of_metadata(name):
    assert resembles_metadata(name)


@pytest.mark.parametrize(
    "name",
    "Cells_AreaShape_Center_X Nuclei_Number_Object_Number Image_Time Texture_Entropy_3_time cell_area f1".split(),
)
def test_a_measured_feature_has_no_name_of_metadata(name):
    assert not resembles_metadata(name)


@pytest.mark.parametrize("column", ["plate_name", "Assay Plate", "plateid", "Plate No.", "Platte", "assay_barcode"])
def test_a_column_may_name_the_plates(column):
    assert resembles_plate(column)


@pytest.mark.parametrize("column", ["plate_map_name", "source_plate", "template", "plate_row", "wells per plate"])
def test_a_column_of_other_plates_does_not(column):
    assert not resembles_plate(column)


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("Concentration (uM)", ["0.3", "3"], [0.3, 3]),
        ("conc_uM", ["0.3", "3"], [0.3, 3]),
        ("dose_nM", ["300", "3000"], [0.3, 3]),
        ("Final Conc", ["0.3", "3"], [0.3, 3]),
        ("Concentration..µM.", ["0,3", "3"], [0.3, 3]),
        ("mmoles_per_liter", ["2.5", "5"], [2500, 5000]),
        ("Metadata_pert_dose", ["300 nM", "3 µM"], [0.3, 3]),
        ("Dose [nmol/L]", ["300", ""], [0.3, np.nan]),
        ("concentration", ["NA", "1e-3"], [np.nan, 0.001]),
    ],
)
def test_a_column_of_concentrations_is_in_micromolar(column, values, expected):
    assert is_dose_column(column)
    np.testing.assert_allclose(micromolar(pd.DataFrame({column: values}), column, source="m.csv"), expected)


@pytest.mark.parametrize(
    "column", ["dose_level", "Konzentration", "log10_conc", "conc (mg/ml)", "amount (nM)", "uM", "log dose"]
)
def test_other_columns_may_hold_concentrations_and_are_not_read_as_such(column):
    assert not is_dose_column(column)
    assert resembles_dose(column)


@pytest.mark.parametrize(
    "column",
    [
        "consensus",
        "condition",
        "time",
        "position",
        "diagnosis",
        "pixel_size_um",
        "emission_nm",
        "pert_dose_unit",
        "sum",
    ],
)
def test_columns_of_another_meaning_hold_no_concentrations(column):
    assert not is_dose_column(column)
    assert not resembles_dose(column)


@pytest.mark.parametrize(
    "doses", [["1.000", "10.000", "0"], ["30", "3.333", "1.111"], ["1.250", "0.125", "2"], ["1.5", "300"]]
)
def test_points_are_decimal_signs_where_nothing_contradicts(doses):
    table = pd.DataFrame({"conc": doses})
    assert micromolar(table, "conc", source="m.csv").tolist() == list(map(float, doses))


def test_a_column_gives_the_unit_of_each_row():
    table = pd.DataFrame({"conc": ["300", "3", "0"], "conc_unit": ["nM", "uM", ""]})
    assert is_unit_column("conc_unit")
    assert micromolar(table, "conc", source="m.csv").tolist() == [0.3, 3, 0]


@pytest.mark.parametrize(
    ("table", "names"),
    [
        ({"conc": ["1", "2"], "unit": ["nM", "mg/ml"]}, ("m.csv", "row 3", "mg/ml")),
        ({"conc": ["1", "2"], "unit": ["nM", ""]}, ("m.csv", "row 3", "unit")),
        ({"conc_uM": ["1"], "unit": ["nM"]}, ("m.csv", "row 2", "conc_uM", "nM")),
        ({"conc": ["5 mg/ml"]}, ("m.csv", "row 2", "mg/ml")),
        ({"conc (mg/ml)": ["1"]}, ("m.csv", "conc (mg/ml)", "micromolar")),
        ({"conc": ["100 nM", "100", "0"]}, ("m.csv", "row 3", "conc", "100", "unit")),
        ({"conc": ["1,500", "3,000"]}, ("m.csv", "conc", "1,500")),
        ({"conc": ["1.000", "10.000", "300", "0"]}, ("m.csv", "conc", "1.000", "point")),
        ({"conc": ["1.500 nM", "300 nM"]}, ("m.csv", "conc", "1.500", "point")),
        ({"conc": ["0,5", "1.5"]}, ("m.csv", "conc", "0,5", "1.5", "decimal")),
        ({"conc": ["-1"]}, ("m.csv", "row 2", "-1")),
        ({"conc": ["many"]}, ("m.csv", "row 2", "many")),
        ({"conc": ["3", "1/3"]}, ("m.csv", "row 3", '"1/3"', "one number")),
        ({"conc": ["3 uM", "1-3 uM"]}, ("m.csv", "row 3", '"1-3 uM"', "one number")),
        ({"conc": ["10 000"]}, ("m.csv", "row 2", '"10 000"', "one number")),
    ],
)
def test_what_is_no_concentration_in_a_molar_unit_is_refused(table, names):
    with pytest.raises(InputError) as refused:
        micromolar(pd.DataFrame(table), next(iter(table)), source="m.csv")
    assert all(name in str(refused.value) for name in names)


OTHER_UNITS = "ug_per_ml mg_per_ml ug/mL conc_ugml ng_ml g_per_L ppm volume_nl Dose_(Gy) conc_vv MOI Transfer_Volume"


@pytest.mark.parametrize("column", OTHER_UNITS.split())
def test_a_column_whose_name_is_another_unit_is_not_micromolar(column):
    with pytest.raises(InputError, match="not molar"):
        micromolar(pd.DataFrame({column: ["1"]}), column, source="m.csv")


@pytest.mark.parametrize(
    "column", ["uM", "amount_nM", "mmoles_per_liter", "umol/L", "level", "concentration", "signal"]
)
def test_a_column_without_another_unit_is_read(column):
    micromolar(pd.DataFrame({column: ["1"]}), column, source="m.csv")


def test_doses_within_a_per_cent_are_reported_or_joined():
    compounds, doses = pd.Series(["a", "a", "a", "b"]), pd.Series([0.3, 0.301, 3.0, 0.302])
    apart = SameDoses(0.0)
    assert apart.joined(compounds, doses).tolist() == [0.3, 0.301, 3.0, 0.302]
    (note,) = apart.notes()
    assert "a 0.3 and 0.301 µM" in note
    assert "--same-dose-within" in note
    joined = SameDoses(0.01)
    assert joined.joined(compounds, doses).tolist() == [0.3, 0.3, 3.0, 0.302]
    (note,) = joined.notes()
    assert "a 0.301 as 0.3" in note


@pytest.mark.parametrize("column", ["log_conc_nM", "logconc", "pConc", "log10 dose", "pIC50"])
def test_logarithms_are_no_concentrations(column):
    with pytest.raises(InputError, match=column):
        micromolar(pd.DataFrame({column: [1.0]}), column, source="m.csv")
    assert resembles_dose(column) == (column != "pIC50")


@pytest.mark.parametrize(("dose", "n_notes"), [(1000.0, 0), (2500.0, 1)])
def test_doses_above_a_millimolar_are_reported(dose, n_notes):
    held = SameDoses(0.0)
    held.joined(pd.Series(["taxol"]), pd.Series([dose]))
    assert len(held.notes()) == n_notes
    assert all("taxol" in note and "mmoles_per_liter" in note and "unit" in note for note in held.notes())


@pytest.mark.parametrize(("doses", "looks_molar"), [([1e-6, 1e-5, 1e-4], True), ([1e-4, 1e-3, 0.1], False)])
def test_doses_that_look_like_molar_are_reported(doses, looks_molar):
    held = SameDoses(0.0)
    held.joined(pd.Series(["a", "b", "c", "DMSO"]), pd.Series([*doses, 0.0]))
    assert len(held.notes()) == looks_molar
    assert all("conc_M" in note and "unit" in note for note in held.notes())
