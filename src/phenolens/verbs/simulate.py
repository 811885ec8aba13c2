"""`phenolens simulate`: a screen with known answers."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from tyro.conf import Positional

from phenolens.core.progress import tell
from phenolens.simulation.simulate import SimulateConfig, simulate


@dataclass(frozen=True)
class Flags:
    """What `phenolens simulate` takes."""

    out: Positional[Path]  # folder to write the screen into; new or empty
    processes: int | None = None  # fields drawn side by side; left out: one a core
    simulate: SimulateConfig = field(default_factory=SimulateConfig)


def act(flags: Flags) -> None:
    """Write the screen."""
    simulate(flags.out, flags.simulate, processes=flags.processes or os.cpu_count() or 1)
    tell(f"a simulated screen in {flags.out}, its true answers in {flags.out / 'truth.parquet'}")
    tell(f"next: phenolens run STUDY --source {flags.out} --layout bbbc021")
