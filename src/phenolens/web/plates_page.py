"""Plates and wells: heat maps of a measure by well, all plates side by side by batch, the cells of a well.

W wells, Z features.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pandas as pd
from fastapi import Query, Response
from fastapi.responses import HTMLResponse

from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.files import read_json
from phenolens.core.number_text import signed
from phenolens.morphology.features import by_subject, describe, measure_names, nuclei_channel, short_name
from phenolens.morphology.medoids import sampled
from phenolens.profiles.whitening import Recipe, whiten
from phenolens.study import Study
from phenolens.web.base import Cached, NotFoundError, PageApp
from phenolens.web.study_view import StudyCells, StudyView, known

CELLS, NOISE, DISTANCE = "cells", "noise", "distance"
MEASURES = {CELLS: "cells", NOISE: "left out as noise", DISTANCE: "distance from the controls"}
CAPTIONS = {
    CELLS: "cells in the well",
    NOISE: "cells flagged and left out, % of the well's",
    DISTANCE: "distance of the whitened profile from the controls' mean; 1 is the median control well",
}
MEASURED_OF_A_WELL = 4  # cells, for a heat map of a measure of real cells
MOST_MEASURED_WELLS = 500  # of a study; more would take minutes
MOST_LISTED = 100  # features of a profile in a menu; more are found by typing a part of their name
WELL_CELLS = 64  # cells on one page of a well
SHADES = 5  # of a heat map; for a signed measure on either side of 0
LEAST_WELLS = 3  # where their mean is that of all, for distances from it
FULL_SHADE = 98  # percentile of all wells that has the darkest shade, so that one outlier does not pale the others

PageNumber = Annotated[int, Query(ge=1, le=1_000_000, alias="page")]
MeasureName = Annotated[str, Query(max_length=200)]


def well_profiles(study: Study, run: str) -> pd.DataFrame:
    """The profiles of a run's wells; index: (plate, well).

    Columns: DISTANCE, the length of the whitened profile divided by that of the median control well; then the features
    in standard deviations of the control wells from their mean. With one control well all wells count as controls; two
    wells in all are as far from their mean by construction, and have no DISTANCE.

    Raises:
        InputError: there are no profiles (the message names the command), or all control wells are the same.
    """
    wells = study.profiles(run, level="well")
    about = read_json(study.profiles_folder(run) / "about.json", remedy=f"run `phenolens profile {study.quoted}`")
    ridge = float(about.get("config", {}).get("ridge", Recipe.ridge))
    learnt_on = about.get("scaled_on", "controls")
    whitened = whiten(wells, ridge=ridge, learnt_on=learnt_on, constant_features="left out")
    scaled = whiten(wells, method="none", learnt_on=learnt_on, constant_features="left out")
    names = wells.obs[["Metadata_Plate", "Metadata_Well"]].astype(str)
    index = pd.MultiIndex.from_frame(names, names=["plate", "well"])
    length = np.linalg.norm(np.asarray(whitened.X, float), axis=1)
    table = pd.DataFrame(np.asarray(scaled.X, float), index=index, columns=scaled.var_names.astype(str))
    if learnt_on == "everything" and len(wells) < LEAST_WELLS:
        return table
    control = float(np.median(length[(wells.obs["Metadata_Role"].astype(str) == "control").to_numpy()]))
    if not control > 0:
        raise InputError(
            f"{study.profiles_folder(run)}: all control wells are the same, so no distance can be measured"
        )
    table.insert(0, DISTANCE, length / control)
    return table


def cell_measures(cells: StudyCells) -> dict[str, str]:
    """The measures of real cells that a heat map can show, with a caption each.

    None without control cells, or in a study of more than MOST_MEASURED_WELLS wells whose cells are not measured.
    """
    is_measured = cells.measured.stored is not None
    few = is_measured or len(cells.catalogue.wells) <= MOST_MEASURED_WELLS
    if not few or not len(cells.catalogue.rows(role="control")):
        return {}
    of = "its counted cells" if is_measured else f"up to {MEASURED_OF_A_WELL} random cells of each well"
    of_wells = f"mean of {of}, standard deviations of control cells"
    names = measure_names(cells.store.channels, nuclei=nuclei_channel(cells.store.channels))
    return {name: f"{describe(name)}; {of_wells}" for name in names}


def well_measures(cells: StudyCells) -> pd.DataFrame:
    """The mean of each measure over the counted cells of each well, index (plate, well), in s.d. of control cells.

    Where `phenolens measure` did not run: over at most MEASURED_OF_A_WELL random cells.
    """
    catalogue = cells.catalogue
    wells = list(catalogue.cells[catalogue.counted].groupby(["plate", "well"], observed=True))
    most = MEASURED_OF_A_WELL if cells.measured.stored is None else len(catalogue.cells)
    chosen = [sampled(group.index.to_numpy(), most, seed=0) for _, group in wells]
    names = pd.MultiIndex.from_tuples([name for name, _ in wells], names=["plate", "well"])
    measured = cells.measured.of(np.concatenate(chosen))
    means = measured.groupby(np.repeat(np.arange(len(wells)), list(map(len, chosen)))).mean().set_axis(names)
    return cells.measured.from_controls(means)


@dataclass(frozen=True)
class Heat:
    """A measure by well with a shade for each, on one scale for all plates."""

    measure: str
    caption: str
    values: pd.Series  # index: (plate, well); wells without a profile are missing
    signed: bool = False  # whether 0 is the controls' mean

    @classmethod
    def of(cls, wells: pd.DataFrame, profiles: pd.DataFrame, measure: str, *, caption: str = "") -> "Heat":
        """The measure CELLS, NOISE, or a column of `well_profiles` or `well_measures`.

        `wells` has plate, well, n_cells, n_noise.
        """
        counts = wells.set_index(["plate", "well"])
        values = {CELLS: counts["n_cells"].astype(float), NOISE: 100 * counts["n_noise"] / counts["n_cells"]}
        caption = caption or f"feature {measure}: standard deviations of the control wells from their mean"
        found = values[measure] if measure in values else profiles[measure]
        return cls(measure, CAPTIONS.get(measure, caption), found, signed=measure not in CAPTIONS)

    @property
    def full(self) -> float:
        """The value that has the darkest shade."""
        size = self.values.abs().dropna()
        full = float(np.percentile(size, FULL_SHADE)) if len(size) else 0.0
        return full or float(size.max() if len(size) else 0.0) or 1.0

    def of_plate(self, plate: str) -> dict[str, dict[str, Any]]:
        """Each well's text and the CSS class of its shade."""
        if plate not in self.values.index.get_level_values(0):
            return {}
        values = self.values.xs(plate, level=0)
        values = values.dropna()  # a well that could not be measured is unknown, not 0
        shades = (SHADES * values / self.full).clip(-SHADES, SHADES).round().astype(int)
        names = [f"shade-{shade}" if shade >= 0 else f"below-{-shade}" for shade in shades]
        return {
            str(well): {"text": self.text(value), "shade": name} for (well, value), name in zip(values.items(), names)
        }

    def range_of(self, plate: str) -> str:
        """`3 to 40, median 12`: the values of a plate's wells."""
        values = self.values.xs(plate, level=0)
        least, median, largest = (self.text(float(value)) for value in (values.min(), values.median(), values.max()))
        return f"{least} to {largest}, median {median}"

    def text(self, value: float) -> str:
        """A value as it is shown in a well."""
        if self.measure == CELLS:
            return f"{value:,.0f}"
        return signed(value, 1) if self.signed else f"{value:.3g}"


def add_plates(app: PageApp, view: StudyView) -> None:
    """The addresses of plates and wells."""
    cached, measured = Cached[pd.DataFrame](1), Cached[pd.DataFrame](1)

    def profiles_of(run: str) -> pd.DataFrame:
        path = view.study.profiles_folder(run) / "wells_mean.h5ad" if run else None
        if path is None or not view.is_done(run, "profiled") or not path.is_file():
            return pd.DataFrame()
        return cached.get((run, path.stat().st_mtime_ns), lambda: well_profiles(view.study, run))

    def heat_values(cells: StudyCells, run: str, measure: str) -> dict[str, Any]:
        """The template values of a heat map and of the form that selects it."""
        profiles = profiles_of(run)
        features = [str(name) for name in profiles if name != DISTANCE]
        measures = {name: label for name, label in MEASURES.items() if name != DISTANCE or DISTANCE in profiles}
        of_cells = cell_measures(cells)
        known(measure, [*measures, *features, *of_cells], what="measure")
        if measure in of_cells and measure not in profiles:
            profiles = measured.get(cells.store.identity, lambda: well_measures(cells))
        heat = Heat.of(cells.catalogue.wells, profiles, measure, caption=of_cells.get(measure, ""))
        values = {"measure": measure, "measures": measures, "features": features, "heat": heat, "run": run}
        values |= {"of_cells": by_subject({name: short_name(name) for name in of_cells})}
        values |= {"many_features": len(features) > MOST_LISTED}
        return values | {"models": view.models(), "next_step": view.next_step(run)}

    @app.get("/plates", response_class=HTMLResponse)
    def plates(run: str = "", measure: MeasureName = CELLS) -> Response:
        cells, run = view.cells(), view.run(run)
        values = heat_values(cells, run, measure)
        batches: dict[str, list[dict[str, Any]]] = {}
        for name in cells.store.plates:
            wells, shades = cells.plate(name), values["heat"].of_plate(name)
            plate = _layout(wells) | {"name": name, "heat": shades, "roles": wells["role"].to_dict()}
            batches.setdefault(str(wells["batch"].iloc[0]) if len(wells) else "", []).append(plate)
        return app.page("plates.html", batches=batches, **values)

    @app.get("/plates/{plate:path}", response_class=HTMLResponse)
    def plate(plate: str, run: str = "", measure: MeasureName = CELLS) -> Response:
        cells, run = view.cells(), view.run(run)
        wells = cells.plate(plate)
        values = heat_values(cells, run, measure)
        return app.page(
            "plate.html",
            plate=plate,
            plates=cells.store.plates,
            wells=wells.to_dict("index"),
            shades=values["heat"].of_plate(plate),
            **_layout(wells),
            **values,
        )

    @app.get("/wells/{plate}/{well}", response_class=HTMLResponse)
    def well(plate: str, well: str, number: PageNumber = 1, channel: str = "") -> Response:
        cells = view.cells()
        rows = cells.rows_of_well(plate, well)
        first, n_pages = (number - 1) * WELL_CELLS, -(-len(rows) // WELL_CELLS)
        if number > n_pages:
            raise NotFoundError(f"Well {well} has {counted(n_pages, 'page')} of cells, not {number}. Go to page 1.")
        return app.page(
            "well.html",
            plate=plate,
            well=well,
            about=cells.plate(plate).loc[well],
            first=first,
            cells=cells.records(rows[first : first + WELL_CELLS]),
            number=number,
            n_pages=n_pages,
            travels=bool(view.travel_run()),
            **cells.picture_values(channel),
        )


def _layout(wells: pd.DataFrame) -> dict[str, Any]:
    """The rows (letters) and columns (numbers) that a plate's wells span."""
    letters = sorted({well[:-2] for well in wells.index}, key=lambda letter: (len(letter), letter))
    numbers = [int(well[-2:]) for well in wells.index]
    return {"letters": letters, "columns": range(min(numbers, default=1), max(numbers, default=0) + 1)}
