"""Measures of every cell: stored once per plate, in the order of the cells, with embeddings and profiles."""

import shutil

import numpy as np
import pandas as pd
import pytest

import phenolens as ph
from phenolens.crops.store import normalised
from phenolens.morphology.features import measures
from phenolens.study import Study
from travelling_study import RUN


@pytest.fixture(scope="module")
def study(explored, tmp_path_factory):
    made = Study.open(shutil.copytree(explored.folder, tmp_path_factory.mktemp("measured") / "study"))
    with pytest.raises(ph.InputError, match="phenolens measure"):
        made.measures()
    return ph.measure(made)


def test_each_cell_is_measured_in_the_order_of_cells(study):
    store = study.crops
    rows = np.array([0, len(store) // 2, len(store) - 1])
    expected = measures(normalised(store.take(rows)), channels=store.channels)
    pd.testing.assert_frame_equal(study.measures().iloc[rows].reset_index(drop=True), expected)
    assert study.measures(("nucleus_area_px",)).shape == (len(store), 1)


def test_a_repeated_measure_writes_nothing(study):
    written = {path: path.stat().st_mtime_ns for path in study.measures_folder.glob("*.parquet")}
    ph.measure(study)
    assert {path: path.stat().st_mtime_ns for path in study.measures_folder.glob("*.parquet")} == written
    assert len(written) == len(study.crops.plates)


def test_embeddings_and_profiles_have_measures_beside_them(study):
    name = "nucleus_area_px"
    area, cells = study.measures()[name], study.cells
    assert study.embeddings(RUN, measures=True).obs[name].tolist() == area.tolist()
    for level, keys in (("well", ["Metadata_Plate", "Metadata_Well"]), ("treatment", ["Metadata_Treatment"])):
        obs = study.profiles(RUN, level=level, measures=True).obs
        by_row = study.embeddings(RUN).obs.assign(area=area.to_numpy())[~cells["is_noise"].to_numpy()]
        for _, row in obs.iterrows():
            own = (by_row[keys].astype(str) == row[keys].astype(str)).all(axis=1)
            assert row[name] == pytest.approx(by_row.loc[own, "area"].mean(), nan_ok=True)
