"""The report's pictures of cells: real ones, redrawn ones, matched ones, and cells on their way to treatments.

N cells of a study, n that are shown.
"""

import anndata
import numpy as np
import pandas as pd

from phenolens.core.errors import InputError
from phenolens.core.progress import track
from phenolens.crops.store import CropStore, normalised
from phenolens.plotting.cell_images import contact_sheet, reconstructions
from phenolens.plotting.page import Picture
from phenolens.report.nearest_neighbours import matches, shown_matches
from phenolens.runs.catalogue import Catalogue, nearest_names
from phenolens.runs.decoder import PicturedRun, named_runs
from phenolens.runs.embeddings import embedded_cells
from phenolens.runs.example_cells import of_different_mechanisms, seen_words, unseen_cells
from phenolens.study import Study
from phenolens.travel.compute import Traveller
from phenolens.travel.config import TravelConfig
from phenolens.travel.figure import travel_strip

MATCH_CELLS = 4  # of each of two matched treatments
MOST_STRIPS = 6  # where no compound is named


def redrawn_cells(store: CropStore, runs: list[PicturedRun], *, n: int, seed: int) -> Picture:
    """Cells of different mechanisms above what each run makes of them; wells that training did not see come first."""
    unseen = unseen_cells(store, runs)
    catalogue = Catalogue.of(store.cells)
    rows = of_different_mechanisms(catalogue, n, unseen=unseen, random=np.random.default_rng(seed))
    by_model = {name: run.redrawn(rows) for name, run in named_runs(runs).items()}
    return reconstructions(
        runs[0].originals(rows),
        by_model,
        catalogue.labels(rows),
        channels=store.channels,
        note=seen_words(rows, unseen),
    )


def real_cells(store: CropStore, *, n: int, seed: int) -> Picture:
    """Random real cells, a row a mechanism, the control first."""
    random = np.random.default_rng(seed)
    cells = store.cells
    fine = ~cells["is_noise"].to_numpy(bool)
    groups = cells["moa"].where(cells["role"] != "control", cells["compound"])
    control = sorted(set(cells.loc[cells["role"] == "control", "compound"]))
    titles = control + sorted(set(groups[fine].dropna()) - set(control))
    crops = []
    for title in titles:
        rows = np.flatnonzero((groups == title).to_numpy() & fine)
        picked = np.sort(random.choice(rows, min(n, len(rows)), replace=False))
        crops.append(normalised(store.take(picked)))
    return contact_sheet(crops, titles, channels=store.channels)


def matched_cells(study: Study, name: str, queries: pd.DataFrame, store: CropStore) -> Picture | None:
    """Treatments beside the ones they were matched with; None where no match counts."""
    shown = shown_matches(queries, embedded_cells(study, name), store, n_cells=MATCH_CELLS)
    return matches(shown, channels=store.channels) if shown else None


def travel_strips(
    study: Study, run: PicturedRun, profiles: anndata.AnnData, *, compounds: tuple[str, ...], frames: int
) -> list[Picture]:
    """From the control cell nearest to the controls' mean to a cell of each chosen compound, measured on the way.

    `profiles` of treatments say which dose of a compound is farthest from the controls; where no compound is named,
    the farthest treatments of MOST_STRIPS mechanisms are taken. InputError for a compound that is not there.
    """
    traveller = Traveller.open(study, run.name)
    asked = chosen_treatments(profiles, compounds)
    strips: list[Picture] = []
    for treatment in track(asked, f"ways to treatments by {run.name}", total=len(asked)):
        strips += [travel_strip(way) for way in traveller.travel(TravelConfig(to=treatment, frames=frames))]
    return strips


def chosen_treatments(profiles: anndata.AnnData, compounds: tuple[str, ...]) -> list[str]:
    """The treatments named, and of compounds named, or of MOST_STRIPS mechanisms, those farthest from controls."""
    obs = profiles.obs.assign(distance=np.linalg.norm(np.asarray(profiles.X), axis=1))
    obs = obs.sort_values("distance", ascending=False, kind="stable")
    treatments, of_compound = obs["Metadata_Treatment"].astype(str), obs["Metadata_Compound"].astype(str)
    named = {name: name for name in treatments} | dict(zip(of_compound[::-1], treatments[::-1]))
    for name in compounds:
        if name not in named:
            raise InputError(f'no profile of COMPOUND or COMPOUND@DOSE "{name}"; {nearest_names(name, sorted(named))}')
    if compounds:
        return [named[name] for name in compounds]
    labelled = obs[obs["Metadata_MoA"].astype(str) != ""]
    return labelled.drop_duplicates("Metadata_MoA")["Metadata_Treatment"].astype(str).tolist()[:MOST_STRIPS]
