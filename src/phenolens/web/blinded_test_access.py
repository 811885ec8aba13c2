"""Who may do what in the assessment's pages: the owner by a token, an assessor by a code, each kept in a cookie."""

import secrets
from dataclasses import dataclass, field

from fastapi import Request, Response

from phenolens.blinded_test.compute import find_assessor
from phenolens.blinded_test.database import CODE_LETTERS, AssessmentFile, Assessor, plain_code
from phenolens.study import Study
from phenolens.web.base import Limiter, from_another_site

OWNER, ASSESSOR = "phenolens_owner", "phenolens_assessor"  # cookies
LIFE_SECONDS = 90 * 24 * 3600  # of an assessor's cookie, on their own machine


class RefusedError(Exception):
    """A request that is not let in: a status, a title, and what to do."""

    def __init__(self, status: int, title: str, words: str) -> None:
        super().__init__(words)
        self.status, self.title, self.words = status, title, words


@dataclass(frozen=True)
class Door:
    """Lets in whoever has the owner's token or an assessor's code."""

    study: Study
    token: str
    wrong: Limiter = field(default_factory=lambda: Limiter(burst=20, per_second=0.1))  # tries of one address
    asked: Limiter = field(default_factory=lambda: Limiter(burst=60, per_second=20))  # requests of one code

    def owner(self, request: Request) -> None:
        """Nothing for the owner; RefusedError for all others."""
        given = request.cookies.get(OWNER, "")
        if not self.is_token(given):
            self.count_wrong(request, bool(given))
            raise RefusedError(
                403, "For the owner", "Open the owner's address, which `phenolens assess` said when it began."
            )
        self._same_site(request)

    def is_token(self, given: str) -> bool:
        """Whether this is the owner's token; it takes as long for any."""
        return secrets.compare_digest(given.encode("utf-8", "replace"), self.token.encode())

    def assessor(self, request: Request) -> tuple[AssessmentFile, Assessor]:
        """Who asks, by the cookie; RefusedError when that says nobody, or for more requests than a person makes."""
        self._same_site(request)
        code = request.cookies.get(ASSESSOR, "")
        found = self.of_code(request, code)
        if not self.asked.allows(found[1].code):
            raise RefusedError(429, "Too fast", "Wait a second, then load this page again. Your answers are kept.")
        return found

    def of_code(self, request: Request, typed: str) -> tuple[AssessmentFile, Assessor]:
        """Whose code was typed; RefusedError for nobody's, and for guessing."""
        code = plain_code(typed[:100])
        found = find_assessor(self.study, code) if len(code) == CODE_LETTERS else None
        if found is None:
            self.count_wrong(request, bool(code))
            title = "No such code" if code else "Your code, please"
            raise RefusedError(
                403, title, "Enter the code that you were given. Letters may be small, hyphens left out."
            )
        return found

    def count_wrong(self, request: Request, tried: bool) -> None:
        """RefusedError when one address has tried too many tokens or codes that are none."""
        client = request.client.host if request.client else ""
        if tried and not self.wrong.allows(client):
            raise RefusedError(429, "Too many wrong codes", "Wait some minutes, then enter the right one.")

    def _same_site(self, request: Request) -> None:
        if request.method != "GET" and from_another_site(request):
            raise RefusedError(403, "From another site", "Open this page itself and send the form from there.")


def keep(response: Response, cookie: str, value: str, *, seconds: int | None) -> Response:
    """The answer with a cookie that no script reads and that other sites' forms do not send."""
    response.set_cookie(cookie, value, max_age=seconds, httponly=True, samesite="lax", path="/")
    return response
