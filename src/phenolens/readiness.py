"""Which steps of a run are done and up to date: trained, embedded, profiled, scored.

A step is up to date when what it was made from is what is there now. Every command and page asks here.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from phenolens.core.errors import InputError
from phenolens.core.files import read_json
from phenolens.core.progress import tell
from phenolens.crops.store import identity_of, read_about
from phenolens.models import preferred_first
from phenolens.study import Study

VALUES_FROM = "values_made_from"  # in an embedding file, beside `made_from`
Step = Literal["trained", "embedded", "profiled", "scored"]
# The command of each step, in their order.
COMMAND_OF: dict[Step, str] = {"trained": "train", "embedded": "embed", "profiled": "profile", "scored": "evaluate"}


def steps_done(study: Study, run: str) -> dict[Step, bool]:
    """Whether each step of a run is done and up to date."""
    done: dict[Step, bool] = dict.fromkeys(CHECKS, False)
    for step, check in CHECKS.items():
        with suppress(InputError):
            check(study, run)
            done[step] = True
    return done


def ready_runs(study: Study, step: Step) -> list[str]:
    """The runs whose `step` is done and up to date; of the others the reason is printed.

    Raises:
        InputError: there is no such run; the message names the command that comes first.
    """
    ready, reasons = [], []
    for run in study.chosen_runs(()):
        try:
            CHECKS[step](study, run)
            ready.append(run)
        except InputError as error:
            reasons.append(str(error))
    if not ready:
        raise InputError(reasons[0])
    for reason in reasons:
        tell(f"left out: {reason}")
    return ready


def default_run(study: Study, runs: list[str]) -> str:
    """The run to show of these: a flow decoder, VAE+, VAE, AE, ..., then by name; empty for no runs."""

    def rank(run: str) -> tuple[int, str]:
        model = ""
        with suppress(InputError):
            model = run_config(study, run)["model"]
        return preferred_first(model), run

    return min(runs, key=rank, default="")


def check_trained(study: Study, run: str) -> None:
    """InputError unless a run is trained to its last step."""
    if not (study.run_folder(run) / "health.json").exists():
        raise InputError(f"{study.run_folder(run)}: training is not finished; run its `phenolens train` command again")


def embedding_sources(study: Study, run: str, *, values: bool = False) -> list[str]:
    """What each plate's embeddings are made from, or what their `values` are: a corrected mechanism leaves these.

    Raises:
        InputError: embeddings are missing, damaged, or out of date: crops or checkpoint changed.
    """
    crops, steps = _crops(study), run_config(study, run)["steps"]
    again = f"run `phenolens embed {study.quoted}`"
    sources = []
    for plate in crops["plates"]:
        path = study.embeddings_folder(run) / f"{plate}.h5ad"
        about = about_of(path)
        if not about and path.is_file():
            raise InputError(f"{path}: damaged; {again}")
        if not about:
            check_trained(study, run)
            raise InputError(f"{path}: missing; {again}")
        if about["crops"] != crops["identity"] or about["config"]["steps"] != steps:
            raise InputError(f"{path}: out of date (crops or checkpoint changed); {again}")
        sources.append(about.get(VALUES_FROM, about["made_from"]) if values else about["made_from"])
    return sources


def profile_source(study: Study, run: str) -> str:
    """What a run's profiles are made from; InputError where they are missing or out of date."""
    path, again = study.profiles_folder(run) / "about.json", f"run `phenolens profile {study.quoted}`"
    embedded = embedding_sources(study, run)
    about = read_json(path, remedy=again)
    if about["embeddings"] != embedded:
        raise InputError(f"{path}: out of date (embeddings changed); {again}")
    return about["made_from"]


def check_scored(study: Study, run: str) -> None:
    """InputError where a run has no scores, or they are out of date."""
    again = f"run `phenolens evaluate {study.quoted}`"
    if run not in study.runs:
        raise InputError(f'{study.scores_path}: out of date (there is no run "{run}" any more); {again}')
    source = profile_source(study, run)
    made_from = scores_about(study)["profiles"].get(run)
    if made_from is None:
        raise InputError(f'{study.scores_path}: no scores of run "{run}"; {again}')
    if made_from != source:
        raise InputError(f'{study.scores_path}: out of date (profiles of run "{run}" changed); {again}')


def check_scores(study: Study) -> None:
    """InputError unless there are scores and all of them are up to date."""
    if not study.scores_path.exists():
        ready_runs(study, "profiled")  # InputError that names an earlier command where one is missing
    for run in scores_about(study)["profiles"]:
        check_scored(study, run)


def is_scored(study: Study, runs: list[str], config: dict[str, Any]) -> bool:
    """Whether the scores are those of these runs, up to date, and made with these settings of an EvaluateConfig."""
    try:
        about = scores_about(study)
    except InputError:
        return False
    sources = {run: profile_source(study, run) for run in runs}
    return about["profiles"] == sources and about["config"] == json.loads(json.dumps(config))


def scores_about(study: Study) -> dict[str, Any]:
    """What the scores are made from: `profiles`, the source of each run's, and `config`, of an EvaluateConfig."""
    path, again = study.scores_folder / "about.json", f"run `phenolens evaluate {study.quoted}`"
    if not path.exists() or not study.scores_path.exists():
        raise InputError(f"{study.scores_path}: missing; {again}")
    about = read_json(path, remedy=again)
    if not isinstance(about, dict) or not about.keys() >= {"profiles", "config"}:
        raise InputError(f"{path}: damaged; {again}")
    return about


def run_config(study: Study, run: str) -> dict[str, Any]:
    """The settings that a run was trained with."""
    path, again = study.run_folder(run) / "config.json", "run its `phenolens train` command again"
    about = read_json(path, remedy=again)
    config = about.get("config") if isinstance(about, dict) else None
    if not isinstance(config, dict) or not {"model", "seed", "steps"} <= config.keys():
        raise InputError(f"{path}: not the config of a run; delete it and {again}")
    return config


def decoded_run(study: Study, run: str) -> str | None:
    """The run or table whose embeddings a decoder draws; None of other models, and of a damaged config."""
    with suppress(InputError):
        return run_config(study, run).get("network", {}).get("of")
    return None


def score_name(name: str, config: dict[str, Any]) -> str:
    """What a run is called in scores.csv: its model (a decoder with what it decodes), or its own name if it has one."""
    if name != f"{config['model']}-seed{config['seed']}":
        return name
    of = config.get("network", {}).get("of")
    return f"{config['model']} of {of}" if of else config["model"]


def about_of(path: Path) -> dict[str, Any]:
    """What an `.h5ad` of phenolens says it was made from; empty where it is missing or damaged."""
    try:
        file = path.stat()
    except OSError:
        return {}
    return _about_of(path, (file.st_ino, file.st_mtime_ns, file.st_size))


@lru_cache(4096)  # a page asks for every plate of every run
def _about_of(path: Path, version: tuple[int, ...]) -> dict[str, Any]:
    import h5py

    try:
        with h5py.File(path) as file:
            return json.loads(file["uns/phenolens"][()])
    except (OSError, KeyError, ValueError):
        return {}


def _crops(study: Study) -> dict[str, Any]:
    """Identity and plates of the crops, without opening each plate."""
    about = read_about(study.crops_folder)
    if about is None or not about.get("complete"):
        _ = study.crops  # InputError that says what is wrong
    return {"identity": identity_of(study.crops_folder), "plates": (about or {})["plates"]}


CHECKS: dict[Step, Callable[[Study, str], object]] = {
    "trained": check_trained,
    "embedded": embedding_sources,
    "profiled": profile_source,
    "scored": check_scored,
}
