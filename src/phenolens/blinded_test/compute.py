"""Set up the blinded tests of a study, find them, and compute their results.

Each is one file in `assessments/`, and nothing else is written. C channels, S crop side in px.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from phenolens.blinded_test.config import AssessmentConfig
from phenolens.blinded_test.database import MAX_ASSESSORS, AssessmentFile, Assessor, Picture, checked_name
from phenolens.blinded_test.statistics import AssessmentResults, analyse, flat
from phenolens.core.colours import png
from phenolens.core.errors import InputError
from phenolens.core.files import alone, sha256, write_text
from phenolens.core.progress import tell
from phenolens.crops.store import CropStore, normalised
from phenolens.runs.catalogue import contrast_of
from phenolens.screens.screen import treatment_name
from phenolens.study import Study

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}")


def assessments(study: Study) -> dict[str, AssessmentFile]:
    """The study's blinded tests by name."""
    return {path.stem: AssessmentFile(path) for path in sorted(study.assessments_folder.glob("*.sqlite"))}


def find_assessor(study: Study, code: str) -> tuple[AssessmentFile, Assessor] | None:
    """The assessor with this code and their test; None when nobody has it.

    Raises:
        InputError: no readable file has the code, and one file cannot be read. It stops nobody in other files.
    """
    unreadable = []
    for file in assessments(study).values():
        try:
            if found := file.assessor(code):
                return file, found
        except InputError as error:
            unreadable.append(error)
    if unreadable:
        raise unreadable[0]
    return None


def set_up(study: Study, config: AssessmentConfig, assessors: Sequence[str], *, name: str = "") -> AssessmentFile:
    """Make the test with these settings unless it exists, and add these assessors.

    Raises:
        InputError: invalid settings or names of assessors, or a test of this name with other settings. All are found
            before anything is written.
    """
    from phenolens.runs.decoder import find_decoding_run  # imports torch, which serving a test does not need

    if name and not NAME.fullmatch(name):
        raise InputError(f'name "{name[:80]}": expected at most 100 letters, digits and _ . + -, such as first-round')
    names = _checked_names(assessors)
    run = find_decoding_run(study, config.run)
    channels = _checked_channels(config, run.store.channels)
    settings = {**asdict(config), "run": run.name, "channels": channels, "crops": run.store.identity}
    settings["weights"] = sha256(run.run.checkpoint)
    name = name or _default_name(run.name, config, channels, run.store)
    with alone(study.assessments_folder / f".{name}.lock", doing="setting an assessment up"):
        file = assessments(study).get(name)
        if file is None:
            tell(f"making {2 * config.n} pictures with {run.name}")
            pictures = draw_pictures(run.store, run.reconstructed, config, channels=channels)
            about = {**settings, "title": run.title, "model": run.model_name, "crop_px": run.store.crop_px}
            file = AssessmentFile.create(study.assessments_folder / f"{name}.sqlite", pictures, about)
        else:
            about = file.about()
            if changed := [key for key, value in settings.items() if about.get(key) != value]:
                raise InputError(
                    f"{file.path}: exists with other {', '.join(changed)}; give another --name to set up a new one"
                )
    file.add_assessors(names)
    return file


def _checked_names(assessors: Sequence[str]) -> list[str]:
    names = [checked_name(assessor) for assessor in assessors]
    if len(names) > MAX_ASSESSORS:
        raise InputError(f"{len(names)} assessors: expected at most {MAX_ASSESSORS}")
    if twice := [name for number, name in enumerate(names) if name in names[:number]]:
        raise InputError(f'assessor "{twice[0]}" is named twice; each needs a different name')
    return names


def _checked_channels(config: AssessmentConfig, available: Sequence[str]) -> list[str]:
    """The channels to show, in the store's order."""
    for channel in config.channels:
        if channel not in available:
            raise InputError(f"--channels {channel}: no such channel; there are: {', '.join(available)}")
    channels = [channel for channel in available if channel in config.channels or not config.channels]
    n_views = len(config.views(channels))
    if config.each_channel and len(channels) < 2:
        raise InputError(f"--each-channel: only {channels[0]} is shown; expected two or more --channels, or none named")
    if config.n < n_views:
        raise InputError(
            f"--n {config.n}: expected at least {n_views} pictures of each kind, one for all channels and one for each"
        )
    return channels


def _default_name(run: str, config: AssessmentConfig, channels: Sequence[str], store: CropStore) -> str:
    some = "" if len(channels) == len(store.channels) else "-" + "+".join(channels)
    each = "-each-channel" if config.each_channel else ""
    return re.sub(r"[^A-Za-z0-9_.+-]", "_", f"{run[:60]}{some[:20]}{each}-n{config.n}-seed{config.seed}")


def draw_pictures(
    store: CropStore,
    reconstruct: Callable[[np.ndarray], np.ndarray],
    config: AssessmentConfig,
    *,
    channels: Sequence[str],
) -> list[Picture]:
    """The 2n pictures of a test, as PNGs of one length, real and synthetic drawn by the same rule.

    Cells flagged as noise and wells of positive controls are left out. `reconstruct` turns rows of the store into
    crops (n, C, S, S).
    """
    cells, views = store.cells, config.views(channels)
    names = treatment_name(cells["compound"], cells["concentration_um"]).to_numpy(object)
    controls = frozenset(names[(cells["role"] == "control").to_numpy()])
    usable = ~cells["is_noise"].to_numpy(bool) & (cells["role"] != "other").to_numpy()
    design = balanced_design(
        np.where(usable, names, ""), controls=controls, n=config.n, seed=config.seed, views=len(views)
    )
    rows, synthetic = design["row"].to_numpy(), design["is_synthetic"].to_numpy(bool)
    crops = normalised(store.take(rows))
    crops[synthetic] = reconstruct(rows[synthetic])
    contrast = contrast_of(store, np.flatnonzero(usable))
    places = [[store.channels.index(channel) for channel in view] for view in views]
    of_view = design["view"].to_numpy()
    pngs = [png(crop[places[view]], contrast.of_channels(*places[view]), level=0) for crop, view in zip(crops, of_view)]
    assert len(set(map(len, pngs))) == 1  # the length must not reveal the kind
    ids = cells["cell_id"].to_numpy(object)[rows]
    mechanisms = cells["moa"].fillna("").mask(cells["role"] == "control", "control").to_numpy(object)[rows]
    shown = [", ".join(views[view]) for view in of_view]
    return [Picture(*parts) for parts in zip(pngs, synthetic.tolist(), ids, design["treatment"], mechanisms, shown)]


def balanced_design(
    treatments: np.ndarray, *, controls: frozenset[str], n: int, seed: int, views: int = 1
) -> pd.DataFrame:
    """Which cells are shown, and how.

    Every treatment has as many real as synthetic pictures, so a phenotype reveals nothing; where there are enough
    cells, the numbers of two treatments differ by at most one. No cell is shown twice. Rows are in random order.

    Args:
        treatments: (N,) each cell's treatment, empty for cells that must not be shown.
        controls: treatments that come first, so that a short test shows them.
        n: pictures of each kind.
        seed: selects the cells.
        views: in how many ways pictures are drawn; each treatment's pairs are spread evenly over them.

    Returns:
        2n rows: `row` (into `treatments`), `treatment`, `is_synthetic`, `view` (from 0).

    Raises:
        InputError: there are fewer than n pairs of cells.
    """
    rng = np.random.default_rng([seed, n])
    names = [name for name in np.unique(treatments.astype(str)) if name]
    left = {name: list(rng.permutation(np.flatnonzero(treatments == name))) for name in names}
    rows: list[tuple[int, str, bool]] = []
    while len(rows) < 2 * n:
        available = [name for name in names if len(left[name]) > 1]
        if not available:
            raise InputError(
                f"{n} real and {n} synthetic cells: the study's treatments have cells for {len(rows) // 2} of each; "
                f"give --n {len(rows) // 2} or fewer"
            )
        shuffled = [available[place] for place in rng.permutation(len(available))]
        controls_first = sorted(shuffled, key=lambda name: name not in controls)
        for name in controls_first[: n - len(rows) // 2]:
            rows += [(int(left[name].pop()), name, is_synthetic) for is_synthetic in (False, True)]
    table = pd.DataFrame(rows, columns=["row", "treatment", "is_synthetic"])
    order = rng.permutation(len(table))
    # One treatment after another: spread over rounds of treatments, a control would always have the same view.
    places = {name: place for place, name in enumerate(rng.permutation(names))}
    by_treatment = np.argsort(table["treatment"].map(places).to_numpy()[::2], kind="stable")  # of the pairs
    view = np.empty(n, int)
    view[by_treatment] = np.arange(n) % views
    return table.assign(view=np.repeat(view, 2)).iloc[order].reset_index(drop=True)


def results(file: AssessmentFile) -> AssessmentResults:
    """The results of a test."""
    return analyse(file.answers(), n_images=file.n_pictures())


def summary(files: Iterable[AssessmentFile]) -> pd.DataFrame:
    """A row per test: settings, and results with intervals."""
    rows = []
    for file in files:
        about, found = file.about(), results(file)
        intervals = ("passed", "false_alarms", "d_prime", "criterion", "kappa")
        row = {"assessment": file.name, **{name: about[name] for name in ("run", "model", "title", "n", "seed")}}
        row |= {"channels": " ".join(about["channels"]), "each_channel": about["each_channel"]}
        row |= {"n_assessors": found.n_assessors, "n_finished": found.n_finished}
        row |= flat({name: getattr(found, name) for name in intervals})
        rows.append(row | {"seconds": found.median_seconds})
    return pd.DataFrame(rows)


def result_tables(file: AssessmentFile) -> dict[str, pd.DataFrame]:
    """The results as tables; all but `summary` (one row) have a row per what their name says.

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
        "summary": summary([file]),
    }


def write_results(file: AssessmentFile) -> list[Path]:
    """Write `result_tables` next to the file, as `<name>_<table>.csv`; returns their paths."""
    paths = []
    for name, table in result_tables(file).items():
        paths.append(file.path.with_name(f"{file.name}_{name}.csv"))
        write_text(paths[-1], table.to_csv(index=False))
    return paths
