"""A run's folder: its config, its state and its history; whole files, refused when they are not this run's."""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import pandas as pd
import torch

from phenolens.errors import InputError
from phenolens.files import read_json, write_json, write_text, write_whole

CHECKPOINT_FORMAT = "phenolens checkpoint 1"
RUN_FORMAT = "phenolens run 1"


@dataclass(frozen=True)
class RunFolder:
    """Where a run is kept: `config.json`, `checkpoint.pt`, `history.csv`, `health.json`."""

    folder: Path

    @property
    def name(self) -> str:
        """The run's name."""
        return self.folder.name

    @property
    def checkpoint(self) -> Path:
        """Weights, optimisers, steps done, history."""
        return self.folder / "checkpoint.pt"

    def about(self) -> dict[str, Any] | None:
        """What `config.json` says, None when there is no such run; InputError when it is something else."""
        path = self.folder / "config.json"
        if not path.exists():
            return None
        about = read_json(path, mend=f"delete {self.folder} to train anew")
        if not isinstance(about, dict) or about.get("format") != RUN_FORMAT:
            raise InputError(f'{path}: not a run of this version of phenolens (expected format "{RUN_FORMAT}")')
        return about

    def begin(self, about: dict[str, Any]) -> None:
        """Write down what the run is made from."""
        write_json(self.folder / "config.json", {"format": RUN_FORMAT, **about})

    def save(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint by `state` (tensors, numbers, text, lists, dicts), then the history table."""
        buffer = io.BytesIO()
        torch.save({"format": CHECKPOINT_FORMAT, **state}, buffer)
        with write_whole(self.checkpoint) as file:
            file.write(buffer.getbuffer())
        self.write_history(state["history"])

    def write_history(self, history: list[dict[str, float]]) -> None:
        """The history as a table."""
        write_text(self.folder / "history.csv", pd.DataFrame(history).to_csv(index=False))

    def load(self) -> dict[str, Any] | None:
        """The saved state, None when there is none; InputError when the file is truncated or foreign."""
        if not self.checkpoint.exists():
            return None
        try:
            state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        except (RuntimeError, UnpicklingError, EOFError, zipfile.BadZipFile, ValueError) as error:
            raise InputError(
                f"{self.checkpoint}: not a readable checkpoint (truncated, or written by something else); "
                f"put back the right file, or delete {self.folder} to train this run anew"
            ) from error
        if not isinstance(state, dict) or state.get("format") != CHECKPOINT_FORMAT:
            raise InputError(f'{self.checkpoint}: not a checkpoint of this version (expected "{CHECKPOINT_FORMAT}")')
        return state
