"""Runs that decode: open them, embed and decode cells, find the one to use.

n cells, Z features, C channels, S crop side in px.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from phenolens.core.errors import InputError
from phenolens.crops.store import CropStore
from phenolens.embedding_files import mapped_embeddings
from phenolens.models import model_title, plainest_first
from phenolens.models.interface import Decodes, Drawing, Draws, Representation
from phenolens.readiness import default_run, embedding_sources, ready_runs
from phenolens.study import Study
from phenolens.training.checkpoint import RunFolder, trained_model
from phenolens.training.device import Compute
from phenolens.training.embed import as_counts, change, decode, draw, embed_crops, redraw


@dataclass(frozen=True)
class DecodingRun:
    """A trained run whose model decodes embeddings into crops."""

    study: Study
    run: RunFolder
    model_name: str  # its key in MODELS
    model: Representation  # one that Decodes, or that only Draws where such runs were asked for
    store: CropStore
    compute: Compute

    @property
    def name(self) -> str:
        """The name of the run."""
        return self.run.name

    @property
    def title(self) -> str:
        """The title of its model, such as VAE+."""
        return model_title(self.model_name)

    @property
    def keeps_cells(self) -> bool:
        """Whether a path starts at the real cell and keeps what its embedding does not determine."""
        return isinstance(self.model, Drawing)

    @property
    def embeds(self) -> bool:
        """Whether new crops can be embedded: not where a table gave the embeddings."""
        return not isinstance(self.model, Drawing) or self.model.embeds

    @property
    def decodes(self) -> bool:
        """Whether its embeddings decode; otherwise it only draws cells that do not exist."""
        return isinstance(self.model, Decodes)

    def originals(self, rows: np.ndarray) -> np.ndarray:
        """Crops (n, C, S, S) of these rows of the store, scaled as the model's input."""
        return self.compute.scaled(self.store.take(rows), self.model.input).cpu().numpy()

    def embedded(self, crops: np.ndarray) -> np.ndarray:
        """Embeddings (n, Z) of crops (n, C, S, S), stored or decoded; decoded ones, floats, by `as_counts`."""
        if np.issubdtype(crops.dtype, np.floating):
            crops = as_counts(crops, self.model)
        return embed_crops(self.model, crops, compute=self.compute)

    def decoded(self, z: np.ndarray) -> np.ndarray:
        """Crops (n, C, S, S) decoded from embeddings (n, Z)."""
        return decode(self.model, z, compute=self.compute)

    def drawn(self, n: int, *, seed: int) -> np.ndarray:
        """Crops (n, C, S, S) of cells that do not exist."""
        return draw(self.model, n, seed=seed, compute=self.compute)

    def reconstructed(self, rows: np.ndarray, z: np.ndarray | None = None) -> np.ndarray:
        """Reconstructions (n, C, S, S) of these rows of the store, whose embeddings (n, Z) may be given.

        Where they are not, the crops are embedded; saved embeddings are read where the run cannot embed. A Drawing
        draws each cell from its embedding and coarse layout: finer detail is a sample.
        """
        if z is None and self.embeds:
            z = self.embedded(self.store.take(rows))
        elif z is None:
            embedding_sources(self.study, self.name)  # InputError where they are out of date
            z = mapped_embeddings(self.study, self.name, self.store)[rows]
        if isinstance(self.model, Drawing):
            crops = self.store.take(rows)
            return redraw(self.model, crops, z, seeds=rows.tolist(), compute=self.compute)
        return self.decoded(z)

    def changed(
        self, rows: np.ndarray, z: np.ndarray, to: np.ndarray, *, residual: bool = False, emphasis: float = 0.0
    ) -> np.ndarray:
        """Pictures (n, C, S, S) of cells with embeddings z (n, Z) when these change to `to` (n, Z).

        A Drawing changes the real cells and keeps what their embeddings do not determine; others decode.

        Args:
            rows: (n,) rows of the cells in the store, or (1,) of a single cell that is changed n times.
            z: Their embeddings, as many.
            to: The embeddings to change to.
            residual: Add the decoded change to the real cells; of no effect on a Drawing.
            emphasis: How much more than once the change counts in a Drawing; of no effect on others.
        """
        if isinstance(self.model, Drawing):
            return change(self.model, self.store.take(rows), z, to, emphasis=emphasis, compute=self.compute)
        decoded = self.decoded(to)
        return self.originals(rows) + decoded - self.decoded(z) if residual else decoded


def open_decoding_runs(
    study: Study, names: Sequence[str], *, precision: str | None = None, or_draw: bool = False
) -> list[DecodingRun]:
    """Those of these runs that decode, in their order; a decoder of other embeddings only once it is trained.

    Args:
        study: The study.
        names: Of trained runs.
        precision: Of convolutions; left out: that of the training.
        or_draw: Also those that only draw cells.
    """
    runs = []
    for name in names:
        folder = RunFolder(study.run_folder(name))
        model, trained = trained_model(folder)
        if isinstance(model, Drawing) and not trained.steps:  # as of a table that is only compared
            continue
        if isinstance(model, Decodes) or (or_draw and isinstance(model, Draws)):
            compute = Compute.chosen(
                device=trained.device, precision=precision or trained.precision, threads=trained.threads
            )
            runs.append(DecodingRun(study, folder, trained.model, model, study.crops, compute))
    return runs


def find_decoding_run(study: Study, name: str | None, *, precision: str | None = None) -> DecodingRun:
    """The run of this name; without a name the default one of the trained runs that decode.

    Raises:
        InputError: no such run, or its model does not decode; the message names those that do.
    """
    if name is not None:
        study.chosen_runs((name,))
        if found := open_decoding_runs(study, [name], precision=precision):
            return found[0]
    runs = {run.name: run for run in open_decoding_runs(study, ready_runs(study, "trained"), precision=precision)}
    train = f"train one: phenolens train {study.quoted}"
    if name is not None:
        instead = f"name one that can: {', '.join(runs)}" if runs else train
        raise InputError(f'run "{name}": its model cannot decode embeddings into pictures; {instead}')
    if not runs:
        raise InputError(f"{study.folder}: no model of this study decodes embeddings into pictures; {train}")
    return runs[default_run(study, list(runs))]


def find_decoding_runs(study: Study, names: Sequence[str], *, or_draw: bool = False) -> list[DecodingRun]:
    """The runs of these names, all of which must decode; without names all that decode, the plainest model first.

    With `or_draw` also those that only draw cells.
    """
    if names:
        drawing = {run.name: run for run in open_decoding_runs(study, study.chosen_runs(tuple(names)), or_draw=or_draw)}
        return [drawing.get(name) or find_decoding_run(study, name) for name in dict.fromkeys(names)]
    runs = open_decoding_runs(study, ready_runs(study, "trained"), or_draw=or_draw)
    return sorted(runs, key=by_model) if runs else [find_decoding_run(study, None)]


def by_model(run: DecodingRun) -> tuple[int, str]:
    """Sorts runs by their model, the plainest first, then by name."""
    return plainest_first(run.model_name), run.name


def runs_by_title(runs: Sequence[DecodingRun]) -> dict[str, DecodingRun]:
    """The runs by the title of their model; by their name where two are of one model."""
    titles = [run.title for run in runs]
    return {run.title if titles.count(run.title) == 1 else run.name: run for run in runs}
