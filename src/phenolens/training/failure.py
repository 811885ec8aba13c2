"""Say at which step and on which cells a training broke, and keep what was good."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.optim import Optimizer

from phenolens.core.errors import RunError
from phenolens.core.files import write_text
from phenolens.models import Loss, Model
from phenolens.training.checkpoint import RunFolder

FAILED_BATCH = "failed_batch.csv"
TOLD_CELLS = TOLD_NAMES = 3


class NotFinite(Exception):
    """A number that moves the weights is not finite."""

    def __init__(self, what: str, step: int, terms: Mapping[str, float]) -> None:
        self.what = what  # "the loss of the autoencoder"
        self.step = step
        self.terms = terms


class FirstBad:
    """Finds the first step at which a loss or gradient is not finite.

    A processor looks before anything is moved (`waits`). A CUDA card would have to be waited for at every step: there
    the step is noted on the card, and the loop asks before it records or saves anything.
    """

    def __init__(self, *, waits: bool, device: torch.device) -> None:
        self.waits = waits
        self.step = torch.full((), -1, dtype=torch.int64, device=device)

    def look_at_losses(self, losses: Mapping[str, Loss], step: int) -> None:
        """NotFinite, where this waits, when a player's loss is not finite."""
        self._look({f"the loss of the {player}": (loss.total, loss) for player, loss in losses.items()}, step)

    def look_at_gradients(self, norms: Mapping[str, Tensor], losses: Mapping[str, Loss], step: int) -> None:
        """NotFinite, where this waits, when the norm of a player's gradient is not finite."""
        self._look({f"the gradient of the {player}": (norm, losses[player]) for player, norm in norms.items()}, step)

    def ask(self) -> None:
        """NotFinite when a step has been noted."""
        noted = -1 if self.waits else int(self.step)
        if noted >= 0:
            raise NotFinite("a loss or its gradient", noted, {})

    def _look(self, values: Mapping[str, tuple[Tensor, Loss]], step: int) -> None:
        for what, (value, loss) in values.items():
            finite = value.detach().isfinite()
            if not self.waits:
                self.step = torch.where((self.step < 0) & ~finite, step, self.step)
            elif not finite:
                raise NotFinite(what, step, {name: float(term) for name, term in loss.terms.items()})


def bad_step(run: RunFolder, cells: pd.DataFrame, *, rows: np.ndarray, bad: NotFinite) -> RunError:
    """The error that names the step, the player, the terms and the batch; the batch is listed in `failed_batch.csv`.

    `rows`: store rows (batches, B) that were drawn at that step. The checkpoint is left as it is.
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
        f"{', '.join(table['cell_id'][:TOLD_CELLS].astype(str))}); {kept}; "
        "try --clip-norm or a lower --learning-rate under another --name"
    )


def forget_failure(run: RunFolder) -> None:
    """Take away the batch that an earlier try failed on: this try says for itself whether it fails."""
    (run.folder / FAILED_BATCH).unlink(missing_ok=True)


@torch.no_grad()
def check_learned(model: Model, optimisers: Mapping[str, Optimizer], step: int) -> None:
    """NotFinite when a weight, a running average or an optimiser's state is, so that no checkpoint is made of it."""
    learned = {f"model {name}": value for name, value in model.state_dict().items()}
    for player, optimiser in optimisers.items():
        for place, gathered in enumerate(optimiser.state.values()):
            learned |= {f"{player} {name} {place}": value for name, value in gathered.items()}
    floats = {name: value for name, value in learned.items() if value.is_floating_point()}
    finite = torch.stack([value.isfinite().all().cpu() for value in floats.values()]).tolist()
    broken = [name for name, is_finite in zip(floats, finite) if not is_finite]
    if broken:
        raise NotFinite(f"what was learned ({', '.join(broken[:TOLD_NAMES])})", step, {})
