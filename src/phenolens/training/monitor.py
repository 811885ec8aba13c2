"""Follow a run while it trains: warnings, reconstructions of the same cells, TensorBoard, and what stopped it.

n watched cells, C channels, S crop side in px; cells and pictures in colour are uint8 RGB. Monitoring draws no random
number and changes no weight. Its files depend on the run only: those of steps after the checkpoint from which a run is
resumed are deleted and made again.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import imagecodecs
import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.optim import Optimizer

from phenolens.core.colours import cell_image, shared_contrast
from phenolens.core.errors import InputError, RunError
from phenolens.core.files import write_text, write_whole
from phenolens.core.progress import tell
from phenolens.crops.store import CropStore
from phenolens.models.interface import Decodes, Drawing, Draws, Loss, Representation, Trained
from phenolens.morphology.reconstruction_metrics import fidelity
from phenolens.training.checkpoint import RunFolder
from phenolens.training.config import TrainConfig
from phenolens.training.data import sampled_treatments
from phenolens.training.device import Compute
from phenolens.training.distributed import is_first
from phenolens.training.health import Health, Record

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

WATCHED_CELLS = 16
ACROSS = 8  # cells side by side
ENLARGED = 3  # pixels of a picture a pixel of a crop
FILM_CELLS = 4
FILM_STEPS = 12  # at most, so that the film fits a screen
FILM_ENLARGED = 2
BLOCK_GAP_PX, LABEL_PX = 6, 14
GREY = 70  # around cells
FAILED_BATCH = "failed_batch.csv"
NAMED = 3  # cells or tensors that an error names


def watched_cells(cells: pd.DataFrame, *, held_out: np.ndarray, seed: int, n: int = WATCHED_CELLS) -> np.ndarray:
    """Store rows (n,) or fewer of the cells to watch, of held-out wells where there are any; the control comes first.

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


class Monitor:
    """Reports what goes wrong, and keeps the pictures and curves of one run, from the step it stands at."""

    def __init__(
        self,
        run: RunFolder,
        store: CropStore,
        config: TrainConfig,
        *,
        model: Representation,
        compute: Compute,
        rows: np.ndarray,
        step: int,
        history: list[dict[str, float]],
        z: np.ndarray | None = None,
    ) -> None:
        """`rows`: the watched cells, `z` their embeddings for a decoder; `step`, `history`: where the run stands."""
        self.config, self.model = config, model
        self.health = Health.from_history(history)
        self.verdicts = model.verdicts(history) if isinstance(model, Trained) and history else []
        for sentence in self.health.current + self.verdicts:
            tell(sentence)
        # Of several processes, only the first writes.
        pictured = config.watch_every and is_first() and isinstance(model, Decodes | Draws)
        logged = config.tensorboard and is_first()
        self.pictures = Pictures(run, store, model, compute=compute, rows=rows, step=step, z=z) if pictured else None
        self.log = event_log(run.folder / "tensorboard", step=step) if logged else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.log is not None:
            self.log.close()

    def record(self, history: Sequence[Record]) -> None:
        """Check the latest record of the history."""
        verdicts = self.model.verdicts(history) if isinstance(self.model, Trained) else []
        new = [sentence for sentence in verdicts if sentence not in self.verdicts]
        for sentence in self.health.update(history) + new:
            tell(f"step {history[-1]['step']}: {sentence}")
        self.verdicts = verdicts
        if self.log is not None:
            for name, value in history[-1].items():
                if name != "step":
                    self.log.add_scalar(name.replace(".", "/"), value, int(history[-1]["step"]))
            self.log.flush()  # before the checkpoint, so that no record of it is missing after a kill

    def due(self, step: int) -> bool:
        """Whether a picture is taken after this step: the first, the last, and each `watch_every`."""
        return self.pictures is not None and (step in (1, self.config.steps) or step % self.config.watch_every == 0)

    def look(self, step: int) -> None:
        """Take the picture of this step."""
        if self.pictures is None:
            return
        with torch.compiler.set_stance("force_eager") if self.config.compiled else nullcontext():
            picture = self.pictures.take(step)  # 16 cells are not worth compiling for evaluation
        if self.log is not None:
            self.log.add_image(self.pictures.folder.name, picture, step, dataformats="HWC")
            self.log.flush()


class Pictures:
    """`reconstructions/`, `reconstructions.csv`, `reconstructions.png` and `reconstructions.npz` of a run.

    A model that draws cells but does not decode has `drawn` instead, without a table: each time from the same noise.
    """

    def __init__(
        self,
        run: RunFolder,
        store: CropStore,
        model: Representation,
        *,
        compute: Compute,
        rows: np.ndarray,
        step: int,
        z: np.ndarray | None,
    ) -> None:
        name = "reconstructions" if isinstance(model, Decodes) else "drawn"
        self.folder = run.folder / name
        self.table, self.film, self.frames = (run.folder / f"{name}.{kind}" for kind in ("csv", "png", "npz"))
        self.channels = store.channels
        self.model = model
        self.x = compute.scaled(store.take(rows), model.input)
        self.z = None if z is None else torch.from_numpy(z).to(compute.device)
        self.originals = self.x.cpu().numpy()
        self.contrast = shared_contrast(self.originals, store.channels)
        self.coloured = self.in_colours(self.originals)
        self.delete_after(step)
        self.drawn = self.frames_until(step)
        self.lines = self.lines_until(step)

    def take(self, step: int) -> np.ndarray:
        """Reconstruct the cells without noise; save the picture (height, width, 3) and return it."""
        drawn = self.pictures()
        coloured = self.in_colours(np.nan_to_num(drawn, nan=0.0, posinf=1.0, neginf=0.0))
        picture = grid(self.coloured, coloured)
        self.drawn[step] = coloured[:FILM_CELLS]
        write_png(self.folder / f"step-{step:06d}.png", picture)
        write_png(self.film, film(self.coloured, self.drawn))
        with write_whole(self.frames) as file:
            np.savez_compressed(file, steps=list(self.drawn), cells=np.stack(list(self.drawn.values())))
        if not isinstance(self.model, Decodes):
            return picture
        measured = fidelity(self.originals, drawn, self.channels)
        measured.insert(0, "step", step)
        header, *rows = measured.to_csv(index=False).splitlines()
        self.lines += rows
        write_text(self.table, "\n".join([header, *self.lines, ""]))
        return picture

    @torch.no_grad()
    def pictures(self) -> np.ndarray:
        """The watched cells reconstructed, or as many drawn: (n, C, S, S) in evaluation mode, in float32."""
        self.model.eval()
        if isinstance(self.model, Drawing) and self.z is not None:
            drawn = self.model.redraw(self.x, self.z, seeds=range(len(self.x)))
        elif isinstance(self.model, Decodes):
            drawn = self.model.decode(self.model.embed(self.x))
        else:
            assert isinstance(self.model, Draws)
            drawn = self.model.draw(len(self.x), seed=0)
        self.model.train()
        return drawn.float().cpu().numpy()

    def in_colours(self, crops: np.ndarray) -> np.ndarray:
        """Crops (n, C, S, S) as uint8 RGB (n, S, S, 3), all in the contrast of the originals."""
        return np.stack([np.round(255 * cell_image(crop, self.contrast)).astype(np.uint8) for crop in crops])

    def delete_after(self, step: int) -> None:
        """Delete the pictures of later steps."""
        for path in self.folder.glob("step-*.png"):
            if re.fullmatch(r"step-\d{6,}", path.stem) and int(path.stem.removeprefix("step-")) > step:
                path.unlink()

    def frames_until(self, step: int) -> dict[int, np.ndarray]:
        """The cells of the film, (FILM_CELLS, S, S, 3) by step, up to a step."""
        if not self.frames.exists():
            return {}
        try:
            with np.load(self.frames) as kept:
                return {int(at): cells for at, cells in zip(kept["steps"], kept["cells"]) if at <= step}
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise InputError(f"{self.frames}: damaged; delete it, and the film begins where the run resumes") from error

    def lines_until(self, step: int) -> list[str]:
        """The rows of the table up to a step, as text, so that they stay what they are."""
        lines = self.table.read_text().splitlines()[1:] if self.table.exists() else []
        return [line for line in lines if int(line.split(",")[0]) <= step]


def grid(originals: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Rows of ACROSS originals (n, S, S, 3), each row above the reconstructions of its cells, ENLARGED."""
    n, side = originals.shape[:2]
    blocks = -(-n // ACROSS)
    height = blocks * (2 * (side + 1) + BLOCK_GAP_PX) - BLOCK_GAP_PX + 1
    sheet = np.full((height, min(n, ACROSS) * (side + 1) + 1, 3), GREY, np.uint8)
    for row, cells in enumerate((originals, drawn)):
        for index, cell in enumerate(cells):
            block, column = divmod(index, ACROSS)
            top = block * (2 * (side + 1) + BLOCK_GAP_PX) + row * (side + 1) + 1
            left = column * (side + 1) + 1
            sheet[top : top + side, left : left + side] = cell
    return _enlarged(sheet, ENLARGED)


def film(originals: np.ndarray, drawn: Mapping[int, np.ndarray]) -> np.ndarray:
    """The first FILM_CELLS cells, a row each: the original, then its reconstruction at FILM_STEPS steps or fewer.

    `drawn`: reconstructions by step. The step is written above its column.
    """
    n, side = min(FILM_CELLS, len(originals)), originals.shape[1]
    known = sorted(drawn)
    places = np.linspace(0, len(known) - 1, min(len(known), FILM_STEPS)).round().astype(int)
    steps = [known[place] for place in places]
    shape = (LABEL_PX + n * (side + 1), (1 + len(steps)) * (side + 1) + BLOCK_GAP_PX, 3)
    sheet = np.full(shape, GREY, np.uint8)
    lefts = [column * (side + 1) + (BLOCK_GAP_PX if column else 0) for column in range(1 + len(steps))]
    for left, cells in zip(lefts, (originals, *(drawn[step] for step in steps))):
        for row, cell in enumerate(cells[:n]):
            top = LABEL_PX + row * (side + 1)
            sheet[top : top + side, left : left + side] = cell
    picture = Image.fromarray(_enlarged(sheet, FILM_ENLARGED))
    label = ImageDraw.Draw(picture)
    for left, step in zip(lefts[1:], steps):
        label.text((FILM_ENLARGED * left, 2 * FILM_ENLARGED), str(step), fill="white", font_size=9 * FILM_ENLARGED)
    return np.asarray(picture)


def _enlarged(picture: np.ndarray, factor: int) -> np.ndarray:
    """Each pixel as a square of `factor` x `factor`."""
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def write_png(path: Path, picture: np.ndarray) -> None:
    """Write a picture (height, width, 3) of uint8 as a PNG, as a whole or not at all."""
    with write_whole(path) as file:
        file.write(imagecodecs.png_encode(picture, level=6))


def event_log(folder: Path, *, step: int) -> "SummaryWriter":
    """A TensorBoard log that continues after `step`; what was logged for later steps is discarded."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step + 1)


class NotFinite(Exception):
    """A number that changes the weights is not finite."""

    def __init__(self, what: str, step: int, terms: Mapping[str, float]) -> None:
        self.what = what  # "the loss of the autoencoder"
        self.step = step
        self.terms = terms


class FirstBad:
    """Finds the first step at which a loss or gradient is not finite.

    On a processor every step is checked before weights change (`waits`). A CUDA card would have to be waited for at
    every step: there the step is noted on the card, and the loop asks before it records or saves anything.
    """

    def __init__(self, *, waits: bool, device: torch.device) -> None:
        self.waits = waits
        self.step = torch.full((), -1, dtype=torch.int64, device=device)

    def look_at_losses(self, losses: Mapping[str, Loss], step: int | Tensor) -> None:
        """NotFinite, where this waits, when a player's loss is not finite."""
        self._look({f"the loss of the {player}": (loss.total, loss) for player, loss in losses.items()}, step)

    def look_at_gradients(self, norms: Mapping[str, Tensor], losses: Mapping[str, Loss], step: int | Tensor) -> None:
        """NotFinite, where this waits, when the norm of a player's gradient is not finite."""
        self._look({f"the gradient of the {player}": (norm, losses[player]) for player, norm in norms.items()}, step)

    def ask(self) -> None:
        """NotFinite when a step has been noted."""
        noted = -1 if self.waits else int(self.step)
        if noted >= 0:
            raise NotFinite("a loss or its gradient", noted, {})

    def _look(self, values: Mapping[str, tuple[Tensor, Loss]], step: int | Tensor) -> None:
        for what, (value, loss) in values.items():
            finite = value.detach().isfinite()
            if not self.waits:
                self.step.copy_(torch.where((self.step < 0) & ~finite, step, self.step))
            elif not finite:
                raise NotFinite(what, int(step), {name: float(term) for name, term in loss.terms.items()})


def bad_step(run: RunFolder, cells: pd.DataFrame, *, rows: np.ndarray, bad: NotFinite) -> RunError:
    """The error that names the step, the player, the terms and the batch; the batch is listed in `failed_batch.csv`.

    `rows`: store rows (draws, B) of that step. The checkpoint is left as it is.
    """
    path = run.folder / FAILED_BATCH
    batch, place = np.indices(rows.shape).reshape(2, -1)
    table = cells.iloc[rows.ravel()][["cell_id", "plate", "well", "compound"]].reset_index(drop=True)
    table.insert(0, "step", bad.step)
    table.insert(1, "batch", batch + 1)
    table.insert(2, "place", place + 1)
    write_text(path, table.to_csv(index=False))
    terms = ", ".join(f"{name} {value:.3g}" for name, value in bad.terms.items())
    terms = f" ({terms})" if terms else ""
    kept = f"the last checkpoint, {run.checkpoint}, is kept" if run.checkpoint.exists() else "no checkpoint was due yet"
    return RunError(
        f"{run.name}: {bad.what} is not finite at step {bad.step}{terms}; its batch is listed in {path} (first cells: "
        f"{', '.join(table['cell_id'][:NAMED].astype(str))}); {kept}; "
        "try --clip-norm or a lower --learning-rate under another --name"
    )


@torch.no_grad()
def check_learned(model: Representation, optimisers: Mapping[str, Optimizer], step: int) -> None:
    """NotFinite when a weight, a running average or an optimiser's state is, so that it is never saved."""
    learned = {f"model {name}": value for name, value in model.state_dict().items()}
    for player, optimiser in optimisers.items():
        for place, gathered in enumerate(optimiser.state.values()):
            learned |= {f"{player} {name} {place}": value for name, value in gathered.items()}
    floats = {name: value for name, value in learned.items() if value.is_floating_point()}
    finite = torch.stack([value.isfinite().all().cpu() for value in floats.values()]).tolist()
    broken = [name for name, is_finite in zip(floats, finite) if not is_finite]
    if broken:
        raise NotFinite(f"what was learned ({', '.join(broken[:NAMED])})", step, {})
