"""The design of a blinded test: which cells are shown as they are, which reconstructed, and the power of the test.

N cells of a study, n real and n synthetic pictures. Lafarge et al. 2019, section 4.3.2: 50 and 50.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import ndtri

from phenolens.blinded_test.statistics import NORMAL, wilson
from phenolens.core.errors import InputError

PAPER_PASS_RATE = 0.407  # share of VAE+'s synthetic cells judged real; Lafarge et al. 2019
CYTOGAN_PASS_RATE = 0.30  # of CytoGAN's, as quoted there
POWER = 0.8


@dataclass(frozen=True)
class Power:
    """What n real and n synthetic pictures can show about one assessor."""

    n: int
    half_width: float  # of the 95 % interval of the pass rate, at the paper's rate
    detectable_d: float  # smallest d' that differs from 0 at the 5 % level, two-sided, with a chance of POWER


def power(n: int) -> Power:
    """The power of a test of n real and n synthetic pictures.

    Near d' = 0 its variance is pi / n: two rates of 1/2, each with variance 1/(4n), over the squared normal density at
    0 (Gourevitch and Galanter 1967).
    """
    rate = wilson(PAPER_PASS_RATE * n, n)
    detectable = (NORMAL + ndtri(POWER)) * np.sqrt(np.pi / n)
    return Power(n, (rate.high - rate.low) / 2, float(detectable))


def balanced_design(
    treatments: np.ndarray, *, controls: frozenset[str], n: int, seed: int, views: int = 1
) -> pd.DataFrame:
    """Which cells are shown, and how.

    Every treatment has as many real as synthetic pictures, so a phenotype reveals nothing; where there are enough
    cells, the numbers of two treatments differ by at most one. No cell is shown twice. Rows are in random order.

    Args:
        treatments: (N,) each cell's treatment, empty for cells that must not be shown.
        controls: treatments that come first, so that a short test shows them.
        n: pictures of each kind.
        seed: selects the cells.
        views: in how many ways pictures are drawn; each treatment's pairs are spread evenly over them.

    Returns:
        2n rows: `row` (into `treatments`), `treatment`, `is_synthetic`, `view` (from 0).

    Raises:
        InputError: there are fewer than n pairs of cells.
    """
    if n < 1:
        raise InputError(f"{n} pictures of each kind: expected at least 1")
    rng = np.random.default_rng([seed, n])
    names = [name for name in np.unique(treatments.astype(str)) if name]
    left = {name: list(rng.permutation(np.flatnonzero(treatments == name))) for name in names}
    rows: list[tuple[int, str, bool]] = []
    while len(rows) < 2 * n:
        available = [name for name in names if len(left[name]) > 1]
        if not available:
            raise InputError(
                f"{n} real and {n} synthetic cells: the study's treatments have cells for {len(rows) // 2} of each; "
                f"give --n {len(rows) // 2} or fewer"
            )
        shuffled = [available[place] for place in rng.permutation(len(available))]
        controls_first = sorted(shuffled, key=lambda name: name not in controls)
        for name in controls_first[: n - len(rows) // 2]:
            rows += [(int(left[name].pop()), name, is_synthetic) for is_synthetic in (False, True)]
    table = pd.DataFrame(rows, columns=["row", "treatment", "is_synthetic"])
    order = rng.permutation(len(table))
    # One treatment after another: spread over rounds of treatments, a control would always have the same view.
    places = {name: place for place, name in enumerate(rng.permutation(names))}
    by_treatment = np.argsort(table["treatment"].map(places).to_numpy()[::2], kind="stable")  # of the pairs
    view = np.empty(n, int)
    view[by_treatment] = np.arange(n) % views
    return table.assign(view=np.repeat(view, 2)).iloc[order].reset_index(drop=True)
