"""The owner's pages of the blinded assessment: set up, assessors and their codes, results."""

import threading
from typing import Annotated

import pandas as pd
from fastapi import FastAPI, Form, Path, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from phenolens.blinded_test.compute import (
    MOST_PICTURES,
    AssessmentConfig,
    assessments,
    result_tables,
    results,
    set_up,
    summary,
)
from phenolens.blinded_test.database import AssessmentFile
from phenolens.blinded_test.design import CYTOGAN_PASS_RATE, PAPER_PASS_RATE, power
from phenolens.blinded_test.statistics import AssessmentResults
from phenolens.core.errors import InputError
from phenolens.web.base import NotHereError, Pages, address
from phenolens.web.blinded_test_access import OWNER, Door, RefusedError, keep

POWERS = (25, 50, 100, 200, 400)  # pictures of each kind, in the table beside the form
EXAMPLES = 8  # pictures that were mistaken most often, of each kind

Name = Annotated[str, Path(max_length=120)]
Short = Annotated[str, Form(max_length=200)]


def add_owner(app: FastAPI, pages: Pages, door: Door) -> None:
    """The pages under /owner, for whoever has the token."""
    setting_up = threading.Lock()
    pages.templates.filters["percent"] = lambda share: f"{100 * share:.0f}\N{NO-BREAK SPACE}%"
    pages.templates.globals.update(paper=PAPER_PASS_RATE, cytogan=CYTOGAN_PASS_RATE)

    def form(error: str = "", status: int = 200, **given: object) -> Response:
        shown = {
            "run": "",
            "n": 50,
            "seed": 0,
            "assessors": "",
            "channels": [],
            "show_score": False,
            "each_channel": False,
            "name": "",
        } | given
        return pages.page(
            "assess_owner.html",
            status=status,
            error=error,
            given=shown,
            found=[(file, file.about(), file.assessors()) for file in assessments(door.study).values()],
            runs=door.study.runs(),
            channels=_channels(door),
            powers=[power(n) for n in POWERS],
            most=MOST_PICTURES,
        )

    def of_name(name: str) -> AssessmentFile:
        found = assessments(door.study).get(name)
        if found is None:
            raise NotHereError("There is no assessment of this name. Go to the owner's page, which lists all.")
        return found

    @app.get("/owner", response_class=HTMLResponse)
    def owner(request: Request, token: Annotated[str, Query(max_length=200)] = "") -> Response:
        if token:
            if not door.is_token(token):
                door.count_wrong(request, True)
                raise RefusedError(403, "Not the owner's address", "Open the one that `phenolens assess` said last.")
            return keep(RedirectResponse("/owner", status_code=303), OWNER, token, seconds=None)
        door.owner(request)
        return form()

    @app.post("/owner/assessments", status_code=303, response_class=RedirectResponse)
    def make(
        request: Request,
        assessors: Annotated[str, Form(max_length=8000)],
        run: Short = "",
        n: Annotated[int, Form(ge=1, le=MOST_PICTURES)] = 50,
        seed: Annotated[int, Form(ge=0, lt=2**32)] = 0,
        channels: Annotated[list[str], Form(max_length=32)] = [],  # noqa: B006 (fastapi copies it)
        show_score: bool = Form(default=False),
        each_channel: bool = Form(default=False),
        name: Short = "",
    ) -> Response:
        door.owner(request)
        names = [line.strip() for line in assessors.splitlines() if line.strip()]
        config = AssessmentConfig(run or None, n, tuple(channels), seed, show_score, each_channel)
        try:
            if not names:
                raise InputError("nobody is named who assesses; write at least one name")
            if not setting_up.acquire(blocking=False):
                raise InputError("another assessment is being set up; wait until it is there")
            try:
                made = set_up(door.study, config, names, name=name.strip())
            finally:
                setting_up.release()
        except InputError as error:
            again = dict(run=run, n=n, seed=seed, assessors=assessors, channels=channels, name=name)
            return form(str(error), 422, **again, show_score=show_score, each_channel=each_channel)
        return RedirectResponse(address("owner", "assessments", made.name), status_code=303)

    @app.get("/owner/assessments/{name}", response_class=HTMLResponse)
    def about(request: Request, name: Name) -> Response:
        door.owner(request)
        file = of_name(name)
        base = str(request.base_url)
        return pages.page(
            "assess_about.html",
            file=file,
            about=file.about(),
            assessors=file.assessors(),
            n=file.n_pictures(),
            link=lambda code: f"{base}begin/{code}",
        )

    @app.post("/owner/assessments/{name}/assessors", status_code=303, response_class=RedirectResponse)
    def add(request: Request, name: Name, assessor: Annotated[str, Form(max_length=200)]) -> Response:
        door.owner(request)
        try:
            of_name(name).add_assessors([assessor])
        except InputError as error:
            return pages.problem(422, "Not added", f"{error}.")
        return RedirectResponse(address("owner", "assessments", name), status_code=303)

    @app.get("/owner/assessments/{name}/results", response_class=HTMLResponse)
    def shown_results(request: Request, name: Name) -> Response:
        door.owner(request)
        file = of_name(name)
        found = results(file)
        others = summary(door.study)
        return pages.page(
            "assess_results.html",
            file=file,
            about=file.about(),
            found=found,
            parts=_parts(found) if found.n_finished else [],
            others=others[others["assessment"] != file.name].to_dict("records"),
            mistaken=found.mistaken(EXAMPLES),
            tables=list(result_tables(file)),
        )

    @app.get("/owner/assessments/{name}/results/{table}.csv", response_class=Response)
    def table(request: Request, name: Name, table: Annotated[str, Path(max_length=40)]) -> Response:
        door.owner(request)
        file = of_name(name)
        tables = result_tables(file)
        if table not in tables:
            raise NotHereError(f"There is no such table. There are: {', '.join(tables)}.")
        headers = {"Content-Disposition": f'attachment; filename="{file.name}_{table}.csv"'}
        return Response(tables[table].to_csv(index=False), media_type="text/csv", headers=headers)

    @app.get("/owner/assessments/{name}/pictures/{item}.png", response_class=Response)
    def picture(request: Request, name: Name, item: Annotated[int, Path(ge=0, le=10**6)]) -> Response:
        door.owner(request)
        file = of_name(name)
        if item >= file.n_pictures():
            raise NotHereError(f"There are {file.n_pictures()} pictures, numbered from 0.")
        return Response(file.pictures([item])[0].png, media_type="image/png")


def _parts(found: AssessmentResults) -> list[tuple[pd.DataFrame, str, str, str]]:
    """The results of parts of the pictures, where there are two or more: each table, its first column, two names."""
    all_channels_first = found.shown.sort_values("shown", key=lambda shown: -shown.str.len(), kind="stable")
    parts = [
        (all_channels_first, "shown", "channel", "views"),
        (found.mechanisms, "mechanism", "mechanism", "mechanisms"),
        (found.treatments, "treatment", "treatment", "treatments"),
    ]
    return [part for part in parts if len(part[0]) > 1]


def _channels(door: Door) -> tuple[str, ...]:
    """The study's channels; none while there are no crops."""
    try:
        return door.study.store().channels
    except InputError:
        return ()
