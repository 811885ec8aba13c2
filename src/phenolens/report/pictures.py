"""The report's pictures of cells: real cells, reconstructions, and interpolations to treatments."""

import anndata
import numpy as np

from phenolens.core.errors import InputError
from phenolens.core.progress import track
from phenolens.crops.store import CropStore, normalised
from phenolens.plotting.cell_images import contact_sheet, reconstructions
from phenolens.plotting.page import Picture
from phenolens.runs.catalogue import Catalogue, nearest_names
from phenolens.runs.decoder import DecodingRun, runs_by_title
from phenolens.runs.embeddings import EmbeddedCells
from phenolens.runs.example_cells import of_different_mechanisms, seen_words, unseen_cells
from phenolens.travel.compute import Traveller
from phenolens.travel.figure import travel_strip
from phenolens.travel.trajectory import TravelConfig

MOST_STRIPS = 6  # where no compound is named


def reconstructed_cells(store: CropStore, runs: list[DecodingRun], *, n: int, seed: int) -> Picture:
    """Cells of different mechanisms and each run's reconstructions; cells of held-out wells are preferred."""
    unseen = unseen_cells(store, runs)
    catalogue = Catalogue.of(store.cells)
    rows = of_different_mechanisms(catalogue, n, unseen=unseen, random=np.random.default_rng(seed))
    return reconstructions(
        runs[0].originals(rows),
        {name: run.reconstructed(rows) for name, run in runs_by_title(runs).items()},
        catalogue.labels(rows),
        channels=store.channels,
        note=seen_words(rows, unseen),
    )


def mechanism_sheet(store: CropStore, *, n: int, seed: int) -> Picture:
    """Random real cells, a row a mechanism, the control first."""
    random = np.random.default_rng(seed)
    cells = store.cells
    counted = ~cells["is_noise"].to_numpy(bool)
    is_control = cells["role"] == "control"
    groups = cells["moa"].where(~is_control, cells["compound"])
    controls = sorted(set(cells.loc[is_control, "compound"]))
    titles = controls + sorted(set(groups[counted].dropna()) - set(controls))
    crops = []
    for title in titles:
        rows = np.flatnonzero((groups == title).to_numpy() & counted)
        chosen = np.sort(random.choice(rows, min(n, len(rows)), replace=False))
        crops.append(normalised(store.take(chosen)))
    return contact_sheet(crops, titles, channels=store.channels)


def interpolation_strips(
    run: DecodingRun,
    cells: EmbeddedCells,
    profiles: anndata.AnnData,
    *,
    compounds: tuple[str, ...],
    frames: int,
) -> list[Picture]:
    """Interpolations from the control cell nearest to the controls' mean to a cell of each chosen treatment.

    Raises:
        InputError: If a named compound has no profile.
    """
    traveller = Traveller(run, cells)
    chosen = chosen_treatments(profiles, compounds)
    strips: list[Picture] = []
    for treatment in track(chosen, f"interpolations by {run.name}", total=len(chosen)):
        strips += map(travel_strip, traveller.travel(TravelConfig(to=treatment, frames=frames)))
    return strips


def chosen_treatments(profiles: anndata.AnnData, compounds: tuple[str, ...]) -> list[str]:
    """The named treatments, and the dose farthest from controls of named compounds, or else of MOST_STRIPS mechanisms.

    Raises:
        InputError: If a name has no profile; the message offers the nearest names.
    """
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
