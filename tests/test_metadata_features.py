"""Numbers that are no measurements: columns of metadata among the features, and cells of text in a feature."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from phenolens.core.errors import InputError
from phenolens.profiles.columns import Columns
from phenolens.profiles.read_table import ForeignTable
from phenolens.profiles.table_profiles import Profiles, TableConfig, profiles_of
from phenolens.profiles.whitening import UNTOUCHED
from table_source import FEATURES, NAMED, cells_of, wells

OWN = {
    "barcode": "Metadata_plate",
    "position": "metadata_well",
    "week": "METADATA_BATCH",
    "drug": "Metadata.Compound",
    "target": "Metadata_moa",
}


def read(table: pd.DataFrame, path, columns: Columns = NAMED):
    """The first part's features, all plates, and the notes, of a table in a file of the kind that its name says."""
    table.to_parquet(path) if path.suffix == ".parquet" else table.to_csv(path, index=False)
    foreign = ForeignTable(path, columns)
    parts = list(foreign.parts())
    return list(parts[0].var_names), sorted(set(pd.concat([p.obs for p in parts])["Metadata_Plate"])), foreign.notes


def profiles(table: pd.DataFrame, path, **config) -> Profiles:
    table.to_csv(path, index=False)
    return profiles_of(ForeignTable(path, NAMED).parts(), TableConfig(**config), UNTOUCHED)


def metadata_note(notes) -> str:
    return "".join(note for note in notes if "may be metadata" in note)


def by_plate(table: pd.DataFrame, values) -> pd.Series:
    return table["barcode"].map(dict(zip(("w1a", "w1b", "w2a", "w2b"), values)))


@pytest.mark.parametrize("kind", ["t.csv", "t.parquet"])
@pytest.mark.parametrize("of", ["wells", "cells"])
def test_numbers_of_metadata_among_the_features_are_named_once_with_the_flag(tmp_path, rng, kind, of):
    table = wells()
    table = table.assign(
        MOI=rng.choice([1, 3], len(table)),
        cell_line_id=by_plate(table, (7, 7, 9, 9)),
        donor=rng.choice([1.0, 2.0, np.nan], len(table), p=[0.5, 0.45, 0.05]),
        yyyymmdd=by_plate(table, (20240101, 20240102, 20240201, 20240202)),
        degrees=by_plate(table, (36.9, 37.1, 37.05, 36.8)),
        molecular_weight=table["drug"].map({drug: 300.1 + n for n, drug in enumerate(table["drug"].unique())}),
        passage=by_plate(table, (3, 4, 5, 6)),
        Barcode=by_plate(table, (1, 2, 3, 4)),
    )
    table = cells_of(table) if of == "cells" else table
    features, _, notes = read(table, tmp_path / kind)
    note = metadata_note(notes)
    named = {"MOI (1, 3)", "cell_line_id (7, 9)", "donor (1, 2)", "passage", "yyyymmdd", "degrees", "molecular_weight"}
    assert [name for name in named if name not in note] == []
    assert "used as features" in note
    assert "--plate Barcode" in note
    flags = note.partition("--metadata ")[2].partition(",")[0].split()
    assert set(flags) == set(features) - set(FEATURES)
    features, _, notes = read(table, tmp_path / kind, replace(NAMED, metadata=tuple(flags)))
    assert (features, metadata_note(notes)) == (FEATURES, "")


@pytest.mark.parametrize("kind", ["t.csv", "t.parquet"])
def test_places_and_running_numbers_are_named(tmp_path, kind):
    table = wells()
    table["column_nr"] = table["position"].str[1:].astype(int)
    table["sample"] = np.arange(len(table)) + 1000
    note = metadata_note(read(table, tmp_path / kind)[2])
    assert "column_nr (the same in a well of every plate)" in note
    assert "sample (a running number)" in note


@pytest.mark.parametrize("kind", ["t.csv", "t.parquet"])
def test_counts_and_measurements_of_few_values_are_not_called_metadata(tmp_path, rng, kind):
    table = wells()
    n = len(table)
    table = table.assign(
        n_nuclei=rng.integers(1, 4, n),
        SpotCount=rng.integers(1, 4, n),
        Cells_Neighbors_NumberOfNeighbors_5=rng.integers(1, 4, n),
        Mito_AreaShape_EulerNumber=rng.integers(-1, 2, n),
        area_px=rng.integers(200, 900, n),
        solidity=rng.choice([0.95, 0.96, 0.97], n),
        rarely=np.where(np.arange(n) % 9, 0.0, rng.normal(size=n)),
    )
    assert metadata_note(read(table, tmp_path / kind)[2]) == ""


def test_features_that_are_listed_are_not_called_metadata(tmp_path):
    table = wells().assign(passage=3)
    columns = replace(NAMED, features=(*FEATURES, "passage"))
    assert metadata_note(read(table, tmp_path / "t.csv", columns)[2]) == ""


@pytest.mark.parametrize("kind", ["t.csv", "t.parquet"])
def test_our_own_names_are_read_in_any_capitals_and_said(tmp_path, kind):
    table = wells().rename(columns=OWN).drop(columns=["drug_dose", "uM"]).assign(metadata_donor=1)
    table["Metadata_plate"] = table["Metadata_plate"].str.replace("w1a", "007")
    columns = Columns(control=("DMSO",))
    features, plates, notes = read(table, tmp_path / kind, columns)
    assert features == FEATURES  # a number in metadata_donor is none
    assert plates == ["007", "w1b", "w2a", "w2b"]  # not 7
    (note,) = [note for note in notes if note.startswith("read without a flag")]
    for flag in "--plate Metadata_plate|--well metadata_well|--compound Metadata.Compound|--mechanism".split("|"):
        assert flag in note
    assert not any("not read: Metadata_plate" in note for note in notes)
    without = replace(columns, metadata=("METADATA_BATCH",))
    assert "--batch" not in "".join(read(table, tmp_path / kind, without)[2])
    with pytest.raises(InputError, match=r"Metadata_plate and METADATA_PLATE both may hold the plate.*--plate"):
        read(table.assign(METADATA_PLATE="x"), tmp_path / kind, columns)
    assert len(read(table.assign(Metadata_Plate="x"), tmp_path / kind, columns)[1]) == 1  # our own goes first


@pytest.mark.parametrize("text", ["?", "#DIV/0!", "n.d."])
@pytest.mark.parametrize("of", ["wells", "cells"])
def test_a_cell_of_text_in_a_feature_is_named_and_its_row_or_the_feature_can_be_left_out(tmp_path, text, of):
    table = wells() if of == "wells" else cells_of(wells())
    table = table.astype({"Cells_Edge": object})
    table.loc[7, "Cells_Edge"] = text
    with pytest.raises(InputError) as refused:
        profiles(table, tmp_path / "t.csv")
    row = "w1a_A09" if of == "wells" else "w1a_A03_3"
    assert f'row "{row}", feature "Cells_Edge" holds "{text}"' in str(refused.value)
    assert "1 such value in 1 row and 1 feature" in str(refused.value)
    assert "--metadata" not in str(refused.value)
    kept = profiles(table, tmp_path / "t.csv", non_finite="rows")
    expected = profiles(table.drop(index=7), tmp_path / "u.csv")
    np.testing.assert_allclose(kept.whitened.X.astype(float), expected.whitened.X.astype(float))
    assert any(f'the first: "{text}" of {row}, Cells_Edge' in note for note in kept.notes)
    fewer = profiles(table, tmp_path / "t.csv", non_finite="features")
    assert list(fewer.whitened.var_names) == [name for name in expected.whitened.var_names if "Edge" not in name]


def test_rows_that_repeat_another_are_found_beside_a_cell_of_text(tmp_path):
    table = wells().astype({"Cells_Edge": object})
    again = table.iloc[[5]].assign(position="H12")
    table.loc[7, "Cells_Edge"] = "?"
    with pytest.raises(InputError, match="repeats another row"):
        profiles(pd.concat([table, again]), tmp_path / "t.csv", non_finite="rows")


def test_a_column_of_text_is_no_feature_whatever_is_left_out(tmp_path):
    table = wells().assign(Plate="x", vendor=["a"] * 60 + ["1"] * 8)
    for non_finite in ("refused", "rows", "features"):
        with pytest.raises(InputError, match=r"2 columns.*Plate, vendor.*--plate Plate.*--metadata"):
            profiles(table, tmp_path / "t.csv", non_finite=non_finite)
