"""The blinded test in numbers: its design, its power, and what its answers say; known answers first."""

import itertools
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from phenolens.blinded_test.compute import balanced_design
from phenolens.blinded_test.statistics import (
    agreement,
    analyse,
    clustered_share,
    clustered_variance,
    detection,
    fleiss_kappa,
    power,
    wilson,
)
from phenolens.core.errors import InputError

# Fleiss 1971, as worked out at en.wikipedia.org/wiki/Fleiss%27_kappa: 14 raters, 10 subjects, 5 categories
WORKED_EXAMPLE = """0 0 0 0 14
0 2 6 4 2
0 0 3 5 6
0 3 9 2 0
2 2 8 1 1
7 7 0 0 0
3 2 6 3 0
2 5 3 2 2
6 5 2 1 0
0 2 2 3 7"""


def treatments_of(**n_cells):
    return np.array([name for name, n in n_cells.items() for _ in range(n)], dtype=object)


def test_real_and_synthetic_cells_are_as_many_of_every_treatment_and_no_cell_has_both_faces():
    treatments = treatments_of(DMSO=300, a=40, b=40, c=40, d=40, e=40, f=40)
    design = balanced_design(treatments, controls=frozenset({"DMSO"}), n=50, seed=3)
    assert design["is_synthetic"].value_counts().to_dict() == {True: 50, False: 50}
    assert design["row"].is_unique
    assert (treatments[design["row"]] == design["treatment"]).all()
    counts = design.groupby(["treatment", "is_synthetic"]).size().unstack()
    assert (counts[True] == counts[False]).all()
    assert counts[True].max() - counts[True].min() <= 1


def test_cells_without_a_treatment_are_never_shown_and_the_control_always_is():
    treatments = treatments_of(DMSO=4, **{f"t{i}": 4 for i in range(30)})
    treatments[::2] = ""
    for seed in range(20):
        design = balanced_design(treatments, controls=frozenset({"DMSO"}), n=3, seed=seed)
        assert (design["row"] % 2 == 1).all()
        assert "DMSO" in set(design["treatment"])


def test_the_same_seed_gives_the_same_design_and_another_seed_another():
    treatments = treatments_of(DMSO=50, a=50, b=50)
    made = [balanced_design(treatments, controls=frozenset({"DMSO"}), n=20, seed=seed) for seed in (1, 1, 2)]
    pd.testing.assert_frame_equal(made[0], made[1])
    assert set(made[0]["row"]) != set(made[2]["row"])


def test_neither_place_nor_treatment_tells_the_kind():
    treatments = treatments_of(DMSO=50, a=50, b=50, c=50)
    kinds = [
        balanced_design(treatments, controls=frozenset({"DMSO"}), n=10, seed=seed)["is_synthetic"]
        for seed in range(400)
    ]
    share = np.mean(kinds, axis=0)  # of each of 20 places
    np.testing.assert_allclose(share, 0.5, atol=4.5 * 0.5 / 20)  # 4.5 standard errors of 400 fair coins


@pytest.mark.parametrize("names", ["abc", "abcd", "abcdefg"])  # with the control 4, 5 and 8 treatments, in 4 views
def test_every_treatment_is_shown_in_every_view_alike(names):
    treatments = treatments_of(DMSO=100, **dict.fromkeys(names, 100))
    design = balanced_design(treatments, controls=frozenset({"DMSO"}), n=42, seed=3, views=4)
    counts = design.groupby(["treatment", "view"]).size().unstack(fill_value=0) / 2
    assert (counts.max(axis=1) - counts.min(axis=1)).max() <= 1
    assert np.ptp(counts.sum()) <= 1
    first = [balanced_design(treatments, controls=frozenset({"DMSO"}), n=4, seed=seed, views=4) for seed in range(40)]
    of_control = [design[design["treatment"] == "DMSO"]["view"].iloc[0] for design in first]
    assert set(of_control) == {0, 1, 2, 3}  # nor is a control that is shown once always shown in colour


def test_a_treatment_short_of_cells_gives_what_it_has_and_others_fill_up():
    views = balanced_design(treatments_of(DMSO=40, a=40, b=40), controls=frozenset({"DMSO"}), n=13, seed=2, views=4)
    counts = views.groupby(["is_synthetic", "view"]).size().unstack()
    assert counts.loc[True].tolist() == counts.loc[False].tolist() == [4, 3, 3, 3]
    pairs = views.groupby(["treatment", "view"])["is_synthetic"].mean()
    assert (pairs == 0.5).all()  # what is shown of which treatment tells no kind
    design = balanced_design(treatments_of(DMSO=40, a=3, b=40), controls=frozenset({"DMSO"}), n=11, seed=0)
    counts = design[design["is_synthetic"]]["treatment"].value_counts().to_dict()
    assert counts == {"DMSO": 5, "b": 5, "a": 1}


def test_too_few_cells_are_refused_with_how_many_there_could_be():
    with pytest.raises(InputError, match=r"cells for 4 of each.*--n 4"):
        balanced_design(treatments_of(DMSO=5, a=4), controls=frozenset({"DMSO"}), n=5, seed=0)


def test_fifty_of_each_show_a_pass_rate_to_13_points_and_a_d_prime_of_07():
    half_width, detectable_d = power(50)
    low, high = wilson_by_hand(0.407 * 50, 50)
    assert half_width == pytest.approx((high - low) / 2, abs=1e-12)
    assert 0.12 < half_width < 0.14
    assert detectable_d == pytest.approx(2.801585 * np.sqrt(np.pi / 50), abs=1e-5)  # 1.959964 + 0.841621


def test_the_detectable_d_prime_is_found_eight_times_in_ten(rng):
    n = 200
    half = power(n)[1] / 2
    hits, alarms = (rng.binomial(n, norm.cdf(side), size=4000) for side in (half, -half))
    d_prime = norm.ppf((hits + 0.5) / (n + 1)) - norm.ppf((alarms + 0.5) / (n + 1))
    found = np.abs(d_prime) > 1.959964 * np.sqrt(np.pi / n)
    assert found.mean() == pytest.approx(0.8, abs=0.04)


def wilson_by_hand(k, n, z=1.959963984540054):
    """Where a share's distance from k/n is z of its own standard deviations: the roots of a quadratic."""
    share = k / n
    return np.sort(np.roots([1 + z * z / n, -2 * share - z * z / n, share * share]))


@pytest.mark.parametrize(("k", "n"), [(20, 50), (1, 7), (0, 50), (50, 50)])
def test_wilsons_interval_solves_its_equation(k, n):
    found = wilson(k, n)
    np.testing.assert_allclose([found.value, found.low, found.high], [k / n, *wilson_by_hand(k, n)], atol=1e-9)


def test_wilsons_interval_is_that_of_newcombe_1998():
    found = wilson(81, 263)  # his first example: 0.2553 to 0.3662
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)


def test_fleiss_kappa_of_the_worked_example_is_0210():
    votes = np.array([line.split() for line in WORKED_EXAMPLE.splitlines()], int)
    assert fleiss_kappa(votes) == pytest.approx(0.210, abs=0.0005)


def test_fleiss_kappa_is_agreement_of_pairs_beyond_chance(rng):
    said = rng.random((4, 30)) < 0.4
    pairs = [Fraction(int(a == b)) for column in said.T for a, b in itertools.permutations(column.tolist(), 2)]
    found = sum(pairs) / len(pairs)
    yes = Fraction(int(said.sum()), said.size)
    by_chance = yes**2 + (1 - yes) ** 2
    votes = np.stack([said.sum(axis=0), (~said).sum(axis=0)], axis=1)
    assert fleiss_kappa(votes) == pytest.approx(float((found - by_chance) / (1 - by_chance)), abs=1e-12)


def test_assessors_who_say_the_same_agree_fully_and_answers_all_alike_have_no_kappa():
    one = np.arange(20) % 3 == 0
    kinds = np.arange(20) % 2 == 0
    full = agreement(np.stack([one, one, one]), kinds, seed=0)
    assert (full.value, full.low, full.high) == (1, 1, 1)
    assert np.isnan(agreement(np.ones((3, 20), bool), kinds, seed=0).value)


def test_d_prime_of_69_and_31_of_100_is_one_and_its_criterion_zero():
    said = np.arange(100) < 69  # z(0.69) = 0.4959
    d_prime, criterion = detection(said[None], ~said[None])
    z = norm.ppf(69.5 / 101)  # log-linear
    assert d_prime.value == pytest.approx(2 * z, abs=1e-12)
    assert d_prime.value == pytest.approx(0.98, abs=0.01)
    assert criterion.value == pytest.approx(0, abs=1e-12)
    # Gourevitch and Galanter: the sum over both kinds of H (1 - H) / (n phi(z)^2)
    variance = 2 * (69.5 / 101) * (31.5 / 101) / (100 * norm.pdf(z) ** 2)
    assert d_prime.high - d_prime.value == pytest.approx(1.959964 * np.sqrt(variance), abs=1e-6)


def test_who_says_real_more_often_has_a_criterion_above_zero_and_perfect_answers_a_finite_d_prime():
    d_prime, criterion = detection(np.zeros((1, 50), bool), np.zeros((1, 50), bool))
    assert d_prime.value == 0
    assert criterion.value == pytest.approx(-norm.ppf(0.5 / 51), abs=1e-12)
    perfect, _ = detection(np.ones((1, 50), bool), np.zeros((1, 50), bool))
    assert perfect.value == pytest.approx(-2 * norm.ppf(0.5 / 51), abs=1e-12)
    assert 0 < perfect.low < perfect.value < perfect.high < 10


def test_the_variance_of_a_mean_over_assessors_is_the_slow_two_way_sum(rng):
    said = rng.random((6, 40)) < np.linspace(0.2, 0.8, 6)[:, None]
    shares = said.mean(axis=1)
    by_image = 0.0
    for image in range(40):
        moved = sum(float(said[a, image]) - shares[a] for a in range(6)) / 6 / 40
        by_image += moved**2
    own = sum(p * (1 - p) / 40 for p in shares) / 36
    between = sum((p - np.mean(shares)) ** 2 for p in shares) / 5 / 6
    assert between > own  # or the test would not see the assessors' part
    found = clustered_variance(shares, (said - shares[:, None]) / 40, shares * (1 - shares) / 40)
    assert found.pictures == pytest.approx(max(by_image * 40 / 39, own), rel=1e-12)
    assert found.assessors == pytest.approx(between - own, rel=1e-12)


def test_one_assessors_interval_is_wilsons():
    said = np.arange(50) < 20
    found, plain = clustered_share(said[None]), wilson(20, 50)
    np.testing.assert_allclose([found.low, found.high], [plain.low, plain.high], atol=1e-12)


def test_more_assessors_of_one_mind_show_no_more_than_their_images():
    said = np.arange(50) < 20
    alone, crowd = clustered_share(said[None]), clustered_share(np.repeat(said[None], 30, axis=0))
    assert (crowd.high - crowd.low) / (alone.high - alone.low) == pytest.approx(1, abs=0.05)  # Student's quantile


def test_where_all_answers_are_alike_the_interval_is_that_of_the_images():
    found = clustered_share(np.ones((30, 50), bool))
    assert (found.low, found.high) == pytest.approx((wilson(50, 50).low, 1), abs=1e-9)


def test_the_pooled_interval_holds_the_truth_about_as_often_as_it_says(rng):
    """Five assessors who differ, fifty images that differ: a probit model with both, drawn 300 times."""
    truth = norm.cdf(-0.25 / np.sqrt(1 + 0.7**2 + 0.4**2))
    held = naive = 0
    for _ in range(300):
        images, assessors = rng.normal(0, 0.7, (1, 50)), rng.normal(0, 0.4, (5, 1))
        passed = images + assessors - 0.25 + rng.normal(size=(5, 50)) > 0
        found, plain = clustered_share(passed), wilson(passed.sum(), passed.size)
        held += found.low <= truth <= found.high
        naive += plain.low <= truth <= plain.high
    assert held / 300 > 0.88
    assert naive / 300 < 0.8  # what 250 answers would promise, were they independent


def answers_of(said, kinds, treatments=None, *, mechanisms=None, shown=None):
    """A row an answer, of answers (A, I)."""
    n_images = len(kinds)
    plain = ["DMSO"] * n_images, ["control"] * n_images, ["DNA, actin"] * n_images
    treatments, mechanisms, shown = (
        usual if given is None else given for given, usual in zip((treatments, mechanisms, shown), plain)
    )
    return pd.DataFrame(
        {
            "assessor": np.repeat([f"assessor {a}" for a in range(len(said))], n_images),
            "item": np.tile(np.arange(n_images), len(said)),
            "treatment": np.tile(treatments, len(said)),
            "mechanism": np.tile(mechanisms, len(said)),
            "shown": np.tile(shown, len(said)),
            "is_synthetic": np.tile(kinds, len(said)),
            "said_synthetic": np.concatenate(said),
            "seconds": np.tile(np.arange(n_images) / 2, len(said)),
        }
    )


def test_results_count_each_kind_of_answer():
    kinds = np.repeat([True, False], 50)
    said = np.concatenate([np.arange(50) >= 20, np.arange(50) < 10])  # 20 of 50 pass, 10 of 50 real doubted
    found = analyse(answers_of([said], kinds), n_images=100)
    assert (found.passed.value, found.false_alarms.value) == (0.4, 0.2)
    assert found.d_prime.value == pytest.approx(norm.ppf(30.5 / 51) - norm.ppf(10.5 / 51), abs=1e-12)
    assert found.kappa is None
    row = found.assessors.iloc[0]
    assert (row.passed, row.false_alarms, row.n_answers, bool(row.finished)) == (0.4, 0.2, 100, True)
    assert row.median_seconds == pytest.approx(49.5 / 2)


def test_an_assessor_who_stopped_stands_in_the_table_and_moves_no_result():
    kinds = np.repeat([True, False], 10)
    whole = answers_of([kinds, ~kinds], kinds)
    stopped = answers_of([np.ones(20, bool)], kinds).assign(assessor="stopped").head(10)
    with_them = analyse(pd.concat([whole, stopped]), n_images=20)
    without = analyse(whole, n_images=20)
    assert (with_them.n_assessors, with_them.n_finished) == (3, 2)
    assert (with_them.passed, with_them.d_prime, with_them.kappa) == (without.passed, without.d_prime, without.kappa)
    assert with_them.assessors.set_index("assessor").loc["stopped", "passed"] == 0
    assert np.isnan(with_them.assessors.set_index("assessor").loc["stopped", "d_prime"])


def test_while_nobody_has_finished_there_are_no_results_but_a_table():
    none = analyse(answers_of([np.array([True])], np.array([True])).head(0), n_images=20)
    assert (none.n_assessors, none.passed, none.kappa) == (0, None, None)
    assert len(none.assessors) == len(none.treatments) == len(none.images) == 0


def test_treatments_have_their_own_rates_with_the_interval_of_their_images():
    kinds, names = np.tile([True, False], 6), np.repeat(["DMSO", "taxol", "taxol"], 4)
    passed = kinds & (names == "taxol") & (np.arange(12) > 5)  # 3 of taxol's 4 synthetic cells
    said = kinds & ~passed
    table = analyse(answers_of([said] * 5, kinds, names), n_images=12).treatments.set_index("treatment")
    assert table["passed"].to_dict() == {"DMSO": 0, "taxol": 0.75}
    assert table["passed_images"].to_dict() == {"DMSO": 2, "taxol": 4}
    low, high = table.loc["taxol", ["passed_low", "passed_high"]].astype(float)
    plain, of_all = wilson(3, 4), wilson(15, 20)
    assert low <= plain.low < of_all.low  # five assessors saw the same four
    assert of_all.high < plain.high <= high


def test_a_part_is_not_known_better_than_the_whole_where_assessors_differ():
    kinds, shown = np.tile([True, False], 40), np.repeat(["DNA", "actin"], 40)
    seen = np.arange(80) % 10
    said = [kinds & (seen < 1), kinds & (seen < 5), kinds & (seen < 9)]  # of the synthetic: one in five, three, all
    found = analyse(answers_of(said, kinds, shown=shown), n_images=80)
    whole = found.passed
    for part in found.shown.itertuples():
        assert part.passed == pytest.approx(whole.value)
        assert (part.passed_low, part.passed_high) == pytest.approx((whole.low, whole.high), abs=0.01)
        assert part.passed_high - part.passed_low > 2 * (wilson(8, 20).high - wilson(8, 20).low)  # were they alike


def test_mechanisms_and_channels_have_their_own_rates():
    kinds = np.tile([True, False], 6)
    mechanisms, shown = np.repeat(["control", "", ""], 4), np.tile(["DNA", "DNA", "actin", "actin"], 3)
    said = kinds & (shown == "DNA") | (mechanisms == "")  # actin passes in controls, unknown ones never
    found = analyse(answers_of([said] * 2, kinds, mechanisms=mechanisms, shown=shown), n_images=12)
    by_mechanism, by_channel = found.mechanisms.set_index("mechanism"), found.shown.set_index("shown")
    assert by_mechanism["passed"].to_dict() == {"control": 0.5, "": 0}
    assert by_mechanism["false_alarms"].to_dict() == {"control": 0, "": 1}
    assert by_channel["passed"].to_dict() == {"DNA": 0, "actin": pytest.approx(1 / 3)}
    assert by_channel["passed_images"].to_dict() == {"DNA": 3, "actin": 3}
