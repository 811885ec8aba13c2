"""The runs whose embeddings decode into pictures.

n cells, Z features, C channels, S crop side in px.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from phenolens.core.errors import InputError
from phenolens.crops.store import CropStore, normalised
from phenolens.models import model_title, plainest_first
from phenolens.models.interface import Decodes, Representation
from phenolens.readiness import default_run, ready_runs
from phenolens.study import Study
from phenolens.training.checkpoint import RunFolder, trained_model
from phenolens.training.device import Compute
from phenolens.training.embed import decode, embed_crops


@dataclass(frozen=True)
class PicturedRun:
    """A run that decodes, and what its pictures are made of."""

    run: RunFolder
    model_name: str  # its key in MODELS
    model: Representation  # one that Decodes
    store: CropStore
    compute: Compute

    @property
    def name(self) -> str:
        """The run's own name."""
        return self.run.name

    @property
    def title(self) -> str:
        """The model's name as the paper writes it, such as VAE+."""
        return model_title(self.model_name)

    def originals(self, rows: np.ndarray) -> np.ndarray:
        """Crops (n, C, S, S) of these rows of the store as the model sees them: each channel over its maximum."""
        return self.compute.scaled(self.store.take(rows), self.model.input).cpu().numpy()

    def embedded(self, crops: np.ndarray) -> np.ndarray:
        """Embeddings (n, Z) of crops (n, C, S, S), stored or decoded.

        Decoded ones, floats, are first brought to 16 bits as a camera would: each channel of each over its maximum,
        what is below 0 as 0.
        """
        if np.issubdtype(crops.dtype, np.floating):
            most = np.iinfo(np.uint16).max
            counts = normalised(np.maximum(crops, 0)) * most if self.model.input == "peak" else np.clip(crops, 0, most)
            crops = np.rint(counts).astype(np.uint16)
        return embed_crops(self.model, crops, compute=self.compute)

    def decoded(self, z: np.ndarray) -> np.ndarray:
        """Pictures (n, C, S, S) of embeddings (n, Z)."""
        return decode(self.model, z, compute=self.compute)

    def redrawn(self, rows: np.ndarray) -> np.ndarray:
        """Reconstructions (n, C, S, S) of these rows of the store."""
        return self.decoded(self.embedded(self.store.take(rows)))


def pictured_run(study: Study, name: str, *, precision: str | None = None) -> PicturedRun | None:
    """What the pictures of a run are made of; None for a model that does not decode.

    `precision` is that of its convolutions, left out that of its training.
    """
    run = RunFolder(study.run_folder(name))
    model, trained = trained_model(run)
    if not isinstance(model, Decodes):
        return None
    precision = precision or trained.precision
    compute = Compute.chosen(device=trained.device, precision=precision, threads=trained.threads)
    return PicturedRun(run, trained.model, model, study.crops, compute)


def pictured_runs(study: Study, names: Sequence[str], *, precision: str | None = None) -> list[PicturedRun]:
    """Those of these runs that decode, in their order."""
    found = (pictured_run(study, name, precision=precision) for name in names)
    return [run for run in found if run is not None]


def chosen_run(study: Study, asked: str | None, *, precision: str | None = None) -> PicturedRun:
    """The run asked for, which must decode; when none is asked for, the first VAE+ that is trained, else VAE, else AE.

    InputError for a run that is not there or whose model cannot decode, naming those that can.
    """
    if asked is not None:
        study.chosen_runs((asked,))
        found = pictured_run(study, asked, precision=precision)
        if found is not None:
            return found
    able = pictured_runs(study, ready_runs(study, "trained"), precision=precision)
    named = ", ".join(run.name for run in able)
    if asked is not None:
        instead = f"name one that can: {named}" if able else f"train one: phenolens train {study.folder}"
        raise InputError(f'run "{asked}": its model cannot decode embeddings into pictures; {instead}')
    if not able:
        raise InputError(
            f"{study.folder}: no model of this study decodes embeddings into pictures; "
            f"train one: phenolens train {study.folder}"
        )
    name = default_run(study, [run.name for run in able])
    return next(run for run in able if run.name == name)


def decoding_runs(study: Study, asked: Sequence[str]) -> list[PicturedRun]:
    """The runs asked for, in their order, all of which must decode; else all that decode, the plainest model first."""
    if asked:
        return [chosen_run(study, name) for name in dict.fromkeys(asked)]
    able = pictured_runs(study, ready_runs(study, "trained"))
    return sorted(able, key=place) if able else [chosen_run(study, None)]


def place(run: PicturedRun) -> tuple[int, str]:
    """Sorts runs by their model, the plainest first."""
    return plainest_first(run.model_name), run.name


def named_runs(runs: Sequence[PicturedRun]) -> dict[str, PicturedRun]:
    """The runs by their model's name, or by their own where two are of one model."""
    titles = [run.title for run in runs]
    return {run.title if titles.count(run.title) == 1 else run.name: run for run in runs}
