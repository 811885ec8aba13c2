"""Progress of anything longer than a second: a bar on a terminal, a line every ten seconds in a log."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)

Item = TypeVar("Item")

SECONDS_BETWEEN_LINES = 10.0
SECONDS_BEFORE_BAR = 0.5
MOST_AHEAD = 1000  # items to come, for each that is done, of which the time is estimated; the first ones are slow
SILENT = "PHENOLENS_QUIET"


def track(items: Iterable[Item], label: str | Callable[[], str], *, total: int, done: int = 0) -> Iterator[Item]:
    """Yield the items; show on stderr how many of `total` are done, how many a minute, and the time left.

    A `label` that is a function is called for every update. `done` items of the total were finished earlier. Work that
    ends within half a second shows nothing.
    """
    description = label if callable(label) else lambda: label
    if is_silent():
        yield from items
        return
    if sys.stderr.isatty():
        rate = _PerMinute()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
        progress = Progress(*columns, console=Console(stderr=True), transient=True)
        task = progress.add_task(description(), total=total, completed=done)
        with _shown_later(progress):
            for item in items:
                yield item
                progress.update(task, advance=1, description=description())
        return
    began = last = time.monotonic()
    for count, item in enumerate(items):
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES and count:
            last = now
            each, rest = (now - began) / count, total - done - count
            left = f", about {duration(each * rest)} left" if rest < MOST_AHEAD * count else ""
            tell(f"{description()}: {done + count} of {total}, {_a_minute(60 / each)}{left}")
        yield item


class _PerMinute(ProgressColumn):
    """How many items a minute are done."""

    def render(self, task: Task) -> str:
        return _a_minute(60 * task.speed) if task.speed else ""


def _a_minute(n: float) -> str:
    """A rate: `1.23 a minute`, `52,300 a minute`."""
    return f"{n:.3g} a minute" if n < 1000 else f"{float(f'{n:.3g}'):,.0f} a minute"


@contextmanager
def _shown_later(progress: Progress) -> Iterator[None]:
    """Show a bar from half a second on, if it is open so long; on a thread, since one item may take longer."""
    timer = threading.Timer(SECONDS_BEFORE_BAR, progress.start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        if progress.live.is_started:
            progress.stop()


def duration(seconds: float) -> str:
    """A time in two units at most: `40 s`, `12 min`, `3 h 20 min`, `5 d 9 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def tell(text: str) -> None:
    """Print one line to stderr; stdout is for results."""
    if not is_silent():
        print(text, file=sys.stderr, flush=True)


@contextmanager
def silent() -> Iterator[None]:
    """While it is open, this process and those it starts show no progress and print results alone."""
    before = os.environ.get(SILENT)
    os.environ[SILENT] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[SILENT]
        else:
            os.environ[SILENT] = before


def is_silent() -> bool:
    """Whether progress and notes are left out."""
    return not speaks() or bool(os.environ.get(SILENT))


def speaks() -> bool:
    """Whether this process prints: of several started by torchrun, only the first."""
    return os.environ.get("RANK", "0") == "0"
