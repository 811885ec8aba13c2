"""Score a foreign table and keep everything that was found in one folder, whole or not at all."""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from phenolens import __version__
from phenolens.errors import InputError
from phenolens.files import read_json, sha256, write_h5ad, write_json, write_text, write_whole
from phenolens.profiling.columns import Columns
from phenolens.profiling.evaluation import (
    Profiles,
    ScoreConfig,
    Scored,
    TableConfig,
    mechanism_precision,
    profiles_of,
    protocols_of,
    replicate_precision,
    scores_of,
    sentence,
)
from phenolens.profiling.neighbours import Score
from phenolens.profiling.profiles import METADATA
from phenolens.profiling.protocol import protocol_text
from phenolens.profiling.recipe import Recipe
from phenolens.profiling.tables import ForeignTable
from phenolens.progress import tell, track

FORMAT = "phenolens scores 1"
COUNTS = ("protocol", "accuracy", "n_treatments", "n_correct", "ci_low", "ci_high", "chance")


@dataclass(frozen=True)
class Evaluation:
    """A table's scores and what they were made with."""

    profiles: Profiles
    scored: list[Scored]
    replicates: pd.DataFrame | None  # mAP a treatment; None where there are no replicates or no controls
    mechanisms: pd.DataFrame | None  # mAP a mechanism; None where no mechanism has two compounds
    made_with: dict[str, Any]  # columns, table, recipe, scores: the settings
    protocol: str  # Markdown

    def table(self) -> pd.DataFrame:
        """A row a score, as scores.csv holds it."""
        rows = [
            {"queries": one.queries}
            | {name: getattr(one.score, name) for name in COUNTS}
            | {"shuffled": one.shuffled.shuffled.mean(), "p_value": one.shuffled.p_value}
            | one.score.conventions
            for one in self.scored
        ]
        return pd.DataFrame(rows)


def evaluate_table(
    path: Path, *, columns: Columns, config: TableConfig, recipe: Recipe, score: ScoreConfig
) -> Evaluation:
    """Read the table, make profiles, and score them; nothing is written."""
    table = ForeignTable(path, columns)
    profiles = profiles_of(table.parts(), config, recipe)
    notes = sorted(table.notes)
    for words in notes:
        tell(f"note: {words}")
    for why, names in profiles.left_out.items():
        tell(f"left out: {len(names):,} {why} ({sentence(names)})")
    tell(_described(profiles))
    protocols = protocols_of(profiles, score)
    if "NSCB" not in protocols and not score.protocols:
        tell("NSCB is not scored: without its own batch no treatment has another of its mechanism left (--batch)")
    scored = list(track(scores_of(profiles, score), "scoring", total=len(protocols)))
    return Evaluation(
        profiles=profiles,
        scored=scored,
        replicates=replicate_precision(profiles, score),
        mechanisms=mechanism_precision(profiles, score),
        made_with={
            "columns": asdict(columns),
            "table": asdict(config),
            "recipe": asdict(recipe),
            "scores": asdict(score),
        },
        protocol=protocol_text(profiles, config=config, recipe=recipe, score=score, notes=notes),
    )


def check_folder(out: Path) -> None:
    """InputError unless scores can be kept in `out`: a new or empty folder, or one that holds scores already."""
    about = out / "about.json"
    if out.is_dir() and about.exists() and _is_ours(about):
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out {out}: is there and holds no scores of phenolens; name a new or empty folder")


def save_evaluation(evaluation: Evaluation, out: Path, *, source: Path) -> None:
    """Keep the evaluation in `out`; the folder takes its name when all is in it, in place of older scores."""
    from phenolens.viewing.canvas import png
    from phenolens.viewing.charts import confusion

    check_folder(out)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        write_text(partial / "scores.csv", evaluation.table().to_csv(index=False))
        write_text(partial / "protocol.md", evaluation.protocol)
        for one in evaluation.scored:
            name = file_name(one.score)
            write_text(partial / f"neighbours_{name}.csv", one.score.queries.to_csv(index_label="row"))
            write_text(partial / f"confusion_{name}.csv", one.score.confusion.to_csv())
            figure = confusion(one.score.confusion, title=f"{one.score.protocol} of {one.queries}", what=one.queries)
            with write_whole(partial / f"confusion_{name}.png") as file:
                file.write(png(figure))
        for name, table in (("replicates", evaluation.replicates), ("mechanisms", evaluation.mechanisms)):
            if table is not None:
                write_text(partial / f"precision_{name}.csv", table.to_csv(index=False))
        if evaluation.profiles.wells is not None:
            write_h5ad(partial / "wells.h5ad", evaluation.profiles.wells)
            write_h5ad(partial / "wells_scaled.h5ad", evaluation.profiles.whitened)
        write_h5ad(partial / "treatments.h5ad", evaluation.profiles.treatments)
        about = {"format": FORMAT, "version": __version__, "table": source.name, "sha256": _identity(source)}
        write_json(partial / "about.json", about | evaluation.made_with)
        shutil.rmtree(out, ignore_errors=True)
        partial.replace(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def file_name(score: Score) -> str:
    """A protocol's name as it stands in the names of files: NSC, NSCB, or what is held out."""
    return score.protocol if score.protocol in ("NSC", "NSCB") else score.conventions["held_out"]


def read_queries(path: Path) -> pd.DataFrame:
    """A `neighbours_*.csv` as it was kept, of a table or of a study: a row a query by its name."""
    try:
        table = pd.read_csv(path, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable ({error}); run `phenolens evaluate` again") from error
    missing = [name for name in ("treatment", "compound", "moa", "counted", "right", "predicted") if name not in table]
    if missing:
        raise InputError(f"{path}: no column {missing[0]}; expected a neighbours_*.csv of `phenolens evaluate`")
    return table.set_index(table["treatment" if table["treatment"].is_unique else "row"].astype(str))


def _described(profiles: Profiles) -> str:
    role = profiles.whitened.obs[METADATA["role"]].astype(str).value_counts()
    treated = set(
        profiles.treatments.obs.loc[profiles.treatments.obs[METADATA["role"]] != "control", METADATA["treatment"]]
    )
    features = list(profiles.whitening.features)
    return (
        f"{profiles.whitened.n_obs:,} {'treatments' if profiles.rows == 'treatments' else 'wells'} "
        f"({', '.join(f'{n:,} {name}' for name, n in role.items())}), {len(treated):,} treatments, "
        f"{len(features):,} features ({sentence(features)})"
    )


def _identity(source: Path) -> str:
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    return sha256(*(file for file in files if file.is_file()))


def _is_ours(about: Path) -> bool:
    try:
        content = read_json(about, mend="")
    except (InputError, json.JSONDecodeError):
        return False
    return isinstance(content, dict) and content.get("format") == FORMAT
