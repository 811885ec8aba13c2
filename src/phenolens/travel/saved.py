"""A travel as files in a folder of the study, with what they were made from.

travels/<run>/<treatment>--<way>.../
    strip.png, .svg, .pdf      the trajectory; with medoids strip_1 ... one a population, and populations.png ...
    frames.csv                 a row a frame, from 1: trajectory.FRAME_COLUMNS, then the measures of its picture
    measured.csv               a row a cell or frame and measure: real start and target, frames, nearest real cells
    film.gif, film.mp4         where requested
    about.json                 settings, run, versions, and the SHA-256 of every other file; written last
"""

import dataclasses
import hashlib
import re
import shlex
from collections.abc import Iterator, Sequence
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
from phenolens.travel.compute import Traveller
from phenolens.travel.config import TravelConfig
from phenolens.travel.figure import not_followed, population_label, populations, travel_strip
from phenolens.travel.film import FilmKind, check_can_film, film
from phenolens.travel.trajectory import Trajectory

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
    n_files = len(trajectories) * (len(pictures) + len(films)) + (len(pictures) if len(trajectories) > 1 else 0) + 2
    content = dict(track(_files(trajectories, pictures, films, about), "drawing", total=n_files))
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
    parts += [f"to-{config.beyond:g}"] if config.beyond != 1 else []
    parts += [f"{config.medoids}-medoids-by-{config.medoids_by}"] if config.targets == "medoids" else []
    parts += [f"from-{re.sub(r'[^A-Za-z0-9_.+-]', '_', config.start)}"] if config.start is not None else []
    return "--".join(parts)


def frames_table(trajectories: Sequence[Trajectory]) -> pd.DataFrame:
    """A row a frame, from 1, of each trajectory: FRAME_COLUMNS, then the measures of the decoded picture."""
    parts = []
    for trajectory in trajectories:
        part = trajectory.frames.reset_index(drop=True)
        part.insert(0, "population", trajectory.population.number)
        part.insert(1, "share", trajectory.population.share)
        part.insert(2, "frame", np.arange(1, len(part) + 1))
        measured = [] if trajectory.measured is None else [trajectory.measured.frames.reset_index(drop=True)]
        parts.append(pd.concat([part, *measured], axis=1))
    return pd.concat(parts, ignore_index=True)


def measured_table(trajectories: Sequence[Trajectory]) -> pd.DataFrame:
    """A row a measure of each real end, frame and nearest real cell.

    `change_sd` is the frame minus the first frame, or the real target minus the real start, in standard deviations of
    real control cells; empty for nearest cells.
    """
    parts = []
    for trajectory in trajectories:
        if (measured := trajectory.measured) is None:
            continue
        start, target = measured.ends.loc[["start"]], measured.ends.loc[["target"]]
        real_change = measured.real_change.to_frame().T
        for of, cells, values, change in (
            ("real start", [trajectory.start], start, start * np.nan),
            ("frame", None, measured.frames, measured.change),
            ("nearest real cell", trajectory.nearest, measured.nearest, measured.nearest * np.nan),
            ("real target", [trajectory.target], target, real_change),
        ):
            for number in range(len(values)):
                part = pd.DataFrame({"value": values.iloc[number], "change_sd": change.iloc[number]})
                part.insert(0, "population", trajectory.population.number)
                part.insert(1, "of", of)
                part.insert(2, "frame", number + 1 if len(values) > 1 else "")
                part.insert(3, "cell", cells[number].cell_id if cells is not None else "")
                parts.append(part.rename_axis("measure").reset_index())
    table = pd.concat(parts, ignore_index=True)
    table["words"] = table["measure"].map(describe)
    return table[["population", "of", "frame", "cell", "measure", "value", "change_sd", "words"]]


def summary(trajectory: Trajectory) -> str:
    """A trajectory in a line: how near it comes, what changes most, how many frames are out of distribution."""
    frames = trajectory.frames
    parts = [
        f"{trajectory.start.label} ({trajectory.start.cell_id}) to {trajectory.stops[-1]} "
        f"({trajectory.target.cell_id}): cosine {frames['cosine'].iloc[0]:.2f} to {frames['cosine'].iloc[-1]:.2f}",
        f"{int((frames['flag'] != '').sum())} of {len(frames)} frames out of distribution",
    ]
    if trajectory.population.of > 1:
        parts.insert(0, population_label(trajectory).replace("\n", ", "))
    if trajectory.measured is not None:
        change, names = trajectory.measured.change.iloc[-1], trajectory.measured.most_moved(3)
        moved = [f"{describe(name).split(',')[0]} {change[name]:+.1f} s.d." for name in names]
        parts.append(f"largest changes: {', '.join(moved)}")
    if sentence := not_followed(trajectory):
        parts.append(sentence[0].lower() + sentence[1:])
    if trajectory.batch_share is not None:
        parts.append(trajectory.batch_share.sentence())
    return "; ".join(parts)


def travel_command(study: Study, config: TravelConfig, *flags: str) -> str:
    """The command for another travel to the same treatment."""
    return shlex.join(["phenolens", "travel", str(study.folder), "--to", config.to, *flags])


def _files(
    trajectories: tuple[Trajectory, ...],
    pictures: Sequence[PictureKind],
    films: Sequence[FilmKind],
    about: dict[str, Any],
) -> Iterator[tuple[str, bytes]]:
    comment = f"phenolens {__version__}, run {about['run']}, embeddings {about['embeddings'][:16]}"
    for trajectory in trajectories:
        ending = "" if len(trajectories) == 1 else f"_{trajectory.population.number}"
        strip = travel_strip(trajectory)
        for kind in pictures:
            yield f"strip{ending}.{kind}", file_of(strip, kind)
        for film_kind in films:
            yield f"film{ending}.{film_kind}", film(trajectory, film_kind, comment=comment)
    if len(trajectories) > 1:
        sheet = populations(trajectories)
        for kind in pictures:
            yield f"populations.{kind}", file_of(sheet, kind)
    yield "frames.csv", frames_table(trajectories).to_csv(index=False).encode()
    yield "measured.csv", measured_table(trajectories).to_csv(index=False).encode()


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
