"""Plates and wells: a heat map of a measure by well, all plates side by side by batch, the cells of a well.

W wells, Z features.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pandas as pd
from fastapi import FastAPI, Query, Response
from fastapi.responses import HTMLResponse

from phenolens.core.errors import InputError
from phenolens.core.files import read_h5ad, read_json
from phenolens.profiles.whitening import Recipe, whiten
from phenolens.study import Study
from phenolens.web.base import NotFoundError, Pages
from phenolens.web.study_view import Cells, StudyView, known, pictures_of

CELLS, NOISE, DISTANCE = "cells", "noise", "distance"


@dataclass(frozen=True)
class WellProfiles:
    """The profiles of a run's wells, as far as maps of plates need them; index: (plate, well)."""

    distance: pd.Series  # length of the whitened profile over that of the median control well: 1 is such a well
    features: pd.DataFrame  # (W, Z) in standard deviations of the control wells, 0 being their mean
    left_out: tuple[str, ...]  # features without spread among the controls


@dataclass(frozen=True)
class WellMeasure:
    """One measure of every well."""

    name: str
    values: pd.Series  # index: (plate, well); a well that has no profile is not in it
    words: str  # what it is, with its unit
    signed: bool  # whether 0 is the controls' mean and values lie on both sides


def well_profiles(study: Study, run: str) -> WellProfiles:
    """The wells of a run, whitened and z-scored on their controls; InputError, naming the command, without profiles."""
    mend = f"run `phenolens profile {study.folder}`"
    wells = read_h5ad(study.profiles_folder(run) / "wells_mean.h5ad", mend=mend)
    config = read_json(study.profiles_folder(run) / "about.json", mend=mend).get("config", {})
    whitened = whiten(wells, ridge=float(config.get("ridge", Recipe.ridge)), constant_features="left out")
    scaled = whiten(wells, method="none", constant_features="left out")
    index = pd.MultiIndex.from_frame(
        wells.obs[["Metadata_Plate", "Metadata_Well"]].astype(str), names=["plate", "well"]
    )
    length = np.linalg.norm(np.asarray(whitened.X, float), axis=1)
    control = float(np.median(length[(wells.obs["Metadata_Role"].astype(str) == "control").to_numpy()]))
    if not control > 0:
        raise InputError(f"{study.profiles_folder(run)}: control wells that are all alike, so nothing is far from them")
    features = pd.DataFrame(np.asarray(scaled.X, float), index=index, columns=scaled.var_names.astype(str))
    left_out = tuple(name for name in wells.var_names.astype(str) if name not in features)
    return WellProfiles(pd.Series(length / control, index=index), features, left_out)


def well_measure(wells: pd.DataFrame, profiles: WellProfiles | None, name: str) -> WellMeasure:
    """A measure by its name: CELLS, NOISE, DISTANCE or a feature.

    `wells` has plate, well, n_cells, n_noise; without `profiles` only the first two can be had. KeyError otherwise.
    """
    counted = wells.set_index(["plate", "well"])
    if name == CELLS:
        return WellMeasure(name, counted["n_cells"].astype(float), "cells in the well", signed=False)
    if name == NOISE:
        share = 100 * counted["n_noise"] / counted["n_cells"]
        return WellMeasure(name, share, "cells flagged and left out, % of the well's", signed=False)
    if profiles is None:
        raise KeyError(name)
    if name == DISTANCE:
        words = "distance of the whitened profile from the controls' mean; 1 is the median control well"
        return WellMeasure(name, profiles.distance, words, signed=False)
    words = f"feature {name}: standard deviations of the control wells from their mean"
    return WellMeasure(name, profiles.features[name], words, signed=True)


WELL_CELLS = 64  # cells on one page of a well
SHADES = 5  # of a heat map; of a signed measure to either side of 0
FULL_SHADE = 98  # percentile of all wells that has the darkest shade, so that one odd well does not pale the others
MEASURES = {CELLS: "cells", NOISE: "left out as noise", DISTANCE: "distance from the controls"}

PageNumber = Annotated[int, Query(ge=1, le=1_000_000, alias="page")]
MeasureName = Annotated[str, Query(max_length=200)]


@dataclass(frozen=True)
class Heat:
    """A measure by well with the shade of each, on one scale for all plates."""

    measure: WellMeasure
    shades: pd.Series  # whole numbers, 0 to SHADES, or -SHADES to SHADES; index: (plate, well)
    full: float  # the value that has the darkest shade

    @classmethod
    def of(cls, measure: WellMeasure) -> "Heat":
        """The shades of a measure."""
        size = measure.values.abs()
        full = float(np.nanpercentile(size, FULL_SHADE)) if len(size) else 0.0
        full = full if full > 0 else float(size.max()) if len(size) and size.max() > 0 else 1.0
        shades = (SHADES * measure.values / full).clip(-SHADES, SHADES).round().fillna(0).astype(int)
        return cls(measure, shades, full)

    def of_plate(self, plate: str) -> dict[str, dict[str, Any]]:
        """Each well's text and the name of its shade."""
        if plate not in self.measure.values.index.get_level_values(0):
            return {}
        values, shades = self.measure.values.xs(plate, level=0), self.shades.xs(plate, level=0)
        return {
            str(well): {"text": self.text(float(values[well])), "shade": _shade(int(shades[well]))}
            for well in values.index
        }

    def range_of(self, plate: str) -> str:
        """The least, the median and the largest value of a plate's wells, in words."""
        values = self.measure.values.xs(plate, level=0)
        least, median, largest = (self.text(float(value)) for value in (values.min(), values.median(), values.max()))
        return f"{least} to {largest}, median {median}"

    def text(self, value: float) -> str:
        """A value as it stands in a well."""
        if self.measure.name == CELLS:
            return f"{value:,.0f}"
        return f"{value:+.1f}" if self.measure.signed else f"{value:.3g}"


def add_plates(app: FastAPI, view: StudyView, pages: Pages) -> None:
    """The addresses of plates and wells."""
    known_profiles: dict[tuple[str, ...], WellProfiles] = {}

    def profiles_of(run: str) -> WellProfiles | None:
        """A run's wells, whitened once; None while there are no profiles."""
        path = view.study.profiles_folder(run) / "wells_mean.h5ad" if run else None
        if path is None or not view.models()[run]["profiled"] or not path.is_file():
            return None
        key = (run, str(path.stat().st_mtime_ns))
        if key not in known_profiles:
            known_profiles.clear()
            known_profiles[key] = well_profiles(view.study, run)
        return known_profiles[key]

    def heat_of(cells: Cells, run: str, measure: str) -> tuple[Heat, dict[str, Any]]:
        """The heat map asked for, and what its choice needs."""
        profiles = profiles_of(run)
        features = [] if profiles is None else list(map(str, profiles.features.columns))
        measures = {name: words for name, words in MEASURES.items() if name != DISTANCE or profiles is not None}
        known(measure, [*measures, *features], what="measure")
        heat = Heat.of(well_measure(cells.wells, profiles, measure))
        chosen = {"measure": measure, "measures": measures, "features": features, "heat": heat, "run": run}
        return heat, chosen | {"models": view.models(), "next_step": view.next_step(run)}

    @app.get("/plates", response_class=HTMLResponse)
    def plates(run: str = "", measure: MeasureName = CELLS) -> Response:
        cells, run = view.cells(), view.run(run)
        heat, chosen = heat_of(cells, run, measure)
        batches: dict[str, list[dict[str, Any]]] = {}
        for plate in cells.store.plates:
            wells = cells.plate(plate)
            drawn = _layout(wells) | {"name": plate, "heat": heat.of_plate(plate), "roles": wells["role"].to_dict()}
            batches.setdefault(str(wells["batch"].iloc[0]) if len(wells) else "", []).append(drawn)
        return pages.page("plates.html", batches=batches, **chosen)

    @app.get("/plates/{plate:path}", response_class=HTMLResponse)
    def plate(plate: str, run: str = "", measure: MeasureName = CELLS) -> Response:
        cells, run = view.cells(), view.run(run)
        wells = cells.plate(plate)
        heat, chosen = heat_of(cells, run, measure)
        return pages.page(
            "plate.html",
            plate=plate,
            plates=cells.store.plates,
            wells=wells.to_dict("index"),
            shown=heat.of_plate(plate),
            **_layout(wells),
            **chosen,
        )

    @app.get("/wells/{plate}/{well}", response_class=HTMLResponse)
    def well(plate: str, well: str, number: PageNumber = 1, channel: str = "") -> Response:
        cells = view.cells()
        rows = cells.rows_of_well(plate, well)
        first, n_pages = (number - 1) * WELL_CELLS, -(-len(rows) // WELL_CELLS)
        if number > n_pages:
            raise NotFoundError(f"Well {well} has {n_pages} pages of cells, not {number}. Go to page 1.")
        return pages.page(
            "well.html",
            plate=plate,
            well=well,
            about=cells.plate(plate).loc[well],
            first=first,
            shown=cells.shown(rows[first : first + WELL_CELLS]),
            number=number,
            n_pages=n_pages,
            travels=bool(view.decoding_run()),
            **pictures_of(cells, channel),
        )


def _layout(wells: pd.DataFrame) -> dict[str, Any]:
    """The letters and the numbers of the rows and columns that a plate's wells span."""
    letters = sorted({well[:-2] for well in wells.index}, key=lambda letter: (len(letter), letter))
    numbers = [int(well[-2:]) for well in wells.index]
    return {"letters": letters, "columns": range(min(numbers, default=1), max(numbers, default=0) + 1)}


def _shade(number: int) -> str:
    """The name of a shade in the style sheet."""
    return f"shade-{number}" if number >= 0 else f"below-{-number}"
