"""The paper's figures of a study: runs opened, cells chosen, and handed to the functions that draw them.

N cells, Z features. Lafarge et al. 2019, Figures 2 to 4.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from phenolens.contents.destinations import Destinations
from phenolens.contents.pictured import EmbeddedCells, PicturedRun, chosen_run, embedded_cells, pictured_runs
from phenolens.contents.shown_cells import (
    cells_by_id,
    drawn_cells,
    of_different_mechanisms,
    seen_words,
    unseen_cells,
)
from phenolens.errors import InputError, at_least
from phenolens.phenotype.travel import decode_frames, feature_swap, straight_line, target_cell
from phenolens.progress import track
from phenolens.steps import check_scores, trained_runs
from phenolens.study import HEADLINE, Study
from phenolens.viewing.figures import reconstructions
from phenolens.viewing.pieces import listed
from phenolens.viewing.versus import RealCells, versus
from phenolens.viewing.ways import Way, interpolations

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ORDER = ("pca", "ae", "vae", "vaeplus")  # models from the plainest on, as in the paper's Figure 2
HOW = {"swap": "the features that differ most first", "line": "all features at once, in equal steps"}
MOST_COMPOUNDS = 6  # where none is named
REAL_CELLS = 10  # random real cells of a group in Figure 4


@dataclass(frozen=True)
class FigureConfig:
    """What a figure shows; each flag belongs to the figures that it names."""

    runs: tuple[
        str, ...
    ] = ()  # runs that are shown; left out: all that decode, of interpolation and comparison the best
    cells: tuple[str, ...] = ()  # ids of cells (reconstructions, comparison), or of the start (interpolation)
    shown_cells: int | None = None  # cells chosen by the seed; left out: 8 of reconstructions, 2 of a comparison
    apart: bool = False  # reconstructions: each channel in rows of its own too
    compounds: tuple[str, ...] = ()  # interpolation: compounds to go to, or COMPOUND@DOSE; left out: six mechanisms
    frames: int = 7  # interpolation: decoded pictures on the way
    way: Literal["swap", "line"] = "swap"  # interpolation: the paper's swap of features, or a straight line
    treatment: str | None = None  # comparison: the treatment, COMPOUND@DOSE; left out: one chosen by the seed
    picture_seed: int = 0  # chooses cells, and the treatment of a comparison

    def __post_init__(self) -> None:
        """InputError on a number that cannot be."""
        at_least("--shown-cells", 1 if self.shown_cells is None else self.shown_cells, 1)
        at_least("--frames", self.frames, 2)
        at_least("--picture-seed", self.picture_seed, 0)


def reconstructions_figure(study: Study, config: FigureConfig) -> "Figure":
    """Figure 2: originals above what each model that decodes makes of the same cells."""
    runs = _decoding(study, config.runs)
    store = study.store()
    unseen = unseen_cells(store, runs)
    n, random = config.shown_cells or 8, np.random.default_rng(config.picture_seed)
    rows = cells_by_id(store, config.cells)
    if not len(rows):
        rows = of_different_mechanisms(store, n, unseen=unseen, random=random)
    by_model = {
        name: run.redrawn(rows) for name, run in track(_named(runs).items(), "redrawing cells", total=len(runs))
    }
    cells = store.cells.iloc[rows]
    dose = cells["concentration_um"].map(" {:g} µM".format).where(cells["role"] != "control", "")
    labels = (cells["compound"] + dose).tolist()
    note = f"{_chosen_words(config, 'cells')} {seen_words(rows, unseen)}"
    return reconstructions(
        runs[0].originals(rows), by_model, labels, channels=store.channels, apart=config.apart, note=note
    )


def interpolation_figure(study: Study, config: FigureConfig) -> "Figure":
    """Figure 3: from one control cell to a cell of each chosen compound, a row a compound."""
    run = _one_run(study, config.runs)
    if len(config.cells) > 1:
        raise InputError(f"--cells: {len(config.cells)} cells are named; an interpolation starts from one")
    cells = embedded_cells(study, run.name)
    destinations = Destinations(cells)
    unseen = unseen_cells(run.store, [run])
    asked = config.compounds or strongest_treatments(cells, destinations)[:MOST_COMPOUNDS]
    treatments = list(dict.fromkeys(destinations.treatment(name) for name in asked))
    start = _start(cells, run, config.cells, unseen)
    ways = []
    for treatment in track(treatments, f"ways decoded by {run.name}", total=len(treatments)):
        rows = _unseen_first(destinations.rows_of(treatment), unseen)
        target = int(rows[target_cell(cells.z[rows])])
        between = {"swap": feature_swap, "line": straight_line}[config.way]
        travel = between(cells.z[start], cells.z[target], config.frames)
        moa = str(cells.obs["Metadata_MoA"].iloc[target])
        frames = decode_frames(travel, run.decoded)
        label = destinations.label(treatment) + (f"\n{moa}" if moa else "")
        ways.append(Way(label, frames, travel.cosines, run.originals(np.array([target]))[0]))
    chosen = "was named" if config.cells else "is the one nearest to the controls' mean embedding"
    return interpolations(
        run.originals(np.array([start]))[0],
        str(cells.obs["Metadata_Compound"].iloc[start]),
        ways,
        channels=run.store.channels,
        model=run.title,
        how=HOW[config.way],
        note=f"The start {chosen}, each target the one nearest to its treatment's; other cells of a treatment may look "
        f"different. {seen_words(np.array([start]), unseen)}",
    )


def comparison_figure(study: Study, config: FigureConfig) -> "Figure":
    """Figure 4: cells of one treatment by two models, channel by channel, and the treatment that each finds nearest."""
    check_scores(study)
    runs = _two_runs(study, config.runs)
    store, random = study.store(), np.random.default_rng(config.picture_seed)
    destinations = Destinations(embedded_cells(study, runs[0].name))
    answers = {name: _neighbours(study, run.name) for name, run in _named(runs).items()}
    asked = config.treatment or _drawn_treatment(list(answers.values()), random)
    treatment = destinations.treatment(asked)
    unseen = unseen_cells(store, runs)
    rows = _own_cells(store.cells["cell_id"], cells_by_id(store, config.cells), destinations, treatment)
    if not len(rows):
        rows = drawn_cells(destinations.rows_of(treatment), config.shown_cells or 2, unseen, random)
    label, moa = destinations.label(treatment), str(destinations.table.loc[treatment, "moa"])
    groups = {treatment: f"{label}: {moa or 'mechanism not known'}"}
    for name, table in answers.items():
        neighbour, words = _answer(table, treatment, destinations)
        groups[neighbour] = "\n".join(filter(None, [groups.get(neighbour, ""), f"{name}: {words}"]))
    real = []
    for nearest, title in groups.items():
        others = np.setdiff1d(destinations.rows_of(nearest), rows)
        drawn = drawn_cells(others if len(others) else rows, REAL_CELLS, unseen, random)
        real.append(RealCells(title, runs[0].originals(drawn)))
    by_model = {name: run.redrawn(rows) for name, run in _named(runs).items()}
    chosen = "" if config.treatment else "The treatment was drawn by the seed. "
    return versus(
        runs[0].originals(rows),
        by_model,
        real,
        label,
        channels=store.channels,
        note=f"{chosen}{_chosen_words(config, 'cells')} {seen_words(rows, unseen)} A model's answer is the mechanism "
        "of the nearest treatment of another compound (whitened mean profiles, cosine).",
    )


def strongest_treatments(cells: EmbeddedCells, destinations: Destinations) -> list[str]:
    """Of each mechanism the treatment whose mean embedding lies farthest from the controls', the farthest first.

    By squared distance, less what the mean of so few cells is off by chance. Where no mechanism is known, of each
    compound.
    """
    controls = cells.rows(Role="control")
    if not len(controls):
        raise InputError("no control cells that are counted; an interpolation starts from one")
    middle, variance = cells.z[controls].mean(axis=0), float(cells.z[controls].var(axis=0).sum())
    treated = destinations.table[destinations.table["role"] == "treated"]
    far = [np.square(cells.z[destinations.rows_of(name)].mean(axis=0) - middle).sum() for name in treated.index]
    treated = treated.assign(far=np.array(far) - variance / treated["n_cells"])
    by = "moa" if (treated["moa"] != "").any() else "compound"
    treated = treated[treated[by] != ""].sort_values("far", ascending=False, kind="stable")
    return treated.drop_duplicates(by).index.tolist()


def _decoding(study: Study, asked: Sequence[str]) -> list[PicturedRun]:
    """The runs asked for, in their order, all of which must decode; else all that decode, the plainest model first."""
    if asked:
        return [chosen_run(study, name) for name in dict.fromkeys(asked)]
    able = pictured_runs(study, trained_runs(study))
    return sorted(able, key=_place) if able else [chosen_run(study, None)]


def _one_run(study: Study, asked: Sequence[str]) -> PicturedRun:
    if len(asked) > 1:
        raise InputError(f"--runs {' '.join(asked)}: an interpolation is decoded by one run; name one")
    return chosen_run(study, asked[0] if asked else None)


def _two_runs(study: Study, asked: Sequence[str]) -> list[PicturedRun]:
    """The two runs asked for; else of the scored ones that decode the VAE+ and the model before it."""
    scored = list(pd.read_csv(study.folder / "scores" / "chance.csv", keep_default_na=False)["run"].unique())
    for name in study.chosen_runs(tuple(asked)):
        if asked and name not in scored:
            raise InputError(f'run "{name}" has no scores; run `phenolens evaluate {study.folder}` first')
    runs = _decoding(study, asked) if asked else sorted(pictured_runs(study, scored), key=_place)
    first_of_model = list({run.model_name: run for run in reversed(runs)}.values()) if not asked else runs
    chosen = sorted(first_of_model, key=_place)[-2:] if not asked else runs
    if len(chosen) != 2:
        there = listed([run.name for run in runs]) or "none"
        raise InputError(
            f"a comparison shows two runs that decode and are scored, not {len(chosen)} (there: {there}); "
            f"name two with --runs, or train another model: phenolens train {study.folder} --model vae"
        )
    return chosen


def _place(run: PicturedRun) -> tuple[int, str]:
    return ORDER.index(run.model_name) if run.model_name in ORDER else len(ORDER), run.name


def _named(runs: Sequence[PicturedRun]) -> dict[str, PicturedRun]:
    """The runs by their model's name, or by their own where two are of one model."""
    titles = [run.title for run in runs]
    return {run.title if titles.count(run.title) == 1 else run.name: run for run in runs}


def _start(cells: EmbeddedCells, run: PicturedRun, asked: Sequence[str], unseen: np.ndarray) -> int:
    """The row of the cell asked for; else of the control cell nearest to the controls' mean."""
    if asked:
        return int(cells_by_id(run.store, asked)[0])
    controls = cells.rows(Role="control")
    if not len(controls):
        raise InputError("no control cells that are counted; name a start with --cells")
    controls = _unseen_first(controls, unseen)
    return int(controls[target_cell(cells.z[controls])])


def _unseen_first(rows: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    """Those of these rows that training did not see; all where it saw them all."""
    return rows[unseen[rows]] if unseen[rows].any() else rows


def _own_cells(ids: pd.Series, rows: np.ndarray, destinations: Destinations, treatment: str) -> np.ndarray:
    """The rows as they are; InputError for a cell of another treatment."""
    others = np.setdiff1d(rows, destinations.rows_of(treatment))
    if len(others):
        raise InputError(f'--cells: cell "{ids.iloc[others[0]]}" is not of {treatment}; name cells of that treatment')
    return rows


def _neighbours(study: Study, name: str) -> pd.DataFrame:
    """What the headline's score says of each treatment, by its name; InputError when it was not scored."""
    path = study.score_table(name, "neighbours", **HEADLINE)
    if not path.exists():
        raise InputError(f"{path}: not there; run `phenolens evaluate {study.folder}` with --protocols NSC first")
    return pd.read_csv(path, keep_default_na=False).set_index("treatment")


def _drawn_treatment(tables: Sequence[pd.DataFrame], random: np.random.Generator) -> str:
    """A treatment that every one of these runs was asked about."""
    counted = [set(table.index[table["counted"].astype(str) == "True"]) for table in tables]
    both = sorted(set.intersection(*counted))
    if not both:
        raise InputError("no treatment was scored by both runs; name one with --treatment")
    return str(random.choice(both))


def _answer(table: pd.DataFrame, treatment: str, destinations: Destinations) -> tuple[str, str]:
    """The nearest treatment, and in words what a run takes this one for; itself where the run was not asked."""
    row = table.loc[treatment].astype(str).to_dict() if treatment in table.index else {}
    if not row.get("neighbour"):
        return treatment, f"was not asked ({row.get('reason', 'it is not in its scores')})"
    right = {"True": "right", "False": "wrong"}[row["right"]] if row["counted"] == "True" else "not counted"
    nearest = f"nearest: {destinations.label(row['neighbour'])} (distance {float(row['distance']):.2f})"
    return row["neighbour"], f"{row['predicted']} ({right})\n{nearest}"


def _chosen_words(config: FigureConfig, what: str) -> str:
    return (
        f"The {what} were named." if config.cells else f"The {what} were drawn at random (seed {config.picture_seed})."
    )
