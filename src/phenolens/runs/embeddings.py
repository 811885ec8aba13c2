"""The cells of a study as a run embeds them; row i is row i of the crop store.

N cells of a study, n of them, Z features.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import h5py
import numpy as np
import pandas as pd

from phenolens.core.errors import InputError
from phenolens.crops.store import CropStore
from phenolens.pipeline import embedding_sources
from phenolens.profiles.profiles import METADATA, OF_A_WELL
from phenolens.screens.screen import cell_metadata
from phenolens.study import Study

# what many cells share: as categories a million of them are looked through in milliseconds
SHARED = [METADATA[name] for name in OF_A_WELL if name != "concentration_um"]
PICKED = 200  # rows of a plate that are read one by one; of more the whole plate is, since picking costs a seek each


@dataclass(frozen=True)
class EmbeddedCells:
    """All cells of a study with their embeddings by one run."""

    z: np.ndarray  # (N, Z) float32
    obs: pd.DataFrame  # (N rows) `Metadata_*`, those of SHARED as categories; index: cell id
    fine: np.ndarray  # (N,) whether the cell is counted: not flagged as noise

    def rows(self, **wanted: str) -> np.ndarray:
        """Rows of counted cells whose `Metadata_<name>` has this value: `rows(Role="control")`."""
        chosen = self.fine.copy()
        for name, value in wanted.items():
            chosen &= (self.obs[f"Metadata_{name}"] == value).to_numpy()
        return np.flatnonzero(chosen)


def embedded_cells(study: Study, name: str) -> EmbeddedCells:
    """The cells that a run embeds; InputError, naming the command, where they are not embedded as they are now."""
    embedding_sources(study, name)
    store = study.store()
    z, first = np.empty((0, 0), np.float32), 0
    for part in embedding_rows(study, name, store, np.arange(len(store))):
        z = z if first else np.empty((len(store), part.shape[1]), part.dtype)  # once for all: a copy is a gigabyte
        z[first : first + len(part)] = part
        first += len(part)
    obs = cell_metadata(store.cells).astype(dict.fromkeys(SHARED, "category"))
    return EmbeddedCells(z, obs, ~store.cells["is_noise"].to_numpy(bool))


def embedding_rows(study: Study, name: str, store: CropStore, rows: np.ndarray) -> Iterator[np.ndarray]:
    """The embeddings (n, Z) of these sorted rows of the store, a plate that has some of them at a time.

    InputError, naming the command, where a plate's are not there, are damaged, or are of another number of cells.
    """
    first = 0
    for plate in store.plates:
        n_cells = len(store.crops(plate))
        own = rows[np.searchsorted(rows, first) : np.searchsorted(rows, first + n_cells)] - first
        first += n_cells
        if not len(own):
            continue
        path = study.embeddings(name) / f"{plate}.h5ad"
        try:
            with h5py.File(path) as file:
                stored, n_embedded = file["X"], len(file["X"])
                if n_embedded == n_cells:
                    yield stored[own] if len(own) <= PICKED else stored[:] if len(own) == n_cells else stored[:][own]
        except (OSError, KeyError) as error:
            found = "damaged" if path.exists() else "not there"
            raise InputError(f"{path}: {found}; run `phenolens embed {study.folder}`") from error
        if n_embedded != n_cells:
            raise InputError(f"{path}: {n_embedded} cells, the crops have {n_cells}; embed them again")
