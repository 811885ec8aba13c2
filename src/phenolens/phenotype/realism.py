"""How real drawn cells look: each way of drawing beside the others, and beside real cells and blurred ones.

N cells, C channels, K ways of halving, D measures. A look is one way of drawing the same N cells (or N others, for
samples): as they are, blurred, redrawn by a model. Row i of each look is drawn from cell i, so halves keep a cell's
real and drawn face apart: real cells of the one half are held against drawn ones of the other. The look "other real
cells" is thus held against real cells that it does not contain, and says what each metric can reach with so many cells.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from phenolens.phenotype.distances import (
    Scale,
    frechet_distance,
    kernel_distance,
    precision_recall,
    standardised,
)
from phenolens.phenotype.two_sample import area_under_curve, two_sample_test

Array = np.ndarray

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
    fine_power: Array  # (N, C) power in the fine band
    ssim: Array  # (N, C) structural similarity to the cell's own original; NaN where it has none
    shared: Array  # (N, C) power in the fine band that is where the original has it; NaN where it has none


def halves(n_cells: int, *, n: int, seed: int) -> Array:
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
    look: Look, real: Look, ways: Array, *, channels: tuple[str, ...], plates: Array, wells: Array, seed: int
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


def what_tells(look: Look, real: Look, way: Array) -> pd.DataFrame:
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


def normal_samples(z: Array, *, n: int, random: np.random.Generator) -> Array:
    """Embeddings (n, Z) drawn from the normal distribution with the mean and covariance of these (N, Z).

    The prior of a VAE is not where its embeddings lie; this is. No covariance is kept: a mixture of the centred rows
    with independent normal weights has it exactly.
    """
    centred = z - z.mean(axis=0)
    return z.mean(axis=0) + random.normal(size=(n, len(z))) @ centred / np.sqrt(max(len(z) - 1, 1))


def _of_way(
    look: Look, real: Look, of_real: Array, of_drawn: Array, way: Array, channels: tuple[str, ...]
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


def _measured(cells: Array) -> Array:
    return cells[~np.isnan(cells).any(axis=1)]


def _over(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else float("nan")
