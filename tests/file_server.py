"""A small web server on the loopback interface that serves bytes and fails on demand, request by request."""

import socket
import struct
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Fault:
    """How one answer differs from the right one."""

    method: str = "GET"  # the request that it answers
    status: int | None = None  # an answer without the file
    cut_after: int | None = None  # bytes of the body, then the connection closes
    reset: bool = False  # ... by a TCP reset
    hang: bool = False  # ... only when the server stops; until then it is silent
    said_length: int | None = None  # in Content-Length


@dataclass
class FileServer:
    """What to serve, which faults to make, and what was requested."""

    files: dict[str, bytes] = field(default_factory=dict)  # by name
    faults: dict[str, list[Fault]] = field(
        default_factory=lambda: defaultdict(list)
    )  # by name, one per request of its method
    requests: list[tuple[str, str]] = field(default_factory=list)  # method, name
    headers: dict[str, str] = field(default_factory=dict)  # sent with every answer
    closing: threading.Event = field(default_factory=threading.Event)
    address: str = ""

    def n_gets(self, name: str) -> int:
        """How often a file was requested."""
        return self.requests.count(("GET", name))


@contextmanager
def serving(**settings: object) -> Iterator[FileServer]:
    """Serve on a free port of 127.0.0.1."""
    state = FileServer(**settings)

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            name = self.path.removeprefix("/set/")
            state.requests.append((self.command, name))
            faults = state.faults[name]
            fault = faults.pop(0) if faults and faults[0].method == self.command else Fault()
            status = fault.status or (200 if name in state.files else 404)
            content = state.files[name] if status == 200 else b""
            self.send_response(status)
            for header, value in {"Content-Length": str(fault.said_length or len(content)), **state.headers}.items():
                self.send_header(header, value)
            self.end_headers()
            self.close_connection = True
            if body:
                self.send(content, fault)

        def send(self, content: bytes, fault: Fault) -> None:
            self.wfile.write(content[: fault.cut_after])
            self.wfile.flush()
            if fault.hang:
                state.closing.wait()
            if fault.reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()

        def log_message(self, *_: object) -> None:
            pass

        def finish(self) -> None:
            if self.connection.fileno() >= 0:
                super().finish()

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A killed client is expected."""

    with Server(("127.0.0.1", 0), Handler) as server:
        state.address = f"http://127.0.0.1:{server.server_port}/set"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield state
        finally:
            state.closing.set()
            server.shutdown()
            thread.join()
