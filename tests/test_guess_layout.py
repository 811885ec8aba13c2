"""The layout and the pattern of names are guessed and said; `check` works without a plate map and writes a template."""

import gzip
import re
import shlex

import pandas as pd
import pytest

from bbbc021_source import write_source
from cropset_source import write_cropset
from layout_sources import (
    CHANNELS,
    WELLS,
    write_deepprofiler,
    write_images,
    write_loaddata,
    write_plate_map,
    write_plates,
    write_table,
)
from phenolens.cli import main
from phenolens.core import progress
from phenolens.core.errors import InputError
from phenolens.screens import guess_layout as guess_module
from phenolens.screens import proposed_pattern as proposed_pattern_module
from phenolens.screens.config import LayoutConfig
from phenolens.screens.filename_pattern import matching
from phenolens.screens.guess_layout import guess_layout
from phenolens.screens.instruments import INSTRUMENTS
from phenolens.screens.proposed_pattern import proposed_pattern
from test_filename_patterns import NAMES as INSTRUMENT_NAMES
from test_instrument_index import WRITERS


def touched(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def of_wells(names):
    """Names with four wells (w; row r and column k) and two channels (c, d)."""
    each = [(r, k, c) for r in (2, 3) for k in (2, 3) for c in (1, 2)]
    return sorted(
        {name.format(w=f"{chr(64 + r)}{k:02d}", r=r, k=k, c=c, d=" DG"[c]) for name in names for r, k, c in each}
    )


LAYOUTS = {
    "table": lambda folder: write_table(write_images(folder)),
    "loaddata": lambda folder: write_loaddata(write_plate_map(write_images(folder))),
    "ome-zarr": lambda folder: write_plates(write_plate_map(folder)),
    "deepprofiler": write_deepprofiler,
    "bbbc021": write_source,
    "cropset": write_cropset,
    "pattern": lambda folder: write_plate_map(write_images(folder)),
    "h5sc": lambda folder: touched(folder, ["cells.h5sc"]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_of_a_source_is_guessed(tmp_path, layout):
    source = LAYOUTS[layout](tmp_path) or tmp_path
    guess = guess_layout(source, LayoutConfig())
    assert guess.layout == layout
    assert f"--layout {layout}" in str(guess)


def test_a_folder_is_walked_once(tmp_path, monkeypatch):
    walk, walked = guess_module.files_under, []
    monkeypatch.setattr(guess_module, "files_under", lambda folder: walked.append(folder) or walk(folder))
    guess_layout(write_images(tmp_path), LayoutConfig())
    assert walked == [tmp_path]


@pytest.mark.parametrize(("names", "layout"), [
    (("Batch1/P1/load_data.csv", "Batch1/P1/load_data_with_illum.csv.gz"), "jump"),
    (("load_data_with_illum.parquet",), "jump"),
    (("load_data.csv", "metadata/well.csv.gz"), "jump"),
    (("load_data.csv", "plate_map.csv"), "loaddata"),
    (("P1/load_data.csv", "P1/B02_s1_w1.tif", "P1/B03_s1_w2.tif"), "pattern"),
])  # fmt: skip
def test_tables_of_plates_as_jump_publishes_them_are_recognised(tmp_path, names, layout):
    touched(tmp_path, names)
    for path in tmp_path.rglob("load_data*.csv"):
        path.write_text("Metadata_Plate,FileName_OrigDNA\nP1,a.tiff\n")
    assert guess_layout(tmp_path, LayoutConfig()).layout == layout


@pytest.mark.parametrize("kind", WRITERS)
def test_the_index_of_an_instrument_is_found(tmp_path, kind):
    WRITERS[kind](tmp_path)
    assert guess_layout(tmp_path, LayoutConfig()).layout == "index"


def test_a_table_of_another_name_is_found(tmp_path):
    source = write_loaddata(write_plate_map(write_images(tmp_path)))
    (source / "load_data.csv").rename(source / "MyExpt_Image.csv")
    guess = guess_layout(source, LayoutConfig())
    assert (guess.layout, guess.config.table) == ("loaddata", source / "MyExpt_Image.csv")
    (source / "MyExpt_Image.csv.gz").write_bytes(gzip.compress((source / "MyExpt_Image.csv").read_bytes()))
    (source / "MyExpt_Image.csv").unlink()
    assert guess_layout(source, LayoutConfig()).config.table == source / "MyExpt_Image.csv.gz"


def test_several_tables_of_images_are_refused_or_named(tmp_path):
    source = write_loaddata(write_plate_map(write_images(tmp_path)))
    table = (source / "load_data.csv").read_text()
    (source / "P1_Image.csv").write_text(table)
    (source / "Cells.csv").write_text("ImageNumber,ObjectNumber,FileName_DNA\n1,1,a.tif\n")
    assert "; not read: P1_Image.csv" in guess_layout(source, LayoutConfig()).why
    (source / "load_data.csv").rename(source / "P2_Image.csv")
    with pytest.raises(InputError, match=r"P1_Image.csv, P2_Image.csv all name files of images; name one with --table"):
        guess_layout(source, LayoutConfig())
    assert guess_layout(source, LayoutConfig(table=source / "P2_Image.csv")).why == "P2_Image.csv names files of images"


@pytest.mark.parametrize("instrument", INSTRUMENT_NAMES)
def test_instruments_are_known_by_the_names_of_their_files(tmp_path, instrument):
    names = [INSTRUMENT_NAMES[instrument](2, column, k) for column in (2, 3, 4) for k in (0, 1)]
    assert guess_layout(touched(tmp_path, names), LayoutConfig()).config.pattern == instrument


def test_two_plates_in_one_folder_are_told_by_their_names(tmp_path):
    """As names of ImageXpress, both would be the plate of the folder."""
    touched(
        tmp_path, [f"{plate}_{well}_s1_w{c}.tif" for plate in ("PlA", "PlB") for well in ("A01", "B01") for c in "12"]
    )
    assert guess_layout(tmp_path, LayoutConfig()).config.pattern == "{plate}_{well}_s{site}_w{channel}.tif"


def test_names_with_running_numbers_of_wells_ask_for_the_plate(tmp_path):
    touched(tmp_path, [f"W{index:04d}F0001T0001Z001C1.tif" for index in (14, 15)])
    with pytest.raises(InputError, match="--plate-wells"):
        guess_layout(tmp_path, LayoutConfig())
    assert guess_layout(tmp_path, LayoutConfig(plate_wells=384)).config.pattern == "cq1"


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("{p}/{w}_s{s}_w{c}.tif", "{plate}/{well}_s{site}_w{channel}.tif"),
        ("{p}/{w}_{s}_{d}.tif", "{plate}/{well}_{site}_{channel}.tif"),
        ("{p}/{w}_XY0{s}_CH{c}.tif", "{plate}/{well}_XY{site}_CH{channel}.tif"),
        ("{p}/{w}_{d}_tile{s}.tif", "{plate}/{well}_{channel}_tile{site}.tif"),
        ("{w}-{d}.png", "{well}-{channel}.png"),
        ("{w}.tif", "{well}.tif"),
        ("screen/{p}/{w}/{s}/{d}.tiff", "{plate}/{well}/{site}/{channel}.tiff"),
        ("screen/{p}/{w}/Site_{s}/{d}.tiff", "{plate}/{well}/Site_{site}/{channel}.tiff"),
        ("{p}_{w}_T0001F00{s}Z01_{d}.tif", "{plate}_{well}_T{t}F{site}Z{z}_{channel}.tif"),
        ("Well{w}_Point_{s}_ChannelDAPI,GFP_Seq{n}.tif", "Well{well}_Point_{site}_ChannelDAPI,GFP_Seq*.tif"),
        ("r{r}c{k}-f{s}-ch{c}.tif", "r{row}c{column}-f{site}-ch{channel}.tif"),
    ],
)
def test_a_pattern_is_proposed_from_the_names(tmp_path, name, pattern):
    every = [(p, w, s, c) for p in ("P1", "P2") for w in ("B02", "B03", "C11") for s in (1, 2) for c in (1, 2)]
    names = {
        name.format(p=p, w=w, s=s, c=c, d=("DNA", "Actin")[c - 1], r=ord(w[0]) - 64, k=int(w[1:]), n=f"{k:04d}")
        for k, (p, w, s, c) in enumerate(every)
    }
    assert proposed_pattern(sorted(names)) == pattern
    found, others = matching(tmp_path, sorted(names), pattern=pattern)
    assert len(found) == len(names)
    assert not others


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("{w}_{n}.tif", ('"{well}_{site}.tif"', '"{well}_{channel}.tif"')),
        ("{w}_{n}_{m}.tif", ('"{well}_{site}_{channel}.tif"', '"{well}_{channel}_{site}.tif"')),
        ("{w}/1_{n}.tif", ('"{well}/1_{site}.tif"', '"{well}/1_{channel}.tif"')),
    ],
)
def test_a_number_that_may_be_the_channel_or_the_site_makes_the_names_ambiguous(tmp_path, name, others):
    names = {name.format(w=w, n=n, m=m) for w in ("B02", "C03") for n in (1, 2) for m in (1, 2, 3)}
    with pytest.raises(InputError) as error:
        guess_layout(touched(tmp_path, names), LayoutConfig())
    assert [pattern for pattern in others if pattern not in str(error.value)] == []


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("{w}_{n}_{c}.tif", "{well}_{site}_{channel}.tif"),
        ("{w}_{n}_w{m}.tif", "{well}_{site}_w{channel}.tif"),
        ("{w}_s{n}_{m}.tif", "{well}_s{site}_{channel}.tif"),
    ],
)
def test_a_number_beside_a_channel_or_a_site_with_a_label_is_clear(tmp_path, name, pattern):
    names = {name.format(w=w, n=n, m=m, c="DA"[m]) for w in ("B02", "C03") for n in (1, 2) for m in (0, 1)}
    assert guess_layout(touched(tmp_path, names), LayoutConfig()).config.pattern == pattern


@pytest.mark.parametrize(
    ("texts", "place"),
    [
        (("00d00h00m", "00d04h00m"), "00d{t}h00m"),
        (("24h", "48h"), "{t}h"),
        (("D1", "D3"), "D{t}"),
        (("slice1", "slice2"), "slice{z}"),
        (("MIP", "slice"), "MIP"),
        (("20240101", "20240102"), "{plate}"),
        (("24", "48", "72"), "{t}"),
        (("donor1", "donor2"), "{plate}"),
        (("10x", "20x"), "{plate}"),
        (("Seq0000", "Seq0001"), "Seq{site}"),
    ],
)
def test_a_text_that_is_hardly_a_channel_makes_the_names_ambiguous(tmp_path, texts, place):
    names = {f"{well}_{text}.tif" for well in ("B02", "C03") for text in texts}
    with pytest.raises(InputError) as error:
        guess_layout(touched(tmp_path, names), LayoutConfig())
    readings = (f'"{{well}}_{place}.tif"', '"{well}_{channel}.tif"', f'"{texts[0]}"')
    assert [key for key in readings if key not in str(error.value)] == []


def test_wells_of_row_c_are_offered_beside_channels_and_fields(tmp_path):
    """As wells, F01 and F02 would have the plates C01 and C02, and alone were offered."""
    names = [f"{well}_F0{f}_C0{c}.tif" for well in ("C02", "C03", "C04") for f in (1, 2) for c in (1, 2)]
    with pytest.raises(InputError, match="more than one part of the name may be the well") as error:
        guess_layout(touched(tmp_path, names), LayoutConfig())
    assert '"{well}_F{site}_C{channel}.tif" (well C02)' in str(error.value)


@pytest.mark.parametrize("well", ["A01", "C02"])
def test_a_channel_that_may_be_the_well_makes_the_names_ambiguous(tmp_path, well):
    """Only wells of one row: A01 and C1 may both be the well."""
    names = [
        f"P{p}/img_{w}_f{f}_C{c}.tif" for p in (1, 2) for w in (well, f"{well[0]}07") for f in (1, 2) for c in "12"
    ]
    with pytest.raises(InputError) as error:
        guess_layout(touched(tmp_path, names), LayoutConfig())
    readings = (
        "--pattern",
        '"{plate}/img_{well}_f{site}_C{channel}.tif"',
        '_f{site}_{well}.tif"',
        f"well {well}",
        "C1",
    )
    assert [key for key in readings if key not in str(error.value)] == []


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("P1/img_{well}_f1_C{n}.tif", "img_{well}_f{site}_C{channel}.tif"),
        ("P1_{well}_F0{n}.tif", "P1_{well}_F{site}.tif"),
    ],
)
def test_wells_of_several_rows_tell_the_well_from_a_channel_or_field(name, pattern):
    assert proposed_pattern([name.format(well=well, n=n) for well in ("A01", "B01") for n in (1, 2, 3)]) == pattern


@pytest.mark.parametrize(
    ("folders", "place"),
    [
        (("DAPI", "GFP"), "{channel}"),
        (("field1", "field2"), "field{site}"),
        (("T00", "t24"), "*{t}"),
        (("24h", "48h"), "{t}h"),
        (("MIP", "raw"), "MIP"),
    ],
)
def test_folders_of_channels_fields_or_times_are_not_taken_as_plates(folders, place):
    with pytest.raises(InputError) as error:
        proposed_pattern([f"{folder}/{well}.tif" for folder in folders for well in ("A01", "B01")])
    keys = ("--pattern", folders[0], f'"{place}/{{well}}.tif"', '"{plate}/{well}.tif"')
    assert [key for key in keys if key not in str(error.value)] == []


@pytest.mark.parametrize(("texts", "place"), [(("DAPI", "GFP"), "{channel}"), (("24h", "48h"), "{t}h")])
def test_names_that_begin_with_channels_or_times_are_not_taken_as_plates(texts, place):
    with pytest.raises(InputError) as error:
        proposed_pattern([f"{text}_{well}.tif" for text in texts for well in ("A01", "B01")])
    keys = ("--pattern", texts[0], f'"{place}_{{well}}.tif"', '"{plate}_{well}.tif"')
    assert [key for key in keys if key not in str(error.value)] == []


PHENIX = "r{r:02d}c{k:02d}f01p01-ch{c}sk1fk1fl1.tiff"
OF_PHENIX = "r{row}c{column}f{site}p01-ch{channel}sk1fk1fl1.tiff"


@pytest.mark.parametrize(
    ("folders", "name", "advised"),
    [
        (("DAPI", "GFP"), "P1_{w}_s{c}.tif", "{channel}/P1_{well}_s{site}.tif"),
        (("DAPI", "GFP"), "AP_{w}_T0001F001L01A01Z01C01.tif", "{channel}/AP_{well}_T{t}F{site}L01A01Z{z}C*.tif"),
        (("P1/24h", "P1/48h"), "scr_{w}_s1_w{c}.tif", "{t}h/scr_{well}_s{site}_w{channel}.tif"),
        (("P1/24h",), "scr_{w}_s1_w{c}.tif", "{plate}/24h/scr_{well}_s{site}_w{channel}.tif"),
        (("T24/Images", "T48/Images"), PHENIX, f"T{{t}}/Images/{OF_PHENIX}"),
        (("field1", "field2"), "scr_{w}_w{c}.tif", "field{site}/scr_{well}_w{channel}.tif"),
        (("MIP", "raw"), "scr_{w}_s1_w{c}.tif", "raw/scr_{well}_s{site}_w{channel}.tif"),
        (("Maximum Projection", "Best Focus"), "scr_{w}_s1_w{c}.tif", "Best Focus/scr_{well}_s{site}_w{channel}.tif"),
        (("P1/raw",), "scr_{w}_s1_w{c}.tif", "{plate}/raw/scr_{well}_s{site}_w{channel}.tif"),
        (("P1/Images",), "scr_{w}_s1_w{c}.tif", "{plate}/Images/scr_{well}_s{site}_w{channel}.tif"),
    ],
)
def test_names_of_instruments_in_folders_that_are_hardly_plates_ask_too(tmp_path, folders, name, advised):
    names = of_wells([f"{folder}/{name}" for folder in folders])
    with pytest.raises(InputError, match="may be a plate or not") as error:
        guess_layout(touched(tmp_path, names), LayoutConfig())
    assert f'"{advised}"' in str(error.value)


@pytest.mark.parametrize("folders", [("24h", "48h"), ("24h",)])
def test_names_of_instruments_that_make_no_pattern_ask_too(tmp_path, folders):
    name = "r{r:02d}c{k:02d}f0{c}p0{c}-ch1sk1fk1fl1.tiff"
    with pytest.raises(InputError, match=r'"24h" may be a plate or not; give --pattern "\w+" if it is one, else'):
        guess_layout(touched(tmp_path, of_wells([f"{folder}/{name}" for folder in folders])), LayoutConfig())


def test_the_folder_that_an_instrument_makes_is_not_the_plate(tmp_path):
    source = touched(tmp_path, of_wells([f"P1/Images/{PHENIX}"]))
    assert guess_layout(source, LayoutConfig()).config.pattern in ("phenix", "operetta")


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        (["P1/{w}/{w}_s1_{d}.tif"], "{plate}/*/{well}_s{site}_{channel}.tif"),
        (["P1/{w}/{w}_s1_{d}.tif", "P2/{w}/{w}_s1_{d}.tif"], "{plate}/*/{well}_s{site}_{channel}.tif"),
        (["{w}/{w}_s1_{d}.tif"], "{well}_s{site}_{channel}.tif"),
        (["Plate 1/Well {w}/Image {w} {d} Field {c}.tif"], "{plate}/*/Image {well} {channel} Field {site}.tif"),
        (["P1/{w}/scr_{w}_s1_w{c}.tif"], "{plate}/*/scr_{well}_s{site}_w{channel}.tif"),
        (["P1/P1_{w}_{d}.tif", "P2/P2_{w}_{d}.tif"], "{plate}_{well}_{channel}.tif"),
    ],
)
def test_the_folder_of_a_well_is_not_its_plate(tmp_path, names, pattern):
    assert guess_layout(touched(tmp_path, of_wells(names)), LayoutConfig()).config.pattern == pattern


@pytest.mark.parametrize(
    "names",
    [
        ["P1/24h/{w}_{d}.tif", "P2/24h/{w}_{d}.tif", "P1/48h/{w}_{d}.tif", "P2/48h/{w}_{d}.tif"],
        ["P1/DAPI/{w}_s{c}.tif", "P1/GFP/{w}_s{c}.tif", "P2/DAPI/{w}_s{c}.tif", "P2/GFP/{w}_s{c}.tif"],
        ["{w}_donor1_{d}.tif", "{w}_donor2_{d}.tif"],
        ["{w}_20240101_{d}.tif", "{w}_20240102_{d}.tif"],
        ["{w}_s1_20240101_{d}.tif", "{w}_s1_20240102_{d}.tif"],
        ["{w}_0012_{d}.tif", "{w}_0013_{d}.tif"],
        ["{w}_2024-01-01_{d}.tif", "{w}_2024-01-02_{d}.tif"],
        ["P1/{r:03d}{k:03d}-1-{d}.tif", "P1/{r:03d}{k:03d}-2-{d}.tif"],
        ["1_{w}_{d}.tif", "2_{w}_{d}.tif"],
        ["P1/z1/{w}_{d}.tif", "P1/z2/{w}_{d}.tif"],
        ["P1/U{r:02d}--J00--E00--C00.tif", "P1/U{r:02d}--J00--E00--C01.tif"],
    ],
)
def test_each_pattern_that_is_advised_reads_all_the_names_and_none_twice(tmp_path, names):
    names = of_wells(names)
    with pytest.raises(InputError, match=r"give (a )?--pattern") as error:
        guess_layout(touched(tmp_path, names), LayoutConfig())
    for pattern in re.findall(r'"([^"]*\{[^"]*)"', str(error.value)):
        found, others = matching(tmp_path, names, pattern=pattern)
        assert (pattern, others) == (pattern, [])
        assert not found.drop(columns="path").duplicated().any(), pattern
    if len(names) == 32:  # of two plates
        assert '"{plate}/' in str(error.value)


def test_two_files_of_one_field_may_differ_in_the_channel_though_the_pattern_has_it_elsewhere(tmp_path, capsys):
    touched(tmp_path, [f"{w}_{drug}_{c}.tif" for w, drug in (("B02", "DMSO"), ("C03", "x")) for c in ("DAPI", "GFP")])
    assert main(["check", str(tmp_path), "--pattern", "{well}_{channel}_*.tif"]) == 2
    said = capsys.readouterr().err
    assert 'differ in "DAPI" and "GFP": name that place in --pattern, {plate} or {channel} (now at another' in said


DRUGS = {"B02": "taxol", "B03": "DMSO", "C02": "nocodazole", "C03": "DMSO"}


@pytest.mark.parametrize(
    ("name", "pattern", "said"),
    [
        ("{w}_{drug}.tif", "{well}_*.tif", "not read: DMSO, nocodazole, taxol"),
        ("{w}_{drug}_{c}.tif", "{well}_*_{channel}.tif", "channels DAPI, GFP; not read: DMSO, nocodazole, taxol"),
        ("{w}_{c}_{drug}.tif", "{well}_{channel}_*.tif", "not read: DMSO, nocodazole, taxol"),
        ("{w}_{drug}_s1_w1.tif", "{well}_*_s{site}_w{channel}.tif", "not read: DMSO, nocodazole, taxol"),
        ("{w}_p{n}_{c}.tif", "{well}_p*_{channel}.tif", "not read: 12, 13"),
        ("{w}_HeLa_{c}.tif", "{well}_HeLa_{channel}.tif", "channels DAPI, GFP"),
        ("{w}_{n}.tif", "{well}_*.tif", "not read: 12, 13"),
    ],
)
def test_what_each_well_has_one_of_is_no_channel_or_field_and_is_said(tmp_path, name, pattern, said):
    names = {
        name.format(w=well, drug=drug, n=12 + (drug == "DMSO"), c=c)
        for well, drug in DRUGS.items()
        for c in ("DAPI", "GFP")
    }
    guess = guess_layout(touched(tmp_path, names), LayoutConfig())
    assert guess.config.pattern == pattern
    assert said in guess.why


@pytest.mark.parametrize(
    ("end", "pattern"),
    [("{c}.tif", "{well}_*_{channel}.tif"), ("s1_w{k}.tif", "{well}_*_s{site}_w{channel}.tif")],
)
@pytest.mark.parametrize("texts", [("taxol_1uM", "DMSO", "noc_2.5uM"), ("0.1uM", "1uM", "DMSO")])
def test_drugs_and_doses_of_several_parts_are_one_text(tmp_path, end, pattern, texts):
    names = [
        f"{w}_{text}_{end.format(c=c, k=k)}"
        for w, text in zip(DRUGS, (*texts, texts[1]))
        for k, c in enumerate(("DAPI", "GFP"), start=1)
    ]
    guess = guess_layout(touched(tmp_path, names), LayoutConfig())
    assert guess.config.pattern == pattern
    assert "8 of 8 images" in guess.why
    assert f"not read: {', '.join(sorted(texts))}" in guess.why


@pytest.mark.parametrize(
    ("name", "pattern", "said"),
    [
        ("{w}_ch{k}_{c}.tif", "{well}_ch{channel}_*.tif", "channels 1, 2; not read: DAPI, GFP"),
        ("{w}_{c}_{k}00ms.tif", "{well}_{channel}_*.tif", "channels DAPI, GFP; not read: 100ms, 200ms"),
        ("{w}_{k}00ms_{c}.tif", "{well}_*_{channel}.tif", "channels DAPI, GFP; not read: 100ms, 200ms"),
        ("{w}_{k}05nm.tif", "{well}_{channel}.tif", "channels 405nm, 505nm"),
        ("img_{i:03d}_{w}_{c}.tif", "img_*_{well}_{channel}.tif", "not read: 000, 001, 002"),
    ],
)
def test_texts_that_go_with_the_channel_or_the_image_are_said(tmp_path, name, pattern, said):
    each = [(w, k) for w in DRUGS for k in ((4, 5) if "nm" in name else (1, 2))]
    names = [name.format(w=w, k=k, c=("DAPI", "GFP")[k % 2 == 0], i=i) for i, (w, k) in enumerate(each)]
    guess = guess_layout(touched(tmp_path, names), LayoutConfig())
    assert guess.config.pattern == pattern
    assert said in guess.why


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("Row{r}_Col{k}_{d}.tif", "Row{row}_Col{column}_{channel}.tif"),
        ("r{r:02d}_c{k:02d}_f01_ch{c}.tif", "r{row}_c{column}_f{site}_ch{channel}.tif"),
        ("{w} [{d}].tif", "{well} [{channel}].tif"),
    ],
)
def test_rows_and_columns_in_words_and_brackets_are_found(tmp_path, name, pattern):
    assert guess_layout(touched(tmp_path, of_wells([name])), LayoutConfig()).config.pattern == pattern


@pytest.mark.parametrize(("label", "pattern"), [("S", '"{well}_S*_{channel}.tif"'), ("T", '"{well}_T*_{channel}.tif"')])
def test_numbers_of_compounds_may_be_no_sites_or_times(tmp_path, label, pattern):
    names = [f"{w}_{label}{1000 + ord(drug[0])}_{c}.tif" for w, drug in DRUGS.items() for c in ("DAPI", "GFP")]
    with pytest.raises(InputError, match="each well has one number") as error:
        guess_layout(touched(tmp_path, names), LayoutConfig())
    assert pattern in str(error.value)


@pytest.mark.parametrize(
    ("name", "patterns"),
    [
        ("{w}_{p}.tif", ('"{well}_{plate}.tif"', '"{well}_{channel}.tif"')),
        ("{w}_{cell}.tif", ('"{well}_{plate}.tif"', '"{well}_{channel}.tif"')),
        ("{w}_{dose}.tif", ('"{well}_{plate}.tif"', '"{well}_{channel}.tif"')),
        ("{w}_{p}_{c}.tif", ('"{well}_{plate}_{channel}.tif"',)),
        ("{w}_{cell}_w{k}.tif", ('"{well}_{plate}_w{channel}.tif"',)),
        ("P1/{w}_{cell}_w{k}.tif", ('"{well}_{plate}_w{channel}.tif"',)),
        ("P{k}/{w}_{cell}_{c}.tif", ('"{plate}/{well}_HeLa_{channel}.tif"', '"{plate}/{well}_U2OS_{channel}.tif"')),
    ],
)
def test_passages_cell_lines_and_doses_of_the_same_wells_are_asked_for(tmp_path, name, patterns):
    each = [(w, i, j) for w in ("B02", "C03") for i in (0, 1) for j in (0, 1)]
    names = {
        name.format(w=w, p=f"p1{i}", cell=("HeLa", "U2OS")[i], dose=("1uM", "10uM")[i], c=("DAPI", "GFP")[j], k=j + 1)
        for w, i, j in each
    }
    with pytest.raises(InputError) as error:
        guess_layout(touched(tmp_path, names), LayoutConfig())
    assert [pattern for pattern in patterns if pattern not in str(error.value)] == []


@pytest.mark.parametrize(
    ("name", "patterns"),
    [
        ("{drug}_{w}_{c}.tif", ('"{plate}_{well}_{channel}.tif"', '"*_{well}_{channel}.tif"')),
        ("{drug}_{w}_s1_w{k}.tif", ('"{plate}_{well}_s{site}_w{channel}.tif"', '"*_{well}_s{site}_w{channel}.tif"')),
        ("{drug}/{w}_{c}.tif", ('"{plate}/{well}_{channel}.tif"', '"{well}_{channel}.tif"')),
    ],
)
def test_plates_without_a_well_in_common_may_be_drugs(tmp_path, name, patterns):
    names = [
        name.format(w=well, drug=drug, c=("DAPI", "GFP")[k], k=k + 1) for well, drug in DRUGS.items() for k in (0, 1)
    ]
    with pytest.raises(InputError, match='"DMSO" and "nocodazole"') as error:
        guess_layout(touched(tmp_path, names), LayoutConfig())
    assert [pattern for pattern in patterns if pattern not in str(error.value)] == []


@pytest.mark.parametrize(
    ("wells", "found"),
    [
        (("A01", "P24", "Q01", "AA01", "AF48"), ["A01", "AA01", "AF48", "P24", "Q01"]),
        (("a01", "q02", "aa01"), ["A01", "AA01", "Q02"]),
        (("a01", "b02", "h12"), ["A01", "B02", "H12"]),
        (("A001", "B002"), ["A01", "B02"]),
    ],
)
@pytest.mark.parametrize("folder", ["", "P1/"])
def test_wells_of_1536_small_letters_and_three_digits_are_found(tmp_path, wells, found, folder):
    names = [f"{folder}{well}_{c}.tif" for well in wells for c in ("DAPI", "GFP")]
    guess = guess_layout(touched(tmp_path, names), LayoutConfig())
    assert guess.config.pattern == "{well}_{channel}.tif"
    assert sorted(matching(tmp_path, names, pattern=guess.config.pattern)[0]["well"].unique()) == found


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Pos{n}/img_channel000_position00{n}_time000000000_z000.tif", "Micro-Manager"),
        ("Pos{n}/img_000000000_DAPI_000.tif", "Micro-Manager"),
        ("image--L0000--S00--U0{n}--V00--J14--E00--O00--X00--Y00--T0000--Z00--C00.ome.tif", "Matrix Screener"),
    ],
)
def test_names_of_instruments_without_wells_are_refused_with_the_table_to_write(tmp_path, name, said):
    with pytest.raises(InputError, match=r"images.csv \(--layout table\)") as error:
        guess_layout(touched(tmp_path, [name.format(n=n) for n in range(4)]), LayoutConfig())
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("names", "pattern", "said"),
    [
        (["b1/P1/{w}_{d}.tif", "b2/P2/{w}_{d}.tif"], "{plate}/{well}_{channel}.tif", "not read: b1, b2"),
        (["{d}/P1/{w}.tif", "{d}/P2/{w}.tif"], None, "plates P1, P2"),
        (["24h/P1/{w}_{d}.tif", "48h/P1/{w}_{d}.tif", "48h/P2/{w}_{d}.tif"], "{t}h/{plate}/{well}_{channel}.tif", "P2"),
    ],
)
def test_folders_above_those_of_plates_are_read_or_said(tmp_path, names, pattern, said):
    names = [name.replace("{d}/", "{q}/").replace("{q}", q) for name in names for q in ("DAPI", "GFP")]
    guess = guess_layout(touched(tmp_path, of_wells(names)), LayoutConfig())
    assert guess.config.pattern == (pattern or "{channel}/{plate}/{well}.tif")
    assert said in guess.why


def test_plates_of_one_name_in_two_folders_are_not_one(tmp_path):
    names = of_wells(["b1/P1/{w}_{d}.tif", "b1/P2/{w}_{d}.tif", "b2/P1/{w}_{d}.tif", "b2/P2/{w}_{d}.tif"])
    with pytest.raises(InputError, match='plate "P1" is in two folders, b1/P1 and b2/P1'):
        guess_layout(touched(tmp_path, names), LayoutConfig())


@pytest.mark.parametrize(
    ("other", "n"),
    [("{w}_montage_{d}.tif", 8), ("{w}_outlines.png", 4), ("montage_{d}.tif", 2), ("FocusMap_A0{c}.tif", 2)],
)
def test_names_of_another_form_are_left_out_and_counted(tmp_path, other, n):
    names = of_wells(["{w}_s1_{d}.tif", "{w}_s2_{d}.tif"])
    guess = guess_layout(touched(tmp_path, [*names, *of_wells([other])]), LayoutConfig())
    assert guess.config.pattern == "{well}_s{site}_{channel}.tif"
    assert f"16 of {16 + n} images match" in guess.why


def test_names_of_two_instruments_are_counted_or_both_shown(tmp_path):
    images = of_wells(["A/scr_{w}_s1_w{c}.tif", "A/scr_{w}_s2_w{c}.tif"])
    guess = guess_layout(touched(tmp_path, [*images, *of_wells([f"B/{PHENIX}"])]), LayoutConfig())
    assert "16 of 24 names are those of ImageXpress" in guess.why
    with pytest.raises(InputError, match=r"scr_B02_s1_w1.tif and B/r03c03"):
        guess_layout(touched(tmp_path / "A" / "..", of_wells([f"B/{PHENIX.replace('f01', 'f02')}"])), LayoutConfig())


def test_endings_in_capitals_are_no_part_of_the_names(tmp_path):
    names = [f"{w}_{d}.{e}" for w, e in (("B02", "tif"), ("B03", "TIF"), ("C02", "tiff")) for d in ("DAPI", "GFP")]
    guess = guess_layout(touched(tmp_path, names), LayoutConfig())
    assert guess.config.pattern == "{well}_{channel}.tif"
    assert "6 of 6 images" in guess.why


def test_hours_of_the_same_wells_may_be_times(tmp_path):
    names = [f"{w}_{t}_{d}.tif" for w in ("B02", "C03") for t in ("24h", "48h") for d in ("DAPI", "GFP")]
    with pytest.raises(InputError, match=re.escape('"{well}_{t}h_{channel}.tif"')):
        guess_layout(touched(tmp_path, names), LayoutConfig())


def test_of_many_images_those_of_some_wells_are_compared(tmp_path, monkeypatch):
    """Every fourth name would be of one channel."""
    monkeypatch.setattr(proposed_pattern_module, "MOST_FILES", 96)
    names = [f"{r}{k:02d}_s{s}_{d}.tif" for r in "ABCDEFGH" for k in range(1, 7) for s in (1, 2) for d in "wxyz"]
    guess = guess_layout(touched(tmp_path, names), LayoutConfig())
    assert guess.config.pattern == "{well}_s{site}_{channel}.tif"
    assert "384 are there" in guess.why


@pytest.mark.parametrize(
    ("plates", "pattern", "said"),
    [
        (("Exp-01", "Exp-02"), "{plate}_{well}_s{site}.tif", "plates Exp-01, Exp-02"),
        (("2021-01_A", "2021-02_B"), "{plate}_{well}_s{site}.tif", "plates 2021-01_A, 2021-02_B"),
        (("Exp_01", "Exp_02"), "Exp_{plate}_{well}_s{site}.tif", "plates 01, 02"),
        (("2023-05-01_A", "2023-05-02_B"), "{plate}_{well}_s{site}.tif", "plates 2023-05-01_A, 2023-05-02_B"),
    ],
)
def test_the_plates_in_the_names_of_images_are_whole_and_said(tmp_path, plates, pattern, said):
    names = [f"{plate}_{well}_s{site}.tif" for plate in plates for well in ("B02", "C03") for site in (1, 2)]
    guess = guess_layout(touched(tmp_path, names), LayoutConfig())
    assert guess.config.pattern == pattern
    assert said in guess.why


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("{date}_{dye}_{w}.tif", "{plate}_{channel}_{well}.tif"),
        ("{dye}_{date}_{w}.tif", "{channel}_{plate}_{well}.tif"),
        ("{date}_{dye}_{date}_{w}.tif", "{plate}_{channel}_*_{well}.tif"),
    ],
)
def test_a_channel_beside_the_plate_in_front_of_the_well_is_no_part_of_it(tmp_path, name, pattern):
    each = [(date, dye, w) for date in ("240101", "240108") for dye in ("DAPI", "GFP") for w in ("B02", "C03")]
    names = [name.format(date=date, dye=dye, w=w) for date, dye, w in each]
    assert guess_layout(touched(tmp_path, names), LayoutConfig()).config.pattern == pattern


@pytest.mark.parametrize(
    ("names", "advised"),
    [
        (["405_{w}_f01.tif", "488_{w}_f01.tif"], ("{channel}_{well}_f{site}.tif", "{plate}_{well}_f{site}.tif")),
        (["1_{w}_f01.tif", "2_{w}_f01.tif"], ("{channel}_{well}_f{site}.tif", "{plate}_{well}_f{site}.tif")),
        (["000_{w}_{d}.tif", "001_{w}_{d}.tif"], ("{site}_{well}_{channel}.tif", "{plate}_{well}_{channel}.tif")),
        (["{w}_BR00117011.tif", "{w}_BR00117012.tif"], ("{well}_{plate}.tif", "{well}_{channel}.tif")),
        (
            [f"P{p}/P{p}_00{s}_{{w}}_{{d}}.tif" for p in "ab" for s in (1, 2)],
            ("{plate}_{site}_{well}_{channel}.tif", "{plate}_{well}_{channel}.tif"),
        ),
        (
            ["P01_1_{w}_f01.tif", "P01_2_{w}_f01.tif"],
            ("P01_{plate}_{well}_f{site}.tif", "P01_{channel}_{well}_f{site}.tif"),
        ),
        (["{w}/a10_1.tif", "{w}/a11_1.tif"], ("{well}/{plate}_1.tif", "{well}/{channel}_1.tif")),
    ],
)
def test_texts_that_may_be_plates_channels_or_sites_are_asked_for(tmp_path, names, advised):
    with pytest.raises(InputError) as error:
        guess_layout(touched(tmp_path, of_wells(names)), LayoutConfig())
    assert [pattern for pattern in advised if f'"{pattern}"' not in str(error.value)] == []


def test_a_drug_between_the_plate_and_the_well_is_no_part_of_the_plate(tmp_path):
    names = [f"{plate}_{drug}_{well}.tif" for plate in ("Pa", "Pb") for well, drug in DRUGS.items()]
    guess = guess_layout(touched(tmp_path, names), LayoutConfig())
    assert guess.config.pattern == "{plate}_*_{well}.tif"
    assert "plates Pa, Pb; not read: DMSO" in guess.why


def test_plates_of_one_well_each_may_be_fields(tmp_path):
    names = {f"img-Scene-{n + 1}-P{n % 2 + 1}-{'BC'[n // 2]}2_c{c}.tif" for n in range(4) for c in (1, 2)}
    with pytest.raises(InputError, match='"1-P1" and "2-P2" may be plates or not, each has one well') as error:
        guess_layout(touched(tmp_path, names), LayoutConfig())
    assert '"img-Scene-*-P{site}-{well}_c{channel}.tif"' in str(error.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("P{n}/s{m}_w1.tif", "plate"),
        ("P{n}/0202_s{m}_w1.tif", "plate"),
        ("P{n}_s{m}_w1.tif", "plate"),
        ("img_C{n}.tif", "channel"),
    ],
)
def test_plates_and_channels_are_not_taken_as_wells_of_one_row(tmp_path, name, meant):
    with pytest.raises(InputError) as error:
        guess_layout(touched(tmp_path, {name.format(n=n, m=m) for n in (1, 2) for m in (1, 2)}), LayoutConfig())
    keys = ("--pattern", "{well}", f"perhaps {meant}s", "--layout table")
    assert [key for key in keys if key not in str(error.value)] == []


def test_names_with_an_identifier_have_a_well_also_where_all_are_in_one_row(tmp_path):
    identifier = "A1B2C3D4-0000-4444-8888-00000000000"
    names = [f"Screen_E0{n}_s{s}_w{c}{identifier}{c}.tif" for n in (7, 8) for s in (1, 2) for c in (1, 2)]
    assert guess_layout(touched(tmp_path, names), LayoutConfig()).config.pattern == "imagexpress"


def test_a_site_in_the_name_is_not_the_well_of_its_folder(tmp_path):
    """s1 would be the well S01 of ImageXpress."""
    names = [f"{well}/s{site}_w{c}.tif" for well in ("B02", "B03") for site in (1, 2) for c in (1, 2)]
    guess = guess_layout(touched(tmp_path, names), LayoutConfig())
    assert guess.config.pattern == "{well}/s{site}_w{channel}.tif"


@pytest.mark.parametrize("names", [[], ["a.txt"], ["IMG_1.tif", "IMG_2.tif"]])
def test_a_source_that_says_nothing_asks_for_the_layout(tmp_path, names):
    with pytest.raises(InputError) as error:
        guess_layout(touched(tmp_path, names), LayoutConfig())
    assert all(key in str(error.value) for key in ("--layout", "--pattern", *names[:1]))


def test_check_says_what_it_guessed_and_what_is_there_without_a_plate_map(tmp_path, capsys):
    source = write_images(tmp_path / "a screen")
    assert main(["check", str(source)]) == 0
    said = capsys.readouterr()
    shown = " ".join(said.out.split())
    for key in (
        "2: 007, p-2",
        "B02, B03, C11",
        "2 a well, 12 fields",
        ", ".join(CHANNELS),
        "40 x 50 px",
        "imagexpress",
    ):
        assert key in shown
    line = said.err.strip().splitlines()[-1]
    words = shlex.split(line.removeprefix("next: phenolens "))
    assert words == [
        *("check", str(source), "--layout", "pattern", "--pattern", "imagexpress", "--template", "PLATE_MAP.csv")
    ]


def test_what_check_guessed_is_said_also_where_it_cannot_read_the_source(tmp_path, capsys):
    source = write_images(tmp_path / "screen")
    (source / "007" / "B02_s1_wDNA.tif").write_bytes(b"II*\0")
    assert main(["check", str(source)]) == 2
    said = capsys.readouterr().err
    assert all(key in said for key in ("B02_s1_wDNA.tif", "--layout pattern", "imagexpress"))


def test_a_template_of_the_plate_map_is_written_filled_in_and_used(tmp_path, capsys):
    source, template = write_images(tmp_path / "a screen"), tmp_path / "map.csv"
    assert main(["check", str(source), "--template", str(template)]) == 0
    table = pd.read_csv(template, dtype=str)
    assert table.columns.tolist() == ["plate", "well", "compound", "concentration_um", "moa", "batch"]
    assert table[["plate", "well"]].to_numpy().tolist() == [[plate, well] for plate in ("007", "p-2") for well in WELLS]
    assert table["compound"].isna().all()
    table.assign(compound=["DMSO", "x", "y"] * 2, concentration_um=["0", "1", "2"] * 2).to_csv(template, index=False)
    capsys.readouterr()
    assert main(["check", str(source), "--plate-map", str(template)]) == 0
    assert "no batch given: each plate counts as a batch" in " ".join(capsys.readouterr().out.replace("│", "").split())
    pd.read_csv(template, dtype=str).assign(batch="w1").to_csv(template, index=False)
    assert main(["check", str(source), "--plate-map", str(template)]) == 0
    assert "no batch" not in capsys.readouterr().out
    assert main(["check", str(source), "--template", str(template)]) == 2
    assert str(template) in capsys.readouterr().err
    assert main(["check", str(source), "--template", str(source / "new.csv")]) == 2
    assert not (source / "new.csv").exists()


def test_a_table_without_compounds_is_checked_too(tmp_path, capsys):
    source = write_table(write_images(tmp_path / "screen"))
    table = pd.read_csv(source / "images.csv", dtype=str).drop(columns=["compound", "concentration_um", "moa"])
    table.to_csv(source / "images.csv", index=False)
    assert main(["check", str(source)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "B02, B03, C11" in shown
    assert "compound" in shown


def test_crop_guesses_the_layout_and_says_so(tmp_path, capsys):
    source = write_plate_map(write_images(tmp_path / "screen"))
    nuclei = [(p, w, s, 1, 20, 25) for p in ("007", "p-2") for w in WELLS for s in (1, 2)]
    columns = ["plate", "well", "site", "ObjectNumber", "Location_Center_Y", "Location_Center_X"]
    pd.DataFrame(nuclei, columns=columns).to_csv(source / "Nuclei.csv", index=False)
    study = tmp_path / "study"
    assert main(["crop", str(study), "--source", str(source), "--crop-px", "16", "--treatments", "all"]) == 0
    assert "--layout pattern" in capsys.readouterr().err
    assert (study / "crops" / "about.json").is_file()


def test_guessing_shows_one_count_for_all_patterns_that_it_tries(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    touched(tmp_path, [f"P1/img_{well}_{channel}.tif" for well in ("B02", "C03") for channel in ("DAPI", "GFP")])
    guess_layout(tmp_path, LayoutConfig())
    counts = re.findall("^(.+): ([0-9]+) of", capsys.readouterr().err, flags=re.MULTILINE)
    assert counts == [("Instruments whose names were tried", str(n)) for n in range(1, len(INSTRUMENTS))]
