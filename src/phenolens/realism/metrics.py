"""How real drawn cells look: each way of drawing beside the others, and beside real cells and blurred ones.

N cells, C channels, K ways of halving, D measures. A look is one way of drawing the same N cells (or N others, for
samples): as they are, blurred, redrawn by a model. Row i of each look is drawn from cell i, so halves keep a cell's
real and drawn face apart: real cells of the one half are held against drawn ones of the other. The look "other real
cells" is thus held against real cells that it does not contain, and says what each metric can reach with so many cells.

n real cells, m drawn cells, D measures, standardised on the real cells by `standardised`. No cell is paired with
another: a model that draws other cells, but cells, is near.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist

from phenolens.core.errors import InputError
from phenolens.realism.two_sample_test import area_under_curve, two_sample_test

MOST_MISSING = 0.1  # of the real cells; a measure that more of them lack is left out
FURTHEST = 10.0  # real standard deviations; a value beyond is set there, so that one odd cell does not rule a distance
NEIGHBOURS = 3  # Kynkäänniemi et al. 2019
ROWS_AT_A_TIME = 1024  # of a matrix of distances


@dataclass(frozen=True)
class Scale:
    """Means and standard deviations of real cells, by which every cloud is measured."""

    names: tuple[str, ...]  # the measures that count, D of them
    mean: np.ndarray  # (D,)
    deviation: np.ndarray  # (D,) n - 1, above 0

    @classmethod
    def of(cls, real: pd.DataFrame) -> "Scale":
        """The scale of real cells, a row a cell; measures that are constant or often missing are left out.

        InputError when none is left.
        """
        values = real.astype(float).replace([np.inf, -np.inf], np.nan)
        known = values.columns[values.isna().mean() <= MOST_MISSING]
        deviation = values[known].std()
        names = deviation.index[deviation > 1e-9 * (1 + values[known].mean().abs())]
        if not len(names):
            raise InputError(f"{len(real)} real cells: no measure differs between them; expected cells of a screen")
        return cls(tuple(names), values[names].mean().to_numpy(), deviation[names].to_numpy())


def standardised(cells: pd.DataFrame, scale: Scale) -> np.ndarray:
    """Cells as rows (n, D) in standard deviations of the real ones, within ±FURTHEST; NaN where not measured."""
    values = cells[list(scale.names)].to_numpy(float)
    values = np.where(np.isfinite(values), values, np.nan)
    return np.clip((values - scale.mean) / scale.deviation, -FURTHEST, FURTHEST)


def frechet_distance(real: np.ndarray, drawn: np.ndarray) -> float:
    """Squared Fréchet distance between the normal distributions of real (n, D) and drawn (m, D) cells.

    |mean difference|^2 + trace(A + B - 2 (A B)^(1/2)) of the covariances A, B. From 0, without an end; smaller is
    nearer. Cells are few, so it is above 0 between two samples of the same cells too: read it beside theirs. NaN with
    fewer than D + 1 rows on a side, whose covariances are not known. Dowson & Landau 1982; as a score of
    generated images, on features of a network, Heusel et al. 2017.
    """
    if min(len(real), len(drawn)) <= real.shape[1]:
        return float("nan")
    a, b = (np.atleast_2d(np.cov(side, rowvar=False)) for side in (real, drawn))
    values, vectors = np.linalg.eigh(a)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    # the eigenvalues of A B are those of A^(1/2) B A^(1/2), which is symmetric
    shared = np.sqrt(np.clip(np.linalg.eigvalsh(root @ b @ root), 0, None)).sum()
    return float(np.square(real.mean(0) - drawn.mean(0)).sum() + np.trace(a) + np.trace(b) - 2 * shared)


def kernel_distance(real: np.ndarray, drawn: np.ndarray) -> float:
    """Squared maximum mean discrepancy of real (n, D) and drawn (m, D) cells, kernel (x·y / D + 1)^3, unbiased.

    About 0 for cells of one kind, whatever their number (so it can be a little below 0), without an end above; smaller
    is nearer. NaN with fewer than 2 rows on a side. Gretton et al. 2012; Bińkowski et al. 2018 (KID).
    """
    n, m = len(real), len(drawn)
    if min(n, m) < 2:
        return float("nan")
    within_real = (_kernel_sum(real, real) - _kernel_of_self(real)) / (n * (n - 1))
    within_drawn = (_kernel_sum(drawn, drawn) - _kernel_of_self(drawn)) / (m * (m - 1))
    return within_real + within_drawn - 2 * _kernel_sum(real, drawn) / (n * m)


def precision_recall(real: np.ndarray, drawn: np.ndarray, *, neighbours: int = NEIGHBOURS) -> tuple[float, float]:
    """Precision and recall of drawn cells (m, D), 0 to 1, larger is better.

    Precision: the share of drawn cells that lie among the real ones, nearer to one of them than its own third-nearest
    (`neighbours`) real neighbour. Recall: the share of real cells that lie so among the drawn ones. A model that draws
    one good cell again and again has precision and no recall; one that draws noise of every kind, neither. Between two
    samples of the same cells both stay below 1: read them beside theirs. NaN with too few rows for
    a neighbour. Kynkäänniemi et al. 2019.
    """
    if min(len(real), len(drawn)) <= neighbours:
        return float("nan"), float("nan")
    return _share_among(drawn, real, neighbours), _share_among(real, drawn, neighbours)


def _share_among(points: np.ndarray, cloud: np.ndarray, neighbours: int) -> float:
    """Share of points (n, D) that are nearer to a row of the cloud (m, D) than that row's own k-th neighbour."""
    # a row's nearest is itself
    radius = np.concatenate(
        [np.partition(cdist(rows, cloud), neighbours, axis=1)[:, neighbours] for rows in _chunks(cloud)]
    )
    return float(np.concatenate([(cdist(rows, cloud) <= radius).any(axis=1) for rows in _chunks(points)]).mean())


def _kernel_sum(a: np.ndarray, b: np.ndarray) -> float:
    return float(sum(((rows @ b.T / b.shape[1] + 1) ** 3).sum() for rows in _chunks(a)))


def _kernel_of_self(a: np.ndarray) -> float:
    return float(((np.square(a).sum(axis=1) / a.shape[1] + 1) ** 3).sum())


def _chunks(rows: np.ndarray) -> list[np.ndarray]:
    """The rows in parts, so that memory does not grow with their square."""
    return [rows[start : start + ROWS_AT_A_TIME] for start in range(0, len(rows), ROWS_AT_A_TIME)]


# metric: range, direction, in a sentence each
METRICS = {
    "sharpness": "fine power over that of the originals; from 0, 1 is as sharp, above 1 is texture that cells have not",
    "in place": "fine detail that is where the original has it (Fourier ring correlation); -1 to 1, larger is better",
    "ssim": "structural similarity to the cell's own original; at most 1, larger is nearer",
    "frechet": "Fréchet distance of the measures, in real standard deviations, squared; from 0, smaller is nearer",
    "kernel": "kernel distance (unbiased MMD) of the measures; about 0 for cells of one kind, smaller is nearer",
    "precision": "share of drawn cells that lie among real ones; 0 to 1, larger is better",
    "recall": "share of real cells that lie among drawn ones; 0 to 1, larger is better",
    "accuracy": "share told apart from real cells on unseen plates; 0.5 cannot be told apart, 1 always",
    "auc": "how often a drawn cell looks more drawn than a real one; 0.5 cannot be told apart, 1 always",
}


@dataclass(frozen=True)
class Look:
    """One way of drawing N cells, measured."""

    name: str  # such as `VAE+ (vaeplus-seed0)`
    measures: pd.DataFrame  # a row a cell, N rows
    fine_power: np.ndarray  # (N, C) power in the fine band
    ssim: np.ndarray  # (N, C) structural similarity to the cell's own original; NaN where it has none
    shared: np.ndarray  # (N, C) power in the fine band that is where the original has it; NaN where it has none


def halves(n_cells: int, *, n: int, seed: int) -> np.ndarray:
    """Random ways (K = n, N) of halving cells: True for the half that stays real.

    Wells are not halved each: halves that are alike by design lie nearer to each other than two samples do, and the
    kernel distance between real cells would be below 0.
    """
    random = np.random.default_rng(seed)
    ways = np.zeros((n, n_cells), bool)
    for way in ways:
        way[random.permutation(n_cells)[: n_cells // 2]] = True
    return ways


def realism_row(
    look: Look,
    real: Look,
    ways: np.ndarray,
    *,
    channels: tuple[str, ...],
    plates: np.ndarray,
    wells: np.ndarray,
    seed: int,
) -> dict[str, float]:
    """Each metric of METRICS for one look, with `_sd`, its deviation over the ways of halving (K, N).

    `sharpness`, `in place` and `ssim` are a channel each: `sharpness <channel>`. `accuracy` and `auc` are of the first
    way alone, with `_low` and `_high`: a classifier takes long, and an interval over wells says more. `unmeasured`: the
    share of drawn cells that lack a measure (no nucleus found, mostly); the distances leave them out, the classifier
    does not.
    """
    scale = Scale.of(real.measures)
    of_real, of_drawn = standardised(real.measures, scale), standardised(look.measures, scale)
    by_way = [_of_way(look, real, of_real, of_drawn, way, channels) for way in ways]
    table = pd.DataFrame(by_way)
    row: dict[str, float] = {}
    for name in table:
        row[str(name)] = float(table[name].mean())
        row[f"{name}_sd"] = float(table[name].std()) if len(table) > 1 else float("nan")
    kept = ways[0]
    test = two_sample_test(
        of_real[kept],
        of_drawn[~kept],
        real_plates=plates[kept],
        drawn_plates=plates[~kept],
        real_wells=wells[kept],
        drawn_wells=wells[~kept],
        seed=seed,
    )
    row |= {"accuracy": test.accuracy, "accuracy_low": test.accuracy_interval[0]}
    row |= {"accuracy_high": test.accuracy_interval[1], "auc": test.auc}
    row |= {"auc_low": test.auc_interval[0], "auc_high": test.auc_interval[1]}
    return row | {"unmeasured": float(np.isnan(of_drawn).any(axis=1).mean())}


def what_tells(look: Look, real: Look, way: np.ndarray) -> pd.DataFrame:
    """Each measure alone, the most telling first: real cells of one half against drawn ones of the other.

    `auc`: how often the drawn cell has the larger value, 0 to 1, 0.5 when it tells nothing. `shift`: the drawn cells'
    mean less the real ones', in real standard deviations. Cells without the measure are left out.
    """
    scale = Scale.of(real.measures)
    of_real, of_drawn = standardised(real.measures, scale)[way], standardised(look.measures, scale)[~way]
    rows = []
    for column, name in enumerate(scale.names):
        a, b = (side[:, column][~np.isnan(side[:, column])] for side in (of_real, of_drawn))
        auc = area_under_curve(np.concatenate([a, b]), np.repeat([False, True], [len(a), len(b)]))
        rows.append({"measure": name, "auc": auc, "shift": b.mean() - a.mean() if len(a) and len(b) else np.nan})
    table = pd.DataFrame(rows)
    return table.iloc[np.argsort(-(table["auc"] - 0.5).abs(), kind="stable")].reset_index(drop=True)


def normal_samples(z: np.ndarray, *, n: int, random: np.random.Generator) -> np.ndarray:
    """Embeddings (n, Z) drawn from the normal distribution with the mean and covariance of these (N, Z).

    The prior of a VAE is not where its embeddings lie; this is. No covariance is kept: a mixture of the centred rows
    with independent normal weights has it exactly.
    """
    centred = z - z.mean(axis=0)
    return z.mean(axis=0) + random.normal(size=(n, len(z))) @ centred / np.sqrt(max(len(z) - 1, 1))


def _of_way(
    look: Look, real: Look, of_real: np.ndarray, of_drawn: np.ndarray, way: np.ndarray, channels: tuple[str, ...]
) -> dict[str, float]:
    """The metrics that need no classifier, for one way of halving."""
    power_drawn, power_real = look.fine_power[~way].mean(axis=0), real.fine_power[way].mean(axis=0)
    row = {f"sharpness {c}": _over(a, b) for c, a, b in zip(channels, power_drawn, power_real)}
    # of a cell and its own original
    shared, power_own = look.shared[~way].mean(axis=0), real.fine_power[~way].mean(axis=0)
    in_place = [_over(part, np.sqrt(a * b)) for part, a, b in zip(shared, power_drawn, power_own)]
    row |= {f"in place {c}": value for c, value in zip(channels, in_place)}
    row |= {f"ssim {c}": float(value) for c, value in zip(channels, look.ssim[~way].mean(axis=0))}
    a, b = _measured(of_real[way]), _measured(of_drawn[~way])
    row |= {"frechet": frechet_distance(a, b), "kernel": kernel_distance(a, b)}
    precision, recall = precision_recall(a, b)
    return row | {"precision": precision, "recall": recall}


def _measured(cells: np.ndarray) -> np.ndarray:
    return cells[~np.isnan(cells).any(axis=1)]


def _over(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else float("nan")
