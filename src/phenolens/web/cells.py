"""A study's cells, and the wells and treatments counted from them; every name is looked up here.

N cells, C channels, S crop side in px.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd

from phenolens.colours import Contrast, shared_contrast
from phenolens.images.store import CropStore, normalised
from phenolens.screen.table import treatment_name
from phenolens.web.pictures import png
from phenolens.web.problems import NotHereError

CONTRAST_CELLS = 256  # cells, evenly over the study, on which the one contrast of all pictures is measured
CHOSEN_BY = ("plate", "batch", "well", "compound", "moa", "role", "treatment")
OF_A_WELL = ["plate", "batch", "well", "compound", "concentration_um", "moa", "role", "treatment"]


class NotInStudyError(NotHereError):
    """A name that the study does not hold; the message says what to do."""

    title = "Not in this study"


@dataclass(frozen=True)
class Cells:
    """A study's cells, and its wells and treatments counted from them."""

    store: CropStore
    table: pd.DataFrame  # a row a crop, in the store's order, with its `treatment`
    wells: pd.DataFrame  # a row a well: OF_A_WELL, n_cells, n_noise (flagged and left out)
    treatments: pd.DataFrame  # a row a treatment: compound, concentration_um, moa, role, n_wells, n_cells
    contrast: Contrast  # of all pictures
    row_of: pd.Index  # cell ids, in the store's order

    @classmethod
    def of(cls, store: CropStore) -> "Cells":
        """The cells of a store; InputError when it holds none."""
        cells = store.cells
        names = treatment_name(cells["compound"], cells["concentration_um"])
        table = cells.assign(treatment=names, moa=cells["moa"].fillna(""))
        table = table.astype(dict.fromkeys(CHOSEN_BY, "category"))  # quick to choose from, and a byte or two a cell
        groups = table.groupby(OF_A_WELL, observed=True, sort=False)["is_noise"]
        wells = groups.agg(n_cells="size", n_noise="sum").reset_index()
        wells = wells.astype(dict.fromkeys(CHOSEN_BY, str))
        # a positive control may have the dose of a treatment; its wells are not the treatment's, as in the profiles
        ours = wells[
            (wells["role"] != "other") | ~wells["treatment"].isin(wells.loc[wells["role"] == "treated", "treatment"])
        ]
        treatments = (
            ours.groupby(["treatment", "compound", "concentration_um", "moa", "role"])
            .agg(n_wells=("well", "size"), n_cells=("n_cells", "sum"))
            .reset_index()
            .sort_values(["compound", "concentration_um"], kind="stable")
            .drop_duplicates("treatment")
        )
        fine = np.flatnonzero(~table["is_noise"].to_numpy(bool))
        sample = fine if len(fine) else np.arange(len(table))
        sample = sample[np.unique(np.linspace(0, max(len(sample) - 1, 0), CONTRAST_CELLS).astype(int))[: len(sample)]]
        contrast = shared_contrast(normalised(store.take(sample)), store.channels)
        return cls(store, table, wells, treatments.set_index("treatment"), contrast, pd.Index(table["cell_id"]))

    def rows_of(self, treatment: str) -> np.ndarray:
        """The rows of a treatment's cells; flagged ones that are left out and wells of positive controls are not."""
        chosen = (self.table["treatment"] == treatment) & (self.table["role"] == self.treatments.loc[treatment, "role"])
        return np.flatnonzero(chosen.to_numpy() & ~self.table["is_noise"].to_numpy(bool))

    def doses_of(self, treatment: str) -> pd.DataFrame:
        """The rows of `treatments` of its compound, by dose, after those of the controls."""
        compound, role = self.treatments.loc[treatment, "compound"], self.treatments["role"]
        ours = self.treatments["compound"] == compound
        return pd.concat([self.treatments[(role == "control") & ~ours], self.treatments[ours]])

    def shown(self, rows: Iterable[int] | np.ndarray) -> list[dict[Hashable, Any]]:
        """The table's rows, in this order, as a page shows them."""
        return self.table.iloc[list(map(int, rows))].to_dict("records")

    def plate(self, name: str) -> pd.DataFrame:
        """The wells of a plate that have cells, by their names."""
        known(name, self.store.plates, what="plate")
        return self.wells[self.wells["plate"] == name].set_index("well")

    def rows_of_well(self, plate: str, well: str) -> np.ndarray:
        """The rows of a well's cells, flagged and all."""
        known(well, list(self.plate(plate).index), what=f'well with cells on plate "{plate}", well')
        return np.flatnonzero(((self.table["plate"] == plate) & (self.table["well"] == well)).to_numpy())

    def random(self, treatment: str, n: int, *, draw: int = 0) -> np.ndarray:
        """Rows of `n` random cells of a treatment; the same name and draw give the same cells."""
        rows = self.rows_of(treatment)
        chance = np.random.default_rng([draw, crc32(treatment.encode())])
        return np.sort(chance.choice(rows, min(n, len(rows)), replace=False))

    def png(self, cell_id: str, *, channel: str = "", contrast: Contrast | None = None) -> bytes:
        """A cell in colours, or one of its channels in grey, at the size of its crop."""
        row = int(self.row_of.get_indexer(pd.Index([cell_id], dtype=object))[0])
        if row < 0:
            raise NotInStudyError(
                f'There is no cell "{cell_id[:80]}" in this study. Find cells by their well or treatment.'
            )
        crop = normalised(self.store.take([row]))[0]
        contrast = contrast or self.contrast
        if channel:
            at = self.store.channels.index(known(channel, self.store.channels, what="channel"))
            crop, contrast = crop[at : at + 1], contrast.of_channel(at)
        return png(crop, contrast)


def known(name: str, names: Sequence[str], *, what: str) -> str:
    """The name, when it is one of these; otherwise NotInStudyError, which names the nearest or all of a few."""
    if name in names:
        return name
    near = get_close_matches(name[:80], names, n=1)
    hint = f'Did you mean "{near[0]}"?' if near else f"There are: {', '.join(names[:8]) or 'none yet'}."
    raise NotInStudyError(f'There is no {what} "{name[:80]}" in this study. {hint}')
