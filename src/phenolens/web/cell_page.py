"""A cell's page: its crop large, channels, outline, contrast, its field with a scale bar, measures against controls."""

from dataclasses import dataclass, replace
from typing import Annotated, Any

import imagecodecs
import numpy as np
from fastapi import Depends, Query, Response
from fastapi.responses import HTMLResponse
from pydantic import Field as Bound

from phenolens.core.colours import Contrast, coloured
from phenolens.core.errors import InputError
from phenolens.crops.source import first_pixel
from phenolens.crops.store import CropStore, normalised
from phenolens.morphology.features import describe
from phenolens.screens.layouts import LAYOUTS
from phenolens.web.base import NotFoundError, PageApp, address
from phenolens.web.fields import BRIGHTEST, DARKEST, Field, Fields
from phenolens.web.study_view import StudyCells, StudyView, cell_outlines, known

BARS_UM = (200, 100, 50, 20, 10, 5, 2, 1)  # lengths of scale bars; the longest that takes at most a third of a picture
UNUSUAL_SD = 2.0  # standard deviations of control cells from their mean, from which a measure of a cell is unusual
FRAME_SHARE = 400  # the frame around a cell in its field is this part of the field's height wide


@dataclass(frozen=True)
class Levels:
    """A contrast set by hand, in the address: for each channel what is black and what white, in percent.

    0 and 100 are those of the contrast that all pictures share.
    """

    black: Annotated[list[Annotated[int, Bound(ge=0, le=90)]] | None, Query(max_length=32)] = None
    white: Annotated[list[Annotated[int, Bound(ge=5, le=400)]] | None, Query(max_length=32)] = None

    def settings(self) -> dict[str, Any]:
        """The settings that are not the default."""
        chosen = {"black": (self.black, 0), "white": (self.white, 100)}
        return {name: values for name, (values, usual) in chosen.items() if values and set(values) != {usual}}

    def of(self, contrast: Contrast) -> Contrast:
        """A contrast with these levels; NotFoundError where there is not one of each channel."""
        n = len(contrast.channels)
        if any(len(values) != n for values in (self.black, self.white) if values):
            raise NotFoundError(f"Expected {n} values of black and of white, one a channel. Use the form of a cell.")
        span = contrast.white - contrast.black
        black = contrast.black + span * np.array(self.black or [0] * n) / 100
        white = contrast.black + span * np.array(self.white or [100] * n) / 100
        return replace(contrast, black=black, white=np.maximum(white, black + span / 100))


def add_cells(app: PageApp, view: StudyView, fields: Fields) -> None:
    """The addresses of cells' pages, and of their fields."""

    @app.get("/fields/{cell_id:path}.png")
    def field(cell_id: str, levels: Annotated[Levels, Depends()], channel: str = "") -> Response:
        cells = view.cells()
        row = cells.row(cell_id)
        try:
            found = fields.of(cells, row)
        except InputError as reason:
            raise NotFoundError(f"The field is not shown: {reason}.") from reason
        return Response(_field_png(found, cells, row, levels, channel), media_type="image/png")

    @app.get("/cells/{cell_id:path}", response_class=HTMLResponse)
    def cell(cell_id: str, levels: Annotated[Levels, Depends()], channel: str = "", outline: bool = False) -> Response:
        cells = view.cells()
        row, contrast = cells.row(cell_id), levels.of(cells.contrast)
        measures, reason = _measures(cells, row)
        chosen, n = levels.settings(), len(contrast.channels)
        return app.page(
            "cell.html",
            cell=cells.records([row])[0],
            outline=outline,
            bar=scale_bar(cells.store, cells.store.crop_px),
            unusual=[one for one in measures if abs(one[2]) >= UNUSUAL_SD],
            usual=[one for one in measures if not abs(one[2]) >= UNUSUAL_SD],
            by_chance=_unusual_of_a_control(cells) if measures else None,
            unusual_sd=UNUSUAL_SD,
            reason=reason,
            travels=bool(view.travel_run()),
            levels=chosen,
            sliders=list(zip(contrast.channels, levels.black or [0] * n, levels.white or [100] * n)),
            large=cells.picture_address(cell_id, channel=channel, outline=outline, **chosen),
            **_field_values(fields, cells, row, address("fields", f"{cell_id}.png", channel=channel, **chosen)),
            **cells.picture_values(channel),
        )


def _field_values(fields: Fields, cells: StudyCells, row: int, picture: str) -> dict[str, Any]:
    """The template values of a cell's field: its picture, size and scale bar, or why it is not shown."""
    try:
        height, width = fields.of(cells, row).size
    except (InputError, OSError) as reason:
        return {"field": None, "no_field": str(reason)}
    bar = scale_bar(cells.store, width)
    shown = {"picture": picture, "width": width, "height": height, "bar": bar, "range": (DARKEST, BRIGHTEST)}
    return {"field": shown, "no_field": ""}


def _field_png(field: Field, cells: StudyCells, row: int, levels: Levels, channel: str) -> bytes:
    """A field in colours, or one of its channels in grey, with a frame around the crop and the cell's outline."""
    pixels, contrast, store = field.pixels, levels.of(field.contrast), cells.store
    if channel:
        at = store.channels.index(known(channel, store.channels, what="channel"))
        pixels, contrast = pixels[at : at + 1], contrast.of_channels(at)
    picture = coloured(pixels, contrast)
    cell, side = cells.catalogue.cells.iloc[row], store.crop_px
    top, left = (int(first_pixel(np.array([cell[axis]], float), side)[0]) for axis in ("y", "x"))
    inside = picture[top : top + side, left : left + side]
    for edge, colour in cell_outlines(normalised(store.take([row]))[0], store.channels):
        inside[edge] = colour
    wide = max(1, round(field.size[0] / FRAME_SHARE))
    frame = np.zeros(field.size, bool)
    frame[max(top - wide, 0) : top + side + wide, max(left - wide, 0) : left + side + wide] = True
    frame[top : top + side, left : left + side] = False
    picture[frame] = 1.0
    return bytes(imagecodecs.png_encode(np.round(255 * picture).astype(np.uint8), level=1))


def scale_bar(store: CropStore, width_px: int) -> tuple[int, float] | None:
    """The length of a picture's scale bar in µm, and its share of the width; None without a pixel size."""
    layout = LAYOUTS.get(store.about.get("source", {}).get("layout", ""))
    pixel_um = store.about.get("pixel_size_um") or (layout.pixel_um if layout else None)
    if not pixel_um:
        return None
    width_um = pixel_um * width_px
    return next(((bar, bar / width_um) for bar in BARS_UM if bar <= width_um / 3), None)


def _measures(cells: StudyCells, row: int) -> tuple[list[tuple[str, float, float]], str]:
    """Each measure's phrase, value and distance from the controls' mean in their s.d., the farthest first."""
    try:
        of_cell = cells.measured.of(np.array([row]))
        has_controls = len(cells.catalogue.rows(role="control")) > 0
        from_controls = cells.measured.from_controls(of_cell) if has_controls else of_cell * np.nan
    except InputError as reason:
        return [], str(reason)
    own, away = of_cell.iloc[0], from_controls.iloc[0]
    order = away.abs().sort_values(ascending=False, na_position="last", kind="stable").index
    return [(describe(str(name)), float(own[name]), float(away[name])) for name in order], ""


def _unusual_of_a_control(cells: StudyCells) -> float | None:
    """How many measures of a control cell are unusual, on average; None without control cells."""
    if not len(cells.catalogue.rows(role="control")):
        return None
    away = cells.measured.from_controls(cells.measured.controls)
    return float((away.abs() >= UNUSUAL_SD).sum(axis=1).mean())
