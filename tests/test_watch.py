"""Watching a run: the same cells redrawn as it learns, the files it leaves, and that watching changes nothing."""

import dataclasses
import importlib.util
import itertools

import imagecodecs
import numpy as np
import pandas as pd
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from phenolens import cli
from phenolens.morphology.reconstruction_metrics import fidelity
from phenolens.training import loop
from phenolens.training.checkpoint import RunFolder, trained_model
from phenolens.training.config import TrainConfig
from phenolens.training.data import held_out_cells
from phenolens.training.embed import decode, embed_crops
from phenolens.training.monitor import film, grid, watched_cells
from trained_runs import trained

SMALL = {"width": 4, "latent_size": 8, "ramp_steps": 3}
CONFIG = TrainConfig(
    steps=12, checkpoint_every=5, record_every=1, watch_every=4, batch_size=6, network=SMALL, threads=1
)


class KilledError(Exception):
    """Stands for the end of the process."""


def kill_before_step(monkeypatch, asked: int) -> None:
    """Break the run off while the batch of this step is drawn, with nothing saved on the way out."""
    draw = loop.TreatmentSampler.draw

    def draw_or_break_off(self, step, *, batches):
        if step == asked:
            raise KilledError
        return draw(self, step, batches=batches)

    monkeypatch.setattr(loop.TreatmentSampler, "draw", draw_or_break_off)


def watched_files(run: RunFolder) -> dict[str, bytes]:
    """The files of watching by name."""
    paths = [*run.folder.glob("reconstructions*"), *run.folder.glob("reconstructions/*")]
    return {str(path.relative_to(run.folder)): path.read_bytes() for path in paths if path.is_file()}


# what is trained is the same


@pytest.mark.parametrize("model", ["ae", "vaeplus"])
def test_a_run_that_is_watched_learns_bit_for_bit_what_an_unwatched_one_learns(store, compute, tmp_path, model):
    config = CONFIG.of_model(model)
    watched, unwatched = (
        torch.load(run.checkpoint, weights_only=True)
        for run in (
            trained(store, dataclasses.replace(config, watch_every=1), compute, tmp_path / "watched"),
            trained(store, dataclasses.replace(config, watch_every=0), compute, tmp_path / "unwatched"),
        )
    )
    for name, ours in watched["model"].items():
        assert torch.equal(ours, unwatched["model"][name]), name
    for ours, theirs in zip(watched["history"], unwatched["history"], strict=True):
        assert {k: v for k, v in ours.items() if "second" not in k} == {
            k: v for k, v in theirs.items() if "second" not in k
        }


# the cells


def cells_of(wells: dict[str, tuple[str, float, str]], n: int) -> pd.DataFrame:
    """A table of n cells in each well, given as well: (compound, dose, role)."""
    rows = [
        {"plate": "p", "well": well, "compound": compound, "concentration_um": dose, "role": role, "is_noise": False}
        for well, (compound, dose, role) in wells.items()
        for _ in range(n)
    ]
    return pd.DataFrame(rows)


def test_the_watched_cells_are_of_many_compounds_and_of_each_ones_doses_with_the_control_first():
    wells = {f"B{i:02d}": (f"c{i % 5}", float(i // 5), "treated") for i in range(10)} | {
        "C01": ("DMSO", 0.0, "control")
    }
    cells = cells_of(wells, 20)
    rows = watched_cells(cells, held_out=np.zeros(len(cells), bool), seed=0)
    chosen = cells.iloc[rows]
    assert len(set(rows)) == 16
    assert chosen["role"].iloc[0] == "control"
    assert chosen["compound"].iloc[:6].nunique() == 6
    assert len(chosen.iloc[:11][["compound", "concentration_um"]].drop_duplicates()) >= 10
    other = watched_cells(cells, held_out=np.zeros(len(cells), bool), seed=1)
    assert list(rows) == list(watched_cells(cells, held_out=np.zeros(len(cells), bool), seed=0))
    assert list(rows) != list(other)


def test_the_watched_cells_are_of_held_out_wells_where_there_are_any_and_never_noise():
    wells = {f"B{i:02d}": (f"c{i % 3}", 1.0, "treated") for i in range(9)}
    cells = cells_of(wells, 10)
    cells.loc[::2, "is_noise"] = True
    held_out = held_out_cells(cells, share=0.4, seed=0)
    assert held_out.sum() == 40
    rows = watched_cells(cells, held_out=held_out, seed=0)
    assert len(rows) == 16
    assert held_out[rows].all()
    assert not cells["is_noise"].iloc[rows].any()


# the pictures


def test_each_original_stands_above_its_reconstruction(rng):
    originals, drawn = rng.integers(0, 256, (2, 11, 20, 20, 3), dtype=np.uint8)
    picture = grid(originals, drawn)[::3, ::3]
    np.testing.assert_array_equal(picture[1:21, 22:42], originals[1])
    np.testing.assert_array_equal(picture[22:42, 22:42], drawn[1])
    np.testing.assert_array_equal(picture[49:69, 22:42], originals[9])
    np.testing.assert_array_equal(picture[70:90, 22:42], drawn[9])


def test_the_film_shows_the_first_and_the_last_step_and_says_which(rng):
    originals = rng.integers(0, 200, (5, 36, 36, 3), dtype=np.uint8)
    drawn = {step: rng.integers(0, 200, (4, 36, 36, 3), dtype=np.uint8) for step in (7, *range(100, 4000, 100))}
    picture = film(originals, drawn)[::2, ::2]
    assert picture.shape == (14 + 4 * 37, 13 * 37 + 6, 3)
    np.testing.assert_array_equal(picture[14:50, :36], originals[0])
    np.testing.assert_array_equal(picture[14:50, 43:79], drawn[7][0])
    np.testing.assert_array_equal(picture[14 + 3 * 37 : 50 + 3 * 37, 43 + 11 * 37 : 79 + 11 * 37], drawn[3900][3])
    written = film(originals, drawn)[: 2 * 14].max(axis=(0, 2)) > 200
    assert not written[: 2 * 43].any()  # no label above the originals
    assert written[2 * 43 : 2 * 43 + 16].any()  # "7", one figure wide
    assert not written[2 * 43 + 16 : 2 * (43 + 37)].any()
    assert np.ptp(np.flatnonzero(written[2 * (43 + 11 * 37) :])) > 3 * np.ptp(np.flatnonzero(written[: 2 * (43 + 37)]))


def test_pictures_are_taken_at_the_first_step_each_so_many_and_the_last(store, compute, tmp_path):
    run = trained(store, dataclasses.replace(CONFIG, steps=10), compute, tmp_path / "run")
    taken = sorted(path.name for path in (run.folder / "reconstructions").iterdir())
    assert taken == ["step-000001.png", "step-000004.png", "step-000008.png", "step-000010.png"]
    table = pd.read_csv(run.folder / "reconstructions.csv")
    assert list(table.columns) == ["step", "channel", "error", "ssim", "power_ratio", "ring_correlation"]
    assert list(zip(table["step"], table["channel"])) == list(itertools.product([1, 4, 8, 10], store.channels))


def test_the_table_measures_what_the_trained_model_redraws_without_noise(store, compute, tmp_path):
    run = trained(store, CONFIG, compute, tmp_path / "run")
    model, _ = trained_model(run)
    rows = watched_cells(store.cells, held_out=np.zeros(len(store), bool), seed=0)
    crops = store.take(rows)
    drawn = decode(model, embed_crops(model, crops, compute=compute), compute=compute)
    expected = fidelity(compute.normalised(crops).numpy(), drawn, store.channels)
    table = pd.read_csv(run.folder / "reconstructions.csv").query("step == 12").reset_index(drop=True)
    pd.testing.assert_frame_equal(table.drop(columns="step"), expected, check_dtype=False, rtol=1e-4)


def test_a_linear_model_that_is_fitted_at_once_is_pictured_at_the_end(store, compute, tmp_path):
    run = trained(store, CONFIG.of_model("pca", latent_size=8), compute, tmp_path / "run")
    assert set(watched_files(run)) == {
        "reconstructions.csv",
        "reconstructions.npz",
        "reconstructions.png",
        "reconstructions/step-000012.png",
    }


@pytest.mark.parametrize("killed_before", [3, 6, 9, 11])
def test_killed_and_gone_on_with_the_pictures_are_those_of_the_unbroken_run(
    store, compute, tmp_path, monkeypatch, killed_before
):
    whole = trained(store, CONFIG, compute, tmp_path / "whole")
    kill_before_step(monkeypatch, killed_before)
    with pytest.raises(KilledError):
        trained(store, CONFIG, compute, tmp_path / "killed")
    monkeypatch.undo()
    killed = trained(store, CONFIG, compute, tmp_path / "killed")
    assert len(watched_files(whole)) == 7
    assert watched_files(killed) == watched_files(whole)


def test_how_often_it_is_watched_may_change_on_the_way_and_what_was_never_learned_is_not_shown(
    store, compute, tmp_path, monkeypatch
):
    kill_before_step(monkeypatch, 9)
    with pytest.raises(KilledError):
        trained(store, CONFIG, compute, tmp_path / "run")
    monkeypatch.undo()
    run = trained(store, dataclasses.replace(CONFIG, watch_every=6), compute, tmp_path / "run")
    assert list(pd.read_csv(run.folder / "reconstructions.csv")["step"].unique()) == [1, 4, 6, 12]
    taken = sorted(path.name for path in (run.folder / "reconstructions").iterdir())
    assert taken == [f"step-0000{step:02d}.png" for step in (1, 4, 6, 12)]
    picture = imagecodecs.png_decode((run.folder / "reconstructions.png").read_bytes())
    assert picture.shape[1] == 2 * (5 * 37 + 6)


# TensorBoard


def events_of(run: RunFolder) -> EventAccumulator:
    """What TensorBoard itself reads of a run."""
    events = EventAccumulator(str(run.folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    return events.Reload()


def test_tensorboard_reads_every_column_of_the_history_at_every_record_once(store, compute, tmp_path, monkeypatch):
    config = dataclasses.replace(CONFIG, tensorboard=True, record_every=2)
    kill_before_step(monkeypatch, 9)
    with pytest.raises(KilledError):
        trained(store, config, compute, tmp_path / "run")
    monkeypatch.undo()
    run = trained(store, config, compute, tmp_path / "run")
    history = pd.read_csv(run.folder / "history.csv").set_index("step")
    events = events_of(run)
    assert set(events.Tags()["scalars"]) == {name.replace(".", "/") for name in history.columns}
    for name in history.columns:
        logged = events.Scalars(name.replace(".", "/"))
        expected = history[name].dropna()
        assert [event.step for event in logged] == list(expected.index)
        np.testing.assert_allclose([event.value for event in logged], expected, rtol=1e-6)
    images = events.Images("reconstructions")
    assert [image.step for image in images] == [1, 4, 8, 12]
    last = imagecodecs.png_decode((run.folder / "reconstructions" / "step-000012.png").read_bytes())
    np.testing.assert_array_equal(imagecodecs.png_decode(images[-1].encoded_image_string), last)


def test_without_tensorboard_installed_the_install_line_is_said_before_anything_is_trained(
    tiny_study, monkeypatch, capsys
):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *of: {"tensorboard": None}.get(name, find(name, *of)))
    assert cli.main(["train", str(tiny_study.folder), "--tensorboard", "--steps", "2"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert 'pip install "phenolens[tensorboard]"' in said[0]
    assert tiny_study.runs == []
