"""How fast crops are embedded, against the plain forward pass and against reading them: in turn, in one run.

    python benchmarks/embed.py                                   # two processor cores
    python benchmarks/embed.py --model imagenet --crops 1024     # the recommended encoder, each crop in eight turns
    python benchmarks/embed.py --device cuda --crops 1000000     # a CUDA card, a million crops

The crops are noise in a crop store written for the purpose (27 kB a crop; it is deleted at the end).
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro

from phenolens.core.progress import tell
from phenolens.crops.store import write_npy
from phenolens.models import MODELS
from phenolens.models.interface import Representation, mean_over_turns
from phenolens.training.device import Compute, processor_name
from phenolens.training.embed import BATCH, embed_crops

CHANNELS, CROP_PX = 3, 68


@dataclass(frozen=True)
class Flags:
    """What the benchmark takes."""

    model: Literal["vaeplus", "imagenet"] = "vaeplus"
    crops: int = 8192  # how many are embedded
    rounds: int = 3  # how often the three take turns
    threads: int = os.cpu_count() or 1  # processor threads
    device: str = "cpu"  # or cuda
    precision: Literal["auto", "float32", "bfloat16"] = "float32"  # what `phenolens embed` uses


def main(flags: Flags) -> None:
    """Time reading, the plain forward pass on crops already in memory as floats, and embedding from the map."""
    compute = Compute.chosen(device=flags.device, precision=flags.precision, threads=flags.threads)
    torch.manual_seed(0)
    spec = MODELS[flags.model]
    model = spec.build(CHANNELS, CROP_PX, spec.config()())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plate.npy"
        write_npy(path, noise(flags.crops), (flags.crops, CHANNELS, CROP_PX, CROP_PX))
        mapped = np.asarray(np.load(path, mmap_mode="r"))
        floats = compute.normalised(mapped[:BATCH])
        embed_crops(model, mapped[: 2 * BATCH], compute=compute, turns=model.turns)  # warm up
        ways: dict[str, Callable[[], int]] = {
            "reading the memory map": lambda: read(mapped),
            "plain forward pass": lambda: forward(model, floats, flags.crops, compute),
            "embedding": lambda: len(embed_crops(model, mapped, compute=compute, turns=model.turns)),
        }
        speeds: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(flags.rounds):
            for way, work in ways.items():
                began = time.perf_counter()
                n = work()
                speeds[way].append(n / (time.perf_counter() - began))
                tell(f"turn {turn + 1}, {way}: {speeds[way][-1]:,.0f} crops per second")
    print(f"{flags.model}, {flags.crops:,} crops, {flags.threads} threads, {compute.device}, {flags.precision}", end="")
    print(f"; {processor_name()}\n")
    print("| what | crops per second, median (least to most) | embedding / this |")
    print("| --- | --- | --- |")
    for way, found in speeds.items():
        share = statistics.median(a / b for a, b in zip(speeds["embedding"], found))
        print(f"| {way} | {statistics.median(found):,.0f} ({min(found):,.0f} to {max(found):,.0f}) | {share:.3f} |")


def noise(n: int):  # type: ignore[no-untyped-def]
    """Crops (BATCH or fewer, C, S, S) until there are n."""
    random = np.random.default_rng(0)
    for start in range(0, n, BATCH):
        yield random.integers(0, 2**16, (min(BATCH, n - start), CHANNELS, CROP_PX, CROP_PX), dtype=np.uint16)


def read(mapped: np.ndarray) -> int:
    """Copy every crop out of the map; how many."""
    return sum(len(np.array(mapped[start : start + BATCH])) for start in range(0, len(mapped), BATCH))


@torch.inference_mode()
def forward(model: Representation, floats: torch.Tensor, n: int, compute: Compute) -> int:
    """The encoder in evaluation mode over the same floats again and again, until n crops have passed."""
    compute.place(model).eval()
    passed = 0
    while passed < n:
        with compute.autocast():
            z = mean_over_turns(model.embed, floats, model.turns)
        passed += len(z)
    z.sum().item()  # what was asked of a device is done
    return passed


if __name__ == "__main__":
    main(tyro.cli(Flags, description=__doc__.splitlines()[0]))
