"""Which recipe makes the best treatment profiles, by cells a well and control wells: the basis of a study's headline.

    python benchmarks/recipes.py OUT --studies A B --runs pca-seed0 imagenet-seed0 --tables WELLS.h5ad

The studies are of simulated screens, embedded; a table holds a row a well. Each is thinned at random to fewer cells a
well, fewer control wells a plate, and with or without its positive controls. Every recipe scores the same thinned
table, and differences are paired: the interval is a bootstrap over compounds, whose doses, protocols' queries and
thinnings stay together. OUT gets `answers.csv` (a row a compound and score), `designs.csv` and `differences.csv`.

N cells, Z features. A batch's effect is aligned by the treatments that are in several batches: the mean of their
n cells about their own treatment's mean, times n / (n + shrinkage), is subtracted from the batch.
"""

import itertools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import tyro
from anndata import AnnData
from tyro.conf import Positional

from phenolens.core.files import write_text
from phenolens.core.progress import track
from phenolens.pipeline import embeddings
from phenolens.profiles.nsc import NSC, NSCB, neighbour_score
from phenolens.profiles.profiles import METADATA, metadata, treatment_profiles, well_profiles
from phenolens.profiles.uncertainty import bootstrap_interval
from phenolens.profiles.whitening import UNTOUCHED, Recipe, apply_whitening, fit_whitening
from phenolens.study import Study

PROTOCOLS = {"NSC": NSC, "NSCB": NSCB}
REFERENCE = "within"  # what every recipe is compared with
KEYS = ["data", "run", "cells", "controls", "positive_controls"]


@dataclass(frozen=True)
class Flags:
    """What is thinned, and how often."""

    out: Positional[Path]  # folder of the tables
    studies: tuple[Path, ...] = ()
    runs: tuple[str, ...] = ("pca-seed0", "imagenet-seed0")
    tables: tuple[Path, ...] = ()  # of wells
    cells: tuple[int, ...] = (2, 4, 8, 16, 40)  # most cells a well; a value above those of a study is left out
    controls: tuple[int, ...] = (1, 2, 6)  # most control wells a plate, and most positive controls
    components: int = 256  # an embedding of more features is reduced to its principal components, to save time
    thinnings: int = 3
    bootstraps: int = 10_000
    seed: int = 0


@dataclass(frozen=True)
class Design:
    """What a thinned screen keeps."""

    cells: int
    controls: int
    positive_controls: bool


def thinned(cells: AnnData, design: Design, rng: np.random.Generator) -> AnnData:
    """The cells of a smaller screen, drawn without replacement."""
    obs = metadata(cells, ("plate", "well", "role")).reset_index(drop=True)
    obs = obs.iloc[rng.permutation(len(obs))]
    if not design.positive_controls:
        obs = obs[obs["role"] != "other"]
    wells = obs.drop_duplicates(["plate", "well"])
    place = wells.groupby(["plate", "role"]).cumcount()
    kept = wells[(wells["role"] == "treated") | (place < design.controls)]
    obs = obs[pd.MultiIndex.from_frame(obs[["plate", "well"]]).isin(kept.set_index(["plate", "well"]).index)]
    obs = obs[obs.groupby(["plate", "well"]).cumcount() < design.cells]
    return cells[np.sort(obs.index.to_numpy())].copy()


def by_wells(recipe: Recipe) -> Callable[[AnnData], AnnData]:
    """Well means scaled and whitened on the control wells, and the median over the wells of a treatment."""

    def profiles(cells: AnnData) -> AnnData:
        wells = well_profiles(cells)
        return treatment_profiles(apply_whitening(wells, fit_whitening(wells, recipe)))

    return profiles


def by_cells(*, shrinkage: float = np.inf, repeated_alone: bool = False) -> Callable[[AnnData], AnnData]:
    """Means of z-scored cells, whitened by how cells vary within all treatments or within the repeated ones alone.

    n cells say n / (n + shrinkage) of their batch's effect.
    """

    def profiles(cells: AnnData) -> AnnData:
        obs = metadata(cells, ("treatment", "batch"))
        spread = cells.X.std(axis=0)
        x = ((cells.X - cells.X.mean(axis=0)) / np.where(spread > 0, spread, 1)).astype(np.float32)
        treatment = pd.factorize(obs["treatment"])[0]
        repeated = (obs.groupby("treatment")["batch"].transform("nunique") > 1).to_numpy()
        residuals, batch = without_means(x[repeated], treatment[repeated]), obs["batch"].to_numpy()
        for name in np.unique(batch[repeated]):
            own = residuals[batch[repeated] == name]
            x[batch == name] -= own.sum(axis=0) / (len(own) + shrinkage)
        learnt = repeated if repeated_alone else np.ones(len(x), dtype=bool)
        rest = without_means(x[learnt], treatment[learnt])
        root = np.linalg.cholesky(rest.T @ rest / len(rest) + np.eye(x.shape[1], dtype=np.float32))
        wells = well_profiles(AnnData(x, obs=cells.obs, var=cells.var))
        wells.X = np.linalg.solve(root, wells.X.T).T  # any root of the inverse covariance gives the same cosines
        return treatment_profiles(wells, statistic="cells")

    return profiles


def without_means(x: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Every row (n, Z) less the mean of its group."""
    codes = np.unique(group, return_inverse=True)[1]
    sums = np.zeros((len(np.unique(codes)), x.shape[1]))
    np.add.at(sums, codes, x)
    return (x - (sums / np.bincount(codes)[:, None])[codes]).astype(x.dtype)


RECIPES: dict[str, Callable[[AnnData], AnnData]] = {
    "none": by_wells(UNTOUCHED),
    "zscore": by_wells(Recipe(whitening="none", constant_features="left out")),
    "whitened": by_wells(Recipe(constant_features="left out")),
    "within": by_cells(),
    "aligned": by_cells(shrinkage=100),
    "aligned, n + 5": by_cells(shrinkage=5),
    "aligned, on repeated": by_cells(shrinkage=100, repeated_alone=True),
}


def answers(cells: AnnData, recipe: str) -> pd.DataFrame:
    """A row a compound and protocol: its counted queries, and how many were answered correctly."""
    profiles = RECIPES[recipe](cells)
    rows = []
    for protocol, held_out in PROTOCOLS.items():
        queries = neighbour_score(profiles, held_out=held_out, n_bootstrap=0).queries
        counted = queries[queries["counted"]]
        by_compound = counted.groupby("compound")["right"].agg(queries="size", right="sum").reset_index()
        rows.append(by_compound.assign(protocol=protocol, recipe=recipe))
    return pd.concat(rows)


def designs(cells: AnnData, flags: Flags) -> list[Design]:
    """The designs that a screen can be thinned to; the largest number of cells a well is all there are."""
    obs = metadata(cells, ("plate", "well", "role"))
    typical = obs[obs["role"] == "treated"].groupby(["plate", "well"]).size().median()
    numbers = [n for n in flags.cells if n < typical] + [int(typical)]
    positive = [True, False] if (obs["role"] == "other").any() else [False]
    return [Design(*parts) for parts in itertools.product(numbers, flags.controls, positive)]


def data_sets(flags: Flags) -> list[tuple[str, str, AnnData]]:
    """The name, run and rows of every screen; cells that are flagged as noise are left out."""
    studies = [
        (path.name, run, anndata.concat(list(embeddings(Study.open(path), run))))
        for path in flags.studies
        for run in flags.runs
    ]
    tables = [(path.stem, "wells", anndata.read_h5ad(path)) for path in flags.tables]
    found = []
    for name, run, rows in studies + tables:
        noise = METADATA["is_noise"]
        kept = rows[~rows.obs[noise].to_numpy(bool)].copy() if noise in rows.obs else rows
        found.append((name, run, kept if run == "wells" else reduced(kept, flags.components)))
    return found


def reduced(cells: AnnData, n: int) -> AnnData:
    """The cells by their n leading principal components, or as they are where features are no more."""
    if cells.n_vars <= n:
        return cells
    x = np.asarray(cells.X, np.float32)
    x -= x.mean(axis=0)
    axes = np.linalg.eigh(x.T @ x)[1][:, ::-1][:, :n]
    return AnnData(x @ axes, obs=cells.obs)


def difference(table: pd.DataFrame, recipe: str, protocol: str, flags: Flags) -> str:
    """Percentage points by which a recipe exceeds the reference, with its interval over compounds."""
    asked = table[table["protocol"] == protocol]
    share = asked.assign(share=asked["right"] / asked["queries"]).pivot_table(
        index=["data", "run", "compound"], columns="recipe", values="share"
    )
    gain = 100 * (share[recipe] - share[REFERENCE])
    compound = pd.factorize(pd.MultiIndex.from_frame(gain.reset_index()[["data", "compound"]]))[0]
    mean, low, high = bootstrap_interval(
        gain.to_numpy(), compound, averaged_over="treatments", n_bootstrap=flags.bootstraps, seed=flags.seed
    )
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"


def scores_table(table: pd.DataFrame) -> pd.DataFrame:
    """Percent correct of NSC / NSCB, a row a design and a column a recipe."""
    sums = table.groupby([*KEYS, "recipe", "protocol"])[["right", "queries"]].sum()
    percent = (100 * sums["right"] / sums["queries"]).round(1).unstack("protocol")
    return (percent["NSC"].astype(str) + " / " + percent["NSCB"].astype(str)).unstack("recipe")[list(RECIPES)]


def differences_table(table: pd.DataFrame, flags: Flags) -> pd.DataFrame:
    """Each recipe less the reference: over all designs, and by cells a well, control wells and positive controls."""
    rows = []
    groups = [("all", "", table)]
    for key in ("run", "data", "cells", "controls", "positive_controls"):
        groups += [(key, str(value), part) for value, part in table.groupby(key)]
    for key, value, part in groups:
        for protocol in PROTOCOLS:
            cells = {r: difference(part, r, protocol, flags) for r in RECIPES if r != REFERENCE}
            rows.append({"by": key, "value": value, "protocol": protocol} | cells)
    return pd.DataFrame(rows)


def main(flags: Flags) -> None:
    """Score every recipe on every thinned screen."""
    flags.out.mkdir(parents=True, exist_ok=True)
    found = []
    for name, run, cells in data_sets(flags):
        todo = list(itertools.product(designs(cells, flags), range(flags.thinnings)))
        for design, thinning in track(todo, f"{name}, {run}", total=len(todo)):
            part = thinned(cells, design, np.random.default_rng([flags.seed, thinning]))
            for recipe in RECIPES:
                found.append(answers(part, recipe).assign(data=name, run=run, thinning=thinning, **asdict(design)))
    table = pd.concat(found, ignore_index=True)
    write_text(flags.out / "answers.csv", table.to_csv(index=False))
    scores, differences = scores_table(table), differences_table(table, flags)
    write_text(flags.out / "designs.csv", scores.to_csv())
    write_text(flags.out / "differences.csv", differences.to_csv(index=False))
    print(scores.to_string(), differences.to_string(index=False), sep="\n")


if __name__ == "__main__":
    main(tyro.cli(Flags))
