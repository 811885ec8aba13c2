"""Fetch several plates at once, and tell how many megabytes have arrived."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from queue import Empty, SimpleQueue

from phenolens.errors import InputError, Interrupted, RunError
from phenolens.progress import tell, track

BETWEEN_LOOKS_S = 0.05
STOPPING_S = 1.0  # for all downloads to notice that they are stopped; they write nothing from then on


def side_by_side(
    fetch: Callable[[str], None],
    plates: Iterable[str],
    *,
    n: int,
    stop: threading.Event,
    n_bytes: Mapping[str, int],
    total_mb: int,
) -> dict[str, Exception]:
    """Fetch the plates in `n` threads, telling how many of `total_mb` are in `n_bytes`; what was raised, by plate.

    `stop` is set when it ends, however it ends. What is no plate's own failure (a full disk) stops all and is raised.
    """
    waiting: SimpleQueue[str] = SimpleQueue()
    for plate in plates:
        waiting.put(plate)
    failures: dict[str, Exception] = {}
    fatal: list[BaseException] = []

    def work() -> None:
        while not stop.is_set():
            try:
                plate = waiting.get_nowait()
                fetch(plate)
            except (Empty, Interrupted):
                return
            except (InputError, RunError) as error:
                failures[plate] = error
                tell(f"{plate}: failed; the others go on")
            except BaseException as error:
                fatal.append(error)
                stop.set()

    # daemons, so that a silent connection does not hold up Ctrl-C: what is on disk can be gone on from at any moment
    threads = [threading.Thread(target=work, daemon=True) for _ in range(n)]
    try:
        for thread in threads:
            thread.start()
        for _ in track(_arriving(threads, n_bytes), "MB downloaded", total=total_mb, done=_megabytes(n_bytes)):
            pass
    finally:
        stop.set()
        last_moment = time.monotonic() + STOPPING_S
        for thread in threads:
            thread.join(max(0.0, last_moment - time.monotonic()))
    if fatal:
        raise fatal[0]
    return failures


def _arriving(threads: list[threading.Thread], n_bytes: Mapping[str, int]) -> Iterator[int]:
    """An item for each megabyte, as long as a thread is at work."""
    told = _megabytes(n_bytes)
    while any(thread.is_alive() for thread in threads):
        time.sleep(BETWEEN_LOOKS_S)
        while told < _megabytes(n_bytes):
            told += 1
            yield told


def _megabytes(n_bytes: Mapping[str, int]) -> int:
    return sum(list(n_bytes.values())) // 1_000_000
