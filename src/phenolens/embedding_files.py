"""The embeddings of a run where they lie in a study: a file per plate, of which rows are read when they are needed.

N cells of a study, Z features.
"""

from pathlib import Path

import h5py
import numpy as np

from phenolens.core.errors import InputError
from phenolens.core.mapped_rows import MappedRows
from phenolens.crops.store import CropStore
from phenolens.screens.screen import LATENT
from phenolens.study import Study


def mapped_embeddings(study: Study, run: str, store: CropStore, *, decoding: bool = True) -> MappedRows:
    """The embeddings (N, Z) of the store's cells, read from each plate's file when needed.

    They are those that decode, or, unless `decoding`, those that profiles are made of. Reading raises an InputError
    where a plate's embeddings are missing, damaged, or of another number of cells; the message names the command.
    """
    folder, again = study.embeddings_folder(run), f"run `phenolens embed {study.quoted}`"

    def mapped(number: int) -> np.ndarray:
        path = folder / f"{store.plates[number]}.h5ad"
        try:
            z = _stored(path, decoding=decoding)
        except (OSError, KeyError) as error:
            raise InputError(f"{path}: {'damaged' if path.exists() else 'missing'}; {again}") from error
        if len(z) != store.sizes[number]:
            raise InputError(f"{path}: {len(z)} cells, the crops have {store.sizes[number]}; {again}")
        return z

    return MappedRows(store.sizes, mapped)


def _stored(path: Path, *, decoding: bool) -> np.ndarray:
    """The embeddings in a plate's file: mapped, or in memory where they do not lie in one piece."""
    with h5py.File(path) as file:
        stored = file["obsm"][LATENT] if decoding and LATENT in file["obsm"] else file["X"]
        offset = stored.id.get_offset()
        if offset is None:
            return np.asarray(stored[:])
        return np.memmap(path, stored.dtype, "r", offset=offset, shape=stored.shape)
