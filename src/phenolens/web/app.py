"""The explorer as a web application: addresses, pages and what protects them; it reads and never writes.

An address holds names of the study, each quoted as one piece (`/treatments/mevinolin%2Flovastatin%405`).
"""

import base64
import hashlib
import re
from threading import Thread

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse

from phenolens.core.errors import InputError
from phenolens.core.progress import tell
from phenolens.profiles.score_table import COLUMN_TITLES, score_rows
from phenolens.study import Study
from phenolens.web.base import (
    FOREVER,
    HEADERS,
    HOSTS,
    Pages,
    Scripts,
    add_headers,
    add_hosts,
    add_icon,
    add_problems,
    policy,
)
from phenolens.web.map import add_maps
from phenolens.web.plates import add_wells
from phenolens.web.study_view import Explorer, NoCellsError, NotInStudyError
from phenolens.web.travel_page import add_travels
from phenolens.web.treatments import add_treatments

OPENED_AHEAD = 100_000  # cells of a study whose travels are opened before they are asked for: 100 MB of embeddings
SECTIONS = ("plates", "map", "travel")  # the places that every page leads to, beside home


def create_app(study: Study, *, hosts: tuple[str, ...] = HOSTS) -> FastAPI:
    """The explorer of one study, to be served on this machine; browsers may ask for it under the names of `hosts`."""
    app = FastAPI(title="phenolens explorer", docs_url=None, redoc_url=None, redirect_slashes=False)
    explorer, pages, scripts = Explorer(study), Pages(study), Scripts()
    pages.templates.globals["sections"] = SECTIONS
    scripts.serve(app)
    _add_home(app, explorer, pages)
    add_wells(app, explorer, pages)
    add_treatments(app, explorer, pages)
    maps = add_maps(app, explorer, pages, scripts)
    travels = add_travels(app, explorer, pages, scripts)
    _add_files(app, explorer, pages)
    _add_empty(app, pages)
    add_icon(app)
    add_problems(app, pages, wrong_method="The explorer shows a study and changes nothing in it.")
    add_hosts(app, hosts)  # before the headers, which its refusals have too
    add_headers(app, HEADERS | {"Content-Security-Policy": policy(form_action="'self'")})  # choices are sent to itself
    app.state.explorer, app.state.maps, app.state.travels = explorer, maps, travels
    return app


def prepare(app: FastAPI) -> None:
    """Read what the first views show, so that they come at once; what is not there yet is told by the pages.

    Travels are opened beside it while the first pages are looked at, unless the study is large.
    """
    explorer, maps = app.state.explorer, app.state.maps
    try:
        cells = explorer.cells()
        run = explorer.run("")
        done = explorer.models().get(run, {})
        tell(f"{len(cells.table):,} cells of {len(cells.treatments)} treatments on {len(cells.store.plates)} plates")
        for path in explorer.damaged():
            tell(f"{path}: damaged; run `phenolens embed {explorer.study.folder}`")
        if done.get("embedded"):
            maps.groups(run, "cells", "pca", "mechanism")
        if done.get("profiled"):
            maps.groups(run, "treatments", "pca", "mechanism")
        if done.get("embedded") and len(cells.table) <= OPENED_AHEAD:
            # no daemon: a process that ends while PyTorch computes is aborted; Ctrl+C waits for it some seconds
            Thread(target=app.state.travels.open_ahead, name="opening travels").start()
    except (InputError, NotInStudyError, OSError) as reason:
        tell(f"not everything can be shown yet: {reason}")


def _add_home(app: FastAPI, explorer: Explorer, pages: Pages) -> None:
    @app.get("/", response_class=HTMLResponse)
    def home(run: str = "") -> Response:
        try:
            cells = explorer.cells()
        except InputError as reason:
            return pages.page("empty.html", reason=reason)
        chosen, run, scores = run, explorer.run(run), explorer.scores()
        return pages.page(
            "home.html",
            run=run,
            chosen=chosen,
            cells=cells,
            treated=cells.treatments[cells.treatments["role"] == "treated"],
            models=explorer.models(),
            verdict=explorer.verdict(run),
            rows=None if scores is None else score_rows(scores, with_published=False),
            column_titles=COLUMN_TITLES,
            wrong=explorer.wrong(run),
            fewest=cells.wells.sort_values("n_cells", kind="stable").iloc[0],
            next_step=explorer.next_step(),
            damaged=explorer.damaged(),
            has_report=explorer.study.report.is_file(),
        )


def _add_empty(app: FastAPI, pages: Pages) -> None:
    @app.exception_handler(NoCellsError)
    def no_cells(request: Request, error: NoCellsError) -> Response:
        return pages.page("empty.html", status=404, reason=str(error))


def _add_files(app: FastAPI, explorer: Explorer, pages: Pages) -> None:
    @app.get("/cells/{cell_id:path}.png")
    def cell(cell_id: str, channel: str = "", v: str = "") -> Response:
        cells = explorer.cells()
        headers = FOREVER if v == cells.store.identity[:12] else {}
        return Response(cells.png(cell_id, channel=channel), media_type="image/png", headers=headers)

    @app.get("/explorer.css")
    def stylesheet(v: str = "") -> Response:
        return Response(pages.style, media_type="text/css", headers=FOREVER if v == pages.style_version else {})

    @app.get("/report", response_class=HTMLResponse)
    def report() -> Response:
        path = explorer.study.report
        if not path.is_file():
            raise NotInStudyError(f"There is no report yet. Next: {explorer.next_step()}")
        try:
            html = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: damaged; run `phenolens report {explorer.study.folder}`") from error
        return HTMLResponse(html, headers={"Content-Security-Policy": _policy_of(html)})


def _policy_of(html: str) -> str:
    """The policy under which a report shows: its pictures are inside it, its one style is named by its hash."""
    styles = re.findall(r"<style>(.*?)</style>", html, flags=re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() for style in styles]
    allowed = " ".join(f"'sha256-{text}'" for text in hashes) or "'none'"
    return policy(img_src="data:", style_src=allowed)
