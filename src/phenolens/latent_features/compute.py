"""What each latent feature of a run is used for and goes with, as a page and a table.

N cells of a study, n that are measured, Z features, M measures, F frames.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from phenolens.core.colours import Contrast, shared_contrast
from phenolens.core.errors import InputError, at_least
from phenolens.core.files import write_text
from phenolens.core.progress import track
from phenolens.latent_features import conclusions
from phenolens.latent_features.correlations import Correlations, between_groups, controlled, correlations, traversal
from phenolens.latent_features.figure import traversal_strip
from phenolens.latent_features.page import FeaturesContents, FeatureSection, features_html
from phenolens.models.vaeplus import ACTIVE_NATS
from phenolens.morphology.features import measures
from phenolens.runs.decoder import PicturedRun, chosen_run
from phenolens.runs.embeddings import EmbeddedCells, embedded_cells
from phenolens.runs.latent_path import target_cell
from phenolens.study import Study
from phenolens.training.embed import mean_kl

CHUNK = 256  # cells measured between two signs of progress
LEAST_CELLS = 20
STRONGEST = 3  # measures of a feature that the table names
PERCENTILES = 2, 98  # of real cells, between which a feature is moved
USED_SHARE = 0.01  # of the largest variance: what a feature of a model without a prior needs to count as used
CONTRAST_CELLS = 64


@dataclass(frozen=True)
class FeaturesConfig:
    """How latent features are looked at."""

    measured_cells: int = 2000  # cells drawn for KL and correlations; fewer is faster and less sure
    strips: int = 24  # features that get a strip of pictures: those that conclusions name, then the most used
    frames: int = 5  # of a strip
    shuffles: int = 999  # of whole wells, for what plates and treatments differ by chance
    feature_seed: int = 0  # draws the cells and the shuffles

    def __post_init__(self) -> None:
        """InputError on a number that cannot be."""
        at_least("--measured-cells", self.measured_cells, LEAST_CELLS)
        at_least("--strips", self.strips, 1)
        at_least("--frames", self.frames, 2)
        at_least("--shuffles", self.shuffles, 19)
        at_least("--feature-seed", self.feature_seed, 0)


def write_features(study: Study, run: PicturedRun, config: FeaturesConfig) -> tuple[Path, str]:
    """Write `features/<run>.html`, `.csv` and `_correlations.csv`; the page's path, and its verdict."""
    cells = embedded_cells(study, run.name)
    rows = _drawn(cells, config)
    measured = _measured(run, rows)
    names = list(map(str, measured.columns))
    found = correlations(cells.z[rows], measured)
    table = feature_table(run, cells, rows, found, names, config)
    contents = _contents(study, run, cells, table, names, config)
    page = study.features_page(run.name)
    write_text(page.with_suffix(".csv"), table.to_csv(float_format="%.6g"))
    write_text(page.with_name(f"{run.name}_correlations.csv"), _long(found, list(table.index), names))
    write_text(page, features_html(contents))
    return page, contents.verdict


def run_of(study: Study, asked: str | None) -> PicturedRun:
    """The run whose features are looked at: it must decode, since each feature is shown."""
    return chosen_run(study, asked)


def feature_table(
    run: PicturedRun,
    cells: EmbeddedCells,
    rows: np.ndarray,
    found: Correlations,
    names: Sequence[str],
    config: FeaturesConfig,
) -> pd.DataFrame:
    """A row a feature (Z rows), index `Z000`: use, the measures it goes with, shares between groups of wells.

    `used`: more than ACTIVE_NATS of KL, or of a model without a prior USED_SHARE of the largest variance. The
    false-discovery rate of shares is controlled over the used features.
    """
    fine = cells.z[cells.catalogue.counted]
    kl = mean_kl(run.model, run.store.take(rows), compute=run.compute)
    variance = fine.var(axis=0)
    used = variance >= USED_SHARE * variance.max() if kl is None else kl > ACTIVE_NATS
    table = pd.DataFrame(
        {
            "used": used & (variance > 0),
            "kl_nats": np.nan if kl is None else kl,
            "variance": variance,
            "mean": fine.mean(axis=0),
        },
        index=pd.Index([f"Z{i:03d}" for i in range(cells.z.shape[1])], name="feature"),
    )
    strength = np.nan_to_num(np.abs(found.rho), nan=-1)
    order = np.argsort(-strength, axis=1, kind="stable")[:, :STRONGEST]
    for place, column in enumerate(order.T, start=1):
        which = np.arange(len(table)), column
        table[f"measure_{place}"] = np.array(names)[column]
        table[f"rho_{place}"], table[f"q_{place}"] = found.rho[which], found.q[which]
        table[f"n_{place}"] = found.n[column]
    for kind, counted in (
        ("treatment", cells.catalogue.counted),
        ("batch", _controls(cells)),
        ("plate", _controls(cells)),
    ):
        _add_shares(table, cells, kind, counted, config)
    return table


def _add_shares(
    table: pd.DataFrame, cells: EmbeddedCells, kind: str, counted: np.ndarray, config: FeaturesConfig
) -> None:
    """Add `<kind>_share`, `_by_chance`, `_p` and `_q` to the table; NaN where they cannot be told."""
    obs = cells.catalogue.cells[counted].astype({"plate": str, "well": str})
    shares = None
    if len(obs):
        shares = between_groups(
            cells.z[counted],
            wells=(obs["plate"] + " " + obs["well"]).to_numpy(),
            groups=obs[kind].astype(str).to_numpy(),
            n_shuffles=config.shuffles,
            seed=config.feature_seed,
        )
    for name in ("share", "by_chance", "p"):
        table[f"{kind}_{name}"] = np.nan if shares is None else getattr(shares, name)
    table[f"{kind}_q"] = controlled(np.where(table["used"], table[f"{kind}_p"], np.nan))


def _controls(cells: EmbeddedCells) -> np.ndarray:
    """Which cells (N,) are of control wells, where a treatment cannot be why plates differ."""
    return cells.catalogue.counted & (cells.catalogue.cells["role"] == "control").to_numpy()


def _drawn(cells: EmbeddedCells, config: FeaturesConfig) -> np.ndarray:
    """Rows (n,) of random counted cells; InputError when there are too few for a correlation."""
    fine = np.flatnonzero(cells.catalogue.counted)
    if len(fine) < LEAST_CELLS:
        raise InputError(f"{len(fine)} cells that are not noise: expected at least {LEAST_CELLS} to tell features by")
    random = np.random.default_rng(config.feature_seed)
    return np.sort(random.choice(fine, min(config.measured_cells, len(fine)), replace=False))


def _measured(run: PicturedRun, rows: np.ndarray) -> pd.DataFrame:
    """The measures (n rows) of these rows of the store, chunk by chunk."""
    starts = range(0, len(rows), CHUNK)
    parts = [
        measures(run.originals(rows[start : start + CHUNK]), channels=run.store.channels)
        for start in track(starts, f"measuring {len(rows):,} cells", total=len(starts))
    ]
    return pd.concat(parts, ignore_index=True)


def _contents(
    study: Study,
    run: PicturedRun,
    cells: EmbeddedCells,
    table: pd.DataFrame,
    names: list[str],
    config: FeaturesConfig,
) -> FeaturesContents:
    by = "variance" if table["kl_nats"].isna().all() else "kl_nats"
    used = table[table["used"]].sort_values(by, ascending=False, kind="stable")
    named = conclusions.named_features(used)
    shown = used.loc[[*named, *used.index.difference(named, sort=False)][: config.strips]]
    n_cells = min(config.measured_cells, int(cells.catalogue.counted.sum()))
    sections, agree = _sections(run, cells, shown, config)
    return FeaturesContents(
        title=f"{study.folder.resolve().name}: the latent features of {run.name} ({run.title})",
        verdict=conclusions.verdict(table),
        conclusions=[
            *conclusions.conclusions(used, n_measures=len(names)),
            *conclusions.of_strips(agree, n_unshown=len(used) - len(shown)),
        ],
        sections=sections,
        table=conclusions.listed_table(used),
        how=conclusions.how(n_cells=n_cells, shuffles=config.shuffles, frames=config.frames),
        commands=[f"phenolens features {shlex.quote(study.folder.resolve().name)} --run {run.name}"],
    )


def _sections(
    run: PicturedRun, cells: EmbeddedCells, shown: pd.DataFrame, config: FeaturesConfig
) -> tuple[list[FeatureSection], list[bool | None]]:
    """Each shown feature with its strip, decoded from the control cell nearest to the controls' mean.

    And of each whether the decoded cell changes the way that real cells go, as `agrees` says it.
    """
    controls = np.flatnonzero(_controls(cells))
    start_among = controls if len(controls) else np.flatnonzero(cells.catalogue.counted)
    start = int(start_among[target_cell(cells.z[start_among])])
    real = run.originals(np.array([start]))[0]
    contrast = _contrast(run, cells, real)
    features = [int(str(name)[1:]) for name in shown.index]
    low, high = np.percentile(cells.z[cells.catalogue.counted][:, features], PERCENTILES, axis=0)
    values_of = np.linspace(low, high, config.frames).T
    frames_of = [run.decoded(traversal(cells.z[start], *moved)) for moved in zip(features, values_of)]
    limit = _limit(frames_of)
    sections, agree = [], []
    shown_rows = zip(shown.iterrows(), features, values_of, frames_of)
    for (name, row), feature, values, frames in track(shown_rows, f"strips of {run.name}", total=len(shown)):
        deviation = float(np.sqrt(row["variance"]))
        moved = measures(frames[[0, -1]], channels=run.store.channels)[row["measure_1"]]
        strip = traversal_strip(
            frames,
            (values - row["mean"]) / deviation,
            real,
            feature=str(name),
            channels=run.store.channels,
            contrast=contrast,
            own=float((cells.z[start, feature] - row["mean"]) / deviation),
            limit=limit,
        )
        said = [*conclusions.sentences_of(row), conclusions.moved_words(row, *map(float, moved))]
        sections.append(FeatureSection(str(name), conclusions.title_of(row), list(filter(None, said)), strip))
        agree += [conclusions.agrees(row, *map(float, moved))]
    return sections, agree


def _limit(frames_of: Sequence[np.ndarray]) -> float:
    """The difference in full colour, for all strips: twice what one pixel in a hundred exceeds in the median."""
    changes = [np.percentile(np.abs(frames[-1] - frames[0]), 99) for frames in frames_of]
    return max(2 * float(np.median(changes)), 1e-6) if changes else 1.0


def _contrast(run: PicturedRun, cells: EmbeddedCells, real: np.ndarray) -> Contrast:
    """One contrast for all strips, that of real cells evenly over the study and of the cell that is shown."""
    fine = np.flatnonzero(cells.catalogue.counted)
    spread = fine[np.unique(np.linspace(0, len(fine) - 1, CONTRAST_CELLS).astype(int))]
    return shared_contrast(np.concatenate([real[None], run.originals(spread)]), run.store.channels)


def _long(found: Correlations, features: list[str], names: list[str]) -> str:
    """Every correlation as CSV, a row a pair."""
    pairs = pd.MultiIndex.from_product([features, names], names=["feature", "measure"])
    columns = {
        "rho": found.rho.ravel(),
        "n": np.tile(found.n, len(features)),
        "p": found.p.ravel(),
        "q": found.q.ravel(),
    }
    return pd.DataFrame(columns, index=pairs).to_csv(float_format="%.6g")
