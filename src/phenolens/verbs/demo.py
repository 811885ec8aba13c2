"""`phenolens demo`: a simulated screen, from images to a report, in about five minutes on two cores."""

import os
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from phenolens.core.errors import InputError
from phenolens.core.progress import tell
from phenolens.simulation.simulate import CONFIG_FILE, SimulateConfig, simulate
from phenolens.study import MARKER
from phenolens.training.config import TrainConfig
from phenolens.verbs import run

# The paper's schedule lasts 40,000 steps. This one is short, and was chosen by looking at reconstructions and at their
# error, not at scores (docs/results.md): small batches for many steps, two discriminator layers only, a larger learning
# rate that falls at the end, smaller weights of the prior and of the discriminator's features.
NETWORK = dict(ramp_steps=300, feature_layers=2, feature_weight=0.1, learning_rate=3e-3, beta=0.5)
BATCH_SIZE = 32
COOLDOWN_SHARE = 0.3  # of the steps


@dataclass(frozen=True)
class Flags:
    """What `phenolens demo` takes."""

    out: Positional[Path]  # folder to make; the screen goes into OUT/screen, the study into OUT/study
    steps: int = 1500  # of VAE+ training; more makes sharper pictures
    seed: int = 0  # of the screen and of the training
    threads: int | None = None  # processor threads; left out: all


def act(flags: Flags) -> None:
    """Simulate and run; the report's path is the last line."""
    screen, study = flags.out / "screen", flags.out / "study"
    begun = (screen / CONFIG_FILE).exists() or (study / MARKER).exists()
    if flags.out.exists() and not begun and (not flags.out.is_dir() or any(flags.out.iterdir())):
        raise InputError(f"{flags.out}: is not empty and no demo of phenolens; name a new or empty folder")
    tell("a screen of 12 mechanisms on 4 plates is drawn, cell by cell")
    simulate(screen, SimulateConfig(seed=flags.seed), processes=flags.threads or os.cpu_count() or 1)
    train = TrainConfig(
        steps=flags.steps,
        seed=flags.seed,
        batch_size=BATCH_SIZE,
        cooldown_steps=round(COOLDOWN_SHARE * flags.steps),
        threads=flags.threads,
        network=NETWORK,  # type: ignore[arg-type]
    )
    run.act(run.Flags(study=study, source=screen, layout="bbbc021", train=train))
