"""The blinded assessment as a web application: assessors judge one cell after the other, the owner sees what they said.

Nothing that an assessor is sent tells a real cell from a redrawn one, or names its treatment: pictures have one size
and length, names drawn by chance and an order of each assessor's own, and are sent only when it is their turn.
"""

from importlib.resources import files
from typing import Annotated, Literal

from fastapi import FastAPI, Form, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse

from phenolens.blinded_test.database import plain_code, shown_code
from phenolens.study import Study
from phenolens.web.base import (
    FOREVER,
    HEADERS,
    HOSTS,
    NotHereError,
    Pages,
    add_headers,
    add_hosts,
    add_icon,
    add_problems,
    add_sizes,
    policy,
)
from phenolens.web.blinded_test_access import ASSESSOR, LIFE_SECONDS, Door, RefusedError, keep
from phenolens.web.blinded_test_owner import add_owner

SHEETS = ("explorer.css", "assessment.css")
# answers must not lie in a cache, and a form of these pages says that it comes from them
OF_ASSESSMENTS = HEADERS | {
    "Content-Security-Policy": policy(script_src="'self'", form_action="'self'"),
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
PictureId = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]
Code = Annotated[str, Form(max_length=100)]


def create_app(study: Study, *, token: str, hosts: tuple[str, ...] = HOSTS) -> FastAPI:
    """The assessments of one study; `token` is the owner's, `hosts` are the names under which browsers may ask."""
    app = FastAPI(title="phenolens assessment", docs_url=None, redoc_url=None, redirect_slashes=False)
    pages, door = Pages(study, sheets=SHEETS, problems="assess_problem.html"), Door(study, token)
    pages.templates.filters["code"] = shown_code
    _add_entry(app, pages, door)
    _add_test(app, pages, door)
    add_owner(app, pages, door)
    _add_files(app, pages)
    add_icon(app)
    add_problems(app, pages, wrong_method="Go to the beginning and follow the buttons from there.")
    _add_refusals(app, pages)
    add_sizes(app, pages.problem)
    add_hosts(app, hosts)  # before the headers, which its refusals have too
    add_headers(app, OF_ASSESSMENTS)
    return app


def _add_entry(app: FastAPI, pages: Pages, door: Door) -> None:
    @app.get("/", response_class=HTMLResponse)
    def enter() -> Response:
        return pages.page("assess_enter.html", title="Your code, please", words="")

    @app.post("/begin", status_code=303, response_class=RedirectResponse)
    def begin(request: Request, code: Code) -> Response:
        door.of_code(request, code)
        return keep(_to("/begin"), ASSESSOR, plain_code(code), seconds=LIFE_SECONDS)

    @app.get("/begin/{code}", status_code=303, response_class=RedirectResponse)
    def begin_by_link(request: Request, code: str) -> Response:
        door.of_code(request, code)
        return keep(_to("/begin"), ASSESSOR, plain_code(code), seconds=LIFE_SECONDS)

    @app.get("/begin", response_class=HTMLResponse)
    def explain(request: Request) -> Response:
        file, assessor = door.assessor(request)
        if file.turn(assessor.number) is None:
            return _to("/end")
        each_channel = file.about()["each_channel"]
        return pages.page("assess_begin.html", assessor=assessor, n=file.n_pictures(), each_channel=each_channel)

    @app.post("/pause", response_class=HTMLResponse)
    def pause(request: Request) -> Response:
        file, assessor = door.assessor(request)
        response = pages.page("assess_paused.html", assessor=assessor, n=file.n_pictures())
        response.delete_cookie(ASSESSOR, path="/", httponly=True, samesite="lax")
        return response


def _add_test(app: FastAPI, pages: Pages, door: Door) -> None:
    @app.get("/cell", response_class=HTMLResponse)
    def cell(request: Request) -> Response:
        file, assessor = door.assessor(request)
        turn = file.turn(assessor.number)
        return _to("/end") if turn is None else pages.page("assess_cell.html", turn=turn)

    @app.get("/pictures/{picture_id}", response_class=Response, responses={200: {"content": {"image/png": {}}}})
    def picture(request: Request, picture_id: PictureId) -> Response:
        file, assessor = door.assessor(request)
        png = file.shown(assessor.number, picture_id)
        if png is None:
            raise NotHereError("A picture is shown while it is its turn, and not again. Go on with the next cell.")
        return Response(png, media_type="image/png")

    @app.post("/answer", status_code=303, response_class=RedirectResponse)
    def answer(
        request: Request,
        picture: Annotated[str, Form(pattern="^[0-9a-f]{32}$")],
        said: Annotated[Literal["real", "synthetic"], Form()],
    ) -> Response:
        file, assessor = door.assessor(request)
        file.answer(assessor.number, picture, synthetic=said == "synthetic")  # on the disk before the next cell is sent
        return _to("/cell")

    @app.get("/end", response_class=HTMLResponse)
    def end(request: Request) -> Response:
        file, assessor = door.assessor(request)
        if file.turn(assessor.number) is not None:
            return _to("/begin")
        score = file.own_score(assessor.number) if file.about()["show_score"] else None
        return pages.page("assess_end.html", assessor=assessor, score=score)


def _add_files(app: FastAPI, pages: Pages) -> None:
    script = (files("phenolens.web") / "static" / "assessment.js").read_text(encoding="utf-8")

    @app.get(f"/{SHEETS[-1]}")
    def stylesheet(v: Annotated[str, Query(max_length=64)] = "") -> Response:
        return Response(pages.style, media_type="text/css", headers=FOREVER if v == pages.style_version else {})

    @app.get("/assessment.js")
    def keys() -> Response:
        return Response(script, media_type="text/javascript")


def _add_refusals(app: FastAPI, pages: Pages) -> None:
    @app.exception_handler(RefusedError)
    def refused(request: Request, error: RefusedError) -> Response:
        template = "assess_enter.html" if error.status == 403 and not request.url.path.startswith("/owner") else ""
        page = pages.page(template or pages.problems, status=error.status, title=error.title, words=error.words)
        if error.status == 429:
            page.headers["Retry-After"] = "10"
        return page

    @app.exception_handler(RequestValidationError)
    def unread(request: Request, error: RequestValidationError) -> Response:
        names = ", ".join(sorted({str(place["loc"][-1])[:40] for place in error.errors()}))
        return pages.problem(
            422, "Not understood", f"{names}: expected something else. Go back and send the form again."
        )


def _to(path: str) -> RedirectResponse:
    return RedirectResponse(path, status_code=303)
