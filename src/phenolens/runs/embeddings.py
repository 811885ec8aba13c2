"""The cells of a study as a run embeds them; row i is row i of the crop store.

N cells of a study, n of them, Z features.
"""

from dataclasses import dataclass

import numpy as np

from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.mapped_rows import MappedRows
from phenolens.embedding_files import mapped_embeddings
from phenolens.readiness import embedding_sources
from phenolens.runs.catalogue import Catalogue
from phenolens.study import Study


@dataclass(frozen=True)
class EmbeddedCells:
    """All cells of a study with their embeddings by one run, of which rows are read when they are needed."""

    z: MappedRows  # (N, Z) float32
    catalogue: Catalogue

    def mean(self, rows: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        """The mean (Z,) of these rows' embeddings, with weights (n,) that add up to 1 where they are given."""
        shares = np.full(len(rows), 1 / len(rows)) if weights is None else weights
        total, first = np.zeros(self.z.shape[1]), 0
        for z in self.z.blocks(rows):
            total += shares[first : first + len(z)] @ z.astype(float)
            first += len(z)
        return total

    def squared_distances(self, rows: np.ndarray, point: np.ndarray) -> np.ndarray:
        """Squared Euclidean distance (n,) of these rows' embeddings from a point (Z,).

        Raises:
            InputError: There are no rows, or embeddings are not finite.
        """
        far = [np.square(z - point).sum(axis=1) for z in self.z.blocks(rows)]
        if not far or not all(np.isfinite(block).all() for block in far):
            raise InputError(f"embeddings of {counted(len(rows), 'cell')}: expected finite values, at least one cell")
        return np.concatenate(far)

    def nearest_to_mean(self, rows: np.ndarray) -> int:
        """Of the cells in these rows, the first row of those whose embedding is nearest to their mean.

        One cell hides a mixed population (in the paper, fragmented nuclei under nocodazole): see `morphology.medoids`.
        """
        return int(rows[np.argmin(self.squared_distances(rows, self.mean(rows)))])

    def strongest_treatments(self) -> list[str]:
        """Of each mechanism the treatment whose mean embedding is farthest from the controls', the farthest first.

        By squared distance minus its expectation by chance for so few cells. Where no mechanism is known, of each
        compound.
        """
        controls = self.catalogue.rows(role="control")
        if not len(controls):
            raise InputError("no control cells, from which the effect of treatments is measured; name a treatment")
        middle = self.mean(controls)
        variance = float(self.squared_distances(controls, middle).mean())
        treated = self.catalogue.treatments.query("role == 'treated' and n_cells > 0")
        far = [np.square(self.mean(self.catalogue.rows_of(name)) - middle).sum() for name in treated.index]
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
    z = mapped_embeddings(study, run, store)
    for number in range(len(store.plates)):
        z.part(number)  # a damaged file is found before any work
    return EmbeddedCells(z, catalogue or Catalogue.of(store.cells))
