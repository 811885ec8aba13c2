"""Training and embedding with several processes, as torchrun starts them.

`torchrun --nproc-per-node P -m phenolens.cli train STUDY ...`: each process trains on its share of every batch; sums
and means over the batch are exchanged (models/processes.py), so that the result is that of one process. Only process 0
writes files and messages.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch import distributed as dist

from phenolens.core.errors import InputError
from phenolens.core.progress import speaks
from phenolens.models import processes


def asked_for() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process is the one that writes files and messages."""
    return speaks()


def own_share(plates: Sequence[str]) -> Sequence[str]:
    """The plates that this process embeds: every P-th of them."""
    return plates[int(os.environ.get("RANK", "0")) :: asked_for()]


@contextmanager
def together(device: torch.device) -> Iterator[None]:
    """Inside the context, the processes are connected: NCCL between CUDA cards, gloo between processors."""
    if asked_for() == 1:
        yield
        return
    on_card = device.type == "cuda"
    dist.init_process_group("nccl" if on_card else "gloo", device_id=device if on_card else None)
    try:
        yield
        processes.wait_for_all()  # no process closes its connections while another still uses them
    finally:
        dist.destroy_process_group()


def check_batch_size(batch_size: int) -> None:
    """InputError when the processes cannot share a batch evenly (batch size, cells)."""
    if batch_size % asked_for():
        raise InputError(
            f"--batch-size {batch_size}: {asked_for()} processes cannot share it evenly; "
            "give a batch size or a number of processes that divides it"
        )


def average_gradients(parameters: list[torch.nn.Parameter]) -> None:
    """Replace each parameter's gradient by its mean over processes."""
    if processes.count() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    means = processes.averaged(torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, mean in zip(gradients, means.split([gradient.numel() for gradient in gradients])):
        gradient.copy_(mean.view(gradient.shape))


def any_process(*here: bool | Tensor, device: torch.device) -> list[bool]:
    """Of each yes or no, whether some process says yes."""
    if processes.count() == 1:
        return [bool(answer) for answer in here]
    return [bool(n) for n in processes.summed(torch.tensor([float(answer) for answer in here], device=device))]
