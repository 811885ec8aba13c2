"""What the explorer and the blinded test share: addresses, templates, error pages, downloads, and who may ask what."""

from collections.abc import Callable, Mapping
from importlib.resources import files
from threading import Lock
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlencode

import pandas as pd
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.number_text import beyond, change_text, number_text, unbroken
from phenolens.crops.store import origin_of, read_about
from phenolens.screens.screen import dose_label, treatment_label
from phenolens.study import Study

HOSTS = ("127.0.0.1", "localhost")  # host names that are answered; any other may be DNS rebinding
MAX_FORM_BYTES = 16 * 1024
KEPT = "private, max-age=600"  # Cache-Control of style sheets and scripts
T = TypeVar("T")


def policy(**allowed: str) -> str:
    """A content security policy: own images and styles, and what is allowed besides (`script_src="'self'"`)."""
    sources = {"img-src": "'self'", "style-src": "'self'", "base-uri": "'none'", "form-action": "'none'"}
    sources |= {name.replace("_", "-"): source for name, source in allowed.items()}
    directives = {"default-src": "'none'", **sources, "frame-ancestors": "'none'"}
    return "; ".join(f"{name} {source}" for name, source in directives.items())


# plotly.js keeps its rules in a style element that is empty in the page: this is the hash of nothing.
EMPTY_STYLE = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
HEADERS = {
    "Content-Security-Policy": policy(form_action="'self'"),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def address(*parts: object, **query: object) -> str:
    """`/part/part?name=value` with every part quoted, slashes included; empty values are left out."""
    path = "/" + "/".join(quote(str(part), safe="") for part in parts)
    values = urlencode({name: value for name, value in query.items() if value not in ("", None)}, doseq=True)
    return f"{path}?{values}" if values else path


class NotFoundError(LookupError):
    """A name or number in an address that the study does not hold; the message says what to do."""


class StaticFolder(StaticFiles):
    """The files of a folder, which browsers keep for some minutes: they change with the release alone."""

    def file_response(self, *arguments: Any, **keywords: Any) -> Response:
        """A file with the header that lets browsers keep it."""
        response = super().file_response(*arguments, **keywords)
        response.headers["Cache-Control"] = KEPT
        return response


class PageApp(FastAPI):
    """An application that answers with rendered templates, errors included, and serves the files of `static`.

    Args:
        study: its folder's name stands on every page.
        error_page: template of error pages; it holds the text of each status.
        headers: of every answer that has none of its own.
    """

    def __init__(self, study: Study, *, error_page: str, headers: Mapping[str, str] = HEADERS) -> None:
        super().__init__(title="phenolens", docs_url=None, redoc_url=None, redirect_slashes=False)
        self.error_page, self.headers = error_page, headers
        self.templates = Environment(
            loader=PackageLoader("phenolens.web"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.templates.globals |= {
            "address": address,
            "treatment_label": treatment_label,
            "study": study.folder.resolve().name,
            "study_folder": str(study.folder),
            "origin": lambda: origin_of(read_about(study.crops_folder) or {}),
        }
        self.templates.filters |= {"count": lambda number: f"{int(number):,}", "dose": dose_label, "counted": counted}
        self.templates.filters |= {"number": number_text, "change": change_text, "beyond": beyond, "unbroken": unbroken}
        self._add_error_pages()

        @self.get("/static/page.css", include_in_schema=False)
        def shared_style() -> FileResponse:
            path = files("phenolens.plotting") / "templates" / "page.css"
            return FileResponse(str(path), headers={"Cache-Control": KEPT})

        self.mount("/static", StaticFolder(directory=str(files("phenolens.web") / "static")))

    def page(self, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
        """A rendered template."""
        return HTMLResponse(self.templates.get_template(template).render(**values), status_code=status)

    def error(self, status: int, *, reason: str = "", message: object = "") -> HTMLResponse:
        """The error page of a status, or of one `reason` for it; `message` replaces the text in the template."""
        return self.page(self.error_page, status=status, reason=reason or status, message=str(message))

    def protect(self, hosts: tuple[str, ...]) -> None:
        """Refuse other host names, and put `headers` on every answer, those of middleware added before included."""
        self.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)

        @self.middleware("http")
        async def with_headers(request: Request, call_next: Any) -> Response:
            response: Response = await call_next(request)
            for name, value in self.headers.items():
                response.headers.setdefault(name, value)
            return response

    def limit_forms(self) -> None:
        """Refuse forms that other sites send, that are larger than MAX_FORM_BYTES, or whose length is not given."""

        @self.middleware("http")
        async def limited(request: Request, call_next: Any) -> Response:
            length = request.headers.get("content-length", "0")
            if "transfer-encoding" in request.headers or not (length.isascii() and length.isdigit()):
                return self.error(411)
            if int(length[:20]) > MAX_FORM_BYTES:
                return self.error(413)
            origin = request.headers.get("origin")
            foreign = origin is not None and origin.partition("://")[2] != request.headers.get("host")
            if request.method != "GET" and foreign:
                return self.error(403, reason="other site")
            response: Response = await call_next(request)
            return response

    def _add_error_pages(self) -> None:
        @self.exception_handler(NotFoundError)
        def not_found(request: Request, error: NotFoundError) -> Response:
            return self.error(404, reason="not found", message=error)

        @self.exception_handler(HTTPException)
        def no_page(request: Request, error: HTTPException) -> Response:
            return self.error(error.status_code)

        @self.exception_handler(RequestValidationError)
        def invalid(request: Request, error: RequestValidationError) -> Response:
            return self.error(422, message=", ".join(sorted({str(place["loc"][-1])[:40] for place in error.errors()})))

        @self.exception_handler(InputError)
        @self.exception_handler(OSError)
        def unreadable(request: Request, error: Exception) -> Response:
            return self.error(500, reason="unreadable", message=error)

        @self.exception_handler(Exception)
        def unexpected(request: Request, error: Exception) -> Response:
            """Starlette sends this answer outside of all middleware, so it needs its own headers."""
            page = self.error(500)
            page.headers.update({**self.headers, "Cache-Control": "no-store"})
            return page


class Cached(Generic[T]):
    """At most `size` results by key, the oldest dropped; each is computed once, and no key waits for another."""

    def __init__(self, size: int) -> None:
        self._size, self._found = size, dict[object, T]()
        self._changing, self._computing = Lock(), dict[object, Lock]()

    def get(self, key: object, compute: Callable[[], T]) -> T:
        """The result of this key, computed where it is missing."""
        with self._computing.setdefault(key, Lock()):
            try:
                return self._found[key]
            except KeyError:
                found = compute()
            with self._changing:
                self._found[key] = found
                if len(self._found) > self._size:
                    del self._found[next(iter(self._found))]
            return found


def download(content: bytes, media_type: str, name: str) -> Response:
    """A file to save under a name; characters that some systems do not allow in file names become dashes."""
    safe = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "_.-@") else "-" for letter in name)
    return Response(content, media_type=media_type, headers={"Content-Disposition": f'attachment; filename="{safe}"'})


def csv(table: pd.DataFrame, name: str) -> Response:
    """A table to save as `<name>.csv`."""
    return download(table.to_csv(index=False).encode(), "text/csv; charset=utf-8", f"{name}.csv")
