"""Real change: what a treatment does to the measures of real cells, against the controls of the same plates.

n cells, D measures, B resamples. Changes are in standard deviations of real control cells.
"""

from contextlib import suppress

import numpy as np
import pandas as pd

from phenolens.core.errors import InputError
from phenolens.crops.store import CropStore, normalised
from phenolens.morphology.features import short_name
from phenolens.morphology.medoids import MeasuredCells, sampled
from phenolens.runs.catalogue import Catalogue
from phenolens.runs.own_controls import OwnControls, own_controls
from phenolens.study import Study

RESAMPLES = 1000
LEVEL = 0.95
LEAST_CELLS = 5  # that have a measure; with fewer an interval would be too narrow
MOST_TREATED, MOST_CONTROLS = 60, 120  # cells measured for a treatment, of more a random sample
OF_SHARPNESS = "_sharpness"  # measures with this ending describe focus or a decoder, not the cell
OF_THE_OUTLINE = ("cell_eccentricity", "cell_solidity")
FILLS = 0.9  # share of the crop; the outline of a cell that fills more is the crop's own square


def measured_cells(study: Study, store: CropStore, catalogue: Catalogue) -> MeasuredCells:
    """Measures of a study's cells: the stored ones; without these, each cell's is computed when first asked for."""
    stored = None
    if study.measures_folder.is_dir():
        with suppress(InputError):  # of other crops
            stored = study.measures()
    originals = lambda rows: normalised(store.take(rows))  # noqa: E731
    return MeasuredCells(originals, store.channels, catalogue.rows(role="control"), stored=stored)


class RealChanges:
    """The change of each treatment's real cells, each treatment measured once.

    Args:
        catalogue: The cells of a study.
        measured: Their measures.
        crop_px: Crop side.
    """

    def __init__(self, catalogue: Catalogue, measured: MeasuredCells, *, crop_px: int) -> None:
        self._catalogue, self._measured, self._crop_px = catalogue, measured, crop_px
        self._known: dict[str, pd.DataFrame] = {}

    def of(self, treatment: str) -> pd.DataFrame:
        """A treatment's cells minus the control cells of their plates.

        Returns:
            A row per measure, the largest change with an interval without 0 first: `real`, `real_low`, `real_high`
            (95 %), and `clear`, whether the interval is without 0. Empty without control cells.
        """
        if treatment not in self._known:
            self._known[treatment] = self.between(self._catalogue.rows_of(treatment))
        return self._known[treatment]

    def between(self, rows: np.ndarray, others: np.ndarray | None = None) -> pd.DataFrame:
        """These rows' cells minus other cells; left out, minus the control cells of their plates."""
        cells, controls = self._catalogue.cells, self._catalogue.rows(role="control")
        compared = controls if others is None else others
        if not len(rows) or not len(compared) or not len(controls):
            return pd.DataFrame(columns=["real", "real_low", "real_high", "clear"])
        rows = sampled(rows, MOST_TREATED, seed=0)
        own = own_controls(cells, compared, rows)
        own = own_controls(cells, sampled(own.cells, MOST_CONTROLS, seed=0), rows)
        tables = (self._measured.of(rows), self._measured.of(own.rows), self._measured.controls)
        treated, beside, of_controls = (without_squares(table, crop_px=self._crop_px) for table in tables)
        table = real_change(
            treated, beside, own=own, control_sd=of_controls.std(), random=np.random.default_rng(0)
        ).assign(clear=lambda found: found["real_low"] * found["real_high"] > 0)
        table = table[~table.index.str.endswith(OF_SHARPNESS)]
        largest = table["real"].abs().where(table["clear"], -1 / (1 + table["real"].abs()))
        return table.loc[largest.sort_values(ascending=False, kind="stable").index]


def clear_changes(table: pd.DataFrame, n: int) -> list[tuple[str, float]]:
    """The `n` largest changes of `RealChanges.of` beyond their interval: each measure's short name and its change."""
    return [(short_name(str(name)), float(row["real"])) for name, row in table[table["clear"]].head(n).iterrows()]


def real_change(
    treated: pd.DataFrame,
    controls: pd.DataFrame,
    *,
    own: OwnControls,
    control_sd: pd.Series,
    random: np.random.Generator,
) -> pd.DataFrame:
    """`real`, `real_low` and `real_high`, a row per measure; the bootstrap draws cells, controls within their plates.

    Args:
        treated: Measures of the real treated cells, a row per cell.
        controls: Measures of the real control cells `own.rows`.
        own: How much each of these counts.
        control_sd: The unit of each measure.
        random: Draws the resamples.
    """
    unit = control_sd.where(control_sd > 0).to_numpy(float)
    cells, beside = (table.to_numpy(float) / unit for table in (treated, controls))
    means = mean_resamples(cells, random=random)
    means = means - _means(beside, _resampled(own.weights, own.groups, random))
    n_known = np.minimum(np.isfinite(cells).sum(axis=0), np.isfinite(beside).sum(axis=0))
    return with_interval("real", means, n_known, measures=treated.columns)


def mean_resamples(values: np.ndarray, *, random: np.random.Generator) -> np.ndarray:
    """Means (1 + B, D) of values (n, D): of all cells, then of cells drawn with replacement."""
    equal = np.full(len(values), 1 / len(values))
    return _means(values, _resampled(equal, np.zeros(len(values), int), random))


def with_interval(name: str, means: np.ndarray, n_known: np.ndarray, *, measures: pd.Index) -> pd.DataFrame:
    """`name`, `name_low` and `name_high` of `mean_resamples`; no interval where fewer than LEAST_CELLS are known."""
    ends = np.full((2, means.shape[1]), np.nan)
    enough = n_known >= LEAST_CELLS
    ends[:, enough] = np.nanquantile(means[1:, enough], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return pd.DataFrame({name: means[0], f"{name}_low": ends[0], f"{name}_high": ends[1]}, index=measures)


def without_squares(table: pd.DataFrame, *, crop_px: int) -> pd.DataFrame:
    """Measures without those of the outline of cells that fill their crop: these describe the crop's square."""
    fills = table["cell_area_px"] > FILLS * crop_px**2
    return table.assign(**{name: table[name].mask(fills) for name in OF_THE_OUTLINE if name in table})


def _resampled(weights: np.ndarray, groups: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Weights (1 + B, n): as they are, then of cells drawn with replacement within their groups."""
    drawn = np.empty((1 + RESAMPLES, len(weights)))
    for group in range(groups.max() + 1):
        members = groups == group
        n = int(members.sum())
        drawn[:, members] = random.multinomial(n, np.full(n, 1 / n), size=1 + RESAMPLES)
    drawn[0] = 1
    return drawn * weights


def _means(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted means (B, D) of values (n, D), without those that are missing; NaN where all are."""
    known = np.isfinite(values)
    totals = weights @ known
    means = weights @ np.where(known, values, 0)
    return np.divide(means, totals, out=np.full(means.shape, np.nan), where=totals > 0)
