"""How fast VAE+ trains: the method written literally (tests/naive.py, float32) and ours, in turn, in one run.

    python benchmarks/train.py --processes 2     # two processor cores: as one process, and shared by two
    python benchmarks/train.py --device cuda     # a CUDA card; also without the literal method: --rounds 0

Each side works in a process of its own, so that neither profits from the other's memory settings, and only one works
at a time. The data is noise: no number here depends on what is on the crops.
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
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from torch.profiler import ProfilerActivity, profile

from phenolens.core.progress import tell
from phenolens.models import processes
from phenolens.models.interface import Batch
from phenolens.models.vaeplus import VAEPlus, VAEPlusConfig
from phenolens.training import loop
from phenolens.training.device import Compute, as_signed, processor_name
from phenolens.training.distributed import together

CHANNELS, CROP_PX, LATENT_SIZE = 3, 68, 256
PAPER_STEPS = 40_000
# moments of the paper's schedule: no layer of the discriminator counts, two do, all four do
MOMENTS = {"no layer": 0, "two layers": 7_500, "four layers": 20_000}


@dataclass(frozen=True)
class Flags:
    """What the benchmark takes."""

    rounds: int = 3  # how often the two sides take turns; 0: ours alone
    iterations: int = 3  # timed iterations of each turn and moment
    batch_size: int = 104  # cells
    threads: int = os.cpu_count() or 1  # processor threads of either side, in all its processes together
    processes: int = 1  # more than 1: a third side, ours shared by so many processes
    device: str = "cpu"  # or cuda
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # ours; auto: bfloat16 where it is faster
    compiled: bool = False  # ours with compiled networks
    side: Literal["both", "literal", "ours"] = "both"  # one alone: a process that is asked through its stdin


class Side:
    """One way to iterate; `iterate(step)` does one iteration and returns the autoencoder's loss before it."""

    def __init__(self, flags: Flags) -> None:
        self.flags = flags
        random = np.random.default_rng(0)
        pixels = random.integers(0, 2**16, (16 * flags.batch_size, CHANNELS, CROP_PX, CROP_PX), dtype=np.uint16)
        torch.manual_seed(0)
        self.model = VAEPlus(CHANNELS, CROP_PX, VAEPlusConfig())
        self.iterate, self.phases = self.literal(pixels) if flags.side == "literal" else self.ours(pixels)

    def rows(self, step: int) -> np.ndarray:
        """Two independent batches."""
        return np.random.default_rng([1, step]).integers(16 * self.flags.batch_size, size=(2, self.flags.batch_size))

    def literal(self, pixels: np.ndarray) -> tuple[Callable[[int], float], dict[str, float]]:
        """The twin of the tests, plain float32."""
        sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
        from naive import Iteration

        torch.set_num_threads(self.flags.threads)
        device = torch.device(self.flags.device)
        iteration = Iteration(self.model.to(device).train())

        def iterate(step: int) -> float:
            crops = torch.from_numpy(pixels[self.rows(step)].astype(np.float32))
            crops = (crops / crops.amax((-1, -2), keepdim=True)).to(device)
            noise = noise_of(step, self.flags.batch_size, device)
            return iteration(crops[0], crops[1], noise, step)["autoencoder"].item()

        return iterate, {}

    def ours(self, pixels: np.ndarray) -> tuple[Callable[[int], float], dict[str, float]]:
        """What `phenolens train` does, and the seconds of its phases."""
        flags = self.flags
        compute = Compute.chosen(device=flags.device, precision=flags.precision, threads=flags.threads)
        model = compute.place(self.model).train()
        if flags.compiled:
            for network in model.children():
                network.compile()
        players = model.players()
        kept = as_signed(pixels).to(compute.device)
        spent = dict.fromkeys(("draw and normalise", "losses (forward)", "gradients (backward)", "step and decay"), 0.0)

        def timed(phase: str, work: Callable[[], Any]) -> Any:
            began = now(compute.device)
            found = work()
            spent[phase] += now(compute.device) - began
            return found

        def losses_of(crops: torch.Tensor, step: int) -> Any:
            with compute.autocast():
                return model.losses(Batch.unlabelled(crops, step))

        def iterate(step: int) -> float:
            own = np.split(self.rows(step), processes.count(), axis=1)[processes.number()]
            rows = torch.from_numpy(own).to(compute.device)
            crops = timed(
                "draw and normalise", lambda: compute.normalised(kept[rows.flatten()]).unflatten(0, rows.shape)
            )
            torch.manual_seed(step)
            losses = timed("losses (forward)", lambda: losses_of(crops, step))
            timed("gradients (backward)", lambda: loop.take_gradients(players, losses, clip_norm=None))
            timed("step and decay", lambda: loop.step_players(players))
            return processes.averaged(losses["autoencoder"].total.detach()).item()

        self.described = compute.described()
        return iterate, spent


def noise_of(step: int, n: int, device: torch.device) -> torch.Tensor:
    """The noise that ours draws at a step, for the literal side."""
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
            began = now(device)
            answer["losses"] = [side.iterate(step + i) for i in range(n)]
            answer["seconds"] = (now(device) - began) / n
        elif verb == "phases":
            answer = {"phases": side.phases, "described": getattr(side, "described", {})}
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
    """Both sides in turn at each moment of the schedule; a table, the ratio, memory, and where the time goes."""
    sides = {name: Worker(flags, name) for name in (("literal", "ours") if flags.rounds else ("ours",))}
    if flags.processes > 1:
        sides[f"ours, {flags.processes} processes"] = Worker(flags, "ours", flags.processes)
    seconds: dict[tuple[str, str], list[float]] = {}
    for moment, step in MOMENTS.items():
        first = {name: worker.ask(f"iterate {step} 1")["losses"][0] for name, worker in sides.items()}  # and warm up
        if flags.rounds and moment == "no layer":
            for name, loss in first.items():
                apart = abs(loss / first["literal"] - 1)
                print(f"first loss, {name}: {loss:.6g}, apart from the literal by {apart:.1e} of it")
        for turn in range(max(flags.rounds, 1)):
            for name, worker in sides.items():
                answer = worker.ask(f"iterate {step + 1 + turn * flags.iterations} {flags.iterations}")
                seconds.setdefault((moment, name), []).append(answer["seconds"])
                tell(f"{moment}, turn {turn + 1}, {name}: {answer['seconds']:.3f} s per iteration")
    ours = sides["ours"].ask("phases")
    print(f"\nmachine: {json.dumps(ours['described'])}, {platform.machine()}, {processor_name()}")
    print(f"batch {flags.batch_size}, {CHANNELS} channels of {CROP_PX} px, {flags.threads} threads\n")
    print("| moment | side | ms per iteration, median (range) | iterations/s | cells/s | literal / ours |")
    print("| --- | --- | --- | --- | --- | --- |")
    for (moment, name), times in seconds.items():
        middle = statistics.median(times)
        pairs = [a / b for a, b in zip(seconds.get((moment, "literal"), []), times)] if name != "literal" else []
        ratio = f"{statistics.median(pairs):.2f} ({min(pairs):.2f} to {max(pairs):.2f})" if pairs else "-"
        spread = f"{1000 * middle:.1f} ({1000 * min(times):.1f} to {1000 * max(times):.1f})"
        print(f"| {moment} | {name} | {spread} | {1 / middle:.2f} | {flags.batch_size / middle:,.0f} | {ratio} |")
    whole = paper_seconds({moment: statistics.median(seconds[moment, "ours"]) for moment in MOMENTS})
    print(f"\nthe paper's {PAPER_STEPS:,} iterations at these speeds: {whole / 60:.1f} minutes")
    peaks = {name: worker.ask("phases")["peak_bytes"] / 2**20 for name, worker in sides.items()}
    print("peak memory: " + ", ".join(f"{name} {mib:,.0f} MiB" for name, mib in peaks.items()))
    total = sum(ours["phases"].values())
    print("where ours spends its time: " + ", ".join(f"{k} {v / total:.0%}" for k, v in ours["phases"].items()))
    for name, worker in sides.items():
        kernels = worker.ask(f"kernels {MOMENTS['four layers']}")["kernels"]
        print(f"{name}, four layers, by kernel: " + ", ".join(f"{kind} {1000 * s:.0f} ms" for kind, s in kernels))
        worker.end()


def paper_seconds(seconds: dict[str, float]) -> float:
    """40,000 iterations of the paper's schedule (T = 2,500), each stretch at the speed of the nearest moment."""
    stretches = {"no layer": 2_500, "two layers": 7_500, "four layers": PAPER_STEPS - 10_000}
    return sum(n * seconds[moment] for moment, n in stretches.items())


if __name__ == "__main__":
    flags = tyro.cli(Flags, description=__doc__.splitlines()[0])
    compare(flags) if flags.side == "both" else work_as_side(flags)
