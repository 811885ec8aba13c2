"""Phenotype travel in a study: from a real cell to a treatment, decoded, measured, and held against real cells.

N cells of a study, F frames, Z features, C channels, S crop side in px.
"""

from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from threading import Lock

import numpy as np
import pandas as pd

from phenolens.core.errors import InputError
from phenolens.crops.store import normalised
from phenolens.morphology.features import measures
from phenolens.morphology.medoids import MEASURED_CELLS, MeasuredCells, Populations, medoids
from phenolens.runs.decoder import PicturedRun, chosen_run
from phenolens.runs.embeddings import EmbeddedCells, embedded_cells
from phenolens.runs.latent_path import (
    Travel,
    along_direction,
    decode_frames,
    feature_swap,
    straight_line,
    target_cell,
    through,
)
from phenolens.study import Study
from phenolens.travel.batch_effect import BatchShare, BatchSpace, batch_space
from phenolens.travel.config import TravelConfig
from phenolens.travel.journey import Journey, Measured, Population, RealCell
from phenolens.travel.out_of_distribution import SAMPLE, Held, Limits, held_against, limits_of, nearest_cells

PRECISION = "float32"  # as the embeddings: what is shown should not depend on the processor
MOST_CELLS = 100_000  # real cells that frames are held against; of more, so many drawn at random
SHOWN_CELLS = 8  # of a population, drawn at random
N_MARKS = 3  # measures that tell a population from the others
KEPT = 32  # answers that are kept for when they are asked for again


@dataclass(frozen=True)
class Target:
    """Where a travel leads: a real cell that is shown, the cells it stands for, and which part of the treatment."""

    row: int  # of the real cell that is shown
    rows: np.ndarray  # of the cells it stands for
    population: Population


class Traveller:
    """A run opened for travelling: its model, its cells, and what real cells show, measured once.

    The first travel takes some seconds, later ones a fraction of one. It may be asked from several threads.
    """

    def __init__(self, pictured: PicturedRun, cells: EmbeddedCells, *, seed: int = 0) -> None:
        self.pictured = pictured
        self.cells = cells
        self.catalogue = cells.catalogue
        self.channels = pictured.store.channels
        self._seed = seed
        self.controls = cells.catalogue.rows(role="control")
        self.measured = MeasuredCells(pictured.originals, self.channels, self.controls, seed=seed)
        self._answers: OrderedDict[tuple[TravelConfig, bool], tuple[Journey, ...]] = OrderedDict()
        self._lock = Lock()

    @classmethod
    def open(cls, study: Study, run: str | None = None) -> "Traveller":
        """The run of this name, or the one to be pictured; InputError, naming the command, where a step is missing."""
        pictured = chosen_run(study, run, precision=PRECISION)
        return cls(pictured, embedded_cells(study, pictured.name))

    def travel(self, asked: TravelConfig, *, measured: bool = True) -> tuple[Journey, ...]:
        """The journey asked for; with medoids one to each population, the largest first.

        Without `measured` it is quicker, and measured only if it was before. InputError for a treatment or cell that is
        not there, with the nearest names, and for a treatment that has fewer cells than medoids are asked for.
        """
        with self._lock:
            key = (asked, measured or (asked, True) in self._answers)
            if key not in self._answers:
                self._answers[key] = self._travelled(asked, measured)
                while len(self._answers) > KEPT:
                    self._answers.popitem(last=False)
            self._answers.move_to_end(key)
            return self._answers[key]

    @cached_property
    def default_start(self) -> int:
        """The row of the control cell nearest to the controls' mean."""
        if not len(self.controls):
            raise InputError(
                "no control cells: travels start from one; name another cell (--start; on the page, From cell)"
            )
        return int(self.controls[target_cell(self.cells.z[self.controls])])

    @cached_property
    def limits(self) -> Limits:
        """What real cells show, for frames to be held against."""
        return limits_of(self.cells.z[self._reference], self._embedded_anew, sample=SAMPLE, seed=self._seed)

    @property
    def control_measures(self) -> pd.DataFrame:
        """Measures of real control cells, a row a cell."""
        return self.measured.controls

    @cached_property
    def batches(self) -> BatchSpace | None:
        """What batches differ by, from their control cells; None where these are of one batch."""
        names = self.catalogue.cells["batch"].iloc[self.controls].astype(str).to_numpy()
        return batch_space(self.cells.z[self.controls], names) if len(set(names)) > 1 else None

    def measured_cells(self, rows: np.ndarray) -> pd.DataFrame:
        """Measures of these real cells, a row a cell; each is measured once."""
        return self.measured.of(rows)

    def targets(self, treatment: str, asked: TravelConfig) -> list[Target]:
        """Where a travel to this treatment leads: the cell nearest to the mean, or one of each population."""
        return self._populations(treatment, asked) if asked.targets == "medoids" else [self._mean_of(treatment)]

    @cached_property
    def _reference(self) -> np.ndarray:
        """Rows of the counted cells, or of so many of them, that frames are held against."""
        fine = np.flatnonzero(self.catalogue.counted)
        if len(fine) <= MOST_CELLS:
            return fine
        return np.sort(np.random.default_rng(self._seed).choice(fine, MOST_CELLS, replace=False))

    def _embedded_anew(self, z: np.ndarray) -> np.ndarray:
        return self.pictured.embedded(self.pictured.decoded(z))

    def _travelled(self, asked: TravelConfig, measured: bool) -> tuple[Journey, ...]:
        treatment = self.catalogue.find_treatment(asked.to)
        start = self.default_start if asked.start is None else int(self.catalogue.find_cells([asked.start])[0])
        stops = self.catalogue.doses_up_to(treatment) if asked.up_the_doses else [treatment]
        return tuple(self._journey(asked, start, target, stops, measured) for target in self.targets(treatment, asked))

    def _journey(self, asked: TravelConfig, start: int, target: Target, stops: list[str], measured: bool) -> Journey:
        passed = [self._mean_of(name) for name in stops[:-1]] + [target]
        travel, shown = self._way(asked, start, passed)
        pictures = decode_frames(travel, self.pictured.decoded)
        held = held_against(self.limits, travel.embeddings, self.pictured.embedded(pictures))
        nearest, away = self._nearest(held, [start, shown])
        cells = [self.real_cell(row) for row in nearest]
        frames = pd.DataFrame(
            {
                "towards": [stops[leg] for leg in travel.leg],
                "n_copied": travel.n_copied,
                "cosine": travel.cosines,
                "distance": travel.distances,
                "far": held.far,
                "moved": held.moved,
                "flag": held.flags,
                "nearest_cell": [cell.cell_id for cell in cells],
                "nearest_treatment": [cell.treatment for cell in cells],
                "nearest_distance": away,
            }
        )
        return Journey(
            run=self.pictured.name,
            model=self.pictured.title,
            way=asked.way,
            beyond=asked.beyond,
            channels=self.channels,
            start=self.real_cell(start),
            target=self.real_cell(shown),
            population=target.population,
            stops=tuple(self.catalogue.label(name) for name in stops),
            n_controls=len(self._controls_beside(target.rows)),
            frames=frames,
            embeddings=travel.embeddings,
            pictures=pictures,
            nearest=tuple(cells),
            measured=self._measures(pictures, nearest, start, shown) if measured else None,
            batch_share=self._batch_share(target.rows),
        )

    def _way(self, asked: TravelConfig, start: int, passed: list[Target]) -> tuple[Travel, int]:
        """The embeddings on the way, and the row of the real cell that is shown at its end."""
        z = self.cells.z
        z0 = z[start].astype(float)
        if asked.way != "direction":
            ends = [z[target.row].astype(float) for target in passed]
            if len(ends) > 1:
                return through(z0, ends, asked.frames, way=asked.way), passed[-1].row
            walk = feature_swap if asked.way == "swap" else straight_line
            return walk(z0, ends[0], asked.frames), passed[-1].row
        directions = [self._direction(target.rows) for target in passed]
        last = passed[-1].rows
        shown = int(last[nearest_cells((z0 + directions[-1])[None], z[last], 1)[0][0, 0]])
        if len(passed) > 1:
            return through(z0, [z0 + direction for direction in directions], asked.frames, way="line"), shown
        return along_direction(z0, directions[0], asked.frames, beyond=asked.beyond), shown

    @cached_property
    def _controls_mean(self) -> np.ndarray:
        return self.cells.z[self.controls].mean(axis=0, dtype=float)

    def _direction(self, rows: np.ndarray) -> np.ndarray:
        """The mean of these cells minus that of the controls of their plates; InputError where there are none."""
        if not len(self.controls):
            raise InputError("no control cells: a direction leads away from their mean; take another way")
        controls = self._controls_beside(rows)
        return self.cells.z[rows].mean(axis=0, dtype=float) - self.cells.z[controls].mean(axis=0, dtype=float)

    def _batch_share(self, rows: np.ndarray) -> BatchShare | None:
        """How much of the way from all controls to these cells is what batches differ by."""
        if self.batches is None:
            return None
        return self.batches.share(self.cells.z[rows].mean(axis=0, dtype=float) - self._controls_mean)

    def _controls_beside(self, rows: np.ndarray) -> np.ndarray:
        """Control cells of the plates that these cells lie on, so that plates cancel out; all where there are none."""
        plates = self.catalogue.cells["plate"].cat.codes.to_numpy()
        beside = self.controls[np.isin(plates[self.controls], plates[rows])]
        return beside if len(beside) else self.controls

    def _mean_of(self, treatment: str) -> Target:
        rows = self.catalogue.rows_of(treatment)
        return Target(int(rows[target_cell(self.cells.z[rows])]), rows, Population(1, 1, 1.0, len(rows)))

    def _populations(self, treatment: str, asked: TravelConfig) -> list[Target]:
        rows = self.catalogue.rows_of(treatment)
        n_cells = len(rows)
        if n_cells < asked.medoids:
            raise InputError(
                f"{treatment}: has {n_cells} cell{'s' if n_cells > 1 else ''}, fewer than --medoids {asked.medoids}; "
                "ask for fewer, or for --targets mean"
            )
        if asked.medoids_by == "embedding":
            z = self.cells.z[rows]
            parted = Populations(rows, z, medoids(z, asked.medoids, seed=asked.seed))
        else:
            parted = self.measured.populations(rows, asked.medoids, by=asked.medoids_by, seed=asked.seed)
        targets = []
        for number in range(asked.medoids):
            ours = parted.rows_of(number)
            shown = np.random.default_rng(asked.seed).permutation(ours)[:SHOWN_CELLS]
            population = Population(
                number=number + 1,
                of=asked.medoids,
                share=float(parted.medoids.shares[number]),
                n_cells=n_cells,
                cells=tuple(self.real_cell(cell) for cell in shown),
                marks=self._marks(parted.rows, parted.medoids.population == number),
            )
            targets.append(Target(parted.medoid(number), ours, population))
        return targets

    def _marks(self, rows: np.ndarray, ours: np.ndarray) -> tuple[tuple[str, float, float], ...]:
        """What these of the cells differ most in from the others, in standard deviations of controls."""
        if len(rows) > MEASURED_CELLS:
            drawn = np.sort(np.random.default_rng(self._seed).choice(len(rows), MEASURED_CELLS, replace=False))
            rows, ours = rows[drawn], ours[drawn]
        table, sds = self.measured_cells(rows), self.control_measures.std()
        inside, outside = table[ours].mean(), table[~ours].mean()
        apart = ((inside - outside) / sds.where(sds > 0)).abs().dropna().sort_values(ascending=False, kind="stable")
        return tuple((name, float(inside[name]), float(outside[name])) for name in apart.index[:N_MARKS])

    def _nearest(self, held: Held, left_out: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """The row of the real cell nearest to each frame, and its distance; these rows are left out."""
        rows = self._reference[held.nearest]
        first = (~np.isin(rows, left_out)).argmax(axis=1)
        frames = np.arange(len(rows))
        return rows[frames, first], held.distances[frames, first]

    def _measures(self, pictures: np.ndarray, nearest: np.ndarray, start: int, target: int) -> Measured:
        drawn = measures(normalised(np.maximum(pictures, 0)), channels=self.channels)
        ends = self.measured_cells(np.array([start, target])).set_axis(["start", "target"])
        sds = self.control_measures.std()
        return Measured(drawn, self.measured_cells(nearest), ends, sds, pictures.shape[-1])

    def real_cell(self, row: int) -> RealCell:
        """The real cell of a row, with its crop as the model sees it."""
        cell = self.catalogue.cells.iloc[row]
        (crop,), (label,) = self.pictured.originals(np.array([row])), self.catalogue.labels([row])
        return RealCell(str(cell["cell_id"]), str(cell["treatment"]), label, crop)
