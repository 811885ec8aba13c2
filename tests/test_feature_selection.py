"""Features that are left out by rule, features and rows that decide distances alone, and clipped deviations."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from phenolens import cli
from phenolens.core.errors import InputError
from phenolens.profiles.feature_selection import dominant, excluded_features, scaled_by_one_control
from phenolens.profiles.whitening import whiten
from table_source import FEATURES, FLAGS, wells


def table_of(numbers: np.ndarray, names: list[str]) -> AnnData:
    obs = pd.DataFrame(index=[f"row{row}" for row in range(len(numbers))])
    return AnnData(numbers, obs=obs, var=pd.DataFrame(index=names))


def test_each_rule_leaves_out_what_it_names(rng):
    usual = rng.normal(size=(200, 3))
    numbers = np.column_stack(
        [
            usual,
            usual[:, 0] + 0.1 * rng.normal(size=200),  # correlated with the first by 0.995
            1e-4 * rng.normal(size=200),
            np.where(np.arange(200) < 5, rng.normal(size=200), 0.0),  # 195 zeros
            np.where(np.arange(200) == 7, -501.0, rng.normal(size=200)),
            rng.normal(size=200),
        ]
    )
    names = ["a", "b", "c", "like_a", "flat", "rare", "outlier", "Nuclei_Granularity_15_DNA_mean"]
    rules = ("variance", "frequency", "correlation", "blocklist", "outliers")
    found = excluded_features(table_of(numbers, names), rules)
    (correlated,) = found.pop("features correlated with another")
    assert correlated in ("a", "like_a")
    assert found == {
        "features with little variance": ["flat"],
        "features with few different values": ["rare"],
        "features on the blocklist": ["Nuclei_Granularity_15_DNA_mean"],
        "features with outliers": ["outlier"],
    }
    assert excluded_features(table_of(numbers, names), ()) == {}


@pytest.mark.parametrize("seed", range(4))
def test_of_correlated_features_that_with_the_larger_sum_is_left_out_pair_by_pair(seed):
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=(60, 3)) @ rng.normal(size=(3, 12)) + 0.2 * rng.normal(size=(60, 12))
    names = [f"f{number}" for number in range(12)]
    sums = {a: sum(abs(np.corrcoef(numbers[:, a], numbers[:, b])[0, 1]) for b in range(12)) for a in range(12)}
    expected = set()
    for a in range(12):
        for b in range(a):
            if np.corrcoef(numbers[:, a], numbers[:, b])[0, 1] > 0.9:
                expected.add(names[max(a, b, key=lambda one: sums[one])])
    found = excluded_features(table_of(numbers, names), ("correlation",))
    assert set(found.get("features correlated with another", [])) == expected
    assert expected


def test_leaving_out_every_feature_is_refused(rng):
    with pytest.raises(InputError, match="--select-features variance"):
        excluded_features(table_of(np.zeros((9, 2)), ["a", "b"]), ("variance",))


def test_a_feature_or_a_row_that_makes_most_of_the_length_is_named(rng):
    numbers = rng.normal(size=(40, 8))
    names = [f"f{number}" for number in range(8)]
    assert dominant(table_of(numbers, names), remedy="look") == []
    one_feature = numbers * np.where(np.arange(8) == 3, 9.0, 1.0)
    (sentence,) = dominant(table_of(one_feature, names), remedy="look")
    assert sentence.startswith('feature "f3"')
    one_row = numbers * np.where(np.arange(40) == 6, 30.0, 1.0)[:, None]
    (sentence,) = dominant(table_of(one_row, names), remedy="look")
    assert sentence.startswith('row "row6"')


def test_a_control_that_alone_makes_the_spread_of_a_feature_is_named(rng):
    table = table_of(rng.normal(size=(40, 8)), [f"f{number}" for number in range(8)])
    table.obs["Metadata_Plate"] = np.repeat(["p", "q"], 20)
    table.obs["Metadata_Role"] = np.tile(np.repeat(["control", "treated"], 10), 2)
    table.X[15, 2] = 1e12  # of a treated well
    assert scaled_by_one_control(table, remedy="look") == []
    table.X[23, 5] = 1e12
    (sentence,) = scaled_by_one_control(table, remedy="look")
    assert [key for key in ('"row23"', '"f5"', "1 such feature", "look") if key not in sentence] == []


def test_scaled_values_are_clipped_before_whitening_is_fitted_and_applied():
    controls = np.array([[0.0, 0.0], [1.0, 2.0], [2.0, 1.0], [3.0, 3.0]])
    obs = pd.DataFrame({"Metadata_Role": ["control"] * 4 + ["treated"]}, index=list("abcde"))
    profiles = AnnData(np.vstack([controls, [[100.0, -100.0]]]), obs=obs)
    clipped = whiten(profiles, method="none", largest_deviation=5.0)
    assert clipped.X[4].tolist() == [5.0, -5.0]
    np.testing.assert_array_equal(clipped.X[:4], whiten(profiles, method="none").X[:4])
    tight = whiten(profiles, method="none", largest_deviation=1.0)
    np.testing.assert_array_equal(tight.X, whiten(profiles, method="none").X.clip(-1, 1))


@pytest.mark.parametrize(
    ("flags", "named"), [(["--scaling", "centre"], "--scaling"), (["--learnt-on", "treatments"], "--learnt-on")]
)
def test_a_limit_that_a_recipe_does_not_have_is_refused(tmp_path, capsys, flags, named):
    wells().to_csv(tmp_path / "t.csv", index=False)
    out = str(tmp_path / "out")
    assert (
        cli.main(["evaluate", str(tmp_path / "t.csv"), *FLAGS, "--out", out, "--largest-deviation", "9", *flags]) == 2
    )
    line = capsys.readouterr().err.splitlines()[-1]
    assert "--largest-deviation" in line
    assert named in line


def test_evaluate_names_a_feature_that_decides_alone_and_records_what_is_left_out(tmp_path, capsys):
    table = wells()
    table.loc[table["drug"] != "DMSO", "Cells_Noise"] += 1e5 * np.arange(36)
    table["Cells_Copy"] = table["Cells_Area"] * 2
    table.to_csv(tmp_path / "t.csv", index=False)
    command = ["evaluate", str(tmp_path / "t.csv"), *FLAGS, "--out", str(tmp_path / "out"), "--bootstraps", "20"]
    command += ["--shuffles", "5", "--null-draws", "50"]
    assert cli.main(command) == 0
    assert 'feature "Cells_Noise"' in capsys.readouterr().err
    assert cli.main([*command, "--select-features", "outliers", "correlation", "--largest-deviation", "50"]) == 0
    said = capsys.readouterr().err
    assert 'feature "Cells_Noise"' not in said
    assert "left out: features with outliers (1): Cells_Noise" in said
    protocol = (tmp_path / "out" / "protocol.md").read_text()
    assert "outliers, correlation" in protocol
    assert "beyond 50" in protocol
    assert "Cells_Noise" in protocol[protocol.index("## Left out") : protocol.index("## Features")]
    assert "Cells_Noise" not in protocol[protocol.index("## Features") :]
    assert set(FEATURES) - {"Cells_Noise", "Cells_Area"} <= set(
        protocol[protocol.index("## Features") :].replace(",", " ").split()
    )
