"""The adversarial rivals: each loss and constant against its formula, on numbers small enough to follow by hand."""

import dataclasses
import math

import pytest
import torch
from torch.nn import functional as F

from phenolens.models import MODELS, alphagan, bigan, gan, model_config, vaegan
from phenolens.models.began import next_k
from phenolens.models.cytogan import gradient_penalty
from phenolens.models.interface import Batch
from phenolens.training.config import TrainConfig
from trained_runs import trained

SIDE_PX = 36
TINY = {"width": 2, "latent_size": 3}
REAL, FAKE = torch.tensor([0.3, -1.0]), torch.tensor([0.5, 2.0])


def built(name: str, channels: int = 2, side_px: int = SIDE_PX, **settings):
    torch.manual_seed(0)
    return MODELS[name].build(channels, side_px, model_config(name, TINY | settings))


def crops(n: int = 4, channels: int = 2, side_px: int = SIDE_PX) -> torch.Tensor:
    return torch.rand(n, channels, side_px, side_px, generator=torch.Generator().manual_seed(1))


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


# what all share


def test_upsampling_and_convolving_at_once_is_one_after_the_other():
    stage = gan.UpsampledConvolution(3, 2)
    y = torch.randn(2, 3, 5, 5)
    expected = F.conv2d(F.interpolate(y, scale_factor=2, mode="nearest"), stage.kernel, padding=2)
    torch.testing.assert_close(stage.convolved(y), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("side_px", "root_px", "maps_px"), [(68, 9, [68, 34, 17, 9]), (45, 6, [45, 23, 12, 6])])
def test_networks_fit_any_side(side_px, root_px, maps_px):
    model = built("lsgan", side_px=side_px)
    assert model.generator.shape[1:] == (root_px, root_px)
    assert [
        maps.shape[-1] for maps in model.discriminator.features.convolutions.maps(crops(side_px=side_px))
    ] == maps_px
    assert model.draw(2, seed=0).shape == (2, 2, side_px, side_px)


def test_the_middle_of_a_drawing_is_kept():
    y = torch.arange(8.0).expand(1, 1, 8, 8)
    assert gan.cut(y, 5)[0, 0, 0].tolist() == [1, 2, 3, 4, 5]
    assert gan.cut(y, 4)[0, 0, 0].tolist() == [2, 3, 4, 5]


def test_labels_of_real_cells_are_smoothed_from_0_8_to_1():
    labels = gan.real_labels(torch.zeros(1000))
    assert 0.8 <= labels.min() < 0.81
    assert 0.99 < labels.max() <= 1


def test_dropout_keeps_the_mean():
    kept = gan.dropped(torch.ones(10_000), 0.2)
    assert set(kept.tolist()) == {0.0, 1.25}
    assert kept.mean().item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("name", ["dcgan", "lsgan", "wgan"])
def test_a_discriminator_sees_noise_of_a_tenth_in_training_only(name):
    discriminator = built(name).discriminator
    x = crops()
    assert (discriminator(x) != discriminator(x)).any()
    assert torch.equal(discriminator.eval()(x), discriminator(x))
    assert (gan.noisy(torch.zeros(100_000)).std() - 0.1).abs() < 1e-3


# CytoGAN


def test_dcgan_compares_with_labels_by_cross_entropy():
    model = built("dcgan")
    torch.manual_seed(5)
    loss = model.discriminator_loss(crops(), crops(), real=REAL, fake=FAKE)
    torch.manual_seed(5)
    labels = gan.real_labels(REAL).tolist()
    real = [-(y * math.log(sigmoid(r)) + (1 - y) * math.log(1 - sigmoid(r))) for y, r in zip(labels, REAL.tolist())]
    fake = [-math.log(1 - sigmoid(f)) for f in FAKE.tolist()]
    assert loss.total.item() == pytest.approx(sum(real + fake) / 4, rel=1e-5)
    assert loss.terms["accuracy"] == 0.25  # 0.3 alone is right
    wanted = [-math.log(sigmoid(f)) for f in FAKE.tolist()]
    assert model.generator_loss(FAKE).total.item() == pytest.approx(sum(wanted) / 2, rel=1e-5)


def test_lsgan_compares_with_labels_by_squared_error():
    model = built("lsgan")
    torch.manual_seed(5)
    loss = model.discriminator_loss(crops(), crops(), real=REAL, fake=FAKE)
    torch.manual_seed(5)
    real = (REAL - gan.real_labels(REAL)).square().sum().item()
    assert loss.total.item() == pytest.approx((real + 0.5**2 + 2**2) / 4, rel=1e-5)
    assert loss.terms["accuracy"] == 0
    assert model.generator_loss(FAKE).total.item() == pytest.approx((0.5**2 + 1) / 2)


def test_wgan_penalises_slopes_other_than_one():
    x = crops()
    direction = torch.randn(x[0].shape)
    direction *= 3 / direction.norm()
    assert gradient_penalty(lambda pictures: (pictures * direction).sum((1, 2, 3)), x).item() == pytest.approx(4)
    model = built("wgan")
    loss = model.discriminator_loss(x, x, real=REAL, fake=FAKE)
    assert loss.terms["distance"].item() == pytest.approx(-0.35 - 1.25)
    assert loss.total.item() == pytest.approx(10 * loss.terms["penalty"].item() + 1.6, rel=1e-5)
    assert model.generator_loss(FAKE).total.item() == pytest.approx(-1.25)


@pytest.mark.parametrize(
    ("name", "discriminator", "generator"), [("dcgan", 5e-5, 1e-5), ("lsgan", 7e-5, 2e-4), ("wgan", 7e-5, 2e-4)]
)
def test_cytogan_learns_at_the_published_rates(name, discriminator, generator):
    players = built(name).players()
    groups = {player: each.optimiser.param_groups[0] for player, each in players.items()}
    assert groups["discriminator"]["lr"] == discriminator
    assert groups["generator"]["lr"] == generator
    assert all(group["betas"] == (0.5, 0.999) for group in groups.values())


def test_cytogan_embeds_by_what_the_discriminators_output_is_made_of():
    model = built("lsgan").eval()
    x = crops()
    losses = model.losses(Batch.unlabelled(x[None], 0))
    assert set(losses) == {"discriminator", "generator"}
    torch.testing.assert_close(
        model.discriminator.to_output(model.embed(x)).flatten(), model.discriminator(2 * x - 1), rtol=1e-5, atol=1e-6
    )


def test_a_model_without_a_decoder_shows_what_it_draws_while_it_trains(store, compute, tmp_path):
    config = TrainConfig(model="lsgan", network=TINY, batch_size=4, steps=3, watch_every=2, threads=1)
    run = trained(store, config, compute, tmp_path / "run")
    assert {path.name for path in (run.folder / "drawn").iterdir()} == {f"step-{n:06d}.png" for n in (1, 2, 3)}
    assert (run.folder / "drawn.png").exists()
    assert not list(run.folder.glob("reconstructions*"))
    assert not (run.folder / "drawn.csv").exists()
    again = trained(store, dataclasses.replace(config, steps=2), compute, tmp_path / "again")
    trained(store, config, compute, again.folder)
    assert (run.folder / "drawn.png").read_bytes() == (again.folder / "drawn.png").read_bytes()


# BEGAN


def test_began_weighs_the_error_of_drawn_cells_by_k():
    model = built("began")
    model.k.fill_(0.5)
    losses = model.losses(Batch.unlabelled(crops()[None], 0))
    real, drawn = (losses["discriminator"].terms[name].item() for name in ("real", "drawn"))
    assert losses["discriminator"].total.item() == pytest.approx(real - 0.5 * drawn)
    assert losses["generator"].total.item() == pytest.approx(drawn)
    assert model.k.item() == pytest.approx(0.5 + 1e-3 * (0.75 * real - drawn))


def test_k_starts_near_zero_and_stays_between_that_and_one():
    assert built("began").k.item() == pytest.approx(1e-8)
    k, one = torch.tensor(0.2), torch.tensor(1.0)
    assert next_k(k, 8 * one, 2 * one).item() == pytest.approx(0.204)
    assert next_k(k * 0, 0 * one, one).item() == pytest.approx(1e-8)
    assert next_k(one, one, 0 * one).item() == 1


def test_began_reconstructs_what_its_noisy_encoder_did_not_see_noisy():
    model = built("began").eval()
    x = 2 * crops() - 1
    reconstruction = 2 * model.decode(model.embed(crops())) - 1
    assert model.error(x).item() == pytest.approx((x - reconstruction).abs().mean().item(), rel=1e-5)
    model.train()
    assert model.error(x) != model.error(x)


def test_a_stage_of_began_is_three_convolutions_and_halves_the_side():
    encoder = built("began", side_px=68, width=2).discriminator["encoder"]
    strides = [convolution.stride for convolution in encoder.convolutions]
    assert strides == [2, 1, 1] * 4
    assert [len(convolution.kernel) for convolution in encoder.convolutions[::3]] == [2, 4, 8, 12]
    assert encoder.to_code.in_features == 12 * 5 * 5


# BiGAN and ALI


@pytest.mark.parametrize("name", ["bigan", "ali"])
def test_generator_and_encoder_want_the_reverse_of_the_discriminator(name, monkeypatch):
    model, labels = built(name), torch.tensor([0.9, 0.8])
    logits = iter([REAL, FAKE])  # of the real pairs first
    monkeypatch.setattr(model.discriminator, "forward", lambda x, z: next(logits))
    monkeypatch.setattr(bigan, "real_labels", lambda logits: labels)
    losses = model.losses(Batch.unlabelled(crops(2)[None], 0))
    real, fake = REAL.sigmoid(), FAKE.sigmoid()
    assert losses["generator"].total.item() == pytest.approx(-fake.log().mean().item(), rel=1e-5)
    assert losses["encoder"].total.item() == pytest.approx(-(1 - real).log().mean().item(), rel=1e-5)
    y = torch.ones(2) if name == "ali" else labels
    of_real = -(y * real.log() + (1 - y) * (1 - real).log())
    expected = torch.cat([of_real, -(1 - fake).log()]).mean().item()
    assert losses["discriminator"].total.item() == pytest.approx(expected, rel=1e-5)


def test_noise_is_uniform_for_bigan_and_normal_for_ali():
    cells = torch.zeros(20_000, 1)
    of_bigan, of_ali = built("bigan").noise(cells), built("ali").noise(cells)
    assert (of_bigan.abs() <= 1).all()
    assert of_bigan.std().item() == pytest.approx(3**-0.5, rel=0.02)
    assert of_ali.std().item() == pytest.approx(1, rel=0.02)


def test_ali_embeds_by_the_mean_of_what_it_draws_from(monkeypatch):
    model = built("ali").eval()
    posterior = torch.tensor([1.0, -2.0, 0.0, 0.0, math.log(4), math.log(9)])
    monkeypatch.setattr(model.encoder, "forward", lambda x: posterior.expand(20_000, 6))
    draws = model.encode(crops())
    torch.testing.assert_close(draws.mean(0), torch.tensor([1.0, -2.0, 0.0]), rtol=0, atol=0.1)
    torch.testing.assert_close(draws.std(0), torch.tensor([1.0, 2.0, 3.0]), rtol=0.05, atol=0)
    assert model.embed(crops())[0].tolist() == [1, -2, 0]


# alpha-GAN


def test_alphagan_sums_over_reconstructions_and_drawn_cells():
    logits = torch.tensor([[0.3, -1.0], [0.5, 2.0], [-0.4, 0.0]])
    d = logits.double().sigmoid()
    expected = -d[0].log().mean() - (1 - d[1]).log().mean() - (1 - d[2]).log().mean()
    loss = alphagan.judging(logits)
    assert loss.total.item() == pytest.approx(expected.item(), rel=1e-5)
    assert loss.terms["accuracy"].item() == pytest.approx((1 / 2 + 1 / 4) / 2)
    fooled = ((1 - d[1:]).log() - d[1:].log()).mean(1).sum()
    assert alphagan.fooling(logits).item() == pytest.approx(fooled.item(), rel=1e-5)


def test_alphagan_adds_the_mean_absolute_error_on_the_scale_of_minus_one_to_one():
    model = built("alphagan", pixel_weight=7.0).eval()
    x = crops()
    losses = model.losses(Batch.unlabelled(x[None], 0))
    error = 2 * (x - model.decode(model.embed(x))).abs().mean().item()
    for player in ("encoder", "generator"):
        fooling = losses[player].terms["fooling"].item()
        assert losses[player].total.item() == pytest.approx(7 * error + fooling, rel=1e-4)
    of_codes = model.code_discriminator(model.embed(x)).mean().item()
    assert losses["encoder"].terms["fooling"].item() == pytest.approx(-of_codes, rel=1e-4)


def test_alphagans_discriminators_step_every_second_time():
    players = built("alphagan").players()
    every = {name: player.every for name, player in players.items()}
    assert every == {"encoder": 1, "generator": 1, "discriminator": 2, "code_discriminator": 2}
    assert all(player.optimiser.param_groups[0]["betas"] == (0.5, 0.9) for player in players.values())


# VAE-GAN


def test_vaegan_compares_the_maps_of_one_layer_and_its_players_have_opposite_losses():
    model = built("vaegan", feature_share=0.25).eval()
    x = 2 * crops() - 1
    torch.manual_seed(4)
    losses = model.losses(Batch.unlabelled(crops()[None], 0))
    torch.manual_seed(4)
    mean, log_variance = model.encoder(x)
    z = mean + (log_variance / 2).exp() * torch.randn(4, 3)
    maps, logits = model.discriminator(torch.cat([x, model.generator(z), model.generator(torch.randn(4, 3))]))
    kl = 0.5 * (log_variance.exp() + mean**2 - 1 - log_variance).sum(1).mean()
    features = 0.5 * (maps[:4] - maps[4:8]).square().sum((1, 2, 3)).mean()
    d = logits.sigmoid()
    of_real, of_fakes = -d[0].log().mean(), -(1 - d[1]).log().mean() - (1 - d[2]).log().mean()
    totals = {name: loss.total.item() for name, loss in losses.items()}
    assert totals["encoder"] == pytest.approx((kl + features).item(), rel=1e-4)
    assert totals["discriminator"] == pytest.approx((of_real + of_fakes).item(), rel=1e-4)
    assert totals["generator"] == pytest.approx((0.25 * features - 0.75 * of_fakes).item(), rel=1e-4)
    assert maps.shape == (12, 16, 5, 5)
    assert maps.min() < 0  # before the ReLU


@pytest.mark.parametrize(
    ("real", "fake", "discriminator", "generator"),
    [
        (0.68, 0.68, True, True),
        (0.32, 0.68, False, True),  # the discriminator is ahead
        (0.68, 0.32, False, True),
        (1.04, 0.68, True, False),  # the generator is ahead
        (0.68, 1.04, True, False),
        (0.32, 1.04, True, True),  # both would wait
    ],
)
def test_the_player_that_is_ahead_waits(real, fake, discriminator, generator):
    assert vaegan.stepping(real, fake) == {"discriminator": discriminator, "generator": generator}


def test_a_player_that_waits_stays_as_it_is(store, compute, tmp_path, monkeypatch):
    monkeypatch.setattr(vaegan, "stepping", lambda real, fake: {"discriminator": False, "generator": True})
    config = TrainConfig(model="vaegan", network=TINY, steps=2, batch_size=4, record_every=1, threads=1)
    untrained = trained(store, dataclasses.replace(config, steps=0), compute, tmp_path / "untrained")
    run = trained(store, config, compute, tmp_path / "run")
    first, last = (torch.load(each.checkpoint, weights_only=True)["model"] for each in (untrained, run))
    moved = {name.split(".")[0] for name in first if "running" not in name and not torch.equal(first[name], last[name])}
    assert moved == {"encoder", "generator"}
    record = torch.load(run.checkpoint, weights_only=True)["history"][-1]
    assert "discriminator.accuracy" in record
    assert "discriminator.gradient_norm" not in record


# beta-VAE


def test_betavae_is_the_vae_with_a_beta_of_four():
    weights = {name: model_config(name, {}) for name in ("vae", "betavae")}
    assert dataclasses.asdict(weights["betavae"]) == dataclasses.asdict(weights["vae"]) | {"beta": 4.0}
