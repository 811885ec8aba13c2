"""What the pages of the explorer and of the blinded test share: links, templates, headers, errors, downloads."""

import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException

from phenolens.core.errors import InputError
from phenolens.screens.screen import dose_label
from phenolens.study import Study

HOSTS = ("127.0.0.1", "localhost")  # host names that are answered; any other may be DNS rebinding
IMMUTABLE = {"Cache-Control": "private, max-age=31536000, immutable"}  # for addresses that hold a hash of the content


def policy(**allowed: str) -> str:
    """A content security policy: own images and styles, and what is allowed besides (`script_src="'self'"`)."""
    sources = {"img-src": "'self'", "style-src": "'self'", "base-uri": "'none'", "form-action": "'none'"}
    sources |= {name.replace("_", "-"): source for name, source in allowed.items()}
    directives = {"default-src": "'none'", **sources, "frame-ancestors": "'none'"}
    return "; ".join(f"{name} {source}" for name, source in directives.items())


# plotly.js keeps its rules in a style element that is empty in the page: this is the hash of nothing.
EMPTY_STYLE = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
HEADERS = {
    "Content-Security-Policy": policy(),
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


class Pages:
    """The templates of an application and its static files.

    Args:
        study: its folder's name stands on every page.
        sheets: style sheets of `static`, appended in this order to the style of all pages and served as the last one.
        scripts: JavaScript files of `static`; `plotly.js` is taken from the installed package plotly.
        error_page: template of error pages; it holds the text of each status.
    """

    def __init__(self, study: Study, *, sheets: tuple[str, ...], scripts: tuple[str, ...], error_page: str) -> None:
        self.error_page = error_page
        shared_style = (files("phenolens.plotting") / "templates" / "page.css").read_bytes()
        self.static = {
            sheets[-1]: b"".join([shared_style, *map(_static, sheets)]),
            **{name: plotly_script() if name == "plotly.js" else _static(name) for name in scripts},
            "icon.svg": _static("icon.svg"),
        }
        self.versions = {name: hashlib.sha256(content).hexdigest()[:12] for name, content in self.static.items()}
        self.templates = Environment(
            loader=PackageLoader("phenolens.web"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.templates.globals.update(
            address=address,
            static=lambda name: address("static", name, v=self.versions[name]),
            style=sheets[-1],
            study=study.folder.resolve().name,
            study_folder=str(study.folder),
        )
        self.templates.filters["count"] = lambda number: f"{int(number):,}"
        self.templates.filters["dose"] = dose_label

    def page(self, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
        """A rendered template."""
        return HTMLResponse(self.templates.get_template(template).render(**values), status_code=status)

    def error(self, status: int, *, reason: str = "", message: object = "") -> HTMLResponse:
        """The error page of a status, or of one `reason` for it; `message` replaces the text in the template."""
        return self.page(self.error_page, status=status, reason=reason or status, message=str(message))


def _static(name: str) -> bytes:
    return (files("phenolens.web") / "static" / name).read_bytes()


def plotly_script() -> bytes:
    """plotly.js of the installed package plotly; InputError when it is not installed."""
    try:
        return (files("plotly") / "package_data" / "plotly.min.js").read_bytes()
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise InputError('plotly is not installed; explore needs: pip install "phenolens[web]"') from error


def add_static(app: FastAPI, pages: Pages) -> None:
    """Serve the static files; those under their current version may be cached."""
    kinds = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}

    @app.get("/static/{name}")
    def static(name: str, v: str = "") -> Response:
        if name not in pages.static:
            raise NotFoundError(f"There are: {', '.join(pages.static)}.")
        headers = IMMUTABLE if v == pages.versions[name] else {}
        return Response(pages.static[name], media_type=kinds[name.rpartition(".")[2]], headers=headers)


def add_errors(app: FastAPI, pages: Pages, *, headers: Mapping[str, str]) -> None:
    """Answer errors with pages."""

    @app.exception_handler(NotFoundError)
    def not_found(request: Request, error: NotFoundError) -> Response:
        return pages.error(404, reason="not found", message=error)

    @app.exception_handler(HTTPException)
    def no_page(request: Request, error: HTTPException) -> Response:
        return pages.error(error.status_code)

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> Response:
        return pages.error(422, message=", ".join(sorted({str(place["loc"][-1])[:40] for place in error.errors()})))

    @app.exception_handler(InputError)
    @app.exception_handler(OSError)
    def unreadable(request: Request, error: Exception) -> Response:
        return pages.error(500, reason="unreadable", message=error)

    @app.exception_handler(Exception)
    def unexpected(request: Request, error: Exception) -> Response:
        """Starlette sends this answer outside of all middleware, so it needs its own headers."""
        page = pages.error(500)
        page.headers.update({**headers, "Cache-Control": "no-store"})
        return page


def download(content: bytes, media_type: str, name: str) -> Response:
    """A file to save under a name; characters that some systems do not allow in file names become dashes."""
    safe = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "_.-@") else "-" for letter in name)
    return Response(content, media_type=media_type, headers={"Content-Disposition": f'attachment; filename="{safe}"'})
