"""Shuffled labels and the comparison of two scores: known answers, p-values by hand, whole compounds."""

import numpy as np
import pytest

from phenolens.core.errors import InputError
from phenolens.profiles.nsc import labelled_rows, match, nsc, nscb
from phenolens.profiles.profiles import treatment_profiles
from phenolens.profiles.uncertainty import ShuffledLabels, compare_queries, shuffled_labels
from phenolens.profiles.whitening import whiten
from real_profiles import ljosa_wells
from test_nsc import small_screen, treatments_of


def shuffled(profiles, held_out=("compound",), **settings) -> ShuffledLabels:
    return shuffled_labels(match(labelled_rows(profiles), held_out), **settings)


def test_changed_queries_are_named_with_both_answers():
    before = nsc(small_screen())
    screen = small_screen()
    screen.X[5] = [0.3, 1.0]  # e no longer looks like actin, so b finds a
    found = compare_queries(before.queries, nsc(screen).queries)
    assert (found.n_treatments, found.only_a_right, found.only_b_right) == (6, 0, 2)
    assert list(found.changed.index) == ["b@1", "e@1"]
    assert found.changed.loc["b@1", ["predicted_a", "right_a", "predicted_b", "right_b"]].tolist() == [
        "dna", False, "actin", True,
    ]  # fmt: skip
    assert found.p_value_mcnemar == 0.5
    assert found.p_value == pytest.approx(0.5, abs=0.02)  # two compounds, two of four pairs of signs reach 2


def test_doses_of_one_compound_are_one_change_not_many():
    rows = [("a", dose, "actin", "w1", [1.0, 0.01]) for dose in range(1, 9)]
    others = [("b", 1, "actin", "w1", [0.7, 0.7]), ("c", 1, "dna", "w1", [1.0, 0.0]), ("d", 1, "dna", "w1", [0.9, 0.1])]
    wrong = nsc(treatments_of(*rows, *others))
    right = nsc(treatments_of(*[(*row[:4], [0.7, 0.71]) for row in rows], *others))
    found = compare_queries(wrong.queries, right.queries)
    assert (found.only_a_right, found.only_b_right) == (0, 11)
    assert found.p_value_mcnemar == pytest.approx(2 / 2**11)
    assert found.p_value == pytest.approx(2 / 2**4, abs=0.02)  # four compounds


def test_a_score_does_not_differ_from_itself():
    found = compare_queries(nsc(small_screen()).queries, nsc(small_screen()).queries)
    assert (found.p_value, found.p_value_mcnemar, len(found.changed)) == (1, 1, 0)


def test_scores_of_other_treatments_are_refused():
    screen = small_screen()
    screen.obs_names = [f"other {name}" for name in screen.obs_names]
    with pytest.raises(InputError, match="no treatment is counted in both"):
        compare_queries(nsc(small_screen()).queries, nsc(screen).queries)


def screen_of(rng, *, signal: float, n_compounds: int = 24, n_doses: int = 3):
    """Four mechanisms; a compound's doses look alike, so shuffling single treatments would flatter."""
    mechanisms = rng.normal(size=(4, 12)) * signal
    rows = []
    for compound in range(n_compounds):
        own = rng.normal(size=12)
        for dose in range(n_doses):
            features = mechanisms[compound % 4] + own + 0.1 * rng.normal(size=12)
            rows.append((f"c{compound}", dose + 1.0, f"m{compound % 4}", f"w{compound // 4 % 2}", features.tolist()))
    return treatments_of(*rows)


@pytest.mark.parametrize("held_out", [("compound",), ("compound", "batch")])
def test_a_planted_signal_is_far_above_shuffled_labels(rng, held_out):
    screen = screen_of(rng, signal=2)
    found = shuffled(screen, held_out, n_shuffles=200)
    score = {1: nsc, 2: nscb}[len(held_out)](screen)
    assert found.accuracy == score.accuracy
    assert found.accuracy > 0.8
    assert found.shuffled.mean() == pytest.approx(score.chance, abs=0.05)
    assert found.p_value == 1 / 201


def test_p_values_without_a_signal_are_spread_evenly(rng):
    p_values = [shuffled(screen_of(rng, signal=0), n_shuffles=60, seed=k).p_value for k in range(60)]
    assert 0.35 < np.mean(p_values) < 0.65
    assert np.mean(np.array(p_values) < 0.1) < 0.25  # shuffling single treatments gives far more


def test_the_treatments_of_a_compound_stay_together(rng):
    # with one huge compound a mechanism, shuffling over compounds can only swap whole compounds
    screen = screen_of(rng, signal=5, n_compounds=4, n_doses=5)
    screen.obs["Metadata_MoA"] = np.repeat(["m0", "m0", "m1", "m1"], 5)
    accuracies = shuffled(screen, n_shuffles=50).shuffled
    assert set(accuracies * 4 % 1) == {0}  # whole compounds are right or wrong


def test_the_same_seed_gives_the_same_shuffles(rng):
    screen = screen_of(rng, signal=1)
    one, again = (shuffled(screen, n_shuffles=20, seed=3).shuffled for _ in range(2))
    np.testing.assert_array_equal(one, again)


def test_real_profiles_are_far_above_shuffled_labels(real_data):
    treatments = treatment_profiles(whiten(ljosa_wells(real_data / "bbbc021")))
    found = shuffled(treatments, n_shuffles=200)
    assert found.accuracy == 93 / 103
    assert found.shuffled.max() < 0.4
    assert found.p_value == 1 / 201
