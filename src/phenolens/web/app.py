"""The explorer as a web application: addresses, pages and what protects them; it reads and never writes.

An address holds names of the study, each quoted as one piece (`/treatments/mevinolin%2Flovastatin%405`).
"""

import base64
import hashlib
import re
from importlib.resources import files
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from phenolens.colours import colour_words
from phenolens.errors import InputError
from phenolens.study import Study
from phenolens.viewing.published import COLUMN_TITLES
from phenolens.viewing.scoretable import score_rows
from phenolens.web.explorer import Cells, Explorer, NotInStudyError, known

WELL_CELLS = 64  # cells on one page of a well
SHOWN_CELLS = 16  # cells of a treatment, nearest or random
DOSE_CELLS = 5  # cells of each dose of a compound
NEIGHBOURS = 6  # nearest other treatments
SHADES = 5  # of the plate's heat map
HOSTS = ("127.0.0.1", "localhost")  # names under which a browser may ask; others would be another site's trick

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}  # for addresses that name what they hold

Draw = Annotated[int, Query(ge=0, le=9999)]
PageNumber = Annotated[int, Query(ge=1, le=1_000_000, alias="page")]


def create_app(study: Study) -> FastAPI:
    """The explorer of one study, to be served on this machine."""
    app = FastAPI(title="phenolens explorer", docs_url=None, redoc_url=None, redirect_slashes=False)
    explorer, pages = Explorer(study), Pages(study)
    _add_home(app, explorer, pages)
    _add_plates(app, explorer, pages)
    _add_treatments(app, explorer, pages)
    _add_files(app, explorer, pages)
    _add_problems(app, pages)
    _add_headers(app)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS), www_redirect=False)
    return app


def address(*parts: object, **query: object) -> str:
    """`/part/part?name=value`, each part quoted as one piece; empty values are left out."""
    path = "/" + "/".join(quote(str(part), safe="") for part in parts)
    asked = urlencode({name: value for name, value in query.items() if value not in ("", None)})
    return f"{path}?{asked}" if asked else path


class Pages:
    """Templates and their style."""

    def __init__(self, study: Study) -> None:
        report = files("phenolens.viewing") / "templates" / "report.css"  # its look, then the explorer's own
        own = files("phenolens.web") / "static" / "explorer.css"
        self.style = report.read_text(encoding="utf-8") + own.read_text(encoding="utf-8")
        self.style_version = hashlib.sha256(self.style.encode()).hexdigest()[:12]
        self.templates = Environment(
            loader=PackageLoader("phenolens.web"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        style = address("explorer.css", v=self.style_version)
        name = study.folder.resolve().name
        self.templates.globals.update(address=address, study=name, study_folder=str(study.folder), style=style)
        self.templates.filters["count"] = lambda number: f"{int(number):,}"
        self.templates.filters["dose"] = lambda um: f"{um:g} µM"

    def page(self, template: str, *, status: int = 200, **shown: Any) -> HTMLResponse:
        """A template with its values."""
        return HTMLResponse(self.templates.get_template(template).render(**shown), status_code=status)

    def problem(self, status: int, title: str, words: str) -> HTMLResponse:
        """A page that says what is wrong and what to do."""
        return self.page("problem.html", status=status, title=title, words=words)


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
    sources = f"default-src 'none'; img-src data:; style-src {allowed}"
    return f"{sources}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def _add_problems(app: FastAPI, pages: Pages) -> None:
    @app.exception_handler(NotInStudyError)
    def not_in_study(request: Request, error: NotInStudyError) -> Response:
        return pages.problem(404, "Not in this study", str(error))

    @app.exception_handler(HTTPException)
    def no_page(request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:
            return pages.problem(405, "Only to look at", "The explorer shows a study and changes nothing in it.")
        return pages.problem(error.status_code, "No such page", "Go home and follow the links from there.")

    @app.exception_handler(RequestValidationError)
    def bad_number(request: Request, error: RequestValidationError) -> Response:
        names = ", ".join(str(place["loc"][-1]) for place in error.errors())
        return pages.problem(422, "An address with a wrong number", f"Take {names} out of the address, or go home.")

    @app.exception_handler(InputError)
    @app.exception_handler(OSError)
    def unreadable(request: Request, error: Exception) -> Response:
        return pages.problem(500, "The study cannot be read", f"{error}. Nothing in it was changed.")


def _add_headers(app: FastAPI) -> None:
    @app.middleware("http")
    async def with_headers(request: Request, go_on: Any) -> Response:
        response: Response = await go_on(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response
