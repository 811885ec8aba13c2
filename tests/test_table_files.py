"""One reader for tables: separators, decimal signs, encodings, workbooks and Parquet give the same table."""

import gzip
import io
import sys

import pandas as pd
import pytest

from phenolens.core.errors import InputError
from phenolens.screens.config import LayoutConfig
from phenolens.screens.csv_table import column_names, numbers, read_csv
from phenolens.screens.plate_map import read_as_text, read_plate_map

ROWS = pd.DataFrame(
    {
        "plate": ["007", "007", "A8"],
        "well": ["B02", "B3", "AF48"],
        "compound": ["DMSO", "1,10-phenanthroline", 'a "b"; c|d'],
        "concentration": [0.0, 0.3, 1.5],
    }
)


def plate_map(path) -> pd.DataFrame:
    return read_plate_map(path)


def written(path, *, sep=",", decimal=".", encoding="utf-8", end="\n"):
    text = io.StringIO()
    ROWS.to_csv(text, index=False, sep=sep, decimal=decimal)
    content = text.getvalue().replace("\r\n", "\n").replace("\n", end).encode(encoding)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    ("name", "sep", "decimal"),
    [
        ("m.csv", ",", "."),
        ("m.csv", ";", ","),
        ("m.csv", ";", "."),
        ("m.txt", "\t", ","),
        ("m.tsv", "\t", "."),
        ("m.txt", "|", "."),
    ],
)
def test_a_plate_map_is_the_same_however_it_is_written(tmp_path, name, sep, decimal, encoding):
    path = written(tmp_path / name, sep=sep, decimal=decimal, encoding=encoding)
    expected = ROWS.assign(well=["B02", "B03", "AF48"]).rename(columns={"concentration": "concentration_um"})
    pd.testing.assert_frame_equal(plate_map(path), expected)


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_lines_may_end_in_any_way_and_be_compressed(tmp_path, end):
    assert plate_map(written(tmp_path / "m.csv.gz", end=end))["well"].tolist() == ["B02", "B03", "AF48"]


def test_workbooks_and_parquet_are_read(tmp_path):
    expected = plate_map(written(tmp_path / "m.csv"))
    ROWS.to_excel(tmp_path / "m.xlsx", index=False)
    ROWS.to_parquet(tmp_path / "m.parquet")
    ROWS.set_index("well").to_parquet(tmp_path / "indexed.parquet")
    for name in ("m.xlsx", "m.parquet", "indexed.parquet"):
        pd.testing.assert_frame_equal(plate_map(tmp_path / name)[expected.columns], expected)


@pytest.mark.parametrize("text", [None, (), ("well", "compound")])
def test_rows_of_separators_below_a_table_are_none(tmp_path, text):
    path = written(tmp_path / "m.csv")
    rows = len(read_csv(path, text=text, as_written=True))
    path.write_text(path.read_text() + 3 * (",".join([""] * len(ROWS.columns)) + "\n"))
    assert len(read_csv(path, text=text, as_written=True)) == rows
    path.write_text(path.read_text() + "," * (len(ROWS.columns) - 1) + "1\n")
    assert len(read_csv(path, text=text, as_written=True)) == rows + 4


def test_a_first_line_that_says_the_separator_is_none_of_the_table(tmp_path):
    path = written(tmp_path / "m.csv", sep=";", decimal=",")
    path.write_text(f"sep=;\n{path.read_text()}")
    assert column_names(path) == list(ROWS)
    assert len(plate_map(path)) == 3


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("dose;x\n1.000;a\n10.000;b\n", "1.000"),  # beside semicolons
        ("dose;x\n1.000;0,5\n500;1,5\n", "1.000"),
        ("dose\tx\n1.000\t0,5\n-500\t1,5\n", "1.000"),
        ("dose;x\n1,000;0.5\n10,000;1.5\n", "1,000"),
        ("dose|x\n1,000,000|0.5\n10|\n", "1,000,000"),
    ],
)
@pytest.mark.parametrize("read", [read_csv, read_as_text])
def test_thousands_are_refused_where_the_decimal_sign_is_the_other(tmp_path, text, number, read):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(InputError, match=f'dose has "{number}", which may mean thousands'):
        read(tmp_path / "m.csv")


@pytest.mark.parametrize(
    ("text", "doses"),
    [
        ("dose;x\n1.000;a\n0.100;b\n", [1.0, 0.1]),
        ("dose;x\n1.234;0.5\n2.345;1.5\n", [1.234, 2.345]),
        ("dose;x\n1,234;0,5\n2,345;1,5\n", [1.234, 2.345]),
        ("dose\tx\n1.234\t1\n2.345\t2\n", [1.234, 2.345]),
        ("dose;day\n1,5;12.02.2023\n2,5;13.02.2023\n", [1.5, 2.5]),
    ],
)
def test_decimals_of_three_places_are_read_where_nothing_contradicts(tmp_path, text, doses):
    (tmp_path / "m.csv").write_text(text)
    assert read_csv(tmp_path / "m.csv")["dose"].tolist() == doses


def test_thousands_and_decimals_are_not_mistaken(tmp_path):
    (tmp_path / "m.csv").write_text("a;b\n1,500;x\n3,000;y\n")
    assert numbers(read_as_text(tmp_path / "m.csv"), "a", source="m.csv").tolist() == [1.5, 3]
    (tmp_path / "m.txt").write_text("a\tb\n1,500\tx\n3,000\ty\n")
    with pytest.raises(InputError, match="1,500"):
        numbers(read_as_text(tmp_path / "m.txt"), "a", source="m.txt")


@pytest.mark.parametrize(
    ("name", "content", "names"),
    [
        ("m.csv", "well,compound,compound\nB02,a,b\n", ("compound",)),
        ("m.csv", "well,compound\nB02,a,b\nB03,c,d\n", ("m.csv",)),
        ("m.csv", ",2,3\nA,,\nB,DMSO,taxol\n", ("m.csv", "grid", "well", "compound")),
        ("m.csv", ";1;2\nA;x;\nAB;DMSO;taxol\n", ("m.csv", "grid")),
        ("m.csv", "", ("m.csv",)),
        ("m.csv", ",,\n,,\n", ("m.csv",)),
        ("m.csv", "well,compound\nB02,2-Sep\n", ("m.csv", "row 2", "compound", "2-Sep")),
        ("m.csv", "well,compound,moa\nB02,a,#REF!\n", ("m.csv", "row 2", "moa", "#REF!")),
        ("m.csv", "well,compound\n", ("m.csv", "no rows")),
        ("m.csv", b"PK\x03\x04 and so on", ("Excel",)),
        ("m.xlsx", "no workbook", ("m.xlsx", "Excel", "CSV")),
        ("m.xls", b"\xd0\xcf\x11\xe0 and so on", ("m.xls", "Excel", ".xlsx")),
        ("m.parquet", "no parquet", ("m.parquet", "Parquet")),
        ("m.csv", "well,compound\nB02,caf\xe9\n".encode("latin-1"), ("m.csv", "UTF-8")),
    ],
)
def test_what_is_no_table_of_wells_is_refused_by_name(tmp_path, name, content, names):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as error:
        plate_map(path)
    assert [part for part in names if part not in str(error.value)] == []
    assert "\n" not in str(error.value)


HARMONY = "Database Name\tx\nEvaluation Signature\t12\nPlate Name\tP1\n\n[Data]\n"


@pytest.mark.parametrize(
    ("above", "sep", "names"),
    [
        (HARMONY, "\t", "line 6 has 4 cells, more than the 2 column names in line 1"),
        (8 * HARMONY, "\t", "line 41 has 4 cells"),
        ("My plate\n", ",", "the first line has 1 of 4 column names"),
        ("My plate,,,\nby me,,,\n", ",", "the first line has 1 of 4 column names"),
    ],
)
def test_lines_above_the_column_names_are_to_be_removed(tmp_path, above, sep, names):
    path = written(tmp_path / "m.txt", sep=sep)
    path.write_text(above + path.read_text())
    with pytest.raises(InputError) as refused:
        plate_map(path)
    assert f"{path}: {names}" in str(refused.value)
    assert "remove the lines above the column names" in str(refused.value)


def test_a_title_above_the_column_names_of_a_workbook_is_to_be_removed(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    ROWS.to_excel(tmp_path / "m.xlsx", index=False, startrow=2)
    book = openpyxl.load_workbook(tmp_path / "m.xlsx")
    book.active["A1"] = "My plate"
    book.save(tmp_path / "m.xlsx")
    with pytest.raises(InputError, match="the first line has 1 of 4 column names; remove the lines above"):
        plate_map(tmp_path / "m.xlsx")


def test_a_workbook_of_several_sheets_is_refused_by_their_names(tmp_path):
    with pd.ExcelWriter(tmp_path / "m.xlsx") as book:
        ROWS.to_excel(book, sheet_name="plate 1", index=False)
        ROWS.to_excel(book, sheet_name="plate 2", index=False)
        pd.DataFrame().to_excel(book, sheet_name="empty", index=False)
    with pytest.raises(InputError, match="plate 1, plate 2"):
        plate_map(tmp_path / "m.xlsx")


def test_without_openpyxl_the_line_to_install_it_is_said(tmp_path, monkeypatch):
    ROWS.to_excel(tmp_path / "m.xlsx", index=False)
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(InputError, match=r"pip install 'phenolens\[excel\]'"):
        plate_map(tmp_path / "m.xlsx")


def test_text_stays_as_written_and_other_columns_are_numbers(tmp_path):
    (tmp_path / "t.tsv").write_text("plate\tname\tx\n007\tNone\t1,5\n8\t\t2,25\n")
    table = read_csv(tmp_path / "t.tsv", text={"plate", "name"}, as_written=True)
    assert table.to_numpy().tolist() == [["007", "None", 1.5], ["8", "", 2.25]]


def test_the_plate_map_of_a_source_may_be_of_any_kind(tmp_path):
    assert LayoutConfig().plate_map_path(tmp_path) is None
    written(tmp_path / "plate_map.txt", sep="\t")
    assert LayoutConfig().plate_map_path(tmp_path) == tmp_path / "plate_map.txt"
    written(tmp_path / "plate_map.csv")
    with pytest.raises(InputError, match=r"plate_map\.csv and plate_map\.txt"):
        LayoutConfig().plate_map_path(tmp_path)


def test_a_name_that_excel_made_a_date_is_refused(tmp_path):
    ROWS.assign(compound=["DMSO", "a", pd.Timestamp("2026-09-02")]).to_excel(tmp_path / "m.xlsx", index=False)
    with pytest.raises(InputError, match="row 4: compound"):
        plate_map(tmp_path / "m.xlsx")


def test_spaces_around_cells_and_empty_rows_below_are_none_of_the_table(tmp_path):
    (tmp_path / "m.csv").write_text('well, compound, concentration\nB02, "a, b", 1\nB03, DMSO, 0\n,,\n,,\n')
    assert plate_map(tmp_path / "m.csv").to_numpy().tolist() == [["B02", "a, b", 1.0], ["B03", "DMSO", 0.0]]
