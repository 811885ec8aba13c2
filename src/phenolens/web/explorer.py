"""What the explorer's pages say, read from a study's folder and never written.

N cells, C channels, S crop side in px, Z features. Names are looked up, never made into paths; a study that is half run
gives what there is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from phenolens.contents.embedded import embedding_rows
from phenolens.errors import InputError
from phenolens.files import read_h5ad, read_json
from phenolens.images.store import ABOUT
from phenolens.profiling.similarity import directions, distances
from phenolens.steps import about_of
from phenolens.study import HEADLINE, Study
from phenolens.viewing.scoretable import verdict_sentence
from phenolens.web.cells import Cells, known

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


class Explorer:
    """What is to be seen of one study; what other commands add to it meanwhile is seen at the next look."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self._seen: tuple[bytes, Cells] | None = None
        self._typical: dict[tuple[str, ...], int | None] = {}
        self._said_by: dict[Path, tuple[int, dict[str, Any]]] = {}

    def cells(self) -> Cells:
        """The study's cells, opened once; NoCellsError while there are none."""
        path = self.study.crops / ABOUT
        if not path.is_file():
            raise NoCellsError(f"{self.study.crops}: no crops here yet.")
        about = path.read_bytes()
        if self._seen is None or self._seen[0] != about:
            self._seen = (about, Cells.of(self.study.store()))
        return self._seen[1]

    def models(self) -> dict[str, dict[str, bool]]:
        """How far each run is: trained, embedded, profiled, scored."""
        study = self.study
        return {
            run: {
                "trained": (study.run(run) / "health.json").is_file(),
                "embedded": self._is_embedded(run),
                "profiled": (study.profiles(run) / "about.json").is_file(),
                "scored": study.scores.is_file() and self._scores_file(run, "NSC").is_file(),
            }
            for run in study.runs()
        }

    def next_step(self, run: str = "") -> str:
        """The command that this study needs next, or that one run of it does; empty when every step is done."""
        folder, models = self.study.folder, self.models()
        models = {run: models[run]} if run in models else models
        if not (self.study.crops / ABOUT).is_file():
            return f"phenolens crop {folder} --source SCREEN --layout bbbc021"
        if not models:
            return f"phenolens train {folder} --model vaeplus"
        verbs = {"trained": "train", "embedded": "embed", "profiled": "profile", "scored": "evaluate"}
        for done, verb in verbs.items():
            missing = [run for run, steps in models.items() if not steps[done]]
            if missing and verb == "train":
                config = self.study.run(missing[0]) / "config.json"
                return f"phenolens train {folder} --name {missing[0]} --config {config}"
            if missing:
                return f"phenolens {verb} {folder}"
        return "" if self.study.report.is_file() else f"phenolens report {folder}"

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
        path = self.study.treatments(run, statistics=HEADLINE["statistics"], whitening=HEADLINE["whitening"])
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
        files = [*self.study.embeddings(run).glob("*.h5ad"), self.study.run(run) / "checkpoint.pt"] if run else []
        times = sorted((path.name, path.stat().st_mtime_ns) for path in files if path.is_file())
        return self.cells().store.identity, run, repr(times)

    def scores(self) -> pd.DataFrame | None:
        """scores.csv; None while nothing is scored."""
        path = self.study.scores
        return self._table(path, keep_default_na=False, na_values=["", "nan"]) if path.is_file() else None

    def verdict(self, run: str) -> str:
        """The main result of a run in one sentence; empty while there is none."""
        scores, chances = self.scores(), self.study.folder / "scores" / "chance.csv"
        if scores is None or not run:
            return ""
        config = read_json(self.study.run(run) / "config.json", mend=f"put it back, or delete {self.study.run(run)}")[
            "config"
        ]
        rows = _where(scores, {"model": config["model"], "seed": config["seed"], **HEADLINE})
        if rows.empty:
            return ""
        beside = _where(self._table(chances), {"run": run, **HEADLINE}) if chances.is_file() else pd.DataFrame()
        among = {} if beside.empty else {name: float(beside[name].iloc[0]) for name in ("chance", "shuffled")}
        return verdict_sentence(rows, **among)

    def judged(self, run: str) -> dict[str, pd.DataFrame]:
        """Of NSC and NSCB, those that were scored: a row a treatment, its neighbour, and whether that was right."""
        paths = {protocol: self._scores_file(run, protocol) for protocol in PROTOCOLS if run}
        tables = {
            protocol: self._table(path, dtype=str, keep_default_na=False)
            for protocol, path in paths.items()
            if path.is_file()
        }
        return {protocol: table.set_index("treatment") for protocol, table in tables.items()}

    def wrong(self, run: str) -> pd.DataFrame:
        """Treatments whose neighbour under NSC has another mechanism, the most alike first."""
        table = self.judged(run).get("NSC", pd.DataFrame(columns=["counted", "right", "distance"]))
        table = table[(table["counted"] == "True") & (table["right"] != "True")]
        return table.assign(distance=table["distance"].astype(float)).sort_values("distance", kind="stable")

    def neighbours(self, run: str, treatment: str, *, n: int | None) -> list[Neighbour]:
        """The `n` (None: all) other treatments nearest to one by whitened profiles; empty where it has no profile."""
        path = self.study.treatments(run, statistics=HEADLINE["statistics"], whitening=HEADLINE["whitening"])
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
        if not run or not len(rows) or not self._is_embedded(run):
            return None
        return np.concatenate(list(embedding_rows(self.study, run, self.cells().store, rows))).astype(float)

    def _is_embedded(self, run: str) -> bool:
        """Whether all plates are embedded, from the crops that are there now."""
        store, folder = self.cells().store, self.study.embeddings(run)
        return all(self._about(folder / f"{plate}.h5ad").get("crops") == store.identity for plate in store.plates)

    def damaged(self) -> list[Path]:
        """Embeddings that are there and cannot be read; the run that they are of counts as not embedded."""
        plates = self.cells().store.plates
        paths = [self.study.embeddings(run) / f"{plate}.h5ad" for run in self.study.runs() for plate in plates]
        return [path for path in paths if path.is_file() and not self._about(path)]

    def _about(self, path: Path) -> dict[str, Any]:
        """What embeddings say they were made from, read once while the file stays the same; empty where they cannot."""
        try:
            written = path.stat().st_mtime_ns
            if self._said_by.get(path, (0, {}))[0] != written:
                self._said_by[path] = written, about_of(path)
        except OSError:
            return {}
        return self._said_by[path][1]

    def _table(self, path: Path, **how: Any) -> pd.DataFrame:
        """A table of scores; InputError, naming the command, when it is damaged."""
        try:
            table: pd.DataFrame = pd.read_csv(path, **how)
        except ValueError as error:  # no columns, no text, or rows of other lengths
            raise InputError(f"{path}: damaged; run `phenolens evaluate {self.study.folder}`") from error
        return table

    def _scores_file(self, run: str, protocol: str) -> Path:
        return self.study.score_table(run, "neighbours", **{**HEADLINE, "protocol": protocol})


def _where(table: pd.DataFrame, wanted: Mapping[str, object]) -> pd.DataFrame:
    return table[np.logical_and.reduce([table[key] == value for key, value in wanted.items()])]
