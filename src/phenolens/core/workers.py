"""Map a function over plates or wells: in this process, in several, or on a Dask cluster.

Results come in the order of the jobs and do not depend on where they ran.
"""

import logging
import multiprocessing
import multiprocessing.connection
import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from phenolens.core.bounds import Bounded, Count
from phenolens.core.errors import InputError, one_line
from phenolens.core.progress import tell

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class AtOnce(Bounded):
    """How many jobs run in parallel; results do not depend on it."""

    processes: Count = 1  # parallel processes on this machine, one plate each
    scheduler: str | None = None  # address of a Dask scheduler whose workers see the same files; replaces --processes

    def path(self, path: str | os.PathLike[str]) -> Path:
        """A path that jobs get: absolute on a cluster, whose workers were started in other folders."""
        return Path(path) if self.scheduler is None else Path(path).absolute()


ONE = AtOnce()
CONNECT_S = "20s"
LOOK_S = 10  # how often it is looked whether a cluster has a worker
LEAST_SENT = 16  # jobs that a scheduler has at once, with few workers or none yet


def done_by_workers(
    function: Callable[[Job], Result], jobs: Sequence[Job], at_once: AtOnce
) -> Generator[Result, None, None]:
    """Yield `function(job)` for each job, in order. Function and jobs must be picklable.

    The workers of a Dask scheduler (`tcp://host:8786`) must see the same files under the same paths. If a worker is
    lost, its job is repeated. When the generator is closed, no further job starts. Exceptions of jobs are raised here
    at once. A scheduler has at most twice as many jobs at a time as its workers have threads.

    Raises:
        InputError: No scheduler answers, it is lost, each worker that took a job is lost or has another version of
            phenolens, or Dask is not installed.
    """
    if at_once.scheduler is not None:
        yield from _on_cluster(function, jobs, at_once.scheduler)
    elif at_once.processes > 1 and len(jobs) > 1:
        spawn = multiprocessing.get_context("spawn")  # a fork of a process with threads can hang
        n, began = min(at_once.processes, len(jobs)), spawn.Event()
        with ProcessPoolExecutor(n, mp_context=spawn, initializer=_begin, initargs=(began,)) as pool:
            try:
                yield from pool.map(function, jobs)
            except BrokenProcessPool as error:
                if began.is_set():
                    raise
                raise InputError(
                    "no parallel process could begin, since each runs your script again from its top; put what the "
                    'script does under `if __name__ == "__main__":`, or set processes=1'
                ) from error
            finally:
                pool.shutdown(cancel_futures=True)
    else:
        for job in jobs:
            yield function(job)


def check_scheduler(at_once: AtOnce) -> None:
    """InputError where a scheduler is named and does not answer; for commands, before they write anything."""
    if at_once.scheduler is not None:
        _client(at_once.scheduler).close()


def _client(scheduler: str) -> Any:
    try:
        from distributed import Client
    except ImportError:
        raise InputError(
            '--scheduler: Dask is not installed here; pip install "phenolens[cluster]", or use --processes'
        ) from None
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # what it reports is an InputError here
    try:
        return Client(scheduler, timeout=CONNECT_S)
    except (OSError, ValueError, TimeoutError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"--scheduler {scheduler}: no Dask scheduler answers there ({reason}); start one with `dask scheduler`"
        ) from error


def _on_cluster(function: Callable[[Job], Result], jobs: Sequence[Job], scheduler: str) -> Iterator[Result]:
    with closing(_client(scheduler)) as client:
        from distributed import KilledWorker
        from distributed.client import FutureCancelledError
        from distributed.comm import CommClosedError

        _announce(scheduler, client.dashboard_link)
        sent: deque[Any] = deque()
        try:
            for job in jobs:
                if len(sent) >= max(LEAST_SENT, 2 * _n_threads(client)):
                    yield _result(sent.popleft(), client)
                sent.append(client.submit(_answered, function, job, version("phenolens"), pure=False))
            while sent:
                yield _result(sent.popleft(), client)
        except (ImportError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "deserialization" not in str(error):
                raise
            raise InputError(
                f"--scheduler {scheduler}: it and its workers cannot load phenolens ("
                f"{one_line(error).partition('. ')[0]}); install the same on all machines"
            ) from error
        except KilledWorker as error:
            raise InputError(
                f"--scheduler {scheduler}: a job was given up because each worker that took it was lost ("
                f"{error.last_worker.address} was the last); see its log, give workers more memory, and run it again"
            ) from error
        except (CommClosedError, FutureCancelledError) as error:
            raise InputError(
                f"--scheduler {scheduler}: it was lost; start it and run this again, finished plates are kept"
            ) from error
        finally:
            client.cancel(list(sent))


def _answered(function: Callable[[Job], Result], job: Job, wanted: str) -> Result | InputError:
    """The result of a job; an InputError is one too, because a worker logs exceptions with their traceback."""
    worker, found = socket.gethostname(), version("phenolens")
    if found != wanted:
        return InputError(f"worker {worker} has phenolens {found}, this command {wanted}; install the same everywhere")
    try:
        return function(job)
    except InputError as error:
        return InputError(f"{error} (on worker {worker}, which must see the same files as this command)")
    except FileNotFoundError as error:
        return InputError(
            f"worker {worker}: {error.filename or one_line(error)} is not there; workers must see the files of the "
            "study and the source under the same paths as this command"
        )


def _result(future: Any, client: Any) -> Any:
    """The result of a job; a line now and then while no worker is there to do it."""
    while True:
        done = future.done()
        try:
            result = future.result(timeout=None if done else LOOK_S)
        except TimeoutError:
            if done:
                raise  # the job's own
            if not _n_threads(client):
                address = client.scheduler.address
                tell(f"Dask cluster at {address}: waits for a worker; start one with `dask worker {address}`")
            continue
        if isinstance(result, InputError):
            raise result
        return result


def _n_threads(client: Any) -> int:
    """How many threads the workers have together; CommClosedError where the scheduler is lost."""
    from distributed.comm import CommClosedError

    try:
        return sum(client.nthreads().values())
    except OSError as error:
        raise CommClosedError(one_line(error)) from error


@cache
def _announce(scheduler: str, dashboard: str | None) -> None:
    """Print once where the cluster's dashboard is."""
    tell(f"Dask cluster at {scheduler}" + (f", dashboard {dashboard}" if dashboard else ""))


def end_while_importing() -> None:
    """End a parallel process that is still importing the user's script, which has no `if __name__ == "__main__":`."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # as multiprocessing asks before it refuses
        os._exit(1)


def _begin(began: Any) -> None:
    began.set()
    _end_with_parent()


def _end_with_parent() -> None:
    """End this worker when its parent process is killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # runs in workers only

    def watch(sentinel: int) -> None:
        multiprocessing.connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()
