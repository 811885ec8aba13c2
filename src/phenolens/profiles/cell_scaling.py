"""Normalise cells by the control cells, before any profile: percentiles of each plate, or TVN.

Percentiles: Ljosa et al. 2013; Singh et al. 2014. TVN: Ando et al. 2017. n cells, Z features.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.progress import tell
from phenolens.core.provenance import KEY, provenance, provenance_text
from phenolens.profiles.populations import even_sample
from phenolens.profiles.profiles import METADATA, Wells, metadata, wells_of
from phenolens.profiles.whitening import Recipe, Whitening, fit_whitening

if TYPE_CHECKING:
    from anndata import AnnData

PERCENTILES = (1, 99)
LEAST_CONTROLS = 50  # control cells of a plate, below which those of all plates together are used
LARGEST = 20.0  # value up to which cells of such a plate are clipped


@dataclass(frozen=True)
class CellScaling:
    """What becomes 0 and 1 on each plate."""

    kept: np.ndarray  # (Z,) features whose percentiles differ on every plate
    low_high: dict[str, np.ndarray]  # plate -> (2, Z)
    pooled: frozenset[str]  # plates that use the controls of all plates

    def scaled(self, cells: AnnData) -> AnnData:
        """A new table of the same cells, without the features that cannot be scaled."""
        from anndata import AnnData

        plates = metadata(cells, ("plate",), what="cells")["plate"]
        numbers = np.empty((cells.n_obs, int(self.kept.sum())), np.float32)
        for plate, rows in plates.reset_index(drop=True).groupby(plates.to_numpy()).indices.items():
            low, high = self.low_high[str(plate)][:, self.kept]
            x = (np.asarray(cells.X[rows], np.float64)[:, self.kept] - low) / (high - low)
            numbers[rows] = np.clip(x, -LARGEST, LARGEST) if plate in self.pooled else x
        var = pd.DataFrame(index=cells.var_names[self.kept])
        table = AnnData(numbers, obs=cells.obs, var=var)
        table.uns[KEY] = provenance_text(
            "cell scaling", made_from=provenance(cells), percentiles=PERCENTILES, pooled=sorted(self.pooled)
        )
        return table


def scale_cells(cells: AnnData) -> AnnData:
    """Scale cells so that 0 and 1 are the 1st and 99th percentile of the control cells of their plate.

    Args:
        cells: `obs["Metadata_Role"]` marks the controls. Cells with a true Metadata_Is_Noise are scaled, too, but
            not learned from.

    Returns:
        A new table of the same cells, without features whose percentiles are equal on any plate. A plate with fewer
        than 50 control cells takes the percentiles of the controls of all plates, and its cells are clipped at -20 and
        20; a message says so.

    Raises:
        InputError: there are no control cells, no feature can be scaled, or NaN.
    """
    return fit_cell_scaling([cells]).scaled(cells)


def fit_cell_scaling(parts: Iterable[AnnData]) -> CellScaling:
    """Fit to the control cells of all plates; errors as in `scale_cells`.

    Args:
        parts: tables that each hold whole plates; read twice where a plate has too few controls.
    """
    low_high: dict[str, np.ndarray] = {}
    few: dict[str, int] = {}
    names: list[str] = []
    for part in parts:
        names = names or [str(name) for name in part.var_names]
        for plate, controls in _controls_by_plate(part):
            if len(controls) < LEAST_CONTROLS:
                few[plate] = len(controls)
            else:
                low_high[plate] = np.percentile(controls, PERCENTILES, axis=0)
    if few:
        of_plates = even_sample(parts, seed=0, controls_of="plate")
        pooled = np.percentile(np.concatenate(list(of_plates.values())), PERCENTILES, axis=0)
        low_high |= dict.fromkeys(few, pooled)
        plate = min(few)
        tell(
            f"cell scaling: {len(few)} of {counted(len(low_high), 'plate')} with fewer than {LEAST_CONTROLS} control "
            f'cells ("{plate}" has {few[plate]}), scaled by the controls of all plates'
        )
    kept = np.logical_and.reduce([low < high for low, high in low_high.values()])
    if not kept.any():
        raise InputError(
            f"cells: no feature of {len(names)} differs between the control cells of every plate; cells cannot be "
            "scaled by percentiles (leave --cell-scaling out)"
        )
    return CellScaling(kept, low_high, frozenset(few))


def fit_cell_tvn(parts: Iterable[AnnData], *, ridge: float) -> Whitening:
    """Whitening of cells on control cells, then alignment of the controls of each batch (`google` form).

    Args:
        parts: tables that each hold whole wells. At most 50,000 control cells are used, evenly from all batches.
        ridge: added to the eigenvalues of the controls' covariance.

    Raises:
        InputError: there are no control cells, or NaN.
    """
    from anndata import AnnData

    of_batches = even_sample(parts, seed=0, controls_of="batch")
    names = next(iter(parts)).var_names
    obs = pd.DataFrame({METADATA["batch"]: np.repeat(list(of_batches), [len(cells) for cells in of_batches.values()])})
    obs[METADATA["role"]] = "control"
    obs.index = obs.index.astype(str)
    controls = AnnData(np.concatenate(list(of_batches.values())), obs=obs, var=pd.DataFrame(index=names))
    recipe = Recipe(ridge=ridge, constant_features="left out", coral="batch", coral_form="google")
    return fit_whitening(controls, recipe)


def _controls_by_plate(part: AnnData) -> Iterator[tuple[str, np.ndarray]]:
    """Each plate of a part and its control cells (n, Z)."""
    plates: dict[str, list[np.ndarray]] = {}
    for obs, block in wells_of(part, Wells(), noise="left out", non_finite="refused"):
        plates.setdefault(str(obs["plate"]), []).append(block[: None if obs["role"] == "control" else 0])
    for plate, blocks in plates.items():
        yield plate, np.concatenate(blocks)
