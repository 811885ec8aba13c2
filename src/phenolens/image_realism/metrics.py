"""Realism metrics of a set of images, next to other real cells and blurred cells.

N cells, C channels, K random halves, D measures; n real and m decoded cells. A set holds one image of each of the
same N cells (or N other cells, for samples): the real cell, blurred, or reconstructed. Real cells of one half are
compared with decoded cells of the other half, so no cell is on both sides. The set of real cells is compared in the
same way, which gives the value that each metric can reach with this number of cells.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist

from phenolens.morphology.two_sample_test import Scale, area_under_curve, standardised, two_sample_test

NEIGHBOURS = 3  # Kynkäänniemi et al. 2019
ROWS_AT_A_TIME = 1024  # of a matrix of distances


@dataclass(frozen=True)
class MeasuredImages:
    """The measures of one set of images of N cells."""

    name: str  # such as `VAE+`
    measures: pd.DataFrame  # a row per cell, N rows
    fine_power: np.ndarray  # (N, C) power in the fine band
    ssim: np.ndarray  # (N, C) structural similarity to the cell's own original; NaN where it has none
    shared: np.ndarray  # (N, C) power in the fine band at the place of the original's; NaN where it has none


def frechet_distance(real: np.ndarray, decoded: np.ndarray) -> float:
    """Squared Fréchet distance between normal distributions fitted to real (n, D) and decoded (m, D) cells.

    |mean difference|^2 + trace(A + B - 2 (A B)^(1/2)) of the covariances A and B. With few cells it is above 0 even
    between two samples of the same cells, so compare it with that of other real cells. Dowson & Landau 1982; for
    generated images Heusel et al. 2017.

    Returns:
        The distance, from 0; NaN with fewer than D + 1 cells on a side.
    """
    if min(len(real), len(decoded)) <= real.shape[1]:
        return float("nan")
    a, b = (np.atleast_2d(np.cov(side, rowvar=False)) for side in (real, decoded))
    # the trace of a root is the sum of the roots of the eigenvalues, which are real and not negative for A B
    root = np.sqrt(np.clip(np.linalg.eigvals(a @ b).real, 0, None)).sum()
    return float(np.square(real.mean(0) - decoded.mean(0)).sum() + np.trace(a) + np.trace(b) - 2 * root)


def kernel_distance(real: np.ndarray, decoded: np.ndarray) -> float:
    """Squared maximum mean discrepancy of real (n, D) and decoded (m, D) cells, kernel (x·y / D + 1)^3, unbiased.

    Gretton et al. 2012; Bińkowski et al. 2018 (KID).

    Returns:
        The distance; about 0 for the same distribution, so it can be slightly negative. NaN with fewer than 2 cells
        on a side.
    """
    n, m = len(real), len(decoded)
    if min(n, m) < 2:
        return float("nan")
    within_real = (_kernel_sum(real, real) - _kernel_of_self(real)) / (n * (n - 1))
    within_decoded = (_kernel_sum(decoded, decoded) - _kernel_of_self(decoded)) / (m * (m - 1))
    return within_real + within_decoded - 2 * _kernel_sum(real, decoded) / (n * m)


def precision_recall(real: np.ndarray, decoded: np.ndarray, *, neighbours: int = NEIGHBOURS) -> tuple[float, float]:
    """Precision and recall of decoded cells (m, D), 0 to 1. Kynkäänniemi et al. 2019.

    Precision is the share of decoded cells that are closer to a real cell than that cell's third-nearest real
    neighbour; recall swaps the roles. Both stay below 1 between two samples of the same cells.

    Returns:
        Precision and recall; NaN with no more than `neighbours` cells on a side.
    """
    if min(len(real), len(decoded)) <= neighbours:
        return float("nan"), float("nan")
    return _share_among(decoded, real, neighbours), _share_among(real, decoded, neighbours)


def random_halves(n_cells: int, *, n: int, seed: int) -> np.ndarray:
    """Random halves (K = n, N) of cells: True for the half that is compared as real.

    Cells are not split within wells: halves that are similar by design are closer than two samples are, and the
    kernel distance between real cells would be below 0.
    """
    random = np.random.default_rng(seed)
    halves = np.zeros((n, n_cells), bool)
    for half in halves:
        half[random.permutation(n_cells)[: n_cells // 2]] = True
    return halves


def realism_row(
    images: MeasuredImages,
    real: MeasuredImages,
    halves: np.ndarray,
    *,
    channels: tuple[str, ...],
    plates: np.ndarray,
    wells: np.ndarray,
    seed: int,
) -> dict[str, float]:
    """Every realism metric of one set of images against the real cells, over random halves (K, N).

    Returns:
        `sharpness`, `in place` and `ssim` for each channel (`sharpness <channel>`) and the distances, means over the
        halves, each with `_sd`. `accuracy` and `auc` of the first half, with `_low` and `_high` over wells: the
        classifier is slow. `unmeasured`: share of images that lack a measure (mostly no nucleus found); distances
        leave these out, the classifier does not. docs/formats.md, "Realism", has ranges and directions.
    """
    scale = Scale.of(real.measures)
    real_z, decoded_z = standardised(real.measures, scale), standardised(images.measures, scale)
    table = pd.DataFrame([_half_metrics(images, real, real_z, decoded_z, half, channels) for half in halves])
    row: dict[str, float] = {}
    for name in table:
        row[str(name)] = float(table[name].mean())
        row[f"{name}_sd"] = float(table[name].std())
    half = halves[0]
    test = two_sample_test(
        real_z[half],
        decoded_z[~half],
        real_plates=plates[half],
        decoded_plates=plates[~half],
        real_wells=wells[half],
        decoded_wells=wells[~half],
        seed=seed,
    )
    row |= {"accuracy": test.accuracy, "accuracy_low": test.accuracy_interval[0]}
    row |= {"accuracy_high": test.accuracy_interval[1], "auc": test.auc}
    row |= {"auc_low": test.auc_interval[0], "auc_high": test.auc_interval[1]}
    return row | {"unmeasured": float(np.isnan(decoded_z).any(axis=1).mean())}


def measure_differences(images: MeasuredImages, real: MeasuredImages, half: np.ndarray) -> pd.DataFrame:
    """How each measure differs between real cells of a half (N,) and images of the other half, the strongest first.

    Returns:
        A row a measure. `auc`: how often the image has the larger value, 0 to 1, 0.5 without a difference. `shift`:
        the images' mean minus the real cells', in real standard deviations. Cells without the measure are left out.
    """
    scale = Scale.of(real.measures)
    real_z, decoded_z = standardised(real.measures, scale)[half], standardised(images.measures, scale)[~half]
    rows = []
    for column, name in enumerate(scale.names):
        a, b = (side[:, column][~np.isnan(side[:, column])] for side in (real_z, decoded_z))
        auc = area_under_curve(np.concatenate([a, b]), np.repeat([False, True], [len(a), len(b)]))
        rows.append({"measure": name, "auc": auc, "shift": b.mean() - a.mean() if len(a) and len(b) else np.nan})
    table = pd.DataFrame(rows)
    return table.iloc[np.argsort(-(table["auc"] - 0.5).abs().to_numpy(), kind="stable")].reset_index(drop=True)


def normal_samples(z: np.ndarray, *, n: int, random: np.random.Generator) -> np.ndarray:
    """Embeddings (n, Z) drawn from the normal distribution with the mean and covariance of these (N, Z).

    Embeddings do not fill a VAE's prior, so samples of the prior would be a different question. A mixture of the
    centred rows with independent normal weights has exactly their covariance.
    """
    centred = z - z.mean(axis=0)
    return z.mean(axis=0) + random.normal(size=(n, len(z))) @ centred / np.sqrt(max(len(z) - 1, 1))


def _half_metrics(
    images: MeasuredImages,
    real: MeasuredImages,
    real_z: np.ndarray,
    decoded_z: np.ndarray,
    half: np.ndarray,
    channels: tuple[str, ...],
) -> dict[str, float]:
    """The metrics that need no classifier, for one half (N,)."""
    power, power_real = images.fine_power[~half].mean(axis=0), real.fine_power[half].mean(axis=0)
    row = {f"sharpness {c}": _ratio(a, b) for c, a, b in zip(channels, power, power_real)}
    # against each cell's own original
    shared, power_own = images.shared[~half].mean(axis=0), real.fine_power[~half].mean(axis=0)
    row |= {f"in place {c}": _ratio(s, np.sqrt(a * b)) for c, s, a, b in zip(channels, shared, power, power_own)}
    row |= {f"ssim {c}": float(value) for c, value in zip(channels, images.ssim[~half].mean(axis=0))}
    a, b = _complete(real_z[half]), _complete(decoded_z[~half])
    precision, recall = precision_recall(a, b)
    distances = {"frechet": frechet_distance(a, b), "kernel": kernel_distance(a, b)}
    return row | distances | {"precision": precision, "recall": recall}


def _complete(cells: np.ndarray) -> np.ndarray:
    return cells[~np.isnan(cells).any(axis=1)]


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else float("nan")


def _share_among(points: np.ndarray, cloud: np.ndarray, neighbours: int) -> float:
    """Share of points (n, D) that are closer to a row of the cloud (m, D) than that row's own k-th neighbour."""
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
    """The rows in chunks, so that memory does not grow with their square."""
    return [rows[start : start + ROWS_AT_A_TIME] for start in range(0, len(rows), ROWS_AT_A_TIME)]
