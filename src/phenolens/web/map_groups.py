"""Groups of a map's points and how they are drawn: by mechanism, compound, dose, plate, batch, or a measure of cells.

n points, G groups.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from phenolens.screens.screen import dose_label

# Okabe and Ito's colours without the yellow, which is invisible on white; this order keeps neighbours different.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9")
# Groups after the first six are darker, then paler: symbols are too small to see on a map of many points.
SHADES = (("#000000", 0.0), ("#000000", 0.42), ("#ffffff", 0.5))
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "triangle-down")
CONTROL, UNKNOWN = "#1f2933", "#a9b1ba"
DOSES = ("#00204c", "#31446b", "#666970", "#958f78", "#cbba69")  # cividis (Nuñez et al. 2018) without its yellow
COLUMNS = {
    "mechanism": "moa",
    "compound": "compound",
    "dose": "concentration_um",
    "plate": "plate",
    "batch": "batch",
}
MEASURE_SHADES = 5  # of a measure: as many cells in each, from the smallest values to the largest


@dataclass(frozen=True)
class Groups:
    """The group of each point, and how groups are drawn."""

    codes: np.ndarray  # (n,) uint16
    names: tuple[str, ...]  # (G,)
    colours: tuple[str, ...]  # (G,) as #rrggbb
    symbols: tuple[str, ...]  # (G,) plotly's names

    def as_json(self) -> list[dict[str, Any]]:
        """A dictionary per group: name, number of points, colour, symbol."""
        counts = np.bincount(self.codes, minlength=len(self.names)).tolist()
        keys = ("name", "count", "colour", "symbol")
        return [dict(zip(keys, group)) for group in zip(self.names, counts, self.colours, self.symbols)]


def grouped(table: pd.DataFrame, by: str) -> Groups:
    """The rows of a table (n rows: role and the column of `by`) in groups; controls first, unknown mechanisms last."""
    if by == "dose":
        return _by_dose(table[COLUMNS[by]])
    values, control = table[COLUMNS[by]].astype(str), (table["role"] == "control").to_numpy()
    if by == "mechanism":
        values = values.where(~control, "control")
    controls = {"mechanism": {"control"}, "compound": set(values[control].unique())}.get(by, set())
    names = sorted(values.unique(), key=lambda name: (name not in controls, name == "", name))
    colours, symbols = dict.fromkeys(controls, CONTROL) | {"": UNKNOWN}, dict.fromkeys(names, SYMBOLS[0])
    for number, name in enumerate(name for name in names if name and name not in controls):
        round_, place = divmod(number, len(COLOURS))
        colours[name] = _mixed(COLOURS[place], *SHADES[round_ % len(SHADES)])
        symbols[name] = SYMBOLS[round_ % len(SYMBOLS)]
    return Groups(
        pd.Categorical(values, names).codes.astype(np.uint16),
        tuple(name or "mechanism not known" for name in names),
        tuple(colours[name] for name in names),
        tuple(symbols[name] for name in names),
    )


def by_measure(values: pd.Series) -> Groups:
    """Cells (n rows) in MEASURE_SHADES groups of equal size by a measure, from light for the smallest to dark."""
    ranks, edges = pd.qcut(values, MEASURE_SHADES, labels=False, retbins=True, duplicates="drop")
    names = tuple(f"{_short(low)} to {_short(high)}" for low, high in pairwise(edges.tolist()))
    codes = np.where(np.isnan(ranks), len(names), ranks).astype(np.uint16)
    has_unknown = bool((codes == len(names)).any())
    return Groups(
        codes,
        (*names, "not measured") if has_unknown else names,
        (*_from_light_to_dark(len(names)), UNKNOWN) if has_unknown else _from_light_to_dark(len(names)),
        (SYMBOLS[0],) * (len(names) + has_unknown),
    )


def _short(value: float) -> str:
    """Three digits; of a thousand and more all of the whole number."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _from_light_to_dark(n: int) -> tuple[str, ...]:
    """This many shades of DOSES."""
    colours = []
    for position in np.linspace(len(DOSES) - 1, 0, max(n, 2))[:n]:
        low = min(int(position), len(DOSES) - 2)
        colours.append(_mixed(DOSES[low], DOSES[low + 1], float(position) - low))
    return tuple(colours)


def _by_dose(doses: pd.Series) -> Groups:
    """By concentration in µM, from light for the lowest to dark for the highest."""
    codes, uniques = pd.factorize(doses, sort=True)
    names = tuple(dose_label(dose) if dose else "no dose" for dose in uniques)
    colours = _from_light_to_dark(len(uniques)) if len(uniques) > 1 else DOSES[:1]
    return Groups(codes.astype(np.uint16), names, colours, (SYMBOLS[0],) * len(uniques))


def _mixed(colour: str, other: str, share: float) -> str:
    """A colour #rrggbb with this share of another one."""
    first, second = (np.array([int(one[at : at + 2], 16) for at in (1, 3, 5)]) for one in (colour, other))
    return "#" + "".join(f"{round(value):02x}" for value in (first + share * (second - first)).tolist())
