"""What every model in MODELS, and a made-up one, holds to: players, losses, embeddings, settings, resumed runs."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

from made_up_model import MadeUp, MadeUpConfig
from phenolens import cli
from phenolens.core.errors import InputError
from phenolens.models import MODELS, Spec, model_config
from phenolens.models.config import ModelConfig, setting
from phenolens.models.interface import LABELS, Batch, Decodes, Drawing, Draws, Fitted, Frozen, Source, Trained
from phenolens.pipeline import EmbedConfig, embed, train
from phenolens.study import Study
from phenolens.training import loop
from phenolens.training.checkpoint import Origin, RunFolder, trained_model
from phenolens.training.config import TrainConfig
from phenolens.training.data import Batches, label_codes
from phenolens.training.embed import embed_crops
from trained_runs import trained

MADE_UP = "madeup"
NAMES = [*MODELS, MADE_UP]
SMALL = {"width": 4, "latent_size": 5, "ramp_steps": 3, "learning_rate": 1e-3, "discriminator_learning_rate": 3e-3}
SMALL |= {"net_width": 8, "mixup": 0.0, "temperature": 0.1}
SMALL |= {"flow_width": 8, "flow_rate": 1e-2, "code_size": 3, "layout_size": 4, "draw_steps": 2}
DECODED = Source("embeddings", features=5, turns=8)
SIDE_PX = 36


@pytest.fixture(autouse=True)
def made_up(monkeypatch):
    """The made-up model is in the list, by one Spec."""
    monkeypatch.setitem(MODELS, MADE_UP, Spec(MadeUp, title="Made up", order=-1))


def small(name: str) -> dict:
    """The settings of SMALL that the model has."""
    return {key: value for key, value in SMALL.items() if key in MODELS[name].config().names()}


def built(name: str, channels: int = 2):
    torch.manual_seed(0)
    model = MODELS[name].build(channels, SIDE_PX, model_config(name, small(name)))
    if isinstance(model, Drawing):
        model.take(DECODED)
        model.attach(built("pca", channels))
        model.prepare(torch.rand(9, 5), crops(9, channels))
    if isinstance(model, Trained) and model.labels:
        model.take_classes(dict.fromkeys(model.labels, 8))
    return model


def crops(n: int, channels: int = 2) -> torch.Tensor:
    x = torch.rand(n, channels, SIDE_PX, SIDE_PX, generator=torch.Generator().manual_seed(1))
    return x / x.amax((2, 3), keepdim=True)


def config(name: str, **settings) -> TrainConfig:
    plain = {
        "steps": 12,
        "checkpoint_every": 5,
        "record_every": 1,
        "watch_every": 4,
        "batch_size": 6,
        "cooldown_steps": 0,
    }
    return TrainConfig(model=name, network=small(name), precision="float32", threads=1, **(plain | settings))


trained_names = [name for name in MODELS if issubclass(MODELS[name].load(), Trained)] + [MADE_UP]


@pytest.mark.parametrize("name", trained_names)
def test_players_are_disjoint_and_together_hold_all_parameters(name):
    model = built(name)
    players = model.players().values()
    learning = [id(parameter) for player in players for parameter in player.parameters()]
    assert sorted(learning) == sorted(id(parameter) for parameter in model.parameters() if parameter.requires_grad)
    for player in players:
        of_optimiser = [id(p) for group in player.optimiser.param_groups for p in group["params"]]
        assert sorted(of_optimiser) == sorted(id(p) for p in player.parameters())


@pytest.mark.parametrize("name", trained_names)
def test_eight_crops_are_learned_by_heart_by_the_first_player_while_others_wait(name, monkeypatch):
    monkeypatch.setattr("phenolens.models.simclr.view", lambda x: x)  # always the same one
    model = built(name).train()
    first, player = next(iter(model.players().items()))
    smooth = torch.nn.functional.interpolate(crops(8)[..., :4, :4], size=SIDE_PX, mode="bilinear")
    x = torch.stack([smooth] * model.draws)
    totals = []
    for step in range(60):
        torch.manual_seed(step)
        batch = Batch.unlabelled(x, 0)  # every player steps at 0
        treatment = torch.arange(8).expand(model.draws, 8)
        well = torch.arange(8 * model.draws).view(model.draws, 8)
        batch = dataclasses.replace(batch, treatment=treatment, well=well, z=torch.eye(8)[None, :, :5])
        losses = model.losses(batch)
        totals.append(losses[first].total.item())
        loop.take_gradients({first: player}, losses, clip_norm=None)
        loop.step_players({first: player})
    assert np.mean(totals[-5:]) < 0.8 * np.mean(totals[:5])


def test_a_fitted_model_explains_the_crops_that_it_was_fitted_on():
    for name in NAMES:
        model = built(name)
        if isinstance(model, Fitted) and isinstance(model, Decodes):
            x = crops(8)
            before = (model.decode(model.embed(x)) - x).square().sum()
            model.fit(x)
            assert (model.decode(model.embed(x)) - x).square().sum() < 0.5 * before


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 6])
def test_embeddings_have_their_names_decode_to_the_crops_shape_and_do_not_change_from_call_to_call(name, channels):
    model = built(name, channels).eval()
    x = crops(3, channels)
    z = model.embed(x)
    assert z.shape == (3, len(model.feature_names()))
    assert len(set(model.feature_names())) == z.shape[1]
    assert torch.equal(z, model.embed(x))
    if isinstance(model, Decodes):
        assert model.decode(z).shape == x.shape
    if isinstance(model, Draws):
        assert model.draw(4, seed=0).shape == (4, *x.shape[1:])
        assert torch.equal(model.draw(4, seed=0), model.draw(4, seed=0))
        assert not torch.equal(model.draw(4, seed=0), model.draw(4, seed=1))


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_run_ends_bit_for_bit_where_the_unbroken_run_ends(store, compute, tmp_path, name):
    whole = trained(store, config(name), compute, tmp_path / "whole")
    trained(store, config(name, steps=7), compute, tmp_path / "broken")
    broken = trained(store, config(name), compute, tmp_path / "broken")
    ours, theirs = (torch.load(run.checkpoint, weights_only=True)["model"] for run in (whole, broken))
    assert ours.keys() == theirs.keys()
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []
    models = [trained_model(run)[0] for run in (whole, broken)]
    if not isinstance(models[0], Drawing):  # which embeds by another run
        embedded = [embed_crops(model, store.take(np.arange(4)), compute=compute) for model in models]
        np.testing.assert_array_equal(*embedded)


@pytest.mark.parametrize("name", NAMES)
def test_settings_survive_json(name, tmp_path, store):
    made_from = Origin.of(store, config(name))
    read = Origin.read(json.loads(json.dumps(made_from.written())), path=tmp_path, remedy="")
    assert read == made_from
    assert type(read.config.network) is MODELS[name].config()


def test_the_list_names_the_settings_of_each_class():
    assert {name: spec.config() for name, spec in MODELS.items()} == {
        name: spec.load().Config for name, spec in MODELS.items()
    }


def test_every_setting_of_a_model_is_a_flag_whose_help_names_the_model():
    done = subprocess.run([sys.executable, "-m", "phenolens.cli", "train", "--help"], capture_output=True, text=True)
    described = " ".join(done.stdout.replace("│", " ").split())
    for name in ("ae", "vae", "vaeplus", "pca"):
        for key in MODELS[name].config().names():
            flag = f"--{key.replace('_', '-')}"
            of_flag = described.split(f" {flag}", 1)[1].split("]", 1)[0]
            assert name in of_flag.split("[")[-1].replace(",", " ").split(), (name, flag, of_flag)


# flags that a model does not have


@pytest.mark.parametrize(
    ("name", "flags", "named"),
    [
        ("pca", ["--beta", "2"], ("--beta", "pca", "vaeplus, vae, ae")),
        ("pca", ["--width", "8"], ("--width", "pca")),
        ("vae", ["--ramp-steps", "3"], ("--ramp-steps", "vae", "vaeplus")),
        ("vaeplus", ["--ae-noise"], ("--ae-noise", "vaeplus", "ae")),
        ("ae", ["--beta", "2"], ("--beta 2", "--ae-noise")),
        ("pca", ["--no-logit-norm"], ("--logit-norm", "pca", "vaeplus")),
    ],
)
def test_a_flag_that_the_model_does_not_have_is_refused_in_one_line(tiny_study, capsys, name, flags, named):
    assert cli.main(["train", str(tiny_study.folder), "--model", name, "--steps", "2", *flags]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert all(word in line for word in named), line
    assert tiny_study.runs == []


def test_settings_of_another_model_or_of_none_are_refused_in_python_too():
    with pytest.raises(InputError, match=r"--beta.*pca"):
        TrainConfig(model="pca", network={"beta": 1.0})
    with pytest.raises(InputError, match=r"--no-such-thing.*no model"):
        TrainConfig(network={"no_such_thing": 1})
    with pytest.raises(InputError, match=r"transformer.*vaeplus, vae, ae"):
        TrainConfig(model="transformer")
    with pytest.raises(InputError, match="--width 0"):
        TrainConfig(network={"width": 0})


def test_another_model_takes_over_the_settings_that_it_shares_but_not_beta_and_latent_size():
    shared = TrainConfig(network={"width": 6, "beta": 7.0, "latent_size": 3, "learning_rate": 0.5, "ramp_steps": 9})
    vae = shared.of_model("vae")
    assert dataclasses.asdict(vae.network) == dataclasses.asdict(
        model_config("vae", {"width": 6, "learning_rate": 0.5})
    )
    assert shared.of_model("pca", latent_size=4).network == model_config("pca", {"latent_size": 4})
    assert TrainConfig().of_model("lsgan") == TrainConfig(model="lsgan")  # with rates of its own


# runs of version 0.1, whose config.json holds the settings of all models

OF_0_1 = {
    "latent_size": None, "width": 4, "beta": None, "ramp_steps": 2500, "feature_layers": 4, "feature_weight": 1.0,
    "feature_loss_scale": "image", "learning_rate": 1e-3, "discriminator_learning_rate": 1e-2, "weight_decay": 1e-4,
    "weight_decay_form": "multiplicative", "posterior_norm": True, "logit_norm": True, "ae_noise": False,
}  # fmt: skip


@pytest.mark.parametrize("name", ["ae", "vae", "vaeplus", "pca"])
def test_a_run_of_version_0_1_opens_and_goes_on(store, compute, tmp_path, name):
    now = dataclasses.replace(config(name), network={key: 4 for key in small(name) if key == "width"})
    run = trained(store, dataclasses.replace(now, steps=5), compute, tmp_path / "run")
    state = torch.load(run.checkpoint, weights_only=True)
    about = json.loads(run.config.read_text())
    for written in (state["made_from"], about):
        written["config"]["network"] = OF_0_1
    del state["identity"]
    torch.save(state, run.checkpoint)
    run.config.write_text(json.dumps(about))
    assert trained_model(run)[1] == dataclasses.replace(now, steps=5)
    whole = trained(store, now, compute, tmp_path / "whole")
    trained(store, now, compute, run.folder)
    ours, theirs = (torch.load(each.checkpoint, weights_only=True)["model"] for each in (whole, run))
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []


def test_the_config_of_a_run_of_version_0_1_is_taken_as_flags(tiny_study, tmp_path, capsys):
    path = tmp_path / "config.json"
    network = OF_0_1 | {"latent_size": 3}
    path.write_text(json.dumps({"config": {"model": "pca", "steps": 2, "threads": 1, "network": network}}))
    assert cli.main(["train", str(tiny_study.folder), "--config", str(path)]) == 0
    about = RunFolder(tiny_study.run_folder("pca-seed0")).about()
    assert about["config"]["network"] == {"latent_size": 3}


# what a batch holds


def test_labels_are_codes_of_what_was_done_to_a_cell_and_never_of_a_mechanism(store, compute):
    cells = store.cells
    codes = dict(zip(LABELS, label_codes(cells)))
    assert set(codes) == {field.name for field in dataclasses.fields(Batch)} - {"x", "step", "z", "weights"}
    wells = cells["plate"] + cells["well"]
    for name, column in (("compound", cells["compound"]), ("well", wells), ("plate", cells["plate"])):
        pairs = pd.DataFrame({"code": codes[name], "label": column.to_numpy()}).drop_duplicates()
        assert pairs["code"].is_unique
        assert pairs["label"].is_unique
    assert (codes["role"][cells["role"] == "control"] == 1).all()
    assert (codes["role"][cells["role"] == "treated"] == 0).all()
    control = codes["treatment"][cells["role"] == "control"]
    assert len(set(control)) == 1
    rows = np.array([[5, 0], [2, 7]])
    batch = Batches(store, compute, input="peak", kept="disk").batch(rows, 3)
    assert batch.step == 3
    for name in LABELS:
        np.testing.assert_array_equal(getattr(batch, name).numpy(), codes[name][rows])


def test_what_is_not_known_of_a_cell_is_minus_one():
    cells = pd.DataFrame(
        {
            "plate": ["p", "p"], "well": ["B02", "B03"], "batch": [None, "b"], "compound": ["x", "y"],
            "concentration_um": [1.0, 2.0], "role": ["treated", "other"],
        }
    )  # fmt: skip
    codes = dict(zip(LABELS, label_codes(cells)))
    assert list(codes["batch"]) == [-1, 0]
    assert list(codes["role"]) == [0, 2]


# a rival is one file and one Spec


def test_a_made_up_model_of_raw_counts_trains_and_embeds_from_the_command(tiny_study, tmp_path):
    """In a process of its own: the flags are made from MODELS when the command is loaded."""
    folder = str(tiny_study.folder)
    flags = ["--model", MADE_UP, "--latent-size", "3", "--tempo", "0.5", "--steps", "4", "--threads", "1"]
    commands = [
        ["train", folder, *flags, "--batch-size", "6", "--record-every", "1"],
        ["embed", folder, "--threads", "1"],
        ["train", folder, "--model", "vae", "--tempo", "0.5"],
    ]
    code = (
        "import sys, json; from made_up_model import register; register(); from phenolens import cli; "
        "print([cli.main(command) for command in json.loads(sys.argv[1])])"
    )
    process = [sys.executable, "-c", code, json.dumps(commands)]
    done = subprocess.run(process, capture_output=True, text=True, cwd=Path(__file__).parent, check=True)
    assert done.stdout.strip().endswith("[0, 0, 2]"), done.stderr
    assert "the made-up loss is large" in done.stderr  # its own verdict
    health = json.loads((tiny_study.run_folder("madeup-seed0") / "health.json").read_text())
    assert health["warnings"] == ["the made-up loss is large"]
    history = pd.read_csv(tiny_study.run_folder("madeup-seed0") / "history.csv")
    assert list(history["slow.gradient_norm"].notna()) == [True, False, True, False]  # every second step
    table = anndata.read_h5ad(next(tiny_study.embeddings_folder("madeup-seed0").glob("*.h5ad")))
    assert list(table.var_names) == ["brightness", "code1", "code2"]
    plate = table.obs["Metadata_Plate"].iloc[0]
    means = tiny_study.crops.crops(plate).astype(np.float64).mean((1, 2, 3))  # raw counts, not normalised
    np.testing.assert_allclose(np.asarray(table.X)[:, 0], means, rtol=1e-4)
    assert "--tempo: not a setting of vae" in done.stderr


@dataclasses.dataclass(frozen=True)
class ForeignConfig(ModelConfig):
    scale: float = setting(2.0, "of the foreign weights")


class Foreign(Frozen):
    """Somebody else's weights."""

    Config = ForeignConfig
    version = "of 2019"

    def __init__(self, channels, crop_px, config):
        super().__init__()
        self.weights = torch.nn.Parameter(torch.full((channels,), config.scale))

    @property
    def identity(self):
        return self.version

    def embed(self, x):
        return x.mean((2, 3)) * self.weights

    def feature_names(self):
        return [f"mean{i}" for i in range(len(self.weights))]


def test_foreign_weights_are_not_copied_and_a_run_is_refused_when_they_change(tiny_study, monkeypatch):
    monkeypatch.setitem(MODELS, "foreign", Spec(Foreign, title="Foreign", order=9))
    train(tiny_study, TrainConfig(model="foreign", threads=1, steps=1), name="foreign")
    embed(tiny_study, "foreign", EmbedConfig(threads=1))
    state = torch.load(tiny_study.run_folder("foreign") / "checkpoint.pt", weights_only=True)
    assert (state["model"], state["identity"]) == ({}, "of 2019")
    path = next(tiny_study.embeddings_folder("foreign").glob("*.h5ad"))
    x = tiny_study.crops.crops(path.stem)
    peak = x.astype(np.float32) / np.maximum(x.max((2, 3), keepdims=True), 1)
    np.testing.assert_allclose(anndata.read_h5ad(path).X, 2 * peak.mean((2, 3)), rtol=1e-4)
    monkeypatch.setattr(Foreign, "version", "of 2026")
    with pytest.raises(InputError, match=r"checkpoint.pt.*of 2019.*of 2026"):
        embed(Study(tiny_study.folder), "foreign", EmbedConfig(threads=1))


def test_a_missing_optional_library_is_named_with_the_command_that_installs_it(monkeypatch):
    class Needs(MadeUp):
        def __init__(self, channels, crop_px, config):
            import no_such_library  # noqa: F401

    monkeypatch.setitem(MODELS, "needs", Spec(Needs, title="Needs", order=9, extra="needs"))
    with pytest.raises(InputError, match=r'no_such_library.*pip install "phenolens\[needs\]"'):
        MODELS["needs"].build(1, SIDE_PX, MadeUpConfig())
