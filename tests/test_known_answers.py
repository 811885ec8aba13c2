"""The benchmarks that hold pictures against planted answers: that they count right, and notice what is wrong."""

import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from phenolens import pipeline
from phenolens.core.mapped_rows import MappedRows
from phenolens.crops.store import normalised
from phenolens.morphology.features import measure_names
from phenolens.runs.catalogue import Catalogue
from phenolens.runs.embeddings import EmbeddedCells
from phenolens.screens.screen import treatment_name
from phenolens.simulation.phenotypes import MECHANISMS, UNTREATED
from phenolens.training.config import TrainConfig
from test_benchmarks import script

planted, known, batches = script("planted"), script("known_answers"), script("batch_or_biology")


def test_every_declared_parameter_and_measure_exists_and_every_mechanism_moves_one():
    names = measure_names(planted.CHANNELS, nuclei="DNA")
    assert {shows.measure for shows in planted.SHOWS} <= set(names)
    assert all(hasattr(UNTREATED, shows.parameter) and shows.sign in (-1, 1) for shows in planted.SHOWS)
    for target in MECHANISMS.values():
        assert any(planted.is_moved(target, shows.parameter) for shows in planted.SHOWS)
    assert not any(planted.is_moved(UNTREATED, shows.parameter) for shows in planted.SHOWS)


def test_cells_drawn_with_larger_nuclei_alone_are_measured_to_have_them():
    grown = planted.drawn_crops(replace(UNTREATED, nucleus_radius_px=22), fields=2, seed=3)
    usual, again = (planted.drawn_crops(UNTREATED, fields=2, seed=3) for _ in range(2))
    np.testing.assert_array_equal(usual.crops, again.crops)
    assert usual.crops.shape == (len(usual.truth), 3, 68, 68)
    large, small = (planted.measured(each.crops)["nucleus_area_px"].median() for each in (grown, usual))
    assert large / small == pytest.approx((22 / 16.3) ** 2, rel=0.1)


ALONE = pd.DataFrame(
    [
        ("large", "nucleus_radius_px", 25, "nucleus_area_px", 1, 5.0, 60),
        ("large", "nucleus_lobing", 0.1, "nucleus_solidity", -1, -1.0, 60),
        ("smooth", "tubulin_diffuse", 2, "tubulin_fine_texture", -1, -2.0, 60),
        ("smooth", "cell_radius_px", 30, "cell_area_px", -1, 3.0, 60),  # against the declared sign: not shown
        ("still", "n_actin_aggregates", 4, "actin_spots", 1, 0.2, 60),  # hardly seen
    ],
    columns=["mechanism", "parameter", "value", "measure", "sign", "effect_alone", "n_cells"],
)


def test_the_planted_parameter_has_the_largest_effect_with_the_declared_sign():
    chosen = known.planted_parameters(ALONE)
    assert chosen["parameter"].to_dict() == {"large": "nucleus_radius_px", "smooth": "tubulin_diffuse"}


def changes(large: dict[str, float], smooth: dict[str, float]) -> pd.DataFrame:
    """Changes of the four measures that the planted table names, 0 where not given."""
    return pd.DataFrame({"large": large, "smooth": smooth}, index=ALONE["measure"].unique()).T.fillna(0.0)


@pytest.mark.parametrize(
    ("change", "others", "holds"),
    [(2.0, {}, True), (2.0, {"cell_area_px": 3.0}, True), (-2.0, {}, False),
     (2.0, {"cell_area_px": 3.0, "actin_spots": -4.0}, False)],
)  # fmt: skip
def test_a_mechanism_holds_with_the_planted_sign_at_first_or_second_rank(change, others, holds):
    found = changes({"nucleus_area_px": change, **others}, {"tubulin_fine_texture": -1.0})
    rows = known.held(ALONE, found, "direction", 0, "vae").set_index(["mechanism", "label"])
    assert rows.loc[("large", "large"), "holds"] == holds
    assert rows.loc[("smooth", "smooth"), "holds"]
    assert rows.loc[("large", "large"), "any_holds"] == holds  # lobing, which it moves too, changed nothing
    assert not rows.loc[("smooth", "large"), "sign_right"]  # nothing changed there: no sign


def test_another_parameter_that_the_mechanism_is_seen_to_move_counts_for_any():
    found = changes({"nucleus_solidity": -2.0, "actin_spots": 1.0}, {"cell_area_px": -1.0})
    rows = known.held(ALONE, found, "direction", 0, "vae").set_index(["mechanism", "label"])
    assert not rows.loc[("large", "large"), "holds"]
    assert rows.loc[("large", "large"), "any_holds"]
    assert not rows.loc[("smooth", "smooth"), "any_holds"]  # the cell's area was seen to grow, against what is declared


def test_a_measure_that_could_not_be_taken_does_not_hold():
    found = changes({"nucleus_area_px": np.nan}, {"tubulin_fine_texture": -1.0}).astype(float)
    found.loc["large", "nucleus_area_px"] = np.nan
    rows = known.held(ALONE, found, "direction", 0, "vae").set_index(["mechanism", "label"])
    assert not rows.loc[("large", "large"), "holds"]


def test_shuffled_labels_hold_as_often_as_chance_has_it():
    names = [f"m{k}" for k in range(12)]
    rows = [(a, b, a == b) for a in names for b in names]
    own_alone = pd.DataFrame(rows, columns=["mechanism", "label", "holds"])
    counted = known.shuffled(own_alone)
    assert counted.mean() == pytest.approx(1, abs=0.05)  # a permutation leaves one label in its place on average
    assert (counted == 12).mean() < 0.001
    assert (known.shuffled(own_alone.assign(holds=True)) == 12).all()


def test_the_table_counts_mechanisms_over_draws():
    both = changes({"nucleus_area_px": 2.0}, {"tubulin_fine_texture": -1.0})
    one = changes({"nucleus_area_px": 2.0}, {"tubulin_fine_texture": 1.0})
    table = pd.concat(
        [known.held(ALONE, each, "direction", draw, "vae") for draw, each in enumerate((both, both, one))]
    )
    [row] = known.counts(table).to_dict("records")
    assert (row["holds"], row["sign_right"], row["first_two"]) == ("2 (1 to 2)", "2 (1 to 2)", "2")


def embedded(rng: np.random.Generator, *, batch_px: float) -> EmbeddedCells:
    """Cells of two batches that lie apart along one feature, and of a mechanism that moves another."""
    wells = [
        (b, f"{b}{w}", role) for b in ("W1", "W2") for role, n in (("control", 6), ("treated", 4)) for w in range(n)
    ]
    obs = pd.DataFrame([well for well in wells for _ in range(40)], columns=["batch", "well", "role"])
    obs["well"] += obs["role"]
    obs["plate"], obs["compound"] = obs["batch"], np.where(obs["role"] == "control", "DMSO", "drug " + obs["batch"])
    obs["moa"] = np.where(obs["role"] == "control", "", "mechanism")
    obs["concentration_um"], obs["is_noise"] = np.where(obs["role"] == "control", 0.0, 1.0), False
    z = rng.normal(size=(len(obs), 10))
    z[obs["batch"] == "W2", 0] += batch_px
    z[obs["role"] == "treated", 1] += 6
    return EmbeddedCells(MappedRows([len(z)], lambda _: z), Catalogue.of(obs))


def test_a_planted_batch_difference_is_named_and_a_mechanism_is_not(rng):
    rows = pd.DataFrame(list(batches.shares("run", embedded(rng, batch_px=8), 5))).set_index(1)
    assert (rows.loc["placebo in one batch", 6]).all()
    assert not rows.loc[["placebo in all batches", "mechanism", "compound, own batch's controls"], 6].any()
    assert rows.loc["mechanism", 4].max() < 0.05
    assert rows.loc["compound", 4].min() > 0.15  # each lies in one batch: half the batch's difference is in it


def test_without_a_batch_difference_nothing_is_named(rng):
    rows = pd.DataFrame(list(batches.shares("run", embedded(rng, batch_px=0), 5))).set_index(1)
    assert not rows.loc[["mechanism", "compound", "placebo in all batches"], 6].any()


def test_a_study_is_taken_from_its_run_to_the_table(tiny_study, tmp_path, monkeypatch, capsys):
    config = TrainConfig(model="pca", network=dict(latent_size=12), threads=1, precision="float32")
    pipeline.train(tiny_study, config, name="pca-seed0")
    pipeline.embed(tiny_study, "pca-seed0", pipeline.EmbedConfig(threads=1))
    names = sorted(set(tiny_study.crops.cells["moa"].dropna()))
    shown = ("nucleus_area_px", "cell_area_px", "actin_mean", "actin_spots")
    rows = [(name, "any", 20, measure, 1, 2.0, 60) for name, measure in zip(names, shown, strict=True)]
    pd.DataFrame(rows, columns=ALONE.columns).to_csv(tmp_path / "planted.csv", index=False)
    flags = ["--planted", tmp_path / "planted.csv", "--study", tiny_study.folder, "--starts", 3, "--draws", 0, 1]
    flags += ["--ways", "target cell"]
    cells = tiny_study.crops.cells.query("role == 'treated'")
    monkeypatch.setattr(sys, "argv", ["known_answers.py", *map(str, [tmp_path / "out", *flags])])
    assert known.main() == 0
    table = pd.read_csv(tmp_path / "out" / "known_answers.csv")
    ways = table.groupby(["run", "way"], sort=False).size().to_dict()
    expected = {("-", "real cells"): 16, ("pca-seed0", "reconstructions"): 16}
    assert ways == expected | {("pca-seed0", way): 32 for way in ("target cell", "target cell, residual")}
    agreement = pd.read_csv(tmp_path / "out" / "agreement.csv")
    assert set(agreement["treatment"]) == set(treatment_name(cells["compound"], cells["concentration_um"]))
    assert (agreement["n_agree"] <= agreement["n_largest"]).all()
    assert table["change"].notna().all()
    assert set(table["rank"]) == {1, 2, 3, 4}
    real = table[(table["way"] == "real cells") & (table["mechanism"] == names[0]) & (table["label"] == names[0])]
    store = tiny_study.crops
    found = known.measured(normalised(store.take(np.arange(len(store)))))["nucleus_area_px"]
    control, treated = store.cells["role"] == "control", store.cells["moa"] == names[0]
    change = (found[treated].mean() - found[control].mean()) / found[control].std()
    assert real["change"].item() == pytest.approx(change, rel=1e-5)
    assert "✗" in capsys.readouterr().out


def test_what_is_missing_is_told_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path / "out"), "--planted", str(tmp_path), "--study", str(tmp_path)])
    assert known.main() == 2
    assert "no study here" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path / "out"), "--study", str(tmp_path)])
    assert planted.main() == 2
    assert "--study, --screen: expected both or neither" in capsys.readouterr().err
    assert batches.main() == 2
    assert list(tmp_path.iterdir()) == []
