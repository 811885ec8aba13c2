"""Tables of other programs to score that were once read wrongly in silence, or ended without a way out."""

from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest

from phenolens.core.errors import InputError
from phenolens.profiles.columns import Columns
from phenolens.profiles.read_table import ForeignTable
from phenolens.profiles.table_profiles import Profiles, TableConfig, profiles_of
from phenolens.profiles.whitening import UNTOUCHED
from table_source import FEATURES, cells_of, wells

OWN = {"barcode": "Plate", "position": "Well", "week": "Batch", "drug": "Compound", "uM": "Concentration_um"}
OWN = {name: f"Metadata_{own}" for name, own in (OWN | {"target": "MoA"}).items()}
CONTROLS = Columns(control=("DMSO",))


@pytest.fixture
def table() -> pd.DataFrame:
    return wells().drop(columns="drug_dose").rename(columns=OWN)


def profiles(path, columns: Columns = CONTROLS, **config) -> tuple[Profiles, str]:
    foreign = ForeignTable(path, columns)
    made = profiles_of(foreign.parts(), TableConfig(**config), UNTOUCHED)
    return made, "\n".join((*sorted(foreign.notes), *made.notes))


def refusal(path, columns: Columns = CONTROLS, **config) -> str:
    with pytest.raises(InputError) as refused:
        profiles(path, columns, **config)
    return str(refused.value)


def csv(table: pd.DataFrame, path):
    table.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("kind", ["t.csv", "t.parquet"])
def test_wells_are_read_from_row_and_column_where_no_column_names_them(table, tmp_path, kind):
    by_well = cells_of(table)
    by_place = by_well.assign(
        Metadata_Row=by_well["Metadata_Well"].str[0], Metadata_Col=by_well["Metadata_Well"].str[1:].astype(int)
    ).drop(columns="Metadata_Well")
    path = tmp_path / kind
    by_place.to_parquet(path) if kind == "t.parquet" else by_place.to_csv(path, index=False)
    made, notes = profiles(path)
    assert made.rows == "cells"  # once every cell was a well
    assert set(made.whitened.obs["Metadata_Well"]) == set(table["Metadata_Well"])
    assert "wells are read from Metadata_Row and Metadata_Col" in notes
    assert "not read" not in notes
    set_aside = replace(CONTROLS, metadata=("Metadata_Row", "Metadata_Col"))
    assert "no well is named (--well): each row counts as a well" in profiles(path, set_aside)[1]


def test_rows_that_count_as_cells_are_said_with_their_number(table, tmp_path):
    again = table.assign(**{name: table[name] + 1.0 for name in FEATURES})
    notes = profiles(csv(pd.concat([table, again]), tmp_path / "t.csv"))[1]
    assert "each row counts as a cell: 136 rows in 68 wells, most often 2" in notes
    assert "counts as a" not in profiles(csv(table, tmp_path / "t.csv"))[1]


def test_a_long_table_is_refused_with_what_to_do(table, tmp_path):
    long = table.melt(id_vars=list(OWN.values()), var_name="feature")
    columns = replace(CONTROLS, metadata=("feature",))
    assert "long table" in refusal(csv(long, tmp_path / "t.csv"), columns)


def test_files_with_other_features_are_refused_with_their_names(table, tmp_path):
    first, second = FEATURES[0], f"{FEATURES[0]}_"
    for plate, rows in table.groupby("Metadata_Plate"):
        csv(rows.rename(columns={first: second}) if plate == "w1b" else rows, tmp_path / f"{plate}.csv")
    assert f"w1b.csv: 2 features not in all files ({first}, {second}); list" in refusal(tmp_path)
    made, _ = profiles(tmp_path, replace(CONTROLS, features=tuple(FEATURES[1:])))
    assert list(made.whitened.var_names) == FEATURES[1:]


def test_a_row_of_zeros_is_noted(table, tmp_path):
    table.loc[3, FEATURES] = 0.0
    line = "1 row with 0 in all features, perhaps of wells without cells (the first: w1a_A05); remove"
    assert line in profiles(csv(table, tmp_path / "t.csv"))[1]


def test_a_salt_in_the_name_of_a_compound_is_noted(table, tmp_path):
    compounds = table["Metadata_Compound"]
    is_salt = (compounds != "DMSO") & table["Metadata_Batch"].eq("w1")
    table["Metadata_Compound"] = compounds.mask(is_salt, compounds + " mesylate")
    assert "differ by a salt" in profiles(csv(table, tmp_path / "t.csv"))[1]


def test_files_of_a_plate_each_without_its_name_are_refused_with_what_to_do(table, tmp_path):
    for plate, rows in table.groupby("Metadata_Plate"):
        csv(cells_of(rows.drop(columns="Metadata_Plate")), tmp_path / f"{plate}.csv")
    line = refusal(tmp_path, rows="cells")
    assert "w1b.csv: well A02 is in w1a.csv too, and no plate is named" in line
    assert "Metadata_Plate" in line


def test_a_column_without_a_name_is_named_unless_it_is_the_index_or_empty(table, tmp_path):
    names = list(table)
    names[7] = ""
    assert "not read: Unnamed: 7" in profiles(csv(table.set_axis(names, axis=1), tmp_path / "t.csv"))[1]
    table.to_csv(tmp_path / "t.csv")
    lines = (tmp_path / "t.csv").read_text().splitlines()
    (tmp_path / "t.csv").write_text("\n".join(f"{line}," for line in lines))
    assert "not read" not in profiles(tmp_path / "t.csv")[1]


def test_rows_that_begin_with_a_name_as_r_writes_them_are_said_to(table, tmp_path):
    first, rows = table.to_csv(sep="\t").split("\n", 1)
    (tmp_path / "t.tsv").write_text(f"{first.strip()}\n{rows}")
    assert "row.names=FALSE" in refusal(tmp_path / "t.tsv")


@pytest.mark.parametrize("written", ["{:.1f} µm", "{:.1f}%", "{:,.3f}"])
def test_numbers_with_a_unit_are_refused_with_what_keeps_the_feature(table, tmp_path, written):
    table["Cells_Area"] = (1000 * table["Cells_Area"]).map(written.format)
    assert "write numbers alone, without units" in refusal(csv(table, tmp_path / "t.csv"))
    table["Cells_Area"] = "2024-01-02"
    assert "write numbers" not in refusal(csv(table, tmp_path / "t.csv"))


@pytest.mark.parametrize("word", ["n.d.", "?", "#DIV/0!"])
@pytest.mark.parametrize("kind", ["t.csv", "t.parquet"])
def test_a_plate_without_any_number_of_a_feature_leaves_it_a_feature(table, tmp_path, word, kind):
    is_first = table["Metadata_Plate"] == "w1a"
    table["Cells_Area"] = table["Cells_Area"].astype(str).mask(is_first, word)
    path = tmp_path / kind
    table.to_parquet(path) if kind == "t.parquet" else table.to_csv(path, index=False)
    assert "--non-finite rows" in refusal(path)
    assert profiles(path, non_finite="rows")[0].whitened.shape == (54, 6)


def test_decimal_commas_are_read_beside_a_cell_of_text(table, tmp_path):
    written = table.assign(Cells_Area=[f"{area:.6f}".replace(".", ",") for area in table["Cells_Area"]])
    written.loc[3, "Cells_Area"] = "?"
    written.to_csv(tmp_path / "t.csv", index=False, sep=";", decimal=",")
    assert 'feature "Cells_Area" holds "?"' in refusal(tmp_path / "t.csv")
    made, _ = profiles(tmp_path / "t.csv", non_finite="rows")
    kept = table.drop(index=3)["Cells_Area"]
    np.testing.assert_allclose(made.whitened[:, "Cells_Area"].X.ravel().astype(float), kept, atol=1e-6)


@pytest.mark.parametrize("header", ["one", "two"])
def test_cellprofilers_tables_with_image_before_its_metadata_need_no_flags(table, tmp_path, header):
    cells = cells_of(table)
    lines = cells.rename(columns=lambda name: f"Image_{name}" if name in OWN.values() else name).to_csv(index=False)
    if header == "two":
        names = ["Image" if name in OWN.values() else "Cells" for name in cells]
        named = cells.rename(columns=lambda name: name.removeprefix("Cells_"))
        lines = ",".join([*names, "Cells"]) + "\n" + named.assign(ImageNumber=1).to_csv(index=False)
    (tmp_path / "MyExpt_Cells.csv").write_text(lines)
    made, notes = profiles(tmp_path / "MyExpt_Cells.csv")
    assert made.rows == "cells"
    assert list(made.whitened.var_names) == [f"{name}_mean" for name in FEATURES]
    assert "--plate Image_Metadata_Plate" in notes


def test_roles_may_have_capitals_and_others_may_be_set_aside(table, tmp_path):
    is_control = table["Metadata_Compound"] == "DMSO"
    made, _ = profiles(
        csv(table.assign(Metadata_Role=np.where(is_control, "Control", "Treated")), tmp_path / "t.csv"), Columns()
    )
    assert (made.whitened.obs["Metadata_Role"] == "control").sum() == 32
    path = csv(table.assign(Metadata_role=np.where(is_control, "negcon", "trt")), tmp_path / "t.csv")
    assert "--metadata" in refusal(path)
    assert "not read: Metadata_role" in profiles(path, replace(CONTROLS, metadata=("Metadata_role",)))[1]


def test_what_another_program_calls_a_treatment_is_none_beside_a_compound(table, tmp_path):
    path = csv(table.assign(Metadata_treatment="drug"), tmp_path / "t.csv")
    made, notes = profiles(path)
    assert len(made.treatments[made.treatments.obs["Metadata_Role"] == "treated"]) == 18
    assert "not read: Metadata_treatment" in notes


def test_an_anndata_file_whose_numbers_are_in_obsm_says_so(table, tmp_path):
    obs = table[["Metadata_Compound", "Metadata_Plate"]].set_axis(table.index.astype(str))
    anndata.AnnData(None, obs=obs, obsm={"X_pca": table[FEATURES].to_numpy()}).write_h5ad(tmp_path / "t.h5ad")
    assert "obsm has X_pca: write it as X" in refusal(tmp_path / "t.h5ad")
