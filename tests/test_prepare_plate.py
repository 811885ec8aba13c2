"""What is made of a plate's fields before its crops, cells and light: found, kept, and made anew when it must be."""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from layout_sources import (
    CHANNELS,
    fields,
    pixels,
    read_screen,
    write_images,
    write_loaddata,
    write_plate_map,
    write_plates,
)
from layout_sources import write_table as write_image_table
from phenolens.core.errors import InputError
from phenolens.core.workers import AtOnce
from phenolens.crops import nuclei, prepare_plate
from phenolens.crops import source as cutting
from phenolens.crops.config import CropConfig
from phenolens.crops.illumination import correct, load_illumination
from phenolens.crops.make_crops import make_crops
from phenolens.crops.source import cut
from phenolens.crops.store import CropStore
from phenolens.screens.bbbc021 import PIXEL_UM
from phenolens.screens.config import LayoutConfig
from phenolens.screens.read_image import read_field

FIELD = ["plate", "well", "site"]
FOUND = CropConfig(crop_px=36, cells="found")
BOTH = replace(FOUND, illumination="corrected", least_fields=8)  # a plate of the tiny screen has 10 fields
LONG_AGO = 10**18  # ns since 1970

KILLED_AT = """
import os, pathlib, signal, sys
from phenolens.crops import prepare_plate as preparing
from phenolens.crops.config import CropConfig
from phenolens.crops.make_crops import make_crops
source, folder = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
find, rename, calls = preparing._find_in_well, pathlib.Path.replace, []

def dies(function, n):
    def called(*arguments):
        calls.append(arguments)
        if len(calls) == n:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)
    return called

for moment in sys.argv[3:]:
    what, n = moment.split("-")
    if os.fork() == 0:
        if what == "well":
            preparing._find_in_well = dies(find, int(n))
        else:
            pathlib.Path.replace = dies(rename, int(n))
        make_crops(source, folder / moment, layout="bbbc021", config=CropConfig(crop_px=36, cells="found"))
        os._exit(0)
    print(moment, os.WTERMSIG(os.wait()[1]))
"""
MOMENTS = ["well-15", "rename-2"]  # in the middle of the second plate; just before the first's nuclei take their name


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def times(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def make(source: Path, folder: Path, config: CropConfig = FOUND) -> CropStore:
    return make_crops(source, folder, layout="bbbc021", config=config)


@pytest.fixture(scope="module")
def untouched(tiny_screen, tmp_path_factory) -> Path:
    """The tiny screen without centres, photographed long ago."""
    folder = shutil.copytree(tiny_screen, tmp_path_factory.mktemp("preparing") / "screen")
    (folder / "Nuclei.csv").unlink()
    for path in folder.rglob("*.tif"):
        os.utime(path, ns=(LONG_AGO, LONG_AGO))
    return folder


@pytest.fixture(scope="module")
def made(untouched) -> CropStore:
    """Crops of found cells."""
    return make(untouched, untouched.parent / "found")


@pytest.fixture(scope="module")
def made_corrected(untouched) -> CropStore:
    """Crops of found cells, their fields corrected."""
    return make(untouched, untouched.parent / "both", BOTH)


@pytest.fixture
def source(untouched, tmp_path) -> Path:
    """A copy of the screen to edit."""
    return shutil.copytree(untouched, tmp_path / "screen")


@pytest.fixture
def crops(made, tmp_path) -> Path:
    """A copy of the crops of found cells, as old as they are."""
    return shutil.copytree(made.folder, tmp_path / "crops")


@pytest.fixture
def searched(monkeypatch) -> list[str]:
    """The plates of the fields that are searched from here on."""
    plates: list[str] = []
    find = prepare_plate.find_in_field

    def counted(screen, field, *, channel, config):
        plates.append(field["plate"])
        return find(screen, field, channel=channel, config=config)

    monkeypatch.setattr(prepare_plate, "find_in_field", counted)
    return plates


def test_most_planted_nuclei_have_a_crop_around_them(untouched, made):
    truth = pd.read_parquet(untouched / "truth.parquet")
    truth = truth.merge(made.cells[FIELD].drop_duplicates(), on=FIELD)
    inside = truth["y_px"].between(20, 140 - 21) & truth["x_px"].between(20, 150 - 21)
    distances = []
    for _, cell in truth[inside].iterrows():
        found = made.cells[(made.cells[FIELD] == cell[FIELD]).all(axis=1)]
        distances.append(np.hypot(found["y"] - cell["y_px"], found["x"] - cell["x_px"]).min())
    assert len(distances) > 60
    assert np.mean(np.array(distances) <= 5) > 0.9  # benchmarks/nuclei.py: nine in ten, and more where cells are few
    assert made.about["source"]["cells"] == "found"


def test_crops_are_the_field_around_what_was_found(untouched, made):
    screen = read_screen(untouched, layout="bbbc021")
    kept = [pd.read_parquet(made.folder / "nuclei" / f"{plate}.parquet") for plate in made.plates]
    known = pd.concat(kept).set_index([*FIELD, "object_number"])
    for (plate, well, site), cells in made.cells.groupby(FIELD):
        own = known.loc[[(plate, well, site, number) for number in cells["object_number"]]]
        assert (own[["y", "x"]].to_numpy() == cells[["y", "x"]].to_numpy()).all()
        field = field_of(screen, plate, well, site)
        expected = cut(field, cells["y"].to_numpy(), cells["x"].to_numpy(), 36)
        assert (made.take(cells.index.to_numpy()) == expected).all()


def field_of(screen, plate, well, site) -> np.ndarray:
    row = screen.table[(screen.table[FIELD] == [plate, well, site]).all(axis=1)].iloc[0]
    return read_field({name: screen.folder / row[f"file_{name}"] for name in screen.channels}, where="here")


@pytest.mark.parametrize("config", [FOUND, BOTH], ids=["found", "found and corrected"])
def test_run_again_nothing_is_read_and_nothing_written(untouched, made, made_corrected, monkeypatch, config):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a field is read")

    folder = (made if config is FOUND else made_corrected).folder
    before = times(folder)
    for module in (prepare_plate, cutting, nuclei):
        monkeypatch.setattr(module, "read_field", refuse)
    make(untouched, folder, config)
    assert times(folder) == before


def test_an_image_made_newer_lets_its_plate_alone_be_searched_anew(source, made, crops, searched):
    dna = next(path for path in sorted((source / made.plates[1]).glob("*_w1*.tif")))
    tifffile.imwrite(dna, np.flip(tifffile.imread(dna)))
    before = files(crops)
    make(source, crops)
    assert set(searched) == {made.plates[1]}
    changed = {name for name, content in files(crops).items() if content != before[name]}
    assert changed == {
        "about.json",
        f"nuclei/{made.plates[1]}.parquet",
        f"quality/{made.plates[1]}.parquet",
        *(f"{made.plates[1]}.{kind}" for kind in ("npy", "parquet")),
    }


def test_other_settings_search_all_plates_anew_and_the_first_give_the_first_crops(untouched, made, crops, searched):
    first = files(crops)
    make(untouched, crops, replace(FOUND, nucleus_um=20.0))
    assert set(searched) == set(made.plates)
    assert files(crops)[f"nuclei/{made.plates[0]}.parquet"] != first[f"nuclei/{made.plates[0]}.parquet"]
    make(untouched, crops)
    assert files(crops) == first


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "truncated":
        path.write_bytes(content[:-1])
    elif how == "nothing":
        path.write_bytes(b"")
    else:
        content[int(how)] ^= 0xFF  # a bit that the disk lost, among the values or in what says how to read them
        path.write_bytes(content)


@pytest.mark.parametrize("how", ["truncated", "nothing", *map(str, range(40, 5000, 334))])
def test_damaged_nuclei_are_found_again(untouched, made, tmp_path, monkeypatch, how):
    plate = made.plates[0]
    folder = tmp_path / "crops"
    (folder / "nuclei").mkdir(parents=True)
    path = folder / "nuclei" / f"{plate}.parquet"
    shutil.copy2(made.folder / "nuclei" / path.name, path)
    table = pd.read_parquet(path)
    screen = read_screen(untouched, layout="bbbc021", plates=[plate])
    settings = FOUND.nuclei(usual_pixel_um=PIXEL_UM)
    by_field = dict(list(table.groupby(FIELD)))
    monkeypatch.setattr(  # what is found does not matter here
        prepare_plate, "find_in_field", lambda _, field, **__: by_field.get(tuple(field[FIELD]), table[:0])
    )
    damage(path, how)
    found = prepare_plate.found_centres(screen, folder, settings, at_once=AtOnce())
    pd.testing.assert_frame_equal(found, table, check_exact=True)
    again = prepare_plate.found_centres(screen, folder, settings, at_once=AtOnce())
    pd.testing.assert_frame_equal(again, table, check_exact=True)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_killed_in_the_middle_of_searching_the_same_command_ends_with_the_same_files(untouched, made, tmp_path):
    command = [sys.executable, "-c", KILLED_AT, untouched, tmp_path, *MOMENTS]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.split() == [word for moment in MOMENTS for word in (moment, str(int(signal.SIGKILL)))]
    for moment in MOMENTS:
        assert not (tmp_path / moment / f"{made.plates[0]}.npy").exists()
        make(untouched, tmp_path / moment)
        assert files(tmp_path / moment) == files(made.folder)


def test_plates_searched_before_a_kill_are_not_searched_again(source, made, tmp_path, monkeypatch, searched):
    with monkeypatch.context() as patched:
        patched.setattr(prepare_plate, "_find_in_well", killed_in(made.plates[1], prepare_plate._find_in_well))
        with pytest.raises(KeyboardInterrupt):
            make(source, tmp_path / "crops")
    searched.clear()
    make(source, tmp_path / "crops")
    assert set(searched) == {made.plates[1]}


def killed_in(plate, find):
    def search(config, well):
        if well.table["plate"].iloc[0] == plate:
            raise KeyboardInterrupt
        return find(config, well)

    return search


@pytest.mark.slow
def test_two_processes_find_and_estimate_the_same_bytes(untouched, made_corrected, tmp_path):
    screen = read_screen(untouched, layout="bbbc021")
    two = AtOnce(processes=2)
    prepare_plate.found_centres(screen, tmp_path, BOTH.nuclei(usual_pixel_um=PIXEL_UM), at_once=two)
    prepare_plate.plate_illuminations(screen, tmp_path, BOTH.light(), at_once=two)
    by_one = files(made_corrected.folder)
    assert files(tmp_path) == {name: by_one[name] for name in by_one if name.startswith(("nuclei", "illumination"))}


def test_corrected_crops_are_the_corrected_field_around_the_centres(untouched, made_corrected):
    assert_corrected(untouched, made_corrected)


def assert_corrected(source, store) -> None:
    screen = read_screen(source, layout="bbbc021")
    raw = []
    for (plate, well, site), cells in store.cells.groupby(FIELD):
        field = field_of(screen, plate, well, site)
        light, _ = load_illumination(store.folder / "illumination" / f"{plate}.npz")
        taken = store.take(cells.index.to_numpy())
        centres = cells["y"].to_numpy(), cells["x"].to_numpy()
        assert (taken == cut(correct(field, light), *centres, 36)).all()
        raw.append((taken != cut(field, *centres, 36)).any())
    assert any(raw)


def test_other_settings_of_the_light_give_crops_of_the_other_light(untouched, made_corrected, tmp_path):
    folder, first = shutil.copytree(made_corrected.folder, tmp_path / "crops"), files(made_corrected.folder)
    assert_corrected(untouched, make(untouched, folder, replace(BOTH, illumination_px=32)))
    name = f"{made_corrected.plates[0]}.npy"
    assert files(folder)[name] != first[name]
    make(untouched, folder, BOTH)
    assert files(folder) == first


def test_nuclei_and_light_that_other_settings_made_are_taken_away(untouched, made_corrected, tmp_path):
    folder = shutil.copytree(made_corrected.folder, tmp_path / "crops")
    assert (folder / "illumination").is_dir()
    plain = make(untouched, folder)
    assert not (folder / "illumination").exists()
    assert len(list((folder / "nuclei").iterdir())) == len(plain.plates)
    centres = plain.cells[[*FIELD, "object_number", "y", "x"]]
    named = {"object_number": "ObjectNumber", "y": "Location_Center_Y", "x": "Location_Center_X"}
    centres.rename(columns=named).to_csv(tmp_path / "centres.csv", index=False)
    given = LayoutConfig(centres=tmp_path / "centres.csv")
    make_crops(untouched, folder, layout="bbbc021", config=CropConfig(crop_px=36, cells="given"), reading=given)
    assert not (folder / "nuclei").exists()


def test_damaged_light_is_estimated_again(untouched, made_corrected, tmp_path):
    folder = shutil.copytree(made_corrected.folder, tmp_path / "crops")
    damaged, kept = (folder / "illumination" / f"{plate}.npz" for plate in made_corrected.plates)
    before = kept.stat().st_mtime_ns
    damage(damaged, "5000")
    make(untouched, folder, BOTH)
    assert files(folder) == files(made_corrected.folder)
    assert kept.stat().st_mtime_ns == before


def test_too_few_fields_to_tell_the_light_are_refused_before_anything_is_written(untouched, tmp_path):
    with pytest.raises(InputError, match=r"10 fields, expected at least 60 .*--least-fields") as error:
        make(untouched, tmp_path / "crops", replace(BOTH, least_fields=60))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "crops").exists()


def test_cells_of_unknown_size_are_not_searched(tmp_path):
    source = write_image_table(write_images(tmp_path / "source"))
    with pytest.raises(InputError, match=r"give --pixel-size-um .* or --nucleus-px") as error:
        make_crops(source, tmp_path / "crops", layout="table", config=CropConfig(crop_px=8, cells="found"))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "crops").exists()


def blank(source: Path, pattern: str) -> None:
    for path in source.glob(pattern):
        tifffile.imwrite(path, np.zeros_like(tifffile.imread(path)))


def test_a_field_and_a_well_without_a_cell_leave_the_others_as_they_are(source, made, tmp_path):
    wells = made.cells["well"].unique()
    blank(source, f"{made.plates[0]}/*{wells[0]}*_w1*.tif")
    store = make(source, tmp_path / "crops", replace(FOUND, skip_missing=True))
    is_blank = (made.cells["plate"] == made.plates[0]) & (made.cells["well"] == wells[0])
    assert is_blank.any()
    pd.testing.assert_frame_equal(store.cells, made.cells[~is_blank].reset_index(drop=True))


def test_a_plate_without_a_cell_is_refused_or_counted(source, made, tmp_path):
    blank(source, f"{made.plates[0]}/*_w1*.tif")
    with pytest.raises(InputError, match=f'plate "{made.plates[0]}" has no cell'):
        make(source, tmp_path / "crops")
    store = make(source, tmp_path / "crops", replace(FOUND, skip_missing=True))
    assert store.plates == made.plates[1:]
    assert store.about["left_out"]["plates without cells"] == 1


def test_a_screen_without_any_cell_is_refused(source, tmp_path):
    blank(source, "*/*_w1*.tif")
    with pytest.raises(InputError, match='no nucleus is found in channel "DNA"') as error:
        make(source, tmp_path / "crops")
    assert "\n" not in str(error.value)


def test_what_is_asked_to_be_left_out_counts_as_noise(untouched, made, crops):
    assert not made.cells["is_noise"].any()
    blurred = replace(FOUND, focus_slope=-3.5, leave_out=("noise", "out of focus"))
    store = make(untouched, crops, blurred)
    is_blurred = store.cells["flags"].str.contains("out of focus")
    assert 0 < is_blurred.sum() < len(store)
    assert (store.cells["is_noise"] == is_blurred).all()
    flagged_alone = make(untouched, crops, replace(blurred, leave_out=("noise",)))
    assert (flagged_alone.cells["flags"] == store.cells["flags"]).all()
    assert not flagged_alone.cells["is_noise"].any()


LAYOUTS = {
    "table": (lambda folder: write_image_table(write_images(folder)), LayoutConfig()),
    "loaddata": (lambda folder: write_loaddata(write_plate_map(write_images(folder))), LayoutConfig()),
    "pattern": (
        lambda folder: write_plate_map(write_images(folder)),
        LayoutConfig(pattern="{plate}/{well}_s{site}_w{channel}.tif"),
    ),
    "ome-zarr": (lambda folder: write_plates(write_plate_map(folder)), LayoutConfig()),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_ends_in_crops_of_the_pixels_that_were_written(tmp_path, layout):
    write, reading = LAYOUTS[layout]
    (tmp_path / "source").mkdir()
    source = write(tmp_path / "source")
    centres = pd.DataFrame(fields(), columns=["Metadata_Plate", "Metadata_Well", "Metadata_Site"])
    number = np.arange(len(centres))
    centres = centres.assign(ObjectNumber=5, Location_Center_Y=10.0 + number, Location_Center_X=20.4)
    centres.to_csv(source / "Nuclei.csv", index=False)
    config = CropConfig(crop_px=8, treatments="all")
    store = make_crops(source, tmp_path / "crops", layout=layout, config=config, reading=reading)
    assert store.channels == CHANNELS
    assert list(map(tuple, store.cells[FIELD].to_numpy())) == fields()
    for row, field in enumerate(fields()):
        window = slice(10 + row - 4, 10 + row + 4), slice(16, 24)
        expected = np.stack([pixels(*field, channel)[window] for channel in CHANNELS])
        assert (store.take([row])[0] == expected).all()
