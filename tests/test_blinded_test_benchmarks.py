"""The blinded test's benchmarks at tiny size: what they hold true, and that they would notice."""

from pathlib import Path

import numpy as np

from phenolens.study import Study
from test_benchmarks import rows, script, told


def test_the_intervals_benchmark_says_how_often_the_truth_was_held():
    table = rows(told("assess_intervals", "--draws", 200, "--n", 20, "--assessors", 5))
    (cells,) = table.values()  # both rows begin with 5: the last one, of assessors who differ, is kept
    share, naive = float(cells[1].split()[0]), float(cells[3].split()[0])
    assert cells[0] == "differing"
    assert naive < share - 10
    assert share > 85


def test_the_intervals_benchmark_draws_what_it_says():
    benchmark = script("assess_intervals")
    synthetic, real = benchmark.answers(np.random.default_rng(0), 300, 300, 0.0)
    np.testing.assert_allclose([synthetic.mean(), 1 - real.mean()], 0.581, atol=0.03)  # Phi(0.25 / sqrt(1.49))


def test_the_benchmark_of_many_assessors_notices_a_lost_answer(tmp_path: Path):
    benchmark = script("assess")
    flags = benchmark.Flags(assessors=2, n=2, seconds=1)
    file = benchmark.made(Study.create(tmp_path / "study"), flags)
    seen, turn = benchmark.Seen(), file.turn(1)
    file.answer(1, turn.picture_id, synthetic=True)
    seen.confirmed.add(("assessor 0", turn.picture_id))
    assert benchmark.kept(file) == seen.confirmed
    assert "1 answers confirmed (1 a second), 0 lost, 0 errors" in benchmark.told(flags, file, seen)
    seen.confirmed.add(("assessor 1", turn.picture_id))
    assert "2 answers confirmed (2 a second), 1 lost" in benchmark.told(flags, file, seen)
