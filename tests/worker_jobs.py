"""Jobs for processes that work side by side; little is imported here, since each process imports it."""

import os
import signal
from pathlib import Path
from uuid import uuid4

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


def refuses(folder: Path, number: int) -> int:
    """Refuses job 1; the folder has a file for each time that it was done."""
    if number == 1:
        (folder / uuid4().hex).touch()
        raise InputError("job 1: no such thing")
    return number


def read(path: Path) -> bytes:
    """What a file holds."""
    return path.read_bytes()


def fatal(number: int) -> int:
    """Kills whatever process does job 1."""
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number
