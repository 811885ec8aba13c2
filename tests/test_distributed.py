"""Two processes that share each batch compute what one process computes with the whole batch."""

import os
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

from phenolens.study import Study
from process_training import trained

TRAIN = (
    "--steps 8 --batch-size 6 --width 4 --latent-size 8 --ramp-steps 1 --checkpoint-every 4 --record-every 2 "
    "--threads 1 --precision float32"
)


def torchrun(*arguments: str, processes: int = 2) -> subprocess.CompletedProcess:
    """Start processes that know each other, over the loopback interface."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=1", f"--nproc-per-node={processes}"]
    loopback = ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.run(
        [*command, *loopback, *arguments], capture_output=True, text=True, timeout=240, env=environment, check=False
    )


def phenolens(*arguments: str, processes: int = 2) -> subprocess.CompletedProcess:
    """A verb by several processes, or by one without torchrun."""
    if processes == 1:
        command = [sys.executable, "-m", "phenolens.cli", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    return torchrun("-m", "phenolens.cli", *arguments, processes=processes)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vaeplus", "began", "bigan", "vaegan", "wgan"])
def test_two_processes_learn_what_one_learns_from_the_whole_batch(tmp_path, name):
    """Losses, gradient norms, weights and running averages over three steps of both players, all layers on.

    In float64, so that what differs is mathematics and not the order of sums; in float32 Adam blows rounding up.
    """
    done = torchrun(str(Path(__file__).with_name("process_training.py")), name, str(tmp_path))
    assert done.returncode == 0, done.stderr
    whole = trained(name)
    shares = [torch.load(tmp_path / f"process{number}.pt", weights_only=True) for number in (0, 1)]
    assert [share.keys() for share in shares] == [whole.keys()] * 2
    for name, value in whole.items():
        for share in shares:
            torch.testing.assert_close(share[name], value, rtol=1e-6, atol=1e-9, msg=name)


@pytest.mark.slow
def test_a_run_of_two_processes_begins_as_that_of_one_and_ends_at_the_same_step(tiny_study):
    for name, processes in (("one", 1), ("two", 2)):
        done = phenolens("train", str(tiny_study.folder), "--name", name, *TRAIN.split(), processes=processes)
        assert done.returncode == 0, done.stderr
    one, two = (pd.read_csv(tiny_study.run_folder(name) / "history.csv") for name in ("one", "two"))
    assert list(one["step"]) == list(two["step"]) == [2, 4, 6, 8]
    assert list(one.columns) == list(two.columns)
    terms = [name for name in one if name not in ("seconds", "cells_per_second")]
    np.testing.assert_allclose(two.loc[0, terms], one.loc[0, terms], rtol=1e-3)
    checkpoints = [tiny_study.run_folder(name) / "checkpoint.pt" for name in ("one", "two")]
    first, second = (torch.load(path, weights_only=True)["model"] for path in checkpoints)
    # Adam moves a weight by up to 1e-3 a step however small its gradient, so weights that rounding alone drives part
    # by some of that in eight steps; what has a direction stays together.
    apart = torch.stack([(first[name] - second[name]).abs().mean() for name in first if name.endswith("kernel")])
    assert apart.max().item() < 1e-3


@pytest.mark.slow
def test_embeddings_of_two_processes_are_the_same_files(tiny_study):
    folder = tiny_study.folder
    assert phenolens("train", str(folder), "--name", "run", *TRAIN.split(), processes=1).returncode == 0
    files = {}
    for processes in (1, 2):
        done = phenolens("embed", str(folder), "--threads", "1", processes=processes)
        assert done.returncode == 0, done.stderr
        parts = sorted(tiny_study.embeddings_folder("run").glob("*.h5ad"))
        files[processes] = {path.name: path.read_bytes() for path in parts}
        assert sum(anndata.read_h5ad(path).n_obs for path in parts) == len(tiny_study.crops)
        for path in parts:
            path.unlink()
    assert len(files[1]) == len(tiny_study.crops.plates) > 1
    assert files[1] == files[2]


@pytest.mark.slow
def test_two_processes_go_on_after_one_and_speak_once(tiny_study):
    study = str(tiny_study.folder)
    assert phenolens("train", study, "--name", "run", *TRAIN.split(), processes=1).returncode == 0
    longer = TRAIN.replace("--steps 8", "--steps 12").split()
    done = phenolens("train", study, "--name", "run", *longer)
    assert done.returncode == 0, done.stderr
    assert torch.load(Study(tiny_study.folder).run_folder("run") / "checkpoint.pt", weights_only=True)["step"] == 12
    assert done.stderr.count("run is trained") == 1


@pytest.mark.slow
def test_a_batch_that_cannot_be_shared_evenly_is_refused_in_one_line(tiny_study):
    done = phenolens("train", str(tiny_study.folder), *TRAIN.replace("--batch-size 6", "--batch-size 7").split())
    assert "--batch-size 7: 2 processes cannot share it evenly" in done.stderr
    assert done.returncode != 0


def test_verbs_that_work_in_one_process_say_so(tiny_study, monkeypatch, capsys):
    from phenolens.cli import main

    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["profile", str(tiny_study.folder)]) == 2
    assert "train and embed can be started by torchrun" in capsys.readouterr().err
