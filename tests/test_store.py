import json

import numpy as np
import pandas as pd
import pytest

from bbbc021_source import write_source
from phenolens.core.errors import InputError
from phenolens.crops.config import CropConfig
from phenolens.crops.make_crops import make_crops
from phenolens.crops.store import CropStore, whole_npy, write_npy


@pytest.fixture
def store(tmp_path):
    return make_crops(write_source(tmp_path / "in"), tmp_path / "crops", layout="bbbc021", config=CropConfig(crop_px=8))


def refusal(folder) -> str:
    with pytest.raises(InputError) as error:
        _ = CropStore.open(folder).cells
    assert "\n" not in str(error.value)
    return str(error.value)


def test_take_gives_the_crops_of_the_rows_in_the_order_asked(store, rng):
    all_crops = np.concatenate([store.crops(plate) for plate in store.plates])
    rows = rng.integers(0, len(store), 100)
    np.testing.assert_array_equal(store.take(rows), all_crops[rows])


def test_the_rows_of_take_are_the_rows_of_the_table(store):
    for plate in store.plates:
        rows = store.cells.index[store.cells["plate"] == plate]
        np.testing.assert_array_equal(store.take(rows), store.crops(plate))


def test_take_of_nothing_has_the_shape_of_no_crops(store):
    assert store.take([]).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("row", [-1, 12])
def test_take_refuses_rows_that_are_not_there(store, row):
    assert len(store) == 12
    with pytest.raises(IndexError):
        store.take([0, row])


def test_crops_on_disk_cannot_be_written_to_and_taken_ones_can(store):
    with pytest.raises(ValueError, match="read-only"):
        store.crops(store.plates[0])[0, 0, 0, 0] = 1
    taken = store.take([0])
    taken[:] = 0
    assert store.take([0]).min() > 0


def test_the_files_are_what_numpy_and_pandas_read(store):
    plate = store.plates[1]
    np.testing.assert_array_equal(np.load(store.folder / f"{plate}.npy"), store.crops(plate))
    table = pd.read_parquet(store.folder / f"{plate}.parquet")
    assert table["cell_id"].tolist() == store.cells["cell_id"][store.cells["plate"] == plate].tolist()


def test_npy_files_are_numpys_own_byte_for_byte(tmp_path, rng):
    crops = rng.integers(0, 65_536, (10, 3, 5, 5), dtype=np.uint16)
    write_npy(tmp_path / "ours.npy", (crops[i : i + 3] for i in range(0, 10, 3)), crops.shape)
    np.save(tmp_path / "numpys.npy", crops)
    assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "numpys.npy").read_bytes()


def test_a_full_disk_leaves_no_file(tmp_path, rng):
    def crops_then_full_disk():
        yield rng.integers(0, 65_536, (2, 3, 5, 5), dtype=np.uint16)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_npy(tmp_path / "crops.npy", crops_then_full_disk(), (4, 3, 5, 5))
    assert list(tmp_path.iterdir()) == []


def test_a_plate_without_crops_is_a_whole_file_too(tmp_path):
    write_npy(tmp_path / "none.npy", [], (0, 3, 5, 5))
    assert whole_npy(tmp_path / "none.npy", (0, 3, 5, 5))
    assert np.load(tmp_path / "none.npy").shape == (0, 3, 5, 5)


def test_identity_is_of_what_is_in_the_store(tmp_path):
    one = make_crops(write_source(tmp_path / "a"), tmp_path / "1", layout="bbbc021", config=CropConfig(crop_px=8))
    same = make_crops(write_source(tmp_path / "b"), tmp_path / "2", layout="bbbc021", config=CropConfig(crop_px=8))
    other = make_crops(tmp_path / "a", tmp_path / "3", layout="bbbc021", config=CropConfig(crop_px=6))
    assert one.identity == same.identity
    assert one.identity != other.identity


def test_a_folder_without_crops_is_refused(tmp_path):
    assert "no crops here" in refusal(tmp_path)
    (tmp_path / "about.json").write_text('{"format": "something else"}')
    assert "no crops here" in refusal(tmp_path)


def test_crops_that_were_not_finished_are_refused(store):
    about = json.loads((store.folder / "about.json").read_text())
    (store.folder / "about.json").write_text(json.dumps({**about, "complete": False}))
    assert "the crops were not finished; run the same `phenolens crop` again" in refusal(store.folder)


def test_crops_of_another_version_are_refused(store):
    about = json.loads((store.folder / "about.json").read_text())
    (store.folder / "about.json").write_text(json.dumps({**about, "version": 99}))
    assert "crops of version 99, expected 2" in refusal(store.folder)


@pytest.mark.parametrize("suffix", ["npy", "parquet"])
def test_a_missing_part_is_named(store, suffix):
    path = store.folder / f"{store.plates[0]}.{suffix}"
    path.unlink()
    assert refusal(store.folder).startswith(f"{path}: damaged (missing)")


@pytest.mark.parametrize("suffix", ["npy", "parquet"])
@pytest.mark.parametrize("n_bytes", [0, 60, -1])
def test_a_part_that_is_cut_short_is_named(store, suffix, n_bytes):
    path = store.folder / f"{store.plates[0]}.{suffix}"
    path.write_bytes(path.read_bytes()[:n_bytes])
    assert refusal(store.folder).startswith(f"{path}: damaged (")
