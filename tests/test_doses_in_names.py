"""Doses inside the names of compounds: refused where they are certain, reported where they may be, never split."""

import re

import pandas as pd
import pytest

from bbbc021_source import edit_csv
from layout_sources import read_screen, write_images, write_plate_map
from phenolens.core.errors import InputError
from phenolens.profiles.columns import Columns
from phenolens.profiles.read_table import ForeignTable
from phenolens.screens.config import LayoutConfig
from phenolens.screens.doses_in_names import doses_in_names
from table_source import wells

PATTERN = LayoutConfig(pattern="{plate}/{well}_s{site}_w{channel}.tif")
CERTAIN = [
    ("taxol_0.3uM", "taxol_3uM"),
    ("taxol 1 µM", "taxol (10 nM)"),
    ("0.3 uM taxol", "3 uM taxol"),
    ("taxol10uM", "Taxol 100 µM"),
    ("taxol_1e-6M", "taxol_1e-7M"),
    ("TNF 10 ng/ml", "TNF 1 ng/mL"),
    ("taxol 0,3 umol/L", "taxol 3 umol/L"),
    ("serum 5%", "serum 10%"),
    ("a 1uM + b 2uM", "a 1uM + b 4uM"),
]
PERHAPS = [
    ("taxol_0.3", "taxol_3"),
    ("taxol@0.3", "taxol@1"),
    ("taxol_10um", "taxol_1um"),
    ("beads 100nm", "beads 200nm"),
    ("taxol_24h", "taxol_48h"),
    ("taxol_rep1", "taxol_rep2"),
]
NEITHER = [
    ("SB-431542", "SB-203580"),
    ("ICI-182,780", "ICI-118,551"),
    ("CMPD_0001", "CMPD_0002"),
    ("BAY 11-7082", "BAY 11-7085"),
    ("actin0", "actin1"),
    ("IL-1", "IL-2"),
    ("taxol 1.0 uM", "taxol-1µM"),  # one dose in two ways of writing
]


@pytest.mark.parametrize("names", CERTAIN)
def test_a_dose_with_a_unit_in_names_of_one_compound_is_certain(names):
    found = doses_in_names([*names, "taxane"])
    with pytest.raises(InputError) as refused:
        found.refuse("map.csv", remedy="split it")
    assert str(refused.value).startswith("map.csv: compounds ")
    assert set(re.findall('"(.*?)"', str(refused.value))) == {name.replace("µ", "μ") for name in names}
    assert str(refused.value).endswith("split it")


@pytest.mark.parametrize("names", PERHAPS)
def test_another_number_in_names_of_one_compound_is_reported(names):
    found = doses_in_names(names)
    found.refuse("map.csv", remedy="")
    (note,) = found.notes(remedy="split it")
    assert all(f'"{name}"' in note for name in names)
    assert "split it" in note


@pytest.mark.parametrize("names", NEITHER)
def test_other_names_are_left_alone(names):
    found = doses_in_names(names)
    found.refuse("map.csv", remedy="")
    assert not any("differ by a number" in note for note in found.notes(remedy=""))


def test_numbers_that_several_names_share_are_reported():
    assert doses_in_names(["PLK1_1", "PLK1_2", "KIF11_1", "KIF11_2"]).notes(remedy="") != set()
    assert doses_in_names(["PLK1_1", "PLK1_2", "KIF11_7"]).notes(remedy="") == set()


def test_a_plate_map_with_doses_in_names_is_refused_before_any_work(tmp_path):
    path = write_plate_map(write_images(tmp_path)) / "plate_map.csv"

    def opened(*compounds):
        edit_csv(path, lambda t: t.assign(Compound=["DMSO", *compounds], concentration=[None, 1, 1], MoA=None))
        return read_screen(tmp_path, layout="pattern", config=PATTERN, treatments="all")

    with pytest.raises(InputError, match=r"plate_map.csv.*taxol_0.3uM.*taxol_3uM.*concentration_um"):
        opened("taxol_0.3uM", "taxol_3uM")
    (note,) = [note for note in opened("taxol_0.3uM", "nocodazole_3uM").notes if "a dose in the names" in note]
    assert '"nocodazole_3uM" and "taxol_0.3uM" (2 compounds)' in note
    edit_csv(path, lambda t: t.assign(Compound=["DMSO 0.1%", "DMSO 1%", "taxol"]))
    config = LayoutConfig(pattern=PATTERN.pattern, control=("DMSO 0.1%", "DMSO 1%"))
    screen = read_screen(tmp_path, layout="pattern", config=config, treatments="all")  # of controls it does no harm
    assert not any("a dose in the names" in note for note in screen.notes)


@pytest.mark.parametrize("kind", ["t.csv", "t.parquet"])
def test_a_table_with_doses_in_names_is_refused_or_takes_them_as_treatments(tmp_path, kind):
    table = wells()
    with_dose = table["drug"] + "_" + table["uM"].map("{:g}uM".format)
    table["drug"] = table["drug"].where(table["drug"] == "DMSO", with_dose)

    def notes(table: pd.DataFrame, **named) -> str:
        path = tmp_path / kind
        table.to_parquet(path) if path.suffix == ".parquet" else table.to_csv(path, index=False)
        columns = Columns(plate="barcode", well="position", metadata=("[a-z]*",), control=("DMSO",), **named)
        foreign = ForeignTable(path, columns)
        list(foreign.parts())
        return "\n".join(foreign.notes)

    with pytest.raises(InputError, match=r'"actin0_10uM" and "actin0_1uM".*\(9 compounds.*--concentration'):
        notes(table, compound="drug")
    assert "each treatment counts as a compound of its own" in notes(table, treatment="drug")
    assert '"actin0_1uM" and "actin1_1uM" (9 compounds)' in notes(table[table["uM"] < 10], compound="drug")


@pytest.mark.parametrize("name", ["{drug}_{plate}", "{plate}-{drug}", "{drug}@{plate}"])
def test_compounds_with_the_name_of_their_own_plate_are_refused(tmp_path, name):
    table = wells()
    with_plate = [name.format(drug=drug, plate=plate) for drug, plate in zip(table["drug"], table["barcode"])]
    with pytest.raises(
        InputError, match=r"actin0.* differ by the name of their own plate .*write the compound without"
    ):
        read_table(tmp_path, table.assign(drug=table["drug"].where(table["drug"] == "DMSO", with_plate)))
    read_table(tmp_path, table.assign(drug=table["drug"].where(table["drug"] != "actin0", with_plate)))  # one alone
    read_table(tmp_path, table.assign(drug=with_plate, barcode="P1"))  # of other plates


def read_table(folder, table: pd.DataFrame) -> None:
    table.to_csv(folder / "t.csv", index=False)
    columns = Columns(compound="drug", concentration="uM", plate="barcode", well="position", metadata=("[a-z]*",))
    list(ForeignTable(folder / "t.csv", columns).parts())


def test_a_plate_map_whose_compounds_have_the_name_of_their_plate_is_refused(tmp_path):
    path = write_plate_map(write_images(tmp_path)) / "plate_map.csv"
    plates = ["007", "p-2"]
    edit_csv(path, lambda t: pd.concat([t.assign(plate=plate) for plate in plates], ignore_index=True))
    edit_csv(
        path, lambda t: t.assign(Compound=[c if c == "DMSO" else f"{c}_{p}" for c, p in zip(t["Compound"], t["plate"])])
    )
    with pytest.raises(InputError, match=r"plate_map.csv: compounds .* differ by the name of their own plate"):
        read_screen(tmp_path, layout="pattern", config=PATTERN, treatments="all")
