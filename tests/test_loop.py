"""The training loop: who is moved by what, what a resumed run ends with, and what stops it."""

import dataclasses
import os
import re
import signal

import numpy as np
import pandas as pd
import pytest
import torch

from phenolens.core.errors import InputError, Interrupted, RunError
from phenolens.crops.store import normalised
from phenolens.models.config import VAEPlusConfig
from phenolens.models.interface import Batch, turned
from phenolens.models.vaeplus import VAEPlus
from phenolens.training import device, loop
from phenolens.training.checkpoint import RunFolder, begin, built_model, trained_model
from phenolens.training.config import TrainConfig
from phenolens.training.data import Batches
from phenolens.training.device import Compute
from phenolens.training.embed import embed_crops
from trained_runs import trained

SMALL = VAEPlusConfig(width=4, latent_size=8, ramp_steps=3)
WITHOUT_DECAY = TrainConfig(network=dataclasses.replace(SMALL, weight_decay=0.0))
CONFIG = TrainConfig(steps=12, checkpoint_every=5, record_every=1, batch_size=6, network=SMALL, threads=1)


def stop_before_step(monkeypatch, asked: int) -> None:
    """Let SIGTERM come while the batch of this step is drawn."""
    draw = loop.TreatmentSampler.draw

    def draw_and_ask_to_stop(self, step, *, batches):
        signals = {asked: [signal.SIGTERM]}
        for number in signals.get(step, []):
            os.kill(os.getpid(), number)
        return draw(self, step, batches=batches)

    monkeypatch.setattr(loop.TreatmentSampler, "draw", draw_and_ask_to_stop)


def weights(run):
    return torch.load(run.checkpoint, weights_only=True)["model"]


@pytest.mark.parametrize("model", ["ae", "vae", "vaeplus"])
def test_a_run_that_goes_on_ends_bit_for_bit_where_the_unbroken_run_ends(store, compute, tmp_path, model):
    config = CONFIG.of_model(model)
    whole = trained(store, config, compute, tmp_path / "whole")
    trained(store, dataclasses.replace(config, steps=7), compute, tmp_path / "broken")
    broken = trained(store, config, compute, tmp_path / "broken")
    for (name, ours), theirs in zip(weights(whole).items(), weights(broken).values()):
        assert torch.equal(ours, theirs), name
    left, right = (pd.read_csv(run.folder / "history.csv") for run in (whole, broken))
    timing = ["seconds", "cells_per_second"]
    pd.testing.assert_frame_equal(left.drop(columns=timing), right.drop(columns=timing))


def test_a_run_of_no_steps_has_its_initial_weights_and_can_be_made_longer(store, compute, tmp_path):
    untrained = dataclasses.replace(CONFIG, steps=0)
    run = trained(store, untrained, compute, tmp_path / "run")
    initial = built_model(store, untrained).state_dict()
    assert all(torch.equal(weights(run)[name], value) for name, value in initial.items())
    model, _ = trained_model(run)
    assert np.isfinite(embed_crops(model, store.take(np.arange(4)), compute=compute)).all()
    longer, whole = (trained(store, CONFIG, compute, folder) for folder in (run.folder, tmp_path / "whole"))
    assert all(torch.equal(weights(longer)[name], value) for name, value in weights(whole).items())


def test_learning_rates_fall_to_zero_over_the_last_steps_only():
    config = dataclasses.replace(CONFIG, steps=10, cooldown_steps=4)
    assert [loop.cooldown(step, config) for step in range(10)] == [1, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]
    assert loop.cooldown(9, CONFIG) == 1
    optimisers = {"one": torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.5)}
    for share in (1.0, 0.5, 0.25):
        loop.set_learning_rates(optimisers, share=share)
        assert optimisers["one"].param_groups[0]["lr"] == 0.5 * share


def test_a_run_that_cools_down_and_goes_on_ends_where_the_unbroken_run_ends(store, compute, tmp_path, monkeypatch):
    config = dataclasses.replace(CONFIG, cooldown_steps=6, checkpoint_every=4)
    whole = trained(store, config, compute, tmp_path / "whole")
    stop_before_step(monkeypatch, 10)
    with pytest.raises(Interrupted):
        trained(store, config, compute, tmp_path / "broken")
    monkeypatch.undo()
    broken = trained(store, config, compute, tmp_path / "broken")
    assert all(torch.equal(a, b) for a, b in zip(weights(whole).values(), weights(broken).values()))
    with pytest.raises(InputError, match="steps 12 -> 20"):
        trained(store, dataclasses.replace(config, steps=20), compute, tmp_path / "broken")


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(store, compute, tmp_path):
    first, again = (weights(trained(store, CONFIG, compute, tmp_path / name)) for name in ("a", "b"))
    other = weights(trained(store, dataclasses.replace(CONFIG, seed=1), compute, tmp_path / "c"))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["encoder.head.kernel"], other["encoder.head.kernel"])


def test_reconstruction_gets_better_by_training(store, compute, tmp_path):
    config = dataclasses.replace(CONFIG.of_model("ae"), steps=60, batch_size=16)
    history = pd.read_csv(trained(store, config, compute, tmp_path / "run").folder / "history.csv")
    assert history["autoencoder.pixel"].tail(5).mean() < 0.7 * history["autoencoder.pixel"].head(3).mean()


def test_each_player_is_moved_by_its_own_loss_alone(store, compute):
    model = built_model(store, WITHOUT_DECAY).train()
    crops = compute.normalised(store.take(np.arange(8))).unflatten(0, (2, 4))
    losses = model.losses(Batch.unlabelled(crops, 100))
    players = model.players()
    zero = dataclasses.replace(losses["autoencoder"], total=losses["autoencoder"].total * 0)
    before = {name: value.clone() for name, value in model.named_parameters()}
    loop.take_gradients(players, {**losses, "autoencoder": zero}, clip_norm=None)
    loop.step_players(players)
    moved = {name.split(".")[0] for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {"discriminator"}


def test_gradients_are_laid_out_as_their_parameters_so_that_fused_optimisers_update_the_right_weights(store, compute):
    model = compute.place(built_model(store, CONFIG)).train()
    crops = compute.normalised(store.take(np.arange(8))).unflatten(0, (2, 4))
    seen = []
    players = model.players()
    for player in players.values():
        parameters = [p for group in player.optimiser.param_groups for p in group["params"]]
        player.optimiser.register_step_pre_hook(
            lambda *_, of=parameters: seen.extend(p.grad.stride() == p.stride() for p in of)
        )
    loop.take_gradients(players, model.losses(Batch.unlabelled(crops, 100)), clip_norm=None)
    loop.step_players(players)
    assert len(seen) == len(list(model.parameters()))
    assert all(seen)


def test_every_kernel_and_nothing_else_decays_by_the_same_share(store):
    model = built_model(store, CONFIG)
    before = {name: value.clone() for name, value in model.named_parameters()}
    for player in model.players().values():
        player.step()  # without gradients no optimiser moves anything
    for name, value in model.named_parameters():
        torch.testing.assert_close(value, before[name] * (1 - 1e-4 if name.endswith("kernel") else 1))


def test_clipping_bounds_the_gradient_that_moves_the_weights(store, compute):
    model = built_model(store, WITHOUT_DECAY).train()
    crops = compute.normalised(store.take(np.arange(8))).unflatten(0, (2, 4))
    players = {
        name: dataclasses.replace(player, optimiser=torch.optim.SGD(player.parameters(), lr=1.0))
        for name, player in model.players().items()
    }
    before = torch.cat([p.detach().flatten().clone() for p in players["autoencoder"].parameters()])
    loop.take_gradients(players, model.losses(Batch.unlabelled(crops, 0)), clip_norm=0.5)
    loop.step_players(players)
    after = torch.cat([p.detach().flatten() for p in players["autoencoder"].parameters()])
    assert float((after - before).norm()) == pytest.approx(0.5, rel=1e-3)


def test_crops_are_divided_by_each_channels_own_maximum_and_an_empty_channel_stays_zero(compute):
    crops = np.zeros((1, 2, 36, 36), np.uint16)
    crops[0, 0, 3, 4], crops[0, 0, 5, 5] = 400, 100
    x = compute.normalised(crops)
    assert x.max() == 1
    assert x[0, 0, 5, 5] == 0.25
    assert (x[0, 1] == 0).all()


def test_embedding_a_cell_does_not_depend_on_its_neighbours_in_the_batch(store, compute, tmp_path):
    model, _ = trained_model(trained(store, CONFIG, compute, tmp_path / "run"))
    crops = store.take(np.arange(20))
    together = embed_crops(model, crops, compute=compute)
    alone = embed_crops(model, crops[7:8], compute=compute)
    np.testing.assert_allclose(together[7:8], alone, rtol=1e-4, atol=1e-5)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(store, compute, tmp_path, monkeypatch):
    run = trained(store, dataclasses.replace(CONFIG, steps=5), compute, tmp_path / "run")
    kept = run.checkpoint.read_bytes()
    monkeypatch.setattr(VAEPlus, "feature_loss", lambda self, a, b: (a - b).sum() * float("nan"))
    with pytest.raises(RunError, match="loss of the autoencoder is not finite at step 5") as error:
        trained(store, CONFIG, compute, tmp_path / "run")
    assert run.checkpoint.read_bytes() == kept
    assert "\n" not in str(error.value)
    assert "feature_1 nan" in str(error.value)


def test_the_batch_that_a_run_broke_on_is_listed_cell_by_cell_until_it_is_tried_again(
    store, compute, tmp_path, monkeypatch
):
    monkeypatch.setattr(VAEPlus, "feature_loss", lambda self, a, b: (a - b).sum() * float("nan"))
    with pytest.raises(RunError, match=r"failed_batch.csv .*no checkpoint was due yet") as error:
        trained(store, CONFIG, compute, tmp_path / "run")
    monkeypatch.undo()
    listed = pd.read_csv(tmp_path / "run" / "failed_batch.csv")
    assert list(listed.columns) == ["step", "batch", "place", "cell_id", "plate", "well", "compound"]
    sampler = loop.TreatmentSampler(loop.sampled_treatments(store.cells), batch_size=6, seed=0)
    drawn = store.cells.iloc[sampler.draw(4, batches=2).ravel()]
    assert set(listed["step"]) == {4}
    assert list(zip(listed["batch"], listed["place"])) == [(batch, place) for batch in (1, 2) for place in range(1, 7)]
    for column in ("cell_id", "plate", "well", "compound"):
        assert list(listed[column]) == list(drawn[column])
    assert ", ".join(drawn["cell_id"][:3]) in str(error.value)
    trained(store, CONFIG, compute, tmp_path / "run")
    assert not (tmp_path / "run" / "failed_batch.csv").exists()


def test_a_gradient_that_is_not_finite_under_a_finite_loss_moves_no_weight(store, compute, tmp_path, monkeypatch):
    run = trained(store, dataclasses.replace(CONFIG, steps=5), compute, tmp_path / "run")
    monkeypatch.setattr(VAEPlus, "feature_loss", lambda self, a, b: (a - a).sum().sqrt())
    stepped = []
    monkeypatch.setattr(loop, "step_players", lambda *_: stepped.append(1))
    with pytest.raises(RunError, match="the gradient of the autoencoder is not finite at step 5"):
        trained(store, CONFIG, compute, run.folder)
    assert stepped == []


def test_where_a_look_at_a_number_must_be_waited_for_the_first_bad_step_is_found_before_anything_is_saved(
    store, compute, tmp_path, monkeypatch
):
    """As on a CUDA card: step 6 is bad, steps 7 to 9 are taken, the record due then asks and names step 6."""
    config = dataclasses.replace(CONFIG, record_every=5, watch_every=0)
    run = trained(store, dataclasses.replace(config, steps=5), compute, tmp_path / "run")
    kept = run.checkpoint.read_bytes()
    losses, asked = VAEPlus.losses, []

    def spoilt(self, batch):
        asked.append(batch.step)
        found = losses(self, batch)
        factor = float("nan") if batch.step == 6 else 1.0
        return {
            **found,
            "autoencoder": dataclasses.replace(found["autoencoder"], total=found["autoencoder"].total * factor),
        }

    monkeypatch.setattr(VAEPlus, "losses", spoilt)
    monkeypatch.setattr(Compute, "waits", False)
    with pytest.raises(RunError, match="a loss or its gradient is not finite at step 6;"):
        trained(store, config, compute, run.folder)
    assert asked == [5, 6, 7, 8, 9]
    assert run.checkpoint.read_bytes() == kept
    drawn = loop.TreatmentSampler(loop.sampled_treatments(store.cells), batch_size=6, seed=0).draw(6, batches=2)
    listed = pd.read_csv(run.folder / "failed_batch.csv")
    assert list(listed["cell_id"]) == list(store.cells["cell_id"].iloc[drawn.ravel()])


@pytest.mark.parametrize("kept", ["disk", "device"])
def test_batches_drawn_on_the_device_are_those_read_from_disk(store, compute, kept):
    rows = np.array([[5, 0, 7], [2, 2, len(store) - 1]])
    x = Batches(store, compute, input="peak", kept=kept).batch(rows, 0).x
    np.testing.assert_array_equal(x.flatten(0, 1).numpy(), normalised(store.take(rows.ravel())).astype(np.float32))
    assert x.shape == (2, 3, 3, 36, 36)
    raw = Batches(store, compute, input="raw", kept=kept).batch(rows, 0).x
    np.testing.assert_array_equal(raw.flatten(0, 1).numpy(), store.take(rows.ravel()).astype(np.float32))


def test_crops_can_be_shown_in_random_orientations(store, compute):
    rows = np.arange(len(store))[None]
    plain = Batches(store, compute, input="peak", kept="disk").batch(rows, 0).x[0]
    compute.seed(0, 0)
    seen = Batches(store, compute, input="peak", kept="disk", turns=8).batch(rows, 0).x[0]
    views = torch.stack([turned(plain, turn) for turn in range(8)])
    which = (views == seen).flatten(2).all(2)  # (8, N)
    assert which.any(0).all()
    assert which.any(1).all()


def test_pixels_of_the_whole_16_bit_range_are_seen_as_they_are(compute):
    crops = np.array([[[[0, 1], [40_000, 65_535]]]], np.uint16)
    torch.testing.assert_close(
        compute.normalised(crops)[0, 0], torch.tensor([[0, 1 / 65_535], [40_000 / 65_535, 1]]), rtol=1e-6, atol=0
    )


def test_a_run_with_crops_on_the_device_is_the_run_with_crops_on_disk(store, compute, tmp_path):
    disk, device = (
        weights(trained(store, dataclasses.replace(CONFIG, crops_kept=kept), compute, tmp_path / kept))
        for kept in ("disk", "device")
    )
    assert all(torch.equal(disk[name], device[name]) for name in disk)


def test_weights_that_are_not_finite_never_become_a_checkpoint(store, compute, tmp_path, monkeypatch):
    run = trained(store, dataclasses.replace(CONFIG, steps=5), compute, tmp_path / "run")
    kept = run.checkpoint.read_bytes()
    factors = iter([1.0] * 4 + [float("nan")])

    def spoil(players):
        players["autoencoder"].module[0].head.kernel.data *= next(factors)

    monkeypatch.setattr(loop, "step_players", spoil)
    with pytest.raises(RunError, match=r"what was learned \(model encoder.head.kernel\) is not finite at step 9"):
        trained(store, CONFIG, compute, tmp_path / "run")
    assert run.checkpoint.read_bytes() == kept


def test_speed_is_that_of_the_latest_record_whatever_came_before():
    history = [{"step": 10, "seconds": 100.0}, {"step": 20, "seconds": 101.0}]
    assert loop.speed(loop.Progress(step=30, seconds=103.0, history=history)) == 5
    assert loop.speed(loop.Progress(step=10, seconds=4.0)) == 2.5


@pytest.mark.parametrize(
    ("model", "columns"),
    [
        ("ae", {"autoencoder": ["pixel", "gradient_norm"]}),
        ("vae", {"autoencoder": ["pixel", "kl", "active_features", "gradient_norm"]}),
        (
            "vaeplus",
            {
                "autoencoder": ["pixel", "kl", "active_features", "gradient_norm"]
                + [f"{what}_{i}" for what in ("gamma", "feature") for i in (1, 2, 3, 4)],
                "discriminator": ["cross_entropy", "accuracy", "gradient_norm"],
            },
        ),
    ],
)
def test_the_history_holds_every_term_of_each_player(store, compute, tmp_path, model, columns):
    config = dataclasses.replace(CONFIG.of_model(model), steps=18, record_every=6, watch_every=0)
    history = pd.read_csv(trained(store, config, compute, tmp_path / "run").folder / "history.csv")
    of_players = {f"{player}.{name}" for player, names in columns.items() for name in names}
    assert set(history.columns) == of_players | {"step", "seconds", "cells_per_second"}
    assert list(history["step"]) == [6, 12, 18]
    assert history.iloc[-1].notna().all()


def test_a_request_to_stop_saves_first_and_the_run_goes_on(store, compute, tmp_path, monkeypatch):
    whole = trained(store, CONFIG, compute, tmp_path / "whole")
    stop_before_step(monkeypatch, 7)
    with pytest.raises(Interrupted, match="stopped at step 8 of 12"):
        trained(store, CONFIG, compute, tmp_path / "run")
    monkeypatch.undo()
    gone_on = trained(store, CONFIG, compute, tmp_path / "run")
    assert all(torch.equal(a, b) for a, b in zip(weights(whole).values(), weights(gone_on).values()))


def test_a_truncated_checkpoint_is_refused_in_one_line_that_says_what_to_do(store, compute, tmp_path):
    run = trained(store, CONFIG, compute, tmp_path / "run")
    run.checkpoint.write_bytes(run.checkpoint.read_bytes()[:-500])
    with pytest.raises(InputError, match=r"not a readable checkpoint.*delete .* to train it again") as error:
        trained(store, dataclasses.replace(CONFIG, steps=20), compute, tmp_path / "run")
    assert "\n" not in str(error.value)


def test_a_foreign_file_in_place_of_a_checkpoint_is_refused(store, compute, tmp_path):
    run = trained(store, CONFIG, compute, tmp_path / "run")
    torch.save({"something": torch.zeros(2)}, run.checkpoint)
    with pytest.raises(InputError, match="not a checkpoint of this version"):
        trained(store, CONFIG, compute, tmp_path / "run")


def test_a_run_of_other_settings_is_not_overwritten(store, compute, tmp_path):
    trained(store, CONFIG, compute, tmp_path / "run")
    other = dataclasses.replace(CONFIG, network=dataclasses.replace(SMALL, beta=7.0))
    with pytest.raises(InputError, match=r"trained with other settings \(beta 2.0 -> 7.0\)"):
        trained(store, other, compute, tmp_path / "run")
    with pytest.raises(InputError, match="has 12 steps already, more than --steps 4"):
        trained(store, dataclasses.replace(CONFIG, steps=4), compute, tmp_path / "run")


def test_a_run_that_is_not_finished_is_not_embedded(store, compute, tmp_path):
    run = trained(store, dataclasses.replace(CONFIG, steps=5), compute, tmp_path / "run")
    begin(run, store, CONFIG, compute)
    with pytest.raises(InputError, match="at step 5 of 12"):
        trained_model(run)


@pytest.mark.parametrize(
    "settings",
    [{"batch_size": 1}, {"batch_size": 10**12}, {"threads": 10**13}, {"held_out_wells": 1.0}, {"clip_norm": 0.0}],
)
def test_settings_no_machine_could_serve_are_refused(settings):
    flag, value = next(iter(settings.items()))
    with pytest.raises(InputError, match=f"--{flag.replace('_', '-')} {re.escape(str(value))}: "):
        dataclasses.replace(CONFIG, **settings)


def test_a_try_that_trained_nothing_does_not_take_the_runs_name(store, compute, tmp_path):
    run = RunFolder(tmp_path / "run")
    begin(run, store, dataclasses.replace(CONFIG, network=dataclasses.replace(SMALL, learning_rate=1e30)), compute)
    assert trained(store, CONFIG, compute, run.folder).origin().config == CONFIG


def test_a_device_that_cannot_train_is_refused():
    with pytest.raises(InputError, match="--device meta: "):
        Compute.chosen(device="meta", precision="float32", threads=1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of what torch itself does while it takes the graph
def test_compiled_models_train_one_after_the_other_in_one_process(store, compute, tmp_path, monkeypatch):
    """The graphs are taken as by `--compiled`; turning them into machine code is torch's."""
    compiled = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda network, **how: compiled(network, backend="aot_eager", **how)
    )
    for model in ("vae", "vaeplus"):  # one player, then two that share a forward pass
        settings = {"steps": 2, "batch_size": 4, "threads": 1, "watch_every": 1, "network": {"width": 4}}
        config = TrainConfig(model=model, compiled=True, **settings)
        assert trained(store, config, compute, tmp_path / model).checkpoint.exists()


@pytest.mark.parametrize(
    ("amx", "avx512", "name", "faster"),
    [
        (True, True, "Intel(R) Xeon(R) Processor", True),
        (False, True, "Intel(R) Xeon(R) Processor", False),
        (False, True, "AMD EPYC 9R14", True),
        (False, True, "Intel64 Family 6 Model 143 Stepping 8, GenuineIntel", False),
        (False, True, "AMD64", False),  # the name of all such Windows machines
        (False, False, "AMD EPYC 7B13", False),
    ],
)
def test_bfloat16_is_taken_where_it_is_faster_than_float32(monkeypatch, amx, avx512, name, faster):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(device, "processor_name", lambda: name)
    compute = device.Compute.chosen(device="cpu", precision="auto", threads=1)
    assert compute.precision == (torch.bfloat16 if faster else torch.float32)
