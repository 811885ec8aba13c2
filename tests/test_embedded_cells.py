"""Embedded cells: rows that lie in several files, their means and the cell nearest to them."""

import h5py
import numpy as np
import pandas as pd
import pytest

from phenolens.core import mapped_rows
from phenolens.core.errors import InputError
from phenolens.core.mapped_rows import MappedRows
from phenolens.embedding_files import mapped_embeddings
from phenolens.models.config import PCAConfig
from phenolens.pipeline import EmbedConfig, embed, embeddings, train
from phenolens.runs.catalogue import Catalogue
from phenolens.runs.embeddings import EmbeddedCells
from phenolens.training.config import TrainConfig


def in_parts(z: np.ndarray, *ends: int) -> MappedRows:
    """The rows of z in parts that end before these rows."""
    parts = np.split(z, ends)
    return MappedRows([len(part) for part in parts], lambda number: parts[number])


def cells(z: np.ndarray) -> EmbeddedCells:
    table = pd.DataFrame({"well": [f"B{row:02d}" for row in range(len(z))]})
    table = table.assign(plate="P", batch="B", compound="DMSO", concentration_um=0.0, moa="", role="control")
    table["is_noise"] = False
    return EmbeddedCells(in_parts(z, len(z) // 2), Catalogue.of(table))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(mapped_rows, "BLOCK", 3)


def test_rows_are_those_of_the_joined_parts_in_the_order_asked_for(rng):
    z = rng.normal(size=(20, 4)).astype(np.float32)
    rows = in_parts(z, 0, 7, 7, 19)  # two parts have no rows
    assert (len(rows), rows.shape) == (20, (20, 4))
    asked = rng.integers(0, 20, 50)
    np.testing.assert_array_equal(rows[asked], z[asked])
    np.testing.assert_array_equal(np.concatenate(list(rows.blocks(asked))), z[asked])
    np.testing.assert_array_equal(rows[7], z[7])
    np.testing.assert_array_equal(np.asarray(rows), z)
    assert rows[[]].shape == (0, 4)
    for row in (-1, 20):
        with pytest.raises(IndexError, match="of 20"):
            rows[[3, row]]


def test_only_parts_with_rows_that_are_asked_for_are_mapped_and_few_stay_so(monkeypatch):
    monkeypatch.setattr(mapped_rows, "MOST_MAPPED", 2)
    mapped = []
    rows = MappedRows([5] * 4, lambda number: mapped.append(number) or np.full((5, 1), number))
    assert rows.shape == (20, 1)  # that of the first part
    np.testing.assert_array_equal(rows[[17, 6, 16]], [[3], [1], [3]])
    assert mapped == [0, 3, 1]
    rows[[6, 16]]
    assert mapped == [0, 3, 1]
    rows[[0, 6]]
    assert mapped == [0, 3, 1, 0, 1]


def test_means_and_distances_in_blocks_are_those_of_all_rows_at_once(rng):
    z = rng.normal(size=(40, 5)).astype(np.float32)
    rows, weights = rng.permutation(40)[:17], rng.dirichlet(np.ones(17))
    found = cells(z)
    np.testing.assert_allclose(found.mean(rows), z[rows].mean(axis=0, dtype=float), rtol=1e-12)
    np.testing.assert_allclose(found.mean(rows, weights), weights @ z[rows].astype(float), rtol=1e-12)
    away = np.square(z[rows] - z[3].astype(float)).sum(axis=1)
    np.testing.assert_allclose(found.squared_distances(rows, z[3].astype(float)), away, rtol=1e-12)


def test_the_typical_cell_is_the_one_nearest_to_the_mean():
    z = np.array([[0.0, 0.0], [1.0, 0.0], [3.0, 1.0], [12.0, 3.0]])  # mean (4, 1), median (2, 0.5)
    assert cells(z).nearest_to_mean(np.arange(4)) == 2
    assert cells(z).nearest_to_mean(np.array([3, 2, 0])) == 2


def test_of_two_cells_equally_near_the_first_is_the_typical_one():
    assert cells(np.array([[-1.0], [1.0]])).nearest_to_mean(np.arange(2)) == 0


def test_cells_without_finite_embeddings_have_no_typical_one():
    with pytest.raises(InputError, match="finite"):
        cells(np.array([[np.nan, 1.0], [0.0, 1.0]])).nearest_to_mean(np.arange(2))


def test_embeddings_are_mapped_from_their_files_or_read_where_they_are_compressed(tiny_study):
    study, run = tiny_study, "pca-seed0"
    train(study, TrainConfig(model="pca", network=PCAConfig(latent_size=4)), name=run)
    embed(study, run, EmbedConfig(threads=1))
    store = study.crops
    expected = np.concatenate([np.asarray(table.X) for table in embeddings(study, run)])
    mapped = mapped_embeddings(study, run, store)
    np.testing.assert_array_equal(mapped, expected)
    assert isinstance(mapped.part(0).base, np.memmap)
    path = study.embeddings_folder(run) / f"{store.plates[0]}.h5ad"
    with h5py.File(path, "r+") as file:
        z = file["X"][:]
        del file["X"]
        file.create_dataset("X", data=z, compression="gzip")
    again = mapped_embeddings(study, run, store)
    np.testing.assert_array_equal(again, expected)
    assert not isinstance(again.part(0).base, np.memmap)
