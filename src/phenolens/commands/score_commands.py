"""Commands from crops and trained models to scores: measure, embed, profile, evaluate, compare."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd
from tyro.conf import Positional

from phenolens import pipeline
from phenolens.commands.paths import AnyPath
from phenolens.core.bounds import Count, Seed
from phenolens.core.counted import counted
from phenolens.core.errors import InputError, Interrupted
from phenolens.core.files import write_text
from phenolens.core.keywords import keyword_settings
from phenolens.core.names import shortened
from phenolens.core.progress import tell
from phenolens.core.workers import AtOnce
from phenolens.pipeline import EmbedConfig, ProfileConfig
from phenolens.profiles.columns import Columns
from phenolens.profiles.evaluate import EvaluateConfig, Evaluation, ScoreConfig, evaluate_table
from phenolens.profiles.scores_folder import protocol_of, read_queries, save_evaluation, score_folder
from phenolens.profiles.table_parts import KINDS, kind_of
from phenolens.profiles.table_profiles import TableConfig
from phenolens.profiles.uncertainty import Comparison, compare_queries
from phenolens.profiles.whitening import Recipe
from phenolens.readiness import decoded_run, ready_runs
from phenolens.runs.cell_measures import measure_cells
from phenolens.study import MARKER, Study


@keyword_settings
def measure(study: Positional[AnyPath], *, parallel: AtOnce = AtOnce()) -> Study:
    """Measure size, shape, texture and intensity of every cell; plates that did not change are kept.

    Args:
        study: The study, or its folder.
        parallel: How many processes measure a plate each, or the Dask cluster that does.

    Returns:
        The study; `study.measures()` has a row per cell.

    Raises:
        InputError: The study has no crops.
    """
    opened = Study.open(parallel.path(study))
    measure_cells(opened, at_once=parallel)
    tell(f"measures of {counted(len(opened.crops), 'cell')}: {opened.measures_folder}")
    return opened


@keyword_settings
def embed(
    study: Positional[AnyPath],
    *,
    runs: tuple[str, ...] = (),
    scheduler: str | None = None,
    embedding: EmbedConfig = EmbedConfig(),
) -> Study:
    """Embed every crop with the trained models.

    Args:
        study: The study, or its folder.
        runs: Runs to embed with; default: all that are trained.
        scheduler: Address of a Dask scheduler whose workers see the study's folder; they embed a plate each.
        embedding: Device, precision and threads.

    Returns:
        The study; `study.embeddings(run)` has a row per cell.

    Raises:
        InputError: There is no such run, or the crops changed since it was trained.
    """
    opened = Study.open(AtOnce(scheduler=scheduler).path(study))
    names = opened.chosen_runs(runs) if runs else ready_runs(opened, "trained")
    for name in names:  # before anything is written
        pipeline.embeddable(opened, name, embedding)
    for name in sorted(names, key=lambda name: bool(decoded_run(opened, name))):  # first the runs that others decode
        pipeline.embed(opened, name, embedding, scheduler=scheduler)
        tell(f"embeddings of {name}: {opened.embeddings_folder(name)}")
    return opened


@keyword_settings
def profile(
    study: Positional[AnyPath],
    *,
    runs: tuple[str, ...] = (),
    scheduler: str | None = None,
    profiling: ProfileConfig = ProfileConfig(),
) -> Study:
    """Make profiles of wells and treatments from the embeddings.

    Args:
        study: The study, or its folder.
        runs: Runs to profile; default: all that are embedded.
        scheduler: Address of a Dask scheduler whose workers see the study's folder; a statistic of cells each.
        profiling: How cells become profiles: `min_cells=10, ridge=1.0`.

    Returns:
        The study; `study.profiles(run)` has a row per treatment.

    Raises:
        InputError: There is no such run, or its embeddings are missing or out of date.
    """
    opened = Study.open(AtOnce(scheduler=scheduler).path(study))
    for name in opened.chosen_runs(runs) if runs else ready_runs(opened, "embedded"):
        pipeline.profile(opened, name, profiling, scheduler=scheduler)
        tell(f"profiles of {name}: {opened.profiles_folder(name)}")
    return opened


@keyword_settings
def evaluate(
    source: Positional[AnyPath],
    *,
    out: Path | None = None,
    columns: Columns = Columns(),
    table: TableConfig = TableConfig(),
    recipe: Recipe = Recipe(),
    score: ScoreConfig = ScoreConfig(),
) -> "pd.DataFrame | Evaluation":
    """Score how well treatments match by mechanism, in a study or in any table.

    Args:
        source: A study (or its folder); or a table (.csv, .tsv, .parquet, .h5ad), or a folder of tables;
            for AnnData in memory there is `tl.nsc`.
        out: Of a table: the folder for its scores; default: <table>_scores here.
        columns: Of a table: which column has the compound, the mechanism, the batch, ...
        table: Of a table: how its rows become profiles of treatments.
        recipe: Of a table: how profiles are scaled and whitened.
        score: How treatments are matched: `protocols=["NSC"], bootstraps=10_000`.

    Returns:
        Of a study its scores, a row per run, kind of profile and protocol. Of a table an Evaluation: `.as_table()` has
        a row per score, `.profiles` the profiles.

    Raises:
        InputError: There is neither, a column is missing, or a protocol is impossible.
    """
    path = Path(source)
    if is_table(path):
        if score.headline != ScoreConfig.headline:
            raise InputError("--headline: goes with a study; a table is scored by one recipe, that of its flags")
        try:
            with score_folder(scores_folder_of(path, out), source=path) as folder:
                evaluation = evaluate_table(path, columns=columns, config=table, recipe=recipe, score=score)
                save_evaluation(evaluation, folder)
        except KeyboardInterrupt:
            raise Interrupted("stopped; nothing was written; the same command starts again") from None
        return evaluation
    study = Study.open(path)
    shared = [part.name for part in fields(EvaluateConfig)]
    for given, own in ((columns, Columns()), (table, TableConfig()), (recipe, Recipe())):
        _refuse_table_flags(given, own, path)
    _refuse_table_flags(score, ScoreConfig(), path, but=shared)
    if out is not None:
        raise InputError("--out: is for tables; a study keeps its scores in its own folder")
    config = EvaluateConfig(**{name: getattr(score, name) for name in shared})
    pipeline.evaluate(study, ready_runs(study, "profiled"), config)
    return study.scores


def scores_folder_of(table: Path, out: Path | None) -> Path:
    """The folder for a table's scores."""
    return out or Path(f"{table.resolve().name.split('.')[0]}_scores")


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
    found = "no study here and no table" if source.exists() else "not found: no study here and no table"
    raise InputError(
        f"{source}: {found}; expected a study's folder, a table ({', '.join(KINDS)}) or a folder of tables"
    )


def _refuse_table_flags(given: Any, default: Any, study: Path, *, but: Sequence[str] = ()) -> None:
    for part in fields(given):
        if part.name not in but and getattr(given, part.name) != getattr(default, part.name):
            raise InputError(
                f"--{part.name.replace('_', '-')}: is for tables; score a study's profiles as a table: "
                f"phenolens evaluate {study}/profiles/<run>/wells_mean.h5ad ..."
            )


@keyword_settings
def compare(
    a: Positional[AnyPath],
    b: Positional[AnyPath],
    *,
    protocol: str = "NSC",
    out: Path | None = None,
    draws: Count = 10_000,
    draw_seed: Seed = 0,
) -> Comparison:
    """Test which treatments two scores of the same treatments answer differently, and whether that could be chance.

    Args:
        a: A neighbours_*.csv of `phenolens evaluate`, or the folder of a table's scores.
        b: The other, of the same treatments.
        protocol: Of two folders: the score to compare.
        out: CSV file to write, with the queries that changed.
        draws: Random sign flips, for the p-value.
        draw_seed: Random seed of the sign flips.

    Returns:
        The comparison: `.changed` has a row per query that changed, `.p_value` is of a sign-flip test over compounds.

    Raises:
        InputError: A table is missing, or the two are of other treatments or another protocol.
    """
    paths = [_queries_path(Path(path), protocol) for path in (a, b)]
    held_out = [protocol_of(path) for path in paths]
    if all(held_out) and held_out[0] != held_out[1]:
        raise InputError(
            f"{paths[0]} holds out {held_out[0]}, {paths[1]} {held_out[1]}: their queries choose among other "
            "candidates, so a difference does not come from the profiles; compare scores of one protocol"
        )
    compared = compare_queries(*map(read_queries, paths), n_draws=draws, seed=draw_seed)
    if out is not None:
        write_text(out, compared.changed.to_csv(index_label="row"))
    tell(f"a: {paths[0]}; b: {paths[1]}" + (f"; the changed queries are in {out}" if out else ""))
    return compared


def _queries_path(path: Path, protocol: str) -> Path:
    """The table of queries that is meant; InputError when there is none."""
    file = path / f"neighbours_{protocol}.csv" if path.is_dir() else path
    if not file.is_file():
        there = shortened(sorted(found.name for found in file.parent.glob("neighbours_*.csv")))
        raise InputError(f"{file}: no such table of queries (there is: {there or 'nothing'}); see --protocol")
    return file
