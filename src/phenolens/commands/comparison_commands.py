"""The command that compares models."""

from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from phenolens.commands.paths import AnyPath
from phenolens.core.bounds import Seed
from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.keywords import keyword_settings
from phenolens.core.progress import tell
from phenolens.image_realism.config import RealismConfig
from phenolens.models.config import Turns
from phenolens.pipeline import EvaluateConfig, ProfileConfig, check_design
from phenolens.profiles.kinds import check_cells
from phenolens.profiles.score_table import is_bbbc021
from phenolens.study import Study
from phenolens.training.config import ComparedTraining

if TYPE_CHECKING:
    from phenolens.model_comparison.saved import ModelComparison

# columns of what a classifier tells from real cells, and their names in the table of realism
PICTURES = {"realism": "accuracy", "realism_low": "accuracy_low", "realism_high": "accuracy_high", "pictures": "kind"}


@keyword_settings
def benchmark(
    study: Positional[AnyPath],
    *,
    models: tuple[str, ...] = ("all",),
    seeds: tuple[Seed, ...] = (0, 1, 2),
    untrained: bool = True,
    pictures: bool = True,
    tables: tuple[Path, ...] = (),
    embed_turns: Turns | None = None,
    training: ComparedTraining = ComparedTraining(),
    profiling: ProfileConfig = ProfileConfig(),
    scoring: EvaluateConfig = EvaluateConfig(),
) -> "ModelComparison":
    """Train every encoder on the same cells and compare scores, pictures and costs in one table.

    Finished runs are kept, so a stopped comparison resumes. Scores of the paper stand beside yours where the screen is
    BBBC021.

    Args:
        study: The study, or its folder; its crops are made.
        models: Encoders to compare; all: each that is installed and takes these crops.
        seeds: Each model is trained once per seed; imagenet, whose weights are fixed, is taken once.
        untrained: Add each network with its initial weights: only the difference comes from training.
        pictures: Measure how realistic decoded or drawn cells are.
        tables: Tables of embeddings from elsewhere, with a row per cell of the study (Metadata_Cell), to compare too.
        embed_turns: 8: every embedding is the mean over each crop's turns and flips; left out: of imagenet alone.
        training: How models are trained: `steps=5000, latent_size=32`; each setting is that of all chosen models that
            have it; default: each model's own.
        profiling: How cells become profiles.
        scoring: How treatments are matched.

    Returns:
        The comparison: `.scores` has a row per model and kind of score, `.facts` a row per model, `.folder` the files.

    Raises:
        InputError: There is no such model, a setting that no chosen model has, or a score is impossible.
    """
    opened = Study.open(study)

    from phenolens.image_realism.compute import check_measurable
    from phenolens.image_realism.saved import saved_realism
    from phenolens.model_comparison.compute import ALL, compared, entries, facts, possible, realism_of, take_runs
    from phenolens.model_comparison.saved import save

    if not models:
        raise InputError("--models: expected one or more encoders, or all")
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError("--seeds: expected one or more different seeds")
    if (training.model, training.seed) != (ComparedTraining.model, ComparedTraining.seed):
        raise InputError("model, seed: the comparison takes `models` and `seeds`")
    if "NSC" in (absent := check_design(opened.crops.cells, scoring, where=opened.folder)):
        raise InputError(f"{opened.folder}: {absent['NSC']}, and models are compared by NSC")
    check_cells(opened.crops.cells, profiling)
    if pictures:
        try:
            check_measurable(opened.crops, RealismConfig())
        except InputError as error:
            if not saved_realism(opened):
                raise InputError(f"{error}; or give --no-pictures") from error
    rows = entries(models, seeds, training, untrained=untrained, tables=tables, turns=embed_turns)
    rows = possible(opened, rows, profiling, leave_out=ALL in models)
    n_runs = sum(len(row.runs) for row in rows)
    tell(f"{counted(len(rows), 'row')} from {counted(n_runs, 'run')}: {', '.join(row.name for row in rows)}")
    take_runs(opened, rows, profiling, scoring)
    scores, about = compared(opened, rows, scoring), facts(opened, rows, scoring)
    realism = realism_of(opened, rows) if pictures else None
    for column, name in PICTURES.items():
        about[column] = about["entry"].map(realism[name]) if realism is not None else float("nan")
    published = is_bbbc021(opened.crops.cells)
    runs = [run for row in rows for run in row.runs]
    return save(opened, scores, about, runs=runs, headline=scoring.headline, published=published)
