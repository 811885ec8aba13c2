"""The cells of a study with their wells, treatments, doses and labels, looked up by name.

N cells of a study; row i is row i of the crop store. Cells flagged as noise are not counted.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import pandas as pd

from phenolens.core.colours import Contrast, shared_contrast
from phenolens.core.errors import InputError
from phenolens.core.progress import tell
from phenolens.crops.store import CropStore, normalised
from phenolens.screens.screen import treatment_label, treatment_name

# What the cells of a well have in common. As categories they take a byte or two a cell and are fast to compare.
SHARED = ("plate", "batch", "well", "compound", "moa", "role", "treatment")
OF_A_WELL = [*SHARED, "concentration_um"]
CONTRAST_CELLS = 256  # cells, evenly over the study, on which the contrast of all pictures is measured


def evenly(rows: np.ndarray, n: int) -> np.ndarray:
    """At most `n` of these rows, spread evenly from the first to the last."""
    return rows if len(rows) <= n else rows[np.linspace(0, len(rows) - 1, n).astype(np.int64)]


def contrast_of(store: CropStore, rows: np.ndarray) -> Contrast:
    """The contrast for all pictures of a study, measured on a sample of these rows of its crops."""
    return shared_contrast(normalised(store.take(evenly(rows, CONTRAST_CELLS))), store.channels)


@dataclass(frozen=True)
class Catalogue:
    """The cells of a study, and its wells and treatments counted from them.

    A positive control (role `other`) may have the dose of a treatment; as in the profiles, its wells are not wells of
    that treatment.
    """

    cells: pd.DataFrame  # (N rows) the store's `cells` with `treatment`; an unknown mechanism is an empty text
    counted: np.ndarray  # (N,) whether a cell is counted: not flagged as noise
    wells: pd.DataFrame  # a row per well: OF_A_WELL, n_cells (all of them), n_noise
    # index: treatment; label, compound, concentration_um, moa, role, n_wells, n_cells (counted); by compound and dose
    treatments: pd.DataFrame

    @classmethod
    def of(cls, cells: pd.DataFrame) -> "Catalogue":
        """The catalogue of a store's `cells`."""
        names = treatment_name(cells["compound"], cells["concentration_um"])
        table = cells.assign(treatment=names, moa=cells["moa"].fillna("")).reset_index(drop=True)
        table = table.astype(dict.fromkeys(SHARED, "category"))
        groups = table.groupby(OF_A_WELL, observed=True, sort=False)["is_noise"]
        wells = groups.agg(n_cells="size", n_noise="sum").reset_index().astype(dict.fromkeys(SHARED, str))
        return cls(table, ~table["is_noise"].to_numpy(bool), wells, _treatments(wells))

    def rows(self, **wanted: str) -> np.ndarray:
        """Rows of the counted cells with these values: `rows(role="control", plate="P1")`."""
        chosen = self.counted.copy()
        for name, value in wanted.items():
            chosen &= (self.cells[name] == value).to_numpy()
        return np.flatnonzero(chosen)

    def rows_of(self, treatment: str) -> np.ndarray:
        """Rows of a treatment's counted cells."""
        return self.rows(treatment=treatment, role=str(self.treatments.loc[treatment, "role"]))

    def label(self, treatment: str) -> str:
        """`taxol 0.3 µM`, as `treatment_label`; a treatment without cells keeps its name."""
        return str(self.treatments["label"].get(treatment, treatment))

    def labels(self, rows: np.ndarray | list[int]) -> list[str]:
        """The label of each of these cells."""
        table = self.cells.iloc[rows]
        return list(map(treatment_label, table["compound"], table["concentration_um"], table["role"]))

    def doses_up_to(self, treatment: str) -> list[str]:
        """The treatments of the same compound up to this dose, the lowest first."""
        row = self.treatments.loc[treatment]
        same = (self.treatments["compound"] == row["compound"]) & (self.treatments["role"] == row["role"])
        lower = (
            same & (self.treatments["concentration_um"] <= row["concentration_um"]) & (self.treatments["n_cells"] > 0)
        )
        return self.treatments.index[lower].tolist()

    def find_treatment(self, name: str) -> str:
        """The treatment that `taxol@0.3` names, or the highest dose of `taxol`.

        Raises:
            InputError: no such treatment (the message offers the nearest names), or it is the control.
        """
        known = self.treatments[self.treatments["n_cells"] > 0]
        if name in known.index:
            return self._not_control(name)
        compound, at, dose = name.rpartition("@")
        if at and (known["compound"] == compound).any():
            doses = known[known["compound"] == compound]
            same = doses.index[doses["concentration_um"] == _number(dose)]
            if len(same):
                return self._not_control(same[0])
            raise InputError(f"no cells of {compound} at {dose} µM; there are: {', '.join(doses.index)}")
        doses = known[known["compound"] == name]
        if len(doses):
            chosen = self._not_control(doses.index[-1])
            if len(doses) > 1:
                tell(f"{name}: using the highest of {len(doses)} doses, {chosen} (there are: {', '.join(doses.index)})")
            return chosen
        raise InputError(f'no cells of "{name}"; {nearest_names(name, [*known["compound"].unique(), *known.index])}')

    def find_cells(self, ids: Sequence[str]) -> np.ndarray:
        """Rows (n,) of these cells, in their order.

        Raises:
            InputError: no such cell (the message offers the nearest ids), or it is flagged as noise.
        """
        known = pd.Index(self.cells["cell_id"])
        rows = known.get_indexer(np.array(ids, object))
        for cell_id, row in zip(ids, rows):
            if row < 0:
                raise InputError(f'no cell "{cell_id}"; {nearest_names(cell_id, known)}')
            if not self.counted[row]:
                raise InputError(f'cell "{cell_id}" is flagged as noise and left out; name another cell')
        return rows.astype(int)

    def _not_control(self, treatment: str) -> str:
        if self.treatments.loc[treatment, "role"] == "control":
            raise InputError(f"{treatment} is the control; name a treatment")
        return treatment


def _treatments(wells: pd.DataFrame) -> pd.DataFrame:
    treated = wells.loc[wells["role"] == "treated", "treatment"]
    wells = wells[(wells["role"] != "other") | ~wells["treatment"].isin(treated)]
    table = (
        wells.assign(n_cells=wells["n_cells"] - wells["n_noise"])
        .groupby(["treatment", "compound", "concentration_um", "moa", "role"])
        .agg(n_wells=("well", "size"), n_cells=("n_cells", "sum"))
        .reset_index()
        .sort_values(["compound", "concentration_um"], kind="stable")
        .drop_duplicates("treatment")
    )
    labels = list(map(treatment_label, table["compound"], table["concentration_um"], table["role"]))
    table.insert(1, "label", labels)
    return table.set_index("treatment")


def nearest_names(name: str, known: Iterable[str]) -> str:
    """`did you mean "taxol", "taxol@0.3"?`, or the first of the known names where none is near."""
    names = [str(one) for one in known]
    near = get_close_matches(name, names, n=3) or [one for one in names if name.lower() in one.lower()][:3]
    if near:
        return "did you mean " + ", ".join(f'"{one}"' for one in near) + "?"
    return f"there are: {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
