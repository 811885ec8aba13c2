"""Serve an application on a port of this machine until Ctrl+C."""

import errno
import ipaddress
import os
import socket
import sys
import webbrowser
from collections.abc import Callable
from typing import TYPE_CHECKING

from phenolens.core.errors import InputError
from phenolens.core.progress import tell

if TYPE_CHECKING:
    from fastapi import FastAPI

HOST = "127.0.0.1"  # no other machine can reach it
EXTRA = ("fastapi", "itsdangerous", "multipart", "plotly", "python_multipart", "starlette", "uvicorn")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach this address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listening(port: int, *, host: str = HOST) -> socket.socket:
    """A socket that listens on this port (0: any free one) of this address; InputError when it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    if os.name == "posix":  # on Windows the option would share a port that is in use
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()
    except OverflowError:
        listener.close()
        raise InputError(f"--port {port}: out of range (0 to 65535)") from None
    except (OSError, UnicodeError) as error:
        listener.close()
        if isinstance(error, socket.gaierror | UnicodeError) or error.errno == errno.EADDRNOTAVAIL:
            raise InputError(
                f"--host {host[:80]}: not an address of this machine; give one, or 0.0.0.0 for all of them; "
                "without --host only this machine is served"
            ) from None
        other = 8001 if port == 8000 else 8000
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"--host {host} --port {port}: {reason}; try another port, such as --port {other}") from None
    return listener


def address_of(listener: socket.socket) -> str:
    """The address for browsers, such as `http://127.0.0.1:8000/`."""
    host, port = listener.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:  # every address of this machine
        host = socket.gethostname()
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def serve(
    create_app: "Callable[[], FastAPI]",
    *,
    port: int,
    host: str = HOST,
    verb: str,
    message: Callable[[str], str],
    opened: bool = False,
) -> None:
    """Serve an application until Ctrl+C, after printing `message` of its address, `opened` in this machine's browser.

    Raises:
        InputError: the port cannot be used, or a package of the extra `web` is missing.
    """
    with listening(port, host=host) as listener:  # before the study is opened, which takes some seconds
        try:
            import uvicorn

            app = create_app()
        except ModuleNotFoundError as error:
            if error.name not in EXTRA:
                raise
            raise InputError(f'{error.name} is not installed; {verb} needs: pip install "phenolens[web]"') from error
        print(message(address_of(listener)), file=sys.stderr, flush=True)
        if opened:
            webbrowser.open(address_of(listener))
        config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:
            tell("stopped")
