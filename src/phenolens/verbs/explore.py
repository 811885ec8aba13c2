"""`phenolens explore`: look at a study in the browser, on this machine."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from phenolens.errors import InputError
from phenolens.progress import tell
from phenolens.study import Study

HOST = "127.0.0.1"  # nobody else can reach it
OF_THE_EXTRA = ("fastapi", "starlette", "uvicorn")


@dataclass(frozen=True)
class Flags:
    """What `phenolens explore` takes."""

    study: Positional[Path]  # the study's folder; nothing in it is changed
    port: int = 8000  # of this machine; 0: any that is free


def act(flags: Flags) -> None:
    """Serve the pages until Ctrl+C."""
    study = Study.open(flags.study)
    try:
        import uvicorn

        from phenolens.web.app import create_app
    except ModuleNotFoundError as error:
        if error.name not in OF_THE_EXTRA:
            raise
        raise InputError(f'{error.name} is not installed; explore needs: pip install "phenolens[web]"') from error
    with listening(flags.port) as listener:
        tell(f"open http://{HOST}:{listener.getsockname()[1]}/ in a browser; Ctrl+C stops it")
        config = uvicorn.Config(create_app(study), log_level="warning", access_log=False, server_header=False)
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:
            tell("stopped")


def listening(port: int) -> socket.socket:
    """A socket on this port of this machine alone; InputError when the port cannot be had."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if os.name == "posix":  # elsewhere it would share a port that is in use
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        why = (
            "out of range (0 to 65535)" if isinstance(error, OverflowError) else (error.strerror or str(error)).lower()
        )
        raise InputError(
            f"--port {port}: {why}; name another, such as --port {8001 if port == 8000 else 8000}"
        ) from None
    return listener
