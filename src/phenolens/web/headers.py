"""What protects every answer of a web application: which sources a page may use, and who may ask under which name."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.middleware.trustedhost import TrustedHostMiddleware

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
