"""The explorer: a study's pages, on this machine, read-only."""

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
from phenolens.web.base import HEADERS, HOSTS, IMMUTABLE, NotFoundError, Pages, add_errors, add_static, policy
from phenolens.web.map_page import add_map
from phenolens.web.plates_page import add_plates
from phenolens.web.request_limits import add_protection
from phenolens.web.study_view import NoCellsError, StudyView
from phenolens.web.travel_page import add_travel
from phenolens.web.treatment_page import add_treatments

PRELOADED_CELLS = 100_000  # of a study whose model is loaded before the first travel: 100 MB of embeddings
SECTIONS = ("plates", "map", "travel")  # linked from every page, besides home
EXPLORER_HEADERS = HEADERS | {"Content-Security-Policy": policy(form_action="'self'")}


def create_app(study: Study, *, hosts: tuple[str, ...] = HOSTS) -> FastAPI:
    """The explorer of one study; `hosts` are the host names that are answered."""
    app = FastAPI(title="phenolens explorer", docs_url=None, redoc_url=None, redirect_slashes=False)
    pages = Pages(
        study, sheets=("explorer.css",), scripts=("map.js", "travel.js", "plotly.js"), error_page="problem.html"
    )
    pages.templates.globals["sections"] = SECTIONS
    view = StudyView(study)
    app.state.view = view
    _add_home(app, view, pages)
    add_plates(app, view, pages)
    add_treatments(app, view, pages)
    app.state.maps = add_map(app, view, pages)
    app.state.travels = add_travel(app, view, pages)
    _add_files(app, view)
    add_static(app, pages)
    add_errors(app, pages, headers=EXPLORER_HEADERS)

    @app.exception_handler(NoCellsError)
    def no_cells(request: Request, error: NoCellsError) -> Response:
        return pages.page("empty.html", status=404, reason=str(error))

    add_protection(app, hosts=hosts, headers=EXPLORER_HEADERS)
    return app


def prepare(app: FastAPI) -> None:
    """Read what the first pages show, and load the model in the background unless the study is large.

    What cannot be read yet is printed, and the pages show it.
    """
    view = app.state.view
    try:
        cells = view.cells()
        run = view.run("")
        progress = view.models().get(run, {})
        n_treatments, n_plates = len(cells.catalogue.treatments), len(cells.store.plates)
        tell(f"{len(cells.store):,} cells of {n_treatments} treatments on {n_plates} plates")
        for path in view.damaged():
            tell(f"{path}: damaged; run `phenolens embed {view.study.folder}`")
        for step, of in (("embedded", "cells"), ("profiled", "treatments")):
            if progress.get(step):
                app.state.maps.groups(run, of, "pca", "mechanism")
        if progress.get("embedded") and len(cells.store) <= PRELOADED_CELLS:
            # not a daemon: a process that ends while PyTorch computes is aborted; Ctrl+C waits for some seconds
            Thread(target=app.state.travels.preload, name="load the model for travels").start()
    except (InputError, NotFoundError, OSError) as reason:
        tell(f"not everything can be shown yet: {reason}")


def _add_home(app: FastAPI, view: StudyView, pages: Pages) -> None:
    @app.get("/", response_class=HTMLResponse)
    def home(run: str = "") -> Response:
        try:
            cells = view.cells()
        except InputError as reason:
            return pages.page("empty.html", reason=reason)
        chosen, run, scores = run, view.run(run), view.scores()
        return pages.page(
            "home.html",
            run=run,
            chosen=chosen,
            cells=cells,
            treated=cells.catalogue.treatments.query("role == 'treated'"),
            models=view.models(),
            verdict=view.verdict(run),
            rows=None if scores is None else score_rows(scores, with_published=False),
            column_titles=COLUMN_TITLES,
            wrong=view.wrong(run),
            fewest=cells.catalogue.wells.sort_values("n_cells", kind="stable").iloc[0],
            next_step=view.next_step(),
            damaged=view.damaged(),
            has_report=view.study.report_path.is_file(),
        )


def _add_files(app: FastAPI, view: StudyView) -> None:
    @app.get("/cells/{cell_id:path}.png")
    def cell(cell_id: str, channel: str = "", v: str = "") -> Response:
        cells = view.cells()
        headers = IMMUTABLE if v == cells.store.identity[:12] else {}
        return Response(cells.png(cell_id, channel=channel), media_type="image/png", headers=headers)

    @app.get("/report", response_class=HTMLResponse)
    def report() -> Response:
        path = view.study.report_path
        if not path.is_file():
            raise NotFoundError(f"There is no report yet. Next: {view.next_step()}")
        try:
            html = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: damaged; run `phenolens report {view.study.folder}`") from error
        return HTMLResponse(html, headers={"Content-Security-Policy": _report_policy(html)})


def _report_policy(html: str) -> str:
    """The policy of a report: its images are embedded, and its style is allowed by its hash."""
    styles = re.findall(r"<style>(.*?)</style>", html, flags=re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() for style in styles]
    allowed = " ".join(f"'sha256-{text}'" for text in hashes) or "'none'"
    return policy(img_src="data:", style_src=allowed)
