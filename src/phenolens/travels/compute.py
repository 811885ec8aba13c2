"""Travel: interpolate a control cell towards a treatment in latent space, decode it, measure it, compare it.

N cells of a study, F frames, Z features, C channels, S crop side in px.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from threading import Lock

import numpy as np
import pandas as pd

from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.crops.store import normalised
from phenolens.morphology.features import measures
from phenolens.morphology.medoids import MEASURED_CELLS, MeasuredCells, Populations, medoids, sampled
from phenolens.runs.catalogue import Catalogue
from phenolens.runs.decoder import DecodingRun, find_decoding_run
from phenolens.runs.embeddings import EmbeddedCells, embedded_cells
from phenolens.runs.latent_path import (
    LatentPath,
    along_direction,
    decode_frames,
    row_cosines,
    through,
)
from phenolens.runs.own_controls import OwnControls, own_controls
from phenolens.runs.real_change import MOST_CONTROLS, MOST_TREATED, measured_cells, without_squares
from phenolens.study import Study
from phenolens.travels.batch_effect import BatchSpace, batch_space
from phenolens.travels.config import TravelConfig
from phenolens.travels.measured_change import MeasuredChange, change_table, population_test
from phenolens.travels.out_of_distribution import SAMPLE, FrameScores, Limits, fit_limits, frame_scores, nearest_cells
from phenolens.travels.trajectory import FEW_MOVED, Measured, Population, RealCell, Trajectory

PRECISION = "float32"  # as the embeddings: figures must not depend on the processor
MOST_CELLS = 100_000  # real cells that frames are compared with, control cells; of more, a random sample
MOST_CONTROLS_OF_BATCHES = 20_000  # control cells that show how batches differ; of more, a random sample
SHOWN_CELLS = 8  # of a population, drawn at random
N_MARKS = 3  # measures that distinguish a population from the others
DRAWN_SAMPLE = 100  # real cells on which the limits are measured where drawing one takes a tenth of a second
COMPARED_CONTROLS = 200  # real control cells beside MEASURED_CELLS treated ones; of more, a random sample
EMPHASIS = 0.5  # a mean change, drawn with a cell's own noise, comes out too small: docs/results.md
CACHED = 32  # trajectories that are kept


@dataclass(frozen=True)
class Target:
    """Where a travel leads: a real cell that is shown, and the cells that it represents."""

    row: int  # of the real cell
    rows: np.ndarray  # of the cells it represents
    population: Population


class Traveller:
    """A run opened for travelling: its model and cells, and what is measured once.

    The first travel takes some seconds, later ones a fraction of one. Safe to use from several threads.
    """

    def __init__(self, run: DecodingRun, cells: EmbeddedCells, measured: MeasuredCells) -> None:
        self.run = run
        self.cells = cells
        self.catalogue = cells.catalogue
        self.channels = run.store.channels
        self.controls = self.catalogue.rows(role="control")
        self.measured = measured
        self._kept = lru_cache(CACHED)(self._trajectories)
        self._lock = Lock()

    @classmethod
    def open(
        cls,
        study: Study,
        run: str | None = None,
        *,
        catalogue: Catalogue | None = None,
        measured: MeasuredCells | None = None,
    ) -> "Traveller":
        """Open a run of a study, by default its best decoding run.

        Args:
            study: The study.
            run: The run.
            catalogue: That of the study's cells, where it is known.
            measured: Measures of the same cells, where some are known.

        Raises:
            InputError: no such run, it cannot decode, or a step is missing; the message names the command.
        """
        decoding = find_decoding_run(study, run, precision=PRECISION)
        cells = embedded_cells(study, decoding.name, catalogue=catalogue)
        return cls(decoding, cells, measured or measured_cells(study, decoding.store, cells.catalogue))

    def travel(self, config: TravelConfig, *, measured: bool = True) -> tuple[Trajectory, ...]:
        """Interpolate a control cell towards a treatment.

        Args:
            config: From where to where, and how.
            measured: Measure frames and real cells. Without it the travel is faster.

        Returns:
            One trajectory; with medoids one for each population, the largest first.

        Raises:
            InputError: no such treatment or cell (the message offers the nearest names), or fewer cells than medoids.
        """
        with self._lock:
            return self._kept(config, measured)

    def measured_changes(self, config: TravelConfig) -> tuple[tuple[MeasuredChange, Population], ...]:
        """The measured change of a travel, and the population that it leads to, without its frames.

        Args:
            config: From where to where, and how; `start` is of no effect.

        Returns:
            One change; with medoids one for each population, the largest first.

        Raises:
            InputError: as `travel`, or no control cells.
        """
        self._check(config)
        with self._lock:
            targets = self.targets(self.catalogue.find_treatment(config.to), config)
            return tuple((self._change(config, target), target.population) for target in targets)

    @cached_property
    def default_start(self) -> int:
        """The row of the control cell nearest to the controls' mean; of more than MOST_CELLS, of a random sample."""
        if not len(self.controls):
            raise InputError("no control cells to start from; name a cell (--start; on the page, From cell)")
        return self.cells.nearest_to_mean(sampled(self.controls, MOST_CELLS, seed=0))

    @cached_property
    def limits(self) -> Limits:
        """The out-of-distribution limits set by real cells."""
        z = self.cells.z[self._reference]

        def reembed(places: np.ndarray) -> np.ndarray:
            if not self.run.embeds:
                return np.full((len(places), z.shape[1]), np.nan)
            return self.run.embedded(self.run.reconstructed(self._reference[places], z[places]))

        return fit_limits(z, reembed, sample=DRAWN_SAMPLE if self.run.keeps_cells else SAMPLE)

    @cached_property
    def batches(self) -> BatchSpace | None:
        """The space in which control cells of different batches differ; None where they are of one batch."""
        controls = sampled(self.controls, MOST_CONTROLS_OF_BATCHES, seed=0)
        names = self.catalogue.cells["batch"].iloc[controls].astype(str).to_numpy()
        return batch_space(self.cells.z[controls], names) if len(set(names)) > 1 else None

    def real_cell(self, row: int) -> RealCell:
        """The real cell of a row, with its crop as the model sees it."""
        cell = self.catalogue.cells.iloc[row]
        (crop,), (label,) = self.run.originals(np.array([row])), self.catalogue.labels([row])
        return RealCell(str(cell["cell_id"]), str(cell["treatment"]), label, crop)

    def _trajectories(self, config: TravelConfig, measured: bool) -> tuple[Trajectory, ...]:
        self._check(config)
        start = self.default_start if config.start is None else int(self.catalogue.find_cells([config.start])[0])
        treatment = self.catalogue.find_treatment(config.to)
        stops = self.catalogue.doses_up_to(treatment) if config.up_the_doses else [treatment]
        targets = self.targets(treatment, config)
        return tuple(self._trajectory(config, start, target, stops, measured) for target in targets)

    def _check(self, config: TravelConfig) -> None:
        if config.residual and self.run.keeps_cells:
            raise InputError(f"--residual: {self.run.name} keeps the real cell by inversion; leave it out")

    def _trajectory(
        self, config: TravelConfig, start: int, target: Target, stops: list[str], measured: bool
    ) -> Trajectory:
        path, shown = self._path(config, start, [self._mean_of(name) for name in stops[:-1]] + [target])
        decode = partial(self._changed, config, np.array([start]), self.cells.z[[start]])
        pictures = decode_frames(path, decode)
        again = self.run.embedded(pictures) if self.run.embeds else np.full(path.embeddings.shape, np.nan)
        scores = frame_scores(self.limits, path.embeddings, again)
        nearest, away = self._nearest(scores, [start, shown])
        cells = [self.real_cell(row) for row in nearest]
        others = sampled(target.rows[target.rows != shown], MEASURED_CELLS, seed=0)
        frames = pd.DataFrame(
            {
                "towards": [stops[leg] for leg in path.leg],
                "n_copied": path.n_copied,
                "cosine": path.cosines,
                "distance": path.distances,
                "cosine_decoded": row_cosines(again, path.target),
                "cosine_treated": pd.Series(row_cosines(self.cells.z[others], path.target)).median(),
                "far": scores.far,
                "moved": scores.moved,
                "flag": scores.flags,
                "nearest_cell": [cell.cell_id for cell in cells],
                "nearest_treatment": [cell.treatment for cell in cells],
                "nearest_distance": away,
            }
        )
        return Trajectory(
            run=self.run.name,
            origin=self.run.store.origin,
            model=self.run.title,
            way=config.way,
            beyond=config.beyond,
            channels=self.channels,
            start=self.real_cell(start),
            target=self.real_cell(shown),
            population=target.population,
            stops=tuple(self.catalogue.label(name) for name in stops),
            n_controls=len(self._own_controls(target.rows).cells) if len(self.controls) else 0,
            frames=frames,
            embeddings=path.embeddings,
            pictures=pictures,
            nearest=tuple(cells),
            measured=self._measures(pictures, nearest, start, shown) if measured else None,
            change=self._change(config, target) if measured and len(self.controls) else None,
            batch_share=None
            if self.batches is None
            else self.batches.share(self.cells.mean(target.rows) - self._controls_mean),
            kept="inversion" if self.run.keeps_cells else "residual" if config.residual else "none",
        )

    def _changed(self, config: TravelConfig, rows: np.ndarray, z: np.ndarray, to: np.ndarray) -> np.ndarray:
        """Pictures of cells with embeddings z (n, Z) when these change to `to` (n, Z)."""
        emphasis = EMPHASIS if config.way == "direction" else 0.0
        return self.run.changed(rows, z, to, residual=config.residual, emphasis=emphasis)

    def _change(self, config: TravelConfig, target: Target) -> MeasuredChange:
        """Move control cells as the travel does, and compare their change with that of real cells."""
        rows = self._moved_cells(config, target)
        z = self.cells.z[rows]
        pictures = self._changed(config, rows, z, self._ends(config, z, target))
        from_real = self.run.keeps_cells or config.residual
        first = self.measured.of(rows) if from_real else self._measures_of(self.run.decoded(z))
        few = config.moved_cells <= FEW_MOVED  # somebody waits: the cells that the treatment's page measures
        most_treated, most_controls = (MOST_TREATED, MOST_CONTROLS) if few else (MEASURED_CELLS, COMPARED_CONTROLS)
        treated = sampled(target.rows, most_treated, seed=config.seed)
        controls = sampled(self._own_controls(treated).cells, most_controls, seed=config.seed)
        own = own_controls(self.catalogue.cells, controls, treated)
        cells = (first, self._measures_of(pictures), self.measured.of(treated), self.measured.of(own.rows))
        side = pictures.shape[-1]
        first, last, of_treated, of_controls = (without_squares(table, crop_px=side) for table in cells)
        sds = without_squares(self.measured.controls, crop_px=side).std()
        table = change_table(first, last, of_treated, of_controls, own=own, control_sd=sds, seed=config.seed)
        wells = (self._wells(rows), self._wells(treated))
        test = population_test(last, of_treated, wells=wells, seed=config.seed)
        return MeasuredChange(table, len(rows), len(treated), len(controls), test)

    def _moved_cells(self, config: TravelConfig, target: Target) -> np.ndarray:
        """Random control cells of the treatment's plates, as many of each plate as possible."""
        cells = self._own_controls(target.rows).cells
        drawn = np.random.default_rng([config.seed, 1]).permutation(cells)
        turn = self.catalogue.cells.iloc[drawn].groupby("plate", observed=True).cumcount().to_numpy()
        return drawn[np.argsort(turn, kind="stable")][: config.moved_cells]

    def _ends(self, config: TravelConfig, starts: np.ndarray, target: Target) -> np.ndarray:
        """The embeddings (n, Z) where control cells with embeddings (n, Z) end."""
        if config.way == "direction":
            return starts + config.beyond * self._direction(target.rows)
        return np.repeat(self.cells.z[[target.row]], len(starts), axis=0)

    def _wells(self, rows: np.ndarray) -> np.ndarray:
        """`plate/well` of cells."""
        cells = self.catalogue.cells.iloc[rows]
        return (cells["plate"].astype(str) + "/" + cells["well"].astype(str)).to_numpy(str)

    def _measures_of(self, pictures: np.ndarray) -> pd.DataFrame:
        return measures(normalised(np.maximum(pictures, 0)), channels=self.channels)

    def _path(self, config: TravelConfig, start: int, targets: list[Target]) -> tuple[LatentPath, int]:
        """The embeddings from the start through the targets, and the row of the real cell shown at the end."""
        z, last = self.cells.z, targets[-1]
        z0 = z[start].astype(float)
        if config.way != "direction":
            ends = [z[target.row].astype(float) for target in targets]
            return through(z0, ends, config.frames, way=config.way), last.row
        directions = [self._direction(target.rows) for target in targets]
        shown = int(last.rows[nearest_cells((z0 + directions[-1])[None], z[last.rows], 1)[0][0, 0]])
        if len(directions) == 1:
            return along_direction(z0, directions[0], config.frames, beyond=config.beyond), shown
        return through(z0, [z0 + direction for direction in directions], config.frames, way="line"), shown

    def _direction(self, rows: np.ndarray) -> np.ndarray:
        """The mean of these cells minus that of their own controls."""
        if not len(self.controls):
            raise InputError("no control cells: a direction starts from their mean; choose the way swap or line")
        own = self._own_controls(rows)
        return self.cells.mean(rows) - self.cells.mean(own.rows, own.weights)

    @cached_property
    def _controls_mean(self) -> np.ndarray:
        return self.cells.mean(sampled(self.controls, MOST_CELLS, seed=0))

    def _own_controls(self, rows: np.ndarray) -> OwnControls:
        return own_controls(self.catalogue.cells, self.controls, rows)

    def _mean_of(self, treatment: str) -> Target:
        rows = self.catalogue.rows_of(treatment)
        return Target(self.cells.nearest_to_mean(rows), rows, Population(1, 1, 1.0, len(rows)))

    def targets(self, treatment: str, config: TravelConfig) -> list[Target]:
        """The targets of a treatment: the cell nearest to the mean, or one of each population."""
        if config.targets == "mean":
            return [self._mean_of(treatment)]
        rows = self.catalogue.rows_of(treatment)
        if len(rows) < config.medoids:
            raise InputError(
                f"{treatment}: has {counted(len(rows), 'cell')}, fewer than --medoids "
                f"{config.medoids}; use fewer, or --targets mean"
            )
        if config.medoids_by == "embedding":
            z = self.cells.z[rows]
            found = Populations(rows, z, medoids(z, config.medoids, seed=config.seed))
        else:
            found = self.measured.populations(rows, config.medoids, by=config.medoids_by, seed=config.seed)
        targets = []
        for number in range(config.medoids):
            members = found.rows_of(number)
            shown = np.random.default_rng(config.seed).permutation(members)[:SHOWN_CELLS]
            population = Population(
                number=number + 1,
                of=config.medoids,
                share=float(found.medoids.shares[number]),
                n_cells=len(rows),
                cells=tuple(self.real_cell(row) for row in shown),
                marks=self._marks(found.rows, found.medoids.population == number),
            )
            targets.append(Target(found.medoid(number), members, population))
        return targets

    def _marks(self, rows: np.ndarray, members: np.ndarray) -> tuple[tuple[str, float, float], ...]:
        """What differs most between members and the other cells, in standard deviations of controls."""
        drawn = sampled(np.arange(len(rows)), MEASURED_CELLS, seed=0)
        table, sds = self.measured.of(rows[drawn]), self.measured.controls.std()
        inside, outside = table[members[drawn]].mean(), table[~members[drawn]].mean()
        apart = ((inside - outside) / sds.where(sds > 0)).abs().dropna().sort_values(ascending=False, kind="stable")
        return tuple((name, float(inside[name]), float(outside[name])) for name in apart.index[:N_MARKS])

    @cached_property
    def _reference(self) -> np.ndarray:
        """Rows of the cells, or of a random sample of them, that frames are compared with."""
        return sampled(np.flatnonzero(self.catalogue.counted), MOST_CELLS, seed=0)

    def _nearest(self, scores: FrameScores, left_out: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """The row of the real cell nearest to each frame, other than `left_out`, and its distance."""
        rows = self._reference[scores.nearest]
        first = (~np.isin(rows, left_out)).argmax(axis=1)
        frames = np.arange(len(rows))
        return rows[frames, first], scores.distances[frames, first]

    def _measures(self, pictures: np.ndarray, nearest: np.ndarray, start: int, target: int) -> Measured:
        frames = self._measures_of(pictures)
        ends = self.measured.of(np.array([start, target])).set_axis(["start", "target"])
        return Measured(frames, self.measured.of(nearest), ends, self.measured.controls.std(), pictures.shape[-1])
