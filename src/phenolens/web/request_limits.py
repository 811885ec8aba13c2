"""What requests may be: the size and origin of forms, host names, and the headers of every answer."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.middleware.trustedhost import TrustedHostMiddleware

from phenolens.web.base import Pages

MAX_FORM_BYTES = 16 * 1024


def add_form_limits(app: FastAPI, pages: Pages) -> None:
    """Refuse forms that other sites send, that are larger than MAX_FORM_BYTES, or whose length is not given."""

    @app.middleware("http")
    async def limited(request: Request, call_next: Any) -> Response:
        length = request.headers.get("content-length", "0")
        if "transfer-encoding" in request.headers or not (length.isascii() and length.isdigit()):
            return pages.error(411)
        if int(length[:20]) > MAX_FORM_BYTES:
            return pages.error(413)
        origin = request.headers.get("origin")
        foreign = origin is not None and origin.partition("://")[2] != request.headers.get("host")
        if request.method != "GET" and foreign:
            return pages.error(403, reason="other site")
        response: Response = await call_next(request)
        return response


def add_protection(app: FastAPI, *, hosts: tuple[str, ...], headers: Mapping[str, str]) -> None:
    """Refuse other host names, and put `headers` on every answer that has none of its own, refusals included."""
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)

    @app.middleware("http")
    async def with_headers(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        for name, value in headers.items():
            response.headers.setdefault(name, value)
        return response
