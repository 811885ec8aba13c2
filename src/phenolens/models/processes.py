"""Sums, means and values exchanged between the processes of one training; without torchrun, none.

Training with P processes equals training with the whole batch: each process takes its share of the batch's rows, and
sums and means over the batch are exchanged here. P processes, n numbers.
"""

import torch
from torch import Tensor
from torch import distributed as dist


def count() -> int:
    """P, how many processes train together; 1 without torchrun."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def number() -> int:
    """The rank of this process, from 0."""
    return dist.get_rank() if count() > 1 else 0


def gathered(values: Tensor) -> Tensor:
    """Every process's numbers (n,), in the order of processes: (P, n)."""
    if count() == 1:
        return values[None]
    parts = [torch.empty_like(values) for _ in range(count())]
    dist.all_gather(parts, values.contiguous())
    return torch.stack(parts)


def summed(values: Tensor) -> Tensor:
    """Numbers of any shape, added up over processes."""
    if count() == 1:
        return values
    values = values.contiguous().clone()
    dist.all_reduce(values)
    return values


def averaged(values: Tensor) -> Tensor:
    """Numbers of any shape, the mean over processes."""
    return summed(values) / count()


def own_rows(rows: Tensor) -> Tensor:
    """The rows of a whole batch (B, ...) that are this process's share (B / P, ...)."""
    return rows.chunk(count())[number()]


def wait_for_all() -> None:
    """Return when every process has called this."""
    if count() > 1:
        dist.barrier()
