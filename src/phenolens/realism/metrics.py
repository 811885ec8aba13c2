"""Realism metrics of a set of images, next to other real cells and blurred cells.

N cells, C channels, K random halves, D measures; n real and m decoded cells. A set holds one image of each of the
same N cells (or N other cells, for samples): the real cell, blurred, or reconstructed. Real cells of one half are
compared with decoded cells of the other half, so no cell is on both sides. The set of real cells is compared in the
same way, which gives the value that each metric can reach with this number of cells.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist
from scipy.stats import rankdata
from sklearn.ensemble import HistGradientBoostingClassifier

from phenolens.core.errors import InputError

MOST_MISSING = 0.1  # of the real cells; a measure that is missing more often is left out
FURTHEST = 10.0  # real standard deviations; values are clipped there, so that one outlier does not rule a distance
NEIGHBOURS = 3  # Kynkäänniemi et al. 2019
ROWS_AT_A_TIME = 1024  # of a matrix of distances
# of the classifier two-sample test
MOST_FOLDS = 5
LEAST_CELLS = 10  # of each class, to train on
RESAMPLES = 1000  # of wells, for the intervals
LEVEL = 0.95


@dataclass(frozen=True)
class MeasuredImages:
    """The measures of one set of images of N cells."""

    name: str  # such as `VAE+`
    measures: pd.DataFrame  # a row per cell, N rows
    fine_power: np.ndarray  # (N, C) power in the fine band
    ssim: np.ndarray  # (N, C) structural similarity to the cell's own original; NaN where it has none
    shared: np.ndarray  # (N, C) power in the fine band at the place of the original's; NaN where it has none


@dataclass(frozen=True)
class Scale:
    """Means and standard deviations of real cells, which standardise every set."""

    names: tuple[str, ...]  # the D measures that are used
    mean: np.ndarray  # (D,)
    deviation: np.ndarray  # (D,) n - 1, above 0

    @classmethod
    def of(cls, real: pd.DataFrame) -> "Scale":
        """The scale of real cells, a row per cell, without measures that are constant or often missing.

        Raises:
            InputError: If no measure is left.
        """
        values = real.astype(float).replace([np.inf, -np.inf], np.nan)
        known = values.columns[values.isna().mean() <= MOST_MISSING]
        deviation = values[known].std()
        names = deviation.index[deviation > 1e-9 * (1 + values[known].mean().abs())]
        if not len(names):
            raise InputError(f"{len(real)} real cells: every measure is constant; expected cells of a screen")
        return cls(tuple(names), values[names].mean().to_numpy(), deviation[names].to_numpy())


@dataclass(frozen=True)
class TwoSampleTest:
    """How well a classifier separates real from decoded cells; NaN where it could not be tested."""

    accuracy: float  # balanced, 0 to 1; 0.5 is chance
    accuracy_interval: tuple[float, float]  # 95 %
    auc: float  # probability that a decoded cell scores above a real one, 0 to 1; 0.5 is chance
    auc_interval: tuple[float, float]
    n_folds: int  # classifiers trained


NOT_TESTED = TwoSampleTest(np.nan, (np.nan, np.nan), np.nan, (np.nan, np.nan), 0)


def standardised(cells: pd.DataFrame, scale: Scale) -> np.ndarray:
    """Cells (n, D) in standard deviations of the real ones, clipped to ±FURTHEST; NaN where not measured."""
    values = cells[list(scale.names)].to_numpy(float)
    values = np.where(np.isfinite(values), values, np.nan)
    return np.clip((values - scale.mean) / scale.deviation, -FURTHEST, FURTHEST)


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


def two_sample_test(
    real: np.ndarray,
    decoded: np.ndarray,
    *,
    real_plates: np.ndarray,
    decoded_plates: np.ndarray,
    real_wells: np.ndarray,
    decoded_wells: np.ndarray,
    seed: int,
) -> TwoSampleTest:
    """Train a classifier on cells of some plates, and test it on the cells of the other plates.

    Plates are split into at most MOST_FOLDS folds, so each cell is tested once, by a classifier that saw no cell of
    its plate (Lopez-Paz & Oquab 2017). Gradient-boosted trees treat NaN as a value of its own, because missing nuclei
    are a difference too. The intervals resample wells with replacement; the classifiers are not retrained, so they
    leave out the variation from the choice of training plates.

    Args:
        real: Measures of real cells (n, D), with the plate and well of each. No cell may be in both sets.
        decoded: Measures of decoded cells (m, D), with the plate and well of each.
        seed: Of the folds, the classifier and the resampling.

    Returns:
        The test; all NaN with fewer than two plates or too few cells to train on.
    """
    cells = np.concatenate([real, decoded])
    is_decoded = np.repeat([False, True], [len(real), len(decoded)])
    fold_of = _plate_folds(np.concatenate([real_plates, decoded_plates]).astype(str), seed)
    wells = np.concatenate([real_wells, decoded_wells]).astype(str)
    n_folds = int(fold_of.max(initial=0)) + 1
    if n_folds < 2:
        return NOT_TESTED
    scores = np.full(len(cells), np.nan)
    for fold in range(n_folds):
        tested = fold_of == fold
        if min(np.sum(is_decoded & ~tested), np.sum(~is_decoded & ~tested)) < LEAST_CELLS:
            return NOT_TESTED
        classifier = _classifier(seed).fit(cells[~tested], is_decoded[~tested])
        scores[tested] = classifier.predict_proba(cells[tested])[:, 1]
    accuracy, auc = _accuracy_and_auc(scores, is_decoded)
    resampled = [_accuracy_and_auc(scores[rows], is_decoded[rows]) for rows in _resampled_wells(wells, seed)]
    low, high = np.nanquantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0).tolist()
    return TwoSampleTest(accuracy, (low[0], high[0]), auc, (low[1], high[1]), n_folds)


def area_under_curve(scores: np.ndarray, is_decoded: np.ndarray) -> float:
    """Probability that a decoded cell's score is above a real one's, ties counting half; NaN without both classes.

    From ranks (Mann-Whitney U): scikit-learn's `roc_auc_score` gives the same value 20 times as slowly, and each test
    needs a thousand of them.
    """
    n_decoded = int(is_decoded.sum())
    n_real = len(is_decoded) - n_decoded
    if not n_decoded or not n_real:
        return float("nan")
    return float((rankdata(scores)[is_decoded].sum() - n_decoded * (n_decoded + 1) / 2) / (n_decoded * n_real))


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
    return table.iloc[np.argsort(-(table["auc"] - 0.5).abs(), kind="stable")].reset_index(drop=True)


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


def _accuracy_and_auc(scores: np.ndarray, is_decoded: np.ndarray) -> tuple[float, float]:
    right = (scores > 0.5) == is_decoded
    by_class = [right[is_decoded == kind].mean() for kind in (False, True) if (is_decoded == kind).any()]
    return float(np.mean(by_class)), area_under_curve(scores, is_decoded)


def _classifier(seed: int) -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(
        max_iter=100, max_leaf_nodes=15, min_samples_leaf=10, early_stopping=False, random_state=seed
    )


def _plate_folds(plates: np.ndarray, seed: int) -> np.ndarray:
    """The fold of each cell, from 0: plates at random, folds with as equal numbers of plates as possible."""
    names, plate = np.unique(plates, return_inverse=True)
    order = np.random.default_rng([seed, 1]).permutation(len(names))
    return (np.argsort(order) % MOST_FOLDS)[plate]


def _resampled_wells(wells: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """Rows of as many wells as there are, drawn with replacement, RESAMPLES times."""
    _, well = np.unique(wells, return_inverse=True)
    rows_of = np.split(np.argsort(well, kind="stable"), np.cumsum(np.bincount(well))[:-1])
    rng = np.random.default_rng([seed, 2])
    for _ in range(RESAMPLES):
        yield np.concatenate([rows_of[i] for i in rng.integers(len(rows_of), size=len(rows_of))])
