"""The adversarial rivals: each loss and constant against its formula, on numbers small enough to follow by hand."""

import math

import pytest
import torch
from torch.nn import functional as F

from phenolens.models import MODELS, gan, model_config
from phenolens.models.cytogan import gradient_penalty
from phenolens.models.interface import Batch

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
    assert [maps.shape[-1] for maps in model.discriminator.convolutions.maps(crops(side_px=side_px))] == maps_px
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
