"""A cell's page: its crop large, channels, outline, scale bar, place in its field, measures against controls."""

import numpy as np
from fastapi import Response
from fastapi.responses import HTMLResponse

from phenolens.core.errors import InputError
from phenolens.crops.store import CropStore
from phenolens.morphology.features import describe
from phenolens.screens.layouts import LAYOUTS
from phenolens.web.base import PageApp
from phenolens.web.study_view import StudyCells, StudyView

BARS_UM = (100, 50, 20, 10, 5, 2, 1)  # lengths of scale bars; the longest that takes at most a third of a crop


def add_cells(app: PageApp, view: StudyView) -> None:
    """The addresses of cells' pages."""

    @app.get("/cells/{cell_id:path}", response_class=HTMLResponse)
    def cell(cell_id: str, channel: str = "", outline: bool = False) -> Response:
        cells = view.cells()
        row = cells.row(cell_id)
        measures, reason = _measures(cells, row)
        return app.page(
            "cell.html",
            cell=cells.records([row])[0],
            outline=outline,
            bar=scale_bar(cells.store),
            measures=measures,
            reason=reason,
            travels=bool(view.travel_run()),
            large=cells.picture_address(cell_id, channel=channel, outline=outline),
            **cells.picture_values(channel),
        )


def scale_bar(store: CropStore) -> tuple[int, float] | None:
    """The length of a crop's scale bar in µm, and its share of the crop's width; None without a pixel size."""
    layout = LAYOUTS.get(store.about.get("source", {}).get("layout", ""))
    pixel_um = store.about.get("pixel_size_um") or (layout.pixel_um if layout else None)
    if not pixel_um:
        return None
    crop_um = pixel_um * store.crop_px
    return next(((bar, bar / crop_um) for bar in BARS_UM if bar <= crop_um / 3), None)


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
