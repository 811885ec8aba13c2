"""The map's page and what it fetches: places and groups as plain numbers, so that a million cells open at once.

N cells of a study, n points of a map. Numbers of points are the map's own: see `phenolens.web.projection`.

n points, G groups.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from fastapi import FastAPI, Query, Response
from fastapi.responses import HTMLResponse, JSONResponse

from phenolens.core.errors import InputError
from phenolens.screens.screen import dose_label, treatment_label
from phenolens.web.base import NotFoundError, Pages, address, policy
from phenolens.web.projection import UMAP_CELLS, Map, Way, map_of_cells, map_of_treatments
from phenolens.web.study_view import StudyView

# Okabe and Ito's colours without the yellow, which is lost on white; their order keeps neighbours far apart.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9")
# The groups after the first six are darker, then paler: on a map of many points their signs are too small to see.
SHADES = (None, ("#000000", 0.42), ("#ffffff", 0.5))
SIGNS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "triangle-down")
CONTROL, UNKNOWN = "#1f2933", "#a9b1ba"
DOSES = ("#00204c", "#31446b", "#666970", "#958f78", "#cbba69")  # cividis (Nuñez et al. 2018) without its yellow

BY = {
    "mechanism": "moa",
    "compound": "compound",
    "dose": "concentration_um",
    "plate": "plate",
    "batch": "batch",
}


@dataclass(frozen=True)
class Groups:
    """Which group each point is of, and how groups are drawn."""

    codes: np.ndarray  # (n,) uint16
    names: tuple[str, ...]  # (G,)
    colours: tuple[str, ...]  # (G,) as #rrggbb
    signs: tuple[str, ...]  # (G,) names of plotly's symbols

    def as_json(self) -> list[dict[str, object]]:
        """A group each: its name, how many points it has, its colour and sign."""
        counts = np.bincount(self.codes, minlength=len(self.names)).tolist()
        described = zip(self.names, counts, self.colours, self.signs)
        return [{"name": n, "count": c, "colour": colour, "sign": sign} for n, c, colour, sign in described]


def grouped(table: pd.DataFrame, by: str) -> Groups:
    """The rows of a table (n rows: role and the column of `by`) in groups; controls first, unknown mechanisms last."""
    if by == "dose":
        return _by_dose(table[BY[by]])
    values, control = table[BY[by]].astype(str), (table["role"] == "control").to_numpy()
    if by == "mechanism":
        values = values.where(~control, "control")
    controls = {"mechanism": {"control"}, "compound": set(values[control].unique())}.get(by, set())
    codes, uniques = pd.factorize(values, sort=True)
    names = sorted(map(str, uniques), key=lambda name: (name not in controls, name == "", name))
    place = {name: number for number, name in enumerate(names)}
    plain = [name for name in names if name and name not in controls]
    colours, signs = dict.fromkeys(controls, CONTROL) | {"": UNKNOWN}, {}
    for number, name in enumerate(plain):
        colours[name] = _shaded(COLOURS[number % len(COLOURS)], number // len(COLOURS) % len(SHADES))
        signs[name] = SIGNS[number // len(COLOURS) % len(SIGNS)]
    return Groups(
        np.array([place[str(name)] for name in uniques], np.uint16)[codes],
        tuple(name or "mechanism not known" for name in names),
        tuple(colours[name] for name in names),
        tuple(signs.get(name, SIGNS[0]) for name in names),
    )


def _by_dose(doses: pd.Series) -> Groups:
    """By concentration in µM, from light for the lowest to dark for the highest."""
    codes, uniques = pd.factorize(doses, sort=True)
    positions = np.linspace(len(DOSES) - 1, 0, len(uniques)) if len(uniques) > 1 else np.zeros(1)
    colours = tuple(_between(float(position)) for position in positions[: len(uniques)])
    return Groups(
        codes.astype(np.uint16), tuple(dose_label(dose) for dose in uniques), colours, (SIGNS[0],) * len(uniques)
    )


def _between(position: float) -> str:
    """The colour at a position between those of DOSES."""
    low = min(int(position), len(DOSES) - 2)
    return _mixed(DOSES[low], DOSES[low + 1], position - low)


def _shaded(colour: str, number: int) -> str:
    shade = SHADES[number]
    return colour if shade is None else _mixed(colour, *shade)


def _mixed(colour: str, other: str, share: float) -> str:
    """A colour #rrggbb with this share of another one."""
    first, second = (np.array([int(one[at : at + 2], 16) for at in (1, 3, 5)]) for one in (colour, other))
    return "#" + "".join(f"{round(value):02x}" for value in (first + share * (second - first)).tolist())


Of = Literal["treatments", "cells"]
By = Literal["mechanism", "compound", "dose", "plate", "batch"]
Numbers = Annotated[str, Query(max_length=400, pattern=r"^\d{1,9}(,\d{1,9}){0,31}$")]
Text = Annotated[str, Query(min_length=1, max_length=200)]

Found = Annotated[str, Query(max_length=200)]

KEPT_MAPS = 6  # in memory, of a million cells 16 MB each
MOST_FOUND = 2000  # points that a search marks
# plotly.js compiles its WebGL programs with Function(), and keeps its rules in a style that is empty in the page:
# this page alone allows the first, and the hash of nothing. The style of its geographic maps, which are not used here,
# stays out: a browser's console says so.
EMPTY_STYLE = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
MAP_POLICY = policy(
    script_src="'self' 'unsafe-eval'",
    style_src=f"'self' {EMPTY_STYLE}",
    img_src="'self' data:",
    connect_src="'self'",
    form_action="'self'",
)


class Maps:
    """The maps that were looked at, each made once."""

    def __init__(self, view: StudyView) -> None:
        self._view = view
        self._making: dict[tuple[str, ...], Lock] = {}  # of each map, so that none waits for another
        self._keeping = Lock()
        self._kept: OrderedDict[tuple[str, ...], tuple[Map, pd.DataFrame]] = OrderedDict()
        self._groups: OrderedDict[tuple[str, ...], Groups] = OrderedDict()

    def map(self, run: str, of: Of, way: Way) -> tuple[Map, pd.DataFrame]:
        """A run's map, and the table that its `rows` are rows of; NotFoundError, with the reason, where none is."""
        key = self._key(run, of, way)
        with self._making.setdefault(key, Lock()):
            kept = self._kept.get(key)
            if kept is None:
                try:
                    made = self._made(run, of, way)
                except InputError as error:
                    raise NotFoundError(f"{error}.") from error
                cells = self._view.cells()
                kept = made, cells.table if of == "cells" else _described(cells.wells, made.names)
                with self._keeping:
                    _remember(self._kept, key, kept)
            return kept

    def _made(self, run: str, of: Of, way: Way) -> Map:
        study = self._view.study
        if not run:
            raise InputError(f"no model is trained yet; run `{self._view.next_step()}`")
        if of == "cells":
            return map_of_cells(study, run, self._view.cells().store, way=way)
        return map_of_treatments(study, run, way=way)

    def groups(self, run: str, of: Of, way: Way, by: By) -> Groups:
        """The points of a map in groups."""
        made, table = self.map(run, of, way)
        key = (*self._key(run, of, way), by)
        found = self._groups.get(key)
        if found is None:
            found = grouped(table[["role", BY[by]]].iloc[made.rows], by)
            with self._keeping:
                _remember(self._groups, key, found)
        return found

    def found(self, run: str, of: Of, way: Way, text: str) -> np.ndarray:
        """Numbers of the points whose names hold this text, whatever its capitals."""
        made, table = self.map(run, of, way)
        wanted = text.casefold().strip()
        matching = np.zeros(len(table), bool)
        for column in ("treatment", "compound", "moa", "plate", "well", "batch"):
            codes, uniques = pd.factorize(table[column])
            matching |= np.array([wanted in str(name).casefold() for name in uniques], bool)[codes]
        if of == "cells":
            row = int(self._view.cells().row_of.get_indexer(pd.Index([text.strip()], dtype=object))[0])
            matching[row : row + 1] |= row >= 0
        return np.flatnonzero(matching[made.rows])

    def _key(self, run: str, of: Of, way: Way) -> tuple[str, ...]:
        """Names what a map is made from: it changes when the run's files do."""
        study = self._view.study
        if not run:
            return "", "", run, of, way
        made_of = (
            study.embeddings_folder(run).glob("*.h5ad") if of == "cells" else study.profiles_folder(run).glob("*.h5ad")
        )
        stamps = hashlib.sha256(repr(sorted((path.name, path.stat().st_mtime_ns) for path in made_of)).encode())
        return self._view.cells().store.identity, stamps.hexdigest(), run, of, way


def add_map(app: FastAPI, view: StudyView, pages: Pages) -> Maps:
    """The map's addresses."""
    maps = Maps(view)

    @app.get("/map", response_class=HTMLResponse)
    def map_page(
        run: str = "", of: Of = "treatments", way: Way = "pca", by: By = "mechanism", find: Found = ""
    ) -> Response:
        view.cells()
        run, models = view.run(run), view.models()
        by = "mechanism" if of == "treatments" and by == "plate" else by  # a treatment lies on several
        ready = bool(run) and models[run]["profiled" if of == "treatments" else "embedded"]
        asked: dict[str, Any] = {"run": run, "of": of, "way": way}
        response = pages.page(
            "map.html",
            run=run,
            of=of,
            way=way,
            by=by,
            find=find,
            choices=list(BY) if of == "cells" else [name for name in BY if name != "plate"],
            models=models,
            ready=ready,
            next_step=view.next_step(run),
            asked=asked,
            umap_cells=UMAP_CELLS,
        )
        response.headers["Content-Security-Policy"] = MAP_POLICY
        return response

    @app.get("/map/places.bin")
    def places(run: str, of: Of, way: Way) -> Response:
        made, _ = maps.map(view.run(run), of, way)
        return Response(made.places.T.astype("<f4").tobytes(), media_type="application/octet-stream")

    @app.get("/map/about.json")
    def about(run: str, of: Of, way: Way) -> Response:
        made, _ = maps.map(view.run(run), of, way)
        return JSONResponse({"words": made.words, "n": len(made.rows), "control": made.control})

    @app.get("/map/groups.bin")
    def codes(run: str, of: Of, way: Way, by: By) -> Response:
        groups = maps.groups(view.run(run), of, way, by)
        return Response(groups.codes.astype("<u2").tobytes(), media_type="application/octet-stream")

    @app.get("/map/groups.json")
    def groups(run: str, of: Of, way: Way, by: By) -> Response:
        return JSONResponse(maps.groups(view.run(run), of, way, by).as_json())

    @app.get("/map/points.json")
    def points(run: str, of: Of, way: Way, numbers: Numbers) -> Response:
        run = view.run(run)
        made, table = maps.map(run, of, way)
        wanted = [int(number) for number in numbers.split(",")]
        if max(wanted) >= len(made.rows):
            raise NotFoundError(f"This map has {len(made.rows):,} points, numbered from 0. Load the page again.")
        describe = _cell_point if of == "cells" else _treatment_point
        return JSONResponse([describe(view, run, table.iloc[int(made.rows[number])]) for number in wanted])

    @app.get("/map/found.json")
    def found(run: str, of: Of, way: Way, text: Text) -> Response:
        numbers = maps.found(view.run(run), of, way, text)
        return JSONResponse({"n": len(numbers), "numbers": numbers[:MOST_FOUND].tolist()})

    return maps


def _cell_point(view: StudyView, run: str, row: pd.Series) -> dict[str, str]:
    picture = address("cells", f"{row['cell_id']}.png", v=view.cells().store.identity[:12])
    where = f"plate {row['plate']}, well {row['well']}, cell {row['cell_id']}"
    link = address("wells", row["plate"], row["well"])
    return {"title": _given(row), "mechanism": _mechanism(row), "where": where, "picture": picture, "link": link}


def _treatment_point(view: StudyView, run: str, row: pd.Series) -> dict[str, str]:
    cells, name = view.cells(), str(row["treatment"])
    known = name in cells.treatments.index
    nearest = view.typical_cell(run, name) if known else None
    picture = ""
    if nearest is not None:
        picture = address("cells", f"{cells.table['cell_id'].iloc[nearest]}.png", v=cells.store.identity[:12])
    where = f"{row['n_wells']} wells of batch {row['batch']}; the cell is the one nearest to its mean"
    link = address("treatments", name, run=run) if known else ""
    return {"title": _given(row), "mechanism": _mechanism(row), "where": where, "picture": picture, "link": link}


def _given(row: pd.Series) -> str:
    return treatment_label(row["compound"], row["concentration_um"], row["role"])


def _mechanism(row: pd.Series) -> str:
    return "control" if row["role"] == "control" else str(row["moa"]) or "mechanism not known"


def _described(wells: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    """A row a treatment of these names, from its wells: what was given, its batches, on how many wells."""
    ours = wells[wells["role"] != "control"]
    by_name = ours.groupby("treatment", sort=False)
    table = by_name.agg(
        compound=("compound", "first"),
        concentration_um=("concentration_um", "first"),
        moa=("moa", "first"),
        batch=("batch", lambda batches: ", ".join(sorted(set(batches.astype(str))))),
        n_wells=("well", "size"),
    )
    table = table.reindex(list(names)).assign(role="treated", plate="", well="")
    table["n_wells"] = table["n_wells"].fillna(0).astype(int)
    missing = {"compound": "", "moa": "", "batch": "", "concentration_um": 0.0}
    return table.fillna(missing).rename_axis("treatment").reset_index()


def _remember(kept: OrderedDict[tuple[str, ...], Any], key: tuple[str, ...], value: Any) -> None:
    kept[key] = value
    while len(kept) > KEPT_MAPS:
        kept.popitem(last=False)
