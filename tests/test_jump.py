"""Plates as JUMP-CP publishes them: what is joined, counted and divided out, from disk and from S3."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

import phenolens as ph
from jump_source import NEGATIVE, POSITIVE, write_jump
from phenolens.core.errors import InputError
from phenolens.crops.config import CropConfig
from phenolens.crops.make_crops import make_crops
from phenolens.crops.source import open_source
from phenolens.screens.config import LayoutConfig
from phenolens.screens.jump import read_jump
from phenolens.screens.remote import local_source
from phenolens.screens.screen import Selection
from phenolens.simulation.screen_design import SimulateConfig
from s3_server import BUCKET, serving

SCREEN = SimulateConfig(
    mechanisms=2, compounds=2, doses=1, active_doses=1, replicates=1, field_width_px=150, field_height_px=140, cells=8,
    positive_control=True, unevenness=0,
)  # fmt: skip
TARGET = {"mechanism_column": "Metadata_target"}
CROPS = CropConfig(crop_px=36, nucleus_px=24, illumination="given")


@pytest.fixture(scope="module")
def bucket():
    with pytest.MonkeyPatch.context() as monkeypatch, serving(monkeypatch) as served:
        yield served


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> tuple[Path, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("jump") / "source_4"
    return folder, write_jump(folder, SCREEN, root=f"s3://{BUCKET}/cpg/source_4")


@pytest.fixture
def source(drawn, tmp_path) -> Path:
    return shutil.copytree(drawn[0], tmp_path / "source_4")


def screen_of(source: Path, **settings):
    selection = Selection("all", skip_missing=settings.pop("skip_missing", False))
    return open_source(source, layout="jump", config=LayoutConfig(**TARGET, **settings), selection=selection).screen


def edit(path: Path, change) -> None:
    """Rewrite a table by `change`, in its own format."""
    table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, dtype=str)
    table = change(table)
    table.to_parquet(path) if path.suffix == ".parquet" else table.to_csv(path, index=False)


def test_wells_have_their_perturbations_roles_and_batches(source, drawn):
    screen = screen_of(source)
    design = drawn[1].sort_values(["plate", "well", "site"], ignore_index=True)
    assert screen.channels == ("DNA", "AGP", "ER", "Mito", "RNA")
    assert len(screen.table) == len(design)
    table = screen.table.merge(design[["plate", "well", "site", "jcp", "mechanism"]], on=["plate", "well", "site"])
    assert set(table["batch"]) == {"Batch1", "Batch2"}
    roles = table["jcp"].map({NEGATIVE: "control", POSITIVE: "other"}).fillna("treated")
    assert table["role"].tolist() == roles.tolist()
    assert table["compound"].tolist() == table["jcp"].replace(NEGATIVE, "DMSO").tolist()
    assert table["moa"].fillna("").tolist() == table["mechanism"].where(table["jcp"] != NEGATIVE, "").tolist()


def test_without_the_table_of_plates_batches_are_those_of_loaddata(source):
    whole = screen_of(source)
    (source / "metadata" / "plate.parquet").unlink()
    assert screen_of(source).table.equals(whole.table)


def test_genes_are_the_mechanism_of_orfs_and_guides(source):
    compounds = pd.read_csv(source / "metadata" / "compound.csv.gz")
    (source / "metadata" / "compound.csv.gz").unlink()
    treated = sorted(set(compounds["Metadata_JCP2022"]) - {NEGATIVE, POSITIVE})
    orfs = pd.DataFrame({"Metadata_JCP2022": treated[:2], "Metadata_Symbol": "TP53", "Metadata_pert_type": "trt"})
    orfs.to_csv(source / "metadata" / "orf.csv.gz", index=False)
    guides = pd.DataFrame({"Metadata_JCP2022": treated[2:], "Metadata_Symbol": ["KRAS", "non-targeting"]})
    guides.to_csv(source / "metadata" / "crispr.csv", index=False)
    table = read_jump(source, config=LayoutConfig(anonymous=True)).table.drop_duplicates("compound")
    found = table.set_index("compound")
    assert found.loc[treated[:3], "moa"].tolist() == ["TP53", "TP53", "KRAS"]
    assert found.loc[treated[3], "role"] == "control"


def test_wells_of_one_side_only_are_refused_or_counted(source):
    path = source / "metadata" / "well.csv.gz"
    more = {"Metadata_Source": "source_4", "Metadata_Well": "P24", "Metadata_JCP2022": NEGATIVE}
    lacking = pd.read_csv(path).iloc[0]

    def change(table):
        return pd.concat([table.iloc[1:], pd.DataFrame([{**more, "Metadata_Plate": table["Metadata_Plate"].iloc[0]}])])

    edit(path, change)
    with pytest.raises(InputError, match=lacking["Metadata_Well"]):
        screen_of(source)
    screen = screen_of(source, skip_missing=True)
    assert screen.left_out["fields whose well has no compound in the plate map"] == 1
    assert screen.left_out["wells of the plate map without images"] == 1


def test_a_row_that_repeats_another_is_left_out_and_one_that_differs_is_refused(source):
    path = sorted(source.rglob("load_data_with_illum.parquet"))[-1]
    whole, n = screen_of(source), len(pd.read_parquet(path))
    edit(path, lambda table: pd.concat([table, table[:2]], ignore_index=True))
    screen = screen_of(source)
    assert screen.table.equals(whole.table)
    named = path.relative_to(source).as_posix()
    assert any(f"{named}, row {n + 2}" in note and "2 such rows" in note for note in screen.notes)
    edit(path, lambda table: table.assign(FileName_OrigER=[*table["FileName_OrigER"][:-1], "other.tiff"]))
    with pytest.raises(InputError, match="file_ER") as refused:
        screen_of(source)
    assert all(f"{named}, row {row}" in str(refused.value) for row in (3, n + 3))


@pytest.mark.parametrize(("name", "of_row"), [("Plate", 'plate is ""'), ("Well", "the well is empty")])
def test_a_table_without_plates_or_wells_and_a_row_without_one_are_named(source, name, of_row):
    path = sorted(source.rglob("load_data_with_illum.parquet"))[-1]
    whole, column = pd.read_parquet(path), f"Metadata_{name}"
    whole.drop(columns=column).to_parquet(path)
    with pytest.raises(InputError, match=f"{path}: no column for the {name.lower()}"):
        screen_of(source)
    whole.assign(**{column: [whole[column][0], None, *whole[column][2:]]}).to_parquet(path)
    with pytest.raises(InputError, match=f"{path}, row 3: {of_row}"):
        screen_of(source)


def test_a_well_of_two_numbers_is_refused_and_a_row_of_wells_that_repeats_is_not(source):
    path, whole = source / "metadata" / "well.csv.gz", screen_of(source)
    edit(path, lambda table: pd.concat([table, table[:1]]))
    assert screen_of(source).table.equals(whole.table)
    edit(path, lambda table: table.assign(Metadata_JCP2022=[*table["Metadata_JCP2022"][:-1], "JCP2022_000001"]))
    with pytest.raises(InputError, match=r"well\.csv\.gz"):
        screen_of(source)


@pytest.mark.parametrize(
    ("name", "column"), [("compound.csv.gz", "Metadata_target"), ("plate.parquet", "Metadata_Batch")]
)
def test_a_second_row_that_says_something_else_is_refused(source, name, column):
    path, whole = source / "metadata" / name, screen_of(source)
    edit(path, lambda table: pd.concat([table, table[:1]], ignore_index=True))
    assert screen_of(source).table.equals(whole.table)
    edit(path, lambda table: table.assign(**{column: [*table[column][:-1], "another"]}))
    with pytest.raises(InputError, match=rf"{name}: .* occurs twice .*one {column}"):
        screen_of(source)


def test_a_number_in_two_tables_of_perturbations_is_refused(source):
    table = pd.read_csv(source / "metadata" / "compound.csv.gz")[["Metadata_JCP2022"]][-1:]
    table.assign(Metadata_Symbol="TP53").to_csv(source / "metadata" / "crispr.csv", index=False)
    with pytest.raises(InputError, match=table["Metadata_JCP2022"].iloc[0]):
        screen_of(source)


def test_batches_of_one_name_in_two_sources_stay_two_and_a_plate_of_two_sources_is_refused(source):
    first, last = (sorted(source.rglob("load_data_with_illum.parquet"))[place] for place in (0, -1))
    for path in source.rglob("load_data_with_illum.parquet"):
        edit(path, lambda table: table.assign(Metadata_Batch="Batch1"))
    assert set(screen_of(source).table["batch"]) == {"Batch1"}
    edit(last, lambda table: table.assign(Metadata_Source="source_9"))
    screen = screen_of(source)
    assert set(screen.table["batch"]) == {"source_4 Batch1", "source_9 Batch1"}
    assert any("sources" in note and "Batch1" in note for note in screen.notes)
    edit(first, lambda table: table.assign(Metadata_Source=["source_1", *table["Metadata_Source"][1:]]))
    with pytest.raises(InputError, match="one Metadata_Source for each"):
        screen_of(source)


def test_numbers_that_no_table_explains_are_noted(source):
    edit(source / "metadata" / "compound.csv.gz", lambda table: table.iloc[:-1])
    assert any("JCP2022" in note and note.startswith(("1 ", "2 ")) for note in screen_of(source).notes)


@pytest.mark.parametrize("name", ["well.csv.gz", "compound.csv.gz"])
def test_a_table_that_is_missing_is_named(source, name):
    (source / "metadata" / name).unlink()
    with pytest.raises(InputError, match="well.csv" if name.startswith("well") else "Metadata_target"):
        screen_of(source)


def test_illumination_is_divided_out(source, tmp_path):
    reading = LayoutConfig(**TARGET)
    lit = make_crops(source, tmp_path / "lit", layout="jump", reading=reading, config=CROPS)
    for path in source.rglob("*.npy"):  # the images as they were drawn
        light = np.load(path)
        channel, plate = path.stem.rpartition("Illum")[2], path.parent.name
        for image in source.rglob(f"images/{plate}/*_{channel}.tiff"):
            pixels = np.rint(tifffile.imread(image) / light.astype(np.float32)).astype(np.uint16)
            tifffile.imwrite(image, pixels)
        np.save(path, np.ones_like(light))
    columns = {"plate": "plate", "well": "well", "site": "site", "object_number": "ObjectNumber"}
    columns |= {"y": "Location_Center_Y", "x": "Location_Center_X"}
    lit.cells[[*columns]].rename(columns=columns).to_csv(tmp_path / "same.csv", index=False)
    reading = replace(reading, centres=tmp_path / "same.csv")
    flat = make_crops(source, tmp_path / "flat", layout="jump", reading=reading, config=CROPS)
    assert lit.cells["cell_id"].tolist() == flat.cells["cell_id"].tolist()
    np.testing.assert_array_equal(lit.take(range(len(lit))), flat.take(range(len(flat))))


@pytest.mark.parametrize(("change", "words"), [
    (lambda light: light[1:], "139 x 150 px"),
    (lambda light: light * 0, "above 0"),
    (lambda light: np.full_like(light, np.nan), "finite"),
    (lambda light: np.ceil(light).astype(np.int64), "type int64, expected floating point"),
])  # fmt: skip
def test_an_illumination_function_that_cannot_be_used_is_one_line(source, tmp_path, change, words):
    path = sorted(source.rglob("*_IllumER.npy"))[-1]
    np.save(path, change(np.load(path)))
    with pytest.raises(InputError, match=words) as refused:
        make_crops(source, tmp_path / "crops", layout="jump", reading=LayoutConfig(**TARGET), config=CROPS)
    assert path.name in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "crops").exists()


def test_an_illumination_function_that_is_not_there_or_no_array_is_one_line(source, tmp_path):
    path = sorted(source.rglob("*_IllumER.npy"))[-1]
    settings = {"layout": "jump", "reading": LayoutConfig(**TARGET), "config": CROPS}
    path.write_text("no array")
    with pytest.raises(InputError, match=f"not a whole .npy file of numbers .{path}"):
        make_crops(source, tmp_path / "crops", **settings)
    path.unlink()
    with pytest.raises(InputError, match=f"is not there .{path}"):
        make_crops(source, tmp_path / "crops", **settings)
    assert not (tmp_path / "crops").exists()


def test_through_another_cache_crops_and_nuclei_are_kept(bucket, drawn, tmp_path):
    address = Path(f"{bucket.upload(drawn[0], 'cpg/source_4')}/workspace/load_data_csv/Batch1")

    def crops(cache: str):
        reading = LayoutConfig(**TARGET, anonymous=True, cache=tmp_path / cache, plate_map=drawn[0] / "metadata")
        folder, reading = local_source(address, reading)
        config = replace(CROPS, skip_missing=True)  # wells of the other batch
        return make_crops(folder, tmp_path / "crops", layout="jump", reading=reading, config=config)

    first = crops("one")
    parts = {path: path.stat().st_mtime_ns for path in first.folder.rglob("*.*")}
    shutil.rmtree(tmp_path / "one")
    assert crops("two").identity == first.identity
    assert {path: path.stat().st_mtime_ns for path in first.folder.rglob("*.*")} == parts
    assert len(list((tmp_path / "two" / "content").rglob("*.tiff"))) == 5  # of the first field, for its size


@pytest.mark.slow
def test_from_address_to_report_by_one_command(bucket, drawn, tmp_path):
    bucket.upload(drawn[0], "cpg/source_4")
    address = f"s3://{BUCKET}/cpg/source_4"
    settings = {"layout": "jump", "anonymous": True, "cache": tmp_path / "cache", **TARGET}
    given = {"plate_map": f"{address}/metadata", "sample": 1, "nucleus_px": 36, **settings}
    checked = ph.check(f"{address}/workspace/load_data_csv", **given)
    assert "--layout jump" in checked.attrs["next"]
    assert "--illumination given" in checked.attrs["next"]
    study = ph.run(
        tmp_path / "study",
        source=f"{address}/workspace/load_data_csv",
        plate_map=f"{address}/metadata",
        model="pca",
        also=(),
        crop_px=36,
        nucleus_px=24,
        illumination="given",
        **settings,
    )
    assert study.report_path.is_file()
    assert study.crops.channels == ("DNA", "AGP", "ER", "Mito", "RNA")
    local = make_crops(drawn[0], tmp_path / "local", layout="jump", reading=LayoutConfig(**TARGET), config=CROPS)
    assert {p: local.about["plates"][p]["npy_sha256"] for p in local.plates} == {
        p: study.crops.about["plates"][p]["npy_sha256"] for p in study.crops.plates
    }
