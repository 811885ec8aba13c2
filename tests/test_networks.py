"""Networks: sides, first weights, batch normalisation, and the fast convolutions against the literal ones."""

import math

import pytest
import torch

from naive import normed, upsampled, zero_padded_convolution
from phenolens.core.errors import InputError
from phenolens.models.config import VAEPlusConfig
from phenolens.models.interface import Batch
from phenolens.models.layers import (
    BatchNorm,
    Convolution,
    in_picture_order,
    initialised_kernel,
    taps_onto_source,
    transposed_convolution_by_parity,
    transposed_convolution_of_points,
    transposed_convolution_of_upsampled,
)
from phenolens.models.vaeplus import Decoder, Discriminator, Encoder, VAEPlus, last_side_px

PAPER = VAEPlusConfig()
SMALL = VAEPlusConfig(width=8, latent_size=16)


def sides_through(module: torch.nn.Module, run) -> list[int]:
    """Output side of every convolution of `module`, in the order of events, from its number of pixels."""
    sides: list[int] = []
    hooks = [
        part.register_forward_hook(lambda _part, _inputs, out: sides.append(math.isqrt(out.shape[-2] * out.shape[-1])))
        for part in module.modules()
        if isinstance(part, Convolution)
    ]
    run()
    for hook in hooks:
        hook.remove()
    return sides


def test_the_encoder_convolves_68_px_to_64_28_10_and_1():
    encoder = Encoder(3, 68, PAPER)
    assert sides_through(encoder, lambda: encoder(torch.rand(2, 3, 68, 68))) == [64, 28, 10, 1]
    mean, log_variance = encoder(torch.rand(2, 3, 68, 68))
    assert mean.shape == log_variance.shape == (2, 256)


def test_the_decoder_convolves_to_5_14_32_68_and_then_1x1_to_the_channels():
    decoder = Decoder(3, 68, PAPER)
    assert sides_through(decoder, lambda: decoder(torch.randn(2, 256))) == [5, 14, 32, 68, 68]
    assert decoder(torch.randn(2, 256)).shape == (2, 3, 68, 68)


def test_hidden_layers_of_the_discriminator_hold_the_papers_number_of_values():
    pairs, real, fake = Discriminator(3, 68, PAPER)(*torch.rand(3, 2, 3, 68, 68), n_layers=4)
    shapes = [(32, 32, 32), (32, 14, 14), (32, 5, 5), (64, 1, 1)]
    assert [tuple(of_x.shape[1:]) for of_x, _ in pairs] == shapes
    assert [tuple(of_fake.shape[1:]) for _, of_fake in pairs] == shapes
    assert real.shape == fake.shape == (2,)


@pytest.mark.parametrize("n_layers", [0, 1, 2, 3, 4])
def test_originals_pass_no_further_through_the_discriminator_than_the_last_layer_that_counts(monkeypatch, n_layers):
    convolved, n_convolved = Convolution.convolved, []
    monkeypatch.setattr(Convolution, "convolved", lambda self, x: (n_convolved.append(len(x)), convolved(self, x))[1])
    pairs, _, _ = Discriminator(3, 68, SMALL)(*torch.rand(3, 2, 3, 68, 68), n_layers=n_layers)
    assert len(pairs) == n_layers
    assert len(n_convolved) == 5 * 2 + n_layers  # five convolutions of two batches, and those of the originals


@pytest.mark.parametrize(("channels", "crop_px"), [(1, 36), (2, 68), (6, 100)])
def test_other_channels_and_crop_sides_come_back_in_their_own_shape(channels, crop_px):
    x = torch.rand(3, channels, crop_px, crop_px)
    mean, _ = Encoder(channels, crop_px, SMALL)(x)
    assert Decoder(channels, crop_px, SMALL)(mean).shape == x.shape


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 6])
def test_one_to_six_channels_train(channels):
    torch.manual_seed(0)
    model = VAEPlus(channels, 36, VAEPlusConfig(width=4, latent_size=4, ramp_steps=1)).train()
    losses = model.losses(Batch.unlabelled(torch.rand(2, 4, channels, 36, 36), 10))
    for name, player in model.players().items():
        gradients = torch.autograd.grad(losses[name].total, player.parameters(), retain_graph=True)
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert sum(gradient.abs().sum() for gradient in gradients) > 0


def test_a_crop_side_that_does_not_fit_is_refused_with_the_nearest_that_do():
    with pytest.raises(InputError, match=r"64 px .*use 60 or 68 px"):
        last_side_px(64)
    with pytest.raises(InputError, match="use 36 or 44 px"):
        last_side_px(12)


def test_first_weights_are_normal_with_the_methods_deviation():
    kernel = initialised_kernel(512, 32, 5)
    assert kernel.std().item() == pytest.approx(math.sqrt(2 / (25 * 32 + 512)), rel=0.01)
    assert abs(kernel.mean().item()) < 0.001


def test_points_spread_by_a_product_equal_padded_points_convolved():
    z, kernel = torch.randn(3, 7, dtype=torch.float64), torch.randn(4, 7, 5, 5, dtype=torch.float64)
    literal = zero_padded_convolution(z[:, :, None, None], kernel)
    torch.testing.assert_close(transposed_convolution_of_points(z, kernel), literal)


def test_convolving_the_small_map_by_parities_equals_convolving_the_upsampled_one():
    y, kernel = torch.randn(2, 3, 6, 6, dtype=torch.float64), torch.randn(4, 3, 5, 5, dtype=torch.float64)
    literal = zero_padded_convolution(upsampled(y), kernel)
    torch.testing.assert_close(transposed_convolution_of_upsampled(y, kernel, taps_onto_source()), literal)
    in_parts = transposed_convolution_by_parity(y, kernel, taps_onto_source())
    torch.testing.assert_close(in_picture_order(in_parts), literal)
    # what works on each pixel by itself does not care for their order
    torch.testing.assert_close(in_picture_order(in_parts.tanh()), literal.tanh())


@pytest.mark.parametrize("n_moments", [1, 2, 3])
def test_batch_norm_by_joint_moments_equals_its_definition_and_its_gradients(n_moments):
    torch.manual_seed(1)
    norm = BatchNorm(3).double()
    with torch.no_grad():
        norm.weight.uniform_(-2, 2)
        norm.bias.normal_()
    ys = [(torch.randn(n, 3, 5, 5, dtype=torch.float64) * n + 50).requires_grad_() for n in (2, 4, 3)]
    wanted = [torch.randn_like(y) for y in ys]
    ours = norm.together(ys, n_moments=n_moments)
    moments_of = torch.cat(ys[:n_moments])
    literal = [normed(y, norm.weight, norm.bias, moments_of) for y in ys]
    over = (*ys, norm.weight, norm.bias)
    gradients = []
    for normed_maps in (ours, literal):
        # the last map is left out: what nobody needs has no gradient, yet it may have given moments
        total = sum((y * w).sum() for y, w in zip(normed_maps[:2], wanted))
        gradients.append(torch.autograd.grad(total, over, allow_unused=True, materialize_grads=True))
    for mine, plain in zip([*ours, *gradients[0]], [*literal, *gradients[1]]):
        torch.testing.assert_close(mine, plain, rtol=1e-9, atol=1e-9)


def test_running_averages_keep_nine_tenths_and_take_the_biased_variance():
    norm = BatchNorm(2)
    y = torch.randn(5, 2, 3, 3) * 2 + 7
    norm(y)
    torch.testing.assert_close(norm.running_mean, 0.1 * y.mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * y.var((0, 2, 3), unbiased=False))


def test_maps_that_give_no_moments_leave_the_running_averages_alone():
    first, second = BatchNorm(2), BatchNorm(2)
    independent, fake, real = torch.randn(3, 4, 2, 3, 3)
    first.together([independent, fake, real], n_moments=2)
    second.together([independent, fake, real + 100], n_moments=2)
    joint = torch.cat([independent, fake])
    for norm in (first, second):
        torch.testing.assert_close(norm.running_mean, 0.1 * joint.mean((0, 2, 3)))
        torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * joint.var((0, 2, 3), unbiased=False))


def test_evaluation_uses_the_running_averages_so_that_a_cell_does_not_depend_on_its_batch():
    encoder = Encoder(3, 36, SMALL)
    x = torch.rand(5, 3, 36, 36)
    encoder(x)
    encoder.eval()
    torch.testing.assert_close(encoder(x)[0][:1], encoder(x[:1])[0])
