"""The explorer: a study's pages, on this machine, read-only."""

import base64
import hashlib
import re
from importlib.resources import files
from pathlib import Path
from threading import Thread
from typing import Annotated

from fastapi import Depends, Request, Response
from fastapi.responses import HTMLResponse

from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.progress import tell
from phenolens.profiles.score_table import headline_scores, score_rows
from phenolens.runs.scores import activity_of, profiles_in_words, verdict_of
from phenolens.study import Study
from phenolens.web.base import HOSTS, NotFoundError, PageApp, StaticFolder, policy
from phenolens.web.cell_page import Levels, add_cells
from phenolens.web.fields import Fields
from phenolens.web.plates_page import add_plates
from phenolens.web.study_view import NoCellsError, StudyView
from phenolens.web.travel_page import add_travel
from phenolens.web.treatment_page import add_treatments
from phenolens.web.umap_map import MapQuery, add_map

HOME_CELLS = 5  # of each row of the home page
SECTIONS = ("plates", "map", "travel")  # linked from every page, besides home
# Put into the report when the explorer serves it: the file itself, opened from a disk, has no explorer to go back to
BACK = '<main>\n<nav aria-label="Explorer"><p><a href="/">Back to the explorer</a></p></nav>'
IMMUTABLE = {"Cache-Control": "private, max-age=31536000, immutable"}  # for addresses that hold a hash of the content


def create_app(study: Study, *, source: Path | None = None, hosts: tuple[str, ...] = HOSTS) -> PageApp:
    """The explorer of one study.

    Args:
        study: Its folder; nothing in it is changed.
        source: Folder with its images, to show cells in their fields.
        hosts: Host names that are answered.
    """
    app = PageApp(study, error_page="problem.html")
    app.templates.globals["sections"] = SECTIONS
    app.mount("/plotly", StaticFolder(directory=str(files("plotly") / "package_data")))
    view = StudyView(study)
    app.state.view = view
    _add_home(app, view)
    add_plates(app, view)
    add_treatments(app, view)
    app.state.maps = add_map(app, view)
    app.state.travels = add_travel(app, view)
    _add_files(app, view)
    add_cells(app, view, Fields(study, source))

    @app.exception_handler(NoCellsError)
    def no_cells(request: Request, error: NoCellsError) -> Response:
        return app.page("empty.html", status=404, reason=str(error))

    app.protect(hosts)
    return app


def prepare(app: PageApp) -> None:
    """Read what the first pages show, and load the model in the background; of a large study only the libraries.

    What cannot be read yet is printed, and the pages show it.
    """
    view = app.state.view
    try:
        cells = view.cells()
        run = view.run("")
        progress = view.models().get(run, {})
        n_treatments, n_plates = len(cells.catalogue.treatments), len(cells.store.plates)
        on = f"{counted(n_treatments, 'treatment')} on {counted(n_plates, 'plate')}"
        tell(f"{counted(len(cells.store), 'cell')} of {on}")
        for path in view.damaged():
            tell(f"{path}: damaged; run `phenolens embed {view.study.quoted}`")
        if progress.get("embedded"):
            app.state.maps.groups(MapQuery(run, "cells", "pca"), "mechanism")
        if progress.get("profiled") and not app.state.maps.too_few_treatments():
            app.state.maps.groups(MapQuery(run, "treatments", "pca"), "mechanism")
        if progress.get("embedded"):
            # not a daemon: a process that ends while PyTorch computes is aborted; Ctrl+C waits for some seconds
            Thread(target=app.state.travels.preload, name="load the model for travels").start()
    except (InputError, NotFoundError, OSError) as reason:
        tell(f"not everything can be shown yet: {reason}")


def _add_home(app: PageApp, view: StudyView) -> None:
    @app.get("/", response_class=HTMLResponse)
    def home(run: str = "") -> Response:
        try:
            cells = view.cells()
        except InputError as reason:
            return app.page("empty.html", reason=reason)
        chosen, run, scores, headline = run, view.run(run), view.scores(), view.study.headline["whitening"]
        return app.page(
            "home.html",
            run=run,
            chosen=chosen,
            cells=cells,
            treated=cells.catalogue.treatments.query("role == 'treated'"),
            few=app.state.maps.too_few_treatments(),
            models=view.models(),
            verdict=verdict_of(view.study, run, scores, activity_of(view.study, run))
            if run and scores is not None
            else "",
            scored=scores is not None,
            headline={}
            if scores is None
            else headline_scores(score_rows(scores, with_published=False, headline=headline)),
            profile=profiles_in_words(view.study, run),
            wrong=view.wrong(run),
            fewest=cells.catalogue.wells.sort_values("n_cells", kind="stable").iloc[0],
            strongest=[
                (name, mechanism, cells.records(cells.random(name, HOME_CELLS)))
                for mechanism, name in view.strongest_by_mechanism(run).items()
            ],
            next_step=view.next_step(),
            unfinished=view.unfinished(),
            damaged=view.damaged(),
            **cells.picture_values(""),
            has_report=view.study.report_path.is_file(),
        )


def _add_files(app: PageApp, view: StudyView) -> None:
    @app.get("/cells/{cell_id:path}.png")
    def cell(
        cell_id: str, levels: Annotated[Levels, Depends()], channel: str = "", outline: bool = False, v: str = ""
    ) -> Response:
        cells = view.cells()
        picture = cells.png(cell_id, channel=channel, outline=outline, contrast=levels.of(cells.contrast))
        headers = IMMUTABLE if v == cells.store.identity[:12] else {}
        return Response(picture, media_type="image/png", headers=headers)

    @app.get("/report", response_class=HTMLResponse)
    def report() -> Response:
        path = view.study.report_path
        if not path.is_file():
            raise NotFoundError(f"There is no report yet. Next: {view.next_step()}")
        try:
            html = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: damaged; run `phenolens report {view.study.quoted}`") from error
        served = html.replace("<main>", BACK, 1)
        return HTMLResponse(served, headers={"Content-Security-Policy": _report_policy(html)})


def _report_policy(html: str) -> str:
    """The policy of a report: its images are embedded, and its style is allowed by its hash."""
    styles = re.findall(r"<style>(.*?)</style>", html, flags=re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() for style in styles]
    allowed = " ".join(f"'sha256-{text}'" for text in hashes) or "'none'"
    return policy(img_src="data:", style_src=allowed)
