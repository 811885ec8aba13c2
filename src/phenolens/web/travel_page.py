"""The page of a travel: an interpolation from a real cell to a treatment, with measurements of its frames.

F frames, numbered from 1. All settings are in the address, so that it can be sent.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pandas as pd
from fastapi import Depends, Query, Response
from fastapi.responses import HTMLResponse

from phenolens.core.colours import Contrast, colour_names, png
from phenolens.core.errors import InputError
from phenolens.morphology.features import short_name
from phenolens.travels.config import TravelConfig
from phenolens.travels.trajectory import FEW_MOVED, RealCell, Trajectory
from phenolens.web.base import EMPTY_STYLE, Cached, NotFoundError, PageApp, address, csv, download, policy
from phenolens.web.study_view import StudyCells, StudyView, known

if TYPE_CHECKING:
    from phenolens.travels.compute import Traveller

CURVES = 5  # measures whose change is drawn
LINES = (("#0072b2", ""), ("#d55e00", "7,3"), ("#009e73", "2,3"), ("#cc79a7", "9,3,2,3"), ("#8a6d00", "4,4"))
OTHER_STARTS = 8  # control cells that are offered as the start
OPEN_RUNS = 2  # kept in memory, each with its model and embeddings
TRAVEL_POLICY = policy(script_src="'self'", style_src=f"'self' {EMPTY_STYLE}", form_action="'self'")


@dataclass(frozen=True)
class Display:
    """The channels and the brightness of pictures, in their address."""

    channels: Annotated[list[str] | None, Query(max_length=32)] = None  # default: all; an empty name is none
    brightness: Annotated[int, Query(ge=25, le=400)] = 100  # percent of the contrast that all pictures share

    def settings(self) -> dict[str, Any]:
        """The settings that are not the default."""
        default = type(self)()
        return {name: value for name, value in vars(self).items() if value != getattr(default, name)}

    def display(self) -> dict[str, Any]:
        """The settings of pictures that are not the default."""
        return {name: value for name, value in self.settings().items() if name in ("channels", "brightness")}

    def of(self, contrast: Contrast) -> Contrast:
        """The contrast of all pictures with these channels only and as bright, where black stays black."""
        for name in filter(None, self.channels or []):
            known(name, contrast.channels, what="channel")
        white = contrast.black + (contrast.white - contrast.black) * 100 / self.brightness
        brighter = replace(contrast, white=white)
        return brighter.showing(self.channels) if self.channels else brighter


@dataclass(frozen=True)
class TravelQuery(Display):
    """The settings of a travel in its address; empty text stands for a default."""

    run: Annotated[str, Query(max_length=200)] = ""
    to: Annotated[str, Query(max_length=300)] = ""
    start: Annotated[str, Query(max_length=300)] = ""
    way: Annotated[Literal["swap", "line", "direction"], Query()] = "swap"
    frames: Annotated[int, Query(ge=2, le=24)] = 9
    doses: Annotated[bool, Query()] = False  # through every lower dose of the compound
    populations: Annotated[int, Query(ge=1, le=5)] = 1
    population: Annotated[int, Query(ge=1, le=5)] = 1  # which one, the largest first

    def address(self, *parts: object, **changes: object) -> str:
        """The address of this travel, or of a file of it, with some settings changed."""
        return address("travel", *parts, **{**self.settings(), **changes})

    def file_name(self) -> str:
        """The name of its downloads, without an ending."""
        return f"travel_{self.run}_{self.to}_{self.way}"[:120]

    def config(self) -> TravelConfig:
        """The configuration of the travel; InputError for settings that exclude each other."""
        if self.doses and self.populations > 1:  # TravelConfig's message names the command's flags
            raise InputError("populations of two doses have no common order: use 1 population, or no “up the doses”")
        return TravelConfig(
            to=self.to,
            start=self.start or None,
            way=self.way,
            frames=self.frames,
            up_the_doses=self.doses,
            targets="medoids" if self.populations > 1 else "mean",
            medoids=self.populations,
            moved_cells=FEW_MOVED,
        )


class Travels:
    """Opened runs, each opened at the first request and kept until its files change."""

    def __init__(self, view: StudyView) -> None:
        self._view = view
        self._open: Cached[Traveller] = Cached(OPEN_RUNS)

    def open(self, run: str) -> "Traveller":
        """The run's traveller; InputError where a step is missing (it names the command) or the run cannot decode."""
        from phenolens.travels.compute import Traveller

        view = self._view

        def opened() -> Traveller:
            cells = view.cells()
            return Traveller.open(view.study, run or None, catalogue=cells.catalogue, measured=cells.measured)

        return self._open.get(view.version(run), opened)

    def trajectories(self, query: TravelQuery) -> tuple[Trajectory, ...]:
        """The trajectory to each population."""
        return self.open(query.run).travel(query.config())

    def trajectory(self, query: TravelQuery) -> Trajectory:
        """The trajectory to the population of the address; NotFoundError, with the reason, where there is none."""
        try:
            trajectories = self.trajectories(query)
        except InputError as error:
            raise NotFoundError(f"{error}.") from error
        if query.population > len(trajectories):
            raise NotFoundError(
                f"Population {query.population} of {len(trajectories)}: there is none. Take it out of the address."
            )
        return trajectories[query.population - 1]

    def preload(self) -> None:
        """Compute the default travel, so that the page opens at once."""
        with suppress(InputError, NotFoundError, OSError):  # the page shows the reason
            self.trajectories(self.completed(TravelQuery()))

    def completed(self, query: TravelQuery) -> TravelQuery:
        """With the default run in place of empty text, and the treatment that differs most from the controls."""
        run, to = query.run or self._view.travel_run(), query.to
        with suppress(InputError):  # the page shows the reason
            if not to and self._view.is_done(run, "scored"):
                to = self._view.strongest_treatment(run)
            if not to:
                to = next(iter(self.open(run).cells.strongest_treatments()), "")
        return replace(query, run=run, to=to)


def add_travel(app: PageApp, view: StudyView) -> Travels:
    """The addresses of the travel and its files."""
    travels = Travels(view)

    def requested(query: Annotated[TravelQuery, Depends()]) -> TravelQuery:
        return travels.completed(query)

    Requested = Annotated[TravelQuery, Depends(requested)]

    @app.get("/travel", response_class=HTMLResponse)
    def page(query: Annotated[TravelQuery, Depends()], frame: Annotated[int, Query(ge=1, le=99)] = 1) -> Response:
        cells = view.cells()
        if query.run:
            view.run(query.run)
        reason = ""
        trajectories: tuple[Trajectory, ...] = ()
        try:
            query = travels.completed(query)
            trajectories = travels.trajectories(query)
        except InputError as error:
            reason = str(error)
        values: dict[str, Any] = {
            "query": query,
            "run": query.run,
            "models": view.models(),
            "choices": _choices(cells.catalogue.treatments),
            "channels": cells.store.channels,
            "coloured": query.of(cells.contrast).coloured,
        }
        if trajectories:
            values |= _trajectory_values(travels, cells, query, trajectories, min(frame, query.frames))
        else:  # of an embedded run nothing is missing: then the address is wrong
            next_step = "" if view.is_done(query.run, "embedded") else view.next_step(query.run)
            values |= {"trajectory": None, "reason": reason, "next_step": next_step}
        response = app.page("travel.html", **values)
        response.headers["Content-Security-Policy"] = TRAVEL_POLICY
        return response

    @app.get("/travel/frame-{number}.png")
    def frame(number: Annotated[int, "of the frame, from 1"], query: Requested) -> Response:
        pictures = travels.trajectory(query).pictures
        if not 1 <= number <= len(pictures):
            raise NotFoundError(f"This travel has {len(pictures)} frames, numbered from 1.")
        return Response(png(pictures[number - 1], query.of(view.cells().contrast)), media_type="image/png")

    @app.get("/travel/cell.png")
    def cell(cell_id: Annotated[str, Query(max_length=300)], display: Annotated[Display, Depends()]) -> Response:
        cells = view.cells()
        return Response(cells.png(cell_id, contrast=display.of(cells.contrast)), media_type="image/png")

    @app.get("/travel/frames.csv")
    def frames(query: Requested) -> Response:
        from phenolens.travels.saved import frames_table

        return csv(frames_table([travels.trajectory(query)]), query.file_name())

    @app.get("/travel/strip.png")
    def strip(query: Requested) -> Response:
        from phenolens.plotting.style import png as figure_png
        from phenolens.travels.figure import travel_strip

        figure = travel_strip(travels.trajectory(query), contrast=query.of(view.cells().contrast))
        return download(figure_png(figure), "image/png", f"{query.file_name()}.png")

    @app.get("/travel/film.gif")
    def gif(query: Requested) -> Response:
        from phenolens.travels.film import film

        name, contrast = query.file_name(), query.of(view.cells().contrast)
        content = film(travels.trajectory(query), "gif", contrast=contrast, comment=name)
        return download(content, "image/gif", f"{name}.gif")

    return travels


def _trajectory_values(
    travels: Travels, cells: StudyCells, query: TravelQuery, trajectories: tuple[Trajectory, ...], frame: int
) -> dict[str, Any]:
    """The template values of a trajectory that exists."""
    trajectory = trajectories[min(query.population, len(trajectories)) - 1]
    treatment = travels.open(query.run).catalogue.find_treatment(query.to)
    shown = {"v": cells.store.identity[:12], **query.display()}
    return {
        "trajectory": trajectory,
        "trajectories": trajectories,
        "treatment": treatment,
        "about": cells.catalogue.treatments.loc[treatment],
        "frame": frame,
        "rows": trajectory.frames.to_dict("records"),
        "curves": measured_curves(trajectory, CURVES),
        "starts": _other_starts(cells, trajectory.start),
        "colours": colour_names(query.of(cells.contrast)),
        "side": cells.store.crop_px,
        "picture": lambda number: query.address(f"frame-{number}.png"),
        "cell_picture": lambda cell: address("travel", "cell.png", cell_id=cell.cell_id, **shown),
    }


def measured_curves(trajectory: Trajectory, n: int) -> list[dict[str, Any]]:
    """The `n` measures of a trajectory that change most in real cells; none where nothing was measured.

    `change` (F,), `moved` and `real` are in standard deviations of real control cells; `change` is None where a frame
    could not be measured.
    """
    measured = trajectory.measured
    if measured is None:
        return []
    return [
        {
            "label": short_name(name),
            "colour": colour,
            "dash": dash,
            "change": [None if np.isnan(value) else float(value) for value in measured.change[name]],
            "moved": np.nan if trajectory.change is None else float(trajectory.change.table["decoded"][name]),
            "real": np.nan if trajectory.change is None else float(trajectory.change.table["real"][name]),
        }
        for name, (colour, dash) in zip(trajectory.shown_measures(n), LINES)
    ]


def _choices(treatments: pd.DataFrame) -> dict[str, list[tuple[str, str]]]:
    """The treatments that can be the target, by mechanism: name and label of each."""
    choices: dict[str, list[tuple[str, str]]] = {}
    for name, row in treatments[treatments["role"] != "control"].iterrows():
        choices.setdefault(str(row["moa"]) or "mechanism not known", []).append((str(name), row["label"]))
    return dict(sorted(choices.items()))


def _other_starts(cells: StudyCells, start: RealCell) -> list[str]:
    """Ids of random control cells, the same each time."""
    controls = cells.catalogue.treatments.query("role == 'control'").index
    ids = [cells.row_of[row] for name in controls[:1] for row in cells.random(str(name), OTHER_STARTS + 1)]
    return [cell_id for cell_id in ids if cell_id != start.cell_id][:OTHER_STARTS]
