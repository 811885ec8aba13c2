"""Blinded assessments of a study: set up from its crops and a run, found again, and their results.

They lie in `assessments/`, a file each: the one thing that assessing writes. n pictures of each kind, C channels, S
crop side in px.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pandas as pd

from phenolens.blinded_test.database import MOST_ASSESSORS, AssessmentFile, Assessor, Picture, checked_name
from phenolens.blinded_test.design import balanced_design
from phenolens.blinded_test.statistics import AssessmentResults, assessed, flat, median_seconds
from phenolens.core.colours import Contrast, cell_image, shared_contrast
from phenolens.core.errors import InputError
from phenolens.core.files import alone, sha256, write_text
from phenolens.core.progress import tell
from phenolens.crops.store import CropStore, normalised
from phenolens.screens.screen import treatment_name
from phenolens.study import Study

CONTRAST_CELLS = 256  # counted cells, evenly over the study, on which the one contrast of all pictures is measured
MOST_PICTURES = 1000  # of each kind; nobody judges more
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}")


@dataclass(frozen=True)
class AssessmentConfig:
    """What one assessment is."""

    run: str | None = None  # whose reconstructions are shown; left out: the first VAE+, else VAE, else AE
    n: int = 50  # pictures of each kind, real and synthetic
    channels: tuple[str, ...] = ()  # shown in colour, a single one in grey; left out: all
    seed: int = 0  # of which cells are shown
    show_score: bool = False  # whether assessors see at the end how many of their answers were right
    each_channel: bool = False  # whether some pictures show one channel alone, in grey: as many of each as show all


def assessments(study: Study) -> dict[str, AssessmentFile]:
    """The study's assessments by name."""
    return {path.stem: AssessmentFile(path) for path in sorted(study.assessments.glob("*.sqlite"))}


def find_assessor(study: Study, code: str) -> tuple[AssessmentFile, Assessor] | None:
    """Whose code this is, and in which assessment; None when it is nobody's.

    InputError when it is in no file that can be read, and one cannot: that one stops nobody of the others.
    """
    unread: InputError | None = None
    for file in assessments(study).values():
        try:
            found = file.assessor(code)
        except InputError as error:
            unread = error
            continue
        if found is not None:
            return file, found
    if unread is not None:
        raise unread
    return None


def set_up(study: Study, config: AssessmentConfig, assessors: Sequence[str], *, name: str = "") -> AssessmentFile:
    """The assessment of these settings, made unless it is there, with these assessors among its own.

    InputError when one of that name is there with other settings, for names of assessors that cannot be or stand there
    twice, before anything is made, and for whatever `draw_pictures` refuses.
    """
    # torch comes with the models, and nothing else here needs it
    from phenolens.runs.decoder import chosen_run

    if not 1 <= config.n <= MOST_PICTURES:
        raise InputError(f"--n {config.n}: expected 1 to {MOST_PICTURES} pictures of each kind")
    if not 0 <= config.seed < 2**32:
        raise InputError(f"--seed {config.seed}: expected 0 to {2**32 - 1}")
    if name and not NAME.fullmatch(name):
        raise InputError(f'name "{name[:80]}": expected at most 100 letters, digits and _ . + -, such as first-round')
    names = [checked_name(assessor) for assessor in assessors]
    if len(names) > MOST_ASSESSORS:
        raise InputError(f"{len(names)} assessors: expected at most {MOST_ASSESSORS}")
    twice = [assessor for number, assessor in enumerate(names) if assessor in names[:number]]
    if twice:
        raise InputError(f'assessor "{twice[0]}" stands there twice; each needs a name of their own, to have a code')
    run = chosen_run(study, config.run)
    channels = _known_channels(config.channels, run.store)
    _check_views(config, channels)
    made = {**asdict(config), "run": run.name, "channels": list(channels), "crops": run.store.identity}
    made["weights"] = sha256(run.run.checkpoint)
    name = name or _name(run.name, config, channels, run.store)
    with alone(study.assessments / f".{name}.lock", doing="setting an assessment up"):
        file = assessments(study).get(name)
        if file is None:
            tell(f"{2 * config.n} pictures are made once, from {run.name}")
            pictures = draw_pictures(run.store, run.redrawn, config, channels=channels)
            about = {**made, "title": run.title, "model": run.model_name, "crop_px": run.store.crop_px}
            file = AssessmentFile.create(study.assessments / f"{name}.sqlite", pictures, about)
        elif changed := [key for key, value in made.items() if file.about().get(key) != value]:
            raise InputError(
                f"{file.path}: set up before with other {', '.join(changed)}; give another --name to set up a new one"
            )
    file.add_assessors(names)
    return file


def draw_pictures(
    store: CropStore, redrawn: Callable[[np.ndarray], np.ndarray], config: AssessmentConfig, *, channels: Sequence[str]
) -> list[Picture]:
    """The pictures of an assessment, 2n PNGs of one length, real and synthetic drawn by one rule.

    Cells left out as noise and wells of positive controls are not shown.
    """
    cells, views = store.cells, _views(config, channels)
    names = treatment_name(cells["compound"], cells["concentration_um"]).to_numpy(object)
    controls = frozenset(names[(cells["role"] == "control").to_numpy()])
    fine = ~cells["is_noise"].to_numpy(bool) & (cells["role"] != "other").to_numpy()
    design = balanced_design(
        np.where(fine, names, ""), controls=controls, n=config.n, seed=config.seed, views=len(views)
    )
    rows, synthetic = design["row"].to_numpy(), design["is_synthetic"].to_numpy(bool)
    crops = normalised(store.take(rows))
    crops[synthetic] = redrawn(rows[synthetic])
    contrast = _contrast(store, np.flatnonzero(fine))
    drawing = [_drawing(contrast, [store.channels.index(channel) for channel in view]) for view in views]
    of_view = design["view"].to_numpy()
    pngs = [_png(crop[drawing[view][0]], drawing[view][1]) for crop, view in zip(crops, of_view)]
    assert len({len(png) for png in pngs}) == 1  # no length tells a kind
    ids = cells["cell_id"].to_numpy(object)[rows]
    mechanisms = cells["moa"].fillna("").mask(cells["role"] == "control", "control").to_numpy(object)[rows]
    shown = [", ".join(views[view]) for view in of_view]
    return [Picture(*parts) for parts in zip(pngs, synthetic.tolist(), ids, design["treatment"], mechanisms, shown)]


def results(file: AssessmentFile) -> AssessmentResults:
    """What an assessment's answers say."""
    return assessed(file.answers(), n_images=file.n_pictures())


def summary(study: Study) -> pd.DataFrame:
    """A row an assessment of the study: what it shows of whom, and its results with intervals."""
    return pd.DataFrame([summary_row(file, results(file)) for file in assessments(study).values()])


def summary_row(file: AssessmentFile, found: AssessmentResults) -> dict[str, Any]:
    """One row of `summary`."""
    about = file.about()
    intervals = {what: getattr(found, what) for what in ("passed", "false_alarms", "d_prime", "criterion", "kappa")}
    said = {name: about[name] for name in ("run", "model", "title", "n", "seed")}
    counts = {"n_assessors": found.n_assessors, "n_finished": found.n_finished}
    seconds = median_seconds(found.images["median_seconds"])
    channels = {"channels": " ".join(about["channels"]), "each_channel": about["each_channel"]}
    return {"assessment": file.name, **said, **channels, **counts, **flat(intervals), "seconds": seconds}


def result_tables(file: AssessmentFile) -> dict[str, pd.DataFrame]:
    """The results as tables: `answers`, `assessors`, `treatments`, `mechanisms`, `pictures` a row each; `summary` one.

    `channels` has a row for what pictures show: all channels, or one.
    """
    found = results(file)
    return {
        "answers": file.answers(),
        "assessors": found.assessors,
        "treatments": found.treatments,
        "mechanisms": found.mechanisms,
        "channels": found.shown,
        "pictures": found.images,
        "summary": pd.DataFrame([summary_row(file, found)]),
    }


def write_results(file: AssessmentFile) -> list[Path]:
    """Write `result_tables` beside the assessment's file, as `<name>_<table>.csv`; their paths."""
    tables = result_tables(file)
    paths = [file.path.with_name(f"{file.name}_{what}.csv") for what in tables]
    for path, table in zip(paths, tables.values()):
        write_text(path, table.to_csv(index=False))
    return paths


def _known_channels(asked: Sequence[str], store: CropStore) -> list[str]:
    """The channels asked for, in the store's order, all when none is; InputError for one that is not there."""
    for channel in asked:
        if channel not in store.channels:
            raise InputError(f"--channels {channel}: no such channel; there are: {', '.join(store.channels)}")
    return [channel for channel in store.channels if channel in asked or not asked]


def _views(config: AssessmentConfig, channels: Sequence[str]) -> list[tuple[str, ...]]:
    """What a picture can show: these channels in colour, or with `each_channel` also one of them in grey."""
    return [tuple(channels), *((channel,) for channel in channels if config.each_channel)]


def _check_views(config: AssessmentConfig, channels: Sequence[str]) -> None:
    n_views = len(_views(config, channels))
    if config.each_channel and len(channels) < 2:
        raise InputError(f"--each-channel: only {channels[0]} is shown; expected two or more --channels, or none named")
    if config.n < n_views:
        raise InputError(
            f"--n {config.n}: expected at least {n_views} pictures of each kind, one for all channels and one for each"
        )


def _name(run: str, config: AssessmentConfig, channels: Sequence[str], store: CropStore) -> str:
    named = "" if len(channels) == len(store.channels) else "-" + "+".join(channels)
    each = "-each-channel" if config.each_channel else ""
    return re.sub(r"[^A-Za-z0-9_.+-]", "_", f"{run[:60]}{named[:20]}{each}-n{config.n}-seed{config.seed}")


def _contrast(store: CropStore, fine: np.ndarray) -> Contrast:
    sample = fine[np.unique(np.linspace(0, len(fine) - 1, CONTRAST_CELLS).astype(int))]
    return shared_contrast(normalised(store.take(sample)), store.channels)


def _drawing(contrast: Contrast, at: list[int]) -> tuple[list[int], Contrast]:
    """How crops are drawn of which the channels of these numbers are shown: a single one in grey."""
    if len(at) == 1:
        return at, contrast.of_channel(at[0])
    names = tuple(contrast.channels[place] for place in at)
    return at, Contrast(names, contrast.colours[at], contrast.black[at], contrast.white[at])


def _png(crop: np.ndarray, contrast: Contrast) -> bytes:
    """A crop as PNG without compression: pictures of one size have one length."""
    return bytes(imagecodecs.png_encode(np.round(255 * cell_image(crop, contrast)).astype(np.uint8), level=0))
