"""A treatment's page: its cells, populations, neighbours, scores and doses, and the downloads."""

from typing import Annotated, Any

import numpy as np
from fastapi import Query, Response
from fastapi.responses import HTMLResponse

from phenolens.core.errors import InputError
from phenolens.crops.store import normalised
from phenolens.morphology.features import short_name
from phenolens.morphology.medoids import MEASURED_CELLS, sampled
from phenolens.runs.scores import profiles_in_words
from phenolens.web.base import Cached, NotFoundError, PageApp, csv, download
from phenolens.web.study_view import StudyCells, StudyView

SHOWN_CELLS = 16  # cells of a treatment, nearest or random
DOSE_CELLS = 5  # cells of each dose of a compound
SHOWN_CHANGES = 8  # measures of real cells
NEIGHBOURS = 6  # nearest other treatments on the page; the download has all
POPULATIONS = 3  # as many as a travel to medoids has
POPULATION_CELLS = 5  # cells shown of each
MIN_CELLS = 6  # of a treatment, to search for populations
CACHED_TREATMENTS = 1000  # whose populations are kept
QUICK_CELLS = 100  # of a treatment, above which populations are computed on request

Draw = Annotated[int, Query(ge=0, le=9999)]
Name = Annotated[str, Query(max_length=300)]


def populations_of(cells: StudyCells, treatment: str) -> tuple[list[dict[str, Any]], str]:
    """The populations of a treatment, those to which a travel to medoids leads.

    Returns:
        Each population's share, number of cells, and the cells nearest to its medoid; or none, and the reason.
    """
    rows = cells.catalogue.rows_of(treatment)
    if len(rows) < MIN_CELLS:
        return [], f"Too few cells to find populations: {len(rows)}, and at least {MIN_CELLS} are needed."
    try:
        found = cells.measured.populations(rows, POPULATIONS)
    except InputError as reason:  # no control cells, no channel of nuclei, or cells that are all the same
        return [], f"No populations: {reason}."
    return [
        {
            "share": float(found.medoids.shares[number]),
            "n": len(found.rows_of(number)),
            "cells": cells.records(found.typical(number, POPULATION_CELLS)),
        }
        for number in range(POPULATIONS)
    ], ""


def change_of(cells: StudyCells, treatment: str) -> tuple[list[tuple[str, float, float, float]], str]:
    """The largest clear changes of a treatment's real cells (measure, change, low, high), or none, and the reason."""
    try:
        table = cells.changes.of(treatment)
    except InputError as reason:
        return [], f"Not measured: {reason}."
    table = table[table["clear"].astype(bool)].head(SHOWN_CHANGES)
    if table.empty:
        return [], "No measure changes beyond its 95 % interval, or there are no control cells to compare with."
    changes = table[["real", "real_low", "real_high"]].to_numpy(float).tolist()
    return [(short_name(str(name)), real, low, high) for name, (real, low, high) in zip(table.index, changes)], ""


def add_treatments(app: PageApp, view: StudyView) -> None:
    """The addresses of treatments and their downloads."""
    populations_found = Cached[tuple[list[dict[str, Any]], str]](CACHED_TREATMENTS)

    @app.get("/treatments/{treatment:path}", response_class=HTMLResponse)
    def treatment(
        treatment: str, run: str = "", channel: str = "", draw: Draw = 0, populations: bool = False
    ) -> Response:
        cells = view.cells()
        about, run, catalogue = cells.treatment(treatment), view.run(run), cells.catalogue
        nearest = view.nearest_to_mean(run, treatment, n=SHOWN_CELLS)
        wanted = populations or about["n_cells"] <= QUICK_CELLS
        key = (cells.store.identity, treatment)
        found, none_found = populations_found.get(key, lambda: populations_of(cells, treatment)) if wanted else ([], "")
        changed, no_change = change_of(cells, treatment) if wanted and about["role"] != "control" else ([], "")
        own_wells = (catalogue.wells["treatment"] == treatment) & (catalogue.wells["role"] == about["role"])
        matches = view.matches(run)
        return app.page(
            "treatment.html",
            treatment=treatment,
            about=about,
            run=run,
            models=view.models(),
            wells=catalogue.wells[own_wells],
            nearest=cells.records(nearest),
            populations=found,
            no_populations=none_found,
            measured_cells=MEASURED_CELLS,
            change=changed,
            no_change=no_change,
            random=cells.records(cells.random(treatment, SHOWN_CELLS, draw=draw)),
            draw=draw,
            matches={name: table.loc[treatment] for name, table in matches.items() if treatment in table.index},
            neighbours=view.neighbours(run, treatment).head(NEIGHBOURS).to_dict("records"),
            listed=catalogue.treatments,
            label=catalogue.label,
            profile=profiles_in_words(view.study, run),
            doses=[
                (name, row, cells.records(cells.random(str(name), DOSE_CELLS)))
                for name, row in cells.doses_of(treatment).iterrows()
            ],
            travels=about["role"] != "control" and bool(view.travel_run()),
            next_step=view.next_step(run),
            **cells.picture_values(channel),
        )

    @app.get("/downloads/neighbours.csv")
    def neighbours(treatment: Name, run: str = "") -> Response:
        view.cells().treatment(treatment)
        run = view.run(run)
        table = view.neighbours(run, treatment)
        if table.empty:
            raise NotFoundError(f"{treatment} has no profile by {run or 'any model'}. Next: {view.next_step(run)}")
        return csv(table, f"neighbours_{treatment}_{run}")

    @app.get("/downloads/cells.csv")
    def cells_csv(treatment: Name, run: str = "") -> Response:
        cells, run = view.cells(), view.run(run)
        cells.treatment(treatment)
        rows = cells.catalogue.rows_of(treatment)
        table = cells.catalogue.cells.iloc[rows].reset_index(drop=True)
        away = view.nearest_to_mean(run, treatment, n=len(rows))
        if away:
            table[f"distance_to_mean_{run}"] = [away[int(row)] for row in rows]
        return csv(table, f"cells_{treatment}_{run}")

    @app.get("/downloads/measures.csv")
    def measures_csv(treatment: Name) -> Response:
        cells = view.cells()
        cells.treatment(treatment)
        rows = sampled(cells.catalogue.rows_of(treatment), MEASURED_CELLS, seed=0)
        table = cells.catalogue.cells.iloc[rows][["cell_id", "plate", "well", "treatment"]].reset_index(drop=True)
        return csv(table.join(cells.measured.of(rows)), f"measures_{treatment}")

    @app.get("/downloads/cells.png")
    def cells_png(treatment: Name, run: str = "", draw: Draw = 0) -> Response:
        from phenolens.plotting.cell_images import contact_sheet
        from phenolens.plotting.style import png

        cells, run = view.cells(), view.run(run)
        if not cells.treatment(treatment)["n_cells"]:
            raise NotFoundError(f"All cells of {treatment} are flagged and left out; its wells show them.")
        name = cells.catalogue.label(treatment)
        groups = {f"{name}: random": cells.random(treatment, SHOWN_CELLS, draw=draw)}
        nearest = list(view.nearest_to_mean(run, treatment, n=SHOWN_CELLS))
        if nearest:
            groups = {f"{name}: nearest to the mean ({run})": np.array(nearest)} | groups
        crops = [normalised(cells.store.take(rows)) for rows in groups.values()]
        store = cells.store
        figure = contact_sheet(
            crops, list(groups), channels=store.channels, contrast=cells.contrast, origin=store.origin
        )
        return download(png(figure), "image/png", f"cells_{treatment}_{run}.png")
