"""Models that learn by comparison, with and without weak labels: networks, views, losses, meaningless labels."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from phenolens.models import MODELS, model_config
from phenolens.models.interface import Batch
from phenolens.models.resnet import MultiScale, ResNet18
from phenolens.models.simclr import WeakSimCLR, contrastive_loss
from phenolens.models.views import shifted, view
from phenolens.models.weak import Weak
from phenolens.training import loop
from phenolens.training.checkpoint import Origin, RunFolder
from phenolens.training.config import TrainConfig


def test_resnet18_of_width_64_has_the_weights_of_the_original():
    network = ResNet18(3, 224, 64)
    assert sum(weights.numel() for weights in network.parameters()) == 11_176_512
    maps = network.eval().maps(torch.zeros(1, 3, 224, 224))
    assert [tuple(y.shape[1:]) for y in maps[1::2]] == [(64, 56, 56), (128, 28, 28), (256, 14, 14), (512, 7, 7)]


@pytest.mark.parametrize(("width", "features"), [(16, 128), (32, 256), (64, 256)])
def test_features_are_those_of_stage_4_and_in_wide_networks_of_the_first_block_of_stage_3(width, features):
    network = ResNet18(2, 68, width).eval()
    x = torch.rand(2, 2, 68, 68)
    z, top = network(x)
    assert z.shape == (2, features) == (2, network.features)
    assert top.shape == (2, 8 * width)
    block = 4 if width == 64 else 7
    torch.testing.assert_close(z, network.maps(x)[block].mean((2, 3)))
    assert network.stages(x).shape == (2, 15 * width)


@pytest.mark.parametrize("crop_px", [36, 64, 68, 77])
def test_the_columns_of_the_multi_scale_network_end_at_an_eighth_of_the_side(crop_px):
    network = MultiScale(3, crop_px, 16).eval()
    columns, joined = network.maps(torch.rand(2, 3, crop_px, crop_px))
    side = crop_px // 16
    assert columns.shape == (2, 80, 2 * side, 2 * side)
    assert joined.shape == (2, 128, side, side)
    assert network(torch.rand(2, 3, crop_px, crop_px))[0].shape == (2, 64)


def test_a_shifted_crop_is_the_crop_elsewhere_with_zeros_beside_it():
    torch.manual_seed(0)
    x = torch.rand(20, 2, 20, 20) + 1
    moved = shifted(x)
    found = set()
    for before, after in zip(x, moved):
        padded = F.pad(before, [3] * 4)
        places = [(i, j) for i in range(7) for j in range(7) if torch.equal(padded[:, i : i + 20, j : j + 20], after)]
        assert len(places) == 1
        found.update(places)
    assert len(found) > 10


def test_a_view_mixes_no_channels_and_is_another_one_each_time():
    torch.manual_seed(0)
    x = torch.zeros(6, 3, 36, 36)
    x[:, 1, 10:20, 12:20] = 1
    seen = view(x)
    assert seen.shape == x.shape
    assert (seen[:, [0, 2]] == 0).all()
    assert (seen[:, 1].amax((1, 2)) > 0.5).all()
    assert not torch.equal(seen, view(x))


def test_the_contrastive_loss_is_nt_xent_and_with_several_positives_their_mean():
    torch.manual_seed(0)
    z = torch.randn(6, 4, dtype=torch.float64)
    label = torch.tensor([0, 0, 0, 1, 1, 2])
    left_out = torch.zeros(6, 6, dtype=torch.bool)
    left_out[0, 5] = True
    same = label[:, None] == label
    loss, right = contrastive_loss(z, same=same, left_out=left_out, temperature=0.5)
    unit = z / z.norm(dim=1, keepdim=True)
    losses, hits = [], []
    for i in range(5):  # the last view has no positive
        others = [j for j in range(6) if j != i and not left_out[i, j]]
        weights = {j: float(torch.exp(unit[i] @ unit[j] / 0.5)) for j in others}
        positives = [j for j in others if label[j] == label[i]]
        losses.append(np.mean([-np.log(weights[j] / sum(weights.values())) for j in positives]))
        hits.append(max(weights, key=weights.get) in positives)
    assert loss.item() == pytest.approx(np.mean(losses))
    assert right.item() == pytest.approx(np.mean(hits))
    assert contrastive_loss(z, same=same & False, left_out=left_out, temperature=0.5) == (0, 0)


def test_views_of_one_well_are_neither_positives_nor_negatives():
    model = MODELS["wssimclr"].build(1, 36, model_config("wssimclr", {"net_width": 2}))
    seen = {}
    model._compared = lambda x, **pairs: seen.update(pairs)
    x = torch.zeros(2, 3, 1, 36, 36)
    labels = {"treatment": torch.tensor([[0, 1, 2], [0, 1, 2]]), "well": torch.tensor([[0, 1, 2], [0, 4, 5]])}
    model.losses(dataclasses.replace(Batch.unlabelled(x, 0), **labels))
    assert seen["same"].nonzero().tolist() == [[1, 4], [2, 5], [4, 1], [5, 2]]
    assert seen["left_out"].nonzero().tolist() == [[i, i] for i in range(6)][:1] + [[0, 3], [1, 1], [2, 2], [3, 0]] + [
        [i, i] for i in range(3, 6)
    ]


def test_both_batches_of_weak_simclr_hold_the_same_treatments_however_small(store, compute, tmp_path, monkeypatch):
    seen = []
    losses = WeakSimCLR.losses
    monkeypatch.setattr(WeakSimCLR, "losses", lambda self, batch: seen.append(batch.treatment) or losses(self, batch))
    config = TrainConfig(
        model="wssimclr", steps=5, batch_size=2, watch_every=0, threads=1, cooldown_steps=0, network={"net_width": 2}
    )
    model = MODELS["wssimclr"].build(len(store.channels), store.crop_px, config.network)
    loop.train(model, store, config, compute=compute, run=RunFolder(tmp_path / "run"))
    assert [one.tolist() == two.tolist() for one, two in seen] == [True] * 5


def test_blended_crops_have_the_labels_of_both_by_their_shares(monkeypatch):
    torch.manual_seed(0)
    model = Weak(1, 36, model_config("weak", {"net_width": 2, "mixup": 0.5}))
    model.take_classes({"treatment": 3})
    seen = {}
    monkeypatch.setattr("phenolens.models.weak.shifted", lambda x: x)
    monkeypatch.setattr("phenolens.models.weak.randomly_turned", lambda x: x)
    monkeypatch.setattr(model.network, "forward", lambda x: (None, seen.update(x=x) or torch.zeros(len(x), 16)))
    model.to_treatment.bias.data = torch.tensor([0.0, 1.0, 2.0])
    own = torch.tensor([0, 1, 2])
    x = own.float()[:, None, None, None].expand(3, 1, 36, 36)
    loss = model.losses(dataclasses.replace(Batch.unlabelled(x[None], 0), treatment=own[None]))["network"].total
    log_shares = model.to_treatment.bias.detach().log_softmax(0)
    mean_class = seen["x"][:, 0, 0, 0]  # of each blend: its classes by their shares, as pixels are class numbers
    # a cross-entropy is linear in the label, and here linear in the class number
    expected = -(log_shares[0] + mean_class * (log_shares[1] - log_shares[0])).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_how_many_treatments_there_are_is_part_of_the_run(store):
    classes = Origin.of(store, TrainConfig(model="weak", network={"net_width": 2})).classes
    treatments = store.cells.loc[store.cells["role"] != "control", ["compound", "concentration_um"]].drop_duplicates()
    assert classes == {"treatment": len(treatments) + 1}
    assert Origin.of(store, TrainConfig(model="vae")).classes is None


@pytest.mark.parametrize("name", ["weak", "wssimclr"])
def test_labels_that_mean_nothing_teach_less(name):
    """Eight classes of stripes, each cell of its own well; the score is 1-NN of the true class of unseen cells."""
    random = np.random.default_rng(0)
    truth = np.repeat(np.arange(8), 24)
    stripes = np.sin(np.arange(36) * (0.25 + 0.12 * truth[:, None]) + random.uniform(0, 7, (len(truth), 1)))
    x = 0.5 + 0.2 * stripes[:, None, :, None] + 0.1 * random.standard_normal((len(truth), 1, 36, 36))
    x = torch.from_numpy(x.astype(np.float32).clip(0, 1))
    seen = np.arange(len(truth)) % 24 < 12
    shuffled = truth.copy()
    shuffled[seen] = random.permutation(truth[seen])
    assert _score(name, x, truth, seen, labels=truth) > _score(name, x, truth, seen, labels=shuffled) + 0.2


def _score(name, x, truth, seen, *, labels):
    torch.manual_seed(0)
    model = MODELS[name].build(1, 36, model_config(name, {"net_width": 4}))
    model.take_classes({"treatment": 8, "well": len(truth)})
    players = model.train().players()
    for step in range(300):
        torch.manual_seed(step)
        draw = np.random.default_rng(step).choice
        of_class = [np.flatnonzero((labels == k) & seen) for k in np.tile(range(8), 2)]
        rows = np.stack([[draw(rows) for rows in of_class] for _ in range(model.draws)])
        batch = Batch.unlabelled(x[rows.ravel()].unflatten(0, rows.shape), step)
        batch = dataclasses.replace(batch, treatment=torch.from_numpy(labels[rows]), well=torch.from_numpy(rows))
        losses = model.losses(batch)
        loop.take_gradients(players, losses, clip_norm=None)
        loop.step_players(players)
    with torch.no_grad():
        z = model.eval().embed(x)
    z = ((z - z[seen].mean(0)) / (z[seen].std(0) + 1e-6)).numpy()
    distance = ((z[~seen][:, None] - z[seen]) ** 2).sum(-1)
    return (truth[seen][distance.argmin(1)] == truth[~seen]).mean()
