"""Average precision by hand, against its definition and against copairs; p-values against full enumeration."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from copairs.map import average_precision as copairs_average_precision
from copairs.map import mean_average_precision as copairs_mean_average_precision
from copairs.map import multilabel
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from naive_scores import average_precision as naive_average_precision
from naive_scores import exact_nearness, exact_p_value
from phenolens.core.errors import InputError
from phenolens.profiles.average_precision import (
    average_precision,
    mean_average_precision,
    mean_by_group,
    random_average_precision,
)

SAME_COMPOUND = {"positive_same": ["compound"], "negative_different": ["compound"]}


def profiles_of(compounds: list[str], features: np.ndarray, *, plates: list[str] | None = None) -> AnnData:
    obs = pd.DataFrame({"Metadata_Compound": compounds, "Metadata_Plate": plates or ["p1"] * len(compounds)})
    obs.index = [f"row{row}" for row in range(len(obs))]
    return AnnData(np.asarray(features, dtype=np.float64), obs=obs)


def test_average_precision_by_hand():
    angles = np.radians([0, 10, 20, 30])  # from the first: b at 10, a at 20, b at 30
    profiles = profiles_of(["a", "b", "a", "b"], np.stack([np.cos(angles), np.sin(angles)], axis=1))
    table = average_precision(profiles, **SAME_COMPOUND)
    assert table.loc["row0", "average_precision"] == pytest.approx(1 / 2)
    assert list(table["n_positive"]) == [1, 1, 1, 1]
    assert list(table["n_total"]) == [3, 3, 3, 3]


def test_positives_come_first_in_a_tie():
    profiles = profiles_of(["a", "b", "a"], [[1.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
    assert average_precision(profiles, **SAME_COMPOUND).loc["row0", "average_precision"] == 1


def test_positives_can_be_asked_for_on_another_plate_only():
    profiles = profiles_of(["a", "a", "a", "b"], [[1, 0], [1, 0.1], [1, 2], [1, 1]], plates=["p1", "p1", "p2", "p2"])
    across = average_precision(profiles, **SAME_COMPOUND, positive_different=["plate"])
    assert across.loc["row0", ["average_precision", "n_positive", "n_total"]].tolist() == [1 / 2, 1, 2]
    assert average_precision(profiles, **SAME_COMPOUND).loc["row0", "average_precision"] == (1 + 2 / 3) / 2


def test_a_profile_without_positives_or_without_a_value_has_no_score():
    profiles = profiles_of(["a", "a", "b", ""], [[1, 0], [1, 0.1], [1, 2], [1, 0.05]])
    table = average_precision(profiles, **SAME_COMPOUND)
    assert table["average_precision"].isna().tolist() == [False, False, True, True]
    assert table["n_total"].tolist() == [2, 2, 2, 0]


@settings(max_examples=60, deadline=None)
@given(design=st.data())
def test_equals_the_naive_definition_on_random_designs_with_ties(design):
    n = design.draw(st.integers(4, 14))
    compounds = design.draw(st.lists(st.sampled_from("abc"), min_size=n, max_size=n))
    features = [
        design.draw(st.lists(st.integers(-2, 2), min_size=3, max_size=3).filter(any)) for _ in range(n)
    ]  # small: many ties
    assume(len(set(compounds)) > 1)
    assume(len(set(compounds)) < n)
    profiles = profiles_of(compounds, np.array(features))
    table = average_precision(profiles, **SAME_COMPOUND)
    for query in np.flatnonzero(table["n_positive"]):
        others = [other for other in range(n) if other != query]
        near = [exact_nearness(features[query], features[other]) for other in others]
        expected = naive_average_precision(near, [compounds[other] == compounds[query] for other in others])
        assert table["average_precision"].iloc[query] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("similarity", "copairs_name"), [("cosine", "cosine"), ("pearson", "correlation")])
def test_equals_copairs_on_random_designs_with_ties(similarity, copairs_name, seed):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(120, 8))
    features[60:90] = features[rng.integers(0, 60, size=30)]  # exact duplicates
    features[90:] = rng.integers(-1, 2, size=(30, 8)) + 0.5  # few values: ties between different profiles
    compounds = [f"c{code}" for code in rng.integers(0, 15, size=120)]
    plates = [f"p{code}" for code in rng.integers(0, 4, size=120)]
    profiles = profiles_of(compounds, features, plates=plates)
    ours = average_precision(
        profiles, **SAME_COMPOUND, positive_different=["plate"], negative_same=["plate"], similarity=similarity
    )
    theirs = copairs_average_precision(
        profiles.obs,
        features,
        pos_sameby=["Metadata_Compound"],
        pos_diffby=["Metadata_Plate"],
        neg_sameby=["Metadata_Plate"],
        neg_diffby=["Metadata_Compound"],
        distance=copairs_name,
        progress_bar=False,
    )
    has_positives = (ours["n_positive"] > 0).to_numpy()
    assert has_positives.sum() > 100
    np.testing.assert_allclose(
        ours["average_precision"][has_positives], theirs["average_precision"][has_positives], atol=1e-6
    )
    np.testing.assert_array_equal(ours["n_positive"], theirs["n_pos_pairs"])
    np.testing.assert_array_equal(ours["n_total"], theirs["n_total_pairs"])


@pytest.mark.parametrize("seed", range(3))
def test_several_mechanisms_equal_copairs_multilabel(seed):
    rng = np.random.default_rng(seed)
    moa = rng.choice(["a", "b", "a|b", "b|c", "c", "c|d|a"], size=60)
    obs = pd.DataFrame(
        {"Metadata_MoA": moa, "Metadata_Compound": [f"c{code}" for code in rng.integers(0, 25, size=60)]}
    )
    obs["Metadata_Role"] = "treated"
    features = rng.normal(size=(60, 6))
    ours = mean_average_precision(
        AnnData(features, obs=obs.set_index(obs.index.astype(str))), several_mechanisms="|", n_draws=10
    )
    theirs = multilabel.average_precision(
        obs.assign(Metadata_MoA=obs["Metadata_MoA"].str.split("|")),
        features,
        pos_sameby=["Metadata_MoA"],
        pos_diffby=["Metadata_Compound"],
        neg_sameby=[],
        neg_diffby=["Metadata_MoA", "Metadata_Compound"],
        multilabel_col="Metadata_MoA",
        progress_bar=False,
    )
    means = theirs.groupby("Metadata_MoA")["average_precision"].agg(["mean", "size"])
    assert list(ours["Metadata_MoA"]) == list(means.index)
    np.testing.assert_allclose(ours["mean_average_precision"], means["mean"], atol=1e-6)
    np.testing.assert_array_equal(ours["n_profiles"], means["size"])


def test_mean_average_precision_and_p_values_agree_with_copairs():
    rng = np.random.default_rng(5)
    compounds = [f"c{row % 12}" for row in range(96)]
    centres = rng.normal(size=(12, 10))
    features = np.array([centres[row % 12] for row in range(96)]) * 0.5 + rng.normal(size=(96, 10))
    profiles = profiles_of(compounds, features)
    ours = mean_by_group(average_precision(profiles, **SAME_COMPOUND), by=["compound"], n_draws=100_000)
    scores = copairs_average_precision(
        profiles.obs, features, ["Metadata_Compound"], [], [], ["Metadata_Compound"], progress_bar=False
    )
    theirs = copairs_mean_average_precision(
        scores, ["Metadata_Compound"], null_size=100_000, threshold=0.05, seed=1, progress_bar=False
    ).sort_values("Metadata_Compound")
    np.testing.assert_allclose(ours["mean_average_precision"], theirs["mean_average_precision"], atol=1e-6)
    np.testing.assert_allclose(ours["p_value"], theirs["p_value"], atol=0.01)  # both drawn: standard error 0.002
    np.testing.assert_allclose(ours["corrected_p_value"], theirs["corrected_p_value"], atol=0.02)


@pytest.mark.parametrize(("n_positive", "n_total"), [(1, 5), (2, 7), (3, 9), (2, 12)])
def test_p_values_are_those_of_all_rankings(n_positive, n_total):
    drawn = np.unique(random_average_precision(n_positive, n_total, n_draws=200, seed=3))
    table = pd.DataFrame({"row": range(len(drawn)), "average_precision": drawn})
    table = table.assign(n_positive=n_positive, n_total=n_total)
    p_values = mean_by_group(table, by=["row"], n_draws=40_000, seed=1)["p_value"]
    expected = [exact_p_value(value, n_positive, n_total) for value in drawn]
    np.testing.assert_allclose(p_values, expected, atol=0.015)  # 40,000 draws: 0.0025 standard error


def test_p_values_of_noise_are_not_small_more_often_than_they_say():
    rng = np.random.default_rng(8)
    compounds = [f"c{row % 100}" for row in range(400)]
    table = average_precision(profiles_of(compounds, rng.normal(size=(400, 20))), **SAME_COMPOUND)
    found = mean_by_group(table, by=["compound"], n_draws=5000)
    assert (found["p_value"] < 0.05).mean() < 0.12
    assert not (found["corrected_p_value"] < 0.05).any()


def test_corrected_p_values_are_benjamini_and_hochbergs(rng):
    table = pd.DataFrame({"row": range(60), "average_precision": rng.random(60), "n_positive": 2, "n_total": 9})
    found = mean_by_group(table, by=["row"], n_draws=2000)
    p = np.sort(found["p_value"])
    largest_first = np.minimum.accumulate((p * 60 / np.arange(1, 61))[::-1])[::-1]
    np.testing.assert_allclose(np.sort(found["corrected_p_value"]), np.minimum(largest_first, 1))


def test_draws_are_the_same_for_the_same_seed_and_few_or_many_positives_are_drawn_alike():
    one, again = (random_average_precision(3, 100, n_draws=500, seed=2) for _ in range(2))
    np.testing.assert_array_equal(one, again)
    # mean of all rankings of 1 among n is the mean of 1 / rank; of n among n it is 1
    np.testing.assert_allclose(
        random_average_precision(1, 50, n_draws=50_000, seed=0).mean(), np.mean(1 / np.arange(1, 51)), atol=0.01
    )
    np.testing.assert_array_equal(random_average_precision(9, 9, n_draws=10, seed=0), 1)


def test_many_blocks_give_what_one_block_gives(rng, monkeypatch):
    profiles = profiles_of([f"c{row % 7}" for row in range(50)], rng.normal(size=(50, 5)))
    whole = average_precision(profiles, **SAME_COMPOUND)
    monkeypatch.setattr("phenolens.profiles.distances.VALUES_AT_A_TIME", 150)
    assert average_precision(profiles, **SAME_COMPOUND).equals(whole)


def test_nothing_to_find_is_refused():
    profiles = profiles_of(["a", "b", "c"], [[1, 0], [1, 1], [0, 1]])
    with pytest.raises(InputError, match="no profile has a positive"):
        average_precision(profiles, **SAME_COMPOUND)
    profiles.obs["Metadata_Compound"] = "a"
    with pytest.raises(InputError, match="no profile has a negative"):
        average_precision(profiles, **SAME_COMPOUND)
    with pytest.raises(InputError, match="no metadata column Metadata_Batch"):
        average_precision(profiles, positive_same=["batch"], negative_different=["batch"])


def test_mean_average_precision_of_mechanisms_and_of_treatments(rng):
    obs = pd.DataFrame(
        [
            (compound, f"{compound}@1", moa, "treated" if moa else "control")
            for compound, moa in [("a", "m"), ("b", "m"), ("c", "k"), ("d", "k"), ("DMSO", "")]
            for _ in range(3)
        ],
        columns=["Metadata_Compound", "Metadata_Treatment", "Metadata_MoA", "Metadata_Role"],
        index=[f"row{row}" for row in range(15)],
    )
    axes = {"m": [5.0, 0, 0], "k": [0, 5.0, 0], "": [0, 0, 5.0]}
    wells = AnnData(np.array([axes[moa] for moa in obs["Metadata_MoA"]]) + 0.1 * rng.normal(size=(15, 3)), obs=obs)
    for of, names in (("treatments", ["a@1", "b@1", "c@1", "d@1"]), ("mechanisms", ["k", "m"])):
        found = mean_average_precision(wells, of=of, n_draws=500)
        assert found.iloc[:, 0].tolist() == names
        np.testing.assert_array_equal(found["mean_average_precision"], 1)
    with pytest.raises(InputError, match="treatments"):
        mean_average_precision(wells[:12].copy(), of="treatments")
    with pytest.raises(InputError, match="mechanisms"):
        mean_average_precision(wells[:6].copy(), of="mechanisms")
