"""An application served from a thread of the test's own process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from phenolens.web.server import address_of, listening


@contextmanager
def served_app(app: FastAPI) -> Iterator[str]:
    """The address under which an application is served meanwhile."""
    with listening(0) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield address_of(listener)
        finally:
            server.should_exit = True
            thread.join()
