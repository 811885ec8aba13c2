"""A study: the folder that all steps read from and write to, and what lies in it.

study.json                    marks the folder as a study
crops/                        CropStore: a part per plate
runs/<run>/                   config.json, checkpoint.pt, history.csv, health.json, reconstructions
measures/<plate>.parquet      size, shape, texture and intensity of every cell
embeddings/<run>/<plate>.h5ad a row per cell
profiles/<run>/               wells_<statistics>.h5ad, treatments_<statistics>_<whitening>.h5ad
scores/<run>/                 activity, nearest neighbours, confusion matrices; scores.csv gathers all runs
assessments/<name>.sqlite     a blinded test: pictures, key, assessors, answers; its results as CSV
travels/<run>/                a folder per travel: strips, films, tables
realism/                      how realistic decoded images are: tables and a figure
features/                     a page and tables per run
report.html
"""

import html
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import pandas as pd

from phenolens.core.bounds import check
from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.files import alone, read_h5ad, read_json, read_parquet_about, sha256, write_json
from phenolens.core.keywords import checked
from phenolens.crops.store import CropStore, read_about
from phenolens.screens.screen import METADATA, treatment_name

if TYPE_CHECKING:
    from anndata import AnnData

FORMAT = "phenolens study 1"
MARKER = "study.json"
# The score of headlines, fixed on simulated screens (docs/definitions.md); `evaluate --headline` names another.
HEADLINE = {"statistics": "mean", "whitening": "aligned", "protocol": "NSC"}
BEFORE = "whitened"  # the headline's profiles in studies of versions without that flag


@dataclass(frozen=True, repr=False)
class Study(os.PathLike[str]):
    """The folder that all steps of one study read from and write to.

    Args:
        folder: The study's folder. `Study.open` checks that there is one, `Study.create` begins one.
    """

    folder: Path

    def __post_init__(self) -> None:
        """Take the folder as text, too."""
        check("Study: folder", self.folder, Path)
        object.__setattr__(self, "folder", Path(self.folder))

    def __fspath__(self) -> str:
        return str(self.folder)

    def __str__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        """The folder and what is in it, a line each."""
        missing = "" if self.folder.is_dir() else ", which is not there yet"
        return "\n".join([f"Study {self.folder}{missing}", *(f"  {name}: {text}" for name, text in self._contents())])

    def _repr_html_(self) -> str:
        """In a notebook: what is in the folder, and the scores of the headline."""
        rows = "".join(f"<tr><th>{name}</th><td>{html.escape(text)}</td></tr>" for name, text in self._contents())
        shown = f"<p><b>Study</b> {html.escape(str(self.folder))}</p><table>{rows}</table>"
        if not self.scores_path.exists():
            return shown
        try:
            scores = self.scores
        except InputError as error:
            return shown + f"<p>{html.escape(str(error))}</p>"
        chosen = {name: self.headline[name] for name in ("statistics", "whitening")}
        rows_of_headline = (scores[[*chosen]] == pd.Series(chosen)).all(axis=1)
        columns = ["model", "seed", "protocol", "accuracy", "n_treatments"]
        return shown + scores.loc[rows_of_headline, columns].to_html(index=False)

    def _contents(self) -> list[tuple[str, str]]:
        """What is there, and what it holds."""
        try:
            store = self.crops
            crops = f"{len(store):,} on {counted(len(store.plates), 'plate')}, channels {', '.join(store.channels)}"
        except InputError:
            crops = "none"
        found = [("crops", crops), *((name, ", ".join(self._runs_in(name))) for name in STEPS if self._runs_in(name))]
        paths = (("scores", self.scores_path), ("report", self.report_path))
        return found + [(name, path.name) for name, path in paths if path.exists()]

    @property
    def quoted(self) -> str:
        """The folder as a shell takes it."""
        return shlex.quote(str(self.folder))

    @classmethod
    @checked
    def create(cls, folder: str | Path) -> Self:
        """The study in `folder`; it is created when the folder is new or empty.

        Raises:
            InputError: The folder holds something else.
        """
        folder = Path(folder)
        if (folder / MARKER).exists():
            return cls.open(folder)
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder}: is a file; a study needs a folder of its own")
        study = cls(folder)
        of_a_new_one = {MARKER, study.crops_lock.name, f".{MARKER}.partial"}  # another process may make it meanwhile
        if folder.exists() and {path.name for path in folder.iterdir()} - of_a_new_one:
            if (folder / MARKER).exists():
                return cls.open(folder)
            raise InputError(f"{folder}: is not empty and no study of phenolens; name a new or empty folder")
        try:
            write_json(folder / MARKER, {"format": FORMAT})
        except FileNotFoundError:
            if not (folder / MARKER).exists():
                raise
        return study

    @classmethod
    @contextmanager
    def begun(cls, folder: Path) -> Iterator[Self]:
        """The study in `folder` as `create` gives it; a new one is removed again when its first crops are refused."""
        is_new, was_there = not (folder / MARKER).exists(), folder.exists()
        study = cls.create(folder)
        try:
            yield study
        except InputError:
            files = [folder / MARKER, study.crops_lock]
            if is_new and set(folder.iterdir()) <= set(files):
                with suppress(InputError), alone(study.crops_lock, doing="making crops"):  # else it is another's too
                    for file in files:
                        file.unlink(missing_ok=True)
                    if not was_there:
                        folder.rmdir()
            raise

    @classmethod
    @checked
    def open(cls, folder: "str | Path | Study") -> Self:
        """The study in `folder`.

        Raises:
            InputError: There is no study, or it is of another version.
        """
        folder = Path(folder)
        if not (folder / MARKER).exists():
            raise InputError(f"{folder}: no study here (no {MARKER}); make one with `phenolens run`")
        about = read_json(folder / MARKER, remedy="is this a study of phenolens?")
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise InputError(
                f'{folder / MARKER}: not a study of this version of phenolens (expected format "{FORMAT}")'
            )
        return cls(folder)

    @property
    def crops(self) -> CropStore:
        """The crops; InputError when they are missing or incomplete."""
        return CropStore.open(self.crops_folder)

    @property
    def cells(self) -> pd.DataFrame:
        """A row per crop: plate, well, site, position, compound, concentration, mechanism, role, quality flags."""
        return self.crops.cells

    @property
    def runs(self) -> list[str]:
        """Names of the runs that were started, sorted."""
        return sorted(path.parent.name for path in self.folder.glob("runs/*/config.json"))

    @checked
    def measures(self, names: tuple[str, ...] = ()) -> pd.DataFrame:
        """Size, shape, texture and intensity of every cell, in the order of `cells`.

        Args:
            names: Columns to read; default: all.

        Raises:
            InputError: The cells are not measured, or their crops changed since.
        """
        parts = []
        for plate, about in self.crops.about["plates"].items():
            path = self.measures_folder / f"{plate}.parquet"
            of = (read_parquet_about(path) or {}).get("crops") if path.is_file() else ""
            if of != about["npy_sha256"]:
                state = "of other crops" if of else "not there yet"
                raise InputError(f"{path}: {state}; run `phenolens measure {self.quoted}`")
            parts.append(pd.read_parquet(path, columns=list(names) or None))
        return pd.concat(parts, ignore_index=True)

    @checked
    def embeddings(self, run: str, *, measures: bool = False) -> "AnnData":
        """The embedded cells of one run, in the order of `cells`.

        Args:
            run: Name of the run.
            measures: Add the columns of `measures` to `obs`.

        Raises:
            InputError: The run is not embedded, crops or training changed since, or the cells are not measured.
        """
        import anndata

        from phenolens.readiness import embedding_sources

        remedy = f"run `phenolens embed {self.quoted}`"
        self.chosen_runs((run,))
        embedding_sources(self, run)
        paths = [self.embeddings_folder(run) / f"{plate}.h5ad" for plate in self.crops.plates]
        table = anndata.concat([read_h5ad(path, remedy=remedy) for path in paths], uns_merge="same")
        if measures:
            measured = self.measures()
            table.obs[measured.columns] = measured.to_numpy()
        return table

    @checked
    def profiles(
        self,
        run: str,
        *,
        level: Literal["treatment", "well"] = "treatment",
        statistics: Literal["mean", "mean+sd", "ks", "svm", "mixture", "factors"] = "mean",
        whitening: Literal["aligned", "whitened", "zscore", "none"] | None = None,
        measures: bool = False,
    ) -> "AnnData":
        """The profiles of one run, a row per treatment or well.

        Args:
            run: Name of the run.
            level: What a row is. Wells are stored as they are, before whitening.
            statistics: What is computed over the cells of a well; all but the first two with `profile --methods`.
            whitening: What is done to treatment profiles: nothing, whitening or z-scores on the control wells, or
                (of means) whitening within treatments with batches aligned. None: what the headline's are.
            measures: Add the mean of each column of `Study.measures` over the counted cells of the row to `obs`.

        Raises:
            InputError: The run is not profiled, its embeddings changed since, or the cells are not measured.
        """
        from phenolens.readiness import profile_source

        path = self.treatments_path(run, statistics=statistics, whitening=whitening or self.headline["whitening"])
        if level == "well":
            path = self.wells_path(run, statistics=statistics)
        if not path.exists():
            self.chosen_runs((run,))
            kinds = sorted(found.stem.split("_")[-1] for found in path.parent.glob(f"treatments_{statistics}_*.h5ad"))
            if kinds and level == "treatment":
                raise InputError(f"{path}: no such profiles; whitenings of {statistics}: {', '.join(kinds)}")
        if self._has_crops:
            profile_source(self, run)
        table = read_h5ad(path, remedy=f"run `phenolens profile {self.quoted}`")
        of_a_row = ["plate", "well"] if level == "well" else ["treatment"]
        return self._with_mean_measures(table, of_a_row=of_a_row) if measures else table

    def _with_mean_measures(self, profiles: "AnnData", *, of_a_row: list[str]) -> "AnnData":
        """The profiles with the mean measures of the counted cells of each row (columns of `cells`) in `obs`."""
        cells = self.cells
        cells = cells[~cells["is_noise"].to_numpy(bool)]
        cells = cells.assign(treatment=treatment_name(cells["compound"], cells["concentration_um"]))
        keys = [cells[name].astype(str).rename(METADATA[name]) for name in of_a_row]
        means = self.measures().loc[cells.index].groupby(keys).mean()
        rows = profiles.obs[means.index.names].astype(str)
        profiles.obs[means.columns] = rows.join(means, on=means.index.names)[means.columns].to_numpy()
        return profiles

    @property
    def headline(self) -> dict[str, str]:
        """The statistics, whitening and protocol of the score that headlines report."""
        path = self.scores_folder / "about.json"
        if not path.is_file():
            return HEADLINE
        about = read_json(path, remedy=f"run `phenolens evaluate {self.quoted}`")
        config = about.get("config", {}) if isinstance(about, dict) else {}
        return HEADLINE | {"whitening": config.get("headline", BEFORE)}

    @property
    def scores(self) -> pd.DataFrame:
        """A row per score of all runs: model, seed, statistics, whitening, protocol, accuracy, interval.

        Raises:
            InputError: Nothing is scored, profiles changed since, or the table is damaged.
        """
        from phenolens.readiness import check_scores

        if self._has_crops:
            check_scores(self)
        again = f"run `phenolens evaluate {self.quoted}`"
        try:
            return pd.read_csv(self.scores_path, keep_default_na=False, na_values=["", "nan"])
        except FileNotFoundError:
            raise InputError(f"{self.scores_path}: not there yet; {again} first") from None
        except ValueError as error:  # no columns, not text, or rows of different lengths
            raise InputError(f"{self.scores_path}: damaged; {again}") from error

    @property
    def _has_crops(self) -> bool:
        """Whether there is something that results can be older than; a copy of results alone is read as it is."""
        return read_about(self.crops_folder) is not None

    @property
    def crops_lock(self) -> Path:
        """Held by the process that makes crops."""
        return self.folder / ".crops.lock"

    @property
    def crops_folder(self) -> Path:
        """The folder of the CropStore."""
        return self.folder / "crops"

    @property
    def measures_folder(self) -> Path:
        """The folder with the measures of every cell, a table per plate."""
        return self.folder / "measures"

    @property
    def scores_path(self) -> Path:
        """The table with a row per score of all runs."""
        return self.folder / "scores.csv"

    @property
    def scores_folder(self) -> Path:
        """The folder with what the scores are made from: a folder per run, `chance.csv` and `about.json`."""
        return self.folder / "scores"

    @property
    def chance_path(self) -> Path:
        """Scores of permuted mechanism labels, all runs."""
        return self.scores_folder / "chance.csv"

    @property
    def realism_folder(self) -> Path:
        """The folder with the realism metrics of all runs."""
        return self.folder / "realism"

    def training_lock(self, run: str) -> Path:
        """Held while a run is trained."""
        return self.run_folder(run) / ".lock"

    @property
    def realism_lock(self) -> Path:
        """Held by the process that measures realism."""
        return self.folder / ".realism.lock"

    @property
    def comparison_folder(self) -> Path:
        """The folder with the comparison of models."""
        return self.folder / "comparison"

    @property
    def travels_folder(self) -> Path:
        """The folder with a folder per run of saved travels."""
        return self.folder / "travels"

    def features_page(self, run: str) -> Path:
        """The page of one run's latent features."""
        return self.folder / "features" / f"{run}.html"

    @property
    def report_path(self) -> Path:
        """The report."""
        return self.folder / "report.html"

    @property
    def assessments_folder(self) -> Path:
        """The folder with the blinded tests."""
        return self.folder / "assessments"

    @checked
    def run_folder(self, name: str) -> Path:
        """The folder of one run; InputError when the name cannot be a folder's."""
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", name):
            raise InputError(f'run name "{name}": expected letters, digits and _ . + - only, such as vaeplus-beta1')
        return self.folder / "runs" / name

    def embeddings_folder(self, run: str) -> Path:
        """The folder with an `.h5ad` per plate."""
        return self.folder / "embeddings" / run

    def profiles_folder(self, run: str) -> Path:
        """The folder with the profiles of wells and treatments."""
        return self.folder / "profiles" / run

    def wells_path(self, run: str, *, statistics: str = "mean", whitening: str = "none") -> Path:
        """The well profiles of one kind; whitened ones are of means alone."""
        kind = statistics if whitening == "none" else f"{statistics}_{whitening}"
        return self.profiles_folder(run) / f"wells_{kind}.h5ad"

    def activity_path(self, run: str) -> Path:
        """The table that compares each treatment with the controls."""
        return self.scores_folder / run / "activity.csv"

    def treatments_path(self, run: str, *, statistics: str, whitening: str) -> Path:
        """The treatment profiles of one kind."""
        return self.profiles_folder(run) / f"treatments_{statistics}_{whitening}.h5ad"

    def score_table_path(self, run: str, what: str, *, protocol: str, statistics: str, whitening: str) -> Path:
        """A table of one score: its `neighbours` or its `confusion` matrix."""
        return self.scores_folder / run / f"{what}_{protocol}_{statistics}_{whitening}.csv"

    def chosen_runs(self, names: tuple[str, ...]) -> list[str]:
        """The runs of these names, all when none is named; InputError when there is none."""
        known = self.runs
        for name in names:
            if name not in known:
                raise InputError(f'{self.folder}: no run "{name}" (there are: {", ".join(known) or "none"})')
        if not known:
            _ = self.crops  # InputError where there are no crops: they come before training
            raise InputError(f"{self.folder}: nothing is trained yet; run `phenolens train {self.quoted}` first")
        return list(names) or known

    def _runs_in(self, step: str) -> list[str]:
        return sorted(path.name for path in (self.folder / step).glob("*") if path.is_dir())


STEPS = ("runs", "embeddings", "profiles")  # folders with a folder per run


def made_from(**parts: Any) -> str:
    """One SHA-256 of what a file is made from: paths stand for their content, the rest for its JSON.

    A step writes it into its output; repeated, it does nothing while the value stays the same.
    """
    named = {name: sha256(part) if isinstance(part, Path) else part for name, part in sorted(parts.items())}
    return sha256(named)
