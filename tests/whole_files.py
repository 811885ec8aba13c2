"""Whether two folders hold the same files, bit for bit, apart from how long things took."""

import io
import re
from pathlib import Path

import pandas as pd
import torch

CLOCK = ["seconds", "cells_per_second"]


def different_files(one: Path, other: Path) -> list[str]:
    """The files that only one of two folders has, or whose content differs by more than the clock's."""
    names = {str(path.relative_to(folder)) for folder in (one, other) for path in folder.rglob("*") if path.is_file()}
    return sorted(name for name in names if not same(without_clock(one / name), without_clock(other / name)))


def without_clock(path: Path) -> object:
    """A file's content apart from how long things took; None when it is not there."""
    if not path.exists():
        return None
    if path.name == "checkpoint.pt":
        state = torch.load(path, weights_only=True)
        state["history"] = [{k: v for k, v in record.items() if k not in CLOCK} for record in state["history"]]
        return {name: value for name, value in state.items() if name not in CLOCK}
    if path.name == "history.csv":
        text = path.read_text()
        table = pd.read_csv(io.StringIO(text)) if len(text) > 2 else pd.DataFrame()
        return table.drop(columns=CLOCK, errors="ignore").to_csv()
    if path.name == "report.html":
        page, _, made_from = path.read_text().rstrip().rpartition("\n")  # the last line: checkpoints have a clock
        return re.sub(r"[\d.]+ minutes", "minutes", page), bool(made_from)
    return path.read_bytes()


def same(a: object, b: object) -> bool:
    """Equality that looks into containers, and at every bit and the layout of tensors."""
    if isinstance(a, torch.Tensor):
        described = [(t.dtype, t.shape, t.stride(), t.reshape(-1).view(torch.uint8).tolist()) for t in (a, b)]
        return described[0] == described[1]
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    return type(a) is type(b) and a == b
