"""How fast VAE+ trains: the method written literally, as good plain PyTorch, and ours, in turn, in one run.

    python benchmarks/train.py --processes 2     # two processor cores: as one process, and shared by two
    python benchmarks/train.py --device cuda     # a CUDA card: also with recorded steps

literal: tests/naive.py, float32. plain: tests/plain_vaeplus.py, what a good engineer would write with torch.nn
(`nn.BatchNorm2d`, channels-last, bfloat16 autocast where it is faster; `--compiled`: torch.compile). Each side works in
a process of its own, so that none profits from another's memory settings, and only one works at a time. The data is
noise: no number here depends on what is on the crops. Ratios are of processor seconds on a processor, which other work
on the machine hardly changes, and of wall-clock time on a card.
"""

import json
import os
import platform
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from torch import Tensor
from torch._functorch import config as functorch
from torch.profiler import ProfilerActivity, profile

from phenolens.core.progress import tell
from phenolens.models import processes
from phenolens.models.config import VAEPlusConfig
from phenolens.models.interface import Batch
from phenolens.models.vaeplus import VAEPlus
from phenolens.training import loop
from phenolens.training.device import Compute, as_signed, processor_name
from phenolens.training.distributed import together
from phenolens.training.monitor import FirstBad
from phenolens.training.recorded import Recorded, capture_graph

CHANNELS, CROP_PX, LATENT_SIZE = 3, 68, 256
PAPER_STEPS = 40_000
WARM_UP = {"cpu": 1, "cuda": 5}  # iterations before those that are timed: a step is recorded at its fourth
COMPILED_AGAIN = 3  # more of them, in which compiled networks are compiled again
# moments of the paper's schedule: no layer of the discriminator counts, two do, all four do
MOMENTS = {"no layer": 0, "two layers": 7_500, "four layers": 20_000}


@dataclass(frozen=True)
class Flags:
    """What the benchmark takes."""

    rounds: int = 3  # how often the sides take turns
    iterations: int = 3  # timed iterations of each turn and moment
    batch_size: int = 104  # cells
    threads: int = os.cpu_count() or 1  # processor threads of either side, in all its processes together
    processes: int = 1  # more than 1: a third side, ours shared by so many processes
    device: str = "cpu"  # or cuda
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # plain and ours; auto: bfloat16 where it is faster
    compiled: bool = False  # plain and ours with compiled networks, which needs a compiler
    sides: tuple[str, ...] = ()  # left out: literal, plain, ours, and on a card recorded
    side: str = ""  # one alone: a process that is asked through its stdin


class Side:
    """One way to iterate; `iterate(step)` does one iteration and returns the autoencoder's loss before it."""

    def __init__(self, flags: Flags) -> None:
        self.flags = flags
        random = np.random.default_rng(0)
        pixels = random.integers(0, 2**16, (16 * flags.batch_size, CHANNELS, CROP_PX, CROP_PX), dtype=np.uint16)
        torch.manual_seed(0)
        self.model = VAEPlus(CHANNELS, CROP_PX, VAEPlusConfig())
        sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # where the other sides are
        self.phases: dict[str, float] = {}
        self.described: dict[str, Any] = {}
        self.compute = Compute.chosen(device=flags.device, precision=flags.precision, threads=flags.threads)
        sides = {"literal": self.literal, "plain": self.plain, "ours": self.ours, "recorded": self.recorded}
        self.iterate = sides[flags.side](pixels)

    def rows(self, step: int) -> np.ndarray:
        """Two independent batches."""
        return np.random.default_rng([1, step]).integers(16 * self.flags.batch_size, size=(2, self.flags.batch_size))

    def literal(self, pixels: np.ndarray) -> Callable[[int], Tensor]:
        """The twin of the tests, plain float32."""
        from naive import Iteration

        device = self.compute.device
        iteration = Iteration(self.model.to(device).train())

        def iterate(step: int) -> Tensor:
            crops = torch.from_numpy(pixels[self.rows(step)].astype(np.float32))
            crops = (crops / crops.amax((-1, -2), keepdim=True)).to(device)
            noise = noise_of(step, self.flags.batch_size, device)
            return iteration(crops[0], crops[1], noise, step)["autoencoder"]

        return iterate

    def plain(self, pixels: np.ndarray) -> Callable[[int], Tensor]:
        """The same method in plain torch.nn, with the same initial weights."""
        from plain_vaeplus import PlainTraining, PlainVAEPlus

        training = PlainTraining(PlainVAEPlus(CHANNELS), self.model, self.compute, compiled=self.flags.compiled)
        kept = as_signed(pixels).to(self.compute.device)

        def iterate(step: int) -> Tensor:
            crops = self.drawn(kept, step)
            return training(crops[0], crops[1], noise_of(step, self.flags.batch_size, self.compute.device), step)

        return iterate

    def drawn(self, kept: Tensor, step: int) -> Tensor:
        """This process's share of the two batches."""
        own = np.split(self.rows(step), processes.count(), axis=1)[processes.number()]
        rows = self.compute.moved(torch.from_numpy(own))
        return self.compute.normalised(kept[rows.flatten()]).unflatten(0, rows.shape)

    def ours(self, pixels: np.ndarray) -> Callable[[int], Tensor]:
        """What `phenolens train` does, and the seconds of its phases."""
        model, compute = self.compute.place(self.model).train(), self.compute
        if self.flags.compiled:
            functorch.donated_buffer = False
            for network in model.children():
                network.compile()
        players, kept = model.players(), as_signed(pixels).to(compute.device)
        self.phases = dict.fromkeys(
            ("draw and normalise", "losses (forward)", "gradients (backward)", "step and decay"), 0.0
        )

        def timed(phase: str, work: Callable[[], Any]) -> Any:
            began = time.perf_counter()
            found = work()
            self.phases[phase] += time.perf_counter() - began
            return found

        def losses_of(crops: Tensor, step: int) -> Any:
            with compute.autocast():
                return model.losses(Batch.unlabelled(crops, step))

        def iterate(step: int) -> Tensor:
            crops = timed("draw and normalise", lambda: self.drawn(kept, step))
            torch.manual_seed(step)
            losses = timed("losses (forward)", lambda: losses_of(crops, step))
            timed("gradients (backward)", lambda: loop.take_gradients(players, losses, clip_norm=None))
            timed("step and decay", lambda: loop.step_players(players))
            return processes.averaged(losses["autoencoder"].total.detach())

        self.described = compute.described()
        return iterate

    def recorded(self, pixels: np.ndarray) -> Callable[[int], Tensor]:
        """What `phenolens train --recorded` does."""
        model, compute = self.compute.place(self.model).train(), self.compute
        players, kept = model.players(), as_signed(pixels).to(compute.device)
        first_bad = FirstBad(waits=compute.waits, device=compute.device)
        work = partial(loop.one_step, model, players, compute=compute, first_bad=first_bad, clip_norm=None)
        optimisers = {name: player.optimiser for name, player in players.items()}
        step_of = Recorded(work, model, optimisers, capture=capture_graph)

        def iterate(step: int) -> Tensor:
            crops = self.drawn(kept, step)
            torch.manual_seed(step)
            losses, _ = step_of(Batch.unlabelled(crops, step))
            return losses["autoencoder"].total.detach()

        return iterate


def noise_of(step: int, n: int, device: torch.device) -> Tensor:
    """The noise that ours draws at a step."""
    torch.manual_seed(step)
    return torch.randn(n, LATENT_SIZE, device=device)


def now(device: torch.device) -> float:
    """Seconds, when all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def work_as_side(flags: Flags) -> None:
    """Answer each line of stdin, `iterate STEP N`, `phases` or `kernels STEP`, with a line of JSON."""
    device = torch.device(flags.device)
    with together(device):
        answer_questions(Side(flags), device)


def answer_questions(side: Side, device: torch.device) -> None:
    """Until stdin ends."""
    for line in sys.stdin:
        verb, *numbers = line.split()
        answer: dict[str, Any] = {}
        if verb == "iterate":
            step, n = map(int, numbers)
            began, worked = now(device), time.process_time()
            losses = [side.iterate(step + i) for i in range(n)]
            answer["seconds"] = (now(device) - began) / n
            answer["processor_seconds"] = (time.process_time() - worked) / n
            answer["losses"] = [loss.item() for loss in losses]
        elif verb == "phases":
            answer = {"phases": side.phases, "described": side.described}
        else:
            with profile(
                activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] * (device.type == "cuda"))]
            ) as seen:
                side.iterate(int(numbers[0]))
            answer["kernels"] = sorted(
                ((kernel.key, own_time(kernel)) for kernel in seen.key_averages()), key=lambda row: -row[1]
            )[:8]
        answer["peak_bytes"] = peak_bytes(device)
        print(json.dumps(answer), flush=True)


def own_time(kernel: Any) -> float:
    """Seconds of a kind of kernel itself, on the device where there is one."""
    return (getattr(kernel, "self_device_time_total", 0) or kernel.self_cpu_time_total) / 1e6


def peak_bytes(device: torch.device) -> int:
    """The most memory this process has held: of the card, or resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Worker:
    """A side in a process of its own, or shared by several."""

    def __init__(self, flags: Flags, side: str, n_processes: int = 1) -> None:
        options = {"batch-size": flags.batch_size, "threads": max(flags.threads // n_processes, 1)}
        options |= {"device": flags.device, "precision": flags.precision, "side": side}
        command = [
            sys.executable,
            __file__,
            *(word for name, value in options.items() for word in (f"--{name}", str(value))),
        ]
        command += ["--compiled"] * flags.compiled
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(n_processes)}
        self.parts = [
            subprocess.Popen(
                command,
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **shared, "RANK": str(number), "LOCAL_RANK": str(number)},
            )
            for number in range(n_processes)
        ]

    def ask(self, line: str) -> dict[str, Any]:
        """The answer of its first process to one line that all are asked; memory is that of all together."""
        for part in self.parts:
            assert part.stdin is not None
            part.stdin.write(line + "\n")
            part.stdin.flush()
        answers = [part.stdout.readline() if part.stdout is not None else "" for part in self.parts]
        if not all(answers):
            sys.exit("a side of the benchmark has died; its message stands above")
        found = [json.loads(answer) for answer in answers]
        return {**found[0], "peak_bytes": sum(answer["peak_bytes"] for answer in found)}

    def end(self) -> None:
        """Let it go."""
        for part in self.parts:
            assert part.stdin is not None
            part.stdin.close()
        for part in self.parts:
            part.wait()


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def compare(flags: Flags) -> None:
    """All sides in turn at each moment of the schedule; a table, ratios, memory, and where the time goes."""
    cuda = flags.device.startswith("cuda")
    warm_up = WARM_UP["cuda" if cuda else "cpu"] + (COMPILED_AGAIN if flags.compiled else 0)
    names = flags.sides or ("literal", "plain", "ours", *(["recorded"] * cuda))
    sides = {name: Worker(flags, name) for name in names}
    if flags.processes > 1:
        sides[f"ours, {flags.processes} processes"] = Worker(flags, "ours", flags.processes)
    measured: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for moment, step in MOMENTS.items():
        first = {name: worker.ask(f"iterate {step} {warm_up}")["losses"][0] for name, worker in sides.items()}
        if moment == "no layer":
            for name, loss in first.items():
                apart = abs(loss / first[names[0]] - 1)
                print(f"first loss, {name}: {loss:.6g}, apart from the {names[0]} by {apart:.1e} of it")
        for turn in range(flags.rounds):
            for name, worker in sides.items():
                answer = worker.ask(f"iterate {step + warm_up + turn * flags.iterations} {flags.iterations}")
                measured.setdefault((moment, name), []).append(answer)
                tell(f"{moment}, turn {turn + 1}, {name}: {answer['seconds']:.3f} s per iteration")
    ours = sides["ours"].ask("phases") if "ours" in sides else {"described": {}, "phases": {}}
    print(f"\nmachine: {json.dumps(ours['described'])}, {platform.machine()}, {processor_name()}")
    print(f"batch {flags.batch_size}, {CHANNELS} channels of {CROP_PX} px, {flags.threads} threads")
    counted = "seconds" if cuda else "processor_seconds"
    print(f"ratios: {'wall-clock time' if cuda else 'processor seconds'}, turn by turn, median (range)\n")
    print("| moment | side | ms per iteration | processor ms | cells/s | literal / this | plain / this |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for (moment, name), answers in measured.items():
        ratios = [ratio(measured.get((moment, other), []), answers, counted) for other in ("literal", "plain")]
        wall, worked = ([answer[key] for answer in answers] for key in ("seconds", "processor_seconds"))
        speed = flags.batch_size / statistics.median(wall)
        print(
            f"| {moment} | {name} | {spread(wall, 1000)} | {spread(worked, 1000)} | {speed:,.0f} | "
            f"{' | '.join(ratios)} |"
        )
    for name in sides:
        medians = {moment: statistics.median(a["seconds"] for a in measured[moment, name]) for moment in MOMENTS}
        print(f"\nthe paper's {PAPER_STEPS:,} iterations, {name}: {paper_seconds(medians) / 60:.1f} minutes", end="")
    peaks = {name: worker.ask("phases")["peak_bytes"] / 2**20 for name, worker in sides.items()}
    print("\npeak memory: " + ", ".join(f"{name} {mib:,.0f} MiB" for name, mib in peaks.items()))
    if total := sum(ours["phases"].values()):
        print("where ours spends its time: " + ", ".join(f"{k} {v / total:.0%}" for k, v in ours["phases"].items()))
    for name, worker in sides.items():
        kernels = worker.ask(f"kernels {MOMENTS['four layers'] + 10_000}")["kernels"]
        print(f"{name}, four layers, by kernel: " + ", ".join(f"{kind} {1000 * s:.0f} ms" for kind, s in kernels))
        worker.end()


def ratio(others: list[dict[str, Any]], ours: list[dict[str, Any]], key: str) -> str:
    """How many times as long the other side took, turn by turn."""
    return spread([a[key] / b[key] for a, b in zip(others, ours)], digits=2) if others and others is not ours else "-"


def spread(values: list[float], times: float = 1, *, digits: int = 1) -> str:
    """The median and, in brackets, the range."""
    middle, least, most = (f"{times * v:,.{digits}f}" for v in (statistics.median(values), min(values), max(values)))
    return f"{middle} ({least} to {most})"


def paper_seconds(seconds: dict[str, float]) -> float:
    """40,000 iterations of the paper's schedule (T = 2,500), each stretch at the speed of the nearest moment."""
    stretches = {"no layer": 2_500, "two layers": 7_500, "four layers": PAPER_STEPS - 10_000}
    return sum(n * seconds[moment] for moment, n in stretches.items())


if __name__ == "__main__":
    flags = tyro.cli(Flags, description=__doc__.splitlines()[0])
    work_as_side(flags) if flags.side else compare(flags)
