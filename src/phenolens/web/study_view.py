"""What the explorer's pages show of a study, read from its folder and never written.

C channels, S crop side in px, Z features. Names in addresses are looked up and never become paths; of a study that is
not finished, pages show what there is.
"""

import shlex
from collections.abc import Hashable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from zlib import crc32

import numpy as np
import pandas as pd

from phenolens.core.colours import Contrast, cell_image, colour_names, png
from phenolens.core.errors import InputError
from phenolens.core.files import is_held
from phenolens.crops.store import ABOUT, CropStore, normalised
from phenolens.embedding_files import mapped_embeddings
from phenolens.models import decodes
from phenolens.morphology.medoids import MeasuredCells
from phenolens.profiles.distances import directions, distances
from phenolens.profiles.score_table import PROTOCOLS
from phenolens.readiness import COMMAND_OF, Step, about_of, default_run, run_config, steps_done
from phenolens.runs.catalogue import Catalogue, contrast_of, nearest_names
from phenolens.runs.embeddings import EmbeddedCells
from phenolens.runs.real_change import RealChanges, measured_cells
from phenolens.runs.scores import activity_of, queries_of, scores_of_encoders
from phenolens.study import Study
from phenolens.web.base import NotFoundError, address

if TYPE_CHECKING:
    from anndata import AnnData


MOST_ROWS = 14  # of the home page's cells
OUTLINED = 6  # times the size of a crop, of a picture with outlines


class NoCellsError(InputError):
    """The study has no crops yet."""


def known(name: str, names: Sequence[str], *, what: str) -> str:
    """The name if it is one of these; otherwise NotFoundError, which offers the nearest."""
    if name not in names:
        raise NotFoundError(f'There is no {what} "{name[:80]}" in this study; {nearest_names(name[:80], names)}')
    return name


@dataclass(frozen=True)
class StudyCells:
    """The crops of a study with their catalogue, as pages look them up."""

    store: CropStore
    catalogue: Catalogue
    study: Study

    @cached_property
    def contrast(self) -> Contrast:
        """The one contrast of all pictures."""
        rows = np.flatnonzero(self.catalogue.counted)
        return contrast_of(self.store, rows if len(rows) else np.arange(len(self.store)))

    @cached_property
    def row_of(self) -> pd.Index:
        """Cell ids in the store's order."""
        return pd.Index(self.catalogue.cells["cell_id"])

    @cached_property
    def measured(self) -> MeasuredCells:
        """Measures of cells, stored or each measured once; travels use the same."""
        return measured_cells(self.study, self.store, self.catalogue)

    @cached_property
    def changes(self) -> RealChanges:
        """What treatments change in real cells, each measured once."""
        return RealChanges(self.catalogue, self.measured, crop_px=self.store.crop_px)

    def row(self, cell_id: str) -> int:
        """A cell's row; NotFoundError where there is none of this id."""
        row = int(self.row_of.get_indexer(pd.Index([cell_id], dtype=object))[0])
        if row < 0:
            raise NotFoundError(f'There is no cell "{cell_id[:80]}" in this study. Find cells by well or treatment.')
        return row

    def records(self, rows: Iterable[int] | np.ndarray) -> list[dict[Hashable, Any]]:
        """These rows of the table of cells, for a page."""
        return self.catalogue.cells.iloc[list(map(int, rows))].to_dict("records")

    def treatment(self, name: str) -> pd.Series:
        """A treatment's row of the catalogue; NotFoundError when there is none."""
        table = self.catalogue.treatments
        return table.loc[[known(name, list(table.index), what="treatment")]].iloc[0]

    def doses_of(self, treatment: str) -> pd.DataFrame:
        """The treatments of the same compound by dose, after the controls."""
        table = self.catalogue.treatments
        same = table["compound"] == table.loc[treatment, "compound"]
        return pd.concat([table[(table["role"] == "control") & ~same], table[same]])

    def plate(self, name: str) -> pd.DataFrame:
        """The wells of a plate that have cells; index: their names."""
        known(name, self.store.plates, what="plate")
        wells = self.catalogue.wells
        return wells[wells["plate"] == name].set_index("well")

    def rows_of_well(self, plate: str, well: str) -> np.ndarray:
        """The rows of a well's cells, flagged ones included."""
        known(well, list(self.plate(plate).index), what=f'well with cells on plate "{plate}", well')
        cells = self.catalogue.cells
        return np.flatnonzero(((cells["plate"] == plate) & (cells["well"] == well)).to_numpy())

    def random(self, treatment: str, n: int, *, draw: int = 0) -> np.ndarray:
        """Rows of `n` random cells of a treatment; the same name and draw give the same cells."""
        rows = self.catalogue.rows_of(treatment)
        rng = np.random.default_rng([draw, crc32(treatment.encode())])
        return np.sort(rng.choice(rows, min(n, len(rows)), replace=False))

    def picture_address(self, cell_id: str, *, channel: str = "", outline: bool = False, **levels: object) -> str:
        """The address of a cell's picture, which browsers may cache; `levels` are those of a contrast set by hand."""
        shown = {"channel": channel, "outline": "true" if outline else "", **levels}
        return address("cells", f"{cell_id}.png", **shown, v=self.store.identity[:12])

    def png(self, cell_id: str, *, channel: str = "", outline: bool = False, contrast: Contrast | None = None) -> bytes:
        """A cell in colours, or one of its channels in grey, at the size of its crop larger with outlines."""
        whole = crop = normalised(self.store.take([self.row(cell_id)]))[0]
        contrast = contrast or self.contrast
        if channel:
            at = self.store.channels.index(known(channel, self.store.channels, what="channel"))
            crop, contrast = crop[at : at + 1], contrast.of_channels(at)
        if outline:
            return outlined_png(cell_image(crop, contrast), whole, self.store.channels)
        return png(crop, contrast)

    def picture_values(self, channel: str) -> dict[str, Any]:
        """The template values of a page with pictures of one channel, or of all where it is empty."""
        if channel:
            known(channel, self.store.channels, what="channel")
        return {
            "channel": channel,
            "channels": self.store.channels,
            "colours": colour_names(self.contrast),
            "side": self.store.crop_px,
            "picture": lambda cell_id: self.picture_address(cell_id, channel=channel),
        }


def outlined_png(picture: np.ndarray, crop: np.ndarray, channels: Sequence[str]) -> bytes:
    """A picture (S, S, 3) at OUTLINED times its size, with the outlines of the crop's (C, S, S) cell and nucleus."""
    import imagecodecs

    large = np.kron(picture, np.ones((OUTLINED, OUTLINED, 1)))
    for edge, colour in cell_outlines(crop, channels, times=OUTLINED):
        large[edge] = colour
    return bytes(imagecodecs.png_encode(np.round(255 * large).astype(np.uint8), level=1))


def cell_outlines(
    crop: np.ndarray, channels: Sequence[str], *, times: int = 1
) -> list[tuple[np.ndarray, tuple[float, float, float]]]:
    """The outlines of a crop's (C, S, S) cell and nucleus, one pixel wide: masks (times S, times S), and colours."""
    from scipy.ndimage import binary_erosion

    from phenolens.morphology.features import nuclei_channel
    from phenolens.morphology.segment import outlines

    nuclei = nuclei_channel(channels)
    at = None if nuclei is None else channels.index(nuclei)
    others = np.delete(crop, [] if at is None else [at], axis=0)
    found = outlines(None if at is None else crop[None, at].astype(float), others[None].astype(float))
    edges = []
    for mask, colour in ((found.body[0], (1.0, 1.0, 1.0)), (found.nucleus[0], (1.0, 0.9, 0.2))):
        inside = np.kron(mask, np.ones((times, times))).astype(bool)
        edges.append((inside & ~binary_erosion(inside), colour))
    return edges


class StudyView:
    """A study as the pages show it; a reload shows what other commands have added."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self._cells: tuple[bytes, StudyCells] | None = None
        self._typical: dict[tuple[str, ...], int | None] = {}

    def cells(self) -> StudyCells:
        """The study's cells, opened once; NoCellsError while there are none."""
        path = self.study.crops_folder / ABOUT
        if not path.is_file():
            raise NoCellsError(f"{self.study.crops_folder}: no crops here yet.")
        measured = sorted(path.stat().st_mtime_ns for path in self.study.measures_folder.glob("*.parquet"))
        made_from = path.read_bytes() + repr(measured).encode()
        if self._cells is None or self._cells[0] != made_from:
            store = self.study.crops
            self._cells = (made_from, StudyCells(store, Catalogue.of(store.cells), self.study))
        return self._cells[1]

    def models(self) -> dict[str, dict[Step, bool]]:
        """The runs, and which steps of each are done and up to date."""
        return {run: steps_done(self.study, run) for run in self.study.runs}

    def is_done(self, run: str, step: Step) -> bool:
        """Whether a step of a run is done and up to date; False for no run."""
        return bool(run) and steps_done(self.study, run)[step]

    def run(self, name: str) -> str:
        """The run of this name; without a name the default one of those with most steps done. Empty when none is."""
        models = self.models()
        if name:
            return known(name, list(models), what="model")
        most = max((sum(steps.values()) for steps in models.values()), default=0)
        return default_run(self.study, [run for run, steps in models.items() if sum(steps.values()) == most])

    def travel_run(self) -> str:
        """The default one of the embedded runs that decode, of all that decode while none is embedded; or empty."""
        models, decoding = self.models(), []
        for run in models:
            with suppress(InputError):  # not a run yet
                decoding += [run] if decodes(run_config(self.study, run)["model"]) else []
        return default_run(self.study, [run for run in decoding if models[run]["embedded"]] or decoding)

    def next_step(self, run: str = "") -> str:
        """The command that one run, or the runs whose training is finished, need next; empty when all is done."""
        folder, models = self.study.quoted, self.models()
        trained = {name: steps for name, steps in models.items() if steps["trained"]}
        models = {run: models[run]} if run in models else trained or models
        if not (self.study.crops_folder / ABOUT).is_file():
            return f"phenolens crop {folder} --source SCREEN --layout bbbc021"
        if not models:
            return f"phenolens train {folder} --model vaeplus"
        for step, verb in COMMAND_OF.items():
            missing = [name for name, steps in models.items() if not steps[step]]
            if missing and verb == "train":
                return self._training_of(missing[0])
            if missing:
                return f"phenolens {verb} {folder}"
        return "" if self.study.report_path.is_file() else f"phenolens report {folder}"

    def unfinished(self) -> dict[str, tuple[Path, str]]:
        """The runs whose training is not finished: their folder, and the command that finishes it; "" while it runs."""
        names = [run for run, steps in self.models().items() if not steps["trained"]]
        held = {run: is_held(self.study.training_lock(run)) for run in names}
        return {run: (self.study.run_folder(run), "" if held[run] else self._training_of(run)) for run in names}

    def _training_of(self, run: str) -> str:
        config = shlex.quote(str(self.study.run_folder(run) / "config.json"))
        return f"phenolens train {self.study.quoted} --name {shlex.quote(run)} --config {config}"

    def damaged(self) -> list[Path]:
        """Embeddings that exist and cannot be read; their run counts as not embedded."""
        plates = self.cells().store.plates
        paths = [self.study.embeddings_folder(run) / f"{plate}.h5ad" for run in self.study.runs for plate in plates]
        return [path for path in paths if path.is_file() and not about_of(path)]

    def version(self, run: str, of: Literal["cells", "treatments"] = "cells") -> tuple[str, ...]:
        """Changes when the crops do, or a run's checkpoint and embeddings (of cells) or profiles (of treatments)."""
        files: list[Path] = []
        if run and of == "cells":
            files = [*self.study.embeddings_folder(run).glob("*.h5ad"), self.study.run_folder(run) / "checkpoint.pt"]
        elif run:
            files = [*self.study.profiles_folder(run).glob("*.h5ad")]
        times = sorted((path.name, path.stat().st_mtime_ns) for path in files if path.is_file())
        return self.cells().store.identity, of, run, repr(times)

    def scores(self) -> pd.DataFrame | None:
        """scores.csv, of encoders alone; None while nothing is scored, or profiles changed since."""
        with suppress(InputError):
            return scores_of_encoders(self.study)
        return None

    def strongest_by_mechanism(self, run: str) -> dict[str, str]:
        """By mechanism, controls first: its treatment that differs most from them, or the first where none is scored.

        At most MOST_ROWS; where no mechanism is known, a row per treatment.
        """
        table, treated = self.cells().catalogue.treatments, self._treated(run)
        controls = table[(table["role"] == "control") & (table["n_cells"] > 0)]
        rows = dict(zip(["control"], map(str, controls.index)))
        for name, mechanism in treated["moa"].items():
            rows.setdefault(str(mechanism) if treated["moa"].ne("").any() else str(name), str(name))
        return {mechanism: name for mechanism, name in list(rows.items())[:MOST_ROWS] if mechanism}

    def strongest_treatment(self, run: str) -> str:
        """The scored treatment with cells that differs most from the controls; empty where there is none."""
        return str(next(iter(self._treated(run).index), ""))

    def _treated(self, run: str) -> pd.DataFrame:
        """The rows of the treated treatments with cells, those that differ most from the controls first."""
        table = self.cells().catalogue.treatments
        activity = activity_of(self.study, run) if run else None
        far = pd.Series(dtype=float) if activity is None else activity.set_index("name")["distance"]
        table = table[(table["role"] == "treated") & (table["n_cells"] > 0)]
        return table.assign(distance=far.reindex(table.index).fillna(0.0)).sort_values(
            "distance", ascending=False, kind="stable"
        )

    def matches(self, run: str) -> dict[str, pd.DataFrame]:
        """By protocol, where scored: each treatment's nearest neighbour and whether its mechanism is the same."""
        tables = [(protocol, queries_of(self.study, run, protocol)) for protocol in PROTOCOLS if run]
        return {protocol: table for protocol, table in tables if table is not None}

    def wrong(self, run: str) -> pd.DataFrame:
        """Treatments whose neighbour under NSC has another mechanism, the most similar first."""
        table = self.matches(run).get("NSC")
        if table is None:
            return pd.DataFrame()
        return table[table["counted"] & ~table["right"]].sort_values("distance", kind="stable")

    def neighbours(self, run: str, treatment: str) -> pd.DataFrame:
        """The other treatments by the headline's profiles, the nearest first; no rows where this one has no profile.

        Columns: treatment, compound, moa (empty where unknown), cosine_distance (0 to 2).
        """
        profiles = self._treatment_profiles(run)
        if profiles is None or treatment not in set(profiles.obs["Metadata_Treatment"]):
            return pd.DataFrame()
        columns = {"Metadata_Treatment": "treatment", "Metadata_Compound": "compound", "Metadata_MoA": "moa"}
        table = profiles.obs[[*columns]].rename(columns=columns).astype(str).reset_index(drop=True)
        rows, own = directions(profiles, "cosine"), table["treatment"] == treatment
        table["cosine_distance"] = distances(rows[own], rows, "cosine")[0]
        return table[~own].sort_values("cosine_distance", kind="stable")

    def nearest_to_mean(self, run: str, treatment: str, *, n: int) -> dict[int, float]:
        """The `n` cells nearest to the mean of a treatment's cells: row to Euclidean distance between embeddings.

        Empty where the run is not embedded.
        """
        shown = self.cells()
        rows = shown.catalogue.rows_of(treatment)
        if not len(rows) or not self.is_done(run, "embedded"):
            return {}
        cells = EmbeddedCells(mapped_embeddings(self.study, run, shown.store), shown.catalogue)
        away = np.sqrt(cells.squared_distances(rows, cells.mean(rows)))
        order = np.argsort(away, kind="stable")[:n]
        return {int(rows[place]): float(away[place]) for place in order}

    def typical_cell(self, run: str, treatment: str) -> int | None:
        """The row of the cell nearest to a treatment's mean, computed once; None where the run is not embedded."""
        key = (*self.version(run), treatment)
        if key not in self._typical:
            self._typical[key] = next(iter(self.nearest_to_mean(run, treatment, n=1)), None)
        return self._typical[key]

    def _treatment_profiles(self, run: str) -> "AnnData | None":
        kind = {"statistics": "mean", "whitening": self.study.headline["whitening"]}
        exists = self.is_done(run, "profiled") and self.study.treatments_path(run, **kind).is_file()
        return self.study.profiles(run) if exists else None
