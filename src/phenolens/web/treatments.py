"""A treatment's page: its cells, its neighbours, how it is scored, its doses; and what can be taken along."""

from threading import Lock
from typing import Annotated, Any

import numpy as np
import pandas as pd
from fastapi import FastAPI, Query, Response
from fastapi.responses import HTMLResponse

from phenolens.core.errors import InputError
from phenolens.crops.store import normalised
from phenolens.morphology.medoids import MEASURED_CELLS, MeasuredCells
from phenolens.web.base import NotFoundError, Pages, download
from phenolens.web.study_view import Cells, StudyView, known, pictures_of

SHOWN_CELLS = 16  # cells of a treatment, nearest or random
DOSE_CELLS = 5  # cells of each dose of a compound
NEIGHBOURS = 6  # nearest other treatments on the page; the download has all
QUICK_CELLS = 100  # of a treatment, above which populations are looked for when that is asked for
POPULATIONS, POPULATION_CELLS = 3, 5  # as many as a travel to medoids has, and cells that are shown of each
LEAST_CELLS = 6  # of a treatment, below which no populations are looked for

Draw = Annotated[int, Query(ge=0, le=9999)]
Name = Annotated[str, Query(max_length=300)]


class Searched:
    """Treatments whose populations were looked for: those to which a travel to medoids leads, each searched once."""

    def __init__(self) -> None:
        self._cells: Cells | None = None
        self._found: dict[str, tuple[list[dict[str, Any]], str]] = {}
        self._searching = Lock()

    def populations(self, cells: Cells, treatment: str) -> tuple[list[dict[str, Any]], str]:
        """Each population's share, its number of cells and the cells most like its medoid; or none, and why."""
        with self._searching:
            if self._cells is not cells:
                control = (cells.table["role"] == "control") & ~cells.table["is_noise"]
                originals = lambda rows: normalised(cells.store.take(rows))  # noqa: E731
                self._measured = MeasuredCells(originals, cells.store.channels, np.flatnonzero(control))
                self._cells, self._found = cells, {}
            if treatment not in self._found:
                self._found[treatment] = self._looked_for(cells, treatment)
            return self._found[treatment]

    def _looked_for(self, cells: Cells, treatment: str) -> tuple[list[dict[str, Any]], str]:
        rows = cells.rows_of(treatment)
        if len(rows) < LEAST_CELLS:
            return [], f"Too few cells to look for populations: {len(rows)}, and at least {LEAST_CELLS} are needed."
        try:
            parted = self._measured.populations(rows, POPULATIONS)
        except InputError as reason:  # no control cells, no channel of nuclei, or cells that are all alike
            return [], f"No populations: {reason}."
        return [
            {
                "share": float(parted.medoids.shares[number]),
                "n": len(parted.rows_of(number)),
                "cells": cells.shown(parted.typical(number, POPULATION_CELLS)),
            }
            for number in range(POPULATIONS)
        ], ""


def add_treatments(app: FastAPI, view: StudyView, pages: Pages) -> None:
    """The addresses of treatments and their downloads."""
    searched = Searched()

    @app.get("/treatments/{treatment:path}", response_class=HTMLResponse)
    def treatment(
        treatment: str, run: str = "", channel: str = "", draw: Draw = 0, populations: bool = False
    ) -> Response:
        cells = view.cells()
        known(treatment, list(cells.treatments.index), what="treatment")
        about, run = cells.treatments.loc[treatment], view.run(run)
        nearest = view.nearest_to_mean(run, treatment, n=SHOWN_CELLS)
        judged = view.judged(run)
        looked_for = populations or len(cells.rows_of(treatment)) <= QUICK_CELLS
        found, none_found = searched.populations(cells, treatment) if looked_for else ([], "")
        return pages.page(
            "treatment.html",
            treatment=treatment,
            about=about,
            run=run,
            models=view.models(),
            wells=cells.wells[(cells.wells["treatment"] == treatment) & (cells.wells["role"] == about["role"])],
            nearest=list(zip(cells.shown(nearest), nearest.values())),
            populations=found,
            no_populations=none_found,
            measured_cells=MEASURED_CELLS,
            random=cells.shown(cells.random(treatment, SHOWN_CELLS, draw=draw)),
            draw=draw,
            judged={name: table.loc[treatment] for name, table in judged.items() if treatment in table.index},
            neighbours=view.neighbours(run, treatment, n=NEIGHBOURS),
            listed=cells.treatments,
            series=[
                (name, row, cells.shown(cells.random(str(name), DOSE_CELLS)))
                for name, row in cells.doses_of(treatment).iterrows()
            ],
            travels=about["role"] != "control" and bool(view.decoding_run()),
            next_step=view.next_step(run),
            **pictures_of(cells, channel),
        )

    @app.get("/downloads/neighbours.csv")
    def neighbours(treatment: Name, run: str = "") -> Response:
        known(treatment, list(view.cells().treatments.index), what="treatment")
        run = view.run(run)
        found = view.neighbours(run, treatment, n=None)
        if not found:
            raise NotFoundError(f"{treatment} has no profile by {run or 'any model'}. Next: {view.next_step(run)}")
        table = pd.DataFrame([vars(neighbour) for neighbour in found]).rename(columns={"distance": "cosine_distance"})
        return _csv(table, f"neighbours_{treatment}_{run}")

    @app.get("/downloads/cells.csv")
    def cells_csv(treatment: Name, run: str = "") -> Response:
        cells, run = view.cells(), view.run(run)
        known(treatment, list(cells.treatments.index), what="treatment")
        rows = cells.rows_of(treatment)
        table = cells.table.iloc[rows].reset_index(drop=True)
        away = view.nearest_to_mean(run, treatment, n=len(rows))
        if away:
            table[f"distance_to_mean_{run}"] = [away[int(row)] for row in rows]
        return _csv(table, f"cells_{treatment}_{run}")

    @app.get("/downloads/cells.png")
    def cells_png(treatment: Name, run: str = "", draw: Draw = 0) -> Response:
        from phenolens.plotting.cell_images import contact_sheet
        from phenolens.plotting.style import png

        cells, run = view.cells(), view.run(run)
        known(treatment, list(cells.treatments.index), what="treatment")
        groups = {f"{treatment}: random": cells.random(treatment, SHOWN_CELLS, draw=draw)}
        nearest = list(view.nearest_to_mean(run, treatment, n=SHOWN_CELLS))
        if nearest:
            groups = {f"{treatment}: nearest to the mean ({run})": np.array(nearest)} | groups
        if not len(groups[f"{treatment}: random"]):
            raise NotFoundError(f"All cells of {treatment} are flagged and left out; its wells show them.")
        crops = [normalised(cells.store.take(rows)) for rows in groups.values()]
        figure = contact_sheet(crops, list(groups), channels=cells.store.channels, contrast=cells.contrast)
        return download(png(figure), "image/png", f"cells_{treatment}_{run}.png")


def _csv(table: pd.DataFrame, name: str) -> Response:
    return download(table.to_csv(index=False).encode(), "text/csv; charset=utf-8", f"{name}.csv")
