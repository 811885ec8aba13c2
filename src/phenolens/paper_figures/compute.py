"""The paper's figures of a study: runs opened, cells chosen, and handed to the functions that draw them.

N cells, Z features. Lafarge et al. 2019, Figures 2 to 4 and section 4.4.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from phenolens.blinded_test.compute import assessments, results
from phenolens.blinded_test.database import AssessmentFile
from phenolens.blinded_test.figure import assessment
from phenolens.core.errors import InputError, at_least
from phenolens.core.progress import track
from phenolens.paper_figures.figure3_interpolation import Way, interpolations
from phenolens.paper_figures.figure4_comparison import comparison
from phenolens.plotting.cell_images import reconstructions
from phenolens.runs.catalogue import Catalogue, nearest_names
from phenolens.runs.decoder import PicturedRun, chosen_run, decoding_runs, named_runs
from phenolens.runs.embeddings import EmbeddedCells, embedded_cells
from phenolens.runs.example_cells import chosen_words, of_different_mechanisms, seen_words, unseen_cells
from phenolens.runs.latent_path import decode_frames, feature_swap, straight_line, target_cell
from phenolens.study import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HOW = {"swap": "the features that differ most first", "line": "all features at once, in equal steps"}
MOST_COMPOUNDS = 6  # where none is named


@dataclass(frozen=True)
class FigureConfig:
    """What a figure shows; each flag belongs to the figures that it names."""

    runs: tuple[str, ...] = ()  # left out: all that decode, for a comparison the best two, for an interpolation one
    cells: tuple[str, ...] = ()  # ids of cells (reconstructions, comparison), or of the start (interpolation)
    shown_cells: int | None = None  # cells chosen by the seed; left out: 8 of reconstructions, 2 of a comparison
    apart: bool = False  # reconstructions: each channel in rows of its own too
    compounds: tuple[str, ...] = ()  # interpolation: compounds to go to, or COMPOUND@DOSE; left out: six mechanisms
    frames: int = 7  # interpolation: decoded pictures on the way
    way: Literal["swap", "line"] = "swap"  # interpolation: the paper's swap of features, or a straight line
    treatment: str | None = None  # comparison: the treatment, COMPOUND@DOSE; left out: one chosen by the seed
    assessments: tuple[str, ...] = ()  # assessment: names of the blinded tests that are shown; left out: all
    picture_seed: int = 0  # chooses cells, and the treatment of a comparison

    def __post_init__(self) -> None:
        """InputError on a number that cannot be."""
        at_least("--shown-cells", 1 if self.shown_cells is None else self.shown_cells, 1)
        at_least("--frames", self.frames, 2)
        at_least("--picture-seed", self.picture_seed, 0)


def reconstructions_figure(study: Study, config: FigureConfig) -> "Figure":
    """Figure 2: originals above what each model that decodes makes of the same cells."""
    runs = decoding_runs(study, config.runs)
    store = study.crops
    unseen = unseen_cells(store, runs)
    n, random = config.shown_cells or 8, np.random.default_rng(config.picture_seed)
    catalogue = Catalogue.of(store.cells)
    rows = catalogue.find_cells(config.cells)
    if not len(rows):
        rows = of_different_mechanisms(catalogue, n, unseen=unseen, random=random)
    by_model = {
        name: run.redrawn(rows) for name, run in track(named_runs(runs).items(), "redrawing cells", total=len(runs))
    }
    note = f"{chosen_words(config.cells, config.picture_seed)} {seen_words(rows, unseen)}"
    return reconstructions(
        runs[0].originals(rows),
        by_model,
        catalogue.labels(rows),
        channels=store.channels,
        apart=config.apart,
        note=note,
    )


def interpolation_figure(study: Study, config: FigureConfig) -> "Figure":
    """Figure 3: from one control cell to a cell of each chosen compound, a row a compound."""
    run = _one_run(study, config.runs)
    if len(config.cells) > 1:
        raise InputError(f"--cells: {len(config.cells)} cells are named; an interpolation starts from one")
    cells = embedded_cells(study, run.name)
    catalogue = cells.catalogue
    unseen = unseen_cells(run.store, [run])
    asked = config.compounds or strongest_treatments(cells)[:MOST_COMPOUNDS]
    treatments = list(dict.fromkeys(catalogue.find_treatment(name) for name in asked))
    start = _start(cells, config.cells, unseen)
    ways = []
    for treatment in track(treatments, f"ways decoded by {run.name}", total=len(treatments)):
        rows = _unseen_first(catalogue.rows_of(treatment), unseen)
        target = int(rows[target_cell(cells.z[rows])])
        between = {"swap": feature_swap, "line": straight_line}[config.way]
        travel = between(cells.z[start], cells.z[target], config.frames)
        moa = str(catalogue.cells["moa"].iloc[target])
        frames = decode_frames(travel, run.decoded)
        label = catalogue.label(treatment) + (f"\n{moa}" if moa else "")
        ways.append(Way(label, frames, travel.cosines, run.originals(np.array([target]))[0]))
    chosen = "was named" if config.cells else "is the one nearest to the controls' mean embedding"
    return interpolations(
        run.originals(np.array([start]))[0],
        str(catalogue.cells["compound"].iloc[start]),
        ways,
        channels=run.store.channels,
        model=run.title,
        how=HOW[config.way],
        note=f"The start {chosen}, each target the one nearest to its treatment's; other cells of a treatment may look "
        f"different. {seen_words(np.array([start]), unseen)}",
    )


def comparison_figure(study: Study, config: FigureConfig) -> "Figure":
    """Figure 4: cells of one treatment by two models, channel by channel, and the treatment that each finds nearest."""
    n_cells = config.shown_cells or 2
    return comparison(study, config.runs, config.treatment, config.cells, n_cells=n_cells, seed=config.picture_seed)


def assessment_figure(study: Study, config: FigureConfig) -> "Figure":
    """How often synthetic cells passed as real in the study's blinded tests, and real ones were called synthetic."""
    there = assessments(study)
    if not there:
        raise InputError(f"{study.folder}: no blinded assessment yet; run `phenolens assess {study.folder}` first")
    for name in config.assessments:
        if name not in there:
            raise InputError(f'no assessment "{name}"; {nearest_names(name, there)}')
    chosen = {name: there[name] for name in config.assessments or there}
    by_title = {f"{name} ({_shown(file)})": results(file) for name, file in chosen.items()}
    if not any(found.n_assessors for found in by_title.values()):
        raise InputError(
            f"{', '.join(chosen)}: nobody has answered yet; give assessors their codes: phenolens assess {study.folder}"
        )
    return assessment(by_title)


def _shown(file: AssessmentFile) -> str:
    """`VAE+`, or `VAE+, channels alone too`: no published share is of pictures that show one channel alone."""
    about = file.about()
    return f"{about['title']}{', channels alone too' if about['each_channel'] else ''}"


def strongest_treatments(cells: EmbeddedCells) -> list[str]:
    """Of each mechanism the treatment whose mean embedding lies farthest from the controls', the farthest first.

    By squared distance, less what the mean of so few cells is off by chance. Where no mechanism is known, of each
    compound.
    """
    catalogue = cells.catalogue
    controls = catalogue.rows(role="control")
    if not len(controls):
        raise InputError("no control cells that are counted; an interpolation starts from one")
    middle, variance = cells.z[controls].mean(axis=0), float(cells.z[controls].var(axis=0).sum())
    treated = catalogue.treatments.query("role == 'treated' and n_cells > 0")
    far = [np.square(cells.z[catalogue.rows_of(name)].mean(axis=0) - middle).sum() for name in treated.index]
    treated = treated.assign(far=np.array(far) - variance / treated["n_cells"])
    by = "moa" if (treated["moa"] != "").any() else "compound"
    treated = treated[treated[by] != ""].sort_values("far", ascending=False, kind="stable")
    return treated.drop_duplicates(by).index.tolist()


def _one_run(study: Study, asked: Sequence[str]) -> PicturedRun:
    if len(asked) > 1:
        raise InputError(f"--runs {' '.join(asked)}: an interpolation is decoded by one run; name one")
    return chosen_run(study, asked[0] if asked else None)


def _start(cells: EmbeddedCells, asked: Sequence[str], unseen: np.ndarray) -> int:
    """The row of the cell asked for; else of the control cell nearest to the controls' mean."""
    if asked:
        return int(cells.catalogue.find_cells(asked)[0])
    controls = cells.catalogue.rows(role="control")
    if not len(controls):
        raise InputError("no control cells that are counted; name a start with --cells")
    controls = _unseen_first(controls, unseen)
    return int(controls[target_cell(cells.z[controls])])


def _unseen_first(rows: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    """Those of these rows that training did not see; all where it saw them all."""
    return rows[unseen[rows]] if unseen[rows].any() else rows
