"""Measured change: what the same move does to several control cells, beside what the treatment does to real cells.

n cells, D measures.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from phenolens.core.counted import counted
from phenolens.core.number_text import change_text
from phenolens.morphology.features import short_name
from phenolens.morphology.two_sample_test import (
    LEAST_COMPARED,
    NOT_TESTED,
    Scale,
    TwoSampleTest,
    standardised,
    two_sample_test,
)
from phenolens.runs.own_controls import OwnControls
from phenolens.runs.real_change import OF_SHARPNESS, mean_resamples, real_change, with_interval

MOST_DENIED = 3  # changes named that real cells do not show

# The columns of a MeasuredChange's `table`. Changes are in standard deviations of real control cells.
CHANGE_COLUMNS = {
    "decoded": "mean change of the moved control cells, from the first to the last frame of each",
    "decoded_low": "lower end of its 95 % interval; the bootstrap draws cells",
    "decoded_high": "upper end",
    "real": "mean of the real treated cells minus that of the control cells of their plates",
    "real_low": "lower end of its 95 % interval; the bootstrap draws cells, controls within their plates",
    "real_high": "upper end",
    "agrees": "whether both changes have the same sign; empty where one could not be measured",
}


@dataclass(frozen=True)
class PopulationTest:
    """Can moved control cells be distinguished from real treated cells by their measures?"""

    n_cells: int  # on each side; 0 where it was not tested
    moved: TwoSampleTest  # moved cells against real treated cells
    real: TwoSampleTest  # other real treated cells against the same ones: the value to compare with
    reason: str  # why it was not tested; empty where it was

    def sentence(self, origin: str) -> str:
        """How well both can be distinguished, or why it was not tested, without a full stop."""
        if not self.n_cells:
            return f"Moved and {origin} treated cells were not compared by a classifier ({self.reason})"
        moved, real = (
            f"{test.accuracy:.2f} ({test.accuracy_interval[0]:.2f} to {test.accuracy_interval[1]:.2f}), "
            f"AUC {test.auc:.2f}"
            for test in (self.moved, self.real)
        )
        return (
            f"A classifier separates {self.n_cells} moved cells from as many {origin} treated cells with accuracy "
            f"{moved}; other {origin} treated cells from the same ones with {real}"
        )

    def brief(self, origin: str) -> str:
        """The same in few words: accuracies alone."""
        if not self.n_cells:
            return f"Untested: whether moved and treated cells look alike ({self.reason})"
        moved, real = (
            f"{test.accuracy:.2f} ({test.accuracy_interval[0]:.2f} to {test.accuracy_interval[1]:.2f})"
            for test in (self.moved, self.real)
        )
        cells = f"moved from {origin} treated cells with accuracy {moved}"
        return f"A classifier separates {cells}, {origin} from {origin} with {real}"


@dataclass(frozen=True)
class MeasuredChange:
    """The change of moved control cells beside that of real cells."""

    table: pd.DataFrame  # a row per measure: CHANGE_COLUMNS
    n_moved: int  # control cells that were moved
    n_treated: int  # real treated cells that were measured
    n_controls: int  # real control cells that were measured, of the same plates
    test: PopulationTest

    def largest(self) -> pd.DataFrame:
        """The measures of the cell whose change in real cells has an interval without 0, the largest first."""
        table = self._of_the_cell()
        clear = table[table["real_low"] * table["real_high"] > 0]
        return clear.sort_values("real", key=abs, ascending=False, kind="stable")

    def denied(self) -> pd.DataFrame:
        """The measures that change in moved cells with another sign than in real cells, both intervals apart."""
        table = self._of_the_cell()
        apart = (table["decoded_low"] > table["real_high"]) | (table["decoded_high"] < table["real_low"])
        opposite = table[(table["decoded_low"] * table["decoded_high"] > 0) & ~table["agrees"].fillna(True) & apart]
        return opposite.sort_values("decoded", key=abs, ascending=False, kind="stable")

    def sentences(self, n: int = 5, *, origin: str = "real") -> list[str]:
        """What moved and real cells have in common and what not, in sentences without a full stop.

        Ranked by the cells that were not decoded (`origin`: real or simulated), so that nothing is claimed that they do
        not show.
        """
        cells = f"{self.n_treated} treated minus {counted(self.n_controls, 'control cell')} of their plates"
        largest = self.largest()[:n]
        agree = largest["agrees"].fillna(False).astype(bool)
        parts = [_listed(largest[agree], origin), f"not {_listed(largest[~agree], origin)}" if not agree.all() else ""]
        sentences = [
            f"{agree.sum()} of the {counted(len(agree), 'largest change')} of {origin} cells ({cells}) have the same "
            f"sign in {counted(self.n_moved, 'control cell')} moved alike: {'; '.join(filter(None, parts))}"
            if len(largest)
            else f"In {origin} cells ({cells}) no measure changes beyond its 95 % interval: no change is confirmed"
        ]
        if len(denied := self.denied()[:MOST_DENIED]):
            sentences.append(f"The moved cells change as {origin} cells do not in {_listed(denied, origin)}")
        return [*sentences, self.test.sentence(origin)]

    def brief(self, n: int = 5, *, origin: str = "real") -> list[str]:
        """The same in few words, for a caption: how many changes agree, what is contradicted, and the classifier."""
        largest, denied = self.largest()[:n], self.denied()[:MOST_DENIED]
        cells = f"{origin} cells ({self.n_treated} treated, {counted(self.n_controls, 'control')})"
        agreeing = int(largest["agrees"].fillna(False).astype(bool).sum())
        moved = counted(self.n_moved, "moved control cell")
        first = (
            f"Of the {counted(len(largest), 'largest change')} of {cells}, {agreeing} have the same sign in {moved}"
            if len(largest)
            else f"In {cells} no measure changes beyond its 95 % interval: no change is confirmed in {moved}"
        )
        names = [short_name(str(name)) for name in denied.index]
        against = f"; of all measures, contrary to {origin} cells: {', '.join(names)}" if names else ""
        return [first + against, self.test.brief(origin)]

    def _of_the_cell(self) -> pd.DataFrame:
        return self.table[~self.table.index.str.endswith(OF_SHARPNESS)]


def change_table(
    first: pd.DataFrame,
    last: pd.DataFrame,
    treated: pd.DataFrame,
    controls: pd.DataFrame,
    *,
    own: OwnControls,
    control_sd: pd.Series,
    seed: int,
) -> pd.DataFrame:
    """CHANGE_COLUMNS, a row per measure.

    Args:
        first: Measures of the moved cells before the move, a row per cell.
        last: Measures of the same cells after it.
        treated: Measures of the real treated cells.
        controls: Measures of the real control cells `own.rows`.
        own: How much each of these counts.
        control_sd: The unit of each measure.
        seed: Of the resamples.
    """
    random = np.random.default_rng(seed)
    moved = (last - first).to_numpy(float) / control_sd.where(control_sd > 0).to_numpy(float)
    means, n_known = mean_resamples(moved, random=random), np.isfinite(moved).sum(axis=0)
    decoded = with_interval("decoded", means, n_known, measures=first.columns)
    table = decoded.join(real_change(treated, controls, own=own, control_sd=control_sd, random=random))
    both = table["decoded"].notna() & table["real"].notna()
    agrees = np.sign(table["decoded"]) == np.sign(table["real"])
    return table.assign(agrees=agrees.astype("boolean").where(both))


def population_test(
    moved: pd.DataFrame, treated: pd.DataFrame, *, wells: tuple[np.ndarray, np.ndarray], seed: int
) -> PopulationTest:
    """Compare moved cells with as many real treated cells, and these with other real treated cells.

    Args:
        moved: Measures of the moved cells at the end, a row per cell.
        treated: Measures of the real treated cells.
        wells: `plate/well` of each moved and of each treated cell.
        seed: Of the halves of the treated cells and the test.
    """
    n = min(len(moved), len(treated) // 2)
    if 2 * n < LEAST_COMPARED:
        found = f"too few cells: {len(moved)} moved and {len(treated)} treated"
        least = f"{LEAST_COMPARED // 2} and {LEAST_COMPARED}"
        return PopulationTest(0, NOT_TESTED, NOT_TESTED, f"{found}; it needs {least}")
    random = np.random.default_rng(seed)
    half, other = np.split(random.permutation(len(treated))[: 2 * n], 2)
    chosen = random.permutation(len(moved))[:n]
    scale = Scale.of(treated)
    real, of_moved = standardised(treated, scale), standardised(moved, scale)

    def test(cells: np.ndarray, their_wells: np.ndarray) -> TwoSampleTest:
        of_real, of_cells = wells[1][half], their_wells
        plates = [np.char.rpartition(names, "/")[:, 0] for names in (of_real, of_cells)]
        return two_sample_test(
            real[half],
            cells,
            real_plates=plates[0],
            decoded_plates=plates[1],
            real_wells=of_real,
            decoded_wells=of_cells,
            seed=seed,
        )

    against_moved = test(of_moved[chosen], wells[0][chosen])
    if not against_moved.n_folds:
        return PopulationTest(0, NOT_TESTED, NOT_TESTED, "no two plates with enough cells to train on")
    return PopulationTest(n, against_moved, test(real[other], wells[1][other]), "")


def _listed(changes: pd.DataFrame, origin: str) -> str:
    """`nucleus area (real +1.2 s.d., moved +0.8)` for each row of a MeasuredChange's table."""
    rows = zip(changes.index, *([change_text(value) for value in changes[name]] for name in ("real", "decoded")))
    return ", ".join(f"{short_name(str(name))} ({origin} {real} s.d., moved {moved})" for name, real, moved in rows)
