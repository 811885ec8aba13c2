"""`phenolens evaluate`: how well treatments match by mechanism, in a study or in any table."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from phenolens import pipeline
from phenolens.core.errors import InputError, Interrupted
from phenolens.core.progress import tell
from phenolens.profiles import evaluate, scores_folder
from phenolens.profiles.columns import Columns
from phenolens.profiles.evaluate import EvaluateConfig, Evaluation, ScoreConfig, TableConfig
from phenolens.profiles.read_table import KINDS, kind_of
from phenolens.profiles.whitening import Recipe, Whitening
from phenolens.readiness import ready_runs
from phenolens.study import MARKER, Study


@dataclass(frozen=True)
class Flags:
    """What `phenolens evaluate` takes."""

    source: Positional[Path]  # a study's folder; or a table (.csv, .tsv, .parquet, .h5ad), or a folder of tables
    out: Path | None = None  # of a table: the folder for its scores; left out: <table>_scores here
    columns: Columns = field(default_factory=Columns)
    table: TableConfig = field(default_factory=TableConfig)
    recipe: Recipe = field(default_factory=Recipe)
    score: ScoreConfig = field(default_factory=ScoreConfig)


def act(flags: Flags) -> None:
    """Score a study's profiles, or a table, and print the table of scores."""
    if is_table(flags.source):
        try:
            of_table(flags)
        except KeyboardInterrupt:
            raise Interrupted("stopped; nothing was written; the same command starts again") from None
        return
    study = Study.open(flags.source)
    config = _of_study(flags)
    pipeline.evaluate(study, ready_runs(study, "profiled"), config)
    show_scores(study)
    tell(f"next: phenolens report {study.folder}")


def is_table(source: Path) -> bool:
    """Whether this is a table (a file or a folder of tables) rather than a study; InputError where it is neither."""
    if (source / MARKER).exists():
        return False
    if source.is_dir():
        if any(kind_of(file) for file in source.iterdir()):
            return True
    elif kind_of(source) or source.exists():
        if not kind_of(source):
            raise InputError(f"{source}: unsupported file type; save it as one of {', '.join(KINDS)}")
        return True
    found = "no study here and no table" if source.exists() else "not there: no study here and no table"
    raise InputError(
        f"{source}: {found}; expected a study's folder, a table ({', '.join(KINDS)}) or a folder of tables"
    )


def of_table(flags: Flags) -> None:
    """Score a table, save everything in a folder, and print the scores."""
    named = flags.out or Path(f"{flags.source.resolve().name.split('.')[0]}_scores")
    with scores_folder.score_folder(named, source=flags.source) as out:
        evaluation = evaluate.evaluate_table(
            flags.source, columns=flags.columns, config=flags.table, recipe=flags.recipe, score=flags.score
        )
        scores_folder.save_evaluation(evaluation, out)
    show_evaluation(evaluation)
    print(out)
    tell(f"next: open {out / 'protocol.md'} (how it was made) and the confusion_*.png beside it")


def show_evaluation(evaluation: Evaluation) -> None:
    """Print the scores as a table, what the whitening achieved, and mAP."""
    scores = Table("score", "of", "right", "accuracy", "95 % interval", "chance", "shuffled", "p")
    for row in evaluation.as_table().to_dict("records"):
        right = f"{row['n_correct']} of {row['n_treatments']}"
        shares = [f"{100 * row[name]:.1f} %" for name in ("accuracy", "chance", "shuffled")]
        interval = f"{100 * row['ci_low']:.0f} to {100 * row['ci_high']:.0f} %"
        scores.add_row(
            row["protocol"], row["queries"], right, shares[0], interval, *shares[1:], f"{row['p_value']:.2g}"
        )
    Console(width=110).print(scores)
    if achieved := whitening_in_short(evaluation.profiles.whitening):
        tell(achieved)
    questions = {"treatments": "wells find each other before controls", "mechanisms": "find their own kind"}
    for of, table in evaluation.precision.items():
        found = int((table["corrected_p_value"] < 0.05).sum())
        print(
            f"mAP of {of} ({questions[of]}): mean {table['mean_average_precision'].mean():.3f}; "
            f"{found} of {len(table)} with a corrected p below 0.05"
        )


def whitening_in_short(whitening: Whitening) -> str:
    """Whether the controls span all directions, and what to do if not; empty where nothing was whitened."""
    recipe, certificates = whitening.recipe, whitening.certificates
    if recipe.whitening == "none" or not certificates:
        return ""
    where = "" if len(certificates) == 1 else f" in each of {len(certificates)} {recipe.whitened_over} groups"
    controls = _from_to(certificate.n_rows for certificate in certificates)
    rows = "controls" if recipe.learnt_on == "controls" else "rows"
    ranks, n_features = [certificate.rank for certificate in certificates], len(whitening.features)
    kept = min(recipe.n_components or n_features, n_features)
    if min(ranks) >= kept:
        return f"whitening: {controls} {rows}{where} vary in all {kept} directions that are kept"
    advice = [] if recipe.whitened_over == "all" else ["pool all plates (--whitened-over all)"]
    advice += ["use --whitening zca if you need named features"] if recipe.whitening == "pca" else []
    advice += [f"keep fewer directions (--n-components {min(ranks)})"]
    return (
        f"whitening: {controls} {rows}{where} vary in {_from_to(ranks)} of {n_features} directions, so the rest is not "
        f"whitened: {', or '.join(advice)}"
    )


def _from_to(numbers: Iterable[int]) -> str:
    low, high = min(found := list(numbers)), max(found)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _of_study(flags: Flags) -> EvaluateConfig:
    """The settings of a study's scores; InputError on a flag that goes with a table."""
    shared = [part.name for part in fields(EvaluateConfig)]
    for given, own in ((flags.columns, Columns()), (flags.table, TableConfig()), (flags.recipe, Recipe())):
        _refuse_table_flags(given, own, flags.source)
    _refuse_table_flags(flags.score, ScoreConfig(), flags.source, but=shared)
    if flags.out is not None:
        raise InputError("--out: goes with a table; a study keeps its scores in its own folder")
    return EvaluateConfig(**{name: getattr(flags.score, name) for name in shared})


def _refuse_table_flags(given: Any, default: Any, study: Path, *, but: Sequence[str] = ()) -> None:
    for part in fields(given):
        if part.name not in but and getattr(given, part.name) != getattr(default, part.name):
            raise InputError(
                f"--{part.name.replace('_', '-')}: goes with a table; score a study's profiles as a table: "
                f"phenolens evaluate {study}/profiles/<run>/wells_mean.h5ad ..."
            )


def show_scores(study: Study) -> None:
    """The study's scores as a table on stdout."""
    table = Table("model", "seed", "statistics", "whitening", "score", "right", "accuracy", "95 % interval")
    for row in pd.read_csv(study.scores_path, keep_default_na=False).to_dict("records"):
        names = [str(row[name]) for name in ("model", "seed", "statistics", "whitening", "protocol")]
        right = f"{row['n_correct']} of {row['n_treatments']}"
        interval = f"{100 * row['ci_low']:.0f} to {100 * row['ci_high']:.0f} %"
        table.add_row(*names, right, f"{100 * row['accuracy']:.1f} %", interval)
    Console(width=110).print(table)
