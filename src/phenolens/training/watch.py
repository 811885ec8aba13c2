"""What a person sees of a run while it learns: words, pictures of the same cells, curves in TensorBoard.

n watched cells, C channels, S crop side in px. Watching draws no random number and moves no weight. Its files are a
function of the run alone: what lies after the checkpoint that a run goes on from is taken away and made again.
"""

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import imagecodecs
import numpy as np
import pandas as pd
import torch

from phenolens.core.colours import cell_image, shared_contrast
from phenolens.core.errors import InputError
from phenolens.core.files import write_text, write_whole
from phenolens.core.progress import tell
from phenolens.crops.store import CropStore
from phenolens.models import Generative, Model
from phenolens.morphology.reconstruction_metrics import fidelity
from phenolens.training.checkpoint import RunFolder
from phenolens.training.config import TrainConfig
from phenolens.training.device import Compute
from phenolens.training.distributed import is_first
from phenolens.training.grid import FILM_CELLS, drawn_in, film, grid
from phenolens.training.health import Health, Record
from phenolens.training.sampling import sampled_treatments

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

WATCHED_CELLS = 16


def check_can_watch(config: TrainConfig) -> None:
    """InputError when TensorBoard is asked for and not installed; before anything is done."""
    if config.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise InputError('tensorboard is not installed; --tensorboard needs: pip install "phenolens[tensorboard]"')


def watched_cells(cells: pd.DataFrame, *, held_out: np.ndarray, seed: int, n: int = WATCHED_CELLS) -> np.ndarray:
    """Store rows (n,) or fewer of cells to look at, of held-out wells where there are any; the control comes first.

    Each compound once before any comes again, each of its doses once before any comes again; no noise crops.
    """
    treatments = sampled_treatments(cells)
    candidates = treatments.notna() & held_out if held_out.any() else treatments.notna()
    rows = np.random.default_rng([seed, -3 % 2**32]).permutation(np.flatnonzero(candidates))
    table = cells.iloc[rows][["compound", "role"]].assign(row=rows, treatment=treatments.iloc[rows])
    for group in ("treatment", "compound"):
        turn = table.groupby(group, sort=False).cumcount()
        table = table.iloc[np.lexsort((table["role"] != "control", turn))]
    return table["row"].to_numpy()[:n]


class Watch:
    """Tells what goes wrong, and keeps the pictures and curves of one run, from where it stands."""

    def __init__(
        self,
        run: RunFolder,
        store: CropStore,
        config: TrainConfig,
        *,
        compute: Compute,
        rows: np.ndarray,
        step: int,
        history: list[dict[str, float]],
    ) -> None:
        """`rows`: the watched cells; `step` and `history`: where the run stands."""
        self.config = config
        self.health = Health.of(history)
        for sentence in self.health.standing:
            tell(sentence)
        # Of several processes, the first alone writes.
        seen, logged = config.watch_every and is_first(), config.tensorboard and is_first()
        self.pictures = Pictures(run, store, compute=compute, rows=rows, step=step) if seen else None
        self.log = event_log(run.folder / "tensorboard", step=step) if logged else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.log is not None:
            self.log.close()

    def record(self, history: Sequence[Record]) -> None:
        """Look at the latest record of the history."""
        for sentence in self.health.look(history):
            tell(f"step {history[-1]['step']}: {sentence}")
        if self.log is not None:
            for name, value in history[-1].items():
                if name != "step":
                    self.log.add_scalar(name.replace(".", "/"), value, int(history[-1]["step"]))
            self.log.flush()  # before the checkpoint, so that no record of it is missing after a kill

    def due(self, step: int) -> bool:
        """Whether a picture is taken after this step: the first, the last, and each `watch_every`."""
        return self.pictures is not None and (step in (1, self.config.steps) or step % self.config.watch_every == 0)

    def look(self, model: Model, step: int) -> None:
        """Take the picture of this step, of a model that decodes."""
        if self.pictures is None or not isinstance(model, Generative):
            return
        picture = self.pictures.take(model, step)
        if self.log is not None:
            self.log.add_image("reconstructions", picture, step, dataformats="HWC")
            self.log.flush()


class Pictures:
    """`reconstructions/`, `reconstructions.csv` and `reconstructions.png` of a run."""

    def __init__(self, run: RunFolder, store: CropStore, *, compute: Compute, rows: np.ndarray, step: int) -> None:
        self.folder = run.folder / "reconstructions"
        self.table = run.folder / "reconstructions.csv"
        self.film = run.folder / "reconstructions.png"
        self.channels = store.channels
        self.x = compute.normalised(store.take(rows))
        self.originals = self.x.cpu().numpy()
        self.contrast = shared_contrast(self.originals, store.channels)
        self.coloured = self.in_colours(self.originals)
        self.drawn = self.taken_until(step)
        self.lines = self.lines_until(step)

    def take(self, model: Generative, step: int) -> np.ndarray:
        """Reconstruct the cells as the model stands, without noise; save the picture (height, width, 3), return it."""
        drawn = self.reconstructed(model)
        coloured = self.in_colours(np.nan_to_num(drawn, nan=0.0, posinf=1.0, neginf=0.0))
        picture = grid(self.coloured, coloured)
        self.drawn[step] = coloured[:FILM_CELLS]
        write_png(self.folder / f"step-{step:06d}.png", picture)
        write_png(self.film, film(self.coloured, self.drawn))
        measured = fidelity(self.originals, drawn, self.channels)
        measured.insert(0, "step", step)
        header, *rows = measured.to_csv(index=False).splitlines()
        self.lines += rows
        write_text(self.table, "\n".join([header, *self.lines, ""]))
        return picture

    @torch.no_grad()
    def reconstructed(self, model: Generative) -> np.ndarray:
        """The watched cells (n, C, S, S) as the model redraws them in evaluation mode, in float32; it trains on."""
        model.eval()
        drawn = model.decode(model.embed(self.x)).float().cpu().numpy()
        model.train()
        return drawn

    def in_colours(self, crops: np.ndarray) -> np.ndarray:
        """Crops (n, C, S, S) as uint8 RGB (n, S, S, 3), all in the contrast of the originals."""
        return np.stack([np.round(255 * cell_image(crop, self.contrast)).astype(np.uint8) for crop in crops])

    def taken_until(self, step: int) -> dict[int, np.ndarray]:
        """The film's cells as they were redrawn up to a step, by step; pictures of later steps are deleted."""
        n, side = min(FILM_CELLS, len(self.originals)), self.originals.shape[-1]
        kept = {}
        for path in sorted(self.folder.glob("step-*.png")):
            if not re.fullmatch(r"step-\d{6,}", path.stem):
                continue
            taken_at = int(path.stem.removeprefix("step-"))
            if taken_at <= step:
                kept[taken_at] = drawn_in(imagecodecs.png_decode(path.read_bytes()), n, side)
            else:
                path.unlink()
        return kept

    def lines_until(self, step: int) -> list[str]:
        """The rows of the table up to a step, as text, so that they stay what they are."""
        lines = self.table.read_text().splitlines()[1:] if self.table.exists() else []
        return [line for line in lines if int(line.split(",")[0]) <= step]


def write_png(path: Path, picture: np.ndarray) -> None:
    """A picture (height, width, 3) of uint8 as a PNG, whole or not at all."""
    with write_whole(path) as file:
        file.write(imagecodecs.png_encode(picture, level=6))


def event_log(folder: Path, *, step: int) -> "SummaryWriter":
    """A TensorBoard log that goes on after `step`; what was logged for later steps counts no more."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step + 1)
