"""Which runs a figure shows: those that decode, in the order in which they stand."""

from collections.abc import Sequence

from phenolens.contents.pictured import PicturedRun, chosen_run, pictured_runs
from phenolens.steps import trained_runs
from phenolens.study import Study

ORDER = ("pca", "ae", "vae", "vaeplus")  # models from the plainest on, as in the paper's Figure 2


def decoding_runs(study: Study, asked: Sequence[str]) -> list[PicturedRun]:
    """The runs asked for, in their order, all of which must decode; else all that decode, the plainest model first."""
    if asked:
        return [chosen_run(study, name) for name in dict.fromkeys(asked)]
    able = pictured_runs(study, trained_runs(study))
    return sorted(able, key=place) if able else [chosen_run(study, None)]


def place(run: PicturedRun) -> tuple[int, str]:
    """Sorts runs by their model, the plainest first."""
    return ORDER.index(run.model_name) if run.model_name in ORDER else len(ORDER), run.name


def named_runs(runs: Sequence[PicturedRun]) -> dict[str, PicturedRun]:
    """The runs by their model's name, or by their own where two are of one model."""
    titles = [run.title for run in runs]
    return {run.title if titles.count(run.title) == 1 else run.name: run for run in runs}
