"""What a travel can be asked for: treatments, doses and cells looked up by name, the nearest names offered."""

from collections.abc import Iterable
from difflib import get_close_matches

import numpy as np
import pandas as pd

from phenolens.core.errors import InputError
from phenolens.core.progress import tell
from phenolens.runs.embeddings import EmbeddedCells


class Destinations:
    """The treatments of a study's embedded cells; cells that are flagged as noise are not counted."""

    def __init__(self, cells: EmbeddedCells) -> None:
        self._cells = cells
        counted = cells.obs[cells.fine]
        names = ["Treatment", "Compound", "Concentration_um", "MoA", "Role"]
        table = counted[[f"Metadata_{name}" for name in names]].set_axis([name.lower() for name in names], axis=1)
        keys = ["treatment", "compound", "concentration_um", "moa", "role"]
        table = table.groupby(keys, observed=True, dropna=False).size().rename("n_cells").reset_index()
        # a positive control may have the dose of a treatment: its wells are not the treatment's, as in the profiles
        treated = set(table.loc[table["role"] == "treated", "treatment"])
        table = table[(table["role"] != "other") | ~table["treatment"].isin(treated)]
        table = table.sort_values(["compound", "concentration_um"], kind="stable").drop_duplicates("treatment")
        self.table = table.set_index("treatment")  # compound, concentration_um, moa, role, n_cells; compounds, by dose

    def treatment(self, asked: str) -> str:
        """The treatment of `taxol@0.3`, or the highest dose of `taxol`; InputError with the nearest names otherwise."""
        if asked in self.table.index:
            return self._not_control(asked)
        compound, at, dose = asked.rpartition("@")
        if at and (self.table["compound"] == compound).any():
            doses = self.table.index[self.table["compound"] == compound]
            for name in doses:
                if _number(dose) == self.table.loc[name, "concentration_um"]:
                    return self._not_control(name)
            raise InputError(f'no cells of {compound} at "{dose}" µM; there are: {", ".join(doses)}')
        doses = self.table.index[self.table["compound"] == asked]
        if len(doses):
            chosen = self._not_control(doses[-1])
            if len(doses) > 1:
                tell(f"{asked}: the highest of {len(doses)} doses is taken, {chosen} (there are: {', '.join(doses)})")
            return chosen
        names = [*self.table["compound"].unique(), *self.table.index]
        raise InputError(f'no cells of "{asked}"; {nearest_names(asked, names)}')

    def doses(self, treatment: str) -> list[str]:
        """The treatments of the same compound up to this one, the lowest dose first."""
        row = self.table.loc[treatment]
        ours = (self.table["compound"] == row["compound"]) & (self.table["role"] == row["role"])
        return self.table.index[ours & (self.table["concentration_um"] <= row["concentration_um"])].tolist()

    def rows_of(self, treatment: str) -> np.ndarray:
        """The rows of a treatment's counted cells."""
        return self._cells.rows(Treatment=treatment, Role=str(self.table.loc[treatment, "role"]))

    def cell(self, cell_id: str) -> int:
        """The row of a cell; InputError with the nearest ids when there is none, or when it is flagged as noise."""
        row = int(self._cells.obs.index.get_indexer(pd.Index([cell_id], dtype=object))[0])
        if row < 0:
            raise InputError(f'no cell "{cell_id}"; {nearest_names(cell_id, self._cells.obs.index)}')
        if not self._cells.fine[row]:
            raise InputError(f'cell "{cell_id}" is flagged as noise and left out; start from another one')
        return row

    def label(self, treatment: str) -> str:
        """`taxol 0.3 µM`; the control without a dose."""
        compound, dose, role = self.table.loc[treatment, ["compound", "concentration_um", "role"]]
        return str(compound) if role == "control" else f"{compound} {dose:g} µM"

    def _not_control(self, treatment: str) -> str:
        if self.table.loc[treatment, "role"] == "control":
            raise InputError(f"{treatment} is the control, where travels start; name a treatment to go to")
        return treatment


def nearest_names(asked: str, names: Iterable[str]) -> str:
    """`did you mean "taxol", "taxol@0.3"?`, or the first of the names where none is near."""
    names = [str(name) for name in names]
    near = get_close_matches(asked, names, n=3) or [name for name in names if asked.lower() in name.lower()][:3]
    if near:
        return "did you mean " + ", ".join(f'"{name}"' for name in near) + "?"
    return f"there are: {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
