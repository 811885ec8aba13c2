import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from phenolens.core.errors import InputError
from phenolens.screens.bbbc021 import read_bbbc021
from phenolens.simulation.screen_design import CONTROL_WELLS, SimulateConfig, fields, labels
from phenolens.simulation.simulate import draw_well, simulate

SMALL = SimulateConfig(
    seed=3, mechanisms=2, compounds=2, doses=2, active_doses=1, replicates=1, field_width_px=128, field_height_px=112,
    cells=4,
)  # fmt: skip


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("simulated") / "screen"
    simulate(out, SMALL)
    return out


def images_of(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "BBBC021_v1_image.csv")


def test_simulated_screen_is_read_by_the_reader_of_bbbc021(small: Path):
    screen = read_bbbc021(small, images=small, treatments="all")
    assert len(screen.table) == 20  # 2 plates of 6 DMSO wells and 2 compounds at 2 doses
    assert (screen.table["role"] == "control").sum() == 12
    assert set(read_bbbc021(small, images=small).treatments["moa"]) == {"Actin disruptors", "Aurora kinase inhibitors"}


def test_tables_have_the_columns_of_the_real_ones(small: Path, real_data: Path):
    metadata = real_data / "bbbc021" / "metadata"
    real = pd.read_csv(metadata / "BBBC021_v1_image.csv.gz", nrows=1)
    assert list(images_of(small).columns) == list(real.columns)
    real_labels = (metadata / "BBBC021_v1_moa.csv").read_text().splitlines()
    own_labels = (small / "BBBC021_v1_moa.csv").read_text().splitlines()
    assert own_labels[0] == real_labels[0]
    assert '"DMSO",0.000000,"DMSO"' in own_labels
    assert '"DMSO",0.000000,"DMSO"' in real_labels


def test_fields_are_12_bit_values_times_16(small: Path):
    for path in sorted(small.rglob("*.tif")):
        image = tifffile.imread(path)
        assert image.shape == (112, 128)
        assert image.dtype == np.uint16
        assert (image % 16 == 0).all()
        assert image.min() > 0


def test_every_nucleus_joins_a_field_and_lies_within_it(small: Path):
    nuclei = pd.read_csv(small / "Nuclei.csv")
    assert list(nuclei.columns) == [
        "TableNumber", "ImageNumber", "ObjectNumber", "Location_Center_X", "Location_Center_Y",
    ]  # fmt: skip
    joined = nuclei.merge(images_of(small), on=["TableNumber", "ImageNumber"], validate="many_to_one")
    assert len(joined) == len(nuclei)
    assert nuclei["Location_Center_X"].between(0, 127).all()
    assert nuclei["Location_Center_Y"].between(0, 111).all()


def test_dna_is_brightest_where_the_nuclei_are_said_to_be(small: Path):
    joined = pd.read_csv(small / "Nuclei.csv").merge(images_of(small), on=["TableNumber", "ImageNumber"])
    at_nuclei, elsewhere = [], []
    for _, own in joined.groupby(["TableNumber", "ImageNumber"]):
        row = own.iloc[0]
        image = tifffile.imread(small / row["Image_Metadata_Plate_DAPI"] / row["Image_FileName_DAPI"])
        y, x = own["Location_Center_Y"].round().astype(int), own["Location_Center_X"].round().astype(int)
        at_nuclei.extend(image[y, x].tolist())
        elsewhere.append(np.median(image))
    assert np.median(at_nuclei) > 2 * np.median(elsewhere)


def test_truth_has_a_row_for_each_nucleus_and_says_how_its_plate_was_imaged(small: Path):
    truth, nuclei = pd.read_parquet(small / "truth.parquet"), pd.read_csv(small / "Nuclei.csv")
    assert truth["x_px"].tolist() == nuclei["Location_Center_X"].tolist()
    assert truth["y_px"].tolist() == nuclei["Location_Center_Y"].tolist()
    assert truth["object_number"].tolist() == nuclei["ObjectNumber"].tolist()
    effects = truth.groupby("plate")[["gain_dna", "blur_px_actin", "background_tubulin", "illumination_dna_0"]]
    assert (effects.nunique() == 1).all(axis=None)
    assert truth.groupby("batch")["gain_dna"].first().nunique() == 2


@pytest.mark.slow
def test_same_settings_give_the_same_bytes_whatever_the_number_of_processes(small: Path, tmp_path: Path):
    simulate(tmp_path / "again", SMALL, processes=2)
    assert content(tmp_path / "again") == content(small)


def test_fields_without_a_cell_add_no_row(tmp_path: Path):
    sparse = dataclasses.replace(SMALL, cells=1, mechanisms=1, compounds=2)
    simulate(tmp_path, sparse)
    truth = pd.read_parquet(tmp_path / "truth.parquet")
    assert truth[["table_number", "image_number"]].drop_duplicates().shape[0] < len(fields(sparse))
    assert truth["image_number"].dtype == np.int64
    assert truth["active"].dtype == bool


def test_another_seed_gives_other_images(small: Path):
    other = fields(dataclasses.replace(SMALL, seed=4))
    assert fields(SMALL)["plate"].tolist() == other["plate"].tolist()
    own = set(labels(SMALL)["concentration"])
    assert own != set(labels(dataclasses.replace(SMALL, seed=4))["concentration"])


def test_a_field_does_not_depend_on_how_many_sites_there_are(small: Path, tmp_path: Path):
    two_sites = dataclasses.replace(SMALL, sites=2)
    design = fields(two_sites)
    draw_well(tmp_path, two_sites, design[design["well"] == "B03"].iloc[:2])
    drawn = content(tmp_path)
    assert len(drawn) == 6
    first_site = {name: image for name, image in drawn.items() if "_s1_" in name}
    assert first_site.items() <= content(small).items()


def test_going_on_keeps_what_is_whole_and_ends_with_the_same_bytes(small: Path, tmp_path: Path):
    whole = content(small)
    for name, image in whole.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(image)
    images = sorted(tmp_path.rglob("*.tif"))
    lost, kept = images[7], images[40]
    lost.unlink()
    (tmp_path / "BBBC021_v1_image.csv").unlink()
    lost.with_name(f".{lost.name}.partial").write_bytes(b"half")
    os.utime(kept, (1, 1))
    simulate(tmp_path, SMALL)
    assert content(tmp_path) == whole
    assert kept.stat().st_mtime == 1


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_to_the_same_bytes(small: Path, tmp_path: Path):
    out = tmp_path / "killed"
    program = (
        "from pathlib import Path; from phenolens.simulation.simulate import SimulateConfig, simulate\n"
        f"simulate(Path({str(out)!r}), SimulateConfig(**{dataclasses.asdict(SMALL)!r}))"
    )
    running = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    while len(list(out.rglob("*.tif"))) < 5:
        assert running.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not (out / "BBBC021_v1_image.csv").exists()
    simulate(out, SMALL)
    assert content(out) == content(small)


def test_folder_of_other_settings_is_refused_and_left_as_it_is(small: Path):
    before = content(small)
    with pytest.raises(InputError, match=r"not empty.*simulation.json"):
        simulate(small, dataclasses.replace(SMALL, noise=0.5))
    assert content(small) == before


def test_folder_with_anything_else_in_it_is_refused_and_left_as_it_is(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(InputError, match=r'not empty, found "thesis.txt"'):
        simulate(tmp_path, SMALL)
    assert content(tmp_path) == {"thesis.txt": b"all of it"}


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path):
    (tmp_path / "screen").write_text("")
    with pytest.raises(InputError, match="is a file"):
        simulate(tmp_path / "screen", SMALL)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"batches": 0}, "--batches 0: .* 1 and of at most 70"),
        ({"active_doses": 3}, "--active-doses 3: expected at most --doses, 2"),
        ({"mechanisms": 13}, "--mechanisms 13: .* 12"),
        ({"cells": float("nan")}, "--cells nan"),
        ({"cells": 500}, "do not fit into a field of 128 x 112 px"),
        ({"effect": 1.5}, "--effect 1.5"),
        ({"compounds": 100, "doses": 8, "batches": 1, "replicates": 9, "mechanisms": 12}, "plates per batch"),
    ],
)
def test_a_setting_that_cannot_be_is_named_before_anything_is_written(tmp_path: Path, wrong: dict, words: str):
    with pytest.raises(InputError, match=words):
        simulate(tmp_path / "screen", dataclasses.replace(SMALL, **wrong))
    assert not (tmp_path / "screen").exists()


def test_no_process_at_all_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="--processes 0"):
        simulate(tmp_path / "screen", SMALL, processes=0)


def test_settings_are_written_out(small: Path):
    assert json.loads((small / "simulation.json").read_text())["config"] == dataclasses.asdict(SMALL)


def test_demo_fills_four_plates_and_has_each_mechanism_in_both_batches():
    design = fields(SimulateConfig())
    assert design.groupby("plate").size().tolist() == [60, 60, 60, 60]
    active = design[design["active"]]
    assert active.groupby("mechanism")["batch"].nunique().tolist() == [2] * 12
    assert active.groupby("mechanism")["compound"].nunique().tolist() == [3] * 12
    assert active.groupby(["compound", "concentration_um"])["plate"].nunique().tolist() == [2] * 72
    controls = design[design["compound"] == "DMSO"]
    assert controls.groupby("plate")["well"].apply(tuple).tolist() == [tuple(sorted(CONTROL_WELLS))] * 4


def test_only_active_doses_are_labelled_and_the_weak_one_does_less():
    config = SimulateConfig()
    design, labelled = fields(config), labels(config)
    named = set(zip(labelled["compound"], labelled["concentration"], strict=True)) - {("DMSO", 0.0)}
    active = design[design["active"]]
    assert named == set(zip(active["compound"], active["concentration_um"], strict=True))
    treated = design[design["compound"] != "DMSO"].drop_duplicates(["compound", "concentration_um"])
    weak = treated[~treated["active"]].set_index("compound")["strength"]
    strong = treated[treated["active"]].groupby("compound")["strength"].min()
    assert len(weak) == 36
    assert (weak < 0.6 * strong.loc[weak.index]).all()


def test_the_layout_of_bbbc021_can_be_reached():
    config = SimulateConfig(
        batches=10, replicates=3, compounds=10, doses=8, active_doses=3, positive_control=True, sites=4,
        field_width_px=1280, field_height_px=1024, cells=120,
    )  # fmt: skip
    design = fields(config)
    assert design["plate"].nunique() == 60
    assert not design.duplicated(["table_number", "image_number"]).any()
    assert not design.duplicated(["plate", "well", "site"]).any()
    taxol = design[(design["compound"] == "taxol") & (design["concentration_um"] == 0.3)]
    assert taxol.groupby("plate")["well"].unique().map(sorted).map(tuple).unique().tolist() == [
        ("B11", "C11", "D11", "E02", "F02", "G02")
    ]
    assert set(design[design["batch"] == "10"]["table_number"]) == {0}
