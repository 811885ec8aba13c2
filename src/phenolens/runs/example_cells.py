"""Which cells a figure shows: drawn at random by a seed, from wells held out of training where possible.

N cells of a study, n that are shown; rows are those of the crop store. Cells flagged as noise are never shown.
"""

from collections.abc import Sequence

import numpy as np

from phenolens.crops.store import CropStore
from phenolens.runs.catalogue import Catalogue
from phenolens.runs.decoder import DecodingRun
from phenolens.training.data import held_out_cells


def unseen_cells(store: CropStore, runs: Sequence[DecodingRun]) -> np.ndarray:
    """Which cells (N,) lie in wells that each of these runs held out of its training."""
    unseen = np.ones(len(store), bool)
    for run in runs:
        config = (run.run.about() or {})["config"]
        unseen &= held_out_cells(store.cells, share=config["held_out_wells"], seed=config["seed"])
    return unseen


def of_different_mechanisms(
    catalogue: Catalogue, n: int, *, unseen: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """Rows of at most `n` random cells, the control first, each mechanism once before any is repeated.

    A compound without a mechanism counts as one of its own.
    """
    cells = catalogue.cells.astype({"moa": str, "compound": str})
    groups = cells["moa"].where((cells["moa"] != "") & (cells["role"] != "control"), cells["compound"])
    controls = sorted(set(groups[catalogue.rows(role="control")]))
    names = [*controls, *random.permutation(sorted(set(groups[catalogue.counted]) - set(controls)))]
    rows_of = [np.flatnonzero((groups == name).to_numpy() & catalogue.counted) for name in names]
    drawn = [drawn_cells(rows, n, unseen, random) for rows in rows_of]
    turns = [rows[turn] for turn in range(n) for rows in drawn if turn < len(rows)]
    return np.array(turns[:n], int)


def drawn_cells(rows: np.ndarray, n: int, unseen: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """At most `n` of these rows in random order, those from held-out wells first."""
    order = random.permutation(rows)
    return np.concatenate([order[unseen[order]], order[~unseen[order]]])[:n]


def seen_words(rows: np.ndarray, unseen: np.ndarray) -> str:
    """A sentence for the caption: whether these cells come from wells used in training."""
    n_unseen, n = int(unseen[rows].sum()), len(rows)
    if n_unseen == n:
        return "All are from wells held out of training."
    if n_unseen == 0:
        return "These cells' wells were used in training."
    return f"{n_unseen} of {n} are from wells held out of training."


def chosen_words(named: Sequence[str], seed: int) -> str:
    """A sentence for the caption: how the cells were chosen."""
    return "The cells were chosen by their ids." if named else f"The cells were drawn at random (seed {seed})."
