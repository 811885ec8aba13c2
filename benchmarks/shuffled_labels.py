"""What the names of treatments teach: weakly supervised models beside themselves with these names shuffled.

    python benchmarks/shuffled_labels.py STUDY --steps 800 --batch-size 16 --threads 1

For each seed a model is trained three times: with its labels, with each cell's labels (treatment and well) given to
another cell at random, and not at all. Scores are by the true mechanisms; p is of a sign-flip test over compounds. A
network that learned nothing from names still sees how cells look, so the shuffled score is compared with the untrained
one, and not with a guess.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import tyro
from tyro.conf import Positional

from phenolens import pipeline
from phenolens.core.bounds import Bounded, Count
from phenolens.core.errors import InputError
from phenolens.model_comparison.compute import answers, p_value
from phenolens.models import MODELS
from phenolens.pipeline import EmbedConfig, EvaluateConfig, ProfileConfig
from phenolens.readiness import ready_runs
from phenolens.study import Study
from phenolens.training import data
from phenolens.training.config import TrainConfig

HOW = ("steps", "batch_size", "threads")
KINDS = ("true", "shuffled", "untrained")


@dataclass(frozen=True)
class Flags(Bounded):
    """What the benchmark takes."""

    study: Positional[Path]
    models: tuple[str, ...] = ()  # left out: all that learn from labels
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: Count = 800
    batch_size: Count = 16
    threads: Count | None = None


def trained(study: Study, config: TrainConfig, kind: str) -> str:
    """Train, embed and profile one run; its name."""
    name = pipeline.run_name(config) if kind == "true" else f"{config.model}-{kind}-seed{config.seed}"
    labels = data.label_codes

    def shuffled(cells: pd.DataFrame) -> np.ndarray:
        return labels(cells)[:, np.random.default_rng(config.seed).permutation(len(cells))]

    with mock.patch.object(data, "label_codes", shuffled if kind == "shuffled" else labels):
        pipeline.train(study, replace(config, steps=0, cooldown_steps=0) if kind == "untrained" else config, name=name)
    pipeline.embed(study, name, EmbedConfig(threads=config.threads))
    pipeline.profile(study, name, ProfileConfig())
    return name


def main(flags: Flags) -> None:
    """Train what is missing, score all, print % right by headline profiles: mean and deviation over seeds."""
    study = Study.open(flags.study)
    of = {}
    learning = [model for model in MODELS if getattr(MODELS[model].load(), "labels", ())]
    if unknown := sorted(set(flags.models) - set(learning)):
        raise InputError(f"--models {unknown[0]}: expected some of {', '.join(learning)}")
    for model in flags.models or learning:
        for seed in flags.seeds:
            config = TrainConfig(model=model, seed=seed, **{name: getattr(flags, name) for name in HOW})
            of |= {trained(study, config, kind): (model, kind) for kind in KINDS}
    pipeline.evaluate(study, ready_runs(study, "profiled"), EvaluateConfig())
    rows = []
    for protocol in ("NSC", "NSCB"):
        where = {"protocol": protocol, "statistics": "mean", "whitening": study.headline["whitening"]}
        for model in dict.fromkeys(model for model, _ in of.values()):
            right = {kind: answers(study, [run for run in of if of[run] == (model, kind)], **where) for kind in KINDS}
            scores = {kind: 100 * of_kind.mean() for kind, of_kind in right.items()}
            row = {kind: f"{score.mean():.1f} ± {score.std():.1f}" for kind, score in scores.items()}
            p = p_value(right["true"], right["shuffled"])
            rows.append({"model": model, "protocol": protocol} | row | {"p, true against shuffled": f"{p:.2g}"})
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    try:
        main(tyro.cli(Flags, description=__doc__))
    except InputError as error:
        sys.exit(f"error: {error}")
