"""Say at which step and on which cells a training broke, and keep what was good."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch

from phenolens.errors import RunError
from phenolens.files import write_text
from phenolens.models import Model
from phenolens.training.checkpoint import RunFolder

FAILED_BATCH = "failed_batch.csv"
TOLD_CELLS = TOLD_NAMES = 3


class NotFinite(Exception):
    """A number that moves the weights is not finite; nothing has been moved by it."""

    def __init__(self, what: str, terms: Mapping[str, float]) -> None:
        self.what = what  # "the loss of the autoencoder"
        self.terms = terms


def bad_step(run: RunFolder, cells: pd.DataFrame, *, step: int, rows: np.ndarray, bad: NotFinite) -> RunError:
    """The error that names the step, the player, the terms and the batch; the batch is listed in `failed_batch.csv`.

    `rows`: store rows (batches, B) that were drawn at `step`. The checkpoint is left as it is.
    """
    path = run.folder / FAILED_BATCH
    batch, place = np.indices(rows.shape).reshape(2, -1)
    table = cells.iloc[rows.ravel()][["cell_id", "plate", "well", "compound"]].reset_index(drop=True)
    table.insert(0, "step", step)
    table.insert(1, "batch", batch + 1)
    table.insert(2, "place", place + 1)
    write_text(path, table.to_csv(index=False))
    terms = ", ".join(f"{name} {value:.3g}" for name, value in bad.terms.items())
    kept = f"the last checkpoint, {run.checkpoint}, is kept" if run.checkpoint.exists() else "no checkpoint was due yet"
    return RunError(
        f"{run.name}: {bad.what} is not finite at step {step} ({terms}); its batch is listed in {path} (first cells: "
        f"{', '.join(table['cell_id'][:TOLD_CELLS].astype(str))}); {kept}; "
        "try --clip-norm or a lower --learning-rate under another --name"
    )


def forget_failure(run: RunFolder) -> None:
    """Take away the batch that an earlier try failed on: this try says for itself whether it fails."""
    (run.folder / FAILED_BATCH).unlink(missing_ok=True)


@torch.no_grad()
def check_weights(model: Model) -> None:
    """NotFinite when a weight or a running average is, so that no checkpoint is made of it."""
    floats = {name: value for name, value in model.state_dict().items() if value.is_floating_point()}
    finite = torch.stack([value.isfinite().all() for value in floats.values()]).tolist()
    broken = [name for name, is_finite in zip(floats, finite) if not is_finite]
    if broken:
        raise NotFinite("what the model has learned", dict.fromkeys(broken[:TOLD_NAMES], float("nan")))
