"""Training that is killed, stopped, or given damaged or foreign files: it goes on to the same end, or says one line."""

import contextlib
import ctypes
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from phenolens import cli
from phenolens.core.errors import InputError
from phenolens.crops.config import CropConfig
from phenolens.crops.make_crops import make_crops
from phenolens.models.interface import Player
from phenolens.study import Study
from phenolens.training.checkpoint import RunFolder
from processes import Command, Moment
from whole_files import different_files, same

SMALL = "--batch-size 4 --width 4 --latent-size 8 --precision float32".split()
SMALL_PCA = "--batch-size 4 --latent-size 8 --precision float32".split()
RAMP = ["--ramp-steps", "2"]  # all discriminator layers join within a few steps
OFTEN = ["--checkpoint-every", "3", "--record-every", "2"]
ONE = ["--threads", "1"]
# Without pictures, for runs that are made longer on the way: the last picture of a shorter run stays, it was learned.
UNSEEN = [*OFTEN, "--watch-every", "0"]


def of_model(model: str) -> list[str]:
    """The small settings of a model."""
    return SMALL_PCA if model == "pca" else [*SMALL, *RAMP] if model == "vaeplus" else SMALL


@pytest.fixture
def command(tiny_study, tmp_path) -> Callable[..., Command]:
    """Start `phenolens VERB STUDY ...` in a process of its own."""
    said = tmp_path / "said"
    return lambda verb, *flags, **how: Command(verb, tiny_study.folder, *flags, said=said, **how)


@pytest.fixture
def train(tiny_study, capsys) -> Callable[..., tuple[int, list[str]]]:
    """`phenolens train STUDY ...` in this process: exit code and the lines it said."""

    def act(*flags: object, verb: str = "train") -> tuple[int, list[str]]:
        capsys.readouterr()
        status = cli.main([verb, str(tiny_study.folder), *map(str, flags)])
        return status, capsys.readouterr().err.splitlines()

    return act


def trained(train, *flags: object) -> None:
    """Train to the end, or fail."""
    status, lines = train(*flags)
    assert status == 0, lines


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vaeplus", "vae", "ae"])
def test_killed_at_random_moments_a_run_ends_bit_for_bit_where_the_unkilled_run_ends(tiny_study, command, model):
    seed = random.SystemRandom().randrange(2**32)
    print(f"moments drawn with seed {seed}")
    moments = random.Random(seed)
    flags = [
        "--model",
        model,
        "--steps",
        100,
        "--cooldown-steps",
        30,
        "--checkpoint-every",
        2,
        *OFTEN[2:],
        *of_model(model),
        *ONE,
    ]
    began = time.monotonic()
    assert command("train", "--name", "whole", *flags).ended()[0] == 0
    duration = time.monotonic() - began
    statuses = [command("train", "--name", "killed", *flags).kill_after(moments.uniform(0, duration)) for _ in range(8)]
    print(f"exit statuses {statuses} within {duration:.1f} s")
    assert set(statuses) <= {0, -signal.SIGKILL}
    assert command("train", "--name", "killed", *flags).ended()[0] == 0
    assert different_files(tiny_study.run_folder("whole"), tiny_study.run_folder("killed")) == []


@pytest.mark.slow
def test_killed_before_one_of_its_file_operations_a_run_ends_bit_for_bit_the_same(tiny_study, command):
    flags = ["--model", "vae", "--steps", 6, *OFTEN, *SMALL, *ONE]
    assert command("train", "--name", "whole", *flags).ended()[0] == 0
    for n in range(1, 100, 3):  # most files are opened, then renamed: both kinds come in turn
        moment = Moment(tiny_study.run_folder(f"killed{n}"), n, (signal.SIGKILL,))
        status, _ = command("train", "--name", f"killed{n}", *flags, moment=moment).ended()
        if status != -signal.SIGKILL:
            break
        assert command("train", "--name", f"killed{n}", *flags).ended()[0] == 0
        assert different_files(tiny_study.run_folder("whole"), tiny_study.run_folder(f"killed{n}")) == []
    assert (status, n > 15) == (0, True)


def test_killed_in_the_middle_of_writing_a_checkpoint_the_half_file_is_no_output_and_goes(tiny_study, command):
    flags = ["--model", "ae", *UNSEEN, *SMALL, *ONE]
    assert command("train", "--name", "whole", "--steps", 6, *flags).ended()[0] == 0
    assert command("train", "--name", "killed", "--steps", 3, *flags).ended()[0] == 0
    folder = tiny_study.run_folder("killed")
    kept = (folder / "checkpoint.pt").read_bytes()
    status, _ = command(
        "train", "--name", "killed", "--steps", 6, *flags, largest_file=len(kept) // 2, dies_when_full=True
    ).ended()
    assert status == -signal.SIGXFSZ
    assert (folder / ".checkpoint.pt.partial").stat().st_size == len(kept) // 2
    assert (folder / "checkpoint.pt").read_bytes() == kept
    assert command("train", "--name", "killed", "--steps", 6, *flags).ended()[0] == 0
    assert different_files(tiny_study.run_folder("whole"), folder) == []


def test_what_a_killed_process_left_half_written_goes_at_the_next_start(tiny_study, train):
    flags = ["--model", "ae", "--steps", 3, *SMALL, *ONE]
    trained(train, *flags)
    folder = tiny_study.run_folder("ae-seed0")
    for name in ("checkpoint.pt", "config.json", "history.csv", "health.json"):
        (folder / f".{name}.partial").write_bytes(b"half")
    trained(train, *flags)
    assert list(folder.glob("*.partial")) + list(folder.glob(".*.partial")) == []


@pytest.mark.slow
def test_a_request_to_stop_at_any_of_its_file_operations_is_one_line_and_the_run_goes_on_to_the_same_end(
    tiny_study, command
):
    """SIGTERM and Ctrl-C in turn."""
    flags = ["--model", "ae", "--steps", 6, *UNSEEN, *SMALL, *ONE]
    assert command("train", "--name", "whole", *flags).ended()[0] == 0
    said = []
    for n in range(1, 100):
        name = f"stopped{n}"
        moment = Moment(tiny_study.run_folder(name), n, ((signal.SIGTERM, signal.SIGINT)[n % 2],))
        status, lines = command("train", "--name", name, *flags, moment=moment).ended()
        if status == 0:
            break
        assert (status, len(lines)) == (130, 1), lines
        said.append(lines[0].replace(name, "RUN"))
        assert not list(tiny_study.run_folder(name).glob(".*.partial"))
        assert command("train", "--name", name, *flags).ended()[0] == 0
        assert different_files(tiny_study.run_folder("whole"), tiny_study.run_folder(name)) == []
    in_the_loop = {
        f"phenolens train: RUN: stopped at step {step} of 6; the same command resumes it" for step in range(1, 7)
    }
    elsewhere = "phenolens train: stopped; the same command resumes"
    assert in_the_loop & set(said)
    assert set(said) - in_the_loop == {elsewhere}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_while_crops_are_still_opened_is_one_line_and_leaves_no_run(tiny_study, command, number):
    moment = Moment(tiny_study.crops_folder, 1, (number,))
    status, lines = command("train", "--model", "ae", "--steps", 3, *SMALL, *ONE, moment=moment).ended()
    assert (status, lines) == (130, ["phenolens train: stopped; the same command resumes"])
    assert tiny_study.runs == []


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_ctrl_c_stops_at_once_and_leaves_the_checkpoint_before(tiny_study, command, second):
    """Both come while the checkpoint of step 6 is opened to be written."""
    flags = ["--model", "ae", "--steps", 9, *UNSEEN, *SMALL, *ONE]
    assert command("train", "--name", "whole", *flags).ended()[0] == 0
    assert command("train", *flags, "--steps", 3).ended()[0] == 0
    folder = tiny_study.run_folder("ae-seed0")
    kept = (folder / "checkpoint.pt").read_bytes()
    moment = Moment(folder / ".checkpoint.pt.partial", 1, (signal.SIGINT, second))
    status, lines = command("train", *flags, moment=moment).ended()
    assert (status, lines) == (130, ["phenolens train: stopped; the same command resumes"])
    assert (folder / "checkpoint.pt").read_bytes() == kept
    assert command("train", *flags).ended()[0] == 0
    assert different_files(tiny_study.run_folder("whole"), folder) == []


@pytest.mark.slow
def test_the_command_as_a_person_starts_it_saves_on_ctrl_c(tiny_study):
    """Not forked: `python -m phenolens.cli`, stopped once its first checkpoint is there."""
    arguments = ["train", tiny_study.folder, "--model", "ae", "--steps", 1_000_000, *OFTEN, *SMALL, *ONE]
    process = subprocess.Popen(
        [sys.executable, "-m", "phenolens.cli", *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    folder = tiny_study.run_folder("ae-seed0")
    while not (folder / "history.csv").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=300)
    step = torch.load(folder / "checkpoint.pt", weights_only=True)["step"]
    stopped = f"phenolens train: ae-seed0: stopped at step {step} of 1000000; the same command resumes it"
    assert (process.returncode, said.splitlines()[-1]) == (130, stopped)


def test_sigterm_means_to_others_what_it_meant_before(tiny_study, train):
    before = signal.getsignal(signal.SIGTERM)
    trained(train, "--model", "ae", "--steps", 2, *SMALL, *ONE)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("model", ["vaeplus", "vae", "ae", "pca"])
def test_global_random_generators_decide_nothing(tiny_study, train, model):
    flags = ["--model", model, *UNSEEN, *of_model(model), *ONE]
    trained(train, "--name", "whole", "--steps", 8, *flags)
    for steps_done in (4, 8) if model != "pca" else (8,):  # a fitted model has no steps
        random.seed(steps_done)
        np.random.seed(steps_done)  # noqa: NPY002
        torch.manual_seed(steps_done)
        trained(train, "--name", "broken", "--steps", steps_done, *flags)
    assert different_files(tiny_study.run_folder("whole"), tiny_study.run_folder("broken")) == []


@pytest.mark.slow
@pytest.mark.parametrize(("threads", "precision"), [(1, "float32"), (2, "float32"), (2, "bfloat16")])
def test_at_the_papers_size_a_killed_run_ends_bit_for_bit_the_same(tiny_screen, tmp_path, threads, precision):
    """68 px, 32 feature maps, kernels laid out channels-last, moments of Adam and momentum of SGD with them."""
    study = Study.create(tmp_path / "study")
    make_crops(tiny_screen, study.crops_folder, layout="bbbc021", config=CropConfig(crop_px=68))
    flags = ["--steps", 3, "--ramp-steps", 1, "--batch-size", 4, "--latent-size", 16, "--threads", threads]
    flags += ["--checkpoint-every", 2, "--record-every", 1, "--precision", precision]
    said = tmp_path / "said"
    assert Command("train", study.folder, "--name", "whole", *flags, said=said).ended()[0] == 0
    moment = Moment(study.run_folder("killed") / ".checkpoint.pt.partial", 3, (signal.SIGKILL,))
    killed = Command("train", study.folder, "--name", "killed", *flags, said=said, moment=moment).ended()[0]
    assert killed == -signal.SIGKILL
    assert torch.load(study.run_folder("killed") / "checkpoint.pt", weights_only=True)["step"] == 2
    assert Command("train", study.folder, "--name", "killed", *flags, said=said).ended()[0] == 0
    assert different_files(study.run_folder("whole"), study.run_folder("killed")) == []


def test_a_disk_that_fills_while_saving_is_one_line_and_the_run_goes_on_once_there_is_room(tiny_study, command):
    flags = [*UNSEEN, *SMALL, *RAMP, *ONE]
    assert command("train", "--name", "whole", "--steps", 8, *flags).ended()[0] == 0
    assert command("train", "--steps", 3, *flags).ended()[0] == 0
    folder = tiny_study.run_folder("vaeplus-seed0")
    kept = (folder / "checkpoint.pt").read_bytes()
    for room in (len(kept) - 1, 5000):
        status, lines = command("train", "--steps", 8, *flags, largest_file=room).ended()
        assert (status, len(lines)) == (2, 1), lines
        assert f"{folder / 'checkpoint.pt'}: the disk is full" in lines[0]
        assert (folder / "checkpoint.pt").read_bytes() == kept
        assert not list(folder.glob(".*.partial"))
    assert command("train", "--steps", 8, *flags).ended()[0] == 0
    assert different_files(tiny_study.run_folder("whole"), folder) == []


class Code:
    """Unpickled by somebody who trusts it, it makes a file."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.witness,)


def changed(path: Path, change: Callable[[dict], object]) -> None:
    """Load a checkpoint, change it in place, save it as torch does."""
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)


def first_moments(state: dict) -> dict:
    """What Adam has gathered for the first kernel."""
    return state["optimisers"]["autoencoder"]["state"][0]


SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "0 bytes": (lambda p: p.write_bytes(b""), "not a readable checkpoint"),
    "3 bytes": (lambda p: p.write_bytes(p.read_bytes()[:3]), "not a readable checkpoint"),
    "half of it": (lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]), "not a readable checkpoint"),
    "all but a byte": (lambda p: p.write_bytes(p.read_bytes()[:-1]), "not a readable checkpoint"),
    "text": (lambda p: p.write_text("weights\n"), "not a readable checkpoint"),
    "a folder": (lambda p: (p.unlink(), p.mkdir()), "cannot be read (Is a directory)"),
    "a link to nowhere": (lambda p: (p.unlink(), p.symlink_to("lost.pt")), "cannot be read (No such file"),
    "a zip": (lambda p: zipfile.ZipFile(p, "w").writestr("a", "b"), "not a readable checkpoint"),
    "code": (lambda p: torch.save(Code(p.with_name("ran")), p), "not a readable checkpoint"),
    "code among weights": (
        lambda p: changed(p, lambda s: s.update(more=Code(p.with_name("ran")))),
        "not a readable checkpoint",
    ),
    "another format": (lambda p: changed(p, lambda s: s.update(format="mine")), "not a checkpoint of this version"),
    "a tensor": (lambda p: torch.save(torch.zeros(3), p), "not a checkpoint of this version"),
    "no origin": (lambda p: changed(p, lambda s: s.pop("made_from")), "does not say what the run is made from"),
    "no weights": (lambda p: changed(p, lambda s: s.pop("model")), "has no weights"),
    "no step": (lambda p: changed(p, lambda s: s.pop("step")), "does not say how many steps are done"),
    "a step that is none": (lambda p: changed(p, lambda s: s.update(step=-1)), "does not say how many steps are done"),
    "a history that is none": (lambda p: changed(p, lambda s: s.update(history=["x"])), "has no history of numbers"),
    "NaN weights": (
        lambda p: changed(p, lambda s: s["model"]["encoder.head.kernel"][7, 0, 0].fill_(float("nan"))),
        "model encoder.head.kernel is not finite",
    ),
    "infinite moments": (
        lambda p: changed(p, lambda s: first_moments(s)["exp_avg"][0, 0, 0].fill_(float("inf"))),
        "optimisers autoencoder state 0 exp_avg is not finite",
    ),
    "a weight of another shape": (
        lambda p: changed(p, lambda s: s["model"].update({"encoder.head.kernel": torch.zeros(2, 2)})),
        "of another architecture (encoder.head.kernel: (2, 2) torch.float32 -> ",
    ),
    "a weight of another type": (
        lambda p: changed(p, lambda s: s["model"].update({"encoder.head.norm.bias": torch.zeros(16).double()})),
        "of another architecture (encoder.head.norm.bias: (16,) torch.float64 -> ",
    ),
    "a weight too few": (
        lambda p: changed(p, lambda s: s["model"].pop("encoder.head.kernel")),
        "of another architecture (encoder.head.kernel: none -> ",
    ),
    "a weight too many": (
        lambda p: changed(p, lambda s: s["model"].update(extra=None)),
        "of another architecture (extra: NoneType -> none)",
    ),
}
# What only matters to a run that goes on: embedding takes the weights alone.
SPOILED_OPTIMISERS: dict[str, Callable[[dict], object]] = {
    "moments of another shape": lambda s: first_moments(s).update(exp_avg=torch.zeros(2, 2)),
    "a moment too few": lambda s: first_moments(s).pop("exp_avg"),
    "weights without moments": lambda s: s["optimisers"]["autoencoder"]["state"].pop(0),
    "another optimiser": lambda s: s["optimisers"]["autoencoder"].update(kind="SGD"),
    "none": lambda s: s["optimisers"].clear(),
}


def refused_by(train, folder: Path, *flags: object, verb: str) -> str:
    """The one line with which a verb refuses a run's folder, which stays as it is."""
    before = {path: path.lstat().st_mtime_ns for path in sorted(folder.iterdir()) if path.name != ".lock"}
    status, lines = train(*flags, verb=verb)
    assert (status, len(lines)) == (2, 1), lines
    assert {path: path.lstat().st_mtime_ns for path in sorted(folder.iterdir()) if path.name != ".lock"} == before
    return lines[0]


def test_a_checkpoint_that_is_damaged_or_something_else_is_one_line_in_every_verb_and_stays_as_it_is(tiny_study, train):
    flags = ["--model", "ae", "--checkpoint-every", 3, *SMALL, *ONE]
    trained(train, *flags, "--steps", 3)
    folder = tiny_study.run_folder("ae-seed0")
    whole = folder.with_name("whole")
    folder.rename(whole)
    for what, (spoil, found) in SPOILED.items():
        shutil.copytree(whole, folder)
        spoil(folder / "checkpoint.pt")
        expected = f"{folder / 'checkpoint.pt'}: {found}"
        end = f"; restore this run's own checkpoint, or delete {folder} to train it again"
        for line in (
            refused_by(train, folder, *flags, "--steps", 6, verb="train"),
            refused_by(train, folder, "--runs", "ae-seed0", *ONE, verb="embed"),
        ):
            assert expected in line, (what, line)
            assert line.endswith(end), (what, line)
        assert not (folder / "ran").exists(), what
        shutil.rmtree(folder)


def test_optimisers_that_are_not_the_runs_are_one_line_and_the_checkpoint_stays_as_it_is(tiny_study, train):
    flags = ["--model", "ae", *SMALL, *ONE]
    trained(train, *flags, "--steps", 3)
    path = tiny_study.run_folder("ae-seed0") / "checkpoint.pt"
    whole = path.read_bytes()
    for what, change in SPOILED_OPTIMISERS.items():
        path.write_bytes(whole)
        changed(path, change)
        kept = path.read_bytes()
        status, lines = train(*flags, "--steps", 6)
        assert (status, len(lines)) == (2, 1), (what, lines)
        assert "its optimiser of the autoencoder does not fit the weights; restore" in lines[0], (what, lines)
        assert path.read_bytes() == kept
    assert train("--runs", "ae-seed0", *ONE, verb="embed")[0] == 2  # it stands at step 3 of the 6 asked for


def test_a_flipped_bit_anywhere_is_noticed_or_makes_no_difference(tiny_study, train, rng):
    """Most bits are weights, which torch.load itself hands out however they are."""
    trained(train, "--model", "ae", "--steps", 3, *SMALL, *ONE)
    run = RunFolder(tiny_study.run_folder("ae-seed0"))
    origin, whole = run.origin(), run.checkpoint.read_bytes()
    state = run.load(origin)
    positions = [*range(0, len(whole), len(whole) // 200), *range(len(whole) - 100, len(whole))]
    n_noticed = 0
    for position in positions:
        flipped = bytearray(whole)
        flipped[position] ^= 1 << int(rng.integers(8))
        run.checkpoint.write_bytes(flipped)
        with contextlib.suppress(InputError):
            n_noticed += 1
            assert same(run.load(origin), state)
            n_noticed -= 1
    assert n_noticed > 150


def test_a_checkpoint_of_another_run_is_refused_with_what_differs(tiny_study, train):
    flags = ["--model", "ae", *SMALL, *ONE]
    trained(train, *flags, "--steps", 3)
    folder = tiny_study.run_folder("ae-seed0")
    others = {
        "width 6 -> 4": [*flags, "--width", 6],
        "latent_size 5 -> 8": [*flags, "--latent-size", 5],
        "model vae -> ae": ["--model", "vae", *SMALL, *ONE],
        "seed 1 -> 0": [*flags, "--seed", 1],  # the same shapes: only what it is made from tells
        "weight_decay 0.01 -> 0.0001": [*flags, "--weight-decay", 0.01],
    }
    for difference, other in others.items():
        trained(train, *other, "--steps", 3, "--name", "other")
        shutil.copy(tiny_study.run_folder("other") / "checkpoint.pt", folder / "checkpoint.pt")
        for verb, given in (("train", [*flags, "--steps", 6]), ("embed", ["--runs", "ae-seed0", *ONE])):
            line = refused_by(train, folder, *given, verb=verb)
            assert "checkpoint.pt: of a run with other settings (" in line
            assert difference in line
        shutil.rmtree(tiny_study.run_folder("other"))


def test_a_checkpoint_of_another_data_set_is_refused(tiny_study, tiny_screen, train):
    flags = ["--model", "ae", *SMALL, *ONE]
    trained(train, *flags, "--steps", 3)
    folder = tiny_study.run_folder("ae-seed0")
    crops = tiny_study.folder / "crops"
    crops.rename(tiny_study.folder / "kept")
    make_crops(tiny_screen, crops, layout="bbbc021", config=CropConfig(crop_px=44))
    trained(train, *flags, "--steps", 3, "--name", "other")
    shutil.copy(tiny_study.run_folder("other") / "checkpoint.pt", folder / "checkpoint.pt")
    shutil.rmtree(crops)
    (tiny_study.folder / "kept").rename(crops)
    for verb, given in (("train", [*flags, "--steps", 6]), ("embed", ["--runs", "ae-seed0", *ONE])):
        assert "checkpoint.pt: of a run on other crops; restore" in refused_by(train, folder, *given, verb=verb)


@pytest.mark.skipif(sys.platform != "linux", reason="root's rights are given up by a call of Linux")
def test_a_checkpoint_nobody_may_read_is_one_line(tiny_study, train):
    flags = ["--model", "ae", *SMALL, *ONE]
    trained(train, *flags, "--steps", 3)
    (tiny_study.run_folder("ae-seed0") / "checkpoint.pt").chmod(0)
    done = subprocess.run(
        [sys.executable, "-m", "phenolens.cli", "train", str(tiny_study.folder), *flags, "--steps", "6"],
        capture_output=True,
        text=True,
        preexec_fn=_as_bound_by_permissions_as_anyone,
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "checkpoint.pt: cannot be read (Permission denied); restore" in done.stderr


def _as_bound_by_permissions_as_anyone() -> None:
    """Give up root's right to read everything (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH), for what is started next."""
    pr_capbset_drop = 24
    for capability in (1, 2):
        ctypes.CDLL(None).prctl(pr_capbset_drop, capability, 0, 0, 0)


def test_a_config_that_is_lost_or_damaged_is_written_anew_since_the_checkpoint_knows_what_it_is_of(tiny_study, train):
    flags = ["--model", "ae", *UNSEEN, *SMALL, *ONE]
    trained(train, *flags, "--steps", 8, "--name", "whole")
    trained(train, *flags, "--steps", 4)
    folder = tiny_study.run_folder("ae-seed0")
    config = folder / "config.json"
    written = json.loads(config.read_text())
    without = {name: value for name, value in written.items() if name != "config"}
    unknown = {**written, "config": {**written["config"], "dropout": 0.5}}
    for text in ("", "{", "[]", '{"format": "somebody else"}', json.dumps(without), json.dumps(unknown)):
        config.write_text(text)
        for verb, given in (("train", [*flags, "--steps", 8]), ("embed", ["--runs", "ae-seed0", *ONE])):
            line = refused_by(train, folder, *given, verb=verb)
            assert f"{config}: " in line
            assert line.endswith("delete it, and the same `phenolens train` command writes it again and resumes"), line
    config.unlink()
    other_width = train(*flags, "--steps", 8, "--width", 6)
    assert other_width[0] == 2
    assert "of a run with other settings (width 4 -> 6)" in other_width[1][0]
    assert not config.exists()
    trained(train, *flags, "--steps", 8)
    assert different_files(tiny_study.run_folder("whole"), folder) == []


def test_a_config_of_another_run_does_not_go_with_the_checkpoint(tiny_study, train):
    flags = ["--model", "ae", *SMALL, *ONE]
    trained(train, *flags, "--steps", 3)
    trained(train, *flags, "--steps", 3, "--width", 6, "--name", "other")
    folder = tiny_study.run_folder("ae-seed0")
    shutil.copy(tiny_study.run_folder("other") / "config.json", folder)
    assert "trained with other settings (width 6 -> 4)" in refused_by(train, folder, *flags, "--steps", 6, verb="train")
    assert "of a run with other settings (width 4 -> 6)" in refused_by(
        train, folder, "--runs", "ae-seed0", *ONE, verb="embed"
    )


def test_without_its_checkpoint_a_run_starts_anew_and_ends_the_same(tiny_study, train):
    flags = ["--model", "vae", "--steps", 5, *OFTEN, *SMALL, *ONE]
    trained(train, "--name", "whole", *flags)
    trained(train, *flags)
    (tiny_study.run_folder("vae-seed0") / "checkpoint.pt").unlink()
    status, lines = train("--runs", "vae-seed0", *ONE, verb="embed")
    assert (status, len(lines)) == (2, 1)
    assert "nothing has been trained there; run `phenolens train` first" in lines[0]
    trained(train, *flags)
    assert different_files(tiny_study.run_folder("whole"), tiny_study.run_folder("vae-seed0")) == []


def test_the_report_says_the_same_line_of_a_damaged_checkpoint(tiny_study, train):
    trained(train, "--model", "ae", "--steps", 3, *SMALL, *ONE)
    for verb, flags in (("embed", ONE), ("profile", []), ("evaluate", ["--bootstraps", 5, "--shuffles", 5])):
        assert train(*flags, verb=verb)[0] == 0
    path = tiny_study.run_folder("ae-seed0") / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-1000])
    status, lines = train(verb="report")
    assert (status, len(lines)) == (2, 1)
    assert f"{path}: not a readable checkpoint" in lines[0]
    assert not tiny_study.report_path.exists()


def test_another_memory_layout_of_what_optimisers_gathered_makes_no_difference(tiny_study, train):
    """Kernels are laid out channels-last, and so are their moments, however the file holds them."""
    flags = [*UNSEEN, *SMALL, *RAMP, *ONE]
    trained(train, "--name", "whole", "--steps", 8, *flags)
    trained(train, "--steps", 4, *flags)
    path = tiny_study.run_folder("vaeplus-seed0") / "checkpoint.pt"
    changed(path, lambda state: _make_contiguous(state["optimisers"]))
    trained(train, "--steps", 8, *flags)
    assert different_files(tiny_study.run_folder("whole"), tiny_study.run_folder("vaeplus-seed0")) == []


def _make_contiguous(part: dict) -> None:
    for name, value in part.items():
        if isinstance(value, dict):
            _make_contiguous(value)
        elif isinstance(value, torch.Tensor):
            part[name] = value.contiguous().clone()


def test_weights_that_are_not_finite_are_never_saved(tiny_study, train, monkeypatch):
    flags = ["--model", "ae", *OFTEN, *SMALL, *ONE]
    trained(train, *flags, "--steps", 3)
    path = tiny_study.run_folder("ae-seed0") / "checkpoint.pt"
    kept = path.read_bytes()
    monkeypatch.setattr(Player, "step", lambda player: player.parameters()[0].data.mul_(float("inf")))
    status, lines = train(*flags, "--steps", 6, "--checkpoint-every", 1)
    assert (status, len(lines)) == (1, 1)
    assert "what was learned (model encoder.stages.0.kernel" in lines[0]
    assert ") is not finite at step 3; its batch is listed in" in lines[0]
    assert path.read_bytes() == kept
    monkeypatch.undo()
    trained(train, *flags, "--steps", 6)


def test_a_run_that_is_made_longer_is_the_run_that_was_long_from_the_start(tiny_study, train):
    flags = ["--model", "vae", *UNSEEN, *SMALL, *ONE]
    trained(train, "--name", "whole", "--steps", 8, *flags)
    for n_steps in (3, 3, 5, 8):  # 3 and 5 are no multiples of --record-every 2: their last records go
        trained(train, "--steps", n_steps, *flags)
    assert different_files(tiny_study.run_folder("whole"), tiny_study.run_folder("vae-seed0")) == []


def test_other_threads_or_versions_are_told_and_the_run_goes_on(tiny_study, command):
    flags = ["--model", "ae", *SMALL, "--checkpoint-every", 2]
    assert command("train", *flags, "--steps", 3, *ONE).ended()[0] == 0
    config = tiny_study.run_folder("ae-seed0") / "config.json"
    config.write_text(config.read_text().replace(f'"torch": "{torch.__version__}"', '"torch": "1.0"'))
    status, lines = command("train", *flags, "--steps", 6, "--threads", 2, "--device", "cpu").ended()
    assert status == 0
    assert lines[0] == (
        f"ae-seed0: resumes at step 3 with threads 1 -> 2, torch 1.0 -> {torch.__version__}; "
        "its last digits will differ from those of a run that was never interrupted"
    )
    status, lines = command("train", *flags, "--steps", 6, *ONE).ended()  # done: nothing is computed any more
    assert (status, lines[0]) == (0, f"ae-seed0 is trained: {tiny_study.run_folder('ae-seed0')}")


def test_how_often_is_saved_decides_nothing(tiny_study, train):
    flags = ["--model", "ae", "--record-every", 2, "--watch-every", 0, *SMALL, *ONE]
    trained(train, "--name", "whole", "--steps", 8, "--checkpoint-every", 8, *flags)
    trained(train, "--steps", 4, "--checkpoint-every", 1, *flags)
    trained(train, "--steps", 8, "--checkpoint-every", 8, *flags)
    assert different_files(tiny_study.run_folder("whole"), tiny_study.run_folder("ae-seed0")) == []


def test_other_flags_that_decide_what_is_computed_are_refused_in_one_line(tiny_study, train):
    flags = ["--model", "ae", *SMALL, *ONE]
    trained(train, *flags, "--steps", 4, "--cooldown-steps", 2)
    folder = tiny_study.run_folder("ae-seed0")
    for given, changed_to in {
        ("--steps", 8): "cooldown_steps 2 -> 0",
        ("--steps", 8, "--cooldown-steps", 2): "steps 4 -> 8",
        ("--steps", 4, "--cooldown-steps", 2, "--batch-size", 5): "batch_size 4 -> 5",
        ("--steps", 4, "--cooldown-steps", 2, "--precision", "bfloat16"): "precision float32 -> bfloat16",
    }.items():
        line = refused_by(train, folder, *flags, *given, verb="train")
        assert f"trained with other settings ({changed_to}" in line
        assert line.endswith("delete that folder to train it again, or give `phenolens train` another --name")


def test_a_stop_after_the_last_step_is_a_stop_too(tiny_study, train, monkeypatch):
    """Nothing that follows in the command is done, such as the other steps of `phenolens run`."""

    def stopped_meanwhile(self, history):
        monkeypatch.undo()
        os.kill(os.getpid(), signal.SIGTERM)
        self.write_history(history)

    monkeypatch.setattr(RunFolder, "write_history", stopped_meanwhile)
    status, lines = train("--model", "ae", "--steps", 3, *SMALL, *ONE)
    assert (status, lines) == (130, ["phenolens train: ae-seed0: stopped at step 3 of 3; the same command resumes it"])
