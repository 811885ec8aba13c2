"""Measured change along a travel as curves that a page draws itself, so that its cursor can follow the frames.

F frames.
"""

from dataclasses import dataclass

import numpy as np

from phenolens.phenotype.journey import Journey
from phenolens.phenotype.measures import describe

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
    def of(cls, journey: Journey, n: int) -> "Curves | None":
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
