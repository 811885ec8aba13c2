"""Own controls: the control cells that treated cells are compared with, so that batch effects cancel."""

from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class OwnControls:
    """Control cells beside treated cells, in groups that weigh as much as the treated cells beside them."""

    rows: np.ndarray  # (n,) a cell can be in two groups
    weights: np.ndarray  # (n,) they add up to 1
    groups: np.ndarray  # (n,) from 0

    @property
    def cells(self) -> np.ndarray:
        """Rows of the cells, each once."""
        return np.unique(self.rows)

    def mean(self, values: np.ndarray) -> np.ndarray:
        """The weighted mean (Z,) of values (n, Z) of these rows."""
        return self.weights @ values.astype(float)


def own_controls(cells: pd.DataFrame, controls: np.ndarray, treated: np.ndarray) -> OwnControls:
    """The controls of each treated cell's plate; without any, of its batch; without any there, all of them.

    The controls of a plate weigh as much as the treated cells on it: otherwise a treatment with most cells on one
    plate and controls with most cells on another would differ by the plates.

    Args:
        cells: A row per cell, with its `plate` and `batch` as categories.
        controls: Rows of the control cells, at least one.
        treated: Rows of the treated cells, at least one.
    """
    plates, batches = (cells[name].cat.codes.to_numpy() for name in ("plate", "batch"))
    names, first, counts = np.unique(plates[treated], return_index=True, return_counts=True)
    groups = []
    for plate, batch in zip(names, batches[treated[first]]):
        beside = [controls[plates[controls] == plate], controls[batches[controls] == batch], controls]
        groups.append(next(rows for rows in beside if len(rows)))
    sizes = np.array([len(rows) for rows in groups])
    return OwnControls(
        rows=np.concatenate(groups),
        weights=np.repeat(counts / counts.sum() / sizes, sizes),
        groups=np.repeat(np.arange(len(groups)), sizes),
    )
