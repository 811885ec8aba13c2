"""Test and measure phenolens on one CUDA card in under ten minutes, without internet.

    bash scripts/gpu prepare                       # at home: makes .gpu/ with packages and a study's crops
    bash scripts/gpu run OUT                       # on the machine with the card, with the checkout and .gpu/
    python benchmarks/gpu.py STUDY OUT --tiny      # the same with tiny numbers, on a processor: does it work?

Each section is a process of its own with its own time: one that fails or hangs is written down, and the rest follows.
OUT gets `results.json` (after every section), a log per section, figures, scores and the trained runs. Trainings that
run out of time save a checkpoint, and the figures show them as they are.
"""

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from tyro.conf import Positional

from phenolens.core.files import write_text
from phenolens.models import MODELS
from phenolens.models.interface import Batch, Representation
from phenolens.training import loop
from phenolens.training.checkpoint import RunFolder
from phenolens.training.device import Compute, processor_name
from phenolens.training.embed import decode, embed_crops

ROOT = Path(__file__).parents[1]
KEPT_S = 45  # for the last section, the figures
SAVING_S = 10  # a training that has to stop gets this long to save
FLOAT32_BOUND, BFLOAT16_BOUND = 2e-3, 0.05  # largest relative error of gradients, and of losses
CHANNELS, CROP_PX = 3, 68


@dataclass(frozen=True)
class Flags:
    """What the script takes."""

    study: Positional[Path]  # a study with crops; it is copied
    out: Positional[Path]  # folder of the results
    budget: float = 540.0  # seconds for everything
    sections: tuple[str, ...] = ()  # left out: all
    tiny: bool = False  # tiny networks and numbers, and no deadlines
    section: str = ""  # work as this section, in this process
    seconds: float = 600.0  # of this section


class Section:
    """A running section: its flags, device and findings, which are written as they come."""

    def __init__(self, flags: Flags) -> None:
        self.flags = flags
        self.began = time.monotonic()
        self.cuda = torch.cuda.is_available()
        self.device = "cuda" if self.cuda else "cpu"
        self.batch = 6 if flags.tiny else 104
        self.network = {"latent_size": 8, "width": 4} if flags.tiny else {}
        self.findings: dict[str, Any] = {}

    @property
    def left(self) -> float:
        """Seconds until the section has to end."""
        return self.flags.seconds - (time.monotonic() - self.began)

    @property
    def study(self) -> Path:
        """The copy of the study that runs are trained in."""
        return self.flags.out / "study"

    def keep(self, name: str, value: Any) -> None:
        """Write a finding down."""
        self.findings[name] = value
        write_text(self.flags.out / f"{self.flags.section}.json", json.dumps(self.findings, default=str))
        print(name, value, flush=True)

    def attempt(self, name: str, work: Callable[[], Any]) -> None:
        """Keep what `work` returns, or its error."""
        try:
            self.keep(name, work())
        except Exception:
            self.keep(name, {"error": traceback.format_exc()[-2500:]})

    def compute(self, precision: str = "auto", device: str | None = None) -> Compute:
        """The device of the section, with this precision."""
        return Compute.chosen(device=device or self.device, precision=precision, threads=None)

    def model(self, name: str, **settings: Any) -> Any:
        """A model with the initial weights of seed 0."""
        torch.manual_seed(0)
        spec = MODELS[name].load()
        return spec(CHANNELS, CROP_PX, spec.Config(**self.network, **settings))

    def seconds(self, work: Callable[[], Any]) -> float:
        """Seconds of work that the device has finished."""
        self.wait()
        began = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - began

    def wait(self) -> None:
        """Until the device has done all that was asked of it."""
        if self.cuda:
            torch.cuda.synchronize()

    def command(self, name: str, *words: object, seconds: float | None = None) -> None:
        """Run a Python script or module of the checkout; interrupted with time to save when its seconds are over."""
        began = time.monotonic()
        seconds = max(self.left if seconds is None else min(seconds, self.left), 1)
        process = subprocess.Popen([sys.executable, *map(str, words)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        ended = "finished"
        try:
            output, _ = process.communicate(timeout=None if self.flags.tiny else max(seconds - SAVING_S, 1))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            ended = "stopped, its time was over"
            output, _ = process.communicate()
        print(output, flush=True)
        if process.returncode and ended == "finished":
            ended = f"exit code {process.returncode}"
        self.keep(name, {"ended": ended, "seconds": round(time.monotonic() - began, 1), "output": output[-6000:]})

    def phenolens(self, name: str, *words: object, seconds: float | None = None) -> None:
        """Run a command of phenolens."""
        self.command(name, "-m", "phenolens.cli", *words, seconds=seconds)


def random_crops(n: int, device: str) -> torch.Tensor:
    """Crops of noise (n, C, S, S) on a device: int16 with the bits of uint16."""
    generator = torch.Generator(device).manual_seed(0)
    made = torch.empty(n, CHANNELS, CROP_PX, CROP_PX, dtype=torch.int16, device=device)
    for part in made.split(20_000):
        part.copy_(torch.randint(-(2**15), 2**15, part.shape, generator=generator, dtype=torch.int16, device=device))
    return made


# The sections, in the order of their work.


def environment(section: Section) -> None:
    """Versions, the card, and its ceilings: copies, products, launches."""
    names = ("phenolens", "torch", "numpy", "pandas", "scipy", "scikit-image", "anndata", "zarr", "imagecodecs")
    versions = {dist.name: dist.version for dist in metadata.distributions() if dist.name in names}
    card = torch.cuda.get_device_name() if section.cuda else "none"
    cuda = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    section.keep("machine", {"card": card, "processor": processor_name(), "cores": os.cpu_count(), **cuda, **versions})
    n, side = (2**20, 256) if section.flags.tiny else (2**30, 8192)
    source = torch.ones(n, dtype=torch.uint8, device=section.device)
    target, x = torch.empty_like(source), torch.randn(side, side, device=section.device, dtype=torch.bfloat16)
    small = torch.zeros(64, device=section.device)
    works: dict[str, tuple[Callable[[], Any], float]] = {
        "copied, TB/s": (lambda: target.copy_(source), 2 * n / 1e12),
        "bfloat16 product, TFLOP/s": (lambda: x @ x, 2 * side**3 / 1e12),
        "small operations, a second": (lambda: small.add_(1), 1),
    }
    for name, (work, amount) in works.items():
        work()
        repeats = 3 if section.flags.tiny else 20

        def repeated(work: Callable[[], Any] = work, repeats: int = repeats) -> None:
            for _ in range(repeats):
                work()

        section.keep(name, amount * repeats / section.seconds(repeated))


def checks(section: Section) -> None:
    """Numbers of the card against the processor's, waits within a step, and interrupted against uninterrupted runs."""
    for name, step in (("ae", 0), ("vae", 0), ("vaeplus", 0), ("vaeplus", 20_000)):
        section.attempt(f"{name} at step {step:,}", lambda name=name, step=step: against_float64(section, name, step))
    section.attempt("embeddings", lambda: embeddings_against_processor(section))
    if section.cuda:
        section.attempt("waits within a step", lambda: waits(section))
    section.attempt("resumed", lambda: resumed(section))
    section.attempt("recorded", lambda: resumed(section, "--recorded"))


def losses_and_gradients(
    section: Section, model: Any, step: int, compute: Compute, dtype: torch.dtype
) -> tuple[dict[str, float], torch.Tensor]:
    """The players' losses and all gradients as one float64 vector, of the same crops and noise on every device."""
    import phenolens.models.vaeplus as module

    n = 4 if section.flags.tiny else 52
    noise = torch.randn(n, model.config.latent_size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    crops = section.compute("float32", "cpu").normalised(random_crops(n * model.draws, "cpu"))
    drawn, module.noise_like = module.noise_like, lambda mean: noise.to(mean.device, mean.dtype)
    try:
        model = compute.place(model.to(dtype)).train()
        x = crops.to(compute.device, dtype).unflatten(0, (model.draws, n))
        with compute.autocast():
            losses = model.losses(Batch.unlabelled(x, step))
        players = model.players()
        loop.take_gradients(players, losses, clip_norm=None)
    finally:
        module.noise_like = drawn
    gradients = [p.grad.double().cpu().flatten() for player in players.values() for p in player.parameters()]
    return {player: float(loss.total.detach()) for player, loss in losses.items()}, torch.cat(gradients)


def against_float64(section: Section, name: str, step: int) -> dict[str, Any]:
    """Relative errors of losses and gradients in float32 and bfloat16."""
    expected, true = losses_and_gradients(
        section, section.model(name), step, section.compute("float32", "cpu"), torch.float64
    )
    errors: dict[str, Any] = {}
    for precision in ("float32", "bfloat16"):
        compute = section.compute(precision)
        losses, gradients = losses_and_gradients(section, section.model(name), step, compute, torch.float32)
        of_losses = max(abs(losses[player] / expected[player] - 1) for player in expected)
        errors[precision] = {"losses": of_losses, "gradients": float((gradients - true).norm() / true.norm())}
    fine = errors["float32"]["gradients"] < FLOAT32_BOUND and errors["bfloat16"]["losses"] < BFLOAT16_BOUND
    return {**errors, "ok": fine}


def embeddings_against_processor(section: Section) -> dict[str, float]:
    """Largest difference of an embedding from the processor's, in standard deviations."""
    model = section.model("vae")
    crops = random_crops(120, "cpu").numpy().view(np.uint16)
    expected = embed_crops(model, crops, compute=section.compute("float32", "cpu"))
    apart = {}
    for precision in ("float32", "bfloat16"):
        found = embed_crops(model, crops, compute=section.compute(precision))
        apart[precision] = float(np.abs(found - expected).max() / expected.std(0).mean())
    return apart


def waits(section: Section) -> dict[str, Any]:
    """Where a step makes the host wait for the card; nowhere, if all is well."""
    compute = section.compute()
    model = compute.place(section.model("vaeplus")).train()
    players, pixels = model.players(), random_crops(48, section.device)
    for step in (20_000, 20_001):
        if step == 20_001:
            torch.cuda.set_sync_debug_mode("error")
        try:
            crops = compute.normalised(pixels).unflatten(0, (2, 24))
            with compute.autocast():
                losses = model.losses(Batch.unlabelled(crops, step))
            loop.take_gradients(players, losses, clip_norm=None)
            loop.step_players(players)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return {"ok": True}


def resumed(section: Section, *more: object) -> dict[str, Any]:
    """Largest difference of weights between an ordinary run and one that was interrupted, with more flags."""
    half, whole = (2, 4) if section.flags.tiny else (20, 40)
    for name, many in (("uninterrupted", (whole,)), ("interrupted", (half, whole))):
        for steps in many:
            flags = [*training(section, "vaeplus", steps), *(more if name == "interrupted" else ())]
            flags += ["--ramp-steps", 5, "--name", name]
            section.phenolens(f"{name}, {steps} steps", "train", section.study, *flags)
    paths = [RunFolder(section.study / "runs" / name).checkpoint for name in ("uninterrupted", "interrupted")]
    one, other = (torch.load(path, map_location="cpu", weights_only=True)["model"] for path in paths)
    apart = max(float((one[name].double() - other[name].double()).abs().max()) for name in one)
    for path in paths:
        shutil.rmtree(path.parent)
    return {"largest difference of weights": apart, "ok": apart == 0 or (bool(more) and apart < 1e-3)}


def steps(section: Section, *flags: object) -> None:
    """Milliseconds of a training step of each side, in turn."""
    sizes = ["--batch-size", section.batch, "--device", section.device]
    sizes += ["--rounds", 1, "--iterations", 1, "--threads", 1] if section.flags.tiny else ["--iterations", 50]
    section.command("table", "benchmarks/train.py", *sizes, *flags)


def compiled(section: Section) -> None:
    """The same with compiled networks."""
    if section.cuda:
        steps(section, "--compiled")
    else:
        section.keep("skipped", "no card")


def embedding(section: Section) -> None:
    """Crops embedded a second: those on the device in chunks, and those in memory as by `phenolens embed`."""
    n, in_memory = (64, 32) if section.flags.tiny else (1_000_000, 40_960)
    if section.cuda:
        n = min(n, int(torch.cuda.mem_get_info()[0] * 0.7 / (CHANNELS * CROP_PX**2 * 2)))
    pixels, model = random_crops(n, section.device), section.model("vae")
    section.keep("crops", n)
    for precision in ("float32", "bfloat16"):
        for size in (16,) if section.flags.tiny else (512, 4096):
            name = f"{precision}, {size} at once: crops/s"
            section.attempt(name, lambda p=precision, size=size: n / embedded(section, model, pixels, p, size))
    raw = pixels[:in_memory].cpu().numpy().view(np.uint16)
    compute = section.compute("float32")
    embed_crops(model, raw[: in_memory // 8], compute=compute)
    section.keep("from memory: crops/s", in_memory / section.seconds(lambda: embed_crops(model, raw, compute=compute)))
    for precision in ("float32", "bfloat16"):
        name = f"recommended encoder, {precision}, from memory: crops/s"
        section.attempt(name, lambda p=precision: recommended_embedded(section, raw[: in_memory // 8], p))


def recommended_embedded(section: Section, crops: np.ndarray, precision: str) -> float:
    """Crops a second that the encoder of `phenolens run` embeds, each in eight orientations."""
    spec, compute = MODELS["imagenet"], section.compute(precision)
    model = spec.build(CHANNELS, CROP_PX, spec.config()())
    embed_crops(model, crops[: len(crops) // 4], compute=compute, turns=model.turns)
    return len(crops) / section.seconds(lambda: embed_crops(model, crops, compute=compute, turns=model.turns))


@torch.inference_mode()
def embedded(section: Section, model: Any, pixels: torch.Tensor, precision: str, size: int) -> float:
    """Seconds to embed all crops in chunks of this size."""
    compute = section.compute(precision)
    compute.place(model).eval()

    def all_of(pixels: torch.Tensor) -> None:
        for part in pixels.split(size):
            with compute.autocast():
                model.embed(compute.normalised(part))

    all_of(pixels[: 2 * size])
    return section.seconds(lambda: all_of(pixels))


def training(section: Section, model: str, steps: int | None) -> list[object]:
    """Flags of `phenolens train`: the paper's settings, a tenth of the wells held out."""
    words: list[object] = ["--model", model, "--device", section.device, "--held-out-wells", 0.1]
    words += ["--batch-size", section.batch] if section.flags.tiny else []
    words += [] if steps is None else ["--steps", steps]
    named = {f"--{name.replace('_', '-')}": value for name, value in section.network.items()}
    having = MODELS[model].config().names()
    return words + [word for pair in named.items() if pair[0][2:].replace("-", "_") in having for word in pair]


def train(section: Section, model: str, *more: object) -> None:
    """Train a model on the study's crops for as long as there is time, and read how it went."""
    steps = None if not section.flags.tiny else 2 if model == "flow" else 12
    often = ["--checkpoint-every", 2000, "--watch-every", 10_000]
    flags = [*training(section, model, steps), *often]
    section.phenolens("training", "train", section.study, *flags, *more)
    run = RunFolder(section.study / "runs" / f"{model}-seed0")
    history = torch.load(run.checkpoint, map_location="cpu", weights_only=True)["history"]
    paces = [(b["seconds"] - a["seconds"]) / (b["step"] - a["step"]) for a, b in pairwise(history)]
    section.keep("ms per step", 1000 * statistics.median(paces) if paces else None)
    section.keep("latest", history[-1])


def train_recorded(section: Section) -> None:
    """Train VAE+ with recorded steps; with ordinary ones if that fails."""
    try:
        train(section, "vaeplus", "--recorded")
    except Exception:
        section.keep("recorded", {"error": traceback.format_exc()[-2500:]})
        train(section, "vaeplus")


def decoder(section: Section) -> None:
    """Train the flow decoder of the recommended encoder's embeddings, and draw from it."""
    section.phenolens("encoder", "train", section.study, "--model", "imagenet", "--device", section.device)
    section.phenolens("embedding", "embed", section.study, "--runs", "imagenet-seed0", "--device", section.device)
    train(section, "flow", "--of", "imagenet-seed0")
    run = RunFolder(section.study / "runs" / "flow-seed0")
    origin = run.origin()
    assert origin is not None
    state = run.load(origin)
    assert state is not None
    model: Representation = origin.build()
    run.restore(state, model, {})
    compute = section.compute("float32")
    assert origin.source is not None
    n = 4 if section.flags.tiny else 2048
    z = np.random.default_rng(0).standard_normal((n, origin.source.features), np.float32)
    decode(compute.place(model), z[:2], compute=compute)
    section.keep("pictures drawn a second", n / section.seconds(lambda: decode(model, z, compute=compute)))


def figures(section: Section) -> None:
    """Reconstructions of held-out cells by every run that was trained, and its scores where it is finished."""
    runs = [name for name in ("ae-seed0", "vae-seed0", "vaeplus-seed0", "flow-seed0") if _finished(section.study, name)]
    section.keep("finished runs", runs)
    if not runs:
        return
    section.phenolens("embedding", "embed", section.study, "--runs", *runs, "--device", section.device)
    drawn = section.flags.out / "reconstructions.png"
    section.phenolens("reconstructions", "figure", "reconstructions", section.study, "--runs", *runs, "--out", drawn)
    section.phenolens("profiles", "profile", section.study, "--runs", *runs)
    section.phenolens("scores", "evaluate", section.study, "--bootstraps", 200, "--shuffles", 20)


def _finished(study: Path, name: str) -> bool:
    """Whether a run has done all its steps."""
    path = RunFolder(study / "runs" / name).checkpoint
    origin = RunFolder(study / "runs" / name).origin()
    if origin is None or not path.exists():
        return False
    return torch.load(path, map_location="cpu", weights_only=True)["step"] == origin.config.steps


# name: (work, most seconds, seconds without which it is not begun); the last one gets KEPT_S
SECTIONS: dict[str, tuple[Callable[[Section], None], int, int]] = {
    "environment": (environment, 40, 5),
    "checks": (checks, 110, 30),
    "steps": (steps, 80, 30),
    "embedding": (embedding, 50, 20),
    "train-vaeplus": (train_recorded, 180, 40),
    "decoder": (decoder, 120, 40),
    "compiled": (compiled, 110, 60),
    "train-vae": (lambda section: train(section, "vae"), 90, 40),
    "train-ae": (lambda section: train(section, "ae"), 90, 40),
    "figures": (figures, 60, 15),
}


def work_through(flags: Flags, names: Sequence[str]) -> dict[str, Any]:
    """Every section in a process of its own, within the budget; what they found."""
    began = time.monotonic()
    results: dict[str, Any] = {"budget": flags.budget, "tiny": flags.tiny}
    for name in names:
        _, most, least = SECTIONS[name]
        left = flags.budget - (time.monotonic() - began) - KEPT_S * ("figures" in names and name != "figures")
        seconds = 3600.0 if flags.tiny else min(most, left)
        results[name] = work_alone(flags, name, seconds) if seconds >= least else {"skipped": f"{left:.0f} s left"}
        results["seconds"] = round(time.monotonic() - began, 1)
        write_text(flags.out / "results.json", json.dumps(results, indent=1))
        state = next((key for key in ("failed", "skipped") if key in results[name]), "done")
        print(f"[{results['seconds']:5.0f} s] {name}: {state}", flush=True)
    return results


def work_alone(flags: Flags, name: str, seconds: float) -> dict[str, Any]:
    """One section in a process of its own; what it found, also if it failed or was killed."""
    path = flags.out / f"{name}.json"
    path.unlink(missing_ok=True)
    command = [sys.executable, __file__, flags.study, flags.out, "--section", name, "--seconds", f"{seconds:.0f}"]
    command += ["--tiny"] * flags.tiny
    failed = ""
    with (flags.out / f"{name}.log").open("w") as log:
        try:
            done = subprocess.run(
                [*map(str, command)], cwd=ROOT, stdout=log, stderr=log, timeout=seconds + SAVING_S, check=False
            )
            failed = f"exit code {done.returncode}; see {name}.log" if done.returncode else ""
        except subprocess.TimeoutExpired:
            failed = f"killed after {seconds + SAVING_S:.0f} s"
    findings = json.loads(path.read_text()) if path.exists() else {}
    path.unlink(missing_ok=True)
    return findings | ({"failed": failed} if failed else {})


def problems(results: Any, where: str = "") -> list[str]:
    """Everything that failed, by its place in the results."""
    if not isinstance(results, dict):
        return []
    bad = [f"{where}: {key}" for key in ("failed", "error") if key in results]
    bad += [f"{where}: not ok"] if results.get("ok") is False else []
    bad += [f"{where}: {results['ended']}"] if str(results.get("ended", "")).startswith("exit code") else []
    return bad + [line for key, value in results.items() for line in problems(value, f"{where} {key}".strip())]


def pack(out: Path) -> None:
    """The trained runs and scores as one archive each, and no copy of the crops."""
    study = out / "study"
    for run in sorted((study / "runs").glob("*")):
        with tarfile.open(out / f"run-{run.name}.tar.gz", "w:gz", compresslevel=1) as archive:
            for path in (run, study / "embeddings" / run.name):
                if path.exists():
                    archive.add(path, path.relative_to(study))
    if (study / "scores").exists():
        shutil.copytree(study / "scores", out / "scores", dirs_exist_ok=True)
    shutil.rmtree(study)


def main(flags: Flags) -> int:
    """All sections; 1 when something failed."""
    names = flags.sections or tuple(SECTIONS)
    if unknown := set(names) - set(SECTIONS):
        sys.exit(f"--sections {', '.join(sorted(unknown))}: expected some of {', '.join(SECTIONS)}")
    flags.out.mkdir(parents=True, exist_ok=True)
    shutil.copytree(flags.study, flags.out / "study", dirs_exist_ok=True, ignore=shutil.ignore_patterns("runs"))
    bad = problems(work_through(flags, names))
    pack(flags.out)
    print("\n".join(["failed:", *bad]) if bad else "nothing failed", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    flags = tyro.cli(Flags, description=__doc__.splitlines()[0])
    flags = replace(flags, study=flags.study.resolve(), out=flags.out.resolve())
    if flags.section:
        SECTIONS[flags.section][0](Section(flags))
    else:
        sys.exit(main(flags))
