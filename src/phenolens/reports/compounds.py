"""Compounds, the strongest first: real cells beside controls, activity, cell counts, changed measures, doses.

S crop side in px.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import imagecodecs
import numpy as np
import pandas as pd

from phenolens.core.colours import cell_image, colour_names
from phenolens.core.errors import InputError
from phenolens.crops.store import CropStore, normalised
from phenolens.morphology.medoids import MeasuredCells
from phenolens.plotting.page import SavedPicture
from phenolens.profiles.activity import is_active, is_testable
from phenolens.runs.catalogue import Catalogue, contrast_of
from phenolens.runs.own_controls import own_controls
from phenolens.runs.real_change import RealChanges, clear_changes
from phenolens.screens.screen import dose_label

MOST_COMPOUNDS = 10  # with cells; the table of treatments has the others
SHOWN_CELLS = 4  # random cells of the treatment, and as many of the controls of its plates
SHOWN_CHANGES = 3
GAP_PX = 6  # between controls and treated cells
CURVE_WIDTH, CURVE_HEIGHT, CURVE_PAD = 120, 56, 6  # of the dose curve, px


@dataclass(frozen=True)
class CompoundRow:
    """A compound at its strongest dose."""

    treatment: str
    label: str
    moa: str
    n_wells: int
    distance: float  # from the controls' mean, 1 by chance
    p_value: float  # corrected
    active: bool
    testable: bool  # whether its wells allow a p-value that differs
    cells: float | None  # per well, relative to control wells
    cells_p_value: float | None
    changes: Sequence[tuple[str, float]]  # measures of real cells, without units, and their change in s.d. of controls
    no_changes: str  # why there are none; empty where there are
    picture: SavedPicture  # controls, then treated cells; its caption has the colours
    doses: Sequence[tuple[str, float]]  # label and distance of each dose, the lowest first
    curve: Sequence[tuple[float, float]]  # x, y of each dose, px
    chance_y: float  # where the distance is 1, px


def compound_rows(
    activity: pd.DataFrame, store: CropStore, catalogue: Catalogue, measured: MeasuredCells, *, seed: int
) -> list[CompoundRow]:
    """A row per compound, the active ones and the largest distances first, at most MOST_COMPOUNDS.

    Args:
        activity: `activity_of` a run, a row per treatment.
        store: The crops.
        catalogue: The same cells.
        measured: Their measures.
        seed: Chooses the cells that are shown.
    """
    known = activity[activity["name"].isin(catalogue.treatments.index)]
    order = known.assign(active=is_active(known), testable=is_testable(known))
    order = order.sort_values(["active", "distance"], ascending=False, kind="stable")
    strongest = order.drop_duplicates("compound").head(MOST_COMPOUNDS)
    controls = catalogue.rows(role="control")
    changes = RealChanges(catalogue, measured, crop_px=store.crop_px)
    contrast = contrast_of(store, np.flatnonzero(catalogue.counted))
    rows = []
    for row in strongest.to_dict("records"):
        name, random = str(row["name"]), np.random.default_rng(seed)
        treated = catalogue.rows_of(name)
        beside = own_controls(catalogue.cells, controls, treated).cells
        chosen = [_drawn(random, cells) for cells in (beside, treated)]
        sheet = _side_by_side([[cell_image(c, contrast) for c in normalised(store.take(rows))] for rows in chosen])
        found, reason = _changes(changes, name)
        doses = activity[activity["compound"] == row["compound"]].sort_values("concentration_um")
        curve, chance_y = _curve(doses["concentration_um"].to_numpy(float), doses["distance"].to_numpy(float))
        label = catalogue.label(name)
        rows.append(
            CompoundRow(
                treatment=name,
                label=label,
                moa=str(row.get("moa") or ""),
                n_wells=int(row["n_wells"]),
                distance=float(row["distance"]),
                p_value=float(row["corrected_p_value"]),
                active=bool(row["active"]),
                testable=bool(row["testable"]),
                cells=row.get("cells"),
                cells_p_value=row.get("cells_p_value"),
                changes=found,
                no_changes=reason,
                picture=SavedPicture(
                    sheet,
                    colour_names(contrast),
                    f"{len(chosen[0])} {store.origin} control cells beside {len(chosen[1])} {store.origin} cells of "
                    f"{label}",
                ),
                doses=list(zip(doses["concentration_um"].map(dose_label), doses["distance"].astype(float))),
                curve=curve,
                chance_y=chance_y,
            )
        )
    return rows


def _drawn(random: np.random.Generator, rows: np.ndarray) -> np.ndarray:
    return np.sort(random.choice(rows, min(SHOWN_CELLS, len(rows)), replace=False))


def _changes(changes: RealChanges, treatment: str) -> tuple[list[tuple[str, float]], str]:
    try:
        found = clear_changes(changes.of(treatment), SHOWN_CHANGES)
    except InputError as reason:
        return [], f"not measured: {reason}"
    return found, "" if found else "no measure changes beyond its 95 % interval"


def _side_by_side(groups: Sequence[Sequence[np.ndarray]]) -> bytes:
    """A PNG of groups of pictures (S, S, 3), each in SHOWN_CELLS columns, with a white gap between them."""
    side = groups[0][0].shape[0]
    sheet = np.ones((side, 2 * SHOWN_CELLS * side + GAP_PX, 3))
    for number, group in enumerate(groups):
        for place, picture in enumerate(group):
            left = (number * SHOWN_CELLS + place) * side + number * GAP_PX
            sheet[:, left : left + side] = picture
    return bytes(imagecodecs.png_encode(np.round(255 * sheet).astype(np.uint8), level=6))


def _curve(doses: np.ndarray, distances: np.ndarray) -> tuple[list[tuple[float, float]], float]:
    """The places of doses on a logarithmic axis and of distances from 0, and that of the distance 1."""
    logs = np.array([math.log10(dose) if dose > 0 else 0.0 for dose in doses])
    width, height = CURVE_WIDTH - 2 * CURVE_PAD, CURVE_HEIGHT - 2 * CURVE_PAD
    spread = np.ptp(logs) or 1.0
    x = CURVE_PAD + width * ((logs - logs.min()) / spread if len(logs) > 1 else np.full(len(logs), 0.5))
    top = max(1.0, float(np.nanmax(distances)))
    y = CURVE_HEIGHT - CURVE_PAD - height * np.nan_to_num(distances) / top
    return [(round(a, 1), round(b, 1)) for a, b in zip(x.tolist(), y.tolist())], round(
        CURVE_HEIGHT - CURVE_PAD - height / top, 1
    )
