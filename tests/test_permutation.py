"""Shuffled labels: far below a real signal, equal to it in noise, and shuffled by compound."""

import numpy as np
import pytest

from phenolens.profiles.nsc import nsc, nscb
from phenolens.profiles.permutation import shuffled_label_test
from phenolens.profiles.profiles import treatment_profiles
from phenolens.profiles.whitening import whiten
from real_profiles import ljosa_wells
from test_neighbours import treatments_of


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
    found = shuffled_label_test(screen, held_out=held_out, n_shuffles=200)
    score = {1: nsc, 2: nscb}[len(held_out)](screen)
    assert found.accuracy == score.accuracy
    assert found.accuracy > 0.8
    assert found.shuffled.mean() == pytest.approx(score.chance, abs=0.05)
    assert found.p_value == 1 / 201


def test_p_values_without_a_signal_are_spread_evenly(rng):
    p_values = [shuffled_label_test(screen_of(rng, signal=0), n_shuffles=60, seed=k).p_value for k in range(60)]
    assert 0.35 < np.mean(p_values) < 0.65
    assert np.mean(np.array(p_values) < 0.1) < 0.25  # shuffling single treatments gives far more


def test_the_treatments_of_a_compound_stay_together(rng):
    # with one huge compound a mechanism, shuffling over compounds can only swap whole compounds
    screen = screen_of(rng, signal=5, n_compounds=4, n_doses=5)
    screen.obs["Metadata_MoA"] = np.repeat(["m0", "m0", "m1", "m1"], 5)
    shuffled = shuffled_label_test(screen, n_shuffles=50).shuffled
    assert set(shuffled * 4 % 1) == {0}  # whole compounds are right or wrong


def test_the_same_seed_gives_the_same_shuffles(rng):
    screen = screen_of(rng, signal=1)
    one, again = (shuffled_label_test(screen, n_shuffles=20, seed=3).shuffled for _ in range(2))
    np.testing.assert_array_equal(one, again)


def test_real_profiles_are_far_above_shuffled_labels(real_data):
    treatments = treatment_profiles(whiten(ljosa_wells(real_data / "bbbc021")))
    found = shuffled_label_test(treatments, n_shuffles=200)
    assert found.accuracy == 93 / 103
    assert found.shuffled.max() < 0.4
    assert found.p_value == 1 / 201
