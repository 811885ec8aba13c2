"""Figure 2: cells above their reconstructions by each model that decodes. Lafarge et al. 2019."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from phenolens.core.progress import track
from phenolens.crops.store import CropStore
from phenolens.paper_figures.config import FigureConfig
from phenolens.plotting.cell_images import reconstructions
from phenolens.runs.catalogue import Catalogue
from phenolens.runs.decoder import DecodingRun, find_decoding_runs, runs_by_title
from phenolens.runs.example_cells import chosen_words, of_different_mechanisms, seen_words, unseen_cells
from phenolens.study import Study

SHOWN_CELLS = 8  # by default


def reconstructions_figure(study: Study, config: FigureConfig) -> Figure:
    """Figure 2: originals above the reconstructions of the same cells by each model, the plainest first."""
    return draw_reconstructions(study.crops, find_decoding_runs(study, config.runs), config)


def draw_reconstructions(store: CropStore, runs: Sequence[DecodingRun], config: FigureConfig) -> Figure:
    """Figure 2 of these runs; cells of held-out wells are preferred where none is named."""
    unseen, catalogue = unseen_cells(store, runs), Catalogue.of(store.cells)
    rows = catalogue.find_cells(config.cells)
    if not len(rows):
        random = np.random.default_rng(config.picture_seed)
        rows = of_different_mechanisms(catalogue, config.shown_cells or SHOWN_CELLS, unseen=unseen, random=random)
    decoding = track(runs_by_title(runs).items(), "decoding cells", total=len(runs))
    by_model = {name: run.reconstructed(rows) for name, run in decoding}
    return reconstructions(
        runs[0].originals(rows),
        by_model,
        catalogue.labels(rows),
        channels=store.channels,
        apart=config.apart,
        note=f"{chosen_words(config.cells, config.picture_seed)} {seen_words(rows, unseen)}",
    )
