"""Which scores a screen allows, from its metadata alone."""

import numpy as np
import pandas as pd
import pytest

from phenolens.profiles.candidates import (
    Candidates,
    countable,
    impossible_scores,
    list_separator,
    mechanism_names,
    sharing,
    treated_treatments,
)

DESIGNS = {  # mechanism of each compound, batch of each compound -> impossible scores and what their reasons name
    "several batches": (("x", "x", "y"), ("1", "2", "1"), {}),
    "one batch": (("x", "x", "y"), ("1", "1", "1"), {"NSCB": 'all are of one batch, "1"'}),
    "replicate plates": (("x", "x", "y"), ("1|2", "1|2", "1|2"), {"NSCB": "batch"}),
    "no mechanism": (("", "", ""), ("1", "2", "1"), {"NSC": "--mechanism", "NSCB": "--mechanism"}),
    "one mechanism": (("x", "x", ""), ("1", "2", "1"), {"NSC": '"x"', "NSCB": '"x"'}),
    "no partner": (("x", "y", ""), ("1", "2", "1"), {"NSC": "compound", "NSCB": "compound or batch"}),
}


@pytest.mark.parametrize("design", DESIGNS)
def test_what_is_impossible_is_known_from_the_plate_map_with_the_reason(design):
    moa, batch, expected = DESIGNS[design]
    rows = pd.DataFrame({"compound": list("abc"), "moa": moa, "batch": batch})
    found = impossible_scores(rows)
    assert found.keys() == expected.keys()
    assert all(words in found[name] for name, words in expected.items())


def test_a_common_mechanism_makes_a_list_countable():
    rows = pd.DataFrame({"compound": list("abcd"), "moa": ["x|y", "y", "z", ""]})
    assert not countable(rows, ("compound",)).any()
    assert countable(rows, ("compound",), separator="|").tolist() == [True, True, False, False]


@pytest.mark.parametrize("held_out", [("compound",), ("plate",), ("batch", "plate"), ("compound", "batch", "plate")])
def test_blocks_and_counts_of_candidates_are_those_of_each_pair(rng, held_out):
    several = lambda: ["|".join(sorted(rng.choice(list("123456789"), rng.integers(1, 3), replace=False)))]  # noqa: E731
    rows = pd.DataFrame([[rng.choice(list("abcd")), *several(), *several()] for _ in range(30)])
    rows.columns = ["compound", "batch", "plate"]
    pairs = np.array(
        [
            [all(not set(a[name].split("|")) & set(b[name].split("|")) for name in held_out) for b in rows.iloc]
            for a in rows.iloc
        ]
    )
    candidates, code = Candidates(rows, held_out), rng.integers(0, 3, 30)
    np.testing.assert_array_equal(candidates.block(slice(0, 30)), pairs)
    np.testing.assert_array_equal(candidates.block(slice(7, 9)), pairs[7:9])
    np.testing.assert_array_equal(candidates.count(code), (pairs & (code[:, None] == code)).sum(axis=1))
    same = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]])
    np.testing.assert_array_equal(candidates.count(code, same), (pairs & (same[code][:, code] > 0)).sum(axis=1))
    np.testing.assert_array_equal(pairs[np.unique(candidates.fold, return_index=True)[1]][candidates.fold], pairs)


def test_lists_are_split_and_stripped():
    assert mechanism_names("a | b||", "|") == {"a", "b"}
    np.testing.assert_array_equal(
        sharing(["a|b", "b", "c"], "|"), [[True, True, False], [True, True, False], [False, False, True]]
    )


@pytest.mark.parametrize(
    ("texts", "separator"),
    [
        (["a|b"], "|"),
        (["a;b", "a"], ";"),
        (["a;b"], ""),  # no part is in another text
        (["b; a", "a; c"], ";"),
        (["a, b", "b"], ","),
        (["a, b", "b; a"], ";"),
        (["GABA receptor agonist, selective", "x"], ""),
        (["a", "b"], ""),
    ],
)
def test_names_look_like_lists_where_a_part_is_a_name_of_its_own(texts, separator):
    assert list_separator(texts) == separator


def test_the_batches_of_a_treatment_are_joined():
    cells = pd.DataFrame({"compound": "a", "concentration_um": 1.0, "moa": None, "plate": ["p1", "p2", "p1"]})
    cells = cells.assign(batch=cells["plate"], role=["treated", "treated", "control"])
    table = treated_treatments(cells)
    assert table.to_dict("index") == {"a@1": {"compound": "a", "moa": "", "batch": "p1|p2", "plate": "p1|p2"}}
