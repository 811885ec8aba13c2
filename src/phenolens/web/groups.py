"""Points of a map in groups, each with a colour and a sign that colour-blind people can tell apart.

n points, G groups.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

# Okabe and Ito's colours without the yellow, which is lost on white; their order keeps neighbours far apart.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9")
# The groups after the first six are darker, then paler: on a map of many points their signs are too small to see.
SHADES = (None, ("#000000", 0.42), ("#ffffff", 0.5))
SIGNS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "triangle-down")
CONTROL, UNKNOWN = "#1f2933", "#a9b1ba"
DOSES = ("#00204c", "#31446b", "#666970", "#958f78", "#cbba69")  # cividis (Nuñez et al. 2018) without its yellow

BY = {
    "mechanism": "moa",
    "compound": "compound",
    "dose": "concentration_um",
    "plate": "plate",
    "batch": "batch",
}


@dataclass(frozen=True)
class Groups:
    """Which group each point is of, and how groups are drawn."""

    codes: np.ndarray  # (n,) uint16
    names: tuple[str, ...]  # (G,)
    colours: tuple[str, ...]  # (G,) as #rrggbb
    signs: tuple[str, ...]  # (G,) names of plotly's symbols

    def as_json(self) -> list[dict[str, object]]:
        """A group each: its name, how many points it has, its colour and sign."""
        counts = np.bincount(self.codes, minlength=len(self.names)).tolist()
        described = zip(self.names, counts, self.colours, self.signs)
        return [{"name": n, "count": c, "colour": colour, "sign": sign} for n, c, colour, sign in described]


def grouped(table: pd.DataFrame, by: str) -> Groups:
    """The rows of a table (n rows: role and the column of `by`) in groups; controls first, unknown mechanisms last."""
    if by == "dose":
        return _by_dose(table[BY[by]])
    values, control = table[BY[by]].astype(str), (table["role"] == "control").to_numpy()
    if by == "mechanism":
        values = values.where(~control, "control")
    controls = {"mechanism": {"control"}, "compound": set(values[control].unique())}.get(by, set())
    codes, uniques = pd.factorize(values, sort=True)
    names = sorted(map(str, uniques), key=lambda name: (name not in controls, name == "", name))
    place = {name: number for number, name in enumerate(names)}
    plain = [name for name in names if name and name not in controls]
    colours, signs = dict.fromkeys(controls, CONTROL) | {"": UNKNOWN}, {}
    for number, name in enumerate(plain):
        colours[name] = _shaded(COLOURS[number % len(COLOURS)], number // len(COLOURS) % len(SHADES))
        signs[name] = SIGNS[number // len(COLOURS) % len(SIGNS)]
    return Groups(
        np.array([place[str(name)] for name in uniques], np.uint16)[codes],
        tuple(name or "mechanism not known" for name in names),
        tuple(colours[name] for name in names),
        tuple(signs.get(name, SIGNS[0]) for name in names),
    )


def _by_dose(doses: pd.Series) -> Groups:
    """By concentration in µM, from light for the lowest to dark for the highest."""
    codes, uniques = pd.factorize(doses, sort=True)
    positions = np.linspace(len(DOSES) - 1, 0, len(uniques)) if len(uniques) > 1 else np.zeros(1)
    colours = tuple(_between(float(position)) for position in positions[: len(uniques)])
    return Groups(
        codes.astype(np.uint16), tuple(f"{dose:g} µM" for dose in uniques), colours, (SIGNS[0],) * len(uniques)
    )


def _between(position: float) -> str:
    """The colour at a position between those of DOSES."""
    low = min(int(position), len(DOSES) - 2)
    return _mixed(DOSES[low], DOSES[low + 1], position - low)


def _shaded(colour: str, number: int) -> str:
    shade = SHADES[number]
    return colour if shade is None else _mixed(colour, *shade)


def _mixed(colour: str, other: str, share: float) -> str:
    """A colour #rrggbb with this share of another one."""
    first, second = (np.array([int(one[at : at + 2], 16) for at in (1, 3, 5)]) for one in (colour, other))
    return "#" + "".join(f"{round(value):02x}" for value in (first + share * (second - first)).tolist())
