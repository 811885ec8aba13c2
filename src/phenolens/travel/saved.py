"""A travel as files: strips, numbers and films in a folder of the study, with what they were made from.

travels/<run>/<treatment>--<way>.../
    strip.png, .svg, .pdf      the journey; with medoids strip_1 ... one a population, and populations.png ...
    frames.csv                 a row a frame: phenotype.journey.FRAME_COLUMNS, and the measures of its picture
    measured.csv               a row a cell or frame and measure: real start and target, frames, nearest real cells
    film.gif, film.mp4         where they were asked for
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
from phenolens.travel.figure import not_drawn_words, population_words, populations, travel_strip
from phenolens.travel.film import FilmKind, check_can_film, film
from phenolens.travel.journey import Journey

ABOUT = "about.json"
PictureKind = Literal["png", "svg", "pdf"]


def keep_travel(
    study: Study,
    traveller: Traveller,
    asked: TravelConfig,
    *,
    pictures: Sequence[PictureKind] = ("png", "svg", "pdf"),
    films: Sequence[FilmKind] = (),
) -> tuple[Path, tuple[Journey, ...]]:
    """Travel, and keep its strips, numbers and films; their folder, and the journeys.

    The same question gives the same bytes; files of an earlier answer are replaced. InputError, before anything is
    written, where something asked for is not there.
    """
    for kind in films:
        check_can_film(kind)
    treatment = traveller.catalogue.find_treatment(asked.to)
    journeys = traveller.travel(dataclasses.replace(asked, to=treatment))
    run = traveller.pictured.name
    folder = study.travels_folder / run / folder_name(treatment, asked)
    about: dict[str, Any] = {
        "run": run,
        "travel": dataclasses.asdict(asked),
        "films": list(films),
        "embeddings": sha256({"of_plates": embedding_sources(study, run)}),
        "crops": study.crops.identity,
        "phenolens": __version__,
    }
    n_files = len(journeys) * (len(pictures) + len(films)) + (len(pictures) if len(journeys) > 1 else 0) + 2
    content = dict(track(_files(journeys, pictures, films, about), "drawing", total=n_files))
    with alone(study.travels_folder / ".lock", doing="writing a travel"):
        _replace(folder, content, about)
    return folder, journeys


def folder_name(treatment: str, asked: TravelConfig) -> str:
    """`taxol@0.3--swap`, with what is not the default; a treatment whose name cannot be a folder's gets a code too."""
    plain = re.sub(r"[^A-Za-z0-9_.@+-]", "_", treatment)
    if plain != treatment:
        plain += "_" + hashlib.sha256(treatment.encode()).hexdigest()[:6]
    parts = [plain, asked.way]
    parts += ["up-the-doses"] if asked.up_the_doses else []
    parts += [f"to-{asked.beyond:g}"] if asked.beyond != 1 else []
    parts += [f"{asked.medoids}-medoids-by-{asked.medoids_by}"] if asked.targets == "medoids" else []
    parts += [f"from-{re.sub(r'[^A-Za-z0-9_.+-]', '_', asked.start)}"] if asked.start is not None else []
    return "--".join(parts)


def frames_table(journeys: Sequence[Journey]) -> pd.DataFrame:
    """A row a frame of each journey: FRAME_COLUMNS, then the measures of the decoded picture."""
    parts = []
    for journey in journeys:
        part = journey.frames.copy()
        part.insert(0, "population", journey.population.number)
        part.insert(1, "share", journey.population.share)
        part.insert(2, "frame", np.arange(1, len(part) + 1))
        measured = [] if journey.measured is None else [journey.measured.frames]
        parts.append(pd.concat([part, *measured], axis=1))
    return pd.concat(parts, ignore_index=True)


def measured_table(journeys: Sequence[Journey]) -> pd.DataFrame:
    """A row a measure of each real end, frame and nearest real cell.

    `change_sd` is the frame less the first frame, or the real target less the real start, in standard deviations of
    real control cells; empty for nearest cells.
    """
    parts = []
    for journey in journeys:
        if journey.measured is None:
            continue
        measured = journey.measured
        ends = measured.ends.loc[["start", "target"]]
        sd = measured.control_sd.where(measured.control_sd > 0)
        rows = [
            ("real start", [journey.start.cell_id], ends.iloc[:1], ends.iloc[:1] * np.nan),
            ("frame", [""] * len(measured.frames), measured.frames, measured.change),
            ("nearest real cell", [c.cell_id for c in journey.nearest], measured.nearest, measured.nearest * np.nan),
            ("real target", [journey.target.cell_id], ends.iloc[1:], (ends.iloc[1:] - ends.iloc[0]) / sd),
        ]
        for of, cell_ids, values, change in rows:
            for number, cell_id in enumerate(cell_ids):
                part = pd.DataFrame({"value": values.iloc[number], "change_sd": change.iloc[number]})
                part.insert(0, "population", journey.population.number)
                part.insert(1, "of", of)
                part.insert(2, "frame", number + 1 if len(cell_ids) > 1 else "")
                part.insert(3, "cell", cell_id)
                parts.append(part.rename_axis("measure").reset_index())
    table = pd.concat(parts, ignore_index=True)
    table["words"] = table["measure"].map(describe)
    return table[["population", "of", "frame", "cell", "measure", "value", "change_sd", "words"]]


def _files(
    journeys: tuple[Journey, ...], pictures: Sequence[PictureKind], films: Sequence[FilmKind], about: dict[str, Any]
) -> Iterator[tuple[str, bytes]]:
    comment = f"phenolens {__version__}, run {about['run']}, embeddings {about['embeddings'][:16]}"
    for journey in journeys:
        ending = "" if len(journeys) == 1 else f"_{journey.population.number}"
        strip = travel_strip(journey)
        for kind in pictures:
            yield f"strip{ending}.{kind}", file_of(strip, kind)
        for moving in films:
            yield f"film{ending}.{moving}", film(journey, moving, comment=comment)
    if len(journeys) > 1:
        sheet = populations(journeys)
        for kind in pictures:
            yield f"populations.{kind}", file_of(sheet, kind)
    yield "frames.csv", frames_table(journeys).to_csv(index=False).encode()
    yield "measured.csv", measured_table(journeys).to_csv(index=False).encode()


def _replace(folder: Path, content: dict[str, bytes], about: dict[str, Any]) -> None:
    """Write the files, `about.json` last, and take away those of an earlier answer that are not among them."""
    older: dict[str, str] = {}
    if (folder / ABOUT).is_file():
        older = read_json(folder / ABOUT, mend="delete that folder and travel again").get("files", {})
        (folder / ABOUT).unlink()  # while it is not there, the folder is not whole
    for name, part in content.items():
        with write_whole(folder / name) as file:
            file.write(part)
    for name in older.keys() - content.keys():
        (folder / Path(name).name).unlink(missing_ok=True)
    files = {name: hashlib.sha256(part).hexdigest() for name, part in sorted(content.items())}
    write_json(folder / ABOUT, {**about, "files": files})


def journey_words(journey: Journey) -> str:
    """A journey in a line: how near it comes, what moves most, how many frames leave the data."""
    frames = journey.frames
    n_flagged = int((frames["flag"] != "").sum())
    words = [
        f"{journey.start.label} ({journey.start.cell_id}) to {journey.stops[-1]} ({journey.target.cell_id}): "
        f"cosine {frames['cosine'].iloc[0]:.2f} to {frames['cosine'].iloc[-1]:.2f}",
        f"{n_flagged} of {len(frames)} frames leave the data",
    ]
    if journey.population.of > 1:
        words.insert(0, population_words(journey).replace("\n", ", "))
    if journey.measured is not None:
        change = journey.measured.change.iloc[-1]
        moved = [f"{describe(name).split(',')[0]} {change[name]:+.1f} s.d." for name in journey.measured.most_moved(3)]
        words.append(f"what moves most: {', '.join(moved)}")
    if said := not_drawn_words(journey):
        words.append(said[0].lower() + said[1:])
    if journey.batch_share is not None:
        words.append(journey.batch_share.words())
    return "; ".join(words)


def travel_command(study: Study, asked: TravelConfig, *flags: str) -> str:
    """The command for another travel to the same treatment."""
    return shlex.join(["phenolens", "travel", str(study.folder), "--to", asked.to, *flags])
