"""Columns of a table: the same rows whatever the file type, names unchanged, features separated from metadata."""

import anndata
import numpy as np
import pandas as pd
import pytest

from phenolens.core.errors import InputError
from phenolens.profiles.columns import Columns, feature_columns
from phenolens.profiles.read_table import ForeignTable
from table_source import FEATURES, NAMED, cells_of, wells


def written(table: pd.DataFrame, path):
    """The table as a file of the kind that its name says."""
    if path.name.endswith(".h5ad"):
        obs = table.drop(columns=FEATURES).astype({"target": "category"})
        obs.index = obs.index.astype(str)
        anndata.AnnData(table[FEATURES].to_numpy(), obs=obs, var=pd.DataFrame(index=FEATURES)).write_h5ad(path)
    elif path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False, sep="\t" if ".tsv" in path.name else ",")
    return path


def read(path, columns: Columns = NAMED) -> anndata.AnnData:
    parts = list(ForeignTable(path, columns).parts())
    return parts[0] if len(parts) == 1 else anndata.concat(parts)


@pytest.mark.parametrize("kind", ["t.csv", "t.csv.gz", "t.tsv", "t.parquet", "t.h5ad"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path, kind):
    table = wells()
    given = read(written(table, tmp_path / kind))
    assert list(given.var_names) == FEATURES
    by_well = given.obs.set_index(given.obs["Metadata_Plate"] + given.obs["Metadata_Well"])
    expected = table.set_index(table["barcode"] + table["position"]).loc[by_well.index]
    np.testing.assert_allclose(given.X, expected[FEATURES], rtol=1e-12)
    assert list(by_well["Metadata_Treatment"]) == list(expected["drug_dose"])
    assert list(by_well["Metadata_MoA"]) == list(expected["target"].fillna(""))
    assert list(by_well["Metadata_Concentration_um"]) == list(expected["uM"])
    assert list(by_well["Metadata_Role"]) == ["control" if drug == "DMSO" else "treated" for drug in expected["drug"]]


@pytest.mark.parametrize("kind", ["t.parquet", "t.h5ad"])
def test_one_plate_at_a_time_is_in_memory(tmp_path, kind):
    parts = ForeignTable(written(cells_of(wells()), tmp_path / kind), NAMED).parts()
    assert [set(part.obs["Metadata_Plate"]) for part in parts] == [{"w1a"}, {"w1b"}, {"w2a"}, {"w2b"}]


def test_a_folder_of_tables_is_read_file_by_file(tmp_path):
    table = wells()
    for plate, rows in table.groupby("barcode"):
        written(rows, tmp_path / f"{plate}.csv")
    assert len(read(tmp_path)) == len(table)
    assert read(tmp_path).obs_names.is_unique


def test_names_stay_as_they_are_written(tmp_path):
    table = wells().assign(barcode="007")
    table["position"] = [f"{number:03d}" for number in range(len(table))]
    given = read(written(table, tmp_path / "t.csv"))
    assert set(given.obs["Metadata_Plate"]) == {"007"}
    assert given.obs["Metadata_Well"].iloc[5] == "005"


def test_whole_numbers_are_names_without_a_point(tmp_path):
    table = wells()
    table["barcode"] = table["barcode"].map({"w1a": 1.0, "w1b": 2.0, "w2a": 3.0, "w2b": 4.0})
    assert set(read(written(table, tmp_path / "t.parquet")).obs["Metadata_Plate"]) == {"1", "2", "3", "4"}


def test_our_own_names_need_no_flags(tmp_path):
    given = read(written(wells(), tmp_path / "t.csv"))
    given.write_h5ad(tmp_path / "own.h5ad")
    again = read(tmp_path / "own.h5ad", Columns())
    pd.testing.assert_frame_equal(again.obs[given.obs.columns].astype(str), given.obs.astype(str))


def test_a_control_is_a_compound_a_treatment_or_a_column_with_a_value(tmp_path):
    path = written(wells(), tmp_path / "t.csv")
    by = [
        read(path, Columns(treatment="drug_dose", metadata=("[a-z]*",), control=(c,))) for c in ("DMSO_0", "drug=DMSO")
    ]
    assert list(by[0].obs["Metadata_Role"]) == list(by[1].obs["Metadata_Role"])
    assert (by[0].obs["Metadata_Role"] == "control").sum() == 32


def test_features_are_what_no_flag_names_and_no_program_keeps_as_metadata(tmp_path):
    names = ["barcode", "Metadata_Site", "Image_Count", "Image_Metadata_Well", "ImageNumber", "Unnamed: 0", *FEATURES]
    assert feature_columns(names, Columns(plate="barcode"), source=tmp_path) == FEATURES
    chosen = feature_columns(names, Columns(features=("Cells_[AP]*",)), source=tmp_path)
    assert chosen == ["Cells_Area", "Cells_Perimeter"]
    listed = tmp_path / "names.txt"
    listed.write_text("Cells_Edge\n\nCells_Area\n")
    assert feature_columns(names, Columns(features=(f"@{listed}",)), source=tmp_path) == ["Cells_Edge", "Cells_Area"]


def test_a_treatment_is_a_compound_at_a_concentration_where_no_column_says_it(tmp_path):
    columns = Columns(compound="drug", concentration="uM", metadata=("[a-z]*",), control=("DMSO",))
    given = read(written(wells(), tmp_path / "t.csv"), columns)
    assert "actin0@10" in set(given.obs["Metadata_Treatment"])


def test_without_a_compound_it_is_said_that_doses_count_as_neighbours(tmp_path):
    table = ForeignTable(written(wells(), tmp_path / "t.csv"), Columns(treatment="drug_dose", metadata=("[a-z]*",)))
    assert len(list(table.parts())) == 1
    assert any("another dose of the same compound counts" in note for note in table.notes)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (Columns(), "--treatment or --compound"),
        (Columns(treatment="drug_dos"), 'no column "drug_dos" (--treatment); did you mean "drug_dose"'),
        (Columns(treatment="drug_dose", plate="Barcode"), 'did you mean "barcode"'),
        (Columns(treatment="drug_dose", metadata=("nosuch*",)), 'no column "nosuch*" (--metadata)'),
        (Columns(treatment="drug_dose", features=("Cell_Area",)), 'did you mean "Cells_Area"'),
        (Columns(treatment="drug_dose", features=("drug_dose",)), "as metadata and as a feature"),
        (Columns(treatment="drug_dose", metadata=("*",)), "no column is left as a feature"),
        (Columns(treatment="drug_dose", metadata=("[a-z]*",), control=("DMS_0",)), 'did you mean "DMSO_0"'),
        (Columns(treatment="drug_dose", role="week", metadata=("[a-z]*",)), 'role "w1" in a row; expected treated'),
        (Columns(compound="drug", concentration="position", metadata=("[a-z]*",)), "expected micromolar"),
    ],
)
def test_a_column_that_cannot_be_is_named(tmp_path, columns, words):
    with pytest.raises(InputError) as refused:
        list(ForeignTable(written(wells(), tmp_path / "t.csv"), columns).parts())
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_row_without_a_treatment_is_named(tmp_path):
    table = wells()
    table.loc[3, "drug_dose"] = None
    with pytest.raises(InputError, match="row 4 has no treatment \\(1 such row of 68\\)"):
        read(written(table, tmp_path / "t.csv"))


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.h5ad", "t.csv.gz"])
def test_a_file_of_another_kind_under_the_name_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x00\x01nothing of the kind\xff")
    with pytest.raises(InputError, match="t\\."):
        read(tmp_path / name)


def test_what_is_no_table_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        ForeignTable(tmp_path / "no.csv", NAMED)
    (tmp_path / "a.docx").write_text("")
    with pytest.raises(InputError, match="unsupported file type"):
        ForeignTable(tmp_path / "a.docx", NAMED)
    with pytest.raises(InputError, match="no table in this folder"):
        ForeignTable(tmp_path, NAMED)
    (tmp_path / "b.csv").write_text("drug_dose,Cells_Area\n")
    with pytest.raises(InputError, match="no rows"):
        read(tmp_path / "b.csv", Columns(treatment="drug_dose"))
