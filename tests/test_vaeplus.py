"""AE, VAE and VAE+ against the literal method: losses, schedule, gradients, who learns from what."""

import copy
import dataclasses

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from naive import Iteration, vae_losses, vaeplus_losses
from phenolens.models.config import AEConfig, PCAConfig, VAEConfig, VAEPlusConfig
from phenolens.models.interface import Batch, Player
from phenolens.models.pca import PixelPCA
from phenolens.models.vaeplus import AE, VAE, VAEPlus, gammas, kl_per_feature, pixel_loss
from phenolens.training import loop
from plain_vaeplus import PlainVAEPlus


@pytest.fixture
def model():
    torch.manual_seed(3)
    made = VAEPlus(2, 68, VAEPlusConfig(width=8, latent_size=16, ramp_steps=100))
    return made.double().train()


@pytest.fixture
def crops():
    torch.manual_seed(4)
    return torch.rand(2, 5, 2, 68, 68, dtype=torch.float64)


@pytest.mark.parametrize("step", [0, 99, 150, 275, 500])
def test_every_loss_equals_the_literal_method(model, crops, step):
    torch.manual_seed(step)
    losses = model.losses(Batch.unlabelled(crops, step))
    torch.manual_seed(step)
    noise = torch.randn(5, 16, dtype=torch.float64)
    naive = vaeplus_losses(model, crops[0], crops[1], noise, step)
    assert losses["discriminator"].total.item() == pytest.approx(naive["discriminator"].item(), rel=1e-9)
    assert losses["autoencoder"].total.item() == pytest.approx(naive["autoencoder"].item(), rel=1e-9)
    for name in losses["autoencoder"].terms.keys() & naive.keys():
        assert float(losses["autoencoder"].terms[name]) == pytest.approx(naive[name].item(), rel=1e-9)


def test_gradients_of_both_players_equal_those_of_the_literal_method(model, crops):
    torch.manual_seed(0)
    losses = model.losses(Batch.unlabelled(crops, 450))
    torch.manual_seed(0)
    naive = vaeplus_losses(model, crops[0], crops[1], torch.randn(5, 16, dtype=torch.float64), 450)
    for name, player in model.players().items():
        parameters = player.parameters()
        ours = torch.autograd.grad(losses[name].total, parameters, retain_graph=True)
        literal = torch.autograd.grad(naive[name], parameters, retain_graph=True)
        for mine, plain in zip(ours, literal):
            assert (mine - plain).norm() <= 1e-9 * plain.norm() + 1e-9


def test_a_discriminator_layer_joins_after_its_period_and_is_full_one_period_later():
    assert gammas(2500, ramp_steps=2500, layers=4) == [0, 0, 0, 0]
    assert gammas(3750, ramp_steps=2500, layers=4) == [0.5, 0, 0, 0]
    assert gammas(5000, ramp_steps=2500, layers=4) == [1, 0, 0, 0]
    assert gammas(12_500, ramp_steps=2500, layers=4) == [1, 1, 1, 1]
    assert gammas(40_000, ramp_steps=2500, layers=4) == [1, 1, 1, 1]


def test_the_autoencoder_never_learns_to_fool(model, crops):
    """Before the first layer joins, nothing of the discriminator is in the autoencoder's loss."""
    torch.manual_seed(0)
    before = model.losses(Batch.unlabelled(crops, 100))["autoencoder"].total.item()
    with torch.no_grad():
        for parameter in model.discriminator.parameters():
            parameter.normal_()
    torch.manual_seed(0)
    assert model.losses(Batch.unlabelled(crops, 100))["autoencoder"].total.item() == before


def test_batch_norm_moments_of_the_discriminator_do_not_see_the_reconstructed_cells_originals(model, crops):
    """x joins the discriminator at step > T only for the feature losses: its running averages must not change."""
    other = VAEPlus(2, 68, model.config).double().train()
    other.load_state_dict(model.state_dict())
    torch.manual_seed(0)
    model.losses(Batch.unlabelled(crops, 0))  # x is not seen at all
    torch.manual_seed(0)
    other.losses(Batch.unlabelled(crops, 500))  # x is seen by every layer
    for mine, theirs in zip(model.discriminator.buffers(), other.discriminator.buffers()):
        torch.testing.assert_close(mine, theirs)


def test_kl_is_summed_over_features_and_zero_at_the_prior():
    assert float(kl_per_feature(torch.zeros(3, 4), torch.zeros(3, 4)).sum()) == 0
    assert float(kl_per_feature(torch.ones(3, 4), torch.zeros(3, 4)).sum()) == pytest.approx(2.0)


def test_pixel_loss_is_half_the_sum_of_squares_of_a_cell():
    assert float(pixel_loss(torch.ones(5, 3, 4, 4), torch.zeros(5, 3, 4, 4))) == pytest.approx(24.0)


def test_an_autoencoder_draws_no_noise_and_a_vae_does():
    x = torch.rand(1, 4, 1, 36, 36)
    for kind, config, same in ((AE, AEConfig, True), (VAE, VAEConfig, False)):
        made = kind(1, 36, config(width=4, latent_size=4)).train()
        values = {float(made.losses(Batch.unlabelled(x, 0))["autoencoder"].terms["pixel"]) for _ in range(3)}
        assert (len(values) == 1) is same


def test_the_papers_plain_sum_weighs_deeper_layers_less():
    config = VAEPlusConfig(width=32, latent_size=4, feature_loss_scale="sum")
    summed = VAEPlus(3, 68, config)
    scaled = VAEPlus(3, 68, VAEPlusConfig(width=32, latent_size=4))
    for shape, weight in (
        ((2, 32, 32, 32), 2.36),
        ((2, 32, 14, 14), 0.452),
        ((2, 32, 5, 5), 0.058),
        ((2, 64, 1, 1), 0.0046),
    ):
        a, b = torch.zeros(shape), torch.ones(shape)
        assert float(summed.feature_loss(a, b) / scaled.feature_loss(a, b)) == pytest.approx(weight, rel=0.01)


def test_pca_components_are_orthonormal_and_reconstruct_what_they_span(rng):
    basis = torch.from_numpy(rng.normal(size=(5, 36 * 36)))
    crops = (torch.from_numpy(rng.normal(size=(40, 5))) @ basis + 3).view(40, 1, 36, 36).float()
    pca = PixelPCA(1, 36, PCAConfig(latent_size=5))
    pca.fit(crops)
    torch.testing.assert_close(pca.components @ pca.components.T, torch.eye(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(pca.decode(pca.embed(crops)), crops, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("kind", "config", "beta"), [(AE, AEConfig, 0.0), (VAE, VAEConfig, 1.0)])
def test_ae_and_vae_equal_the_literal_method(crops, kind, config, beta):
    model = kind(2, 68, config(width=8, latent_size=16)).double().train()
    torch.manual_seed(0)
    loss = model.losses(Batch.unlabelled(crops[:1], 0))["autoencoder"]
    torch.manual_seed(0)
    naive = vae_losses(model, crops[0], None if kind is AE else torch.randn(5, 16, dtype=torch.float64), beta)
    assert loss.total.item() == pytest.approx(naive["autoencoder"].item(), rel=1e-9)
    assert {k: float(v) for k, v in loss.terms.items() if k in naive} == pytest.approx(
        {k: naive[k].item() for k in loss.terms if k in naive}, rel=1e-9
    )


def test_iterations_move_every_weight_as_the_literal_method_does(model, crops):
    """Three iterations with all four layers on: optimisers, momentum and decay, in the order of events."""
    literal = copy.deepcopy(model)
    iterate = Iteration(literal)
    players = model.players()
    for step in (600, 601, 602):
        torch.manual_seed(step)
        losses = model.losses(Batch.unlabelled(crops, step))
        loop.take_gradients(players, losses, clip_norm=None)
        loop.step_players(players)
        torch.manual_seed(step)
        iterate(crops[0], crops[1], torch.randn(5, 16, dtype=torch.float64), step)
    for (name, ours), theirs in zip(model.named_parameters(), literal.parameters()):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9, msg=name)


def test_the_plain_pytorch_that_speed_is_compared_with_has_our_losses(crops):
    model = VAEPlus(2, 68, VAEPlusConfig(width=4, latent_size=8)).double().train()
    plain = PlainVAEPlus(2, width=4, latent=8).double().train()
    with torch.no_grad():
        for theirs, ours in zip(plain.parameters(), model.parameters()):
            theirs.copy_(ours)
    for step in (0, 9_000):
        torch.manual_seed(step)
        ours = model.losses(Batch.unlabelled(crops, step))
        torch.manual_seed(step)
        noise = torch.randn(crops.shape[1], 8, dtype=torch.float64)
        theirs = plain.losses(crops[0], crops[1], noise, model.weights(step))
        for loss, other in zip(ours.values(), theirs):
            torch.testing.assert_close(other.double(), loss.total, rtol=1e-4, atol=0)  # plain: losses in float32


def test_nothing_in_a_step_waits_for_the_device(crops):
    """No number is read from the device, and none is brought to it: on a card either would stop the processor."""
    model = VAEPlus(2, 68, VAEPlusConfig(width=4, latent_size=8, ramp_steps=100)).train()
    players = model.players()
    for step in (0, 450):
        with Waits():
            losses = model.losses(Batch.unlabelled(crops.float(), step))
            loop.take_gradients(players, losses, clip_norm=1.0)
            loop.step_players({"discriminator": players["discriminator"]})  # Adam counts its steps on a processor
    with pytest.raises(AssertionError), Waits():
        float(losses["autoencoder"].total)


class Waits(TorchDispatchMode):
    """AssertionError on an operation that waits for the device."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        waiting = ("_local_scalar_dense", "lift_fresh", "nonzero", "equal")
        assert operation.overloadpacket.__name__ not in waiting, operation
        return operation(*args, **(kwargs or {}))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of what torch itself does while it takes the graph
@pytest.mark.parametrize("size", [36, 68])  # the second size finds the graphs of the first
def test_compiled_networks_compute_the_same_losses_without_a_break_in_the_graph(crops, size):
    """The graph is taken as by `--compiled`; turning it into machine code is torch's."""
    torch.manual_seed(0)
    model = VAEPlus(2, size, VAEPlusConfig(width=4, latent_size=8, ramp_steps=100)).train()
    compiled = copy.deepcopy(model)
    for network in compiled.children():
        network.compile(backend="aot_eager", fullgraph=True, dynamic=False)
    for step in (0, 250):
        totals = []
        for made in (model, compiled):
            torch.manual_seed(step)
            losses = made.losses(Batch.unlabelled(crops[..., :size, :size].float(), step))
            loop.take_gradients(made.players(), losses, clip_norm=None)
            totals.append([losses[player].total.item() for player in losses])
            totals[-1] += [parameter.grad.norm().item() for parameter in made.parameters()]
        assert totals[0] == pytest.approx(totals[1], rel=1e-3, abs=1e-4)


# The ledger: where paper and released code differ, each is a switch.


def test_without_its_normalisation_the_posterior_is_the_plain_convolution_with_a_bias():
    torch.manual_seed(0)
    model = VAE(2, 68, VAEConfig(width=8, latent_size=16, posterior_norm=False)).train()
    x = torch.rand(4, 2, 68, 68)
    with torch.no_grad():
        model.encoder.head.bias.fill_(3.0)
        shifted, _ = model.encoder(x)
        model.encoder.head.bias.zero_()
        mean, _ = model.encoder(x)
    torch.testing.assert_close(shifted, mean + 3, rtol=1e-4, atol=1e-4)
    assert "encoder.head.norm.weight" not in model.state_dict()
    normed, _ = VAE(2, 68, VAEConfig(width=8, latent_size=16)).train().encoder(x)
    torch.testing.assert_close(normed.mean(0), torch.zeros(16), rtol=0, atol=1e-4)


def test_without_its_normalisation_the_logit_is_free_to_leave_zero():
    for logit_norm, centred in ((True, True), (False, False)):
        torch.manual_seed(0)
        config = VAEPlusConfig(width=8, latent_size=16, logit_norm=logit_norm)
        discriminator = VAEPlus(2, 68, config).train().discriminator
        _, real, fake = discriminator(*torch.rand(3, 6, 2, 68, 68), n_layers=0)
        assert (abs(torch.cat([real, fake]).mean().item()) < 1e-5) is centred


def test_an_autoencoder_can_be_given_the_released_codes_noise_but_no_prior():
    x = torch.rand(1, 4, 1, 36, 36)
    made = AE(1, 36, AEConfig(width=4, latent_size=4, ae_noise=True)).train()
    losses = [made.losses(Batch.unlabelled(x, 0))["autoencoder"] for _ in range(3)]
    assert len({loss.total.item() for loss in losses}) == 3
    assert all(loss.total.item() == loss.terms["pixel"].item() for loss in losses)


def test_the_papers_penalty_is_added_to_the_gradient_of_kernels_alone():
    module = torch.nn.ParameterList([torch.nn.Parameter(torch.full(shape, 2.0)) for shape in ((3, 2, 5, 5), (3,))])
    for parameter in module:
        parameter.grad = torch.ones_like(parameter)
    Player(module, torch.optim.SGD(module.parameters()), kernel_penalty=0.25).penalise()
    assert float(module[0].grad.unique()) == 1.5
    assert float(module[1].grad.unique()) == 1.0


def test_a_step_with_the_papers_penalty_multiplies_no_kernel(crops):
    """With a gradient of zero and SGD, a kernel moves by learning rate x weight decay x itself, and no further."""
    config = AEConfig(width=4, latent_size=4, weight_decay=0.1, weight_decay_form="gradient")
    model = AE(2, 68, config).double().train()
    player = model.players()["autoencoder"]
    players = {"autoencoder": dataclasses.replace(player, optimiser=torch.optim.SGD(model.parameters(), lr=0.5))}
    losses = model.losses(Batch.unlabelled(crops[:1], 0))
    still = {"autoencoder": type(losses["autoencoder"])(losses["autoencoder"].total * 0, {})}
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    loop.take_gradients(players, still, clip_norm=None)
    loop.step_players(players)
    for name, value in model.named_parameters():
        torch.testing.assert_close(value, before[name] * (0.95 if name.endswith("kernel") else 1.0), msg=name)
