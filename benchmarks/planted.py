"""Which measure shows which planted parameter? Each parameter that a mechanism moves, moved alone in drawn cells.

    python benchmarks/planted.py OUT
    python benchmarks/planted.py OUT --study demo/study --screen demo/screen

SHOWS declares, for what can be seen in a crop at all, the measure that shows a parameter and with which sign; it was
written from how cells are drawn and from this script, before any travel was measured. For each mechanism and each
declared parameter that it moves, cells are drawn in which this parameter alone has the mechanism's value and all others
are untreated; the effect is the measure's mean minus that of untreated cells, in deviations of untreated cells. No
model takes part. OUT gets planted.md and planted.csv (a row per mechanism and parameter; known_answers.py reads it).

With a study of a simulated screen, the rank correlation of each parameter with its measure over its real crops too.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import tyro
from tyro.conf import OmitArgPrefixes, Positional

from phenolens.core.bounds import Bounded, Count
from phenolens.core.errors import InputError
from phenolens.core.files import write_text
from phenolens.core.progress import tell, track
from phenolens.crops.store import normalised
from phenolens.morphology.features import measures
from phenolens.simulation.microscope import acquire, draw_cells, plate_optics
from phenolens.simulation.phenotypes import MECHANISMS, SPREAD, UNTREATED, Phenotype, sample_cells
from phenolens.simulation.screen_design import random_for
from phenolens.study import Study

CHANNELS = ("DNA", "tubulin", "actin")
PLACE = ["plate", "well", "site", "object_number"]  # names a cell, in crops and truth
LEAST_SHIFT = 1.0  # of a parameter from its untreated mean, in its deviations from cell to cell, to be looked at
LEAST_SHARE = 0.03  # the same for shares of cells
USUAL_SPREAD = 0.2  # for parameters of a whole field, which have no deviation from cell to cell

FIELD_PX = 460
CELLS_PER_FIELD = 20.0  # mean number of untreated cells


@dataclass(frozen=True)
class Shows:
    """The measure that shows a parameter, declared before any travel was measured, from how cells are drawn."""

    parameter: str
    measure: str
    sign: int  # of the measure's change when the parameter grows
    why: str


class DrawnCrops(NamedTuple):
    """Cells whose whole crop lies inside the field."""

    crops: np.ndarray  # (n, 3, S, S) uint16, under even illumination
    truth: pd.DataFrame  # (n rows) ground-truth parameters


def drawn_crops(phenotype: Phenotype, *, fields: int, seed: int, crop_px: int = 68) -> DrawnCrops:
    """Simulate cells at the full effect of `phenotype`, all with the same optics.

    With the same seed, two phenotypes that differ in one parameter give paired cells that differ in that parameter
    only, unless it changes how many random numbers are drawn.

    Args:
        phenotype: means of the population.
        fields: number of fields to simulate.
        seed: selects all random numbers.
        crop_px: side length S of a crop.
    """
    crops, truth = [], []
    for field in range(fields):
        rng = random_for(seed, "drawn crops", field)
        cells = sample_cells(
            rng, target=phenotype, strength=1.0, n_expected=CELLS_PER_FIELD, height_px=FIELD_PX, width_px=FIELD_PX
        )
        light = draw_cells(cells, rng, seed=seed, height_px=FIELD_PX, width_px=FIELD_PX)
        image = acquire(light, plate_optics(rng, rng, batch_effect=0, unevenness=0), rng, noise=1)
        top, left = (np.rint(cells[axis]).astype(int) - crop_px // 2 for axis in ("y_px", "x_px"))
        inside = top.between(0, FIELD_PX - crop_px) & left.between(0, FIELD_PX - crop_px)
        corners = list(zip(top[inside], left[inside], strict=True))
        crops += [image[:, y : y + crop_px, x : x + crop_px] for y, x in corners]
        truth.append(cells[inside])
    return DrawnCrops(
        np.reshape(crops, (-1, 3, crop_px, crop_px)).astype(np.uint16), pd.concat(truth, ignore_index=True)
    )


SHOWS = (
    Shows("nucleus_radius_px", "nucleus_area_px", 1, "a larger nucleus covers more pixels"),
    Shows("nucleus_aspect", "nucleus_eccentricity", 1, "a longer nucleus is a longer ellipse"),
    Shows("nucleus_lobing", "nucleus_solidity", -1, "between lobes the convex hull is empty"),
    Shows("chromatin_contrast", "DNA_fine_texture", 1, "brighter and darker chromatin varies more from pixel to pixel"),
    Shows("chromatin_grain", "DNA_coarse_texture", 1, "clumps of some pixels vary more over some pixels"),
    Shows("nucleolus_depth", "nucleus_dark_depth", 1, "darker nucleoli are deeper spots"),
    Shows("fragmented_share", "n_nuclear_fragments", 1, "the more nuclei in pieces, the more pieces on average"),
    Shows("dying_share", "nucleus_solidity", -1, "crumbs of chromatin fill little of their hull"),
    Shows("monopolar_share", "tubulin_over_nucleus", 1, "the spindle's bright aster lies among the chromosomes"),
    Shows("mitotic_share", "tubulin_coarse_texture", 1, "spindles are bright clumps of some pixels"),
    Shows("cell_radius_px", "cell_area_px", 1, "a larger body covers more of the crop"),
    Shows("cell_aspect", "cell_eccentricity", 1, "a longer body is a longer ellipse"),
    Shows("n_microtubules", "tubulin_fibres", 1, "without filaments there are no thin bright lines"),
    Shows("microtubule_length_px", "tubulin_near_nucleus", -1, "short filaments stay where they start, at the nucleus"),
    Shows("tubulin_bundling", "tubulin_fibres", 1, "bundles are brighter lines"),
    Shows("tubulin_diffuse", "tubulin_fine_texture", -1, "light that is not in filaments is smooth"),
    Shows("tubulin_polarity", "tubulin_polarity_px", 1, "filaments on one side draw the centre of light there"),
    Shows("aggresome", "tubulin_coarse_texture", 1, "a clump of some pixels"),
    Shows("actin_cortex", "actin_fibres", 1, "the free edge is a thin bright line"),
    Shows("actin_junction", "actin_fibres", 1, "a border with a neighbour is a thin bright line"),
    Shows("actin_diffuse", "actin_mean", 1, "light all over the body raises its mean beside the brightest pixel"),
    Shows("n_actin_aggregates", "actin_spots", 1, "clumps are bright spots"),
    Shows("defocus", "tubulin_sharpness", -1, "out of focus filaments blur"),
    Shows("clustering", "n_neighbours", 1, "cells that seek the side of others have them in their crop"),
)


@dataclass(frozen=True)
class Flags(Bounded):
    """What the benchmark takes."""

    out: Positional[Path]  # folder for the tables
    fields: Count = 4  # fields simulated per parameter, about 16 cells each; five times as many untreated
    study: Path | None = None  # a study of a simulated screen, for the correlations
    screen: Path | None = None  # that screen, with its truth.parquet

    def __post_init__(self) -> None:
        """InputError on a number out of bounds, or one of the two folders alone."""
        super().__post_init__()
        if (self.study is None) != (self.screen is None):
            raise InputError("--study, --screen: expected both or neither")


def planted(flags: Flags) -> None:
    """Draw, measure, write the tables."""
    flags.out.mkdir(parents=True, exist_ok=True)
    table = alone_effects(flags.fields)
    write_text(flags.out / "planted.csv", table.to_csv(index=False))
    parts = [f"{flags.fields} fields for each parameter alone, seeds 0 to {len(table)}.\n", markdown(table.round(2))]
    if flags.study is not None and flags.screen is not None:
        parts.append(markdown(correlations(Study.open(flags.study), flags.screen / "truth.parquet").round(2)))
    write_text(flags.out / "planted.md", "\n".join(parts))
    print((flags.out / "planted.md").read_text())
    tell(f"next: python benchmarks/known_answers.py OUT --planted {flags.out / 'planted.csv'} --study STUDY")


def alone_effects(fields: int) -> pd.DataFrame:
    """A row for each mechanism and each declared parameter that it moves: the effect of it alone on its measure."""
    untreated = measured(drawn_crops(UNTREATED, fields=5 * fields, seed=0).crops)
    middle, unit = untreated.mean(), untreated.std()
    moved = [
        (name, shows) for name, target in MECHANISMS.items() for shows in SHOWS if is_moved(target, shows.parameter)
    ]
    rows = []
    for seed, (name, shows) in enumerate(track(moved, "moving one parameter at a time", total=len(moved)), start=1):
        value = getattr(MECHANISMS[name], shows.parameter)
        found = measured(drawn_crops(replace(UNTREATED, **{shows.parameter: value}), fields=fields, seed=seed).crops)
        sign = int(shows.sign * np.sign(value - getattr(UNTREATED, shows.parameter)))
        effect = (found[shows.measure].mean() - middle[shows.measure]) / unit[shows.measure]
        rows.append((name, shows.parameter, value, shows.measure, sign, effect, len(found)))
    columns = ["mechanism", "parameter", "value", "measure", "sign", "effect_alone", "n_cells"]
    return pd.DataFrame(rows, columns=columns)


def is_moved(target: Phenotype, parameter: str) -> bool:
    """Whether a mechanism moves a parameter by more than cells differ in it anyway."""
    untreated, value = getattr(UNTREATED, parameter), getattr(target, parameter)
    if parameter.endswith("_share"):
        return abs(value - untreated) >= LEAST_SHARE
    return abs(value - untreated) > LEAST_SHIFT * untreated * SPREAD.get(parameter, 0.2)


def measured(crops: np.ndarray) -> pd.DataFrame:
    """The measures of stored crops (n, 3, S, S)."""
    return measures(normalised(crops), channels=CHANNELS)


def correlations(study: Study, truth_path: Path) -> pd.DataFrame:
    """A row a declared parameter: its rank correlation with its measure over a study's crops of interphase cells."""
    store = study.crops
    truth = store.cells[PLACE].merge(pd.read_parquet(truth_path), on=PLACE, how="left", validate="1:1")
    found = measured(store.take(np.arange(len(store))))
    interphase, control = truth["state"] == "interphase", truth["strength"] == 0
    rows = []
    for shows in SHOWS:
        if shows.parameter not in truth:  # shares and the like belong to a well, not to a cell
            continue
        of_all, of_controls = (
            found.loc[rows_, shows.measure].corr(truth.loc[rows_, shows.parameter], method="spearman")
            for rows_ in (interphase, interphase & control)
        )
        rows.append((shows.parameter, shows.measure, shows.sign, of_all, of_controls))
    return pd.DataFrame(rows, columns=["parameter", "measure", "sign", "all cells", "control cells"])


def markdown(table: pd.DataFrame) -> str:
    """A table as Markdown."""
    rows = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows) + "\n"


def main() -> int:
    """0 when it is done, 2 for bad input."""
    try:
        planted(tyro.cli(Flags, prog="planted.py", description=__doc__, config=(OmitArgPrefixes,)))
    except InputError as error:
        tell(f"planted.py: {error}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
