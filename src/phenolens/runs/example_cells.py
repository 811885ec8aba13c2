"""Which cells a figure shows: by their ids or at random by a seed, of wells that training did not see where it can.

N cells of a study, n that are shown; rows are those of the crop store. Cells flagged as noise are never shown.
"""

from collections.abc import Sequence

import numpy as np

from phenolens.core.errors import InputError
from phenolens.crops.store import CropStore
from phenolens.runs.catalogue import nearest_names
from phenolens.runs.decoder import PicturedRun
from phenolens.training.sampling import held_out_cells


def unseen_cells(store: CropStore, runs: Sequence[PicturedRun]) -> np.ndarray:
    """Which cells (N,) lie in wells that every one of these runs held out of its training; none where one held none."""
    unseen = np.ones(len(store), bool)
    for run in runs:
        config = (run.run.about() or {})["config"]
        unseen &= held_out_cells(store.cells, share=config["held_out_wells"], seed=config["seed"])
    return unseen


def cells_by_id(store: CropStore, ids: Sequence[str]) -> np.ndarray:
    """Rows (n,) of these cells in their order; InputError with the nearest ids, and for a cell flagged as noise."""
    row_of = {cell: row for row, cell in enumerate(store.cells["cell_id"])}
    noise = store.cells["is_noise"].to_numpy(bool)
    for cell in ids:
        if cell not in row_of:
            raise InputError(f'no cell "{cell}"; {nearest_names(cell, list(row_of))}')
        if noise[row_of[cell]]:
            raise InputError(f'cell "{cell}" is flagged as noise and left out of pictures; name another one')
    return np.array([row_of[cell] for cell in ids], int)


def of_different_mechanisms(store: CropStore, n: int, *, unseen: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Rows (n,) of random cells, the control first, each mechanism once before any comes again; fewer of a small study.

    A compound without a mechanism stands for itself.
    """
    cells = store.cells
    groups = (
        cells["moa"]
        .where(cells["moa"].fillna("") != "", cells["compound"])
        .where(cells["role"] != "control", cells["compound"])
    )
    fine = ~cells["is_noise"].to_numpy(bool)
    controls = sorted(set(groups[fine & (cells["role"] == "control").to_numpy()]))
    names = [*controls, *random.permutation(sorted(set(groups[fine]) - set(controls)))]
    drawn = [drawn_cells(np.flatnonzero((groups == name).to_numpy() & fine), n, unseen, random) for name in names]
    turns = [rows[turn] for turn in range(n) for rows in drawn if turn < len(rows)]
    return np.array(turns[:n], int)


def drawn_cells(rows: np.ndarray, n: int, unseen: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """At most `n` of these rows in random order, those that training did not see before all others."""
    order = random.permutation(rows)
    return np.concatenate([order[unseen[order]], order[~unseen[order]]])[:n]


def seen_words(rows: np.ndarray, unseen: np.ndarray) -> str:
    """A sentence for the caption: whether training drew from the wells of these cells."""
    n_unseen, n = int(unseen[rows].sum()), len(rows)
    if n_unseen == n:
        return "All lie in wells held out of training."
    if n_unseen == 0:
        return "Training drew from these cells' wells."
    return f"{n_unseen} of {n} lie in wells held out of training."


def chosen_words(named: Sequence[str], seed: int) -> str:
    """A sentence for the caption: how the cells were chosen, by their names or by the seed."""
    return "The cells were named." if named else f"The cells were drawn at random (seed {seed})."
