"""Statistics of batch normalisation from each plate's control cells (`embed --norm-from controls`)."""

import copy
import json

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

from phenolens import cli
from phenolens.core.errors import InputError
from phenolens.models import MODELS, layers, model_config
from phenolens.training import embed
from phenolens.training.embed import controls_to_norm_by, embed_crops, normalised_by

SMALL = {"ae": {"width": 4}, "vaeplus": {"width": 4}, "bigan": {"width": 4}, "simclr": {"net_width": 8}}


def crops(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4000, (n, 2, 36, 36)).astype(np.uint16)


def built(name: str):
    torch.manual_seed(0)
    return MODELS[name].build(2, 36, model_config(name, SMALL[name])).eval()


@pytest.mark.parametrize("name", SMALL)
def test_controls_are_embedded_as_in_training_by_their_own_moments(name, compute, monkeypatch):
    model, x = built(name), crops(70)
    before, state = embed_crops(model, x, compute=compute), copy.deepcopy(model.state_dict())
    with normalised_by(model, x, compute=compute):
        ours = embed_crops(model, x, compute=compute)
        part = embed_crops(model, x[:5], compute=compute)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    np.testing.assert_array_equal(embed_crops(model, x, compute=compute), before)
    np.testing.assert_allclose(part, ours[:5], rtol=1e-4, atol=1e-5)

    monkeypatch.setattr(layers, "BN_KEPT", 0.0)
    for layer in model.modules():
        if isinstance(layer, layers.BatchNorm):
            layer.train()
    with torch.no_grad():
        expected = model.embed(compute.scaled(x, model.input)).numpy()
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-4)
    assert np.abs(ours - before).max() > 0.01


def test_a_model_that_embeds_without_batch_normalisation_is_refused(compute):
    model = MODELS["lsgan"].build(2, 36, model_config("lsgan", {"width": 4}))  # the generator alone has it
    with pytest.raises(InputError, match="--norm-from controls"), normalised_by(model, crops(70), compute=compute):
        pass


def cells(n_controls: dict[str, int]) -> pd.DataFrame:
    """A row per cell: the controls of each plate, then two treated cells and a control that is noise."""
    rows = [
        {"plate": plate, "role": role, "is_noise": is_noise}
        for plate, n in n_controls.items()
        for role, is_noise, times in (("control", False, n), ("treated", False, 2), ("control", True, 1))
        for _ in range(times)
    ]
    return pd.DataFrame(rows)


def test_a_plate_takes_its_own_controls_and_one_with_fewer_than_64_those_of_all_plates(capsys):
    table = cells({"a": 64, "b": 63, "c": 600})
    rows = controls_to_norm_by(table)
    usable = set(np.flatnonzero((table["role"] == "control") & ~table["is_noise"]))
    assert list(rows["a"]) == list(range(64))
    assert set(table["plate"][rows["c"]]) == {"c"}
    assert len(rows["b"]) == len(rows["c"]) == 512
    assert set(table["plate"][rows["b"]]) == {"a", "b", "c"}
    assert set(np.concatenate(list(rows.values()))) <= usable
    assert '"b" 63' in capsys.readouterr().err
    again = controls_to_norm_by(table)
    assert all(np.array_equal(rows[plate], again[plate]) for plate in rows)


def test_too_few_controls_on_all_plates_together_are_refused():
    with pytest.raises(InputError, match=r"--norm-from controls.*63"):
        controls_to_norm_by(cells({"a": 40, "b": 23}))


def test_too_few_controls_are_all_that_a_study_is_told(tiny_study, capsys):
    folder = str(tiny_study.folder)
    assert cli.main(["train", folder, "--model", "ae", "--steps", "2", "--width", "4", "--batch-size", "6"]) == 0
    capsys.readouterr()
    assert cli.main(["embed", folder, "--norm-from", "controls"]) == 2
    (refusal,) = capsys.readouterr().err.splitlines()
    assert "expected 64 or more" in refusal


def test_a_study_is_embedded_by_each_plates_controls_and_keeps_what_decodes(tiny_study, capsys, monkeypatch):
    folder, threads = str(tiny_study.folder), ["--threads", "1"]
    flags = ["--steps", "2", "--width", "4", "--batch-size", "6", "--watch-every", "0"]
    assert cli.main(["train", folder, "--model", "ae", *flags, *threads]) == 0
    assert cli.main(["embed", folder, *threads]) == 0
    plain = tiny_study.embeddings("ae-seed0")
    monkeypatch.setattr(embed, "LEAST_CONTROLS", 20)
    assert cli.main(["embed", folder, "--norm-from", "controls", *threads]) == 0
    for path in sorted(tiny_study.embeddings_folder("ae-seed0").glob("*.h5ad")):
        table = anndata.read_h5ad(path)
        np.testing.assert_array_equal(table.obsm["latent"], plain[table.obs_names].X)
        assert np.abs(table.X - table.obsm["latent"]).max() > 1e-3
        assert json.loads(table.uns["phenolens"])["summary"]["norm_from"] == "controls"
    capsys.readouterr()
    assert cli.main(["train", folder, "--model", "flow", "--of", "ae-seed0", *threads]) == 2
    assert "--norm-from" in capsys.readouterr().err


def test_a_model_without_batch_normalisation_is_refused(tiny_study, capsys):
    folder = str(tiny_study.folder)
    assert cli.main(["train", folder, "--model", "pca", "--latent-size", "3", "--threads", "1"]) == 0
    capsys.readouterr()
    assert cli.main(["embed", folder, "--norm-from", "controls"]) == 2
    (refusal,) = capsys.readouterr().err.splitlines()
    assert "--norm-from controls" in refusal
    assert not tiny_study.embeddings_folder("pca-seed0").exists()
