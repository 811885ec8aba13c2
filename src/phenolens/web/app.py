"""The explorer as a web application: addresses, pages and what protects them; it reads and never writes.

An address holds names of the study, each quoted as one piece (`/treatments/mevinolin%2Flovastatin%405`).
"""

import base64
import hashlib
import re
from typing import Annotated, Any

from fastapi import FastAPI, Query, Response
from fastapi.responses import HTMLResponse

from phenolens.colours import colour_words
from phenolens.errors import InputError
from phenolens.study import Study
from phenolens.viewing.published import COLUMN_TITLES
from phenolens.viewing.scoretable import score_rows
from phenolens.web.explorer import Cells, Explorer, NotInStudyError, known
from phenolens.web.headers import FOREVER, add_headers, add_hosts, policy
from phenolens.web.maps import add_maps
from phenolens.web.pages import Pages, address
from phenolens.web.problems import add_problems
from phenolens.web.scripts import Scripts

WELL_CELLS = 64  # cells on one page of a well
SHOWN_CELLS = 16  # cells of a treatment, nearest or random
DOSE_CELLS = 5  # cells of each dose of a compound
NEIGHBOURS = 6  # nearest other treatments
SHADES = 5  # of the plate's heat map

SECTIONS = {"map": "/map"}  # the places that every page leads to, beside home

Draw = Annotated[int, Query(ge=0, le=9999)]
PageNumber = Annotated[int, Query(ge=1, le=1_000_000, alias="page")]


def create_app(study: Study) -> FastAPI:
    """The explorer of one study, to be served on this machine."""
    app = FastAPI(title="phenolens explorer", docs_url=None, redoc_url=None, redirect_slashes=False)
    explorer, pages, scripts = Explorer(study), Pages(study), Scripts()
    pages.templates.globals["sections"] = SECTIONS
    scripts.serve(app)
    _add_home(app, explorer, pages)
    _add_plates(app, explorer, pages)
    _add_treatments(app, explorer, pages)
    add_maps(app, explorer, pages, scripts)
    _add_files(app, explorer, pages)
    add_problems(app, pages, wrong_method="The explorer shows a study and changes nothing in it.")
    add_headers(app)
    add_hosts(app)
    return app


def _add_home(app: FastAPI, explorer: Explorer, pages: Pages) -> None:
    @app.get("/", response_class=HTMLResponse)
    def home(run: str = "") -> Response:
        try:
            cells = explorer.cells()
        except InputError as reason:
            return pages.page("empty.html", reason=reason)
        run, scores = explorer.run(run), explorer.scores()
        return pages.page(
            "home.html",
            run=run,
            cells=cells,
            treated=cells.treatments[cells.treatments["role"] == "treated"],
            models=explorer.models(),
            verdict=explorer.verdict(run),
            rows=None if scores is None else score_rows(scores, with_published=False),
            column_titles=COLUMN_TITLES,
            wrong=explorer.wrong(run),
            fewest=cells.wells.sort_values("n_cells", kind="stable").iloc[0],
            next_step=explorer.next_step(),
            has_report=explorer.study.report.is_file(),
        )


def _add_plates(app: FastAPI, explorer: Explorer, pages: Pages) -> None:
    @app.get("/plates/{plate:path}", response_class=HTMLResponse)
    def plate(plate: str) -> Response:
        cells = explorer.cells()
        wells = cells.plate(plate)
        shade = (SHADES * wells["n_cells"] / wells["n_cells"].max()).round().astype(int)
        letters = sorted({well[:-2] for well in wells.index}, key=lambda letter: (len(letter), letter))
        numbers = [int(well[-2:]) for well in wells.index]
        return pages.page(
            "plate.html",
            plate=plate,
            plates=cells.store.plates,
            wells=wells.assign(shade=shade).to_dict("index"),
            letters=letters,
            columns=range(min(numbers, default=1), max(numbers, default=0) + 1),
        )

    @app.get("/wells/{plate}/{well}", response_class=HTMLResponse)
    def well(plate: str, well: str, number: PageNumber = 1, channel: str = "") -> Response:
        cells = explorer.cells()
        rows = cells.rows_of_well(plate, well)
        first, n_pages = (number - 1) * WELL_CELLS, -(-len(rows) // WELL_CELLS)
        if number > n_pages:
            raise NotInStudyError(f"Well {well} has {n_pages} pages of cells, not {number}. Go to page 1.")
        return pages.page(
            "well.html",
            plate=plate,
            well=well,
            about=cells.plate(plate).loc[well],
            first=first,
            shown=cells.shown(rows[first : first + WELL_CELLS]),
            number=number,
            n_pages=n_pages,
            **_pictures(cells, channel),
        )


def _add_treatments(app: FastAPI, explorer: Explorer, pages: Pages) -> None:
    @app.get("/treatments/{treatment:path}", response_class=HTMLResponse)
    def treatment(treatment: str, run: str = "", channel: str = "", draw: Draw = 0) -> Response:
        cells = explorer.cells()
        known(treatment, list(cells.treatments.index), what="treatment")
        about, run = cells.treatments.loc[treatment], explorer.run(run)
        nearest = explorer.nearest_to_mean(run, treatment, n=SHOWN_CELLS)
        judged = explorer.judged(run)
        return pages.page(
            "treatment.html",
            treatment=treatment,
            about=about,
            run=run,
            models=explorer.models(),
            wells=cells.wells[(cells.wells["treatment"] == treatment) & (cells.wells["role"] == about["role"])],
            nearest=list(zip(cells.shown(nearest), nearest.values())),
            random=cells.shown(cells.random(treatment, SHOWN_CELLS, draw=draw)),
            draw=draw,
            judged={name: table.loc[treatment] for name, table in judged.items() if treatment in table.index},
            neighbours=explorer.neighbours(run, treatment, n=NEIGHBOURS),
            listed=cells.treatments,
            series=[
                (name, row, cells.shown(cells.random(str(name), DOSE_CELLS)))
                for name, row in cells.doses_of(treatment).iterrows()
            ],
            next_step=explorer.next_step(),
            **_pictures(cells, channel),
        )


def _pictures(cells: Cells, channel: str) -> dict[str, Any]:
    """What every page with pictures needs; the channel is checked."""
    if channel:
        known(channel, cells.store.channels, what="channel")
    version = cells.store.identity[:12]
    return {
        "channel": channel,
        "channels": cells.store.channels,
        "colours": colour_words(cells.contrast),
        "side": cells.store.crop_px,
        "picture": lambda cell_id: address("cells", f"{cell_id}.png", channel=channel, v=version),
    }


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
        html = path.read_text(encoding="utf-8")
        return HTMLResponse(html, headers={"Content-Security-Policy": _policy_of(html)})


def _policy_of(html: str) -> str:
    """The policy under which a report shows: its pictures are inside it, its one style is named by its hash."""
    styles = re.findall(r"<style>(.*?)</style>", html, flags=re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() for style in styles]
    allowed = " ".join(f"'sha256-{text}'" for text in hashes) or "'none'"
    return policy(img_src="data:", style_src=allowed)
