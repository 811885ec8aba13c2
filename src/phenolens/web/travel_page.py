"""The travel's page: a real cell on its way to a treatment, a frame at a time, with what was measured beside it.

F frames, C channels, S crop side in px. What is asked for stands in the address, so that it can be sent.

F frames.
"""

from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pandas as pd
from fastapi import Depends, FastAPI, Query, Response
from fastapi.responses import HTMLResponse

from phenolens.core.colours import Contrast, colour_words
from phenolens.core.errors import InputError
from phenolens.morphology.features import describe
from phenolens.screens.screen import treatment_label
from phenolens.travel.trajectory import RealCell, Trajectory
from phenolens.web.base import NotFoundError, Pages, address, download, policy
from phenolens.web.study_view import Cells, StudyView, adjusted, known, png

if TYPE_CHECKING:
    from phenolens.travel.compute import TravelConfig, Traveller

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 560, 240, 40, 12, 26  # of the drawing and its margins, in its own units
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00")
DASHES = ("none", "7 3", "2 3", "9 3 2 3", "4 4")


@dataclass(frozen=True)
class Curve:
    """One measure along the way."""

    words: str  # what was measured, with its unit
    colour: str
    dash: str
    points: str  # of an SVG polyline
    sds: tuple[float, ...]  # (F,) change in standard deviations of real control cells
    values: tuple[float, ...]  # (F,) in its own unit
    start: float  # of the real cells
    target: float


@dataclass(frozen=True)
class Curves:
    """The measures that move most, and the axes that they share."""

    curves: tuple[Curve, ...]
    x: tuple[float, ...]  # (F,) where each frame stands
    ticks: tuple[tuple[float, str], ...]  # heights and their labels

    @classmethod
    def of(cls, journey: Trajectory, n: int) -> "Curves | None":
        """The curves of a journey's `n` measures that move most; None where nothing was measured or nothing moves."""
        measured = journey.measured
        names = measured.most_moved(n) if measured is not None else []
        if measured is None or not names:
            return None
        change = measured.change[names].to_numpy(float)
        low, high = min(0.0, float(np.nanmin(change))), max(0.0, float(np.nanmax(change)))
        step = _step(high - low)
        low, high = step * np.floor(low / step), step * np.ceil(high / step)
        x = np.linspace(LEFT + 8, WIDTH - 8, len(change))
        y = TOP + (high - change) / (high - low) * (HEIGHT - TOP - BOTTOM)
        ends = {name: measured.ends[name].loc[["start", "target"]].to_numpy(float) for name in names}
        curves = []
        for place, name in enumerate(names):
            points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y[:, place]) if np.isfinite(b))
            curves.append(
                Curve(
                    describe(name),
                    COLOURS[place % len(COLOURS)],
                    DASHES[place % len(DASHES)],
                    points,
                    tuple(change[:, place].tolist()),
                    tuple(measured.frames[name].tolist()),
                    float(ends[name][0]),
                    float(ends[name][1]),
                )
            )
        marks = np.arange(low, high + step / 2, step)
        heights = TOP + (high - marks) / (high - low) * (HEIGHT - TOP - BOTTOM)
        ticks = tuple((float(height), f"{mark:+g}" if mark else "0") for height, mark in zip(heights, marks))
        return cls(tuple(curves), tuple(x.tolist()), ticks)


def _step(span: float) -> float:
    """A round distance between marks, so that there are three to eight of them."""
    size = max(span, 1e-9) / 5
    ten = 10 ** np.floor(np.log10(size))
    return float(ten * next(times for times in (1, 2, 5, 10) if times * ten >= size * 0.999))


CURVES = 5  # measures whose change is drawn
OTHER_STARTS = 8  # control cells that are offered to start from
OPEN_RUNS = 2  # kept open, each with its model and embeddings
TRAVEL_POLICY = policy(script_src="'self'", form_action="'self'")
WAYS = {
    "swap": "swap: the features that differ most are copied first",
    "line": "line: all features at once",
    "direction": "direction: along the treatment's mean less the controls' mean",
}

Number = Annotated[int, Query(ge=0, le=99)]


@dataclass(frozen=True)
class Asked:
    """A travel as its address says it; empty text stands for what is taken when nothing is said."""

    run: Annotated[str, Query(max_length=200)] = ""
    to: Annotated[str, Query(max_length=300)] = ""
    start: Annotated[str, Query(max_length=300)] = ""
    way: Annotated[Literal["swap", "line", "direction"], Query()] = "swap"
    frames: Annotated[int, Query(ge=2, le=24)] = 9
    doses: Annotated[bool, Query()] = False  # through every lower dose of the compound
    populations: Annotated[int, Query(ge=1, le=5)] = 1
    part: Annotated[int, Query(ge=1, le=5)] = 1  # which population, the largest first

    def address(self, *parts: object, **more: object) -> str:
        """This travel at another address; what is not the default is named."""
        said = {name: value for name, value in vars(self).items() if value != vars(Asked())[name]}
        return address(*parts, **{**said, **more})

    def said(self) -> list[tuple[str, str]]:
        """What is not the default, as a form hands it on."""
        given = [(name, value) for name, value in vars(self).items() if value != vars(Asked())[name]]
        return [(name, "true" if value is True else str(value)) for name, value in given]

    def config(self) -> "TravelConfig":
        """As the traveller is asked; InputError for choices that do not go together."""
        from phenolens.travel.compute import TravelConfig

        if self.doses and self.populations > 1:  # in the page's words, not the command's
            raise InputError("populations of two doses have no common order: take 1 of them, or not “up the doses”")
        targets: Literal["mean", "medoids"] = "medoids" if self.populations > 1 else "mean"
        return TravelConfig(
            to=self.to,
            start=self.start or None,
            way=self.way,
            frames=self.frames,
            up_the_doses=self.doses,
            targets=targets,
            medoids=max(self.populations, 1),
        )


@dataclass(frozen=True)
class Shown:
    """How pictures are shown."""

    channels: Annotated[list[str] | None, Query(max_length=32)] = None  # all when left out; an empty name is none
    bright: Annotated[int, Query(ge=25, le=400)] = 100  # percent of the contrast that all pictures share

    def contrast(self, cells: Cells) -> Contrast:
        """The pictures' contrast, brighter or darker, with channels left out as black."""
        for name in filter(None, self.channels or []):
            known(name, cells.store.channels, what="channel")
        return adjusted(cells.contrast, channels=self.channels, bright=self.bright)


class Travels:
    """Runs that are open for travelling, each opened when it is first asked for and kept until its files change."""

    def __init__(self, view: StudyView) -> None:
        self._view = view
        self._open: dict[tuple[str, ...], Traveller] = {}
        self._opening = Lock()

    def open(self, run: str) -> "Traveller":
        """The run's traveller; InputError, naming the command, where a step is missing or the run cannot decode."""
        from phenolens.travel.compute import Traveller

        key = self._view.stamp(run)
        with self._opening:
            if key not in self._open:
                while len(self._open) >= OPEN_RUNS:
                    del self._open[next(iter(self._open))]
                self._open[key] = Traveller.open(self._view.study, run or None)
            return self._open[key]

    def journeys(self, asked: Asked, *, measured: bool = True) -> tuple[Trajectory, ...]:
        """The journey to each population that was asked for; without `measured` sooner."""
        return self.open(asked.run).travel(asked.config(), measured=measured)

    def journey(self, asked: Asked, *, measured: bool = True) -> Trajectory:
        """The one journey that the address means; NotFoundError, with the reason, where there is none."""
        try:
            journeys = self.journeys(asked, measured=measured)
        except InputError as error:
            raise NotFoundError(f"{error}.") from error
        if asked.part > len(journeys):
            raise NotFoundError(
                f"There are {len(journeys)} populations, not {asked.part}. Take part out of the address."
            )
        return journeys[asked.part - 1]

    def preload(self) -> None:
        """Make the travel that is shown when none is asked for, so that it is there when somebody looks."""
        with suppress(InputError, NotFoundError, OSError):  # the page says why it cannot be shown
            self.journeys(self.completed(Asked()))

    def completed(self, asked: Asked) -> Asked:
        """With the run and the treatment named that stand for empty text."""
        run = asked.run or self._view.decoding_run()
        to = asked.to or self._view.strongest(run)
        return Asked(**{**vars(asked), "run": run, "to": to})


def add_travel(app: FastAPI, view: StudyView, pages: Pages) -> Travels:
    """The travel's addresses."""
    travels = Travels(view)

    @app.get("/travel", response_class=HTMLResponse)
    def travel(asked: Annotated[Asked, Depends()], shown: Annotated[Shown, Depends()], frame: Number = 0) -> Response:
        cells = view.cells()
        if asked.run:
            view.run(asked.run)
        words = ""
        journeys: tuple[Trajectory, ...] = ()
        try:
            asked = travels.completed(asked)
            traveller = travels.open(asked.run)
            journeys = travels.journeys(asked)
        except InputError as error:
            words = str(error)
        common: dict[str, Any] = {"asked": asked, "shown": shown, "ways": WAYS, "models": view.models()}
        common |= {"run": asked.run, "listed": _by_mechanism(cells.treatments), "channels": cells.store.channels}
        if not journeys:
            # an embedded run misses nothing: then it is the address that asks for what cannot be
            embedded = view.models().get(asked.run, {}).get("embedded", False)
            next_step = "" if embedded else view.next_step(asked.run)
            response = pages.page("travel.html", journey=None, words=words, next_step=next_step, **common)
        else:
            journey = journeys[min(asked.part, len(journeys)) - 1]
            response = pages.page(
                "travel.html",
                journey=journey,
                journeys=journeys,
                about=cells.treatments.loc[traveller.catalogue.find_treatment(asked.to)],
                treatment=traveller.catalogue.find_treatment(asked.to),
                frame=min(frame, asked.frames - 1),
                rows=journey.frames.to_dict("records"),
                curves=Curves.of(journey, CURVES),
                starts=_other_starts(cells, journey.start),
                colours=colour_words(shown.contrast(cells)),
                side=cells.store.crop_px,
                kept=_shown(shown),
                picture=lambda number: _picture(asked, shown, number),
                cell_picture=lambda cell: _cell_picture(cells, shown, cell.cell_id),
                **common,
            )
        response.headers["Content-Security-Policy"] = TRAVEL_POLICY
        return response

    @app.get("/travel/frame-{number}.png")
    def frame(
        number: Annotated[int, "of the frame, from 0"],
        asked: Annotated[Asked, Depends()],
        shown: Annotated[Shown, Depends()],
    ) -> Response:
        journey = travels.journey(travels.completed(asked), measured=False)
        if not 0 <= number < len(journey.pictures):
            raise NotFoundError(f"This travel has {len(journey.pictures)} frames, numbered from 0.")
        picture = png(journey.pictures[number], shown.contrast(view.cells()))
        return Response(picture, media_type="image/png")

    @app.get("/travel/cell.png")
    def cell(cell_id: Annotated[str, Query(max_length=300)], shown: Annotated[Shown, Depends()]) -> Response:
        cells = view.cells()
        return Response(cells.png(cell_id, contrast=shown.contrast(cells)), media_type="image/png")

    @app.get("/travel/numbers.csv")
    def numbers(asked: Annotated[Asked, Depends()]) -> Response:
        asked = travels.completed(asked)
        table = numbers_of(travels.journey(asked))
        return download(table.to_csv(index=False).encode(), "text/csv; charset=utf-8", f"{_named(asked)}.csv")

    @app.get("/travel/strip.png")
    def strip(asked: Annotated[Asked, Depends()], shown: Annotated[Shown, Depends()]) -> Response:
        from phenolens.plotting.style import png as figure_png
        from phenolens.travel.figure import travel_strip

        asked = travels.completed(asked)
        figure = travel_strip(travels.journey(asked), contrast=shown.contrast(view.cells()))
        return download(figure_png(figure), "image/png", f"{_named(asked)}.png")

    @app.get("/travel/film.gif")
    def gif(asked: Annotated[Asked, Depends()], shown: Annotated[Shown, Depends()]) -> Response:
        from phenolens.travel.film import film

        asked = travels.completed(asked)
        made = film(travels.journey(asked), "gif", contrast=shown.contrast(view.cells()), comment=_named(asked))
        return download(made, "image/gif", f"{_named(asked)}.gif")

    return travels


def numbers_of(journey: Trajectory) -> pd.DataFrame:
    """A row a frame: its place on the way, its limits, its nearest real cell, and its measures."""
    table = journey.frames.reset_index(drop=True)
    table.insert(0, "frame", np.arange(1, len(table) + 1))
    if journey.measured is None:
        return table
    return pd.concat([table, journey.measured.frames.reset_index(drop=True)], axis=1)


def _by_mechanism(treatments: pd.DataFrame) -> dict[str, list[tuple[str, str]]]:
    """The treatments that can be travelled to, under their mechanisms: name and label of each."""
    listed: dict[str, list[tuple[str, str]]] = {}
    for name, row in treatments[treatments["role"] != "control"].iterrows():
        label = treatment_label(row["compound"], row["concentration_um"], row["role"])
        listed.setdefault(str(row["moa"]) or "mechanism not known", []).append((str(name), label))
    return dict(sorted(listed.items()))


def _other_starts(cells: Cells, start: RealCell) -> list[str]:
    """Ids of random control cells, the same each time."""
    controls = cells.treatments.index[cells.treatments["role"] == "control"]
    ids = [
        cells.table["cell_id"].iloc[row] for name in controls[:1] for row in cells.random(str(name), OTHER_STARTS + 1)
    ]
    return [cell_id for cell_id in ids if cell_id != start.cell_id][:OTHER_STARTS]


def _picture(asked: Asked, shown: Shown, number: int) -> str:
    return asked.address("travel", f"frame-{number}.png", **_shown(shown))


def _cell_picture(cells: Cells, shown: Shown, cell_id: str) -> str:
    return address("travel", "cell.png", cell_id=cell_id, v=cells.store.identity[:12], **_shown(shown))


def _shown(shown: Shown) -> dict[str, object]:
    return {"channels": shown.channels or "", "bright": shown.bright if shown.bright != 100 else ""}


def _named(asked: Asked) -> str:
    """What a download of this travel is called."""
    return f"travel_{asked.run}_{asked.to}_{asked.way}"[:120]
