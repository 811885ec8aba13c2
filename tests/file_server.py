"""A small web server on this machine's loopback that serves bytes and can be told to misbehave, request by request."""

import hashlib
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
    """How one answer to a GET differs from what it should be."""

    status: int | None = None  # an answer without the file
    cut_after: int | None = None  # bytes of the body, then the connection ends
    reset: bool = False  # ... without a goodbye
    hang: bool = False  # ... not at all: it stays silent until the server closes
    ignore_range: bool = False  # the whole file, though a part was asked for
    ignore_if_range: bool = False  # a part, though the file has changed
    said_length: int | None = None  # in Content-Length


@dataclass
class FileServer:
    """What is served, what shall go wrong, and what was asked for and sent."""

    files: dict[str, bytes] = field(default_factory=dict)  # by name
    faults: dict[str, list[Fault]] = field(default_factory=lambda: defaultdict(list))  # by name, one a GET
    marks: tuple[str, ...] = ("ETag",)  # headers that tell two states of a file apart: ETag, Last-Modified, weak ETag
    asked: list[tuple[str, str, str]] = field(default_factory=list)  # method, name, range
    sent: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # bytes of bodies, by name
    headers: dict[str, str] = field(default_factory=dict)  # sent with every answer
    closing: threading.Event = field(default_factory=threading.Event)
    address: str = ""

    def mark(self, name: str) -> dict[str, str]:
        """The headers that change with the file."""
        digest = hashlib.sha256(self.files[name]).hexdigest()
        every = {
            "ETag": ("ETag", f'"{digest[:12]}"'),
            "weak ETag": ("ETag", f'W/"{digest[:12]}"'),
            "Last-Modified": ("Last-Modified", f"Wed, 01 Jan 2020 00:{int(digest[:4], 16) % 60:02}:00 GMT"),
        }
        return dict(every[mark] for mark in self.marks)

    def gets(self, name: str) -> list[str]:
        """The ranges of the GETs of a file, in order; empty for all of it."""
        return [part for method, asked, part in self.asked if method == "GET" and asked == name]


@contextmanager
def serving(**settings: object) -> Iterator[FileServer]:
    """Serve on a free port of 127.0.0.1 until it is left."""
    told = FileServer(**settings)

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            name, asked = self.path.removeprefix("/set/"), self.headers.get("Range", "")
            told.asked.append((self.command, name, asked))
            fault = told.faults[name].pop(0) if body and told.faults[name] else Fault()
            status = fault.status or (200 if name in told.files else 404)
            if status != 200:
                self.begin(status, {"Content-Length": "0", **told.headers})
                return
            content, headers, first = told.files[name], told.mark(name) | told.headers, 0
            strong = [mark for mark in told.mark(name).values() if not mark.startswith("W/")]  # RFC 9110, 13.1.5
            same = fault.ignore_if_range or self.headers.get("If-Range") in (None, *strong)
            if asked and same and not fault.ignore_range:
                first = int(asked.removeprefix("bytes=").removesuffix("-"))
                if first >= len(content):
                    self.begin(416, {"Content-Range": f"bytes */{len(content)}", "Content-Length": "0"})
                    return
                status, headers["Content-Range"] = 206, f"bytes {first}-{len(content) - 1}/{len(content)}"
            length = fault.said_length or len(content) - first
            self.begin(status, {"Content-Length": str(length), **headers})
            if body:
                self.send(name, content[first:], fault)

        def begin(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for header, value in headers.items():
                self.send_header(header, value)
            self.end_headers()
            self.close_connection = True

        def send(self, name: str, body: bytes, fault: Fault) -> None:
            part = body[: fault.cut_after]
            told.sent[name] += len(part)
            self.wfile.write(part)
            self.wfile.flush()
            if fault.hang:
                told.closing.wait()
            if fault.reset:  # an end by RST: what the client has not read is lost
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
            """A client that was killed is no news."""

    with Server(("127.0.0.1", 0), Handler) as server:
        told.address = f"http://127.0.0.1:{server.server_port}/set"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield told
        finally:
            told.closing.set()
            server.shutdown()
            thread.join()
