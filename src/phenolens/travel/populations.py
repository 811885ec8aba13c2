"""A treatment's populations: its cells parted by what was measured of them; no model is needed for that.

N cells of a study, n of them of one treatment, C channels, S crop side in px.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from phenolens.core.errors import InputError
from phenolens.morphology.features import OF_NUCLEUS, measures
from phenolens.morphology.medoids import Medoids, medoids
from phenolens.travel.config import MedoidsBy

MEASURED_CONTROLS = 100  # control cells over which a measure's standard deviation is taken
MEASURED_CELLS = 400  # cells of a treatment that are measured to find its populations; of more, so many at random
MOST_SDS = 10.0  # a measure further from the controls than this counts as so far: one odd cell is no population
# measures of the nucleus itself; how much of the cell it takes and how many neighbours it has are none
SHAPE_OF_NUCLEUS = [name for name in OF_NUCLEUS if name not in ("nucleus_share", "n_neighbours")]


class MeasuredCells:
    """Real cells of a study by their measures, each measured once.

    `originals` gives crops (n, C, S, S) of rows, each channel over its maximum; `controls` are rows of control cells.
    """

    def __init__(
        self,
        originals: Callable[[np.ndarray], np.ndarray],
        channels: Sequence[str],
        controls: np.ndarray,
        *,
        seed: int = 0,
    ) -> None:
        self.channels = channels
        self.known: dict[int, pd.Series] = {}
        self._originals, self._controls, self._seed = originals, controls, seed

    def of(self, rows: np.ndarray) -> pd.DataFrame:
        """Measures of these cells, a row a cell."""
        missing = np.array(sorted({int(row) for row in rows} - self.known.keys()), int)
        if len(missing):
            table = measures(self._originals(missing), channels=self.channels)
            self.known |= {row: table.iloc[i] for i, row in enumerate(missing.tolist())}
        return pd.DataFrame([self.known[int(row)] for row in rows]).reset_index(drop=True)

    @cached_property
    def controls(self) -> pd.DataFrame:
        """Measures of control cells, a row a cell."""
        n = min(MEASURED_CONTROLS, len(self._controls))
        return self.of(np.sort(np.random.default_rng(self._seed).choice(self._controls, n, replace=False)))

    def in_deviations(self, rows: np.ndarray, by: MedoidsBy) -> np.ndarray:
        """Measures (n, K) of these cells in standard deviations of controls; what was not measured is as in controls.

        InputError where the measures asked for are of the nucleus and no channel shows nuclei, or without controls.
        """
        if not len(self._controls):
            raise InputError(
                "no control cells, in whose standard deviations measures are counted; ask for --medoids-by embedding"
            )
        names = self._alike_in(by)
        controls = self.controls[names]
        sds = (self.of(rows)[names] - controls.mean()) / controls.std().where(controls.std() > 0)
        return sds.clip(-MOST_SDS, MOST_SDS).fillna(0).to_numpy()

    def _alike_in(self, by: MedoidsBy) -> list[str]:
        names = self.controls.columns
        if by == "measures":
            return names.tolist()
        of_nucleus = [name for name in SHAPE_OF_NUCLEUS if name in names]
        if not of_nucleus:
            raise InputError(
                f"--medoids-by nucleus: none of the channels {', '.join(self.channels)} shows nuclei by its name; "
                "ask for --medoids-by measures, or embedding"
            )
        return of_nucleus


@dataclass(frozen=True)
class Populations:
    """Cells of a treatment parted into populations, the largest first."""

    rows: np.ndarray  # (n,) of the cells that were parted
    features: np.ndarray  # (n, K) what cells of one population are alike in
    found: Medoids  # among `rows`

    def rows_of(self, number: int) -> np.ndarray:
        """Rows of the cells of a population, numbered from 0; the medoid is not always the first."""
        return self.rows[self.found.population == number]

    def medoid(self, number: int) -> int:
        """The row of the cell that stands for a population."""
        return int(self.rows[self.found.rows[number]])

    def typical(self, number: int, n: int) -> np.ndarray:
        """Rows of the `n` cells of a population that are most like its medoid, the medoid first."""
        ours = np.flatnonzero(self.found.population == number)
        away = np.linalg.norm(self.features[ours] - self.features[self.found.rows[number]], axis=1)
        away[ours == self.found.rows[number]] = -1  # before cells that are measured alike
        return self.rows[ours[np.argsort(away, kind="stable")[:n]]]


def populations_by_measures(
    measured: MeasuredCells, rows: np.ndarray, k: int, *, by: MedoidsBy = "nucleus", seed: int = 0
) -> Populations:
    """The k populations of these cells; of more than MEASURED_CELLS so many are drawn and measured.

    InputError as `in_deviations` and `medoids` raise it.
    """
    if len(rows) > MEASURED_CELLS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MEASURED_CELLS, replace=False))
    features = measured.in_deviations(rows, by)
    return Populations(rows, features, medoids(features, k, seed=seed))
