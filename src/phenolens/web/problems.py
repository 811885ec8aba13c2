"""Every way in which a request can fail, as a page that says what is wrong and what to do."""

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from phenolens.errors import InputError
from phenolens.web.headers import HEADERS
from phenolens.web.pages import Pages


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
