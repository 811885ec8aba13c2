"""Addresses, templates and the one style of a web application's pages."""

import errno
import hashlib
import ipaddress
import os
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from phenolens.core.errors import InputError
from phenolens.core.progress import tell
from phenolens.screens.screen import dose_label
from phenolens.study import Study

if TYPE_CHECKING:
    from fastapi import FastAPI

HOSTS = ("127.0.0.1", "localhost")  # names under which a browser may ask; others would be another site's trick
FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}  # for addresses that name what they hold


def policy(**allowed: str) -> str:
    """A content security policy: nothing but own pictures and styles, and what is allowed (`script_src="'self'"`)."""
    sources = {"img-src": "'self'", "style-src": "'self'", "base-uri": "'none'", "form-action": "'none'"}
    sources |= {name.replace("_", "-"): source for name, source in allowed.items()}
    named = {"default-src": "'none'", **sources, "frame-ancestors": "'none'"}
    return "; ".join(f"{name} {source}" for name, source in named.items())


HEADERS = {
    "Content-Security-Policy": policy(),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def add_headers(app: FastAPI, headers: Mapping[str, str] = HEADERS) -> None:
    """Put these headers on every answer that does not have its own."""

    @app.middleware("http")
    async def with_headers(request: Request, go_on: Any) -> Response:
        response: Response = await go_on(request)
        for name, value in headers.items():
            response.headers.setdefault(name, value)
        return response


def add_hosts(app: FastAPI, hosts: tuple[str, ...] = HOSTS) -> None:
    """Refuse whoever asks under another host's name."""
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)


def address(*parts: object, **query: object) -> str:
    """`/part/part?name=value`, each part quoted as one piece; empty values are left out."""
    path = "/" + "/".join(quote(str(part), safe="") for part in parts)
    asked = urlencode({name: value for name, value in query.items() if value not in ("", None)}, doseq=True)
    return f"{path}?{asked}" if asked else path


class Pages:
    """Templates and their style: the report's look, then the sheets of `static` that are named, in their order.

    `problems` is the template of whatever goes wrong.
    """

    def __init__(
        self, study: Study, *, sheets: tuple[str, ...] = ("explorer.css",), problems: str = "problem.html"
    ) -> None:
        self.problems = problems
        report = files("phenolens.plotting") / "templates" / "report.css"
        own = [(files("phenolens.web") / "static" / name).read_text(encoding="utf-8") for name in sheets]
        self.style = "".join([report.read_text(encoding="utf-8"), *own])
        self.style_version = hashlib.sha256(self.style.encode()).hexdigest()[:12]
        self.templates = Environment(
            loader=PackageLoader("phenolens.web"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        style = address(sheets[-1], v=self.style_version)
        name = study.folder.resolve().name
        self.templates.globals.update(address=address, study=name, study_folder=str(study.folder), style=style)
        self.templates.filters["count"] = lambda number: f"{int(number):,}"
        self.templates.filters["dose"] = dose_label

    def page(self, template: str, *, status: int = 200, **shown: Any) -> HTMLResponse:
        """A template with its values."""
        return HTMLResponse(self.templates.get_template(template).render(**shown), status_code=status)

    def problem(self, status: int, title: str, words: str) -> HTMLResponse:
        """A page that says what is wrong and what to do."""
        return self.page(self.problems, status=status, title=title, words=words)


class NotHereError(LookupError):
    """Something was asked for that is not there; the message says what to do."""

    title = "Not here"


def add_problems(app: FastAPI, pages: Pages, *, wrong_method: str) -> None:
    """Answer errors with pages; `wrong_method` says in a sentence why a request to change something is refused."""

    @app.exception_handler(NotHereError)
    def not_here(request: Request, error: NotHereError) -> Response:
        return pages.problem(404, error.title, str(error))

    @app.exception_handler(HTTPException)
    def no_page(request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:
            return pages.problem(405, "Not in this way", wrong_method)
        return pages.problem(error.status_code, "No such page", "Go home and follow the links from there.")

    @app.exception_handler(RequestValidationError)
    def bad_number(request: Request, error: RequestValidationError) -> Response:
        names = ", ".join(str(place["loc"][-1]) for place in error.errors())
        return pages.problem(422, "An address with a wrong number", f"Take {names} out of the address, or go home.")

    @app.exception_handler(InputError)
    @app.exception_handler(OSError)
    def unreadable(request: Request, error: Exception) -> Response:
        return pages.problem(500, "The study cannot be read", f"{error}. Nothing in it was changed.")

    @app.exception_handler(Exception)
    def not_foreseen(request: Request, error: Exception) -> Response:
        """Said outside of what puts headers on answers; the error itself stands in the terminal."""
        page = pages.problem(500, "This page cannot be made", "What went wrong stands where the pages are served from.")
        page.headers.update({**HEADERS, "Cache-Control": "no-store"})
        return page


LARGEST_BODY = 16 * 1024  # bytes of a form
LONGEST_ADDRESS = 2048  # bytes
MOST_VISITORS = 10_000  # remembered at once; the one seen longest ago is forgotten first


class Limiter:
    """A visitor may ask `burst` times at once, then `per_second` times a second."""

    def __init__(self, *, burst: int, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst, self._per_second, self._clock = burst, per_second, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # visitor: left then, and when that was

    def allows(self, visitor: str) -> bool:
        """Whether this visitor may ask once more now; it counts as asked."""
        now = self._clock()
        left, then = self._left.pop(visitor, (float(self._burst), now))
        left = min(float(self._burst), left + (now - then) * self._per_second)
        self._left[visitor] = (max(left - 1, 0.0), now)
        if len(self._left) > MOST_VISITORS:
            self._left.popitem(last=False)
        return left >= 1


def add_sizes(app: FastAPI, refused: Callable[[int, str, str], Response]) -> None:
    """Refuse overlong addresses and forms, and bodies of unsaid length, with `refused(status, title, words)`."""

    @app.middleware("http")
    async def with_sizes(request: Request, go_on: Any) -> Response:
        length = request.headers.get("content-length", "0")
        asked = request.scope["raw_path"] + b"?" + request.scope["query_string"]
        if len(asked) > LONGEST_ADDRESS:
            return refused(414, "An address that is too long", f"An address has at most {LONGEST_ADDRESS:,} bytes.")
        if "transfer-encoding" in request.headers or not length.isascii() or not length.isdigit():
            return refused(411, "A form of unsaid length", "Send it with its length, as browsers do.")
        if int(length[:20]) > LARGEST_BODY:
            return refused(413, "A form that is too large", f"A form has at most {LARGEST_BODY:,} bytes.")
        response: Response = await go_on(request)
        return response


def from_another_site(request: Request) -> bool:
    """Whether a form comes from another site's page, which must not act in a visitor's name."""
    origin = request.headers.get("origin")
    return origin is not None and origin.partition("://")[2] != request.headers.get("host")


ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">'
    '<circle cx="16" cy="16" r="15" fill="#2f6fb0"/><circle cx="18" cy="14" r="7" fill="#fff"/></svg>'
)


def add_icon(app: FastAPI) -> None:
    """Answer the address where browsers look for it."""

    @app.get("/favicon.ico", include_in_schema=False)
    def icon() -> Response:
        return Response(ICON, media_type="image/svg+xml", headers={"Cache-Control": "private, max-age=86400"})


def download(content: bytes, kind: str, name: str) -> Response:
    """A file of this media type under a name; letters that some system does not take in names become dashes."""
    safe = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "_.-@") else "-" for letter in name)
    return Response(content, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{safe}"'})


OWN = ("map.js", "travel.js")


class Scripts:
    """Each script's bytes, and the address that names them; InputError when plotly is not installed."""

    def __init__(self) -> None:
        folder = files("phenolens.web") / "static"
        self.contents = {name: (folder / name).read_bytes() for name in OWN if (folder / name).is_file()}
        self.contents["plotly.js"] = plotly_script()
        self._versions = {name: hashlib.sha256(content).hexdigest()[:12] for name, content in self.contents.items()}

    def address(self, name: str) -> str:
        """Where a page finds a script; the browser may keep what is there."""
        return address(name, v=self._versions[name])

    def serve(self, app: FastAPI) -> None:
        """An address for each script."""
        for name in self.contents:
            app.get(f"/{name}", name=name)(self._answer(name))

    def _answer(self, name: str):  # type: ignore[no-untyped-def]
        def script(v: str = "") -> Response:
            headers = FOREVER if v == self._versions[name] else {}
            return Response(self.contents[name], media_type="text/javascript", headers=headers)

        return script


def plotly_script() -> bytes:
    """plotly.js as the installed package plotly brings it; InputError when it is not installed."""
    try:
        return (files("plotly") / "package_data" / "plotly.min.js").read_bytes()
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise InputError('plotly is not installed; explore needs: pip install "phenolens[web]"') from error


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
