"""The scores of a study's runs, read from the files that `phenolens evaluate` wrote."""

import numpy as np
import pandas as pd

from phenolens.core.errors import InputError
from phenolens.profiles.score_table import verdict_sentence
from phenolens.profiles.scores_folder import read_queries
from phenolens.readiness import run_config, score_name
from phenolens.study import Study

PROFILES = {
    "aligned": "means of cells, whitened within treatments, batches aligned by the treatments that are in several",
    "whitened": "medians of wells, whitened on the control wells",
    "zscore": "medians of wells, z-scored on the control wells",
    "none": "medians of wells as they are",
}


def scored_runs(study: Study) -> list[str]:
    """The runs that have scores, in the order of scores.csv."""
    return list(_chance(study)["run"].unique())


def chance_of(study: Study, run: str) -> dict[str, float]:
    """The `chance` level of a run's headline score and its accuracy with `shuffled` labels; empty where unknown."""
    if not study.chance_path.is_file():
        return {}
    table = _chance(study)
    for column, value in {"run": run, **study.headline}.items():
        table = table[table[column] == value]
    return {} if table.empty else {name: float(table[name].iloc[0]) for name in ("chance", "shuffled")}


def verdict_of(study: Study, run: str, scores: pd.DataFrame) -> str:
    """The headline score of a run in one sentence, from the study's `scores`; empty where it was not scored."""
    config = run_config(study, run)
    wanted = study.headline | {"model": score_name(run, config), "seed": config["seed"]}
    headline = scores[np.logical_and.reduce([scores[key] == value for key, value in wanted.items()])]
    if headline.empty:
        return ""
    profiles = PROFILES[study.headline["whitening"]]
    return f"{verdict_sentence(headline, **chance_of(study, run))} Profiles: {profiles}."


def queries_of(study: Study, run: str, protocol: str = "NSC") -> pd.DataFrame | None:
    """The headline score's queries by treatment, as `read_queries` reads them; None where it was not scored."""
    path = study.score_table_path(run, "neighbours", **{**study.headline, "protocol": protocol})
    return read_queries(path) if path.is_file() else None


def _chance(study: Study) -> pd.DataFrame:
    try:
        return pd.read_csv(study.chance_path, keep_default_na=False)
    except (OSError, ValueError) as error:
        again = f"run `phenolens evaluate {study.folder}`"
        raise InputError(f"{study.chance_path}: missing or damaged ({error}); {again}") from error
