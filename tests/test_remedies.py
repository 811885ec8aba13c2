"""The benchmark of what mends VAE+: each remedy trains, and the linear start is what it claims to be."""

from dataclasses import replace
from types import ModuleType

import pytest
import torch

from phenolens.models.config import VAEPlusConfig
from phenolens.models.interface import Batch
from phenolens.models.vaeplus import kl_per_feature
from test_benchmarks import rows, script, told

CONFIG = VAEPlusConfig(latent_size=6, width=4, beta=0.05, ramp_steps=10, feature_layers=2)
TINY = "--minutes 0.002 --width 4 --batch-size 6 --crop-px 36 --held-out-wells 0.2 --remedies plain linear"


@pytest.fixture
def remedies() -> ModuleType:
    module = script("remedies")
    torch.manual_seed(0)
    module.LinearStart.crops = torch.rand(40, 3, 36, 36)
    return module


def test_every_remedy_differs_from_vaeplus_and_moves_all_it_trains(remedies):
    batch = Batch.unlabelled(torch.rand(2, 8, 3, 36, 36), step=25)
    totals = {}
    for name, remedy in remedies.REMEDIES.items():
        torch.manual_seed(1)
        model = remedy.model(3, 36, replace(CONFIG, **remedy.settings))
        for player, part in model.players().items():
            total = model.losses(batch)[player].total
            gradients = torch.autograd.grad(total, part.parameters(), allow_unused=True)
            assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients), (name, player)
            totals[name, player] = total.item()
        assert model.eval().decode(model.embed(batch.x[0])).shape == (8, 3, 36, 36), name
    plain = totals.pop(("plain", "autoencoder"))
    of = {name: total for (name, player), total in totals.items() if player == "autoencoder"}
    same = {"turned", "beta", "paused", "averaged"}  # a setting here, or another step, not another loss
    assert {name for name, total in of.items() if total == pytest.approx(plain, rel=1e-6)} == same


def test_the_discriminator_rests_when_it_is_right_and_learns_when_it_is_not(remedies):
    model = remedies.Paused(3, 36, CONFIG)
    loss = model.losses(Batch.unlabelled(torch.rand(2, 8, 3, 36, 36), step=25))["discriminator"]
    assert loss.steps
    assert loss.total > remedies.LARSEN_FLOOR
    real, black = torch.rand(8, 3, 36, 36), torch.zeros(8, 3, 36, 36)
    player = model.players()["discriminator"]
    for _ in range(60):
        losses = model.losses(Batch.unlabelled(torch.stack([black, real]), step=0))["discriminator"]
        losses.total.backward()
        player.step()
    assert losses.total < remedies.LARSEN_FLOOR
    assert not losses.steps


def test_no_scaling_of_the_linear_start_has_a_smaller_loss(remedies):
    model = remedies.LinearStart(3, 36, CONFIG)
    linear, x = model.linear, remedies.LinearStart.crops

    def loss() -> float:
        """Pixel loss + beta KL, in expectation over the noise."""
        mean, log_variance = model.encoder(x)
        pixel = 0.5 * (model.decoder(mean) - x).square().sum((1, 2, 3)).mean()
        of_noise = 0.5 * (linear.to_x.square().sum(1) * log_variance[0].exp()).sum()
        return float(pixel + of_noise + CONFIG.beta * kl_per_feature(mean, log_variance).sum())

    with torch.no_grad():
        best = loss()
        for values in (linear.to_z, linear.to_x):
            for factor in (0.9, 1.1):
                values.mul_(factor)
                assert loss() > best
                values.div_(factor)
        for shift in (-0.2, 0.2):
            linear.log_variance += shift
            assert loss() > best
            linear.log_variance -= shift
        assert loss() == pytest.approx(best, rel=1e-5)


@pytest.mark.slow
def test_the_benchmark_prints_a_row_per_remedy_and_resumes_to_the_same(tiny_screen, tmp_path):
    command = ["remedies", tmp_path / "out", "--source", tiny_screen, "--layout", "bbbc021", *TINY.split()]
    table = rows(told(*command))
    assert set(table) == {"none", "linear start, beta 0.05"}
    plain, linear = (float(of[1]) for of in table.values())
    assert linear < 0.3 * plain  # a few steps teach a network nothing
    assert rows(told(*command)) == table
