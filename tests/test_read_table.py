"""Tables as they come: odd names, missing words, numbers that are none, other programs' columns; nothing vanishes."""

import io
from dataclasses import replace
from decimal import Decimal

import anndata
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import sparse

from phenolens.core.errors import InputError
from phenolens.core.files import write_h5ad
from phenolens.profiles.columns import Columns, feature_columns
from phenolens.profiles.read_table import ForeignTable
from phenolens.profiles.table_profiles import TableConfig, profiles_of
from phenolens.profiles.whitening import UNTOUCHED, Recipe
from table_source import FEATURES, NAMED, cells_of, wells

BY_DOSE = Columns(
    compound="drug", concentration="uM", mechanism="target", plate="barcode", well="position", metadata=("[a-z]*",)
)
KINDS = ["t.csv", "t.parquet", "t.h5ad"]


def table_of(table: pd.DataFrame, *, features: list[str] = FEATURES) -> anndata.AnnData:
    """The table as AnnData, its metadata as obs."""
    obs = table.drop(columns=features)
    obs = obs.astype({name: "category" for name in obs if obs[name].dtype == object})
    obs.index = [str(row) for row in range(len(obs))]
    return anndata.AnnData(table[features].to_numpy(), obs=obs, var=pd.DataFrame(index=features))


def written(table: pd.DataFrame, path):
    """The table as a file of the kind that its name says."""
    if path.suffix == ".h5ad":
        table_of(table).write_h5ad(path)
    elif path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False)
    return path


def parts_and_notes(path, columns: Columns = NAMED) -> tuple[list[anndata.AnnData], str]:
    table = ForeignTable(path, columns)
    parts = list(table.parts())
    return parts, "\n".join(sorted(table.notes))


def read(path, columns: Columns = NAMED) -> anndata.AnnData:
    parts, _ = parts_and_notes(path, columns)
    return parts[0] if len(parts) == 1 else anndata.concat(parts)


def refusal(path, columns: Columns = NAMED, *, config: TableConfig | None = None, recipe: Recipe | None = None) -> str:
    """The one line in which a table is refused."""
    with pytest.raises(InputError) as refused:
        profiles_of(ForeignTable(path, columns).parts(), config or TableConfig(), recipe or Recipe())
    assert "\n" not in str(refused.value)
    return str(refused.value)


# our own files


@pytest.mark.parametrize("stored_as", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_our_own_files_are_read_a_plate_at_a_time(tmp_path, stored_as):
    table = wells().sample(frac=1, random_state=0)  # no plate's rows lie together
    own = table_of(table)
    own.X = stored_as(own.X)
    write_h5ad(tmp_path / "t.h5ad", own)
    parts, _ = parts_and_notes(tmp_path / "t.h5ad")
    assert sorted(set(part.obs["Metadata_Plate"]).pop() for part in parts) == ["w1a", "w1b", "w2a", "w2b"]
    given = anndata.concat(parts)
    expected = table.set_axis([str(row) for row in range(len(table))]).loc[given.obs_names]
    np.testing.assert_array_equal(given.X, expected[FEATURES])
    assert list(given.obs["Metadata_Well"]) == list(expected["position"])


def test_files_that_older_versions_wrote_are_read(tmp_path):
    with h5py.File(tmp_path / "t.h5ad", "w") as file:
        anndata.io.write_elem(file, "/", table_of(wells()))  # with a place for `raw` that holds nothing
        assert "raw" in file
    assert len(read(tmp_path / "t.h5ad")) == 68


def test_anndata_opens_our_own_files_on_disk(tmp_path):
    write_h5ad(tmp_path / "t.h5ad", table_of(wells()))
    opened = anndata.read_h5ad(tmp_path / "t.h5ad", backed="r")
    np.testing.assert_array_equal(opened[3:5].to_memory().X, wells()[FEATURES].to_numpy()[3:5])
    opened.file.close()


def test_an_anndata_file_without_numbers_is_refused(tmp_path):
    anndata.AnnData(obs=table_of(wells()).obs, var=pd.DataFrame(index=FEATURES)).write_h5ad(tmp_path / "t.h5ad")
    assert "X is empty" in refusal(tmp_path / "t.h5ad")


# no row vanishes


def test_rows_without_a_plate_are_refused_beside_others_and_read_where_none_has_one(tmp_path):
    table = wells()
    as_arrow = pa.Table.from_pandas(table.drop(columns="barcode"), preserve_index=False)
    for plates in (table["barcode"].map({"w1b": 2.0, "w2a": 3.0, "w2b": 4.0}), pd.Series(np.nan, table.index)):
        as_column = pa.array(plates, from_pandas=False)
        pq.write_table(as_arrow.append_column("barcode", as_column), tmp_path / f"{plates.nunique()}.parquet")
    assert "row 1 has no plate (14 such rows)" in refusal(tmp_path / "3.parquet")
    given = read(tmp_path / "0.parquet")
    assert set(given.obs["Metadata_Plate"]) == {""}
    assert sorted(given.X[:, 0]) == sorted(table[FEATURES[0]])


def test_wells_of_one_name_are_not_merged_where_no_plate_is_named(tmp_path):
    path = written(wells().drop(columns="barcode"), tmp_path / "t.csv")
    columns = replace(NAMED, plate=None)
    line = refusal(path, columns)
    assert "20 of 20 wells have several rows (A02 has 4)" in line
    assert "--plate" in line
    assert "--rows cells" in line
    one = wells().query("barcode == 'w1a'")
    path = written(cells_of(one).drop(columns="barcode"), tmp_path / "cells.csv")
    assert "--plate" in refusal(path, columns)
    given = profiles_of(ForeignTable(path, columns).parts(), TableConfig(rows="cells"), Recipe())
    assert given.whitened.n_obs == len(one)


@pytest.mark.parametrize("column", ["barcode", "position", "week"])
def test_a_cell_without_plate_well_or_batch_is_refused_in_every_part(tmp_path, column):
    table = wells()
    what = {"barcode": "plate", "position": "well", "week": "batch"}[column]
    table[column] = table[column].mask(table["barcode"] == "w2a")
    line = refusal(written(table, tmp_path / "t.h5ad"))
    row = int(table[column].isna().to_numpy().argmax())
    assert f"row {row + 1} has no {what} (14 such rows)" in line


def test_plates_of_one_name_in_two_batches_are_counted(tmp_path):
    table = wells().assign(barcode=lambda t: t["barcode"].str[2:])
    _, notes = parts_and_notes(written(table, tmp_path / "t.csv"))
    assert "2 of 2 plates are in several batches (the first: a in w1, w2)" in notes


def test_rows_of_a_plate_are_found_in_every_row_group(tmp_path):
    table = wells().sample(frac=1, random_state=0)
    table["barcode"] = table["barcode"].astype("category")
    table.to_parquet(tmp_path / "t.parquet", row_group_size=10)
    given = read(tmp_path / "t.parquet")
    by_well = given.obs["Metadata_Plate"] + given.obs["Metadata_Well"]
    expected = table.set_index(table["barcode"].astype(str) + table["position"]).loc[by_well]
    np.testing.assert_array_equal(given.X, expected[FEATURES])


# words that say nothing


@pytest.mark.parametrize("kind", KINDS)
def test_words_that_say_nothing_are_empty_in_every_kind_of_file(tmp_path, kind):
    table = wells()
    actin = np.flatnonzero(table["target"] == "actin")
    words = ["nan", "None", "NaN", "<NA>", "", "  ", "NA"]
    for row, word in zip(actin, words):
        table.loc[row, "target"] = word
    parts, notes = parts_and_notes(written(table, tmp_path / kind))
    held = pd.concat([part.obs["Metadata_MoA"] for part in parts])
    assert (held == "").sum() == 32 + 7  # controls say nothing either
    assert set(held) == {"", "actin", "tubulin", "dna"}
    assert "5 rows count as empty in column target" in notes
    assert '"None" (1)' in notes


@pytest.mark.parametrize("word", [None, "", " ", "nan", "None"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_treated_row_without_a_compound_is_named(tmp_path, kind, word):
    table = wells()
    table.loc[[3, 20], "drug"] = word
    assert "row 4 has no compound" in refusal(written(table, tmp_path / kind))
    assert "row 4 has no compound" in refusal(written(table, tmp_path / kind), BY_DOSE)


def test_a_control_row_may_say_no_compound(tmp_path):
    table = wells()
    table["role"] = np.where(table["drug"] == "DMSO", "control", "treated")
    table["drug"] = table["drug"].where(table["drug"] != "DMSO")
    columns = Columns(treatment="drug_dose", compound="drug", role="role", metadata=("[a-z]*",))
    assert (read(written(table, tmp_path / "t.csv"), columns).obs["Metadata_Role"] == "control").sum() == 32


@pytest.mark.parametrize("kind", ["t.parquet", "t.h5ad"])
def test_a_row_is_named_by_its_place_in_the_file(tmp_path, kind):
    table = wells()
    row = table.index[table["barcode"] == "w2a"][3]
    table.loc[row, "drug_dose"] = ""
    assert f"row {row + 1} has no treatment" in refusal(written(table, tmp_path / kind))


# names that are nearly one


@pytest.mark.parametrize("kind", KINDS)
def test_spaces_around_a_name_are_no_part_of_it(tmp_path, kind):
    table = wells()
    for column in ("drug", "drug_dose", "target", "week", "barcode", "position"):
        table.loc[table.index[::2], column] = table.loc[table.index[::2], column].map(lambda n: f" {n} ", "ignore")
    spaced, plain = (read(written(t, tmp_path / kind)) for t in (table, wells()))
    pd.testing.assert_frame_equal(spaced.obs, plain.obs)
    np.testing.assert_array_equal(spaced.X, plain.X)


@pytest.mark.parametrize("kind", KINDS)
def test_names_that_differ_by_case_only_are_reported(tmp_path, kind):
    table = wells()
    controls = table.index[table["drug"] == "DMSO"]
    last = controls[-2:]
    table.loc[last, ["drug", "drug_dose"]] = "dmso "
    table.loc[table["drug_dose"] == "dna0_1", "drug_dose"] = "DNA0_1"
    table.loc[table.index[0], "week"] = "W1"
    table.loc[table["drug"] == "tubulin1", "target"] = "Tubulin"
    parts, notes = parts_and_notes(written(table, tmp_path / kind))
    assert sum((part.obs["Metadata_Role"] == "control").sum() for part in parts) == 32
    assert 'compound names "DMSO" and "dmso" differ' in notes
    assert 'batch names "W1" and "w1" differ' in notes
    assert 'mechanism names "Tubulin" and "tubulin" differ' in notes


@pytest.mark.parametrize("control", ["dmso", "Dmso ", "drug=dmso"])
def test_a_control_is_found_in_any_capitals_as_by_a_plate_map(tmp_path, control):
    path = written(wells(), tmp_path / "t.csv")
    parts, _ = parts_and_notes(path, replace(NAMED, control=(control,)))
    for part, expected in zip(parts, parts_and_notes(path)[0], strict=True):
        assert part.obs["Metadata_Role"].tolist() == expected.obs["Metadata_Role"].tolist()


def test_mechanisms_that_are_not_known_are_empty_and_counted(tmp_path):
    table = wells().assign(target=lambda t: t["target"].replace({"actin": "unknown", "dna": "?"}))
    part, notes = parts_and_notes(written(table, tmp_path / "t.csv"))
    assert set(pd.concat([one.obs for one in part])["Metadata_MoA"]) == {"", "tubulin"}
    assert '"unknown" (12)' in notes
    assert '"?" (12)' in notes


def test_controls_of_several_doses_are_counted_in_a_table(tmp_path):
    columns = replace(NAMED, control=("DMSO", "actin0"))
    _, notes = parts_and_notes(written(wells(), tmp_path / "t.csv"), columns)
    assert "actin0" in notes
    assert "1 µM (2), 10 µM (2)" in notes


def test_an_orderly_table_has_no_notes(tmp_path):
    assert parts_and_notes(written(wells(), tmp_path / "t.csv"))[1] == ""


# rows that repeat another


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_that_is_repeated_on_another_plate_is_refused_in_every_kind_of_file(tmp_path, kind):
    table = wells()
    again = table[table["barcode"] == "w1a"].iloc[[5]].assign(barcode="w2b", position="H12")
    path = written(pd.concat([table, again], ignore_index=True), tmp_path / kind)
    assert "repeats another row in all 6 features (1 such row" in refusal(path)
    left_out = profiles_of(ForeignTable(path, NAMED).parts(), TableConfig(duplicates="left out"), UNTOUCHED).left_out
    assert len(left_out["rows that repeat another"]) == 1


def test_whole_numbers_repeat_as_others_do(tmp_path):
    table = wells()
    table[FEATURES] = (1000 * table[FEATURES]).astype(int)
    table.loc[9, FEATURES] = table.loc[8, FEATURES]
    table_of(table.astype(dict.fromkeys(FEATURES, np.int64))).write_h5ad(tmp_path / "t.h5ad")
    assert anndata.read_h5ad(tmp_path / "t.h5ad").X.dtype.kind == "i"
    assert 'row "9" repeats another row' in refusal(tmp_path / "t.h5ad")


# which columns are features


def test_the_same_columns_are_features_in_anndata_as_in_other_files(tmp_path):
    table = wells().assign(Image_Count=3.5, Metadata_Site=1.0, Cells_Odd=2.0)
    table_of(table, features=[*FEATURES, "Image_Count", "Metadata_Site", "Cells_Odd"]).write_h5ad(tmp_path / "t.h5ad")
    columns = Columns(compound="drug", plate="barcode", metadata=("Cells_Odd", "position", "drug_dose", "uM"))
    assert list(read(tmp_path / "t.h5ad", columns).var_names) == FEATURES


def test_running_numbers_and_places_of_cellprofiler_are_no_features(tmp_path):
    names = (
        "Cells_Number_Object_Number|Cells_Parent_Nuclei|Nuclei_Children_Cells_Count|Nuclei_Location_Center_X|"
        "Cells_Location_MaxIntensity_X_DAPI|Nuclei_ObjectNumber|Cells_Neighbors_FirstClosestObjectNumber_Adjacent|"
        "Nuclei_AreaShape_Center_Y|Cells_AreaShape_BoundingBoxMaximum_X|__index_level_0__"
    ).split("|")
    kept = ["Cells_AreaShape_BoundingBoxArea", "Cells_Neighbors_NumberOfNeighbors_Adjacent", "Nuclei_Texture_Center"]
    assert feature_columns([*names, *kept], Columns(), source=tmp_path) == kept
    chosen = Columns(features=("Nuclei_Location_*",))  # whoever wants them names them
    assert feature_columns(names, chosen, source=tmp_path) == ["Nuclei_Location_Center_X"]


def test_the_index_that_pandas_wrote_names_the_rows_and_is_no_feature(tmp_path):
    table = wells()
    table.set_axis([f"r{row}" for row in range(len(table))]).to_parquet(tmp_path / "t.parquet")
    given = read(tmp_path / "t.parquet")
    assert list(given.var_names) == FEATURES
    assert set(given.obs_names) == {f"r{row}" for row in range(68)}
    table.iloc[::-1].to_parquet(tmp_path / "u.parquet")
    assert list(read(tmp_path / "u.parquet").var_names) == FEATURES


@pytest.mark.parametrize("kind", ["t.csv", "t.parquet"])
def test_a_feature_with_a_name_of_metadata_is_reported(tmp_path, kind):
    table = wells().assign(Week=1.0, SITE=2.0)
    parts, notes = parts_and_notes(written(table, tmp_path / kind))
    assert "Week, SITE" in notes
    assert parts[0].n_vars == 8


@pytest.mark.parametrize("kind", ["bool", "boolean"])
def test_booleans_are_no_features_and_are_named(tmp_path, kind):
    wells().assign(edge=pd.Series([0, 1] * 34).astype(kind)).to_parquet(tmp_path / "t.parquet")
    parts, notes = parts_and_notes(tmp_path / "t.parquet")
    assert list(parts[0].var_names) == FEATURES
    assert "not read: edge" in notes


def test_a_column_that_stands_twice_is_refused(tmp_path):
    header, rows = written(wells(), tmp_path / "t.csv").read_text().split("\n", 1)
    (tmp_path / "t.csv").write_text(header.replace("Cells_Perimeter", "Cells_Area") + "\n" + rows)
    assert 'column "Cells_Area"' in refusal(tmp_path / "t.csv")


def test_a_feature_that_stands_twice_is_refused(tmp_path):
    table_of(wells()).write_h5ad(tmp_path / "t.h5ad")
    with h5py.File(tmp_path / "t.h5ad", "r+") as file:
        file["var/_index"][1] = "Cells_Area"
    assert 'feature "Cells_Area"' in refusal(tmp_path / "t.h5ad")


def test_that_all_doses_of_a_compound_are_one_treatment_is_reported(tmp_path):
    path = written(wells(), tmp_path / "t.csv")
    columns = Columns(compound="drug", metadata=("[a-z]*",))
    assert (
        "no treatment and no concentration column: all rows of a compound are one" in parts_and_notes(path, columns)[1]
    )
    assert "no treatment and no concentration" not in parts_and_notes(path, BY_DOSE)[1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_control_can_be_named_by_its_dose_in_any_format(tmp_path, kind):
    columns = Columns(compound="drug", concentration="uM", metadata=("[a-z]*",), control=("uM=0",))
    given = read(written(wells(), tmp_path / kind), columns)  # 0.0 in the file
    assert (given.obs["Metadata_Role"] == "control").sum() == 32


# numbers that cannot be


@pytest.mark.parametrize("value", [-1.0, np.inf, -np.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_a_concentration_below_0_or_without_end_is_refused(tmp_path, kind, value):
    table = wells()
    table.loc[6, "uM"] = value
    assert f'row 7: uM is "{value}", expected micromolar' in refusal(written(table, tmp_path / kind))


@pytest.mark.parametrize("scaling", ["zscore", "robust", "none"])
@pytest.mark.parametrize(("factor", "words"), [(1e-300, "too small"), (1e200, "too large")])
def test_a_feature_too_small_or_too_large_for_float64_is_named(tmp_path, scaling, factor, words):
    table = wells()
    table["Cells_Edge"] *= factor
    line = refusal(written(table, tmp_path / "t.csv"), recipe=Recipe(scaling=scaling))
    assert 'feature "Cells_Edge"' in line
    assert words in line
    cells = written(cells_of(table), tmp_path / "cells.csv") if factor > 1 else tmp_path / "t.csv"
    assert words in refusal(cells, config=TableConfig(statistics="mean+sd" if factor > 1 else "mean"))


def test_a_feature_that_scaling_makes_too_large_is_named(tmp_path):
    table = wells()
    controls = table["drug"] == "DMSO"
    table.loc[controls, "Cells_Edge"] *= 1e-140
    table.loc[~controls, "Cells_Edge"] *= 1e100
    assert "after scaling on the controls" in refusal(written(table, tmp_path / "t.csv"))


def test_decimal_numbers_are_numbers(tmp_path):
    table = wells().assign(Cells_Edge=[Decimal(row) / 4 for row in range(68)], barcode=Decimal(7))
    given = read(written(table, tmp_path / "t.parquet"))
    np.testing.assert_array_equal(given[:, "Cells_Edge"].X.ravel(), np.arange(68) / 4)
    assert given.X.dtype == np.float64
    assert set(given.obs["Metadata_Plate"]) == {"7"}


def test_text_in_several_features_is_reported_at_once(tmp_path):
    table = wells()
    table[["Cells_Area", "Cells_Texture", "Cells_Noise"]] = "round"
    line = refusal(written(table, tmp_path / "t.csv"))
    assert 'feature "Cells_Area" holds "round"' in line
    assert "(3 columns hold text or dates: Cells_Area, Cells_Texture, Cells_Noise)" in line


@pytest.mark.parametrize(("value", "words"), [(pd.NA, "is empty"), ("perhaps", 'is "perhaps"')])
def test_a_noise_flag_that_is_neither_true_nor_false_is_named(tmp_path, value, words):
    table = cells_of(wells())
    flags = pd.Series([True, False, False, False, False] * 68, dtype="boolean")
    table["Metadata_Is_Noise"] = flags
    counted = profiles_of(ForeignTable(written(table, tmp_path / "t.h5ad"), NAMED).parts(), TableConfig(), UNTOUCHED)
    assert set(counted.wells.obs["Metadata_Cell_Count"]) == {4}
    table["Metadata_Is_Noise"] = flags.where(flags.index != 7, value) if value is pd.NA else flags.astype(str)
    if value is not pd.NA:
        table.loc[7, "Metadata_Is_Noise"] = value
    line = refusal(written(table, tmp_path / "t.h5ad"))
    assert f'Metadata_Is_Noise of row "7" {words} (1 such row)' in line


# rows' own names


def test_rows_of_one_name_get_different_names(tmp_path):
    table_of(wells()).write_h5ad(tmp_path / "t.h5ad")
    with h5py.File(tmp_path / "t.h5ad", "r+") as file:
        file["obs/_index"][1] = "0"
    given = read(tmp_path / "t.h5ad")
    assert len(given) == 68
    assert given.obs_names.is_unique


@pytest.mark.parametrize("kind", ["t.parquet", "t.h5ad", "t.csv"])
def test_rows_with_a_plate_and_no_well_have_names_of_their_own(tmp_path, kind):
    columns = Columns(compound="drug", plate="barcode", concentration="uM", control=("DMSO",), metadata=("[a-z]*",))
    made = profiles_of(ForeignTable(written(wells(), tmp_path / kind), columns).parts(), TableConfig(), Recipe())
    assert made.wells.n_obs == 68
    assert made.wells.obs_names.is_unique


def test_files_that_name_their_rows_alike_make_one_table(tmp_path):
    columns = Columns(compound="drug", concentration="uM", control=("DMSO",))
    table_of(wells()).write_h5ad(tmp_path / "a.h5ad")
    table_of(wells(seed=1)).write_h5ad(tmp_path / "b.h5ad")
    made = profiles_of(ForeignTable(tmp_path, columns).parts(), TableConfig(), Recipe())
    assert made.wells.n_obs == 136
    assert made.wells.obs_names.is_unique


# comma-separated values


def test_files_of_a_folder_may_have_their_columns_in_another_order(tmp_path):
    table = wells()
    (tmp_path / "split").mkdir()
    table[table["week"] == "w1"].to_csv(tmp_path / "split" / "a.csv", index=False)
    table[table["week"] == "w2"][table.columns[::-1]].to_csv(tmp_path / "split" / "b.csv", index=False)
    split = profiles_of(ForeignTable(tmp_path / "split", NAMED).parts(), TableConfig(), Recipe())
    whole = profiles_of(ForeignTable(written(table, tmp_path / "t.csv"), NAMED).parts(), TableConfig(), Recipe())
    np.testing.assert_allclose(split.treatments.X, whole.treatments.X, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "separator", "decimal", "encoding"),
    [
        ("t.csv", ";", ".", "utf-8"),
        ("t.csv", ";", ",", "utf-8-sig"),
        ("t.csv", "\t", ".", "utf-16"),
        ("t.txt", "\t", ",", "utf-16-le"),
        ("t.tsv", ",", ".", "utf-8"),
        ("t.txt", "|", ".", "utf-16-be"),
    ],
)
def test_separators_decimal_commas_and_encodings_make_no_difference(tmp_path, name, separator, decimal, encoding):
    text = io.StringIO()
    wells().to_csv(text, index=False, sep=separator, decimal=decimal)
    (tmp_path / name).write_bytes(text.getvalue().encode(encoding))
    assert_same(read(tmp_path / name, NAMED), read(written(wells(), tmp_path / "plain.csv"), NAMED))


def test_a_workbook_and_its_table_are_the_same(tmp_path):
    wells().to_excel(tmp_path / "t.xlsx", index=False)
    assert_same(read(tmp_path / "t.xlsx", NAMED), read(written(wells(), tmp_path / "plain.csv"), NAMED))
    (tmp_path / "named.csv").write_bytes((tmp_path / "t.xlsx").read_bytes())
    assert "Excel workbook" in refusal(tmp_path / "named.csv")


def assert_same(one, other):
    np.testing.assert_allclose(one.X, other.X)
    pd.testing.assert_frame_equal(one.obs, other.obs)


def test_another_encoding_is_reported(tmp_path):
    text = io.StringIO()
    wells().rename(columns={"uM": "µM"}).to_csv(text, index=False)
    (tmp_path / "t.csv").write_bytes(text.getvalue().encode("latin-1"))
    assert "save it as UTF-8" in refusal(tmp_path / "t.csv")


def test_a_row_with_too_many_cells_is_reported_in_one_line(tmp_path):
    path = written(wells(), tmp_path / "t.csv")
    path.write_text(path.read_text() + "1," * 40 + "\n")
    assert "line 70 has 41 cells, more than the 13 column names in line 1" in refusal(path)


DAYS = pd.Timestamp("2024-03-01") + pd.to_timedelta(np.arange(len(wells())), unit="D")
NO_NUMBERS = {
    "date": DAYS,
    "date with a zone": DAYS.tz_localize("Europe/Berlin"),
    "day": DAYS.date,
    "time": (DAYS + pd.to_timedelta(np.arange(len(DAYS)), unit="s")).time,
    "duration": DAYS - DAYS[0],
    "bytes": [b"7"] * len(DAYS),
    "list": [[1.0, 2.0]] * len(DAYS),
}


@pytest.mark.parametrize("kind", NO_NUMBERS)
def test_dates_durations_and_other_non_numbers_of_parquet_are_refused_by_their_column(tmp_path, kind):
    wells().assign(Acquired=NO_NUMBERS[kind]).to_parquet(tmp_path / "t.parquet")
    line = refusal(tmp_path / "t.parquet", replace(NAMED, features=()))
    assert '"Acquired"' in line
    assert "--metadata" in line
    given = read(tmp_path / "t.parquet", replace(NAMED, features=(), metadata=(*NAMED.metadata, "Acquired")))
    assert "Acquired" not in given.var_names
