"""A recorded step is the ordinary step, bit for bit, also when its operations are replayed without Python."""

import numpy as np
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from phenolens.models import MODELS
from phenolens.models.interface import LABELS, Batch
from phenolens.training import loop
from phenolens.training.device import Compute
from phenolens.training.monitor import FirstBad, NotFinite
from phenolens.training.recorded import Recorded, can_be_recorded

CPU = Compute(torch.device("cpu"), torch.float32)
STEPS = range(26)  # layers of the discriminator join after steps 5, 10, 15 and 20: all weights occur
PIXELS = torch.randint(-30_000, 30_000, (20, 2, 36, 36), dtype=torch.int16, generator=torch.Generator().manual_seed(1))


class Training:
    """A model with its players, and the step that the loop does on a card."""

    def __init__(self, name: str) -> None:
        torch.manual_seed(0)
        spec = MODELS[name].load()
        ramp = {"ramp_steps": 5} if name == "vaeplus" else {}
        self.model = CPU.place(spec(2, 36, spec.Config(width=4, latent_size=8, **ramp))).train()
        self.players = self.model.players()
        self.optimisers = {name: player.optimiser for name, player in self.players.items()}
        self.first_bad = FirstBad(waits=False, device=CPU.device)

    def batch(self, step: int) -> Batch:
        rows = torch.from_numpy(np.random.default_rng([3, step]).integers(20, size=(self.model.draws, 5)))
        x = CPU.normalised(PIXELS[rows.flatten()]).unflatten(0, rows.shape)
        return Batch(x, **dict.fromkeys(LABELS, rows), step=step)

    def work(self, batch: Batch, step: int | torch.Tensor):
        return loop.one_step(
            self.model, self.players, batch, step, compute=CPU, first_bad=self.first_bad, clip_norm=None
        )

    def recorded(self, capture) -> Recorded:
        return Recorded(self.work, self.model, self.optimisers, capture=capture)

    def through(self, do, *, cooling: bool = True) -> list[dict[str, float]]:
        """The numbers of every step, each done by `do(batch)`; `cooling`: learning rates fall."""
        found = []
        for step in STEPS:
            CPU.seed(7, step)
            loop.set_learning_rates(self.optimisers, share=1 - step / 50 if cooling else 1)
            found.append(loop.record(*do(self.batch(step))))
        return found


def as_it_is(work):
    return work


@pytest.mark.parametrize("name", ["ae", "vae", "vaeplus"])
def test_on_tensors_that_stay_a_training_is_bit_for_bit_the_ordinary_one(name):
    ordinary, held = Training(name), Training(name)
    expected = ordinary.through(lambda batch: ordinary.work(batch, batch.step))
    assert held.through(held.recorded(as_it_is)) == expected
    for (key, ours), theirs in zip(held.model.state_dict().items(), ordinary.model.state_dict().values()):
        assert torch.equal(ours, theirs), key


class Replayed:
    """A recording without a card: the operations on the tensors they were done on; a replay runs no Python."""

    def __init__(self, training: Training) -> None:
        self.training, self.recordings = training, 0

    def __call__(self, work):
        self.recordings += 1
        found: list = []

        def operations():
            found[:] = work()
            losses, norms = found
            return [
                *(term for loss in losses.values() for term in loss.terms.values()),
                *(loss.total for loss in losses.values()),
                *norms.values(),
            ]

        state = [*self.training.model.state_dict().values(), self.training.first_bad.step]
        state += [
            value
            for optimiser in self.training.optimisers.values()
            for of_weight in optimiser.state.values()
            for value in of_weight.values()
        ]
        before = [tensor.clone() for tensor in state]
        random = torch.get_rng_state()
        graph = make_fx(operations, tracing_mode="real")()
        with torch.no_grad():  # recording has done the step; a capture on a card does not
            for tensor, value in zip(state, before):
                tensor.copy_(value)
        torch.set_rng_state(random)

        def replay():
            with torch.no_grad():
                values = iter(graph())
            losses, norms = found
            losses = {
                name: type(loss)(loss.total, {term: next(values) for term in loss.terms})
                for name, loss in losses.items()
            }
            losses = {name: type(loss)(next(values), loss.terms) for name, loss in losses.items()}
            return losses, {name: next(values) for name in norms}

        return replay


@pytest.mark.slow
def test_replayed_without_python_the_steps_are_those_of_the_ordinary_training():
    """What a CUDA graph does: a number of one step that stayed in the recording would show in the next."""
    ordinary, training = Training("vaeplus"), Training("vaeplus")
    for each in (ordinary, training):  # the plain form reads its counter of steps on the host
        each.optimisers["autoencoder"].param_groups[0]["fused"] = True
    replayed = Replayed(training)
    found = training.through(training.recorded(replayed), cooling=False)  # rates are on the host without a card
    expected = ordinary.through(lambda batch: ordinary.work(batch, batch.step), cooling=False)
    assert replayed.recordings == 5  # no layer, one, two, three, four
    for step, (ours, theirs) in enumerate(zip(found, expected)):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-6), step
    assert int(training.first_bad.step) == -1


class OnTheDeviceAlone(TorchDispatchMode):
    """AssertionError on what a CUDA graph cannot hold: a number that is read, or one that comes from the host."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func._schema.name not in (
            "aten::_local_scalar_dense",
            "aten::lift_fresh",
            "aten::equal",
            "aten::nonzero",
        )
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("step", [0, 3, 20])
def test_a_recorded_step_reads_no_number_and_brings_none(step):
    training = Training("vaeplus")
    training.optimisers["autoencoder"].param_groups[0]["fused"] = True
    recorded = training.recorded(as_it_is)
    recorded(training.batch(step))
    with OnTheDeviceAlone():
        training.work(recorded.held, recorded.step)


def test_the_first_bad_step_of_a_recorded_training_is_noted():
    training = Training("vae")
    recorded = training.recorded(as_it_is)
    for step in range(4):
        if step == 2:
            training.model.encoder.head.norm.weight.data[0] = float("inf")
        recorded(training.batch(step))
    with pytest.raises(NotFinite) as bad:
        training.first_bad.ask()
    assert bad.value.step == 2


def test_only_models_whose_losses_allow_it_are_recorded_on_one_card():
    card = torch.device("cuda")
    assert can_be_recorded(Training("vaeplus").model, card, processes=1)
    assert not can_be_recorded(Training("vaeplus").model, card, processes=2)
    assert not can_be_recorded(Training("vaeplus").model, CPU.device, processes=1)
    other = MODELS["simclr"].load()
    assert not can_be_recorded(other(2, 68, other.Config()), card, processes=1)
