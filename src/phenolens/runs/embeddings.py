"""The cells of a study as a run embeds them; row i is row i of the crop store.

N cells of a study, n of them, Z features.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import h5py
import numpy as np

from phenolens.core.errors import InputError
from phenolens.crops.store import CropStore
from phenolens.readiness import embedding_sources
from phenolens.runs.catalogue import Catalogue
from phenolens.runs.latent_path import target_cell
from phenolens.screens.screen import LATENT
from phenolens.study import Study

PICKED = 200  # rows of a plate up to which they are read one by one; beyond, reading the whole plate is faster


@dataclass(frozen=True)
class EmbeddedCells:
    """All cells of a study with their embeddings by one run."""

    z: np.ndarray  # (N, Z) float32
    catalogue: Catalogue

    def nearest_to_mean(self, rows: np.ndarray) -> int:
        """Of the cells in these rows, the row of the one whose embedding is nearest to their mean."""
        return int(rows[target_cell(self.z[rows])])

    def strongest_treatments(self) -> list[str]:
        """Of each mechanism the treatment whose mean embedding is farthest from the controls', the farthest first.

        By squared distance minus its expectation by chance for so few cells. Where no mechanism is known, of each
        compound.
        """
        controls = self.catalogue.rows(role="control")
        if not len(controls):
            raise InputError("no control cells, from which the effect of treatments is measured; name a treatment")
        middle, variance = self.z[controls].mean(axis=0), float(self.z[controls].var(axis=0).sum())
        treated = self.catalogue.treatments.query("role == 'treated' and n_cells > 0")
        far = [np.square(self.z[self.catalogue.rows_of(name)].mean(axis=0) - middle).sum() for name in treated.index]
        treated = treated.assign(far=np.array(far) - variance / treated["n_cells"])
        by = "moa" if (treated["moa"] != "").any() else "compound"
        treated = treated[treated[by] != ""].sort_values("far", ascending=False, kind="stable")
        return treated.drop_duplicates(by).index.tolist()


def embedded_cells(study: Study, run: str, *, catalogue: Catalogue | None = None) -> EmbeddedCells:
    """The cells of a study with their embeddings by a run.

    Args:
        study: The study.
        run: The run.
        catalogue: That of the study's cells, where it is known: of a million cells it takes seconds.

    Raises:
        InputError: the cells are not embedded, or the embeddings are out of date; the message names the command.
    """
    embedding_sources(study, run)
    store = study.crops
    z, first = np.empty((0, 0), np.float32), 0
    for part in embedding_rows(study, run, store, np.arange(len(store))):
        if not first:
            z = np.empty((len(store), part.shape[1]), part.dtype)  # filled in place: a copy may be a gigabyte
        z[first : first + len(part)] = part
        first += len(part)
    return EmbeddedCells(z, catalogue or Catalogue.of(store.cells))


def embeddings_of(study: Study, run: str, rows: np.ndarray) -> np.ndarray:
    """The embeddings (n, Z) of these rows of the store, in their order.

    Raises:
        InputError: as `embedded_cells`.
    """
    embedding_sources(study, run)
    ordered, places = np.unique(rows, return_inverse=True)
    return np.concatenate(list(embedding_rows(study, run, study.crops, ordered)))[places]


def embedding_rows(study: Study, name: str, store: CropStore, rows: np.ndarray) -> Iterator[np.ndarray]:
    """The embeddings (n, Z), those that decode, of these sorted rows of the store, plate by plate.

    Raises:
        InputError: a plate's embeddings are missing, damaged, or of another number of cells; the message names the
            command.
    """
    first = 0
    for plate in store.plates:
        n_cells = len(store.crops(plate))
        own = rows[np.searchsorted(rows, first) : np.searchsorted(rows, first + n_cells)] - first
        first += n_cells
        if not len(own):
            continue
        path = study.embeddings_folder(name) / f"{plate}.h5ad"
        try:
            with h5py.File(path) as file:
                stored = file["obsm"][LATENT] if LATENT in file["obsm"] else file["X"]
                n_embedded = len(stored)
                if n_embedded == n_cells:
                    yield stored[own] if len(own) <= PICKED else stored[:] if len(own) == n_cells else stored[:][own]
        except (OSError, KeyError) as error:
            found = "damaged" if path.exists() else "missing"
            raise InputError(f"{path}: {found}; run `phenolens embed {study.quoted}`") from error
        if n_embedded != n_cells:
            raise InputError(
                f"{path}: {n_embedded} cells, the crops have {n_cells}; run `phenolens embed {study.quoted}`"
            )
