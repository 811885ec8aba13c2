"""Commands of phenolens in processes of their own, and signals that reach them at a chosen moment.

The processes are forked from one that has imported everything, so that each costs a fraction of a second.
"""

import multiprocessing
import os
import signal
import sys
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

if sys.platform != "win32":
    import resource

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(  # torch._dynamo comes with the first optimiser and takes seconds
    [
        "torch._dynamo",
        "matplotlib.figure",
        "phenolens.commands.image_commands",
        "phenolens.commands.model_commands",
        "phenolens.crops.make_crops",
        "phenolens.reports.compute",
        "phenolens.training.loop",
        "phenolens.training.checkpoint",
    ]
)


@dataclass(frozen=True)
class Moment:
    """Just before the process opens, renames, removes or makes a file or folder under `folder` for the n-th time."""

    folder: Path
    n: int
    signals: tuple[signal.Signals, ...]  # the process sends them to itself, one after another


class Command:
    """One command in a process of its own, and what it says on stderr."""

    def __init__(
        self,
        *arguments: object,
        said: Path,
        moment: Moment | None = None,
        largest_file: int | None = None,
        dies_when_full: bool = False,
    ) -> None:
        """`largest_file` bytes stand for the disk: what goes beyond fails, or kills the process in mid-write."""
        self._said = said
        self._process: BaseProcess = CONTEXT.Process(
            target=_act, args=([str(argument) for argument in arguments], said, moment, largest_file, dies_when_full)
        )
        self._process.start()

    def kill_after(self, seconds: float) -> int:
        """Send SIGKILL when it has not ended by then; its exit status."""
        self._process.join(seconds)
        self._process.kill()
        return self.ended()[0]

    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.is_alive()

    def send(self, number: signal.Signals) -> None:
        """Send a signal now."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def ended(self) -> tuple[int, list[str]]:
        """Wait for its end: the exit status (a signal's number below 0), and the lines it said."""
        self._process.join(300)
        status = self._process.exitcode
        assert status is not None, "it did not end within five minutes"
        self._process.close()
        return status, [line for line in self._said.read_text().splitlines() if line.strip()]


def _act(
    arguments: list[str], said: Path, moment: Moment | None, largest_file: int | None, dies_when_full: bool
) -> None:
    """In the forked process: the command line, from its arguments to its exit code."""
    with said.open("w") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL if dies_when_full else signal.SIG_IGN)
    if moment is not None:
        _send_at(moment)
    from phenolens import cli

    sys.exit(cli.main(arguments))


def _send_at(moment: Moment) -> None:
    """Let the signals come at the moment."""
    seen = 0

    def watch(event: str, details: tuple[object, ...]) -> None:
        nonlocal seen
        if event not in ("open", "os.rename", "os.remove", "os.mkdir"):
            return
        if not str(details[0]).startswith(str(moment.folder)):
            return
        seen += 1
        if seen == moment.n:
            for number in moment.signals:
                os.kill(os.getpid(), number)

    sys.addaudithook(watch)


def with_small_files() -> None:
    """In a new process: writes beyond 40 kB fail, as on a full disk. POSIX alone."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))


def peak_bytes_of_children() -> int:
    """The most memory that a finished process used which this one started. Linux alone: others count in bytes."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
