"""The index of a store of many plates: one file to read, and never older than the plates' tables."""

import json
import shutil

import pandas as pd
import pytest

from phenolens.core.errors import InputError
from phenolens.core.files import write_parquet
from phenolens.crops import cells_index
from phenolens.crops.cells_index import INDEX, MANY_PLATES
from phenolens.crops.store import ABOUT, CropStore


@pytest.fixture
def many(store, tmp_path) -> CropStore:
    """A store of many plates, copies of one."""
    first = store.plates[0]
    cells = store.cells[store.cells["plate"] == first]
    about = {**store.about, "plates": {}}
    for number in range(MANY_PLATES):
        name = f"P{number:03d}"
        shutil.copy(store.folder / f"{first}.npy", tmp_path / f"{name}.npy")
        own = cells.assign(plate=name, cell_id=[f"{name}_{row}" for row in range(len(cells))])
        write_parquet(tmp_path / f"{name}.parquet", own, about={})
        about["plates"][name] = store.about["plates"][first]
    (tmp_path / ABOUT).write_text(json.dumps(about))
    return CropStore.open(tmp_path)


def test_the_index_holds_what_the_plates_hold_and_is_made_again_when_lost(many, monkeypatch):
    expected = pd.concat([pd.read_parquet(many.folder / f"{plate}.parquet") for plate in many.plates])
    for _ in range(2):
        pd.testing.assert_frame_equal(CropStore.open(many.folder).cells, expected.reset_index(drop=True))
        assert (many.folder / INDEX).is_file()
        (many.folder / INDEX).unlink()
    (many.folder / INDEX).write_bytes(b"damaged")
    pd.testing.assert_frame_equal(CropStore.open(many.folder).cells, expected.reset_index(drop=True))

    def refuse(self):
        raise AssertionError("the tables of the plates are read")

    monkeypatch.setattr(CropStore, "_plate_tables", refuse)
    pd.testing.assert_frame_equal(CropStore.open(many.folder).cells, expected.reset_index(drop=True))


def test_a_table_that_changed_is_read_again_and_a_damaged_one_refused(many):
    assert not many.cells["is_noise"].all()
    path = many.folder / f"{many.plates[3]}.parquet"
    write_parquet(path, pd.read_parquet(path).assign(is_noise=True), about={})
    cells = CropStore.open(many.folder).cells
    assert cells.loc[cells["plate"] == many.plates[3], "is_noise"].all()
    path.write_bytes(b"damaged")
    with pytest.raises(InputError, match=path.name):
        _ = CropStore.open(many.folder).cells


def test_crops_are_those_of_their_plate_and_damage_is_found_when_they_are_needed(many, store):
    n = many.about["plates"][many.plates[0]]["n_crops"]
    assert (many.take([n, 2 * n + 1]) == store.take([0, 1])).all()
    path = many.folder / f"{many.plates[-1]}.npy"
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(InputError, match=path.name):
        CropStore.open(many.folder).crops(many.plates[-1])
    path.unlink()
    with pytest.raises(InputError, match=path.name):
        CropStore.open(many.folder)


def test_a_folder_that_cannot_be_written_keeps_no_index(many, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cells_index, "write_whole", full)
    assert len(many.cells) == len(many)
