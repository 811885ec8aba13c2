"""The map's page and its data: places and groups as plain numbers, so that a million cells open at once.

n points of a map, G groups. Points are numbered from 0 in the order of `phenolens.web.umap_projection.Map`.
"""

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import pandas as pd
from fastapi import FastAPI, Query, Response
from fastapi.responses import HTMLResponse, JSONResponse

from phenolens.core.errors import InputError
from phenolens.screens.screen import dose_label, treatment_label
from phenolens.web.base import EMPTY_STYLE, NotFoundError, Pages, address, policy
from phenolens.web.study_view import StudyView
from phenolens.web.umap_projection import UMAP_CELLS, Map, Projection, map_of_cells, map_of_treatments

# Okabe and Ito's colours without the yellow, which is invisible on white; this order keeps neighbours different.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9")
# Groups after the first six are darker, then paler: symbols are too small to see on a map of many points.
SHADES = (None, ("#000000", 0.42), ("#ffffff", 0.5))
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "triangle-down")
CONTROL, UNKNOWN = "#1f2933", "#a9b1ba"
DOSES = ("#00204c", "#31446b", "#666970", "#958f78", "#cbba69")  # cividis (Nuñez et al. 2018) without its yellow
COLUMNS = {
    "mechanism": "moa",
    "compound": "compound",
    "dose": "concentration_um",
    "plate": "plate",
    "batch": "batch",
}
CACHED_MAPS = 6  # in memory; 16 MB each for a million cells
MAX_FOUND = 2000  # points that a search marks
# plotly.js compiles its WebGL programs with Function(), which only this page allows. The style of plotly's geographic
# maps, which are not used here, is refused: a browser's console says so.
MAP_POLICY = policy(
    script_src="'self' 'unsafe-eval'",
    style_src=f"'self' {EMPTY_STYLE}",
    img_src="'self' data:",
    connect_src="'self'",
    form_action="'self'",
)

Of = Literal["treatments", "cells"]
By = Literal["mechanism", "compound", "dose", "plate", "batch"]
Numbers = Annotated[str, Query(max_length=400, pattern=r"^\d{1,9}(,\d{1,9}){0,31}$")]
Text = Annotated[str, Query(min_length=1, max_length=200)]
T = TypeVar("T")


@dataclass(frozen=True)
class Groups:
    """The group of each point, and how groups are drawn."""

    codes: np.ndarray  # (n,) uint16
    names: tuple[str, ...]  # (G,)
    colours: tuple[str, ...]  # (G,) as #rrggbb
    symbols: tuple[str, ...]  # (G,) plotly's names

    def as_json(self) -> list[dict[str, object]]:
        """A dictionary per group: name, number of points, colour, symbol."""
        counts = np.bincount(self.codes, minlength=len(self.names)).tolist()
        keys = ("name", "count", "colour", "symbol")
        return [dict(zip(keys, group)) for group in zip(self.names, counts, self.colours, self.symbols)]


def grouped(table: pd.DataFrame, by: str) -> Groups:
    """The rows of a table (n rows: role and the column of `by`) in groups; controls first, unknown mechanisms last."""
    if by == "dose":
        return _by_dose(table[COLUMNS[by]])
    values, control = table[COLUMNS[by]].astype(str), (table["role"] == "control").to_numpy()
    if by == "mechanism":
        values = values.where(~control, "control")
    controls = {"mechanism": {"control"}, "compound": set(values[control].unique())}.get(by, set())
    codes, uniques = pd.factorize(values, sort=True)
    names = sorted(map(str, uniques), key=lambda name: (name not in controls, name == "", name))
    place = {name: number for number, name in enumerate(names)}
    colours, symbols = dict.fromkeys(controls, CONTROL) | {"": UNKNOWN}, dict.fromkeys(names, SYMBOLS[0])
    for number, name in enumerate(name for name in names if name and name not in controls):
        round_, shade = number // len(COLOURS), SHADES[number // len(COLOURS) % len(SHADES)]
        colour = COLOURS[number % len(COLOURS)]
        colours[name] = colour if shade is None else _mixed(colour, *shade)
        symbols[name] = SYMBOLS[round_ % len(SYMBOLS)]
    return Groups(
        np.array([place[str(name)] for name in uniques], np.uint16)[codes],
        tuple(name or "mechanism not known" for name in names),
        tuple(colours[name] for name in names),
        tuple(symbols[name] for name in names),
    )


def _by_dose(doses: pd.Series) -> Groups:
    """By concentration in µM, from light for the lowest to dark for the highest."""
    codes, uniques = pd.factorize(doses, sort=True)
    colours = []
    for position in np.linspace(len(DOSES) - 1, 0, max(len(uniques), 2))[: len(uniques)] * (len(uniques) > 1):
        low = min(int(position), len(DOSES) - 2)
        colours.append(_mixed(DOSES[low], DOSES[low + 1], float(position) - low))
    names = tuple(dose_label(dose) for dose in uniques)
    return Groups(codes.astype(np.uint16), names, tuple(colours), (SYMBOLS[0],) * len(uniques))


def _mixed(colour: str, other: str, share: float) -> str:
    """A colour #rrggbb with this share of another one."""
    first, second = (np.array([int(one[at : at + 2], 16) for at in (1, 3, 5)]) for one in (colour, other))
    return "#" + "".join(f"{round(value):02x}" for value in (first + share * (second - first)).tolist())


class Maps:
    """The maps of a study, each computed once while its files stay the same."""

    def __init__(self, view: StudyView) -> None:
        self._view = view
        self._computing: dict[tuple[str, ...], Lock] = {}  # one per map, so that none waits for another
        self._caching = Lock()
        self._maps: OrderedDict[tuple[str, ...], tuple[Map, pd.DataFrame]] = OrderedDict()
        self._groups: OrderedDict[tuple[str, ...], Groups] = OrderedDict()

    def map(self, run: str, of: Of, projection: Projection) -> tuple[Map, pd.DataFrame]:
        """A run's map, and the table that its `rows` refer to; NotFoundError, with the reason, where there is none."""
        key = (*self._view.version(run, of), projection)
        with self._computing.setdefault(key, Lock()):
            found = self._maps.get(key)
            if found is None:
                try:
                    found = self._computed(run, of, projection)
                except InputError as error:
                    raise NotFoundError(f"{error}.") from error
                self._store(self._maps, key, found)
            return found

    def groups(self, run: str, of: Of, projection: Projection, by: By) -> Groups:
        """The points of a map in groups."""
        drawn, table = self.map(run, of, projection)
        key = (*self._view.version(run, of), projection, by)
        found = self._groups.get(key)
        if found is None:
            found = grouped(table[["role", COLUMNS[by]]].iloc[drawn.rows], by)
            self._store(self._groups, key, found)
        return found

    def find(self, run: str, of: Of, projection: Projection, text: str) -> np.ndarray:
        """Numbers of the points whose names contain a text, in any case, or of the cell with this id."""
        drawn, table = self.map(run, of, projection)
        wanted = text.casefold().strip()
        matching = np.zeros(len(table), bool)
        for column in ("treatment", "compound", "moa", "plate", "well", "batch"):
            codes, uniques = pd.factorize(table[column])
            matching |= np.array([wanted in str(name).casefold() for name in uniques], bool)[codes]
        if of == "cells":
            row = int(self._view.cells().row_of.get_indexer(pd.Index([text.strip()], dtype=object))[0])
            matching[row : row + 1] |= row >= 0
        return np.flatnonzero(matching[drawn.rows])

    def _computed(self, run: str, of: Of, projection: Projection) -> tuple[Map, pd.DataFrame]:
        study, cells = self._view.study, self._view.cells()
        if not run:
            raise InputError(f"no model is trained yet; run `{self._view.next_step()}`")
        if of == "cells":
            return map_of_cells(study, run, cells.store, projection=projection), cells.catalogue.cells
        drawn = map_of_treatments(study, run, projection=projection)
        return drawn, _treatment_table(cells.catalogue.wells, drawn.names)

    def _store(self, cache: OrderedDict[tuple[str, ...], T], key: tuple[str, ...], value: T) -> None:
        with self._caching:
            cache[key] = value
            while len(cache) > CACHED_MAPS:
                cache.popitem(last=False)


def add_map(app: FastAPI, view: StudyView, pages: Pages) -> Maps:
    """The addresses of the map and its data."""
    maps = Maps(view)

    @app.get("/map", response_class=HTMLResponse)
    def map_page(
        run: str = "",
        of: Of = "treatments",
        projection: Projection = "pca",
        by: By = "mechanism",
        find: Annotated[str, Query(max_length=200)] = "",
    ) -> Response:
        view.cells()
        run = view.run(run)
        by = "mechanism" if of == "treatments" and by == "plate" else by  # a treatment is on several
        query: dict[str, Any] = {"run": run, "of": of, "projection": projection}
        response = pages.page(
            "map.html",
            **query,
            query=query,
            by=by,
            find=find,
            choices=[name for name in COLUMNS if of == "cells" or name != "plate"],
            models=view.models(),
            ready=view.is_done(run, "profiled" if of == "treatments" else "embedded"),
            next_step=view.next_step(run),
            umap_cells=UMAP_CELLS,
        )
        response.headers["Content-Security-Policy"] = MAP_POLICY
        return response

    @app.get("/map/places.bin")
    def places(run: str, of: Of, projection: Projection) -> Response:
        drawn, _ = maps.map(view.run(run), of, projection)
        return Response(drawn.places.T.astype("<f4").tobytes(), media_type="application/octet-stream")

    @app.get("/map/about.json")
    def about(run: str, of: Of, projection: Projection) -> Response:
        drawn, _ = maps.map(view.run(run), of, projection)
        return JSONResponse({"caption": drawn.caption, "n": len(drawn.rows), "control": drawn.control})

    @app.get("/map/groups.bin")
    def codes(run: str, of: Of, projection: Projection, by: By) -> Response:
        groups = maps.groups(view.run(run), of, projection, by)
        return Response(groups.codes.astype("<u2").tobytes(), media_type="application/octet-stream")

    @app.get("/map/groups.json")
    def groups(run: str, of: Of, projection: Projection, by: By) -> Response:
        return JSONResponse(maps.groups(view.run(run), of, projection, by).as_json())

    @app.get("/map/points.json")
    def points(run: str, of: Of, projection: Projection, numbers: Numbers) -> Response:
        run = view.run(run)
        drawn, table = maps.map(run, of, projection)
        wanted = [int(number) for number in numbers.split(",")]
        if max(wanted) >= len(drawn.rows):
            raise NotFoundError(f"This map has {len(drawn.rows):,} points, numbered from 0. Reload the page.")
        describe = _cell_point if of == "cells" else _treatment_point
        return JSONResponse([describe(view, run, table.iloc[int(drawn.rows[number])]) for number in wanted])

    @app.get("/map/found.json")
    def found(run: str, of: Of, projection: Projection, text: Text) -> Response:
        numbers = maps.find(view.run(run), of, projection, text)
        return JSONResponse({"n": len(numbers), "numbers": numbers[:MAX_FOUND].tolist()})

    return maps


def _cell_point(view: StudyView, run: str, row: pd.Series) -> dict[str, str]:
    return {
        **_point(row),
        "where": f"plate {row['plate']}, well {row['well']}, cell {row['cell_id']}",
        "picture": view.cells().picture_address(row["cell_id"]),
        "link": address("wells", row["plate"], row["well"]),
    }


def _treatment_point(view: StudyView, run: str, row: pd.Series) -> dict[str, str]:
    cells, name = view.cells(), str(row["treatment"])
    known = name in cells.catalogue.treatments.index
    typical = view.typical_cell(run, name) if known else None
    return {
        **_point(row),
        "where": f"{row['n_wells']} wells of batch {row['batch']}; the cell is the one nearest to its mean",
        "picture": "" if typical is None else cells.picture_address(cells.row_of[typical]),
        "link": address("treatments", name, run=run) if known else "",
    }


def _point(row: pd.Series) -> dict[str, str]:
    mechanism = "control" if row["role"] == "control" else str(row["moa"]) or "mechanism not known"
    title = treatment_label(str(row["compound"]), row["concentration_um"], row["role"])
    return {"title": title, "mechanism": mechanism}


def _treatment_table(wells: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    """A row per treatment of these names, from its wells: compound, dose, mechanism, batches, number of wells."""
    table = (
        wells[wells["role"] != "control"]
        .groupby("treatment", sort=False)
        .agg(
            compound=("compound", "first"),
            concentration_um=("concentration_um", "first"),
            moa=("moa", "first"),
            batch=("batch", lambda batches: ", ".join(sorted(set(batches.astype(str))))),
            n_wells=("well", "size"),
        )
        .reindex(list(names))
        .assign(role="treated", plate="", well="")
    )
    missing = {"compound": "", "moa": "", "batch": "", "concentration_um": 0.0, "n_wells": 0}
    return table.fillna(missing).astype({"n_wells": int}).rename_axis("treatment").reset_index()
