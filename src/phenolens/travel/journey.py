"""A journey: everything that is shown of one cell on its way to a treatment, as values.

F frames, Z features, C channels, S crop side in px. Crops of real cells are floats, each channel divided by its own
maximum; pictures are what a model decoded. METHOD 8 and Lafarge et al. 2019, Figure 3.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from phenolens.travel.batch_effect import BatchShare

NOTICED = 2.0  # standard deviations of control cells between the real start and the real target
DRAWN = 1 / 3  # of that change, which the frames must show for it to count as drawn
OF_THE_DRAWING = "_sharpness"  # measures whose names end so tell of the model's drawing
OF_THE_OUTLINE = ("cell_eccentricity", "cell_solidity")
FILLS = 0.9  # share of the crop; the outline of a cell that fills more of it is the crop's own square


@dataclass(frozen=True)
class RealCell:
    """A cell that was imaged."""

    cell_id: str
    treatment: str  # `taxol@0.3`
    label: str  # `taxol 0.3 µM`
    crop: np.ndarray  # (C, S, S)


@dataclass(frozen=True)
class Population:
    """The part of a treatment's cells that a target stands for: all of them, or those of one medoid."""

    number: int  # from 1, the largest first
    of: int  # populations
    share: float  # of the treatment's cells
    n_cells: int  # of the treatment
    cells: tuple[RealCell, ...] = ()  # some of it, drawn at random; none where there is one population
    # what its cells differ most in from the treatment's others: measure, mean of its cells, mean of the others
    marks: tuple[tuple[str, float, float], ...] = ()


@dataclass(frozen=True)
class Measured:
    """What was measured of the frames and of real cells; a column a measure, see `phenotype.measures.describe`."""

    frames: pd.DataFrame  # (F rows) the decoded pictures
    nearest: pd.DataFrame  # (F rows) the real cell nearest to each frame
    ends: pd.DataFrame  # the real cells "start" and "target", in this order
    control_sd: pd.Series  # standard deviation over real control cells; index: the measures
    crop_px: int  # S

    @property
    def change(self) -> pd.DataFrame:
        """Each frame less the first, decoded from decoded, in standard deviations of real control cells."""
        return (self.frames - self.frames.iloc[0]) / self.control_sd.where(self.control_sd > 0)

    def most_moved(self, n: int) -> list[str]:
        """The `n` measures whose change from the first frame to the last is largest.

        Never those that were not measured at both ends, nor those that do not tell of the cell.
        """
        change = self._of_the_cell(self.change.iloc[-1], self.frames.iloc[[0, -1]]).abs()
        return change.sort_values(ascending=False, kind="stable").index[:n].tolist()

    @property
    def real_change(self) -> pd.Series:
        """The real target less the real start, in standard deviations of real control cells."""
        return (self.ends.iloc[1] - self.ends.iloc[0]) / self.control_sd.where(self.control_sd > 0)

    def not_drawn(self, n: int) -> list[str]:
        """At most `n` measures in which the real cells differ and the frames hardly do: what the model leaves out.

        Those by which the real target is NOTICED or more from the real start, and of which the frames show less than
        DRAWN, the largest first; only those that tell of the cell.
        """
        real = self._of_the_cell(self.real_change, self.ends)
        real = real[real.abs() >= NOTICED]
        shown = self.change.iloc[-1].reindex(real.index) / real
        left_out = real[~(shown >= DRAWN)]
        return left_out.abs().sort_values(ascending=False, kind="stable").index[:n].tolist()

    def _of_the_cell(self, change: pd.Series, ends: pd.DataFrame) -> pd.Series:
        """The measured changes between two pictures that tell of the cell.

        Not sharpness: of a decoded picture it says how finely the model draws. Not the shape of a cell that fills the
        crop at either end: from a square to a cell, a cell seems to become longer and to get corners.
        """
        fills = (ends["cell_area_px"] > FILLS * self.crop_px**2).any()
        told = ~change.index.str.endswith(OF_THE_DRAWING) & ~(fills & change.index.isin(OF_THE_OUTLINE))
        return change[told].dropna()


@dataclass(frozen=True)
class Journey:
    """One cell on its way to a treatment, or to one population of it."""

    run: str
    model: str  # as the paper writes it: VAE+
    way: str  # swap, line or direction
    beyond: float  # how far along a direction, 1 being its whole length; 1 on other ways
    channels: tuple[str, ...]
    start: RealCell
    target: RealCell
    population: Population
    stops: tuple[str, ...]  # labels of the treatments passed, the last one the destination
    n_controls: int  # control cells in the mean that a direction starts from
    frames: pd.DataFrame  # a row a frame, see FRAME_COLUMNS
    embeddings: np.ndarray  # (F, Z)
    pictures: np.ndarray  # (F, C, S, S)
    nearest: tuple[RealCell, ...]  # (F,) the real cell nearest to each frame, start and target left out
    measured: Measured | None  # None where it was not asked for
    batch_share: BatchShare | None  # of the cells' mean less that of all controls; None where there is one batch

    @property
    def difference(self) -> np.ndarray:
        """The last picture less the first, (C, S, S): above 0 where it became brighter."""
        return self.pictures[-1] - self.pictures[0]


# The columns of a journey's `frames`.
FRAME_COLUMNS = {
    "towards": "the treatment that this part of the way leads to",
    "n_copied": "features copied from the target so far; 0 on other ways than swap",
    "cosine": "cosine similarity of the frame's embedding to the target's",
    "distance": "Euclidean distance of the frame's embedding to the target's",
    "far": "mean distance to the nearest real cells; 1 is what 99 % of real cells stay below",
    "moved": "how far the embedding moves when decoded and embedded anew; 1 is what 99 % of real cells stay below",
    "flag": "in words what is beyond its limit; empty where nothing is",
    "nearest_cell": "id of the real cell nearest to the frame, start and target left out",
    "nearest_treatment": "its treatment",
    "nearest_distance": "its Euclidean distance",
}
