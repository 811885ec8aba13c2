"""The settings of the paper's figures, and which figure uses which."""

from dataclasses import dataclass
from typing import Annotated, Literal

from phenolens.core.bounds import Bounded, Bounds, Count, Seed

FigureName = Literal["reconstructions", "interpolation", "comparison", "assessment"]  # Figures 2, 3, 4; blinded test
USED_BY: dict[FigureName, set[str]] = {
    "reconstructions": {"runs", "cells", "shown_cells", "apart", "picture_seed"},
    "interpolation": {"runs", "cells", "compounds", "frames", "way", "picture_seed"},
    "comparison": {"runs", "cells", "shown_cells", "treatment", "picture_seed"},
    "assessment": {"assessments"},
}


@dataclass(frozen=True)
class FigureConfig(Bounded):
    """What a figure shows; each flag belongs to the figures that it names."""

    runs: tuple[str, ...] = ()  # left out: all that decode; of a comparison the best two, of an interpolation the best
    cells: tuple[str, ...] = ()  # ids of cells (reconstructions, comparison), or of the start (interpolation)
    shown_cells: Count | None = None  # random cells; left out: 8 of reconstructions, 2 of a comparison
    apart: bool = False  # reconstructions: each channel in rows of its own too
    compounds: tuple[str, ...] = ()  # interpolation: COMPOUND or COMPOUND@DOSE; left out: one of each of six mechanisms
    frames: Annotated[int, Bounds(ge=2)] = 7  # interpolation: decoded frames
    way: Literal["swap", "line"] = "swap"  # interpolation: the paper's swap of features, or a straight line
    treatment: str | None = None  # comparison: COMPOUND@DOSE; left out: a random one
    assessments: tuple[str, ...] = ()  # assessment: names of blinded tests; left out: all
    picture_seed: Seed = 0  # of random cells, and of the random treatment of a comparison
