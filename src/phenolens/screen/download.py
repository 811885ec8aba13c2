"""Download one file over HTTP so that no byte that has arrived is asked for again.

What has arrived waits as `.<name>.partial`, and beside it which state of the server's file it is the beginning of.
After a cut connection or a kill a range request asks for the rest (RFC 9110, sections 13 and 14); a file that has
changed on the server since is begun anew. The file takes its name when all of it is there.
"""

import contextlib
import http.client
import os
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event
from typing import IO, TypeVar
from urllib.parse import urlsplit

from phenolens import __version__
from phenolens.errors import InputError, Interrupted, RunError
from phenolens.files import read_json, write_json
from phenolens.progress import tell

Result = TypeVar("Result")

CHUNK_BYTES = 256 * 1024
LONGEST_WAIT_S = 120.0
WAIT_AND_TRY_AGAIN = (408, 425, 429)  # and every 5xx
CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


@dataclass(frozen=True)
class Patience:
    """How long a server is borne with."""

    tries: int = 7  # of one file without a single new byte, before it is given up
    first_wait_s: float = 1.0  # before the second try; each wait is twice the one before
    timeout_s: float = 30.0  # of a connection that is silent


@dataclass(frozen=True)
class Version:
    """One state of a file on a server."""

    length: int  # bytes
    mark: str  # its strong ETag, or else its Last-Modified; empty when the server gives neither


class _Cut(Exception):
    """This try came to nothing, another may; `wait_s` is the wait that the server asks for."""

    def __init__(self, what: str, *, wait_s: float = 0.0) -> None:
        super().__init__(what)
        self.wait_s = wait_s


class _NoSuchRange(_Cut):
    """The server's file is shorter than what has arrived."""


class _OnlyWeb(urllib.request.HTTPRedirectHandler):
    """Follows a redirection to another address of the web, but never from https to http."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        allowed = ("https",) if req.type == "https" else ("http", "https")
        if urlsplit(newurl).scheme not in allowed:
            fp.close()
            raise InputError(f"{req.full_url}: leads to {newurl}, expected {' or '.join(allowed)}; see --mirror")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def look(url: str, *, patience: Patience, stop: Event) -> Version:
    """Length and state of a file on the server, from a HEAD request.

    Raises InputError when the server does not have it or does not say its length, RunError when it cannot be asked.
    """

    def attempt() -> Version:
        with _open(url, method="HEAD", timeout_s=patience.timeout_s) as response:
            return _version(response, url)

    return _patiently(attempt, lambda: 0, url=url, patience=patience, stop=stop)


def download(
    url: str,
    path: Path,
    *,
    patience: Patience,
    stop: Event,
    arrived: Callable[[int], None] = lambda _: None,
    check: Callable[[Path], None] = lambda _: None,
) -> None:
    """Download `url` to `path`, going on from what arrived in an earlier try of this or another process.

    `arrived` is told the bytes that are on disk, as they grow. `check` gets the whole file before it takes its name;
    what it raises is passed on and the file is thrown away. Raises InputError when the server does not have the file or
    does not say its length, RunError when `patience` is at its end, Interrupted when `stop` is set; the last two keep
    what has arrived.
    """
    partial = _Partial(path)

    def attempt() -> None:
        _receive(url, partial, timeout_s=patience.timeout_s, stop=stop, arrived=arrived)

    _patiently(attempt, partial.size, url=url, patience=patience, stop=stop)
    try:
        check(partial.path)
    except BaseException:
        partial.forget()
        raise
    partial.path.replace(path)
    partial.forget()


def partial_bytes(path: Path) -> int:
    """How much of `path` has arrived in tries that did not come to their end."""
    return _Partial(path).size()


def sweep(path: Path) -> None:
    """Take away what a kill left beside a `path` that had just taken its name."""
    if path.exists():
        _Partial(path).forget()


class _Partial:
    """What has arrived of a file, and which state of the server's file it is the beginning of."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(f".{path.name}.partial")
        self._version = path.with_name(f".{path.name}.partial.json")

    def size(self) -> int:
        """Bytes that have arrived."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def version(self, url: str) -> Version | None:
        """What the bytes are the beginning of; None when there are none or they cannot be gone on from."""
        if not self.size():
            return None
        try:
            kept = read_json(self._version, mend="")
            version = Version(int(kept["length"]), str(kept["mark"]))
            fits = kept["url"] == url and version.mark and self.size() <= version.length
        except (InputError, KeyError, TypeError, ValueError):
            return None
        return version if fits else None

    def begin(self, url: str, version: Version) -> None:
        """Forget what has arrived and say what will."""
        self.forget()  # first, so that old bytes never stand beside a new version
        write_json(self._version, {"url": url, **asdict(version)})

    def forget(self) -> None:
        """Leave nothing."""
        self.path.unlink(missing_ok=True)
        self._version.unlink(missing_ok=True)


def _receive(url: str, partial: _Partial, *, timeout_s: float, stop: Event, arrived: Callable[[int], None]) -> None:
    """One try: ask for what is missing and write it down."""
    begun = partial.version(url)
    n_bytes = partial.size() if begun else 0
    if begun and n_bytes == begun.length:
        return
    # If-Range: the rest when the file is still the same, else all of it. RFC 9110, 13.1.5
    ask = {"Range": f"bytes={n_bytes}-", "If-Range": begun.mark} if begun else {}
    try:
        response = _open(url, method="GET", headers=ask, timeout_s=timeout_s)
    except _NoSuchRange:
        partial.forget()
        raise
    with response:
        version = _version(response, url)
        if response.status == 206 and (begun is None or version != begun or _first_byte(response) != n_bytes):
            partial.forget()
            raise _Cut("the file on the server is another now; begun anew")
        if response.status == 200:
            partial.begin(url, version)
            n_bytes = 0
        with partial.path.open("ab") as file:
            while n_bytes < version.length:
                chunk = _chunk(response)
                if stop.is_set():  # asked between reading and writing: a stopped download writes nothing more
                    raise Interrupted(f"{url}: stopped")
                if not chunk:
                    raise _Cut(f"the connection was cut after {n_bytes:,} of {version.length:,} bytes")
                file.write(chunk[: version.length - n_bytes])
                n_bytes = min(n_bytes + len(chunk), version.length)
                arrived(n_bytes)
            file.flush()
            os.fsync(file.fileno())


def _patiently(
    attempt: Callable[[], Result], n_arrived: Callable[[], int], *, url: str, patience: Patience, stop: Event
) -> Result:
    """Try until it is done or was tried often enough without anything new; waits grow."""
    tries, furthest = 0, n_arrived()
    while True:
        try:
            return attempt()
        except _Cut as cut:
            tries = 1 if n_arrived() > furthest else tries + 1
            furthest = max(furthest, n_arrived())
            if tries >= patience.tries:
                kept = f"; {furthest:,} bytes are kept" if n_arrived() else ""
                raise RunError(
                    f"{url}: {cut}, {tries} times in a row without a new byte{kept}; the same command goes on later"
                ) from cut
            wait_s = min(max(cut.wait_s, patience.first_wait_s * 2 ** (tries - 1)), LONGEST_WAIT_S)
            tell(f"{url.rsplit('/', 1)[-1]}: {cut}; tried again in {wait_s:g} s")
        if stop.wait(wait_s):
            raise Interrupted(f"{url}: stopped")


def _open(
    url: str, *, method: str, timeout_s: float, headers: Mapping[str, str] | None = None
) -> http.client.HTTPResponse:
    # identity: a compressed transfer could be neither gone on from nor measured
    ours = {"User-Agent": f"phenolens/{__version__}", "Accept-Encoding": "identity", **(headers or {})}
    request = urllib.request.Request(url, method=method, headers=ours)
    try:
        return urllib.request.build_opener(_OnlyWeb).open(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        with error:  # it holds the connection
            raise _refused(error, url) from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise InputError(f"{url}: the server's certificate is not trusted ({reason.verify_message})") from error
        raise _Cut(f"the server cannot be reached ({_in_words(reason)})") from error


def _refused(error: urllib.error.HTTPError, url: str) -> Exception:
    answer = f"{error.code} {http.client.responses.get(error.code, '')}".strip()  # not in the server's own words
    if error.code == 416:
        return _NoSuchRange("the file on the server is shorter than what has arrived; begun anew")
    if error.code in WAIT_AND_TRY_AGAIN or error.code >= 500:
        wait = error.headers.get("Retry-After", "")
        return _Cut(f"the server answers {answer}", wait_s=float(wait) if wait.isdecimal() else 0.0)
    if error.code in (404, 410):
        return InputError(f"{url}: the server has no such file ({error.code}); look at the address, or see --mirror")
    return InputError(f"{url}: the server answers {answer}, expected the file; see --mirror")


def _version(response: http.client.HTTPResponse, url: str) -> Version:
    """The state of the whole file that an answer speaks of."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise InputError(f"{url}: sent compressed though that was not asked for; choose another --mirror")
    whole = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    length = whole[3] if response.status == 206 and whole else response.headers.get("Content-Length", "")
    if not length.isdecimal():
        raise InputError(f"{url}: the server does not say how long the file is; choose another --mirror")
    etag = response.headers.get("ETag", "")
    strong = "" if etag.startswith("W/") else etag  # a weak one says nothing about bytes
    return Version(int(length), strong or response.headers.get("Last-Modified", ""))


def _first_byte(response: http.client.HTTPResponse) -> int:
    part = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    return int(part[1]) if part else -1


def _chunk(response: http.client.HTTPResponse) -> bytes:
    """What has come since, empty at the end, however the connection ended."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        return response.read1(CHUNK_BYTES)
    return b""


def _in_words(reason: object) -> str:
    return getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
