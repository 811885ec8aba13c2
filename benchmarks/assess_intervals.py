"""How often the blinded test's 95 % intervals hold the truth, by number of assessors and by how much they differ.

    python benchmarks/assess_intervals.py

Answers are drawn from a probit model: each kind of picture has a mean, each picture and each assessor (bias, and
sensitivity) a deviation of its own, each answer noise of deviation 1. The truth is the pass rate over all
pictures and assessors there could be, and the mean of the d' drawn; the naive interval is Wilson's, of all answers
as if they were independent.
"""

from dataclasses import dataclass

import numpy as np
import tyro
from scipy.special import ndtr

from phenolens.blinded_test.statistics import clustered_share, detection, wilson

KINDS = {"alike": 0.0, "differing": 0.4}  # deviation of assessors' biases and sensitivities
PICTURES = 0.7  # deviation of pictures
MEAN = 0.25  # of synthetic pictures above, of real ones below what is called neither


@dataclass(frozen=True)
class Flags:
    """What the benchmark takes."""

    draws: int = 2000  # assessments
    n: int = 50  # pictures of each kind
    assessors: tuple[int, ...] = (1, 2, 3, 5, 10, 20)
    seed: int = 0


def main(flags: Flags) -> None:
    """Draw assessments and count how often their intervals hold the truth."""
    print("| assessors | who are | pass rate | mean width, points | naive | d' |")
    print("| --- | --- | --- | --- | --- | --- |")
    for number in flags.assessors:
        for words, deviation in KINDS.items():
            chance = np.random.default_rng([flags.seed, number])
            drawn = [answers(chance, number, flags.n, deviation) for _ in range(flags.draws)]
            passed = [clustered_share(~synthetic) for synthetic, _ in drawn]
            naive = [wilson((~synthetic).sum(), synthetic.size) for synthetic, _ in drawn]
            d_primes = [detection(synthetic, real)[0] for synthetic, real in drawn]
            truth = float(ndtr(-MEAN / np.sqrt(1 + PICTURES**2 + 1.25 * deviation**2)))
            true_d = float(np.mean([d_prime.value for d_prime in d_primes]))
            held = [f"{100 * np.mean([i.low <= truth <= i.high for i in found]):.1f} %" for found in (passed, naive)]
            width = 100 * np.mean([share.high - share.low for share in passed])
            held_d = f"{100 * np.mean([i.low <= true_d <= i.high for i in d_primes]):.1f} %"
            print(f"| {number} | {words} | {held[0]} | {width:.0f} | {held[1]} | {held_d} |", flush=True)


def answers(chance: np.random.Generator, n_assessors: int, n: int, deviation: float) -> tuple[np.ndarray, np.ndarray]:
    """What assessors said of synthetic and of real pictures, each (A, n), True for synthetic."""
    bias, sensitivity = chance.normal(0, deviation, (2, n_assessors, 1))
    return tuple(  # type: ignore[return-value]
        side * (MEAN + sensitivity / 2) + bias + chance.normal(0, PICTURES, n) + chance.normal(size=(n_assessors, n))
        > 0
        for side in (1, -1)
    )


if __name__ == "__main__":
    main(tyro.cli(Flags, description=__doc__))
