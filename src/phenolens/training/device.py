"""Device, precision, threads, seeds and memory of a computation; stopping between two steps."""

import contextlib
import ctypes
import os
import platform
import re
import signal
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from phenolens.core.errors import InputError
from phenolens.models.interface import Input

DEVICES = ("cpu", "cuda", "mps", "xpu")


@dataclass(frozen=True)
class Compute:
    """A device and the precision of its convolutions."""

    device: torch.device
    precision: torch.dtype

    @classmethod
    def chosen(cls, *, device: str, precision: str, threads: int | None) -> Self:
        """Resolve `auto` for this machine and set torch's threads; InputError when the device is not available."""
        torch.set_num_threads(threads or os.cpu_count() or 1)
        name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        if name == "cuda":  # torchrun: a card for each process
            name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        try:
            chosen = torch.device(name)
            if chosen.type not in DEVICES:
                raise RuntimeError(f"no device to train on: {chosen}")
            torch.empty(1, device=chosen)
            if chosen.type == "cuda":
                torch.cuda.set_device(chosen)
                torch.backends.cudnn.allow_tf32 = False  # float32 means float32, as on a processor
                torch.backends.cudnn.deterministic = True  # a resumed run ends with the same bits
        except (RuntimeError, AssertionError) as error:
            raise InputError(f'--device {device}: not available on this machine; use "cpu"') from error
        keep_freed_memory()
        bfloat16 = has_bfloat16(chosen) if precision == "auto" else precision == "bfloat16"
        return cls(chosen, torch.bfloat16 if bfloat16 else torch.float32)

    def place(self, model: nn.Module) -> nn.Module:
        """Move the model here, its kernels laid out channels-last."""
        return model.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def autocast(self) -> torch.autocast:
        """Convolutions in the chosen precision, weights and sums in float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == torch.bfloat16)

    def seed(self, seed: int, step: int) -> None:
        """Seed torch's generator as a function of (seed, step)."""
        torch.manual_seed(int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0]))

    def scaled(self, crops: np.ndarray | Tensor, how: Input) -> Tensor:
        """Crops as a model takes them in: "peak" as `normalised`, "raw" the counts as float32."""
        return self.normalised(crops) if how == "peak" else self._counts(crops)

    def normalised(self, crops: np.ndarray | Tensor) -> Tensor:
        """Crops (n, C, S, S), uint16 or the int16 of the same bits, as float32, each channel divided by its maximum.

        An all-zero channel stays zero. Absolute intensity is lost, as in the paper.
        """
        x = self._counts(crops)
        peak = x.amax((2, 3), keepdim=True)
        return x.div_(torch.where(peak > 0, peak, 1))

    def moved(self, numbers: Tensor) -> Tensor:
        """On the device; a CUDA card is not waited for."""
        if self.device.type == "cuda" and numbers.device.type == "cpu":
            return numbers.pin_memory().to(self.device, non_blocking=True)
        return numbers.to(self.device)

    def _counts(self, crops: np.ndarray | Tensor) -> Tensor:
        """The pixels as float32 on the device; they are copied to it with two bytes each."""
        pixels = self.moved(as_signed(crops) if isinstance(crops, np.ndarray) else crops)
        return (pixels.to(torch.int32) & 0xFFFF).to(torch.float32, memory_format=torch.channels_last)

    @property
    def waits(self) -> bool:
        """Whether reading a number costs no time; a CUDA card would have to be waited for."""
        return self.device.type != "cuda"

    def free_bytes(self) -> int:
        """Free memory of a CUDA device."""
        return torch.cuda.mem_get_info(self.device)[0]

    def described(self) -> dict[str, Any]:
        """Machine and versions, for a run's config.json."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else processor_name()
        return {
            "device": name,
            "precision": str(self.precision).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "system": platform.system(),
        }


def has_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is faster than float32 here: with a card's or AMX's units, or AVX-512's on AMD.

    AVX-512's bfloat16 on Intel without AMX is slower than float32 (docs/speed.md); elsewhere bfloat16 is emulated.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    of_amd = torch.cpu._is_avx512_bf16_supported() and re.search(r"\bAMD\b", processor_name()) is not None
    return torch.cpu._is_amx_tile_supported() or of_amd


def as_signed(crops: np.ndarray) -> Tensor:
    """Crops of uint16 as int16 with the same bits, which torch calculates with; a copy, since maps are read-only."""
    return torch.from_numpy(np.array(crops, np.uint16).view(np.int16))


def processor_name() -> str:
    """The processor's name where the system reports it."""
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open() as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory: each step maps tens of MB, and fresh pages cost a third of its time."""
    if platform.libc_ver()[0] == "glibc":
        m_trim_threshold, m_mmap_threshold = -1, -3
        libc = ctypes.CDLL(None)
        libc.mallopt(m_mmap_threshold, 1 << 30)
        libc.mallopt(m_trim_threshold, (1 << 31) - 1)


class StopRequest:
    """Inside the context, SIGINT and SIGTERM set `requested`, so that a loop can stop between two steps."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        with contextlib.suppress(ValueError):  # signals can be handled in the main thread only
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
