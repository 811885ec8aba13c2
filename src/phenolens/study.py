"""A study's folder: where each step's output lies, and what it was made from.

study.json                    says that this folder is a study
crops/                        CropStore: a part a plate
runs/<run>/                   config.json, checkpoint.pt, history.csv, health.json, reconstructions
embeddings/<run>/<plate>.h5ad a row a cell
profiles/<run>/               wells_<statistics>.h5ad, treatments_<statistics>[_whitened].h5ad
scores/<run>/                 neighbours and confusion tables; scores.csv gathers all runs
assessments/<name>.sqlite     a blinded assessment: pictures, key, assessors, answers; its results as CSV
travels/<run>/                a folder a travel: strips, films, tables
realism/                      how real the models' pictures look: tables and a figure
features/                     a page and tables a run
report.html
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from phenolens.core.errors import InputError
from phenolens.core.files import read_json, sha256, write_json
from phenolens.crops.store import CropStore

FORMAT = "phenolens study 1"
MARKER = "study.json"
# The score that headlines speak of, fixed before any score was seen: METHOD's default whitening of plain means.
HEADLINE = {"statistics": "mean", "whitening": "whitened", "protocol": "NSC"}


@dataclass(frozen=True)
class Study:
    """The folder that all steps of one study read from and write to."""

    folder: Path

    @classmethod
    def create(cls, folder: Path) -> Self:
        """The study in `folder`, begun there if the folder is empty or new; InputError if it holds anything else."""
        if (folder / MARKER).exists():
            return cls.open(folder)
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder}: is a file; a study needs a folder of its own")
        if folder.exists() and any(folder.iterdir()):
            raise InputError(f"{folder}: is not empty and no study of phenolens; name a new or empty folder")
        write_json(folder / MARKER, {"format": FORMAT})
        return cls(folder)

    @classmethod
    @contextmanager
    def begun(cls, folder: Path) -> Iterator[Self]:
        """The study in `folder` as `create` gives it; begun anew and then refused its first crops, it is gone again."""
        is_new, was_there = not (folder / MARKER).exists(), folder.exists()
        study = cls.create(folder)
        try:
            yield study
        except InputError:
            files = [folder / MARKER, study.crops_lock]
            if is_new and set(folder.iterdir()) <= set(files):
                for file in files:
                    file.unlink(missing_ok=True)
                if not was_there:
                    folder.rmdir()
            raise

    @classmethod
    def open(cls, folder: Path) -> Self:
        """The study in `folder`; InputError if there is none."""
        if not (folder / MARKER).exists():
            raise InputError(f"{folder}: no study here (no {MARKER}); make one with `phenolens crop`")
        about = read_json(folder / MARKER, mend="is this a study of phenolens?")
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise InputError(
                f'{folder / MARKER}: not a study of this version of phenolens (expected format "{FORMAT}")'
            )
        return cls(folder)

    @property
    def crops_lock(self) -> Path:
        """What a process holds while it makes crops."""
        return self.folder / ".crops.lock"

    @property
    def crops(self) -> Path:
        """The CropStore."""
        return self.folder / "crops"

    @property
    def scores(self) -> Path:
        """One row a score, all runs."""
        return self.folder / "scores.csv"

    @property
    def scores_folder(self) -> Path:
        """The folder with what the scores are made from: a folder per run, `chance.csv` and `about.json`."""
        return self.folder / "scores"

    @property
    def chance(self) -> Path:
        """Scores of permuted mechanism labels, all runs."""
        return self.scores_folder / "chance.csv"

    @property
    def realism(self) -> Path:
        """The folder with the realism metrics of all runs."""
        return self.folder / "realism"

    @property
    def realism_lock(self) -> Path:
        """Held by the process that measures realism."""
        return self.folder / ".realism.lock"

    @property
    def travels(self) -> Path:
        """The folder with a folder per run of saved travels."""
        return self.folder / "travels"

    def features_page(self, run: str) -> Path:
        """The page of one run's latent features."""
        return self.folder / "features" / f"{run}.html"

    @property
    def report(self) -> Path:
        """The report."""
        return self.folder / "report.html"

    @property
    def assessments(self) -> Path:
        """The folder with the blinded assessments."""
        return self.folder / "assessments"

    def store(self) -> CropStore:
        """The study's crops; InputError when they are not there or not whole."""
        return CropStore.open(self.crops)

    def run(self, name: str) -> Path:
        """The folder of one run; InputError when the name cannot be a folder's."""
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", name):
            raise InputError(f'run name "{name}": expected letters, digits and _ . + - only, such as vaeplus-beta1')
        return self.folder / "runs" / name

    def runs(self) -> list[str]:
        """Names of the runs that were begun, sorted."""
        return sorted(path.parent.name for path in self.folder.glob("runs/*/config.json"))

    def embeddings(self, run: str) -> Path:
        """The folder with one `.h5ad` a plate."""
        return self.folder / "embeddings" / run

    def profiles(self, run: str) -> Path:
        """The folder with the profiles of wells and treatments."""
        return self.folder / "profiles" / run

    def treatments(self, run: str, *, statistics: str, whitening: str) -> Path:
        """The treatment profiles of one kind."""
        return self.profiles(run) / f"treatments_{statistics}_{whitening}.h5ad"

    def score_table(self, run: str, what: str, *, protocol: str, statistics: str, whitening: str) -> Path:
        """A score's own table: its `neighbours` or its `confusion` matrix."""
        return self.scores_folder / run / f"{what}_{protocol}_{statistics}_{whitening}.csv"

    def chosen_runs(self, names: tuple[str, ...]) -> list[str]:
        """The runs of these names, all when none is named; InputError when there is none."""
        known = self.runs()
        for name in names:
            if name not in known:
                raise InputError(f'{self.folder}: no run "{name}" (there are: {", ".join(known) or "none"})')
        if not known:
            self.store()  # InputError where there are no crops: they come before training
            raise InputError(f"{self.folder}: nothing is trained yet; run `phenolens train {self.folder}` first")
        return list(names) or known


def made_from(**parts: Any) -> str:
    """One SHA-256 for what a file is made from: paths stand for their content, the rest for its JSON.

    A step writes it into its output and, run again, does nothing when it is still the same.
    """
    named = {name: sha256(part) if isinstance(part, Path) else part for name, part in sorted(parts.items())}
    return sha256(named)
