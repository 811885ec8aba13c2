"""Jobs for processes that work side by side; little is imported here, since each process imports it anew."""

import os
import signal
from pathlib import Path

from phenolens.core.errors import InputError


def square(number: int) -> int:
    """What is known of each job."""
    return number * number


def killed_once(folder: Path, number: int) -> int:
    """Kills its own process the first time that job 2 is done anywhere."""
    mark = folder / "killed"
    if number == 2 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def refuses(number: int) -> int:
    """Refuses job 1."""
    if number == 1:
        raise InputError("job 1: no such thing")
    return number
