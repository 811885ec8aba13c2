"""A travel as files in a folder of the study, with what they were made from.

travels/<run>/<treatment>--<way>.../
    strip.png, .svg, .pdf      the trajectory; with medoids strip_1 ... one a population, and populations.png ...
    frames.csv                 a row per frame, from 1: trajectory.FRAME_COLUMNS, then the measures of its picture
    measured.csv               a row per cell or frame and measure: real start and target, frames, nearest real cells
    change.csv                 a row per measure: measured_change.CHANGE_COLUMNS
    two_sample_test.csv        moved control cells, and real treated cells, against real treated cells
    film.gif, film.mp4         where requested
    about.json                 settings, run, versions, and the SHA-256 of every other file; written last
"""

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from phenolens import __version__
from phenolens.core.files import alone, read_json, sha256, write_json, write_whole
from phenolens.core.progress import track
from phenolens.morphology.features import describe
from phenolens.plotting.style import file_of
from phenolens.readiness import embedding_sources
from phenolens.study import Study
from phenolens.travels.compute import Traveller
from phenolens.travels.config import TravelConfig
from phenolens.travels.figure import populations, travel_strip
from phenolens.travels.film import FilmKind, check_can_film, film
from phenolens.travels.measured_change import MeasuredChange
from phenolens.travels.trajectory import Trajectory

ABOUT = "about.json"
PictureKind = Literal["png", "svg", "pdf"]


def save_travel(
    study: Study,
    traveller: Traveller,
    config: TravelConfig,
    *,
    pictures: Sequence[PictureKind] = ("png", "svg", "pdf"),
    films: Sequence[FilmKind] = (),
) -> tuple[Path, tuple[Trajectory, ...]]:
    """Travel and save strips, numbers and films; files of an earlier travel with these settings are replaced.

    Returns:
        The folder, and the trajectories. The same settings give the same bytes.

    Raises:
        InputError: as `Traveller.travel`, before anything is written.
    """
    for kind in films:
        check_can_film(kind)
    treatment = traveller.catalogue.find_treatment(config.to)
    trajectories = traveller.travel(dataclasses.replace(config, to=treatment))
    run = traveller.run.name
    folder = study.travels_folder / run / folder_name(treatment, config)
    about: dict[str, Any] = {
        "run": run,
        "travel": dataclasses.asdict(config),
        "films": list(films),
        "embeddings": sha256({"of_plates": embedding_sources(study, run)}),
        "crops": study.crops.identity,
        "phenolens": __version__,
    }
    content = _files(trajectories, pictures, films, about)
    with alone(study.travels_folder / ".lock", doing="writing a travel"):
        _replace(folder, content, about)
    return folder, trajectories


def folder_name(treatment: str, config: TravelConfig) -> str:
    """`taxol@0.3--swap`, with settings other than the default.

    A treatment whose name cannot be a folder's name gets a code.
    """
    plain = re.sub(r"[^A-Za-z0-9_.@+-]", "_", treatment)
    if plain != treatment:
        plain += "_" + hashlib.sha256(treatment.encode()).hexdigest()[:6]
    parts = [plain, config.way]
    parts += ["up-the-doses"] if config.up_the_doses else []
    parts += ["residual"] if config.residual else []
    parts += [f"to-{config.beyond:g}"] if config.beyond != 1 else []
    parts += [f"{config.medoids}-medoids-by-{config.medoids_by}"] if config.targets == "medoids" else []
    parts += [f"from-{re.sub(r'[^A-Za-z0-9_.+-]', '_', config.start)}"] if config.start is not None else []
    return "--".join(parts)


def frames_table(trajectories: Sequence[Trajectory]) -> pd.DataFrame:
    """A row per frame, from 1, of each trajectory: FRAME_COLUMNS, then the measures of the decoded picture."""
    parts = []
    for trajectory in trajectories:
        part = trajectory.frames.reset_index(drop=True)
        part.insert(0, "population", trajectory.population.number)
        part.insert(1, "share", trajectory.population.share)
        part.insert(2, "frame", np.arange(1, len(part) + 1))
        measured = None if trajectory.measured is None else trajectory.measured.frames.reset_index(drop=True)
        parts.append(pd.concat([part, measured], axis=1))
    return pd.concat(parts, ignore_index=True)


def measured_table(trajectories: Sequence[Trajectory]) -> pd.DataFrame:
    """A row a measure of each real end, frame and nearest real cell.

    `change_sd` is the frame minus the first frame, or the real target minus the real start, in standard deviations of
    real control cells; empty for nearest cells.
    """
    parts = []
    for trajectory in trajectories:
        measured, nearest = trajectory.measured, trajectory.nearest
        assert measured is not None  # what is saved is measured
        frames = range(len(measured.frames))
        start, target, change = trajectory.start, trajectory.target, measured.change
        rows: list[tuple[str, object, str, pd.Series, Any]] = [
            ("real start", "", start.cell_id, measured.ends.iloc[0], np.nan),
            *(("frame", at + 1, "", measured.frames.iloc[at], change.iloc[at]) for at in frames),
            *(("nearest real cell", at + 1, nearest[at].cell_id, measured.nearest.iloc[at], np.nan) for at in frames),
            ("real target", "", target.cell_id, measured.ends.iloc[1], measured.real_change),
        ]
        for of, frame, cell, values, change_sd in rows:
            about = {"population": trajectory.population.number, "of": of, "frame": frame, "cell": cell}
            table = pd.DataFrame({**about, "measure": values.index, "value": values, "change_sd": change_sd})
            parts.append(table.assign(words=values.index.map(describe)))
    return pd.concat(parts, ignore_index=True)


def changes_table(trajectories: Sequence[Trajectory]) -> pd.DataFrame:
    """A row per population and measure: CHANGE_COLUMNS, with the numbers of cells and the measure's meaning."""
    parts = []
    for population, change in _changes(trajectories):
        table = change.table.rename_axis("measure").reset_index()
        about = {"population": population, "n_moved": change.n_moved, "n_treated": change.n_treated}
        table = table.assign(**about, n_controls=change.n_controls, words=table["measure"].map(describe))
        parts.append(table[["population", *table.columns.drop("population")]])
    return pd.concat(parts, ignore_index=True)


def two_sample_table(trajectories: Sequence[Trajectory]) -> pd.DataFrame:
    """Two rows per population: which cells are compared with real treated cells, and how well a classifier does."""
    rows = []
    for population, change in _changes(trajectories):
        for cells, test in (("moved control cells", change.test.moved), ("real treated cells", change.test.real)):
            about = {"population": population, "cells": cells, "n_cells": change.test.n_cells}
            accuracy = dict(
                zip(("accuracy", "accuracy_low", "accuracy_high"), (test.accuracy, *test.accuracy_interval))
            )
            auc = dict(zip(("auc", "auc_low", "auc_high"), (test.auc, *test.auc_interval)))
            rows.append({**about, **accuracy, **auc, "not_tested": change.test.reason})
    return pd.DataFrame(rows)


def _changes(trajectories: Sequence[Trajectory]) -> list[tuple[int, MeasuredChange]]:
    """The number of each population, and its change."""
    found = [(one.population.number, one.change) for one in trajectories]
    return [(number, change) for number, change in found if change is not None]


def _files(
    trajectories: tuple[Trajectory, ...],
    pictures: Sequence[PictureKind],
    films: Sequence[FilmKind],
    about: dict[str, Any],
) -> dict[str, bytes]:
    """The content of each file by its name."""
    tables = {"frames.csv": frames_table(trajectories), "measured.csv": measured_table(trajectories)}
    if _changes(trajectories):
        tables |= {"change.csv": changes_table(trajectories), "two_sample_test.csv": two_sample_table(trajectories)}
    content = {name: table.to_csv(index=False).encode() for name, table in tables.items()}
    comment = f"phenolens {__version__}, run {about['run']}, embeddings {about['embeddings'][:16]}"
    for trajectory in track(trajectories, "drawing", total=len(trajectories)):
        ending = "" if len(trajectories) == 1 else f"_{trajectory.population.number}"
        strip = travel_strip(trajectory)
        content |= {f"strip{ending}.{kind}": file_of(strip, kind) for kind in pictures}
        content |= {f"film{ending}.{kind}": film(trajectory, kind, comment=comment) for kind in films}
    if len(trajectories) > 1:
        sheet = populations(trajectories)
        content |= {f"populations.{kind}": file_of(sheet, kind) for kind in pictures}
    return content


def _replace(folder: Path, content: dict[str, bytes], about: dict[str, Any]) -> None:
    """Write the files, `about.json` last, and remove those of an earlier travel that are not among them."""
    older: dict[str, str] = {}
    if (folder / ABOUT).is_file():
        older = read_json(folder / ABOUT, remedy="delete that folder and travel again").get("files", {})
        (folder / ABOUT).unlink()  # without it the folder is incomplete
    for name, part in content.items():
        with write_whole(folder / name) as file:
            file.write(part)
    for name in older.keys() - content.keys():
        (folder / Path(name).name).unlink(missing_ok=True)
    files = {name: hashlib.sha256(part).hexdigest() for name, part in sorted(content.items())}
    write_json(folder / ABOUT, {**about, "files": files})
