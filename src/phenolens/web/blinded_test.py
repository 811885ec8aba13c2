"""The blinded test as a web application: assessors judge one cell after another, the owner sees codes and results.

Nothing that an assessor is sent distinguishes a real cell from a reconstruction or names its treatment: pictures have
one size and length, random names and an order of each assessor's own, and are sent only while they are the current one.

Access needs an assessor's code (100 random bits, too many to guess over a network at any rate) or the owner's token
(192 random bits unless the owner chose one). Either is kept in a signed session cookie.
"""

import secrets
from typing import Annotated, Literal

import pandas as pd
from fastapi import APIRouter, Depends, Form, Path, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.middleware.sessions import SessionMiddleware

from phenolens.blinded_test.compute import assessments, find_assessor, result_tables, results, summary
from phenolens.blinded_test.database import AssessmentFile, Assessor, plain_code, shown_code
from phenolens.blinded_test.statistics import CYTOGAN_PASS_RATE, PAPER_PASS_RATE, AssessmentResults
from phenolens.core.errors import InputError
from phenolens.study import Study
from phenolens.web.base import HEADERS, HOSTS, NotFoundError, PageApp, address, csv, policy

EXAMPLES = 8  # pictures of each kind that were judged wrong most often
SESSION_SECONDS = 90 * 24 * 3600
# Answers must not be cached, and forms of these pages must say where they come from.
ASSESSMENT_HEADERS = HEADERS | {
    "Content-Security-Policy": policy(script_src="'self'", form_action="'self'"),
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class RefusedError(Exception):
    """A request without access, because of "no code", "wrong code", "no owner" or "wrong token"."""


def create_app(study: Study, *, token: str, hosts: tuple[str, ...] = HOSTS) -> PageApp:
    """The blinded tests of one study.

    Args:
        study: its folder; only `assessments/` is written.
        token: the owner's; it also signs the session cookies, so a new one asks everybody for their code again.
        hosts: host names that are answered.
    """
    app = PageApp(study, error_page="assess_problem.html", headers=ASSESSMENT_HEADERS)
    app.state.study, app.state.token = study, token
    app.templates.filters |= {"code": shown_code, "percent": lambda share: f"{100 * share:.0f}\N{NO-BREAK SPACE}%"}
    app.templates.globals |= {"paper": PAPER_PASS_RATE, "cytogan": CYTOGAN_PASS_RATE}
    add_entry(app)
    add_judging(app)
    add_owner(app)

    @app.exception_handler(RefusedError)
    def refused(request: Request, error: RefusedError) -> Response:
        reason = str(error)
        if reason in ("no code", "wrong code"):
            return app.page("assess_enter.html", status=403, wrong_code=reason == "wrong code")
        return app.error(403, reason=reason)

    app.limit_forms()
    app.add_middleware(SessionMiddleware, secret_key=token, session_cookie="phenolens", max_age=SESSION_SECONDS)
    app.protect(hosts)
    return app


def with_code(request: Request, code: str) -> tuple[AssessmentFile, Assessor]:
    """The assessor with this code, and their test; RefusedError when nobody has it."""
    found = find_assessor(request.app.state.study, code) if code else None
    if found is None:
        raise RefusedError("wrong code" if code else "no code")
    return found


def current_assessor(request: Request) -> tuple[AssessmentFile, Assessor]:
    """The assessor of this session, and their test."""
    return with_code(request, request.session.get("code", ""))


def require_owner(request: Request) -> None:
    """Let only the owner's session pass."""
    if not request.session.get("owner"):
        raise RefusedError("no owner")


def named_test(request: Request, name: Annotated[str, Path(max_length=120)]) -> AssessmentFile:
    """The blinded test that the address names."""
    found = assessments(request.app.state.study).get(name)
    if found is None:
        raise NotFoundError("There is no assessment of this name. The owner's page lists all.")
    return found


Current = Annotated[tuple[AssessmentFile, Assessor], Depends(current_assessor)]
NamedTest = Annotated[AssessmentFile, Depends(named_test)]
PICTURE_ID = "^[0-9a-f]{32}$"


def add_entry(app: PageApp) -> None:
    """Pages around the judging: enter a code, instructions, pause, end."""

    @app.get("/", response_class=HTMLResponse)
    def enter() -> Response:
        return app.page("assess_enter.html", wrong_code=False)

    @app.post("/begin", status_code=303, response_class=RedirectResponse)
    def begin(request: Request, code: Annotated[str, Form(max_length=100)]) -> Response:
        with_code(request, code)
        request.session["code"] = plain_code(code)
        return _redirect("/begin")

    @app.get("/begin/{code}", status_code=303, response_class=RedirectResponse)
    def begin_by_link(request: Request, code: str) -> Response:
        return begin(request, code)

    @app.get("/begin", response_class=HTMLResponse)
    def instructions(current: Current) -> Response:
        file, assessor = current
        if file.turn(assessor.number) is None:
            return _redirect("/end")
        each_channel = file.about()["each_channel"]
        return app.page("assess_begin.html", assessor=assessor, n=file.n_pictures(), each_channel=each_channel)

    @app.post("/pause", response_class=HTMLResponse)
    def pause(request: Request, current: Current) -> Response:
        file, assessor = current
        del request.session["code"]
        return app.page("assess_paused.html", assessor=assessor, n=file.n_pictures())

    @app.get("/end", response_class=HTMLResponse)
    def end(current: Current) -> Response:
        file, assessor = current
        if file.turn(assessor.number) is not None:
            return _redirect("/begin")
        score = file.own_score(assessor.number) if file.about()["show_score"] else None
        return app.page("assess_end.html", assessor=assessor, score=score)


def add_judging(app: PageApp) -> None:
    """The current cell, its picture, and the answer."""

    @app.get("/cell", response_class=HTMLResponse)
    def cell(current: Current) -> Response:
        file, assessor = current
        turn = file.turn(assessor.number)
        return _redirect("/end") if turn is None else app.page("assess_cell.html", turn=turn)

    @app.get("/pictures/{picture_id}", response_class=Response, responses={200: {"content": {"image/png": {}}}})
    def picture(current: Current, picture_id: Annotated[str, Path(pattern=PICTURE_ID)]) -> Response:
        file, assessor = current
        png = file.current_picture(assessor.number, picture_id)
        if png is None:
            raise NotFoundError("Only the picture of the current cell is sent. Continue with the next cell.")
        return Response(png, media_type="image/png")

    @app.post("/answer", status_code=303, response_class=RedirectResponse)
    def answer(
        current: Current,
        picture: Annotated[str, Form(pattern=PICTURE_ID)],
        said: Annotated[Literal["real", "synthetic"], Form()],
    ) -> Response:
        file, assessor = current
        file.answer(assessor.number, picture, synthetic=said == "synthetic")  # on the disk before the next cell is sent
        return _redirect("/cell")


def add_owner(app: PageApp) -> None:
    """The owner's pages: all tests, the codes of one, its results."""
    owner = APIRouter(prefix="/owner/assessments", dependencies=[Depends(require_owner)])

    @app.get("/owner", response_class=HTMLResponse)
    def home(request: Request, token: Annotated[str, Query(max_length=200)] = "") -> Response:
        if token:
            if not secrets.compare_digest(token.encode("utf-8", "replace"), app.state.token.encode()):
                raise RefusedError("wrong token")
            request.session["owner"] = True
            return _redirect("/owner")  # the token does not stay in the address
        require_owner(request)
        found = assessments(app.state.study).values()
        return app.page("assess_owner.html", found=[(file, file.about(), file.assessors()) for file in found])

    @owner.get("/{name}", response_class=HTMLResponse)
    def about(request: Request, file: NamedTest) -> Response:
        return app.page(
            "assess_about.html",
            file=file,
            about=file.about(),
            assessors=file.assessors(),
            n=file.n_pictures(),
            base=str(request.base_url),
        )

    @owner.post("/{name}/assessors", status_code=303, response_class=RedirectResponse)
    def add(file: NamedTest, assessor: Annotated[str, Form(max_length=200)]) -> Response:
        try:
            file.add_assessors([assessor])
        except InputError as error:
            return app.error(422, reason="not added", message=f"{error}.")
        return _redirect(address("owner", "assessments", file.name))

    @owner.get("/{name}/results", response_class=HTMLResponse)
    def results_page(file: NamedTest) -> Response:
        found = results(file)
        others = summary(assessments(app.state.study).values())
        return app.page(
            "assess_results.html",
            file=file,
            about=file.about(),
            found=found,
            groups=_groups(found) if found.n_finished else [],
            others=others[others["assessment"] != file.name].to_dict("records"),
            mistaken=found.mistaken(EXAMPLES),
            tables=list(result_tables(file)),
        )

    @owner.get("/{name}/results/{table}.csv", response_class=Response)
    def table(file: NamedTest, table: Annotated[str, Path(max_length=40)]) -> Response:
        tables = result_tables(file)
        if table not in tables:
            raise NotFoundError(f"No such table. There are: {', '.join(tables)}.")
        return csv(tables[table], f"{file.name}_{table}")

    @owner.get("/{name}/pictures/{item}.png", response_class=Response)
    def any_picture(file: NamedTest, item: Annotated[int, Path(ge=0, le=10**6)]) -> Response:
        if item >= file.n_pictures():
            raise NotFoundError(f"There are {file.n_pictures()} pictures, numbered from 0.")
        return Response(file.pictures([item])[0].png, media_type="image/png")

    app.include_router(owner)


def _groups(found: AssessmentResults) -> list[tuple[pd.DataFrame, str, str, str]]:
    """The results by channel, mechanism and treatment, where there are two or more: table, column, its name, plural."""
    all_channels_first = found.shown.sort_values("shown", key=lambda shown: -shown.str.len(), kind="stable")
    groups = [
        (all_channels_first, "shown", "channel", "views"),
        (found.mechanisms, "mechanism", "mechanism", "mechanisms"),
        (found.treatments, "treatment", "treatment", "treatments"),
    ]
    return [group for group in groups if len(group[0]) > 1]


def _redirect(path: str) -> RedirectResponse:
    return RedirectResponse(path, status_code=303)
