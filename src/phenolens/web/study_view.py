"""What the explorer's pages say, read from a study's folder and never written.

N cells, C channels, S crop side in px, Z features. Names are looked up, never made into paths; a study that is half run
gives what there is.

C channels, S crop side in px.

N cells, C channels, S crop side in px.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from zlib import crc32

import imagecodecs
import numpy as np
import pandas as pd

from phenolens.core.colours import Contrast, cell_image, colour_words, shared_contrast
from phenolens.core.errors import InputError
from phenolens.core.files import read_h5ad, read_json
from phenolens.crops.store import ABOUT, CropStore, normalised
from phenolens.profiles.nsc import directions, distances
from phenolens.profiles.score_table import verdict_sentence
from phenolens.readiness import Step, about_of, steps_done
from phenolens.runs.embeddings import embedding_rows
from phenolens.runs.scores import chance_of, queries_of
from phenolens.screens.screen import treatment_name
from phenolens.study import HEADLINE, Study
from phenolens.web.base import NotFoundError, address


def png(crop: np.ndarray, contrast: Contrast) -> bytes:
    """A crop (C, S, S), floats, as a PNG of its own size."""
    pixels = np.round(255 * cell_image(crop, contrast)).astype(np.uint8)
    return bytes(imagecodecs.png_encode(pixels, level=1))


def adjusted(contrast: Contrast, *, channels: Sequence[str] | None, bright: int = 100) -> Contrast:
    """The same contrast with only these channels (all when none is named), and `bright` percent as bright.

    Black stays where it is; full brightness is reached at a value that is so much lower or higher.
    """
    shown = np.array([not channels or name in channels for name in contrast.channels])
    white = contrast.black + (contrast.white - contrast.black) * 100 / bright
    return replace(contrast, colours=np.where(shown[:, None], contrast.colours, 0.0), white=white)


CONTRAST_CELLS = 256  # cells, evenly over the study, on which the one contrast of all pictures is measured
CHOSEN_BY = ("plate", "batch", "well", "compound", "moa", "role", "treatment")
OF_A_WELL = ["plate", "batch", "well", "compound", "concentration_um", "moa", "role", "treatment"]


@dataclass(frozen=True)
class Cells:
    """A study's cells, and its wells and treatments counted from them."""

    store: CropStore
    table: pd.DataFrame  # a row a crop, in the store's order, with its `treatment`
    wells: pd.DataFrame  # a row a well: OF_A_WELL, n_cells, n_noise (flagged and left out)
    treatments: pd.DataFrame  # a row a treatment: compound, concentration_um, moa, role, n_wells, n_cells
    contrast: Contrast  # of all pictures
    row_of: pd.Index  # cell ids, in the store's order

    @classmethod
    def of(cls, store: CropStore) -> "Cells":
        """The cells of a store; InputError when it holds none."""
        cells = store.cells
        names = treatment_name(cells["compound"], cells["concentration_um"])
        table = cells.assign(treatment=names, moa=cells["moa"].fillna(""))
        table = table.astype(dict.fromkeys(CHOSEN_BY, "category"))  # quick to choose from, and a byte or two a cell
        groups = table.groupby(OF_A_WELL, observed=True, sort=False)["is_noise"]
        wells = groups.agg(n_cells="size", n_noise="sum").reset_index()
        wells = wells.astype(dict.fromkeys(CHOSEN_BY, str))
        # a positive control may have the dose of a treatment; its wells are not the treatment's, as in the profiles
        ours = wells[
            (wells["role"] != "other") | ~wells["treatment"].isin(wells.loc[wells["role"] == "treated", "treatment"])
        ]
        treatments = (
            ours.groupby(["treatment", "compound", "concentration_um", "moa", "role"])
            .agg(n_wells=("well", "size"), n_cells=("n_cells", "sum"))
            .reset_index()
            .sort_values(["compound", "concentration_um"], kind="stable")
            .drop_duplicates("treatment")
        )
        fine = np.flatnonzero(~table["is_noise"].to_numpy(bool))
        sample = fine if len(fine) else np.arange(len(table))
        sample = sample[np.unique(np.linspace(0, max(len(sample) - 1, 0), CONTRAST_CELLS).astype(int))[: len(sample)]]
        contrast = shared_contrast(normalised(store.take(sample)), store.channels)
        return cls(store, table, wells, treatments.set_index("treatment"), contrast, pd.Index(table["cell_id"]))

    def rows_of(self, treatment: str) -> np.ndarray:
        """The rows of a treatment's cells; flagged ones that are left out and wells of positive controls are not."""
        chosen = (self.table["treatment"] == treatment) & (self.table["role"] == self.treatments.loc[treatment, "role"])
        return np.flatnonzero(chosen.to_numpy() & ~self.table["is_noise"].to_numpy(bool))

    def doses_of(self, treatment: str) -> pd.DataFrame:
        """The rows of `treatments` of its compound, by dose, after those of the controls."""
        compound, role = self.treatments.loc[treatment, "compound"], self.treatments["role"]
        ours = self.treatments["compound"] == compound
        return pd.concat([self.treatments[(role == "control") & ~ours], self.treatments[ours]])

    def shown(self, rows: Iterable[int] | np.ndarray) -> list[dict[Hashable, Any]]:
        """The table's rows, in this order, as a page shows them."""
        return self.table.iloc[list(map(int, rows))].to_dict("records")

    def plate(self, name: str) -> pd.DataFrame:
        """The wells of a plate that have cells, by their names."""
        known(name, self.store.plates, what="plate")
        return self.wells[self.wells["plate"] == name].set_index("well")

    def rows_of_well(self, plate: str, well: str) -> np.ndarray:
        """The rows of a well's cells, flagged and all."""
        known(well, list(self.plate(plate).index), what=f'well with cells on plate "{plate}", well')
        return np.flatnonzero(((self.table["plate"] == plate) & (self.table["well"] == well)).to_numpy())

    def random(self, treatment: str, n: int, *, draw: int = 0) -> np.ndarray:
        """Rows of `n` random cells of a treatment; the same name and draw give the same cells."""
        rows = self.rows_of(treatment)
        chance = np.random.default_rng([draw, crc32(treatment.encode())])
        return np.sort(chance.choice(rows, min(n, len(rows)), replace=False))

    def png(self, cell_id: str, *, channel: str = "", contrast: Contrast | None = None) -> bytes:
        """A cell in colours, or one of its channels in grey, at the size of its crop."""
        row = int(self.row_of.get_indexer(pd.Index([cell_id], dtype=object))[0])
        if row < 0:
            raise NotFoundError(
                f'There is no cell "{cell_id[:80]}" in this study. Find cells by their well or treatment.'
            )
        crop = normalised(self.store.take([row]))[0]
        contrast = contrast or self.contrast
        if channel:
            at = self.store.channels.index(known(channel, self.store.channels, what="channel"))
            crop, contrast = crop[at : at + 1], contrast.of_channel(at)
        return png(crop, contrast)


def known(name: str, names: Sequence[str], *, what: str) -> str:
    """The name, when it is one of these; otherwise NotFoundError, which names the nearest or all of a few."""
    if name in names:
        return name
    near = get_close_matches(name[:80], names, n=1)
    hint = f'Did you mean "{near[0]}"?' if near else f"There are: {', '.join(names[:8]) or 'none yet'}."
    raise NotFoundError(f'There is no {what} "{name[:80]}" in this study. {hint}')


def pictures_of(cells: Cells, channel: str) -> dict[str, Any]:
    """The values of a page with pictures of one channel, or of all where it is empty; the channel is checked."""
    if channel:
        known(channel, cells.store.channels, what="channel")
    version = cells.store.identity[:12]
    return {
        "channel": channel,
        "channels": cells.store.channels,
        "colours": colour_words(cells.contrast),
        "side": cells.store.crop_px,
        "picture": lambda cell_id: address("cells", f"{cell_id}.png", channel=channel, v=version),
    }


PROTOCOLS = ("NSC", "NSCB")


class NoCellsError(InputError):
    """The study has no crops yet."""


@dataclass(frozen=True)
class Neighbour:
    """A treatment near another one."""

    treatment: str
    compound: str
    moa: str  # empty where it is not known
    distance: float  # cosine, 0 to 2


class StudyView:
    """What is to be seen of one study; what other commands add to it meanwhile is seen at the next look."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self._seen: tuple[bytes, Cells] | None = None
        self._typical: dict[tuple[str, ...], int | None] = {}

    def cells(self) -> Cells:
        """The study's cells, opened once; NoCellsError while there are none."""
        path = self.study.crops_folder / ABOUT
        if not path.is_file():
            raise NoCellsError(f"{self.study.crops_folder}: no crops here yet.")
        about = path.read_bytes()
        if self._seen is None or self._seen[0] != about:
            self._seen = (about, Cells.of(self.study.crops))
        return self._seen[1]

    def models(self) -> dict[str, dict[Step, bool]]:
        """The runs, and which steps of each are done and up to date."""
        return {run: steps_done(self.study, run) for run in self.study.runs}

    def next_step(self, run: str = "") -> str:
        """The command that this study needs next, or that one run of it does; empty when every step is done."""
        folder, models = self.study.folder, self.models()
        models = {run: models[run]} if run in models else models
        if not (self.study.crops_folder / ABOUT).is_file():
            return f"phenolens crop {folder} --source SCREEN --layout bbbc021"
        if not models:
            return f"phenolens train {folder} --model vaeplus"
        verbs: dict[Step, str] = {"trained": "train", "embedded": "embed", "profiled": "profile", "scored": "evaluate"}
        for done, verb in verbs.items():
            missing = [run for run, steps in models.items() if not steps[done]]
            if missing and verb == "train":
                config = self.study.run_folder(missing[0]) / "config.json"
                return f"phenolens train {folder} --name {missing[0]} --config {config}"
            if missing:
                return f"phenolens {verb} {folder}"
        return "" if self.study.report_path.is_file() else f"phenolens report {folder}"

    def run(self, asked: str) -> str:
        """The run asked for; left out, the one that got farthest, VAE+ before VAE before others; empty when none is."""
        models = self.models()
        if asked:
            return known(asked, list(models), what="model")
        order = ("vaeplus", "vae", "")
        return min(
            models,
            key=lambda run: (-sum(models[run].values()), [run.startswith(name) for name in order].index(True), run),
            default="",
        )

    def decoding_run(self) -> str:
        """The run whose travels are shown when none is asked for: embedded, VAE+ before VAE before AE before others."""
        models = self.models()
        order = ("vaeplus", "vae-", "ae", "")
        return min(
            models,
            key=lambda run: (not models[run]["embedded"], [run.startswith(name) for name in order].index(True), run),
            default="",
        )

    def strongest(self, run: str) -> str:
        """The treatment with a known mechanism farthest from the controls; without profiles, the first treatment."""
        path = self.study.treatments_path(run, statistics=HEADLINE["statistics"], whitening=HEADLINE["whitening"])
        treated = self.cells().treatments.query("role == 'treated'")
        if not path.is_file():
            return str(treated.index[0]) if len(treated) else ""
        profiles = read_h5ad(path, mend=f"run `phenolens profile {self.study.folder}`")
        names = profiles.obs["Metadata_Treatment"].astype(str)
        far = pd.Series(np.linalg.norm(np.asarray(profiles.X), axis=1), index=names)
        far = far[far.index.isin(treated.index[treated["moa"] != ""])]
        return str(far.idxmax()) if len(far) else str(treated.index[0]) if len(treated) else ""

    def stamp(self, run: str) -> tuple[str, ...]:
        """Names what a run's cells are made from: it changes when the crops, its training or its embeddings do."""
        files = (
            [*self.study.embeddings_folder(run).glob("*.h5ad"), self.study.run_folder(run) / "checkpoint.pt"]
            if run
            else []
        )
        times = sorted((path.name, path.stat().st_mtime_ns) for path in files if path.is_file())
        return self.cells().store.identity, run, repr(times)

    def scores(self) -> pd.DataFrame | None:
        """scores.csv; None while nothing is scored."""
        path = self.study.scores_path
        return self._table(path, keep_default_na=False, na_values=["", "nan"]) if path.is_file() else None

    def verdict(self, run: str) -> str:
        """The main result of a run in one sentence; empty while there is none."""
        scores = self.scores()
        if scores is None or not run:
            return ""
        config = read_json(
            self.study.run_folder(run) / "config.json", mend=f"put it back, or delete {self.study.run_folder(run)}"
        )["config"]
        rows = _where(scores, {"model": config["model"], "seed": config["seed"], **HEADLINE})
        if rows.empty:
            return ""
        return verdict_sentence(rows, **chance_of(self.study, run))

    def judged(self, run: str) -> dict[str, pd.DataFrame]:
        """Of NSC and NSCB, those that were scored: a row a treatment, its neighbour, and whether that was right."""
        tables = {protocol: queries_of(self.study, run, protocol) for protocol in PROTOCOLS if run}
        return {protocol: table for protocol, table in tables.items() if table is not None}

    def wrong(self, run: str) -> pd.DataFrame:
        """Treatments whose neighbour under NSC has another mechanism, the most similar first."""
        table = self.judged(run).get("NSC")
        if table is None:
            return pd.DataFrame()
        return table[table["counted"] & ~table["right"]].sort_values("distance", kind="stable")

    def neighbours(self, run: str, treatment: str, *, n: int | None) -> list[Neighbour]:
        """The `n` (None: all) other treatments nearest to one by whitened profiles; empty where it has no profile."""
        path = self.study.treatments_path(run, statistics=HEADLINE["statistics"], whitening=HEADLINE["whitening"])
        if not run or not path.is_file():
            return []
        profiles = read_h5ad(path, mend=f"run `phenolens profile {self.study.folder}`")
        names = profiles.obs["Metadata_Treatment"].astype(str).tolist()
        if treatment not in names:
            return []
        at, rows = names.index(treatment), directions(profiles, "cosine")
        away = distances(rows[[at]], rows, "cosine")[0]
        compounds, mechanisms = (profiles.obs[f"Metadata_{name}"].astype(str) for name in ("Compound", "MoA"))
        order = [row for row in np.argsort(away, kind="stable") if row != at][:n]
        return [Neighbour(names[row], compounds.iloc[row], mechanisms.iloc[row], float(away[row])) for row in order]

    def nearest_to_mean(self, run: str, treatment: str, *, n: int) -> dict[int, float]:
        """The `n` cells nearest to the mean of a treatment's cells: row -> Euclidean distance between embeddings."""
        rows = self.cells().rows_of(treatment)
        z = self.embedded(run, rows)
        if z is None:
            return {}
        away = np.linalg.norm(z - z.mean(axis=0), axis=1)
        order = np.argsort(away, kind="stable")[:n]
        return {int(rows[place]): float(away[place]) for place in order}

    def typical_cell(self, run: str, treatment: str) -> int | None:
        """The row of the cell nearest to a treatment's mean, looked for once; None where nothing is embedded."""
        key = (*self.stamp(run), treatment)
        if key not in self._typical:
            self._typical[key] = next(iter(self.nearest_to_mean(run, treatment, n=1)), None)
        return self._typical[key]

    def embedded(self, run: str, rows: np.ndarray) -> np.ndarray | None:
        """The embeddings (n, Z) of sorted rows of the store; None where there are none, or not of these crops."""
        if not run or not len(rows) or not steps_done(self.study, run)["embedded"]:
            return None
        return np.concatenate(list(embedding_rows(self.study, run, self.cells().store, rows))).astype(float)

    def damaged(self) -> list[Path]:
        """Embeddings that exist and cannot be read; their run counts as not embedded."""
        plates = self.cells().store.plates
        paths = [self.study.embeddings_folder(run) / f"{plate}.h5ad" for run in self.study.runs for plate in plates]
        return [path for path in paths if path.is_file() and not about_of(path)]

    def _table(self, path: Path, **how: Any) -> pd.DataFrame:
        """A table of scores; InputError, naming the command, when it is damaged."""
        try:
            table: pd.DataFrame = pd.read_csv(path, **how)
        except ValueError as error:  # no columns, no text, or rows of other lengths
            raise InputError(f"{path}: damaged; run `phenolens evaluate {self.study.folder}`") from error
        return table


def _where(table: pd.DataFrame, wanted: Mapping[str, object]) -> pd.DataFrame:
    return table[np.logical_and.reduce([table[key] == value for key, value in wanted.items()])]
