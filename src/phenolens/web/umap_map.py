"""The map's page: cells and treatments in two dimensions, as a run embeds them, by PCA or UMAP (McInnes et al. 2018).

N rows, n points of a map, Z features. A distance on a map is only a hint. Places and groups are sent as
plain numbers, so that a million cells open at once; points are numbered from 0 in the order of their `Map`.
"""

import warnings
from dataclasses import dataclass, replace
from importlib.util import find_spec
from threading import Lock
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from fastapi import Depends, Query, Response
from fastapi.responses import HTMLResponse
from sklearn.decomposition import PCA

from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.files import read_h5ad
from phenolens.core.number_text import change_text, unbroken
from phenolens.crops.store import CropStore
from phenolens.embedding_files import mapped_embeddings
from phenolens.morphology.features import by_subject, describe
from phenolens.runs.catalogue import Catalogue, evenly
from phenolens.runs.real_change import clear_changes
from phenolens.runs.scores import profiles_in_words
from phenolens.screens.screen import treatment_label
from phenolens.study import Study
from phenolens.web.base import EMPTY_STYLE, Cached, NotFoundError, PageApp, address, csv, policy
from phenolens.web.map_groups import COLUMNS, Groups, by_measure, grouped
from phenolens.web.study_view import StudyCells, StudyView, known

Projection = Literal["pca", "umap"]
PCA_CELLS = 20_000  # cells, evenly over the wells, on which the axes are fitted
MAP_CELLS = 1_000_000  # cells, evenly over the wells, on a map by PCA
UMAP_CELLS = 10_000  # cells, evenly over the wells, in a UMAP: about half a minute on one core
UMAP_NEIGHBOURS = 15  # umap-learn's default
UMAP_COMPONENTS = 50  # principal components that UMAP is given, so that its time does not grow with Z
_UMAP_LOCK = Lock()  # its compiled loops must not run twice at once
LEAST_ON_MAP = 3  # treatments
CACHED_MAPS = 6  # in memory; 16 MB each for a million cells
SHOWN_DIFFERENCES = 6  # measures in which a selection differs from the rest
MAX_FOUND = 2000  # points that a search marks
# plotly.js compiles its WebGL programs with Function(), which only this page allows. The style of plotly's geographic
# maps, which are not used here, is refused: a browser's console says so.
MAP_POLICY = policy(
    script_src="'self' 'unsafe-eval'",
    style_src=f"'self' {EMPTY_STYLE}",
    img_src="'self' data:",
    connect_src="'self'",
    form_action="'self'",
)

Of = Literal["treatments", "cells"]
By = Annotated[str, Query(max_length=200)]  # one of COLUMNS, or on a map of cells a measure
Numbers = Annotated[str, Query(max_length=400, pattern=r"^\d{1,9}(,\d{1,9}){0,31}$")]
ManyNumbers = Annotated[str, Query(max_length=16_000, pattern=r"^\d{1,9}(,\d{1,9})*$")]
Text = Annotated[str, Query(min_length=1, max_length=200)]


def fit_pca(rows: np.ndarray, n_components: int = 2) -> PCA:
    """The principal components of rows (N, Z), computed in float64; the largest loading of each is positive.

    Raises:
        InputError: fewer than three rows, values that are not finite, or no variance.
    """
    rows = _checked(rows)
    if not np.ptp(rows, axis=0).max() > 0:
        raise InputError(f"{len(rows)} rows that are all the same: there is no direction in which they vary")
    return PCA(min(n_components, rows.shape[1]), svd_solver="covariance_eigh").fit(rows)


def pca_places(pca: PCA, rows: np.ndarray) -> np.ndarray:
    """Rows (N, Z) on the first two axes: (N, 2) float32."""
    places = pca.transform(rows)[:, :2].astype(np.float32)
    return np.pad(places, ((0, 0), (0, 2 - places.shape[1])))  # one feature has one axis


def umap_places(rows: np.ndarray, *, metric: str, seed: int = 0) -> np.ndarray:
    """Rows (N, Z) by UMAP: (N, 2) float32; the same rows and seed give the same places on one machine.

    Raises:
        InputError: umap-learn is not installed; the message has the install line.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own dependencies
            from umap import UMAP
    except ModuleNotFoundError as error:
        raise InputError(f'{error.name} is not installed; UMAP needs: pip install "phenolens[umap]"') from error
    rows = _checked(rows)
    if metric == "euclidean":
        rows = (
            fit_pca(rows, UMAP_COMPONENTS).transform(rows) if rows.shape[1] > UMAP_COMPONENTS else rows - rows.mean(0)
        )
    with warnings.catch_warnings(), _UMAP_LOCK:
        warnings.simplefilter("ignore")  # that a seed keeps it on one thread, and that few rows have few neighbours
        places = UMAP(
            n_neighbors=min(UMAP_NEIGHBOURS, len(rows) - 1),
            metric=metric,
            random_state=seed,
            init="random" if len(rows) < 2 * UMAP_NEIGHBOURS else "spectral",
        ).fit_transform(rows.astype(np.float32))
    return np.asarray(places, np.float32)


def _checked(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, float)
    if rows.ndim != 2 or len(rows) < 3 or not np.isfinite(rows).all():
        raise InputError(f"embeddings of shape {rows.shape}: expected finite values, a row per cell, at least 3 rows")
    return rows


@dataclass(frozen=True)
class Map:
    """Points in a random but fixed order, so that none is drawn on top of the others because of its well."""

    places: np.ndarray  # (n, 2) float32
    rows: np.ndarray  # (n,) a cell's row of the crop store, or a treatment's row of `names`
    names: tuple[str, ...]  # of the treatments; empty on a map of cells
    control: tuple[float, float] | None  # the controls' mean, on a map of treatments by PCA
    caption: str  # how it was made and what is left out


def map_of_cells(study: Study, run: str, store: CropStore, *, projection: Projection, seed: int = 0) -> Map:
    """The counted cells of a run by their embeddings: at most MAP_CELLS by PCA, at most UMAP_CELLS by UMAP.

    Raises:
        InputError: the cells are not embedded; the message names the command.
    """
    kept = np.flatnonzero(~store.cells["is_noise"].to_numpy(bool))
    n_flagged = len(store) - len(kept)
    left_out = f" Left out: {counted(n_flagged, 'flagged cell')}." if n_flagged else ""
    sample = evenly(kept, PCA_CELLS if projection == "pca" else UMAP_CELLS)
    sampled = f"{len(sample):,} of {len(kept):,} cells, evenly over the wells"
    embeddings = mapped_embeddings(study, run, store)
    z = embeddings[sample]
    if projection == "umap":
        rows = sample
        caption = f"UMAP of {sampled if len(sample) < len(kept) else f'{len(sample):,} cells'}.{left_out}"
        places = umap_places(z, metric="euclidean", seed=seed)
    else:
        pca, rows = fit_pca(z), evenly(kept, MAP_CELLS)
        places = np.concatenate([pca_places(pca, part) for part in embeddings.blocks(rows)])
        fitted = f", fitted on {sampled}" if len(sample) < len(kept) else ""
        shown = f"{len(rows):,} of {len(kept):,} cells, evenly over the wells," if len(rows) < len(kept) else ""
        caption = f"{shown or f'{len(kept):,} cells'} by the first two principal components of their embeddings"
        caption += f"{_explained(pca)}{fitted}.{left_out}"
    order = np.random.default_rng(seed).permutation(len(rows))
    return Map(places[order], rows[order], (), None, caption)


def too_few(n_treatments: int) -> str:
    """Why there is no map of so many treatments; empty where there is one."""
    needed = f"a map of treatments needs {LEAST_ON_MAP}, and this study has {n_treatments}"
    return needed if n_treatments < LEAST_ON_MAP else ""


def map_of_treatments(study: Study, run: str, *, projection: Projection, seed: int = 0) -> Map:
    """The treatments of a run by the headline's profiles; InputError when there are none, or fewer than three."""
    profiles = study.profiles(run)
    x, control, how = np.asarray(profiles.X, float), None, profiles_in_words(study, run)
    if few := too_few(len(x)):
        raise InputError(f"{few}; see the map of cells")
    if projection == "umap":
        places = umap_places(x, metric="cosine", seed=seed)
        caption = f"UMAP of {len(x)} treatments by their profiles ({how}), cosine distance."
    else:
        pca = fit_pca(x)
        places = pca_places(pca, x)
        if (mean := _mean_of_controls(study, run)) is not None:
            control = tuple(pca_places(pca, mean[None])[0].tolist())
        caption = f"{len(x)} treatments by the first two principal components of their profiles ({how})"
        caption += f"{_explained(pca)}."
    order = np.random.default_rng(seed).permutation(len(x))
    return Map(places[order], order, tuple(profiles.obs["Metadata_Treatment"].astype(str)), control, caption)


def _mean_of_controls(study: Study, run: str) -> np.ndarray | None:
    """The mean profile (Z,) of the control wells, weighted by their cells where treatments are.

    None where a study of an earlier version has no such wells.
    """
    whitening = study.headline["whitening"]
    path = study.wells_path(run, whitening=whitening)
    if not path.is_file():
        return None
    wells = read_h5ad(path, remedy=f"run `phenolens profile {study.folder}`")
    is_control = (wells.obs["Metadata_Role"].astype(str) == "control").to_numpy()
    if not is_control.any():
        return None
    weights = wells.obs["Metadata_Cell_Count"].to_numpy(float)[is_control] if whitening == "aligned" else None
    return np.average(np.asarray(wells.X, float)[is_control], axis=0, weights=weights)


def _explained(pca: PCA) -> str:
    shares = " and ".join(f"{100 * share:.0f} %" for share in pca.explained_variance_ratio_)
    return unbroken(f", {shares} of the variance")


@dataclass(frozen=True)
class MapQuery:
    """A map in its address."""

    run: str
    of: Of
    projection: Projection


class Maps:
    """The maps of a study, each computed once while its files stay the same."""

    def __init__(self, view: StudyView) -> None:
        self._view = view
        self._maps = Cached[tuple[Map, pd.DataFrame]](CACHED_MAPS)
        self._groups = Cached[Groups](CACHED_MAPS)

    def map(self, asked: MapQuery) -> tuple[Map, pd.DataFrame]:
        """A map, and the table that its `rows` refer to; NotFoundError, with the reason, where there is none."""
        return self._maps.get(self._key(asked), lambda: self._computed(asked))

    def groups(self, asked: MapQuery, by: By) -> Groups:
        """The points of a map in groups."""
        known(by, [*COLUMNS, *self.measures(asked.of)], what="colour")
        return self._groups.get((self._key(asked), by), lambda: self._grouped(asked, by))

    def too_few_treatments(self) -> str:
        """Why the study has no map of treatments; empty where it has one."""
        treatments = self._view.cells().catalogue.treatments
        return too_few(int(((treatments["role"] == "treated") & (treatments["n_cells"] > 0)).sum()))

    def measures(self, of: Of) -> dict[str, str]:
        """The measures that a map can be coloured by, with their phrases: of cells, once `phenolens measure` ran."""
        stored = self._view.cells().measured.stored if of == "cells" else None
        return {} if stored is None else {str(name): describe(str(name)) for name in stored.columns}

    def find(self, asked: MapQuery, text: str) -> np.ndarray:
        """Numbers of the points whose names contain a text, in any case, or of the cell with this id."""
        drawn, table = self.map(asked)
        wanted = text.casefold().strip()
        matching = np.zeros(len(table), bool)
        for column in ("treatment", "compound", "moa", "plate", "well", "batch"):
            codes, uniques = pd.factorize(table[column])
            matching |= np.array([wanted in str(name).casefold() for name in uniques], bool)[codes]
        if asked.of == "cells":
            matching |= (table["cell_id"] == text.strip()).to_numpy()
        return np.flatnonzero(matching[drawn.rows])

    def _key(self, asked: MapQuery) -> tuple[str, ...]:
        return *self._view.version(asked.run, asked.of), asked.projection

    def _grouped(self, asked: MapQuery, by: By) -> Groups:
        (drawn, table), stored = self.map(asked), self._view.cells().measured.stored
        if stored is not None and by in stored:
            return by_measure(stored[by].iloc[drawn.rows])
        return grouped(table[["role", COLUMNS[by]]].iloc[drawn.rows], by)

    def _computed(self, asked: MapQuery) -> tuple[Map, pd.DataFrame]:
        study, cells = self._view.study, self._view.cells()
        if not asked.run:
            raise NotFoundError(f"No model is trained yet; run `{self._view.next_step()}`.")
        try:
            if asked.of == "cells":
                return map_of_cells(study, asked.run, cells.store, projection=asked.projection), cells.catalogue.cells
            drawn = map_of_treatments(study, asked.run, projection=asked.projection)
        except InputError as error:
            raise NotFoundError(f"{error}.") from error
        return drawn, _treatment_table(cells.catalogue, drawn.names)


def add_map(app: PageApp, view: StudyView) -> Maps:
    """The addresses of the map and its data."""
    maps = Maps(view)

    def requested(asked: Annotated[MapQuery, Depends()]) -> MapQuery:
        return replace(asked, run=view.run(asked.run))

    Requested = Annotated[MapQuery, Depends(requested)]

    @app.get("/map", response_class=HTMLResponse)
    def map_page(
        run: str = "",
        of: Of = "treatments",
        projection: Projection = "pca",
        by: By = "",
        find: Annotated[str, Query(max_length=200)] = "",
    ) -> Response:
        few, moa = maps.too_few_treatments(), view.cells().catalogue.treatments.query("role == 'treated'")["moa"]
        run, of = view.run(run), "cells" if few else of
        choices = [name for name in COLUMNS if of == "cells" or name != "plate"]  # a treatment is on several
        usual = "mechanism" if moa.ne("").any() else "compound"
        query = {"run": run, "of": of, "projection": projection}
        response = app.page(
            "map.html",
            run=run,
            of=of,
            few=few,
            projection=projection,
            query=query,
            by=by if by and (of == "cells" or by in choices) else usual,
            find=find,
            choices=choices,
            measures=by_subject(maps.measures(of)),
            measure_command=f"phenolens measure {view.study.quoted}",
            models=view.models(),
            ready=view.is_done(run, "profiled" if of == "treatments" else "embedded"),
            next_step=view.next_step(run),
            umap_cells=UMAP_CELLS,
            projections=[("pca", "PCA"), *([("umap", "UMAP")] if find_spec("umap") else [])],
        )
        response.headers["Content-Security-Policy"] = MAP_POLICY
        return response

    @app.get("/map/places.bin")
    def places(asked: Requested) -> Response:
        return _numbers(maps.map(asked)[0].places.T.astype("<f4"))

    @app.get("/map/about.json")
    def about(asked: Requested) -> dict[str, Any]:
        drawn, _ = maps.map(asked)
        return {"caption": drawn.caption, "n": len(drawn.rows), "control": drawn.control}

    @app.get("/map/groups.bin")
    def codes(asked: Requested, by: By) -> Response:
        return _numbers(maps.groups(asked, by).codes.astype("<u2"))

    @app.get("/map/groups.json")
    def groups(asked: Requested, by: By) -> list[dict[str, Any]]:
        return maps.groups(asked, by).as_json()

    @app.get("/map/points.json")
    def points(asked: Requested, numbers: Numbers) -> list[dict[str, str]]:
        drawn, table = maps.map(asked)
        wanted = _within(numbers, drawn)
        describe = _cell_point if asked.of == "cells" else _treatment_point
        return [describe(view, asked.run, row) for _, row in table.iloc[drawn.rows[wanted]].iterrows()]

    @app.get("/map/differs.json")
    def differs(asked: Requested, inside: ManyNumbers, outside: ManyNumbers) -> list[dict[str, str]]:
        cells = view.cells()
        try:
            table = cells.changes.between(*(_cells_of(cells, maps.map(asked), text) for text in (inside, outside)))
        except InputError as error:
            raise NotFoundError(f"Not measured: {error}.") from error
        found = clear_changes(table, SHOWN_DIFFERENCES)
        return [{"measure": phrase, "change": change_text(change)} for phrase, change in found]

    @app.get("/map/selection.csv")
    def selection(asked: Requested, numbers: ManyNumbers) -> Response:
        drawn, table = maps.map(asked)
        return csv(table.iloc[drawn.rows[_within(numbers, drawn)]], f"selection_{asked.run}_{asked.of}")

    @app.get("/map/found.json")
    def found(asked: Requested, text: Text) -> dict[str, Any]:
        numbers = maps.find(asked, text)
        return {"n": len(numbers), "numbers": numbers[:MAX_FOUND].tolist()}

    return maps


def _within(text: str, drawn: Map) -> list[int]:
    """The numbers of points in a text; NotFoundError where one is not on the map."""
    numbers = [int(number) for number in text.split(",")]
    if max(numbers) >= len(drawn.rows):
        raise NotFoundError(f"This map has {len(drawn.rows):,} points, numbered from 0. Reload the page.")
    return numbers


def _cells_of(cells: StudyCells, found: tuple[Map, pd.DataFrame], text: str) -> np.ndarray:
    """Rows of the cells of these points: the points themselves, or counted cells of the treatments."""
    drawn, table = found
    rows = drawn.rows[_within(text, drawn)]
    if not drawn.names:
        return np.asarray(rows)
    listed = [name for name in table["treatment"].iloc[rows] if name in cells.catalogue.treatments.index]
    return np.sort(np.concatenate([np.zeros(0, int), *map(cells.catalogue.rows_of, listed)]))


def _numbers(values: np.ndarray) -> Response:
    return Response(values.tobytes(), media_type="application/octet-stream")


def _cell_point(view: StudyView, run: str, row: pd.Series) -> dict[str, str]:
    return {
        **_point(row),
        "where": f"plate {row['plate']}, well {row['well']}, cell {row['cell_id']}",
        "picture": view.cells().picture_address(row["cell_id"]),
        "link": address("cells", row["cell_id"]),
    }


def _treatment_point(view: StudyView, run: str, row: pd.Series) -> dict[str, str]:
    cells, name = view.cells(), str(row["treatment"])
    known = name in cells.catalogue.treatments.index
    typical = view.typical_cell(run, name) if known else None
    wells = counted(int(row["n_wells"]), "well")
    return {
        **_point(row),
        "where": f"{wells} of batch {row['batch']}; the cell is the one nearest to its mean",
        "picture": "" if typical is None else cells.picture_address(cells.row_of[typical]),
        "link": address("treatments", name, run=run) if known else "",
    }


def _point(row: pd.Series) -> dict[str, str]:
    mechanism = "control" if row["role"] == "control" else str(row["moa"]) or "mechanism not known"
    title = treatment_label(str(row["compound"]), row["concentration_um"], row["role"])
    return {"title": title, "mechanism": mechanism}


def _treatment_table(catalogue: Catalogue, names: tuple[str, ...]) -> pd.DataFrame:
    """A row per treatment of these names: compound, dose, mechanism, batches, number of wells."""
    treated = catalogue.wells[catalogue.wells["role"] != "control"]
    batches = treated.groupby("treatment")["batch"].agg(lambda of_wells: ", ".join(sorted(set(of_wells))))
    table = catalogue.treatments.reindex(list(names)).assign(role="treated", batch=batches, plate="", well="")
    missing = {"compound": "", "moa": "", "batch": "", "concentration_um": 0.0, "n_wells": 0}
    return table.fillna(missing).astype({"n_wells": int}).rename_axis("treatment").reset_index()
