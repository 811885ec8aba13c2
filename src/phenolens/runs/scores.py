"""The scores of a study's runs, read from the files that `phenolens evaluate` wrote."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd

from phenolens.core.errors import InputError
from phenolens.core.files import read_json
from phenolens.models import model_title
from phenolens.profiles.activity import activity_sentence, n_active
from phenolens.profiles.score_table import PROTOCOLS, not_counted_sentence, verdict_sentence
from phenolens.profiles.scores_folder import read_queries
from phenolens.readiness import decoded_run, run_config, score_name, scores_about
from phenolens.study import Study

PROFILES = {
    "aligned": "means of cells, whitened within treatments, batches aligned by the treatments that are in several",
    "whitened": "medians of wells, whitened on the control wells",
    "zscore": "medians of wells, z-scored on the control wells",
    "none": "medians of wells as they are",
}


def profiles_in_words(study: Study, run: str) -> str:
    """How the headline's profiles of a run are made."""
    words, path = PROFILES[study.headline["whitening"]], study.profiles_folder(run) / "about.json"
    about = read_json(path, remedy=f"run `phenolens profile {study.quoted}` again") if path.is_file() else {}
    on_all = about.get("scaled_on") == "everything"
    return words.replace("the control wells", "all wells") if on_all else words


def scored_runs(study: Study) -> list[str]:
    """The runs that have scores, in the order of scores.csv."""
    return list(_chance(study)["run"].unique())


def encoders_of(study: Study, runs: Sequence[str]) -> list[str]:
    """The runs without decoders of another of them, whose profiles and scores are the same."""
    return [run for run in runs if decoded_run(study, run) not in runs]


def scores_of_encoders(study: Study) -> pd.DataFrame:
    """`study.scores` without the rows of decoders of another scored run, which repeat that run's."""
    scores, runs = study.scores, list(scores_about(study)["profiles"])
    repeated = [(run, run_config(study, run)) for run in set(runs) - set(encoders_of(study, runs))]
    named = {(score_name(run, config), config["seed"]) for run, config in repeated}
    kept = [row not in named for row in zip(scores["model"], scores["seed"])]
    return scores[np.array(kept, bool)]  # an empty list would choose columns


def chance_of(study: Study, run: str, protocol: str = "NSC") -> dict[str, float]:
    """The `chance` level of a run's headline score and its accuracy with `shuffled` labels; empty where unknown."""
    if not study.chance_path.is_file():
        return {}
    table = _chance(study)
    for column, value in {"run": run, **study.headline, "protocol": protocol}.items():
        table = table[table[column] == value]
    return {} if table.empty else {name: float(table[name].iloc[0]) for name in ("chance", "shuffled")}


def verdict_of(study: Study, run: str, scores: pd.DataFrame, activity: pd.DataFrame | None) -> str:
    """The headline of a run: how many treatments differ from the controls, and its score, where it has them.

    Args:
        study: A scored study.
        run: One of its runs; a decoder has the scores of the run that it draws.
        scores: Those of the encoders.
        activity: `activity_of` the run.
    """
    encoder = decoded_run(study, run)
    run = encoder if encoder and encoder in scores_about(study)["profiles"] else run
    config = run_config(study, run)
    kind = study.headline
    wanted = kind | {"model": score_name(run, config), "seed": config["seed"]}
    headline = scores[np.logical_and.reduce([scores[key] == value for key, value in wanted.items()])]
    if headline.empty:
        return "" if activity is None else activity_sentence(activity)
    queries = queries_of(study, run)
    left_out = "" if queries is None or "reason" not in queries else not_counted_sentence(queries)
    sentences = (
        "" if activity is None else f"{n_active(activity)}.",
        verdict_sentence(headline, **chance_of(study, run)),
        _better(scores, headline, wanted=kind),
        left_out and f"{left_out}.",
    )
    return " ".join(filter(None, sentences))


def headline_lines(study: Study, runs: Sequence[str]) -> list[str]:
    """`NSC: 3 of 6 right (50 %, 17 to 83; chance 20 %)` of the headline's profiles, a line per run and protocol.

    The run is named where there are several.
    """
    scores, lines = study.scores, []
    for run, protocol in product(encoders_of(study, runs), PROTOCOLS):
        config = run_config(study, run)
        wanted = study.headline | {"protocol": protocol, "model": score_name(run, config), "seed": config["seed"]}
        found = scores[np.logical_and.reduce([scores[key] == value for key, value in wanted.items()])]
        chance = chance_of(study, run, protocol).get("chance")
        beside = "" if chance is None else f"; chance {100 * chance:.0f} %"
        for row in found[found["accuracy"].notna()].to_dict("records"):
            percent, low, high = (f"{100 * row[name]:.0f}" for name in ("accuracy", "ci_low", "ci_high"))
            named = f"{run}, " if len(runs) > 1 else ""
            right = f"{row['n_correct']} of {row['n_treatments']} right"
            lines.append(f"{named}{protocol}: {right} ({percent} %, {low} to {high}{beside})")
    return lines


def _better(scores: pd.DataFrame, headline: pd.DataFrame, *, wanted: dict[str, str]) -> str:
    """The model with a higher headline score than this run, if there is one, as a sentence."""
    same = scores[np.logical_and.reduce([scores[key] == value for key, value in wanted.items()])]
    accuracy = same.groupby("model")["accuracy"].mean()
    if accuracy.empty or not accuracy.max() > headline["accuracy"].mean():
        return ""
    return f"{model_title(str(accuracy.idxmax()))} scores higher on the same cells: {100 * accuracy.max():.1f} %."


def activity_of(study: Study, run: str) -> pd.DataFrame | None:
    """Each treatment of a run against the controls, as `phenolens.tl.activity`; None in studies of earlier versions."""
    path = study.activity_path(run)
    if not path.is_file():
        return None
    try:
        return pd.read_csv(path, dtype={"moa": str}).fillna({"moa": ""})
    except ValueError as error:
        raise InputError(f"{path}: damaged ({error}); run `phenolens evaluate {study.quoted}`") from error


def queries_of(study: Study, run: str, protocol: str = "NSC") -> pd.DataFrame | None:
    """The headline score's queries by treatment, as `read_queries` reads them; None where it was not scored."""
    path = study.score_table_path(run, "neighbours", **{**study.headline, "protocol": protocol})
    return read_queries(path) if path.is_file() else None


def _chance(study: Study) -> pd.DataFrame:
    try:
        return pd.read_csv(study.chance_path, keep_default_na=False)
    except (OSError, ValueError) as error:
        again = f"run `phenolens evaluate {study.quoted}`"
        raise InputError(f"{study.chance_path}: missing or damaged ({error}); {again}") from error
