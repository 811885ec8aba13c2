"""Describe each latent feature of a run: its use, the measures it follows, and whether batches differ in it.

N cells of a study, n measured cells, Z features, M measures, F frames.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from phenolens.core.colours import Contrast, shared_contrast
from phenolens.core.errors import InputError
from phenolens.core.files import write_text
from phenolens.core.progress import track
from phenolens.latent_features import conclusions
from phenolens.latent_features.config import LEAST_CELLS, FeaturesConfig
from phenolens.latent_features.correlations import (
    Correlations,
    between_groups,
    correlations,
    false_discovery_rates,
    traversal,
)
from phenolens.latent_features.figure import traversal_strip
from phenolens.models.vaeplus import ACTIVE_NATS
from phenolens.morphology.features import describe, measures, short_name
from phenolens.plotting.page import InlinePicture, inline_pictures, render_page
from phenolens.runs.catalogue import evenly
from phenolens.runs.decoder import DecodingRun
from phenolens.runs.embeddings import EmbeddedCells, embedded_cells
from phenolens.study import Study
from phenolens.training.embed import mean_kl

TEMPLATES = Path(__file__).parent / "templates"
CHUNK = 256  # cells measured between two steps of the progress bar
STRONGEST = 3  # measures of a feature in the table
PERCENTILES = 2, 98  # of real cells, between which a feature is moved
USED_SHARE = 0.01  # of the largest variance, from which a feature of a model without a prior counts as used
STRIP_CONTRAST_CELLS = 64  # cells, evenly over the study, on which the strips' contrast is measured
LIMITS = {  # that the page names
    "follows": conclusions.FOLLOWS,
    "leans": conclusions.LEANS,
    "named": conclusions.NAMED,
    "significant": conclusions.SIGNIFICANT,
    "least_share": conclusions.LEAST_SHARE,
    "least_change": conclusions.LEAST_CHANGE,
    "active_nats": ACTIVE_NATS,
}


@dataclass(frozen=True)
class Moved:
    """What a feature's strongest measure does in the decoded cell as the feature is moved."""

    measure: str
    first: float
    last: float
    agrees: bool | None  # with the correlation in real cells; None: hardly changes


@dataclass(frozen=True)
class FeatureSection:
    """One feature's part of the page."""

    name: str  # Z017
    differs_between: str | None  # batches or plates, if it is a batch feature
    measure: str  # its strongest correlation
    rho: float
    correlated: list[tuple[str, float, int]]  # measure, rho, number of cells
    kl: float | None  # nats; None for a model without a prior
    variance: float
    shares: list[tuple[str, float, float]]  # between which groups, share of the variance, share by chance
    moved: Moved | None  # None where it could not be measured
    strip: list[InlinePicture]


def write_features(study: Study, run: DecodingRun, config: FeaturesConfig) -> tuple[Path, pd.DataFrame]:
    """Write `features/<run>.html`, `.csv` and `_correlations.csv`.

    Args:
        study: The study.
        run: A run that decodes and whose embeddings are up to date.
        config: How many cells, strips and shuffles.

    Returns:
        The page's path, and the table of `feature_table`.

    Raises:
        InputError: If there are no embeddings, or too few cells.
    """
    cells = embedded_cells(study, run.name)
    rows = _random_cells(cells, config)
    measured = _measured(run, rows)
    names = list(map(str, measured.columns))
    found = correlations(cells.z[rows], measured)
    table = feature_table(run, cells, rows, found, names, config)
    html = _page(study, run, cells, table, n_measures=len(names), n_cells=len(rows), config=config)
    page = study.features_page(run.name)
    write_text(page.with_suffix(".csv"), table.to_csv(float_format="%.6g"))
    write_text(page.with_name(f"{run.name}_correlations.csv"), _pairs(found, list(table.index), names))
    write_text(page, html)
    return page, table


def feature_table(
    run: DecodingRun,
    cells: EmbeddedCells,
    rows: np.ndarray,
    found: Correlations,
    names: Sequence[str],
    config: FeaturesConfig,
) -> pd.DataFrame:
    """Use, strongest measures and variance shares of each feature.

    Returns:
        A row per feature (Z rows), index `Z000`. `used`: more than ACTIVE_NATS of KL, or without a prior more than
        USED_SHARE of the largest variance. False-discovery rates of shares are over the used features.
    """
    z = cells.z[np.flatnonzero(cells.catalogue.counted)]
    kl = mean_kl(run.model, run.store.take(rows), compute=run.compute)
    variance = z.var(axis=0)
    used = variance >= USED_SHARE * variance.max() if kl is None else kl > ACTIVE_NATS
    table = pd.DataFrame(
        {
            "used": used & (variance > 0),
            "kl_nats": np.nan if kl is None else kl,
            "variance": variance,
            "mean": z.mean(axis=0),
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
    controls = _controls(cells)
    for kind, counted in (("treatment", cells.catalogue.counted), ("batch", controls), ("plate", controls)):
        _add_shares(table, cells, kind, counted, config)
    return table


def _add_shares(
    table: pd.DataFrame, cells: EmbeddedCells, kind: str, counted: np.ndarray, config: FeaturesConfig
) -> None:
    """Add `<kind>_share`, `_by_chance`, `_p` and `_q` to the table; NaN where they could not be tested."""
    obs = cells.catalogue.cells[counted].astype({"plate": str, "well": str})
    shares = None
    if len(obs):
        shares = between_groups(
            cells.z[np.flatnonzero(counted)],
            wells=(obs["plate"] + " " + obs["well"]).to_numpy(),
            groups=obs[kind].astype(str).to_numpy(),
            n_shuffles=config.shuffles,
            seed=config.feature_seed,
        )
    for name in ("share", "by_chance", "p"):
        table[f"{kind}_{name}"] = np.nan if shares is None else getattr(shares, name)
    table[f"{kind}_q"] = false_discovery_rates(np.where(table["used"], table[f"{kind}_p"], np.nan))


def _controls(cells: EmbeddedCells) -> np.ndarray:
    """Which cells (N,) are controls, in which differences between plates are not due to treatments."""
    return cells.catalogue.counted & (cells.catalogue.cells["role"] == "control").to_numpy()


def _random_cells(cells: EmbeddedCells, config: FeaturesConfig) -> np.ndarray:
    """Rows (n,) of random counted cells; InputError if there are too few for a correlation."""
    counted = np.flatnonzero(cells.catalogue.counted)
    if len(counted) < LEAST_CELLS:
        raise InputError(f"{len(counted)} cells that are not noise: expected at least {LEAST_CELLS} for correlations")
    random = np.random.default_rng(config.feature_seed)
    return np.sort(random.choice(counted, min(config.measured_cells, len(counted)), replace=False))


def _measured(run: DecodingRun, rows: np.ndarray) -> pd.DataFrame:
    """The measures (n rows) of these rows of the store, chunk by chunk."""
    starts = range(0, len(rows), CHUNK)
    parts = [
        measures(run.originals(rows[start : start + CHUNK]), channels=run.store.channels)
        for start in track(starts, f"measuring {len(rows):,} cells", total=len(starts))
    ]
    return pd.concat(parts, ignore_index=True)


def _page(
    study: Study,
    run: DecodingRun,
    cells: EmbeddedCells,
    table: pd.DataFrame,
    *,
    n_measures: int,
    n_cells: int,
    config: FeaturesConfig,
) -> str:
    """The HTML page."""
    has_kl = bool(table["kl_nats"].notna().any())
    used = table[table["used"]].sort_values("kl_nats" if has_kl else "variance", ascending=False, kind="stable")
    found = conclusions.conclude(used)
    shown = used.loc[[*found.named, *used.index.difference(found.named, sort=False)][: config.strips]]
    sections = _sections(run, cells, shown, config)
    folder = study.folder.resolve().name
    return render_page(
        TEMPLATES,
        "features.html",
        title=f"{folder}: the latent features of {run.name} ({run.title})",
        n_used=len(used),
        n_features=len(table),
        total_nats=table["kl_nats"].sum() if has_kl else None,
        used_share=USED_SHARE,
        found=found,
        strips=conclusions.strip_counts([section.moved.agrees if section.moved else None for section in sections]),
        n_unshown=len(used) - len(shown),
        sections=sections,
        table=conclusions.page_table(used),
        limits=LIMITS,
        n_measures=n_measures,
        n_cells=n_cells,
        config=config,
        command=f"phenolens features {shlex.quote(folder)} --run {run.name}",
    )


def _sections(
    run: DecodingRun, cells: EmbeddedCells, shown: pd.DataFrame, config: FeaturesConfig
) -> list[FeatureSection]:
    """Each shown feature with its strip, decoded from the control cell nearest to the controls' mean."""
    counted = np.flatnonzero(cells.catalogue.counted)
    controls = np.flatnonzero(_controls(cells))
    start = cells.nearest_to_mean(controls if len(controls) else counted)
    real = run.originals(np.array([start]))[0]
    contrast = _contrast(run, counted, real)
    features = [int(str(name)[1:]) for name in shown.index]
    low, high = np.percentile(cells.z[counted][:, features], PERCENTILES, axis=0)
    values_of = np.linspace(low, high, config.frames).T
    frames_of = [
        run.changed(np.array([start]), cells.z[[start]], traversal(cells.z[start], *moved))
        for moved in zip(features, values_of)
    ]
    limit = _difference_limit(frames_of)
    sections = []
    strips = zip(shown.iterrows(), features, values_of, frames_of)
    for (name, row), feature, values, frames in track(strips, f"strips of {run.name}", total=len(shown)):
        deviation = float(np.sqrt(row["variance"]))
        strip = traversal_strip(
            frames,
            (values - row["mean"]) / deviation,
            real,
            feature=str(name),
            channels=run.store.channels,
            contrast=contrast,
            own=float((cells.z[start][feature] - row["mean"]) / deviation),
            limit=limit,
        )
        first, last = measures(frames[[0, -1]], channels=run.store.channels)[row["measure_1"]]
        sections.append(_section(str(name), row, first=float(first), last=float(last), strip=inline_pictures(strip)))
    return sections


def _section(name: str, row: pd.Series, *, first: float, last: float, strip: list[InlinePicture]) -> FeatureSection:
    """A feature's part of the page, from its row of the table and its measure in the first and last frame."""
    moved = Moved(describe(row["measure_1"]), first, last, conclusions.agrees(row["rho_1"], first, last))
    return FeatureSection(
        name=name,
        differs_between=conclusions.differs_between(row),
        measure=short_name(row["measure_1"]),
        rho=row["rho_1"],
        correlated=conclusions.correlated_measures(row),
        kl=row["kl_nats"] if np.isfinite(row["kl_nats"]) else None,
        variance=row["variance"],
        shares=conclusions.variance_shares(row),
        moved=moved if np.isfinite(first + last) else None,
        strip=strip,
    )


def _difference_limit(frames_of: Sequence[np.ndarray]) -> float:
    """The difference shown in full colour in all strips: twice the median strip's 99th percentile."""
    changes = [np.percentile(np.abs(frames[-1] - frames[0]), 99) for frames in frames_of]
    return max(2 * float(np.median(changes)), 1e-6) if changes else 1.0


def _contrast(run: DecodingRun, counted: np.ndarray, real: np.ndarray) -> Contrast:
    """One contrast for all strips: that of cells spread evenly over the study, and of the cell that is shown."""
    spread = evenly(counted, STRIP_CONTRAST_CELLS)
    return shared_contrast(np.concatenate([real[None], run.originals(spread)]), run.store.channels)


def _pairs(found: Correlations, features: list[str], names: list[str]) -> str:
    """Every correlation as CSV, a row a pair of feature and measure."""
    pairs = pd.MultiIndex.from_product([features, names], names=["feature", "measure"])
    columns = {
        "rho": found.rho.ravel(),
        "n": np.tile(found.n, len(features)),
        "p": found.p.ravel(),
        "q": found.q.ravel(),
    }
    return pd.DataFrame(columns, index=pairs).to_csv(float_format="%.6g")
