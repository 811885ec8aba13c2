"""An application served from a socket, on this machine alone unless another address is asked for."""

import errno
import ipaddress
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from phenolens.errors import InputError
from phenolens.progress import tell

if TYPE_CHECKING:
    from fastapi import FastAPI

HOST = "127.0.0.1"  # nobody else can reach it
OF_THE_EXTRA = ("fastapi", "multipart", "python_multipart", "starlette", "uvicorn")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach this address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listening(port: int, *, host: str = HOST) -> socket.socket:
    """A socket on this port of this address; InputError when it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    if os.name == "posix":  # elsewhere it would share a port that is in use
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()
    except (OSError, OverflowError, UnicodeError) as error:
        listener.close()
        if isinstance(error, socket.gaierror | UnicodeError) or getattr(error, "errno", 0) == errno.EADDRNOTAVAIL:
            raise InputError(
                f"--host {host[:80]}: no address of this machine; give one of its own, or 0.0.0.0 for all of them; "
                "left out, this machine alone is served"
            ) from None
        named = "" if host == HOST else f"--host {host} "
        why = (
            "out of range (0 to 65535)"
            if isinstance(error, OverflowError)
            else (getattr(error, "strerror", None) or str(error)).lower()
        )
        raise InputError(
            f"{named}--port {port}: {why}; name another, such as --port {8001 if port == 8000 else 8000}"
        ) from None
    return listener


def address_of(listener: socket.socket) -> str:
    """Where a browser finds what is served there: `http://127.0.0.1:8000/`."""
    host, port = listener.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:  # every address of this machine
        host = socket.gethostname()
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def serve(
    made: "Callable[[], FastAPI]", *, port: int, host: str = HOST, verb: str, words: Callable[[str], str]
) -> None:
    """Serve the application until Ctrl+C, after saying `words` of its address; InputError when the extra is missing."""
    with listening(port, host=host) as listener:  # before anything is opened, which takes some seconds
        try:
            import uvicorn

            app = made()
        except ModuleNotFoundError as error:
            if error.name not in OF_THE_EXTRA:
                raise
            raise InputError(f'{error.name} is not installed; {verb} needs: pip install "phenolens[web]"') from error
        tell(words(address_of(listener)))
        config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:
            tell("stopped")
