"""The blinded test's design: which cells are shown as they are, which redrawn by the model, and what that can show.

N cells of a study, n real and n synthetic pictures. Lafarge et al. 2019, section 4.3.2: 50 and 50.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import ndtri

from phenolens.errors import InputError
from phenolens.phenotype.proportions import NORMAL, wilson

PAPER_PASS_RATE = 0.407  # of VAE+'s synthetic cells taken for real; Lafarge et al. 2019
CYTOGAN_PASS_RATE = 0.30  # of CytoGAN's, as the paper quotes it
POWER = 0.8  # chance of telling an assessor of the detectable d' from one who guesses, at 5 %, two-sided


@dataclass(frozen=True)
class Power:
    """What n real and n synthetic pictures can show of one assessor."""

    n: int
    half_width: float  # of the 95 % interval of the pass rate, where that is the paper's
    detectable_d: float  # smallest d' that is told from 0 with a chance of POWER


def power(n: int) -> Power:
    """The power of a test of n real and n synthetic pictures.

    d' near 0 has the variance pi / n: two rates of 1/2, each with 1/(4n), over the normal density at 0 squared
    (Gourevitch and Galanter 1967).
    """
    rate = wilson(PAPER_PASS_RATE * n, n)
    detectable = (NORMAL + ndtri(POWER)) * np.sqrt(np.pi / n)
    return Power(n, (rate.high - rate.low) / 2, float(detectable))


def balanced_design(
    treatments: np.ndarray, *, controls: frozenset[str], n: int, seed: int, views: int = 1
) -> pd.DataFrame:
    """Which cells are shown, and how: `row` (into `treatments`), `treatment`, `is_synthetic`, `view`; n rows a kind.

    `treatments` (N,) names each cell's treatment, empty for cells that are not to be shown; a control is one
    treatment among the others, and always shown. Real and synthetic pictures have the same number of cells of every
    treatment, so that a phenotype tells nothing, and numbers of two treatments differ by one at most where there are
    cells enough. Each pair is shown in one of the `views`, numbered from 0: as many in each as n allows, and of every
    treatment too, so that views can be compared. No cell is shown twice, so none with both faces. The rows come in an
    order that tells nothing.
    InputError when there are fewer than 2n cells in pairs.
    """
    if n < 1:
        raise InputError(f"{n} pictures of each kind: expected at least 1")
    chance = np.random.default_rng([seed, n])
    names = [name for name in np.unique(treatments.astype(str)) if name]
    left = {name: list(chance.permutation(np.flatnonzero(treatments == name))) for name in names}
    rows: list[tuple[int, str, bool]] = []
    while len(rows) < 2 * n:
        able = [name for name in names if len(left[name]) > 1]
        if not able:
            raise InputError(
                f"{n} real and {n} synthetic cells: the study's treatments have cells for {len(rows) // 2} of each; "
                f"give --n {len(rows) // 2} or fewer"
            )
        mixed = [able[place] for place in chance.permutation(len(able))]
        turn = sorted(mixed, key=lambda name: name not in controls)  # controls are not missed by a short test
        for name in turn[: n - len(rows) // 2]:
            rows += [(int(left[name].pop()), name, is_synthetic) for is_synthetic in (False, True)]
    table = pd.DataFrame(rows, columns=["row", "treatment", "is_synthetic"])
    order = chance.permutation(len(table))
    # dealt in turn, one treatment after the other: dealt over rounds of treatments, a control would have one view alone
    places = {name: place for place, name in enumerate(chance.permutation(names))}
    by_treatment = np.argsort(table["treatment"].map(places).to_numpy()[::2], kind="stable")  # of the pairs
    view = np.empty(n, int)
    view[by_treatment] = np.arange(n) % views
    return table.assign(view=np.repeat(view, 2)).iloc[order].reset_index(drop=True)
