"""Two scores side by side: the changed queries by name, and p-values by hand."""

import pytest
from scipy.stats import binomtest

from phenolens.core.errors import InputError
from phenolens.profiles.comparison import compare_scores, exact_mcnemar
from phenolens.profiles.nsc import nsc, nscb
from test_neighbours import small_screen, treatments_of


def test_changed_queries_are_named_with_both_answers():
    before = nsc(small_screen())
    screen = small_screen()
    screen.X[5] = [0.3, 1.0]  # e no longer looks like actin, so b finds a
    found = compare_scores(before, nsc(screen))
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
    found = compare_scores(wrong, right)
    assert (found.only_a_right, found.only_b_right) == (0, 11)
    assert found.p_value_mcnemar == pytest.approx(2 / 2**11)
    assert found.p_value == pytest.approx(2 / 2**4, abs=0.02)  # four compounds


def test_a_score_does_not_differ_from_itself():
    found = compare_scores(nsc(small_screen()), nsc(small_screen()))
    assert (found.p_value, found.p_value_mcnemar, len(found.changed)) == (1, 1, 0)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 1), (3, 3), (2, 9), (0, 12), (30, 31)])
def test_mcnemar_is_the_binomial_test(only_a, only_b):
    assert exact_mcnemar(only_a, only_b) == pytest.approx(binomtest(only_a, only_a + only_b).pvalue)


def test_scores_of_other_treatments_are_refused():
    screen = small_screen()
    screen.obs_names = [f"other {name}" for name in screen.obs_names]
    with pytest.raises(InputError, match="no treatment is counted in both"):
        compare_scores(nsc(small_screen()), nsc(screen))


def test_scores_of_two_protocols_are_refused():
    with pytest.raises(InputError, match="NSC and NSCB have other candidates"):
        compare_scores(nsc(small_screen()), nscb(small_screen()))
