"""Score a foreign table and keep everything that was found in one folder, whole or not at all."""

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from phenolens import __version__
from phenolens.core.errors import InputError
from phenolens.core.files import sha256, write_h5ad, write_json, write_text, write_whole
from phenolens.core.progress import tell, track
from phenolens.profiles.columns import Columns
from phenolens.profiles.evaluate import (
    BOOTSTRAPS,
    SHUFFLES,
    Profiles,
    ScoreConfig,
    Scored,
    TableConfig,
    held_out,
    mechanism_precision,
    profiles_of,
    protocols_of,
    replicate_precision,
    scores_of,
    sentence,
)
from phenolens.profiles.nsc import Score
from phenolens.profiles.profiles import METADATA
from phenolens.profiles.protocol import protocol_text
from phenolens.profiles.read_table import ForeignTable
from phenolens.profiles.recipe import Recipe
from phenolens.profiles.scores_folder import ABOUT, FORMAT, beside, put_in_place

QUERY_COLUMNS = ("treatment", "compound", "concentration_um", "moa", "counted", "right", "neighbour", "predicted")
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
    """Read the table, make profiles, and score them; nothing is written.

    What cannot be scored is refused before anything is said of the table.
    """
    score = _each_once(score)
    asked = score.protocols
    table = ForeignTable(path, columns)
    source = {"source": path.resolve().name, "sha256": _identity(table)}
    profiles = profiles_of(table.parts(), config, recipe)
    score = replace(
        score,
        protocols=protocols_of(profiles, score),
        bootstraps=score.bootstraps or BOOTSTRAPS,
        shuffles=score.shuffles or SHUFFLES,
    )
    list(scores_of(profiles, replace(score, bootstraps=1, shuffles=1)))  # whatever it refuses, at next to no cost
    notes = sorted(table.notes)
    for words in notes:
        tell(f"note: {words}")
    for why, names in profiles.left_out.items():
        tell(f"left out: {len(names):,} {why} ({sentence(names)})")
    tell(_described(profiles))
    if not asked and "NSCB" not in score.protocols:
        tell("NSCB is not scored: without its own batch no treatment has another of its mechanism left (--batch)")
    scored = list(track(scores_of(profiles, score), "scoring", total=len(score.protocols)))
    replicates, mechanisms = replicate_precision(profiles, score), mechanism_precision(profiles, score)
    return Evaluation(
        profiles=profiles,
        scored=scored,
        replicates=replicates,
        mechanisms=mechanisms,
        made_with={
            **source,
            "columns": asdict(columns),
            "table": asdict(config),
            "recipe": asdict(recipe),
            "scores": asdict(score),
        },
        protocol=protocol_text(
            profiles,
            config=config,
            recipe=recipe,
            score=score,
            made_from=[
                f"Table: {source['source']}, SHA-256 {source['sha256']}"
                + (f" (of those of its {len(table.files)} files, as bytes in order)" if path.is_dir() else "")
                + f". phenolens {__version__}.",
                _columns_in_words(table),
            ],
            precisions=[
                name for name, of in (("treatments", replicates), ("mechanisms", mechanisms)) if of is not None
            ],
            notes=notes,
        ),
    )


def _each_once(score: ScoreConfig) -> ScoreConfig:
    """The settings with each protocol once; InputError on one that treatments cannot be scored by."""
    once = {frozenset(held_out(protocol)): protocol for protocol in reversed(score.protocols)}
    for left_out, protocol in once.items():
        if "well" in left_out and score.queries == "treatments":
            raise InputError(
                f'--protocols "{protocol}": a treatment has several wells, so holding out the well goes with '
                "--queries wells; add that, or hold out compound, batch or plate"
            )
    return replace(score, protocols=tuple(reversed(once.values())))


def _identity(table: ForeignTable) -> str:
    """The SHA-256 of a file as sha256sum gives it; of a folder, that of the digests of its files in order."""
    if table.path.is_dir():
        return sha256(*table.files)
    with table.path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _columns_in_words(table: ForeignTable) -> str:
    """Which column said what, and which rows were controls."""
    said = [f"{what} from {f'column {name}' if name else 'no column'}" for what, name in table.of.items()]
    rows = [f'"{control}"' for control in table.columns.control]
    if table.of["role"]:
        rows.append(f'"control" in column {table.of["role"]}')
    return f"Columns: {', '.join(said)}. Control rows are those with {' or '.join(rows) or 'nothing: there are none'}."


def save_evaluation(evaluation: Evaluation, out: Path) -> None:
    """Keep the evaluation in `out`, which `score_folder` holds, in place of older scores."""
    _write(evaluation, beside(out, "partial"))
    put_in_place(out)


def _write(evaluation: Evaluation, folder: Path) -> None:
    """All files of the evaluation, and last the list of them."""
    from phenolens.plotting.charts import confusion_matrix
    from phenolens.plotting.style import png

    write_text(folder / "scores.csv", evaluation.table().to_csv(index=False))
    write_text(folder / "protocol.md", evaluation.protocol)
    for one in evaluation.scored:
        name = file_name(one.score)
        write_text(folder / f"neighbours_{name}.csv", one.score.queries.to_csv(index_label="row"))
        write_text(folder / f"confusion_{name}.csv", one.score.confusion.to_csv())
        figure = confusion_matrix(
            one.score.confusion,
            title=f"{evaluation.made_with['source']}: {one.queries} by their nearest neighbour ({one.score.protocol})",
            what=one.queries,
            how=in_words(one),
        )
        with write_whole(folder / f"confusion_{name}.png") as file:
            file.write(png(figure))
    for name, table in (("replicates", evaluation.replicates), ("mechanisms", evaluation.mechanisms)):
        if table is not None:
            write_text(folder / f"precision_{name}.csv", table.to_csv(index=False))
    if evaluation.profiles.wells is not None:
        write_h5ad(folder / "wells.h5ad", evaluation.profiles.wells)
        write_h5ad(folder / "wells_scaled.h5ad", evaluation.profiles.whitened)
    write_h5ad(folder / "treatments.h5ad", evaluation.profiles.treatments)
    files = sorted([path.name for path in folder.iterdir()] + [ABOUT])
    write_json(folder / ABOUT, {"format": FORMAT, "version": __version__} | evaluation.made_with | {"files": files})


def file_name(score: Score) -> str:
    """A protocol's name as it stands in the names of files: NSC, NSCB, or what is held out."""
    return score.protocol if score.protocol in ("NSC", "NSCB") else score.conventions["held_out"]


def in_words(scored: Scored) -> str:
    """What a figure of the score has to say: accuracy with its interval, chance, and who is no candidate."""
    from phenolens.profiles.score_table import LEFT_OUT

    score, what = scored.score, scored.queries
    vote = ", each compound one vote" if score.conventions["averaged_over"] == "compounds" else ""
    left_out = LEFT_OUT.get(
        score.protocol, f"those of the same {' or '.join(score.conventions['held_out'].split('+'))} are left out"
    )
    return (
        f"Accuracy{vote}: {100 * score.accuracy:.1f} % (95 % interval {100 * score.ci_low:.0f} to "
        f"{100 * score.ci_high:.0f} %; by chance {100 * score.chance:.1f} %). Neighbours are sought among the other "
        f"{what} with a mechanism; {left_out}."
    )


def read_queries(path: Path) -> pd.DataFrame:
    """A `neighbours_*.csv` as it was kept, of a table or of a study: a row a query by its name.

    InputError on a file that is no such table, in words that name the row where it is one row's fault.
    """
    try:
        table = pd.read_csv(path, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable ({error}); run `phenolens evaluate` again") from error
    missing = [name for name in QUERY_COLUMNS if name not in table]
    if missing:
        raise InputError(f"{path}: no column {missing[0]}; expected a neighbours_*.csv of `phenolens evaluate`")
    for name in ("counted", "right"):
        text = table[name].astype(str)
        bad = ~text.isin(["True", "False"])
        if bad.any():
            raise InputError(
                f'{path}, row {int(bad.to_numpy().argmax()) + 2}: {name} is "{text[bad].iloc[0]}", expected True or '
                "False; run `phenolens evaluate` again"
            )
        table[name] = text == "True"
    named_by = "treatment" if table["treatment"].is_unique or "row" not in table else "row"
    twice = table[named_by][table[named_by].duplicated()]
    if len(twice):
        raise InputError(
            f'{path}: {named_by} "{twice.iloc[0]}" stands twice'
            + (", and no column row tells the two apart" if named_by == "treatment" else "")
            + "; expected each query once: run `phenolens evaluate` again"
        )
    return table.set_index(table[named_by].astype(str))


def protocol_of(path: Path) -> str:
    """The protocol of a `neighbours_*.csv` by its name: what is held out, in one order; empty where it is renamed."""
    words = path.stem.split("_")
    if words[0] != "neighbours" or len(words) < 2:
        return ""
    try:
        return "+".join(sorted(held_out(words[1])))
    except InputError:
        return ""


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
