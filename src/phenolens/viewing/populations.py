"""The populations of a treatment: a row each, its medoid and random cells of it, and what tells it from the others."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from phenolens.colours import Contrast, shared_contrast
from phenolens.errors import InputError
from phenolens.phenotype.journey import Journey
from phenolens.phenotype.measures import describe as words_of
from phenolens.viewing.canvas import describe, look, new_figure
from phenolens.viewing.pieces import (
    PAD_IN,
    SPACE,
    cell_grid,
    channel_key,
    contrast_words,
    draw_cell,
    label_row,
    listed,
)
from phenolens.viewing.travelstrip import in_three_digits, percent

LABEL_IN, SIDE_IN = 3.3, 0.95
LABEL_CHARACTERS = 40


def populations(journeys: Sequence[Journey], *, contrast: Contrast | None = None) -> Figure:
    """A row for each population that a journey leads to: the medoid first, then cells of it drawn at random.

    All cells are real. InputError where the journeys lead to no populations.
    """
    if not journeys or any(not journey.population.cells for journey in journeys):
        raise InputError("no populations to show: ask for --targets medoids")
    channels = journeys[0].channels
    rows = [
        [j.target.crop, *(cell.crop for cell in j.population.cells if cell.cell_id != j.target.cell_id)]
        for j in journeys
    ]
    every = np.concatenate([np.stack(row) for row in rows])
    contrast = contrast or shared_contrast(every, channels)
    n_columns = max(map(len, rows))
    n_cells = journeys[0].population.n_cells
    with look():
        height = 0.4 + (SIDE_IN + 2 * PAD_IN) * len(rows)
        figure = new_figure(LABEL_IN + SIDE_IN * (n_columns + SPACE), height, pad_in=PAD_IN)
        grid = cell_grid(figure, len(rows), n_columns + 1, width_ratios=[1.0, SPACE, *[1.0] * (n_columns - 1)])
        for axes_row, row, journey in zip(grid, rows, journeys):
            for axes in axes_row:
                axes.set_axis_off()
            for axes, crop in zip([axes_row[0], *axes_row[2:]], row):
                axes.set_axis_on()
                draw_cell(axes, crop, contrast)
            label_row(axes_row[0], population_words(journey), characters=LABEL_CHARACTERS, size=6.8)
        channel_key(figure, contrast)
        shares = listed([percent(journey.population.share) for journey in journeys])
        return describe(
            figure,
            caption=f"n = {n_cells} cells of {journeys[0].stops[-1]} in {len(journeys)} populations ({shares}); "
            "shown are the medoid, apart, and cells of its population drawn at random, all real. Beside them, means of "
            f"what differs most from the other cells. {contrast_words(contrast, every)}",
            alt=f"{len(journeys)} populations of {journeys[0].stops[-1]}: "
            + "; ".join(population_words(journey).replace("\n", ", ") for journey in journeys),
        )


def population_words(journey: Journey) -> str:
    """`population 2 of 3, 28 % of 39 cells`, and a line for each of its marks: `nucleus area 410, others 702`."""
    population = journey.population
    name = (
        f"population {population.number} of {population.of}, {percent(population.share)} of {population.n_cells} cells"
    )
    marks = [
        f"{words_of(measure).split(',')[0]} {in_three_digits(ours)}, others {in_three_digits(others)}"
        for measure, ours, others in population.marks
    ]
    return "\n".join([name, *marks])
