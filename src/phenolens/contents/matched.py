"""Treatments and the treatments they were matched with, with cells of both to look at."""

import numpy as np
import pandas as pd

from phenolens.contents.embedded import EmbeddedCells
from phenolens.images.store import CropStore, normalised
from phenolens.viewing.neighbours import Match

SHOWN_WRONG = 4  # treatments that were matched with another mechanism
SHOWN_RIGHT = 4  # and with their own


def shown_matches(queries: pd.DataFrame, cells: EmbeddedCells, store: CropStore, *, n_cells: int) -> list[Match]:
    """Up to SHOWN_WRONG wrong treatments and SHOWN_RIGHT right ones, each of another mechanism where there are so many.

    `queries` is a score's neighbours table as it is written: a row a treatment. The most alike pairs come first, so a
    wrong one is one that the profiles were sure of. Cells are those nearest to their treatment's mean embedding.
    """
    counted = queries[queries["counted"].astype(str) == "True"]
    right = counted["right"].astype(str) == "True"
    chosen = pd.concat([_varied(counted[~right], SHOWN_WRONG), _varied(counted[right], SHOWN_RIGHT)])

    def typical(treatment: str) -> np.ndarray:
        rows = cells.rows(Treatment=treatment)
        away = np.square(cells.z[rows] - cells.z[rows].mean(axis=0)).sum(axis=1)
        return normalised(store.take(rows[np.argsort(away, kind="stable")[:n_cells]]))

    return [
        Match(
            treatment=row["treatment"],
            moa=row["moa"],
            neighbour=row["neighbour"],
            predicted=row["predicted"],
            distance=row["distance"],
            cells=typical(row["treatment"]),
            neighbour_cells=typical(row["neighbour"]),
        )
        for row in chosen.to_dict("records")
    ]


def _varied(queries: pd.DataFrame, n: int) -> pd.DataFrame:
    """The `n` rows of smallest distance, one of each mechanism before a second of any."""
    ordered = queries.assign(distance=queries["distance"].astype(float)).sort_values("distance", kind="stable")
    turn = ordered.groupby("moa", sort=False).cumcount()
    return ordered.assign(turn=turn).sort_values(["turn", "distance"], kind="stable").head(n).drop(columns="turn")
