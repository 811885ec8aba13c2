"""A trained model in memory, for arrays of crops: `load(run).encode(crops)`.

n cells, Z features, C channels, S crop side in px.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from phenolens.core.errors import InputError
from phenolens.core.keywords import checked
from phenolens.models.interface import Decodes, Representation
from phenolens.study import MARKER, Study
from phenolens.training.checkpoint import RunFolder, trained_model
from phenolens.training.device import Compute
from phenolens.training.embed import MAX_COUNT, as_counts, decode, embed_crops


@dataclass(frozen=True)
class LoadedModel:
    """A trained model that encodes crops and, where it can, decodes embeddings."""

    name: str  # of the run
    channels: tuple[str, ...]
    crop_px: int
    model: Representation
    compute: Compute

    def __repr__(self) -> str:
        """Name of the run, model and channels."""
        kind = type(self.model).__name__
        return f"LoadedModel {self.name}: {kind} of {self.crop_px} px crops, channels {', '.join(self.channels)}"

    def encode(self, crops: np.ndarray) -> np.ndarray:
        """Embeddings of crops.

        Args:
            crops: (n, C, S, S), counts as uint16, or floats of any positive scale for a model that divides each channel
                by its maximum (for others, counts).

        Returns:
            Embeddings (n, Z), float32.

        Raises:
            InputError: There is no crop, channels or side are not the model's, or a value is not finite or no count.
        """
        crops = self._checked(crops, "crops", (len(self.channels), self.crop_px, self.crop_px))
        if np.issubdtype(crops.dtype, np.floating):
            crops = as_counts(crops, self.model)
        elif crops.min() < 0 or crops.max() > MAX_COUNT:
            raise InputError(f"crops {crops.min()} to {crops.max()}: expected counts from 0 to {MAX_COUNT}, or floats")
        return embed_crops(self.model, crops, compute=self.compute)

    def decode(self, z: np.ndarray) -> np.ndarray:
        """Crops that embeddings decode into.

        Args:
            z: Embeddings (n, Z).

        Returns:
            Crops (n, C, S, S), float32, scaled as the model takes them in: each channel's maximum near 1, or counts.

        Raises:
            InputError: The model does not decode, there is no embedding, or it has not the model's features.
        """
        if not isinstance(self.model, Decodes):
            raise InputError(f"{self.name}: its model does not decode embeddings")
        z = self._checked(z, "z", (len(self.model.feature_names()),))
        return decode(self.model, z, compute=self.compute)

    def _checked(self, given: object, name: str, of_a_cell: tuple[int, ...]) -> np.ndarray:
        """The array of one or more cells; InputError on another shape, and on what is no finite number."""
        try:
            array = np.asarray(given)
        except (TypeError, ValueError):  # lists of different lengths, or a tensor on another device
            array = np.empty(0, object)
        shape = f"{self.name} expects finite numbers of shape (cells, {', '.join(map(str, of_a_cell))})"
        if array.dtype.kind not in "uif" or array.shape[1:] != of_a_cell or not len(array):
            raise InputError(f"{name} {array.shape} {array.dtype}: {shape}, one cell or more")
        if not np.isfinite(array).all():
            raise InputError(f"{name}: a value is not finite; {shape}")
        return array


@checked
def load(run: Study | Path | str, name: str | None = None, *, device: str = "auto") -> LoadedModel:
    """Load a trained model.

    Args:
        run: The folder of a run; or a study (or its folder), with the name of the run.
        name: Name of the run in the study.
        device: cpu, cuda, cuda:1 ...; auto: a CUDA card when there is one.

    Returns:
        The model, with `.encode(crops)` and `.decode(z)`.

    Raises:
        InputError: There is no such run, or its training is not finished.
    """
    if name is None and (Path(run) / MARKER).exists():
        runs = ", ".join(Study.open(run).chosen_runs(()))
        raise InputError(f'{Path(run)}: a study; name the run too, as in load(study, "NAME") (there are: {runs})')
    if name is not None:
        study = Study.open(run)
        study.chosen_runs((name,))
        run = study.run_folder(name)
    folder = RunFolder(Path(run))
    model, trained = trained_model(folder)
    origin = folder.origin()
    assert origin is not None  # trained_model would have refused
    compute = Compute.chosen(device=device, precision="float32", threads=trained.threads)
    return LoadedModel(folder.name, origin.channels, origin.crop_px, model, compute)
