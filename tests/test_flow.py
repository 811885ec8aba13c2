"""The flow decoder draws what embeddings say, changes real cells without losing them, refuses other embeddings."""

import copy
import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch

from phenolens import cli
from phenolens.core.errors import InputError
from phenolens.models import MODELS, flow, model_config
from phenolens.models.interface import Batch, Source
from phenolens.paper_figures.config import FigureConfig
from phenolens.paper_figures.figure2_reconstructions import reconstructions_figure
from phenolens.pipeline import EmbedConfig, embed, train
from phenolens.plotting.style import alt_of
from phenolens.readiness import run_config, score_name
from phenolens.runs.decoder import find_decoding_run
from phenolens.runs.embeddings import embedded_cells
from phenolens.study import Study
from phenolens.training import loop
from phenolens.training.config import TrainConfig
from phenolens.travels.compute import TravelConfig, Traveller

SIDE_PX = 36
NETWORK = {"flow_width": 16, "flow_rate": 5e-3, "code_size": 4, "layout_size": 2, "draw_steps": 8}
FLAGS = ["--steps", "3", "--batch-size", "6", "--flow-width", "8", "--threads", "1", "--watch-every", "0"]
FLAGS += ["--cooldown-steps", "0"]


def blobs(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Crops (n, 1, S, S) of one round blob each, and its radius and height as an embedding (n, 3) with noise."""
    random = np.random.default_rng(seed)
    radius, height = random.uniform(4, 10, n), random.uniform(0.4, 1, n)
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX] - SIDE_PX // 2
    crops = height[:, None, None] * np.exp(-(x**2 + y**2) / (2 * radius[:, None, None] ** 2))
    crops = crops + random.normal(0, 0.02, crops.shape)
    z = np.stack([radius, 10 * height, random.normal(0, 0.1, n)], axis=1)
    return torch.from_numpy(crops[:, None]).float(), torch.from_numpy(z).float()


def blobs_of(z: torch.Tensor) -> torch.Tensor:
    """The blobs of embeddings (n, 3), without noise."""
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX] - SIDE_PX // 2
    radius, height = z[:, 0, None, None], z[:, 1, None, None] / 10
    return (height * torch.exp(-torch.from_numpy(x**2 + y**2) / (2 * radius**2)))[:, None].float()


@pytest.fixture(scope="module")
def drawer():
    """A decoder that has learned to draw blobs."""
    torch.manual_seed(0)
    model = MODELS["flow"].build(1, SIDE_PX, model_config("flow", NETWORK))
    model.take(Source("blobs", features=3, turns=8))
    x, z = blobs(256)
    model.prepare(z, x)
    model.train()
    players = model.players()
    for step in range(250):
        torch.manual_seed(step)
        rows = torch.randint(len(x), (24,))
        batch = Batch.unlabelled(x[rows][None], step)
        losses = model.losses(Batch(**{**vars(batch), "z": z[rows][None]}))
        loop.take_gradients(players, losses, clip_norm=None)
        loop.step_players(players)
    return model.eval()


def light(x: torch.Tensor) -> np.ndarray:
    return x.sum((1, 2, 3)).numpy()


@torch.inference_mode()
def test_what_is_drawn_follows_the_embedding(drawer):
    x, z = blobs(40, seed=5)
    drawn = drawer.redraw(x, z, seeds=range(40))
    assert np.corrcoef(light(drawn), light(x))[0, 1] > 0.95
    assert np.corrcoef(light(drawer.decode(z)), light(x))[0, 1] > 0.9  # without the layouts of the crops
    assert not torch.equal(drawn, drawer.redraw(x, z, seeds=range(1, 41)))
    assert torch.equal(drawn[5:], drawer.redraw(x[5:], z[5:], seeds=range(5, 40)))


@torch.inference_mode()
def test_a_real_cell_that_is_not_changed_stays_itself_and_one_that_is_follows_the_change(drawer):
    x, z = blobs(12, seed=6)
    again = drawer.changed(x, z, z)
    assert (again - x).square().mean() < 0.01 * x.var()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(drawer.changed(x, z, z), again)
    wider = z + torch.tensor([2.0, 0.0, 0.0])
    assert (light(drawer.changed(x, z, wider)) > light(x)).mean() > 0.9
    path = torch.stack([z[0], (z[0] + wider[0]) / 2, wider[0]])
    frames = drawer.changed(x[:1], z[:1], path)
    assert frames.shape == (3, 1, SIDE_PX, SIDE_PX)
    torch.testing.assert_close(frames[0], again[0], rtol=0.01, atol=0.01)


class Brightening(torch.nn.Module):
    """A velocity that is the first number of the code everywhere."""

    def forward(self, y, t, code, layout):
        return code[:, 0, None, None, None].expand_as(y)


@torch.inference_mode()
def test_what_an_embedding_changes_is_drawn_emphasised_and_the_rest_is_not(drawer):
    x, z = blobs(3, seed=8)
    wider = z + torch.tensor([2.0, 0.0, 0.0])
    model = copy.deepcopy(drawer)
    model.average = Brightening()
    model.layout_of_code.zero_()
    torch.testing.assert_close(model.changed(x, z, z, emphasis=0.5), x)
    change = (model.code(wider) - model.code(z))[:, 0, None, None, None]
    torch.testing.assert_close(model.changed(x, z, wider), x + flow.SCALE * change)
    torch.testing.assert_close(model.changed(x, z, wider, emphasis=0.5), x + flow.SCALE * 1.5 * change)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float32])
def test_maps_are_normalised_in_float32(drawer, precision):
    x, z = blobs(4, seed=9)
    maps = []
    hook = drawer.network.up.norm_out.register_forward_hook(lambda _, given, normed: maps.append((given[0], normed)))
    with hook, torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        losses = drawer.losses(Batch(**{**vars(Batch.unlabelled(x[None], 0)), "z": z[None]}))
    ((given, normed),) = maps
    assert (given.dtype, normed.dtype) == (precision, torch.float32)
    assert losses["decoder"].total.dtype == torch.float32


@torch.inference_mode()
def test_the_layout_changes_as_far_as_embeddings_determine_it(drawer):
    """A blob that shall be wider has a wider layout: what the embedding does not determine of it stays."""
    _, z = blobs(12, seed=7)
    wider = z + torch.tensor([2.0, 0.0, 0.0])
    change = (drawer.code(wider) - drawer.code(z)) @ drawer.layout_of_code @ drawer.layout_components
    truth = drawer.layout(blobs_of(wider)) - drawer.layout(blobs_of(z))
    assert np.corrcoef(change.flatten(), truth.flatten())[0, 1] > 0.6


@pytest.fixture
def embedded_study(tiny_study):
    train(tiny_study, TrainConfig(model="pca", steps=1, threads=1, network={"latent_size": 6}), name="pca-seed0")
    embed(tiny_study, "pca-seed0", EmbedConfig(threads=1))
    return tiny_study


def refusal(capsys, *arguments: str) -> str:
    capsys.readouterr()
    assert cli.main([str(argument) for argument in arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_a_decoders_run_has_the_embeddings_of_its_source_and_travels_from_the_real_cell(embedded_study):
    folder = str(embedded_study.folder)
    assert cli.main(["train", folder, "--model", "flow", "--of", "pca-seed0", *FLAGS]) == 0
    assert cli.main(["embed", folder, "--runs", "flow-seed0", "--threads", "1"]) == 0
    study = Study.open(folder)
    assert score_name("flow-seed0", run_config(study, "flow-seed0")) == "flow of pca-seed0"
    decoded, source = (embedded_cells(study, run).z for run in ("flow-seed0", "pca-seed0"))
    np.testing.assert_array_equal(decoded, source)
    run = find_decoding_run(study, "flow-seed0", precision="float32")
    rows = np.array([3, 8])
    np.testing.assert_allclose(run.embedded(study.crops.take(rows)), source[rows], rtol=1e-3, atol=1e-3)
    assert run.reconstructed(rows).shape == study.crops.take(rows).shape
    traveller = Traveller.open(study, "flow-seed0")
    treated = traveller.catalogue.treatments.query("role == 'treated'").index[0]
    (journey,) = traveller.travel(TravelConfig(to=treated, frames=3, way="direction"))
    start = journey.start.crop
    assert np.square(journey.pictures[0] - start).mean() < 0.01 * start.var()
    assert journey.kept == "inversion"
    assert journey.frames["cosine_decoded"].between(-1, 1).all()
    assert journey.change.n_moved > 1
    with pytest.raises(InputError, match="--residual: flow-seed0"):
        traveller.travel(TravelConfig(to=treated, residual=True))
    reconstructions = study.run_folder("flow-seed0") / "health.json"
    assert json.loads(reconstructions.read_text())["steps"] == 3


def test_a_decoders_embeddings_are_written_again_only_where_they_are_missing_or_out_of_date(embedded_study):
    folder, study = str(embedded_study.folder), embedded_study
    assert cli.main(["train", folder, "--model", "flow", "--of", "pca-seed0", *FLAGS]) == 0
    assert cli.main(["embed", folder, "--runs", "flow-seed0", "--threads", "1"]) == 0
    kept, missing, *_ = sorted(study.embeddings_folder("flow-seed0").glob("*.h5ad"))
    written = kept.stat().st_mtime_ns
    missing.unlink()
    assert cli.main(["embed", folder, "--runs", "flow-seed0", "--threads", "1"]) == 0
    assert missing.exists()
    assert kept.stat().st_mtime_ns == written
    longer = ["5" if flag == "3" else flag for flag in FLAGS]
    assert cli.main(["train", folder, "--model", "flow", "--of", "pca-seed0", *longer]) == 0
    assert cli.main(["embed", folder, "--runs", "flow-seed0", "--threads", "1"]) == 0
    assert kept.stat().st_mtime_ns > written


def test_a_decoder_wants_a_run_that_is_embedded(tiny_study, capsys):
    folder = tiny_study.folder
    assert "--of" in refusal(capsys, "train", folder, "--model", "flow", *FLAGS)
    assert "nobody" in refusal(capsys, "train", folder, "--model", "flow", "--of", "nobody", *FLAGS)
    train(tiny_study, TrainConfig(model="pca", steps=1, threads=1, network={"latent_size": 6}), name="pca-seed0")
    line = refusal(capsys, "train", folder, "--model", "flow", "--of", "pca-seed0", *FLAGS)
    assert "phenolens embed" in line
    assert Study.open(folder).runs == ["pca-seed0"]


def test_a_decoder_of_other_embeddings_than_those_there_now_is_refused(embedded_study, capsys):
    folder = embedded_study.folder
    assert cli.main(["train", str(folder), "--model", "flow", "--of", "pca-seed0", *FLAGS]) == 0
    embed(embedded_study, "pca-seed0", EmbedConfig(threads=1, turns=8))
    line = refusal(capsys, "embed", folder, "--runs", "flow-seed0")
    assert f"phenolens embed {folder} --runs pca-seed0 --turns 1" in line
    line = refusal(capsys, "train", folder, "--model", "flow", "--of", "pca-seed0", *FLAGS)
    assert "embeddings that it decodes" in line
    assert cli.main(["embed", str(folder), "--runs", "pca-seed0", "--turns", "1", "--threads", "1"]) == 0
    assert cli.main(["embed", str(folder), "--threads", "1"]) == 0  # the decoder's run is embedded last


def test_the_embeddings_of_a_foreign_table_are_decoded_whatever_the_order_of_its_rows(tiny_study, tmp_path):
    cells = tiny_study.crops.cells
    table = pd.DataFrame(
        {"Metadata_Cell": cells["cell_id"], "a": np.arange(len(cells)), "b": 1.5, "Metadata_Note": "x"}
    )
    path = tmp_path / "foreign.csv"
    table.sample(frac=1, random_state=0).to_csv(path, index=False)
    assert cli.main(["train", str(tiny_study.folder), "--model", "flow", "--of", str(path), *FLAGS]) == 0
    assert cli.main(["embed", str(tiny_study.folder), "--threads", "1"]) == 0
    np.testing.assert_array_equal(embedded_cells(tiny_study, "flow-seed0").z, table[["a", "b"]].to_numpy(np.float32))
    traveller = Traveller.open(tiny_study, "flow-seed0")
    treated = traveller.catalogue.treatments.query("role == 'treated'").index[0]
    (journey,) = traveller.travel(TravelConfig(to=treated, frames=2, way="direction", moved_cells=3))
    assert journey.frames[["cosine_decoded", "moved"]].isna().all(axis=None)  # its pictures have no embedding
    assert journey.frames["far"].notna().all()
    run = find_decoding_run(tiny_study, "flow-seed0")
    rows = np.array([8, 3])
    given = table[["a", "b"]].to_numpy(np.float32)[rows]
    np.testing.assert_array_equal(run.reconstructed(rows), run.reconstructed(rows, given))
    assert "flow decoder" in alt_of(reconstructions_figure(tiny_study, FigureConfig(runs=("flow-seed0",))))
    longer = ["5" if flag == "3" else flag for flag in FLAGS]
    assert cli.main(["train", str(tiny_study.folder), "--model", "flow", "--of", str(path), *longer]) == 0
    with pytest.raises(InputError, match="out of date"):
        run.reconstructed(rows)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda table: table[1:], "1 cell without a row"),
        (lambda table: pd.concat([table, table[:2]]), "2 repeated"),
        (lambda table: table.assign(Metadata_Cell=table["Metadata_Cell"] + "x"), "of other cells"),
        (lambda table: table.drop(columns="Metadata_Cell"), "Metadata_Cell"),
        (lambda table: table.drop(columns="a"), "0 features, of which none differs"),
        (lambda table: table.assign(a=1.5), "1 feature, of which none differs"),
        (lambda table: table.assign(a="high"), 'column "a" does not hold numbers'),
        (
            lambda table: table.assign(b=[np.nan, *range(len(table) - 1)]),
            'column "b": nan is not a finite number (1 such',
        ),
    ],
)
def test_a_table_whose_rows_are_not_the_studys_cells_is_refused(tiny_study, tmp_path, capsys, change, named):
    cells = tiny_study.crops.cells
    path = tmp_path / "foreign.parquet"
    change(pd.DataFrame({"Metadata_Cell": cells["cell_id"], "a": np.arange(len(cells))})).to_parquet(path)
    assert named in refusal(capsys, "train", tiny_study.folder, "--model", "flow", "--of", path, *FLAGS)
    assert tiny_study.runs == []


@pytest.mark.parametrize(
    ("of", "said"),
    [("lost.parquet", "lost.parquet: no such file"), ("z.txt", "expected a run of the study (none yet), or a table")],
)
def test_embeddings_that_are_not_there_are_refused(tiny_study, capsys, of, said):
    assert said in refusal(capsys, "train", tiny_study.folder, "--model", "flow", "--of", of, *FLAGS)


@pytest.mark.parametrize("side", [36, 38, 39])
def test_cells_of_any_side_are_learned_and_drawn(side):
    small = {"code_size": 2, "layout_size": 2, "flow_width": 8, "draw_steps": 1}
    model = MODELS["flow"].build(1, side, model_config("flow", small))
    x, z = torch.rand(6, 1, side, side), torch.randn(6, 3)
    model.take(Source("", 3, turns=1))
    model.prepare(z, x)
    loss = model.losses(dataclasses.replace(Batch.unlabelled(x[None], 0), z=z[None]))["decoder"].total
    assert torch.isfinite(loss)
    assert model.decode(z).shape == x.shape


def test_a_decoder_that_still_draws_noise_is_reported(drawer):
    learned, noise = {"step": 600, "decoder.velocity": 0.15}, {"step": 600, "decoder.velocity": 1.0}
    assert drawer.verdicts([noise, *[learned] * 20]) == []
    assert len(drawer.verdicts([learned, *[noise] * 20])) == 1
    assert drawer.verdicts([noise | {"step": 400}] * 20) == []
