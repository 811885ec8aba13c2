"""A trajectory, a control cell interpolated towards a treatment in latent space: its settings, and all that is shown.

F frames, Z features, C channels, S crop side in px. Crops of real cells are floats, each channel divided by its own
maximum; `pictures` are decoded. Lafarge et al. 2019, Figure 3.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from phenolens.core.number_text import number_text
from phenolens.runs.real_change import OF_SHARPNESS, without_squares
from phenolens.travels.measured_change import MeasuredChange

FEW_MOVED = 12  # control cells moved where a page waits for them, or a report has many travels
NOTABLE = 0.1  # share of a direction in the batch space that a caption names
MOST = 0.5  # a direction with more than this share in the batch space is called a batch difference; chosen a priori


@dataclass(frozen=True)
class BatchShare:
    """How much of a direction lies in the space of differences between batches."""

    share: float  # of its squared length after whitening by control cells, 0 to 1
    chance: float  # expected share of a difference between control cells of one batch, 0 to 1

    @property
    def is_notable(self) -> bool:
        """Whether a caption names it."""
        return self.share > max(NOTABLE, self.chance)

    @property
    def is_batch(self) -> bool:
        """Whether most of the direction is a difference between batches."""
        return self.share > MOST

    def sentence(self) -> str:
        """`12 % of this direction is a difference between batches (chance 3 %)`, and what that means above MOST."""
        share, chance = f"{100 * self.share:.0f} %", f"{100 * self.chance:.0f} %"
        return f"{share} of this direction is a difference between batches (chance {chance})" + (
            ": mostly a batch effect; do not read it as the treatment's" if self.is_batch else ""
        )


@dataclass(frozen=True)
class RealCell:
    """An imaged cell."""

    cell_id: str
    treatment: str  # `taxol@0.3`
    label: str  # `taxol 0.3 µM`
    crop: np.ndarray  # (C, S, S)


@dataclass(frozen=True)
class Population:
    """The cells of a treatment that a target represents: all of them, or those of one medoid."""

    number: int  # from 1, the largest first
    of: int  # populations
    share: float  # of the treatment's cells
    n_cells: int  # of the treatment
    cells: tuple[RealCell, ...] = ()  # a random sample; none where there is one population
    # what differs most from the treatment's other cells: measure, mean of its cells, mean of the others
    marks: tuple[tuple[str, float, float], ...] = ()


@dataclass(frozen=True)
class Measured:
    """Measures of frames and of real cells, a column each; see `morphology.features.describe`."""

    frames: pd.DataFrame  # (F rows) the decoded pictures
    nearest: pd.DataFrame  # (F rows) the real cell nearest to each frame
    ends: pd.DataFrame  # the real cells "start" and "target", in this order
    control_sd: pd.Series  # standard deviation over real control cells; index: the measures
    crop_px: int  # S

    @property
    def change(self) -> pd.DataFrame:
        """Each frame minus the first, in standard deviations of real control cells."""
        return (self.frames - self.frames.iloc[0]) / self.control_sd.where(self.control_sd > 0)

    @property
    def real_change(self) -> pd.Series:
        """The real target minus the real start, in standard deviations of real control cells."""
        return (self.ends.iloc[1] - self.ends.iloc[0]) / self.control_sd.where(self.control_sd > 0)

    def most_moved(self, n: int) -> list[str]:
        """The `n` measures of the cell that change most from the first frame to the last."""
        change = self.change.iloc[-1][self.of_the_cell].abs().dropna()
        return change.sort_values(ascending=False, kind="stable").index[:n].tolist()

    @property
    def of_the_cell(self) -> list[str]:
        """The measures that describe the cell in the first and the last frame: neither the decoder nor the crop."""
        described = without_squares(self.frames.iloc[[0, -1]], crop_px=self.crop_px).notna().all()
        return [name for name in described.index[described] if not name.endswith(OF_SHARPNESS)]


@dataclass(frozen=True)
class Trajectory:
    """One control cell interpolated towards a treatment, or towards one population of it."""

    run: str
    model: str  # its title: VAE+
    way: str  # swap, line or direction
    beyond: float  # how far along a direction, 1 being its whole length; 1 for swap and line
    channels: tuple[str, ...]
    start: RealCell
    target: RealCell
    population: Population
    stops: tuple[str, ...]  # labels of the treatments passed, the last one the destination
    n_controls: int  # control cells in the mean that a direction starts from
    frames: pd.DataFrame  # a row per frame, see FRAME_COLUMNS
    embeddings: np.ndarray  # (F, Z)
    pictures: np.ndarray  # (F, C, S, S)
    nearest: tuple[RealCell, ...]  # (F,) the real cell nearest to each frame, other than start and target
    measured: Measured | None  # None where it was not requested
    change: MeasuredChange | None  # None where it was not requested, or without control cells
    batch_share: BatchShare | None  # of the cells' mean minus that of all controls; None where there is one batch
    # how the first frame is the real cell: by inversion only what embeddings determine changes, as a residual the
    # decoded change is added to the real cell; none: it is decoded
    kept: Literal["none", "inversion", "residual"] = "none"
    origin: str = "real"  # what cells that were not decoded are called: real, or simulated

    def _repr_png_(self) -> bytes:
        """In a notebook: the strip of frames."""
        from phenolens.plotting.style import png
        from phenolens.travels.figure import travel_strip

        return png(travel_strip(self))

    def nearness(self, frame: int) -> str:
        """`similarity to the target 0.86 (first frame 0.74, other treated cells 0.81)`: of a frame's picture, from 0.

        Empty where pictures have no embedding: the embedding that is decoded ends at the target, whatever is drawn.
        """
        cosines, treated = self.frames["cosine_decoded"], self.frames["cosine_treated"].iloc[0]
        if cosines.isna().all():
            return ""
        known = [("first frame", cosines.iloc[0])] if frame else []
        known += [("other treated cells", treated)]
        beside = ", ".join(f"{name} {number_text(cosine, '.2f')}" for name, cosine in known if np.isfinite(cosine))
        return f"similarity to the target {number_text(cosines.iloc[frame], '.2f')}" + (
            f" ({beside})" if beside else ""
        )

    @property
    def n_flagged(self) -> int:
        """The number of frames that are out of distribution."""
        return int((self.frames["flag"] != "").sum())

    @property
    def times_the_limit(self) -> float:
        """The largest out-of-distribution score of any frame: 99 % of cells that were not decoded are below 1."""
        return float(np.nanmax(self.frames[["far", "moved"]].to_numpy(float)))

    def shown_measures(self, n: int) -> list[str]:
        """The `n` measures shown beside frames: those that change most in real cells; without these, in the frames."""
        if self.measured is None:
            return []
        if self.change is None:
            return self.measured.most_moved(n)
        return [name for name in self.change.largest().index if name in self.measured.of_the_cell][:n]

    @property
    def difference(self) -> np.ndarray:
        """The last picture minus the first, (C, S, S): above 0 where it became brighter."""
        return self.pictures[-1] - self.pictures[0]


# The columns of a trajectory's `frames`.
FRAME_COLUMNS = {
    "towards": "the treatment that this part leads to",
    "n_copied": "features copied from the target so far; 0 unless --way swap",
    "cosine": "cosine similarity to the target of the embedding that is decoded; 1 at the target, whatever is drawn",
    "distance": "Euclidean distance of the same two",
    "cosine_decoded": "cosine similarity to the target of the decoded picture's embedding; empty where it has none",
    "cosine_treated": "median cosine similarity to the target of the other cells that it stands for",
    "far": "mean distance to the nearest real cells; 99 % of real cells are below 1",
    "moved": "how far the embedding moves when decoded and embedded again; 99 % of real cells are below 1",
    "flag": "why the frame is out of distribution; empty where it is not",
    "nearest_cell": "id of the real cell nearest to the frame, other than start and target",
    "nearest_treatment": "its treatment",
    "nearest_distance": "its Euclidean distance",
}
