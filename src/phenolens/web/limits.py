"""How much one visitor may ask of an application, and how large a request may be."""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response

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
