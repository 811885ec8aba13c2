"""The scripts of docs/interop.md run, and each round trip gives back what went out."""

import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import phenolens as ph

PAGE = Path(__file__).parents[1] / "docs" / "interop.md"
NEGATIVE = "JCP2022_033924"


@pytest.fixture(scope="module")
def ran(explored, tiny_screen, tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    """The folder in which all scripts of the page ran, and their names."""
    folder = tmp_path_factory.mktemp("interop")
    shutil.copytree(explored.folder, folder / "STUDY")
    (folder / "SOURCE").symlink_to(tiny_screen)
    write_jump_profiles(folder)
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as monkeypatch, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Writing zarr v2")
        monkeypatch.chdir(folder)
        for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL):
            exec(compile(block, PAGE.name, "exec"), names)
    return folder, names


def write_jump_profiles(folder: Path) -> None:
    """profiles.parquet of three plates with the columns of the consortium, and its JCP2022 tables."""
    rng = np.random.default_rng(3)
    numbers = [f"JCP2022_{n:06d}" for n in range(1, 13)]
    wells = [(plate, f"{'ABCDEFGHIJKLMNOP'[n]}05", jcp) for plate in "pqr" for n, jcp in enumerate(numbers)]
    wells += [(plate, f"{row}24", NEGATIVE) for plate in "pqr" for row in "ABCDEFGH"]
    table = pd.DataFrame(wells, columns=["Metadata_Plate", "Metadata_Well", "Metadata_JCP2022"])
    table.insert(0, "Metadata_Source", "source_4")
    centres = {jcp: rng.normal(size=20) for jcp in numbers} | {NEGATIVE: np.zeros(20)}
    features = np.stack([centres[jcp] for jcp in table["Metadata_JCP2022"]]) + rng.normal(size=(len(table), 20))
    profiles = table.drop(columns="Metadata_JCP2022")
    profiles = pd.concat([profiles, pd.DataFrame(features, columns=[f"X_{n}" for n in range(1, 21)])], axis=1)
    profiles.to_parquet(folder / "profiles.parquet")
    (folder / "metadata").mkdir()
    table.to_csv(folder / "metadata" / "well.csv.gz", index=False)
    compounds = {"Metadata_JCP2022": numbers, "Metadata_target": [f"T{n // 3}" for n in range(12)]}
    pd.DataFrame(compounds).to_csv(folder / "metadata" / "compound.csv.gz", index=False)


def test_wells_as_a_table_score_as_the_studys_own(ran):
    folder, names = ran
    own = ph.evaluate(ph.Study(folder / "STUDY").wells_path("pca-seed0"), out=folder / "own")
    ours, theirs = (each.as_table() for each in (own, names["evaluation"]))
    pd.testing.assert_frame_equal(theirs, ours, check_dtype=False)


def test_activity_and_consistency_are_those_of_copairs(ran):
    names = ran[1]
    ours = names["activity"].set_index("name").sort_index()
    theirs = names["their_activity"].set_index("Metadata_Treatment").sort_index()
    assert list(ours.index) == list(theirs.index)
    assert len(ours) == 12
    for mine, column in (
        ("mean_average_precision", "mean_average_precision"),
        ("map_p_value", "p_value"),
        ("map_corrected_p_value", "corrected_p_value"),
    ):
        tolerance = 1e-6 if column.startswith("mean") else 0.02  # p-values are drawn
        np.testing.assert_allclose(ours[mine], theirs[column], atol=tolerance)
    ours = names["consistency"].set_index("Metadata_MoA").sort_index()
    theirs = names["their_consistency"].set_index("Metadata_MoA").sort_index()
    assert list(ours.index) == list(theirs.index) == ["T0", "T1", "T2", "T3"]
    for column in ("mean_average_precision", "p_value", "corrected_p_value"):
        tolerance = 1e-6 if column.startswith("mean") else 0.03
        np.testing.assert_allclose(ours[column], theirs[column], atol=tolerance)


def test_cells_as_zarr_are_the_studys(ran):
    folder, names = ran
    cells = ph.Study(folder / "STUDY").embeddings("pca-seed0")
    np.testing.assert_array_equal(names["cells"].X, cells.X)
    np.testing.assert_array_equal(names["first"], cells.X[:100])
    pd.testing.assert_frame_equal(names["cells"].obs.astype(str), cells.obs.astype(str), check_dtype=False)
    assert dict(names["cells"].uns) == dict(cells.uns)


def test_crops_return_from_scportraits_format(ran):
    folder = ran[0]
    ours, theirs = ph.Study(folder / "STUDY").crops, ph.Study(folder / "AGAIN").crops
    assert len(theirs) == len(ours)
    assert theirs.channels == ours.channels
    np.testing.assert_allclose(theirs.take([0, 5]), ours.take([0, 5]), rtol=2**-10, atol=2)  # float16
    kept = ["plate", "well", "site", "compound", "concentration_um", "role", "object_number", "y", "x"]
    back, out = (each.cells[kept].sort_values(kept, ignore_index=True) for each in (theirs, ours))
    pd.testing.assert_frame_equal(back, out, check_dtype=False)


def test_crops_return_from_deepprofilers_format(ran):
    folder = ran[0]
    ours, theirs = ph.Study(folder / "STUDY").crops, ph.Study(folder / "BACK").crops
    assert theirs.channels == ours.channels
    keys = ["plate", "well", "site", "y", "x"]
    both = ours.cells[keys].reset_index().merge(theirs.cells[keys].reset_index(), on=keys)
    in_source = ours.cells["well"] != "H12"  # a well that the fixture adds, without images
    assert len(both) == in_source.sum() == len(theirs)
    np.testing.assert_array_equal(theirs.take(both["index_y"]), ours.take(both["index_x"]))
